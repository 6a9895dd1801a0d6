/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of the tables, and what their rows have:
 *
 *     meta            "format", "head" (struct bk_head), "last" + server u64 -> its newest event
 *     channels        channel -> its settings and counters; that of the highest id stays when the channel has gone, since ids are not
 *                     used again
 *     records         (position, channel) -> record (record.h)
 *     by_sequence     (channel, first sequence) -> struct bk_place, CRC
 *     by_time         (newest time of the group, position) -> nothing
 *     by_session      (server, first session of the group, position) -> nothing
 *     paths           (channel u32, path text) -> the latest event of the path (record.h)
 *     by_path         (path id, first sequence of the record) -> position u64, events of the path in that record u32
 *     by_source_time  (channel, bucket of one second, position) -> nothing
 *     surplus         (channel u32, path text) -> nothing: more events than max_per_path may be kept
 *     producers, cursors
 */
#pragma once

#include <lmdb.h>
#include <stdint.h>

#define BK_STORE_FORMAT "busbar-log 2"

/* The handles, valid in every transaction of the store; they change in bk_store_compact(). */
struct bk_store_tables {
    MDB_dbi meta;
    MDB_dbi channels;
    MDB_dbi records;
    MDB_dbi by_sequence;
    MDB_dbi by_time;
    MDB_dbi by_session;
    MDB_dbi paths;
    MDB_dbi by_path;
    MDB_dbi by_source_time;
    MDB_dbi surplus;
    MDB_dbi producers;
    MDB_dbi cursors;
};

/* Value of by_sequence, without its checksum. */
struct bk_place {
    uint64_t position;
    uint64_t last;  /* sequence of the record's last event */
    uint32_t count; /* events in the record; below last - first + 1: some were taken out */
    uint64_t bytes; /* of them */
};

#define BK_PLACE_LEN   28
#define BK_BY_PATH_LEN 12

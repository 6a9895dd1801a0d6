/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of the store as bytes: a record, which is some consecutive blocks of one channel and one server,
 * and the latest event of a path. Both carry a CRC32C over key, header and body that is checked whenever they
 * are decoded.
 *
 * A record's blocks lie in wire form, so that they can be delivered as they are. Sequences rise from block to
 * block; between blocks some may be missing: events that retention took out (max_per_path).
 */
#pragma once

#include "broker/core/backend.h"

#define BK_RECORD_HEADER 72
#define BK_LATEST_HEADER 72

/* A record decoded; blocks borrow from the bytes decoded. */
struct bk_record {
    uint64_t position;
    uint32_t channel;
    uint32_t
        flags; /* enum bk_log_flags of the record: UNIFORM all its events have one path; TTL, SOURCE_TIME some may */
    uint64_t server;
    uint64_t first_sequence; /* of its first event */
    uint64_t last_sequence;  /* of its last event */
    uint32_t count;          /* events */
    uint32_t n_blocks;
    uint64_t newest_time;   /* of its last block */
    uint64_t group_time;    /* the newest of all records of its position: the key in by_time */
    uint64_t group_session; /* the first of all records of its position: the key in by_session */
    uint64_t bytes;         /* of its events, without the heads of blocks */
    struct bb_slice blocks;
};

/* The latest event of a path; event borrows. */
struct bk_latest {
    uint64_t path_id;
    uint64_t sequence;
    uint64_t session;
    uint64_t instance;
    uint64_t time;
    uint64_t source;
    uint64_t server;
    uint64_t kept; /* events of the path that are in records now; 0: only this copy is left */
    struct bb_slice event;
};

/** bk_record_encode() - append the value of @record to @out; errors are sticky there. */
void bk_record_encode(struct bb_buf *out, const struct bk_record *record);

/**
 * bk_record_decode() - from key and value as the table has them
 *
 * Return: 0, BB_ECORRUPT (CRC, lengths), BB_EVERSION (a record form that this version does not know).
 */
BB_MUST_CHECK int bk_record_decode(struct bb_slice key, struct bb_slice value, struct bk_record *ret_record);

/**
 * bk_record_next_block() - take the next block off the front of @rest, which begins as a record's `blocks`
 * @ret_events: its events, may be NULL
 * @ret_wire:   head and events, as delivered, may be NULL
 *
 * Return: 1 with a block, 0 at the end, BB_ECORRUPT.
 */
BB_MUST_CHECK int bk_record_next_block(struct bb_slice *rest,
                                       struct bb_block *ret_block,
                                       struct bb_slice *ret_events,
                                       struct bb_slice *ret_wire);

/** bk_latest_encode() - append the value of @latest under @key (channel u32, path) to @out; errors are sticky
 * there. */
void bk_latest_encode(struct bb_buf *out, struct bb_slice key, const struct bk_latest *latest);

/** bk_latest_decode() - Return: 0, BB_ECORRUPT. */
BB_MUST_CHECK int bk_latest_decode(struct bb_slice key, struct bb_slice value, struct bk_latest *ret_latest);

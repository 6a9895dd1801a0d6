/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A write transaction on the store and what it remembers until the commit: the channels and paths it came
 * across, which go into their tables once, at the end. Shared by apply.c and retention.c only.
 */
#pragma once

#include "proto/base/map.h"

#include "broker/backend/lmdb/record.h"
#include "broker/backend/lmdb/row.h"
#include "broker/backend/lmdb/store.h"
#include "broker/backend/lmdb/txn.h"

/* A channel in this transaction. */
struct bk_write_channel {
    uint8_t key[BK_KEY_CHANNEL];
    struct bk_log_channel info; /* name and settings borrow from `text` */
    struct bb_buf text;
    bool exists;
    bool dirty;
    uint64_t first_before; /* sequence, when the transaction began */
    size_t record;         /* apply: index + 1 of its record in the open group, 0 for none */
};

/* A path in this transaction. */
struct bk_write_path {
    struct bk_write_channel *channel;
    struct bk_latest latest; /* event: only when `fresh`, and then borrowed from the input */
    uint64_t here;           /* events of it in the record being written */
    uint64_t drop;           /* retention: how many of those may go */
    uint32_t before;         /* retention: events of it that were in the record */
    uint8_t key_len;
    bool fresh; /* the latest event is another one */
    bool dirty;
    uint8_t key[];
};

struct bk_write {
    struct bk_store *store;
    MDB_txn *txn;
    struct bb_map channels;
    struct bb_map paths;
    struct bk_write_path **here; /* paths whose `here` or `before` is not 0 */
    size_t n_here;
    size_t here_cap;
    struct bk_head head;
    bool changed; /* some table was written */
    struct bb_buf scratch;
};

/** bk_write_begin() - Return: 0, BB_ESYSTEM, BB_ENOMEM, BB_ECORRUPT; on error nothing needs to be ended. */
BB_MUST_CHECK int bk_write_begin(struct bk_write *write, struct bk_store *store);

/** bk_write_finish() - commit if @error is 0 and something changed, abort otherwise, free. Return: @error, or
 * why the commit failed. */
BB_MUST_CHECK int bk_write_finish(struct bk_write *write, int error);

/** bk_write_channel() - the channel, read once. Return: 0 (also when it does not exist: see `exists`), or an
 * error. */
BB_MUST_CHECK int
bk_write_channel(struct bk_write *write, uint32_t id, struct bk_write_channel **ret_channel);

/**
 * bk_write_path() - the path, read once; given an id if it is new and @make
 *
 * Return: 0; BB_ENOTFOUND (not @make); BB_ECORRUPT and others.
 */
BB_MUST_CHECK int bk_write_path(struct bk_write *write,
                                struct bk_write_channel *channel,
                                struct bb_slice path,
                                bool make,
                                struct bk_write_path **ret_path);

/** bk_write_here() - note that @path is in the record being written. Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_write_here(struct bk_write *write, struct bk_write_path *path);

/** bk_write_paths() - put changed paths into their table and forget all; between records only. */
BB_MUST_CHECK int bk_write_paths(struct bk_write *write);

/** bk_write_paths_if_many() - the same when there are so many that memory matters. */
BB_MUST_CHECK int bk_write_paths_if_many(struct bk_write *write);

BB_MUST_CHECK int
bk_put(struct bk_write *write, MDB_dbi dbi, struct bb_slice key, struct bb_slice value, unsigned int flags);

/** bk_put_row() - seal what is in `scratch` and put it. One that is there and damaged is left: BB_ECORRUPT. */
BB_MUST_CHECK int bk_put_row(struct bk_write *write, enum bk_row_table table, struct bb_slice key);

/** bk_delete_row() - what is not there is fine. */
BB_MUST_CHECK int bk_delete_row(struct bk_write *write, enum bk_row_table table, struct bb_slice key);

/** bk_delete() - what is not there is fine. */
BB_MUST_CHECK int bk_delete(struct bk_write *write, MDB_dbi dbi, struct bb_slice key);

/** bk_write_place() - put an entry of by_sequence. */
BB_MUST_CHECK int
bk_write_place(struct bk_write *write, uint32_t channel, uint64_t first, const struct bk_place *place);

/** bk_write_by_path() - put an entry of by_path. */
BB_MUST_CHECK int
bk_write_by_path(struct bk_write *write, uint64_t path_id, uint64_t first, uint64_t position, uint64_t n);

/** bk_purge_all() - finish the removal of a channel at once (retention.c). */
BB_MUST_CHECK int bk_purge_all(struct bk_write *write, struct bk_write_channel *channel);

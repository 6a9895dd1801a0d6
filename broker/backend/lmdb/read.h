/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the tables for subscriptions. On the read thread; each call opens and ends a read transaction of
 * its own. */
#pragma once

#include "broker/backend/lmdb/store.h"

/* The blocks of one position, of some channels, in the order of their sessions. */
struct bk_group_block {
    uint32_t channel;
    uint64_t server;
    struct bb_block head;
    struct bb_slice events;
    struct bb_slice wire;
    uint32_t flags; /* of its record */
};

/** bk_group_add() - append the blocks of a record to @list, struct bk_group_block. Return: 0, BB_ENOMEM,
 * BB_ECORRUPT. */
BB_MUST_CHECK int bk_group_add(struct bb_buf *list, const struct bk_record *record);

/** bk_group_sort() - by session and instance. */
void bk_group_sort(struct bb_buf *list);

/** bk_lmdb_read() - BK_REQUEST_READ. Return: 0, BB_ENOMEM, BB_ECORRUPT, BB_ESYSTEM. */
BB_MUST_CHECK int bk_lmdb_read(struct bk_store *store, struct bk_read *read, struct bk_meter *meter);

/** bk_lmdb_locate() - BK_REQUEST_LOCATE; the same errors. */
BB_MUST_CHECK int bk_lmdb_locate(struct bk_store *store, struct bk_locate *locate);

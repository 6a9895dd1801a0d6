/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is registered, as bytes: the payload of a journal record and the input of the store. A batch is a row
 * of entries, each of which says its kind and length, so batches put behind each other are a batch again.
 * Nothing here allocates but the buffer written to.
 *
 *     entry = kind u8, length u32, body; numbers are big-endian
 */
#pragma once

#include "broker/core/backend.h"

enum bk_batch_kind {
    BK_BATCH_CHANNEL = 1,
    BK_BATCH_BLOCK = 2,
    BK_BATCH_PRODUCER = 3,
    BK_BATCH_CURSOR = 4,
};

/* One entry; slices and pointers borrow from the batch. */
struct bk_batch_entry {
    enum bk_batch_kind kind;
    union {
        struct bk_log_channel channel; /* first, last, events and bytes are 0 */
        struct bk_log_block block;     /* owner is NULL, error 0 */
        struct bk_log_producer producer;
        struct bk_log_cursor cursor;
    };
    struct bb_slice wire; /* BK_BATCH_BLOCK: the block as it is delivered, head and events */
};

/** bk_batch_size() - a number of bytes that bk_batch_encode() does not exceed for @append. */
size_t bk_batch_size(const struct bk_append *append);

/**
 * bk_batch_encode() - append @append to @out as entries: channels, blocks (those whose error is 0),
 * producers, cursors
 *
 * Return: 0; BB_ENOMEM or BB_ETOOBIG (an entry of 4 GiB): then @out is as it was, but for a sticky error that
 * it had before.
 */
BB_MUST_CHECK int bk_batch_encode(struct bb_buf *out, const struct bk_append *append);

/**
 * bk_batch_next() - take the next entry off the front of @rest
 * @rest: distrusted bytes; advanced past the entry
 *
 * Numbers, lengths and heads are checked, the bytes of events are not.
 *
 * Return: 1 with an entry, 0 at the end, BB_EMALFORMED.
 */
BB_MUST_CHECK int bk_batch_next(struct bb_slice *rest, struct bk_batch_entry *ret_entry);

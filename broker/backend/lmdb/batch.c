/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/batch.h"

#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"

#define ENTRY_HEAD   5
#define RETENTION    5
#define KEY_LEN      (BB_CLIENT_ID_LEN + 8)
#define CHANNEL_LEN  (4 + 1 + RETENTION * 8 + 4 + 4)
#define BLOCK_LEN    (4 + 4 + 8)
#define PRODUCER_LEN (KEY_LEN + 1 + 8 + 8)
#define CURSOR_LEN   (1 + 4)

_Static_assert(ENTRY_HEAD + BLOCK_LEN + BB_BLOCK_HEAD_MAX <= BK_ENTRY_SIZE, "what the core counts is enough");
_Static_assert(ENTRY_HEAD + CHANNEL_LEN <= BK_ENTRY_SIZE, "the same");
_Static_assert(ENTRY_HEAD + PRODUCER_LEN <= BK_ENTRY_SIZE, "the same");

size_t bk_batch_size(const struct bk_append *append)
{
    size_t size = append->n_channels * (ENTRY_HEAD + CHANNEL_LEN) +
                  append->n_blocks * (ENTRY_HEAD + BLOCK_LEN + BB_BLOCK_HEAD_MAX) +
                  append->n_producers * (ENTRY_HEAD + PRODUCER_LEN) +
                  append->n_cursors * (ENTRY_HEAD + CURSOR_LEN);
    for (size_t i = 0; i < append->n_channels; i++) {
        size += append->channels[i].name.len + append->channels[i].settings.len;
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        size += append->blocks[i].head.length;
    }
    for (size_t i = 0; i < append->n_producers; i++) {
        size += append->producers[i].notes.len;
    }
    for (size_t i = 0; i < append->n_cursors; i++) {
        size += append->cursors[i].name.len + append->cursors[i].value.len;
    }
    return size;
}

static void put_slice(struct bb_buf *out, struct bb_slice slice)
{
    bb_buf_append(out, slice.data, slice.len);
}

static void put_number(struct bb_buf *out, uint64_t number)
{
    uint8_t bytes[8];
    bk_put_u64(bytes, number);
    bb_buf_append(out, bytes, sizeof(bytes));
}

static void put_small(struct bb_buf *out, uint32_t number)
{
    uint8_t bytes[4];
    bk_put_u32(bytes, number);
    bb_buf_append(out, bytes, sizeof(bytes));
}

static void put_entry(struct bb_buf *out, enum bk_batch_kind kind, size_t len)
{
    bb_buf_append_byte(out, (uint8_t)kind);
    put_small(out, (uint32_t)len);
    if (len > UINT32_MAX && out->error == 0) {
        out->error = BB_ETOOBIG;
    }
}

static void put_channel(struct bb_buf *out, const struct bk_log_channel *channel)
{
    const struct bk_retention *retention = &channel->retention;
    put_entry(out, BK_BATCH_CHANNEL, CHANNEL_LEN + channel->name.len + channel->settings.len);
    put_small(out, channel->id);
    bb_buf_append_byte(out, channel->removed);
    put_number(out, retention->max_age_us);
    put_number(out, retention->max_bytes);
    put_number(out, retention->max_events);
    put_number(out, retention->max_per_path);
    put_number(out, retention->min_events);
    put_small(out, (uint32_t)channel->name.len);
    put_slice(out, channel->name);
    put_small(out, (uint32_t)channel->settings.len);
    put_slice(out, channel->settings);
}

static void put_block(struct bb_buf *out, const struct bk_log_block *block)
{
    uint8_t head[BB_BLOCK_HEAD_MAX];
    size_t head_len = bb_block_write(head, &block->head);
    put_entry(out, BK_BATCH_BLOCK, BLOCK_LEN + head_len + block->head.length);
    put_small(out, block->channel);
    put_small(out, block->flags);
    put_number(out, block->server);
    bb_buf_append(out, head, head_len);
    bb_buf_append(out, block->events, block->head.length);
}

static void put_producer(struct bb_buf *out, const struct bk_log_producer *producer)
{
    put_entry(out, BK_BATCH_PRODUCER, PRODUCER_LEN + producer->notes.len);
    bb_buf_append(out, producer->key, KEY_LEN);
    bb_buf_append_byte(out, producer->removed);
    put_number(out, producer->last);
    put_number(out, producer->time);
    put_slice(out, producer->notes);
}

static void put_cursor(struct bb_buf *out, const struct bk_log_cursor *cursor)
{
    put_entry(out, BK_BATCH_CURSOR, CURSOR_LEN + cursor->name.len + cursor->value.len);
    bb_buf_append_byte(out, cursor->removed);
    put_small(out, (uint32_t)cursor->name.len);
    put_slice(out, cursor->name);
    put_slice(out, cursor->value);
}

int bk_batch_encode(struct bb_buf *out, const struct bk_append *append)
{
    if (out->error != 0) {
        return out->error;
    }
    size_t before = out->len;
    for (size_t i = 0; i < append->n_channels; i++) {
        put_channel(out, &append->channels[i]);
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        if (append->blocks[i].error == 0) {
            put_block(out, &append->blocks[i]);
        }
    }
    for (size_t i = 0; i < append->n_producers; i++) {
        put_producer(out, &append->producers[i]);
    }
    for (size_t i = 0; i < append->n_cursors; i++) {
        put_cursor(out, &append->cursors[i]);
    }
    int error = out->error;
    if (error != 0) {
        out->len = before;
        out->error = 0;
    }
    return error;
}

/* --- reading: a cursor over distrusted bytes with a sticky error ----------------------------------- */

struct taker {
    struct bb_slice rest;
    bool failed;
};

static struct bb_slice take(struct taker *taker, size_t len)
{
    if (taker->failed || len > taker->rest.len) {
        taker->failed = true;
        return (struct bb_slice){NULL, 0};
    }
    struct bb_slice taken = {taker->rest.data, len};
    taker->rest = (struct bb_slice){taker->rest.data + len, taker->rest.len - len};
    return taken;
}

static uint32_t take_small(struct taker *taker)
{
    struct bb_slice taken = take(taker, 4);
    return taker->failed ? 0 : bk_get_u32(taken.data);
}

static uint64_t take_number(struct taker *taker)
{
    struct bb_slice taken = take(taker, 8);
    return taker->failed ? 0 : bk_get_u64(taken.data);
}

static bool take_flag(struct taker *taker)
{
    struct bb_slice taken = take(taker, 1);
    taker->failed = taker->failed || taken.data[0] > 1;
    return !taker->failed && taken.data[0] == 1;
}

static struct bb_slice take_rest(struct taker *taker)
{
    return take(taker, taker->rest.len);
}

static void take_channel(struct taker *taker, struct bk_log_channel *channel)
{
    channel->id = take_small(taker);
    channel->removed = take_flag(taker);
    channel->retention.max_age_us = take_number(taker);
    channel->retention.max_bytes = take_number(taker);
    channel->retention.max_events = take_number(taker);
    channel->retention.max_per_path = take_number(taker);
    channel->retention.min_events = take_number(taker);
    channel->name = take(taker, take_small(taker));
    channel->settings = take(taker, take_small(taker));
}

static void take_block(struct taker *taker, struct bk_batch_entry *entry)
{
    struct bk_log_block *block = &entry->block;
    block->channel = take_small(taker);
    block->flags = take_small(taker);
    block->server = take_number(taker);
    entry->wire = taker->rest;
    if (taker->failed || bb_block_read_head(&taker->rest, &block->head) < 0 || block->head.count == 0) {
        taker->failed = true;
        return;
    }
    block->events = take(taker, block->head.length).data;
}

static void take_producer(struct taker *taker, struct bk_log_producer *producer)
{
    struct bb_slice key = take(taker, KEY_LEN);
    if (!taker->failed) {
        memcpy(producer->key, key.data, KEY_LEN);
    }
    producer->removed = take_flag(taker);
    producer->last = take_number(taker);
    producer->time = take_number(taker);
    producer->notes = take_rest(taker);
}

static void take_cursor(struct taker *taker, struct bk_log_cursor *cursor)
{
    cursor->removed = take_flag(taker);
    cursor->name = take(taker, take_small(taker));
    cursor->value = take_rest(taker);
}

int bk_batch_next(struct bb_slice *rest, struct bk_batch_entry *ret_entry)
{
    if (rest->len == 0) {
        return 0;
    }
    struct taker outer = {*rest, false};
    struct bb_slice kind = take(&outer, 1);
    struct taker body = {take(&outer, take_small(&outer)), false};
    if (outer.failed) {
        return BB_EMALFORMED;
    }
    *ret_entry = (struct bk_batch_entry){.kind = (enum bk_batch_kind)kind.data[0]};
    switch (kind.data[0]) {
    case BK_BATCH_CHANNEL:
        take_channel(&body, &ret_entry->channel);
        break;
    case BK_BATCH_BLOCK:
        take_block(&body, ret_entry);
        break;
    case BK_BATCH_PRODUCER:
        take_producer(&body, &ret_entry->producer);
        break;
    case BK_BATCH_CURSOR:
        take_cursor(&body, &ret_entry->cursor);
        break;
    default:
        return BB_EMALFORMED;
    }
    if (body.failed || body.rest.len > 0) {
        return BB_EMALFORMED;
    }
    *rest = outer.rest;
    return 1;
}

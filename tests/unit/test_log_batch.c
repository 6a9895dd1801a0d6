/* SPDX-License-Identifier: Apache-2.0 */
/* What is registered as bytes, and back, from bytes that may be anything. */
#include "proto/base/error.h"

#include "broker/backend/lmdb/batch.h"

#include <criterion/criterion.h>

static const uint8_t events[] = {0x92, 0xa1, 'a', 0x01, 0x92, 0xa1, 'b', 0x02};

struct sample {
    struct bk_log_channel channel;
    struct bk_log_block blocks[2];
    struct bk_log_producer producer;
    struct bk_log_cursor cursor;
    struct bk_append append;
};

static void sample_init(struct sample *sample)
{
    *sample = (struct sample){
        .channel = {.id = 7,
                    .name = bb_slice_str("orders"),
                    .retention = {1, 2, 3, 4, 5},
                    .settings = bb_slice_str("\x80")},
        .blocks = {{.channel = 7, .flags = BK_LOG_TTL, .server = 3, .events = events},
                   {.channel = 7, .server = 3, .events = events, .error = BB_ETIME}},
        .producer = {.key = {1, 2, 3}, .last = 9, .time = 10, .notes = bb_slice_str("n")},
        .cursor = {.name = bb_slice_str("me"), .value = bb_slice_str("here")},
    };
    const struct bb_block head = {11, 12, 13, 14, 1, 2, sizeof(events)};
    sample->blocks[0].head = head;
    sample->blocks[1].head = head;
    sample->append =
        (struct bk_append){&sample->channel, 1, sample->blocks, 2, &sample->producer, 1, &sample->cursor, 1};
}

static void check_all(struct bb_slice rest)
{
    struct bk_batch_entry entry;
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert_eq(entry.kind, BK_BATCH_CHANNEL);
    cr_assert_eq(entry.channel.id, 7);
    cr_assert(bb_slice_equal(entry.channel.name, bb_slice_str("orders")));
    cr_assert(bb_slice_equal(entry.channel.settings, bb_slice_str("\x80")));
    cr_assert_eq(entry.channel.retention.max_age_us, 1);
    cr_assert_eq(entry.channel.retention.min_events, 5);
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert_eq(entry.kind, BK_BATCH_BLOCK);
    cr_assert_eq(entry.block.server, 3);
    cr_assert_eq(entry.block.flags, BK_LOG_TTL);
    cr_assert_eq(entry.block.head.sequence, 14);
    cr_assert(bb_slice_equal(bb_slice(entry.block.events, sizeof(events)), bb_slice(events, sizeof(events))));
    struct bb_block head;
    struct bb_slice wire = entry.wire;
    cr_assert_eq(bb_block_read(&wire, &head), 0);
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert_eq(entry.kind, BK_BATCH_PRODUCER);
    cr_assert_eq(entry.producer.last, 9);
    cr_assert(bb_slice_equal(entry.producer.notes, bb_slice_str("n")));
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert_eq(entry.kind, BK_BATCH_CURSOR);
    cr_assert(bb_slice_equal(entry.cursor.value, bb_slice_str("here")));
}

Test(log_batch, comes_back_without_what_was_refused)
{
    struct sample sample;
    struct bb_buf out = BB_BUF_INIT;
    sample_init(&sample);
    cr_assert_eq(bk_batch_encode(&out, &sample.append), 0);
    cr_assert_leq(out.len, bk_batch_size(&sample.append));
    size_t one = out.len;
    cr_assert_eq(bk_batch_encode(&out, &sample.append), 0);
    check_all(bb_buf_slice(&out));
    check_all(bb_slice(out.data + one, out.len - one));
    bb_buf_fini(&out);
}

Test(log_batch, cut_off_and_flipped_bytes_are_no_danger)
{
    struct sample sample;
    struct bb_buf out = BB_BUF_INIT;
    sample_init(&sample);
    cr_assert_eq(bk_batch_encode(&out, &sample.append), 0);
    for (size_t at = 0; at < out.len; at++) {
        for (unsigned int flip = 0; flip < 256; flip += 51) {
            struct bb_buf copy = BB_BUF_INIT;
            bb_buf_append(&copy, out.data, flip == 0 ? at : out.len);
            if (flip != 0) {
                copy.data[at] ^= (uint8_t)flip;
            }
            struct bb_slice rest = bb_buf_slice(&copy);
            struct bk_batch_entry entry;
            int next = 1;
            while ((next = bk_batch_next(&rest, &entry)) > 0) {
            }
            cr_assert(next == 0 || next == BB_EMALFORMED);
            bb_buf_fini(&copy);
        }
    }
    bb_buf_fini(&out);
}

Test(log_batch, what_is_removed_and_what_is_empty_comes_back)
{
    struct bk_log_channel channel = {.id = UINT32_MAX, .removed = true, .retention = BK_RETENTION_INIT};
    struct bk_log_producer producer = {.removed = true, .last = UINT64_MAX, .time = UINT64_MAX};
    struct bk_log_cursor cursor = {.removed = true};
    const struct bk_append append = {&channel, 1, NULL, 0, &producer, 1, &cursor, 1};
    const struct bk_append nothing = {0};
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(bk_batch_encode(&out, &nothing), 0);
    cr_assert_eq(out.len, 0);
    cr_assert_eq(bk_batch_encode(&out, &append), 0);
    struct bb_slice rest = bb_buf_slice(&out);
    struct bk_batch_entry entry;
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert(entry.channel.removed && entry.channel.id == UINT32_MAX);
    cr_assert_eq(entry.channel.retention.max_per_path, BK_NO_LIMIT);
    cr_assert_eq(entry.channel.name.len + entry.channel.settings.len, 0);
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert(entry.producer.removed && entry.producer.notes.len == 0);
    cr_assert(entry.producer.last == UINT64_MAX && entry.producer.time == UINT64_MAX);
    cr_assert_eq(bk_batch_next(&rest, &entry), 1);
    cr_assert(entry.cursor.removed && entry.cursor.name.len + entry.cursor.value.len == 0);
    cr_assert_eq(bk_batch_next(&rest, &entry), 0);
    bb_buf_fini(&out);
}

/* Its length does not fit, so nothing of the append is left; the bytes are never looked at. */
Test(log_batch, an_entry_that_is_too_long_leaves_no_trace)
{
    struct bk_log_cursor cursors[] = {{.name = bb_slice_str("small")},
                                      {.name = bb_slice_str("large"), .value = {NULL, SIZE_MAX / 2}}};
    const struct bk_append append = {.cursors = cursors, .n_cursors = 2};
    struct bb_buf out = BB_BUF_INIT;
    bb_buf_append(&out, "before", 6);
    cr_assert_eq(bk_batch_encode(&out, &append), BB_ETOOBIG);
    cr_assert_eq(out.error, 0);
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice_str("before")));
    out.error = BB_ENOMEM;
    cr_assert_eq(bk_batch_encode(&out, &append), BB_ENOMEM);
    out.error = 0;
    bb_buf_fini(&out);
}

/* --- entries that cannot be followed --------------------------------------------------------------- */

/* An entry whose length is @len, whatever its body is. */
static void put_raw(struct bb_buf *out, uint8_t kind, uint32_t len, const void *body, size_t body_len)
{
    const uint8_t head[] = {kind, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                            (uint8_t)len};
    bb_buf_append(out, head, sizeof(head));
    bb_buf_append(out, body, body_len);
}

/* It is refused, and what could not be taken stays where it is. */
static void is_malformed(struct bb_buf *batch, const char *what)
{
    struct bb_slice rest = bb_buf_slice(batch);
    struct bk_batch_entry entry;
    cr_assert_eq(bk_batch_next(&rest, &entry), BB_EMALFORMED, "%s", what);
    cr_assert(rest.data == batch->data && rest.len == batch->len, "%s", what);
    bb_buf_fini(batch);
}

Test(log_batch, heads_that_lie)
{
    struct bb_buf batch = BB_BUF_INIT;
    for (size_t len = 1; len < 5; len++) {
        bb_buf_append(&batch, "\x04\0\0\0\x05", len);
        is_malformed(&batch, "a head cut off");
    }
    static const uint8_t unknown[] = {0, 5, 255};
    for (size_t i = 0; i < BB_COUNT(unknown); i++) {
        put_raw(&batch, unknown[i], 5, "\0\0\0\0\0", 5);
        is_malformed(&batch, "an unknown kind");
    }
    put_raw(&batch, BK_BATCH_CURSOR, 6, "\0\0\0\0\0", 5);
    is_malformed(&batch, "a body cut off");
    put_raw(&batch, BK_BATCH_CURSOR, UINT32_MAX, "\0\0\0\0\0", 5);
    is_malformed(&batch, "a length without end");
    for (uint8_t kind = BK_BATCH_CHANNEL; kind <= BK_BATCH_CURSOR; kind++) {
        put_raw(&batch, kind, 0, NULL, 0);
        is_malformed(&batch, "an empty body");
    }
}

/* Where things are in a body: batch.c. */
#define CHANNEL_FLAG_AT     4
#define CHANNEL_NAME_AT     45
#define CHANNEL_SETTINGS_AT 49
#define BLOCK_HEAD_AT       16
#define PRODUCER_FLAG_AT    (BB_CLIENT_ID_LEN + 8)
#define CURSOR_NAME_AT      1

/* A body of zeros but for @byte at @at. */
static void put_zeros(struct bb_buf *out, uint8_t kind, uint32_t len, size_t at, uint8_t byte)
{
    uint8_t body[128] = {0};
    body[at] = byte;
    put_raw(out, kind, len, body, len);
}

Test(log_batch, channels_that_lie)
{
    struct bb_buf batch = BB_BUF_INIT;
    struct bb_slice rest;
    struct bk_batch_entry entry;
    put_zeros(&batch, BK_BATCH_CHANNEL, 53, 0, 0);
    rest = bb_buf_slice(&batch);
    cr_assert_eq(bk_batch_next(&rest, &entry), 1, "the sizes of this test are wrong");
    bb_buf_fini(&batch);
    put_zeros(&batch, BK_BATCH_CHANNEL, 53, CHANNEL_FLAG_AT, 2);
    is_malformed(&batch, "a flag that is neither");
    put_zeros(&batch, BK_BATCH_CHANNEL, 53, CHANNEL_NAME_AT, 0x80);
    is_malformed(&batch, "a name without end");
    put_zeros(&batch, BK_BATCH_CHANNEL, 53, CHANNEL_NAME_AT + 3, 1);
    is_malformed(&batch, "a name that takes a byte of what follows");
    put_zeros(&batch, BK_BATCH_CHANNEL, 53, CHANNEL_SETTINGS_AT + 3, 1);
    is_malformed(&batch, "settings that are not there");
    put_zeros(&batch, BK_BATCH_CHANNEL, 54, 0, 0);
    is_malformed(&batch, "a byte too many");
    for (uint32_t len = 1; len < 53; len++) {
        put_zeros(&batch, BK_BATCH_CHANNEL, len, 0, 0);
        is_malformed(&batch, "a channel cut off");
    }
}

/* A block with @head, and @n bytes of events behind it. */
static void put_block(struct bb_buf *out, const struct bb_block *head, size_t n)
{
    uint8_t body[BLOCK_HEAD_AT + BB_BLOCK_HEAD_MAX + 16] = {0};
    size_t len = BLOCK_HEAD_AT + bb_block_write(body + BLOCK_HEAD_AT, head) + n;
    put_raw(out, BK_BATCH_BLOCK, (uint32_t)len, body, len);
}

Test(log_batch, blocks_that_lie)
{
    struct bb_buf batch = BB_BUF_INIT;
    struct bb_slice rest;
    struct bk_batch_entry entry;
    struct bb_block head = {1, 2, 3, 4, 1, 1, 8};
    put_block(&batch, &head, 8);
    rest = bb_buf_slice(&batch);
    cr_assert_eq(bk_batch_next(&rest, &entry), 1, "the sizes of this test are wrong");
    bb_buf_fini(&batch);
    put_block(&batch, &head, 7);
    is_malformed(&batch, "events cut off");
    put_block(&batch, &head, 9);
    is_malformed(&batch, "a byte too many");
    head.count = 0;
    put_block(&batch, &head, 8);
    is_malformed(&batch, "a block without events");
    head = (struct bb_block){1, 2, 3, 4, 1, 1, UINT64_MAX};
    put_block(&batch, &head, 8);
    is_malformed(&batch, "a length without end");
    put_zeros(&batch, BK_BATCH_BLOCK, 40, 0, 0);
    is_malformed(&batch, "a head that is no array");
    put_zeros(&batch, BK_BATCH_BLOCK, 40, BLOCK_HEAD_AT, 0x96);
    is_malformed(&batch, "a head of six");
    put_zeros(&batch, BK_BATCH_BLOCK, BLOCK_HEAD_AT + 3, BLOCK_HEAD_AT, 0x97);
    is_malformed(&batch, "a head cut off");
    put_zeros(&batch, BK_BATCH_BLOCK, BLOCK_HEAD_AT - 1, 0, 0);
    is_malformed(&batch, "no room for numbers");
}

Test(log_batch, producers_and_cursors_that_lie)
{
    struct bb_buf batch = BB_BUF_INIT;
    put_zeros(&batch, BK_BATCH_PRODUCER, PRODUCER_FLAG_AT + 17, PRODUCER_FLAG_AT, 2);
    is_malformed(&batch, "a flag that is neither");
    for (uint32_t len = 1; len < PRODUCER_FLAG_AT + 17; len++) {
        put_zeros(&batch, BK_BATCH_PRODUCER, len, 0, 0);
        is_malformed(&batch, "a producer cut off");
    }
    put_zeros(&batch, BK_BATCH_CURSOR, 5, 0, 255);
    is_malformed(&batch, "a flag that is neither");
    put_zeros(&batch, BK_BATCH_CURSOR, 8, CURSOR_NAME_AT + 3, 4);
    is_malformed(&batch, "a name cut off");
    for (uint32_t len = 1; len < 5; len++) {
        put_zeros(&batch, BK_BATCH_CURSOR, len, 0, 0);
        is_malformed(&batch, "a cursor cut off");
    }
}

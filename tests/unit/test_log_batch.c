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

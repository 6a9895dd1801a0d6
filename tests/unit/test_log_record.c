/* SPDX-License-Identifier: Apache-2.0 */
/* The values of the tables: they come back as they were, and nothing else comes back. */
#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"
#include "broker/backend/lmdb/record.h"
#include "broker/backend/lmdb/store.h"
#include "broker/backend/lmdb/write.h"

#include <criterion/criterion.h>

/* Where both forms have their checksum, record.c. */
#define CRC_AT 4

static const uint8_t events[] = {0x92, 0xa1, 'a', 0x01, 0x92, 0xa1, 'b', 0x02};

typedef int decode_fn(struct bb_slice key, struct bb_slice value);

static int decode_record(struct bb_slice key, struct bb_slice value)
{
    struct bk_record record;
    return bk_record_decode(key, value, &record);
}

static int decode_latest(struct bb_slice key, struct bb_slice value)
{
    struct bk_latest latest;
    return bk_latest_decode(key, value, &latest);
}

static int decode_place(struct bb_slice key, struct bb_slice value)
{
    struct bk_place place;
    return bk_place_read(key, value, &place);
}

static int decode_channel(struct bb_slice key, struct bb_slice value)
{
    struct bk_log_channel channel;
    return bk_channel_decode(key, value, &channel);
}

/* A piece of memory that ends where it ends, so that the sanitizers see a byte read behind it. */
static uint8_t *exactly(const uint8_t *bytes, size_t len)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    cr_assert_not_null(copy);
    memcpy(copy, bytes, len);
    return copy;
}

/* Each bit turned over, each length, another key: never taken for what it was. */
static void is_guarded(decode_fn *decode, struct bb_slice key, struct bb_slice value)
{
    uint8_t *copy = exactly(value.data, value.len);
    cr_assert_eq(decode(key, bb_slice(copy, value.len)), 0);
    for (size_t bit = 0; bit < value.len * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1U << bit % 8);
        cr_assert_eq(decode(key, bb_slice(copy, value.len)), BB_ECORRUPT, "bit %zu", bit);
        copy[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    free(copy);
    for (size_t len = 0; len < value.len; len++) {
        copy = exactly(value.data, len);
        cr_assert_eq(decode(key, bb_slice(copy, len)), BB_ECORRUPT, "length %zu", len);
        free(copy);
    }
    uint8_t *other = exactly(key.data, key.len);
    for (size_t i = 0; i < key.len; i++) {
        other[i] ^= 1;
        cr_assert_eq(decode(bb_slice(other, key.len), value), BB_ECORRUPT, "key %zu", i);
        other[i] ^= 1;
    }
    cr_assert_eq(decode(bb_slice(key.data, 3), value), BB_ECORRUPT);
    free(other);
}

/* Of the next version, with a checksum that fits. */
static void make_newer(struct bb_buf *value, struct bb_slice key)
{
    value->data[0]++;
    uint32_t crc = bb_crc32c(bb_crc32c(0, key.data, key.len), value->data, CRC_AT);
    bk_put_u32(value->data + CRC_AT, bb_crc32c(crc, value->data + CRC_AT + 4, value->len - CRC_AT - 4));
}

static void put_block(struct bb_buf *out, uint64_t sequence, uint64_t length)
{
    uint8_t head[BB_BLOCK_HEAD_MAX];
    const struct bb_block block = {11, 12, 13, sequence, 1, 2, length};
    bb_buf_append(out, head, bb_block_write(head, &block));
    bb_buf_append(out, events, sizeof(events));
}

static struct bk_record sample(struct bb_slice blocks)
{
    return (struct bk_record){
        .position = UINT64_MAX - 1,
        .channel = UINT32_MAX - 2,
        .flags = BK_LOG_UNIFORM | BK_LOG_SOURCE_TIME,
        .server = 3,
        .first_sequence = 4,
        .last_sequence = 15,
        .count = 6,
        .n_blocks = 2,
        .newest_time = 7,
        .group_time = 8,
        .group_session = 9,
        .bytes = 10,
        .blocks = blocks,
    };
}

Test(log_record, comes_back_as_it_was)
{
    struct bb_buf blocks = BB_BUF_INIT;
    struct bb_buf value = BB_BUF_INIT;
    uint8_t key[BK_KEY_RECORD];
    put_block(&blocks, 4, sizeof(events));
    const struct bk_record record = sample(bb_buf_slice(&blocks));
    bb_buf_append(&value, "before", 6); /* values may lie behind each other in one buffer */
    bk_record_encode(&value, &record);
    bk_key_record(key, record.position, record.channel);
    struct bk_record again;
    struct bb_slice encoded = bb_slice(value.data + 6, value.len - 6);
    cr_assert_eq(encoded.len, BK_RECORD_HEADER + blocks.len);
    cr_assert_eq(bk_record_decode(bb_slice(key, sizeof(key)), encoded, &again), 0);
    cr_assert(again.position == record.position && again.channel == record.channel);
    cr_assert(again.flags == record.flags && again.server == record.server);
    cr_assert(again.first_sequence == 4 && again.last_sequence == 15);
    cr_assert(again.count == 6 && again.n_blocks == 2 && again.bytes == 10);
    cr_assert(again.newest_time == 7 && again.group_time == 8 && again.group_session == 9);
    cr_assert(bb_slice_equal(again.blocks, record.blocks));
    is_guarded(decode_record, bb_slice(key, sizeof(key)), encoded);
    bb_buf_fini(&blocks);
    bb_buf_fini(&value);
}

Test(log_record, of_another_version_is_told_from_damage)
{
    struct bb_buf value = BB_BUF_INIT;
    uint8_t bytes[BK_KEY_RECORD];
    struct bb_slice key = bb_slice(bytes, sizeof(bytes));
    const struct bk_record record = sample(bb_slice(events, sizeof(events)));
    bk_record_encode(&value, &record);
    bk_key_record(bytes, record.position, record.channel);
    make_newer(&value, key);
    cr_assert_eq(decode_record(key, bb_buf_slice(&value)), BB_EVERSION);
    bb_buf_fini(&value);
}

/* A record's checksum says that it is as it was written, not that it was written well. */
Test(log_record, blocks_are_taken_one_by_one_and_not_beyond_the_end)
{
    struct bb_buf blocks = BB_BUF_INIT;
    struct bb_block head;
    struct bb_slice found;
    struct bb_slice wire;
    put_block(&blocks, 4, sizeof(events));
    size_t one = blocks.len;
    put_block(&blocks, 14, sizeof(events));
    struct bb_slice rest = bb_buf_slice(&blocks);
    cr_assert_eq(bk_record_next_block(&rest, &head, &found, &wire), 1);
    cr_assert(head.sequence == 4 && wire.data == blocks.data && wire.len == one);
    cr_assert(bb_slice_equal(found, bb_slice(events, sizeof(events))));
    cr_assert_eq(bk_record_next_block(&rest, &head, NULL, NULL), 1);
    cr_assert_eq(head.sequence, 14);
    cr_assert_eq(bk_record_next_block(&rest, &head, &found, &wire), 0);
    for (size_t len = 1; len < one; len++) {
        uint8_t *copy = exactly(blocks.data, len);
        rest = bb_slice(copy, len);
        cr_assert_eq(bk_record_next_block(&rest, &head, &found, &wire), BB_ECORRUPT, "length %zu", len);
        cr_assert(rest.data == copy && rest.len == len);
        free(copy);
    }
    static const uint64_t lengths[] = {sizeof(events) + 1, UINT32_MAX, UINT64_MAX};
    for (size_t i = 0; i < BB_COUNT(lengths); i++) {
        bb_buf_reset(&blocks);
        put_block(&blocks, 4, lengths[i]);
        rest = bb_buf_slice(&blocks);
        cr_assert_eq(bk_record_next_block(&rest, &head, &found, &wire), BB_ECORRUPT);
    }
    bb_buf_fini(&blocks);
}

Test(log_record, the_latest_event_of_a_path_comes_back_as_it_was)
{
    static const uint8_t bytes[] = {0, 0, 0, 7, 'a', '/', 'b'};
    struct bb_slice key = bb_slice(bytes, sizeof(bytes));
    const struct bk_latest latest = {1, 2, 3, 4, 5, 6, 7, UINT64_MAX, bb_slice(events, 4)};
    struct bb_buf value = BB_BUF_INIT;
    struct bk_latest again;
    bk_latest_encode(&value, key, &latest);
    cr_assert_eq(bk_latest_decode(key, bb_buf_slice(&value), &again), 0);
    cr_assert(again.path_id == 1 && again.sequence == 2 && again.session == 3 && again.instance == 4);
    cr_assert(again.time == 5 && again.source == 6 && again.server == 7 && again.kept == UINT64_MAX);
    cr_assert(bb_slice_equal(again.event, latest.event));
    is_guarded(decode_latest, key, bb_buf_slice(&value));
    make_newer(&value, key);
    cr_assert_eq(decode_latest(key, bb_buf_slice(&value)), BB_ECORRUPT);
    bb_buf_fini(&value);
}

Test(log_record, places_have_one_length)
{
    uint8_t value[BK_PLACE_LEN + 1 + BK_ROW_CRC] = {0};
    uint8_t bytes[BK_KEY_SEQUENCE];
    struct bb_slice key = bb_slice(bytes, sizeof(bytes));
    struct bk_place place;
    bk_key_sequence(bytes, 7, 1);
    bk_put_u64(bk_put_u32(bk_put_u64(bk_put_u64(value, 1), 2), 3), 4);
    for (size_t len = 0; len <= BK_PLACE_LEN + 1; len++) {
        uint8_t *copy = exactly(value, len + BK_ROW_CRC);
        bk_row_seal(BK_ROW_BY_SEQUENCE, key, copy, len);
        cr_assert_eq(bk_place_read(key, bb_slice(copy, len + BK_ROW_CRC), &place),
                     len == BK_PLACE_LEN ? 0 : BB_ECORRUPT);
        free(copy);
    }
    bk_row_seal(BK_ROW_BY_SEQUENCE, key, value, BK_PLACE_LEN);
    is_guarded(decode_place, key, bb_slice(value, BK_PLACE_LEN + BK_ROW_CRC));
    cr_assert_eq(bk_place_read(key, bb_slice(value, BK_PLACE_LEN + BK_ROW_CRC), &place), 0);
    cr_assert(place.position == 1 && place.last == 2 && place.count == 3 && place.bytes == 4);
}

#define NAME_AT (1 + 9 * 8)
#define HEAD    (NAME_AT + 4)

/* @len bytes of @value as the row of a channel, with a checksum that fits. */
static int
channel_of(struct bb_slice key, const uint8_t *value, size_t len, struct bk_log_channel *ret_channel)
{
    static uint8_t *row;
    free(row); /* the channel borrows from it */
    row = malloc(len + BK_ROW_CRC);
    cr_assert_not_null(row);
    memcpy(row, value, len);
    bk_row_seal(BK_ROW_CHANNELS, key, row, len);
    return bk_channel_decode(key, bb_slice(row, len + BK_ROW_CRC), ret_channel);
}

/* A channel's value: removed u8, 5 limits, first, last, events, bytes, length of the name u32, name,
 * settings. */
Test(log_record, channels_whose_name_does_not_fit_are_refused)
{
    static const uint8_t bytes[] = {0, 0, 1, 2};
    struct bb_slice key = bb_slice(bytes, sizeof(bytes));
    uint8_t value[HEAD + 6 + BK_ROW_CRC] = {1};
    const size_t value_len = HEAD + 6;
    struct bk_log_channel channel;
    bk_put_u64(value + 1 + 5 * 8, 77);
    bk_put_u32(value + NAME_AT, 4);
    memcpy(value + HEAD, "name\x80!", 6);
    cr_assert_eq(channel_of(key, value, value_len, &channel), 0);
    cr_assert(channel.id == 258 && channel.removed && channel.first == 77);
    cr_assert(bb_slice_equal(channel.name, bb_slice_str("name")));
    cr_assert(bb_slice_equal(channel.settings, bb_slice_str("\x80!")));
    cr_assert_eq(channel_of(bb_slice(bytes, 3), value, value_len, &channel), BB_ECORRUPT);
    for (size_t len = 0; len < HEAD + 4; len++) {
        cr_assert_eq(channel_of(key, value, len, &channel), BB_ECORRUPT);
    }
    bk_row_seal(BK_ROW_CHANNELS, key, value, value_len);
    is_guarded(decode_channel, key, bb_slice(value, sizeof(value)));
    static const uint32_t lengths[] = {7, INT32_MAX, UINT32_MAX};
    for (size_t i = 0; i < BB_COUNT(lengths); i++) {
        bk_put_u32(value + NAME_AT, lengths[i]);
        cr_assert_eq(channel_of(key, value, value_len, &channel), BB_ECORRUPT);
    }
}

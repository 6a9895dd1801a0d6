/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what the log has on disk, the first byte says what: a batch, a record, the latest event of a path, a channel, an entry
 * of by_sequence. Checksums are made to fit, so that what is behind them is reached. Reading ends and stays inside; what was read is written as it was.
 */
#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/lmdb/keys.h"
#include "broker/backend/lmdb/record.h"
#include "broker/backend/lmdb/row.h"
#include "broker/backend/lmdb/write.h"
#include "tests/check.h"

/* Where both values have their checksum, record.c. */
#define CRC_AT 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_inside(struct bb_slice inner, struct bb_slice outer)
{
    return inner.len == 0 || (inner.data >= outer.data && inner.data + inner.len <= outer.data + outer.len);
}

static void check_batch(struct bb_slice all)
{
    struct bb_slice rest = all;
    struct bk_batch_entry entry;
    int r = 0;
    while ((r = bk_batch_next(&rest, &entry)) > 0) {
        CHECK(is_inside(rest, all));
        if (entry.kind == BK_BATCH_BLOCK) {
            CHECK(is_inside(entry.wire, all));
            CHECK(is_inside(bb_slice(entry.block.events, (size_t)entry.block.head.length), entry.wire));
        } else if (entry.kind == BK_BATCH_CHANNEL) {
            CHECK(is_inside(entry.channel.name, all) && is_inside(entry.channel.settings, all));
        } else if (entry.kind == BK_BATCH_CURSOR) {
            CHECK(is_inside(entry.cursor.name, all) && is_inside(entry.cursor.value, all));
        } else {
            CHECK(entry.kind == BK_BATCH_PRODUCER && is_inside(entry.producer.notes, all));
        }
    }
    CHECK(r == 0 || r == BB_EMALFORMED);
}

static void seal(struct bb_slice key, uint8_t *value, size_t len)
{
    if (len >= CRC_AT + 4) {
        uint32_t crc = bb_crc32c(bb_crc32c(0, key.data, key.len), value, CRC_AT);
        bk_put_u32(value + CRC_AT, bb_crc32c(crc, value + CRC_AT + 4, len - CRC_AT - 4));
    }
}

static void check_record(struct bb_slice key, struct bb_slice value)
{
    struct bk_record record;
    struct bb_buf again = BB_BUF_INIT;
    int r = bk_record_decode(key, value, &record);
    CHECK(r == 0 || r == BB_ECORRUPT || r == BB_EVERSION);
    if (r != 0) {
        return;
    }
    CHECK(is_inside(record.blocks, value));
    struct bb_slice rest = record.blocks;
    struct bb_block block;
    struct bb_slice events;
    struct bb_slice wire;
    while ((r = bk_record_next_block(&rest, &block, &events, &wire)) > 0) {
        CHECK(is_inside(wire, record.blocks) && is_inside(events, wire));
    }
    CHECK(r == 0 || r == BB_ECORRUPT);
    struct bk_record second;
    bk_record_encode(&again, &record);
    CHECK(again.error == 0 && bk_record_decode(key, bb_buf_slice(&again), &second) == 0);
    CHECK(bb_slice_equal(second.blocks, record.blocks) && second.first_sequence == record.first_sequence &&
          second.count == record.count && second.bytes == record.bytes);
    bb_buf_fini(&again);
}

static void check_latest(struct bb_slice key, struct bb_slice value)
{
    struct bk_latest latest;
    struct bk_latest second;
    struct bb_buf again = BB_BUF_INIT;
    int r = bk_latest_decode(key, value, &latest);
    CHECK(r == 0 || r == BB_ECORRUPT);
    if (r != 0) {
        return;
    }
    CHECK(is_inside(latest.event, value));
    bk_latest_encode(&again, key, &latest);
    CHECK(again.error == 0 && bk_latest_decode(key, bb_buf_slice(&again), &second) == 0);
    CHECK(bb_slice_equal(second.event, latest.event) && second.sequence == latest.sequence);
    bb_buf_fini(&again);
}

static void check_channel(struct bb_slice key, struct bb_slice value)
{
    struct bk_log_channel channel;
    int r = bk_channel_decode(key, value, &channel);
    CHECK(r == 0 || r == BB_ECORRUPT);
    if (r == 0) {
        CHECK(is_inside(channel.name, value) && is_inside(channel.settings, value));
        CHECK(channel.id == bk_get_u32(key.data));
    }
}

static void check_place(struct bb_slice key, struct bb_slice value)
{
    struct bk_place place;
    int r = bk_place_read(key, value, &place);
    CHECK(r == BB_ECORRUPT || (r == 0 && value.len == BK_PLACE_LEN + BK_ROW_CRC));
}

/* A row that guards itself. */
static void check_row(enum bk_row_table table, struct bb_slice key, uint8_t *value, size_t len, bool fits)
{
    struct bb_buf text = BB_BUF_INIT;
    if (fits && len >= BK_ROW_CRC) {
        bk_row_seal(table, key, value, len - BK_ROW_CRC);
        struct bb_slice opened = bb_slice(value, len);
        CHECK(bk_row_open(table, key, &opened) == 0 && opened.len == len - BK_ROW_CRC);
    }
    if (table == BK_ROW_CHANNELS) {
        check_channel(key, bb_slice(value, len));
    } else {
        check_place(key, bb_slice(value, len));
    }
    bk_row_print(&text, table, key);
    CHECK(text.error == 0 && text.len > 0);
    bb_buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + BK_KEY_RECORD || data[0] == 0) {
        check_batch(size > 0 ? bb_slice(data + 1, size - 1) : bb_slice(data, 0));
        return 0;
    }
    struct bb_slice key = bb_slice(data + 1, BK_KEY_RECORD);
    size_t len = size - 1 - BK_KEY_RECORD;
    uint8_t *value = malloc(len > 0 ? len : 1);
    CHECK(value != NULL);
    memcpy(value, data + 1 + BK_KEY_RECORD, len);
    bool fits = data[0] < 128;
    bool is_row = data[0] % 128 >= 64;
    if (fits && !is_row) {
        seal(key, value, len);
    }
    if (is_row && data[0] % 2 == 0) {
        check_row(BK_ROW_CHANNELS, bb_slice(key.data, BK_KEY_CHANNEL), value, len, fits);
    } else if (is_row) {
        check_row(BK_ROW_BY_SEQUENCE, key, value, len, fits);
    } else if (data[0] % 2 == 0) {
        check_record(key, bb_slice(value, len));
    } else {
        check_latest(key, bb_slice(value, len));
    }
    free(value);
    return 0;
}

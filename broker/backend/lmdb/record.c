/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/record.h"

#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"

/*
 * version u8, flags u8, 2 zeros, crc u32, server u64, first u64, last u64, newest time u64, group time u64,
 * group session u64, bytes u64, count u32, blocks u32: then the blocks
 */
#define VERSION 1
#define CRC_AT  4

/* What a CRC is over: the key, then the value without the four bytes of the CRC. */
static uint32_t checksum(struct bb_slice key, struct bb_slice value)
{
    uint32_t crc = bb_crc32c(0, key.data, key.len);
    crc = bb_crc32c(crc, value.data, CRC_AT);
    return bb_crc32c(crc, value.data + CRC_AT + 4, value.len - CRC_AT - 4);
}

/* Fill in the CRC of the value that begins at @begin of @out. */
static void seal(struct bb_buf *out, size_t begin, struct bb_slice key)
{
    if (out->error == 0) {
        uint8_t *value = out->data + begin;
        bk_put_u32(value + CRC_AT, checksum(key, bb_slice(value, out->len - begin)));
    }
}

static bool is_sound(struct bb_slice key, struct bb_slice value)
{
    return bk_get_u32(value.data + CRC_AT) == checksum(key, value);
}

void bk_record_encode(struct bb_buf *out, const struct bk_record *record)
{
    size_t begin = out->len;
    uint8_t header[BK_RECORD_HEADER] = {VERSION, (uint8_t)record->flags};
    uint8_t *to = header + CRC_AT + 4;
    to = bk_put_u64(to, record->server);
    to = bk_put_u64(to, record->first_sequence);
    to = bk_put_u64(to, record->last_sequence);
    to = bk_put_u64(to, record->newest_time);
    to = bk_put_u64(to, record->group_time);
    to = bk_put_u64(to, record->group_session);
    to = bk_put_u64(to, record->bytes);
    to = bk_put_u32(to, record->count);
    bk_put_u32(to, record->n_blocks);
    bb_buf_append(out, header, sizeof(header));
    bb_buf_append(out, record->blocks.data, record->blocks.len);
    uint8_t key[BK_KEY_RECORD];
    bk_key_record(key, record->position, record->channel);
    seal(out, begin, bb_slice(key, sizeof(key)));
}

int bk_record_decode(struct bb_slice key, struct bb_slice value, struct bk_record *ret_record)
{
    if (key.len != BK_KEY_RECORD || value.len < BK_RECORD_HEADER || !is_sound(key, value)) {
        return BB_ECORRUPT;
    }
    if (value.data[0] != VERSION) {
        return BB_EVERSION;
    }
    const uint8_t *from = value.data + CRC_AT + 4;
    *ret_record = (struct bk_record){
        .position = bk_get_u64(key.data),
        .channel = bk_get_u32(key.data + 8),
        .flags = value.data[1],
        .server = bk_get_u64(from),
        .first_sequence = bk_get_u64(from + 8),
        .last_sequence = bk_get_u64(from + 16),
        .newest_time = bk_get_u64(from + 24),
        .group_time = bk_get_u64(from + 32),
        .group_session = bk_get_u64(from + 40),
        .bytes = bk_get_u64(from + 48),
        .count = bk_get_u32(from + 56),
        .n_blocks = bk_get_u32(from + 60),
        .blocks = {value.data + BK_RECORD_HEADER, value.len - BK_RECORD_HEADER},
    };
    return 0;
}

int bk_record_next_block(struct bb_slice *rest,
                         struct bb_block *ret_block,
                         struct bb_slice *ret_events,
                         struct bb_slice *ret_wire)
{
    if (rest->len == 0) {
        return 0;
    }
    struct bb_slice after = *rest;
    if (bb_block_read_head(&after, ret_block) < 0 || ret_block->length > after.len) {
        return BB_ECORRUPT;
    }
    size_t len = (size_t)ret_block->length;
    if (ret_events != NULL) {
        *ret_events = bb_slice(after.data, len);
    }
    after = bb_slice(after.data + len, after.len - len);
    if (ret_wire != NULL) {
        *ret_wire = bb_slice(rest->data, rest->len - after.len);
    }
    *rest = after;
    return 1;
}

void bk_latest_encode(struct bb_buf *out, struct bb_slice key, const struct bk_latest *latest)
{
    size_t begin = out->len;
    uint8_t header[BK_LATEST_HEADER] = {VERSION};
    uint8_t *to = header + CRC_AT + 4;
    to = bk_put_u64(to, latest->path_id);
    to = bk_put_u64(to, latest->sequence);
    to = bk_put_u64(to, latest->session);
    to = bk_put_u64(to, latest->instance);
    to = bk_put_u64(to, latest->time);
    to = bk_put_u64(to, latest->source);
    to = bk_put_u64(to, latest->server);
    bk_put_u64(to, latest->kept);
    bb_buf_append(out, header, sizeof(header));
    bb_buf_append(out, latest->event.data, latest->event.len);
    seal(out, begin, key);
}

int bk_latest_decode(struct bb_slice key, struct bb_slice value, struct bk_latest *ret_latest)
{
    if (key.len < BK_KEY_CHANNEL || value.len < BK_LATEST_HEADER || value.data[0] != VERSION ||
        !is_sound(key, value)) {
        return BB_ECORRUPT;
    }
    const uint8_t *from = value.data + CRC_AT + 4;
    *ret_latest = (struct bk_latest){
        .path_id = bk_get_u64(from),
        .sequence = bk_get_u64(from + 8),
        .session = bk_get_u64(from + 16),
        .instance = bk_get_u64(from + 24),
        .time = bk_get_u64(from + 32),
        .source = bk_get_u64(from + 40),
        .server = bk_get_u64(from + 48),
        .kept = bk_get_u64(from + 56),
        .event = {value.data + BK_LATEST_HEADER, value.len - BK_LATEST_HEADER},
    };
    return 0;
}

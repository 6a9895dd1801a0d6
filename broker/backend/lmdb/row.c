/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/row.h"

#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"
#include "broker/backend/lmdb/txn.h"

/* So much of a key is shown. */
#define SHOWN_MAX ((size_t)64)

static const char *const names[] = {
    [BK_ROW_META] = "meta",       [BK_ROW_CHANNELS] = "channels",       [BK_ROW_PRODUCERS] = "producers",
    [BK_ROW_CURSORS] = "cursors", [BK_ROW_BY_SEQUENCE] = "by_sequence",
};

/* The key's length is part of it: a byte that went from the key to the value makes another row. */
static uint32_t checksum(enum bk_row_table table, struct bb_slice key, struct bb_slice value)
{
    uint8_t head[5] = {(uint8_t)table};
    bk_put_u32(head + 1, (uint32_t)key.len);
    uint32_t crc = bb_crc32c(0, head, sizeof(head));
    crc = bb_crc32c(crc, key.data, key.len);
    return bb_crc32c(crc, value.data, value.len);
}

void bk_row_seal(enum bk_row_table table, struct bb_slice key, uint8_t *value, size_t len)
{
    bk_put_u32(value + len, checksum(table, key, bb_slice(value, len)));
}

int bk_row_open(enum bk_row_table table, struct bb_slice key, struct bb_slice *value)
{
    if (value->len < BK_ROW_CRC) {
        return BB_ECORRUPT;
    }
    struct bb_slice inner = bb_slice(value->data, value->len - BK_ROW_CRC);
    if (bk_get_u32(inner.data + inner.len) != checksum(table, key, inner)) {
        return BB_ECORRUPT;
    }
    *value = inner;
    return 0;
}

MDB_dbi bk_row_dbi(const struct bk_store_tables *tables, enum bk_row_table table)
{
    switch (table) {
    case BK_ROW_META:
        return tables->meta;
    case BK_ROW_CHANNELS:
        return tables->channels;
    case BK_ROW_PRODUCERS:
        return tables->producers;
    case BK_ROW_CURSORS:
        return tables->cursors;
    case BK_ROW_BY_SEQUENCE:
        break;
    }
    return tables->by_sequence;
}

/* --- for people ----------------------------------------------------------------------------------- */

static bool is_text(struct bb_slice key)
{
    bool is_it = key.len > 0;
    for (size_t i = 0; i < key.len; i++) {
        is_it = is_it && key.data[i] >= ' ' && key.data[i] <= '~';
    }
    return is_it;
}

void bk_row_print(struct bb_buf *out, enum bk_row_table table, struct bb_slice key)
{
    struct bb_slice shown = bb_slice(key.data, BB_MIN(key.len, SHOWN_MAX));
    bb_buf_printf(out, "the row ");
    if (table == BK_ROW_CHANNELS && key.len == BK_KEY_CHANNEL) {
        bb_buf_printf(out, "%u", bk_get_u32(key.data));
    } else if (table == BK_ROW_BY_SEQUENCE && key.len == BK_KEY_SEQUENCE) {
        bb_buf_printf(out, "%u, %llu", bk_get_u32(key.data), (unsigned long long)bk_get_u64(key.data + 4));
    } else if (is_text(shown)) {
        bb_buf_printf(out, "\"%.*s\"", (int)shown.len, (const char *)shown.data);
    } else {
        for (size_t i = 0; i < shown.len; i++) {
            bb_buf_printf(out, "%02x", shown.data[i]);
        }
    }
    bb_buf_printf(out, "%s of the table %s", shown.len < key.len ? "..." : "", names[table]);
}

/* --- the head ------------------------------------------------------------------------------------- */

/* applied, position, path u64, then the sums u32 */
#define HEAD_LEN (3 * 8 + BK_ROW_CURSORS * 4)

int bk_head_read(MDB_txn *txn, MDB_dbi meta, struct bk_head *ret_head)
{
    struct bb_slice key = bb_slice_str(BK_META_HEAD);
    struct bb_slice value = {0};
    int error = bk_get(txn, meta, key, &value);
    if (error == 0) {
        error = bk_row_open(BK_ROW_META, key, &value);
    }
    if (error == BB_ENOTFOUND || (error == 0 && value.len != HEAD_LEN)) {
        return BB_ECORRUPT; /* it is put when the store is made */
    }
    if (error != 0) {
        return error;
    }
    *ret_head = (struct bk_head){
        bk_get_u64(value.data), bk_get_u64(value.data + 8), bk_get_u64(value.data + 16), {0}};
    for (size_t i = BK_ROW_META; i <= BK_ROW_CURSORS; i++) {
        ret_head->sums[i] = bk_get_u32(value.data + 24 + 4 * (i - BK_ROW_META));
    }
    return 0;
}

int bk_head_put(MDB_txn *txn, MDB_dbi meta, const struct bk_head *head)
{
    uint8_t bytes[HEAD_LEN + BK_ROW_CRC];
    uint8_t *to = bk_put_u64(bk_put_u64(bk_put_u64(bytes, head->applied), head->position), head->path);
    for (size_t i = BK_ROW_META; i <= BK_ROW_CURSORS; i++) {
        to = bk_put_u32(to, head->sums[i]);
    }
    bk_row_seal(BK_ROW_META, bb_slice_str(BK_META_HEAD), bytes, HEAD_LEN);
    MDB_val key = bk_val(bb_slice_str(BK_META_HEAD));
    MDB_val value = {sizeof(bytes), bytes};
    return bk_mdb_error(mdb_put(txn, meta, &key, &value, 0));
}

/* --- channels ------------------------------------------------------------------------------------- */

/* removed u8, retention 5 u64, first, last, events, bytes u64, length of name u32: then name and settings */
#define CHANNEL_VALUE_HEAD (1 + 5 * 8 + 4 * 8 + 4)

int bk_channel_decode(struct bb_slice key, struct bb_slice value, struct bk_log_channel *ret_channel)
{
    if (bk_row_open(BK_ROW_CHANNELS, key, &value) < 0 || key.len != BK_KEY_CHANNEL ||
        value.len < CHANNEL_VALUE_HEAD) {
        return BB_ECORRUPT;
    }
    const uint8_t *at = value.data + 1;
    uint32_t name_len = bk_get_u32(at + (size_t)9 * 8);
    if (name_len > value.len - CHANNEL_VALUE_HEAD) {
        return BB_ECORRUPT;
    }
    const uint8_t *text = value.data + CHANNEL_VALUE_HEAD;
    *ret_channel = (struct bk_log_channel){
        .id = bk_get_u32(key.data),
        .removed = value.data[0] != 0,
        .retention = {bk_get_u64(at), bk_get_u64(at + 8), bk_get_u64(at + 16), bk_get_u64(at + 24),
                      bk_get_u64(at + 32)},
        .first = bk_get_u64(at + 40),
        .last = bk_get_u64(at + 48),
        .events = bk_get_u64(at + 56),
        .bytes = bk_get_u64(at + 64),
        .name = {text, name_len},
        .settings = {text + name_len, value.len - CHANNEL_VALUE_HEAD - name_len},
    };
    return 0;
}

void bk_channel_encode(struct bb_buf *out, const struct bk_log_channel *channel)
{
    const struct bk_retention *retention = &channel->retention;
    uint8_t head[CHANNEL_VALUE_HEAD] = {channel->removed};
    uint8_t *to = head + 1;
    to = bk_put_u64(to, retention->max_age_us);
    to = bk_put_u64(to, retention->max_bytes);
    to = bk_put_u64(to, retention->max_events);
    to = bk_put_u64(to, retention->max_per_path);
    to = bk_put_u64(to, retention->min_events);
    to = bk_put_u64(to, channel->first);
    to = bk_put_u64(to, channel->last);
    to = bk_put_u64(to, channel->events);
    to = bk_put_u64(to, channel->bytes);
    bk_put_u32(to, (uint32_t)channel->name.len);
    bb_buf_append(out, head, sizeof(head));
    bb_buf_append(out, channel->name.data, channel->name.len);
    bb_buf_append(out, channel->settings.data, channel->settings.len);
}

/* --- all of them ---------------------------------------------------------------------------------- */

struct checking {
    enum bk_row_table table;
    uint32_t sum;
    struct bb_buf *what;
};

static bool is_meta_row(const struct checking *checking, struct bb_slice key, const char *name)
{
    return checking->table == BK_ROW_META && bb_slice_equal(key, bb_slice_str(name));
}

static int check_row(void *to, struct bb_slice key, struct bb_slice value)
{
    struct checking *checking = to;
    int error = 0;
    if (is_meta_row(checking, key, BK_META_FORMAT)) {
        error = bb_slice_equal(value, bb_slice_str(BK_STORE_FORMAT)) ? 0 : BB_ECORRUPT;
    } else {
        error = bk_row_open(checking->table, key, &value);
        checking->sum += error != 0 || is_meta_row(checking, key, BK_META_HEAD) ? 0 : bk_row_crc(value);
    }
    if (error != 0) {
        bk_row_print(checking->what, checking->table, key);
        bb_buf_printf(checking->what, " is damaged");
    }
    return error;
}

static int
check_table(const struct bk_store_tables *tables, MDB_txn *txn, struct checking *checking, uint32_t sum)
{
    MDB_dbi dbi = bk_row_dbi(tables, checking->table);
    int error = bk_each_row(txn, dbi, bb_slice(NULL, 0), check_row, checking);
    if (error == BB_ECORRUPT && checking->what->len == 0) {
        bb_buf_printf(checking->what, "a page of the table %s is damaged", names[checking->table]);
    }
    if (error == 0 && checking->sum != sum) {
        bb_buf_printf(checking->what, "rows of the table %s are missing or old", names[checking->table]);
        error = BB_ECORRUPT;
    }
    return error;
}

int bk_rows_check(const struct bk_store_tables *tables, MDB_txn *txn, struct bb_buf *what)
{
    struct bk_head head;
    int error = bk_head_read(txn, tables->meta, &head);
    if (error == BB_ECORRUPT) {
        bk_row_print(what, BK_ROW_META, bb_slice_str(BK_META_HEAD));
        bb_buf_printf(what, " is damaged");
    }
    for (int i = BK_ROW_META; i <= BK_ROW_CURSORS && error == 0; i++) {
        struct checking checking = {(enum bk_row_table)i, 0, what};
        error = check_table(tables, txn, &checking, head.sums[i]);
    }
    return error;
}

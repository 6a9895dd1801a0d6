/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/row.h"

#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/write.h"

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

int bk_row_check(enum bk_row_table table, struct bb_slice key, struct bb_slice value)
{
    if (table == BK_ROW_META && bb_slice_equal(key, bb_slice_str(BK_META_FORMAT))) {
        return bb_slice_equal(value, bb_slice_str(BK_STORE_FORMAT)) ? 0 : BB_ECORRUPT;
    }
    return bk_row_open(table, key, &value);
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

/* --- all of them ---------------------------------------------------------------------------------- */

struct checking {
    enum bk_row_table table;
    struct bb_buf *err;
};

static int check_row(void *to, struct bb_slice key, struct bb_slice value)
{
    const struct checking *checking = to;
    int error = bk_row_check(checking->table, key, value);
    if (error != 0) {
        bk_row_print(checking->err, checking->table, key);
    }
    return error;
}

int bk_rows_check(const struct bk_store *store, MDB_txn *txn, struct bb_buf *err)
{
    static const enum bk_row_table tables[] = {BK_ROW_META, BK_ROW_CHANNELS, BK_ROW_PRODUCERS,
                                               BK_ROW_CURSORS};
    struct bb_buf text = BB_BUF_INIT;
    int error = 0;
    for (size_t i = 0; i < BB_COUNT(tables) && error == 0; i++) {
        struct checking checking = {tables[i], &text};
        error =
            bk_each_row(txn, bk_row_dbi(&store->tables, tables[i]), bb_slice(NULL, 0), check_row, &checking);
        if (error == BB_ECORRUPT && text.len == 0) {
            bb_buf_printf(&text, "a page of the table %s", names[tables[i]]);
        }
    }
    if (error == BB_ECORRUPT && err != NULL) {
        bb_buf_printf(err,
                      "%s: %s is damaged; nothing was changed; put a backup in the directory's place, "
                      "start with it and let \"busbar log verify\" read all of it",
                      store->directory, bb_buf_string(&text));
    }
    bb_buf_fini(&text);
    return error;
}

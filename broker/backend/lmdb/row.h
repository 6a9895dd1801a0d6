/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that guard themselves: behind the value lies a CRC32C over the table, the key and the value. So neither a turned bit in either
 * of them, nor a row under another's key or in another's table, is taken for what was written.
 */
#pragma once

#include "broker/backend/lmdb/store.h"

/* What a row's checksum has of its table: the numbers are on disk. */
enum bk_row_table {
    BK_ROW_META = 1,
    BK_ROW_CHANNELS,
    BK_ROW_PRODUCERS,
    BK_ROW_CURSORS,
    BK_ROW_BY_SEQUENCE,
};

#define BK_ROW_CRC 4

/** bk_row_seal() - put the checksum behind the @len bytes of @value, where there is room for it. */
void bk_row_seal(enum bk_row_table table, struct bb_slice key, uint8_t *value, size_t len);

/** bk_row_open() - check the checksum and take it off the end of @value. Return: 0, BB_ECORRUPT. */
int bk_row_open(enum bk_row_table table, struct bb_slice key, struct bb_slice *value);

/** bk_row_check() - the same for a row as it was found, the row of the format too, which has no checksum. Return: 0, BB_ECORRUPT. */
int bk_row_check(enum bk_row_table table, struct bb_slice key, struct bb_slice value);

/** bk_row_print() - append which row it is, in words for people: table and key. */
void bk_row_print(struct bb_buf *out, enum bk_row_table table, struct bb_slice key);

/** bk_row_dbi() - the handle of a table. */
MDB_dbi bk_row_dbi(const struct bk_store_tables *tables, enum bk_row_table table);

/**
 * bk_rows_check() - read all rows of meta, channels, producers and cursors
 * @err: gets a sentence that names the table and the row, and says what to do
 *
 * Return: 0, BB_ECORRUPT, BB_ESYSTEM, BB_ENOMEM.
 */
int bk_rows_check(const struct bk_store *store, MDB_txn *txn, struct bb_buf *err);

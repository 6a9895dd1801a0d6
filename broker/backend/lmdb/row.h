/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that guard themselves: behind the value lies a CRC32C over the table, the key and the value. So
 * neither a turned bit in either of them, nor a row under another's key or in another's table, is taken for
 * what was written.
 */
#pragma once

#include "broker/backend/lmdb/keys.h"
#include "broker/backend/lmdb/schema.h"
#include "broker/core/backend.h"

/* What a row's checksum has of its table: the numbers are on disk. */
enum bk_row_table {
    BK_ROW_META = 1,
    BK_ROW_CHANNELS,
    BK_ROW_PRODUCERS,
    BK_ROW_CURSORS,
    BK_ROW_BY_SEQUENCE,
};

#define BK_ROW_CRC 4

/* Rows of meta. That of the format has no checksum: it is compared as a whole, and any version must be
 * able to read it. */
#define BK_META_FORMAT "format"
#define BK_META_HEAD   "head"

/*
 * What every transaction that changes something leaves behind, in one row. The sums of the checksums of all
 * rows tell rows that are missing, and those that are whole but old: LMDB never writes over a page, so old
 * ones lie about, one bit away.
 */
struct bk_head {
    uint64_t applied;                  /* the last journal record in the tables */
    uint64_t position;                 /* of the next group */
    uint64_t path;                     /* the last path id that was given */
    uint32_t sums[BK_ROW_CURSORS + 1]; /* by table; that of meta without the rows above */
};

/** bk_head_read() - Return: 0, BB_ECORRUPT (also when it is not there), BB_ESYSTEM. */
BB_MUST_CHECK int bk_head_read(MDB_txn *txn, MDB_dbi meta, struct bk_head *ret_head);

BB_MUST_CHECK int bk_head_put(MDB_txn *txn, MDB_dbi meta, const struct bk_head *head);

/** bk_row_seal() - put the checksum behind the @len bytes of @value, where there is room for it. */
void bk_row_seal(enum bk_row_table table, struct bb_slice key, uint8_t *value, size_t len);

/** bk_row_open() - check the checksum and take it off the end of @value. Return: 0, BB_ECORRUPT. */
BB_MUST_CHECK int bk_row_open(enum bk_row_table table, struct bb_slice key, struct bb_slice *value);

/** bk_row_crc() - the checksum of a row of which it was taken off. */
static inline uint32_t bk_row_crc(struct bb_slice opened)
{
    return bk_get_u32(opened.data + opened.len);
}

/** bk_row_print() - append which row it is, in words for people: table and key. */
void bk_row_print(struct bb_buf *out, enum bk_row_table table, struct bb_slice key);

/** bk_row_dbi() - the handle of a table. */
MDB_dbi bk_row_dbi(const struct bk_store_tables *tables, enum bk_row_table table);

/** bk_channel_decode() - a row of `channels`; slices borrow. Return: 0, BB_ECORRUPT. */
BB_MUST_CHECK int
bk_channel_decode(struct bb_slice key, struct bb_slice value, struct bk_log_channel *ret_channel);

/** bk_channel_encode() - append the value of such a row, to be sealed. */
void bk_channel_encode(struct bb_buf *out, const struct bk_log_channel *channel);

/**
 * bk_rows_check() - read all rows of meta, channels, producers and cursors, and see that none is missing
 * @what: gets what is damaged, with table and row
 *
 * Return: 0, BB_ECORRUPT, BB_ESYSTEM, BB_ENOMEM.
 */
BB_MUST_CHECK int bk_rows_check(const struct bk_store_tables *tables, MDB_txn *txn, struct bb_buf *what);

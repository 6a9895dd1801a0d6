/* SPDX-License-Identifier: Apache-2.0 */
/* LMDB's values and errors as ours, and rows of any table in a transaction. */
#pragma once

#include "proto/base/buf.h"

#include <lmdb.h>

/** bk_mdb_error() - BB_E... for what LMDB returned: 0, BB_ENOTFOUND, BB_ELOGFULL, BB_ENOMEM, BB_ECORRUPT,
 * BB_ESYSTEM. */
BB_MUST_CHECK int bk_mdb_error(int rc);

/**
 * bk_is_whole() - whether a key or value that was read lies in its pages
 *
 * LMDB believes what a page says of itself. With a damaged page a value may reach beyond the file, where
 * touching it kills the process. For read transactions, whose pages lie in the map at multiples of their
 * size.
 */
bool bk_is_whole(MDB_val val);

/** bk_get() - Return: 0, BB_ENOTFOUND, ... */
BB_MUST_CHECK int bk_get(MDB_txn *txn, MDB_dbi dbi, struct bb_slice key, struct bb_slice *ret_value);

typedef int bk_row_fn(void *to, struct bb_slice key, struct bb_slice value);

/** bk_each_row() - call @fn for each row of @dbi whose key begins with @prefix, until it returns something
 * other than 0. */
BB_MUST_CHECK int bk_each_row(MDB_txn *txn, MDB_dbi dbi, struct bb_slice prefix, bk_row_fn *fn, void *to);

static inline MDB_val bk_val(struct bb_slice slice)
{
    return (MDB_val){slice.len, bb_unconst(slice.data)};
}

static inline struct bb_slice bk_slice(MDB_val val)
{
    return bb_slice(val.mv_data, val.mv_size);
}

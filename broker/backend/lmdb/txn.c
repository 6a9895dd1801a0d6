/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/txn.h"

#include "proto/base/error.h"

#include <errno.h>
#include <unistd.h>

int bk_mdb_error(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return BB_ENOTFOUND;
    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return BB_ELOGFULL;
    case ENOMEM:
        return BB_ENOMEM;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_CURSOR_FULL:
    case MDB_KEYEXIST:
    case MDB_INCOMPATIBLE:
        return BB_ECORRUPT;
    case MDB_VERSION_MISMATCH:
        return BB_EVERSION;
    default:
        return BB_ESYSTEM;
    }
}

/* The head of an overflow page in the format of LMDB 0.9: number of the page, padding, flags, how many
 * pages. */
#define PAGE_HEAD  16
#define FLAGS_AT   10
#define PAGES_AT   12
#define F_OVERFLOW 4

bool bk_is_whole(MDB_val val)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    size_t offset = (uintptr_t)val.mv_data % size;
    uint16_t flags = 0;
    uint32_t pages = 0;
    if (val.mv_size <= size - offset) {
        return true;
    }
    if (offset != PAGE_HEAD) {
        return false;
    }
    const uint8_t *page = (const uint8_t *)val.mv_data - PAGE_HEAD;
    memcpy(&flags, page + FLAGS_AT, sizeof(flags));
    memcpy(&pages, page + PAGES_AT, sizeof(pages));
    return (flags & F_OVERFLOW) != 0 && val.mv_size <= (size_t)pages * size - PAGE_HEAD;
}

int bk_get(MDB_txn *txn, MDB_dbi dbi, struct bb_slice key, struct bb_slice *ret_value)
{
    MDB_val k = bk_val(key);
    MDB_val v;
    int rc = mdb_get(txn, dbi, &k, &v);
    if (rc == 0) {
        *ret_value = bk_slice(v);
    }
    return bk_mdb_error(rc);
}

int bk_each_row(MDB_txn *txn, MDB_dbi dbi, struct bb_slice prefix, bk_row_fn *fn, void *to)
{
    MDB_cursor *cursor = NULL;
    int error = bk_mdb_error(mdb_cursor_open(txn, dbi, &cursor));
    if (error != 0) {
        return error;
    }
    MDB_val key = bk_val(prefix);
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, prefix.len > 0 ? MDB_SET_RANGE : MDB_FIRST);
    while (rc == 0 && error == 0 && key.mv_size >= prefix.len &&
           (prefix.len == 0 || memcmp(key.mv_data, prefix.data, prefix.len) == 0)) {
        error = bk_is_whole(key) && bk_is_whole(value) ? fn(to, bk_slice(key), bk_slice(value)) : BB_ECORRUPT;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return error != 0 || rc == 0 || rc == MDB_NOTFOUND ? error : bk_mdb_error(rc);
}

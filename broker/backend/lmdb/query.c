/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/query.h"

#include "proto/base/error.h"

#include "broker/backend/find.h"
#include "broker/backend/lmdb/read.h"

/* Whether a channel is to be searched: one that is being removed has records until retention has taken them. */
struct known_channel {
    uint32_t id; /* 0: none yet */
    bool is_kept;
};

static int know(struct bk_store *store, MDB_txn *txn, uint32_t id, struct known_channel *known)
{
    struct bk_log_channel channel;
    if (known->id == id && id != 0) {
        return 0;
    }
    int r = bk_store_channel(store, txn, id, &channel);
    known->id = id;
    known->is_kept = r == 0 && !channel.removed;
    return r == BB_ENOTFOUND ? 0 : r;
}

/* The latest events come from the table of paths, in the order of channels and paths. */
static int query_latest(struct bk_store *store, MDB_txn *txn, struct bk_find *find)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    struct known_channel known = {0};
    int rc = mdb_cursor_open(txn, store->tables.paths, &cursor);
    int r = bk_store_error(rc);
    for (rc = mdb_cursor_get(cursor, &key, &value, MDB_FIRST); r == 0 && rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        struct bk_latest latest;
        if (!bk_is_whole(key) || !bk_is_whole(value) || key.mv_size < 4) {
            r = BB_ECORRUPT;
            break;
        }
        struct bb_slice path = bb_slice((const uint8_t *)key.mv_data + 4, key.mv_size - 4);
        if (!bk_find_wants_path(find, path)) {
            continue;
        }
        r = know(store, txn, bk_get_u32(key.mv_data), &known);
        if (r == 0 && !known.is_kept) {
            continue;
        }
        r = r < 0 ? r
                  : bk_latest_decode(bb_slice(key.mv_data, key.mv_size),
                                     bb_slice(value.mv_data, value.mv_size), &latest);
        if (r == 0) {
            struct bb_block head = {
                .session = latest.session,
                .time = latest.time,
                .source = latest.source,
                .sequence = latest.sequence,
                .instance = latest.instance,
                .count = 1,
                .length = latest.event.len,
            };
            r = bk_find_block(find, latest.server, &head, latest.event);
        }
    }
    mdb_cursor_close(cursor);
    return r;
}

/* The blocks of one position. */
static int look_at_group(struct bk_find *find, struct bb_buf *group)
{
    size_t n = group->len / sizeof(struct bk_group_block);
    const struct bk_group_block *blocks = (const struct bk_group_block *)(const void *)group->data;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct bk_group_block *block = bk_find_is_descending(find) ? &blocks[n - 1 - i] : &blocks[i];
        r = bk_find_block(find, block->server, &block->head, block->events);
    }
    return r;
}

/* Where the first record to look at is. Return: an LMDB code. */
static int seek(struct bk_store *store,
                MDB_txn *txn,
                MDB_cursor *cursor,
                const struct bb_query *query,
                bool descending,
                MDB_val *key,
                MDB_val *value)
{
    MDB_cursor *times = NULL;
    uint8_t from[BK_KEY_TIME];
    uint8_t record[BK_KEY_RECORD];
    bool has_bound = descending ? query->has_t_to && query->t_to < INT64_MAX : query->has_t_from;
    int64_t bound = descending ? query->t_to + (query->t_to < INT64_MAX) : query->t_from;
    if (!has_bound || bound <= 0) {
        return has_bound && descending
                   ? MDB_NOTFOUND
                   : mdb_cursor_get(cursor, key, value, descending ? MDB_LAST : MDB_FIRST);
    }
    int rc = mdb_cursor_open(txn, store->tables.by_time, &times);
    if (rc != 0) {
        return rc;
    }
    bk_key_pair(from, (uint64_t)bound, 0);
    *key = (MDB_val){sizeof(from), from};
    rc = mdb_cursor_get(times, key, value, MDB_SET_RANGE);
    uint64_t position = rc == 0 ? bk_get_u64((const uint8_t *)key->mv_data + 8) : 0;
    mdb_cursor_close(times);
    if (rc == MDB_NOTFOUND) {
        return descending ? mdb_cursor_get(cursor, key, value, MDB_LAST) : rc;
    }
    if (rc != 0) {
        return rc;
    }
    bk_key_record(record, position + descending, 0);
    *key = (MDB_val){sizeof(record), record};
    rc = mdb_cursor_get(cursor, key, value, MDB_SET_RANGE);
    if (!descending) {
        return rc;
    }
    return rc == MDB_NOTFOUND ? mdb_cursor_get(cursor, key, value, MDB_LAST)
                              : mdb_cursor_get(cursor, key, value, MDB_PREV);
}

/* Whether no group further on can be within the bounds of time. Forwards the group before tells: a record's own first time does
 * not, since another channel's record of the same group may begin earlier. */
static bool
is_beyond(const struct bb_query *query, uint64_t time_before, const struct bk_record *record, bool descending)
{
    return descending ? query->has_t_from && (int64_t)record->group_time < query->t_from
                      : query->has_t_to && (int64_t)time_before > query->t_to;
}

static int scan(struct bk_store *store, MDB_txn *txn, const struct bb_query *query, struct bk_find *find)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    struct bb_buf group = BB_BUF_INIT;
    struct known_channel known = {0};
    uint64_t position = 0;
    uint64_t time_before = 0; /* the newest of the group before, 0 for none */
    bool descending = bk_find_is_descending(find);
    int r = bk_store_error(mdb_cursor_open(txn, store->tables.records, &cursor));
    if (r < 0) {
        return r;
    }
    int rc = seek(store, txn, cursor, query, descending, &key, &value);
    for (; r == 0 && rc == 0; rc = mdb_cursor_get(cursor, &key, &value, descending ? MDB_PREV : MDB_NEXT)) {
        struct bk_record record;
        r = !bk_is_whole(key) || !bk_is_whole(value)
                ? BB_ECORRUPT
                : bk_record_decode(bb_slice(key.mv_data, key.mv_size), bb_slice(value.mv_data, value.mv_size),
                                   &record);
        if (r < 0) {
            break;
        }
        if (record.position != position) {
            bk_group_sort(&group);
            r = look_at_group(find, &group);
            bb_buf_reset(&group);
            position = record.position;
            if (r != 0 || is_beyond(query, time_before, &record, descending)) {
                break;
            }
            time_before = record.group_time;
        }
        r = know(store, txn, record.channel, &known);
        if (r == 0 && known.is_kept) {
            r = bk_group_add(&group, &record);
        }
    }
    if (r == 0) {
        bk_group_sort(&group);
        r = look_at_group(find, &group);
    }
    bb_buf_fini(&group);
    mdb_cursor_close(cursor);
    return r < 0 ? r : rc == 0 || rc == MDB_NOTFOUND ? 0 : bk_store_error(rc);
}

int bk_lmdb_query(struct bk_store *store, struct bk_query *request, struct bk_meter *meter)
{
    struct bk_find *find = NULL;
    MDB_txn *txn = NULL;
    request->body = NULL;
    request->n_events = 0;
    request->more = false;
    int r = bk_find_new(request, &find);
    if (r < 0) {
        return r;
    }
    r = bk_store_begin(store, &txn);
    if (r == 0) {
        r = request->query->kind == BB_QUERY_LATEST ? query_latest(store, txn, find)
                                                    : scan(store, txn, request->query, find);
        bk_store_end(txn);
    }
    if (r >= 0) {
        r = bk_find_end(find, request, meter);
    }
    bk_find_free(find);
    return r;
}

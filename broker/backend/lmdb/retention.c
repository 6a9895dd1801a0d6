/* SPDX-License-Identifier: Apache-2.0 */
/* What channels need not keep any more. */
#include "proto/base/error.h"

#include "broker/backend/lmdb/cut.h"

#include <stdlib.h>

/* Paths looked at for each record that may be rewritten. */
#define PATHS_PER_BUDGET 16

struct trimmed {
    uint32_t channel;
    uint64_t first;
};

struct retain {
    struct bk_write write;
    uint64_t now;
    size_t left; /* of the budget */
    /* The floor of the channel whose paths are looked at: what goes lies before it. */
    bool has_floor;
    uint32_t floor_channel;
    uint64_t floor;
};

static uint64_t over(uint64_t what, uint64_t limit)
{
    return what > limit ? what - limit : 0;
}

/* The oldest sequence kept may be another one now. */
static int update_first(struct bk_write *write, struct bk_write_channel *channel)
{
    uint64_t first = 0;
    struct bk_place place;
    int error = bk_store_find(write->store, write->txn, channel->info.id, 0, &first, &place);
    if (error == BB_ENOTFOUND) {
        first = channel->info.last + 1;
        error = 0;
    }
    if (error == 0) {
        channel->dirty = channel->dirty || first != channel->info.first;
        channel->info.first = first;
    }
    return error;
}

static void wanted_cut(const struct retain *retain, const struct bk_log_channel *info, struct bk_cut *cut)
{
    const struct bk_retention *retention = &info->retention;
    *cut = (struct bk_cut){
        .events = over(info->events, retention->max_events),
        .bytes = over(info->bytes, retention->max_bytes),
        .before_time = retention->max_age_us == BK_NO_LIMIT ? 0 : over(retain->now, retention->max_age_us),
        .max = over(info->events, retention->min_events),
    };
    if (info->removed) {
        *cut = (struct bk_cut){.before = UINT64_MAX, .max = UINT64_MAX};
    }
}

/* Take from the front of a channel as long as its limits (or @before) ask for it. */
static int cut_front(struct retain *retain, struct bk_write_channel *channel, uint64_t before)
{
    struct bk_write *write = &retain->write;
    int error = 0;
    bool changed = false;
    while (retain->left > 0) {
        struct bk_cut cut;
        struct bk_place place;
        uint64_t first = 0;
        uint64_t dropped = 0;
        wanted_cut(retain, &channel->info, &cut);
        if (before > 0) {
            cut = (struct bk_cut){.before = before, .max = UINT64_MAX};
        }
        if (cut.max == 0 || (cut.before | cut.before_time | cut.events | cut.bytes) == 0) {
            break;
        }
        error = bk_store_find(write->store, write->txn, channel->info.id, 0, &first, &place);
        if (error == 0) {
            error = bk_cut(write, channel, first, &place, &cut, &dropped);
        }
        if (error == 0) {
            error = bk_write_paths_if_many(write);
        }
        changed = changed || dropped > 0;
        retain->left -= dropped > 0 ? 1 : 0;
        if (error != 0 || dropped < place.count) {
            break;
        }
    }
    error = error == BB_ENOTFOUND ? 0 : error;
    return error == 0 && changed ? update_first(write, channel) : error;
}

/* --- removal of a channel ------------------------------------------------------------------------- */

/* Delete rows whose key begins with the channel's number. */
static int drop_rows(struct retain *retain, MDB_dbi dbi, const struct bk_write_channel *channel)
{
    MDB_cursor *cursor = NULL;
    int error = bk_mdb_error(mdb_cursor_open(retain->write.txn, dbi, &cursor));
    if (error != 0) {
        return error;
    }
    int rc = 0;
    while (retain->left > 0) {
        MDB_val key = bk_val(bb_slice(channel->key, sizeof(channel->key)));
        MDB_val value;
        rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
        if (rc != 0 || memcmp(key.mv_data, channel->key, sizeof(channel->key)) != 0) {
            break;
        }
        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0) {
            break;
        }
        retain->left--;
        retain->write.changed = true;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

/* Whether no channel has a higher id. */
static int is_highest(struct bk_write *write, uint32_t id, bool *ret_is)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    int rc = mdb_cursor_open(write->txn, write->store->tables.channels, &cursor);
    if (rc == 0) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
        mdb_cursor_close(cursor);
    }
    *ret_is = rc == 0 && key.mv_size == BK_KEY_CHANNEL && bk_get_u32(key.mv_data) == id;
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

/* Nothing is left of the channel. Its row goes too, unless that is what says how high ids have been. */
static int purge_row(struct retain *retain, struct bk_write_channel *channel, bool is_made_again)
{
    struct bk_write *write = &retain->write;
    bool is_kept = false;
    int error = is_made_again ? 0 : is_highest(write, channel->info.id, &is_kept);
    if (error != 0 || is_kept) {
        return error;
    }
    error = bk_delete_row(write, BK_ROW_CHANNELS, bb_slice(channel->key, sizeof(channel->key)));
    bb_buf_fini(&channel->text);
    channel->info = (struct bk_log_channel){.id = channel->info.id};
    channel->exists = false;
    channel->dirty = false;
    return error;
}

static int purge(struct retain *retain, struct bk_write_channel *channel, bool is_made_again)
{
    struct bk_write *write = &retain->write;
    const struct bk_store_tables *tables = &write->store->tables;
    int error = cut_front(retain, channel, 0);
    if (error == 0) {
        error = bk_write_paths(write);
    }
    const MDB_dbi dbis[] = {tables->paths, tables->surplus, tables->by_source_time};
    for (size_t i = 0; i < BB_COUNT(dbis) && error == 0 && retain->left > 0; i++) {
        error = drop_rows(retain, dbis[i], channel);
    }
    return error == 0 && retain->left > 0 ? purge_row(retain, channel, is_made_again) : error;
}

int bk_purge_all(struct bk_write *write, struct bk_write_channel *channel)
{
    struct retain retain = {.write = *write, .left = SIZE_MAX};
    int error = purge(&retain, channel, true);
    *write = retain.write;
    return error;
}

/* --- surplus events of paths ---------------------------------------------------------------------- */

/* The sequence of the @nth newest event of a record that has more. */
static int nth_newest(struct bk_write *write,
                      uint32_t channel,
                      const struct bk_place *place,
                      uint64_t nth,
                      uint64_t *ret_sequence)
{
    struct bk_record record;
    struct bb_block head = {0};
    uint64_t skip = place->count - nth;
    int error = bk_store_record(write->store, write->txn, place->position, channel, &record);
    struct bb_slice rest = error == 0 ? record.blocks : bb_slice(NULL, 0);
    while (error == 0 && bk_record_next_block(&rest, &head, NULL, NULL) > 0) {
        if (skip < head.count) {
            *ret_sequence = head.sequence + skip;
            return 0;
        }
        skip -= head.count;
    }
    return error == BB_ESYSTEM ? error : 0; /* a damaged one stays whole */
}

/* The sequence of the oldest event that the floor keeps. */
static int find_floor(struct bk_write *write, const struct bk_log_channel *info, uint64_t *ret_floor)
{
    uint64_t need = info->retention.min_events;
    uint64_t sequence = info->last;
    MDB_cursor *cursor = NULL;
    *ret_floor = UINT64_MAX;
    int error =
        need == 0 ? 0 : bk_mdb_error(mdb_cursor_open(write->txn, write->store->tables.by_sequence, &cursor));
    if (cursor == NULL) {
        return error;
    }
    uint8_t bytes[BK_KEY_SEQUENCE];
    bk_key_sequence(bytes, info->id, UINT64_MAX);
    MDB_val key = bk_val(bb_slice(bytes, sizeof(bytes)));
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    rc = mdb_cursor_get(cursor, &key, &value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    for (; rc == 0 && need > 0 && error == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)) {
        struct bk_place place;
        if (bk_get_u32(key.mv_data) != info->id) {
            break;
        }
        if (bk_place_read(bk_slice(key), bk_slice(value), &place) < 0) {
            error = BB_ECORRUPT;
            break;
        }
        sequence = bk_get_u64((const uint8_t *)key.mv_data + 4);
        if (place.count > need) {
            error = nth_newest(write, info->id, &place, need, &sequence);
        }
        need -= BB_MIN(need, (uint64_t)place.count);
    }
    mdb_cursor_close(cursor);
    *ret_floor = need > 0 ? 0 : sequence;
    return error;
}

static int floor_of(struct retain *retain, const struct bk_log_channel *info, uint64_t *ret_floor)
{
    int error = 0;
    if (!retain->has_floor || retain->floor_channel != info->id) {
        error = find_floor(&retain->write, info, &retain->floor);
        retain->has_floor = error == 0;
        retain->floor_channel = info->id;
    }
    *ret_floor = retain->floor;
    return error;
}

/* The oldest record that has events of the path. */
static int oldest_of_path(struct bk_write *write, uint64_t path_id, uint64_t *ret_first)
{
    MDB_cursor *cursor = NULL;
    int error = bk_mdb_error(mdb_cursor_open(write->txn, write->store->tables.by_path, &cursor));
    if (error != 0) {
        return error;
    }
    uint8_t bytes[BK_KEY_BY_PATH];
    bk_key_pair(bytes, path_id, 0);
    MDB_val key = bk_val(bb_slice(bytes, sizeof(bytes)));
    MDB_val value;
    error = bk_mdb_error(mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE));
    if (error == 0) {
        *ret_first = bk_get_u64((const uint8_t *)key.mv_data + 8);
        error = bk_get_u64(key.mv_data) == path_id ? 0 : BB_ENOTFOUND;
    }
    mdb_cursor_close(cursor);
    return error;
}

/* One cut for the sake of @path. */
static int cut_surplus(struct retain *retain,
                       struct bk_write_channel *channel,
                       const struct bk_write_path *path,
                       uint64_t *ret_dropped)
{
    struct bk_write *write = &retain->write;
    struct bk_cut cut = {.surplus = true,
                         .max = over(channel->info.events, channel->info.retention.min_events)};
    uint64_t first = 0;
    uint64_t found = 0;
    struct bk_place place;
    *ret_dropped = 0;
    int error = floor_of(retain, &channel->info, &cut.before);
    if (error == 0) {
        error = oldest_of_path(write, path->latest.path_id, &first);
    }
    if (error == 0 && first < cut.before) {
        error = bk_store_find(write->store, write->txn, channel->info.id, first, &found, &place);
    }
    if (error == 0 && first < cut.before && found == first) {
        error = bk_cut(write, channel, first, &place, &cut, ret_dropped);
    }
    retain->left -= *ret_dropped > 0 ? 1 : 0;
    return error == BB_ENOTFOUND ? 0 : error;
}

/* Bring a path down to its limit. @ret_done: it is there, or cannot be brought further; what the floor
 * holds can be later. */
static int cut_path(struct retain *retain, struct bb_slice key, bool *ret_done)
{
    struct bk_write *write = &retain->write;
    struct bk_write_channel *channel = NULL;
    struct bk_write_path *path = NULL;
    struct bb_slice text = {key.data + BK_KEY_CHANNEL, key.len - BK_KEY_CHANNEL};
    *ret_done = true;
    int error = bk_write_channel(write, bk_get_u32(key.data), &channel);
    if (error != 0) {
        return error;
    }
    if (channel->exists && !channel->info.removed) {
        error = bk_write_path(write, channel, text, false, &path);
    }
    if (error != 0 || path == NULL) {
        return error == BB_ENOTFOUND || error == BB_ECORRUPT ? 0 : error;
    }
    uint64_t dropped = 1;
    while (error == 0 && dropped > 0 && path->latest.kept > channel->info.retention.max_per_path) {
        if (retain->left == 0) {
            *ret_done = false;
            break;
        }
        error = cut_surplus(retain, channel, path, &dropped);
        *ret_done = dropped > 0 || channel->info.retention.min_events == 0;
    }
    return error == 0 ? update_first(write, channel) : error;
}

/* The next row of `surplus` at or after where the round before ended. */
static int next_surplus(struct bk_write *write, uint8_t *key, size_t *len)
{
    MDB_cursor *cursor = NULL;
    int error = bk_mdb_error(mdb_cursor_open(write->txn, write->store->tables.surplus, &cursor));
    if (error != 0) {
        return error;
    }
    MDB_val k = bk_val(bb_slice(key, *len));
    MDB_val v;
    error = bk_mdb_error(mdb_cursor_get(cursor, &k, &v, *len > 0 ? MDB_SET_RANGE : MDB_FIRST));
    if (error == 0 && (k.mv_size > BK_KEY_MAX || k.mv_size < BK_KEY_CHANNEL)) {
        error = BB_ECORRUPT;
    }
    if (error == 0) {
        memcpy(key, k.mv_data, k.mv_size);
        *len = k.mv_size;
    }
    mdb_cursor_close(cursor);
    return error;
}

static int cut_all_surplus(struct retain *retain)
{
    struct bk_write *write = &retain->write;
    struct bk_store *store = write->store;
    bool wrapped = store->surplus_len == 0;
    size_t n = retain->left > SIZE_MAX / PATHS_PER_BUDGET ? SIZE_MAX : retain->left * PATHS_PER_BUDGET;
    for (; n > 0 && retain->left > 0; n--) {
        int error = next_surplus(write, store->surplus_at, &store->surplus_len);
        if (error == BB_ENOTFOUND) {
            store->surplus_len = 0;
            if (wrapped) {
                return 0;
            }
            wrapped = true;
            continue;
        }
        bool done = false;
        struct bb_slice key = bb_slice(store->surplus_at, store->surplus_len);
        error = error != 0 ? error : cut_path(retain, key, &done);
        if (error == 0 && done) {
            error = bk_delete(write, store->tables.surplus, key);
        } else if (error == 0 && retain->left > 0) {
            store->surplus_at[store->surplus_len++] = 0; /* the next row */
        }
        error = error != 0 ? error : bk_write_paths_if_many(write);
        if (error != 0) {
            return error;
        }
    }
    return 0;
}

/* --- the calls ------------------------------------------------------------------------------------ */

/* Numbers of the channels that have something to ask for. */
static int list_channels(struct bk_write *write, struct bb_buf *list)
{
    MDB_cursor *cursor = NULL;
    int rc = mdb_cursor_open(write->txn, write->store->tables.channels, &cursor);
    if (rc != 0) {
        return bk_mdb_error(rc);
    }
    MDB_val key;
    MDB_val value;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        struct bk_log_channel info; /* nothing was written yet: the pages are those of the map */
        if (!bk_is_whole(key) || !bk_is_whole(value) ||
            bk_channel_decode(bk_slice(key), bk_slice(value), &info) < 0) {
            rc = MDB_CORRUPTED;
            break;
        }
        const struct bk_retention *r = &info.retention;
        if (info.removed || r->max_age_us != BK_NO_LIMIT || info.events > r->max_events ||
            info.bytes > r->max_bytes) {
            bb_buf_append(list, &info.id, sizeof(info.id));
        }
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? list->error : bk_mdb_error(rc);
}

static int retain_channels(struct retain *retain, const struct bb_buf *list)
{
    struct bk_store *store = retain->write.store;
    size_t n = list->len / sizeof(uint32_t);
    int error = 0;
    for (size_t i = 0; i < n && error == 0 && retain->left > 0; i++) {
        uint32_t id = 0;
        struct bk_write_channel *channel = NULL;
        memcpy(&id, list->data + (store->retain_at % n) * sizeof(id), sizeof(id));
        store->retain_at = (store->retain_at + 1) % n;
        error = bk_write_channel(&retain->write, id, &channel);
        if (error == 0 && channel->info.removed) {
            error = purge(retain, channel, false);
        } else if (error == 0) {
            error = cut_front(retain, channel, 0);
        }
    }
    return error;
}

/* Channels whose first sequence rose. */
static int list_trimmed(struct bk_write *write, struct bb_buf *list)
{
    size_t at = 0;
    struct bk_write_channel *channel = NULL;
    while ((channel = bb_map_next(&write->channels, &at, NULL)) != NULL) {
        if (channel->exists && !channel->info.removed && channel->info.first > channel->first_before) {
            const struct trimmed trimmed = {channel->info.id, channel->info.first};
            bb_buf_append(list, &trimmed, sizeof(trimmed));
        }
    }
    return list->error;
}

static void tell_trimmed(const struct bb_buf *list, bk_store_trimmed_fn *on_trimmed, void *context)
{
    for (size_t at = 0; on_trimmed != NULL && at < list->len; at += sizeof(struct trimmed)) {
        struct trimmed trimmed;
        memcpy(&trimmed, list->data + at, sizeof(trimmed));
        on_trimmed(context, trimmed.channel, trimmed.first);
    }
}

int bk_store_retain(struct bk_store *store,
                    uint64_t now,
                    size_t budget,
                    bk_store_trimmed_fn *on_trimmed,
                    void *context,
                    size_t *ret_done)
{
    struct retain retain = {.now = now, .left = budget};
    struct bb_buf channels = BB_BUF_INIT;
    struct bb_buf trimmed = BB_BUF_INIT;
    *ret_done = 0;
    int error = bk_write_begin(&retain.write, store);
    if (error != 0) {
        return error;
    }
    error = list_channels(&retain.write, &channels);
    if (error == 0) {
        error = retain_channels(&retain, &channels);
    }
    if (error == 0) {
        error = cut_all_surplus(&retain);
    }
    if (error == 0) {
        error = list_trimmed(&retain.write, &trimmed);
    }
    error = bk_write_finish(&retain.write, error);
    if (error == 0) {
        *ret_done = budget - retain.left;
        tell_trimmed(&trimmed, on_trimmed, context);
    }
    bb_buf_fini(&channels);
    bb_buf_fini(&trimmed);
    return error;
}

int bk_store_trim(struct bk_store *store,
                  uint32_t channel,
                  uint64_t before,
                  size_t budget,
                  uint64_t *ret_first,
                  bool *ret_more)
{
    struct retain retain = {.left = budget};
    struct bk_write_channel *found = NULL;
    *ret_first = 0;
    *ret_more = false;
    int error = bk_write_begin(&retain.write, store);
    if (error != 0) {
        return error;
    }
    error = bk_write_channel(&retain.write, channel, &found);
    if (error == 0 && (!found->exists || found->info.removed)) {
        error = BB_ENOTFOUND;
    }
    if (error == 0 && before > 0) {
        error = cut_front(&retain, found, before);
    }
    if (error == 0) {
        *ret_first = found->info.first;
        *ret_more = retain.left == 0 && found->info.first < before && found->info.events > 0;
    }
    return bk_write_finish(&retain.write, error);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/cut.h"

#include "proto/base/error.h"

/* A record being cut. */
struct cutter {
    struct bk_write *write;
    struct bk_write_channel *channel;
    const struct bk_cut *cut;
    uint64_t old_first;
    struct bb_buf raw; /* the old value: the map's bytes move as the transaction writes */
    struct bk_record old;
    struct bb_buf blocks; /* what stays */
    struct bk_record kept;
    uint64_t dropped;
    uint64_t dropped_bytes;
    bool stopped; /* at the front: an event stayed */
};

/* Consecutive events of one block that stay. */
struct run {
    const uint8_t *from;
    size_t len;
    uint64_t index; /* of the first one in its block */
    uint64_t count;
};

static void run_end(struct cutter *cutter, const struct bb_block *block, struct run *run)
{
    if (run->count == 0) {
        return;
    }
    struct bb_block head = *block;
    head.sequence += run->index;
    head.instance += run->index;
    head.count = run->count;
    head.length = run->len;
    uint8_t bytes[BB_BLOCK_HEAD_MAX];
    bb_buf_append(&cutter->blocks, bytes, bb_block_write(bytes, &head));
    bb_buf_append(&cutter->blocks, run->from, run->len);
    struct bk_record *kept = &cutter->kept;
    if (kept->count == 0) {
        kept->first_sequence = head.sequence;
    }
    kept->last_sequence = head.sequence + head.count - 1;
    kept->newest_time = head.time;
    kept->count += (uint32_t)head.count;
    kept->n_blocks++;
    kept->bytes += head.length;
    run->count = 0;
    run->len = 0;
}

/* How many of the path's events in this record are surplus: those that are not in older records. */
static int path_surplus(struct cutter *cutter, struct bk_write_path *path)
{
    struct bk_write *write = cutter->write;
    uint64_t limit = cutter->channel->info.retention.max_per_path;
    uint64_t surplus = path->latest.kept > limit ? path->latest.kept - limit : 0;
    MDB_cursor *cursor = NULL;
    path->drop = 0;
    if (surplus == 0) {
        return 0;
    }
    int error = bk_mdb_error(mdb_cursor_open(write->txn, write->store->tables.by_path, &cursor));
    if (error != 0) {
        return error;
    }
    uint8_t bytes[BK_KEY_BY_PATH];
    bk_key_pair(bytes, path->latest.path_id, 0);
    MDB_val key = bk_val(bb_slice(bytes, sizeof(bytes)));
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && surplus > 0 && key.mv_size == sizeof(bytes) && value.mv_size == BK_BY_PATH_LEN) {
        const uint8_t *at = key.mv_data;
        if (bk_get_u64(at) != path->latest.path_id || bk_get_u64(at + 8) >= cutter->old_first) {
            break;
        }
        surplus -= BB_MIN(surplus, (uint64_t)bk_get_u32((const uint8_t *)value.mv_data + 8));
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    path->drop = surplus;
    return rc == 0 || rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

/* The path of an event, NULL if the table does not know it. */
static int path_of(struct cutter *cutter, struct bb_slice text, struct bk_write_path **at)
{
    struct bk_write_path *path = *at;
    if (path != NULL && path->key_len == BK_KEY_CHANNEL + text.len &&
        memcmp(path->key + BK_KEY_CHANNEL, text.data, text.len) == 0) {
        return 0;
    }
    int error = bk_write_path(cutter->write, cutter->channel, text, false, at);
    if (error == BB_ENOTFOUND || error == BB_ECORRUPT) {
        *at = NULL;
        return 0;
    }
    if (error != 0 || (*at)->before > 0) {
        return error;
    }
    (*at)->here = 0;
    error = bk_write_here(cutter->write, *at);
    return error == 0 && cutter->cut->surplus ? path_surplus(cutter, *at) : error;
}

static bool
goes(struct cutter *cutter, const struct bb_block *block, uint64_t index, struct bk_write_path *path)
{
    const struct bk_cut *cut = cutter->cut;
    if (cutter->dropped >= cut->max) {
        return false;
    }
    if (cut->surplus) {
        if (path == NULL || path->drop == 0 || block->sequence + index >= cut->before) {
            return false;
        }
        path->drop--;
        return true;
    }
    if (cutter->stopped) {
        return false;
    }
    cutter->stopped = block->sequence + index >= cut->before && block->time >= cut->before_time &&
                      cutter->dropped >= cut->events && cutter->dropped_bytes >= cut->bytes;
    return !cutter->stopped;
}

/* Delete the source times of a dropped or kept event, or put them again. */
static int source_time(struct cutter *cutter, struct bb_slice attributes, bool put)
{
    struct bb_attributes read;
    if (attributes.len == 0 || bb_event_attributes(attributes, &read) < 0 || !read.has_source_time) {
        return 0;
    }
    uint8_t key[BK_KEY_SOURCE_TIME];
    bk_key_source_time(key, cutter->old.channel, bk_source_bucket(read.source_time), cutter->old.position);
    MDB_dbi dbi = cutter->write->store->tables.by_source_time;
    struct bb_slice all = bb_slice(key, sizeof(key));
    return put ? bk_put(cutter->write, dbi, all, bb_slice("", 0), 0) : bk_delete(cutter->write, dbi, all);
}

/* For all events of @blocks. */
static int source_times(struct cutter *cutter, struct bb_slice blocks, bool put)
{
    struct bb_block block;
    struct bb_slice events;
    int error = 0;
    if ((cutter->old.flags & BK_LOG_SOURCE_TIME) == 0) {
        return 0;
    }
    while (error == 0 && bk_record_next_block(&blocks, &block, &events, NULL) > 0) {
        struct bb_event_view event;
        while (error == 0 && events.len > 0 && bb_event_read(&events, &event) == 0) {
            error = source_time(cutter, event.attributes, put);
        }
    }
    return error;
}

static int cut_block(struct cutter *cutter, const struct bb_block *block, struct bb_slice events)
{
    struct run run = {0};
    struct bk_write_path *path = NULL;
    for (uint64_t i = 0; events.len > 0; i++) {
        struct bb_event_view event;
        if (bb_event_read(&events, &event) < 0) {
            return BB_ECORRUPT;
        }
        int error = path_of(cutter, event.path, &path);
        if (error != 0) {
            return error;
        }
        if (path != NULL) {
            path->before++;
        }
        if (goes(cutter, block, i, path)) {
            run_end(cutter, block, &run);
            cutter->dropped++;
            cutter->dropped_bytes += event.raw.len;
            continue;
        }
        if (path != NULL) {
            path->here++;
        }
        if (run.count == 0) {
            run.from = event.raw.data;
            run.index = i;
        }
        run.count++;
        run.len += event.raw.len;
    }
    run_end(cutter, block, &run);
    return cutter->blocks.error;
}

static int cut_blocks(struct cutter *cutter)
{
    struct bb_slice rest = cutter->old.blocks;
    struct bb_block block;
    struct bb_slice events;
    int next = 0;
    while ((next = bk_record_next_block(&rest, &block, &events, NULL)) > 0) {
        int error = cut_block(cutter, &block, events);
        if (error != 0) {
            return error;
        }
    }
    return next;
}

/* Forget what paths were noted. */
static void clear_here(struct bk_write *write)
{
    for (size_t i = 0; i < write->n_here; i++) {
        write->here[i]->here = 0;
        write->here[i]->before = 0;
        write->here[i]->drop = 0;
    }
    write->n_here = 0;
}

static int put_paths(struct cutter *cutter)
{
    struct bk_write *write = cutter->write;
    int error = 0;
    for (size_t i = 0; i < write->n_here && error == 0; i++) {
        struct bk_write_path *path = write->here[i];
        uint8_t key[BK_KEY_BY_PATH];
        bk_key_pair(key, path->latest.path_id, cutter->old_first);
        error = bk_delete(write, write->store->tables.by_path, bb_slice(key, sizeof(key)));
        if (error == 0 && path->here > 0) {
            error = bk_write_by_path(write, path->latest.path_id, cutter->kept.first_sequence,
                                     cutter->kept.position, path->here);
        }
        uint64_t dropped = path->before - path->here;
        path->latest.kept -= BB_MIN(path->latest.kept, dropped);
        path->dirty = path->dirty || dropped > 0;
    }
    return error;
}

/* Entries of the group go with its last record. */
static int drop_group(struct bk_write *write, const struct bk_record *record)
{
    MDB_cursor *cursor = NULL;
    int error = bk_mdb_error(mdb_cursor_open(write->txn, write->store->tables.records, &cursor));
    if (error != 0) {
        return error;
    }
    uint8_t key[BK_KEY_SESSION];
    bk_key_record(key, record->position, 0);
    MDB_val k = bk_val(bb_slice(key, BK_KEY_RECORD));
    MDB_val v;
    int rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    bool others = rc == 0 && k.mv_size == BK_KEY_RECORD && bk_get_u64(k.mv_data) == record->position;
    mdb_cursor_close(cursor);
    if (others || (rc != 0 && rc != MDB_NOTFOUND)) {
        return others ? 0 : bk_mdb_error(rc);
    }
    bk_key_pair(key, record->group_time, record->position);
    error = bk_delete(write, write->store->tables.by_time, bb_slice(key, BK_KEY_TIME));
    if (error == 0) {
        bk_key_session(key, record->server, record->group_session, record->position);
        error = bk_delete(write, write->store->tables.by_session, bb_slice(key, sizeof(key)));
    }
    return error;
}

static int put_record(struct cutter *cutter)
{
    struct bk_write *write = cutter->write;
    struct bk_record *kept = &cutter->kept;
    uint8_t key[BK_KEY_RECORD];
    bk_key_record(key, kept->position, kept->channel);
    struct bb_slice all = bb_slice(key, sizeof(key));
    if (kept->count == 0) {
        int error = bk_delete(write, write->store->tables.records, all);
        return error != 0 ? error : drop_group(write, &cutter->old);
    }
    kept->blocks = bb_buf_slice(&cutter->blocks);
    bb_buf_reset(&write->scratch);
    bk_record_encode(&write->scratch, kept);
    int error = write->scratch.error;
    if (error == 0) {
        error = bk_put(write, write->store->tables.records, all, bb_buf_slice(&write->scratch), 0);
    }
    const struct bk_place place = {kept->position, kept->last_sequence, kept->count, kept->bytes};
    return error != 0 ? error : bk_write_place(write, kept->channel, kept->first_sequence, &place);
}

static int drop_place(struct bk_write *write, struct bk_write_channel *channel, uint64_t first)
{
    uint8_t key[BK_KEY_SEQUENCE];
    bk_key_sequence(key, channel->info.id, first);
    return bk_delete(write, write->store->tables.by_sequence, bb_slice(key, sizeof(key)));
}

static void count_dropped(struct bk_write_channel *channel, uint64_t events, uint64_t bytes)
{
    channel->info.events -= BB_MIN(channel->info.events, events);
    channel->info.bytes -= BB_MIN(channel->info.bytes, bytes);
    channel->dirty = true;
}

static int put_all(struct cutter *cutter)
{
    int error = source_times(cutter, cutter->old.blocks, false);
    if (error == 0) {
        error = source_times(cutter, bb_buf_slice(&cutter->blocks), true);
    }
    if (error == 0) {
        error = put_paths(cutter);
    }
    if (error == 0) {
        error = drop_place(cutter->write, cutter->channel, cutter->old_first);
    }
    if (error == 0) {
        error = put_record(cutter);
    }
    count_dropped(cutter->channel, cutter->dropped, cutter->dropped_bytes);
    return error;
}

/* The record cannot be read: what is known of it goes. */
static int drop_blindly(struct bk_write *write,
                        struct bk_write_channel *channel,
                        uint64_t first,
                        const struct bk_place *place)
{
    uint8_t key[BK_KEY_RECORD];
    bk_key_record(key, place->position, channel->info.id);
    int error = bk_delete(write, write->store->tables.records, bb_slice(key, sizeof(key)));
    if (error == 0) {
        error = drop_place(write, channel, first);
    }
    count_dropped(channel, place->count, place->bytes);
    return error;
}

static int read_record(struct cutter *cutter, uint64_t position)
{
    struct bk_write *write = cutter->write;
    uint8_t key[BK_KEY_RECORD];
    struct bb_slice value;
    bk_key_record(key, position, cutter->channel->info.id);
    int error = bk_get(write->txn, write->store->tables.records, bb_slice(key, sizeof(key)), &value);
    if (error != 0) {
        return error;
    }
    bb_buf_append(&cutter->raw, value.data, value.len);
    if (cutter->raw.error != 0) {
        return cutter->raw.error;
    }
    error = bk_record_decode(bb_slice(key, sizeof(key)), bb_buf_slice(&cutter->raw), &cutter->old);
    cutter->kept = cutter->old;
    cutter->kept.count = 0;
    cutter->kept.n_blocks = 0;
    cutter->kept.bytes = 0;
    return error;
}

int bk_cut(struct bk_write *write,
           struct bk_write_channel *channel,
           uint64_t first,
           const struct bk_place *place,
           const struct bk_cut *cut,
           uint64_t *ret_dropped)
{
    struct cutter cutter = {.write = write, .channel = channel, .cut = cut, .old_first = first};
    int error = read_record(&cutter, place->position);
    if (error == 0) {
        error = cut_blocks(&cutter);
    }
    if (error == 0 && cutter.dropped > 0) {
        error = put_all(&cutter);
    } else if (error == BB_ECORRUPT || error == BB_ENOTFOUND || error == BB_EVERSION) {
        error = cut->surplus ? 0 : drop_blindly(write, channel, first, place);
        cutter.dropped = cut->surplus ? 0 : place->count;
    }
    clear_here(write);
    bb_buf_fini(&cutter.raw);
    bb_buf_fini(&cutter.blocks);
    *ret_dropped = cutter.dropped;
    return error;
}

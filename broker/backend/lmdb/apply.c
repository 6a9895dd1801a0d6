/* SPDX-License-Identifier: Apache-2.0 */
/* Journal records into tables. */
#include "proto/base/error.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/lmdb/write.h"

#include <stdlib.h>

/* Tables take about so much beside the events: what is asked for when the map is nearly full. */
#define NEED_FACTOR 2
#define NEED_PAGES  64

/* The part of the open group that belongs to one channel. */
struct open_record {
    struct bk_write_channel *channel;
    struct bk_record record;
    struct bb_buf blocks;
    uint64_t last_bucket;
    bool has_bucket;
    struct bb_slice path; /* of the first event */
};

/* The newest id of a server. */
struct newest {
    struct bk_event_id id;
    uint64_t time;
};

struct apply {
    struct bk_write write;
    struct open_record *records; /* buffers are kept for the next group */
    size_t n_records;
    size_t n_buffers;
    size_t group_bytes;
    uint64_t position; /* of the open group */
    uint64_t server;
    struct newest *newest;
    size_t n_newest;
};

/* --- groups --------------------------------------------------------------------------------------- */

static int open_order(const void *a, const void *b)
{
    uint32_t left = ((const struct open_record *)a)->record.channel;
    uint32_t right = ((const struct open_record *)b)->record.channel;
    return (left > right) - (left < right);
}

static int record_put(struct apply *apply, struct open_record *open)
{
    struct bk_write *write = &apply->write;
    struct bk_record *record = &open->record;
    uint8_t key[BK_KEY_RECORD];
    bk_key_record(key, record->position, record->channel);
    record->blocks = bb_buf_slice(&open->blocks);
    bb_buf_reset(&write->scratch);
    bk_record_encode(&write->scratch, record);
    int error = write->scratch.error;
    if (error == 0) {
        error = bk_put(write, write->store->tables.records, bb_slice(key, sizeof(key)),
                       bb_buf_slice(&write->scratch), MDB_APPEND);
    }
    if (error == 0) {
        const struct bk_place place = {record->position, record->last_sequence, record->count, record->bytes};
        error = bk_write_place(write, record->channel, record->first_sequence, &place);
    }
    return error;
}

/* The paths of all records of the group; each belongs to the record of its channel. */
static int group_paths(struct apply *apply)
{
    struct bk_write *write = &apply->write;
    int error = 0;
    for (size_t i = 0; i < write->n_here && error == 0; i++) {
        struct bk_write_path *path = write->here[i];
        const struct bk_record *record = &apply->records[path->channel->record - 1].record;
        error = bk_write_by_path(write, path->latest.path_id, record->first_sequence, apply->position,
                                 path->here);
        path->here = 0;
    }
    write->n_here = 0;
    return error;
}

static int group_index(struct apply *apply, uint64_t time, uint64_t session)
{
    struct bk_write *write = &apply->write;
    uint8_t key[BK_KEY_SESSION];
    bk_key_pair(key, time, apply->position);
    int error = bk_put(write, write->store->tables.by_time, bb_slice(key, BK_KEY_TIME), bb_slice("", 0), 0);
    if (error == 0) {
        bk_key_session(key, apply->server, session, apply->position);
        error =
            bk_put(write, write->store->tables.by_session, bb_slice(key, sizeof(key)), bb_slice("", 0), 0);
    }
    return error;
}

static int group_close(struct apply *apply)
{
    if (apply->n_records == 0) {
        return 0;
    }
    uint64_t time = 0;
    uint64_t session = UINT64_MAX;
    for (size_t i = 0; i < apply->n_records; i++) {
        time = BB_MAX(time, apply->records[i].record.newest_time);
        session = BB_MIN(session, apply->records[i].record.group_session);
    }
    int error = group_paths(apply);
    qsort(apply->records, apply->n_records, sizeof(*apply->records), open_order);
    for (size_t i = 0; i < apply->n_records; i++) {
        struct open_record *open = &apply->records[i];
        open->channel->record = 0;
        open->record.group_time = time;
        open->record.group_session = session;
        error = error != 0 ? error : record_put(apply, open);
    }
    if (error == 0) {
        error = group_index(apply, time, session);
    }
    apply->n_records = 0;
    apply->group_bytes = 0;
    apply->position++;
    return error != 0 ? error : bk_write_paths_if_many(&apply->write);
}

/* Room for one more record in the open group. */
static int group_grow(struct apply *apply)
{
    if (apply->n_records < apply->n_buffers) {
        return 0;
    }
    size_t n = apply->n_buffers == 0 ? 4 : 2 * apply->n_buffers;
    struct open_record *records = realloc(apply->records, n * sizeof(*records));
    if (records == NULL) {
        return BB_ENOMEM;
    }
    memset(records + apply->n_buffers, 0, (n - apply->n_buffers) * sizeof(*records));
    apply->records = records;
    apply->n_buffers = n;
    return 0;
}

static int record_open(struct apply *apply,
                       struct bk_write_channel *channel,
                       const struct bk_log_block *block,
                       struct open_record **ret_open)
{
    if (channel->record == 0) {
        int error = group_grow(apply);
        if (error != 0) {
            return error;
        }
        struct open_record *open = &apply->records[apply->n_records++];
        struct bb_buf blocks = open->blocks;
        bb_buf_reset(&blocks);
        *open = (struct open_record){.channel = channel, .blocks = blocks};
        open->record = (struct bk_record){
            .position = apply->position,
            .channel = block->channel,
            .flags = BK_LOG_UNIFORM,
            .server = block->server,
            .first_sequence = block->head.sequence,
            .group_session = block->head.session,
        };
        channel->record = apply->n_records;
    }
    *ret_open = &apply->records[channel->record - 1];
    return 0;
}

/* --- blocks --------------------------------------------------------------------------------------- */

static int note_source_time(struct apply *apply, struct open_record *open, struct bb_slice attributes)
{
    struct bb_attributes read;
    if (attributes.len == 0) {
        return 0;
    }
    if (bb_event_attributes(attributes, &read) < 0) {
        return BB_ECORRUPT;
    }
    if (!read.has_source_time) {
        return 0;
    }
    uint64_t bucket = bk_source_bucket(read.source_time);
    if (open->has_bucket && open->last_bucket == bucket) {
        return 0;
    }
    open->has_bucket = true;
    open->last_bucket = bucket;
    uint8_t key[BK_KEY_SOURCE_TIME];
    bk_key_source_time(key, open->record.channel, bucket, open->record.position);
    return bk_put(&apply->write, apply->write.store->tables.by_source_time, bb_slice(key, sizeof(key)),
                  bb_slice("", 0), 0);
}

static int note_path(struct apply *apply,
                     struct open_record *open,
                     const struct bb_event_view *event,
                     struct bk_write_path **at)
{
    struct bk_write_path *path = *at;
    struct bb_slice text = event->path;
    if (path == NULL || path->key_len != BK_KEY_CHANNEL + text.len ||
        memcmp(path->key + BK_KEY_CHANNEL, text.data, text.len) != 0) {
        int error = bk_write_path(&apply->write, open->channel, text, true, at);
        if (error != 0) {
            return error;
        }
        path = *at;
        if (path->here == 0 && (error = bk_write_here(&apply->write, path)) != 0) {
            return error;
        }
        if (open->path.data == NULL) {
            open->path = text;
        } else if (!bb_slice_equal(open->path, text)) {
            open->record.flags &= ~(uint32_t)BK_LOG_UNIFORM;
        }
    }
    path->here++;
    path->latest.kept++;
    return 0;
}

/* @event is the latest of its path so far. */
static void note_latest(struct bk_write_path *path,
                        const struct bk_log_block *block,
                        struct bb_slice event,
                        uint64_t index)
{
    const struct bb_block *head = &block->head;
    path->latest.sequence = head->sequence + index;
    path->latest.session = head->session;
    path->latest.instance = head->instance + index;
    path->latest.time = head->time;
    path->latest.source = head->source;
    path->latest.server = block->server;
    path->latest.event = event;
    path->fresh = true;
    path->dirty = true;
}

static int note_events(struct apply *apply, struct open_record *open, const struct bk_log_block *block)
{
    struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
    struct bk_write_path *path = NULL;
    uint64_t n = 0;
    int error = 0;
    for (; rest.len > 0 && error == 0; n++) {
        struct bb_event_view event;
        if (bb_event_read(&rest, &event) < 0) {
            return BB_ECORRUPT;
        }
        error = note_path(apply, open, &event, &path);
        if (error == 0) {
            note_latest(path, block, event.raw, n);
        }
        if (error == 0 && (block->flags & BK_LOG_SOURCE_TIME) != 0) {
            error = note_source_time(apply, open, event.attributes);
        }
    }
    return error == 0 && n != block->head.count ? BB_ECORRUPT : error;
}

static int note_newest(struct apply *apply, const struct bk_log_block *block)
{
    size_t i = 0;
    while (i < apply->n_newest && apply->newest[i].id.server != block->server) {
        i++;
    }
    if (i == apply->n_newest) {
        struct newest *newest = realloc(apply->newest, (i + 1) * sizeof(*newest));
        if (newest == NULL) {
            return BB_ENOMEM;
        }
        apply->newest = newest;
        apply->n_newest++;
    }
    const struct bb_block *head = &block->head;
    apply->newest[i] =
        (struct newest){{block->server, head->session, head->instance + head->count - 1}, head->time};
    return 0;
}

static void count_block(struct open_record *open, const struct bk_log_block *block)
{
    const struct bb_block *head = &block->head;
    struct bk_record *record = &open->record;
    struct bk_log_channel *info = &open->channel->info;
    record->flags |= block->flags & (BK_LOG_TTL | BK_LOG_SOURCE_TIME);
    record->last_sequence = head->sequence + head->count - 1;
    record->count += (uint32_t)head->count;
    record->n_blocks++;
    record->newest_time = BB_MAX(record->newest_time, head->time);
    record->bytes += head->length;
    if (info->events == 0) {
        info->first = head->sequence;
    }
    info->last = record->last_sequence;
    info->events += head->count;
    info->bytes += head->length;
    open->channel->dirty = true;
}

static int apply_block(struct apply *apply, const struct bk_batch_entry *entry)
{
    const struct bk_log_block *block = &entry->block;
    struct bk_write_channel *channel = NULL;
    struct open_record *open = NULL;
    int error = note_newest(apply, block);
    if (error == 0) {
        error = bk_write_channel(&apply->write, block->channel, &channel);
    }
    if (error != 0 || !channel->exists || channel->info.removed) {
        return error;
    }
    if (block->head.sequence <= channel->info.last || block->head.count > UINT32_MAX / 2) {
        return BB_ECORRUPT;
    }
    if (apply->n_records > 0 &&
        (apply->group_bytes + entry->wire.len > BK_GROUP_BYTES || apply->server != block->server)) {
        error = group_close(apply);
    }
    if (error == 0) {
        apply->server = block->server;
        apply->group_bytes += entry->wire.len + (channel->record == 0 ? BK_RECORD_HEADER : 0);
        error = record_open(apply, channel, block, &open);
    }
    if (error == 0) {
        error = note_events(apply, open, block);
    }
    if (error == 0) {
        bb_buf_append(&open->blocks, entry->wire.data, entry->wire.len);
        error = open->blocks.error;
        count_block(open, block);
    }
    return error;
}

/* --- the other entries ---------------------------------------------------------------------------- */

/* All paths may have too many events under a tighter limit. */
static int mark_surplus(struct bk_write *write, struct bk_write_channel *channel)
{
    MDB_cursor *cursor = NULL;
    int error = bk_write_paths(write);
    if (error == 0) {
        error = bk_mdb_error(mdb_cursor_open(write->txn, write->store->tables.paths, &cursor));
    }
    if (error != 0) {
        return error;
    }
    MDB_val key = bk_val(bb_slice(channel->key, sizeof(channel->key)));
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    while (rc == 0 && error == 0 && memcmp(key.mv_data, channel->key, sizeof(channel->key)) == 0) {
        error = bk_put(write, write->store->tables.surplus, bk_slice(key), bb_slice("", 0), 0);
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return error;
}

static int
channel_change(struct apply *apply, struct bk_write_channel *channel, const struct bk_log_channel *wanted)
{
    struct bb_buf text = BB_BUF_INIT;
    bb_buf_append(&text, wanted->name.data, wanted->name.len);
    bb_buf_append(&text, wanted->settings.data, wanted->settings.len);
    if (text.error != 0) {
        return text.error;
    }
    bb_buf_fini(&channel->text);
    channel->text = text;
    struct bk_log_channel *info = &channel->info;
    bool tighter = channel->exists && wanted->retention.max_per_path < info->retention.max_per_path;
    info->name = bb_slice(text.data, wanted->name.len);
    info->settings = wanted->settings.len > 0 ? bb_slice(text.data + wanted->name.len, wanted->settings.len)
                                              : wanted->settings;
    info->retention = wanted->retention;
    info->removed = false;
    if (!channel->exists) {
        info->first = 1;
        channel->first_before = 1;
    }
    channel->exists = true;
    channel->dirty = true;
    return tighter ? mark_surplus(&apply->write, channel) : 0;
}

static int apply_channel(struct apply *apply, const struct bk_log_channel *wanted)
{
    struct bk_write_channel *channel = NULL;
    int error = bk_write_channel(&apply->write, wanted->id, &channel);
    if (error == 0) {
        error = group_close(apply);
    }
    if (error != 0) {
        return error;
    }
    if (wanted->removed) {
        channel->dirty = channel->exists;
        channel->info.removed = channel->exists;
        return 0;
    }
    if (channel->exists && channel->info.removed) {
        error = bk_purge_all(&apply->write, channel);
    }
    return error != 0 ? error : channel_change(apply, channel, wanted);
}

static int apply_producer(struct bk_write *write, const struct bk_log_producer *producer)
{
    struct bb_slice key = bb_slice(producer->key, sizeof(producer->key));
    if (producer->removed) {
        return bk_delete_row(write, BK_ROW_PRODUCERS, key);
    }
    uint8_t numbers[16];
    bk_key_pair(numbers, producer->last, producer->time);
    bb_buf_reset(&write->scratch);
    bb_buf_append(&write->scratch, numbers, sizeof(numbers));
    bb_buf_append(&write->scratch, producer->notes.data, producer->notes.len);
    return bk_put_row(write, BK_ROW_PRODUCERS, key);
}

static int apply_cursor(struct bk_write *write, const struct bk_log_cursor *cursor)
{
    if (cursor->name.len == 0 || cursor->name.len > BK_KEY_MAX) {
        return BB_ECORRUPT;
    }
    if (cursor->removed) {
        return bk_delete_row(write, BK_ROW_CURSORS, cursor->name);
    }
    bb_buf_reset(&write->scratch);
    bb_buf_append(&write->scratch, cursor->value.data, cursor->value.len);
    return bk_put_row(write, BK_ROW_CURSORS, cursor->name);
}

static int apply_entry(struct apply *apply, const struct bk_batch_entry *entry)
{
    switch (entry->kind) {
    case BK_BATCH_CHANNEL:
        return apply_channel(apply, &entry->channel);
    case BK_BATCH_BLOCK:
        return apply_block(apply, entry);
    case BK_BATCH_PRODUCER:
        return apply_producer(&apply->write, &entry->producer);
    case BK_BATCH_CURSOR:
        return apply_cursor(&apply->write, &entry->cursor);
    }
    return BB_ECORRUPT;
}

static int apply_payload(struct apply *apply, struct bb_slice payload)
{
    struct bk_batch_entry entry;
    int error = 0;
    int next = 0;
    while (error == 0 && (next = bk_batch_next(&payload, &entry)) > 0) {
        error = apply_entry(apply, &entry);
    }
    return next < 0 ? BB_ECORRUPT : error;
}

/* --- the transaction ------------------------------------------------------------------------------ */

static int put_meta(struct apply *apply, uint64_t number)
{
    struct bk_write *write = &apply->write;
    int error = 0;
    write->head.applied = number;
    write->head.position = apply->position;
    write->changed = true;
    for (size_t i = 0; i < apply->n_newest && error == 0; i++) {
        const struct newest *newest = &apply->newest[i];
        uint8_t key[12] = {'l', 'a', 's', 't'};
        uint8_t value[24];
        bk_put_u64(key + 4, newest->id.server);
        bk_key_session(value, newest->id.session, newest->id.instance, newest->time);
        bb_buf_reset(&write->scratch);
        bb_buf_append(&write->scratch, value, sizeof(value));
        error = bk_put_row(write, BK_ROW_META, bb_slice(key, sizeof(key)));
    }
    return error;
}

/* The map is larger than its limit, so that removing always has room: adding must keep to the limit
 * itself. */
static int check_room(struct bk_store *store, const struct bk_store_input *inputs, size_t n_inputs)
{
    MDB_envinfo info;
    MDB_stat stat;
    struct bk_store_sizes sizes;
    uint64_t need = 0;
    for (size_t i = 0; i < n_inputs; i++) {
        need += inputs[i].payload.len;
    }
    if (mdb_env_info(store->env, &info) != 0 || mdb_env_stat(store->env, &stat) != 0) {
        return BB_ESYSTEM;
    }
    need = NEED_FACTOR * need + (uint64_t)NEED_PAGES * stat.ms_psize;
    if (((uint64_t)info.me_last_pgno + 1) * stat.ms_psize + need <= store->map_size) {
        return 0;
    }
    int error = bk_store_sizes(store, &sizes);
    return error == 0 && sizes.used + need > sizes.map ? BB_ELOGFULL : error;
}

static void apply_free(struct apply *apply)
{
    for (size_t i = 0; i < apply->n_buffers; i++) {
        bb_buf_fini(&apply->records[i].blocks);
    }
    free(apply->records);
    free(apply->newest);
}

static int apply_all(struct apply *apply, const struct bk_store_input *inputs, size_t n_inputs)
{
    int error = 0;
    apply->position = BB_MAX(apply->write.head.position, 1);
    for (size_t i = 0; i < n_inputs && error == 0; i++) {
        error = apply_payload(apply, inputs[i].payload);
    }
    if (error == 0) {
        error = group_close(apply);
    }
    return error != 0 ? error : put_meta(apply, inputs[n_inputs - 1].number);
}

int bk_store_apply(struct bk_store *store, const struct bk_store_input *inputs, size_t n_inputs)
{
    while (n_inputs > 0 && inputs->number <= store->applied) {
        inputs++;
        n_inputs--;
    }
    for (size_t i = 0; i < n_inputs; i++) {
        if (inputs[i].number != store->applied + 1 + i) {
            return BB_EINVAL;
        }
    }
    if (n_inputs == 0) {
        return 0;
    }
    struct apply apply = {0};
    int error = check_room(store, inputs, n_inputs);
    if (error == 0) {
        error = bk_write_begin(&apply.write, store);
    }
    if (error != 0) {
        return error;
    }
    error = bk_write_finish(&apply.write, apply_all(&apply, inputs, n_inputs));
    apply_free(&apply);
    if (error == 0) {
        store->applied = inputs[n_inputs - 1].number;
    }
    return error;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/disk.h"

#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/registry.h"

#include <stdlib.h>

#define NEVER UINT64_MAX

struct disk_channel {
    uint32_t id;
    bool removed;
    struct bk_retention retention;
    uint64_t last;
    uint64_t events;
    struct bb_buf name;
    struct bb_buf settings;
};

/* A producer or cursor. */
struct disk_row {
    struct bb_buf key;
    struct bb_buf value; /* a cursor's value, a producer's notes */
    uint64_t last;
    uint64_t time;
};

struct disk_ticket {
    struct disk_ticket *next;
    uint64_t ticket;
    struct bb_buf payload;
};

static struct sim_disk *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct sim_disk, backend);
}

static void *grown(void *array, size_t n, size_t size)
{
    void *bigger = realloc(array, (n + 1) * size);
    if (bigger == NULL) {
        abort();
    }
    return bigger;
}

static void set(struct bb_buf *buf, struct bb_slice bytes)
{
    bb_buf_reset(buf);
    bb_buf_append(buf, bytes.data, bytes.len);
    if (buf->error != 0) {
        abort();
    }
}

static void plan(struct sim_disk *disk)
{
    disk->next_at = BB_MIN(BB_MIN(disk->commit_at, disk->answer_at), disk->state_at);
}

/* --- what is durable ------------------------------------------------------------------------------ */

static struct disk_channel *channel_of(const struct sim_disk *disk, uint32_t id)
{
    for (size_t i = 0; i < disk->n_channels; i++) {
        if (disk->channels[i].id == id) {
            return &disk->channels[i];
        }
    }
    return NULL;
}

struct bb_slice disk_channel_name(const struct sim_disk *disk, uint32_t channel)
{
    const struct disk_channel *found = channel_of(disk, channel);
    return found != NULL ? bb_buf_slice(&found->name) : (struct bb_slice){0};
}

static void keep_channel(struct sim_disk *disk, const struct bk_log_channel *entry)
{
    struct disk_channel *channel = channel_of(disk, entry->id);
    if (channel == NULL) {
        disk->channels = grown(disk->channels, disk->n_channels, sizeof(*disk->channels));
        channel = &disk->channels[disk->n_channels++];
        *channel = (struct disk_channel){.id = entry->id};
    }
    channel->removed = entry->removed;
    channel->retention = entry->retention;
    set(&channel->name, entry->name);
    set(&channel->settings, entry->settings);
}

static struct disk_row *row_of(struct disk_row **rows, size_t *n, struct bb_slice key)
{
    for (size_t i = 0; i < *n; i++) {
        if (bb_slice_equal(bb_buf_slice(&(*rows)[i].key), key)) {
            return &(*rows)[i];
        }
    }
    *rows = grown(*rows, *n, sizeof(**rows));
    struct disk_row *row = &(*rows)[(*n)++];
    *row = (struct disk_row){0};
    set(&row->key, key);
    return row;
}

static void keep_block(struct sim_disk *disk, const struct bk_log_block *block)
{
    struct disk_channel *channel = channel_of(disk, block->channel);
    disk->blocks = grown(disk->blocks, disk->n_blocks, sizeof(*disk->blocks));
    struct disk_block *kept = &disk->blocks[disk->n_blocks++];
    *kept = (struct disk_block){block->channel, block->head, malloc(block->head.length + 1)};
    if (kept->events == NULL || channel == NULL) {
        abort();
    }
    memcpy(kept->events, block->events, block->head.length);
    channel->last = block->head.sequence + block->head.count - 1;
    channel->events += block->head.count;
}

/* Into the backend in memory: one entry at a time, which all must be taken. */
static void keep(struct sim_disk *disk, struct bk_batch_entry *entry)
{
    struct bk_append append = {0};
    if (entry->kind == BK_BATCH_CHANNEL) {
        keep_channel(disk, &entry->channel);
        append = (struct bk_append){.channels = &entry->channel, .n_channels = 1};
    } else if (entry->kind == BK_BATCH_BLOCK) {
        keep_block(disk, &entry->block);
        append = (struct bk_append){.blocks = &entry->block, .n_blocks = 1};
    } else if (entry->kind == BK_BATCH_PRODUCER) {
        struct disk_row *row = row_of(&disk->producers, &disk->n_producers,
                                      bb_slice(entry->producer.key, sizeof(entry->producer.key)));
        row->last = entry->producer.removed ? 0 : entry->producer.last;
        row->time = entry->producer.time;
        set(&row->value, entry->producer.notes);
        return;
    } else {
        struct disk_row *row = row_of(&disk->cursors, &disk->n_cursors, entry->cursor.name);
        row->last = !entry->cursor.removed;
        set(&row->value, entry->cursor.value);
        return;
    }
    int r = disk->kept->ops->register_(disk->kept, &append, ++disk->kept_ticket);
    if (r != 0 || (entry->kind == BK_BATCH_BLOCK && entry->block.error != 0)) {
        abort();
    }
}

/* --- commits -------------------------------------------------------------------------------------- */

static void ticket_drop(struct sim_disk *disk)
{
    struct disk_ticket *ticket = disk->queue;
    disk->queue = ticket->next;
    bb_buf_fini(&ticket->payload);
    free(ticket);
}

/* Up to some tickets, together. Return: the last one. */
static uint64_t commit_some(struct sim_disk *disk)
{
    uint64_t last = 0;
    uint64_t n = sim_between(&disk->rng, 1, 6);
    bool lies = disk->lie == LIE_FLUSHED && !disk->has_lied && disk->n_commits > 20;
    for (; disk->queue != NULL && n > 0; n--) {
        struct bb_slice rest = bb_buf_slice(&disk->queue->payload);
        struct bk_batch_entry entry;
        while (!lies && bk_batch_next(&rest, &entry) > 0) {
            keep(disk, &entry);
        }
        last = disk->queue->ticket;
        ticket_drop(disk);
    }
    disk->has_lied = disk->has_lied || lies;
    disk->n_commits++;
    return last;
}

static void commit(struct sim_disk *disk)
{
    disk->commit_at = NEVER;
    if (disk->queue == NULL) {
        return;
    }
    uint64_t last = commit_some(disk);
    if (disk->queue != NULL) {
        disk->commit_at = disk->now + sim_between(&disk->rng, 50, 8000);
    }
    disk->listener->flushed(disk->listener->context, last, 0);
}

/* A commit fails: some of what waits may be found on the disk when it is read again, the rest is lost. Until then it refuses. */
static void fail(struct sim_disk *disk)
{
    disk->n_failures++;
    disk->state = BK_BACKEND_FAILED;
    disk->commit_at = NEVER;
    disk->state_at = disk->now + sim_between(&disk->rng, 100, 60000);
    if (sim_chance(&disk->rng, 500)) { /* sometimes it is told only when it is over */
        disk->listener->state(disk->listener->context, BK_BACKEND_FAILED, "simulated");
    }
}

static void recover(struct sim_disk *disk)
{
    if (disk->queue != NULL && sim_chance(&disk->rng, 500)) {
        uint64_t last = commit_some(disk);
        disk->listener->flushed(disk->listener->context, last, 0);
    }
    if (disk->queue != NULL) {
        uint64_t first = disk->queue->ticket;
        while (disk->queue != NULL) {
            ticket_drop(disk);
        }
        disk->listener->flushed(disk->listener->context, first, BB_ELOGFAILED);
    }
}

static void change_state(struct sim_disk *disk)
{
    uint64_t kind = sim_below(&disk->rng, 3);
    if (disk->state != BK_BACKEND_OK) {
        if (disk->state == BK_BACKEND_FAILED) {
            recover(disk);
        }
        disk->state = BK_BACKEND_OK;
        disk->listener->state(disk->listener->context, BK_BACKEND_OK, "simulated");
        disk->state_at = disk->now + sim_between(&disk->rng, 50000, 2000000) / (disk->is_shaky ? 50 : 1);
    } else if (kind == 0) {
        disk->state = BK_BACKEND_FULL;
        disk->state_at = disk->now + sim_between(&disk->rng, 1000, 100000);
        disk->listener->state(disk->listener->context, BK_BACKEND_FULL, "simulated");
    } else {
        fail(disk);
    }
}

/* --- requests --------------------------------------------------------------------------------------- */

static void append_block(struct bb_buf *body, const struct bb_block *head, const uint8_t *events)
{
    uint8_t *to = bb_buf_reserve(body, BB_BLOCK_HEAD_MAX);
    if (to != NULL) {
        body->len += bb_block_write(to, head);
    }
    bb_buf_append(body, events, (size_t)head->length);
}

/* An event of the path of @events that is older than @head; false if there is none. */
static bool append_older(const struct sim_disk *disk,
                         struct bb_buf *body,
                         const struct bb_block *head,
                         struct bb_slice events)
{
    struct bb_event_view wanted;
    if (bb_event_read(&events, &wanted) < 0) {
        return false;
    }
    for (size_t i = 0; i < disk->n_blocks; i++) {
        struct bb_block older = disk->blocks[i].head;
        struct bb_slice rest = bb_slice(disk->blocks[i].events, (size_t)older.length);
        struct bb_event_view event;
        for (uint64_t left = older.count; left > 0 && bb_event_read(&rest, &event) == 0; left--) {
            if (bb_slice_equal(event.path, wanted.path) && older.session < head->session) {
                older.count = 1;
                older.length = event.raw.len;
                append_block(body, &older, event.raw.data);
                return true;
            }
            older.sequence++;
            older.instance++;
        }
    }
    return false;
}

/* Without its first block, or with an older event in its place. */
static bool spoil_answer(struct sim_disk *disk, struct bk_query *query)
{
    struct bb_slice rest =
        query->body != NULL ? bb_slice(query->body->data, query->body->len) : (struct bb_slice){0};
    struct bb_buf body = BB_BUF_INIT;
    struct bb_block head;
    bool has_lied = false;
    while (rest.len > 0 && bb_block_read(&rest, &head) == 0) {
        struct bb_slice events = bb_slice(rest.data, (size_t)head.length);
        rest = bb_slice(rest.data + head.length, rest.len - (size_t)head.length);
        if (!has_lied && disk->lie == LIE_QUERY && rest.len > 0) {
            query->n_events -= head.count;
            has_lied = true;
        } else if (!has_lied && disk->lie == LIE_LATEST && append_older(disk, &body, &head, events)) {
            has_lied = true;
        } else {
            append_block(&body, &head, events.data);
        }
    }
    if (has_lied) {
        bk_bytes_unref(query->body);
        query->body = bk_bytes_new(&disk->meter, body.len);
        if (query->body == NULL) {
            abort();
        }
        memcpy(query->body->data, body.data, body.len);
        query->body->len = body.len;
    }
    bb_buf_fini(&body);
    return has_lied;
}

static void lie_about(struct sim_disk *disk, struct bk_request *request)
{
    if (disk->has_lied || disk->n_commits < 20) {
        return;
    }
    if (disk->lie == LIE_READ && request->kind == BK_REQUEST_READ) {
        struct bk_read *read = BB_CONTAINER(request, struct bk_read, request);
        if (read->n_events > 0) {
            disk->has_lied = true;
            bk_bytes_unref(read->body);
            read->body = NULL;
            read->n_events = 0;
            for (size_t i = 0; i < read->n_ranges; i++) {
                read->ranges[i].events = read->ranges[i].bytes = 0;
            }
        }
    } else if (disk->lie == LIE_LOCATE && request->kind == BK_REQUEST_LOCATE) {
        struct bk_locate *locate = BB_CONTAINER(request, struct bk_locate, request);
        for (size_t i = 0; i < locate->n_places; i++) {
            if (locate->places[i].sequence != 0 && locate->places[i].sequence < locate->places[i].last) {
                locate->places[i].sequence++;
                disk->has_lied = true;
            }
        }
    } else if (request->kind == BK_REQUEST_QUERY) {
        struct bk_query *query = BB_CONTAINER(request, struct bk_query, request);
        bool is_latest = query->query->kind == BB_QUERY_LATEST;
        if (disk->lie == (is_latest ? LIE_LATEST : LIE_QUERY)) {
            disk->has_lied = spoil_answer(disk, query);
        }
    }
}

struct answered {
    struct sim_disk *disk;
    struct bk_request *own;
    void (*done)(void *context, struct bk_request *request);
    void *context;
};

static void on_done(void *context, struct bk_request *request)
{
    struct answered *answered = context;
    lie_about(answered->disk, request);
    request->done = answered->done;
    request->context = answered->context;
    request->done(request->context, request);
}

/* The oldest request, by the backend in memory. Done() may submit others. */
static void answer(struct sim_disk *disk)
{
    struct bk_request *request = disk->requests;
    disk->requests = request->next;
    disk->answer_at = disk->requests != NULL ? disk->now + sim_between(&disk->rng, 10, 3000) : NEVER;
    struct answered answered = {disk, request, request->done, request->context};
    request->done = on_done;
    request->context = &answered;
    disk->kept->ops->submit(disk->kept, request);
    disk->kept->ops->dispatch(disk->kept);
}

/* --- the contract ------------------------------------------------------------------------------------- */

/* A cursor's value with positions that are one too far, where the channel goes on. */
static void spoil_cursor(struct sim_disk *disk, struct bb_slice value, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    uint64_t n = bb_mp_read_array(&reader);
    bb_mp_write_array(out, (uint32_t)n);
    for (uint64_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        uint64_t position = bb_mp_read_uint(&reader);
        for (size_t j = 0; j < disk->n_channels; j++) {
            const struct disk_channel *channel = &disk->channels[j];
            if (disk->lie == LIE_CURSORS && bb_slice_equal(bb_buf_slice(&channel->name), name) &&
                position < channel->last) {
                position++;
                disk->has_lied = true;
            }
        }
        bb_mp_write_array(out, 2);
        bb_mp_write_str(out, name);
        bb_mp_write_uint(out, position);
    }
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    struct sim_disk *disk = of(backend);
    int r = 0;
    for (size_t i = 0; i < disk->n_channels && r == 0; i++) {
        const struct disk_channel *channel = &disk->channels[i];
        r = loader->channel(loader->context, &(struct bk_log_channel){
                                                 .id = channel->id,
                                                 .name = bb_buf_slice(&channel->name),
                                                 .removed = channel->removed,
                                                 .retention = channel->retention,
                                                 .settings = bb_buf_slice(&channel->settings),
                                                 .first = channel->events > 0 ? 1 : channel->last + 1,
                                                 .last = channel->last,
                                                 .events = channel->events,
                                             });
    }
    bool lies = disk->lie == LIE_PRODUCERS && disk->n_producers > 0;
    disk->has_lied = disk->has_lied || lies;
    for (size_t i = 0; i < disk->n_producers && r == 0 && !lies; i++) {
        struct bk_log_producer entry = {
            .last = disk->producers[i].last,
            .time = disk->producers[i].time,
            .notes = bb_buf_slice(&disk->producers[i].value),
        };
        memcpy(entry.key, disk->producers[i].key.data, sizeof(entry.key));
        r = entry.last > 0 ? loader->producer(loader->context, &entry) : 0;
    }
    for (size_t i = 0; i < disk->n_cursors && r == 0; i++) {
        if (disk->cursors[i].last != 0) {
            struct bb_buf value = BB_BUF_INIT;
            spoil_cursor(disk, bb_buf_slice(&disk->cursors[i].value), &value);
            r = loader->cursor(loader->context, &(struct bk_log_cursor){
                                                    .name = bb_buf_slice(&disk->cursors[i].key),
                                                    .value = bb_buf_slice(&value),
                                                });
            bb_buf_fini(&value);
        }
    }
    return r;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct sim_disk *disk = of(backend);
    if (disk->state == BK_BACKEND_FAILED) {
        return BB_ELOGFAILED;
    }
    if (disk->state == BK_BACKEND_FULL && append->n_blocks > 0) {
        return BB_ELOGFULL;
    }
    struct disk_ticket **end = &disk->queue;
    size_t n = 0;
    while (*end != NULL) {
        n++;
        end = &(*end)->next;
    }
    if (n >= 40) {
        return BB_EFULL;
    }
    struct disk_ticket *added = calloc(1, sizeof(*added));
    if (added == NULL) {
        abort();
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        append->blocks[i].error = 0;
    }
    added->ticket = ticket;
    if (bk_batch_encode(&added->payload, append) != 0) {
        abort();
    }
    *end = added;
    if (disk->commit_at == NEVER) {
        disk->commit_at = disk->now + sim_between(&disk->rng, 50, 8000);
    }
    plan(disk);
    disk->listener->registered(disk->listener->context, ticket);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    struct bk_backend *kept = of(backend)->kept;
    kept->ops->get_last_event_id(kept, server, ret_id, ret_time);
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct sim_disk *disk = of(backend);
    struct bk_request **end = &disk->requests;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    request->next = NULL;
    request->error = 0;
    *end = request;
    if (disk->answer_at == NEVER) {
        disk->answer_at = disk->now + sim_between(&disk->rng, 10, 3000);
    }
    plan(disk);
}

static int op_fd(struct bk_backend *backend)
{
    (void)backend;
    return -1;
}

static void op_dispatch(struct bk_backend *backend)
{
    (void)backend;
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    (void)backend;
    bb_buf_append(out, "\x80", 1);
}

static const struct bk_backend_ops ops = {
    .load = op_load,
    .register_ = op_register,
    .get_last_event_id = op_get_last,
    .submit = op_submit,
    .fd = op_fd,
    .dispatch = op_dispatch,
    .status = op_status,
    .close = op_dispatch, /* disk_crash() ends it */
};

/* --- the whole ---------------------------------------------------------------------------------------- */

static void ignore_ticket(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void ignore_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static void ignore_trimmed(void *context, uint32_t channel, uint64_t first)
{
    (void)context;
    (void)channel;
    (void)first;
}

static void ignore_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    (void)state;
    (void)text;
}

void disk_init(struct sim_disk *disk, uint64_t seed)
{
    static const char *const options[] = {"channel-size=1G", "total-size=1G"};
    *disk = (struct sim_disk){.backend = {&ops, true, SIZE_MAX}, .rng = {seed}};
    disk->kept_listener =
        (struct bk_backend_listener){NULL, ignore_ticket, ignore_flushed, ignore_trimmed, ignore_state};
    struct bk_backend_env env = {.listener = &disk->kept_listener, .meter = &disk->meter};
    struct bb_buf err = BB_BUF_INIT;
    if (bk_backend_open("memory", options, BB_COUNT(options), &env, &disk->kept, &err) < 0) {
        abort();
    }
    bb_buf_fini(&err);
    disk->next_at = disk->commit_at = disk->answer_at = disk->state_at = NEVER;
}

void disk_fini(struct sim_disk *disk)
{
    disk->kept->ops->close(disk->kept);
    for (size_t i = 0; i < disk->n_blocks; i++) {
        free(disk->blocks[i].events);
    }
    for (size_t i = 0; i < disk->n_channels; i++) {
        bb_buf_fini(&disk->channels[i].name);
        bb_buf_fini(&disk->channels[i].settings);
    }
    for (size_t i = 0; i < disk->n_producers; i++) {
        bb_buf_fini(&disk->producers[i].key);
        bb_buf_fini(&disk->producers[i].value);
    }
    for (size_t i = 0; i < disk->n_cursors; i++) {
        bb_buf_fini(&disk->cursors[i].key);
        bb_buf_fini(&disk->cursors[i].value);
    }
    free(disk->blocks);
    free(disk->channels);
    free(disk->producers);
    free(disk->cursors);
}

void disk_open(struct sim_disk *disk, const struct bk_backend_listener *listener, uint64_t now)
{
    disk->listener = listener;
    disk->now = now;
    disk->state = BK_BACKEND_OK;
    disk->commit_at = disk->answer_at = NEVER;
    disk->state_at = now + sim_between(&disk->rng, 50000, 2000000) / (disk->is_shaky ? 50 : 1);
    plan(disk);
}

void disk_crash(struct sim_disk *disk)
{
    while (disk->requests != NULL) {
        struct bk_request *request = disk->requests;
        disk->requests = request->next;
        request->error = BB_ECLOSED;
        request->done(request->context, request);
    }
    while (disk->queue != NULL) {
        ticket_drop(disk);
    }
    disk->next_at = NEVER;
}

void disk_step(struct sim_disk *disk, uint64_t now)
{
    disk->now = now;
    if (disk->commit_at <= now) {
        commit(disk);
    } else if (disk->answer_at <= now) {
        answer(disk);
    } else if (disk->state_at <= now) {
        change_state(disk);
    }
    plan(disk);
}

void disk_calm(struct sim_disk *disk)
{
    if (disk->state == BK_BACKEND_OK) {
        disk->state_at = NEVER;
        plan(disk);
    }
}

bool disk_is_quiet(const struct sim_disk *disk)
{
    return disk->queue == NULL && disk->requests == NULL && disk->state == BK_BACKEND_OK;
}

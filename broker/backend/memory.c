/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/memory.h"

#include "proto/base/error.h"
#include "proto/base/map.h"
#include "proto/wire/mp.h"

#include "broker/backend/find.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum option {
    OPTION_CHANNEL_SIZE,
    OPTION_TOTAL_SIZE,
    OPTIONS
};

#define MIB ((uint64_t)1 << 20)

/* clang-format off */
static const struct bk_backend_option options[] = {
    [OPTION_CHANNEL_SIZE] = {"channel-size", BK_OPTION_SIZE, 1024, (uint64_t)1 << 40, 16 * MIB, NULL, "most that is kept of one channel (16M)"},
    [OPTION_TOTAL_SIZE] = {"total-size", BK_OPTION_SIZE, 1024, (uint64_t)1 << 40, 256 * MIB, NULL, "most that is kept in all (256M)"},
    [OPTIONS] = {0},
};
/* clang-format on */

struct channel;

struct block {
    struct block *next; /* of all, oldest first */
    struct block *prev;
    struct block *next_own; /* of its channel */
    struct channel *channel;
    struct bk_log_block log;
};

struct channel {
    uint32_t id;
    struct bk_retention retention;
    uint64_t first;
    uint64_t last;
    uint64_t events;
    uint64_t bytes;
    struct block *oldest;
    struct block *newest;
    struct channel *next_trimmed;
    bool is_trimmed; /* it is in the list of those to tell of */
};

struct server {
    struct bk_event_id id;
    uint64_t time;
};

struct memory {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_meter *meter;
    uint64_t values[OPTIONS];
    int wake;
    uint64_t ticket;
    uint64_t told;
    struct bb_map channels;
    struct bb_map servers;
    struct block *oldest;
    struct block *newest;
    uint64_t bytes;
    struct channel *trimmed; /* what dispatch() tells */
    struct bk_request *requests;
    struct bk_request **requests_end;
};

static struct memory *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct memory, backend);
}

/* --- what is kept --------------------------------------------------------------------------------- */

static struct channel *find_channel(const struct memory *memory, uint32_t id)
{
    return bb_map_find(&memory->channels, bb_slice(&id, sizeof(id)));
}

static struct channel *get_channel(struct memory *memory, uint32_t id)
{
    struct channel *channel = find_channel(memory, id);
    if (channel != NULL) {
        return channel;
    }
    channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return NULL;
    }
    channel->id = id;
    channel->first = 1;
    channel->retention = BK_RETENTION_INIT;
    if (bb_map_add(&memory->channels, bb_slice(&channel->id, sizeof(id)), channel) < 0) {
        free(channel);
        return NULL;
    }
    return channel;
}

static struct server *get_server(struct memory *memory, uint64_t number)
{
    struct server *server = bb_map_find(&memory->servers, bb_slice(&number, sizeof(number)));
    if (server != NULL) {
        return server;
    }
    server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return NULL;
    }
    server->id.server = number;
    if (bb_map_add(&memory->servers, bb_slice(&server->id.server, sizeof(number)), server) < 0) {
        free(server);
        return NULL;
    }
    return server;
}

/* The oldest block of a channel goes. */
static void drop_oldest(struct memory *memory, struct channel *channel)
{
    struct block *block = channel->oldest;
    *(block->prev != NULL ? &block->prev->next : &memory->oldest) = block->next;
    *(block->next != NULL ? &block->next->prev : &memory->newest) = block->prev;
    channel->oldest = block->next_own;
    channel->newest = channel->oldest == NULL ? NULL : channel->newest;
    channel->events -= block->log.head.count;
    channel->bytes -= block->log.head.length;
    channel->first = block->log.head.sequence + block->log.head.count;
    memory->bytes -= block->log.head.length;
    bk_bytes_unref(block->log.owner);
    free(block);
}

/* Whether the channel's own limits want the oldest block gone: then the floor counts. */
static bool is_surplus(const struct channel *channel, uint64_t now)
{
    const struct block *oldest = channel->oldest;
    const struct bk_retention *retention = &channel->retention;
    if (oldest == NULL || channel->events - oldest->log.head.count < retention->min_events) {
        return false;
    }
    bool is_old = retention->max_age_us != BK_NO_LIMIT && oldest->log.head.time < now &&
                  now - oldest->log.head.time > retention->max_age_us;
    return is_old || channel->events - oldest->log.head.count >= retention->max_events ||
           channel->bytes > retention->max_bytes;
}

/* Notifications come in dispatch() only. */
static void note_trimmed(struct memory *memory, struct channel *channel)
{
    if (!channel->is_trimmed) {
        channel->is_trimmed = true;
        channel->next_trimmed = memory->trimmed;
        memory->trimmed = channel;
        (void)eventfd_write(memory->wake, 1);
    }
}

static void forget_trimmed(struct memory *memory, struct channel *channel)
{
    struct channel **at = &memory->trimmed;
    while (*at != NULL && *at != channel) {
        at = &(*at)->next_trimmed;
    }
    if (*at != NULL) {
        *at = channel->next_trimmed;
    }
    channel->is_trimmed = false;
}

static void tell_trimmed(struct memory *memory)
{
    while (memory->trimmed != NULL) {
        struct channel *channel = memory->trimmed;
        memory->trimmed = channel->next_trimmed;
        channel->is_trimmed = false;
        memory->listener->trimmed(memory->listener->context, channel->id, channel->first);
    }
}

static void tidy(struct memory *memory, struct channel *channel, uint64_t now)
{
    uint64_t first = channel->first;
    while (is_surplus(channel, now) ||
           (channel->oldest != NULL && channel->bytes > memory->values[OPTION_CHANNEL_SIZE])) {
        drop_oldest(memory, channel);
    }
    if (channel->first != first) {
        note_trimmed(memory, channel);
    }
    while (memory->bytes > memory->values[OPTION_TOTAL_SIZE] && memory->oldest != NULL) {
        struct channel *victim = memory->oldest->channel;
        drop_oldest(memory, victim);
        note_trimmed(memory, victim);
    }
}

static int copy_events(const struct memory *memory, struct bk_log_block *log)
{
    if (log->owner != NULL) {
        (void)bk_bytes_ref(log->owner);
        return 0;
    }
    log->owner = bk_bytes_new(memory->meter, (size_t)log->head.length);
    if (log->owner == NULL) {
        return BB_ENOMEM;
    }
    memcpy(log->owner->data, log->events, (size_t)log->head.length);
    log->owner->len = (size_t)log->head.length;
    log->events = log->owner->data;
    return 0;
}

static int judge(const struct bk_log_block *log, const struct server *server, const struct channel *channel)
{
    bool above = log->head.session > server->id.session ||
                 (log->head.session == server->id.session && log->head.instance > server->id.instance);
    if (!above) {
        return BB_EEXISTS;
    }
    if (log->head.time < server->time) {
        return BB_ETIME;
    }
    return channel->last != 0 && log->head.sequence != channel->last + 1 ? BB_ESEQUENCE : 0;
}

static int take_block(struct memory *memory, struct bk_log_block *log)
{
    struct channel *channel = get_channel(memory, log->channel);
    struct server *server = get_server(memory, log->server);
    if (channel == NULL || server == NULL) {
        return BB_ENOMEM;
    }
    log->error = judge(log, server, channel);
    if (log->error != 0) {
        return 0;
    }
    struct block *block = calloc(1, sizeof(*block));
    if (block == NULL) {
        return BB_ENOMEM;
    }
    block->log = *log;
    if (copy_events(memory, &block->log) < 0) {
        free(block);
        return BB_ENOMEM;
    }
    block->channel = channel;
    block->prev = memory->newest;
    *(memory->newest != NULL ? &memory->newest->next : &memory->oldest) = block;
    memory->newest = block;
    *(channel->newest != NULL ? &channel->newest->next_own : &channel->oldest) = block;
    channel->newest = block;
    channel->first = channel->events == 0 ? log->head.sequence : channel->first;
    channel->last = log->head.sequence + log->head.count - 1;
    channel->events += log->head.count;
    channel->bytes += log->head.length;
    memory->bytes += log->head.length;
    server->id.session = log->head.session;
    server->id.instance = log->head.instance + log->head.count - 1;
    server->time = log->head.time;
    tidy(memory, channel, log->head.time);
    return 0;
}

static int take_channel(struct memory *memory, const struct bk_log_channel *entry)
{
    struct channel *channel =
        entry->removed ? find_channel(memory, entry->id) : get_channel(memory, entry->id);
    if (channel == NULL) {
        return entry->removed ? 0 : BB_ENOMEM;
    }
    channel->retention = entry->retention;
    if (!entry->removed) {
        return 0;
    }
    while (channel->oldest != NULL) {
        drop_oldest(memory, channel);
    }
    (void)bb_map_remove(&memory->channels, bb_slice(&channel->id, sizeof(channel->id)));
    forget_trimmed(memory, channel);
    free(channel);
    return 0;
}

/* --- requests ------------------------------------------------------------------------------------- */

static bool has_expired(const struct bb_event_view *event, uint64_t time, uint64_t now)
{
    struct bb_attributes attributes;
    return event->has_ttl && bb_event_attributes(event->attributes, &attributes) == 0 && attributes.has_ttl &&
           time / 1000 + attributes.ttl_ms < now / 1000;
}

static void write_event(struct bb_buf *body, const struct bb_block *block, uint64_t i, struct bb_slice raw)
{
    struct bb_block head = *block;
    head.sequence += i;
    head.instance += i;
    head.count = 1;
    head.length = raw.len;
    uint8_t *to = bb_buf_reserve(body, BB_BLOCK_HEAD_MAX);
    if (to != NULL) {
        body->len += bb_block_write(to, &head);
    }
    bb_buf_append(body, raw.data, raw.len);
}

static struct bk_read_range *find_range(const struct bk_read *read, uint32_t channel)
{
    for (size_t i = 0; i < read->n_ranges; i++) {
        if (read->ranges[i].channel == channel) {
            return &read->ranges[i];
        }
    }
    return NULL;
}

static void read_block(struct bk_read *read,
                       struct bk_read_range *range,
                       const struct bk_log_block *log,
                       struct bb_buf *body)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    if (log->head.time > range->stop_time) {
        range->reached = BB_MAX(range->reached, log->head.sequence - 1);
        range->at_end = true;
        return;
    }
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        uint64_t sequence = log->head.sequence + i;
        if (sequence <= range->reached || sequence > range->stop ||
            !bk_filter_matches(read->filter, event.path)) {
            continue;
        }
        if (has_expired(&event, log->head.time, read->now)) {
            range->expired++;
            continue;
        }
        write_event(body, &log->head, i, event.raw);
        range->events++;
        range->bytes += event.raw.len;
        read->n_events++;
    }
    range->reached = BB_MAX(range->reached, BB_MIN(log->head.sequence + log->head.count - 1, range->stop));
    range->at_end = range->reached == range->stop;
}

static int give_body(const struct memory *memory, const struct bb_buf *from, struct bk_bytes **ret_body)
{
    if (from->error != 0 || from->len == 0) {
        return from->error;
    }
    *ret_body = bk_bytes_new(memory->meter, from->len);
    if (*ret_body == NULL) {
        return BB_ENOMEM;
    }
    memcpy((*ret_body)->data, from->data, from->len);
    (*ret_body)->len = from->len;
    return 0;
}

static int read_on(const struct memory *memory, struct bk_read *read)
{
    struct bb_buf body = BB_BUF_INIT;
    read->n_events = 0;
    read->body = NULL;
    for (size_t i = 0; i < read->n_ranges; i++) {
        struct bk_read_range *range = &read->ranges[i];
        const struct channel *channel = find_channel(memory, range->channel);
        uint64_t first = channel != NULL ? channel->first : range->after + 1;
        range->events = range->bytes = range->expired = 0;
        range->at_end = false;
        range->first = first;
        range->reached = BB_MAX(range->after, first - 1);
    }
    const struct block *block = memory->oldest;
    for (; block != NULL && body.len < read->max_bytes; block = block->next) {
        struct bk_read_range *range = find_range(read, block->log.channel);
        uint64_t last = block->log.head.sequence + block->log.head.count - 1;
        if (range != NULL && !range->at_end && last > range->reached) {
            read_block(read, range, &block->log, &body);
        }
    }
    for (size_t i = 0; i < read->n_ranges && block == NULL; i++) {
        const struct channel *channel = find_channel(memory, read->ranges[i].channel);
        if (read->ranges[i].at_end) { /* stop or stop_time: what is behind was not looked at */
            continue;
        }
        uint64_t last = channel != NULL ? BB_MIN(channel->last, read->ranges[i].stop) : 0;
        read->ranges[i].reached = BB_MAX(read->ranges[i].reached, last);
        read->ranges[i].at_end = true;
    }
    int r = give_body(memory, &body, &read->body);
    bb_buf_fini(&body);
    return r;
}

/* Where in a block the place is; 0 if it is not there. */
static uint64_t place_in(const struct bk_locate *locate, const struct bk_log_block *log)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    uint64_t found = 0;
    if (locate->kind == BK_LOCATE_TIME) {
        return log->head.time >= locate->time ? log->head.sequence : 0;
    }
    if (locate->kind == BK_LOCATE_ID) {
        uint64_t last = log->head.instance + log->head.count - 1;
        bool is_same = log->server == locate->id.server && log->head.session == locate->id.session;
        if (is_same && last > locate->id.instance) {
            return log->head.sequence + (locate->id.instance >= log->head.instance
                                             ? locate->id.instance - log->head.instance + 1
                                             : 0);
        }
        return log->server == locate->id.server && log->head.session > locate->id.session ? log->head.sequence
                                                                                          : 0;
    }
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        bool matches = locate->kind == BK_LOCATE_PATH ? bb_slice_equal(event.path, locate->path)
                                                      : bk_filter_matches(locate->filter, event.path);
        found = matches ? log->head.sequence + i : found;
    }
    return found;
}

static void locate(const struct memory *memory, struct bk_locate *locate)
{
    bool wants_newest = locate->kind == BK_LOCATE_LAST || locate->kind == BK_LOCATE_PATH;
    for (size_t i = 0; i < locate->n_places; i++) {
        struct bk_locate_place *place = &locate->places[i];
        const struct channel *channel = find_channel(memory, place->channel);
        place->sequence = 0;
        place->last = channel != NULL ? channel->last : 0;
        const struct block *block = channel != NULL ? channel->oldest : NULL;
        for (; block != NULL && (wants_newest || place->sequence == 0); block = block->next_own) {
            uint64_t found = place_in(locate, &block->log);
            place->sequence = found != 0 ? found : place->sequence;
        }
    }
}

/* The newest event of a path comes first when read backwards, so the latest of each path are the unique ones. */
static int query_blocks(const struct memory *memory, const struct bb_query *query, struct bk_find *find)
{
    bool backwards = bk_find_is_descending(find) || query->kind == BB_QUERY_LATEST;
    const struct block *block = backwards ? memory->newest : memory->oldest;
    int r = 0;
    for (; block != NULL && r == 0; block = backwards ? block->prev : block->next) {
        const struct bk_log_block *log = &block->log;
        r = bk_find_block(find, log->server, &log->head, bb_slice(log->events, (size_t)log->head.length));
    }
    return r;
}

static int query(const struct memory *memory, struct bk_query *request)
{
    struct bk_find *find = NULL;
    request->body = NULL;
    request->n_events = 0;
    request->more = false;
    int r = bk_find_new(request, &find);
    if (r < 0) {
        return r;
    }
    r = query_blocks(memory, request->query, find);
    if (r >= 0) {
        r = bk_find_end(find, request, memory->meter);
    }
    bk_find_free(find);
    return r;
}

static int trim(struct memory *memory, struct bk_trim *request)
{
    struct channel *channel = find_channel(memory, request->channel);
    if (channel == NULL) {
        return BB_ENOTFOUND;
    }
    uint64_t first = channel->first;
    while (channel->oldest != NULL &&
           channel->oldest->log.head.sequence + channel->oldest->log.head.count <= request->before) {
        drop_oldest(memory, channel);
    }
    request->first = channel->first;
    if (channel->first != first) {
        memory->listener->trimmed(memory->listener->context, channel->id, channel->first);
    }
    return 0;
}

static int answer(struct memory *memory, struct bk_request *request)
{
    switch (request->kind) {
    case BK_REQUEST_READ:
        return read_on(memory, BB_CONTAINER(request, struct bk_read, request));
    case BK_REQUEST_LOCATE:
        locate(memory, BB_CONTAINER(request, struct bk_locate, request));
        return 0;
    case BK_REQUEST_QUERY:
        return query(memory, BB_CONTAINER(request, struct bk_query, request));
    case BK_REQUEST_TRIM:
        return trim(memory, BB_CONTAINER(request, struct bk_trim, request));
    case BK_REQUEST_FLUSH:
        return 0;
    case BK_REQUEST_SNAPSHOT:
    case BK_REQUEST_COMPACT:
    case BK_REQUEST_VERIFY:
        break;
    }
    return BB_EUNSUPPORTED;
}

/* --- the contract --------------------------------------------------------------------------------- */

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    (void)backend;
    (void)loader;
    return 0;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct memory *memory = of(backend);
    for (size_t i = 0; i < append->n_channels; i++) {
        if (take_channel(memory, &append->channels[i]) < 0) {
            return BB_ENOMEM;
        }
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        if (take_block(memory, &append->blocks[i]) < 0) {
            append->blocks[i].error = BB_ENOMEM;
        }
    }
    memory->ticket = ticket;
    memory->listener->registered(memory->listener->context, ticket);
    (void)eventfd_write(memory->wake, 1); /* tickets rise, but some numbers may be left out */
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    const struct server *found = bb_map_find(&of(backend)->servers, bb_slice(&server, sizeof(server)));
    *ret_id = found != NULL ? found->id : (struct bk_event_id){.server = server};
    *ret_time = found != NULL ? found->time : 0;
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct memory *memory = of(backend);
    request->next = NULL;
    request->error = 0;
    *memory->requests_end = request;
    memory->requests_end = &request->next;
    (void)eventfd_write(memory->wake, 1);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->wake;
}

static void op_dispatch(struct bk_backend *backend)
{
    struct memory *memory = of(backend);
    eventfd_t count = 0;
    (void)eventfd_read(memory->wake, &count);
    if (memory->ticket > memory->told) {
        memory->told = memory->ticket;
        memory->listener->flushed(memory->listener->context, memory->ticket, 0);
    }
    tell_trimmed(memory);
    struct bk_request *request = memory->requests;
    memory->requests = NULL;
    memory->requests_end = &memory->requests;
    while (request != NULL) {
        struct bk_request *next = request->next;
        request->error = answer(memory, request);
        request->done(request->context, request);
        request = next;
    }
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("bytes"));
    bb_mp_write_uint(out, of(backend)->bytes);
}

static void free_values(struct bb_map *map)
{
    size_t at = 0;
    void *value = NULL;
    while ((value = bb_map_next(map, &at, NULL)) != NULL) {
        free(value);
    }
    bb_map_fini(map);
}

static void op_close(struct bk_backend *backend)
{
    struct memory *memory = of(backend);
    op_dispatch(backend);
    while (memory->oldest != NULL) {
        drop_oldest(memory, memory->oldest->channel);
    }
    free_values(&memory->channels);
    free_values(&memory->servers);
    (void)close(memory->wake);
    free(memory);
}

static const struct bk_backend_ops ops = {
    .load = op_load,
    .register_ = op_register,
    .get_last_event_id = op_get_last,
    .submit = op_submit,
    .fd = op_fd,
    .dispatch = op_dispatch,
    .status = op_status,
    .close = op_close,
};

static int open_memory(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    struct memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        return BB_ENOMEM;
    }
    memory->backend = (struct bk_backend){&ops, false};
    memory->listener = env->listener;
    memory->meter = env->meter;
    memory->requests_end = &memory->requests;
    for (size_t i = 0; i < OPTIONS; i++) {
        memory->values[i] = env->values[i].number;
    }
    bb_map_init(&memory->channels, 0, SIZE_MAX);
    bb_map_init(&memory->servers, 0, SIZE_MAX);
    memory->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (memory->wake < 0) {
        bb_buf_printf(err, "no eventfd: %m");
        free(memory);
        return BB_ESYSTEM;
    }
    *ret_backend = &memory->backend;
    return 0;
}

const struct bk_backend_driver bk_memory_driver = {BK_BACKEND_ABI, "memory", false, options, open_memory};

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/memory/keep.h"

#include "proto/base/error.h"

#include <stdlib.h>
#include <sys/eventfd.h>

struct bk_memory_channel *bk_memory_find(const struct bk_memory *memory, uint32_t id)
{
    return bb_map_find(&memory->channels, bb_slice(&id, sizeof(id)));
}

static struct bk_memory_channel *get_channel(struct bk_memory *memory, uint32_t id)
{
    struct bk_memory_channel *channel = bk_memory_find(memory, id);
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
    bb_map_init(&channel->paths, 0, SIZE_MAX);
    if (bb_map_add(&memory->channels, bb_slice(&channel->id, sizeof(id)), channel) < 0) {
        free(channel);
        return NULL;
    }
    return channel;
}

static void channel_free(struct bk_memory_channel *channel)
{
    bb_map_fini(&channel->paths);
    free(channel);
}

static struct bk_memory_server *get_server(struct bk_memory *memory, uint64_t number)
{
    struct bk_memory_server *server = bb_map_find(&memory->servers, bb_slice(&number, sizeof(number)));
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

static void path_free_unused(struct bk_memory_channel *channel, struct bk_memory_path *path)
{
    if (path != NULL && path->events == 0) {
        (void)bb_map_remove(&channel->paths, bb_slice(path->text, path->len));
        free(path);
    }
}

/* A path's events go from the oldest on. */
static void forget_of_path(struct bk_memory_block *block)
{
    struct bk_memory_path *path = block->path;
    if (path != NULL) {
        path->oldest = block->next_same;
        path->events--;
    }
    path_free_unused(block->channel, path);
}

static void drop(struct bk_memory *memory, struct bk_memory_block *block)
{
    struct bk_memory_channel *channel = block->channel;
    *(block != memory->oldest ? &block->prev->next : &memory->oldest) = block->next;
    *(block->next != NULL ? &block->next->prev : &memory->newest) = block->prev;
    *(block != channel->oldest ? &block->prev_own->next_own : &channel->oldest) = block->next_own;
    *(block->next_own != NULL ? &block->next_own->prev_own : &channel->newest) = block->prev_own;
    channel->events -= block->log.head.count;
    channel->bytes -= block->log.head.length;
    if (block->prev_own == NULL) {
        channel->first = channel->oldest != NULL ? channel->oldest->log.head.sequence : channel->last + 1;
    }
    memory->bytes -= block->log.head.length;
    forget_of_path(block);
    bk_bytes_unref(block->log.owner);
    free(block);
}

/* The oldest @n events of a channel go, of its oldest block. */
static void drop_events(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t n)
{
    struct bk_memory_block *block = channel->oldest;
    struct bb_slice rest = bb_slice(block->log.events, (size_t)block->log.head.length);
    struct bb_event_view event;
    if (n >= block->log.head.count) {
        drop(memory, block);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (bb_event_read(&rest, &event) < 0) {
            drop(memory, block); /* cannot be: it was scanned */
            return;
        }
    }
    uint64_t bytes = block->log.head.length - rest.len;
    block->log.events = rest.data;
    block->log.head.length = rest.len;
    block->log.head.count -= n;
    block->log.head.sequence += n;
    block->log.head.instance += n;
    channel->first = block->log.head.sequence;
    channel->events -= n;
    channel->bytes -= bytes;
    memory->bytes -= bytes;
}

/* How many events of the oldest block the channel's own limits want gone: for these the floor counts. */
static uint64_t n_surplus(const struct bk_memory_channel *channel, uint64_t now)
{
    const struct bk_memory_block *oldest = channel->oldest;
    const struct bk_retention *retention = &channel->retention;
    if (oldest == NULL || channel->events <= retention->min_events) {
        return 0;
    }
    uint64_t above_floor = BB_MIN(channel->events - retention->min_events, oldest->log.head.count);
    if (retention->max_age_us != BK_NO_LIMIT && oldest->log.head.time < now &&
        now - oldest->log.head.time > retention->max_age_us) {
        return above_floor;
    }
    if (channel->events > retention->max_events) {
        return BB_MIN(channel->events - retention->max_events, above_floor);
    }
    return channel->bytes > retention->max_bytes;
}

/* Notifications come in dispatch() only. */
static void note_trimmed(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    if (!channel->is_trimmed) {
        channel->is_trimmed = true;
        channel->next_trimmed = memory->trimmed;
        memory->trimmed = channel;
        (void)eventfd_write(memory->wake, 1);
    }
}

static void forget_trimmed(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    struct bk_memory_channel **at = &memory->trimmed;
    while (*at != NULL && *at != channel) {
        at = &(*at)->next_trimmed;
    }
    if (*at != NULL) {
        *at = channel->next_trimmed;
    }
    channel->is_trimmed = false;
}

void bk_memory_tell_trimmed(struct bk_memory *memory)
{
    while (memory->trimmed != NULL) {
        struct bk_memory_channel *channel = memory->trimmed;
        memory->trimmed = channel->next_trimmed;
        channel->is_trimmed = false;
        memory->listener->trimmed(memory->listener->context, channel->id, channel->first);
    }
}

static void tidy(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t now)
{
    uint64_t first = channel->first;
    for (uint64_t n = n_surplus(channel, now); n > 0; n = n_surplus(channel, now)) {
        drop_events(memory, channel, n);
    }
    while (channel->oldest != NULL && channel->bytes > memory->values[OPTION_CHANNEL_SIZE]) {
        drop(memory, channel->oldest);
    }
    if (channel->first != first) {
        note_trimmed(memory, channel);
    }
    while (memory->bytes > memory->values[OPTION_TOTAL_SIZE] && memory->oldest != NULL) {
        struct bk_memory_channel *victim = memory->oldest->channel;
        drop(memory, victim->oldest);
        note_trimmed(memory, victim);
    }
}

static int copy_events(const struct bk_memory *memory, struct bk_log_block *log)
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

static int judge(const struct bk_log_block *log,
                 const struct bk_memory_server *server,
                 const struct bk_memory_channel *channel)
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

static void
link_block(struct bk_memory *memory, struct bk_memory_channel *channel, struct bk_memory_block *block)
{
    const struct bb_block *head = &block->log.head;
    block->channel = channel;
    block->position = ++memory->position;
    block->prev = memory->newest;
    *(memory->newest != NULL ? &memory->newest->next : &memory->oldest) = block;
    memory->newest = block;
    block->prev_own = channel->newest;
    *(channel->newest != NULL ? &channel->newest->next_own : &channel->oldest) = block;
    channel->newest = block;
    channel->first = channel->events == 0 ? head->sequence : channel->first;
    channel->last = head->sequence + head->count - 1;
    channel->events += head->count;
    channel->bytes += head->length;
    memory->bytes += head->length;
}

static int
add_block(struct bk_memory *memory, struct bk_memory_channel *channel, const struct bk_log_block *log)
{
    struct bk_memory_block *block = calloc(1, sizeof(*block));
    if (block == NULL) {
        return BB_ENOMEM;
    }
    block->log = *log;
    if (copy_events(memory, &block->log) < 0) {
        free(block);
        return BB_ENOMEM;
    }
    link_block(memory, channel, block);
    return 0;
}

static struct bk_memory_path *get_path(struct bk_memory_channel *channel, struct bb_slice text)
{
    struct bk_memory_path *path = bb_map_find(&channel->paths, text);
    if (path != NULL) {
        return path;
    }
    path = calloc(1, sizeof(*path) + text.len + 1);
    if (path == NULL) {
        return NULL;
    }
    path->len = text.len;
    if (text.len > 0) {
        memcpy(path->text, text.data, text.len);
    }
    if (bb_map_add(&channel->paths, bb_slice(path->text, path->len), path) < 0) {
        free(path);
        return NULL;
    }
    return path;
}

/* The newest event of the channel is one of @path: an older one may have to go. */
static void
count_path(struct bk_memory *memory, struct bk_memory_channel *channel, struct bk_memory_path *path)
{
    struct bk_memory_block *block = channel->newest;
    block->path = path;
    *(path->events > 0 ? &path->newest->next_same : &path->oldest) = block;
    path->newest = block;
    path->events++;
    while (path->events > BB_MAX(channel->retention.max_per_path, 1) &&
           channel->events > channel->retention.min_events &&
           channel->last - path->oldest->log.head.sequence >= channel->retention.min_events) {
        drop(memory, path->oldest);
    }
}

/* One block for each event, so that each can go alone; its bytes are its own. */
static int
add_events(struct bk_memory *memory, struct bk_memory_channel *channel, const struct bk_log_block *log)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        struct bk_log_block one = *log;
        one.owner = NULL;
        one.events = event.raw.data;
        one.head.sequence += i;
        one.head.instance += i;
        one.head.count = 1;
        one.head.length = event.raw.len;
        struct bk_memory_path *path = get_path(channel, event.path);
        int r = path != NULL ? add_block(memory, channel, &one) : BB_ENOMEM;
        if (r < 0) {
            path_free_unused(channel, path);
            return r;
        }
        count_path(memory, channel, path);
    }
    return 0;
}

int bk_memory_take_block(struct bk_memory *memory, struct bk_log_block *log)
{
    struct bk_memory_channel *channel = bk_memory_find(memory, log->channel);
    struct bk_memory_server *server = get_server(memory, log->server);
    if (server == NULL) {
        return BB_ENOMEM;
    }
    log->error = channel == NULL ? BB_ENOTFOUND : judge(log, server, channel);
    if (log->error != 0) {
        return 0;
    }
    bool by_path = channel->retention.max_per_path != BK_NO_LIMIT;
    int r = by_path ? add_events(memory, channel, log) : add_block(memory, channel, log);
    if (r < 0) {
        return r;
    }
    server->id.session = log->head.session;
    server->id.instance = log->head.instance + log->head.count - 1;
    server->time = log->head.time;
    tidy(memory, channel, log->head.time);
    return 0;
}

int bk_memory_take_channel(struct bk_memory *memory, const struct bk_log_channel *entry)
{
    struct bk_memory_channel *channel =
        entry->removed ? bk_memory_find(memory, entry->id) : get_channel(memory, entry->id);
    if (channel == NULL) {
        return entry->removed ? 0 : BB_ENOMEM;
    }
    channel->retention = entry->retention;
    if (!entry->removed) {
        return 0;
    }
    while (channel->oldest != NULL) {
        drop(memory, channel->oldest);
    }
    (void)bb_map_remove(&memory->channels, bb_slice(&channel->id, sizeof(channel->id)));
    forget_trimmed(memory, channel);
    channel_free(channel);
    return 0;
}

void bk_memory_trim(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t sequence)
{
    while (channel->oldest != NULL && channel->oldest->log.head.sequence < sequence) {
        drop_events(memory, channel, sequence - channel->oldest->log.head.sequence);
    }
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

void bk_memory_clear(struct bk_memory *memory)
{
    size_t at = 0;
    struct bk_memory_channel *channel = NULL;
    while (memory->oldest != NULL) {
        drop(memory, memory->oldest);
    }
    while ((channel = bb_map_next(&memory->channels, &at, NULL)) != NULL) {
        channel_free(channel);
    }
    bb_map_fini(&memory->channels);
    free_values(&memory->servers);
}

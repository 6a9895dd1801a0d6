/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/conform/world.h"

#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/wire/mp.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEADLINE_US 10000000

/* --- what the backend tells ------------------------------------------------------------------------- */

static void on_registered(void *context, uint64_t ticket)
{
    struct world *world = context;
    cr_assert_gt(ticket, world->registered, "registered() twice, or out of order");
    cr_assert_leq(ticket, world->ticket, "registered() of a ticket that was not given");
    world->registered = ticket;
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    struct world *world = context;
    cr_assert(world->is_told, "flushed() outside of dispatch() and close()");
    cr_assert_gt(ticket, world->flushed, "flushed() twice, or out of order");
    cr_assert_leq(ticket, world->registered, "flushed() before registered()");
    world->flushed = ticket;
    world->flush_error = error;
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct world *world = context;
    cr_assert_lt(channel, CHANNELS);
    cr_assert_geq(first, world->trimmed[channel], "trimmed() goes back");
    world->trimmed[channel] = first;
}

static void on_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    cr_assert_eq(state, BK_BACKEND_OK, "%s", text);
}

static void on_log(void *context, int level, const char *id, const char *text)
{
    (void)context;
    (void)level;
    (void)fprintf(stderr, "%s: %s\n", id, text);
}

static void on_done(void *context, struct bk_request *request)
{
    struct world *world = context;
    (void)request;
    cr_assert(world->is_told, "done() outside of dispatch() and close()");
    world->n_done++;
}

/* --- opening ---------------------------------------------------------------------------------------- */

static void remove_tree(const char *directory)
{
    DIR *dir = opendir(directory);
    cr_assert_not_null(dir);
    const struct dirent *entry = NULL;
    while ((entry = readdir(dir)) != NULL) { /* NOLINT(concurrency-mt-unsafe): a stream of its own */
        char path[512];
        struct stat status;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        (void)snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (lstat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
            remove_tree(path); /* NOLINT(misc-no-recursion) */
        } else {
            (void)unlink(path);
        }
    }
    (void)closedir(dir);
    (void)rmdir(directory);
}

static uint64_t now(void *context)
{
    struct world *world = context;
    return atomic_load(&world->clock);
}

int world_try_open(struct world *world, struct bk_backend **ret_backend)
{
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {
        .directory = world->directory,
        .server = SERVER,
        .listener = &world->listener,
        .meter = &world->meter,
        .log = on_log,
        .now = world->has_system_clock ? NULL : now,
        .now_context = world,
    };
    int r = bk_backend_open(world->name, world->options, world->n_options, &env, ret_backend, &err);
    cr_assert_eq(r == 0, err.len == 0, "a sentence comes with an error and only then");
    bb_buf_fini(&err);
    return r;
}

static int load_channel(void *context, const struct bk_log_channel *channel)
{
    struct world *world = context;
    world->last_id = BB_MAX(world->last_id, channel->id);
    cr_assert_lt(channel->id, CHANNELS);
    if (channel->removed) { /* its events may still be on their way out; the id stays taken */
        return 0;
    }
    cr_assert_lt(world->n_channels, CHANNELS);
    world->channels[world->n_channels] = *channel;
    (void)snprintf(world->names[world->n_channels], sizeof(world->names[0]), "%.*s", (int)channel->name.len,
                   (const char *)channel->name.data);
    world->n_channels++;
    return 0;
}

static int load_producer(void *context, const struct bk_log_producer *producer)
{
    struct world *world = context;
    world->producer = *producer;
    world->n_producers++;
    return 0;
}

static int load_cursor(void *context, const struct bk_log_cursor *cursor)
{
    struct world *world = context;
    world->n_cursors++;
    (void)snprintf(world->cursor, sizeof(world->cursor), "%.*s=%.*s", (int)cursor->name.len,
                   (const char *)cursor->name.data, (int)cursor->value.len, (const char *)cursor->value.data);
    return 0;
}

static void open_backend(struct world *world)
{
    const struct bk_backend_loader loader = {world, load_channel, load_producer, load_cursor};
    world->n_channels = world->n_producers = world->n_cursors = 0;
    world->last_id = 0;
    cr_assert_eq(world_try_open(world, &world->backend), 0);
    cr_assert_eq(world->backend->ops->load(world->backend, &loader), 0);
}

void world_open(struct world *world, const char *name)
{
    *world = (struct world){.name = strcmp(name, "plugin") == 0 ? PLUGIN : name};
    (void)snprintf(world->directory, sizeof(world->directory), "/tmp/busbar-conform-XXXXXX");
    cr_assert_not_null(mkdtemp(world->directory));
    world->listener = (struct bk_backend_listener){world, on_registered, on_flushed, on_trimmed, on_state};
    if (strcmp(name, "lmdb") == 0) {
        world->options[0] = "map-size=64M";
        world->options[1] = "journal-size=1M";
        world->options[2] = "apply-interval=5ms";
        world->options[3] = "retain-interval=5ms";
        world->n_options = 4;
    }
    open_backend(world);
    for (uint32_t channel = 1; channel <= DECLARED; channel++) {
        set_channel(world, channel, NULL, false);
    }
    settle(world);
}

static void close_backend(struct world *world)
{
    world->is_told = true;
    world->backend->ops->close(world->backend);
    world->is_told = false;
    for (size_t i = 0; i < BB_COUNT(world->releases); i++) {
        if (world->releases[i] != NULL) {
            bk_bytes_unref(*world->releases[i]);
            world->releases[i] = NULL;
        }
    }
    cr_assert_eq(world->flushed, world->registered, "close() leaves a ticket undecided");
    cr_assert_eq(atomic_load(&world->meter.bytes), 0, "bytes are left behind");
}

void world_leave(struct world *world)
{
    close_backend(world);
    world->ticket = world->registered = world->flushed = 0;
}

void world_enter(struct world *world)
{
    open_backend(world);
}

void world_close(struct world *world)
{
    close_backend(world);
    for (size_t i = 0; i < BB_COUNT(world->events); i++) {
        bb_buf_fini(&world->events[i]);
    }
    bb_buf_fini(&world->hits);
    bb_buf_fini(&world->losses);
    remove_tree(world->directory);
}

void world_reopen(struct world *world)
{
    world_leave(world);
    world_enter(world);
}

/* --- driving ---------------------------------------------------------------------------------------- */

static void dispatch(struct world *world)
{
    world->is_told = true;
    world->backend->ops->dispatch(world->backend);
    world->is_told = false;
}

void set_clock(struct world *world, uint64_t time)
{
    if (time > atomic_load(&world->clock)) {
        atomic_store(&world->clock, time);
        dispatch(world);
    }
}

void world_pump(struct world *world, bool (*is_done)(const struct world *world))
{
    int64_t deadline = bb_clock_monotonic_us() + DEADLINE_US;
    while (!is_done(world)) {
        struct pollfd fd = {.fd = world->backend->ops->fd(world->backend), .events = POLLIN};
        int64_t left = deadline - bb_clock_monotonic_us();
        cr_assert_gt(left, 0, "nothing more is told");
        cr_assert_eq(poll(&fd, 1, (int)(left / 1000) + 1), 1, "fd() does not become readable");
        dispatch(world);
    }
}

static bool is_settled(const struct world *world)
{
    return world->flushed == world->ticket;
}

void settle(struct world *world)
{
    world_pump(world, is_settled);
    cr_assert_eq(world->flush_error, 0);
}

static bool has_done(const struct world *world)
{
    return world->n_done > 0;
}

void run(struct world *world, struct bk_request *request)
{
    world->n_done = 0;
    request->done = on_done;
    request->context = world;
    world->backend->ops->submit(world->backend, request);
    cr_assert_eq(world->n_done, 0, "done() inside submit()");
    world_pump(world, has_done);
    cr_assert_eq(world->n_done, 1);
}

/* --- writing ---------------------------------------------------------------------------------------- */

static void write_event(struct bb_buf *out, const struct spec *spec)
{
    struct bb_buf payload = BB_BUF_INIT;
    struct bb_attributes attributes = {
        .has_source_time = spec->source_time != 0,
        .source_time = spec->source_time,
        .has_ttl = spec->ttl_ms != 0,
        .ttl_ms = spec->ttl_ms,
    };
    if (spec->padding > 0) {
        uint8_t *padding = calloc(1, spec->padding);
        cr_assert_not_null(padding);
        bb_mp_write_array(&payload, 2);
        bb_mp_write_int(&payload, spec->value);
        bb_mp_write_bin(&payload, bb_slice(padding, spec->padding));
        free(padding);
    } else {
        bb_mp_write_int(&payload, spec->value);
    }
    bool has_any = spec->source_time != 0 || spec->ttl_ms != 0;
    bb_event_write(out, bb_slice_str(spec->path), bb_buf_slice(&payload), has_any ? &attributes : NULL);
    bb_buf_fini(&payload);
}

static uint32_t flags_of(const struct spec *specs, size_t n)
{
    uint32_t flags = BK_LOG_UNIFORM;
    for (size_t i = 0; i < n; i++) {
        flags |= specs[i].ttl_ms > 0 ? BK_LOG_TTL : 0;
        flags |= specs[i].source_time != 0 ? BK_LOG_SOURCE_TIME : 0;
        flags &= strcmp(specs[i].path, specs[0].path) == 0 ? UINT32_MAX : ~(uint32_t)BK_LOG_UNIFORM;
    }
    return flags;
}

struct bk_log_block *stage(struct world *world, uint32_t channel, const struct spec *specs, size_t n)
{
    size_t at = world->n_blocks++;
    cr_assert_lt(at, BB_COUNT(world->blocks));
    struct bb_buf *events = &world->events[at];
    bb_buf_reset(events);
    for (size_t i = 0; i < n; i++) {
        write_event(events, &specs[i]);
    }
    cr_assert_eq(events->error, 0);
    world->session++;
    world->blocks[at] = (struct bk_log_block){
        .channel = channel,
        .flags = flags_of(specs, n),
        .server = SERVER,
        .head =
            {
                .session = world->session,
                .time = TIME0 + 1000 * world->session,
                .source = 3,
                .sequence = world->sequences[channel] + 1,
                .instance = 1,
                .count = n,
                .length = events->len,
            },
        .events = events->data,
        .error = -1,
    };
    world->sequences[channel] += n;
    atomic_store(&world->clock, BB_MAX(atomic_load(&world->clock), TIME0 + 1000 * world->session));
    return &world->blocks[at];
}

int commit_append(struct world *world, struct bk_append *append)
{
    world->ticket++;
    int r = world->backend->ops->register_(world->backend, append, world->ticket);
    world->ticket -= r == 0 ? 0 : 1;
    return r;
}

int commit(struct world *world)
{
    struct bk_append append = {.blocks = world->blocks, .n_blocks = world->n_blocks};
    world->n_blocks = 0;
    return commit_append(world, &append);
}

void put(struct world *world, uint32_t channel, const char *path, int64_t value)
{
    const struct spec spec = {.path = path, .value = value};
    const struct bk_log_block *block = stage(world, channel, &spec, 1);
    cr_assert_eq(commit(world), 0);
    cr_assert_eq(block->error, 0);
}

void name_channel(struct world *world, uint32_t id, const char *name, const struct bk_retention *retention)
{
    struct bk_log_channel entry = {.id = id, .name = bb_slice_str(name), .retention = *retention};
    struct bk_append append = {.channels = &entry, .n_channels = 1};
    cr_assert_eq(commit_append(world, &append), 0);
}

void set_channel(struct world *world, uint32_t channel, const struct bk_retention *retention, bool removed)
{
    char name[16];
    (void)snprintf(name, sizeof(name), "c%u", channel);
    struct bk_log_channel entry = {
        .id = channel,
        .name = bb_slice_str(name),
        .removed = removed,
        .retention = retention != NULL ? *retention : BK_RETENTION_INIT,
    };
    struct bk_append append = {.channels = &entry, .n_channels = 1};
    cr_assert_eq(commit_append(world, &append), 0);
}

/* --- reading ---------------------------------------------------------------------------------------- */

static void take_hit(struct world *world, const struct bb_block *head, uint64_t i, struct bb_slice *rest)
{
    struct bb_event_view event;
    cr_assert_eq(bb_event_read(rest, &event), 0);
    struct hit hit = {head->session, head->instance + i, head->sequence + i, head->time, 0, ""};
    struct bb_mp_reader reader = bb_mp_reader(event.payload);
    if (bb_mp_peek_type(&reader) == BB_MP_ARRAY) {
        (void)bb_mp_read_array(&reader);
    }
    hit.value = bb_mp_read_int(&reader);
    cr_assert_lt(event.path.len, sizeof(hit.path));
    memcpy(hit.path, event.path.data, event.path.len);
    bb_buf_append(&world->hits, &hit, sizeof(hit));
}

void take_hits(struct world *world, struct bk_bytes *body)
{
    bb_buf_reset(&world->hits);
    struct bb_slice rest = body != NULL ? bb_slice(body->data, body->len) : (struct bb_slice){0};
    while (rest.len > 0) {
        struct bb_block head;
        cr_assert_eq(bb_block_read_head(&rest, &head), 0);
        cr_assert_leq(head.length, rest.len);
        struct bb_slice events = bb_slice(rest.data, (size_t)head.length);
        for (uint64_t i = 0; i < head.count; i++) {
            take_hit(world, &head, i, &events);
        }
        cr_assert_eq(events.len, 0);
        rest = bb_slice(rest.data + head.length, rest.len - (size_t)head.length);
    }
    bk_bytes_unref(body);
}

size_t n_losses(const struct world *world)
{
    return world->losses.len / sizeof(struct bk_read_loss);
}

const struct bk_read_loss *loss(const struct world *world, size_t i)
{
    cr_assert_lt(i, n_losses(world));
    return &((const struct bk_read_loss *)(const void *)world->losses.data)[i];
}

/* Each loss is inside its range, and behind the one before of the same range. */
static void check_losses(const struct world *world, const struct bk_read *read)
{
    for (size_t k = 0; k < read->n_ranges; k++) {
        const struct bk_read_range *range = &read->ranges[k];
        const struct bk_read_loss *before = NULL;
        size_t n = 0;
        uint64_t count = 0;
        for (size_t i = 0; i < n_losses(world); i++) {
            const struct bk_read_loss *now = loss(world, i);
            if (now->range != k) {
                cr_assert_lt(now->range, read->n_ranges);
                continue;
            }
            cr_assert_gt(now->from, before != NULL ? before->to : range->after);
            cr_assert_leq(now->from, now->to);
            cr_assert_leq(now->to, range->reached);
            cr_assert(now->count > 0 && now->count <= now->to - now->from + 1);
            cr_assert(before == NULL || before->reason != now->reason);
            before = now;
            count += now->count;
            n++;
        }
        cr_assert_leq(n, BK_LOSSES_MAX);
        cr_assert(range->reached <= range->stop || range->reached == range->after);
        cr_assert(read->filter != NULL || range->events + count == range->reached - range->after,
                  "channel %u (%llu, %llu]: %llu are there, %llu lost", range->channel,
                  (unsigned long long)range->after, (unsigned long long)range->reached,
                  (unsigned long long)range->events, (unsigned long long)count);
    }
}

void take_read(struct world *world, struct bk_read *read)
{
    bb_buf_fini(&world->losses);
    world->losses = read->losses;
    read->losses = BB_BUF_INIT;
    cr_assert_eq(read->request.error, 0);
    take_hits(world, read->body);
    cr_assert_eq(n_hits(world), read->n_events);
    check_losses(world, read);
}

size_t n_hits(const struct world *world)
{
    return world->hits.len / sizeof(struct hit);
}

const struct hit *hit(const struct world *world, size_t i)
{
    cr_assert_lt(i, n_hits(world));
    return (const struct hit *)(const void *)world->hits.data + i;
}

struct bk_filter *filter_of(const char *pattern)
{
    struct bb_buf patterns = BB_BUF_INIT;
    struct bk_filter *filter = NULL;
    if (pattern == NULL) {
        return NULL;
    }
    bb_mp_write_array(&patterns, 1);
    bb_mp_write_str(&patterns, bb_slice_str(pattern));
    cr_assert_eq(bk_filter_new(bb_buf_slice(&patterns), &filter), 0);
    bb_buf_fini(&patterns);
    return filter;
}

void read_range(struct world *world, struct bk_read_range *range, const char *pattern, size_t max_bytes)
{
    struct bk_read read = {
        .request = {.kind = BK_REQUEST_READ},
        .filter = filter_of(pattern),
        .ranges = range,
        .n_ranges = 1,
        .max_bytes = max_bytes,
        .now = TIME0 + 1000 * world->session,
    };
    run(world, &read.request);
    take_read(world, &read);
    bk_filter_unref(read.filter);
}

void read_all(struct world *world, uint32_t channel)
{
    struct bk_read_range range = {channel, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert(range.at_end);
}

int ask(struct world *world, const struct bb_query *query, bool *ret_more)
{
    struct bk_query request = {
        .request = {.kind = BK_REQUEST_QUERY},
        .query = query,
        .now = TIME0 + 1000 * world->session,
        .max_bytes = SIZE_MAX,
    };
    run(world, &request.request);
    take_hits(world, request.body);
    cr_assert_eq(n_hits(world), request.n_events);
    if (ret_more != NULL) {
        *ret_more = request.more;
    }
    return request.request.error;
}

uint64_t locate(struct world *world, struct bk_locate *want, uint32_t channel)
{
    struct bk_locate_place place = {.channel = channel};
    want->request.kind = BK_REQUEST_LOCATE;
    want->places = &place;
    want->n_places = 1;
    run(world, &want->request);
    cr_assert_eq(want->request.error, 0);
    cr_assert_eq(place.last, world->sequences[channel]);
    return place.sequence;
}

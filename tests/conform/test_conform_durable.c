/* SPDX-License-Identifier: Apache-2.0 */
/* What comes back: after close, after the end of the process, from a snapshot. And how close() ends
 * things. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "tests/conform/world.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define ON_EVERY(test)                \
    ON(conform_durable, memory, test) \
    ON(conform_durable, lmdb, test)   \
    ON(conform_durable, plugin, test) \
    ON(conform_durable, dummy, test)

static void fill(struct world *world, int64_t n)
{
    for (int64_t i = 1; i <= n; i++) {
        put(world, 1, "c1/a", i);
    }
}

static void has_all(struct world *world, uint64_t n)
{
    read_all(world, 1);
    cr_assert_eq(n_hits(world), n, "%zu", n_hits(world));
    for (uint64_t i = 0; i < n; i++) {
        cr_assert_eq(hit(world, i)->value, (int64_t)i + 1);
        cr_assert_eq(hit(world, i)->sequence, i + 1);
    }
}

static void says_whether_it_is_durable(struct world *world)
{
    cr_assert_eq(world->backend->is_durable, strcmp(world->name, "lmdb") == 0);
}
ON_EVERY(says_whether_it_is_durable)

static const struct bk_log_channel *channel_1(const struct world *world)
{
    size_t i = 0;
    while (i < world->n_channels && world->channels[i].id != 1) {
        i++;
    }
    cr_assert_lt(i, world->n_channels);
    return &world->channels[i];
}

static void reopened(struct world *world)
{
    const struct bk_retention retention = {BK_NO_LIMIT, 1 << 30, 12345, BK_NO_LIMIT, 6};
    set_channel(world, 1, &retention, false);
    fill(world, 200); /* close() makes them durable */
    world_reopen(world);
    cr_assert_eq(world->n_channels, DECLARED);
    const struct bk_log_channel *channel = channel_1(world);
    cr_assert_str_eq(world->names[channel - world->channels], "c1");
    cr_assert_eq(channel->first, 1);
    cr_assert_eq(channel->last, 200);
    cr_assert_eq(channel->events, 200);
    cr_assert_gt(channel->bytes, 0);
    cr_assert_eq(channel->retention.max_bytes, 1 << 30);
    cr_assert_eq(channel->retention.max_events, 12345);
    cr_assert_eq(channel->retention.min_events, 6);
    struct bk_event_id id;
    uint64_t time = 0;
    world->backend->ops->get_last_event_id(world->backend, SERVER, &id, &time);
    cr_assert_eq(id.session, 200);
    cr_assert_eq(id.instance, 1);
    cr_assert_eq(time, TIME0 + 200000);
    has_all(world, 200);
    put(world, 1, "c1/a", 201);
    settle(world);
    has_all(world, 201);
}
ON(conform_durable, lmdb, reopened)

/* What was trimmed or removed stays away, and the numbers go on. */
static void reopened_after_trim(struct world *world)
{
    fill(world, 20);
    put(world, 2, "c2/a", 1);
    set_channel(world, 2, NULL, true);
    settle(world);
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 21};
    run(world, &trim.request);
    cr_assert_eq(trim.request.error, 0);
    world_reopen(world);
    cr_assert_eq(world->n_channels, DECLARED - 1);
    cr_assert_eq(channel_1(world)->first, 21);
    cr_assert_eq(channel_1(world)->last, 20);
    cr_assert_eq(channel_1(world)->events, 0);
    put(world, 1, "c1/a", 21);
    settle(world);
}
ON(conform_durable, lmdb, reopened_after_trim)

/* An id is not used again, whether or not all of its channel has gone. */
static void highest_id_of_a_channel_that_is_gone(struct world *world)
{
    name_channel(world, DECLARED + 1, "late", &BK_RETENTION_INIT);
    put(world, DECLARED + 1, "late/a", 1);
    set_channel(world, DECLARED + 1, NULL, true);
    for (int i = 0; i < 3; i++) {
        settle(world);
        world_reopen(world);
        cr_assert_eq(world->n_channels, DECLARED);
        cr_assert_eq(world->last_id, DECLARED + 1);
    }
    name_channel(world, DECLARED + 2, "late", &BK_RETENTION_INIT);
    put(world, DECLARED + 2, "late/a", 1);
    settle(world);
    world_reopen(world);
    cr_assert_eq(world->n_channels, DECLARED + 1);
    cr_assert_eq(world->last_id, DECLARED + 2);
}
ON(conform_durable, lmdb, highest_id_of_a_channel_that_is_gone)

static void producers_and_cursors(struct world *world)
{
    struct bk_log_producer producers[] = {
        {.key = "one", .last = 7, .time = 70, .notes = bb_slice_str("note")},
        {.key = "two", .last = 8, .time = 80},
    };
    struct bk_log_cursor cursors[] = {
        {.name = bb_slice_str("keep"), .value = bb_slice_str("here")},
        {.name = bb_slice_str("drop"), .value = bb_slice_str("there")},
    };
    struct bk_append append = {.producers = producers, .n_producers = 2, .cursors = cursors, .n_cursors = 2};
    cr_assert_eq(commit_append(world, &append), 0);
    producers[0].last = 9;
    producers[1].removed = true;
    cursors[0].value = bb_slice_str("further");
    cursors[1].removed = true;
    cr_assert_eq(commit_append(world, &append), 0);
    settle(world);
    world_reopen(world);
    cr_assert_eq(world->n_producers, 1);
    cr_assert_eq(memcmp(world->producer.key, producers[0].key, sizeof(producers[0].key)), 0);
    cr_assert_eq(world->producer.last, 9);
    cr_assert_eq(world->producer.time, 70);
    cr_assert_eq(world->producer.notes.len, 4);
    cr_assert_eq(world->n_cursors, 1);
    cr_assert_str_eq(world->cursor, "keep=further");
}
ON(conform_durable, lmdb, producers_and_cursors)

/* HAT-W13: flushed() means on disk, without a period after which it would be. A process ends without a word
 * as soon as it is told. (That the disk has it too is for the campaigns.) */
static void flushed_survives_the_process_w13(struct world *world)
{
    world_leave(world);
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        world_enter(world);
        fill(world, 300);
        settle(world);
        _exit(33);
    }
    int status = 0;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 33);
    world_enter(world);
    world->sequences[1] = 300;
    has_all(world, 300);
}
ON(conform_durable, lmdb, flushed_survives_the_process_w13)

static void one_owner_only(struct world *world)
{
    struct bk_backend *other = NULL;
    cr_assert_eq(world_try_open(world, &other), BB_EEXISTS);
    fill(world, 3); /* which does the first one no harm */
    settle(world);
}
ON(conform_durable, lmdb, one_owner_only)

/* The value of a key of text in a report. */
static struct bb_slice report_text(const struct bk_upkeep *upkeep, const char *key)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&upkeep->report));
    uint64_t n = bb_mp_read_map(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice name = bb_mp_read_str(&reader);
        if (bb_slice_equal(name, bb_slice_str(key))) {
            return bb_mp_read_str(&reader);
        }
        bb_mp_skip(&reader);
    }
    return (struct bb_slice){0};
}

static void snapshot_is_a_directory_of_its_own(struct world *world)
{
    struct bk_upkeep copy = {.request = {.kind = BK_REQUEST_SNAPSHOT}, .name = bb_slice_str("copy")};
    char home[sizeof(world->directory)];
    fill(world, 200);
    settle(world);
    run(world, &copy.request);
    cr_assert_eq(copy.request.error, 0);
    put(world, 1, "c1/a", 201); /* not in the copy */
    settle(world);
    struct bb_slice directory = report_text(&copy, "directory");
    cr_assert(directory.len > 0 && directory.len < sizeof(home));
    world_leave(world);
    (void)snprintf(home, sizeof(home), "%s", world->directory);
    (void)snprintf(world->directory, sizeof(world->directory), "%.*s", (int)directory.len,
                   (const char *)directory.data);
    bb_buf_fini(&copy.report);
    world_enter(world);
    cr_assert_eq(world->n_channels, DECLARED);
    world->sequences[1] = 200;
    has_all(world, 200);
    put(world, 1, "c1/a", 201);
    settle(world);
    has_all(world, 201);
    world_leave(world);
    (void)snprintf(world->directory, sizeof(world->directory), "%s", home);
    world_enter(world);
    has_all(world, 201);
}
ON(conform_durable, lmdb, snapshot_is_a_directory_of_its_own)

static void name_of_a_snapshot(struct world *world)
{
    const char *const names[] = {"", "../x", "a/b", ".."};
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        struct bk_upkeep copy = {.request = {.kind = BK_REQUEST_SNAPSHOT}, .name = bb_slice_str(names[i])};
        run(world, &copy.request);
        cr_assert_eq(copy.request.error, BB_EINVAL, "%s", names[i]);
        bb_buf_fini(&copy.report);
    }
}
ON(conform_durable, lmdb, name_of_a_snapshot)

static void verify_and_compact(struct world *world)
{
    fill(world, 200);
    settle(world);
    struct bk_upkeep compact = {.request = {.kind = BK_REQUEST_COMPACT}};
    run(world, &compact.request);
    cr_assert_eq(compact.request.error, 0);
    bb_buf_fini(&compact.report);
    struct bk_upkeep verify = {.request = {.kind = BK_REQUEST_VERIFY}};
    run(world, &verify.request);
    cr_assert_eq(verify.request.error, 0);
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&verify.report));
    cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_MAP);
    bb_buf_fini(&verify.report);
    has_all(world, 200);
    put(world, 1, "c1/a", 201);
    settle(world);
    has_all(world, 201);
}
ON(conform_durable, lmdb, verify_and_compact)

static void upkeep_is_unsupported(struct world *world)
{
    for (int kind = BK_REQUEST_SNAPSHOT; kind <= BK_REQUEST_VERIFY; kind++) {
        struct bk_upkeep upkeep = {.request = {.kind = (enum bk_request_kind)kind}};
        upkeep.name = bb_slice_str("copy");
        run(world, &upkeep.request);
        cr_assert_eq(upkeep.request.error, BB_EUNSUPPORTED);
        bb_buf_fini(&upkeep.report);
    }
}
ON(conform_durable, memory, upkeep_is_unsupported)
ON(conform_durable, plugin, upkeep_is_unsupported)
ON(conform_durable, dummy, upkeep_is_unsupported)

struct pending {
    struct bk_read_range range;
    struct bk_read read;
    struct bb_query query;
    struct bk_query ask;
    struct bk_request flush;
    struct bk_trim trim;
    struct bk_locate locate;
    struct bk_locate_place place;
    unsigned n_done;
};

static void on_pending(void *context, struct bk_request *request)
{
    struct pending *pending = context;
    cr_assert(request->error == 0 || request->error == BB_ECLOSED || request->error == BB_EUNSUPPORTED ||
                  request->error == BB_ENOTFOUND,
              "%d", request->error);
    pending->n_done++;
}

static void submit(struct world *world, struct pending *pending, struct bk_request *request)
{
    request->done = on_pending;
    request->context = pending;
    world->backend->ops->submit(world->backend, request);
}

/* close() ends each of them once. */
static void close_with_requests_pending(struct world *world)
{
    struct pending pending = {
        .range = {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT},
        .query = BB_QUERY_INIT,
        .flush = {.kind = BK_REQUEST_FLUSH},
        .trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 5},
        .locate = {.request = {.kind = BK_REQUEST_LOCATE}, .kind = BK_LOCATE_LAST, .n_places = 1},
        .place = {.channel = 1},
    };
    pending.read = (struct bk_read){
        .request = {.kind = BK_REQUEST_READ}, .ranges = &pending.range, .n_ranges = 1, .max_bytes = SIZE_MAX};
    pending.ask = (struct bk_query){
        .request = {.kind = BK_REQUEST_QUERY}, .query = &pending.query, .max_bytes = SIZE_MAX};
    pending.locate.places = &pending.place;
    fill(world, 200);
    submit(world, &pending, &pending.trim.request);
    submit(world, &pending, &pending.flush);
    submit(world, &pending, &pending.ask.request);
    submit(world, &pending, &pending.read.request);
    submit(world, &pending, &pending.locate.request);
    world->releases[0] = &pending.ask.body;
    world->releases[1] = &pending.read.body;
    world_leave(world);
    bb_buf_fini(&pending.read.losses);
    cr_assert_eq(pending.n_done, 5);
    world_enter(world);
}
ON_EVERY(close_with_requests_pending)

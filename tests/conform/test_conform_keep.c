/* SPDX-License-Identifier: Apache-2.0 */
/* What goes: retention, trim, removal of a channel. */
#include "proto/base/error.h"
#include "proto/base/time.h"

#include "tests/conform/world.h"

#include <stdio.h>

#define ON_STORES(test)            \
    ON(conform_keep, memory, test) \
    ON(conform_keep, lmdb, test)

static void fill(struct world *world, uint32_t channel, int64_t n)
{
    for (int64_t i = 1; i <= n; i++) {
        const struct spec spec = {channel == 1 ? "c1/a" : "c2/a", i, 0, 0, 100};
        (void)stage(world, channel, &spec, 1);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
}

/* The newest @n of @all are what is read, queried and located, no others. */
static void has_newest(struct world *world, uint64_t n, uint64_t all)
{
    struct bb_query query = BB_QUERY_INIT;
    struct bk_read_range range = {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(range.first, all - n + 1, "%llu", (unsigned long long)range.first);
    cr_assert_eq(range.reached, all);
    cr_assert_eq(n_hits(world), n);
    for (uint64_t i = 0; i < n; i++) {
        cr_assert_eq(hit(world, i)->sequence, all - n + 1 + i);
    }
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), n);
    struct bk_locate first = {.kind = BK_LOCATE_TIME};
    cr_assert_eq(locate(world, &first, 1), n > 0 ? all - n + 1 : 0);
    if (n < all) {
        cr_assert_eq(world->trimmed[1], all - n + 1, "trimmed() was told");
    }
}

static void
is_lost(struct world *world, size_t i, enum bk_loss_reason reason, uint64_t from, uint64_t to, uint64_t count)
{
    const struct bk_read_loss *lost = loss(world, i);
    cr_assert_eq(lost->reason, reason);
    cr_assert_eq(lost->from, from, "%llu", (unsigned long long)lost->from);
    cr_assert_eq(lost->to, to, "%llu", (unsigned long long)lost->to);
    cr_assert_eq(lost->count, count, "%llu", (unsigned long long)lost->count);
}

/* Wait until so many events of channel 1 are left. */
static void keeps(struct world *world, size_t n)
{
    for (int i = 0; i < 500; i++) {
        read_all(world, 1);
        if (n_hits(world) == n) {
            return;
        }
        put(world, 2, "c2/a", i); /* time goes on */
        settle(world);
    }
    cr_assert_fail("%zu are left, not %zu", n_hits(world), n);
}

static bool has_79(const struct world *world)
{
    return world->trimmed[1] >= 80;
}

static bool has_80(const struct world *world)
{
    return world->trimmed[1] >= 81;
}

static bool has_90(const struct world *world)
{
    return world->trimmed[1] >= 91;
}

static void by_count(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_events = 20;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 100);
    world_pump(world, has_80);
    has_newest(world, 20, 100);
}
ON_STORES(by_count)

static void floor_above_the_limit(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_events = 1;
    retention.max_bytes = 1;
    retention.max_age_us = 1;
    retention.min_events = 10;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 100);
    world_pump(world, has_90);
    has_newest(world, 10, 100);
}
ON_STORES(floor_above_the_limit)

static bool has_2(const struct world *world)
{
    return world->trimmed[1] >= 3;
}

static void floor_inside_a_block(struct world *world)
{
    const struct spec specs[] = {
        {.path = "c1/a"}, {.path = "c1/b"}, {.path = "c1/c"}, {.path = "c1/d"}, {.path = "c1/e"}};
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_events = 1;
    retention.min_events = 3;
    set_channel(world, 1, &retention, false);
    (void)stage(world, 1, specs, BB_COUNT(specs));
    cr_assert_eq(commit(world), 0);
    settle(world);
    world_pump(world, has_2);
    has_newest(world, 3, 5);
}
ON_STORES(floor_inside_a_block)

/* Nothing comes any more, but time passes. */
static void by_age_when_idle(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_age_us = 3600000000;
    retention.min_events = 10;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 100);
    set_clock(world, TIME0 + 1000 * 80 + retention.max_age_us);
    world_pump(world, has_79);
    struct bk_read_range range = {.channel = 1, .after = 78, .stop = 80, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(hit(world, n_hits(world) - 1)->sequence, 80, "it is as old as events may be");
    set_clock(world, TIME0 + 1000 * 80 + retention.max_age_us + 1);
    world_pump(world, has_80);
    has_newest(world, 20, 100);
    set_clock(world, TIME0 + 1000 * 200 + retention.max_age_us);
    world_pump(world, has_90);
    has_newest(world, 10, 100);
}
ON_STORES(by_age_when_idle)

static bool has_3(const struct world *world)
{
    return world->trimmed[1] >= 4;
}

/* fd() says when it is time. */
static void by_age_by_the_systems_clock(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_age_us = 20000;
    world->has_system_clock = true;
    world_reopen(world);
    for (uint32_t channel = 1; channel <= DECLARED; channel++) {
        set_channel(world, channel, channel == 1 ? &retention : NULL, false);
    }
    uint64_t start = (uint64_t)bb_clock_wall_us();
    for (int64_t i = 1; i <= 3; i++) {
        const struct spec spec = {.path = "c1/a", .value = i};
        stage(world, 1, &spec, 1)->head.time = start;
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    world_pump(world, has_3);
    cr_assert_geq((uint64_t)bb_clock_wall_us(), start + retention.max_age_us);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 0);
}
ON_STORES(by_age_by_the_systems_clock)

static void by_bytes(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    fill(world, 1, 1);
    struct bk_read_range one = {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    read_range(world, &one, NULL, SIZE_MAX);
    retention.max_bytes = 20 * one.bytes + 2;
    set_channel(world, 1, &retention, false);
    for (int64_t i = 2; i <= 100; i++) { /* as long as the first one */
        const struct spec spec = {"c1/a", i % 100, 0, 0, 100};
        (void)stage(world, 1, &spec, 1);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    world_pump(world, has_80);
    has_newest(world, 20, 100);
}
ON_STORES(by_bytes)

static void by_path(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = 3;
    set_channel(world, 1, &retention, false);
    put(world, 1, "c1/rare", 1);
    fill(world, 1, 50);
    put(world, 1, "c1/rare", 2);
    settle(world);
    for (int i = 0; i < 500; i++) {
        read_all(world, 1);
        if (n_hits(world) == 5) {
            break;
        }
        put(world, 2, "c2/a", i); /* time goes on */
        settle(world);
    }
    cr_assert_eq(n_hits(world), 5, "%zu", n_hits(world));
    cr_assert_eq(hit(world, 0)->sequence, 1);
    cr_assert_eq(hit(world, 1)->sequence, 49);
    cr_assert_eq(hit(world, 4)->sequence, 52);
    cr_assert_eq(n_losses(world), 1);
    is_lost(world, 0, BK_LOSS_TRIMMED, 2, 48, 47);
    struct bk_read_range middle = {.channel = 1, .after = 10, .stop = 20, .stop_time = BK_NO_LIMIT};
    read_range(world, &middle, "c1/rare", SIZE_MAX);
    cr_assert_eq(middle.reached, 20);
    cr_assert_eq(n_losses(world), 1);
    is_lost(world, 0, BK_LOSS_TRIMMED, 11, 20, 10);
}
ON_STORES(by_path)

/* What the floor holds back goes when newer events take its place. */
static void by_path_above_the_floor(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = 2;
    retention.min_events = 10;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 8);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 8, "all are in the floor");
    for (int64_t i = 1; i <= 12; i++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "c1/%lld", (long long)i);
        put(world, 1, path, i);
    }
    settle(world);
    keeps(world, 14);
    cr_assert_eq(hit(world, 0)->sequence, 7);
    cr_assert_eq(hit(world, 13)->sequence, 20);
    cr_assert_eq(world->trimmed[1], 7);
}
ON_STORES(by_path_above_the_floor)

/* A limit of each path for what is there already, a looser one, and a tighter one. */
static void by_path_from_now_on(struct world *world)
{
    const struct spec specs[] = {{"c1/a", 1, 0, 0, 0}, {"c1/b", 2, 0, 0, 0}, {"c1/a", 3, 0, 0, 0},
                                 {"c1/b", 4, 0, 0, 0}, {"c1/a", 5, 0, 0, 0}, {"c1/a", 6, 0, 0, 0}};
    struct bk_retention retention = BK_RETENTION_INIT;
    for (int i = 0; i < 3; i++) {
        (void)stage(world, 1, specs, BB_COUNT(specs));
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    retention.max_per_path = 3;
    set_channel(world, 1, &retention, false);
    settle(world);
    keeps(world, 6);
    cr_assert_eq(hit(world, 0)->sequence, 10);
    cr_assert_eq(hit(world, 1)->sequence, 14);
    retention.max_per_path = BK_NO_LIMIT;
    set_channel(world, 1, &retention, false);
    (void)stage(world, 1, specs, BB_COUNT(specs));
    cr_assert_eq(commit(world), 0);
    settle(world);
    keeps(world, 12);
    retention.max_per_path = 1;
    set_channel(world, 1, &retention, false);
    settle(world);
    keeps(world, 2);
    cr_assert_eq(hit(world, 0)->sequence, 22);
    cr_assert_eq(hit(world, 1)->sequence, 24);
    is_lost(world, 0, BK_LOSS_TRIMMED, 1, 23, 22);
}
ON_STORES(by_path_from_now_on)

/* As a value the newest event of a path stays when it is not kept any more. */
static void latest_outlives(struct world *world, uint64_t max_per_path)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    struct bb_query query = BB_QUERY_INIT;
    retention.max_events = 20;
    retention.max_per_path = max_per_path;
    set_channel(world, 1, &retention, false);
    put(world, 1, "c1/rare", 1);
    put(world, 1, "c1/rare", 2);
    fill(world, 1, 98);
    world_pump(world, has_80);
    query.kind = BB_QUERY_LATEST;
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(ask(world, &query, NULL), 0);
        cr_assert_eq(n_hits(world), 2);
        cr_assert_str_eq(hit(world, 0)->path, "c1/a");
        cr_assert_eq(hit(world, 0)->sequence, 100);
        cr_assert_str_eq(hit(world, 1)->path, "c1/rare");
        cr_assert_eq(hit(world, 1)->sequence, 2);
        cr_assert_eq(hit(world, 1)->session, 2);
        cr_assert_eq(hit(world, 1)->value, 2);
        struct bk_locate path = {.kind = BK_LOCATE_PATH, .path = bb_slice_str("c1/rare")};
        cr_assert_eq(locate(world, &path, 1), 2);
        struct bk_locate last = {.kind = BK_LOCATE_LAST, .filter = filter_of("c1/rare")};
        cr_assert_eq(locate(world, &last, 1), 0, "it is not kept");
        bk_filter_unref(last.filter);
        struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 101};
        run(world, &trim.request);
        cr_assert_eq(trim.request.error, 0);
    }
    put(world, 1, "c1/rare", 3);
    settle(world);
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(hit(world, 1)->sequence, 101);
}

static void latest_outlives_retention(struct world *world)
{
    latest_outlives(world, BK_NO_LIMIT);
}
ON_STORES(latest_outlives_retention)

static void latest_outlives_retention_where_paths_are_counted(struct world *world)
{
    latest_outlives(world, 30);
}
ON_STORES(latest_outlives_retention_where_paths_are_counted)

static void limits_of_a_channel_change(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 99);
    has_newest(world, 99, 99);
    retention.max_events = 20;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 1);
    world_pump(world, has_80);
    has_newest(world, 20, 100);
}
ON_STORES(limits_of_a_channel_change)

static void trim(struct world *world)
{
    fill(world, 1, 50);
    fill(world, 2, 50);
    for (uint64_t before = 1; before <= 51; before += 10) {
        struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = before};
        run(world, &trim.request);
        cr_assert_eq(trim.request.error, 0);
        cr_assert_eq(trim.first, before);
        struct bk_read_range range = {
            .channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
        read_range(world, &range, NULL, SIZE_MAX);
        cr_assert_eq(range.first, before);
        cr_assert_eq(n_hits(world), 51 - before);
        cr_assert(before == 1 || world->trimmed[1] == before, "trimmed() was told");
        read_all(world, 2);
        cr_assert_eq(n_hits(world), 50);
    }
    put(world, 1, "c1/a", 51); /* numbers go on */
    settle(world);
    read_all(world, 1);
    cr_assert_eq(hit(world, 0)->sequence, 51);
}
ON_STORES(trim)

/* From inside a block. */
static void trim_inside_a_block(struct world *world)
{
    const struct spec specs[10] = {{"c1/a", 1, 0, 0, 0}, {"c1/a", 2, 0, 0, 0}, {"c1/a", 3, 0, 0, 0},
                                   {"c1/a", 4, 0, 0, 0}, {"c1/a", 5, 0, 0, 0}, {"c1/a", 6, 0, 0, 0},
                                   {"c1/a", 7, 0, 0, 0}, {"c1/a", 8, 0, 0, 0}, {"c1/a", 9, 0, 0, 0},
                                   {"c1/a", 10, 0, 0, 0}};
    (void)stage(world, 1, specs, 10);
    cr_assert_eq(commit(world), 0);
    settle(world);
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 6};
    run(world, &trim.request);
    cr_assert_eq(trim.request.error, 0);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 11 - trim.first);
    cr_assert_eq(hit(world, 0)->sequence, trim.first);
    cr_assert_eq(trim.first, 6);
}
ON_STORES(trim_inside_a_block)

static void trim_right_after_registering(struct world *world)
{
    for (int64_t i = 1; i <= 20; i++) {
        put(world, 1, "c1/a", i);
    }
    settle(world);
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 11};
    run(world, &trim.request);
    cr_assert_eq(trim.request.error, 0);
    has_newest(world, 10, 20);
}
ON_STORES(trim_right_after_registering)

/* Losses of two kinds by turns are more than one read tells: it ends before. */
static void losses_by_turns(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = 1;
    set_channel(world, 1, &retention, false);
    for (int64_t i = 1; i <= 400; i++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "c1/%lld", (long long)i);
        const struct spec spec = {i % 2 == 0 ? path : "c1/a", i, 0, i % 2 == 0 ? 10000 : 0, 0};
        (void)stage(world, 1, &spec, 1);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    uint64_t reads = 0;
    uint64_t lost = 0;
    keeps(world, 201);
    for (uint64_t after = 0; after < 400; reads++) {
        struct bk_read_range range = {
            .channel = 1, .after = after, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
        world->session += 20000; /* that is when it is read */
        read_range(world, &range, NULL, SIZE_MAX);
        for (size_t i = 0; i < n_losses(world); i++) {
            cr_assert_eq(loss(world, i)->count, loss(world, i)->to == 400 ? 2 : 1); /* 399 is there */
            lost += loss(world, i)->count;
            cr_assert_eq(loss(world, i)->reason,
                         loss(world, i)->from % 2 == 0 ? BK_LOSS_EXPIRED : BK_LOSS_TRIMMED);
        }
        cr_assert_gt(range.reached, after);
        after = range.reached;
    }
    cr_assert_geq(reads, 400 / BK_LOSSES_MAX);
    cr_assert_eq(lost, 399);
}
ON_STORES(losses_by_turns)

/* Of a range that ends where nothing is kept, and of one that ends by time. */
static void losses_end_with_the_range(struct world *world)
{
    fill(world, 1, 50);
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 31};
    run(world, &trim.request);
    struct bk_read_range range = {.channel = 1, .after = 5, .stop = 20, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(range.reached, 20);
    cr_assert(range.at_end);
    is_lost(world, 0, BK_LOSS_TRIMMED, 6, 20, 15);
    range = (struct bk_read_range){1, .after = 25, .stop = BK_NO_LIMIT, .stop_time = TIME0 + 1000 * 35};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(range.reached, 35);
    cr_assert(range.at_end);
    is_lost(world, 0, BK_LOSS_TRIMMED, 26, 30, 5);
    range = (struct bk_read_range){1, .after = 25, .stop = BK_NO_LIMIT, .stop_time = TIME0};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(range.reached, 30);
    cr_assert(range.at_end);
    is_lost(world, 0, BK_LOSS_TRIMMED, 26, 30, 5);
    range = (struct bk_read_range){7, .after = 2, .stop = 9, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(range.reached, 9, "nobody knows the channel");
    is_lost(world, 0, BK_LOSS_TRIMMED, 3, 9, 7);
}
ON_STORES(losses_end_with_the_range)

static void made_again_under_another_id(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    struct bk_retention retention = BK_RETENTION_INIT;
    fill(world, 1, 50);
    set_channel(world, 1, NULL, true);
    name_channel(world, 4, "c1", &retention);
    settle(world);
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 0);
    query.kind = BB_QUERY_LATEST;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 0);
    put(world, 4, "c1/b", 1);
    settle(world);
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 1);
    read_all(world, 4);
    cr_assert_eq(n_hits(world), 1);
    cr_assert_eq(hit(world, 0)->sequence, 1);
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 10};
    run(world, &trim.request);
    cr_assert_eq(trim.request.error, BB_ENOTFOUND);
    const struct spec spec = {.path = "c1/a", .value = 1};
    const struct bk_log_block *late = stage(world, 1, &spec, 1);
    cr_assert_eq(commit(world), 0);
    cr_assert_eq(late->error, BB_ENOTFOUND);
    settle(world);
}
ON_STORES(made_again_under_another_id)

/* Removed in the append that has its events, and by which its paths were to be counted. */
static void removed_with_events_on_their_way(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = 2;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 10);
    const struct spec spec = {.path = "c1/b", .value = 1};
    const struct bk_log_block *late = stage(world, 1, &spec, 1);
    struct bk_log_channel entry = {
        .id = 1, .name = bb_slice_str("c1"), .removed = true, .retention = retention};
    struct bk_append append = {
        .channels = &entry, .n_channels = 1, .blocks = world->blocks, .n_blocks = world->n_blocks};
    world->n_blocks = 0;
    cr_assert_eq(commit_append(world, &append), 0);
    settle(world);
    cr_assert_eq(late->error, BB_ENOTFOUND);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 0);
}
ON_STORES(removed_with_events_on_their_way)

static void removed_channel(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    set_channel(world, 1, NULL, false);
    set_channel(world, 2, NULL, false);
    fill(world, 1, 50);
    fill(world, 2, 50);
    set_channel(world, 1, NULL, true);
    settle(world);
    world->sequences[1] = 0;
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 0);
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 50);
    query.kind = BB_QUERY_LATEST;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 1);
    for (int kind = BK_LOCATE_TIME; kind <= BK_LOCATE_PATH; kind++) {
        struct bk_locate at = {.kind = (enum bk_locate_kind)kind, .path = bb_slice_str("c1/a")};
        at.id.server = SERVER;
        cr_assert_eq(locate(world, &at, 1), 0);
    }
    set_channel(world, 4, NULL, false); /* another one takes its place */
    put(world, 4, "c1/a", 1);
    settle(world);
    read_all(world, 4);
    cr_assert_eq(n_hits(world), 1);
}
ON_STORES(removed_channel)

/* SPDX-License-Identifier: Apache-2.0 */
/* What goes: retention, trim, removal of a channel. */
#include "proto/base/error.h"

#include "tests/conform/world.h"

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

/* The events are of 2023. */
static void by_age(struct world *world)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_age_us = 3600000000;
    retention.min_events = 10;
    set_channel(world, 1, &retention, false);
    fill(world, 1, 100);
    world_pump(world, has_90);
    has_newest(world, 10, 100);
}
ON(conform_keep, lmdb, by_age)

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
}
ON_STORES(by_path)

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

/* SPDX-License-Identifier: Apache-2.0 */
/* BK_REQUEST_READ and BK_REQUEST_LOCATE. */
#include "proto/base/error.h"

#include "tests/conform/world.h"

#include <stdio.h>

#define ON_STORES(test)            \
    ON(conform_read, memory, test) \
    ON(conform_read, lmdb, test)

/* Ten blocks c1/a, c1/b with the values 1 to 20 on channel 1, and as many on channel 2, alternating. */
static void fill(struct world *world)
{
    for (int64_t i = 0; i < 10; i++) {
        const struct spec one[] = {{"c1/a", 2 * i + 1, 0, 0, 0}, {"c1/b", 2 * i + 2, 0, 0, 0}};
        const struct spec two[] = {{"c2/a", 2 * i + 1, 0, 0, 0}, {"c2/b", 2 * i + 2, 0, 0, 0}};
        (void)stage(world, 1, one, 2);
        (void)stage(world, 2, two, 2);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
}

static void are_values(const struct world *world, int64_t from, int64_t to)
{
    cr_assert_eq(n_hits(world), (size_t)(to - from + 1), "%zu", n_hits(world));
    for (int64_t value = from; value <= to; value++) {
        const struct hit *found = hit(world, (size_t)(value - from));
        cr_assert_eq(found->value, value);
        cr_assert_eq(found->sequence, (uint64_t)value);
    }
}

static void ranges(struct world *world)
{
    fill(world);
    for (uint64_t after = 0; after <= 20; after++) {
        for (uint64_t stop = after + 1; stop <= 21; stop++) {
            struct bk_read_range range = {1, after, stop, BK_NO_LIMIT, .first = 99};
            uint64_t last = BB_MIN(stop, 20);
            read_range(world, &range, NULL, SIZE_MAX);
            are_values(world, (int64_t)after + 1, (int64_t)last);
            cr_assert_eq(range.reached, last);
            cr_assert_eq(range.events, last - after);
            cr_assert_eq(range.first, 1);
            cr_assert_eq(n_losses(world), 0);
            cr_assert(range.at_end);
        }
    }
}
ON_STORES(ranges)

static void filtered(struct world *world)
{
    struct bk_read_range range = {.channel = 1, .after = 3, .stop = 16, .stop_time = BK_NO_LIMIT};
    fill(world);
    read_range(world, &range, "c1/b", SIZE_MAX);
    cr_assert_eq(n_hits(world), 7);
    for (size_t i = 0; i < 7; i++) {
        cr_assert_eq(hit(world, i)->sequence, 4 + 2 * i);
        cr_assert_str_eq(hit(world, i)->path, "c1/b");
    }
    cr_assert_eq(range.events, 7);
    cr_assert_eq(range.reached, 16, "what does not match was looked at all the same");
    range = (struct bk_read_range){.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, "c9/*", SIZE_MAX);
    cr_assert_eq(n_hits(world), 0);
    cr_assert_eq(range.reached, 20);
    cr_assert(range.at_end);
    range = (struct bk_read_range){.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, "c1/*", SIZE_MAX);
    are_values(world, 1, 20);
}
ON_STORES(filtered)

static void stop_time(struct world *world)
{
    fill(world); /* the block of the values 2 i + 1, 2 i + 2 has the session 2 i + 1 */
    for (uint64_t i = 0; i < 10; i++) {
        struct bk_read_range range = {
            .channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = TIME0 + 1000 * (2 * i + 1)};
        read_range(world, &range, NULL, SIZE_MAX);
        are_values(world, 1, (int64_t)(2 * i + 2));
        cr_assert_eq(range.reached, 2 * i + 2);
        cr_assert(range.at_end);
    }
    struct bk_read_range before = {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = TIME0};
    read_range(world, &before, NULL, SIZE_MAX);
    cr_assert_eq(n_hits(world), 0);
    cr_assert_eq(before.reached, 0);
    cr_assert(before.at_end);
}
ON_STORES(stop_time)

/* One read of both channels: blocks in the order of their sessions. */
static void channels_by_session(struct world *world)
{
    fill(world);
    struct bk_read_range both[] = {
        {.channel = 2, .after = 4, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT},
        {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT},
    };
    struct bk_read read = {
        .request = {.kind = BK_REQUEST_READ}, .ranges = both, .n_ranges = 2, .max_bytes = SIZE_MAX};
    run(world, &read.request);
    cr_assert_eq(read.request.error, 0);
    take_read(world, &read);
    cr_assert_eq(n_hits(world), 36);
    uint64_t session = 0;
    for (size_t i = 0; i < 36; i++) {
        cr_assert_geq(hit(world, i)->session, session);
        session = hit(world, i)->session;
    }
    cr_assert_eq(both[0].events, 16);
    cr_assert_eq(both[1].events, 20);
    cr_assert(both[0].at_end && both[1].at_end);
}
ON_STORES(channels_by_session)

static size_t count_blocks(const struct bk_bytes *body)
{
    struct bb_slice rest = bb_slice(body->data, body->len);
    size_t n = 0;
    struct bb_block head;
    while (rest.len > 0 && bb_block_read_head(&rest, &head) == 0) {
        rest = bb_slice(rest.data + head.length, rest.len - (size_t)head.length);
        n++;
    }
    return n;
}

/* Read in pieces with the hint: the same as all at once. Returns how many pieces were larger than allowed. */
static size_t read_in_pieces(struct world *world, struct bk_read *read, uint64_t n)
{
    size_t too_large = 0;
    uint64_t sequence = 0;
    while (sequence < n) {
        run(world, &read->request);
        cr_assert_eq(read->request.error, 0);
        cr_assert_not_null(read->body, "no progress");
        too_large += read->body->len > read->max_bytes && count_blocks(read->body) > 1 ? 1 : 0;
        take_read(world, read);
        for (size_t i = 0; i < n_hits(world); i++) {
            cr_assert_eq(hit(world, i)->sequence, ++sequence);
        }
        cr_assert_eq(read->ranges[0].reached, sequence);
        cr_assert_eq(read->ranges[0].events, n_hits(world));
        read->ranges[0].after = sequence;
    }
    return too_large;
}

static size_t in_pieces(struct world *world)
{
    struct bk_read_range range = {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    struct bk_read read = {
        .request = {.kind = BK_REQUEST_READ}, .ranges = &range, .n_ranges = 1, .max_bytes = 2000};
    for (int64_t i = 1; i <= 200; i++) {
        const struct spec spec = {"c1/a", i, 0, 0, 300 + (size_t)(i % 7) * 400};
        (void)stage(world, 1, &spec, 1);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    return read_in_pieces(world, &read, 200);
}

static void pieces_with_hint(struct world *world)
{
    (void)in_pieces(world);
}
ON_STORES(pieces_with_hint)

/* "exceeded only by a first block that is larger" */
static void max_bytes(struct world *world)
{
    cr_assert_eq(in_pieces(world), 0);
}
ON_STORES(max_bytes)

static void expired_are_counted(struct world *world)
{
    for (int64_t i = 1; i <= 10; i++) {
        const struct spec spec = {"c1/a", i, 0, i % 2 == 0 ? 1 : 1000000, 0};
        (void)stage(world, 1, &spec, 1);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    struct bk_read_range range = {.channel = 1, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    struct bk_read read = {.request = {.kind = BK_REQUEST_READ},
                           .ranges = &range,
                           .n_ranges = 1,
                           .max_bytes = SIZE_MAX,
                           .now = TIME0 + 100000};
    run(world, &read.request);
    take_read(world, &read);
    cr_assert_eq(n_hits(world), 5);
    cr_assert_eq(range.events, 5);
    cr_assert_eq(n_losses(world), 1);
    cr_assert_eq(loss(world, 0)->reason, BK_LOSS_EXPIRED);
    cr_assert_eq(loss(world, 0)->from, 2);
    cr_assert_eq(loss(world, 0)->to, 10);
    cr_assert_eq(loss(world, 0)->count, 5);
    cr_assert_eq(range.reached, 10);
}
ON_STORES(expired_are_counted)

static void unknown_channel(struct world *world)
{
    struct bk_read_range range = {.channel = 5, .after = 0, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    fill(world);
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(n_hits(world), 0);
    cr_assert(range.at_end);
    struct bk_locate last = {.kind = BK_LOCATE_LAST};
    cr_assert_eq(locate(world, &last, 5), 0);
}
ON_STORES(unknown_channel)

static void behind_the_end(struct world *world)
{
    struct bk_read_range range = {.channel = 1, .after = 20, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    fill(world);
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(n_hits(world), 0);
    cr_assert_eq(range.reached, 20);
    cr_assert(range.at_end);
}
ON_STORES(behind_the_end)

static void locate_time(struct world *world)
{
    fill(world);
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t time = TIME0 + 1000 * (2 * i + 1);
        struct bk_locate at = {.kind = BK_LOCATE_TIME, .time = time};
        cr_assert_eq(locate(world, &at, 1), 2 * i + 1);
        at.time = time - 1;
        cr_assert_eq(locate(world, &at, 1), 2 * i + 1);
        at.time = time + 1;
        cr_assert_eq(locate(world, &at, 1), i < 9 ? 2 * i + 3 : 0);
    }
    struct bk_locate first = {.kind = BK_LOCATE_TIME};
    cr_assert_eq(locate(world, &first, 1), 1);
}
ON_STORES(locate_time)

static void locate_id(struct world *world)
{
    fill(world);
    for (uint64_t i = 0; i < 10; i++) {
        struct bk_locate after = {.kind = BK_LOCATE_ID, .id = {SERVER, 2 * i + 1, 0}};
        cr_assert_eq(locate(world, &after, 1), 2 * i + 1);
        after.id.instance = 1;
        cr_assert_eq(locate(world, &after, 1), 2 * i + 2);
        after.id.instance = 2;
        cr_assert_eq(locate(world, &after, 1), i < 9 ? 2 * i + 3 : 0);
    }
    struct bk_locate none = {.kind = BK_LOCATE_ID, .id = {SERVER + 9, 0, 0}};
    cr_assert_eq(locate(world, &none, 1), 0, "an id of a server that has nothing here");
}
ON_STORES(locate_id)

static void locate_last_and_path(struct world *world)
{
    fill(world);
    struct bk_locate last = {.kind = BK_LOCATE_LAST};
    cr_assert_eq(locate(world, &last, 1), 20);
    last.filter = filter_of("c1/a");
    cr_assert_eq(locate(world, &last, 1), 19);
    bk_filter_unref(last.filter);
    last.filter = filter_of("c1/zzz");
    cr_assert_eq(locate(world, &last, 1), 0);
    bk_filter_unref(last.filter);
    struct bk_locate path = {.kind = BK_LOCATE_PATH, .path = bb_slice_str("c1/a")};
    cr_assert_eq(locate(world, &path, 1), 19);
    path.path = bb_slice_str("c1");
    cr_assert_eq(locate(world, &path, 1), 0);
}
ON_STORES(locate_last_and_path)

/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of each kind; that they agree with a naive model on anything is for the property test. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "tests/conform/world.h"

#include <stdio.h>

#define ON_STORES(test)             \
    ON(conform_query, memory, test) \
    ON(conform_query, lmdb, test)

/* Sessions 1 to 30 of three events each on the channels 1 to 3 in turn; the source times run backwards, over
 * many hours. Values count from 1 to 90. */
static void fill(struct world *world)
{
    for (int64_t i = 0; i < 30; i++) {
        char a[16];
        char b[16];
        uint32_t channel = (uint32_t)(i % 3 + 1);
        (void)snprintf(a, sizeof(a), "c%u/a", channel);
        (void)snprintf(b, sizeof(b), "c%u/b", channel);
        const struct spec specs[] = {
            {a, 3 * i + 1, 1000000000000 - INT64_C(1800000000) * i, 0, 0},
            {b, 3 * i + 2, 0, 0, 0},
            {a, 3 * i + 3, 1000000000000 - INT64_C(1800000000) * i - 900000000, 0, 0},
        };
        (void)stage(world, channel, specs, 3);
        cr_assert_eq(commit(world), 0);
        if (i % 5 == 0) {
            settle(world);
        }
    }
    settle(world);
}

static void are_values(const struct world *world, int64_t from, int64_t to)
{
    int64_t step = from <= to ? 1 : -1;
    cr_assert_eq(n_hits(world), (size_t)((to - from) * step + 1), "%zu", n_hits(world));
    for (size_t i = 0; i < n_hits(world); i++) {
        cr_assert_eq(hit(world, i)->value, from + step * (int64_t)i);
    }
}

/* HAT-W12: all of it, whatever channel, path or time it is filed under. */
static void everything_by_time_w12(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    bool more = true;
    fill(world);
    cr_assert_eq(ask(world, &query, &more), 0);
    are_values(world, 90, 1); /* HAT-F09: descending unless asked otherwise */
    cr_assert_not(more);
    query.order = BB_ORDER_ASCENDING;
    cr_assert_eq(ask(world, &query, &more), 0);
    are_values(world, 1, 90);
}
ON_STORES(everything_by_time_w12)

static void everything_by_source_time_w12(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    query.order_by = BB_ORDER_BY_SOURCE_TIME;
    fill(world);
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 60, "those without a source time are not found");
    for (size_t i = 1; i < 60; i++) { /* they run backwards */
        cr_assert_gt(hit(world, i)->value, hit(world, i - 1)->value);
    }
    query.order = BB_ORDER_ASCENDING;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 60);
    cr_assert_eq(hit(world, 0)->value, 90);
    query.has_source_t_from = query.has_source_t_to = true;
    query.source_t_from = 1000000000000 - INT64_C(1800000000) * 4;
    query.source_t_to = 1000000000000 - INT64_C(1800000000) * 2;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 5, "bounds are inclusive");
}
ON_STORES(everything_by_source_time_w12)

static void inclusive_bounds_f71(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    query.order = BB_ORDER_ASCENDING;
    query.has_t_from = query.has_t_to = true;
    fill(world);
    for (int64_t from = 1; from <= 30; from += 7) {
        for (int64_t to = from; to <= 30; to += 5) {
            query.t_from = (int64_t)TIME0 + 1000 * from;
            query.t_to = (int64_t)TIME0 + 1000 * to;
            query.order = to % 2 == 0 ? BB_ORDER_ASCENDING : BB_ORDER_DESCENDING;
            cr_assert_eq(ask(world, &query, NULL), 0);
            bool up = query.order == BB_ORDER_ASCENDING;
            are_values(world, up ? 3 * from - 2 : 3 * to, up ? 3 * to : 3 * from - 2);
        }
    }
    query.t_to = query.t_from - 1;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 0);
}
ON_STORES(inclusive_bounds_f71)

/* Page through with after and more_follows; everything once, in order. Returns the pages. */
static size_t page(struct world *world, struct bb_query *query, int64_t first, int64_t last)
{
    int64_t step = first <= last ? 1 : -1;
    int64_t value = first;
    size_t pages = 0;
    for (bool more = true; more;) {
        cr_assert_eq(ask(world, query, &more), 0);
        cr_assert(n_hits(world) > 0 || !more, "more, but no progress");
        for (size_t i = 0; i < n_hits(world); i++, value += step) {
            cr_assert_eq(hit(world, i)->value, value);
        }
        cr_assert_lt(++pages, 100);
        if (n_hits(world) > 0) {
            const struct hit *end = hit(world, n_hits(world) - 1);
            query->has_after = true;
            query->after = (struct bb_query_id){SERVER, end->session, end->instance};
        }
    }
    cr_assert_eq(value, last + step, "%lld", (long long)value);
    return pages;
}

static void paging_f71_f73(struct world *world)
{
    fill(world);
    for (uint64_t max = 1; max < 100; max += 11) {
        struct bb_query query = BB_QUERY_INIT;
        query.max_results = max;
        size_t pages = page(world, &query, 90, 1);
        cr_assert_eq(pages, (90 + max - 1) / max);
        query.has_after = false;
        query.order = BB_ORDER_ASCENDING;
        (void)page(world, &query, 1, 90);
    }
}
ON_STORES(paging_f71_f73)

static void by_server_ascending_f25_f72(struct world *world)
{
    fill(world);
    for (uint64_t max = 3; max < 100; max += 11) {
        struct bb_query query = BB_QUERY_INIT;
        query.kind = BB_QUERY_SERVER;
        query.has_server = true;
        query.server = SERVER;
        query.max_results = max;
        (void)page(world, &query, 1, 90);
    }
    struct bb_query other = BB_QUERY_INIT;
    bool more = true;
    other.kind = BB_QUERY_SERVER;
    other.has_server = true;
    other.server = SERVER + 1;
    cr_assert_eq(ask(world, &other, &more), 0);
    cr_assert_eq(n_hits(world), 0);
    cr_assert_not(more);
}
ON_STORES(by_server_ascending_f25_f72)

/* query.h: whole sessions as far as they fit. A session has three events. */
static void whole_sessions_f25(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    bool more = false;
    query.kind = BB_QUERY_SERVER;
    query.has_server = true;
    query.server = SERVER;
    query.max_results = 7;
    fill(world);
    cr_assert_eq(ask(world, &query, &more), 0);
    cr_assert(more);
    are_values(world, 1, 6);
}
ON_STORES(whole_sessions_f25)

/* HAT-W9: ids that are not there have a place in the order all the same, and a page after one ends. */
static void after_an_id_that_is_not_there_w9(struct world *world)
{
    const struct bb_query_id ids[] = {{SERVER, 0, 0},
                                      {SERVER, 10, 99},
                                      {SERVER, 31, 1},
                                      {SERVER, UINT64_MAX, UINT64_MAX},
                                      {SERVER + 1, 5, 1}};
    const size_t by_server[] = {90, 60, 0, 0, 0};
    const size_t by_time[] = {0, 30, 90, 90, 0}; /* the newest first */
    fill(world);
    for (size_t i = 0; i < BB_COUNT(ids); i++) {
        struct bb_query query = BB_QUERY_INIT;
        query.has_after = true;
        query.after = ids[i];
        cr_assert_eq(ask(world, &query, NULL), 0);
        cr_assert_eq(n_hits(world), by_time[i], "%zu: %zu", i, n_hits(world));
        query.order_by = BB_ORDER_BY_SOURCE_TIME;
        query.has_after_source_t = true;
        query.after_source_t = 1000000000000 - INT64_C(1800000000) * 3 - 1; /* nobody has it */
        cr_assert_eq(ask(world, &query, NULL), 0);
        cr_assert_eq(n_hits(world), 60 - 7);
        query = BB_QUERY_INIT;
        query.has_after = true;
        query.after = ids[i];
        query.kind = BB_QUERY_SERVER;
        query.has_server = true;
        query.server = SERVER;
        int error = ask(world, &query, NULL);
        if (ids[i].server == SERVER) { /* of another server it may be an error */
            cr_assert_eq(error, 0);
            cr_assert_eq(n_hits(world), by_server[i], "%zu: %zu", i, n_hits(world));
        }
    }
}
ON_STORES(after_an_id_that_is_not_there_w9)

static void latest_f70(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    bool more = true;
    query.kind = BB_QUERY_LATEST;
    fill(world);
    cr_assert_eq(ask(world, &query, &more), 0);
    cr_assert_not(more);
    cr_assert_eq(n_hits(world), 6);
    for (size_t i = 0; i < 6; i++) { /* c1/a, c1/b, c2/a, ...: the sessions 28, 29 and 30 */
        int64_t session = 28 + (int64_t)i / 2;
        cr_assert_eq(hit(world, i)->value, 3 * session - (int64_t)(i % 2));
    }
    struct bb_buf patterns = BB_BUF_INIT;
    bb_mp_write_array(&patterns, 1);
    bb_mp_write_str(&patterns, bb_slice_str("?/b"));
    query.patterns = bb_buf_slice(&patterns);
    cr_assert_eq(ask(world, &query, &more), 0);
    cr_assert_eq(n_hits(world), 3);
    bb_buf_fini(&patterns);
}
ON_STORES(latest_f70)

/* Whatever the order in which channels and paths came to be. */
static void latest_in_pages_by_path(struct world *world)
{
    static const char *const paths[] = {"c1", "c1/a", "c1/a-b", "c1/a/x", "c2/", "c2/b", "c3/z/\xc3\xa9"};
    for (size_t i = BB_COUNT(paths); i > 0; i--) {
        const struct spec spec = {paths[i - 1], (int64_t)i, 0, 0, 0};
        (void)stage(world, (uint32_t)(paths[i - 1][1] - '0'), &spec, 1);
        cr_assert_eq(commit(world), 0);
    }
    settle(world);
    for (uint64_t max = 1; max < 9; max++) {
        struct bb_query query = BB_QUERY_INIT;
        struct bb_buf behind = BB_BUF_INIT;
        int64_t value = 0;
        query.kind = BB_QUERY_LATEST;
        query.max_results = max;
        for (bool more = true; more;) {
            cr_assert_eq(ask(world, &query, &more), 0);
            cr_assert(n_hits(world) > 0 || !more);
            for (size_t i = 0; i < n_hits(world); i++) {
                cr_assert_eq(hit(world, i)->value, ++value);
            }
            bb_buf_reset(&behind);
            bb_buf_append(&behind, paths[value - 1], strlen(paths[value - 1]));
            query.after_path = bb_buf_slice(&behind);
        }
        cr_assert_eq(value, (int64_t)BB_COUNT(paths));
        bb_buf_fini(&behind);
    }
}
ON_STORES(latest_in_pages_by_path)

static void latest_is_replaced_by_newer_only_t14(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    query.kind = BB_QUERY_LATEST;
    for (int64_t i = 1; i <= 20; i++) {
        const struct spec spec = {"c1/a", i, 1000000 * (100 - i), 0,
                                  0}; /* an older source time is no reason */
        (void)stage(world, 1, &spec, 1);
        cr_assert_eq(commit(world), 0);
        settle(world);
        cr_assert_eq(ask(world, &query, NULL), 0);
        are_values(world, i, i);
    }
}
ON_STORES(latest_is_replaced_by_newer_only_t14)

static void conditions_f74(struct world *world)
{
    struct bb_buf one = BB_BUF_INIT;
    struct bb_query query = BB_QUERY_INIT;
    fill(world);
    query.has_session = true;
    query.session = 5;
    cr_assert_eq(ask(world, &query, NULL), 0);
    are_values(world, 15, 13);
    query = BB_QUERY_INIT;
    bb_mp_write_int(&one, 42);
    query.payload = bb_buf_slice(&one);
    cr_assert_eq(ask(world, &query, NULL), 0);
    are_values(world, 42, 42);
    query = BB_QUERY_INIT;
    query.unique_type = true;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 6);
    cr_assert_eq(hit(world, 0)->value, 90);
    cr_assert_eq(hit(world, 5)->value, 83);
    query = BB_QUERY_INIT;
    bb_buf_reset(&one);
    bb_mp_write_array(&one, 2);
    for (uint64_t session = 3; session <= 33; session += 30) { /* 33 is not there */
        bb_mp_write_array(&one, 3);
        bb_mp_write_uint(&one, SERVER);
        bb_mp_write_uint(&one, session);
        bb_mp_write_uint(&one, 2);
    }
    query.ids = bb_buf_slice(&one);
    cr_assert_eq(ask(world, &query, NULL), 0);
    are_values(world, 8, 8);
    bb_buf_fini(&one);
}
ON_STORES(conditions_f74)

/* HAT-W1: every call answers, on a backend that has nothing as on one that has. */
static void every_call_w1(struct world *world)
{
    for (int round = 0; round < 2; round++) {
        struct bk_event_id id;
        uint64_t time = 0;
        struct bb_buf status = BB_BUF_INIT;
        for (int kind = BB_QUERY_TIMESERIES; kind <= BB_QUERY_SERVER; kind++) {
            struct bb_query query = BB_QUERY_INIT;
            query.kind = (enum bb_query_kind)kind;
            query.has_server = kind == BB_QUERY_SERVER;
            query.server = SERVER;
            cr_assert_eq(ask(world, &query, NULL), 0);
            cr_assert_eq(n_hits(world) > 0, round == 1);
        }
        for (int kind = BK_LOCATE_TIME; kind <= BK_LOCATE_PATH; kind++) {
            struct bk_locate at = {.kind = (enum bk_locate_kind)kind, .path = bb_slice_str("c1/a")};
            at.id.server = SERVER;
            cr_assert_eq(locate(world, &at, 1) != 0, round == 1);
        }
        read_all(world, 1);
        cr_assert_eq(n_hits(world) > 0, round == 1);
        world->backend->ops->get_last_event_id(world->backend, SERVER, &id, &time);
        cr_assert_eq(id.session > 0 && time > 0, round == 1);
        world->backend->ops->status(world->backend, &status);
        struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&status));
        cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_MAP);
        bb_buf_fini(&status);
        if (round == 0) {
            fill(world);
        }
    }
}
ON_STORES(every_call_w1)

/* Only channels that were there when it was asked. */
static void channels_that_came_later(struct world *world)
{
    static const char *const patterns[] = {NULL, "\x91\xa1*",
                                           "\x93\xa4"
                                           "c1/a\xa4"
                                           "c2/a\xa4"
                                           "c3/a"};
    fill(world);
    for (size_t i = 0; i < 2 * BB_COUNT(patterns); i++) {
        struct bb_query query = BB_QUERY_INIT;
        query.kind = i % 2 == 0 ? BB_QUERY_LATEST : BB_QUERY_TIMESERIES;
        query.patterns = patterns[i / 2] != NULL ? bb_slice_str(patterns[i / 2]) : query.patterns;
        for (uint32_t end = 0; end <= 4; end++) {
            struct bk_query request = {
                .request = {.kind = BK_REQUEST_QUERY},
                .query = &query,
                .now = TIME0 + 1000 * world->session,
                .max_bytes = SIZE_MAX,
                .end = end,
            };
            run(world, &request.request);
            cr_assert_eq(request.request.error, 0);
            take_hits(world, request.body);
            cr_assert_eq(n_hits(world) > 0, end != 1);
            for (size_t j = 0; j < n_hits(world); j++) {
                uint32_t channel = (uint32_t)(hit(world, j)->path[1] - '0');
                cr_assert(end == 0 || channel < end, "%s", hit(world, j)->path);
            }
        }
    }
}
ON_STORES(channels_that_came_later)

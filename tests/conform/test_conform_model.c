/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries of any kind against a naive model: all events in one list, each condition tried on each of them. Seeds are fixed; what a
 * failure prints says which query of which seed it was.
 */
#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "tests/conform/world.h"
#include "tests/sim/rng.h"

#include <stdio.h>
#include <stdlib.h>

#define ROUNDS      6
#define PER_PATH    20 /* on channel 2 */
#define QUERIES     60
#define EVENTS_MAX  2000
#define SOURCE_TIME INT64_C(1000000000000)

static const char *const paths[] = {"", "/a", "/a/x", "/a/y", "/b", "/b/x/1", "/b/x/2", "/c-d"};

struct event {
    uint32_t channel;
    char path[32];
    uint64_t session;
    uint64_t instance;
    uint64_t sequence;
    int64_t time;
    int64_t source_time; /* 0: none */
    uint64_t ttl_ms;     /* 0: none */
    int64_t value;
    bool is_kept;   /* in the log */
    bool is_latest; /* of its path */
};

struct model {
    struct sim_rng rng;
    struct event events[EVENTS_MAX]; /* in the order of their ids */
    size_t n;
    /* The query, and what it points to. */
    struct bb_query query;
    struct bb_buf patterns;
    struct bb_buf ids;
    struct bb_buf payload;
    char where[64];
    int64_t above; /* of `where` */
    struct event found[EVENTS_MAX];
    size_t n_found;
};

/* --- what is there -------------------------------------------------------------------------------- */

static void publish(struct world *world, struct model *model)
{
    size_t n_blocks = sim_between(&model->rng, 1, 4);
    for (size_t b = 0; b < n_blocks; b++) {
        uint32_t channel = (uint32_t)sim_between(&model->rng, 1, DECLARED);
        struct spec specs[12] = {0};
        size_t n = sim_between(&model->rng, 1, BB_COUNT(specs));
        char texts[BB_COUNT(specs)][32];
        struct event *events = &model->events[model->n];
        for (size_t i = 0; i < n; i++) {
            const char *path = paths[sim_below(&model->rng, BB_COUNT(paths))];
            (void)snprintf(texts[i], sizeof(texts[i]), "c%u%s", channel, path);
            specs[i] = (struct spec){
                .path = texts[i],
                .value = (int64_t)sim_below(&model->rng, 50),
                .source_time =
                    sim_chance(&model->rng, 500) ? SOURCE_TIME + (int64_t)sim_below(&model->rng, 4000000) : 0,
                .ttl_ms = sim_chance(&model->rng, 100) ? sim_between(&model->rng, 1, 50) : 0,
                .padding = sim_chance(&model->rng, 30) ? 9000 : 0,
            };
        }
        const struct bk_log_block *block = stage(world, channel, specs, n);
        for (size_t i = 0; i < n; i++) {
            events[i] = (struct event){
                .channel = channel,
                .session = block->head.session,
                .instance = i + 1,
                .sequence = block->head.sequence + i,
                .time = (int64_t)block->head.time,
                .source_time = specs[i].source_time,
                .ttl_ms = specs[i].ttl_ms,
                .value = specs[i].padding > 0 ? -1 : specs[i].value,
            };
            memcpy(events[i].path, texts[i], sizeof(events[i].path));
        }
        model->n += n;
    }
    cr_assert_eq(commit(world), 0);
}

/* What retention has left is asked of the backend itself; the tests of retention say whether it is right. */
static void note_kept(struct world *world, struct model *model)
{
    for (size_t i = 0; i < model->n; i++) {
        model->events[i].is_kept = false;
        model->events[i].is_latest = true;
        for (size_t j = i + 1; j < model->n && model->events[i].is_latest; j++) {
            model->events[i].is_latest = strcmp(model->events[i].path, model->events[j].path) != 0;
        }
    }
    for (uint32_t channel = 1; channel <= DECLARED; channel++) {
        struct bk_read_range range = {channel, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
        struct bk_read read = {
            .request = {.kind = BK_REQUEST_READ}, .ranges = &range, .n_ranges = 1, .max_bytes = SIZE_MAX};
        while (!range.at_end) {
            range.after = range.reached; /* now is 0, so nothing has expired */
            run(world, &read.request);
            take_read(world, &read);
            for (size_t i = 0, at = 0; i < n_hits(world); i++) {
                while (model->events[at].channel != channel ||
                       model->events[at].sequence != hit(world, i)->sequence) {
                    cr_assert_lt(++at, model->n);
                }
                model->events[at].is_kept = true;
            }
        }
    }
}

/* Whether retention has done all its work. */
static bool is_retained(const struct model *model)
{
    for (size_t i = 0; i < BB_COUNT(paths); i++) {
        size_t n = 0;
        for (size_t j = 0; j < model->n; j++) {
            const struct event *event = &model->events[j];
            n += event->channel == 2 && event->is_kept && strcmp(event->path + 2, paths[i]) == 0;
        }
        if (n > PER_PATH) {
            return false;
        }
    }
    return true;
}

static void trim(struct world *world, struct model *model)
{
    uint64_t n = world->sequences[3];
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM},
                           .channel = 3,
                           .before = sim_between(&model->rng, n / 8, n / 4) + 1};
    run(world, &trim.request);
    cr_assert_eq(trim.request.error, 0);
}

/* --- what is asked -------------------------------------------------------------------------------- */

static void make_patterns(struct model *model)
{
    static const char *const choices[] = {"*",    "c1/*", "c2",     "c2/a/?", "?/a/*", "c3/b/x/2",
                                          "c1/?", "c9/*", "c2/b/*", "c1/c-d", "?",     "c3/a/*"};
    size_t n = sim_between(&model->rng, 1, 3);
    bb_buf_reset(&model->patterns);
    bb_mp_write_array(&model->patterns, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        bb_mp_write_str(&model->patterns, bb_slice_str(choices[sim_below(&model->rng, BB_COUNT(choices))]));
    }
    model->query.patterns = bb_buf_slice(&model->patterns);
}

static void make_ids(struct model *model)
{
    size_t n = sim_between(&model->rng, 1, 20);
    bb_buf_reset(&model->ids);
    bb_mp_write_array(&model->ids, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        const struct event *event = &model->events[sim_below(&model->rng, model->n)];
        bb_mp_write_array(&model->ids, 3);
        bb_mp_write_uint(&model->ids, sim_chance(&model->rng, 900) ? SERVER : SERVER + 1);
        bb_mp_write_uint(&model->ids, event->session);
        bb_mp_write_uint(&model->ids, event->instance);
    }
    model->query.ids = bb_buf_slice(&model->ids);
}

static void make_bounds(struct model *model)
{
    struct bb_query *query = &model->query;
    const struct event *a = &model->events[sim_below(&model->rng, model->n)];
    const struct event *b = &model->events[sim_below(&model->rng, model->n)];
    query->has_t_from = sim_chance(&model->rng, 300);
    query->has_t_to = sim_chance(&model->rng, 300);
    query->t_from = a->time + (int64_t)sim_below(&model->rng, 3) - 1;
    query->t_to = b->time + (int64_t)sim_below(&model->rng, 3) - 1;
    query->has_source_t_from = sim_chance(&model->rng, 150);
    query->has_source_t_to = sim_chance(&model->rng, 150);
    query->source_t_from = SOURCE_TIME + (int64_t)sim_below(&model->rng, 4000000);
    query->source_t_to = SOURCE_TIME + (int64_t)sim_below(&model->rng, 4000000);
    query->has_session = sim_chance(&model->rng, 60);
    query->session = a->session;
}

static void make_query(struct model *model)
{
    struct sim_rng *rng = &model->rng;
    struct bb_query *query = &model->query;
    *query = BB_QUERY_INIT;
    query->kind = sim_chance(rng, 700)   ? BB_QUERY_TIMESERIES
                  : sim_chance(rng, 500) ? BB_QUERY_LATEST
                                         : BB_QUERY_SERVER;
    query->order = sim_chance(rng, 500) ? BB_ORDER_ASCENDING : BB_ORDER_DESCENDING;
    query->order_by = sim_chance(rng, 250) ? BB_ORDER_BY_SOURCE_TIME : BB_ORDER_BY_TIME;
    query->has_server = query->kind == BB_QUERY_SERVER || sim_chance(rng, 100);
    query->server = sim_chance(rng, 950) ? SERVER : SERVER - 1;
    query->unique_type = query->kind == BB_QUERY_TIMESERIES && sim_chance(rng, 150);
    query->max_results = sim_chance(rng, 500) ? sim_between(rng, 1, 40) : BB_QUERY_RESULTS_DEFAULT;
    make_bounds(model);
    if (sim_chance(rng, 700)) {
        make_patterns(model);
    }
    if (sim_chance(rng, 80)) {
        make_ids(model);
    }
    model->above = -2;
    if (sim_chance(rng, 200)) {
        model->above = (int64_t)sim_below(rng, 50);
        (void)snprintf(model->where, sizeof(model->where), ". > %lld", (long long)model->above);
        query->where = bb_slice_str(model->where);
    }
    if (sim_chance(rng, 60)) {
        bb_buf_reset(&model->payload);
        bb_mp_write_int(&model->payload, (int64_t)sim_below(rng, 50));
        query->payload = bb_buf_slice(&model->payload);
    }
}

/* --- what should be found ----------------------------------------------------------------------------- */

static bool is_listed(const struct event *event, struct bb_slice ids)
{
    struct bb_mp_reader reader = bb_mp_reader(ids);
    uint64_t n = bb_mp_read_array(&reader);
    bool found = false;
    for (uint64_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(&reader);
        bool is_here = bb_mp_read_uint(&reader) == SERVER;
        uint64_t session = bb_mp_read_uint(&reader);
        uint64_t instance = bb_mp_read_uint(&reader);
        found = found || (is_here && session == event->session && instance == event->instance);
    }
    return found;
}

static bool is_wanted_path(const struct event *event, struct bb_slice patterns)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        if (bb_pattern_matches(bb_mp_read_str(&reader), bb_slice_str(event->path))) {
            return true;
        }
    }
    return patterns.len == 0;
}

static bool is_wanted(const struct model *model, const struct event *event, int64_t now)
{
    const struct bb_query *query = &model->query;
    bool by_source = query->kind == BB_QUERY_TIMESERIES && query->order_by == BB_ORDER_BY_SOURCE_TIME;
    bool needs_source = by_source || query->has_source_t_from || query->has_source_t_to;
    struct bb_mp_reader reader = bb_mp_reader(query->payload);
    return (query->kind == BB_QUERY_LATEST ? event->is_latest : event->is_kept) &&
           (event->ttl_ms == 0 || event->time / 1000 + (int64_t)event->ttl_ms >= now / 1000) &&
           (!query->has_t_from || event->time >= query->t_from) &&
           (!query->has_t_to || event->time <= query->t_to) && (!needs_source || event->source_time != 0) &&
           (!query->has_source_t_from || event->source_time >= query->source_t_from) &&
           (!query->has_source_t_to || event->source_time <= query->source_t_to) &&
           (!query->has_server || query->server == SERVER) &&
           (!query->has_session || query->session == event->session) &&
           (query->ids.len == 0 || is_listed(event, query->ids)) && is_wanted_path(event, query->patterns) &&
           (query->where.len == 0 || (event->value >= 0 && event->value > model->above)) &&
           (query->payload.len == 0 || (event->value >= 0 && event->value == bb_mp_read_int(&reader)));
}

static const struct bb_query *order; /* for qsort */

static int compare(const void *a, const void *b)
{
    const struct event *left = a;
    const struct event *right = b;
    if (order->kind == BB_QUERY_LATEST) {
        return strcmp(left->path, right->path);
    }
    int64_t x = (int64_t)(left->session * 1000 + left->instance);
    int64_t y = (int64_t)(right->session * 1000 + right->instance);
    if (order->kind == BB_QUERY_TIMESERIES && order->order_by == BB_ORDER_BY_SOURCE_TIME &&
        left->source_time != right->source_time) {
        x = left->source_time;
        y = right->source_time;
    }
    bool up = order->kind == BB_QUERY_SERVER || order->order == BB_ORDER_ASCENDING;
    return up ? (x > y) - (x < y) : (y > x) - (y < x);
}

static void find(struct model *model, int64_t now)
{
    size_t n = 0;
    for (size_t i = 0; i < model->n; i++) {
        if (is_wanted(model, &model->events[i], now)) {
            model->found[n++] = model->events[i];
        }
    }
    order = &model->query;
    qsort(model->found, n, sizeof(model->found[0]), compare);
    model->n_found = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_repeated = false;
        for (size_t j = 0; j < model->n_found && model->query.unique_type; j++) {
            is_repeated = is_repeated || strcmp(model->found[i].path, model->found[j].path) == 0;
        }
        if (!is_repeated) {
            model->found[model->n_found++] = model->found[i];
        }
    }
}

/* All pages of the query, held against the model. */
static void compare_pages(struct world *world, struct model *model, const char *about)
{
    char path[32];
    size_t n = 0;
    size_t pages = 0;
    find(model, (int64_t)(TIME0 + 1000 * world->session));
    for (bool more = true; more;) {
        cr_assert_eq(ask(world, &model->query, &more), 0, "%s", about);
        cr_assert_leq(n_hits(world), model->query.max_results, "%s", about);
        for (size_t i = 0; i < n_hits(world); i++, n++) {
            const struct event *want = &model->found[n];
            const struct hit *got = hit(world, i);
            cr_assert_lt(n, model->n_found, "%s: %zu are too many", about, n + 1);
            cr_assert(got->session == want->session && got->instance == want->instance &&
                          got->sequence == want->sequence && strcmp(got->path, want->path) == 0,
                      "%s: %zu is %llu/%llu of %s, not %llu/%llu of %s", about, n,
                      (unsigned long long)got->session, (unsigned long long)got->instance, got->path,
                      (unsigned long long)want->session, (unsigned long long)want->instance, want->path);
        }
        cr_assert_lt(++pages, EVENTS_MAX, "%s", about);
        if (more && n_hits(world) > 0) {
            const struct event *last = &model->found[n - 1];
            struct bb_query *query = &model->query;
            memcpy(path, last->path, sizeof(path));
            query->has_after = query->kind != BB_QUERY_LATEST;
            query->after = (struct bb_query_id){SERVER, last->session, last->instance};
            query->has_after_source_t = true;
            query->after_source_t = last->source_time;
            query->after_path = query->kind == BB_QUERY_LATEST ? bb_slice_str(path) : (struct bb_slice){0};
        }
    }
    cr_assert_eq(n, model->n_found, "%s: %zu, not %zu", about, n, model->n_found);
}

static void any_query(struct world *world)
{
    struct model *model = calloc(1, sizeof(*model));
    cr_assert_not_null(model);
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = PER_PATH;
    set_channel(world, 2, &retention, false);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        model->rng.state = round;
        while (model->n < round * 300) {
            publish(world, model);
            if (sim_chance(&model->rng, 100)) {
                settle(world);
            }
        }
        settle(world);
        trim(world, model);
        do {
            note_kept(world, model);
        } while (!is_retained(model));
        for (int i = 0; i < QUERIES; i++) {
            make_query(model);
            struct bb_buf about = BB_BUF_INIT;
            struct bb_buf map = BB_BUF_INIT;
            bb_query_write(&map, &model->query);
            bb_buf_printf(&about, "round %llu, query %d, ", (unsigned long long)round, i);
            (void)bb_mp_to_json(bb_buf_slice(&map), &about);
            compare_pages(world, model, bb_buf_string(&about));
            bb_buf_fini(&map);
            bb_buf_fini(&about);
        }
    }
    bb_buf_fini(&model->patterns);
    bb_buf_fini(&model->ids);
    bb_buf_fini(&model->payload);
    free(model);
}
ON(conform_model, memory, any_query)
ON(conform_model, lmdb, any_query)

/* The same, each query a group at a time. */
Test(conform_model, lmdb_in_small_turns)
{
    struct world world;
    world_open(&world, "lmdb");
    world.options[world.n_options++] = "query-turn=0ms";
    world_reopen(&world);
    any_query(&world);
    world_close(&world);
}

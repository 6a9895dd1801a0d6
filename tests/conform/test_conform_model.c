/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries, reads and places of any kind against a naive model, while channels are published to, limited,
 * trimmed, removed and made again. Seeds are fixed; what a failure prints says which question of which round
 * it was.
 */
#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"

#include "tests/conform/model.h"

#include <stdio.h>
#include <stdlib.h>

#define ROUNDS      8
#define PER_ROUND   250 /* events */
#define QUESTIONS   40  /* of each kind */
#define SOURCE_TIME INT64_C(1000000000000)

/* A query, and what it points to. */
struct asking {
    struct bb_query query;
    struct bb_buf patterns;
    struct bb_buf ids;
    struct bb_buf payload;
    char where[64];
    int64_t above; /* of `where` */
};

static uint64_t now_of(const struct world *world)
{
    return TIME0 + 1000 * world->session;
}

/* --- queries -------------------------------------------------------------------------------------- */

static void make_ids(struct model *model, struct asking *asking)
{
    size_t n = sim_between(&model->rng, 1, 20);
    bb_buf_reset(&asking->ids);
    bb_mp_write_array(&asking->ids, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        const struct event *event = &model->events[sim_below(&model->rng, model->n)];
        bb_mp_write_array(&asking->ids, 3);
        bb_mp_write_uint(&asking->ids, sim_chance(&model->rng, 900) ? SERVER : SERVER + 1);
        bb_mp_write_uint(&asking->ids, event->session);
        bb_mp_write_uint(&asking->ids, event->instance);
    }
    asking->query.ids = bb_buf_slice(&asking->ids);
}

static void make_bounds(struct model *model, struct bb_query *query)
{
    const struct event *a = &model->events[sim_below(&model->rng, model->n)];
    const struct event *b = &model->events[sim_below(&model->rng, model->n)];
    query->has_t_from = sim_chance(&model->rng, 300);
    query->has_t_to = sim_chance(&model->rng, 300);
    query->t_from = (int64_t)a->time + (int64_t)sim_below(&model->rng, 3) - 1;
    query->t_to = (int64_t)b->time + (int64_t)sim_below(&model->rng, 3) - 1;
    query->has_source_t_from = sim_chance(&model->rng, 150);
    query->has_source_t_to = sim_chance(&model->rng, 150);
    query->source_t_from = SOURCE_TIME + (int64_t)sim_below(&model->rng, 4000000);
    query->source_t_to = SOURCE_TIME + (int64_t)sim_below(&model->rng, 4000000);
    query->has_session = sim_chance(&model->rng, 60);
    query->session = a->session;
}

static void make_query(struct model *model, struct asking *asking)
{
    struct sim_rng *rng = &model->rng;
    struct bb_query *query = &asking->query;
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
    make_bounds(model, query);
    if (sim_chance(rng, 700)) {
        model_patterns(model, 6, &asking->patterns);
        query->patterns = bb_buf_slice(&asking->patterns);
    }
    if (sim_chance(rng, 80)) {
        make_ids(model, asking);
    }
    asking->above = -2;
    if (sim_chance(rng, 200)) {
        asking->above = (int64_t)sim_below(rng, 50);
        (void)snprintf(asking->where, sizeof(asking->where), ". > %lld", (long long)asking->above);
        query->where = bb_slice_str(asking->where);
    }
    if (sim_chance(rng, 60)) {
        bb_buf_reset(&asking->payload);
        bb_mp_write_int(&asking->payload, (int64_t)sim_below(rng, 50));
        query->payload = bb_buf_slice(&asking->payload);
    }
}

/* All pages of the query, held against the model. */
static void compare_pages(struct world *world, struct model *model, struct asking *asking, const char *about)
{
    struct bb_query *query = &asking->query;
    char path[32];
    size_t n = 0;
    size_t pages = 0;
    model_find(model, query, asking->above, now_of(world));
    for (bool more = true; more;) {
        cr_assert_eq(ask(world, query, &more), 0, "%s", about);
        cr_assert_leq(n_hits(world), query->max_results, "%s", about);
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
        cr_assert_lt(++pages, MODEL_EVENTS, "%s", about);
        if (more && n_hits(world) > 0) {
            const struct event *last = &model->found[n - 1];
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

static void query_all(struct world *world, struct model *model, uint64_t round)
{
    struct asking asking = {0};
    for (int i = 0; i < QUESTIONS; i++) {
        struct bb_buf about = BB_BUF_INIT;
        struct bb_buf map = BB_BUF_INIT;
        make_query(model, &asking);
        bb_query_write(&map, &asking.query);
        bb_buf_printf(&about, "round %llu, query %d, ", (unsigned long long)round, i);
        (void)bb_mp_to_json(bb_buf_slice(&map), &about);
        compare_pages(world, model, &asking, bb_buf_string(&about));
        bb_buf_fini(&map);
        bb_buf_fini(&about);
    }
    bb_buf_fini(&asking.patterns);
    bb_buf_fini(&asking.ids);
    bb_buf_fini(&asking.payload);
}

/* --- reads ------------------------------------------------------------------------------------------ */

/* A read of one channel, and which paths it wants. */
struct reading {
    struct bk_read read;
    struct bk_read_range range;
    struct bb_buf patterns;
    const char *about;
};

static bool is_lost_for(const struct model *model,
                        const struct reading *reading,
                        uint64_t sequence,
                        enum bk_loss_reason reason)
{
    const struct event *event = model_event(model, reading->range.channel, sequence);
    bool is_kept = event != NULL && event->is_kept;
    if (reason == BK_LOSS_TRIMMED || !is_kept) {
        return reason == BK_LOSS_TRIMMED && !is_kept;
    }
    return event_matches(event, bb_buf_slice(&reading->patterns)) &&
           event_has_expired(event, reading->read.now);
}

static uint64_t
count_lost(const struct model *model, const struct reading *reading, const struct bk_read_loss *lost)
{
    uint64_t n = 0;
    for (uint64_t sequence = lost->from; sequence <= lost->to; sequence++) {
        n += is_lost_for(model, reading, sequence, lost->reason);
    }
    return n;
}

static void
compare_losses(const struct world *world, const struct model *model, const struct reading *reading)
{
    const struct bk_read_range *range = &reading->range;
    for (int reason = BK_LOSS_TRIMMED; reason <= BK_LOSS_EXPIRED; reason++) {
        const struct bk_read_loss all = {0, (enum bk_loss_reason)reason, range->after + 1, range->reached, 0};
        uint64_t count = 0;
        for (size_t i = 0; i < n_losses(world); i++) {
            const struct bk_read_loss *lost = loss(world, i);
            if (lost->reason != all.reason) {
                continue;
            }
            count += lost->count;
            cr_assert_eq(count_lost(model, reading, lost), lost->count, "%s", reading->about);
            cr_assert(is_lost_for(model, reading, lost->from, lost->reason), "%s", reading->about);
            cr_assert(is_lost_for(model, reading, lost->to, lost->reason), "%s", reading->about);
        }
        cr_assert_eq(count, count_lost(model, reading, &all), "%s", reading->about);
    }
}

/* What is in the body is what is there and wanted of (after, reached]. */
static void compare_body(const struct world *world, const struct model *model, const struct reading *reading)
{
    const struct bk_read_range *range = &reading->range;
    size_t n = 0;
    for (uint64_t sequence = range->after + 1; sequence <= range->reached; sequence++) {
        const struct event *event = model_event(model, range->channel, sequence);
        if (event == NULL || !event->is_kept || event_has_expired(event, reading->read.now) ||
            !event_matches(event, bb_buf_slice(&reading->patterns))) {
            continue;
        }
        cr_assert_lt(n, n_hits(world), "%s: %llu is missing", reading->about, (unsigned long long)sequence);
        cr_assert_eq(hit(world, n)->sequence, sequence, "%s", reading->about);
        cr_assert_str_eq(hit(world, n)->path, event->path, "%s", reading->about);
        cr_assert_leq(event->time, range->stop_time, "%s", reading->about);
        n++;
    }
    cr_assert_eq(n, n_hits(world), "%s", reading->about);
}

static void compare_end(const struct world *world, const struct model *model, const struct reading *reading)
{
    const struct bk_read_range *range = &reading->range;
    uint64_t last = world->sequences[range->channel];
    if (range->at_end && range->reached < range->stop && range->reached < last) {
        const struct event *next = model_event(model, range->channel, range->reached + 1);
        cr_assert(next != NULL && next->is_kept && next->time > range->stop_time, "%s", reading->about);
    }
}

static void make_reading(const struct world *world, struct model *model, struct reading *reading)
{
    struct sim_rng *rng = &model->rng;
    const struct slot *slot = &model->slots[sim_below(rng, SLOTS)];
    uint64_t last = world->sequences[slot->id];
    bool has_stop_time = sim_chance(rng, 300);
    reading->range = (struct bk_read_range){
        .channel = slot->id,
        .after = sim_below(rng, last + 2),
        .stop = sim_chance(rng, 500) ? sim_below(rng, last + 3) : BK_NO_LIMIT,
        .stop_time = has_stop_time ? model->events[sim_below(rng, model->n)].time : BK_NO_LIMIT,
    };
    reading->read = (struct bk_read){
        .request = {.kind = BK_REQUEST_READ},
        .ranges = &reading->range,
        .n_ranges = 1,
        .max_bytes = sim_chance(rng, 500) ? sim_between(rng, 1, 2000) : SIZE_MAX,
        .now = sim_chance(rng, 500) ? 0 : now_of(world) + 1000 * sim_below(rng, 60),
    };
    bb_buf_reset(&reading->patterns);
    if (sim_chance(rng, 600)) {
        model_patterns(model, 4, &reading->patterns);
        cr_assert_eq(bk_filter_new(bb_buf_slice(&reading->patterns), &reading->read.filter), 0);
    }
}

static void read_all_of(struct world *world, struct model *model, uint64_t round)
{
    struct reading reading = {0};
    for (int i = 0; i < QUESTIONS; i++) {
        char about[64];
        make_reading(world, model, &reading);
        (void)snprintf(about, sizeof(about), "round %llu, read %d", (unsigned long long)round, i);
        reading.about = about;
        for (reading.range.at_end = false; !reading.range.at_end;
             reading.range.after = reading.range.reached) {
            run(world, &reading.read.request);
            take_read(world, &reading.read);
            compare_body(world, model, &reading);
            compare_losses(world, model, &reading);
            compare_end(world, model, &reading);
            cr_assert(reading.range.at_end || reading.range.reached > reading.range.after, "%s", about);
        }
        bk_filter_unref(reading.read.filter);
    }
    bb_buf_fini(&reading.patterns);
}

/* --- places ----------------------------------------------------------------------------------------- */

static bool is_placed(const struct bk_locate *want, const struct event *event, struct bb_slice patterns)
{
    switch (want->kind) {
    case BK_LOCATE_TIME:
        return event->is_kept && event->time >= want->time;
    case BK_LOCATE_ID:
        return event->is_kept && (event->session > want->id.session || (event->session == want->id.session &&
                                                                        event->instance > want->id.instance));
    case BK_LOCATE_LAST:
        return event->is_kept && event_matches(event, patterns);
    case BK_LOCATE_PATH:
        break;
    }
    return event->is_latest && bb_slice_equal(want->path, bb_slice_str(event->path));
}

static uint64_t find_place(const struct model *model,
                           const struct bk_locate *want,
                           uint32_t channel,
                           struct bb_slice patterns)
{
    bool is_newest = want->kind == BK_LOCATE_LAST || want->kind == BK_LOCATE_PATH;
    uint64_t found = 0;
    uint64_t before = 0; /* the newest that is kept */
    bool any = false;
    for (size_t i = 0; i < model->n && (is_newest || found == 0); i++) {
        const struct event *event = &model->events[i];
        if (event->channel == channel && is_placed(want, event, patterns)) {
            found = want->kind == BK_LOCATE_ID ? before + 1 : event->sequence;
        }
        any = any || event->channel == channel;
        before = event->channel == channel && event->is_kept ? event->sequence : before;
    }
    return want->kind == BK_LOCATE_ID && found == 0 && before == 0 && any ? 1 : found;
}

static void locate_all(struct world *world, struct model *model, uint64_t round)
{
    struct bb_buf patterns = BB_BUF_INIT;
    for (int i = 0; i < QUESTIONS; i++) {
        const struct slot *slot = &model->slots[sim_below(&model->rng, SLOTS)];
        const struct event *event = &model->events[sim_below(&model->rng, model->n)];
        char path[32];
        (void)snprintf(path, sizeof(path), "%s%s", slot->name, model_path(model));
        struct bk_locate want = {
            .kind = (enum bk_locate_kind)sim_between(&model->rng, BK_LOCATE_TIME, BK_LOCATE_PATH),
            .time = event->time + sim_below(&model->rng, 3) - 1,
            .id = {SERVER, event->session, event->instance + sim_below(&model->rng, 2) - 1},
            .path = bb_slice_str(path),
        };
        model_patterns(model, 3, &patterns);
        cr_assert_eq(bk_filter_new(bb_buf_slice(&patterns), &want.filter), 0);
        uint64_t expected = find_place(model, &want, slot->id, bb_buf_slice(&patterns));
        uint64_t got = locate(world, &want, slot->id);
        cr_assert_eq(got, expected, "round %llu, place %d of kind %d: %llu, not %llu",
                     (unsigned long long)round, i, (int)want.kind, (unsigned long long)got,
                     (unsigned long long)expected);
        bk_filter_unref(want.filter);
    }
    bb_buf_fini(&patterns);
}

/* --- rounds ------------------------------------------------------------------------------------------- */

static void happen(struct world *world, struct model *model)
{
    struct slot *slot = &model->slots[sim_below(&model->rng, SLOTS)];
    uint64_t dice = sim_below(&model->rng, 1000);
    if (dice < 25) {
        settle(world);
    } else if (dice < 50) {
        settle(world);
        model_trim(world, model, slot);
    } else if (dice < 70) {
        model_remove(world, model, slot);
    } else {
        model_publish(world, model);
    }
}

/* Events that were read and have expired. */
static size_t n_expired(const struct world *world)
{
    size_t n = 0;
    for (size_t i = 0; i < n_losses(world); i++) {
        n += loss(world, i)->reason == BK_LOSS_EXPIRED ? loss(world, i)->count : 0;
    }
    return n;
}

/* Retention takes its time. */
static void wait_for_retention(struct world *world, const struct model *model)
{
    size_t n = 0;
    size_t expected = 0;
    for (size_t i = 0; i < model->n; i++) {
        expected += model->events[i].is_kept;
    }
    int64_t deadline = bb_clock_monotonic_us() + 10000000;
    while (bb_clock_monotonic_us() < deadline) {
        n = 0;
        for (size_t k = 0; k < SLOTS; k++) {
            read_all(world, model->slots[k].id);
            n += n_hits(world) + n_expired(world);
        }
        if (n == expected) {
            return;
        }
    }
    cr_assert_fail("%zu are kept, not %zu", n, expected);
}

static void any_question(struct world *world)
{
    struct model *model = calloc(1, sizeof(*model));
    cr_assert_not_null(model);
    model_begin(model, 1);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        model->rng.state = round;
        model_limit(world, model, &model->slots[sim_below(&model->rng, SLOTS)]);
        settle(world); /* until then the old limit may be at work */
        while (model->n < round * PER_ROUND) {
            happen(world, model);
        }
        settle(world);
        model_expect(model, now_of(world));
        wait_for_retention(world, model);
        query_all(world, model, round);
        read_all_of(world, model, round);
        locate_all(world, model, round);
    }
    free(model);
}
ON(conform_model, memory, any_question)
ON(conform_model, lmdb, any_question)

/* The same, each query a group at a time. */
Test(conform_model, lmdb_in_small_turns)
{
    struct world world;
    world_open(&world, "lmdb");
    world.options[world.n_options++] = "query-turn=0ms";
    world_reopen(&world);
    any_question(&world);
    world_close(&world);
}

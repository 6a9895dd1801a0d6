/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/conform/model.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include <stdio.h>
#include <stdlib.h>

#define SOURCE_TIME INT64_C(1000000000000)

/* Segments may be empty, so that one path is another and a slash. */
static const char *const paths[] = {"",     "/",    "//",     "/a",     "/a/",  "/a//", "/a//x",
                                    "/a/x", "/a/y", "/b/x/1", "/b/x/2", "/c-d", "/b//", "/a-"};

static const char *const patterns[] = {
    "*",      "c1/*",   "c2",      "c2/a/?",   "?/a/*",  "c3/b/x/2", "c1/?",   "c9/*",   "c2/b/*",
    "c1/c-d", "?",      "c3/a",    "c3/a/*",   "c1/",    "c2/",      "c2/?",   "c2/?/?", "c1//*",
    "c1/a/",  "c1/a/?", "c1/a//*", "c3/?/?/*", "?/",     "?//",      "c3/a/?", "c3/?",   "c3/",
    "c1",     "c1//",   "c2//?",   "c2/a/",    "c2/a/*", "c1/a/x"};

const char *model_path(struct model *model)
{
    return paths[sim_below(&model->rng, BB_COUNT(paths))];
}

void model_patterns(struct model *model, size_t max, struct bb_buf *out)
{
    size_t n = sim_between(&model->rng, 1, max);
    bb_buf_reset(out);
    bb_mp_write_array(out, (uint32_t)n);
    for (size_t i = 0; i < n; i++) {
        bb_mp_write_str(out, bb_slice_str(patterns[sim_below(&model->rng, BB_COUNT(patterns))]));
    }
}

/* --- what happens --------------------------------------------------------------------------------- */

void model_begin(struct model *model, uint64_t seed)
{
    model->rng.state = seed;
    for (uint32_t i = 0; i < SLOTS; i++) {
        struct slot *slot = &model->slots[i];
        *slot = (struct slot){.id = ++model->last_id, .retention = BK_RETENTION_INIT};
        (void)snprintf(slot->name, sizeof(slot->name), "c%u", i + 1);
    }
}

static void publish_block(struct world *world, struct model *model)
{
    const struct slot *slot = &model->slots[sim_below(&model->rng, SLOTS)];
    struct spec specs[12] = {0};
    char texts[BB_COUNT(specs)][32];
    size_t n = sim_between(&model->rng, 1, BB_COUNT(specs));
    const char *one = sim_chance(&model->rng, 300) ? model_path(model) : NULL;
    struct event *events = &model->events[model->n];
    cr_assert_leq(model->n + n, MODEL_EVENTS);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), "%s%s", slot->name, one != NULL ? one : model_path(model));
        specs[i] = (struct spec){
            .path = texts[i],
            .value = (int64_t)sim_below(&model->rng, 50),
            .source_time =
                sim_chance(&model->rng, 500) ? SOURCE_TIME + (int64_t)sim_below(&model->rng, 4000000) : 0,
            .ttl_ms = sim_chance(&model->rng, 100) ? sim_between(&model->rng, 1, 50) : 0,
            .padding = sim_chance(&model->rng, 30) ? 9000 : 0,
        };
    }
    const struct bk_log_block *block = stage(world, slot->id, specs, n);
    struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
    for (size_t i = 0; i < n; i++) {
        struct bb_event_view view;
        cr_assert_eq(bb_event_read(&rest, &view), 0);
        events[i] = (struct event){
            .channel = slot->id,
            .session = block->head.session,
            .instance = i + 1,
            .sequence = block->head.sequence + i,
            .time = block->head.time,
            .source_time = specs[i].source_time,
            .ttl_ms = specs[i].ttl_ms,
            .bytes = view.raw.len,
            .value = specs[i].padding > 0 ? -1 : specs[i].value,
            .is_kept = true,
        };
        memcpy(events[i].path, texts[i], sizeof(events[i].path));
    }
    model->n += n;
}

void model_publish(struct world *world, struct model *model)
{
    for (uint64_t n = sim_between(&model->rng, 1, 4); n > 0; n--) {
        publish_block(world, model);
    }
    cr_assert_eq(commit(world), 0);
}

void model_remove(struct world *world, struct model *model, struct slot *slot)
{
    for (size_t i = 0; i < model->n; i++) {
        model->events[i].is_gone = model->events[i].is_gone || model->events[i].channel == slot->id;
    }
    struct bk_log_channel entries[2] = {
        {.id = slot->id, .name = bb_slice_str(slot->name), .removed = true, .retention = slot->retention},
        {.id = ++model->last_id, .name = bb_slice_str(slot->name), .retention = slot->retention},
    };
    struct bk_append append = {.channels = entries, .n_channels = 2};
    cr_assert_eq(commit_append(world, &append), 0);
    slot->id = model->last_id;
    slot->trimmed = 0;
}

void model_limit(struct world *world, struct model *model, struct slot *slot)
{
    struct bk_retention *retention = &slot->retention;
    *retention = BK_RETENTION_INIT;
    switch (sim_below(&model->rng, 5)) {
    case 0:
        retention->max_events = sim_between(&model->rng, 1, 60);
        break;
    case 1:
        retention->max_bytes = sim_between(&model->rng, 100, 4000);
        break;
    case 2:
        retention->max_age_us = 1000 * sim_between(&model->rng, 1, 100);
        break;
    case 3:
        retention->max_per_path = sim_between(&model->rng, 1, 12);
        break;
    default:
        break;
    }
    if (sim_chance(&model->rng, 500)) {
        retention->min_events = sim_between(&model->rng, 1, 20);
    }
    name_channel(world, slot->id, slot->name, retention);
}

void model_trim(struct world *world, struct model *model, struct slot *slot)
{
    uint64_t last = world->sequences[slot->id];
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM},
                           .channel = slot->id,
                           .before = sim_below(&model->rng, last / 2 + 2)};
    run(world, &trim.request);
    cr_assert_eq(trim.request.error, 0);
    slot->trimmed = BB_MAX(slot->trimmed, trim.before);
}

/* --- what is left --------------------------------------------------------------------------------- */

static bool is_of(const struct event *event, const struct slot *slot)
{
    return event->channel == slot->id && event->is_kept;
}

/* From the newest on, as long as the limits or the floor have it. */
static void keep_newest(struct model *model, const struct slot *slot, uint64_t now)
{
    const struct bk_retention *retention = &slot->retention;
    uint64_t events = 0;
    uint64_t bytes = 0;
    for (size_t i = model->n; i > 0; i--) {
        struct event *event = &model->events[i - 1];
        if (!is_of(event, slot)) {
            continue;
        }
        bool is_old = retention->max_age_us != BK_NO_LIMIT && event->time + retention->max_age_us < now;
        bool is_in =
            !is_old && events < retention->max_events && bytes + event->bytes <= retention->max_bytes;
        event->is_kept = event->sequence >= slot->trimmed && (is_in || events < retention->min_events);
        events++;
        bytes += event->bytes;
    }
}

static void keep_of_paths(struct model *model, const struct slot *slot)
{
    const struct bk_retention *retention = &slot->retention;
    uint64_t events = 0;
    for (size_t i = model->n; i > 0; i--) {
        struct event *event = &model->events[i - 1];
        uint64_t newer = 0;
        if (!is_of(event, slot)) {
            continue;
        }
        for (size_t j = i; j < model->n; j++) {
            newer += is_of(&model->events[j], slot) && strcmp(event->path, model->events[j].path) == 0;
        }
        event->is_kept = newer < retention->max_per_path || events < retention->min_events;
        events += event->is_kept;
    }
}

void model_expect(struct model *model, uint64_t now)
{
    for (size_t i = 0; i < SLOTS; i++) {
        keep_newest(model, &model->slots[i], now);
        keep_of_paths(model, &model->slots[i]);
    }
    for (size_t i = 0; i < model->n; i++) {
        struct event *event = &model->events[i];
        event->is_kept = event->is_kept && !event->is_gone;
        event->is_latest = !event->is_gone;
        for (size_t j = i + 1; j < model->n && event->is_latest; j++) {
            const struct event *other = &model->events[j];
            event->is_latest = event->channel != other->channel || strcmp(event->path, other->path) != 0;
        }
    }
}

const struct event *model_event(const struct model *model, uint32_t channel, uint64_t sequence)
{
    for (size_t i = 0; i < model->n; i++) {
        if (model->events[i].channel == channel && model->events[i].sequence == sequence) {
            return &model->events[i];
        }
    }
    return NULL;
}

bool event_has_expired(const struct event *event, uint64_t now)
{
    return event->ttl_ms != 0 && event->time / 1000 + event->ttl_ms < now / 1000;
}

bool event_matches(const struct event *event, struct bb_slice wanted)
{
    struct bb_mp_reader reader = bb_mp_reader(wanted);
    uint64_t n = wanted.len > 0 ? bb_mp_read_array(&reader) : 0;
    for (uint64_t i = 0; i < n; i++) {
        if (bb_pattern_matches(bb_mp_read_str(&reader), bb_slice_str(event->path))) {
            return true;
        }
    }
    return wanted.len == 0;
}

/* --- what a query finds ----------------------------------------------------------------------------- */

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

static bool is_wanted(const struct bb_query *query, const struct event *event, int64_t above, uint64_t now)
{
    bool by_source = query->kind == BB_QUERY_TIMESERIES && query->order_by == BB_ORDER_BY_SOURCE_TIME;
    bool needs_source = by_source || query->has_source_t_from || query->has_source_t_to;
    struct bb_mp_reader reader = bb_mp_reader(query->payload);
    return (query->kind == BB_QUERY_LATEST ? event->is_latest : event->is_kept) &&
           !event_has_expired(event, now) && (!query->has_t_from || (int64_t)event->time >= query->t_from) &&
           (!query->has_t_to || (int64_t)event->time <= query->t_to) &&
           (!needs_source || event->source_time != 0) &&
           (!query->has_source_t_from || event->source_time >= query->source_t_from) &&
           (!query->has_source_t_to || event->source_time <= query->source_t_to) &&
           (!query->has_server || query->server == SERVER) &&
           (!query->has_session || query->session == event->session) &&
           (query->ids.len == 0 || is_listed(event, query->ids)) && event_matches(event, query->patterns) &&
           (query->where.len == 0 || (event->value >= 0 && event->value > above)) &&
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

void model_find(struct model *model, const struct bb_query *query, int64_t above, uint64_t now)
{
    size_t n = 0;
    for (size_t i = 0; i < model->n; i++) {
        if (is_wanted(query, &model->events[i], above, now)) {
            model->found[n++] = model->events[i];
        }
    }
    order = query;
    qsort(model->found, n, sizeof(model->found[0]), compare);
    model->n_found = 0;
    for (size_t i = 0; i < n; i++) {
        bool is_repeated = false;
        for (size_t j = 0; j < model->n_found && query->unique_type; j++) {
            is_repeated = is_repeated || strcmp(model->found[i].path, model->found[j].path) == 0;
        }
        if (!is_repeated) {
            model->found[model->n_found++] = model->found[i];
        }
    }
}

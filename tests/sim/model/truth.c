/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/model/truth.h"

#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/match.h"
#include "tests/sim/model/published.h"
#include "tests/sim/story.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* A broker must remember so many lives of a channel (PROTOCOL 7.5); each start and each cut may have made
 * one. */
#define LIVES_SURE 60

void *sim_grown(void *array, size_t n, size_t *n_slots, size_t size)
{
    if (n < *n_slots) {
        return array;
    }
    *n_slots = *n_slots > 0 ? 2 * *n_slots : 16;
    void *bigger = realloc(array, *n_slots * size);
    if (bigger == NULL) {
        abort();
    }
    return bigger;
}

void truth_fini(struct truth *truth)
{
    while (truth->events != NULL) {
        struct truth_event *event = truth->events;
        truth->events = event->older;
        free(event->raw);
        free(event);
    }
    for (size_t i = 0; i < truth->n_names; i++) {
        while (truth->names[i].inc != NULL) {
            struct truth_inc *inc = truth->names[i].inc;
            truth->names[i].inc = inc->next;
            free(inc->events);
            free(inc->cuts);
            free(inc);
        }
    }
    free(truth->lives);
    free(truth->runs);
    free(truth->visible);
}

size_t truth_name(struct world *world, struct bb_slice name)
{
    struct truth *truth = &world->truth;
    for (size_t i = 0; i < truth->n_names; i++) {
        if (bb_slice_equal(bb_slice_str(truth->names[i].text), name)) {
            return i;
        }
    }
    if (truth->n_names == NAMES_MAX || name.len >= sizeof(truth->names[0].text)) {
        world_fail(world, "unknown channel", "a channel that no world has: %.*s", (int)name.len,
                   (const char *)name.data);
        return 0;
    }
    if (name.len > 0) {
        memcpy(truth->names[truth->n_names].text, name.data, name.len);
    }
    return truth->n_names++;
}

size_t truth_name_of_path(struct world *world, struct bb_slice path)
{
    return truth_name(world, match_name_of(path));
}

static struct truth_inc *make_inc(struct world *world, size_t channel)
{
    struct truth_name *name = &world->truth.names[channel];
    struct truth_inc *inc = calloc(1, sizeof(*inc));
    if (inc == NULL) {
        abort();
    }
    inc->channel = channel;
    inc->number = ++world->truth.n_incs;
    inc->next = name->inc;
    inc->ring = world->config.ring_bytes;
    inc->limits = (struct truth_limits){NO_LIMIT, NO_LIMIT, NO_LIMIT, NO_LIMIT, 0};
    inc->born_at = world->now;
    name->inc = inc;
    return inc;
}

void truth_restored(struct world *world, uint64_t time)
{
    for (size_t i = 0; i < world->truth.n_lives; i++) {
        struct truth_life *life = &world->truth.lives[i];
        life->is_unsure = life->is_unsure || life->stored_at == 0 || life->stored_at > time;
    }
}

void truth_forget_lives(struct world *world)
{
    for (size_t i = 0; i < world->truth.n_lives; i++) {
        struct truth_life *life = &world->truth.lives[i];
        life->is_unsure = life->is_unsure || life->told_least > life->inc->durable;
    }
}

static void copy_settings(struct truth_inc *inc, const struct truth_inc *old)
{
    inc->limits = old->limits;
    inc->has_floor = old->has_floor;
    inc->is_lazy = old->is_lazy;
    inc->was_set = true;
    inc->is_of_log = old->is_of_log;
    inc->ring = old->ring;
}

/* What was allowed at any time is allowed. */
static void loosen_settings(struct truth_inc *inc)
{
    for (const struct truth_inc *old = inc->next; old != NULL; old = old->next) {
        inc->limits.max_age_us = BB_MIN(inc->limits.max_age_us, old->limits.max_age_us);
        inc->limits.max_bytes = BB_MIN(inc->limits.max_bytes, old->limits.max_bytes);
        inc->limits.max_events = BB_MIN(inc->limits.max_events, old->limits.max_events);
        inc->limits.max_per_path = BB_MIN(inc->limits.max_per_path, old->limits.max_per_path);
        inc->ring = BB_MIN(inc->ring, old->ring);
        inc->is_lazy = inc->is_lazy || old->is_lazy;
    }
}

/* If it is kept in the log, its life goes on as well: up to nothing. */
static void carry_lives(struct truth *truth, const struct truth_inc *old, struct truth_inc *inc)
{
    for (size_t i = 0; i < truth->n_lives; i++) {
        struct truth_life *life = &truth->lives[i];
        if (life->inc == old && (old->is_logged || !old->has_store)) {
            life->inc = inc;
            life->end = life->told_most > 0 ? 0 : life->end;
            life->is_unsure = true;
        }
    }
}

static bool is_on_disk(const struct world *world, size_t channel)
{
    const struct store *store = &world->disk.store;
    bool found = false;
    for (size_t i = 0; i < store->n_channels && !found; i++) {
        const struct store_channel *stored = &store->channels[i];
        found = (!stored->removed &&
                 bb_slice_equal(bb_buf_slice(&stored->name), bb_slice_str(world->truth.names[channel].text)));
    }
    return found;
}

static bool is_stored(const struct world *world, size_t channel)
{
    return world->has_log && is_on_disk(world, channel);
}

void truth_carry(struct world *world, size_t channel, bool is_older)
{
    struct truth_inc *old = world->truth.names[channel].inc;
    while (old != NULL && !old->is_of_log && is_stored(world, channel)) {
        old = old->next; /* what came after it has not reached the disk */
    }
    if (!world->has_log && !is_on_disk(world, channel)) {
        return; /* nobody has written it down */
    }
    if (old == NULL || !old->is_ended || !old->was_set || !world->truth.names[channel].inc->is_ended) {
        return;
    }
    struct truth_inc *inc = make_inc(world, channel);
    copy_settings(inc, old);
    if (old->ended_at != 0 || !world->has_log) { /* its removal may be on the disk; or nobody reads that */
        inc->limits.min_events = 0;
    }
    if (is_older) {
        loosen_settings(inc);
    }
    if (is_stored(world, channel)) {
        carry_lives(&world->truth, old, inc);
    }
    const struct store_channel *stored = store_channel_of(&world->disk.store, old->id);
    if (!old->is_logged && stored != NULL && !stored->removed) {
        inc->id = old->id;
        inc->generation = old->generation;
        old->id = 0;
    }
}

struct truth_inc *truth_current(struct world *world, size_t channel)
{
    struct truth_inc *inc = world->truth.names[channel].inc;
    return inc != NULL && !inc->is_ended ? inc : make_inc(world, channel);
}

struct truth_event *truth_event_at(const struct truth_inc *inc, uint64_t sequence)
{
    return inc != NULL && sequence >= 1 && sequence <= inc->n ? inc->events[sequence - 1] : NULL;
}

/* --- events ----------------------------------------------------------------------------------- */

static bool is_same(const struct truth_event *event, const struct truth_shown *shown)
{
    return event->session == shown->session && event->instance == shown->instance &&
           event->time == shown->time && event->source == shown->source && event->len == shown->raw.len &&
           memcmp(event->raw, shown->raw.data, event->len) == 0;
}

static void read_attributes(struct truth_event *event, struct bb_slice attributes)
{
    struct bb_attributes values = {0};
    if (bb_event_attributes(attributes, &values) == 0) {
        event->ttl_us = values.has_ttl ? values.ttl_ms * 1000 : 0;
        event->has_source_time = values.has_source_time;
        event->source_time = values.source_time;
    }
}

static struct truth_event *make_event(struct world *world, const struct truth_shown *shown)
{
    struct truth_event *event = calloc(1, sizeof(*event));
    struct bb_event_view view = {0};
    if (event == NULL || (event->raw = malloc(shown->raw.len + 1)) == NULL) {
        abort();
    }
    memcpy(event->raw, shown->raw.data, shown->raw.len);
    event->len = shown->raw.len;
    event->older = world->truth.events;
    world->truth.events = event;
    struct bb_slice rest = bb_slice(event->raw, event->len);
    if (bb_event_read(&rest, &view) < 0 || view.error != 0 || rest.len != 0) {
        world_fail(world, "bad event", "an event was numbered that cannot be read");
        return NULL;
    }
    struct bb_mp_reader reader = bb_mp_reader(view.payload);
    (void)bb_mp_read_array(&reader);
    event->path = view.path;
    event->payload = view.payload;
    event->sequence = shown->sequence;
    event->session = shown->session;
    event->instance = shown->instance;
    event->time = shown->time;
    event->source = shown->source;
    event->writer = bb_mp_read_uint(&reader);
    event->serial = bb_mp_read_uint(&reader);
    event->taken_at = world->now;
    read_attributes(event, view.attributes);
    world->truth.n_events++;
    return event;
}

/* The log knows it by another id. */
static bool
is_of_other(const struct world *world, const struct truth_inc *inc, const struct truth_shown *shown)
{
    return shown->id != 0 && inc->id != 0 && inc->generation == world->disk.generation &&
           inc->id != shown->id;
}

static bool
begins_anew(const struct world *world, const struct truth_inc *inc, const struct truth_shown *shown)
{
    const struct truth_event *event = truth_event_at(inc, shown->sequence);
    bool is_known = event != NULL && is_same(event, shown);
    return (shown->sequence == 1 && inc->n > 0 && world->truth.names[inc->channel].n_rm_asked > 0 &&
            !is_known) ||
           is_of_other(world, inc, shown);
}

/* The incarnation that an event with this sequence belongs to: a first one may begin a new one. */
static struct truth_inc *inc_for(struct world *world, size_t channel, const struct truth_shown *shown)
{
    struct truth_inc *inc = truth_current(world, channel);
    if (is_of_other(world, inc, shown)) {
        for (struct truth_inc *old = inc->next; old != NULL; old = old->next) {
            if (old->id == shown->id && old->generation == world->disk.generation) {
                return old; /* staged before it was removed */
            }
        }
    }
    if (begins_anew(world, inc, shown)) { /* what was said so far was said before */
        judge_settle(world);
        inc = truth_current(world, channel);
    }
    if (begins_anew(world, inc, shown)) {
        truth_remove(world, channel, "its sequences begin anew");
        inc = truth_current(world, channel);
    }
    return inc;
}

struct truth_event *truth_take(struct world *world, const struct truth_shown *shown, bool is_logged)
{
    struct bb_event_view view = {0};
    struct bb_slice rest = shown->raw;
    if (bb_event_read(&rest, &view) < 0) {
        world_fail(world, "bad event", "an event was numbered that cannot be read");
        return NULL;
    }
    size_t channel = truth_name_of_path(world, view.path);
    struct truth_inc *inc = inc_for(world, channel, shown);
    struct truth_event *event = truth_event_at(inc, shown->sequence);
    if (event != NULL && is_same(event, shown)) {
        return event;
    }
    if (event != NULL) {
        truth_cut_unregistered(world, inc, shown->sequence - 1);
    }
    if (shown->sequence != inc->n + 1) {
        world_fail(world, "sequence", "channel '%s': sequence %" PRIu64 " was given, the next is %zu%s",
                   world->truth.names[channel].text, shown->sequence, inc->n + 1,
                   event != NULL ? ", for another event" : "");
        return NULL;
    }
    if ((event = make_event(world, shown)) == NULL) {
        return NULL;
    }
    const struct truth_event *before = truth_event_at(inc, inc->n);
    if (before != NULL && (before->session > event->session || before->time > event->time)) {
        world_fail(world, "session order", "channel '%s': session or time goes back at sequence %" PRIu64,
                   world->truth.names[channel].text, event->sequence);
    }
    inc->n_rm_open = inc->n == 0 ? world->truth.names[channel].n_rm_asked : inc->n_rm_open;
    inc->is_logged = is_logged;
    inc->has_store = true;
    if (shown->id != 0) {
        inc->id = shown->id;
        inc->generation = world->disk.generation;
    }
    inc->events = sim_grown(inc->events, inc->n, &inc->n_slots, sizeof(struct truth_event *));
    inc->events[inc->n++] = event;
    event->inc = inc;
    world->truth.names[channel].has_appeared = true;
    struct truth_run *run = &world->truth.runs[world->truth.n_runs - 1];
    if (run->first[channel].inc == NULL) { /* the life that it got by the first event in the run */
        run->first[channel].inc = inc;
        run->first[channel].cut = inc->n_cuts;
    }
    judge_written(world, event);
    return event;
}

static void make_visible(struct world *world, struct truth_event *event)
{
    struct truth *truth = &world->truth;
    event->inc->visible++;
    truth->visible =
        sim_grown(truth->visible, truth->n_visible, &truth->n_visible_slots, sizeof(struct truth_event *));
    truth->visible[truth->n_visible++] = event;
    event->seen = truth->n_visible;
    event->seen_at = world->now;
}

void truth_see(struct world *world, const struct truth_shown *shown)
{
    struct truth *truth = &world->truth;
    struct truth_event *event = truth_take(world, shown, false);
    if (event == NULL) {
        return;
    }
    struct truth_inc *inc = event->inc;
    if (inc->n > 1 && inc->events[0]->is_durable) {
        inc->is_logged = true;
    }
    if (event->sequence != inc->visible + 1) {
        world_fail(world, "window order", "channel '%s': the window shows %" PRIu64 ", the next is %zu",
                   truth->names[inc->channel].text, event->sequence, inc->visible + 1);
        return;
    }
    if (inc->is_logged && inc->durable < event->sequence) {
        world_fail(world, "seen before durable", "channel '%s': %" PRIu64 " is shown and is not on the disk",
                   truth->names[inc->channel].text, event->sequence);
    }
    make_visible(world, event);
}

void truth_load(struct world *world, struct truth_inc *inc)
{
    while (inc->visible < inc->n) {
        make_visible(world, inc->events[inc->visible]);
    }
}

void truth_durable(struct world *world, struct truth_inc *inc, uint64_t sequence)
{
    for (size_t i = 0; i < world->truth.n_lives && sequence > inc->durable; i++) {
        struct truth_life *life = &world->truth.lives[i];
        life->stored_at = life->inc == inc && life->stored_at == 0 ? world->now : life->stored_at;
    }
    inc->is_logged = true;
    for (; inc->durable < sequence && inc->durable < inc->n; inc->durable++) {
        inc->events[inc->durable]->is_durable = true;
    }
}

void truth_cut(struct world *world, struct truth_inc *inc, uint64_t end)
{
    for (size_t i = 0; i < world->truth.n_lives;
         i++) { /* the early view may have told what the log never heard of */
        struct truth_life *life = &world->truth.lives[i];
        life->end = life->inc == inc && end < life->told_most ? BB_MIN(life->end, end) : life->end;
    }
    if (inc->n <= end) {
        return;
    }
    inc->cuts = sim_grown(inc->cuts, inc->n_cuts, &inc->n_cut_slots, sizeof(inc->cuts[0]));
    inc->cuts[inc->n_cuts++] = (struct truth_cut){end, world->now};
    for (size_t i = end; i < inc->n; i++) {
        inc->events[i]->is_gone = true;
        judge_unwritten(world, inc->events[i]);
    }
    inc->n = end;
    inc->visible = BB_MIN(inc->visible, inc->n);
    inc->durable = BB_MIN(inc->durable, inc->n);
}

void truth_cut_unregistered(struct world *world, struct truth_inc *inc, uint64_t end)
{
    if (inc->is_logged && end >= inc->durable && inc->n > end && !inc->events[end]->is_registered) {
        truth_cut(world, inc, end);
    }
}

void truth_remove(struct world *world, size_t channel, const char *evidence)
{
    struct truth_name *name = &world->truth.names[channel];
    if (name->n_rm_asked == 0) {
        world_fail(world, "removed by nobody", "channel '%s' was removed by nobody: %s", name->text,
                   evidence);
        return;
    }
    story_tell(world, "(the channel '%s' is gone: %s)", name->text, evidence);
    asked_consume_rm(world, channel);
    if (name->inc != NULL) {
        name->inc->is_ended = true;
        name->inc->ended_at = world->now;
    }
    struct truth_inc *old = name->inc;
    if (old != NULL && (old->was_set_in_doubt || asked_is_set(world, channel))) {
        struct truth_inc *inc = make_inc(world, channel);
        copy_settings(inc, old);
        inc->limits.min_events = 0; /* the floor may have been that of the one that has gone */
    }
    judge_removed(world, channel);
}

/* --- settings --------------------------------------------------------------------------------- */

/* A loosened limit: the smaller one counts. */
static void lower(uint64_t *limit, struct bb_mp_reader *reader, uint64_t factor)
{
    uint64_t value = NO_LIMIT;
    if (bb_mp_peek_type(reader) == BB_MP_UINT) {
        value = bb_mp_read_uint(reader) * factor;
    } else {
        bb_mp_skip(reader);
    }
    *limit = BB_MIN(*limit, value);
}

static void read_setting(struct truth_inc *inc, struct bb_slice key, struct bb_mp_reader *reader)
{
    struct truth_limits *limits = &inc->limits;
    if (bb_slice_equal(key, bb_slice_str("max_age"))) {
        lower(&limits->max_age_us, reader, 1000);
    } else if (bb_slice_equal(key, bb_slice_str("max_bytes"))) {
        lower(&limits->max_bytes, reader, 1);
    } else if (bb_slice_equal(key, bb_slice_str("max_events"))) {
        lower(&limits->max_events, reader, 1);
    } else if (bb_slice_equal(key, bb_slice_str("max_per_path"))) {
        lower(&limits->max_per_path, reader, 1);
    } else if (bb_slice_equal(key, bb_slice_str("min_events"))) {
        limits->min_events = inc->has_floor ? limits->min_events : NO_LIMIT;
        limits->min_events = bb_mp_peek_type(reader) == BB_MP_UINT ? limits->min_events : 0;
        inc->has_floor = true;
        lower(&limits->min_events, reader, 1);
    } else if (bb_slice_equal(key, bb_slice_str("ring"))) {
        lower(&inc->ring, reader, 1);
    } else if (bb_slice_equal(key, bb_slice_str("sync")) && bb_mp_peek_type(reader) == BB_MP_BOOL) {
        inc->is_lazy = !bb_mp_read_bool(reader) || inc->is_lazy;
    } else {
        bb_mp_skip(reader);
    }
}

void truth_limit(struct world *world, size_t channel, struct bb_slice settings, bool is_new)
{
    struct truth_inc *inc = truth_current(world, channel);
    struct bb_mp_reader reader = bb_mp_reader(settings);
    uint32_t n = settings.len > 0 ? bb_mp_read_map(&reader) : 0;
    bool has_floor = false;
    bool had_floor = inc->has_floor;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        has_floor = has_floor || bb_slice_equal(key, bb_slice_str("min_events"));
        read_setting(inc, key, &reader);
    }
    /* Without a floor once, without a floor for what was there then. */
    bool had_none = (inc->n > 0 && !had_floor) || (is_new && !has_floor);
    inc->limits.min_events = had_none ? 0 : inc->limits.min_events;
    inc->was_set = true;
    inc->is_of_log = inc->is_of_log || world->has_log;
    inc->was_set_in_doubt = inc->was_set_in_doubt || world->truth.names[channel].n_rm_asked > 0;
}

/* --- positions -------------------------------------------------------------------------------- */

enum truth_verdict truth_judge_inc(struct world *world,
                                   const struct truth_inc *inc,
                                   size_t cut,
                                   uint64_t sequence,
                                   uint64_t *ret_end)
{
    const struct truth_inc *current = inc != NULL ? world->truth.names[inc->channel].inc : NULL;
    uint64_t end = UINT64_MAX;
    if (inc == NULL || inc != current || inc->is_ended) {
        return POSITION_VOID;
    }
    for (size_t i = cut; i < inc->n_cuts; i++) {
        end = BB_MIN(end, inc->cuts[i].end);
    }
    *ret_end = BB_MIN(end, inc->n);
    if (sequence <= end && sequence > inc->n) {
        return POSITION_UNSURE; /* it may have been shown early, and the log has never heard of it */
    }
    if (world->n_runs + inc->n_cuts - cut > LIVES_SURE) {
        return POSITION_UNSURE;
    }
    return sequence <= end ? POSITION_VALID : POSITION_RETRACTED;
}

static struct truth_life *find_life(const struct truth *truth, size_t channel, uint64_t number)
{
    for (size_t i = truth->n_lives; i > 0; i--) {
        if (truth->lives[i - 1].channel == channel && truth->lives[i - 1].number == number) {
            return &truth->lives[i - 1];
        }
    }
    return NULL;
}

void truth_end_life(struct world *world, const struct truth_inc *inc, uint64_t number, uint64_t end)
{
    struct truth_life *life = find_life(&world->truth, inc->channel, number);
    if (life != NULL && life->inc == inc && life->told_most > end) {
        life->end = BB_MIN(life->end, end);
    }
}

enum truth_verdict
truth_judge_life(struct world *world, size_t channel, uint64_t sequence, uint64_t life, uint64_t *ret_end)
{
    const struct truth_life *found = find_life(&world->truth, channel, life);
    if (found == NULL) {
        return POSITION_VOID;
    }
    if (found->is_unsure) {
        return POSITION_UNSURE;
    }
    enum truth_verdict verdict = truth_judge_inc(world, found->inc, found->inc->n_cuts, sequence, ret_end);
    if (verdict != POSITION_VOID && found->end < sequence) {
        *ret_end = BB_MIN(*ret_end, found->end);
        return verdict == POSITION_UNSURE || sequence > found->told_most ? POSITION_UNSURE
                                                                         : POSITION_RETRACTED;
    }
    /* Nobody was told of so high a sequence in it: where the life ended only the broker knows. */
    return verdict != POSITION_VOID && sequence > found->told_most ? POSITION_UNSURE : verdict;
}

enum truth_verdict
truth_judge_run(struct world *world, size_t channel, uint64_t sequence, uint64_t run, uint64_t *ret_end)
{
    const struct truth *truth = &world->truth;
    for (size_t i = truth->n_runs; i > 0; i--) {
        if (truth->runs[i - 1].run != run) {
            continue;
        }
        const struct truth_inc *inc = truth->runs[i - 1].first[channel].inc;
        enum truth_verdict verdict =
            truth_judge_inc(world, inc, truth->runs[i - 1].first[channel].cut, sequence, ret_end);
        bool has_next =
            verdict == POSITION_VALID && i < truth->n_runs && truth->runs[i].first[channel].inc == inc;
        if (has_next && sequence > truth->runs[i].first[channel].n) { /* the log had never heard of it */
            *ret_end = BB_MIN(*ret_end, truth->runs[i].first[channel].n);
            verdict = POSITION_RETRACTED;
        }
        return verdict;
    }
    return POSITION_VOID;
}

void truth_told_life(struct world *world, struct truth_inc *inc, uint64_t sequence, uint64_t life)
{
    struct truth *truth = &world->truth;
    struct truth_life *found = find_life(truth, inc->channel, life);
    const char *name = truth->names[inc->channel].text;
    if (life == 0 || life >= UINT64_C(1) << 53) {
        world_fail(world, "life", "channel '%s': %" PRIu64 " cannot be a life", name, life);
    } else if (found == NULL) {
        truth->lives = sim_grown(truth->lives, truth->n_lives, &truth->n_life_slots, sizeof(truth->lives[0]));
        truth->lives[truth->n_lives++] =
            (struct truth_life){inc->channel, life, inc, UINT64_MAX, sequence, sequence, 0, false};
    } else if (found->inc != inc && found->told_most == 0 && found->inc->n == 0) {
        found->inc = inc; /* it had nothing, so that it outlives a broker all the same */
        found->told_most = found->told_least = sequence;
    } else if (found->inc != inc) {
        world_fail(world, "life", "channel '%s': the life %" PRIu64 " means another channel of that name",
                   name, life);
    } else {
        if (sequence > found->end) {
            world_fail(world, "life",
                       "channel '%s': the life %" PRIu64 " goes on at %" PRIu64
                       " though its sequences above %" PRIu64 " were given again",
                       name, life, sequence, found->end);
        }
        found->told_most = BB_MAX(found->told_most, sequence);
        found->told_least = BB_MIN(found->told_least, sequence);
    }
}

void truth_begin_run(struct world *world, uint64_t number)
{
    struct truth *truth = &world->truth;
    truth->runs = sim_grown(truth->runs, truth->n_runs, &truth->n_run_slots, sizeof(truth->runs[0]));
    struct truth_run *run = &truth->runs[truth->n_runs++];
    *run = (struct truth_run){.run = number};
    for (size_t i = 0; i < truth->n_names; i++) {
        struct truth_inc *inc = truth->names[i].inc;
        if (inc != NULL && !inc->is_ended && inc->n > 0) {
            run->first[i].inc = inc;
            run->first[i].cut = inc->n_cuts;
            run->first[i].n = inc->n;
        }
    }
}

/* --- what may be gone ------------------------------------------------------------------------- */

/* How many events, bytes and events of its path are newer. */
struct newer {
    uint64_t n;
    uint64_t bytes;
    uint64_t same;
};

static struct newer newer_than(const struct truth_event *event)
{
    struct newer newer = {0};
    for (size_t i = event->sequence; i < event->inc->n; i++) {
        const struct truth_event *other = event->inc->events[i];
        newer.n++;
        newer.bytes += other->len;
        newer.same += bb_slice_equal(other->path, event->path);
    }
    return newer;
}

bool truth_may_be_trimmed(const struct world *world, const struct truth_event *event)
{
    const struct truth_inc *inc = event->inc;
    const struct truth_limits *limits = &inc->limits;
    if (event->sequence < inc->trimmed || inc->is_ended) {
        return true;
    }
    struct newer newer = newer_than(event);
    if (newer.n < limits->min_events && inc->n_rm_open == 0) { /* else it may have gone with another one */
        return false;
    }
    uint64_t age = BB_MAX(world->now - event->taken_at,
                          world->wall_most > event->time ? world->wall_most - event->time : 0);
    /* Brokers may count the heads of blocks among the bytes. */
    return newer.n >= limits->max_events || newer.same >= limits->max_per_path || age >= limits->max_age_us ||
           newer.bytes + event->len + (newer.n + 1) * BB_BLOCK_HEAD_MAX > limits->max_bytes;
}

bool truth_may_be_evicted(const struct world *world, const struct truth_event *event)
{
    const struct truth_inc *inc = event->inc;
    const uint64_t overhead = 256; /* of an event alone in its block, generously */
    uint64_t own = 0;
    uint64_t all = 0;
    for (size_t i = 0; i < inc->n; i++) {
        own += inc->events[i]->session >= event->session ? inc->events[i]->len + overhead : 0;
    }
    bool has_small_store = !inc->is_logged && world->memory.is_small;
    if (own >= BB_MIN(inc->ring, world->least_ring) || (has_small_store && own >= MEMORY_SMALL_CHANNEL)) {
        return true;
    }
    /* What waits for the disk takes memory as well. */
    for (const struct truth_event *other = world->truth.events; other != NULL; other = other->older) {
        bool is_newer =
            other->session >= event->session || other->seen >= event->seen; /* the log shows late */
        all += is_newer ? other->len + overhead : 0;
    }
    return all >= world->least_memory || (has_small_store && all >= MEMORY_SMALL_TOTAL);
}

bool truth_may_have_expired(const struct world *world, const struct truth_event *event)
{
    return event->ttl_us != 0 && (event->time + event->ttl_us < world->wall_most + 1000 ||
                                  event->taken_at + event->ttl_us < world->now + 1000);
}

bool truth_has_expired(const struct world *world, const struct truth_event *event, uint64_t slack_us)
{
    int64_t before = world_wall_least(world, world->now - BB_MIN(slack_us, world->now)) - world->wall_offset;
    return event->ttl_us != 0 &&
           event->time + event->ttl_us + slack_us < world_wall(world) + (uint64_t)before &&
           event->taken_at + event->ttl_us + slack_us < world->now;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include "tests/sim/broker.h"
#include "tests/sim/model/account.h"
#include "tests/sim/model/published.h"
#include "tests/sim/story.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define NEVER UINT64_MAX

/* A world that is not quiet after so much time is stuck. */
#define ENDING_US UINT64_C(30000000)
#define STEPS_MAX 60000

const char *world_ignored;

void world_fail(struct world *world, const char *kind, const char *format, ...)
{
    if (world->failed || (world_ignored != NULL && strstr(world_ignored, kind) != NULL)) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(world->why, sizeof(world->why), format, args);
    va_end(args);
    (void)snprintf(world->kind, sizeof(world->kind), "%s", kind);
    world->failed = true;
    story_tell(world, "WRONG (%s): %s", kind, world->why);
}

uint64_t world_wall(const struct world *world)
{
    return WALL_BASE + world->now + (uint64_t)world->wall_offset;
}

int64_t world_wall_least(const struct world *world, uint64_t since)
{
    int64_t least = world->wall_offset;
    for (size_t i = 0; i < BB_MIN(world->n_wall_sets, WALL_SETS_MAX); i++) {
        if (world->wall_sets[i].at > since) {
            least = BB_MIN(least, world->wall_sets[i].before);
        }
    }
    return least;
}

uint64_t world_when(const struct world *world, uint64_t wall)
{
    size_t n = world->n_wall_sets;
    uint64_t since = 0;
    for (size_t i = n - BB_MIN(n, WALL_SETS_MAX); i <= n; i++) {
        bool is_last = i == n;
        int64_t offset = is_last ? world->wall_offset : world->wall_sets[i % WALL_SETS_MAX].before;
        uint64_t until = is_last ? world->now : world->wall_sets[i % WALL_SETS_MAX].at;
        uint64_t at = wall - WALL_BASE - (uint64_t)offset;
        if (at >= since && at <= until) {
            return at;
        }
        since = until;
    }
    return world->now;
}

/* --- links ------------------------------------------------------------------------------------ */

struct sim_link *world_connect(struct world *world, struct sim_peer *peer)
{
    struct sim_link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        abort();
    }
    struct sim_rng *rng = &peer->rng;
    bool is_slow = sim_chance(rng, world->plan.profile.slow_net ? 600 : 60);
    link->peer = peer;
    link->number = ++world->n_links;
    link->is_json = peer->is_json;
    link->is_open = true;
    link->broken_at = NEVER;
    link->latency = is_slow ? sim_between(rng, 3000, 30000) : sim_between(rng, 20, 1500);
    link->capacity = sim_chance(rng, 150) ? sim_between(rng, 2000, 20000) : (size_t)1 << 22;
    link->jitter = sim_next(rng);
    link->next = world->links;
    world->links = link;
    return link;
}

/* Some of what was under way gets lost at once, some arrives; the broker's transport notices soon, late, or
 * never (until the core gives up). */
void world_cut(struct world *world, struct sim_link *link, struct sim_rng *rng)
{
    uint64_t kind = sim_below(rng, 10);
    link->is_open = false;
    link_queue_clear(&link->to_client);
    if (kind < 5) {
        link_queue_clear(&link->to_broker);
    }
    if (kind < 8) {
        link->broken_at = world->now + sim_below(rng, 40000);
    } else {
        link->broken_at = world->now + 1500000;
    }
}

void world_send(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bk_part part = {NULL, bytes.data, bytes.len};
    link->jitter = link->jitter * UINT64_C(6364136223846793005) + 1442695040888963407U;
    link_queue_push(&link->to_broker, link_msg_new(&part, 1),
                    world->now + link->latency + (link->jitter >> 33) % (link->latency + 1));
}

static void link_free(struct world *world, struct sim_link *link)
{
    judge_link_fini(world, link);
    link_queue_clear(&link->to_broker);
    link_queue_clear(&link->to_client);
    bk_edge_fini(&link->edge);
    free(link);
}

static void links_sweep(struct world *world)
{
    struct sim_link **at = &world->links;
    while (*at != NULL) {
        struct sim_link *link = *at;
        if (!link->is_open && link->core == NULL && (link->broken || link->to_broker.first == NULL)) {
            *at = link->next;
            link_free(world, link);
        } else {
            at = &link->next;
        }
    }
}

static void link_breaks(struct world *world, struct sim_link *link)
{
    link->broken = true;
    link->broken_at = NEVER;
    link_queue_clear(&link->to_broker);
    link->jitter++;
    if (link->core != NULL && link->jitter % 10 < 7) {
        broker_gone(world, link);
    } /* else the next send finds out, or the silence */
}

static void client_receives(struct world *world, struct sim_link *link)
{
    struct link_msg *msg = link_queue_pop(&link->to_client);
    if (link->is_open && link->peer->link == link) {
        link_msg_flatten(msg, &world->flat);
        link_msg_free(msg);
        peer_message(link->peer, bb_buf_slice(&world->flat));
    } else {
        link_msg_free(msg);
    }
}

/* --- acts of the world ------------------------------------------------------------------------ */

static void act_clock(struct world *world, const struct act *act)
{
    struct sim_rng rng = {act->seed};
    uint64_t size = sim_chance(&rng, 300) ? 3600000000U : sim_between(&rng, 1000, 300000);
    bool is_back = sim_chance(&rng, 500);
    size_t i = world->n_wall_sets++ % WALL_SETS_MAX;
    world->wall_sets[i].at = world->now;
    world->wall_sets[i].before = world->wall_offset;
    world->wall_offset += is_back ? -(int64_t)size : (int64_t)size;
    story_tell(world, "the clock is set %s by %" PRIu64 " us", is_back ? "back" : "ahead", size);
    judge_meets(world, SIZE_MAX, is_back ? F(clock_back) : F(clock_ahead));
}

static enum broker_change choose_change(const struct world *world, const struct act *act)
{
    struct sim_rng rng = {act->seed};
    uint64_t kind = sim_below(&rng, 10);
    if (kind < 5 || (!world->plan.profile.has_log && kind < 8)) {
        return CHANGE_NOTHING;
    }
    return kind < 7 ? CHANGE_OPTIONS : kind < 8 ? CHANGE_WIPED : CHANGE_RESTORED;
}

static void act(struct world *world)
{
    const struct act *act = &world->plan.acts[world->next_act++];
    struct sim_rng rng = {act->seed};
    const struct plan_mask *mask = world->mask;
    if (mask != NULL && (mask->without[world->next_act - 1] || (mask->without_peers >> act->who & 1) != 0)) {
        return;
    }
    if (act->kind == ACT_crash) {
        broker_restart(world, choose_change(world, act));
    } else if (act->kind == ACT_shut_down) {
        broker_shut_down(world);
    } else if (act->kind == ACT_clock) {
        act_clock(world, act);
    } else if (act->kind == ACT_window) {
        if (!world->is_draining) {
            broker_ingest(world, &rng);
        }
    } else {
        struct sim_peer *peer = &world->peers[act->who];
        story_tell(world, "#%zu peer %u: %s%s", world->next_act - 1, act->who, act_name(act->kind),
                   peer->state != PEER_READY ? " (not connected)" : "");
        peer_act(peer, act);
    }
}

/* --- the course of time ----------------------------------------------------------------------- */

enum step_kind {
    STEP_NONE,
    STEP_TO_BROKER,
    STEP_TO_CLIENT,
    STEP_BREAK,
    STEP_TURN,
    STEP_TICK,
    STEP_FLUSH,
    STEP_ACT,
    STEP_DISK,
    STEP_MEMORY,
    STEP_DRAIN,
};

struct step {
    enum step_kind kind;
    uint64_t at;
    struct sim_link *link;
    struct sim_peer *peer;
};

static void
step_offer(struct step *step, enum step_kind kind, uint64_t at, struct sim_link *link, struct sim_peer *peer)
{
    if (at < step->at) {
        *step = (struct step){kind, at, link, peer};
    }
}

static void offer_links(struct world *world, struct step *step)
{
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->to_broker.first != NULL && !link->is_paused) {
            step_offer(step, STEP_TO_BROKER, link->to_broker.first->arrival, link, NULL);
        }
        if (link->to_client.first != NULL) {
            uint64_t reads_at = link->is_open && !world->is_ending ? link->peer->stalled_until : 0;
            step_offer(step, STEP_TO_CLIENT, BB_MAX(link->to_client.first->arrival, reads_at), link, NULL);
        }
        step_offer(step, STEP_BREAK, link->broken_at, link, NULL);
    }
}

static struct step next_step(struct world *world)
{
    struct step step = {.at = NEVER};
    offer_links(world, &step);
    for (size_t i = 0; i < world->n_peers; i++) {
        bool is_out = world->mask != NULL && (world->mask->without_peers >> i & 1) != 0;
        if (!is_out) {
            step_offer(&step, STEP_TURN, world->peers[i].next_turn, NULL, &world->peers[i]);
        }
    }
    step_offer(&step, STEP_TICK, world->next_tick, NULL, NULL);
    step_offer(&step, STEP_FLUSH, world->flush_at, NULL, NULL);
    if (world->has_log) {
        step_offer(&step, STEP_DISK, world->disk.next_at, NULL, NULL);
    }
    if (world->memory.backend != NULL) {
        step_offer(&step, STEP_MEMORY, world->memory.next_at, NULL, NULL);
    }
    if (world->is_draining) {
        bool is_drained = bk_core_is_drained(world->core);
        step_offer(&step, STEP_DRAIN, is_drained ? world->now : world->drain_until, NULL, NULL);
    }
    if (!world->is_ending && world->next_act < world->plan.n) {
        step_offer(&step, STEP_ACT, world->plan.acts[world->next_act].at, NULL, NULL);
    }
    return step;
}

static void world_step(struct world *world)
{
    struct step step = next_step(world);
    world->now = BB_MAX(world->now, step.at);
    world->n_steps++;
    switch (step.kind) {
    case STEP_TO_BROKER:
        broker_message(world, step.link);
        break;
    case STEP_TO_CLIENT:
        client_receives(world, step.link);
        break;
    case STEP_BREAK:
        link_breaks(world, step.link);
        break;
    case STEP_TURN:
        peer_turn(step.peer);
        break;
    case STEP_TICK:
        broker_tick(world);
        break;
    case STEP_FLUSH:
        broker_flush(world);
        break;
    case STEP_ACT:
        act(world);
        break;
    case STEP_DISK:
        broker_disk(world);
        break;
    case STEP_MEMORY:
        broker_memory(world);
        break;
    case STEP_DRAIN:
        broker_drain(world);
        break;
    case STEP_NONE:
        break;
    }
    links_sweep(world);
}

/* --- the whole -------------------------------------------------------------------------------- */

static void calm_down(struct world *world, const struct plan_mask *mask)
{
    struct profile *profile = &world->plan.profile;
    if (mask != NULL && mask->calm) {
        profile->shaky = profile->fills_up = profile->slow_disk = profile->corrupt = profile->short_reads =
            false;
        profile->small_queue = profile->slow_net = profile->small_stage = profile->small_flight = false;
    }
}

/* What a sabotage can happen to must be there. */
static void suit_sabotage(struct world *world, const struct world_options *options)
{
    struct profile *profile = &world->plan.profile;
    enum disk_lie lie = (enum disk_lie)sabotage_lie(options->sabotage);
    uint64_t n_left = options->sabotage != SABOTAGE_none ? sim_below(&world->rng, 4) : 0;
    if (lie != LIE_NONE) {
        profile->has_log = true;
    }
    if (lie == LIE_READ || lie == LIE_EXPIRED || lie == LIE_TRIM || lie == LIE_LOCATE) {
        profile->is_tight = true;
        profile->ttl = lie == LIE_EXPIRED ? 800 : profile->ttl;
    }
    if (lie == LIE_CURSORS || lie == LIE_PRODUCERS) {
        profile->durable = 800;
        world->plan.acts[world->plan.n / 2].kind = ACT_crash;
        for (size_t i = world->plan.n / 2 + 10; i < world->plan.n; i += 3) {
            world->plan.acts[i].kind = ACT_subscribe;
        }
        for (size_t i = 4; i < world->plan.n / 2; i += 4) {
            world->plan.acts[i].kind = i % 8 == 0 ? ACT_subscribe : ACT_save_cursor;
        }
    }
    profile->retained = options->sabotage == SABOTAGE_drop_retained ? 900 : profile->retained;
    if (!options->is_dry) {
        world->sabotage.kind = options->sabotage;
        world->sabotage.n_left = n_left;
        world->disk.lie = lie;
    }
}

static void world_init(struct world *world, uint64_t seed, const struct world_options *options)
{
    *world = (struct world){.seed = seed, .tells = options->tells, .mask = options->mask};
    plan_make(&world->plan, seed);
    world->rng = (struct sim_rng){seed ^ UINT64_C(0x5851f42d4c957f2d)};
    calm_down(world, options->mask);
    disk_init(&world->disk, world, sim_next(&world->rng));
    suit_sabotage(world, options);
    world->config = BK_CONFIG_INIT;
    world->config.seed = sim_next(&world->rng);
    world->config.server = sim_between(&world->rng, 1, 9);
    world->config.heartbeat_us = 200000;
    world->has_log = world->plan.profile.has_log;
    world->has_memory = world->plan.profile.has_memory;
    world->least_ring = world->least_memory = NO_LIMIT;
    world->memory.next_at = NEVER;
    broker_init(world);
    broker_choose_sizes(world);
    world->n_peers = world->plan.profile.n_peers;
    for (size_t i = 0; i < world->n_peers; i++) {
        peer_init(&world->peers[i], world, i, sim_next(&world->rng));
    }
    broker_start(world);
}

static void world_fini(struct world *world)
{
    broker_stop(world);
    while (world->links != NULL) {
        struct sim_link *link = world->links;
        world->links = link->next;
        link_free(world, link);
    }
    for (size_t i = 0; i < world->n_peers; i++) {
        peer_fini(&world->peers[i]);
    }
    cursor_fini(world);
    written_fini(world);
    producers_fini(world);
    judge_fini(&world->judge);
    truth_fini(&world->truth);
    disk_fini(&world->disk);
    bk_edge_scratch_fini(&world->scratch);
    bb_buf_fini(&world->sabotage.changed);
    bb_buf_fini(&world->sabotage.held);
    bb_buf_fini(&world->flat);
    bb_buf_fini(&world->shown);
}

static bool is_quiet(const struct world *world)
{
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->is_open && (link->to_client.first != NULL || link->to_broker.first != NULL)) {
            return false;
        }
    }
    for (size_t i = 0; i < world->n_peers; i++) {
        bool is_out = world->mask != NULL && (world->mask->without_peers >> i & 1) != 0;
        if (!is_out && !peer_is_quiet(&world->peers[i])) {
            return false;
        }
    }
    return world->flush_at == NEVER && !world->is_draining &&
           (!world->has_log || disk_is_quiet(&world->disk));
}

static void fail_restless(struct world *world)
{
    const char *what = judge_owes(world);
    for (size_t i = 0; i < world->n_peers && what == NULL; i++) {
        const struct sim_peer *peer = &world->peers[i];
        if (!peer_is_quiet(peer)) {
            world_fail(world, "restless",
                       "peer %zu does not come to rest: state %d, %zu batches without an answer", i,
                       (int)peer->state, peer->n_batches);
        }
    }
    world_fail(world, "restless", "the world does not come to rest: %s", what != NULL ? what : "the broker");
}

/* Let everything arrive, until nothing is owed. */
static void world_end(struct world *world)
{
    uint64_t deadline = world->now + ENDING_US;
    world->is_ending = true;
    story_tell(world, "nothing new happens any more");
    for (size_t i = 0; i < world->n_peers; i++) {
        struct sim_peer *peer = &world->peers[i];
        if (peer->is_deaf) { /* what it has not answered is not asked again */
            peer->is_deaf = false;
            peer_leave(peer, &peer->rng);
        }
        world->peers[i].stalled_until = world->peers[i].miserly_until = 0;
        world->peers[i].next_turn = BB_MIN(world->peers[i].next_turn, world->now + 1000);
    }
    disk_calm(&world->disk);
    while (!world->failed && (!is_quiet(world) || judge_owes(world) != NULL)) {
        disk_calm(&world->disk);
        world_step(world);
        if (world->now > deadline || world->n_steps > STEPS_MAX) {
            fail_restless(world);
        }
    }
}

void world_run(uint64_t seed, const struct world_options *options, struct world_result *ret_result)
{
    static struct world world; /* large */
    world_init(&world, seed, options);
    while (!world.failed && world.next_act < world.plan.n && world.n_steps < STEPS_MAX) {
        world_step(&world);
    }
    if (!world.failed) {
        world_end(&world);
    }
    *ret_result = (struct world_result){
        .failed = world.failed,
        .sabotaged = world.sabotage.is_done || world.disk.has_lied,
        .hash = world.hash,
        .n_steps = world.n_steps,
        .n_events = world.truth.n_events,
        .n_gaps = world.judge.n_gaps,
        .n_runs = world.n_runs,
    };
    memcpy(ret_result->why, world.why, sizeof(world.why));
    memcpy(ret_result->kind, world.kind, sizeof(world.kind));
    world_fini(&world);
}

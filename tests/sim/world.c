/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include "proto/base/error.h"

#include "tests/sim/broker_side.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define NEVER UINT64_MAX

/* 2026-01-01 in us. */
#define WALL_BASE UINT64_C(1767225600000000)

/* A world that is not quiet after so much time is stuck. */
#define ENDING_US UINT64_C(120000000)

void world_fail(struct world *world, const char *format, ...)
{
    if (world->failed) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(world->why, sizeof(world->why), format, args);
    va_end(args);
    world->failed = true;
}

uint64_t world_wall(const struct world *world)
{
    return WALL_BASE + world->now + (uint64_t)world->wall_offset;
}

/* --- links ---------------------------------------------------------------------------------------- */

struct sim_link *world_connect(struct world *world, struct sim_client *client)
{
    struct sim_link *link = calloc(1, sizeof(*link));
    if (link == NULL) {
        abort();
    }
    link->client = client;
    link->is_open = true;
    link->broken_at = NEVER;
    link->latency = sim_chance(&world->rng, 200) ? sim_between(&world->rng, 5000, 60000)
                                                 : sim_between(&world->rng, 50, 3000);
    link->capacity = sim_chance(&world->rng, 200) ? sim_between(&world->rng, 2000, 20000) : (size_t)1 << 22;
    link->next = world->links;
    world->links = link;
    return link;
}

/* Some of what was under way gets lost at once, some arrives; the broker's transport notices soon, late, or
 * never (until the core gives up). */
void world_cut(struct world *world, struct sim_link *link)
{
    uint64_t kind = sim_below(&world->rng, 10);
    link->is_open = false;
    link_queue_clear(&link->to_client);
    if (kind < 5) {
        link_queue_clear(&link->to_broker);
    }
    if (kind < 8) {
        link->broken_at = world->now + sim_below(&world->rng, 40000);
    } else if (link->client->heartbeat_ms == 0) {
        link->broken_at = world->now + 3000000;
    }
}

void world_send(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bk_part part = {NULL, bytes.data, bytes.len};
    uint64_t jitter = sim_below(&world->rng, link->latency);
    link_queue_push(&link->to_broker, link_msg_new(&part, 1), world->now + link->latency + jitter);
}

static void link_free(struct sim_link *link)
{
    link_queue_clear(&link->to_broker);
    link_queue_clear(&link->to_client);
    free(link);
}

static void links_sweep(struct world *world)
{
    struct sim_link **at = &world->links;
    while (*at != NULL) {
        struct sim_link *link = *at;
        if (!link->is_open && link->core == NULL && (link->broken || link->to_broker.first == NULL)) {
            *at = link->next;
            link_free(link);
        } else {
            at = &link->next;
        }
    }
}

/* --- the broker's life ------------------------------------------------------------------------------ */

static void broker_time(struct world *world)
{
    bk_core_set_time(world->core, world->now + 1, world_wall(world));
}

static void broker_start(struct world *world)
{
    world->run = sim_next(&world->rng) >> 1;
    world->config.run = world->run;
    world->n_runs++;
    world->is_dead = false;
    if (bk_core_new(&world->config, &world->out, &world->core) < 0) {
        abort();
    }
    if (world->is_logged) {
        disk_open(&world->disk, bk_core_listener(world->core, BK_STORE_LOG), world->now);
        broker_time(world);
        int r = bk_core_set_backend(world->core, BK_STORE_LOG, &world->disk.backend);
        if (r < 0) {
            world_fail(world, "the log cannot be loaded: %s", bb_strerror(r));
        }
    }
    world->next_tick = world->now;
    world->flush_at = NEVER;
}

/* All links die with the broker; a transport lets go of what it still held before the core ends. */
static void broker_stop(struct world *world)
{
    world->is_dead = true;
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        link_queue_clear(&link->to_client);
        link_queue_clear(&link->to_broker);
        link->broken = true;
        link->is_paused = false;
    }
    if (world->held != NULL) {
        link_msg_free(world->held);
        world->held = NULL;
    }
    if (world->is_logged) {
        disk_crash(&world->disk);
    }
    bk_core_free(world->core);
    world->core = NULL;
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->core != NULL) {
            world_fail(world, "the end of the core left a client open");
            link->core = NULL;
        }
    }
}

static void broker_restart(struct world *world)
{
    broker_stop(world);
    if (world->is_logged) {
        broker_compare_disk(world);
    } else {
        ledger_fini(&world->ledger);
        world->life++;
    }
    for (size_t i = 0; i < world->n_clients; i++) {
        if (world->clients[i].link != NULL && sim_chance(&world->rng, 800)) {
            client_leave(&world->clients[i]);
        }
    }
    broker_start(world);
}

static void broker_flush(struct world *world)
{
    broker_time(world);
    bk_core_flush(world->core);
    world->flush_at = bk_core_wants_flush(world->core) ? world->now + 1 + sim_below(&world->rng, 300) : NEVER;
    broker_check(world);
}

static void broker_tick(struct world *world)
{
    broker_time(world);
    uint64_t next = bk_core_tick(world->core);
    world->next_tick = world->now + BB_MAX(BB_MIN(next, 10000000), 1000);
    if (bk_core_wants_flush(world->core)) {
        world->flush_at = BB_MIN(world->flush_at, world->now + 1);
    }
}

/* The disk has done something, which the core may have heard of. */
static void broker_disk(struct world *world)
{
    bool had_lied = world->disk.has_lied;
    broker_time(world);
    disk_step(&world->disk, world->now);
    broker_flush(world);
    world->sabotaged = world->sabotaged || world->disk.has_lied;
    if (world->disk.has_lied && !had_lied && world->disk.lie == LIE_FLUSHED) {
        broker_restart(world);
    }
}

/* A message arrives at the broker, as the plug would take it. */
static void broker_message(struct world *world, struct sim_link *link)
{
    struct link_msg *msg = link_queue_pop(&link->to_broker);
    struct bk_bytes *owner = NULL;
    broker_time(world);
    if (link->core == NULL && !link->shut_out) {
        link->core = bk_core_client_add(world->core, link);
        link->sent_bytes = link->read_bytes = 0;
    }
    if (link->core != NULL) {
        broker_note_input(world, link, bb_slice(msg->parts[0].data, msg->len));
        struct bb_slice bytes = bb_slice(msg->parts[0].data, msg->len);
        if (sim_chance(&world->rng, 500)) {
            owner = bk_bytes_new(bk_core_meter(world->core), msg->len);
            if (owner == NULL) {
                abort();
            }
            memcpy(owner->data, bytes.data, bytes.len);
            bytes.data = owner->data;
        }
        if (!broker_forge_credit(world, link, bytes)) {
            bk_core_message(world->core, link->core, bytes, owner);
        }
        if (world->sabotage == SABOTAGE_REPEAT_PUBLISH && !world->sabotaged && link->core != NULL) {
            broker_repeat(world, link, bytes, owner);
        }
        bk_bytes_unref(owner);
    }
    link_msg_free(msg);
    if (sim_chance(&world->rng, 600)) {
        broker_flush(world);
    } else {
        world->flush_at = BB_MIN(world->flush_at, world->now + sim_below(&world->rng, 5000));
    }
}

static void link_breaks(struct world *world, struct sim_link *link)
{
    link->broken = true;
    link->broken_at = NEVER;
    link_queue_clear(&link->to_broker);
    if (link->core != NULL && sim_chance(&world->rng, 700)) {
        struct bk_client *core = link->core;
        link->core = NULL;
        broker_time(world);
        bk_core_client_gone(world->core, core);
    } /* else the next send finds out, or the silence */
}

/* --- faults --------------------------------------------------------------------------------------- */

static void fault(struct world *world)
{
    uint64_t kind = sim_below(&world->rng, 100);
    world->next_fault = world->now + sim_between(&world->rng, 20000, 400000);
    bool lies_at_load = world->disk.lie == LIE_PRODUCERS || world->disk.lie == LIE_CURSORS;
    if (kind < (lies_at_load ? 40 : 6)) {
        broker_restart(world);
    } else if (kind < 40) {
        int64_t step = (int64_t)sim_below(&world->rng, 20000000) - 10000000;
        world->wall_offset += step;
    } else if (kind < 80 && world->n_clients > 0) {
        client_leave(&world->clients[sim_below(&world->rng, world->n_clients)]);
    }
}

/* --- the course of time ----------------------------------------------------------------------------- */

enum step_kind {
    STEP_NONE,
    STEP_TO_BROKER,
    STEP_TO_CLIENT,
    STEP_BREAK,
    STEP_ACT,
    STEP_TICK,
    STEP_FLUSH,
    STEP_FAULT,
    STEP_DISK,
};

struct step {
    enum step_kind kind;
    uint64_t at;
    struct sim_link *link;
    struct sim_client *client;
};

static void step_offer(struct step *step, enum step_kind kind, uint64_t at, void *whom)
{
    if (at >= step->at) {
        return;
    }
    *step = (struct step){.kind = kind, .at = at};
    if (kind == STEP_ACT) {
        step->client = whom;
    } else {
        step->link = whom;
    }
}

static struct step next_step(struct world *world)
{
    struct step step = {.at = NEVER};
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->to_broker.first != NULL && !link->is_paused) {
            step_offer(&step, STEP_TO_BROKER, link->to_broker.first->arrival, link);
        }
        if (link->to_client.first != NULL) {
            uint64_t reads_at = link->is_open && !world->is_ending ? link->client->stalled_until : 0;
            step_offer(&step, STEP_TO_CLIENT, BB_MAX(link->to_client.first->arrival, reads_at), link);
        }
        step_offer(&step, STEP_BREAK, link->broken_at, link);
    }
    for (size_t i = 0; i < world->n_clients; i++) {
        step_offer(&step, STEP_ACT, world->clients[i].next_act, &world->clients[i]);
    }
    step_offer(&step, STEP_TICK, world->next_tick, NULL);
    step_offer(&step, STEP_FLUSH, world->flush_at, NULL);
    if (world->is_logged) {
        step_offer(&step, STEP_DISK, world->disk.next_at, NULL);
    }
    if (!world->is_ending) {
        step_offer(&step, STEP_FAULT, world->next_fault, NULL);
    }
    return step;
}

static void client_receives(struct world *world, struct sim_link *link)
{
    struct link_msg *msg = link_queue_pop(&link->to_client);
    if (link->is_open) {
        link_msg_flatten(msg, &world->flat);
        link_msg_free(msg);
        client_message(link->client, bb_buf_slice(&world->flat));
    } else {
        link_msg_free(msg);
    }
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
    case STEP_ACT:
        client_act(step.client);
        break;
    case STEP_TICK:
        broker_tick(world);
        break;
    case STEP_FLUSH:
        broker_flush(world);
        break;
    case STEP_FAULT:
        fault(world);
        break;
    case STEP_DISK:
        broker_disk(world);
        break;
    case STEP_NONE:
        break;
    }
    links_sweep(world);
}

/* --- the whole ------------------------------------------------------------------------------------ */

static enum disk_lie lie_of(enum sabotage sabotage)
{
    return sabotage < SABOTAGE_LIE_FLUSHED ? LIE_NONE
                                           : LIE_FLUSHED + (enum disk_lie)(sabotage - SABOTAGE_LIE_FLUSHED);
}

static void world_init(struct world *world, uint64_t seed, enum sabotage sabotage)
{
    struct sim_rng *rng = &world->rng;
    *world = (struct world){.rng = {seed * UINT64_C(0x2545f4914f6cdd1d) + 1}};
    world->config = BK_CONFIG_INIT;
    world->config.check = true;
    world->config.seed = sim_next(rng);
    world->config.server = sim_between(rng, 1, 9);
    if (sim_chance(rng, 700)) { /* so small that memory runs out all the time */
        world->config.ring_bytes = sim_between(rng, 1000, 60000);
        world->config.memory_bytes = sim_between(rng, 4000, 200000);
    }
    if (sim_chance(rng, 400)) {
        world->config.inflight_bytes = sim_between(rng, 2000, 50000);
    }
    world->config.heartbeat_us = 200000;
    world->out = (struct bk_out){.context = world, .window_is_open = &world->window_is_open};
    world->window_is_open = true;
    world->life = 1;
    world->sabotage = sabotage;
    world->is_logged = sim_chance(rng, 400) || sabotage >= SABOTAGE_DROP_RETRACTED;
    if (world->is_logged) {
        disk_init(&world->disk, sim_next(rng));
        world->disk.lie = lie_of(sabotage);
        world->disk.is_shaky = sabotage == SABOTAGE_DROP_RETRACTED;
        world->config.ring_bytes =
            BB_MAX(world->config.ring_bytes, (size_t)64 << 10); /* the least of a channel */
        world->config.stage_bytes = sim_chance(rng, 300) ? sim_between(rng, 2000, 40000) : (size_t)64 << 20;
    }
    broker_side_init(world);
    world->n_clients = sim_between(rng, 1, WORLD_CLIENTS_MAX);
    for (size_t i = 0; i < world->n_clients; i++) {
        client_init(&world->clients[i], world, i);
    }
    world->next_fault = sim_between(rng, 20000, 400000);
    broker_start(world);
}

static void world_fini(struct world *world)
{
    broker_stop(world);
    while (world->links != NULL) {
        struct sim_link *link = world->links;
        world->links = link->next;
        link_free(link);
    }
    for (size_t i = 0; i < world->n_clients; i++) {
        client_fini(&world->clients[i]);
    }
    ledger_fini(&world->ledger);
    bb_buf_fini(&world->flat);
    if (world->is_logged) {
        disk_fini(&world->disk);
    }
}

static bool is_quiet(const struct world *world)
{
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->is_open && link->to_client.first != NULL) {
            return false;
        }
    }
    for (size_t i = 0; i < world->n_clients; i++) {
        if (!client_is_quiet(&world->clients[i])) {
            return false;
        }
    }
    return world->flush_at == NEVER && (!world->is_logged || disk_is_quiet(&world->disk));
}

static void fail_restless(struct world *world)
{
    for (size_t i = 0; i < world->n_clients; i++) {
        const struct sim_client *client = &world->clients[i];
        if (client->query.corr != 0) {
            world_fail(world, "client %zu does not come to rest: a query has no answer", i);
        }
        if (client->state != CLIENT_READY || client->first_unacked != client->n_batches) {
            world_fail(world, "client %zu does not come to rest: state %d, %" PRIu64 " batches without ack",
                       i, (int)client->state, client->n_batches - client->first_unacked);
        }
        for (size_t j = 0; j < CLIENT_WATCHES_MAX; j++) {
            const struct watch *watch = &client->watches[j];
            if (watch->in_use && watch->retained.is_due) {
                world_fail(world,
                           "sub %" PRIu64 " of client %zu does not come to rest: retained values are missing",
                           watch->id, i);
            }
            if (watch->in_use && (watch->until == UNTIL_NOW || watch->until == UNTIL_TIME)) {
                world_fail(world, "sub %" PRIu64 " of client %zu does not come to rest: it does not end",
                           watch->id, i);
            }
            if (watch->in_use && (!watch->is_subscribed || watch_missing(&world->ledger, watch) > 0)) {
                world_fail(world,
                           "sub %" PRIu64 " (%s) of client %zu does not come to rest: %" PRIu64
                           " events missing",
                           watch->id, watch->overflow, i, watch_missing(&world->ledger, watch));
            }
        }
    }
    world_fail(world, "the broker does not come to rest");
}

/* Let everything arrive, then compare the sums. */
static void world_end(struct world *world)
{
    uint64_t deadline = world->now + ENDING_US;
    world->is_ending = true;
    for (size_t i = 0; i < world->n_clients; i++) {
        world->clients[i].stalled_until = world->clients[i].miserly_until = 0;
    }
    while (!world->failed && !is_quiet(world)) {
        disk_calm(&world->disk);
        world_step(world);
        if (world->now > deadline) {
            fail_restless(world);
        }
    }
    for (size_t i = 0; i < world->n_clients && !world->failed; i++) {
        for (size_t j = 0; j < CLIENT_WATCHES_MAX; j++) {
            if (world->clients[i].watches[j].in_use) {
                watch_check_sums(world, &world->clients[i].watches[j]);
            }
        }
    }
}

void world_run(uint64_t seed,
               uint64_t n_steps,
               enum sabotage sabotage,
               bool is_talkative,
               struct world_result *ret_result)
{
    struct world world;
    world_init(&world, seed, sabotage);
    world.is_talkative = is_talkative;
    while (!world.failed && world.n_steps < n_steps) {
        world_step(&world);
    }
    if (!world.failed) {
        world_end(&world);
    }
    world_fini(&world);
    *ret_result = (struct world_result){
        .failed = world.failed,
        .sabotaged = world.sabotaged,
        .hash = world.hash,
        .n_steps = world.n_steps,
        .n_events = world.n_events,
        .n_gaps = world.n_gaps,
        .n_runs = world.n_runs,
    };
    memcpy(ret_result->why, world.why, sizeof(world.why));
}

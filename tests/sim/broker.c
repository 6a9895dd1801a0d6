/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/broker.h"

#include "proto/base/error.h"
#include "proto/json/event_json.h"
#include "proto/json/message_json.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/published.h"
#include "tests/sim/story.h"

#include <inttypes.h>
#include <stdlib.h>

#define NEVER UINT64_MAX

/* An orderly end waits for so long. */
#define DRAIN_US 400000

static void set_time(struct world *world)
{
    world->wall_most = BB_MAX(world->wall_most, world_wall(world));
    bk_core_set_time(world->core, world->now + 1, world_wall(world));
}

/* A call into the core is over. */
static void settle(struct world *world)
{
    judge_settle(world);
}

/* --- struct bk_out ---------------------------------------------------------------------------- */

/* As a plug does it: the answer to a JSON peer is converted in the scratch memory in which its message may
 * lie. */
static void check_json(struct world *world,
                       struct sim_link *link,
                       const struct bk_part *parts,
                       size_t n_parts,
                       struct bb_slice bytes)
{
    struct bb_slice text = {0};
    if (bk_edge_to_json(&world->plug, &link->edge, &world->scratch, parts, n_parts, &text) < 0) {
        world_fail(world, "json", "a message cannot be written as JSON");
        return;
    }
    const char *why = json_check(text, bytes);
    if (why != NULL) {
        world_fail(world, "json", "the JSON form of a message is another one: %s", why);
    }
}

static void note_output(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        world->hash = (world->hash ^ bytes.data[i]) * UINT64_C(0x100000001b3);
    }
    for (int n = sabotage_output(world, link, &bytes); n > 0; n--) {
        judge_output(world, link, bytes);
    }
}

static int out_send(void *context, void *peer, const struct bk_part *parts, size_t n_parts)
{
    struct world *world = context;
    struct sim_link *link = peer;
    if (world->is_dead || link->broken) {
        return BB_ECLOSED;
    }
    if (link->core == NULL || n_parts > BK_PARTS_MAX) {
        world_fail(world, "core", "the core sends to a client that it has closed, or %zu parts", n_parts);
        return BB_ECLOSED;
    }
    if (link->to_client.bytes > link->capacity) {
        link->is_clogged = true;
        return BB_EAGAIN;
    }
    struct bb_buf flat = BB_BUF_INIT;
    struct link_msg *msg = link_msg_new(parts, n_parts);
    link_msg_flatten(msg, &flat);
    if (link->is_json) {
        check_json(world, link, parts, n_parts, bb_buf_slice(&flat));
    }
    note_output(world, link, bb_buf_slice(&flat));
    link->jitter = link->jitter * UINT64_C(6364136223846793005) + 1442695040888963407U;
    link_queue_push(&link->to_client, msg,
                    world->now + link->latency + (link->jitter >> 33) % (link->latency + 1));
    bb_buf_fini(&flat);
    return 0;
}

static void out_close(void *context, void *peer, bool shut_out)
{
    struct world *world = context;
    struct sim_link *link = peer;
    if (link->core == NULL) {
        world_fail(world, "core", "the core closes a client twice");
    }
    judge_settle(world);
    judge_closed(world, link, true);
    story_tell(world, "peer %" PRIu64 "/%" PRIu64 " is closed by the core", link->peer->index, link->number);
    link->core = NULL;
    link->shut_out = shut_out;
    link->is_paused = false;
}

static void out_pause(void *context, void *peer, bool paused)
{
    struct world *world = context;
    struct sim_link *link = peer;
    if (link->is_paused == paused) {
        world_fail(world, "core", "a client is paused twice, or goes on twice");
    }
    link->is_paused = paused;
}

/* As the windows convert it. */
static void out_window(void *context, const struct bk_window_event *shown)
{
    struct world *world = context;
    if (world->is_dead) {
        return;
    }
    struct bb_slice rest = shown->raw;
    struct bb_event_view view;
    const struct bb_event_meta meta = {shown->server,   shown->session, shown->instance,
                                       shown->sequence, shown->time,    shown->source};
    const struct truth_shown truth = {
        .raw = shown->raw,
        .session = shown->session,
        .instance = shown->instance,
        .time = shown->time,
        .source = shown->source,
        .sequence = shown->sequence,
    };
    truth_see(world, &truth);
    bb_buf_reset(&world->shown);
    if (bb_event_read(&rest, &view) == 0 && bb_event_map_write(&world->shown, &meta, &view) < 0) {
        world_fail(world, "window", "an event cannot be shown at the window");
    }
}

static void out_log(void *context, enum bk_log_level level, const char *id, const char *text)
{
    story_tell(context, "log %d %s: %s", (int)level, id, text);
}

void broker_init(struct world *world)
{
    world->out = (struct bk_out){
        .context = world,
        .send = out_send,
        .close = out_close,
        .pause = out_pause,
        .window = out_window,
        .window_is_open = &world->window_is_open,
        .log = out_log,
    };
    world->window_is_open = true;
    world->plug.server = world->config.server;
    world->plug.max_message = world->config.max_message;
}

/* --- start and stop --------------------------------------------------------------------------- */

static void choose_sizes(struct world *world)
{
    const struct profile *profile = &world->plan.profile;
    struct sim_rng *rng = &world->rng;
    struct bk_config *config = &world->config;
    config->ring_bytes = (size_t)16 << 20;
    config->memory_bytes = (size_t)256 << 20;
    if (profile->is_tight) { /* so small that memory runs out all the time */
        config->ring_bytes = profile->has_log ? (size_t)64 << 10 : sim_between(rng, 1000, 30000);
        config->memory_bytes = sim_between(rng, 3000, 40000);
    }
    /* busbard allows no less than the longest message; here that is what one world publishes. */
    config->inflight_bytes = profile->small_flight ? sim_between(rng, 24000, 96000) : (size_t)4 << 20;
    config->stage_bytes = profile->small_stage ? sim_between(rng, 1000, 20000) : (size_t)64 << 20;
    world->least_ring = BB_MIN(world->least_ring, config->ring_bytes);
    world->least_memory = BB_MIN(world->least_memory, config->memory_bytes);
}

void broker_choose_sizes(struct world *world)
{
    choose_sizes(world);
}

static struct disk_temper choose_temper(struct world *world)
{
    const struct profile *profile = &world->plan.profile;
    return (struct disk_temper){
        .is_shaky = profile->shaky,
        .fills_up = profile->fills_up,
        .is_slow = profile->slow_disk,
        .is_corrupt = profile->corrupt,
        .is_short = profile->short_reads,
        .queue = profile->small_queue ? sim_between(&world->rng, 2, 6) : 40,
    };
}

void broker_start(struct world *world)
{
    world->run = (world->n_runs + 1) * 1000003 + sim_below(&world->rng, 1000);
    world->config.run = world->run;
    world->config.first_session = BB_MAX(world->wall_most, world_wall(world));
    world->config.check = BK_CHECK_ALWAYS;
    world->n_runs++;
    world->is_dead = world->is_draining = false;
    world->judge.full_since = 0;
    truth_begin_run(world, world->run);
    if (bk_core_new(&world->config, &world->out, &world->core) < 0) {
        abort();
    }
    world->plug.core = world->core;
    set_time(world);
    if (world->has_memory) {
        memory_open(world, world->plan.profile.small_backend);
    }
    if (world->has_log) {
        struct disk_temper temper = choose_temper(world);
        disk_open(&world->disk, bk_core_listener(world->core, BK_STORE_LOG), &temper, world->now);
        int r = bk_core_set_backend(world->core, BK_STORE_LOG, &world->disk.backend);
        if (r < 0) {
            world_fail(world, "load", "the log cannot be loaded: %s", bb_strerror(r));
        }
    }
    world->next_tick = world->now;
    world->flush_at = NEVER;
    story_tell(world, "the broker starts: run %" PRIu64 ", %s log, %s backend in memory, %zu bytes of memory",
               world->run, world->has_log ? "a" : "no", world->has_memory ? "a" : "no",
               world->config.memory_bytes);
}

void broker_stop(struct world *world)
{
    world->is_dead = true;
    judge_settle(world);
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        link_queue_clear(&link->to_client);
        link_queue_clear(&link->to_broker);
        link->broken = true;
        link->is_paused = false;
    }
    if (world->has_log) {
        disk_crash(&world->disk);
    }
    memory_close(world);
    bk_core_free(world->core);
    world->core = world->plug.core = NULL;
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->core != NULL) {
            world_fail(world, "core", "the end of the core left a client open");
            link->core = NULL;
        }
    }
}

/* What the disk has of a channel, and no more, is what it is now. */
static void keep_of_disk(struct world *world, size_t channel)
{
    struct truth_name *name = &world->truth.names[channel];
    for (struct truth_inc **at = &name->inc; *at != NULL; at = &(*at)->next) {
        struct truth_inc *inc = *at;
        bool is_here = inc->id != 0 && inc->is_logged && inc->generation == world->disk.generation;
        const struct store_channel *stored = is_here ? store_channel_of(&world->disk.store, inc->id) : NULL;
        if (stored == NULL || stored->removed ||
            !bb_slice_equal(bb_buf_slice(&stored->name), bb_slice_str(name->text))) {
            continue;
        }
        *at = inc->next; /* to the front: what came after it is forgotten */
        inc->next = name->inc;
        name->inc = inc;
        inc->is_ended = false;
        inc->gone_at = 0;
        truth_cut(world, inc, stored->last);
        if (stored->last > 0) {
            truth_durable(world, inc, stored->last);
            truth_load(world, inc);
        }
        return;
    }
}

/* The broker is gone: what is on the disk stays. */
static void forget(struct world *world, enum broker_change change)
{
    for (size_t i = 0; i < world->truth.n_names; i++) {
        world->truth.names[i].n_rm_asked = 0;
        for (struct truth_inc *inc = world->truth.names[i].inc; inc != NULL; inc = inc->next) {
            inc->gone_at = inc->gone_at != 0 ? inc->gone_at : world->now;
            inc->is_ended = true;
            if (change == CHANGE_RESTORED) { /* it may know of neither */
                inc->trim_done = inc->limits.min_events = 0;
            }
        }
        if (world->has_log) {
            keep_of_disk(world, i);
        }
        if (change != CHANGE_WIPED) {
            truth_carry(world, i, change == CHANGE_RESTORED);
        }
        for (struct truth_inc *inc = world->truth.names[i].inc; inc != NULL; inc = inc->next) {
            bool is_here = inc->generation == world->disk.generation;
            if (is_here && store_channel_of(&world->disk.store, inc->id) == NULL) {
                inc->id = 0; /* it may be given again */
            }
        }
    }
    truth_forget_lives(world);
}

static uint64_t change_things(struct world *world, enum broker_change change)
{
    choose_sizes(world);
    switch (change) {
    case CHANGE_NOTHING:
        return 0;
    case CHANGE_OPTIONS:
        world->has_memory = sim_chance(&world->rng, 500);
        world->has_log = world->plan.profile.has_log && sim_chance(&world->rng, 700);
        return F(other_options);
    case CHANGE_WIPED:
        disk_wipe(&world->disk);
        return F(wiped);
    case CHANGE_RESTORED:
        if (world->disk.has_copy) {
            disk_restore(&world->disk);
            truth_restored(world, world->disk.copied_at);
        }
        return world->disk.has_copy ? F(restored) : 0;
    }
    return 0;
}

void broker_restart(struct world *world, enum broker_change change)
{
    static const char *const words[] = {"", ", with other options", ", its disk is wiped",
                                        ", an older copy of its disk is restored"};
    bool was_orderly = world->is_draining;
    story_tell(world, "the broker %s%s", was_orderly ? "has shut down" : "is killed", words[change]);
    broker_stop(world);
    uint64_t met = change_things(world, change) | (was_orderly ? F(shut_down) : F(crashed));
    cursor_broker_ended(world, change == CHANGE_WIPED, change == CHANGE_RESTORED && world->disk.has_copy);
    judge_broker_ended(world, world->has_log && change != CHANGE_WIPED && change != CHANGE_RESTORED);
    forget(world, change);
    for (size_t i = 0; i < world->n_peers; i++) {
        struct sim_peer *peer = &world->peers[i];
        peer->met |= met;
        if (peer->link != NULL && sim_chance(&peer->rng, 800)) {
            peer_leave(peer, &peer->rng);
        }
    }
    broker_start(world);
}

void broker_shut_down(struct world *world)
{
    if (world->is_draining) {
        return;
    }
    story_tell(world, "the broker begins to shut down");
    world->is_draining = true;
    world->drain_until = world->now + DRAIN_US;
    set_time(world);
    bk_core_shut_down(world->core);
    settle(world);
}

void broker_drain(struct world *world)
{
    if (!world->is_draining || (!bk_core_is_drained(world->core) && world->now < world->drain_until)) {
        return;
    }
    set_time(world);
    bk_core_say_goodbye(world->core);
    settle(world);
    broker_restart(world, CHANGE_NOTHING);
}

/* --- calls ------------------------------------------------------------------------------------ */

void broker_flush(struct world *world)
{
    set_time(world);
    bk_core_flush(world->core);
    settle(world);
    world->flush_at = bk_core_wants_flush(world->core) ? world->now + 1 + sim_below(&world->rng, 300) : NEVER;
}

void broker_tick(struct world *world)
{
    set_time(world);
    uint64_t next = bk_core_tick(world->core);
    settle(world);
    world->next_tick = world->now + BB_MAX(BB_MIN(next, 10000000), 1000);
    if (bk_core_wants_flush(world->core)) {
        world->flush_at = BB_MIN(world->flush_at, world->now + 1);
    }
}

void broker_disk(struct world *world)
{
    bool had_lied = world->disk.has_lied;
    set_time(world);
    disk_step(&world->disk, world->now);
    settle(world);
    broker_flush(world);
    world->sabotage.is_done = world->sabotage.is_done || world->disk.has_lied;
    if (world->disk.has_lied && !had_lied && world->disk.lie == LIE_FLUSHED) {
        broker_restart(world, CHANGE_NOTHING);
    }
}

void broker_memory(struct world *world)
{
    set_time(world);
    memory_step(world);
    settle(world);
    broker_flush(world);
}

static struct bk_bytes *own(struct world *world, struct bb_slice *bytes)
{
    struct bk_bytes *owner = NULL;
    if (bytes->len > 0 && sim_chance(&world->rng, 500)) {
        owner = bk_bytes_new(bk_core_meter(world->core), bytes->len);
        if (owner == NULL) {
            abort();
        }
        memcpy(owner->data, bytes->data, bytes->len);
        bytes->data = owner->data;
    }
    return owner;
}

/* Through the real edge, as text. */
static void take_json(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bb_buf text = BB_BUF_INIT;
    json_of_message(bytes, &text);
    bk_edge_take(&world->plug, &link->edge, link->core, bb_buf_slice(&text), NULL);
    bb_buf_fini(&text);
}

static void take(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    story_message(world, link, bytes, true);
    judge_input(world, link, bytes);
    for (int n = sabotage_input(world, link, &bytes); n > 0 && link->core != NULL; n--) {
        if (link->is_json) {
            take_json(world, link, bytes);
        } else {
            struct bb_slice owned = bytes; /* it may come twice */
            struct bk_bytes *owner = own(world, &owned);
            link->edge.json = false;
            bk_edge_take(&world->plug, &link->edge, link->core, owned, owner);
            bk_bytes_unref(owner);
        }
        settle(world);
    }
}

void broker_message(struct world *world, struct sim_link *link)
{
    struct link_msg *msg = link_queue_pop(&link->to_broker);
    set_time(world);
    if (link->core == NULL && !link->shut_out) {
        judge_link_fini(world, link);
        link->judged = (struct judged_link){.heard_at = world->now};

        link->core = bk_core_client_add(world->core, link);
    }
    if (link->core != NULL) {
        link->judged.heartbeat_us =
            link->peer->heartbeat_ms != 0 ? BB_MAX(link->peer->heartbeat_ms * 1000, 100000) : 60000000;
        take(world, link, bb_slice(msg->parts[0].data, msg->len));
    }
    link_msg_free(msg);
    if (world->core == NULL || world->failed) {
        return;
    }
    if (sim_chance(&world->rng, 600)) {
        broker_flush(world);
    } else {
        world->flush_at = BB_MIN(world->flush_at, world->now + sim_below(&world->rng, 5000));
    }
}

void broker_gone(struct world *world, struct sim_link *link)
{
    struct bk_client *core = link->core;
    judge_closed(world, link, false);
    link->core = NULL;
    link->is_paused = false;
    set_time(world);
    bk_core_client_gone(world->core, core);
    settle(world);
}

void broker_ingest(struct world *world, struct sim_rng *rng)
{
    uint64_t writer = WORLD_PEERS_MAX;
    uint64_t first = written_next(world, writer);
    uint64_t n = sim_between(rng, 1, 3);
    char text[24];
    struct bb_buf body = BB_BUF_INIT;
    for (uint64_t i = 0; i < n; i++) {
        words_event(world, rng, writer, false, false, words_path(world, rng, text), &body);
    }
    set_time(world);
    int r = bk_core_ingest(world->core, bb_buf_slice(&body), NULL);
    bb_buf_fini(&body); /* the core has copied what it keeps */
    settle(world);
    story_tell(world, "%" PRIu64 " events at the window: %s", n, r < 0 ? bb_errcode(r) : "taken");
    if (r < 0) {
        bk_core_ingest_refused(world->core, r);
        for (uint64_t i = first; i < first + n; i++) {
            written_at(world, writer, i)->refused_run = world->run;
        }
    }
    broker_flush(world);
}

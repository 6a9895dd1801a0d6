/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const policies[] = {"slide",    "drop_oldest", "drop_newest",
                                       "conflate", "refuse",      "disconnect"};

static void option(struct peer_sub *sub, const char *name)
{
    bb_mp_write_str(&sub->options, bb_slice_str(name));
    sub->n_options++;
}

/* --- what it wants ---------------------------------------------------------------------------- */

static void choose_patterns(struct world *world, struct sim_rng *rng, struct peer_sub *sub)
{
    char text[24];
    uint32_t n = sim_chance(rng, 650) ? 1 : (uint32_t)sim_between(rng, 2, 3);
    bb_mp_write_array(&sub->patterns, n);
    for (uint32_t i = 0; i < n; i++) {
        bb_mp_write_str(&sub->patterns, words_pattern(world, rng, text));
    }
}

static void write_id(struct world *world, struct sim_rng *rng, struct bb_buf *out)
{
    const struct truth *truth = &world->truth;
    const struct truth_event *event =
        truth->n_visible > 0 ? truth->visible[sim_below(rng, truth->n_visible)] : NULL;
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("id"));
    bb_mp_write_array(out, 3);
    bb_mp_write_uint(out, world->config.server + (sim_chance(rng, 60) ? 1 : 0));
    bb_mp_write_uint(out, event != NULL ? event->session : sim_below(rng, 50));
    bb_mp_write_uint(out, event != NULL ? event->instance : 1);
}

/* A position that somebody might have: right, wrong, of another life. */
static void write_forged(struct world *world, struct sim_rng *rng, struct bb_buf *out)
{
    char text[24];
    struct bb_slice name = words_name(world, rng, text);
    size_t channel = truth_name(world, name);
    const struct truth_inc *inc = world->truth.names[channel].inc;
    const struct truth *truth = &world->truth;
    uint64_t life = 12345;
    for (size_t i = 0; i < truth->n_lives; i++) {
        if (truth->lives[i].channel == channel && sim_chance(rng, 500)) {
            life = truth->lives[i].number;
        }
    }
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("after"));
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, name);
    bb_mp_write_array(out, 2);
    bb_mp_write_uint(out, inc != NULL ? sim_below(rng, inc->n + 2) : sim_below(rng, 5));
    bb_mp_write_uint(out, life);
}

static void choose_from(struct sim_peer *peer, struct sim_rng *rng, struct peer_sub *sub)
{
    struct world *world = peer->world;
    uint64_t kind = sim_chance(rng, 450) ? world->plan.profile.from : sim_below(rng, 7);
    struct bb_buf *out = &sub->from;
    if (kind == 6 && !peer->has_lives) {
        kind = 2;
    }
    switch (kind) {
    case 0:
        bb_mp_write_nil(out);
        break;
    case 1:
        bb_mp_write_str(out, bb_slice_str("last"));
        break;
    case 2:
        bb_mp_write_str(out, bb_slice_str(world->judge.has_lives ? "oldest" : "new"));
        break;
    case 3:
        bb_mp_write_uint(out, sim_chance(rng, 500) ? 1 : sim_below(rng, 60));
        break;
    case 4:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, world_wall(world) - sim_below(rng, 500000));
        break;
    case 5:
        write_id(world, rng, out);
        break;
    case 6:
        write_forged(world, rng, out);
        break;
    default:
        bb_mp_write_uint(out, 1);
    }
}

/* The ends that somebody else might have been told. */
static void write_last(struct sim_peer *peer, struct sim_rng *rng, struct bb_buf *out)
{
    struct world *world = peer->world;
    uint32_t n = (uint32_t)BB_MIN(world->truth.n_names, sim_between(rng, 1, 3));
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("last"));
    bb_mp_write_map(out, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct truth_inc *inc = world->truth.names[i].inc;
        bb_mp_write_str(out, bb_slice_str(world->truth.names[i].text));
        bb_mp_write_uint(out, inc != NULL ? sim_below(rng, inc->n + 1) : 0);
    }
}

static void choose_until(struct sim_peer *peer, struct sim_rng *rng, struct peer_sub *sub)
{
    struct world *world = peer->world;
    uint64_t kind = sim_chance(rng, 500) ? world->plan.profile.until : sim_below(rng, 14);
    if (kind == 1) {
        bb_mp_write_str(&sub->until, bb_slice_str("now"));
        sub->until_is_now = true;
    } else if (kind == 2) {
        bb_mp_write_uint(&sub->until, sim_between(rng, 1, 60));
    } else if (kind == 4) {
        write_last(peer, rng, &sub->until);
    } else if (kind == 3) {
        bb_mp_write_map(&sub->until, 1);
        bb_mp_write_str(&sub->until, bb_slice_str("time"));
        bb_mp_write_uint(&sub->until, world_wall(world) + sim_below(rng, 500000) - 200000);
    }
}

static void choose_policy(struct world *world, struct sim_rng *rng, struct peer_sub *sub)
{
    const struct profile *profile = &world->plan.profile;
    if (!sim_chance(rng, profile->by_default)) {
        size_t policy = sim_chance(rng, 550) && profile->policy < BB_COUNT(policies)
                            ? profile->policy
                            : sim_below(rng, BB_COUNT(policies));
        option(sub, "overflow");
        bb_mp_write_str(&sub->options, bb_slice_str(policies[policy]));
    }
    if (sim_chance(rng, 800)) {
        option(sub, "budget");
        bb_mp_write_uint(&sub->options, sim_chance(rng, profile->small_budget) ? sim_below(rng, 1500)
                                                                               : sim_below(rng, 40000));
    }
}

static void cursor_name(const struct sim_peer *peer, struct sim_rng *rng, char text[16])
{
    (void)snprintf(text, 16, "cursor%u", (unsigned int)(peer->index * 2 + sim_below(rng, 2)) & 0xff);
}

static void choose_options(struct sim_peer *peer, struct sim_rng *rng, struct peer_sub *sub)
{
    const struct profile *profile = &peer->world->plan.profile;
    char text[16];
    choose_policy(peer->world, rng, sub);
    if (sim_chance(rng, profile->early)) {
        option(sub, "view");
        bb_mp_write_str(&sub->options, bb_slice_str("early"));
    } else if (sim_chance(rng, 600)) {
        option(sub, "view");
        bb_mp_write_str(&sub->options, bb_slice_str("durable"));
    }
    if (sim_chance(rng, profile->durable)) {
        cursor_name(peer, rng, text);
        option(sub, "durable");
        bb_mp_write_str(&sub->options, bb_slice_str(text));
    }
    sub->retained = sim_chance(rng, profile->retained);
    bool is_small = sim_chance(rng, profile->small_credit);
    sub->window_bytes = is_small ? sim_between(rng, 100, 2500) : sim_between(rng, 3000, 100000);
    sub->window_events = is_small && sim_chance(rng, 400) ? sim_between(rng, 1, 15) : 10000;
}

/* --- subscribing and resuming ----------------------------------------------------------------- */

static void write_after(const struct sim_peer *peer, struct peer_sub *sub, struct bb_buf *out)
{
    const struct truth *truth = &peer->world->truth;
    bool by_lives = peer->has_lives && !peer->is_old;
    uint32_t n = 0;
    for (size_t i = 0; i < truth->n_names; i++) {
        n += sub->positions[i].is_there;
    }
    bb_mp_write_map(out, by_lives ? 1 : 2);
    if (!by_lives) {
        bb_mp_write_str(out, bb_slice_str("run"));
        bb_mp_write_uint(out, sub->run);
    }
    bb_mp_write_str(out, bb_slice_str("after"));
    bb_mp_write_map(out, n);
    for (size_t i = 0; i < truth->n_names; i++) {
        const struct peer_position *position = &sub->positions[i];
        if (!position->is_there) {
            continue;
        }
        bb_mp_write_str(out, bb_slice_str(truth->names[i].text));
        if (by_lives) {
            bb_mp_write_array(out, 2);
        }
        bb_mp_write_uint(out, position->sequence);
        if (by_lives) {
            bb_mp_write_uint(out, position->life);
        }
    }
}

static void write_until(const struct peer_sub *sub, struct bb_buf *out)
{
    bb_mp_write_str(out, bb_slice_str("until"));
    if (sub->until_is_now && sub->ends.len > 0) {
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("last"));
        bb_buf_append(out, sub->ends.data, sub->ends.len);
        return;
    }
    bb_buf_append(out, sub->until.data, sub->until.len);
}

static void write_options(const struct sim_peer *peer, const struct peer_sub *sub, struct bb_buf *out)
{
    bool retains = sub->retained && !sub->has_begun;
    bool lives = peer->has_lives && !peer->is_old;
    bb_mp_write_map(out, sub->n_options + 2 + (sub->until.len > 0) + retains + lives);
    if (lives) {
        bb_mp_write_str(out, bb_slice_str("lives"));
        bb_mp_write_bool(out, true);
    }
    bb_buf_append(out, sub->options.data, sub->options.len);
    bb_mp_write_str(out, bb_slice_str("bytes"));
    bb_mp_write_uint(out, sub->credit_bytes);
    bb_mp_write_str(out, bb_slice_str("events"));
    bb_mp_write_uint(out, sub->credit_events);
    if (sub->until.len > 0) {
        write_until(sub, out);
    }
    if (retains) {
        bb_mp_write_str(out, bb_slice_str("retained"));
        bb_mp_write_bool(out, true);
    }
}

static void send_subscribe(struct sim_peer *peer, struct peer_sub *sub, bool starves)
{
    struct bb_buf from = BB_BUF_INIT;
    struct bb_buf options = BB_BUF_INIT;
    sub->corr = ++peer->corr;
    sub->id = peer->next_sub++;
    sub->is_open = false;
    sub->got_bytes = sub->got_events = 0;
    sub->credit_bytes = starves ? 0 : sub->window_bytes;
    sub->credit_events = sub->window_events;
    if (sub->has_begun) {
        write_after(peer, sub, &from);
    } else {
        bb_buf_append(&from, sub->from.data, sub->from.len);
    }
    write_options(peer, sub, &options);
    peer_send_msg(peer, &(struct bb_msg){
                            .type = BB_MSG_SUBSCRIBE,
                            .corr = sub->corr,
                            .sub = sub->id,
                            .patterns = bb_buf_slice(&sub->patterns),
                            .from = bb_buf_slice(&from),
                            .options = bb_buf_slice(&options),
                        });
    bb_buf_fini(&from);
    bb_buf_fini(&options);
}

void peer_resume(struct sim_peer *peer, struct peer_sub *sub)
{
    send_subscribe(peer, sub, false);
}

void peer_subscribe(struct sim_peer *peer, struct sim_rng *rng)
{
    struct peer_sub *sub = NULL;
    for (size_t i = 0; i < PEER_SUBS_MAX && sub == NULL; i++) {
        sub = peer->subs[i].in_use ? NULL : &peer->subs[i];
    }
    if (sub == NULL) {
        return;
    }
    sub->in_use = true;
    choose_patterns(peer->world, rng, sub);
    choose_from(peer, rng, sub);
    choose_until(peer, rng, sub);
    choose_options(peer, rng, sub);
    send_subscribe(peer, sub, sim_chance(rng, 100));
}

void peer_sub_end(struct peer_sub *sub)
{
    bb_buf_fini(&sub->patterns);
    bb_buf_fini(&sub->from);
    bb_buf_fini(&sub->options);
    bb_buf_fini(&sub->until);
    bb_buf_fini(&sub->ends);
    *sub = (struct peer_sub){0};
}

void peer_unsubscribe(struct sim_peer *peer, struct sim_rng *rng)
{
    struct peer_sub *sub = &peer->subs[sim_below(rng, PEER_SUBS_MAX)];
    uint64_t id = sub->in_use ? sub->id : 9999;
    if (!sub->in_use && sim_chance(rng, 800)) {
        return;
    }
    peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_UNSUBSCRIBE, .corr = ++peer->corr, .sub = id});
    peer_sub_end(sub);
}

void peer_save_cursor(struct sim_peer *peer, struct sim_rng *rng, bool is_removal)
{
    const struct peer_sub *sub = &peer->subs[sim_below(rng, PEER_SUBS_MAX)];
    const struct truth *truth = &peer->world->truth;
    struct bb_buf positions = BB_BUF_INIT;
    bool by_lives = peer->has_lives && !peer->is_old;
    char text[16];
    uint32_t n = 0;
    cursor_name(peer, rng, text);
    if (!is_removal && (!sub->in_use || !sub->has_begun)) {
        return;
    }
    for (size_t i = 0; i < truth->n_names && !is_removal; i++) {
        n += sub->positions[i].is_there;
    }
    if (!is_removal) {
        bb_mp_write_array(&positions, n);
    }
    for (size_t i = 0; i < truth->n_names && !is_removal; i++) {
        const struct peer_position *position = &sub->positions[i];
        if (position->is_there) {
            bb_mp_write_array(&positions, by_lives ? 3 : 2);
            bb_mp_write_str(&positions, bb_slice_str(truth->names[i].text));
            bb_mp_write_uint(&positions, position->sequence);
            if (by_lives) {
                bb_mp_write_uint(&positions, position->life);
            }
        }
    }
    peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_CURSOR,
                                         .corr = ++peer->corr,
                                         .name = bb_slice_str(text),
                                         .positions = bb_buf_slice(&positions)});
    bb_buf_fini(&positions);
}

void peer_grant(struct sim_peer *peer, struct peer_sub *sub)
{
    struct world *world = peer->world;
    if (!sub->in_use || !sub->is_open || world->now < peer->miserly_until) {
        return;
    }
    bool has_half = sub->got_bytes + sub->window_bytes / 2 < sub->credit_bytes &&
                    sub->got_events + sub->window_events / 2 < sub->credit_events;
    if (has_half) {
        return;
    }
    sub->credit_bytes = BB_MAX(sub->credit_bytes, sub->got_bytes + sub->window_bytes);
    sub->credit_events = BB_MAX(sub->credit_events, sub->got_events + sub->window_events);
    peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_CREDIT,
                                         .sub = sub->id,
                                         .bytes = sub->credit_bytes,
                                         .events = sub->credit_events});
}

/* --- what comes ------------------------------------------------------------------------------- */

static struct peer_position *position_of(struct sim_peer *peer, struct peer_sub *sub, struct bb_slice name)
{
    return &sub->positions[truth_name(peer->world, name)];
}

static void take_subscribed(struct sim_peer *peer, struct peer_sub *sub, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    for (uint32_t n = bb_mp_read_array(&reader); n > 0 && reader.error == 0; n--) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct peer_position *position = position_of(peer, sub, bb_mp_read_str(&reader));
        position->is_there = true;
        position->sequence = bb_mp_read_uint(&reader);
        position->life = fields > 2 ? bb_mp_read_uint(&reader) : 0;
    }
    if (msg->ends.len > 0) {
        bb_buf_reset(&sub->ends);
        bb_buf_append(&sub->ends, msg->ends.data, msg->ends.len);
    }
    sub->run = peer->run;
    sub->is_open = sub->has_begun = true;
}

static void take_gaps(struct sim_peer *peer, struct peer_sub *sub, struct bb_slice gaps)
{
    struct bb_mp_reader reader = bb_mp_reader(gaps);
    uint32_t n = gaps.len > 0 && bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    for (; n > 0 && reader.error == 0; n--) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct peer_position *position = position_of(peer, sub, bb_mp_read_str(&reader));
        uint64_t from = bb_mp_read_uint(&reader);
        bool has_to = bb_mp_peek_type(&reader) == BB_MP_UINT;
        struct bb_mp_reader to = bb_mp_reader(bb_mp_read_raw(&reader));
        bb_mp_skip(&reader);
        bool is_retracted = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("retracted"));
        position->is_there =
            has_to || fields > 5 || peer->is_old || !peer->has_lives; /* else there is no such channel */
        position->sequence = !has_to ? 0 : is_retracted ? from - 1 : bb_mp_read_uint(&to);
        position->life = fields > 5 ? bb_mp_read_uint(&reader) : position->life;
    }
}

static void take_deliver(struct sim_peer *peer, struct peer_sub *sub, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->ranges);
    struct bb_slice rest = msg->body;
    struct bb_block block;
    take_gaps(peer, sub, msg->gaps);
    for (uint32_t n = bb_mp_read_array(&reader); n > 0 && reader.error == 0; n--) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct peer_position *position = position_of(peer, sub, bb_mp_read_str(&reader));
        (void)bb_mp_read_uint(&reader);
        position->is_there = true;
        position->sequence = bb_mp_read_uint(&reader);
        position->life = fields > 3 ? bb_mp_read_uint(&reader) : position->life;
    }
    sub->got_bytes += msg->body.len;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0) {
        sub->got_events += block.count;
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
    }
}

void peer_sub_message(struct sim_peer *peer, const struct bb_msg *msg)
{
    for (size_t i = 0; i < PEER_SUBS_MAX; i++) {
        struct peer_sub *sub = &peer->subs[i];
        if (!sub->in_use || sub->id != msg->sub) {
            continue;
        }
        if (msg->type == BB_MSG_SUBSCRIBED) {
            take_subscribed(peer, sub, msg);
        } else if (msg->type == BB_MSG_GAP) {
            take_gaps(peer, sub, msg->gaps);
        } else if (msg->type == BB_MSG_DELIVER) {
            take_deliver(peer, sub, msg);
        } else {
            peer_sub_end(sub);
        }
        return;
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/peer/peer.h"

#include "proto/wire/mp.h"

#include "tests/sim/world.h"

#include <stdlib.h>

#define HELLO_TIMEOUT_US 400000
#define SILENCE_US       2000000

/* Longer than any round trip, so that nothing is under way at some time. */
#define ENDING_PAUSE_US 150000

void peer_init(struct sim_peer *peer, struct world *world, uint64_t index, uint64_t seed)
{
    const struct profile *profile = &world->plan.profile;
    *peer = (struct sim_peer){
        .world = world, .index = index, .rng = {seed}, .next_number = 1, .next_sub = 1, .corr = 1};
    for (size_t i = 0; i < sizeof(peer->id); i++) {
        peer->id[i] = (uint8_t)sim_next(&peer->rng);
    }
    peer->is_anonymous = sim_chance(&peer->rng, profile->anonymous);
    peer->is_json = sim_chance(&peer->rng, profile->json);
    peer->is_old = sim_chance(&peer->rng, profile->old_form);
    peer->is_deaf = sim_chance(&peer->rng, profile->deaf);
    peer->jumps = sim_chance(&peer->rng, profile->jumps);
    peer->heartbeat_ms = sim_chance(&peer->rng, 300) ? 0 : sim_between(&peer->rng, 100, 500);
    peer->next_turn = sim_below(&peer->rng, 15000);
}

void peer_fini(struct sim_peer *peer)
{
    for (size_t i = 0; i < peer->n_batches; i++) {
        bb_buf_fini(&peer->batches[i].options);
        bb_buf_fini(&peer->batches[i].body);
    }
    bb_buf_fini(&peer->answered.options);
    bb_buf_fini(&peer->answered.body);
    free(peer->batches);
    bb_buf_fini(&peer->query);
    for (size_t i = 0; i < PEER_SUBS_MAX; i++) {
        peer_sub_end(&peer->subs[i]);
    }
}

void peer_send(struct sim_peer *peer, struct bb_slice bytes)
{
    if (peer->link != NULL) {
        world_send(peer->world, peer->link, bytes);
    }
}

void peer_send_msg(struct sim_peer *peer, const struct bb_msg *msg)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, msg);
    peer_send(peer, bb_buf_slice(&out));
    bb_buf_fini(&out);
}

void peer_leave(struct sim_peer *peer, struct sim_rng *rng)
{
    if (peer->link != NULL) {
        world_cut(peer->world, peer->link, rng);
        peer->link = NULL;
    }
    peer->state = PEER_DOWN;
    peer->query_corr = 0;
    for (size_t i = 0; i < PEER_SUBS_MAX; i++) {
        peer->subs[i].is_open = false;
    }
}

bool peer_is_quiet(const struct sim_peer *peer)
{
    if (peer->state != PEER_READY || peer->n_batches > 0 || peer->query_corr != 0 ||
        peer->link->core == NULL || peer->link->broken) {
        return false;
    }
    for (size_t i = 0; i < PEER_SUBS_MAX; i++) {
        if (peer->subs[i].in_use && !peer->subs[i].is_open) {
            return false;
        }
    }
    return true;
}

/* --- connecting ------------------------------------------------------------------------------- */

static void hello(struct sim_peer *peer, uint64_t epoch)
{
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_map(&options, 2);
    bb_mp_write_str(&options, bb_slice_str("name"));
    bb_mp_write_str(&options, bb_slice_str("model"));
    bb_mp_write_str(&options, bb_slice_str("heartbeat"));
    bb_mp_write_uint(&options, peer->heartbeat_ms);
    peer_send_msg(
        peer, &(struct bb_msg){
                  .type = BB_MSG_HELLO,
                  .corr = ++peer->corr,
                  .version = BB_PROTOCOL_VERSION,
                  .client = peer->is_anonymous ? (struct bb_slice){0} : bb_slice(peer->id, sizeof(peer->id)),
                  .epoch = epoch,
                  .options = bb_buf_slice(&options),
              });
    bb_buf_fini(&options);
}

static void connect(struct sim_peer *peer, uint64_t epoch)
{
    peer->link = world_connect(peer->world, peer);
    peer->link->met = peer->met | F(reconnected);
    peer->met = 0;
    peer->state = PEER_HELLO;
    peer->strikes = 0;
    peer->heard_at = peer->world->now;
    hello(peer, epoch);
}

static void take_welcome(struct sim_peer *peer, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->features);
    if (peer->state != PEER_HELLO) {
        return;
    }
    peer->state = PEER_READY;
    peer->run = msg->run;
    peer->has_lives = false;
    for (uint32_t n = msg->features.len > 0 ? bb_mp_read_array(&reader) : 0; n > 0; n--) {
        bool is_it = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("lives"));
        peer->has_lives = peer->has_lives || is_it;
    }
    for (size_t i = 0; i < PEER_SUBS_MAX; i++) {
        if (peer->subs[i].in_use) {
            peer_resume(peer, &peer->subs[i]);
        }
    }
    peer_republish(peer, msg->last);
}

/* --- what comes ------------------------------------------------------------------------------- */

static void take_ack(struct sim_peer *peer, struct bb_slice entries)
{
    struct bb_mp_reader reader = bb_mp_reader(entries);
    for (uint32_t n = bb_mp_read_array(&reader); n > 0 && reader.error == 0; n--) {
        uint32_t fields = bb_mp_read_array(&reader);
        peer_settle(peer, bb_mp_read_uint(&reader));
        for (; fields > 1; fields--) {
            bb_mp_skip(&reader);
        }
    }
}

static bool is_code(const struct bb_msg *msg, const char *code)
{
    return bb_slice_equal(msg->code, bb_slice_str(code));
}

static void take_error(struct sim_peer *peer, const struct bb_msg *msg)
{
    if (is_code(msg, "hello_first")) {
        peer_leave(peer, &peer->rng); /* the broker does not know this link any more */
        return;
    }
    if (msg->about == BB_MSG_HELLO) { /* an older epoch than the newest, on purpose or after a take-over */
        peer->epoch++;
        peer_leave(peer, &peer->rng);
        return;
    }
    bool comes_again = is_code(msg, "shutting_down") || is_code(msg, "bad_sequence");
    if (msg->about == BB_MSG_PUBLISH && msg->corr != 0 && !comes_again) {
        peer_settle(peer, msg->corr);
    }
    if (msg->about == BB_MSG_QUERY && msg->corr == peer->query_corr) {
        peer->query_corr = 0;
    }
    for (size_t i = 0; i < PEER_SUBS_MAX && msg->about == BB_MSG_SUBSCRIBE; i++) {
        if (peer->subs[i].in_use && peer->subs[i].corr == msg->corr) {
            peer_sub_end(&peer->subs[i]);
        }
    }
}

void peer_message(struct sim_peer *peer, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    peer->heard_at = peer->world->now;
    if (bb_msg_decode(bytes, &msg) < 0) {
        return;
    }
    switch ((int)msg.type) {
    case BB_MSG_WELCOME:
        take_welcome(peer, &msg);
        break;
    case BB_MSG_ACK:
        take_ack(peer, msg.entries);
        break;
    case BB_MSG_ERROR:
        take_error(peer, &msg);
        break;
    case BB_MSG_PING:
        if (!peer->is_deaf || peer->world->is_ending) {
            peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_PONG, .token = msg.token});
        }
        break;
    case BB_MSG_EVENTS:
        if (msg.corr == peer->query_corr) {
            peer_query_answer(peer, &msg);
        }
        break;
    case BB_MSG_SUBSCRIBED:
    case BB_MSG_DELIVER:
    case BB_MSG_GAP:
    case BB_MSG_ENDED:
        peer_sub_message(peer, &msg);
        break;
    case BB_MSG_GOODBYE:
        peer_leave(peer, &peer->rng);
        break;
    default:
        break;
    }
}

/* --- its turn --------------------------------------------------------------------------------- */

void peer_turn(struct sim_peer *peer)
{
    struct world *world = peer->world;
    peer->next_turn =
        world->now + (world->is_ending ? ENDING_PAUSE_US : sim_between(&peer->rng, 2000, 20000));
    if (peer->state == PEER_DOWN) {
        if (world->core != NULL && !world->is_draining) {
            connect(peer, peer->epoch);
        }
        return;
    }
    uint64_t patience = peer->state == PEER_HELLO ? HELLO_TIMEOUT_US : SILENCE_US;
    if (world->now > BB_MAX(peer->heard_at, peer->stalled_until) + patience) {
        peer_leave(peer, &peer->rng); /* PROTOCOL 8: a silent broker is given up */
    }
    if (peer->state != PEER_READY) {
        return;
    }
    for (size_t i = 0; i < PEER_SUBS_MAX; i++) {
        peer_grant(peer, &peer->subs[i]);
    }
    if (world->is_ending || sim_chance(&peer->rng, 50)) {
        peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_PING, .token = ++peer->corr});
    }
}

/* --- acts ------------------------------------------------------------------------------------- */

static void act_malformed(struct sim_peer *peer, struct sim_rng *rng)
{
    static const struct {
        const char *bytes;
        size_t len;
    } messages[] = {
        {"\xc1", 1},
        {"\x91\x63", 2},
        {"\x92\x03\x01", 3},
        {"\x91", 1},
        {"\x93\x0a\xa1\xff\xa0", 5},
        {"\x93\x10\x01\x01", 4},
    };
    size_t i = sim_below(rng, BB_COUNT(messages));
    if (peer->strikes < 8 && !peer->is_json) {
        peer->strikes++;
        peer_send(peer, bb_slice(messages[i].bytes, messages[i].len));
    }
}

static void act_ask(struct sim_peer *peer, struct sim_rng *rng)
{
    char text[24];
    if (sim_chance(rng, 400)) {
        peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_STATUS, .corr = ++peer->corr});
        return;
    }
    peer_send_msg(peer, &(struct bb_msg){
                            .type = BB_MSG_MATCHES,
                            .corr = ++peer->corr,
                            .path = words_path(peer->world, rng, text),
                            .min = sim_below(rng, 4),
                            .timeout = sim_below(rng, 100),
                        });
}

static uint64_t pause_of(struct sim_peer *peer, struct sim_rng *rng)
{
    return peer->world->now + (sim_chance(rng, 100) ? 700000 : sim_below(rng, 80000));
}

static void act_goodbye(struct sim_peer *peer, struct sim_rng *rng)
{
    peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_GOODBYE, .code = bb_slice_str("closed")});
    peer_leave(peer, rng);
}

/* The same identity comes over another link while the first one is still there. */
static void act_take_over(struct sim_peer *peer, struct sim_rng *rng, bool in_new_epoch)
{
    if (peer->link == NULL || peer->is_anonymous) {
        return;
    }
    struct sim_link *old = peer->link;
    peer->link = NULL;
    peer_leave(peer, rng);
    old->broken_at = peer->world->now + sim_between(rng, 20000, 200000);
    old->is_open = false;
    if (in_new_epoch) {
        peer->epoch++;
        peer_forget(peer);
    }
    connect(peer, peer->epoch);
}

/* Somebody comes with the identity of before its last epoch: nobody must be listened to. */
static void act_old_epoch(struct sim_peer *peer)
{
    struct sim_link *own = peer->link;
    enum peer_state state = peer->state;
    if (peer->epoch == 0 || own == NULL || peer->is_anonymous) {
        return;
    }
    connect(peer, peer->epoch - 1);
    peer->link->is_open = false;
    peer->link->broken_at = peer->world->now + 100000;
    peer->link = own;
    peer->state = state;
}

static void act_hellos(struct sim_peer *peer, struct sim_rng *rng)
{
    struct sim_link *own = peer->link;
    enum peer_state state = peer->state;
    uint8_t id[sizeof(peer->id)];
    memcpy(id, peer->id, sizeof(id));
    for (uint64_t n = sim_between(rng, 2, 8); n > 0; n--) {
        peer->id[0] = (uint8_t)sim_next(rng);
        peer->id[1] ^= 0x55;
        connect(peer, 0);
        peer->link->is_open = false;
        peer->link->broken_at = peer->world->now + sim_between(rng, 10000, 60000);
    }
    memcpy(peer->id, id, sizeof(id));
    peer->link = own;
    peer->state = state;
}

static void act_backup(struct sim_peer *peer)
{
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_map(&options, 1);
    bb_mp_write_str(&options, bb_slice_str("name"));
    bb_mp_write_str(&options, bb_slice_str("copy"));
    peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_LOG,
                                         .corr = ++peer->corr,
                                         .action = bb_slice_str("backup"),
                                         .options = bb_buf_slice(&options)});
    bb_buf_fini(&options);
}

void peer_act(struct sim_peer *peer, const struct act *act)
{
    struct sim_rng rng = {act->seed};
    struct world *world = peer->world;
    if (peer->state != PEER_READY || world->now < peer->stalled_until) {
        return;
    }
    switch ((int)act->kind) {
    case ACT_publish:
        peer_publish(peer, &rng);
        break;
    case ACT_subscribe:
        peer_subscribe(peer, &rng);
        break;
    case ACT_unsubscribe:
        peer_unsubscribe(peer, &rng);
        break;
    case ACT_save_cursor:
    case ACT_drop_cursor:
        peer_save_cursor(peer, &rng, act->kind == ACT_drop_cursor);
        break;
    case ACT_query:
        peer_query(peer, &rng);
        break;
    case ACT_settings:
        peer_settings(peer, &rng);
        break;
    case ACT_remove:
        peer_remove(peer, &rng);
        break;
    case ACT_trim:
        peer_trim(peer, &rng);
        break;
    case ACT_ask:
        act_ask(peer, &rng);
        break;
    case ACT_ping:
        peer_send_msg(peer, &(struct bb_msg){.type = BB_MSG_PING, .token = ++peer->corr});
        break;
    case ACT_stall:
        peer->stalled_until = pause_of(peer, &rng);
        judge_meets_of(world, peer->link, F(stalled));
        break;
    case ACT_be_miserly:
        peer->miserly_until = pause_of(peer, &rng);
        break;
    case ACT_cut:
        peer_leave(peer, &rng);
        break;
    case ACT_goodbye:
        act_goodbye(peer, &rng);
        break;
    case ACT_malformed:
        act_malformed(peer, &rng);
        break;
    case ACT_take_over:
    case ACT_new_epoch:
        act_take_over(peer, &rng, act->kind == ACT_new_epoch);
        break;
    case ACT_old_epoch:
        act_old_epoch(peer);
        break;
    case ACT_repeat:
        peer_repeat(peer);
        break;
    case ACT_hellos:
        act_hellos(peer, &rng);
        break;
    case ACT_backup:
        act_backup(peer);
        break;
    default:
        break;
    }
}

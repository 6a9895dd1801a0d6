/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/mp.h"

#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <stdlib.h>

static void batch_send(struct sim_peer *peer, const struct peer_batch *batch)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_PUBLISH,
                                         .number = batch->number,
                                         .level = batch->level,
                                         .options = bb_buf_slice(&batch->options)});
    bb_buf_append(&out, batch->body.data, batch->body.len);
    peer_send(peer, bb_buf_slice(&out));
    bb_buf_fini(&out);
}

static void batch_fini(struct peer_batch *batch)
{
    bb_buf_fini(&batch->options);
    bb_buf_fini(&batch->body);
}

/* What a channel or path is at, as far as the world can tell now: right, one off, or none. */
static uint64_t guess(struct world *world, struct sim_rng *rng, struct bb_slice name, bool is_path)
{
    size_t channel = is_path ? truth_name_of_path(world, name) : truth_name(world, name);
    const struct truth_inc *inc = world->truth.names[channel].inc;
    uint64_t last = inc != NULL && !inc->is_ended ? inc->n : 0;
    while (is_path && last > 0 && !bb_slice_equal(inc->events[last - 1]->path, name)) {
        last--;
    }
    uint64_t kind = sim_below(rng, 10);
    return kind < 7 ? last : kind < 8 ? last + 1 : kind < 9 ? 0 : last / 2;
}

static void
write_expectations(struct world *world, struct sim_rng *rng, struct bb_slice path, struct bb_buf *options)
{
    char text[24];
    bool is_path = sim_chance(rng, 500);
    struct bb_slice name = path;
    if (!is_path) {
        const uint8_t *slash = path.len > 0 ? memchr(path.data, '/', path.len) : NULL;
        name.len = slash != NULL ? (size_t)(slash - path.data) : path.len;
    }
    if (sim_chance(rng, 200)) {
        name = is_path ? words_path(world, rng, text) : words_name(world, rng, text);
    }
    bb_mp_write_map(options, 1);
    bb_mp_write_str(options, bb_slice_str(is_path ? "expect_path" : "expect"));
    bb_mp_write_map(options, 1);
    bb_mp_write_str(options, name);
    bb_mp_write_uint(options, guess(world, rng, name, is_path));
}

static void send_forgotten(struct sim_peer *peer,
                           struct sim_rng *rng,
                           const struct bb_buf *body,
                           const struct bb_buf *options)
{
    struct bb_buf out = BB_BUF_INIT;
    if (options->len > 0 || sim_chance(rng, 500)) { /* else bare events */
        bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_PUBLISH, .options = bb_buf_slice(options)});
    }
    bb_buf_append(&out, body->data, body->len);
    peer_send(peer, bb_buf_slice(&out));
    bb_buf_fini(&out);
}

static void write_events(struct sim_peer *peer,
                         struct sim_rng *rng,
                         bool is_numbered,
                         bool may_be_bad,
                         struct peer_batch *batch)
{
    struct world *world = peer->world;
    char favourite[24];
    char text[24];
    uint64_t n = sim_chance(rng, 60) ? sim_between(rng, 10, PEER_BATCH_MAX) : sim_between(rng, 1, 6);
    struct bb_slice path = words_path(world, rng, favourite);
    if (sim_chance(rng, world->plan.profile.expects)) {
        write_expectations(world, rng, path, &batch->options);
    }
    for (uint64_t i = 0; i < n; i++) {
        struct bb_slice own = sim_chance(rng, 600) ? path : words_path(world, rng, text);
        words_event(world, rng, peer->index, is_numbered, may_be_bad, own, &batch->body);
    }
}

void peer_publish(struct sim_peer *peer, struct sim_rng *rng)
{
    struct peer_batch batch = {0};
    bool forgets = sim_chance(rng, 150);
    if (forgets) {
        write_events(peer, rng, false, false, &batch);
        send_forgotten(peer, rng, &batch.body, &batch.options);
        batch_fini(&batch);
        return;
    }
    if (peer->n_batches > 30) {
        return; /* enough is under way */
    }
    batch.number = peer->next_number++;
    batch.level = sim_below(rng, peer->world->has_log ? 4 : 3);
    if (!peer->world->has_log && sim_chance(rng, 10)) {
        batch.level = BB_LEVEL_SYNCED;
    }
    write_events(peer, rng, !peer->is_anonymous, !peer->is_json, &batch);
    if (!peer->is_json && peer->strikes < 8 && sim_chance(rng, 12)) { /* cannot be followed to its end */
        bb_buf_append(&batch.body, "\xc1", 1);
        peer->strikes++;
    }
    peer->batches = sim_grown(peer->batches, peer->n_batches, &peer->n_batch_slots, sizeof(batch));
    peer->batches[peer->n_batches++] = batch;
    batch_send(peer, &batch);
}

/* One that has its answer is sent again. */
void peer_repeat(struct sim_peer *peer)
{
    if (peer->answered.number != 0 && !peer->is_anonymous) {
        batch_send(peer, &peer->answered);
    }
}

void peer_settle(struct sim_peer *peer, uint64_t number)
{
    for (size_t i = 0; i < peer->n_batches; i++) {
        peer->batches[i].has_answer = peer->batches[i].has_answer || peer->batches[i].number == number;
    }
    while (peer->n_batches > 0 && peer->batches[0].has_answer) {
        batch_fini(&peer->answered);
        peer->answered = peer->batches[0];
        peer->n_batches--;
        memmove(&peer->batches[0], &peer->batches[1], peer->n_batches * sizeof(peer->batches[0]));
    }
}

static void forget_answered(struct sim_peer *peer)
{
    batch_fini(&peer->answered);
    peer->answered = (struct peer_batch){0};
}

void peer_forget(struct sim_peer *peer)
{
    while (peer->n_batches > 0) {
        peer_settle(peer, peer->batches[0].number);
    }
    forget_answered(peer);
    peer->next_number = 1;
}

void peer_republish(struct sim_peer *peer, uint64_t last)
{
    uint64_t least = peer->n_batches > 0 ? peer->batches[0].number : peer->next_number;
    if (peer->is_anonymous) {
        peer_forget(peer);
        return;
    }
    if (last + 1 < least && !peer->jumps) { /* the broker has forgotten: count anew */
        peer->epoch++;
        for (size_t i = 0; i < peer->n_batches; i++) {
            peer->batches[i].number = i + 1;
        }
        peer->next_number = peer->n_batches + 1;
        forget_answered(peer);
        peer_leave(peer, &peer->rng);
        return;
    }
    if (last + 1 < least) { /* what it has answered the broker does not know: it must not come again */
        forget_answered(peer);
    }
    for (size_t i = 0; i < peer->n_batches; i++) {
        batch_send(peer, &peer->batches[i]);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/publish.h"

#include "broker/core/bytes.h"
#include "broker/core/clients/ack.h"
#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/ingest/batch.h"
#include "broker/core/ingest/session.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/append.h"
#include "broker/core/log/durable.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"
#include "broker/core/subs/sub.h"

/* A batch of so many runs at most is acknowledged without allocating anything. */
#define RUNS_NOW 16

/* Of a publish: every language can say it. */
#define NUMBER_MAX (UINT64_C(1) << 53)

/* --- refusing ------------------------------------------------------------------------------------------- */

static void refuse(struct bk_core *core,
                   struct bk_client *client,
                   const struct bb_msg *msg,
                   int error,
                   const char *text,
                   struct bb_slice detail)
{
    bk_count(core, BK_COUNTER_batches_refused, 1);
    if (client != NULL) {
        bk_client_send_error(core, client, BB_MSG_PUBLISH, msg->number, error, text, detail);
    }
}

static void note_outcome(const struct bk_client *client, const struct bb_msg *msg, int outcome)
{
    if (client != NULL && client->producer != NULL && msg->number != 0) {
        bk_producer_note(client->producer, msg->number, outcome);
    }
}

static bool cannot_be_followed(int error)
{
    return error == BB_EMALFORMED || error == BB_ETOODEEP;
}

/* A batch that was looked at: who is behind, or where it is wrong. */
static void refuse_batch(struct bk_core *core,
                         struct bk_client *client,
                         const struct bb_msg *msg,
                         const struct bk_batch *batch,
                         int error)
{
    bool is_overflow = error == BB_EOVERFLOW && batch->behind != NULL;
    bb_buf_reset(&core->nested);
    if (is_overflow || cannot_be_followed(error)) {
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str(is_overflow ? "client" : "index"));
        bb_mp_write_uint(&core->nested, is_overflow ? batch->behind->client->number : batch->n_events);
    }
    note_outcome(client, msg, error);
    refuse(core, client, msg, error, NULL, bb_buf_slice(&core->nested));
    if (client != NULL && cannot_be_followed(error)) {
        bk_client_strike(core, client);
    }
}

/* --- numbers -------------------------------------------------------------------------------------------- */

/* With an @outcome there is nothing to wait for but the answers of what came before. */
static void
repeat_later(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, int outcome)
{
    struct bk_waiting *ack = bk_waiting_new(0);
    bk_count(core, BK_COUNTER_batches_repeated, 1);
    if (ack == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, "no memory for acknowledgements");
        return;
    }
    ack->number = msg->number;
    ack->level = msg->level;
    ack->is_repeated = ack->needs_disk = true;
    /* What the first one waits for is decided before: it is in the queue, or the connection that it came over has
     * ended, and then it was staged before what is staged now. */
    bool may_wait = core->stage.backend != NULL && outcome == 0;
    ack->ticket = may_wait ? core->stage.ticket - !core->stage.has_news : 0;
    ack->ticket = ack->ticket <= core->stage.durable ? 0 : ack->ticket;
    if (ack->ticket == 0 && client->waiting_first == NULL) {
        bk_ack_add(core, client, ack);
        bk_waiting_free(ack);
    } else {
        bk_stage_wait(core, client, ack);
    }
}

static void repeat(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int outcome = client->producer != NULL ? bk_producer_outcome(client->producer, msg->number) : 0;
    if (outcome < 0 && client->waiting_first == NULL) { /* else the first one may not be answered yet */
        bk_acks_send_to(core, client);
        refuse(core, client, msg, outcome, NULL, (struct bb_slice){0});
    } else {
        repeat_later(core, client, msg, outcome);
    }
}

/* The producer of a client that publishes under numbers is made with the first of them. */
static int attach_producer(struct bk_core *core, struct bk_client *client)
{
    if (!client->has_id || client->producer != NULL) {
        return 0;
    }
    struct bk_producer *producer = bk_producer_get(core, client->id, client->epoch);
    if (producer == NULL) {
        return BB_ENOMEM;
    }
    bk_producer_attach(core, producer, client);
    return 0;
}

/* Whether the batch is to be taken under its number: 0; else it has been answered. A number that the broker is to be asked for
 * again is not used up. */
static int take_number(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int r = msg->number > NUMBER_MAX ? BB_EINVAL
            : core->shutting_down    ? BB_ESHUTDOWN
                                     : attach_producer(core, client);
    uint64_t *last = client->producer != NULL ? &client->producer->last : &client->last_number;
    if (msg->number <= *last && r != BB_ENOMEM && r != BB_EINVAL) {
        client->has_published = true;
        repeat(core, client, msg);
        return BB_EEXISTS;
    }
    if (r == 0 && client->has_published && msg->number != *last + 1) {
        r = BB_ESEQUENCE;
    }
    if (r < 0) {
        refuse(core, client, msg, r, NULL, (struct bb_slice){0});
        return r;
    }
    client->has_published = true;
    *last = msg->number;
    note_outcome(client, msg, 0);
    return 0;
}

void bk_publish_refuse(struct bk_core *core,
                       struct bk_client *client,
                       const struct bb_msg *msg,
                       int error,
                       const char *text,
                       struct bb_slice detail)
{
    if (msg->number != 0 && take_number(core, client, msg) < 0) {
        return;
    }
    note_outcome(client, msg, error);
    refuse(core, client, msg, error, text, detail);
}

/* --- acknowledging ---------------------------------------------------------------------------------------- */

/* The level that the batch reaches, and whether that takes the disk. */
static uint64_t level_reached(const struct bk_core *core, const struct bk_batch *batch, bool *ret_needs_disk)
{
    size_t n = bk_batch_n_runs(batch);
    bool is_asked =
        batch->level == BB_LEVEL_SYNCED || (batch->level == BB_LEVEL_NONE && n > batch->n_unsynced);
    *ret_needs_disk = is_asked && batch->n_logged > 0;
    if (batch->level != BB_LEVEL_NONE) {
        return batch->level;
    }
    bool is_synced = n > 0 && batch->n_unsynced == 0 && core->stage.backend->is_durable;
    return is_synced ? BB_LEVEL_SYNCED : BB_LEVEL_ACCEPTED;
}

static void describe(const struct bk_core *core,
                     const struct bb_msg *msg,
                     const struct bk_batch *batch,
                     struct bk_waiting *ack)
{
    size_t n = bk_batch_n_runs(batch);
    ack->number = msg->number;
    ack->level = level_reached(core, batch, &ack->needs_disk);
    ack->ticket = batch->n_logged > 0 ? core->stage.ticket : 0;
    ack->matches = msg->level < BB_LEVEL_ROUTED ? UINT64_MAX : n > 0 ? batch->matches : 0;
    ack->n_refused = batch->n_refused;
    ack->n_runs = n;
    for (size_t i = 0; i < n; i++) {
        const struct bk_run *run = bk_batch_run(batch, i);
        ack->runs[i] =
            (struct bk_waiting_run){run->channel, run->sequence, run->first, run->count, run->is_logged};
    }
}

/* Most batches need not wait: nothing is allocated for them. */
static void ack_now(struct bk_core *core,
                    struct bk_client *client,
                    const struct bb_msg *msg,
                    const struct bk_batch *batch)
{
    _Alignas(struct bk_waiting)
        uint8_t room[sizeof(struct bk_waiting) + RUNS_NOW * sizeof(struct bk_waiting_run)];
    struct bk_waiting *ack = (struct bk_waiting *)(void *)room;
    *ack = (struct bk_waiting){.refused = *batch->refused}; /* borrowed */
    describe(core, msg, batch, ack);
    bk_ack_add(core, client, ack);
}

/* What was for the log is acknowledged when it is there, or at least when the log has taken it. */
static void ack_later(struct bk_core *core,
                      struct bk_client *client,
                      const struct bb_msg *msg,
                      const struct bk_batch *batch)
{
    struct bk_waiting *ack = bk_waiting_new(bk_batch_n_runs(batch));
    if (ack == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, "no memory for acknowledgements");
        return;
    }
    describe(core, msg, batch, ack);
    for (size_t i = 0; i < ack->n_runs; i++) {
        (void)bk_channel_ref(ack->runs[i].channel);
    }
    bb_buf_append(&ack->refused, batch->refused->data, batch->refused->len);
    ack->refused.error = ack->refused.error != 0 ? ack->refused.error : batch->refused->error;
    bk_stage_wait(core, client, ack);
    if (ack->ticket == 0) {
        bk_stage_answer_first(core, client);
    }
}

static void ack_batch(struct bk_core *core,
                      struct bk_client *client,
                      const struct bb_msg *msg,
                      const struct bk_batch *batch)
{
    bool is_now = batch->n_logged == 0 && client->waiting_first == NULL;
    if (is_now && bk_batch_n_runs(batch) <= RUNS_NOW) {
        ack_now(core, client, msg, batch);
    } else {
        ack_later(core, client, msg, batch);
    }
}

/* Fire and forget has no ack that could carry refusals: they are errors. */
static void tell_refused(struct bk_core *core, struct bk_client *client, const struct bk_batch *batch)
{
    bb_buf_reset(&core->nested);
    bb_mp_write_map(&core->nested, 1);
    bb_mp_write_str(&core->nested, bb_slice_str("refused"));
    bb_mp_write_array(&core->nested, batch->n_refused);
    bb_buf_append(&core->nested, batch->refused->data, batch->refused->len);
    if (core->nested.error != 0 || batch->refused->error != 0) {
        bk_client_send_away(core, client, BB_ENOMEM, NULL);
        return;
    }
    bk_client_send_error(core, client, BB_MSG_PUBLISH, 0, BB_EEVENT, NULL, bb_buf_slice(&core->nested));
}

static void
answer(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, const struct bk_batch *batch)
{
    if (msg->number != 0) {
        ack_batch(core, client, msg, batch);
    } else if (batch->n_refused > 0) {
        tell_refused(core, client, batch);
    }
    if (batch->n_refused > 0) {
        note_outcome(client, msg, BB_EUNKNOWNRESULT); /* which events, is not kept */
    }
}

/* --- the whole ------------------------------------------------------------------------------------------ */

/* Memory that is alive beyond what rings and clients may hold: someone holds on to more than was foreseen. */
static bool memory_is_used_up(const struct bk_core *core)
{
    size_t alive = atomic_load_explicit(&core->meter.bytes, memory_order_relaxed);
    return alive > 2 * (core->config.memory_bytes + core->config.inflight_all);
}

/* Whether the batch may be looked at. */
static int admit(struct bk_core *core, const struct bb_msg *msg)
{
    if (core->shutting_down) {
        return BB_ESHUTDOWN;
    }
    if (msg->level > (core->stage.backend != NULL ? BB_LEVEL_SYNCED : BB_LEVEL_ROUTED)) {
        return BB_EUNSUPPORTED;
    }
    while (memory_is_used_up(core) && bk_ring_evict(&core->ring)) { /* small blocks may pin large bytes */
    }
    return memory_is_used_up(core) ? BB_ENOMEM : 0;
}

/* A batch lies under one ticket, since it and its number are durable together. */
static int make_room_for_log(struct bk_core *core, const struct bk_batch *batch)
{
    if (bk_stage_has_room(core, batch->log_bytes)) {
        return 0;
    }
    bk_append_submit(core);
    if (bk_stage_has_room(core, batch->log_bytes)) {
        return 0;
    }
    return batch->log_bytes > core->stage.backend->max_ticket ? BB_ETOOBIG : BB_EFULL;
}

static void count_batch(struct bk_core *core, struct bk_client *client, const struct bk_batch *batch)
{
    uint32_t taken = batch->n_events - batch->n_refused;
    bk_count(core, BK_COUNTER_publishes, 1);
    bk_count(core, BK_COUNTER_events_refused, batch->n_refused);
    bk_count(core, BK_COUNTER_events_unmatched, batch->unmatched);
    if (client != NULL) {
        client->events_in += taken;
    } else {
        bk_count(core, BK_COUNTER_ingest_events, taken);
    }
}

static int take_batch(struct bk_core *core,
                      struct bk_batch *batch,
                      const struct bk_client *client,
                      const struct bb_msg *msg,
                      struct bb_slice events,
                      struct bk_bytes *owner)
{
    int r = admit(core, msg);
    if (r == 0) {
        r = bk_batch_scan(core, batch, events);
    }
    if (r == 0 && batch->behind != NULL) {
        r = BB_EOVERFLOW;
    }
    if (r == 0) {
        r = make_room_for_log(core, batch);
    }
    return r == 0 ? bk_session_keep(core, batch, client, owner) : r;
}

/* A channel is made when its first event is met; if that was refused, nothing is left of it. */
static void forget_unused_channels(struct bk_core *core, size_t n_before)
{
    bool any = false;
    for (size_t i = core->channels.n_channels; i > n_before; i--) {
        struct bk_channel *channel = core->channels.list[i - 1];
        if (bk_channel_is_empty(channel)) {
            bk_channels_undo(&core->channels, channel);
            any = true;
        }
    }
    if (any) {
        bk_route_clear(&core->route); /* its paths know them */
    }
}

int bk_publish(struct bk_core *core,
               struct bk_client *client,
               const struct bb_msg *msg,
               struct bb_slice events,
               struct bk_bytes *owner)
{
    struct bk_batch batch = {
        .level = msg->level, .matches = UINT64_MAX, .runs = &core->runs, .refused = &core->refused};
    bool has_number = client != NULL && msg->number != 0;
    size_t n_channels = core->channels.n_channels;
    int r = has_number ? take_number(core, client, msg) : 0;
    if (r < 0) {
        return r;
    }
    bb_buf_reset(batch.runs);
    bb_buf_reset(batch.refused);
    r = take_batch(core, &batch, client, msg, events, owner);
    if (core->channels.n_channels > n_channels) {
        forget_unused_channels(core, n_channels);
    }
    if (r < 0) {
        refuse_batch(core, client, msg, &batch, r);
        return r;
    }
    count_batch(core, client, &batch);
    if (batch.n_logged > 0 && has_number && client->producer != NULL) {
        bk_producer_stage(core, client->producer);
    }
    if (client != NULL) {
        answer(core, client, msg, &batch);
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/durable.h"

#include "broker/core/backend.h"
#include "broker/core/clients/ack.h"
#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/deliver/early.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/deliver/retained.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/cursor.h"
#include "broker/core/log/held.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"

#include <inttypes.h>

/* Failures of the log are told no more often than this. */
#define FAILURE_PAUSE_US UINT64_C(1000000)

/* --- batches that wait ------------------------------------------------------------------------------ */

static void waiting_link(struct bk_core *core, struct bk_client *client)
{
    client->prev_waiting = NULL;
    client->next_waiting = core->stage.waiting;
    if (client->next_waiting != NULL) {
        client->next_waiting->prev_waiting = client;
    }
    core->stage.waiting = client;
}

static void waiting_unlink(struct bk_core *core, struct bk_client *client)
{
    *(client->prev_waiting != NULL ? &client->prev_waiting->next_waiting : &core->stage.waiting) =
        client->next_waiting;
    if (client->next_waiting != NULL) {
        client->next_waiting->prev_waiting = client->prev_waiting;
    }
}

void bk_stage_wait(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting)
{
    waiting->next = NULL;
    if (client->waiting_first == NULL) {
        waiting_link(core, client);
        client->waiting_first = waiting;
    } else {
        client->waiting_last->next = waiting;
    }
    client->waiting_last = waiting;
}

static struct bk_waiting *waiting_take(struct bk_core *core, struct bk_client *client)
{
    struct bk_waiting *waiting = client->waiting_first;
    client->waiting_first = waiting->next;
    if (client->waiting_first == NULL) {
        waiting_unlink(core, client);
    }
    return waiting;
}

/* --- what they are told -------------------------------------------------------------------------------- */

/* What was refused whole is refused again when it is repeated: the first answer may have been lost. */
static void note_outcome(const struct bk_client *client, uint64_t number, int outcome)
{
    if (client->producer != NULL && number != 0) {
        bk_producer_note(client->producer, number, outcome);
    }
}

/* Of a batch whose events for the log have failed: what is left of it. */
static void strike_out(struct bk_waiting *waiting, int error)
{
    size_t kept = 0;
    for (size_t i = 0; i < waiting->n_runs; i++) {
        const struct bk_waiting_run *run = &waiting->runs[i];
        if (!run->is_logged) {
            waiting->runs[kept++] = *run;
            continue;
        }
        for (uint32_t k = 0; k < run->count; k++) {
            bk_waiting_refuse(waiting, run->first + k, error);
        }
        bk_channel_unref(run->channel);
    }
    waiting->n_runs = kept;
    waiting->level = BB_MIN(waiting->level, BB_LEVEL_ACCEPTED);
}

int bk_waiting_outcome(const struct bk_waiting *waiting, int error)
{
    bool has_others = waiting->n_refused > 0;
    for (size_t i = 0; i < waiting->n_runs; i++) {
        has_others = has_others || !waiting->runs[i].is_logged;
    }
    return has_others ? BB_EUNKNOWNRESULT : error;
}

static void refuse(struct bk_core *core, struct bk_client *client, uint64_t number, int error)
{
    bk_count(core, BK_COUNTER_batches_refused, 1);
    bk_client_send_error(core, client, BB_MSG_PUBLISH, number, error, NULL, (struct bb_slice){0});
}

static void tell_failed(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting)
{
    int error = waiting->error;
    int outcome = bk_waiting_outcome(waiting, error);
    strike_out(waiting, error);
    if (outcome == error) {
        refuse(core, client, waiting->number, error);
    } else {
        bk_ack_add(core, client, waiting);
    }
}

/* What is known of the first one: the failure came over it, or over a later one only. */
static void tell_repeated(struct bk_core *core, struct bk_client *client, const struct bk_waiting *waiting)
{
    int outcome = client->producer != NULL ? bk_producer_outcome(client->producer, waiting->number) : 0;
    if (outcome < 0) {
        bk_acks_send_to(core, client); /* the answer to the first one may be among them */
        refuse(core, client, waiting->number, outcome);
    } else {
        bk_ack_add(core, client, waiting);
    }
}

static void answer(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting)
{
    if (waiting->is_repeated) {
        tell_repeated(core, client, waiting);
    } else if (waiting->error != 0 && waiting->ticket != 0) {
        tell_failed(core, client, waiting);
    } else {
        bk_ack_add(core, client, waiting);
    }
    bk_waiting_free(waiting);
}

/* Batches are answered in their order: one that has failed may have to wait for those before it, and its ticket will be
 * another one's. What a repetition repeats may lie under an earlier ticket, which is still on its way. */
static void mark_failed(struct bk_client *client, uint64_t failed, int error)
{
    for (struct bk_waiting *waiting = client->waiting_first; waiting != NULL; waiting = waiting->next) {
        if (waiting->ticket < failed) {
            continue;
        }
        if (waiting->is_repeated) {
            waiting->ticket = failed - 1;
        } else if (waiting->error == 0) {
            waiting->error = error;
            note_outcome(client, waiting->number, bk_waiting_outcome(waiting, error));
        }
    }
}

static bool is_due(const struct bk_core *core, const struct bk_waiting *waiting, uint64_t durable)
{
    return waiting->error != 0 || waiting->ticket <= durable ||
           (!waiting->needs_disk && waiting->ticket < core->stage.ticket);
}

void bk_stage_answer_first(struct bk_core *core, struct bk_client *client)
{
    while (client->waiting_first != NULL && is_due(core, client->waiting_first, core->stage.durable)) {
        answer(core, client, waiting_take(core, client));
    }
}

/* Acknowledge what waited for tickets up to @durable; from @failed on tickets have failed with @error. */
static void release(struct bk_core *core, uint64_t durable, uint64_t failed, int error)
{
    for (struct bk_client *client = core->stage.waiting, *next = NULL; client != NULL; client = next) {
        next = client->next_waiting;
        if (error != 0) {
            mark_failed(client, failed, error);
        }
        while (client->waiting_first != NULL && is_due(core, client->waiting_first, durable)) {
            answer(core, client, waiting_take(core, client));
        }
    }
}

/* --- of clients that went --------------------------------------------------------------------------------- */

void bk_stage_orphan(struct bk_core *core, struct bk_client *client)
{
    while (client->waiting_first != NULL) {
        struct bk_waiting *waiting = waiting_take(core, client);
        bool is_decided = waiting->ticket == 0 || waiting->error != 0;
        if (client->producer == NULL || is_decided || waiting->is_repeated) {
            bk_waiting_free(waiting);
            continue;
        }
        memcpy(waiting->id, client->producer->id, sizeof(waiting->id));
        waiting->epoch = client->producer->epoch;
        waiting->next = core->stage.orphans;
        core->stage.orphans = waiting;
    }
}

/* Nobody waits for these any more, but whether they failed must be known when they are repeated. */
static void release_orphans(struct bk_core *core, uint64_t durable, uint64_t failed, int error)
{
    struct bk_waiting **at = &core->stage.orphans;
    while (*at != NULL) {
        struct bk_waiting *waiting = *at;
        if (waiting->ticket > durable && waiting->ticket < failed) {
            at = &waiting->next;
            continue;
        }
        struct bk_producer *producer = bk_producer_find(core, waiting->id);
        if (waiting->ticket >= failed && producer != NULL && producer->epoch == waiting->epoch) {
            bk_producer_note(producer, waiting->number, bk_waiting_outcome(waiting, error));
        }
        *at = waiting->next;
        bk_waiting_free(waiting);
    }
}

void bk_orphans_fini(struct bk_core *core)
{
    while (core->stage.orphans != NULL) {
        struct bk_waiting *waiting = core->stage.orphans;
        core->stage.orphans = waiting->next;
        bk_waiting_free(waiting);
    }
}

/* --- outcomes of tickets ------------------------------------------------------------------------------------ */

void bk_stage_registered(struct bk_core *core)
{
    release(core, core->stage.durable, UINT64_MAX, 0);
}

static void make_visible(struct bk_core *core, const struct bk_block *block)
{
    struct bk_channel *channel = block->channel;
    channel->shown = BB_MAX(channel->shown, block->sequence + block->count - 1);
    if (bk_ring_push(&core->ring, block) == 0) {
        core->fanned_bytes += block->body_len;
        return;
    }
    /* It is in the log: who reads that will find it; who is live is told to come again. */
    bk_note(core, BK_LOG_ERROR, "BB-MEMORY", "no memory for %" PRIu32 " events that are in the log",
            block->count);
    bk_ring_drop_all(&core->ring, channel);
    channel->last = block->sequence + block->count - 1;
    channel->first = channel->last + 1;
    bk_ring_drop(block);
    bk_send_all_away(core);
}

static void succeed_to(struct bk_core *core, uint64_t ticket)
{
    struct bk_stage *stage = &core->stage;
    bk_channels_lives_stored(&core->channels, ticket, UINT64_MAX);
    while (stage->first < bk_stage_end(stage) && bk_stage_at(stage, stage->first)->ticket <= ticket) {
        struct bk_block block = bk_stage_at(stage, stage->first)->block;
        stage->bytes -= sizeof(struct bk_staged) + block.head_len + block.body_len;
        stage->first++;
        stage->n_gone++;
        make_visible(core, &block);
    }
    bk_stage_drop_gone(stage);
    stage->durable = BB_MAX(stage->durable, ticket);
    release_orphans(core, ticket, UINT64_MAX, 0);
    release(core, ticket, UINT64_MAX, 0);
    bk_cursors_saved(core, ticket);
    bk_stage_removals_done(core, ticket, UINT64_MAX);
    bk_held_release(core, ticket, UINT64_MAX, 0);
    bk_retained_durable(core);
}

/* A log that is full fails for each publish: the person who reads of it needs one line, not all. */
static void note_failure(struct bk_core *core, int error)
{
    struct bk_stage *stage = &core->stage;
    stage->n_untold++;
    if (stage->failure_told_at != 0 && core->monotonic < stage->failure_told_at + FAILURE_PAUSE_US) {
        return;
    }
    bk_note(core, BK_LOG_ERROR, "BB-LOG-FAILED", "events could not be written to the log, %llu times: %s",
            (unsigned long long)stage->n_untold, bb_strerror(error));
    stage->failure_told_at = BB_MAX(core->monotonic, 1);
    stage->n_untold = 0;
}

static void drop_staged(struct bk_core *core, uint64_t ticket)
{
    struct bk_stage *stage = &core->stage;
    size_t keep = bk_stage_end(stage);
    while (keep > stage->first && bk_stage_at(stage, keep - 1)->ticket >= ticket) {
        const struct bk_block *block = &bk_stage_at(stage, --keep)->block;
        stage->bytes -= sizeof(struct bk_staged) + block->head_len + block->body_len;
        block->channel->taken = block->sequence - 1; /* walked backwards: the lowest stays */
        bk_count(core, BK_COUNTER_log_refused, block->count);
        bk_ring_drop(block);
    }
    stage->blocks.len = keep * sizeof(struct bk_staged);
    bk_stage_drop_gone(stage);
}

/* Earlier tickets may still be on their way: nothing is said of those. */
void bk_stage_fail(struct bk_core *core, uint64_t ticket, int error)
{
    struct bk_stage *stage = &core->stage;
    uint64_t durable = BB_MIN(stage->durable, ticket - 1);
    drop_staged(core, ticket);
    bk_channels_lives_stored(&core->channels, durable, ticket);
    for (size_t i = 0; i < core->channels.n_channels; i++) { /* what the log was told may be lost */
        core->channels.list[i]->is_known[BK_STORE_LOG] = false;
    }
    core->channels.has_unknown[BK_STORE_LOG] = true;
    stage->has_news = false; /* what was staged since fails too; its number is free again */
    stage->ticket_bytes = 0;
    if (ticket < stage->ticket) {
        stage->durable = stage->ticket - 1;
    }
    bk_producers_unstage(core);
    bk_cursors_failed(core, ticket);
    note_failure(core, error);
    bk_early_retract(core);
    release_orphans(core, durable, ticket, error);
    release(core, durable, ticket, error);
    bk_stage_removals_done(core, durable, ticket);
    bk_held_release(core, durable, ticket, error);
    bk_retained_durable(core);
}

/* A log that cannot be written says when it can; one that had no memory does not. */
void bk_stage_retry(struct bk_core *core)
{
    struct bk_stage *stage = &core->stage;
    bool is_time = core->monotonic >= stage->failure_told_at + FAILURE_PAUSE_US;
    bool has_removals = stage->state != BK_BACKEND_FAILED && bk_stage_has_removals(stage);
    if (is_time && (has_removals || bk_cursors_wait(core))) {
        stage->has_news = true;
    }
}

/* --- the listener ---------------------------------------------------------------------------------------- */

void bk_on_flushed(void *context, uint64_t ticket, int error)
{
    struct bk_core *core = context;
    core->stage.is_stalled = false;
    if (error == 0) {
        succeed_to(core, ticket);
    } else {
        bk_stage_fail(core, ticket, error);
    }
}

void bk_on_state(void *context, enum bk_backend_state state, const char *text)
{
    struct bk_core *core = context;
    static const char *const words[] = {"can be written again", "is full", "cannot be written"};
    core->stage.state = state;
    core->stage.has_news =
        core->stage.has_news || state == BK_BACKEND_OK; /* what channels are set to may have been lost */
    if (state == BK_BACKEND_OK && core->stage.n_going > 0) {
        core->stage.is_behind = true; /* that comes first */
    }
    bk_note(core, state == BK_BACKEND_OK ? BK_LOG_NOTICE : BK_LOG_ERROR, "BB-LOG-STATE", "the log %s: %s",
            words[state], text != NULL ? text : "");
}

void bk_on_log_trimmed(void *context, uint32_t id, uint64_t first)
{
    struct bk_core *core = context;
    struct bk_channel *channel = bk_channels_find_id(&core->channels, id);
    if (channel != NULL) {
        channel->log_first = BB_MAX(channel->log_first, first);
        bk_ring_trim(&core->ring, channel, channel->log_first);
    }
}

void bk_on_memory_trimmed(void *context, uint32_t id, uint64_t first)
{
    struct bk_core *core = context;
    struct bk_channel *channel = bk_channels_find_id(&core->channels, id);
    if (channel != NULL && bk_store_of(core, channel) == BK_STORE_MEMORY) {
        bk_ring_trim(&core->ring, channel, first);
    }
}

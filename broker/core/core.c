/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/core.h"

#include "broker/core/backend.h"
#include "broker/core/bytes.h"
#include "broker/core/clients/ack.h"
#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/deliver/catchup.h"
#include "broker/core/deliver/early.h"
#include "broker/core/deliver/evict.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/ingest/defer.h"
#include "broker/core/ingest/expect.h"
#include "broker/core/ingest/pause.h"
#include "broker/core/ingest/publish.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/keep/settings.h"
#include "broker/core/log/append.h"
#include "broker/core/log/cursor.h"
#include "broker/core/log/durable.h"
#include "broker/core/log/held.h"
#include "broker/core/log/restore.h"
#include "broker/core/log/stage.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"

#include <stdlib.h>

/* Kept from the beginning, so that errors, gaps and goodbyes can be said when there is no memory. */
#define ANSWER_BYTES ((size_t)4096)

/* --- coming and going ------------------------------------------------------------------------------- */

static void init(struct bk_core *core, const struct bk_config *config, const struct bk_out *out)
{
    const struct bk_settings defaults = {
        .sync = true, .retention = BK_RETENTION_INIT, .ring_bytes = config->ring_bytes};
    core->config = *config;
    core->out = out;
    core->session = config->first_session;
    atomic_init(&core->meter.bytes, 0);
    bk_channels_init(&core->channels, config->seed, config->max_channels, config->run, &defaults);
    bb_map_init(&core->cursors, config->seed, SIZE_MAX);
    core->stage.ticket = 1;
    core->stage.held_end = &core->stage.held;
    bk_ring_init(&core->ring, &core->meter, config->memory_bytes, bk_evicted, core);
    bb_map_init(&core->clients_by_id, config->seed, config->max_clients + 1);
    bb_map_init(&core->producers, config->seed, BK_PRODUCERS_IDLE_MAX + config->max_clients + 1);
}

int bk_core_new(const struct bk_config *config, const struct bk_out *out, struct bk_core **ret_core)
{
    struct bk_core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        return BB_ENOMEM;
    }
    init(core, config, out);
    core->fan = bk_fan_new();
    int r = bk_route_init(&core->route, config->seed, &core->channels);
    bool can_answer = bb_buf_reserve(&core->scratch, ANSWER_BYTES) != NULL &&
                      bb_buf_reserve(&core->nested, ANSWER_BYTES) != NULL &&
                      bb_buf_reserve(&core->gaps, ANSWER_BYTES) != NULL;
    if (r < 0 || core->fan == NULL || !can_answer) {
        bk_core_free(core);
        return BB_ENOMEM;
    }
    *ret_core = core;
    return 0;
}

void bk_core_free(struct bk_core *core)
{
    if (core == NULL) {
        return;
    }
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        bk_client_doom(core, client, true);
    }
    bk_sweep(core);
    bk_stage_fini(core);
    bk_orphans_fini(core);
    bk_held_fini(core);
    bk_cursors_fini(core);
    bk_producers_fini(core);
    bb_map_fini(&core->clients_by_id);
    bk_route_fini(&core->route);
    bk_ring_fini(&core->ring);
    bk_channels_fini(&core->channels);
    struct bb_buf *const bufs[] = {&core->scratch, &core->nested, &core->gaps,    &core->moves,
                                   &core->ranges,  &core->runs,   &core->refused, &core->kept};
    for (size_t i = 0; i < BB_COUNT(bufs); i++) {
        bb_buf_fini(bufs[i]);
    }
    bk_fan_free(core->fan);
    bk_parcel_fini(&core->parcel);
    free(core);
}

static void ignore_ticket(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void ignore_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static void ignore_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    (void)state;
    (void)text;
}

const struct bk_backend_listener *bk_core_listener(struct bk_core *core, enum bk_store store)
{
    core->listeners[store] =
        store == BK_STORE_LOG
            ? (struct bk_backend_listener){core, ignore_ticket, bk_on_flushed, bk_on_log_trimmed, bk_on_state}
            : (struct bk_backend_listener){core, ignore_ticket, ignore_flushed, bk_on_memory_trimmed,
                                           ignore_state};
    return &core->listeners[store];
}

int bk_core_set_backend(struct bk_core *core, enum bk_store store, struct bk_backend *backend)
{
    core->backends[store] = backend;
    return store == BK_STORE_LOG ? bk_restore(core, backend) : 0;
}

struct bk_meter *bk_core_meter(struct bk_core *core)
{
    return &core->meter;
}

void bk_core_set_time(struct bk_core *core, uint64_t monotonic, uint64_t wall)
{
    if (core->started_at == 0) {
        core->started_at = monotonic;
    }
    core->monotonic = monotonic;
    core->wall = wall;
}

uint64_t bk_core_counter(const struct bk_core *core, enum bk_counter counter)
{
    return core->counters[counter];
}

/* What every call ends with. */
static void end_call(struct bk_core *core)
{
    bk_sweep(core);
    if (core->config.check > 0) {
        bk_core_check(core);
    }
}

/* --- clients ---------------------------------------------------------------------------------------- */

struct bk_client *bk_core_client_add(struct bk_core *core, void *peer)
{
    struct bk_client *client = NULL;
    if (core->n_clients < core->config.max_clients && !core->shutting_down) {
        client = calloc(1, sizeof(*client));
    }
    if (client == NULL) {
        bk_count(core, BK_COUNTER_clients_refused, 1);
        return NULL;
    }
    client->peer = peer;
    client->number = ++core->next_number;
    client->heartbeat_us = core->config.heartbeat_us;
    client->heard_at = client->came_at = core->monotonic;
    bb_map_init(&client->subs_by_id, core->config.seed, core->config.max_patterns);
    client->next = core->clients;
    if (client->next != NULL) {
        client->next->prev = client;
    }
    core->clients = client;
    core->n_clients++;
    return client;
}

void bk_core_client_gone(struct bk_core *core, struct bk_client *client)
{
    bk_client_doom(core, client, false);
    client->tell_plug = false;
    end_call(core);
}

/* --- messages ------------------------------------------------------------------------------------- */

static const struct {
    bk_handle_fn *handle;
    bool when_new;
    bool when_ready;
    bool settled; /* what came before is fanned out first */
} messages[] = {
    [BB_MSG_HELLO] = {bk_handle_hello, true, false, false},
    [BB_MSG_SUBSCRIBE] = {bk_handle_subscribe, false, true, true},
    [BB_MSG_UNSUBSCRIBE] = {bk_handle_unsubscribe, false, true, true},
    [BB_MSG_CREDIT] = {bk_handle_credit, false, true, false},
    /* Not before hello: who was forgotten while it was silent must not take a pong for a sign of life. */
    [BB_MSG_PING] = {bk_handle_ping, false, true, false},
    [BB_MSG_PONG] = {bk_handle_pong, true, true, false},
    [BB_MSG_STATUS] = {bk_handle_status, false, true, false},
    [BB_MSG_MATCHES] = {bk_handle_matches, false, true, true},
    [BB_MSG_GOODBYE] = {bk_handle_goodbye, true, true, false},
    [BB_MSG_CURSOR] = {bk_handle_cursor, false, true, false},
    [BB_MSG_QUERY] = {bk_handle_query, false, true, false},
    [BB_MSG_CHANNEL] = {bk_handle_channel, false, true, true},
    [BB_MSG_LOG] = {bk_handle_log, false, true, false},
};

static void
refuse_conflict(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, int error)
{
    struct bb_buf detail = BB_BUF_INIT;
    struct bb_buf text = BB_BUF_INIT;
    if (error == BB_ECONFLICT) {
        bb_buf_append(&detail, core->nested.data, core->nested.len);
        bk_expect_explain(&text, bb_buf_slice(&detail));
    }
    bk_publish_refuse(core, client, msg, error, text.error == 0 && text.len > 0 ? bb_buf_string(&text) : NULL,
                      bb_buf_slice(&detail));
    bb_buf_fini(&text);
    bb_buf_fini(&detail);
}

/* Whether the publish may go on now: not when what it expects has to be looked up first. A repetition is not judged again. */
static bool meets_expectations(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    const uint64_t last = client->producer != NULL ? client->producer->last : client->last_number;
    if (msg->number != 0 && msg->number <= last) {
        return true;
    }
    int r = bk_expect_judge(core, client, msg->options);
    if (r == BB_EAGAIN) {
        client->input = BK_INPUT_DEFERRED;
        return false;
    }
    bb_buf_reset(&client->known);
    if (r < 0) {
        refuse_conflict(core, client, msg, r);
    }
    return r == 0;
}

static void handle_publish(struct bk_core *core,
                           struct bk_client *client,
                           const struct bb_msg *msg,
                           struct bk_bytes *owner)
{
    if (client->state == BK_CLIENT_NEW && msg->number != 0) {
        bk_client_send_error(core, client, msg->type, msg->number, BB_EHELLO, NULL, (struct bb_slice){0});
        return;
    }
    if (bk_pause_is_due(core, msg->body)) {
        bk_pause(core, client);
        return;
    }
    if (msg->options.len > 0 && !meets_expectations(core, client, msg)) {
        return;
    }
    (void)bk_publish(core, client, msg, msg->body, owner); /* the client has been told */
}

/* Before a batch: fan out if much has come, and keep the route's memory in bounds. */
static void fan_out_if_due(struct bk_core *core)
{
    if (core->fanned_bytes >= BK_ROUND_BYTES) {
        bk_fan_out(core);
    }
    bk_route_trim(&core->route);
}

static void
dispatch(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bk_bytes *owner)
{
    int error = 0;
    if (msg->type == BB_MSG_PUBLISH) {
        handle_publish(core, client, msg, owner);
        return;
    }
    if (msg->type >= BB_COUNT(messages) || messages[msg->type].handle == NULL) {
        error = BB_EUNKNOWN; /* one of the broker's own */
    } else if (client->state == BK_CLIENT_NEW && !messages[msg->type].when_new) {
        error = BB_EHELLO;
    } else if (client->state == BK_CLIENT_READY && !messages[msg->type].when_ready) {
        error = BB_ESTATE;
    }
    if (error != 0) {
        bk_client_refuse(core, client, msg, error, NULL);
        return;
    }
    if (messages[msg->type].settled) {
        bk_fan_out(core);
    }
    if (!bk_client_is_doomed(client)) { /* the fan-out may have found out that it is gone */
        messages[msg->type].handle(core, client, msg);
    }
}

/* PROTOCOL 6.2: a publish that is refused has used up its number. */
static void refuse_bad(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad)
{
    if (bad->about == BB_MSG_PUBLISH && bad->corr != 0 && client->state == BK_CLIENT_READY) {
        const struct bb_msg msg = {.type = BB_MSG_PUBLISH, .number = bad->corr};
        bk_publish_refuse(core, client, &msg, bad->error, bad->text, (struct bb_slice){0});
    } else {
        bk_client_send_error(core, client, bad->about, bad->corr, bad->error, bad->text,
                             (struct bb_slice){0});
    }
    if (bad->is_strike) {
        bk_client_strike(core, client);
    }
}

static void
take_message(struct bk_core *core, struct bk_client *client, struct bb_slice bytes, struct bk_bytes *owner)
{
    struct bb_msg msg = {0};
    if (bytes.len > core->config.max_message) {
        refuse_bad(core, client, &(struct bk_bad_message){.error = BB_ETOOBIG, .is_strike = true});
        return;
    }
    fan_out_if_due(core);
    if (bk_client_is_doomed(client)) {
        return; /* the fan-out found out; a number is not used up */
    }
    if (bytes.len > 0 && !bb_msg_is_head(bytes)) {
        msg.type = BB_MSG_PUBLISH; /* PROTOCOL 6.3: bare events */
        msg.body = bytes;
        handle_publish(core, client, &msg, owner);
        return;
    }
    int r = bb_msg_decode(bytes, &msg);
    if (r == 0 && msg.type != BB_MSG_PUBLISH && msg.body.len > 0) {
        r = BB_EMALFORMED; /* PROTOCOL 2: nothing follows the head of these */
    }
    if (r == 0) {
        dispatch(core, client, &msg, owner);
    } else {
        const struct bk_bad_message bad = {
            .about = msg.type, .corr = msg.corr, .error = r, .is_strike = true};
        refuse_bad(core, client, &bad);
    }
}

void bk_core_message(struct bk_core *core,
                     struct bk_client *client,
                     struct bb_slice bytes,
                     struct bk_bytes *owner)
{
    bk_count(core, BK_COUNTER_messages_in, 1);
    client->heard_at = core->monotonic;
    if (client->input == BK_INPUT_TAKEN && !bk_client_is_doomed(client)) {
        take_message(core, client, bytes, owner);
    }
    if (client->input != BK_INPUT_TAKEN && !bk_client_is_doomed(client)) {
        bk_defer(core, client, bytes, owner);
    }
    end_call(core);
}

void bk_core_bad_message(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad)
{
    client->heard_at = core->monotonic;
    if (client->input != BK_INPUT_TAKEN) {
        bk_defer_bad(core, client, bad);
    } else if (!bk_client_is_doomed(client)) {
        refuse_bad(core, client, bad);
    }
    end_call(core);
}

/* --- the windows ---------------------------------------------------------------------------------- */

int bk_core_ingest(struct bk_core *core, struct bb_slice events, struct bk_bytes *owner)
{
    fan_out_if_due(core);
    int r = bk_publish(core, NULL, &(struct bb_msg){.type = BB_MSG_PUBLISH}, events, owner);
    end_call(core);
    return r;
}

void bk_core_window_dropped(struct bk_core *core)
{
    bk_count(core, BK_COUNTER_window_dropped, 1);
}

void bk_core_ingest_refused(struct bk_core *core, int error)
{
    bk_count(core, BK_COUNTER_ingest_refused, 1);
    bk_note(core, BK_LOG_DEBUG, "BB-INGEST-REFUSED", "a window message was not taken: %s",
            bb_strerror(error));
}

/* --- flush ---------------------------------------------------------------------------------------- */

/* Take in what a client sent while it had to wait. It may have to wait again. */
static void take_deferred(struct bk_core *core, struct bk_client *client)
{
    struct bk_deferred *deferred = NULL;
    client->input = BK_INPUT_TAKEN;
    while (!bk_client_is_doomed(client) && client->input == BK_INPUT_TAKEN &&
           (deferred = bk_deferred_take(client)) != NULL) {
        if (deferred->is_bad) {
            refuse_bad(core, client, &deferred->bad);
        } else {
            take_message(core, client, deferred->bytes, deferred->owner);
        }
        if (client->input == BK_INPUT_TAKEN) {
            bk_deferred_free(deferred);
        } else { /* before the others */
            bk_deferred_return(client, deferred);
        }
    }
}

static void resume_clients(struct bk_core *core)
{
    while (core->resuming != NULL) {
        struct bk_client *client = core->resuming;
        core->resuming = client->next_resuming;
        client->is_resuming = false;
        take_deferred(core, client);
    }
}

static void end_pauses(struct bk_core *core)
{
    struct bk_client *client = NULL;
    if (!bk_pause_is_over(core)) {
        return;
    }
    core->stage.is_behind = core->stage.drains = false;
    while ((client = bk_pause_next(core)) != NULL) {
        take_deferred(core, client);
        bk_pause_end(core, client);
    }
}

static bool has_news_for_waiters(const struct bk_core *core)
{
    return core->waiters != NULL && core->waiters_generation != core->route.generation;
}

void bk_core_flush(struct bk_core *core)
{
    resume_clients(core);
    end_pauses(core);
    bk_append_submit(core);
    bk_fan_out(core);
    if (has_news_for_waiters(core)) {
        (void)bk_waiters_check(core); /* when to look again was said before */
    }
    bk_catch_up(core);
    bk_early_show(core);
    bk_acks_send(core);
    end_call(core);
}

bool bk_core_wants_flush(const struct bk_core *core)
{
    return (core->stage.has_news && !core->stage.is_stalled) || bk_pause_is_over(core) ||
           core->ready_first != NULL || core->acked != NULL || core->resuming != NULL ||
           core->doomed != NULL || has_news_for_waiters(core) || core->fanned_pos != bk_ring_end(&core->ring);
}

/* --- the end -------------------------------------------------------------------------------------- */

void bk_core_shut_down(struct bk_core *core)
{
    core->shutting_down = true;
}

static bool has_all(const struct bk_core *core, const struct bk_sub *sub)
{
    return bk_sub_is_live(sub) || (sub->until != BK_UNTIL_NONE && sub->state == BK_SUB_LAGGING &&
                                   sub->n_cold == 0 && sub->cursor >= core->fanned_pos);
}

/* Somebody waits for the backends. What a log that takes nothing keeps back is not waited for. */
static bool owes_answers(const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    bool is_held = stage->held != NULL || stage->removed.len > 0;
    return stage->waiting != NULL || core->asks != NULL || (is_held && stage->state == BK_BACKEND_OK);
}

bool bk_core_is_drained(const struct bk_core *core)
{
    if (bk_core_wants_flush(core) || core->stage.blocks.len > 0 || owes_answers(core)) {
        return false;
    }
    for (const struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (const struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (!has_all(core, sub)) {
                return false;
            }
        }
    }
    return true;
}

void bk_core_say_goodbye(struct bk_core *core)
{
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        bk_client_send_away(core, client, BB_ESHUTDOWN, NULL);
    }
    end_call(core);
}

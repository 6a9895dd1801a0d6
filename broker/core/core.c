/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/state.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Producers without a connection that are remembered; the oldest are forgotten first. */
#define PRODUCERS_MAX ((size_t)65536)

/* Kept from the beginning, so that errors, gaps and goodbyes can be said when there is no memory. */
#define ANSWER_BYTES ((size_t)4096)

int bk_core_new(const struct bk_config *config, const struct bk_out *out, struct bk_core **ret_core)
{
    struct bk_core *core = calloc(1, sizeof(*core));
    if (core == NULL) {
        return BB_ENOMEM;
    }
    core->config = *config;
    core->out = out;
    atomic_init(&core->meter.bytes, 0);
    const struct bk_settings defaults = {
        .sync = true, .retention = BK_RETENTION_INIT, .ring_bytes = config->ring_bytes};
    bk_channels_init(&core->channels, config->seed, config->max_channels, &defaults);
    bb_map_init(&core->cursors, config->seed, SIZE_MAX);
    core->stage.ticket = 1;
    core->stage.saves_end = &core->stage.saves;
    core->stage.held_end = &core->stage.held;
    bk_ring_init(&core->ring, &core->meter, config->memory_bytes, bk_block_evicted, core);
    bb_map_init(&core->producers, config->seed, PRODUCERS_MAX + config->max_clients);
    core->fan = bk_fan_new();
    int r = bk_route_init(&core->route, config->seed, &core->channels);
    bool can_answer = bb_buf_reserve(&core->scratch, ANSWER_BYTES) != NULL &&
                      bb_buf_reserve(&core->nested, ANSWER_BYTES) != NULL;
    if (r < 0 || core->fan == NULL || !can_answer) {
        bk_core_free(core);
        return BB_ENOMEM;
    }
    *ret_core = core;
    return 0;
}

static void producers_free(struct bk_core *core)
{
    size_t at = 0;
    struct bk_producer *producer = NULL;
    while ((producer = bb_map_next(&core->producers, &at, NULL)) != NULL) {
        free(producer);
    }
    bb_map_fini(&core->producers);
}

/* Clients are freed only when no function of the core holds them any more. */
static void gone_free(struct bk_core *core)
{
    bk_fanning_end(core); /* eviction may have found some that must go */
    while (core->gone != NULL) {
        struct bk_client *client = core->gone;
        core->gone = client->next;
        bb_map_fini(&client->subs_by_id);
        bb_buf_fini(&client->acks);
        bk_deferred_forget(client);
        free(client);
    }
}

void bk_core_free(struct bk_core *core)
{
    if (core == NULL) {
        return;
    }
    while (core->clients != NULL) {
        bk_client_remove(core, core->clients, true);
    }
    gone_free(core);
    bk_stage_fini(core);
    bk_cursors_fini(core);
    producers_free(core);
    bk_route_fini(&core->route);
    bk_ring_fini(&core->ring);
    bk_channels_fini(&core->channels);
    bb_buf_fini(&core->scratch);
    bb_buf_fini(&core->nested);
    bb_buf_fini(&core->gaps);
    bb_buf_fini(&core->runs);
    bb_buf_fini(&core->refused);
    bb_buf_fini(&core->kept);
    bk_fan_free(core->fan);
    bk_parcel_fini(&core->parcel);
    free(core);
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

uint64_t bk_core_tick_at(const struct bk_core *core)
{
    return core->tick_at;
}

void *bk_core_peer(const struct bk_client *client)
{
    return client->peer;
}

void bk_log(struct bk_core *core, enum bk_log_level level, const char *id, const char *format, ...)
{
    char text[512];
    if (core->out->log == NULL) {
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    core->out->log(core->out->context, level, id, text);
}

/* --- messages ------------------------------------------------------------------------------------- */

static void handle_ping(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bk_client_send_msg(core, client, &(struct bb_msg){.type = BB_MSG_PONG, .token = msg->token});
}

static void handle_pong(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bk_client_read(core, client, msg->token);
}

static void handle_goodbye(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    (void)msg;
    bk_client_remove(core, client, true);
}

typedef void handle_fn(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

static const struct {
    handle_fn *handle;
    bool when_new;
    bool when_ready;
} handlers[] = {
    [BB_MSG_HELLO] = {bk_client_hello, true, false},
    [BB_MSG_SUBSCRIBE] = {bk_handle_subscribe, false, true},
    [BB_MSG_UNSUBSCRIBE] = {bk_handle_unsubscribe, false, true},
    [BB_MSG_CREDIT] = {bk_handle_credit, false, true},
    /* Not before hello: who was forgotten while it was silent must not take a pong for a sign of life. */
    [BB_MSG_PING] = {handle_ping, false, true},
    [BB_MSG_PONG] = {handle_pong, true, true},
    [BB_MSG_STATUS] = {bk_handle_status, false, true},
    [BB_MSG_MATCHES] = {bk_handle_matches, false, true},
    [BB_MSG_GOODBYE] = {handle_goodbye, true, true},
    [BB_MSG_CURSOR] = {bk_handle_cursor, false, true},
    [BB_MSG_QUERY] = {bk_handle_query, false, true},
    [BB_MSG_CHANNEL] = {bk_handle_channel, false, true},
    [BB_MSG_LOG] = {bk_handle_log, false, true},
};

/* Whether the publish may go on now: not when what it expects has to be looked up first. */
static bool meets_expectations(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int r = bk_expect_judge(core, client, msg->options);
    if (r == BB_EAGAIN) {
        client->is_deferring = true;
        return false;
    }
    bb_buf_reset(&client->known);
    if (r < 0) {
        bk_publish_refuse(core, client, msg, r);
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
    if (core->stage.is_behind && bk_pause_is_due(core, msg->body)) {
        bk_pause(core, client);
        return;
    }
    if (msg->options.len > 0 && !meets_expectations(core, client, msg)) {
        return;
    }
    (void)bk_publish(core, client, msg, msg->body, owner);
}

static void
dispatch(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bk_bytes *owner)
{
    int error = 0;
    if (msg->type == BB_MSG_PUBLISH) {
        handle_publish(core, client, msg, owner);
        return;
    }
    if (msg->type >= BB_COUNT(handlers) || handlers[msg->type].handle == NULL) {
        error = BB_EUNKNOWN; /* one of the broker's own */
    } else if (client->state == BK_CLIENT_NEW && !handlers[msg->type].when_new) {
        error = BB_EHELLO;
    } else if (client->state == BK_CLIENT_READY && !handlers[msg->type].when_ready) {
        error = BB_ESTATE;
    }
    if (error != 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, error, NULL, (struct bb_slice){0});
        return;
    }
    handlers[msg->type].handle(core, client, msg);
}

/* PROTOCOL 6.2: a publish that is refused has used up its number. */
static void refuse_bad(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad)
{
    struct bb_msg msg = {.type = BB_MSG_PUBLISH, .number = bad->corr};
    if (bad->about == BB_MSG_PUBLISH && bad->corr != 0 && client->state == BK_CLIENT_READY) {
        bk_publish_refuse(core, client, &msg, bad->error);
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
    } else if (bytes.len > 0 && !bb_msg_is_head(bytes)) {
        msg.type = BB_MSG_PUBLISH; /* PROTOCOL 6.3: bare events */
        msg.body = bytes;
        handle_publish(core, client, &msg, owner);
    } else {
        int r = bb_msg_decode(bytes, &msg);
        if (r == 0 && msg.type != BB_MSG_PUBLISH && msg.body.len > 0) {
            r = BB_EMALFORMED; /* PROTOCOL 2: nothing follows the head of these */
        }
        if (r == 0) {
            dispatch(core, client, &msg, owner);
        } else {
            struct bk_bad_message bad = {.about = msg.type, .corr = msg.corr, .error = r, .is_strike = true};
            refuse_bad(core, client, &bad);
        }
    }
}

void bk_core_message(struct bk_core *core,
                     struct bk_client *client,
                     struct bb_slice bytes,
                     struct bk_bytes *owner)
{
    bk_count(core, BK_COUNTER_messages_in, 1);
    client->heard_at = core->monotonic;
    if (client->is_deferring) {
        (void)bk_defer(core, client, bytes, owner);
    } else {
        take_message(core, client, bytes, owner);
        if (client->is_deferring) {
            (void)bk_defer(core, client, bytes, owner);
        }
    }
    gone_free(core);
}

void bk_deferred_resume(struct bk_core *core, struct bk_client *client)
{
    struct bb_slice bytes = {0};
    struct bk_bytes *owner = NULL;
    struct bk_deferred *deferred = NULL;
    client->is_deferring = false;
    while (client->state != BK_CLIENT_GONE && !client->is_deferring &&
           (deferred = bk_deferred_take(client, &bytes, &owner)) != NULL) {
        take_message(core, client, bytes, owner);
        if (!client->is_deferring) {
            bk_deferred_free(deferred);
        } else { /* it must wait again, before the others */
            bk_deferred_return(client, deferred);
        }
    }
}

void bk_core_bad_message(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad)
{
    refuse_bad(core, client, bad);
    gone_free(core);
}

void bk_core_client_gone(struct bk_core *core, struct bk_client *client)
{
    bk_client_remove(core, client, false);
    gone_free(core);
}

int bk_core_ingest(struct bk_core *core, struct bb_slice events, struct bk_bytes *owner)
{
    int r = bk_publish(core, NULL, &(struct bb_msg){.type = BB_MSG_PUBLISH}, events, owner);
    gone_free(core);
    return r;
}

void bk_core_window_dropped(struct bk_core *core)
{
    bk_count(core, BK_COUNTER_window_dropped, 1);
}

void bk_core_ingest_refused(struct bk_core *core, int error)
{
    bk_count(core, BK_COUNTER_ingest_refused, 1);
    bk_log(core, BK_LOG_DEBUG, "BB-INGEST-REFUSED", "a window message was not taken: %s", bb_strerror(error));
}

/* --- flush ---------------------------------------------------------------------------------------- */

static void acks_send(struct bk_core *core)
{
    while (core->acked != NULL) {
        struct bk_client *client = core->acked;
        core->acked = client->next_acked;
        client->next_acked = NULL;
        bb_buf_reset(&core->nested);
        bb_mp_write_array(&core->nested, client->n_acks);
        bb_buf_append(&core->nested, client->acks.data, client->acks.len);
        int error = client->acks.error != 0 ? client->acks.error : core->nested.error;
        client->n_acks = 0;
        bb_buf_reset(&client->acks);
        if (error != 0) {
            bk_client_send_away(core, client, error, "no memory for acknowledgements");
            continue;
        }
        bk_client_send_msg(core, client,
                           &(struct bb_msg){.type = BB_MSG_ACK, .entries = bb_buf_slice(&core->nested)});
    }
}

void bk_core_flush(struct bk_core *core)
{
    bk_pause_end(core);
    bk_stage_submit(core);
    bk_fan_out(core);
    bk_catch_up(core);
    bk_early_show(core);
    acks_send(core);
    gone_free(core);
}

bool bk_core_wants_flush(const struct bk_core *core)
{
    return (core->stage.has_news && !core->stage.is_stalled) || bk_pause_is_over(core) ||
           core->ready_first != NULL || core->acked != NULL || core->fanned_pos != bk_ring_end(&core->ring);
}

/* --- the end -------------------------------------------------------------------------------------- */

void bk_core_shut_down(struct bk_core *core)
{
    core->shutting_down = true;
}

bool bk_core_is_drained(const struct bk_core *core)
{
    if (bk_core_wants_flush(core) || core->stage.blocks.len > 0 || core->stage.waiting != NULL) {
        return false;
    }
    for (const struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (const struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            bool has_all = sub->live || (sub->until != BK_UNTIL_NONE && sub->n_cold == 0 &&
                                         sub->cursor >= core->fanned_pos);
            if (!has_all) {
                return false;
            }
        }
    }
    return true;
}

void bk_core_say_goodbye(struct bk_core *core)
{
    while (core->clients != NULL) {
        bk_client_send_away(core, core->clients, BB_ESHUTDOWN, NULL);
    }
    gone_free(core);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/handle.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/conn.h"
#include "bus/cursor.h"
#include "bus/deliver.h"
#include "bus/places.h"
#include "bus/requests.h"
#include "bus/signal.h"

/* A broker that reads nothing is not answered without end. */
#define PONG_UNWRITTEN_MAX ((size_t)64 << 10)

#define MP_NIL 0xc0

static int error_of(const struct bb_msg *msg)
{
    return bb_error_from_code((const char *)msg->code.data, msg->code.len);
}

static void note_code(struct bb_bus *bus, const struct bb_msg *msg)
{
    bb_bus_note(bus, error_of(msg), "%.*s: %.*s", (int)msg->code.len, (const char *)msg->code.data,
                (int)msg->text.len, (const char *)msg->text.data);
}

/* A number in a map of limits, @otherwise if it is not there. */
static uint64_t limit_find(struct bb_slice limits, const char *name, uint64_t otherwise)
{
    struct bb_mp_reader reader = bb_mp_reader(limits);
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        bool is_it = bb_mp_peek_type(&reader) == BB_MP_STR;
        is_it = is_it && bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str(name));
        if (is_it && bb_mp_peek_type(&reader) == BB_MP_UINT) {
            return bb_mp_read_uint(&reader);
        }
        bb_mp_skip(&reader);
    }
    return otherwise;
}

static bool has_feature(struct bb_slice features, const char *name)
{
    struct bb_mp_reader reader = bb_mp_reader(features);
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_mp_peek_type(&reader) != BB_MP_STR) {
            bb_mp_skip(&reader);
        } else if (bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str(name))) {
            return true;
        }
    }
    return false;
}

static void handle_welcome(struct bb_bus *bus, const struct bb_msg *msg)
{
    if (bus->conn.state != BB_CONN_HELLO_SENT || msg->version != BB_PROTOCOL_VERSION) {
        bb_conn_drop(bus, BB_EVERSION, "the broker's welcome cannot be understood");
        return;
    }
    uint64_t heartbeat = limit_find(msg->limits, "heartbeat", bus->options.heartbeat_ms);
    uint64_t max_message = limit_find(msg->limits, "max_message", BB_MESSAGE_DEFAULT);
    bus->has_lives = has_feature(msg->features, "lives");
    bus->run_number = msg->run;
    bus->server = msg->server;
    bus->client_number = msg->client_number;
    bus->max_message = (size_t)BB_MIN(max_message, BB_MESSAGE_MAX);
    bus->n_connects++;
    bb_conn_welcomed(&bus->conn, bb_now_ms(), (uint32_t)BB_MIN(heartbeat, UINT32_MAX));
    bb_outbox_resume(&bus->outbox, msg->last, bus->max_message);
    bb_subscriptions_ready(bus);
    bb_conn_send_batches(bus);
    bb_bus_changed(bus);
}

static void handle_subscribed(struct bb_bus *bus, const struct bb_msg *msg)
{
    struct bb_subscription *sub = bb_subscription_find(bus, msg->sub);
    if (sub == NULL || sub->corr != msg->corr || sub->state != BB_SUB_ASKED) {
        return;
    }
    if (msg->ends.len > 0 && msg->ends.data[0] != MP_NIL) { /* else what they were still holds */
        bb_buf_reset(&sub->ends);
        bb_buf_append(&sub->ends, msg->ends.data, msg->ends.len);
    }
    if (sub->ends.error < 0 || bb_places_begin(sub, msg->positions, bus->run_number) < 0) {
        bb_conn_drop(bus, BB_EMALFORMED, "the broker's answer to subscribe cannot be understood");
        return;
    }
    bool is_resumed = sub->has_started;
    sub->state = BB_SUB_LIVE;
    sub->has_started = true;
    bb_cursor_begin(sub, is_resumed);
    bb_bus_changed(bus);
}

static void handle_ack(struct bb_bus *bus, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->entries);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_outbox_ack(&bus->outbox, bb_mp_read_raw(&reader)) < 0) {
            bb_mp_reader_fail(&reader, BB_EMALFORMED);
        }
    }
    if (reader.error != 0) {
        bb_conn_drop(bus, BB_EMALFORMED, "an ack of the broker cannot be understood");
        return;
    }
    bb_conn_send_batches(bus);
    bb_bus_changed(bus);
}

static void handle_result(struct bb_bus *bus, const struct bb_msg *msg)
{
    if (!bb_cursors_answered(bus, msg->corr, 0)) {
        bb_requests_finish(bus, BB_MSG_NONE, msg->corr, 0, msg->value);
    }
}

static void handle_pong(struct bb_bus *bus, const struct bb_msg *msg)
{
    bb_requests_finish(bus, BB_MSG_PING, msg->token, 0, (struct bb_slice){0});
}

static void handle_ping(struct bb_bus *bus, const struct bb_msg *msg)
{
    struct bb_msg pong = {.type = BB_MSG_PONG, .token = msg->token};
    if (bus->link.out.copied <= PONG_UNWRITTEN_MAX) {
        bb_conn_post(bus, &pong);
    }
}

static void handle_refusal(struct bb_bus *bus, const struct bb_msg *msg, int error)
{
    if (bb_outbox_refuse(&bus->outbox, msg->corr, error) < 0) {
        bb_conn_drop(bus, BB_ESEQUENCE, "the broker counts what is published differently");
        return;
    }
    bb_conn_send_batches(bus);
    bb_bus_changed(bus);
}

/* A broker that ends refuses nothing for good: the next one is asked again. */
static void handle_unsubscribed(struct bb_bus *bus, const struct bb_msg *msg, int error)
{
    if (error != BB_ESHUTDOWN) {
        bb_subscriptions_refused(bus, msg->corr, error, msg->text);
    }
}

static void handle_error(struct bb_bus *bus, const struct bb_msg *msg)
{
    int error = error_of(msg);
    note_code(bus, msg);
    if (msg->about == BB_MSG_HELLO && (error == BB_EVERSION || error == BB_EINVAL)) {
        char text[sizeof(bus->last_text)];
        memcpy(text, bus->last_text, sizeof(text));
        bb_conn_end(bus, error, text);
    } else if (error == BB_EHELLO || msg->about == BB_MSG_HELLO) {
        /*
         * BB_EHELLO, about anything: the broker has forgotten this client. Nothing was refused, all is
         * repeated.
         */
        bb_conn_break(bus);
    } else if (msg->about == BB_MSG_PUBLISH) {
        handle_refusal(bus, msg, error);
    } else if (msg->about == BB_MSG_SUBSCRIBE) {
        handle_unsubscribed(bus, msg, error);
    } else if (!bb_cursors_answered(bus, msg->corr, error)) {
        bb_requests_finish(bus, BB_MSG_NONE, msg->corr, error, (struct bb_slice){0});
    }
}

static void handle_goodbye(struct bb_bus *bus, const struct bb_msg *msg)
{
    note_code(bus, msg);
    bb_conn_break(bus);
}

/* --- what comes to subscriptions ------------------------------------------------------------------ */

static void handle_ended(struct bb_bus *bus, const struct bb_msg *msg)
{
    struct bb_subscription *sub = bb_subscription_find(bus, msg->sub);
    if (sub == NULL || sub->state == BB_SUB_NEW) {
        return;
    }
    bool is_done = bb_slice_equal(msg->code, bb_slice_str("done"));
    bb_subscription_end(sub, is_done ? 0 : error_of(msg), (const char *)msg->text.data, msg->text.len);
}

static void handle_delivery(struct bb_bus *bus, const struct bb_msg *msg, struct bb_delivery *delivery)
{
    struct bb_subscription *sub = bb_subscription_find(bus, msg->sub);
    if (sub == NULL) {
        bb_delivery_fini(delivery);
        return;
    }
    delivery->ranges = msg->ranges; /* a gap message has none */
    delivery->retained = (enum bb_retained)BB_MIN(msg->retained, (uint64_t)BB_RETAINED_LAST);
    int r = bb_places_stage(sub, msg->gaps, msg->ranges, delivery);
    if (r < 0) {
        bb_conn_drop(bus, r, "what the broker delivered cannot be taken");
        bb_delivery_fini(delivery);
    } else if (delivery->bytes == 0 && delivery->gaps == NULL && delivery->n_moves == 0 &&
               delivery->retained == BB_RETAINED_NO) {
        bb_places_commit(sub, delivery);
        bb_delivery_fini(delivery);
    } else {
        bb_deliver(sub, delivery);
    }
}

/* --- the table ---------------------------------------------------------------------------------- */

typedef void handle_fn(struct bb_bus *bus, const struct bb_msg *msg);

static handle_fn *const handlers[BB_MSG_ENDED + 1] = {
    [BB_MSG_PING] = handle_ping,
    [BB_MSG_PONG] = handle_pong,
    [BB_MSG_GOODBYE] = handle_goodbye,
    [BB_MSG_WELCOME] = handle_welcome,
    [BB_MSG_SUBSCRIBED] = handle_subscribed,
    [BB_MSG_ACK] = handle_ack,
    [BB_MSG_RESULT] = handle_result,
    [BB_MSG_ERROR] = handle_error,
    [BB_MSG_ENDED] = handle_ended,
};

void bb_handle_message(struct bb_bus *bus, size_t n)
{
    struct bb_msg msg = {0};
    struct bb_delivery delivery = {.frames = bus->frames, .n_frames = n, .frame_at = 1};
    struct bb_slice bytes = bb_slice(bus->frames[0].data, bus->frames[0].len);
    int r = bb_msg_decode(bytes, &msg);
    if (r == BB_EMALFORMED && n > 1) {
        bb_frames_join(bus->frames, 0, n, &delivery.flat);
        delivery.frame_at = n;
        r = bb_msg_decode(bb_buf_slice(&delivery.flat), &msg);
    }
    if (r == 0 && (msg.type == BB_MSG_DELIVER || msg.type == BB_MSG_GAP)) {
        delivery.rest = msg.body;
        delivery.bytes = msg.body.len + bb_frames_size(bus->frames, delivery.frame_at, n);
        handle_delivery(bus, &msg, &delivery);
        return;
    }
    if (r == 0 && msg.type == BB_MSG_EVENTS) {
        delivery.rest = msg.body;
        delivery.server = bus->server;
        bb_requests_found(bus, msg.corr, msg.more != 0, &delivery);
        return;
    }
    if (r == 0 && msg.type < BB_COUNT(handlers) && handlers[msg.type] != NULL) {
        handlers[msg.type](bus, &msg);
    } else if (r != BB_EUNKNOWN) {
        bb_conn_drop(bus, BB_EMALFORMED, "a message of the broker cannot be understood");
    }
    bb_delivery_fini(&delivery);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/script.h"

#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "bus/signal.h"

#include <criterion/criterion.h>
#include <stdarg.h>

void script_start(struct script *script)
{
    size_t size = sizeof(script->url);
    int patience = PATIENCE_MS;
    int linger = 0;
    *script = (struct script){.zmq = zmq_ctx_new()};
    script->router = zmq_socket(script->zmq, ZMQ_ROUTER);
    (void)zmq_setsockopt(script->router, ZMQ_RCVTIMEO, &patience, sizeof(patience));
    (void)zmq_setsockopt(script->router, ZMQ_LINGER, &linger, sizeof(linger));
    cr_assert_eq(zmq_bind(script->router, "tcp://127.0.0.1:*"), 0);
    cr_assert_eq(zmq_getsockopt(script->router, ZMQ_LAST_ENDPOINT, script->url, &size), 0);
    (void)zmq_msg_init(&script->peer);
}

void script_stop(struct script *script)
{
    (void)zmq_msg_close(&script->peer);
    (void)zmq_close(script->router);
    (void)zmq_ctx_term(script->zmq);
    bb_buf_fini(&script->last);
}

void script_receive(struct script *script)
{
    bb_buf_reset(&script->last);
    (void)zmq_msg_close(&script->peer);
    (void)zmq_msg_init(&script->peer);
    cr_assert_geq(zmq_msg_recv(&script->peer, script->router, 0), 0, "the client said nothing");
    int has_more = zmq_msg_more(&script->peer);
    while (has_more) {
        zmq_msg_t frame;
        (void)zmq_msg_init(&frame);
        cr_assert_geq(zmq_msg_recv(&frame, script->router, 0), 0);
        bb_buf_append(&script->last, zmq_msg_data(&frame), zmq_msg_size(&frame));
        has_more = zmq_msg_more(&frame);
        (void)zmq_msg_close(&frame);
    }
    cr_assert_eq(bb_msg_decode(bb_buf_slice(&script->last), &script->msg), 0);
}

/* A message in as many frames as there are slices; the last is empty. */
void script_send_frames(struct script *script, struct bb_slice first, ...)
{
    zmq_msg_t peer;
    va_list args;
    (void)zmq_msg_init(&peer);
    (void)zmq_msg_copy(&peer, &script->peer);
    cr_assert_geq(zmq_msg_send(&peer, script->router, ZMQ_SNDMORE), 0);
    va_start(args, first);
    struct bb_slice slice = first;
    while (slice.len > 0) {
        struct bb_slice next = va_arg(args, struct bb_slice);
        cr_assert_geq(zmq_send(script->router, slice.data, slice.len, next.len > 0 ? ZMQ_SNDMORE : 0), 0);
        slice = next;
    }
    va_end(args);
}

void script_send_body(struct script *script, const struct bb_msg *msg, struct bb_slice body)
{
    struct bb_buf head = BB_BUF_INIT;
    bb_msg_encode(&head, msg);
    cr_assert_eq(head.error, 0);
    script_send_frames(script, bb_buf_slice(&head), body, (struct bb_slice){0});
    bb_buf_fini(&head);
}

void script_send(struct script *script, const struct bb_msg *msg)
{
    script_send_body(script, msg, (struct bb_slice){0});
}

const struct bb_msg *script_expect(struct script *script, enum bb_msg_type type)
{
    uint64_t deadline = bb_deadline(PATIENCE_MS);
    script_receive(script);
    while (script->msg.type == BB_MSG_PING && type != BB_MSG_PING) {
        cr_assert_lt(bb_now_ms(), deadline, "message %d does not come", (int)type);
        script_send(script, &(struct bb_msg){.type = BB_MSG_PONG, .token = script->msg.token});
        script_receive(script);
    }
    cr_assert_eq(script->msg.type, type, "got message %d instead of %d", (int)script->msg.type, (int)type);
    return &script->msg;
}

static void welcome(struct script *script, struct bb_msg msg)
{
    msg.type = BB_MSG_WELCOME;
    msg.corr = script->msg.corr;
    msg.version = 1;
    msg.client_number = 5;
    msg.limits = MP("\x81\xabmax_message\xce\x00\x10\x00\x00");
    script_send(script, &msg);
}

void script_welcome_with(struct script *script, uint64_t run, uint64_t last, struct bb_slice features)
{
    welcome(script, (struct bb_msg){.server = 9, .run = run, .last = last, .features = features});
}

void script_welcome_server(struct script *script, uint64_t server, uint64_t run)
{
    welcome(script, (struct bb_msg){.server = server, .run = run, .features = NO_FEATURES});
}

void script_welcome(struct script *script, uint64_t run, uint64_t last)
{
    script_welcome_with(script, run, last, NO_FEATURES);
}

void script_ack(struct script *script, struct bb_slice entries)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_ACK, .entries = entries});
}

void script_goodbye(struct script *script)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_GOODBYE, .code = bb_slice_str("shutting_down")});
}

void script_subscribed(struct script *script, struct bb_slice positions)
{
    script_send(script, &(struct bb_msg){
                            .type = BB_MSG_SUBSCRIBED,
                            .corr = script->msg.corr,
                            .sub = script->msg.sub,
                            .positions = positions,
                        });
}

/* A block of @n events "a" with the payloads @sequence, @sequence + 1, ... */
void script_write_block(struct bb_buf *out, uint64_t sequence, uint64_t n)
{
    struct bb_buf events = BB_BUF_INIT;
    for (uint64_t i = 0; i < n; i++) {
        struct bb_buf payload = BB_BUF_INIT;
        bb_mp_write_uint(&payload, sequence + i);
        bb_event_write(&events, bb_slice_str("a"), bb_buf_slice(&payload), NULL);
        bb_buf_fini(&payload);
    }
    struct bb_block block = {.session = 100 + sequence,
                             .time = 1000,
                             .source = 3,
                             .sequence = sequence,
                             .instance = 1,
                             .count = n};
    block.length = events.len;
    uint8_t *to = bb_buf_reserve(out, BB_BLOCK_HEAD_MAX);
    cr_assert_not_null(to);
    out->len += bb_block_write(to, &block);
    bb_buf_append(out, events.data, events.len);
    bb_buf_fini(&events);
}

void script_gaps(struct script *script, struct bb_slice gaps)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_GAP, .sub = 1, .gaps = gaps});
}

void script_deliver(struct script *script, struct bb_slice ranges, uint64_t sequence, uint64_t n)
{
    struct bb_buf body = BB_BUF_INIT;
    script_write_block(&body, sequence, n);
    script_send_body(script, &(struct bb_msg){.type = BB_MSG_DELIVER, .sub = 1, .ranges = ranges},
                     bb_buf_slice(&body));
    bb_buf_fini(&body);
}

bb_bus *script_open_bus(struct script *script, struct bb_options options)
{
    bb_bus *bus = NULL;
    script_start(script);
    options.url = script->url;
    options.reconnect_min_ms = 1;
    options.reconnect_max_ms = 10;
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    return bus;
}

bb_bus *script_open_ready(struct script *script)
{
    bb_bus *bus = script_open_bus(script, (struct bb_options)BB_OPTIONS_INIT);
    (void)script_expect(script, BB_MSG_HELLO);
    script_welcome(script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    return bus;
}

const struct bb_msg *script_come_back(struct script *script, uint64_t run, struct bb_slice features)
{
    script_goodbye(script);
    (void)script_expect(script, BB_MSG_HELLO);
    script_welcome_with(script, run, 0, features);
    return script_expect(script, BB_MSG_SUBSCRIBE);
}

void script_receive_all(bb_subscription *sub, struct bb_event *events, size_t n)
{
    for (size_t at = 0; at < n;) {
        int got = bb_receive(sub, events + at, n - at, PATIENCE_MS);
        cr_assert_gt(got, 0);
        at += (size_t)got;
    }
}

void script_finish(struct script *script, bb_bus *bus)
{
    cr_assert_eq(bb_bus_close(bus), 0);
    script_stop(script);
}

static const char *const all[] = {"*"};

struct bb_subscribe_options script_to_all(void)
{
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    options.patterns = all;
    options.n_patterns = 1;
    return options;
}

bb_subscription *script_subscribe(bb_bus *bus, struct bb_subscribe_options options)
{
    bb_subscription *sub = NULL;
    cr_assert_eq(bb_subscribe(bus, &options, 0, &sub), 0);
    return sub;
}

bool script_holds(struct bb_slice in, struct bb_slice what)
{
    for (size_t at = 0; at + what.len <= in.len; at++) {
        if (memcmp(in.data + at, what.data, what.len) == 0) {
            return true;
        }
    }
    return false;
}

int script_publish(bb_bus *bus, const char *text)
{
    return bb_publish(bus, "a/b", BB_PAYLOAD_TEXT, text, strlen(text));
}

void script_ack_number(struct script *script, uint64_t number)
{
    struct bb_buf entries = BB_BUF_INIT;
    bb_mp_write_array(&entries, 1);
    bb_mp_write_array(&entries, 4);
    bb_mp_write_uint(&entries, number);
    bb_mp_write_uint(&entries, BB_LEVEL_ACCEPTED);
    bb_mp_write_nil(&entries);
    bb_mp_write_array(&entries, 0);
    script_ack(script, bb_buf_slice(&entries));
    bb_buf_fini(&entries);
}

pthread_t script_thread(void *(*function)(void *), void *arg)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, function, arg), 0);
    return thread;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole bus against a scripted broker: the test itself is the broker, one message after the other, on a
 * ROUTER socket, while the bus runs on its own thread. All waiting is for a message or a call.
 */
#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "bus/busbar.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

#define PATIENCE_MS 10000

/* --- the scripted broker ------------------------------------------------------------------------ */

struct script {
    void *zmq;
    void *router;
    char url[128];
    zmq_msg_t peer;     /* routing id of who sent the last message */
    struct bb_buf last; /* the last message */
    struct bb_msg msg;  /* borrows from it */
};

static void script_start(struct script *script)
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

static void script_stop(struct script *script)
{
    (void)zmq_msg_close(&script->peer);
    (void)zmq_close(script->router);
    (void)zmq_ctx_term(script->zmq);
    bb_buf_fini(&script->last);
}

static void script_receive(struct script *script)
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

/* The next message, which must be of @type; life signs are answered and do not count. */
static const struct bb_msg *expect(struct script *script, enum bb_msg_type type);

/* A message in as many frames as there are slices; the last is empty. */
static void send_frames(struct script *script, struct bb_slice first, ...)
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

static void send_msg_body(struct script *script, const struct bb_msg *msg, struct bb_slice body)
{
    struct bb_buf head = BB_BUF_INIT;
    bb_msg_encode(&head, msg);
    cr_assert_eq(head.error, 0);
    send_frames(script, bb_buf_slice(&head), body, (struct bb_slice){0});
    bb_buf_fini(&head);
}

static void send_msg(struct script *script, const struct bb_msg *msg)
{
    send_msg_body(script, msg, (struct bb_slice){0});
}

static const struct bb_msg *expect(struct script *script, enum bb_msg_type type)
{
    script_receive(script);
    while (script->msg.type == BB_MSG_PING && type != BB_MSG_PING) {
        send_msg(script, &(struct bb_msg){.type = BB_MSG_PONG, .token = script->msg.token});
        script_receive(script);
    }
    cr_assert_eq(script->msg.type, type, "got message %d instead of %d", (int)script->msg.type, (int)type);
    return &script->msg;
}

/* MessagePack written by hand. */
#define MP(text) bb_slice(text, sizeof(text) - 1)

static void welcome(struct script *script, uint64_t run, uint64_t last)
{
    send_msg(script, &(struct bb_msg){
                         .type = BB_MSG_WELCOME,
                         .corr = script->msg.corr,
                         .version = 1,
                         .server = 9,
                         .run = run,
                         .client_number = 5,
                         .last = last,
                         .limits = MP("\x81\xabmax_message\xce\x00\x10\x00\x00"),
                         .features = MP("\x90"),
                     });
}

static void ack(struct script *script, struct bb_slice entries)
{
    send_msg(script, &(struct bb_msg){.type = BB_MSG_ACK, .entries = entries});
}

static void goodbye(struct script *script)
{
    send_msg(script, &(struct bb_msg){.type = BB_MSG_GOODBYE, .code = bb_slice_str("shutting_down")});
}

static void subscribed(struct script *script, struct bb_slice positions)
{
    send_msg(script, &(struct bb_msg){
                         .type = BB_MSG_SUBSCRIBED,
                         .corr = script->msg.corr,
                         .sub = script->msg.sub,
                         .positions = positions,
                     });
}

/* A block of @n events "a" with the payloads @sequence, @sequence + 1, ... */
static void write_block(struct bb_buf *out, uint64_t sequence, uint64_t n)
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

static void deliver(struct script *script, struct bb_slice ranges, uint64_t sequence, uint64_t n)
{
    struct bb_buf body = BB_BUF_INIT;
    write_block(&body, sequence, n);
    send_msg_body(script, &(struct bb_msg){.type = BB_MSG_DELIVER, .sub = 1, .ranges = ranges},
                  bb_buf_slice(&body));
    bb_buf_fini(&body);
}

/* --- the client under test ------------------------------------------------------------------------ */

static bb_bus *open_bus(struct script *script, struct bb_options options)
{
    bb_bus *bus = NULL;
    script_start(script);
    options.url = script->url;
    options.reconnect_min_ms = 1;
    options.reconnect_max_ms = 10;
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    return bus;
}

static bb_bus *open_ready(struct script *script)
{
    bb_bus *bus = open_bus(script, (struct bb_options)BB_OPTIONS_INIT);
    (void)expect(script, BB_MSG_HELLO);
    welcome(script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    return bus;
}

static void finish(struct script *script, bb_bus *bus)
{
    cr_assert_eq(bb_bus_close(bus), 0);
    script_stop(script);
}

static const char *const all[] = {"*"};

static struct bb_subscribe_options to_all(void)
{
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    options.patterns = all;
    options.n_patterns = 1;
    return options;
}

static bb_subscription *subscribe(bb_bus *bus, struct bb_subscribe_options options)
{
    bb_subscription *sub = NULL;
    cr_assert_eq(bb_subscribe(bus, &options, 0, &sub), 0);
    return sub;
}

static int publish_text(bb_bus *bus, const char *text)
{
    return bb_publish(bus, "a/b", BB_PAYLOAD_TEXT, text, strlen(text));
}

/* --- connecting --------------------------------------------------------------------------------- */

Test(bus_client, says_who_it_is_and_learns_who_the_broker_is)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_bus_info info;
    options.name = "probe";
    bb_bus *bus = open_bus(&script, options);
    const struct bb_msg *hello = expect(&script, BB_MSG_HELLO);
    cr_assert_eq(hello->version, 1);
    cr_assert_eq(hello->client.len, BB_CLIENT_ID_LEN);
    cr_assert(bb_slice_equal(hello->options, MP("\x82\xa9heartbeat\xcd\x27\x10\xa4name\xa5probe")));
    welcome(&script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    cr_assert_eq(bb_bus_state(bus), BB_STATE_READY);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.server, 9);
    cr_assert_eq(info.run, 7);
    cr_assert_eq(info.client_number, 5);
    cr_assert_eq(bb_bus_close(bus), 0);
    cr_assert(bb_slice_equal(expect(&script, BB_MSG_GOODBYE)->code, bb_slice_str("closed")));
    script_stop(&script);
}

Test(bus_client, a_broker_of_another_version_is_an_end_and_not_a_loop)
{
    struct script script;
    char text[256];
    bb_bus *bus = open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    (void)expect(&script, BB_MSG_HELLO);
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                       .about = BB_MSG_HELLO,
                                       .corr = script.msg.corr,
                                       .code = bb_slice_str("bad_version"),
                                       .text = bb_slice_str("only 2 here")});
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), BB_EVERSION);
    cr_assert_eq(bb_bus_state(bus), BB_STATE_CLOSED);
    cr_assert_str_eq(bb_bus_last_error(bus, text, sizeof(text)), "bad_version: only 2 here");
    cr_assert_eq(publish_text(bus, "x"), BB_ECLOSED);
    finish(&script, bus);
}

Test(bus_client, where_nobody_is_wait_ready_says_so)
{
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    options.url = "ipc:///nonexistent/busbar,tcp://127.0.0.1:1";
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    cr_assert_eq(bb_bus_wait_ready(bus, 50), BB_ECONNECT);
    cr_assert_eq(bb_bus_close(bus), 0);
}

Test(bus_client, tries_the_urls_in_turn)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    char urls[256];
    bb_bus *bus = NULL;
    script_start(&script);
    (void)snprintf(urls, sizeof(urls), "ipc:///nonexistent/busbar,%s", script.url);
    options.url = urls;
    options.reconnect_min_ms = 1;
    cr_assert_eq(bb_bus_open(&options, &bus), 0);
    (void)expect(&script, BB_MSG_HELLO);
    finish(&script, bus);
}

Test(bus_client, a_silent_broker_is_pinged_and_then_left)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    options.heartbeat_ms = 20;
    bb_bus *bus = open_bus(&script, options);
    (void)expect(&script, BB_MSG_HELLO);
    welcome(&script, 7, 0);
    (void)expect(&script, BB_MSG_PING);
    script_receive(&script);
    while (script.msg.type == BB_MSG_PING) {
        script_receive(&script); /* not answered */
    }
    cr_assert_eq(script.msg.type, BB_MSG_HELLO);
    finish(&script, bus);
}

Test(bus_client, answers_the_pings_of_the_broker)
{
    struct script script;
    bb_bus *bus = open_ready(&script);
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_PING, .token = 77});
    cr_assert_eq(expect(&script, BB_MSG_PONG)->token, 77);
    finish(&script, bus);
}

/* --- publishing --------------------------------------------------------------------------------- */

Test(bus_client, what_was_published_before_the_connection_arrives)
{
    struct script script;
    bb_bus *bus = open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    cr_assert_eq(publish_text(bus, "one"), 0);
    cr_assert_eq(publish_text(bus, "two"), 0);
    (void)expect(&script, BB_MSG_HELLO);
    welcome(&script, 7, 0);
    const struct bb_msg *msg = expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 1);
    cr_assert(bb_slice_equal(msg->body, MP("\x92\xa3"
                                           "a/b\xa3one\x92\xa3"
                                           "a/b\xa3two")));
    ack(&script, MP("\x91\x94\x01\x01\xc0\x91\x93\xa1"
                    "a\x01\x02"));
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    finish(&script, bus);
}

Test(bus_client, nothing_that_is_invalid_is_queued)
{
    struct script script;
    struct bb_bus_info info;
    bb_bus *bus = open_ready(&script);
    cr_assert_eq(bb_publish(bus, "a/*", BB_PAYLOAD_NIL, NULL, 0), BB_EPATH);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_TEXT, "\xff", 1), BB_EUTF8);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_JSON, "{", 1), BB_EMALFORMED);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_MSGPACK, "\x91", 1), BB_EMALFORMED);
    char *big = calloc(1, BB_MESSAGE_DEFAULT);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_BINARY, big, BB_MESSAGE_DEFAULT), BB_ETOOBIG);
    free(big);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.unacked_bytes, 0);
    finish(&script, bus);
}

Test(bus_client, a_refusal_is_told_by_flush_once)
{
    struct script script;
    bb_bus *bus = open_ready(&script);
    cr_assert_eq(publish_text(bus, "x"), 0);
    (void)expect(&script, BB_MSG_PUBLISH);
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                       .about = BB_MSG_PUBLISH,
                                       .corr = 1,
                                       .code = bb_slice_str("no_memory"),
                                       .text = bb_slice_str("later")});
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), BB_ENOMEM);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    finish(&script, bus);
}

Test(bus_client, after_a_break_only_what_was_not_taken_is_repeated_by_the_same_client)
{
    struct script script;
    struct bb_bus_info info;
    uint8_t client[BB_CLIENT_ID_LEN];
    bb_bus *bus = open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    memcpy(client, expect(&script, BB_MSG_HELLO)->client.data, sizeof(client));
    welcome(&script, 7, 0);
    cr_assert_eq(publish_text(bus, "one"), 0);
    (void)expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(publish_text(bus, "two"), 0);
    (void)expect(&script, BB_MSG_PUBLISH);
    goodbye(&script);
    const struct bb_msg *hello = expect(&script, BB_MSG_HELLO);
    cr_assert(bb_slice_equal(hello->client, bb_slice(client, sizeof(client))));
    welcome(&script, 7, 1);
    const struct bb_msg *msg = expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 2);
    cr_assert(bb_slice_equal(msg->body, MP("\x92\xa3"
                                           "a/b\xa3two")));
    ack(&script, MP("\x91\x94\x02\x01\xc0\xc0"));
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.connects, 2);
    finish(&script, bus);
}

Test(bus_client, a_full_queue_refuses_or_drops_as_asked)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_bus_info info;
    options.queue_bytes = 4096;
    options.when_full = BB_FULL_REFUSE;
    bb_bus *bus = open_bus(&script, options);
    int r = 0;
    for (int i = 0; i < 1000 && r == 0; i++) {
        r = publish_text(bus, "0123456789");
    }
    cr_assert_eq(r, BB_EFULL);
    finish(&script, bus);

    options.when_full = BB_FULL_DROP_NEW;
    bus = open_bus(&script, options);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(publish_text(bus, "0123456789"), 0);
    }
    bb_bus_get_info(bus, &info);
    cr_assert_gt(info.dropped, 0);
    cr_assert_leq(info.unacked_bytes, 4096);
    finish(&script, bus);
}

/* --- calls that wait, on a thread of their own ------------------------------------------------------- */

struct call {
    bb_bus *bus;
    int result;
    struct bb_ack ack;
    uint64_t number;
    char *text;
};

static void *call_publish_wait(void *arg)
{
    struct call *call = arg;
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "a";
    draft.kind = BB_PAYLOAD_JSON;
    draft.data = "[1]";
    draft.len = 3;
    draft.priority = -3;
    draft.level = BB_LEVEL_ROUTED;
    call->result = bb_publish_wait(call->bus, &draft, PATIENCE_MS, &call->ack);
    return NULL;
}

static void *call_status(void *arg)
{
    struct call *call = arg;
    call->result = bb_request_status(call->bus, PATIENCE_MS, &call->text);
    return NULL;
}

static void *call_matches(void *arg)
{
    struct call *call = arg;
    call->result = bb_request_matches(call->bus, "a", 2, PATIENCE_MS, &call->number);
    return NULL;
}

static pthread_t start_call(void *(*function)(void *), struct call *call)
{
    pthread_t thread;
    cr_assert_eq(pthread_create(&thread, NULL, function, call), 0);
    return thread;
}

Test(bus_client, a_publisher_that_waits_gets_its_ack)
{
    struct script script;
    struct call call = {.bus = open_ready(&script)};
    pthread_t thread = start_call(call_publish_wait, &call);
    const struct bb_msg *msg = expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->level, BB_LEVEL_ROUTED);
    cr_assert(bb_slice_equal(msg->body, MP("\x93\xa1"
                                           "a\x91\x01\x81\xa8priority\xfd")));
    ack(&script, MP("\x91\x94\x01\x02\x04\x91\x93\xa1"
                    "a\x2a\x01"));
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, 0);
    cr_expect_eq(call.ack.sequence, 42);
    cr_expect_eq(call.ack.matches, 4);
    cr_expect_eq(call.ack.level, BB_LEVEL_ROUTED);
    finish(&script, call.bus);
}

Test(bus_client, status_becomes_json)
{
    struct script script;
    struct call call = {.bus = open_ready(&script)};
    pthread_t thread = start_call(call_status, &call);
    uint64_t corr = expect(&script, BB_MSG_STATUS)->corr;
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_RESULT, .corr = corr, .value = MP("\x81\xa1n\x05")});
    (void)pthread_join(thread, NULL);
    cr_assert_eq(call.result, 0);
    cr_expect_str_eq(call.text, "{\"n\":5}");
    free(call.text);
    finish(&script, call.bus);
}

Test(bus_client, an_error_or_a_break_ends_a_request)
{
    struct script script;
    struct call call = {.bus = open_ready(&script)};
    pthread_t thread = start_call(call_matches, &call);
    const struct bb_msg *msg = expect(&script, BB_MSG_MATCHES);
    cr_assert_eq(msg->min, 2);
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                       .about = BB_MSG_MATCHES,
                                       .corr = msg->corr,
                                       .code = bb_slice_str("timeout"),
                                       .text = bb_slice_str("too few")});
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, BB_ETIMEOUT);
    thread = start_call(call_matches, &call);
    (void)expect(&script, BB_MSG_MATCHES);
    goodbye(&script);
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, BB_EUNKNOWNRESULT);
    finish(&script, call.bus);
}

/* --- subscribing -------------------------------------------------------------------------------- */

Test(bus_client, receives_events_with_all_that_is_known_of_them)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x91\x92\xa1"
                           "a\x04"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x04\x06"),
            5, 2);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 2);
    cr_expect_null(events[1].gap);
    cr_expect_eq(events[1].path_len, 1);
    cr_expect_eq(events[1].kind, BB_PAYLOAD_MSGPACK);
    cr_expect_eq(events[1].server, 9);
    cr_expect_eq(events[1].session, 105);
    cr_expect_eq(events[1].instance, 2);
    cr_expect_eq(events[1].sequence, 6);
    cr_expect_eq(events[1].time_us, 1000);
    cr_expect_eq(events[1].source, 3);
    char *text = bb_event_json(&events[1], NULL);
    cr_expect_str_eq(text, "{\"id\":[9,105,2],\"path\":\"a\",\"seq\":6,\"time\":1000,\"source_time\":null,"
                           "\"priority\":0,\"source\":{\"type\":\"client\",\"id\":3},\"headers\":{},"
                           "\"payload\":6}");
    free(text);
    cr_assert_eq(bb_receive(sub, events, 8, 0), BB_ETIMEOUT);
    struct bb_position *positions = NULL;
    size_t n = 0;
    cr_assert_eq(bb_subscription_start(sub, &positions, &n), 0);
    cr_expect_eq(n, 1);
    cr_expect_eq(positions[0].sequence, 4);
    free(positions);
    cr_assert_eq(bb_subscription_positions(sub, &positions, &n), 0);
    cr_expect_eq(positions[0].sequence, 6);
    free(positions);
    finish(&script, bus);
}

Test(bus_client, a_message_may_be_cut_into_frames_anywhere)
{
    struct script script;
    struct bb_event events[8];
    struct bb_buf bytes = BB_BUF_INIT;
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    uint64_t sequence = 1;
    for (size_t cut = 1;; cut++) {
        struct bb_buf ranges = BB_BUF_INIT;
        bb_buf_reset(&bytes);
        bb_mp_write_array(&ranges, 1);
        bb_mp_write_array(&ranges, 3);
        bb_mp_write_str(&ranges, bb_slice_str("a"));
        bb_mp_write_uint(&ranges, sequence - 1);
        bb_mp_write_uint(&ranges, sequence + 3);
        bb_msg_encode(&bytes,
                      &(struct bb_msg){.type = BB_MSG_DELIVER, .sub = 1, .ranges = bb_buf_slice(&ranges)});
        bb_buf_fini(&ranges);
        write_block(&bytes, sequence, 2);
        write_block(&bytes, sequence + 2, 2);
        if (cut + 3 >= bytes.len) {
            break;
        }
        send_frames(&script, bb_slice(bytes.data, cut), bb_slice(bytes.data + cut, 3),
                    bb_slice(bytes.data + cut + 3, bytes.len - cut - 3), (struct bb_slice){0});
        size_t n = 0;
        while (n < 4) {
            int got = bb_receive(sub, events + n, 8 - n, PATIENCE_MS);
            cr_assert_gt(got, 0);
            n += (size_t)got;
        }
        cr_assert_eq(n, 4);
        cr_assert_null(events[0].gap);
        cr_assert_eq(events[3].sequence, sequence + 3, "cut after %zu bytes", cut);
        sequence += 4;
    }
    bb_buf_fini(&bytes);
    finish(&script, bus);
}

Test(bus_client, a_hole_between_ranges_is_a_gap)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x04\x05"),
            5, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 2);
    cr_assert_not_null(events[0].gap);
    cr_expect_str_eq(events[0].gap->channel, "a");
    cr_expect_eq(events[0].gap->from, 1);
    cr_expect_eq(events[0].gap->to, 4);
    cr_expect_eq(events[0].gap->count, BB_UNKNOWN);
    cr_expect_str_eq(events[0].gap->reason, "transport");
    cr_expect_eq(events[1].sequence, 5);
    finish(&script, bus);
}

Test(bus_client, bytes_that_cannot_be_followed_are_a_gap)
{
    struct script script;
    struct bb_event events[8];
    struct bb_subscription_counts counts;
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    send_msg_body(&script,
                  &(struct bb_msg){.type = BB_MSG_DELIVER,
                                   .sub = 1,
                                   .ranges = MP("\x91\x93\xa1"
                                                "a\x00\x03")},
                  MP("\x97\x01\x01\x01\x01\x01\x03\x02\xc1\xc1"));
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_assert_not_null(events[0].gap);
    cr_expect_eq(events[0].gap->from, 1);
    cr_expect_eq(events[0].gap->to, 3);
    cr_assert_eq(bb_receive(sub, events, 8, 0), BB_ETIMEOUT);
    bb_subscription_get_counts(sub, &counts);
    cr_expect_eq(counts.events, 0);
    finish(&script, bus);
}

Test(bus_client, a_gap_of_the_broker_is_passed_on_and_moves_the_position)
{
    struct script script;
    struct bb_event events[8];
    struct bb_subscription_counts counts;
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                       .sub = 1,
                                       .gaps = MP("\x91\x95\xa1"
                                                  "a\x01\x09\x09\xa8overflow")});
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x09\x0a"),
            10, 1);
    size_t n = 0;
    while (n < 2) {
        int got = bb_receive(sub, events + n, 8 - n, PATIENCE_MS);
        cr_assert_gt(got, 0);
        if (n == 0) {
            char *text = bb_event_json(&events[0], NULL);
            cr_expect_str_eq(text, "{\"gap\":{\"channel\":\"a\",\"from\":1,\"to\":9,\"count\":9,"
                                   "\"reason\":\"overflow\"}}");
            free(text);
        }
        n += (size_t)got;
    }
    cr_expect_eq(events[1].sequence, 10);
    bb_subscription_get_counts(sub, &counts);
    cr_expect_eq(counts.gaps, 1);
    cr_expect_eq(counts.lost, 9);
    finish(&script, bus);
}

Test(bus_client, after_a_break_a_subscription_resumes_after_what_it_saw)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    const struct bb_msg *msg = expect(&script, BB_MSG_SUBSCRIBE);
    cr_assert(bb_slice_equal(msg->from, MP("\xa3new")));
    subscribed(&script, MP("\x91\x92\xa1"
                           "a\x04"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x04\x06"),
            5, 2);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 2);
    goodbye(&script);
    (void)expect(&script, BB_MSG_HELLO);
    welcome(&script, 7, 0);
    msg = expect(&script, BB_MSG_SUBSCRIBE);
    cr_assert(bb_slice_equal(msg->from, MP("\x82\xa3run\x07\xa5"
                                           "after\x81\xa1"
                                           "a\x06")));
    subscribed(&script, MP("\x91\x92\xa1"
                           "a\x06"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x06\x07"),
            7, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_expect_null(events[0].gap);
    cr_expect_eq(events[0].sequence, 7);
    finish(&script, bus);
}

Test(bus_client, after_a_restart_of_the_broker_its_new_sequences_count)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, to_all());
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x91\x92\xa1"
                           "a\x32"));
    goodbye(&script);
    (void)expect(&script, BB_MSG_HELLO);
    welcome(&script, 8, 0);
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                       .sub = 1,
                                       .gaps = MP("\x91\x95\xa1"
                                                  "a\x33\xc0\xc0\xa7restart")});
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x00\x01"),
            1, 1);
    cr_assert_geq(bb_receive(sub, events, 1, PATIENCE_MS), 1);
    cr_assert_not_null(events[0].gap);
    cr_expect_str_eq(events[0].gap->reason, "restart");
    cr_expect_eq(events[0].gap->to, BB_UNKNOWN);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_expect_null(events[0].gap);
    cr_expect_eq(events[0].sequence, 1);
    finish(&script, bus);
}

Test(bus_client, credit_is_granted_when_half_of_the_window_is_read)
{
    struct script script;
    struct bb_event events[8];
    struct bb_subscribe_options options = to_all();
    options.window_events = 4;
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, options);
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x00\x01"),
            1, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x01\x02"),
            2, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_assert_eq(bb_receive(sub, events, 8, 0), BB_ETIMEOUT);
    const struct bb_msg *credit = expect(&script, BB_MSG_CREDIT);
    cr_assert_eq(credit->sub, 1);
    cr_assert_eq(credit->events, 6);
    cr_assert_gt(credit->bytes, options.window_bytes);
    finish(&script, bus);
}

struct end {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    int error;
    int nested;
    int calls;
};

static void on_ended(bb_subscription *sub, int error, const char *text, void *arg)
{
    struct end *end = arg;
    (void)pthread_mutex_lock(&end->lock);
    (void)sub;
    end->error = strcmp(text, "no") == 0 ? error : 0;
    (void)pthread_cond_signal(&end->cond);
    (void)pthread_mutex_unlock(&end->lock);
}

/* Tries what must not be done in a callback, then what may be done. */
static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct end *end = arg;
    (void)events;
    (void)n;
    (void)pthread_mutex_lock(&end->lock);
    end->nested = bb_bus_flush(bb_subscription_bus(sub), 1000);
    end->calls++;
    cr_expect_eq(bb_bus_close(bb_subscription_bus(sub)), BB_EDEADLOCK);
    cr_expect_eq(bb_unsubscribe(sub, 1000), 0);
    (void)pthread_cond_signal(&end->cond);
    (void)pthread_mutex_unlock(&end->lock);
}

Test(bus_client, a_refused_subscription_tells_why)
{
    struct script script;
    struct bb_event events[2];
    struct end end = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
    struct bb_subscribe_options options = to_all();
    options.on_ended = on_ended;
    options.arg = &end;
    bb_bus *bus = open_ready(&script);
    bb_subscription *sub = subscribe(bus, options);
    const struct bb_msg *msg = expect(&script, BB_MSG_SUBSCRIBE);
    send_msg(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                       .about = BB_MSG_SUBSCRIBE,
                                       .corr = msg->corr,
                                       .code = bb_slice_str("limit"),
                                       .text = bb_slice_str("no")});
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), BB_ELIMIT);
    (void)pthread_mutex_lock(&end.lock);
    while (end.error == 0) {
        (void)pthread_cond_wait(&end.cond, &end.lock);
    }
    (void)pthread_mutex_unlock(&end.lock);
    cr_assert_eq(end.error, BB_ELIMIT);
    finish(&script, bus);
}

Test(bus_client, in_a_callback_waiting_is_refused_and_unsubscribing_is_not)
{
    struct script script;
    struct end end = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0, 0};
    struct bb_subscribe_options options = to_all();
    options.on_events = on_events;
    options.arg = &end;
    bb_bus *bus = open_ready(&script);
    (void)subscribe(bus, options);
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x00\xcd\x03\xe8"),
            1, 1000);
    (void)pthread_mutex_lock(&end.lock);
    while (end.calls == 0) {
        (void)pthread_cond_wait(&end.cond, &end.lock);
    }
    (void)pthread_mutex_unlock(&end.lock);
    (void)expect(&script, BB_MSG_UNSUBSCRIBE);
    finish(&script, bus);
    cr_assert_eq(end.nested, BB_EDEADLOCK);
    cr_assert_eq(end.calls, 1, "a callback came after unsubscribe");
}

/* --- embedded ----------------------------------------------------------------------------------- */

static void count_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    size_t *seen = arg;
    (void)sub;
    (void)events;
    *seen += n;
}

/* One turn of a loop that knows nothing but the descriptor and the timeout. */
static void turn(bb_bus *bus)
{
    struct pollfd pollfd = {.fd = bb_bus_fd(bus), .events = POLLIN, .revents = 0};
    (void)poll(&pollfd, 1, bb_bus_timeout(bus));
    cr_assert_eq(bb_bus_step(bus), 0);
}

/* Turns of a loop that serves the scripted broker as well, until that has something to read. */
static void turn_until_heard(struct script *script, bb_bus *bus)
{
    zmq_pollitem_t items[] = {{script->router, 0, ZMQ_POLLIN, 0}, {NULL, bb_bus_fd(bus), ZMQ_POLLIN, 0}};
    while ((items[0].revents & ZMQ_POLLIN) == 0) {
        cr_assert_gt(zmq_poll(items, 2, PATIENCE_MS), 0);
        cr_assert_eq(bb_bus_step(bus), 0);
    }
}

Test(bus_client, an_embedded_bus_lives_in_a_poll_loop)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options subscribe_options = to_all();
    size_t seen = 0;
    options.embedded = true;
    bb_bus *bus = open_bus(&script, options);
    subscribe_options.on_events = count_events;
    subscribe_options.arg = &seen;
    (void)subscribe(bus, subscribe_options);
    turn_until_heard(&script, bus);
    (void)expect(&script, BB_MSG_HELLO);
    welcome(&script, 7, 0);
    while (bb_bus_state(bus) != BB_STATE_READY) {
        turn(bus);
    }
    (void)expect(&script, BB_MSG_SUBSCRIBE);
    subscribed(&script, MP("\x90"));
    deliver(&script,
            MP("\x91\x93\xa1"
               "a\x00\xcd\x03\xe8"),
            1, 1000);
    while (seen < 1000) {
        turn(bus);
    }
    cr_assert_eq(seen, 1000);
    cr_assert_eq(publish_text(bus, "x"), 0);
    (void)expect(&script, BB_MSG_PUBLISH);
    ack(&script, MP("\x91\x94\x01\x01\xc0\x90"));
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0, "a call that waits steps the bus itself");
    finish(&script, bus);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Connecting, requests, and a bus inside a loop. */
#include "tests/unit/script.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

/* --- connecting --------------------------------------------------------------------------------- */

Test(bus_client, says_who_it_is_and_learns_who_the_broker_is)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_bus_info info;
    options.name = "probe";
    bb_bus *bus = script_open_bus(&script, options);
    const struct bb_msg *hello = script_expect(&script, BB_MSG_HELLO);
    cr_assert_eq(hello->version, 1);
    cr_assert_eq(hello->client.len, BB_CLIENT_ID_LEN);
    cr_assert(bb_slice_equal(hello->options, MP("\x82\xa9heartbeat\xcd\x27\x10\xa4name\xa5probe")));
    script_welcome(&script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    cr_assert_eq(bb_bus_state(bus), BB_STATE_READY);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.server, 9);
    cr_assert_eq(info.run, 7);
    cr_assert_eq(info.client_number, 5);
    cr_assert_eq(bb_bus_close(bus), 0);
    cr_assert(bb_slice_equal(script_expect(&script, BB_MSG_GOODBYE)->code, bb_slice_str("closed")));
    script_stop(&script);
}

Test(bus_client, a_broker_of_another_version_is_an_end_and_not_a_loop)
{
    struct script script;
    char text[256];
    bb_bus *bus = script_open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_HELLO,
                                          .corr = script.msg.corr,
                                          .code = bb_slice_str("bad_version"),
                                          .text = bb_slice_str("only 2 here")});
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), BB_EVERSION);
    cr_assert_eq(bb_bus_state(bus), BB_STATE_CLOSED);
    cr_assert_str_eq(bb_bus_last_error(bus, text, sizeof(text)), "bad_version: only 2 here");
    cr_assert_eq(script_publish(bus, "x"), BB_ECLOSED);
    script_finish(&script, bus);
}

static void *publish_and_wait(void *arg)
{
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "a";
    static int result;
    result = bb_publish_wait(arg, &draft, PATIENCE_MS, NULL);
    return &result;
}

Test(bus_client, the_end_reaches_publishers_and_subscriptions)
{
    struct script script;
    struct bb_event event;
    void *result = NULL;
    bb_bus *bus = script_open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    pthread_t thread = script_thread(publish_and_wait, bus);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_HELLO);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_HELLO,
                                          .corr = msg->corr,
                                          .code = bb_slice_str("bad_version"),
                                          .text = bb_slice_str("a sentence")});
    cr_expect_eq(bb_receive(sub, &event, 1, PATIENCE_MS), BB_EVERSION);
    (void)pthread_join(thread, &result);
    cr_expect_eq(*(int *)result, BB_ECLOSED);
    script_finish(&script, bus);
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
    (void)script_expect(&script, BB_MSG_HELLO);
    script_finish(&script, bus);
}

Test(bus_client, a_silent_broker_is_pinged_and_then_left)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    options.heartbeat_ms = 20;
    bb_bus *bus = script_open_bus(&script, options);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    (void)script_expect(&script, BB_MSG_PING);
    script_receive(&script);
    while (script.msg.type == BB_MSG_PING) {
        script_receive(&script); /* not answered */
    }
    cr_assert_eq(script.msg.type, BB_MSG_HELLO);
    script_finish(&script, bus);
}

Test(bus_client, answers_the_pings_of_the_broker)
{
    struct script script;
    bb_bus *bus = script_open_ready(&script);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_PING, .token = 77});
    cr_assert_eq(script_expect(&script, BB_MSG_PONG)->token, 77);
    script_finish(&script, bus);
}

/* The heartbeat is far too long to be what makes it reconnect. */
Test(bus_client, a_broker_that_forgot_it_is_told_hello_again)
{
    static const enum bb_msg_type about[] = {BB_MSG_PING, BB_MSG_CREDIT, BB_MSG_SUBSCRIBE};
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    options.heartbeat_ms = 600000;
    bb_bus *bus = script_open_bus(&script, options);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_HELLO);
    for (size_t i = 0; i < 3; i++) {
        script_welcome(&script, 7, 0);
        uint64_t corr = script_expect(&script, BB_MSG_SUBSCRIBE)->corr;
        script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                              .about = about[i],
                                              .corr = corr,
                                              .code = bb_slice_str("hello_first"),
                                              .text = bb_slice_str("who are you?")});
        (void)script_expect(&script, BB_MSG_HELLO);
    }
    script_welcome(&script, 7, 0);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    struct bb_event event;
    cr_assert_eq(bb_receive(sub, &event, 1, PATIENCE_MS), 1, "the subscription lives");
    script_finish(&script, bus);
}

/* --- calls that wait, on a thread of their own ------------------------------------------------------- */

struct call {
    bb_bus *bus;
    int result;
    uint64_t number;
    char *text;
};

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

Test(bus_client, status_becomes_json)
{
    struct script script;
    struct call call = {.bus = script_open_ready(&script)};
    pthread_t thread = script_thread(call_status, &call);
    uint64_t corr = script_expect(&script, BB_MSG_STATUS)->corr;
    script_send(&script, &(struct bb_msg){.type = BB_MSG_RESULT, .corr = corr, .value = MP("\x81\xa1n\x05")});
    (void)pthread_join(thread, NULL);
    cr_assert_eq(call.result, 0);
    cr_expect_str_eq(call.text, "{\"n\":5}");
    free(call.text);
    script_finish(&script, call.bus);
}

Test(bus_client, an_error_or_a_break_ends_a_request)
{
    struct script script;
    struct call call = {.bus = script_open_ready(&script)};
    pthread_t thread = script_thread(call_matches, &call);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_MATCHES);
    cr_assert_eq(msg->min, 2);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_MATCHES,
                                          .corr = msg->corr,
                                          .code = bb_slice_str("timeout"),
                                          .text = bb_slice_str("too few")});
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, BB_ETIMEOUT);
    thread = script_thread(call_matches, &call);
    (void)script_expect(&script, BB_MSG_MATCHES);
    script_goodbye(&script);
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, BB_EUNKNOWNRESULT);
    script_finish(&script, call.bus);
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
    struct bb_subscribe_options subscribe_options = script_to_all();
    size_t seen = 0;
    options.embedded = true;
    bb_bus *bus = script_open_bus(&script, options);
    subscribe_options.on_events = count_events;
    subscribe_options.arg = &seen;
    (void)script_subscribe(bus, subscribe_options);
    turn_until_heard(&script, bus);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    while (bb_bus_state(bus) != BB_STATE_READY) {
        turn(bus);
    }
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\xcd\x03\xe8"),
                   1, 1000);
    while (seen < 1000) {
        turn(bus);
    }
    cr_assert_eq(seen, 1000);
    cr_assert_eq(script_publish(bus, "x"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    script_ack(&script, MP("\x91\x94\x01\x01\xc0\x90"));
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0, "a call that waits steps the bus itself");
    script_finish(&script, bus);
}

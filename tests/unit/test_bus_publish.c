/* SPDX-License-Identifier: Apache-2.0 */
/* Publishing: what is repeated, refused, dropped, waited for. */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/unit/script.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(bus_publish, what_was_published_before_the_connection_arrives)
{
    struct script script;
    bb_bus *bus = script_open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    cr_assert_eq(script_publish(bus, "one"), 0);
    cr_assert_eq(script_publish(bus, "two"), 0);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 1);
    cr_assert(bb_slice_equal(msg->body, MP("\x92\xa3"
                                           "a/b\xa3one\x92\xa3"
                                           "a/b\xa3two")));
    script_ack(&script, MP("\x91\x94\x01\x01\xc0\x91\x93\xa1"
                           "a\x01\x02"));
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    script_finish(&script, bus);
}

Test(bus_publish, nothing_that_is_invalid_is_queued)
{
    struct script script;
    struct bb_bus_info info;
    bb_bus *bus = script_open_ready(&script);
    cr_assert_eq(bb_publish(bus, "a/*", BB_PAYLOAD_NIL, NULL, 0), BB_EPATH);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_TEXT, "\xff", 1), BB_EUTF8);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_JSON, "{", 1), BB_EMALFORMED);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_MSGPACK, "\x91", 1), BB_EMALFORMED);
    char *big = calloc(1, BB_MESSAGE_DEFAULT);
    cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_BINARY, big, BB_MESSAGE_DEFAULT), BB_ETOOBIG);
    free(big);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.unacked_bytes, 0);
    script_finish(&script, bus);
}

Test(bus_publish, a_refusal_is_told_by_flush_once)
{
    struct script script;
    bb_bus *bus = script_open_ready(&script);
    cr_assert_eq(script_publish(bus, "x"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_PUBLISH,
                                          .corr = 1,
                                          .code = bb_slice_str("no_memory"),
                                          .text = bb_slice_str("later")});
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), BB_ENOMEM);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    script_finish(&script, bus);
}

Test(bus_publish, after_a_break_all_that_is_unanswered_is_repeated_by_the_same_client)
{
    struct script script;
    struct bb_bus_info info;
    uint8_t client[BB_CLIENT_ID_LEN];
    bb_bus *bus = script_open_bus(&script, (struct bb_options)BB_OPTIONS_INIT);
    memcpy(client, script_expect(&script, BB_MSG_HELLO)->client.data, sizeof(client));
    script_welcome(&script, 7, 0);
    cr_assert_eq(script_publish(bus, "one"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(script_publish(bus, "two"), 0); /* waits for the answer to one */
    script_goodbye(&script);
    const struct bb_msg *hello = script_expect(&script, BB_MSG_HELLO);
    cr_assert(bb_slice_equal(hello->client, bb_slice(client, sizeof(client))));
    script_welcome(&script, 7, 1);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 1);
    cr_assert(bb_slice_equal(msg->body, MP("\x92\xa3"
                                           "a/b\xa3one")));
    script_ack(&script, MP("\x91\x94\x01\x01\xc0\xc0"));
    msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 2);
    cr_assert(bb_slice_equal(msg->body, MP("\x92\xa3"
                                           "a/b\xa3two")));
    script_ack_number(&script, 2);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.connects, 2);
    cr_assert_eq(info.repeated, 1);
    script_finish(&script, bus);
}

static void script_refuse(struct script *script, uint64_t number, const char *code)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                         .about = BB_MSG_PUBLISH,
                                         .corr = number,
                                         .code = bb_slice_str(code),
                                         .text = bb_slice_str("a sentence")});
}

Test(bus_publish, a_refusal_that_was_lost_with_the_connection_is_asked_for)
{
    static const struct {
        const char *code;
        int error;
    } rows[] = {{"no_memory", BB_ENOMEM}, {"unknown_result", BB_EUNKNOWNRESULT}};
    for (size_t i = 0; i < 2; i++) {
        struct script script;
        bb_bus *bus = script_open_ready(&script);
        cr_assert_eq(script_publish(bus, "x"), 0);
        (void)script_expect(&script, BB_MSG_PUBLISH);
        script_goodbye(&script);
        (void)script_expect(&script, BB_MSG_HELLO);
        script_welcome(&script, 7, 1);
        cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 1);
        script_refuse(&script, 1, rows[i].code);
        cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), rows[i].error);
        script_finish(&script, bus);
    }
}

Test(bus_publish, a_broker_that_restarted_gets_the_numbers_that_follow)
{
    struct script script;
    bb_bus *bus = script_open_ready(&script);
    for (uint64_t number = 1; number <= 2; number++) {
        cr_assert_eq(script_publish(bus, "x"), 0);
        cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, number);
        if (number == 1) {
            script_ack_number(&script, number);
            cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
        }
    }
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 8, 0);
    cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 2);
    script_ack_number(&script, 2);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    script_finish(&script, bus);
}

/* --- a broker that ends ----------------------------------------------------------------------------- */

static void count_errors(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    int *calls = arg;
    (void)bus;
    calls[0]++;
    calls[1] = ack->error;
}

/* A tracked event whose batch the broker gives back; how often it was answered goes to @calls, and with what. */
static void publish_to_one_that_ends(struct script *script, bb_bus *bus, int *calls)
{
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "a";
    draft.on_ack = count_errors;
    draft.arg = calls;
    cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
    (void)script_expect(script, BB_MSG_PUBLISH);
    script_refuse(script, 1, "shutting_down");
}

Test(bus_publish, what_a_broker_that_ends_does_not_take_is_taken_by_the_next)
{
    struct script script;
    struct bb_bus_info info;
    int calls[2] = {0};
    bb_bus *bus = script_open_ready(&script);
    publish_to_one_that_ends(&script, bus, calls);
    cr_assert_eq(bb_bus_flush(bus, 0), BB_ETIMEOUT);
    /* It still answers, but it is sent nothing that it would have to refuse. */
    script_send(&script, &(struct bb_msg){.type = BB_MSG_PING, .token = 3});
    cr_assert_eq(script_publish(bus, "later"), 0);
    (void)script_expect(&script, BB_MSG_PONG);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 8, 0);
    for (uint64_t number = 1; number <= 2; number++) {
        cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, number);
        script_ack_number(&script, number);
    }
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    cr_expect_eq(calls[0], 1);
    cr_expect_eq(calls[1], 0);
    bb_bus_get_info(bus, &info);
    cr_expect_eq(info.refused, 0);
    script_finish(&script, bus);
}

Test(bus_publish, what_no_broker_takes_any_more_is_reported_once)
{
    struct script script;
    int calls[2] = {0};
    bb_bus *bus = script_open_ready(&script);
    publish_to_one_that_ends(&script, bus, calls);
    cr_expect_eq(bb_bus_drain(bus, 1), BB_ETIMEOUT);
    cr_expect_eq(bb_bus_flush(bus, 1), BB_ETIMEOUT);
    cr_assert_eq(bb_bus_close(bus), 0);
    cr_expect_eq(calls[0], 1);
    cr_expect_eq(calls[1], BB_ESHUTDOWN);
    script_stop(&script);
}

Test(bus_publish, a_refusal_of_the_next_broker_is_reported_once_with_its_reason)
{
    struct script script;
    int calls[2] = {0};
    bb_bus *bus = script_open_ready(&script);
    publish_to_one_that_ends(&script, bus, calls);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 8, 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    script_refuse(&script, 1, "unsupported");
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), BB_EUNSUPPORTED);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    cr_expect_eq(calls[0], 1);
    cr_expect_eq(calls[1], BB_EUNSUPPORTED);
    script_finish(&script, bus);
}

Test(bus_publish, a_subscription_that_a_broker_that_ends_does_not_take_is_asked_for_at_the_next)
{
    struct script script;
    struct bb_event event;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_SUBSCRIBE,
                                          .corr = msg->corr,
                                          .code = bb_slice_str("shutting_down"),
                                          .text = bb_slice_str("a sentence")});
    msg = script_come_back(&script, 8, NO_FEATURES);
    cr_assert(bb_slice_equal(msg->from, MP("\xa3new")));
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    cr_expect_eq(bb_receive(sub, &event, 1, PATIENCE_MS), 1);
    script_finish(&script, bus);
}

Test(bus_publish, a_broker_that_counts_differently_is_connected_to_again)
{
    struct script script;
    bb_bus *bus = script_open_ready(&script);
    cr_assert_eq(script_publish(bus, "one"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    script_ack_number(&script, 1);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    cr_assert_eq(script_publish(bus, "two"), 0);
    cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 2);
    script_refuse(&script, 2, "bad_sequence");
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 2);
    script_refuse(&script, 2, "bad_sequence"); /* and now it is final */
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), BB_ESEQUENCE);
    script_finish(&script, bus);
}

Test(bus_publish, a_broker_that_forgot_the_client_has_refused_nothing)
{
    struct script script;
    struct bb_bus_info info;
    bb_bus *bus = script_open_ready(&script);
    cr_assert_eq(script_publish(bus, "x"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    script_refuse(&script, 1, "hello_first");
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 1);
    script_ack_number(&script, 1);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.refused, 0);
    cr_assert_eq(info.connects, 2);
    script_finish(&script, bus);
}

Test(bus_publish, a_full_queue_refuses_or_drops_as_asked)
{
    struct script script;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_bus_info info;
    options.queue_bytes = 4096;
    options.when_full = BB_FULL_REFUSE;
    bb_bus *bus = script_open_bus(&script, options);
    int r = 0;
    for (int i = 0; i < 1000 && r == 0; i++) {
        r = script_publish(bus, "0123456789");
    }
    cr_assert_eq(r, BB_EFULL);
    script_finish(&script, bus);

    options.when_full = BB_FULL_DROP_NEW;
    bus = script_open_bus(&script, options);
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(script_publish(bus, "0123456789"), 0);
    }
    bb_bus_get_info(bus, &info);
    cr_assert_gt(info.dropped, 0);
    cr_assert_leq(info.unacked_bytes, 4096);
    script_finish(&script, bus);
}

struct call {
    bb_bus *bus;
    int result;
    struct bb_ack ack;
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

Test(bus_publish, a_publisher_that_waits_gets_its_ack)
{
    struct script script;
    struct call call = {.bus = script_open_ready(&script)};
    pthread_t thread = script_thread(call_publish_wait, &call);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->level, BB_LEVEL_ROUTED);
    cr_assert(bb_slice_equal(msg->body, MP("\x93\xa1"
                                           "a\x91\x01\x81\xa8priority\xfd")));
    script_ack(&script, MP("\x91\x94\x01\x02\x04\x91\x93\xa1"
                           "a\x2a\x01"));
    (void)pthread_join(thread, NULL);
    cr_expect_eq(call.result, 0);
    cr_expect_eq(call.ack.sequence, 42);
    cr_expect_eq(call.ack.matches, 4);
    cr_expect_eq(call.ack.level, BB_LEVEL_ROUTED);
    script_finish(&script, call.bus);
}

/* --- a full queue against a broker that does not answer ------------------------------------------- */

#define SMALL_QUEUE 8192
#define N_THREADS   4
#define N_EACH      500

static void welcome_first(struct script *script, bb_bus *bus)
{
    (void)script_expect(script, BB_MSG_HELLO);
    script_welcome(script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
}

static bb_bus *open_small(struct script *script, enum bb_when_full when_full, size_t queue_bytes)
{
    struct bb_options options = BB_OPTIONS_INIT;
    options.queue_bytes = queue_bytes;
    options.batch_bytes = 1024;
    options.when_full = when_full;
    bb_bus *bus = script_open_bus(script, options);
    welcome_first(script, bus);
    return bus;
}

Test(bus_publish, a_publisher_that_waits_keeps_its_timeout_while_the_queue_is_full)
{
    static const bool modes[] = {false, true};
    for (size_t i = 0; i < BB_COUNT(modes); i++) {
        struct script script;
        struct bb_options options = BB_OPTIONS_INIT;
        struct bb_draft draft = BB_DRAFT_INIT;
        struct bb_ack ack = {.ticket = 77};
        uint8_t bytes[SMALL_QUEUE] = {0};
        options.queue_bytes = SMALL_QUEUE;
        options.embedded = modes[i];
        bb_bus *bus = script_open_bus(&script, options);
        cr_assert_eq(bb_publish(bus, "a", BB_PAYLOAD_BINARY, bytes, sizeof(bytes)), 0);
        draft.path = "a";
        cr_expect_eq(bb_publish_wait(bus, &draft, 0, &ack), BB_ETIMEOUT);
        cr_expect_eq(bb_publish_wait(bus, &draft, 5, &ack), BB_ETIMEOUT);
        cr_expect_eq(ack.ticket, 77);
        script_finish(&script, bus);
    }
}

static uint64_t payload_of(struct bb_slice *rest)
{
    struct bb_event_view view;
    cr_assert_eq(bb_event_read(rest, &view), 0);
    struct bb_mp_reader reader = bb_mp_reader(view.payload);
    struct bb_slice bytes = bb_mp_read_bin(&reader);
    uint64_t value;
    cr_assert_geq(bytes.len, sizeof(value));
    memcpy(&value, bytes.data, sizeof(value));
    return value;
}

/* An event of @len bytes that begin with @value. */
static int publish_value(bb_bus *bus, uint64_t value, size_t len)
{
    uint8_t bytes[1024] = {0};
    memcpy(bytes, &value, sizeof(value));
    return bb_publish(bus, "a", BB_PAYLOAD_BINARY, bytes, len);
}

/* Takes and acknowledges batches until @end came; how many events, all in rising order. */
static uint64_t take_until(struct script *script, uint64_t end)
{
    uint64_t n = 0;
    uint64_t last = 0;
    while (last != end) {
        struct bb_slice rest = script_expect(script, BB_MSG_PUBLISH)->body;
        uint64_t number = script->msg.number;
        while (rest.len > 0) {
            uint64_t value = payload_of(&rest);
            cr_assert_gt(value, last);
            last = value;
            n++;
        }
        script_ack_number(script, number);
    }
    return n;
}

struct blocked {
    bb_bus *bus;
    uint64_t thread;
    int result;
};

static void *publish_many(void *arg)
{
    struct blocked *blocked = arg;
    for (uint64_t i = 1; i <= N_EACH && blocked->result == 0; i++) {
        blocked->result = publish_value(blocked->bus, blocked->thread << 32 | i, 100);
    }
    return NULL;
}

Test(bus_publish, threads_that_block_on_a_full_queue_lose_nothing_and_keep_their_order)
{
    struct script script;
    struct bb_bus_info info;
    struct blocked blocked[N_THREADS];
    pthread_t threads[N_THREADS];
    uint64_t last[N_THREADS] = {0};
    bb_bus *bus = open_small(&script, BB_FULL_BLOCK, SMALL_QUEUE);
    for (uint64_t i = 0; i < N_THREADS; i++) {
        blocked[i] = (struct blocked){bus, i, 0};
        threads[i] = script_thread(publish_many, &blocked[i]);
    }
    for (size_t n = 0; n < N_THREADS * N_EACH;) {
        struct bb_slice rest = script_expect(&script, BB_MSG_PUBLISH)->body;
        uint64_t number = script.msg.number;
        while (rest.len > 0) {
            uint64_t value = payload_of(&rest);
            cr_assert_lt(value >> 32, N_THREADS);
            cr_assert_eq(++last[value >> 32], value & UINT32_MAX, "out of order");
            n++;
        }
        bb_bus_get_info(bus, &info);
        cr_assert_leq(info.unacked_bytes, SMALL_QUEUE);
        script_ack_number(&script, number);
    }
    for (size_t i = 0; i < N_THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        cr_expect_eq(blocked[i].result, 0);
    }
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    script_finish(&script, bus);
}

Test(bus_publish, a_full_queue_that_refuses_takes_again_after_an_ack)
{
    struct script script;
    bb_bus *bus = open_small(&script, BB_FULL_REFUSE, SMALL_QUEUE);
    uint64_t n = 0;
    while (publish_value(bus, n + 1, 100) == 0) {
        cr_assert_lt(++n, 1000);
    }
    cr_assert_eq(publish_value(bus, n + 1, 100), BB_EFULL);
    cr_assert_eq(bb_bus_flush(bus, 0), BB_ETIMEOUT);
    pthread_t thread;
    struct blocked blocked = {bus, 0, 0};
    /* What is still open leaves as the acks come. */
    cr_assert_eq(take_until(&script, n), n);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    thread = script_thread(publish_many, &blocked);
    (void)pthread_join(thread, NULL);
    cr_assert_eq(blocked.result, BB_EFULL);
    script_finish(&script, bus);
}

Test(bus_publish, dropping_the_new_keeps_what_was_there)
{
    struct script script;
    struct bb_bus_info info;
    bb_bus *bus = open_small(&script, BB_FULL_DROP_NEW, SMALL_QUEUE);
    for (uint64_t i = 1; i <= 1000; i++) {
        cr_assert_eq(publish_value(bus, i, 100), 0);
    }
    bb_bus_get_info(bus, &info);
    cr_assert_gt(info.dropped, 0);
    cr_assert_leq(info.unacked_bytes, SMALL_QUEUE);
    uint64_t kept = 1000 - info.dropped;
    cr_assert_eq(take_until(&script, kept), kept);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    bb_bus_get_info(bus, &info);
    cr_assert_eq(info.refused, 0);
    script_finish(&script, bus);
}

static void count_dropped(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    uint64_t *dropped = arg;
    (void)bus;
    *dropped += ack->error == BB_EFULL;
}

Test(bus_publish, dropping_the_old_keeps_the_newest_and_tells_who_waits)
{
    struct script script;
    struct bb_bus_info info;
    uint64_t told = 0;
    struct bb_draft draft = BB_DRAFT_INIT;
    /* One event fills a batch; 64 may be in flight, and as many wait unsent. */
    bb_bus *bus = open_small(&script, BB_FULL_DROP_OLD, 128 * 1024);
    for (uint64_t i = 1; i <= 1000; i++) {
        uint8_t bytes[800] = {0};
        memcpy(bytes, &i, sizeof(i));
        draft.path = "a";
        draft.kind = BB_PAYLOAD_BINARY;
        draft.data = bytes;
        draft.len = sizeof(bytes);
        draft.on_ack = count_dropped;
        draft.arg = &told;
        cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
    }
    bb_bus_get_info(bus, &info);
    cr_assert_gt(info.dropped, 800);
    cr_assert_leq(info.unacked_bytes, 128 * 1024);
    cr_assert_eq(take_until(&script, 1000), 1000 - info.dropped);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0, "what was dropped was not refused");
    cr_assert_eq(told, info.dropped);
    script_finish(&script, bus);
}

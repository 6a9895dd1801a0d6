/* SPDX-License-Identifier: Apache-2.0 */
/* What a log adds to a client: expectations, cursors, ends, retained values, queries, requests about channels. */
#include "proto/wire/mp.h"

#include "tests/unit/script.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define NO_POSITIONS MP("\x90")

static void welcome_with_log(struct script *script, uint64_t run, uint64_t last)
{
    script_welcome_with(script, run, last, LOG);
}

static bb_bus *open_with_log(struct script *script)
{
    bb_bus *bus = script_open_bus(script, (struct bb_options)BB_OPTIONS_INIT);
    (void)script_expect(script, BB_MSG_HELLO);
    welcome_with_log(script, 7, 0);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    return bus;
}

static void answer(struct script *script, struct bb_slice value)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_RESULT, .corr = script->msg.corr, .value = value});
}

static void refuse(struct script *script, enum bb_msg_type about, uint64_t corr, const char *code)
{
    script_send(script, &(struct bb_msg){
                            .type = BB_MSG_ERROR,
                            .about = about,
                            .corr = corr,
                            .code = bb_slice_str(code),
                            .text = bb_slice_str("no"),
                        });
}

/* --- publishing ------------------------------------------------------------------------------------- */

static int publish_expecting(bb_bus *bus, enum bb_expect expect, uint64_t sequence)
{
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "a/b";
    draft.expect = expect;
    draft.expect_sequence = sequence;
    return bb_publish_event(bus, &draft, NULL);
}

Test(bus_log, an_expectation_is_a_batch_of_its_own)
{
    struct script script;
    bb_bus *bus = open_with_log(&script);
    cr_assert_eq(script_publish(bus, "1"), 0); /* leaves at once */
    cr_assert_eq(script_publish(bus, "2"), 0);
    cr_assert_eq(publish_expecting(bus, BB_EXPECT_CHANNEL, 300), 0);
    cr_assert_eq(publish_expecting(bus, BB_EXPECT_PATH, 0), 0);
    cr_assert_eq(script_publish(bus, "3"), 0);
    cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 1);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 2);
    cr_assert_eq(msg->options.len, 0);
    msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 3);
    cr_assert(bb_slice_equal(msg->options, MP("\x81\xa6"
                                              "expect\x81\xa1"
                                              "a\xcd\x01\x2c")));
    cr_assert(bb_slice_equal(msg->body, MP("\x92\xa3"
                                           "a/b\xc0")));
    msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 4);
    cr_assert(bb_slice_equal(msg->options, MP("\x81\xab"
                                              "expect_path\x81\xa3"
                                              "a/b\x00")));
    script_ack_number(&script, 1);
    script_ack_number(&script, 2);
    refuse(&script, BB_MSG_PUBLISH, 3, "conflict");
    script_ack_number(&script, 4);
    msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert_eq(msg->number, 5);
    cr_assert_eq(msg->options.len, 0);
    script_ack_number(&script, 5);
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), BB_ECONFLICT);
    script_finish(&script, bus);
}

Test(bus_log, a_time_to_live_travels_as_an_attribute)
{
    struct script script;
    struct bb_draft draft = BB_DRAFT_INIT;
    bb_bus *bus = open_with_log(&script);
    draft.path = "a/b";
    draft.ttl_ms = 5000;
    cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_PUBLISH);
    cr_assert(bb_slice_equal(msg->body, MP("\x93\xa3"
                                           "a/b\xc0\x81\xa3"
                                           "ttl\xcd\x13\x88")));
    draft.ttl_ms = UINT64_MAX;
    cr_assert_eq(bb_publish_event(bus, &draft, NULL), BB_EEVENT);
    script_finish(&script, bus);
}

Test(bus_log, what_a_channel_is_set_to_is_not_mixed_with_levels)
{
    struct script script;
    struct bb_draft draft = BB_DRAFT_INIT;
    static const enum bb_level levels[] = {BB_LEVEL_NONE, BB_LEVEL_ACCEPTED, BB_LEVEL_ROUTED,
                                           BB_LEVEL_SYNCED};
    static const uint64_t expected[] = {BB_LEVEL_NONE, BB_LEVEL_ROUTED, BB_LEVEL_SYNCED};
    bb_bus *bus = open_with_log(&script);
    cr_assert_eq(script_publish(bus, "first"), 0);
    (void)script_expect(&script, BB_MSG_PUBLISH);
    draft.path = "a";
    for (size_t i = 0; i < BB_COUNT(levels); i++) {
        draft.level = levels[i];
        cr_assert_eq(bb_publish_event(bus, &draft, NULL), 0);
    }
    script_ack_number(&script, 1);
    for (uint64_t i = 0; i < 3; i++) {
        const struct bb_msg *msg = script_expect(&script, BB_MSG_PUBLISH);
        cr_assert_eq(msg->number, i + 2);
        cr_expect_eq(msg->level, expected[i]);
        script_ack_number(&script, i + 2);
    }
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    script_finish(&script, bus);
}

Test(bus_log, numbers_go_on_after_a_restart_of_a_broker_with_a_log)
{
    struct script script;
    bb_bus *bus = open_with_log(&script);
    cr_assert_eq(publish_expecting(bus, BB_EXPECT_PATH, 0), 0);
    cr_assert_eq(publish_expecting(bus, BB_EXPECT_PATH, 1), 0);
    cr_assert_eq(publish_expecting(bus, BB_EXPECT_PATH, 2), 0);
    for (uint64_t i = 1; i <= 3; i++) {
        cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, i);
    }
    script_ack_number(&script, 1);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    welcome_with_log(&script, 8, 2);
    for (uint64_t i = 2; i <= 3; i++) {
        cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, i);
    }
    script_goodbye(&script); /* and one that lost the first, which had not to be on disk */
    (void)script_expect(&script, BB_MSG_HELLO);
    welcome_with_log(&script, 9, 0);
    for (uint64_t i = 2; i <= 3; i++) {
        cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, i);
        script_ack_number(&script, i);
    }
    cr_assert_eq(bb_bus_flush(bus, PATIENCE_MS), 0);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    welcome_with_log(&script, 10, 0);
    cr_assert_eq(script_publish(bus, "x"), 0);
    cr_assert_eq(script_expect(&script, BB_MSG_PUBLISH)->number, 4);
    script_finish(&script, bus);
}

/* --- subscribing ------------------------------------------------------------------------------------ */

Test(bus_log, from_an_id_until_a_time_in_the_early_view)
{
    struct script script;
    struct bb_subscribe_options options = script_to_all();
    bb_bus *bus = open_with_log(&script);
    options.from = BB_FROM_ID;
    options.from_id = (struct bb_event_id){9, 100, 3};
    options.until = BB_UNTIL_TIME;
    options.until_value = 5;
    options.view = BB_VIEW_EARLY;
    (void)script_subscribe(bus, options);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_expect(bb_slice_equal(msg->from, MP("\x81\xa2id\x93\x09\x64\x03")));
    cr_expect(script_holds(msg->options, MP("\xa5until\x81\xa4time\x05")));
    cr_expect(script_holds(msg->options, MP("\xa4view\xa5"
                                            "early")));
    script_finish(&script, bus);
}

struct ended {
    int calls;
    int error;
};

static void on_ended(bb_subscription *sub, int error, const char *text, void *arg)
{
    struct ended *ended = arg;
    (void)sub;
    (void)text;
    ended->calls++;
    ended->error = error;
}

Test(bus_log, the_end_comes_after_the_last_event)
{
    struct script script;
    struct bb_event events[4];
    struct ended ended = {0, -1};
    struct bb_subscribe_options options = script_to_all();
    bb_bus *bus = open_with_log(&script);
    options.from = BB_FROM_SEQUENCE;
    options.from_value = 1;
    options.until = BB_UNTIL_NOW;
    options.on_ended = on_ended;
    options.arg = &ended;
    bb_subscription *sub = script_subscribe(bus, options);
    cr_assert(script_holds(script_expect(&script, BB_MSG_SUBSCRIBE)->options, MP("\xa5until\xa3now")));
    script_subscribed(&script, NO_POSITIONS);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x02"),
                   1, 2);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ENDED, .sub = 1, .code = bb_slice_str("done")});
    cr_assert_eq(bb_receive(sub, events, 4, PATIENCE_MS), 2);
    cr_assert_eq(bb_receive(sub, events, 4, PATIENCE_MS), BB_ECLOSED);
    cr_assert_eq(bb_unsubscribe(sub, PATIENCE_MS), 0);
    script_finish(&script, bus);
    cr_expect_leq(ended.calls, 1);
    cr_expect(ended.calls == 0 || ended.error == 0);
}

static void subscribed_until(struct script *script, struct bb_slice ends)
{
    script_send(script, &(struct bb_msg){
                            .type = BB_MSG_SUBSCRIBED,
                            .corr = script->msg.corr,
                            .sub = script->msg.sub,
                            .session = 1,
                            .positions = MP("\x91\x92\xa1"
                                            "a\x02"),
                            .ends = ends,
                        });
}

static const struct bb_msg *come_back(struct script *script, uint64_t run)
{
    return script_come_back(script, run, LOG);
}

Test(bus_log, now_stays_what_it_was_across_reconnections)
{
    struct script script;
    struct bb_subscribe_options options = script_to_all();
    bb_bus *bus = open_with_log(&script);
    options.from = BB_FROM_SEQUENCE;
    options.from_value = 3;
    options.until = BB_UNTIL_NOW;
    bb_subscription *sub = script_subscribe(bus, options);
    cr_assert(script_holds(script_expect(&script, BB_MSG_SUBSCRIBE)->options, MP("\xa5until\xa3now")));
    /* Not answered: so nobody knows yet what now was. */
    cr_assert(script_holds(come_back(&script, 7)->options, MP("\xa5until\xa3now")));
    subscribed_until(&script, MP("\x81\xa1"
                                 "a\x07"));
    cr_expect(script_holds(come_back(&script, 7)->options, MP("\xa5until\x81\xa4last\x81\xa1"
                                                              "a\x07")));
    /* A restart took some of it. */
    subscribed_until(&script, MP("\x81\xa1"
                                 "a\x05"));
    cr_expect(script_holds(come_back(&script, 8)->options, MP("\xa5until\x81\xa4last\x81\xa1"
                                                              "a\x05")));
    subscribed_until(&script, MP("\x81\xa1"
                                 "a\x05"));
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ENDED, .sub = 1, .code = bb_slice_str("done")});
    struct bb_event events[4];
    cr_expect_eq(bb_receive(sub, events, 4, PATIENCE_MS), BB_ECLOSED);
    script_finish(&script, bus);
}

static void deliver_retained(struct script *script, uint64_t retained, uint64_t sequence)
{
    struct bb_buf body = BB_BUF_INIT;
    if (sequence > 0) {
        script_write_block(&body, sequence, 1);
    }
    script_send_body(
        script,
        &(struct bb_msg){.type = BB_MSG_DELIVER, .sub = 1, .ranges = MP("\x90"), .retained = retained},
        bb_buf_slice(&body));
    bb_buf_fini(&body);
}

static void receive_all(bb_subscription *sub, struct bb_event *events, int n)
{
    for (int got = 0; got < n;) {
        int r = bb_receive(sub, events + got, 1, PATIENCE_MS);
        cr_assert_gt(r, 0);
        got += r;
    }
}

Test(bus_log, retained_values_come_first_and_end_with_a_mark)
{
    struct script script;
    struct bb_event events[4];
    struct bb_subscribe_options options = script_to_all();
    bb_bus *bus = open_with_log(&script);
    options.retained = true;
    options.from = BB_FROM_LAST;
    bb_subscription *sub = NULL;
    cr_assert_eq(bb_subscribe(bus, &options, 0, &sub), BB_EINVAL);
    options.from = BB_FROM_NEW;
    sub = script_subscribe(bus, options);
    cr_assert(script_holds(script_expect(&script, BB_MSG_SUBSCRIBE)->options, MP("\xa8retained\xc3")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x08"));
    deliver_retained(&script, 1, 5);
    cr_assert_eq(bb_receive(sub, events, 4, PATIENCE_MS), 1);
    cr_assert(events[0].is_retained);
    cr_assert_eq(events[0].sequence, 5);
    deliver_retained(&script, 1, 6);
    receive_all(sub, events, 1); /* which is the end of the one before */
    script_goodbye(&script);     /* before the mark: all of it again, and nothing is lost */
    (void)script_expect(&script, BB_MSG_HELLO);
    welcome_with_log(&script, 7, 0);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_assert(bb_slice_equal(msg->from, MP("\xa3new")));
    cr_assert(script_holds(msg->options, MP("\xa8retained\xc3")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x09"));
    deliver_retained(&script, 1, 9);
    deliver_retained(&script, 2, 0);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x09\x0a"),
                   10, 1);
    receive_all(sub, events, 1);
    cr_expect(events[0].is_retained && events[0].gap == NULL);
    receive_all(sub, events, 1);
    cr_expect(events[0].is_retained_end && events[0].gap == NULL);
    char *text = bb_event_json(&events[0], NULL);
    cr_expect_str_eq(text, "{\"retained_end\":true}");
    free(text);
    receive_all(sub, events, 1);
    cr_expect(!events[0].is_retained && !events[0].is_retained_end);
    cr_expect_eq(events[0].sequence, 10);
    script_goodbye(&script); /* after it: on from here */
    (void)script_expect(&script, BB_MSG_HELLO);
    welcome_with_log(&script, 7, 0);
    msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_expect(bb_slice_equal(msg->from, MP("\x82\xa3run\x07\xa5"
                                           "after\x81\xa1"
                                           "a\x0a")));
    cr_expect_not(script_holds(msg->options, MP("\xa8retained")));
    script_finish(&script, bus);
}

Test(bus_log, what_was_retracted_comes_again_with_the_same_sequences)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = open_with_log(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x04"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x04\x08"),
                   5, 4);
    receive_all(sub, events, 4);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                          .sub = 1,
                                          .gaps = MP("\x91\x95\xa1"
                                                     "a\x07\x08\x02\xa9retracted")});
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x06\x07"),
                   7, 1);
    receive_all(sub, events, 2);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    welcome_with_log(&script, 8, 0);
    cr_assert(bb_slice_equal(script_expect(&script, BB_MSG_SUBSCRIBE)->from, MP("\x82\xa3run\x07\xa5"
                                                                                "after\x81\xa1"
                                                                                "a\x07")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x06")); /* 7 was not on disk either */
    script_send(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                          .sub = 1,
                                          .gaps = MP("\x91\x95\xa1"
                                                     "a\x07\x07\x01\xa9retracted")});
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x06\x08"),
                   7, 2);
    cr_assert_gt(bb_receive(sub, events, 1, PATIENCE_MS), 0);
    cr_assert_not_null(events[0].gap);
    cr_expect_str_eq(events[0].gap->reason, "retracted");
    receive_all(sub, events, 2);
    cr_expect_null(events[0].gap);
    cr_expect_eq(events[1].sequence, 8);
    script_finish(&script, bus);
}

/* --- cursors ---------------------------------------------------------------------------------------- */

static struct bb_subscribe_options durable(void)
{
    struct bb_subscribe_options options = script_to_all();
    options.durable = "mine";
    return options;
}

/* The next cursor, which must say that channel a is at @sequence. */
static void expect_cursor(struct script *script, uint8_t sequence)
{
    const uint8_t positions[] = {0x91, 0x92, 0xa1, 'a', sequence};
    const struct bb_msg *msg = script_expect(script, BB_MSG_CURSOR);
    cr_assert(bb_slice_equal(msg->name, bb_slice_str("mine")));
    cr_assert(bb_slice_equal(msg->positions, bb_slice(positions, sizeof(positions))), "not %d", sequence);
}

Test(bus_log, a_cursor_follows_what_was_worked_off)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = open_with_log(&script);
    bb_subscription *sub = script_subscribe(bus, durable());
    cr_assert(script_holds(script_expect(&script, BB_MSG_SUBSCRIBE)->options, MP("\xa7"
                                                                                 "durable\xa4mine")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x04"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x04\x08"),
                   5, 3);
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), 2);
    cr_assert_eq(bb_subscription_save(sub, 0), 0);
    expect_cursor(&script, 6); /* a part of a message */
    answer(&script, MP("\xc0"));
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_assert_eq(bb_subscription_save(sub, 0), 0);
    expect_cursor(&script, 8); /* to the end of its range */
    answer(&script, MP("\xc0"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x08\x09"),
                   9, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_assert_eq(bb_unsubscribe(sub, 0), 0);
    expect_cursor(&script, 9);
    (void)script_expect(&script, BB_MSG_UNSUBSCRIBE);
    script_finish(&script, bus);
}

Test(bus_log, a_cursor_is_not_saved_before_all_retained_values_are_worked_off)
{
    struct script script;
    struct bb_event events[2];
    struct bb_subscribe_options options = durable();
    options.retained = true;
    bb_bus *bus = open_with_log(&script);
    bb_subscription *sub = script_subscribe(bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x08"));
    deliver_retained(&script, 1, 5);
    receive_all(sub, events, 1);
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x09\x0a\x02\xa8"
                            "overflow"));
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), 1);
    cr_assert_not_null(events[0].gap);
    cr_expect_eq(bb_subscription_save(sub, 0), BB_EAGAIN);
    cr_assert_eq(bb_unsubscribe(sub, 0), 0);
    (void)script_expect(&script, BB_MSG_UNSUBSCRIBE);
    script_finish(&script, bus);
}

struct saving {
    bb_subscription *sub;
    int result;
};

static void *save(void *arg)
{
    struct saving *saving = arg;
    saving->result = bb_subscription_save(saving->sub, PATIENCE_MS);
    return NULL;
}

static void ignore_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    (void)sub;
    (void)events;
    (void)n;
    (void)arg;
}

Test(bus_log, saving_waits_for_the_answer_and_close_saves)
{
    struct script script;
    struct bb_subscribe_options options = durable();
    bb_bus *bus = open_with_log(&script);
    options.on_events = ignore_events;
    bb_subscription *sub = script_subscribe(bus, options);
    cr_assert_eq(bb_subscription_save(sub, 0), BB_EAGAIN);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x04"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x04\x05"),
                   5, 1);
    expect_cursor(&script, 5); /* by the clock */
    answer(&script, MP("\xc0"));
    struct saving saving = {sub, -1};
    pthread_t thread = script_thread(save, &saving);
    expect_cursor(&script, 5);
    answer(&script, MP("\xc0"));
    (void)pthread_join(thread, NULL);
    cr_expect_eq(saving.result, 0);
    thread = script_thread(save, &saving);
    expect_cursor(&script, 5);
    refuse(&script, BB_MSG_CURSOR, script.msg.corr, "unsupported");
    (void)pthread_join(thread, NULL);
    cr_expect_eq(saving.result, BB_EUNSUPPORTED);
    cr_assert_eq(bb_bus_close(bus), 0);
    expect_cursor(&script, 5);
    (void)script_expect(&script, BB_MSG_GOODBYE);
    script_stop(&script);
}

/* --- requests --------------------------------------------------------------------------------------- */

struct asking {
    bb_bus *bus;
    struct bb_query_options options;
    int result;
    uint64_t sequences[16];
    size_t n;
    pthread_barrier_t *pause; /* in the first call of on_found(), until it is reached twice; or NULL */
};

static int on_found(const struct bb_event *events, size_t n, void *arg)
{
    struct asking *asking = arg;
    for (size_t i = 0; i < n; i++) {
        cr_assert_null(events[i].gap);
        cr_assert_lt(asking->n, BB_COUNT(asking->sequences));
        asking->sequences[asking->n++] = events[i].sequence;
    }
    if (asking->pause != NULL) {
        (void)pthread_barrier_wait(asking->pause);
        (void)pthread_barrier_wait(asking->pause);
        asking->pause = NULL;
    }
    return 0;
}

static void *ask(void *arg)
{
    struct asking *asking = arg;
    asking->result = bb_query(asking->bus, &asking->options, PATIENCE_MS, on_found, asking);
    return NULL;
}

static void found(struct script *script, bool more, uint64_t sequence, uint64_t n)
{
    struct bb_buf body = BB_BUF_INIT;
    script_write_block(&body, sequence, n);
    script_send_body(script, &(struct bb_msg){.type = BB_MSG_EVENTS, .corr = script->msg.corr, .more = more},
                     bb_buf_slice(&body));
    bb_buf_fini(&body);
}

Test(bus_log, a_query_goes_on_page_after_page)
{
    struct script script;
    static const char *const patterns[] = {"a/*"};
    struct asking asking = {.bus = open_with_log(&script), .options = BB_QUERY_OPTIONS_INIT};
    asking.options.patterns = patterns;
    asking.options.n_patterns = 1;
    asking.options.ascending = true;
    asking.options.where = ".x > 1";
    asking.options.payload_json = "{\"a\":1}";
    asking.options.max = 5;
    pthread_t thread = script_thread(ask, &asking);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_QUERY);
    cr_assert(script_holds(msg->query, MP("\x91\xa3"
                                          "a/*")));
    cr_assert(script_holds(msg->query, MP("\xa6.x > 1")));
    cr_assert(script_holds(msg->query, MP("\xa3max\x05")));
    cr_assert_not(script_holds(msg->query, MP("after")));
    found(&script, true, 1, 2);
    msg = script_expect(&script, BB_MSG_QUERY);
    cr_assert(script_holds(msg->query, MP("\xa5"
                                          "after\x93\x09\x65\x02")));
    cr_assert(script_holds(msg->query, MP("\xa3max\x03")));
    found(&script, true, 3, 3);
    (void)pthread_join(thread, NULL);
    cr_expect_eq(asking.result, 1);
    cr_assert_eq(asking.n, 5);
    cr_expect_eq(asking.sequences[4], 5);
    script_finish(&script, asking.bus);
}

/* The second page is asked for when the connection has led to @run of @server: what the query returns. */
static int ask_across(uint64_t run, uint64_t server, size_t *ret_n)
{
    struct script script;
    pthread_barrier_t pause;
    struct asking asking = {.bus = open_with_log(&script), .options = BB_QUERY_OPTIONS_INIT, .pause = &pause};
    (void)pthread_barrier_init(&pause, NULL, 2);
    pthread_t thread = script_thread(ask, &asking);
    (void)script_expect(&script, BB_MSG_QUERY);
    found(&script, true, 1, 2);
    (void)pthread_barrier_wait(&pause);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome_server(&script, server, run);
    (void)pthread_barrier_wait(&pause);
    (void)script_expect(&script, BB_MSG_QUERY);
    found(&script, false, 3, 1);
    (void)pthread_join(thread, NULL);
    (void)pthread_barrier_destroy(&pause);
    *ret_n = asking.n;
    script_finish(&script, asking.bus);
    return asking.result;
}

Test(bus_log, all_pages_of_a_query_are_of_one_start_of_one_broker)
{
    size_t n;
    cr_expect_eq(ask_across(7, 9, &n), 0);
    cr_expect_eq(n, 3);
    cr_expect_eq(ask_across(8, 9, &n), BB_EUNKNOWNRESULT);
    cr_expect_eq(n, 2);
    cr_expect_eq(ask_across(7, 10, &n), BB_EUNKNOWNRESULT);
    cr_expect_eq(n, 2);
}

Test(bus_log, a_query_can_be_refused_or_end_in_bytes_that_are_none)
{
    struct script script;
    struct asking asking = {.bus = open_with_log(&script), .options = BB_QUERY_OPTIONS_INIT};
    pthread_t thread = script_thread(ask, &asking);
    (void)script_expect(&script, BB_MSG_QUERY);
    refuse(&script, BB_MSG_QUERY, script.msg.corr, "unsupported");
    (void)pthread_join(thread, NULL);
    cr_expect_eq(asking.result, BB_EUNSUPPORTED);
    thread = script_thread(ask, &asking);
    (void)script_expect(&script, BB_MSG_QUERY);
    script_send_body(&script, &(struct bb_msg){.type = BB_MSG_EVENTS, .corr = script.msg.corr, .more = 1},
                     MP("\x97\x01\x01\x01\x06\x01\x03\x02\xc1\xc1"));
    (void)pthread_join(thread, NULL);
    cr_expect_eq(asking.result, BB_EMALFORMED);
    asking.options.payload_json = "{";
    cr_expect_eq(bb_query(asking.bus, &asking.options, 0, on_found, &asking), BB_EMALFORMED);
    script_finish(&script, asking.bus);
}

struct calling {
    bb_bus *bus;
    int results[8];
    char *text;
};

static void *call(void *arg)
{
    struct calling *c = arg;
    struct bb_channel_settings settings = BB_CHANNEL_SETTINGS_INIT;
    settings.store = BB_STORE_LOG;
    settings.sync = BB_TOGGLE_OFF;
    settings.max_age_ms = 7;
    settings.max_bytes = BB_UNKNOWN;
    settings.overflow = BB_OVERFLOW_CONFLATE;
    c->results[0] = bb_channel_add(c->bus, "a", &settings, PATIENCE_MS);
    c->results[1] = bb_channel_trim(c->bus, "a", 9, PATIENCE_MS);
    c->results[2] = bb_channel_remove(c->bus, "a", PATIENCE_MS);
    c->results[3] = bb_request_channels(c->bus, PATIENCE_MS, &c->text);
    free(c->text);
    c->results[4] = bb_request_log(c->bus, "backup", "b", PATIENCE_MS, &c->text);
    c->results[5] = bb_cursor_forget(c->bus, "mine", PATIENCE_MS);
    return NULL;
}

Test(bus_log, requests_about_channels_log_and_cursors)
{
    struct script script;
    struct calling calling = {.bus = open_with_log(&script)};
    pthread_t thread = script_thread(call, &calling);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_CHANNEL);
    cr_assert(bb_slice_equal(msg->action, bb_slice_str("add")));
    cr_assert(bb_slice_equal(msg->settings,
                             MP("\x85\xa5store\xa3log\xa4sync\xc2\xa7max_age\x07\xa9max_bytes\xc0\xa8"
                                "overflow\xa8"
                                "conflate")));
    answer(&script, MP("\x80"));
    msg = script_expect(&script, BB_MSG_CHANNEL);
    cr_assert(bb_slice_equal(msg->settings, MP("\x81\xa6"
                                               "before\x09")));
    answer(&script, MP("\x80"));
    msg = script_expect(&script, BB_MSG_CHANNEL);
    cr_assert(bb_slice_equal(msg->action, bb_slice_str("rm")));
    refuse(&script, BB_MSG_CHANNEL, msg->corr, "not_found");
    (void)script_expect(&script, BB_MSG_CHANNEL);
    answer(&script, MP("\x90"));
    msg = script_expect(&script, BB_MSG_LOG);
    cr_assert(bb_slice_equal(msg->options, MP("\x81\xa4name\xa1"
                                              "b")));
    answer(&script, MP("\x81\xa5"
                       "bytes\x05"));
    msg = script_expect(&script, BB_MSG_CURSOR);
    cr_assert_eq(msg->positions.len, 0);
    answer(&script, MP("\xc0"));
    (void)pthread_join(thread, NULL);
    static const int expected[] = {0, 0, BB_ENOTFOUND, 0, 0, 0};
    for (size_t i = 0; i < BB_COUNT(expected); i++) {
        cr_expect_eq(calling.results[i], expected[i], "call %zu: %d", i, calling.results[i]);
    }
    cr_assert_str_eq(calling.text, "{\"bytes\":5}");
    free(calling.text);
    script_finish(&script, calling.bus);
}

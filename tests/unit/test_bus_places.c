/* SPDX-License-Identifier: Apache-2.0 */
/* Positions and lives (PROTOCOL 7.5): what a subscription and a cursor keep, and with what they resume. */
#include "tests/unit/script.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* Lives are one byte here; every channel is "a". */
#define AFTER(channels) \
    MP("\x81\xa5"       \
       "after" channels)

static bb_bus *open_with_lives(struct script *script)
{
    bb_bus *bus = script_open_bus(script, (struct bb_options)BB_OPTIONS_INIT);
    (void)script_expect(script, BB_MSG_HELLO);
    script_welcome_with(script, 7, 0, LIVES);
    cr_assert_eq(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    return bus;
}

/* A subscription that is at 4 of the life 9. */
static bb_subscription *subscribe_at_4(struct script *script, bb_bus *bus, const char *durable)
{
    struct bb_subscribe_options options = script_to_all();
    options.durable = durable;
    bb_subscription *sub = script_subscribe(bus, options);
    (void)script_expect(script, BB_MSG_SUBSCRIBE);
    script_subscribed(script, MP("\x91\x93\xa1"
                                 "a\x04\x09"));
    return sub;
}

static void deliver_4_to_6(struct script *script)
{
    script_deliver(script,
                   MP("\x91\x93\xa1"
                      "a\x04\x06"),
                   5, 2);
}

static void expect_gap(const struct bb_event *event, uint64_t from, uint64_t to, const char *reason)
{
    cr_assert_not_null(event->gap);
    cr_expect_eq(event->gap->from, from);
    cr_expect_eq(event->gap->to, to);
    cr_expect_str_eq(event->gap->reason, reason);
}

static void expect_event(const struct bb_event *event, uint64_t sequence)
{
    cr_assert_null(event->gap);
    cr_expect_eq(event->sequence, sequence);
}

/* The next subscribe after a break asks for @from. */
static void expect_resume(struct script *script, uint64_t run, struct bb_slice from)
{
    cr_assert(bb_slice_equal(script_come_back(script, run, LIVES)->from, from));
}

Test(bus_places, a_resume_says_sequence_and_life)
{
    struct script script;
    struct bb_event events[2];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    deliver_4_to_6(&script);
    script_receive_all(sub, events, 2);
    expect_resume(&script, 7,
                  AFTER("\x81\xa1"
                        "a\x92\x06\x09"));
    /* It goes on in another life of the channel, and nobody is told anything else. */
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x06\x0a"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x06\x07"),
                   7, 1);
    script_receive_all(sub, events, 1);
    expect_event(&events[0], 7);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x07\x0a"));
    script_finish(&script, bus);
}

Test(bus_places, a_range_or_a_gap_may_bring_a_life)
{
    struct script script;
    struct bb_event events[2];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x94\xa1"
                      "a\x00\x01\x05"),
                   1, 1);
    script_receive_all(sub, events, 1);
    expect_resume(&script, 7,
                  AFTER("\x81\xa1"
                        "a\x92\x01\x05"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x01\x05"));
    script_gaps(&script, MP("\x91\x96\xa1"
                            "a\x02\x03\x02\xa8"
                            "overflow\x06"));
    script_receive_all(sub, events, 1);
    expect_resume(&script, 7,
                  AFTER("\x81\xa1"
                        "a\x92\x03\x06"));
    script_finish(&script, bus);
}

Test(bus_places, a_channel_that_is_over_stays_so_at_each_resume)
{
    struct script script;
    struct bb_event events[4];
    bb_bus *bus = open_with_lives(&script);
    struct bb_subscribe_options options = script_to_all();
    options.until = BB_UNTIL_SEQUENCE;
    options.until_value = 8;
    bb_subscription *sub = script_subscribe(bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x04\x09"));
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x05\xc0\xc0\xa7"
                            "restart"));
    script_receive_all(sub, events, 1);
    expect_gap(&events[0], 5, BB_UNKNOWN, "restart");
    for (int i = 0; i < 2; i++) {
        expect_resume(&script, 7,
                      AFTER("\x81\xa1"
                            "a\x92\x04\x09"));
        script_subscribed(&script, MP("\x91\x93\xa1"
                                      "a\x00\x0b"));
        script_gaps(&script, MP("\x91\x96\xa1"
                                "a\x05\xc0\xc0\xa7"
                                "restart\x0b"));
    }
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "b\x00\x01"),
                   1, 1);
    script_receive_all(sub, events, 1);
    expect_event(&events[0], 1); /* the gap is not told again */
    script_finish(&script, bus);
}

Test(bus_places, a_restart_leaves_no_old_sequence_behind)
{
    struct script script;
    struct bb_event events[4];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x05\xc0\xc0\xa7"
                            "restart"));
    script_receive_all(sub, events, 1);
    expect_gap(&events[0], 5, BB_UNKNOWN, "restart");
    /* Removed, and not made again: it will begin at its beginning. */
    expect_resume(&script, 7, AFTER("\x80"));
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x94\xa1"
                      "a\x00\x02\x0b"),
                   1, 2);
    script_receive_all(sub, events, 2);
    expect_event(&events[0], 1);
    /* Removed and made again before the next event. */
    script_gaps(&script, MP("\x91\x96\xa1"
                            "a\x03\xc0\xc0\xa7"
                            "restart\x0c"));
    script_receive_all(sub, events, 1);
    expect_resume(&script, 7,
                  AFTER("\x81\xa1"
                        "a\x92\x00\x0c"));
    script_finish(&script, bus);
}

Test(bus_places, a_place_that_is_void_stays_until_the_gap_has_come)
{
    struct script script;
    struct bb_event events[4];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x04\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    /* It breaks again before the gap: who asked with the new life would never hear of the loss. */
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x04\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x05\xc0\xc0\xa7"
                            "restart"));
    script_receive_all(sub, events, 1);
    expect_gap(&events[0], 5, BB_UNKNOWN, "restart");
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x00\x0b"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    script_receive_all(sub, events, 1);
    expect_event(&events[0], 1);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x01\x0b"));
    script_finish(&script, bus);
}

Test(bus_places, what_was_retracted_is_asked_for_again_in_its_new_life)
{
    struct script script;
    struct bb_event events[4];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    deliver_4_to_6(&script);
    script_receive_all(sub, events, 2);
    script_gaps(&script, MP("\x91\x96\xa1"
                            "a\x06\x06\x01\xa9"
                            "retracted\x0d"));
    script_receive_all(sub, events, 1);
    expect_gap(&events[0], 6, 6, "retracted");
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x05\x0d"));
    /* The same while nobody was connected: what 5 was is not there either. */
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x04\x0e"));
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x05\x05\xc0\xa9"
                            "retracted"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x04\x05"),
                   5, 1);
    script_receive_all(sub, events, 1);
    expect_gap(&events[0], 5, 5, "retracted");
    script_receive_all(sub, events, 1);
    expect_event(&events[0], 5);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x05\x0e"));
    script_finish(&script, bus);
}

Test(bus_places, a_hole_after_a_resume_is_a_gap)
{
    struct script script;
    struct bb_event events[2];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x04\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x06\x09"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x06\x07"),
                   7, 1);
    script_receive_all(sub, events, 2);
    expect_gap(&events[0], 5, 6, "transport");
    expect_event(&events[1], 7);
    /* One of a single event. */
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x08\x09"),
                   9, 1);
    script_receive_all(sub, events, 2);
    expect_gap(&events[0], 8, 8, "transport");
    expect_event(&events[1], 9);
    script_finish(&script, bus);
}

Test(bus_places, a_broker_that_goes_back_without_a_gap_has_lost_what_was_there)
{
    struct script script;
    struct bb_event events[2];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x04\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x02\x0b"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x02\x03"),
                   3, 1);
    script_receive_all(sub, events, 2);
    expect_gap(&events[0], 5, BB_UNKNOWN, "restart");
    expect_event(&events[1], 3);
    /* The same on one connection. */
    script_deliver(&script,
                   MP("\x91\x94\xa1"
                      "a\x00\x01\x0c"),
                   1, 1);
    script_receive_all(sub, events, 2);
    expect_gap(&events[0], 4, BB_UNKNOWN, "restart");
    expect_event(&events[1], 1);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x01\x0c"));
    script_finish(&script, bus);
}

Test(bus_places, only_the_last_answer_counts)
{
    struct script script;
    struct bb_event events[2];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, NULL);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x04\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x04\x09"));
    /* Then the channel is removed, so it is not named any more, and nobody says that its place is void. */
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x04\x09"));
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    script_receive_all(sub, events, 2);
    expect_gap(&events[0], 5, BB_UNKNOWN, "restart");
    expect_event(&events[1], 1);
    script_finish(&script, bus);
}

Test(bus_places, a_place_without_a_life_is_judged_by_its_run)
{
    struct script script;
    struct bb_event events[2];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x01"));
    /* The broker that comes back knows lives. */
    expect_resume(&script, 8,
                  MP("\x82\xa3run\x07\xa5"
                     "after\x81\xa1"
                     "a\x01"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x01\x09"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x01\x02"),
                   2, 1);
    script_receive_all(sub, events, 1);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x02\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x02\x09"));
    /* And the one after that does not. */
    cr_assert(bb_slice_equal(script_come_back(&script, 9, LOG)->from, MP("\x82\xa3run\x08\xa5"
                                                                         "after\x81\xa1"
                                                                         "a\x02")));
    script_finish(&script, bus);
}

Test(bus_places, ends_go_back_as_they_came)
{
    struct script script;
    struct bb_subscribe_options options = script_to_all();
    options.until = BB_UNTIL_NOW;
    options.from = BB_FROM_OLDEST;
    bb_bus *bus = open_with_lives(&script);
    (void)script_subscribe(bus, options);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_expect(bb_slice_equal(msg->from, MP("\xa6oldest")));
    struct bb_msg answer = {.type = BB_MSG_SUBSCRIBED,
                            .corr = msg->corr,
                            .sub = 1,
                            .positions = MP("\x91\x93\xa1"
                                            "a\x02\x09"),
                            .ends = MP("\x81\xa1"
                                       "a\x92\x07\x09")};
    script_send(&script, &answer);
    for (int i = 0; i < 2; i++) {
        msg = script_come_back(&script, 8, LIVES);
        cr_assert(script_holds(msg->options, MP("\xa5until\x81\xa4last\x81\xa1"
                                                "a\x92\x07\x09")));
        answer.corr = msg->corr;
        answer.ends = (struct bb_slice){0}; /* what now was still holds */
        script_send(&script, &answer);
    }
    script_finish(&script, bus);
}

/* --- cursors ---------------------------------------------------------------------------------------- */

static void expect_saved(struct script *script, struct bb_slice positions)
{
    const struct bb_msg *msg = script_expect(script, BB_MSG_CURSOR);
    cr_assert(bb_slice_equal(msg->positions, positions));
    script_send(script, &(struct bb_msg){.type = BB_MSG_RESULT, .corr = msg->corr, .value = MP("\xc0")});
}

static void expect_save(struct script *script, bb_subscription *sub, struct bb_slice positions)
{
    cr_assert_eq(bb_subscription_save(sub, 0), 0);
    expect_saved(script, positions);
}

/* Returns when the client has taken what was sent before. */
static void wait_taken(struct script *script)
{
    script_send(script, &(struct bb_msg){.type = BB_MSG_PING, .token = 1});
    (void)script_expect(script, BB_MSG_PONG);
}

static void receive_one(bb_subscription *sub, struct bb_event *event)
{
    cr_assert_eq(bb_receive(sub, event, 1, PATIENCE_MS), 1);
}

Test(bus_places, a_cursor_is_saved_with_lives_and_follows_a_restart)
{
    struct script script;
    struct bb_event event;
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, "mine");
    deliver_4_to_6(&script);
    script_gaps(&script, MP("\x91\x96\xa1"
                            "a\x07\xc0\xc0\xa7"
                            "restart\x0b"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x02"),
                   1, 2);
    wait_taken(&script);
    receive_one(sub, &event);
    expect_event(&event, 5);
    /* What was given of the message that is read in part, though what came is of another life. */
    expect_save(&script, sub,
                MP("\x91\x93\xa1"
                   "a\x05\x09"));
    receive_one(sub, &event);
    expect_event(&event, 6);
    receive_one(sub, &event);
    expect_gap(&event, 7, BB_UNKNOWN, "restart");
    expect_save(&script, sub,
                MP("\x91\x93\xa1"
                   "a\x06\x09"));
    receive_one(sub, &event);
    expect_event(&event, 1);
    expect_save(&script, sub,
                MP("\x91\x93\xa1"
                   "a\x01\x0b"));
    script_finish(&script, bus);
}

Test(bus_places, a_cursor_does_not_move_into_the_gaps_of_a_message_that_is_read_in_part)
{
    struct script script;
    struct bb_event events[2];
    struct bb_buf body = BB_BUF_INIT;
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, "mine");
    script_write_block(&body, 6, 1);
    script_write_block(&body, 9, 1);
    script_send_body(&script,
                     &(struct bb_msg){.type = BB_MSG_DELIVER,
                                      .sub = 1,
                                      .ranges = MP("\x91\x93\xa1"
                                                   "a\x09\x09"),
                                      .gaps = MP("\x91\x95\xa1"
                                                 "a\x05\x09\x03\xa9"
                                                 "conflated")},
                     bb_buf_slice(&body));
    bb_buf_fini(&body);
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), 2);
    expect_gap(&events[0], 5, 9, "conflated");
    expect_event(&events[1], 6);
    cr_assert_eq(bb_subscription_save(sub, 0), 0); /* nothing was worked off: nothing is said */
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), 1);
    expect_save(&script, sub,
                MP("\x91\x93\xa1"
                   "a\x09\x09"));
    script_finish(&script, bus);
}

/* Events 5 and 6 are worked off. */
static void work_off_5_and_6(struct script *script, bb_subscription *sub)
{
    struct bb_event events[2];
    deliver_4_to_6(script);
    for (size_t n = 0; n < 2;) {
        int r = bb_receive(sub, events, 2, PATIENCE_MS);
        cr_assert_gt(r, 0);
        n += (size_t)r;
    }
    cr_assert_eq(bb_receive(sub, events, 1, 0), BB_ETIMEOUT);
}

Test(bus_places, a_cursor_does_not_pass_a_gap_that_was_not_given_because_the_connection_broke)
{
    struct script script;
    struct bb_event event;
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, "mine");
    work_off_5_and_6(&script, sub);
    expect_saved(&script, MP("\x91\x93\xa1"
                             "a\x06\x09")); /* by the clock */
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x07\x08\x02\xa8"
                            "overflow"));
    expect_resume(&script, 7,
                  AFTER("\x81\xa1"
                        "a\x92\x08\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x08\x09"));
    expect_saved(&script, MP("\x91\x93\xa1"
                             "a\x06\x09"));
    receive_one(sub, &event);
    expect_gap(&event, 7, 8, "overflow");
    script_finish(&script, bus);
}

Test(bus_places, a_cursor_does_not_move_before_the_gap_of_a_resume_was_given)
{
    struct script script;
    struct bb_event events[4];
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, "mine");
    work_off_5_and_6(&script, sub);
    expect_saved(&script, MP("\x91\x93\xa1"
                             "a\x06\x09"));
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x06\x09"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    expect_saved(&script, MP("\x91\x93\xa1"
                             "a\x06\x09"));
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x07\xc0\xc0\xa7"
                            "restart"));
    cr_assert_eq(bb_receive(sub, events, 4, PATIENCE_MS), 1);
    expect_gap(&events[0], 7, BB_UNKNOWN, "restart");
    expect_save(&script, sub,
                MP("\x91\x93\xa1"
                   "a\x00\x0b"));
    script_finish(&script, bus);
}

/* In both something is unread, so that the answer to `subscribe` saves nothing. */
Test(bus_places, a_cursor_that_a_broker_that_ends_does_not_save_is_saved_by_the_next)
{
    struct script script;
    bb_bus *bus = open_with_lives(&script);
    work_off_5_and_6(&script, subscribe_at_4(&script, bus, "mine"));
    const struct bb_msg *msg = script_expect(&script, BB_MSG_CURSOR);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_ERROR,
                                          .about = BB_MSG_CURSOR,
                                          .corr = msg->corr,
                                          .code = bb_slice_str("shutting_down"),
                                          .text = bb_slice_str("a sentence")});
    deliver_4_to_6(&script);
    wait_taken(&script);
    (void)script_come_back(&script, 8, LIVES);
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x06\x09"));
    expect_saved(&script, MP("\x91\x93\xa1"
                             "a\x06\x09"));
    script_finish(&script, bus);
}

Test(bus_places, a_cursor_that_was_on_its_way_when_the_connection_broke_is_sent_again)
{
    struct script script;
    bb_bus *bus = open_with_lives(&script);
    work_off_5_and_6(&script, subscribe_at_4(&script, bus, "mine"));
    (void)script_expect(&script, BB_MSG_CURSOR); /* which is not answered */
    deliver_4_to_6(&script);
    wait_taken(&script);
    (void)script_come_back(&script, 7, LIVES);
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x06\x09"));
    expect_saved(&script, MP("\x91\x93\xa1"
                             "a\x06\x09"));
    script_finish(&script, bus);
}

/* A subscription whose cursor was void, and the gap that says so. */
static bb_subscription *subscribe_at_a_void_cursor(struct script *script, bb_bus *bus)
{
    struct bb_subscribe_options options = script_to_all();
    options.durable = "mine";
    bb_subscription *sub = script_subscribe(bus, options);
    (void)script_expect(script, BB_MSG_SUBSCRIBE);
    script_subscribed(script, MP("\x91\x93\xa1"
                                 "a\x00\x0b"));
    script_gaps(script, MP("\x91\x96\xa1"
                           "a\x05\xc0\xc0\xa7"
                           "restart\x0b"));
    wait_taken(script);
    return sub;
}

Test(bus_places, a_void_cursor_stays_until_the_gap_that_says_so_was_read)
{
    struct script script;
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_a_void_cursor(&script, bus);
    cr_assert_eq(bb_subscription_save(sub, 0), 0);
    cr_assert_eq(bb_unsubscribe(sub, 0), 0);
    (void)script_expect(&script, BB_MSG_UNSUBSCRIBE); /* and nothing was saved */
    script_finish(&script, bus);
}

Test(bus_places, a_void_cursor_stays_when_the_connection_breaks_before_the_gap_was_read)
{
    struct script script;
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_a_void_cursor(&script, bus);
    expect_resume(&script, 7,
                  AFTER("\x81\xa1"
                        "a\x92\x00\x0b"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    wait_taken(&script);
    cr_assert_eq(bb_unsubscribe(sub, 0), 0);
    (void)script_expect(&script, BB_MSG_UNSUBSCRIBE);
    script_finish(&script, bus);
}

Test(bus_places, who_has_got_nothing_begins_at_the_cursor_again_in_the_same_run)
{
    struct script script;
    struct bb_event event;
    bb_bus *bus = open_with_lives(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus, "mine");
    expect_resume(&script, 7, MP("\xa3new"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    expect_resume(&script, 8, /* which may not have it */
                  AFTER("\x81\xa1"
                        "a\x92\x00\x0b"));
    script_subscribed(&script, MP("\x91\x93\xa1"
                                  "a\x00\x0b"));
    script_gaps(&script, MP("\x91\x95\xa1"
                            "a\x01\x02\x02\xa7"
                            "trimmed"));
    wait_taken(&script);
    expect_resume(&script, 8,
                  AFTER("\x81\xa1"
                        "a\x92\x02\x0b"));
    receive_one(sub, &event);
    expect_gap(&event, 1, 2, "trimmed");
    script_finish(&script, bus);
}

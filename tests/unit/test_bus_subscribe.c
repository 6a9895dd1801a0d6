/* SPDX-License-Identifier: Apache-2.0 */
/* Receiving by call: events, gaps, credit, and how a subscription resumes. */
#include "proto/wire/mp.h"

#include "tests/unit/script.h"

#include <criterion/criterion.h>
#include <stdlib.h>

Test(bus_subscribe, receives_events_with_all_that_is_known_of_them)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x04"));
    script_deliver(&script,
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
    script_finish(&script, bus);
}

Test(bus_subscribe, a_message_may_be_cut_into_frames_anywhere)
{
    struct script script;
    struct bb_event events[8];
    struct bb_buf bytes = BB_BUF_INIT;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
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
        script_write_block(&bytes, sequence, 2);
        script_write_block(&bytes, sequence + 2, 2);
        if (cut + 3 >= bytes.len) {
            break;
        }
        script_send_frames(&script, bb_slice(bytes.data, cut), bb_slice(bytes.data + cut, 3),
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
    script_finish(&script, bus);
}

Test(bus_subscribe, a_hole_between_ranges_is_a_gap)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
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
    script_finish(&script, bus);
}

Test(bus_subscribe, bytes_that_cannot_be_followed_are_a_gap)
{
    struct script script;
    struct bb_event events[8];
    struct bb_subscription_counts counts;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_send_body(&script,
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
    script_finish(&script, bus);
}

Test(bus_subscribe, a_gap_of_the_broker_is_passed_on_and_moves_the_position)
{
    struct script script;
    struct bb_event events[8];
    struct bb_subscription_counts counts;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_send(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                          .sub = 1,
                                          .gaps = MP("\x91\x95\xa1"
                                                     "a\x01\x09\x09\xa8overflow")});
    script_deliver(&script,
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
    script_finish(&script, bus);
}

static void expect_position(bb_subscription *sub, uint64_t sequence)
{
    struct bb_position *positions = NULL;
    size_t n = 0;
    cr_assert_eq(bb_subscription_positions(sub, &positions, &n), 0);
    cr_assert_eq(n, 1);
    cr_expect_eq(positions[0].sequence, sequence);
    free(positions);
}

static bb_subscription *subscribe_at_4(struct script *script, bb_bus *bus)
{
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(script, BB_MSG_SUBSCRIBE);
    script_subscribed(script, MP("\x91\x92\xa1"
                                 "a\x04"));
    return sub;
}

Test(bus_subscribe, the_gaps_of_a_message_come_before_its_events_which_may_lie_inside_them)
{
    struct script script;
    struct bb_event events[4];
    struct bb_subscription_counts counts;
    struct bb_buf body = BB_BUF_INIT;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus);
    script_write_block(&body, 6, 1);
    script_write_block(&body, 9, 2);
    script_send_body(&script,
                     &(struct bb_msg){.type = BB_MSG_DELIVER,
                                      .sub = 1,
                                      .ranges = MP("\x91\x93\xa1"
                                                   "a\x0a\x0a"),
                                      .gaps = MP("\x91\x95\xa1"
                                                 "a\x05\x0a\x03\xa9"
                                                 "conflated")},
                     bb_buf_slice(&body));
    bb_buf_fini(&body);
    script_receive_all(sub, events, 4);
    cr_assert_not_null(events[0].gap);
    cr_expect_eq(events[0].gap->from, 5);
    cr_expect_eq(events[0].gap->to, 10);
    cr_expect_eq(events[0].gap->count, 3);
    cr_expect_str_eq(events[0].gap->reason, "conflated");
    static const uint64_t sequences[] = {0, 6, 9, 10};
    for (size_t i = 1; i < 4; i++) {
        cr_assert_null(events[i].gap);
        cr_expect_eq(events[i].sequence, sequences[i]);
    }
    expect_position(sub, 10);
    bb_subscription_get_counts(sub, &counts);
    cr_expect_eq(counts.gaps, 1);
    cr_expect_eq(counts.lost, 3);
    script_finish(&script, bus);
}

Test(bus_subscribe, the_ranges_of_a_message_join_its_gaps)
{
    struct script script;
    struct bb_event events[4];
    struct bb_buf body = BB_BUF_INIT;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus);
    script_write_block(&body, 9, 1);
    script_send_body(&script,
                     &(struct bb_msg){.type = BB_MSG_DELIVER,
                                      .sub = 1,
                                      .ranges = MP("\x91\x93\xa1"
                                                   "a\x08\x09"),
                                      .gaps = MP("\x92\x95\xa1"
                                                 "a\x05\x06\x02\xa8overflow\x95\xa1"
                                                 "a\x07\x08\x01\xae"
                                                 "dropped_oldest")},
                     bb_buf_slice(&body));
    script_receive_all(sub, events, 3);
    cr_assert_not_null(events[0].gap);
    cr_expect_eq(events[0].gap->to, 6);
    cr_assert_not_null(events[1].gap);
    cr_expect_eq(events[1].gap->from, 7);
    cr_expect_null(events[2].gap, "there is no hole behind the gaps");
    cr_expect_eq(events[2].sequence, 9);
    /* The field may also be nil. */
    bb_buf_reset(&body);
    script_write_block(&body, 10, 1);
    script_send_body(&script,
                     &(struct bb_msg){.type = BB_MSG_DELIVER,
                                      .sub = 1,
                                      .ranges = MP("\x91\x93\xa1"
                                                   "a\x09\x0a"),
                                      .gaps = MP("\xc0")},
                     bb_buf_slice(&body));
    bb_buf_fini(&body);
    script_receive_all(sub, events, 1);
    cr_expect_null(events[0].gap);
    cr_expect_eq(events[0].sequence, 10);
    script_finish(&script, bus);
}

Test(bus_subscribe, what_lies_inside_the_gaps_of_an_unreadable_message_is_lost_too)
{
    struct script script;
    struct bb_event events[4];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus);
    script_send_body(&script,
                     &(struct bb_msg){.type = BB_MSG_DELIVER,
                                      .sub = 1,
                                      .ranges = MP("\x91\x93\xa1"
                                                   "a\x09\x0a"),
                                      .gaps = MP("\x91\x95\xa1"
                                                 "a\x06\x09\x01\xa9"
                                                 "conflated")},
                     MP("\x97\x01\x01\x01\x06\x01\x03\x02\xc1\xc1"));
    script_receive_all(sub, events, 4);
    static const struct bb_gap gaps[] = {
        {"a", 5, 5, BB_UNKNOWN, "transport"}, /* the hole before the gap */
        {"a", 6, 9, 1, "conflated"},
        {"a", 6, 9, BB_UNKNOWN, "transport"},
        {"a", 10, 10, BB_UNKNOWN, "transport"},
    };
    for (size_t i = 0; i < 4; i++) {
        cr_assert_not_null(events[i].gap);
        cr_expect_eq(events[i].gap->from, gaps[i].from);
        cr_expect_eq(events[i].gap->to, gaps[i].to);
        cr_expect_eq(events[i].gap->count, gaps[i].count);
        cr_expect_str_eq(events[i].gap->reason, gaps[i].reason);
    }
    script_finish(&script, bus);
}

Test(bus_subscribe, several_gaps_of_one_message_come_in_its_order)
{
    struct script script;
    struct bb_event events[4];
    struct bb_subscription_counts counts;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                          .sub = 1,
                                          .gaps = MP("\x94\x95\xa1"
                                                     "b\x01\x02\x02\xa8overflow\x95\xa1"
                                                     "a\x05\x07\xc0\xa7trimmed\x95\xa1"
                                                     "a\x08\x09\x01\xa8overflow\x95\xa1"
                                                     "c\x63\xc0\xc0\xa7restart")});
    script_receive_all(sub, events, 4);
    static const struct bb_gap gaps[] = {
        {"b", 1, 2, 2, "overflow"},
        {"a", 5, 7, BB_UNKNOWN, "trimmed"},
        {"a", 8, 9, 1, "overflow"},
        {"c", 99, BB_UNKNOWN, BB_UNKNOWN, "restart"},
    };
    for (size_t i = 0; i < 4; i++) {
        cr_assert_not_null(events[i].gap);
        cr_expect_str_eq(events[i].gap->channel, gaps[i].channel);
        cr_expect_eq(events[i].gap->from, gaps[i].from);
        cr_expect_eq(events[i].gap->to, gaps[i].to);
        cr_expect_eq(events[i].gap->count, gaps[i].count);
        cr_expect_str_eq(events[i].gap->reason, gaps[i].reason);
    }
    bb_subscription_get_counts(sub, &counts);
    cr_expect_eq(counts.gaps, 4);
    cr_expect_eq(counts.lost, 3);
    script_finish(&script, bus);
}

Test(bus_subscribe, a_message_that_is_wrong_at_its_end_moves_nothing)
{
    struct script script;
    struct bb_event event;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = subscribe_at_4(&script, bus);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_DELIVER,
                                          .sub = 1,
                                          .ranges = MP("\x92\x93\xa1"
                                                       "a\x09\x0a\x07"),
                                          .gaps = MP("\x91\x95\xa1"
                                                     "a\x05\x09\x05\xa8overflow")});
    (void)script_expect(&script, BB_MSG_HELLO);
    expect_position(sub, 4);
    script_welcome(&script, 7, 0);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_assert(bb_slice_equal(msg->from, MP("\x82\xa3run\x07\xa5"
                                           "after\x81\xa1"
                                           "a\x04")));
    cr_assert_eq(bb_receive(sub, &event, 1, 0), BB_ETIMEOUT);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x04"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x04\x05"),
                   5, 1);
    cr_assert_eq(bb_receive(sub, &event, 1, PATIENCE_MS), 1);
    expect_position(sub, 5);
    script_finish(&script, bus);
}

Test(bus_subscribe, after_a_break_a_subscription_resumes_after_what_it_saw)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_assert(bb_slice_equal(msg->from, MP("\xa3new")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x04"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x04\x06"),
                   5, 2);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 2);
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_assert(bb_slice_equal(msg->from, MP("\x82\xa3run\x07\xa5"
                                           "after\x81\xa1"
                                           "a\x06")));
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x06"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x06\x07"),
                   7, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    cr_expect_null(events[0].gap);
    cr_expect_eq(events[0].sequence, 7);
    script_finish(&script, bus);
}

Test(bus_subscribe, after_a_restart_of_the_broker_its_new_sequences_count)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x32"));
    script_goodbye(&script);
    (void)script_expect(&script, BB_MSG_HELLO);
    script_welcome(&script, 8, 0);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_send(&script, &(struct bb_msg){.type = BB_MSG_GAP,
                                          .sub = 1,
                                          .gaps = MP("\x91\x95\xa1"
                                                     "a\x33\xc0\xc0\xa7restart")});
    script_deliver(&script,
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
    script_finish(&script, bus);
}

Test(bus_subscribe, credit_is_granted_when_half_of_the_window_is_read)
{
    struct script script;
    struct bb_event events[8];
    struct bb_subscribe_options options = script_to_all();
    options.window_events = 4;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, options);
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x01"),
                   1, 1);
    cr_assert_eq(bb_receive(sub, events, 8, PATIENCE_MS), 1);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x01\x02"),
                   2, 1);
    cr_assert_eq(bb_receive(sub, events, 1, PATIENCE_MS), 1, "as many as there is room for");
    cr_assert_eq(bb_receive(sub, events, 8, 0), BB_ETIMEOUT);
    const struct bb_msg *credit = script_expect(&script, BB_MSG_CREDIT);
    cr_assert_eq(credit->sub, 1);
    cr_assert_eq(credit->events, 6);
    cr_assert_gt(credit->bytes, options.window_bytes);
    script_finish(&script, bus);
}

/* The number of @name in the options of a subscribe. */
static uint64_t option_of(struct bb_slice options, const char *name)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str(name))) {
            return bb_mp_read_uint(&reader);
        }
        bb_mp_skip(&reader);
    }
    cr_assert_fail("there is no %s", name);
    return 0;
}

Test(bus_subscribe, credit_of_a_new_connection_leaves_room_for_what_is_unread_of_the_old_one)
{
    struct script script;
    struct bb_event events[8];
    struct bb_buf body = BB_BUF_INIT;
    struct bb_subscribe_options options = script_to_all();
    options.window_events = 4;
    options.window_bytes = 1000;
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, options);
    const struct bb_msg *msg = script_expect(&script, BB_MSG_SUBSCRIBE);
    cr_expect_eq(option_of(msg->options, "bytes"), 1000);
    cr_expect_eq(option_of(msg->options, "events"), 4);
    script_subscribed(&script, MP("\x90"));
    script_write_block(&body, 1, 2);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x02"),
                   1, 2);
    msg = script_come_back(&script, 7, NO_FEATURES);
    cr_expect_eq(option_of(msg->options, "bytes"), 1000 - body.len);
    cr_expect_eq(option_of(msg->options, "events"), 4);
    bb_buf_fini(&body);
    script_subscribed(&script, MP("\x91\x92\xa1"
                                  "a\x02"));
    /* Nothing of this connection is read with these, so they are no reason for more. */
    script_receive_all(sub, events, 2);
    cr_assert_eq(bb_receive(sub, events, 8, 0), BB_ETIMEOUT);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_PING, .token = 1});
    (void)script_expect(&script, BB_MSG_PONG);
    script_finish(&script, bus);
}

Test(bus_subscribe, receiving_without_waiting_takes_what_came_behind_a_message_that_was_read_to_its_end)
{
    struct script script;
    struct bb_event events[8];
    bb_bus *bus = script_open_ready(&script);
    bb_subscription *sub = script_subscribe(bus, script_to_all());
    (void)script_expect(&script, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x00\x02"),
                   1, 2);
    cr_assert_eq(bb_receive(sub, events, 2, PATIENCE_MS), 2);
    script_deliver(&script,
                   MP("\x91\x93\xa1"
                      "a\x02\x03"),
                   3, 1);
    script_send(&script, &(struct bb_msg){.type = BB_MSG_PING, .token = 1});
    (void)script_expect(&script, BB_MSG_PONG);
    cr_assert_eq(bb_receive(sub, events, 8, 0), 1);
    cr_expect_eq(events[0].sequence, 3);
    cr_assert_eq(bb_receive(sub, events, 8, 0), BB_ETIMEOUT);
    script_finish(&script, bus);
}

#define N_EMPTY        500
#define EMPTY_PER_STEP 64

static uint64_t position_of(bb_subscription *sub)
{
    struct bb_position *positions = NULL;
    size_t n = 0;
    int r = bb_subscription_positions(sub, &positions, &n);
    uint64_t sequence = r == 0 && n == 1 ? positions[0].sequence : 0;
    free(positions);
    return sequence;
}

static void step_until_expected(struct script *script, bb_bus *bus, enum bb_msg_type type)
{
    zmq_pollitem_t item = {.socket = script->router, .events = ZMQ_POLLIN};
    while (zmq_poll(&item, 1, 1) == 0) {
        cr_assert_eq(bb_bus_step(bus), 0);
    }
    (void)script_expect(script, type);
}

Test(bus_subscribe, receiving_without_waiting_takes_one_step_though_messages_without_events_keep_coming)
{
    struct script script;
    struct bb_event event;
    struct bb_options embedded = BB_OPTIONS_INIT;
    struct bb_subscribe_options options = script_to_all();
    options.durable = "mine"; /* so that these are kept */
    embedded.embedded = true;
    bb_bus *bus = script_open_bus(&script, embedded);
    step_until_expected(&script, bus, BB_MSG_HELLO);
    script_welcome(&script, 7, 0);
    bb_subscription *sub = script_subscribe(bus, options);
    step_until_expected(&script, bus, BB_MSG_SUBSCRIBE);
    script_subscribed(&script, MP("\x90"));
    for (uint64_t i = 0; i < N_EMPTY; i++) {
        struct bb_buf ranges = BB_BUF_INIT;
        bb_mp_write_array(&ranges, 1);
        bb_mp_write_array(&ranges, 3);
        bb_mp_write_str(&ranges, bb_slice_str("a"));
        bb_mp_write_uint(&ranges, i);
        bb_mp_write_uint(&ranges, i + 1);
        script_send(&script,
                    &(struct bb_msg){.type = BB_MSG_DELIVER, .sub = 1, .ranges = bb_buf_slice(&ranges)});
        bb_buf_fini(&ranges);
    }
    for (uint64_t before = 0; before < N_EMPTY;) {
        cr_assert_eq(bb_receive(sub, &event, 1, 0), BB_ETIMEOUT);
        uint64_t after = position_of(sub);
        cr_assert_leq(after - before, EMPTY_PER_STEP);
        before = after;
    }
    script_finish(&script, bus);
}

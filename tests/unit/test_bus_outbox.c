/* SPDX-License-Identifier: Apache-2.0 */
/* The queue of what is published and not acknowledged. */
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "bus/outbox.h"

#include <criterion/criterion.h>

#define BATCH 1024

static void publish_for(struct bb_outbox *outbox, size_t len, const struct bb_tracked *tracked)
{
    uint8_t *to;
    cr_assert_eq(bb_outbox_room(outbox, len, 0, (struct bb_slice){0}, &to), 0);
    cr_assert(tracked == NULL || bb_batch_track(outbox->open) == 0);
    memset(to, 'x', len);
    bb_outbox_commit(outbox, len, BB_LEVEL_NONE, tracked);
}

static void publish(struct bb_outbox *outbox, size_t len)
{
    publish_for(outbox, len, NULL);
}

static void publish_at(struct bb_outbox *outbox, size_t len, enum bb_level level)
{
    uint8_t *to;
    cr_assert_eq(bb_outbox_room(outbox, len, level, (struct bb_slice){0}, &to), 0);
    memset(to, 'x', len);
    bb_outbox_commit(outbox, len, level, NULL);
}

static void publish_tracked(struct bb_outbox *outbox, size_t len)
{
    publish_for(outbox, len, &(struct bb_tracked){.ticket = outbox->n_published + 1});
}

/* Sends all that may be sent; how many batches that were. */
static int send_all(struct bb_outbox *outbox)
{
    int n = 0;
    while (bb_outbox_next(outbox) != NULL) {
        bb_outbox_sent(outbox);
        n++;
    }
    return n;
}

static void ack(struct bb_outbox *outbox, uint64_t number)
{
    struct bb_buf entry = BB_BUF_INIT;
    bb_mp_write_array(&entry, 4);
    bb_mp_write_uint(&entry, number);
    bb_mp_write_uint(&entry, 1);
    bb_mp_write_nil(&entry);
    bb_mp_write_array(&entry, 0);
    cr_assert_eq(bb_outbox_ack(outbox, bb_buf_slice(&entry)), 0);
    bb_buf_fini(&entry);
}

/* What is answered is one batch with @n events that someone waited for. */
static struct bb_batch *take_done(struct bb_outbox *outbox, uint32_t n)
{
    struct bb_batch *done = bb_outbox_take_done(outbox);
    cr_assert_not_null(done);
    cr_assert_null(done->next);
    cr_assert_eq(done->n_tracked, n);
    return done;
}

static void start(struct bb_outbox *outbox, size_t queue_bytes)
{
    bb_outbox_init(outbox, BATCH, queue_bytes, false);
}

Test(bus_outbox, a_lone_event_leaves_at_once)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish(&outbox, 10);
    struct bb_batch *batch = bb_outbox_next(&outbox);
    cr_assert_not_null(batch);
    cr_assert_eq(batch->number, 1);
    struct bb_msg msg;
    size_t len = BB_BATCH_HEAD_MAX - batch->start + batch->len;
    cr_assert_eq(bb_msg_decode(bb_slice(batch->bytes + batch->start, len), &msg), 0);
    cr_assert_eq(msg.type, BB_MSG_PUBLISH);
    cr_assert_eq(msg.number, 1);
    cr_assert_eq(msg.body.len, 10);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, collects_while_a_batch_is_unacknowledged_and_leaves_with_the_ack)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    for (int i = 0; i < 5; i++) {
        publish(&outbox, 10);
        cr_assert_eq(send_all(&outbox), 0);
    }
    ack(&outbox, 1);
    struct bb_batch *batch = bb_outbox_next(&outbox);
    cr_assert_not_null(batch);
    cr_assert_eq(batch->number, 2);
    cr_assert_eq(batch->count, 5);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, a_second_batch_leaves_half_full_and_a_third_only_when_full)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    publish(&outbox, BATCH / 2 - 1);
    cr_assert_eq(send_all(&outbox), 0);
    publish(&outbox, 1);
    cr_assert_eq(send_all(&outbox), 1);
    publish(&outbox, BATCH / 2);
    cr_assert_eq(send_all(&outbox), 0);
    publish(&outbox, BATCH); /* does not fit any more: what was open is full */
    cr_assert_eq(send_all(&outbox), 1);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, batches_that_wait_for_the_disk_leave_half_full_up_to_a_number)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish_at(&outbox, 10, BB_LEVEL_SYNCED);
    cr_assert_eq(send_all(&outbox), 1);
    for (int i = 1; i <= BB_EAGER_SYNCED; i++) {
        publish_at(&outbox, BATCH / 2 - 1, BB_LEVEL_SYNCED);
        cr_assert_eq(send_all(&outbox), 0);
        publish_at(&outbox, 1, BB_LEVEL_SYNCED);
        cr_assert_eq(send_all(&outbox), 1);
    }
    publish_at(&outbox, BATCH / 2, BB_LEVEL_SYNCED);
    cr_assert_eq(send_all(&outbox), 0);
    ack(&outbox, 1);
    cr_assert_eq(send_all(&outbox), 1, "it leaves with the next acknowledgement");
    publish_at(&outbox, BATCH / 2, BB_LEVEL_ROUTED);
    cr_assert_eq(send_all(&outbox), 0, "what need not be on disk waits for its turn");
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, an_event_that_was_not_written_leaves_no_options_to_the_next)
{
    struct bb_outbox outbox;
    uint8_t *to;
    start(&outbox, 65536);
    cr_assert_eq(bb_outbox_room(&outbox, 10, 0, bb_slice("\x80", 1), &to), 0);
    publish(&outbox, 10);
    cr_assert_eq(outbox.open->options_len, 0);
    cr_assert_eq(outbox.open->count, 1);
    cr_assert_eq(send_all(&outbox), 1);
    ack(&outbox, 1);
    cr_assert_eq(outbox.bytes, 0);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, full_batches_leave_though_none_is_acknowledged)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    for (int i = 0; i < 10; i++) {
        publish(&outbox, 600);
        (void)send_all(&outbox);
    }
    /* Two events do not fit one batch: all but the open one are gone. */
    cr_assert_eq(outbox.in_flight, 9);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, no_more_than_64_batches_are_in_flight)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    for (int i = 0; i < 100; i++) {
        publish(&outbox, 600);
        (void)send_all(&outbox);
    }
    cr_assert_eq(outbox.in_flight, 64);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, is_bounded_by_bytes_and_has_room_again_after_an_ack)
{
    struct bb_outbox outbox;
    uint8_t *to;
    start(&outbox, 4096);
    int n = 0;
    while (bb_outbox_room(&outbox, 600, 0, (struct bb_slice){0}, &to) == 0) {
        bb_outbox_commit(&outbox, 600, 0, NULL);
        (void)send_all(&outbox);
        n++;
    }
    cr_assert_geq(n, 3);
    cr_assert_leq(outbox.bytes, 4096);
    ack(&outbox, 1);
    cr_assert_eq(bb_outbox_room(&outbox, 600, 0, (struct bb_slice){0}, &to), 0);
    bb_outbox_fini(&outbox);
    cr_assert_eq(outbox.first, NULL);
}

Test(bus_outbox, an_event_larger_than_a_batch_is_a_batch_of_its_own)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    publish(&outbox, 5000);
    publish(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    cr_assert_eq(outbox.first->count, 1);
    cr_assert_eq(outbox.first->len, 5000);
    bb_outbox_fini(&outbox);
}

static uint64_t number_on_the_wire(struct bb_batch *batch)
{
    struct bb_msg msg;
    size_t len = BB_BATCH_HEAD_MAX - batch->start + batch->len;
    cr_assert_eq(bb_msg_decode(bb_slice(batch->bytes + batch->start, len), &msg), 0);
    return msg.number;
}

/* Sends what may be sent, which must be the batches @from to @to in this order. */
static void expect_numbers(struct bb_outbox *outbox, uint64_t from, uint64_t to)
{
    struct bb_batch *batch;
    while ((batch = bb_outbox_next(outbox)) != NULL) {
        cr_assert_eq(batch->number, from);
        cr_assert_eq(number_on_the_wire(batch), from);
        bb_outbox_sent(outbox);
        from++;
    }
    cr_assert_eq(from, to + 1);
}

/* @n batches of one event are sent, the event of batch i being 900 + i bytes long. */
static void send_batches(struct bb_outbox *outbox, size_t n)
{
    for (size_t i = 1; i <= n; i++) {
        publish(outbox, 900 + i);
        (void)send_all(outbox);
    }
    publish(outbox, 900); /* stays open; what was open before it leaves */
    (void)send_all(outbox);
    cr_assert_eq(outbox->in_flight, n);
}

Test(bus_outbox, after_a_reconnection_all_is_sent_again_in_order_under_the_same_numbers)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    send_batches(&outbox, 5);
    ack(&outbox, 1);
    for (int i = 0; i < 3; i++) {
        bb_outbox_resume(&outbox, 3, BB_MESSAGE_DEFAULT);
        cr_assert_eq(bb_outbox_answered(&outbox), 1);
        expect_numbers(&outbox, 2, 5);
        cr_assert_eq(outbox.first->len, 902);
        cr_assert_eq(outbox.in_flight, 4);
    }
    cr_assert_eq(outbox.repeated, 12);
    for (uint64_t number = 2; number <= 5; number++) {
        ack(&outbox, number);
    }
    expect_numbers(&outbox, 6, 6);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, what_was_answered_out_of_turn_leaves_no_hole_in_the_numbers)
{
    static const size_t lens[] = {901, 0, 903, 904, 905};
    for (uint64_t last = 0; last <= 3; last++) {
        struct bb_outbox outbox;
        start(&outbox, 1 << 20);
        send_batches(&outbox, 5);
        cr_assert_eq(bb_outbox_refuse(&outbox, 2, BB_ENOMEM), 0);
        bb_outbox_resume(&outbox, last, BB_MESSAGE_DEFAULT);
        for (uint64_t number = 1; number <= 5; number++) {
            struct bb_batch *batch = bb_outbox_next(&outbox);
            cr_assert_not_null(batch);
            /* What the broker has anyway need not be filled. */
            number += number == 2 && last >= 2;
            cr_assert_eq(number_on_the_wire(batch), number);
            cr_assert_eq(batch->len, lens[number - 1]);
            bb_outbox_sent(&outbox);
        }
        cr_assert_null(bb_outbox_next(&outbox));
        cr_assert_eq(outbox.in_flight, 4);
        ack(&outbox, 2);
        cr_assert_eq(outbox.in_flight, 4, "nobody waits for what filled the hole");
        bb_outbox_fini(&outbox);
    }
}

Test(bus_outbox, a_connection_begins_with_any_number)
{
    static const uint64_t lasts[] = {0, 1, 2, 4}; /* another broker, one that restarted, this one */
    for (size_t i = 0; i < BB_COUNT(lasts); i++) {
        struct bb_outbox outbox;
        start(&outbox, 1 << 20);
        send_batches(&outbox, 4);
        ack(&outbox, 1);
        ack(&outbox, 2);
        bb_outbox_resume(&outbox, lasts[i], BB_MESSAGE_DEFAULT);
        expect_numbers(&outbox, 3, 4);
        cr_assert_eq(outbox.first->len, 903);
        for (uint64_t number = 3; number <= 4; number++) {
            ack(&outbox, number);
        }
        expect_numbers(&outbox, 5, 5);
        bb_outbox_fini(&outbox);
    }
}

Test(bus_outbox, a_number_is_never_given_to_another_batch)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    send_batches(&outbox, 3);
    /* Another broker answers none of them, and then the first one is back, which had taken two. */
    bb_outbox_resume(&outbox, 0, BB_MESSAGE_DEFAULT);
    expect_numbers(&outbox, 1, 3);
    bb_outbox_resume(&outbox, 2, BB_MESSAGE_DEFAULT);
    expect_numbers(&outbox, 1, 3);
    for (uint64_t number = 1; number <= 3; number++) {
        ack(&outbox, number);
    }
    expect_numbers(&outbox, 4, 4);
    ack(&outbox, 4);
    bb_outbox_resume(&outbox, 0, BB_MESSAGE_DEFAULT);
    publish(&outbox, 10);
    expect_numbers(&outbox, 5, 5);
    ack(&outbox, 5);
    /* A broker that says it took more than was sent: those numbers are used up. */
    bb_outbox_resume(&outbox, 9, BB_MESSAGE_DEFAULT);
    publish(&outbox, 10);
    expect_numbers(&outbox, 10, 10);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, what_a_broker_that_ends_gives_back_stays_for_the_next_one)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    send_batches(&outbox, 3);
    cr_assert_eq(bb_outbox_refuse(&outbox, 2, BB_ESHUTDOWN), 0);
    cr_assert_eq(bb_outbox_refuse(&outbox, 3, BB_ESEQUENCE), 0, "2 was not taken, so 3 is out of sequence");
    ack(&outbox, 1);
    cr_assert_eq(outbox.refused, 0);
    publish(&outbox, BATCH);
    cr_assert_null(bb_outbox_next(&outbox), "nothing more is sent by this connection");
    bb_outbox_resume(&outbox, 1, BB_MESSAGE_DEFAULT);
    expect_numbers(&outbox, 2, 4);
    cr_assert_eq(outbox.first->len, 902);
    ack(&outbox, 2);
    cr_assert_eq(bb_outbox_take_refusal(&outbox), 0);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, what_was_given_back_and_never_sent_again_is_reported_with_the_reason)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    publish_tracked(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    cr_assert_eq(bb_outbox_refuse(&outbox, 1, BB_ESHUTDOWN), 0);
    bb_outbox_fail(&outbox, BB_ECLOSED);
    struct bb_batch *done = take_done(&outbox, 1);
    cr_assert_eq(done->tracked->error, BB_ESHUTDOWN);
    bb_batch_unref(done);
    /* And if it was sent again nobody knows. */
    publish_tracked(&outbox, 10);
    bb_outbox_resume(&outbox, 0, BB_MESSAGE_DEFAULT);
    cr_assert_eq(send_all(&outbox), 1);
    cr_assert_eq(bb_outbox_refuse(&outbox, 2, BB_ESHUTDOWN), 0);
    bb_outbox_resume(&outbox, 0, BB_MESSAGE_DEFAULT);
    expect_numbers(&outbox, 2, 2);
    bb_outbox_fail(&outbox, BB_ECLOSED);
    done = take_done(&outbox, 1);
    cr_assert_eq(done->tracked->error, BB_EUNKNOWNRESULT);
    bb_batch_unref(done);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, numbers_that_are_out_of_step_are_mended_by_a_new_connection)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    send_batches(&outbox, 3);
    ack(&outbox, 1);
    cr_assert_eq(bb_outbox_refuse(&outbox, 2, BB_ESEQUENCE), BB_ESEQUENCE);
    cr_assert_eq(outbox.refused, 0);
    bb_outbox_resume(&outbox, 0, BB_MESSAGE_DEFAULT);
    expect_numbers(&outbox, 2, 3);
    /* A broker that does not take the first one either will never take it. */
    cr_assert_eq(bb_outbox_refuse(&outbox, 2, BB_ESEQUENCE), 0);
    cr_assert_eq(outbox.refused, 1);
    cr_assert_eq(bb_outbox_take_refusal(&outbox), BB_ESEQUENCE);
    bb_outbox_fini(&outbox);
}

/* One event whose batch the broker took before the connection broke, and which is sent again. */
static void repeat_one(struct bb_outbox *outbox)
{
    start(outbox, 65536);
    publish_tracked(outbox, 10);
    cr_assert_eq(send_all(outbox), 1);
    bb_outbox_resume(outbox, 1, BB_MESSAGE_DEFAULT);
    cr_assert_null(bb_outbox_take_done(outbox), "that it was taken does not say what became of it");
    expect_numbers(outbox, 1, 1);
}

Test(bus_outbox, a_repetition_that_is_acknowledged_is_answered_as_repeated)
{
    struct bb_outbox outbox;
    repeat_one(&outbox);
    cr_assert_eq(bb_outbox_ack(&outbox, bb_slice("\x94\x01\x01\xc0\xc0", 5)), 0);
    struct bb_batch *done = take_done(&outbox, 1);
    struct bb_ack ack = bb_outbox_ack_of(done, done->tracked);
    cr_assert(ack.repeated);
    cr_assert_eq(ack.error, 0);
    cr_assert_eq(ack.sequence, BB_UNKNOWN);
    bb_batch_unref(done);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, a_repetition_that_is_refused_is_a_refusal)
{
    static const int errors[] = {BB_ENOMEM, BB_EUNKNOWNRESULT};
    for (size_t i = 0; i < 2; i++) {
        struct bb_outbox outbox;
        repeat_one(&outbox);
        cr_assert_eq(bb_outbox_refuse(&outbox, 1, errors[i]), 0);
        struct bb_batch *done = take_done(&outbox, 1);
        cr_assert_eq(done->tracked->error, errors[i]);
        cr_assert_eq(bb_outbox_take_refusal(&outbox), errors[i]);
        bb_batch_unref(done);
        bb_outbox_fini(&outbox);
    }
}

Test(bus_outbox, each_event_gets_its_sequence_or_its_refusal)
{
    static const uint64_t sequences[] = {7, BB_UNKNOWN, 8, 40};
    struct bb_outbox outbox;
    start(&outbox, 65536);
    for (int i = 0; i < 4; i++) {
        publish_tracked(&outbox, 10);
    }
    cr_assert_eq(send_all(&outbox), 1);
    /* [1, 2, 3, [["a", 7, 2], ["b", 40, 1]], [[1, "bad_path"]]] */
    static const char entry[] = "\x95\x01\x02\x03\x92\x93\xa1"
                                "a\x07\x02\x93\xa1"
                                "b\x28\x01\x91\x92\x01\xa8"
                                "bad_path";
    cr_assert_eq(bb_outbox_ack(&outbox, bb_slice(entry, sizeof(entry) - 1)), 0);
    struct bb_batch *done = take_done(&outbox, 4);
    for (uint32_t i = 0; i < 4; i++) {
        struct bb_ack ack = bb_outbox_ack_of(done, &done->tracked[i]);
        cr_assert_eq(done->tracked[i].index, i);
        cr_assert_eq(ack.ticket, i + 1);
        cr_assert_eq(ack.sequence, sequences[i]);
        cr_assert_eq(ack.error, i == 1 ? BB_EPATH : 0);
        cr_assert_eq(ack.matches, 3);
    }
    bb_batch_unref(done);
    cr_assert_eq(bb_outbox_take_refusal(&outbox), BB_EPATH);
    cr_assert_eq(bb_outbox_take_refusal(&outbox), 0);
    cr_assert_eq(outbox.refused, 1);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, malformed_entries_are_refused_and_unknown_numbers_ignored)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    cr_assert_eq(bb_outbox_ack(&outbox, bb_slice("\x93\x01\x01\xc0", 4)), BB_EMALFORMED);
    cr_assert_eq(bb_outbox_ack(&outbox, bb_slice("\x94\x01", 2)), BB_EMALFORMED);
    ack(&outbox, 77);
    cr_assert_eq(outbox.in_flight, 1);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, a_batch_refused_whole_is_a_refusal_of_each_event)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish(&outbox, 10);
    publish(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    cr_assert_eq(bb_outbox_refuse(&outbox, 1, BB_ENOMEM), 0);
    cr_assert_eq(outbox.refused, 2);
    cr_assert_eq(outbox.in_flight, 0);
    cr_assert_eq(bb_outbox_take_refusal(&outbox), BB_ENOMEM);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, drops_the_oldest_batch_that_was_never_sent)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    publish(&outbox, 900);
    cr_assert_eq(send_all(&outbox), 1);
    publish(&outbox, 901);
    publish(&outbox, 902);
    publish(&outbox, 903);
    cr_assert(bb_outbox_drop_oldest(&outbox));
    cr_assert_eq(outbox.first->len, 900);
    cr_assert_eq(outbox.first->next->len, 902);
    cr_assert_eq(outbox.dropped, 1);
    cr_assert_eq(outbox.refused, 0);
    cr_assert(bb_outbox_drop_oldest(&outbox));
    cr_assert_not(bb_outbox_drop_oldest(&outbox), "only the sent and the open batch are left");
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, batches_larger_than_the_broker_takes_are_refused_at_the_welcome)
{
    struct bb_outbox outbox;
    start(&outbox, 1 << 20);
    publish(&outbox, 9000);
    publish(&outbox, 10);
    (void)send_all(&outbox);
    bb_outbox_resume(&outbox, 0, 8192);
    cr_assert_eq(bb_outbox_take_refusal(&outbox), BB_ETOOBIG);
    cr_assert_eq(bb_outbox_answered(&outbox), 1);
    cr_assert_eq(bb_outbox_next(&outbox)->number, 2);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, at_the_end_everybody_is_told)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    publish_tracked(&outbox, 10);
    cr_assert_eq(send_all(&outbox), 1);
    publish_tracked(&outbox, 10);
    bb_outbox_fail(&outbox, BB_ECLOSED);
    struct bb_batch *done = bb_outbox_take_done(&outbox);
    struct bb_batch *next = done->next;
    cr_assert_eq(done->tracked->error, BB_EUNKNOWNRESULT);
    cr_assert_eq(next->tracked->error, BB_ECLOSED);
    bb_batches_unref(done);
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, many_events_of_one_batch_are_told_in_their_order)
{
    struct bb_outbox outbox;
    start(&outbox, 65536);
    for (int round = 0; round < 3; round++) { /* the second time the room is there already */
        for (int i = 0; i < 100; i++) {
            publish_for(&outbox, 5, i % 3 == 0 ? &(struct bb_tracked){.ticket = 1000 + (uint64_t)i} : NULL);
        }
        cr_assert_eq(send_all(&outbox), 1);
        ack(&outbox, (uint64_t)round + 1);
        struct bb_batch *done = take_done(&outbox, 34);
        for (uint32_t i = 0; i < 34; i++) {
            cr_assert_eq(done->tracked[i].index, 3 * i);
            cr_assert_eq(done->tracked[i].ticket, 1000 + 3 * i);
        }
        bb_batch_unref(done);
    }
    bb_outbox_fini(&outbox);
}

Test(bus_outbox, who_waits_is_told_at_once_unless_it_has_given_up)
{
    struct bb_outbox outbox;
    struct bb_waiter stays = {0};
    struct bb_waiter leaves = {0};
    start(&outbox, 65536);
    publish_for(&outbox, 10, &(struct bb_tracked){.waiter = &leaves, .ticket = 1});
    cr_assert_eq(send_all(&outbox), 1);
    publish_for(&outbox, 10, &(struct bb_tracked){.waiter = &stays, .ticket = 2});
    bb_outbox_forget(&outbox, &leaves);
    ack(&outbox, 1);
    cr_assert_eq(send_all(&outbox), 1);
    ack(&outbox, 2);
    cr_assert_not(leaves.is_done);
    cr_assert(stays.is_done);
    cr_assert_eq(stays.ack.ticket, 2);
    cr_assert_eq(stays.ack.level, 1);
    bb_outbox_fini(&outbox);
}

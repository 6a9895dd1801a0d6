/* SPDX-License-Identifier: Apache-2.0 */
/* Memory runs out in the library: the publisher is told, what was taken is sent, a connection ends rather than lie. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/delivery.h"
#include "bus/link.h"
#include "bus/outbox.h"
#include "tests/lib/fault.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS 40

/* Publish one event; whether it was taken. */
static bool publish(struct bb_outbox *outbox, size_t len)
{
    uint8_t *to = NULL;
    fault_enter();
    int r = bb_outbox_room(outbox, len, 0, (struct bb_slice){0}, &to);
    (void)fault_leave();
    if (r == 0) {
        memset(to, 'x', len);
        bb_outbox_commit(outbox, len, BB_LEVEL_NONE, NULL);
    } else {
        cr_assert_eq(r, BB_ENOMEM);
    }
    return r == 0;
}

/* Send what may be sent; how many events that were. */
static size_t send_all(struct bb_outbox *outbox)
{
    size_t n = 0;
    struct bb_batch *batch = NULL;
    for (;;) {
        fault_enter();
        batch = bb_outbox_next(outbox);
        (void)fault_leave();
        if (batch == NULL) {
            return n;
        }
        n += batch->count;
        bb_outbox_sent(outbox);
    }
}

static bool run_outbox(size_t nth, enum fault_mode mode)
{
    struct bb_outbox outbox;
    size_t n_taken = 0;
    size_t n_sent = 0;
    size_t live_before = fault_live();
    bb_outbox_init(&outbox, 1024, 1 << 20, false);
    fault_start(nth, mode);
    for (size_t i = 0; i < EVENTS; i++) {
        n_taken += publish(&outbox, i % 7 == 0 ? 3000 : 300);
        n_sent += send_all(&outbox);
    }
    bool failed = fault_stop();
    n_taken += publish(&outbox, 5000);
    n_sent += send_all(&outbox);
    for (uint64_t number = 1; number < outbox.next_number; number++) {
        cr_assert_eq(bb_outbox_refuse(&outbox, number, BB_EREFUSED), 0);
    }
    n_sent += send_all(&outbox);
    cr_assert_eq(n_sent, n_taken, "fault %zu", nth);
    cr_assert_eq(outbox.n_published, n_taken);
    cr_assert(failed ? n_taken <= EVENTS + 1 : n_taken == EVENTS + 1);
    bb_outbox_fini(&outbox);
    cr_assert_eq(fault_live(), live_before, "fault %zu leaks", nth);
    return failed;
}

Test(oom_bus, what_the_outbox_took_is_sent)
{
    for (enum fault_mode mode = FAULT_ONCE; mode <= FAULT_ONWARD; mode++) {
        size_t nth = 0;
        while (run_outbox(nth, mode)) {
            nth++;
        }
        cr_assert_gt(nth, 0);
    }
}

Test(oom_bus, a_gap_without_memory_is_an_error)
{
    for (size_t nth = 0; nth < 4; nth++) {
        struct bb_delivery delivery = {0};
        size_t live_before = fault_live();
        size_t n_added = 0;
        fault_start(nth, FAULT_ONCE);
        for (uint64_t i = 0; i < 3; i++) {
            fault_enter();
            int r = bb_delivery_add_gap(&delivery, bb_slice_str("plant"), i + 1, i + 1, 1,
                                        bb_slice_str("overflow"));
            (void)fault_leave();
            cr_assert(r == 0 || r == BB_ENOMEM);
            n_added += r == 0;
        }
        cr_assert_eq(n_added, fault_stop() ? 2 : 3);
        bb_delivery_fini(&delivery);
        cr_assert_eq(fault_live(), live_before);
    }
}

/* --- a connection ------------------------------------------------------------------------------- */

#define GREETING   "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define READY      "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"
#define PING       "\x04\x0c\x04PING\0\x01later"
#define LARGE      300000
#define BATCH      100000
#define N_BATCHES  12
#define N_MESSAGES 6

struct talk {
    int peer;
    struct bb_link link;
    size_t n_messages;
    bool is_lost;
};

/* Take what there is. */
static void look(struct talk *talk)
{
    struct bb_frame frames[BB_FRAMES_MAX];
    size_t n_frames = 0;
    fault_enter();
    bb_link_look(&talk->link);
    enum bb_link_event event = bb_link_next(&talk->link, 0, frames, &n_frames);
    for (; event != BB_LINK_NOTHING && event != BB_LINK_LOST;
         event = bb_link_next(&talk->link, 0, frames, &n_frames)) {
        for (size_t i = 0; event == BB_LINK_MESSAGE && i < n_frames; i++) {
            bb_frame_fini(&frames[i]);
        }
        talk->n_messages += event == BB_LINK_MESSAGE;
    }
    (void)fault_leave();
    talk->is_lost = talk->is_lost || event == BB_LINK_LOST;
}

/* The peer says @bytes; the link reads meanwhile. */
static void say(struct talk *talk, const void *bytes, size_t len)
{
    for (size_t at = 0; at < len && !talk->is_lost;) {
        ssize_t n = send(talk->peer, (const uint8_t *)bytes + at, len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        look(talk);
    }
}

static void say_message(struct talk *talk, const uint8_t *bytes, size_t len)
{
    uint8_t head[BB_ZMTP_HEAD_MAX];
    say(talk, head, bb_zmtp_head(head, len, false));
    say(talk, bytes, len);
}

/* More than the socket takes, so that some waits. Return: whether all was taken. */
static bool send_much(struct talk *talk, struct bb_batch *batch)
{
    int r = 0;
    fault_enter();
    for (int i = 0; i < N_BATCHES && r == 0; i++) {
        r = bb_link_add_batch(&talk->link, batch);
        bb_link_flush(&talk->link);
        r = r < 0 ? r : bb_link_send(&talk->link, bb_slice_str("small"));
    }
    (void)fault_leave();
    cr_assert(r == 0 || r == BB_ENOMEM || r == BB_ECONNECT);
    return r == 0;
}

static size_t hear_all(struct talk *talk)
{
    static uint8_t bytes[65536];
    size_t sum = 0;
    for (ssize_t n = 1; n > 0;) {
        n = recv(talk->peer, bytes, sizeof(bytes), MSG_DONTWAIT);
        sum += n > 0 ? (size_t)n : 0;
        look(talk);
    }
    return sum;
}

static bool run_link(size_t nth, enum fault_mode mode, struct bb_batch *batch, const uint8_t *large)
{
    int fds[2];
    uint8_t greeting[BB_ZMTP_GREETING_LEN] = GREETING;
    struct talk talk = {0};
    size_t live_before = fault_live();
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    talk.peer = fds[1];
    bb_link_init(&talk.link, epoll);
    fault_start(nth, mode);
    bb_link_begin(&talk.link, "ipc://test", fds[0], 0, 1000);
    say(&talk, greeting, sizeof(greeting));
    say(&talk, READY, sizeof(READY) - 1);
    for (int i = 0; i < N_MESSAGES; i++) {
        say(&talk, PING, sizeof(PING) - 1);
        say_message(&talk, large, i % 2 == 0 ? LARGE : 10);
    }
    bool is_sent = send_much(&talk, batch);
    size_t heard = hear_all(&talk);
    bool failed = fault_stop();
    if (talk.is_lost) {
        cr_assert(failed);
        cr_assert_eq(talk.link.state, BB_LINK_CLOSED);
    } else {
        cr_assert_eq(talk.n_messages, N_MESSAGES, "fault %zu", nth);
        cr_assert(!is_sent || heard > (size_t)N_BATCHES * BATCH, "fault %zu", nth);
    }
    cr_assert(failed || (is_sent && !talk.is_lost));
    bb_link_fini(&talk.link);
    cr_assert_eq(batch->refs, 1);
    cr_assert_eq(fault_live(), live_before, "fault %zu leaks", nth);
    (void)close(fds[1]);
    (void)close(epoll);
    return failed;
}

Test(oom_bus, a_connection_without_memory_ends_and_leaves_nothing)
{
    struct bb_pool pool = {.usual = 1};
    struct bb_batch *batch = bb_batch_new(&pool, BATCH, (struct bb_slice){0});
    uint8_t *large = calloc(1, LARGE);
    cr_assert_not_null(batch);
    cr_assert_not_null(large);
    memset(bb_batch_events(batch), 'x', BATCH);
    batch->len = BATCH;
    bb_batch_number(batch, 1);
    for (enum fault_mode mode = FAULT_ONCE; mode <= FAULT_ONWARD; mode++) {
        size_t nth = 0;
        while (run_link(nth, mode, batch, large)) {
            nth++;
        }
        cr_assert_gt(nth, 4);
    }
    bb_batch_unref(batch);
    bb_pool_fini(&pool);
    free(large);
}

/* What is kept small is a copy, what is kept large holds its chunk; without memory it stays where it was. */
Test(oom_bus, a_delivery_that_cannot_be_kept_stays_whole)
{
    for (size_t size = 100; size <= 100000; size += 99900) {
        for (size_t nth = 0; nth < 2; nth++) {
            size_t live_before = fault_live();
            struct bb_chunk *chunk = calloc(1, sizeof(*chunk) + size);
            cr_assert_not_null(chunk);
            atomic_init(&chunk->refs, 1);
            struct bb_frame frame = {chunk, chunk->data, size};
            struct bb_delivery delivery = {.frames = &frame, .n_frames = 1, .frame_at = 1};
            delivery.rest = bb_slice(chunk->data + 10, size - 10);
            fault_start(nth, FAULT_ONCE);
            fault_enter();
            struct bb_delivery *kept = bb_delivery_keep(&delivery);
            (void)fault_leave();
            cr_assert_eq(fault_stop(), kept == NULL);
            if (kept == NULL) {
                cr_assert_eq(delivery.frames[0].chunk, chunk);
                bb_delivery_fini(&delivery);
            } else {
                cr_assert_eq(kept->frames[0].chunk, size > 1000 ? chunk : NULL);
                cr_assert_eq(kept->rest.data, kept->frames[0].data + 10);
                bb_deliveries_free(kept);
            }
            cr_assert_eq(fault_live(), live_before);
        }
    }
}

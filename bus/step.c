/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/step.h"

#include "proto/base/error.h"

#include "bus/conn.h"
#include "bus/cursor.h"
#include "bus/deliver.h"
#include "bus/handle.h"
#include "bus/requests.h"
#include "bus/signal.h"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* Messages a step takes before it looks at other things. */
#define MESSAGES_PER_STEP 64

/* How often the I/O thread steps aside before it sleeps for the lock. */
#define TRIES_MAX 30

static void set_timer(struct bb_bus *bus, uint64_t at)
{
    if (at >= bus->timer_at) {
        return; /* an early one does no harm: it finds nothing to do and sets the next */
    }
    struct itimerspec spec = {
        .it_value = {(time_t)(at / 1000), (long)(at % 1000) * 1000000 + 1},
    };
    if (timerfd_settime(bus->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) == 0) {
        bus->timer_at = at;
    }
}

static void clear_events(struct bb_bus *bus)
{
    uint64_t ignored;
    bb_bell_clear(&bus->wake);
    if (bus->timer_at != BB_NEVER && read(bus->timer_fd, &ignored, sizeof(ignored)) == sizeof(ignored)) {
        bus->timer_at = BB_NEVER;
    }
}

uint64_t bb_step_deadline(const struct bb_bus *bus)
{
    uint64_t connection = BB_MIN(bb_conn_deadline(&bus->conn), bus->link.deadline);
    return BB_MIN(connection, bus->save_at);
}

void bb_step_perform(struct bb_bus *bus)
{
    unsigned pending = bus->pending;
    bus->pending = 0;
    if ((pending & BB_PENDING_BROKEN) != 0) {
        bb_requests_fail(bus, BB_EUNKNOWNRESULT);
        bb_cursors_lost(bus);
        bb_subscriptions_lost(bus);
    }
    if ((pending & BB_PENDING_ENDED) != 0) {
        bb_outbox_fail(&bus->outbox, BB_ECLOSED);
        bb_subscriptions_end(bus, bus->error, bus->last_text);
    }
    if (pending != 0) {
        bb_bus_changed(bus);
    }
}

/* Takes what came, up to a bound; returns whether more is here that the socket will not tell of. */
static bool read_messages(struct bb_bus *bus)
{
    struct bb_link *link = &bus->link;
    uint64_t begun = bb_now_ms();
    size_t n_frames;
    bb_link_look(link);
    for (size_t i = 0; i < MESSAGES_PER_STEP; i++) {
        switch (bb_link_next(link, begun, bus->frames, &n_frames)) {
        case BB_LINK_NOTHING:
            return false;
        case BB_LINK_OPENED:
            bb_conn_opened(bus);
            break;
        case BB_LINK_MESSAGE:
            bb_conn_heard(&bus->conn, bb_now_ms());
            bb_handle_message(bus, n_frames);
            break;
        case BB_LINK_LOST:
            bb_conn_drop(bus, link->error, link->text);
            return false;
        }
    }
    return bb_link_has_input(link);
}

void bb_step(struct bb_bus *bus, bool is_lent)
{
    bb_bus_turn(bus, BB_RUN_STEP);
    if (!is_lent) {
        clear_events(bus);
    }
    bb_step_perform(bus);
    bool has_more = read_messages(bus);
    if (!is_lent) {
        bb_conn_tick_now(bus);
    }
    bb_step_perform(bus);
    bb_conn_send_batches(bus);
    bb_deliver_state(bus);
    bb_deliver_acks(bus);
    bb_deliver_ends(bus);
    if (has_more) {
        bb_bus_wake(bus);
    }
    bb_cursors_tick(bus);
    set_timer(bus, bb_step_deadline(bus));
    bb_bus_turn(bus, BB_RUN_IDLE);
    bb_bus_announce(bus);
}

/*
 * Who publishes holds the lock for moments, over and over. A thread that sleeps for it is woken by a system
 * call of theirs each time, so this one steps aside instead, until it has waited longer than a moment.
 */
static void lock_between(struct bb_bus *bus)
{
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        if (pthread_mutex_trylock(&bus->lock) == 0) {
            return;
        }
        (void)sched_yield();
    }
    bb_bus_lock(bus);
}

void *bb_step_run(void *arg)
{
    struct bb_bus *bus = arg;
    struct epoll_event event;
    bb_bus_lock(bus);
    while (bus->life == BB_LIFE_OPEN) {
        bb_step(bus, false);
        bb_bus_unlock(bus);
        (void)epoll_wait(bus->epoll_fd, &event, 1, -1);
        lock_between(bus);
    }
    bb_bus_unlock(bus);
    return NULL;
}

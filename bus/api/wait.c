/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/api/wait.h"

#include "proto/base/error.h"

#include "bus/conn.h"
#include "bus/signal.h"
#include "bus/step.h"

#include <errno.h>
#include <poll.h>

int bb_wait_check(const struct bb_bus *bus)
{
    return bb_bus_in_callback(bus) ? BB_EDEADLOCK : 0;
}

/* A waiting call may, where callbacks run in the caller's thread or where there are none. */
static bool may_step(const struct bb_bus *bus)
{
    bool has_callbacks = bus->n_callbacks > 0 || bus->outbox.n_callbacks > 0;
    return bus->run == BB_RUN_IDLE && !bus->is_polling && bus->life != BB_LIFE_CLOSING &&
           (bus->options.embedded || (!has_callbacks && bb_bus_is_ready(bus)));
}

/* The socket, and what is lent to whom, may change while the lock is given up. */
static int wait_by_step(struct bb_bus *bus, uint64_t deadline)
{
    struct pollfd pollfds[2] = {{.fd = bus->epoll_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    bool is_lent = !bus->options.embedded;
    uint64_t n_link = 0;
    int timeout = bb_time_left(deadline);
    if (is_lent) {
        n_link = bb_conn_lend(bus, &pollfds[0].fd);
        pollfds[1].fd = bus->call.fd;
    }
    bus->is_polling = true;
    bb_bus_unlock(bus);
    int n = poll(pollfds, BB_COUNT(pollfds), timeout);
    bb_bus_lock(bus);
    bus->is_polling = false;
    if (n > 0 && pollfds[0].revents != 0 && may_step(bus)) {
        bb_step(bus, is_lent);
    }
    if (is_lent) { /* now: what has been read wakes nobody else */
        bb_conn_take_back(bus, n_link);
        bb_bell_clear(&bus->call);
    }
    return bb_now_ms() >= deadline ? BB_ETIMEOUT : 0;
}

static int wait_for_change(struct bb_bus *bus, uint64_t deadline)
{
    int r = 0;
    if (deadline == BB_NEVER) {
        (void)pthread_cond_wait(&bus->changed, &bus->lock);
    } else {
        struct timespec until = {(time_t)(deadline / 1000), (long)(deadline % 1000) * 1000000};
        r = pthread_cond_timedwait(&bus->changed, &bus->lock, &until) == ETIMEDOUT ? BB_ETIMEOUT : 0;
    }
    return r;
}

int bb_wait(struct bb_bus *bus, uint64_t deadline)
{
    bool steps = may_step(bus);
    bus->n_waiting++;
    int r = steps ? wait_by_step(bus, deadline) : wait_for_change(bus, deadline);
    bus->n_waiting--;
    if (steps || bus->life == BB_LIFE_CLOSING) {
        (void)pthread_cond_broadcast(&bus->changed); /* who steps next, or waits for this call to end */
    }
    return r;
}

void bb_wait_end_of_callback(struct bb_bus *bus, const struct bb_subscription *sub)
{
    while (bus->calling == sub) {
        (void)bb_wait(bus, BB_NEVER);
    }
}

void bb_wait_leave(struct bb_bus *bus)
{
    bb_bus_announce(bus);
    bus->n_waiting++;
    while (bus->n_waiting > 1 || bus->run != BB_RUN_IDLE) {
        (void)pthread_cond_wait(&bus->changed, &bus->lock);
    }
    bus->n_waiting--;
}

static bool is_told(const struct bb_bus *bus, uint64_t n)
{
    bool nobody_waits = bus->outbox.done == NULL && bus->run != BB_RUN_ACKS;
    return bus->n_told >= n || (nobody_waits && bb_outbox_answered(&bus->outbox) >= n);
}

int bb_wait_told(struct bb_bus *bus, uint64_t n, uint64_t deadline)
{
    int r = 0;
    while (!is_told(bus, n)) {
        if (bus->error != 0) {
            return BB_ECLOSED;
        }
        if (r < 0) {
            return r;
        }
        r = bb_wait(bus, deadline);
    }
    return 0;
}

int bb_bus_flush(bb_bus *bus, int timeout_ms)
{
    uint64_t deadline = bb_deadline(timeout_ms);
    bb_bus_lock(bus);
    int r = bb_wait_check(bus);
    r = r < 0 ? r : bb_wait_told(bus, bus->outbox.n_published, deadline);
    r = r < 0 ? r : bb_outbox_take_refusal(&bus->outbox);
    bb_bus_unlock(bus);
    return r;
}

int bb_wait_ready(struct bb_bus *bus, uint64_t deadline)
{
    int r = 0;
    while (!bb_bus_is_ready(bus)) {
        if (bus->error != 0) {
            return bus->error;
        }
        if (r < 0) {
            return BB_ECONNECT;
        }
        r = bb_wait(bus, deadline);
    }
    return 0;
}

int bb_bus_wait_ready(bb_bus *bus, int timeout_ms)
{
    uint64_t deadline = bb_deadline(timeout_ms);
    bb_bus_lock(bus);
    int r = bb_wait_check(bus);
    r = r < 0 ? r : bb_wait_ready(bus, deadline);
    bb_bus_unlock(bus);
    return r;
}

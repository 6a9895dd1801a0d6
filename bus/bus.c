/* SPDX-License-Identifier: Apache-2.0 */
/* The steps of a bus, its callbacks, and how calls wait. */
#include "proto/base/error.h"
#include "proto/base/time.h"

#include "bus/internal.h"
#include "bus/subscription.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

/* How often the I/O thread steps aside before it sleeps for the lock. */
#define TRIES_MAX 30

/* --- time and waiting --------------------------------------------------------------------------- */

uint64_t bb_now_ms(void)
{
    return (uint64_t)bb_clock_monotonic_us() / 1000;
}

uint64_t bb_deadline(int timeout_ms)
{
    return timeout_ms < 0 ? BB_NEVER : bb_now_ms() + (uint64_t)timeout_ms;
}

int bb_bus_check_wait(struct bb_bus *bus)
{
    if (bus->in_callback && pthread_equal(bus->callback_thread, pthread_self())) {
        return BB_EDEADLOCK;
    }
    return 0;
}

static void step_locked(struct bb_bus *bus, bool is_lent);

/* A waiting call may, where callbacks run in the caller's thread or where there are none. */
static bool may_step(const struct bb_bus *bus)
{
    bool has_callbacks = bus->n_callbacks > 0 || bus->outbox.n_callbacks > 0;
    return !bus->is_stepping && !bus->is_polling && !bus->is_closing &&
           (bus->options.embedded || (!has_callbacks && bb_bus_is_ready(bus)));
}

static void raise_fd(int fd, bool *is_raised)
{
    if (!*is_raised) {
        uint64_t one = 1;
        *is_raised = write(fd, &one, sizeof(one)) == sizeof(one);
    }
}

static void clear_fd(int fd, bool *is_raised)
{
    uint64_t ignored;
    if (*is_raised) {
        *is_raised = read(fd, &ignored, sizeof(ignored)) != sizeof(ignored);
    }
}

static int timeout_until(uint64_t deadline, uint64_t now)
{
    if (deadline == BB_NEVER) {
        return -1;
    }
    uint64_t left = deadline > now ? deadline - now : 0;
    return left > 3600000 ? 3600000 : (int)left;
}

/* The socket, and what is lent to whom, may change while the lock is given up. */
static int wait_by_step(struct bb_bus *bus, uint64_t deadline)
{
    struct pollfd pollfds[2] = {{.fd = bus->epoll_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    bool is_lent = !bus->options.embedded;
    uint64_t n_link = 0;
    int timeout = timeout_until(deadline, bb_now_ms());
    if (is_lent) {
        n_link = bb_conn_lend(bus, &pollfds[0].fd);
        pollfds[1].fd = bus->call_fd;
    }
    bus->is_polling = true;
    (void)pthread_mutex_unlock(&bus->lock);
    int n = poll(pollfds, BB_COUNT(pollfds), timeout);
    (void)pthread_mutex_lock(&bus->lock);
    bus->is_polling = false;
    if (n > 0 && pollfds[0].revents != 0 && may_step(bus)) {
        step_locked(bus, is_lent);
    }
    if (is_lent) { /* now: what has been read wakes nobody else */
        bb_conn_take_back(bus, n_link);
        clear_fd(bus->call_fd, &bus->is_called);
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

int bb_bus_wait(struct bb_bus *bus, uint64_t deadline)
{
    bool steps = may_step(bus);
    bus->n_waiting++;
    int r = steps ? wait_by_step(bus, deadline) : wait_for_change(bus, deadline);
    bus->n_waiting--;
    if (steps || bus->is_closing) {
        (void)pthread_cond_broadcast(&bus->changed); /* who steps next, or waits for this call to end */
    }
    return r;
}

void bb_bus_wake(struct bb_bus *bus)
{
    raise_fd(bus->event_fd, &bus->is_woken);
}

static void tell_changed(struct bb_bus *bus)
{
    bus->has_changed = false;
    if (bus->n_waiting > 0) {
        (void)pthread_cond_broadcast(&bus->changed);
    }
    if (bus->is_polling && bus->options.embedded) {
        bb_bus_wake(bus);
    } else if (bus->is_polling) {
        raise_fd(bus->call_fd, &bus->is_called);
    }
}

void bb_bus_changed(struct bb_bus *bus)
{
    if (bus->is_stepping && !bus->in_callback) {
        bus->has_changed = true;
    } else {
        tell_changed(bus);
    }
}

void bb_bus_note(struct bb_bus *bus, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not see va_start() through a caller */
    (void)vsnprintf(bus->last_text, sizeof(bus->last_text), format, args);
    va_end(args);
    bus->last_error = error;
}

/* --- callbacks ---------------------------------------------------------------------------------- */

void bb_bus_callback_begin(struct bb_bus *bus, struct bb_subscription *sub)
{
    bus->in_callback = true;
    bus->callback_thread = pthread_self();
    bus->calling = sub;
    if (bus->has_changed) {
        tell_changed(bus);
    }
    (void)pthread_mutex_unlock(&bus->lock);
}

void bb_bus_callback_end(struct bb_bus *bus)
{
    (void)pthread_mutex_lock(&bus->lock);
    bus->in_callback = false;
    bus->calling = NULL;
    bb_bus_changed(bus);
}

/* Without the lock. Return: how many callbacks were called. */
static unsigned tell_done(struct bb_bus *bus, const struct bb_batch *batch)
{
    unsigned n = 0;
    for (; batch != NULL; batch = batch->next) {
        for (uint32_t i = 0; i < batch->n_tracked; i++) {
            const struct bb_tracked *tracked = &batch->tracked[i];
            if (tracked->on_ack != NULL) {
                struct bb_ack ack = bb_outbox_ack_of(batch, tracked);
                tracked->on_ack(bus, &ack, tracked->arg);
                n++;
            }
        }
    }
    return n;
}

void bb_bus_call_done(struct bb_bus *bus)
{
    uint64_t n_answered = bb_outbox_answered(&bus->outbox);
    struct bb_batch *done = bb_outbox_take_done(&bus->outbox);
    if (done == NULL) {
        return;
    }
    if (bus->outbox.n_callbacks > 0) {
        bus->is_telling = true;
        bb_bus_callback_begin(bus, NULL);
        unsigned n = tell_done(bus, done);
        bb_bus_callback_end(bus);
        bus->outbox.n_callbacks -= n;
        bus->is_telling = false;
    }
    bb_batches_unref(done);
    bus->n_told = n_answered;
}

static enum bb_bus_state public_state(const struct bb_bus *bus)
{
    switch (bus->conn.state) {
    case BB_CONN_IDLE:
    case BB_CONN_CONNECTING:
    case BB_CONN_HELLO_SENT:
        return BB_STATE_CONNECTING;
    case BB_CONN_READY:
        return BB_STATE_READY;
    case BB_CONN_WAITING:
        return BB_STATE_WAITING;
    case BB_CONN_CLOSED:
        break;
    }
    return BB_STATE_CLOSED;
}

static void call_state(struct bb_bus *bus)
{
    enum bb_bus_state state = public_state(bus);
    if (state == bus->told_state) {
        return;
    }
    bus->told_state = state;
    bb_bus_changed(bus);
    if (bus->options.on_state == NULL) {
        return;
    }
    bool is_bad = state == BB_STATE_WAITING || state == BB_STATE_CLOSED;
    int error = is_bad ? bus->last_error : 0;
    char text[sizeof(bus->last_text)];
    (void)snprintf(text, sizeof(text), "%s", is_bad ? bus->last_text : "");
    bb_bus_callback_begin(bus, NULL);
    bus->options.on_state(bus, state, error, text, bus->options.arg);
    bb_bus_callback_end(bus);
}

/* --- steps -------------------------------------------------------------------------------------- */

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
    clear_fd(bus->event_fd, &bus->is_woken);
    if (bus->timer_at != BB_NEVER && read(bus->timer_fd, &ignored, sizeof(ignored)) == sizeof(ignored)) {
        bus->timer_at = BB_NEVER;
    }
}

static uint64_t next_deadline(const struct bb_bus *bus)
{
    uint64_t connection = BB_MIN(bb_conn_deadline(&bus->conn), bus->link.deadline);
    return BB_MIN(connection, bus->save_at);
}

/* @is_lent: only the socket; the I/O thread looks at the rest. */
static void step_locked(struct bb_bus *bus, bool is_lent)
{
    bus->is_stepping = true;
    if (!is_lent) {
        clear_events(bus);
    }
    bool has_more = bb_conn_read(bus);
    if (!is_lent) {
        bb_conn_tick_now(bus);
    }
    bb_conn_send_batches(bus);
    call_state(bus);
    bb_bus_call_done(bus);
    bb_subscriptions_tell(bus);
    if (has_more) {
        bb_bus_wake(bus);
    }
    bb_cursors_tick(bus);
    set_timer(bus, next_deadline(bus));
    bus->is_stepping = false;
    tell_changed(bus);
}

/*
 * Who publishes holds the lock for moments, over and over. A thread that sleeps for it is woken by a system call of
 * theirs each time, so this one steps aside instead, until it has waited longer than a moment.
 */
static void lock_between(struct bb_bus *bus)
{
    for (unsigned i = 0; i < TRIES_MAX; i++) {
        if (pthread_mutex_trylock(&bus->lock) == 0) {
            return;
        }
        (void)sched_yield();
    }
    (void)pthread_mutex_lock(&bus->lock);
}

void *bb_bus_run(void *arg)
{
    struct bb_bus *bus = arg;
    struct epoll_event event;
    (void)pthread_mutex_lock(&bus->lock);
    while (!bus->is_stopping) {
        step_locked(bus, false);
        (void)pthread_mutex_unlock(&bus->lock);
        (void)epoll_wait(bus->epoll_fd, &event, 1, -1);
        lock_between(bus);
    }
    (void)pthread_mutex_unlock(&bus->lock);
    return NULL;
}

int bb_bus_step(bb_bus *bus)
{
    if (!bus->options.embedded) {
        return BB_ESTATE;
    }
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_bus_check_wait(bus);
    if (r == 0 && !bus->is_stepping) {
        step_locked(bus, false);
        r = bus->error != 0 ? BB_ECLOSED : 0;
    }
    (void)pthread_mutex_unlock(&bus->lock);
    return r;
}

int bb_bus_fd(bb_bus *bus)
{
    return bus->options.embedded ? bus->epoll_fd : BB_ESTATE;
}

int bb_bus_timeout(bb_bus *bus)
{
    (void)pthread_mutex_lock(&bus->lock);
    int timeout = bus->is_woken ? 0 : timeout_until(next_deadline(bus), bb_now_ms());
    (void)pthread_mutex_unlock(&bus->lock);
    return timeout;
}

/* --- waiting calls ------------------------------------------------------------------------------ */

static bool is_told(const struct bb_bus *bus, uint64_t n)
{
    bool nobody_waits = bus->outbox.done == NULL && !bus->is_telling;
    return bus->n_told >= n || (nobody_waits && bb_outbox_answered(&bus->outbox) >= n);
}

int bb_bus_wait_told(struct bb_bus *bus, uint64_t n, uint64_t deadline)
{
    int r = 0;
    while (!is_told(bus, n)) {
        if (bus->error != 0) {
            return BB_ECLOSED;
        }
        if (r < 0) {
            return r;
        }
        r = bb_bus_wait(bus, deadline);
    }
    return 0;
}

int bb_bus_flush(bb_bus *bus, int timeout_ms)
{
    uint64_t deadline = bb_deadline(timeout_ms);
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_bus_check_wait(bus);
    r = r < 0 ? r : bb_bus_wait_told(bus, bus->outbox.n_published, deadline);
    r = r < 0 ? r : bb_outbox_take_refusal(&bus->outbox);
    (void)pthread_mutex_unlock(&bus->lock);
    return r;
}

int bb_bus_wait_ready_locked(struct bb_bus *bus, uint64_t deadline)
{
    int r = 0;
    while (!bb_bus_is_ready(bus)) {
        if (bus->error != 0) {
            return bus->error;
        }
        if (r < 0) {
            return BB_ECONNECT;
        }
        r = bb_bus_wait(bus, deadline);
    }
    return 0;
}

int bb_bus_wait_ready(bb_bus *bus, int timeout_ms)
{
    uint64_t deadline = bb_deadline(timeout_ms);
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_bus_check_wait(bus);
    r = r < 0 ? r : bb_bus_wait_ready_locked(bus, deadline);
    (void)pthread_mutex_unlock(&bus->lock);
    return r;
}

int bb_bus_drain(bb_bus *bus, int timeout_ms)
{
    uint64_t deadline = bb_deadline(timeout_ms);
    (void)pthread_mutex_lock(&bus->lock);
    int r = bb_bus_check_wait(bus);
    if (r == 0) {
        int flushed = bb_bus_wait_told(bus, bus->outbox.n_published, deadline);
        flushed = flushed < 0 ? flushed : bb_outbox_take_refusal(&bus->outbox);
        r = bb_subscriptions_drain(bus, deadline);
        r = flushed < 0 ? flushed : r;
    }
    (void)pthread_mutex_unlock(&bus->lock);
    return r;
}

/* --- what it is --------------------------------------------------------------------------------- */

enum bb_bus_state bb_bus_state(bb_bus *bus)
{
    (void)pthread_mutex_lock(&bus->lock);
    enum bb_bus_state state = public_state(bus);
    (void)pthread_mutex_unlock(&bus->lock);
    return state;
}

const char *bb_bus_last_error(bb_bus *bus, char *to, size_t size)
{
    (void)pthread_mutex_lock(&bus->lock);
    (void)snprintf(to, size, "%s", bus->last_text);
    (void)pthread_mutex_unlock(&bus->lock);
    return to;
}

void bb_bus_get_info(bb_bus *bus, struct bb_bus_info *ret_info)
{
    (void)pthread_mutex_lock(&bus->lock);
    *ret_info = (struct bb_bus_info){
        .server = bus->server,
        .run = bus->run,
        .client_number = bus->client_number,
        .max_message = bus->max_message,
        .heartbeat_ms = bus->conn.config.heartbeat_ms,
        .connects = bus->n_connects,
        .repeated = bus->outbox.repeated,
        .refused = bus->outbox.refused,
        .dropped = bus->outbox.dropped,
        .unacked_bytes = bus->outbox.bytes,
    };
    (void)pthread_mutex_unlock(&bus->lock);
}

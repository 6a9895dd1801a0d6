/* SPDX-License-Identifier: Apache-2.0 */
/* How a bus begins and ends. */
#include "proto/base/error.h"
#include "proto/base/utf8.h"

#include "bus/api/wait.h"
#include "bus/conn.h"
#include "bus/cursor.h"
#include "bus/deliver.h"
#include "bus/requests.h"
#include "bus/signal.h"
#include "bus/step.h"
#include "bus/urls.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define OPEN_TIMEOUT_MS   5000
#define CLOSE_FLUSH_MS    700
#define CLOSE_LINGER_MS   200
#define BATCH_BYTES_MIN   1024
#define SUBSCRIPTIONS_MAX 100000

static int copy_options(struct bb_bus *bus, const struct bb_options *given)
{
    struct bb_options *options = &bus->options;
    *options = (struct bb_options)BB_OPTIONS_INIT;
    if (given != NULL) {
        if (given->size == 0) {
            bb_bus_note(bus, BB_EINVAL, "the options were not initialised with BB_OPTIONS_INIT");
            return BB_EINVAL;
        }
        memcpy(options, given, given->size < sizeof(*options) ? given->size : sizeof(*options));
    }
    size_t name_len = options->name != NULL ? strlen(options->name) : 0;
    if (name_len >= sizeof(bus->name) || !bb_utf8_is_valid(options->name, name_len)) {
        bb_bus_note(bus, BB_EINVAL, "the name is longer than %zu bytes or not UTF-8", sizeof(bus->name) - 1);
        return BB_EINVAL;
    }
    if (name_len > 0) {
        memcpy(bus->name, options->name, name_len);
    }
    if (options->reconnect_min_ms == 0 || options->reconnect_max_ms < options->reconnect_min_ms) {
        bb_bus_note(bus, BB_EINVAL, "reconnect_min_ms must be above 0 and not above reconnect_max_ms");
        return BB_EINVAL;
    }
    size_t batch_max = BB_MESSAGE_DEFAULT - BB_BATCH_HEAD_MAX;
    options->batch_bytes = BB_MIN(BB_MAX(options->batch_bytes, BATCH_BYTES_MIN), batch_max);
    int r = bb_urls_copy(options->url, bus->last_text, sizeof(bus->last_text), &bus->urls);
    bus->url = bus->urls;
    return r;
}

static int add_fd(struct bb_bus *bus, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    return fd < 0 || epoll_ctl(bus->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0 ? BB_ESYSTEM : 0;
}

static int open_system(struct bb_bus *bus)
{
    bus->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    bus->wake.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bus->call.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    bus->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    bus->link.epoll_fd = bus->epoll_fd;
    if (bus->epoll_fd < 0 || bus->call.fd < 0 || add_fd(bus, bus->wake.fd) < 0 ||
        add_fd(bus, bus->timer_fd) < 0) {
        return BB_ESYSTEM;
    }
    return 0;
}

static int init_state(struct bb_bus *bus)
{
    uint64_t seed;
    if (getrandom(bus->client, sizeof(bus->client), 0) != sizeof(bus->client) ||
        getrandom(&seed, sizeof(seed), 0) != sizeof(seed)) {
        return BB_ESYSTEM;
    }
    struct bb_conn_config config = {
        .open_ms = OPEN_TIMEOUT_MS,
        .heartbeat_ms = bus->options.heartbeat_ms,
        .pause_min_ms = bus->options.reconnect_min_ms,
        .pause_max_ms = bus->options.reconnect_max_ms,
        .seed = seed,
    };
    bus->seed = seed;
    bb_conn_init(&bus->conn, &config);
    bb_map_init(&bus->subs, seed, SUBSCRIPTIONS_MAX);
    bus->max_message = BB_MESSAGE_DEFAULT;
    bus->told_state = BB_STATE_CONNECTING;
    bus->n_callbacks = bus->options.on_state != NULL;
    bus->timer_at = BB_NEVER;
    bus->save_at = BB_NEVER;
    return 0;
}

static int init_sync(struct bb_bus *bus)
{
    pthread_condattr_t attr;
    if (pthread_condattr_init(&attr) != 0) {
        return BB_ESYSTEM;
    }
    int r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    r = r == 0 ? pthread_cond_init(&bus->changed, &attr) : r;
    (void)pthread_condattr_destroy(&attr);
    if (r != 0) {
        return BB_ESYSTEM;
    }
    return pthread_mutex_init(&bus->lock, NULL) == 0 ? 0 : BB_ESYSTEM;
}

/* Signals are the application's business. */
static int start_thread(struct bb_bus *bus)
{
    sigset_t all;
    sigset_t old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&bus->thread, NULL, bb_step_run, bus);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r == 0 ? 0 : BB_ESYSTEM;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

static void free_bus(struct bb_bus *bus)
{
    bb_link_finish(&bus->link, CLOSE_LINGER_MS);
    bb_link_fini(&bus->link);
    bb_outbox_fini(&bus->outbox); /* the link held batches */
    bb_map_fini(&bus->subs);
    bb_buf_fini(&bus->scratch);
    close_fd(bus->wake.fd);
    close_fd(bus->call.fd);
    close_fd(bus->timer_fd);
    close_fd(bus->epoll_fd);
    free(bus->urls);
    (void)pthread_cond_destroy(&bus->changed);
    (void)pthread_mutex_destroy(&bus->lock);
    free(bus);
}

/* There is no bus to ask for its last error. */
static void tell_error(const struct bb_options *options, const struct bb_bus *bus, int error)
{
    if (options->error_text != NULL && options->error_size > 0) {
        const char *text = bus->last_text[0] != 0 ? bus->last_text : bb_strerror(error);
        (void)snprintf(options->error_text, options->error_size, "%s", text);
    }
}

int bb_bus_open(const struct bb_options *options, bb_bus **ret_bus)
{
    struct bb_bus *bus = calloc(1, sizeof(*bus));
    if (bus == NULL) {
        return BB_ENOMEM;
    }
    bb_link_init(&bus->link, -1);
    bus->epoll_fd = bus->wake.fd = bus->call.fd = bus->timer_fd = -1;
    bus->pid = getpid();
    int r = copy_options(bus, options);
    r = r < 0 ? r : init_sync(bus);
    if (r < 0) {
        tell_error(&bus->options, bus, r);
        free(bus->urls);
        free(bus);
        return r;
    }
    bb_outbox_init(&bus->outbox, bus->options.batch_bytes, bus->options.queue_bytes, bus->options.unbatched);
    r = init_state(bus);
    r = r < 0 ? r : open_system(bus);
    if (r == 0) {
        bb_bus_wake(bus);
        r = bus->options.embedded ? 0 : start_thread(bus);
    }
    if (r < 0) {
        tell_error(&bus->options, bus, r);
        free_bus(bus);
        return r;
    }
    *ret_bus = bus;
    return 0;
}

/* --- close -------------------------------------------------------------------------------------- */

static void say_goodbye(struct bb_bus *bus)
{
    if (bb_bus_is_ready(bus)) {
        struct bb_msg msg = {.type = BB_MSG_GOODBYE, .code = bb_slice_str("closed")};
        bb_conn_post(bus, &msg);
    }
}

/*
 * Calls of other threads that wait return. Then nothing steps the bus any more, and what is to be told is
 * told here.
 */
static void end_calls(struct bb_bus *bus)
{
    bb_bus_age(bus, BB_LIFE_CLOSING);
    bus->error = bus->error != 0 ? bus->error : BB_ECLOSED;
    bb_requests_fail(bus, BB_ECLOSED);
    bb_outbox_fail(&bus->outbox, BB_ECLOSED);
    bb_subscriptions_end(bus, BB_ECLOSED, "closed");
    bb_wait_leave(bus);
    bb_bus_turn(bus, BB_RUN_STEP);
    bb_deliver_acks(bus);
    bb_bus_turn(bus, BB_RUN_IDLE);
}

int bb_bus_close(bb_bus *bus)
{
    if (bus == NULL || bus->pid != getpid()) {
        return 0;
    }
    bb_bus_lock(bus);
    int r = bb_wait_check(bus);
    if (r < 0) {
        bb_bus_unlock(bus);
        return r;
    }
    if (bb_bus_is_ready(bus)) { /* what is not told by then is told that it failed */
        (void)bb_wait_told(bus, bus->outbox.n_published, bb_deadline(CLOSE_FLUSH_MS));
    }
    bb_bus_age(bus, BB_LIFE_STOPPING);
    bb_bus_wake(bus);
    bb_bus_unlock(bus);
    if (!bus->options.embedded) {
        (void)pthread_join(bus->thread, NULL);
    }
    bb_bus_lock(bus);
    bb_cursors_finish(bus);
    say_goodbye(bus);
    end_calls(bus);
    bb_subscriptions_free(bus);
    bb_bus_unlock(bus);
    free_bus(bus);
    return 0;
}

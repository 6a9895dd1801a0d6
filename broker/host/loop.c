/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/loop.h"

#include "broker/host/backends.h"
#include "broker/host/signals.h"

#include <errno.h>
#include <sys/eventfd.h>

/* Bytes taken from a plug before what came is fanned out. */
#define STEP_BUDGET ((size_t)512 << 10)

/* The core and the plugs are given the time at least this often. */
#define TICK_MAX_US ((uint64_t)1000000)

/* Places in host->fds; the plugs' are behind them. */
enum {
    AT_SIGNALS,
    AT_WAKE,
    AT_BACKENDS,
};

static void wait_for(struct bk_host *host, int fd)
{
    host->fds[host->n_fds++] = (struct pollfd){.fd = fd, .events = POLLIN};
}

static void list_fds(struct bk_host *host)
{
    wait_for(host, host->signals);
    wait_for(host, host->wake);
    for (size_t i = 0; i < BK_STORES; i++) {
        wait_for(host, host->backends[i] != NULL ? host->backends[i]->ops->fd(host->backends[i]) : -1);
    }
    for (size_t i = 0; i < BK_HOST_PLUGS; i++) {
        int fds[BK_PLUG_FDS];
        size_t n = host->plugs[i]->ops->fds(host->plugs[i], fds);
        for (size_t j = 0; j < n; j++) {
            wait_for(host, fds[j]);
        }
    }
}

/* What the descriptors may not tell: asked before each sleep. */
static bool has_input(const struct bk_host *host)
{
    bool found = false;
    for (size_t i = 0; i < BK_HOST_PLUGS && !found; i++) {
        const struct bk_plug *plug = host->plugs[i];
        found = plug->ops->has_input != NULL && plug->ops->has_input(plug);
    }
    return found;
}

static void flush_plugs(struct bk_host *host)
{
    for (size_t i = 0; i < BK_HOST_PLUGS; i++) {
        if (host->plugs[i]->ops->flush != NULL) {
            host->plugs[i]->ops->flush(host->plugs[i]);
        }
    }
}

static void flush(struct bk_host *host)
{
    bk_core_flush(host->core);
    flush_plugs(host);
}

static void tick(struct bk_host *host, uint64_t now)
{
    if (now < bk_core_tick_at(host->core) && now < host->next_tick) {
        return;
    }
    (void)bk_core_tick(host->core);
    for (size_t i = 0; i < BK_HOST_PLUGS; i++) {
        if (host->plugs[i]->ops->tick != NULL) {
            host->plugs[i]->ops->tick(host->plugs[i], now);
        }
    }
    flush_plugs(host);
    host->next_tick = now + TICK_MAX_US;
}

/* How long to wait for something to happen, in ms. */
static int wait_ms(const struct bk_host *host, uint64_t now, bool more)
{
    uint64_t at = BB_MIN(bk_core_tick_at(host->core), host->next_tick);
    if (more || bk_core_wants_flush(host->core) || at <= now) {
        return 0;
    }
    return (int)((at - now + 999) / 1000); /* a second at most */
}

bool bk_host_offer(void *context)
{
    struct bk_host *host = context;
    if (pthread_mutex_trylock(&host->running) != 0) {
        return false;
    }
    (void)bk_host_set_time(host);
    bk_host_dispatch_backends(host, NULL);
    flush(host);
    bool is_late = bk_core_wants_flush(host->core) || bk_core_tick_at(host->core) < host->sleeps_until;
    if (is_late || host->drain_end != 0 || has_input(host)) {
        (void)eventfd_write(host->wake, 1);
    }
    (void)pthread_mutex_unlock(&host->running);
    return true;
}

static int sleep_until_something(struct bk_host *host, int timeout)
{
    if (timeout == 0 || has_input(host)) {
        return poll(host->fds, host->n_fds, 0);
    }
    (void)pthread_mutex_unlock(&host->running);
    int n = poll(host->fds, host->n_fds, timeout);
    (void)pthread_mutex_lock(&host->running);
    return n;
}

/* Returns whether there may be more. */
static bool take_input(struct bk_host *host, uint64_t now)
{
    bool more = false;
    eventfd_t ignored;
    if ((host->fds[AT_SIGNALS].revents & POLLIN) != 0) {
        bk_host_take_signals(host, now);
    }
    if ((host->fds[AT_WAKE].revents & POLLIN) != 0) {
        (void)eventfd_read(host->wake, &ignored);
    }
    bk_host_dispatch_backends(host, host->fds + AT_BACKENDS);
    for (size_t i = 0; i < BK_HOST_PLUGS; i++) {
        more = host->plugs[i]->ops->step(host->plugs[i], now, STEP_BUDGET) || more;
    }
    return more;
}

static bool is_drained(const struct bk_host *host, uint64_t now)
{
    return host->drain_end != 0 && (now >= host->drain_end || bk_core_is_drained(host->core));
}

void bk_host_loop(struct bk_host *host)
{
    bool more = false;
    uint64_t now = 0;
    list_fds(host);
    do {
        now = bk_host_set_time(host);
        tick(host, now);
        int timeout = wait_ms(host, now, more);
        host->sleeps_until = now + (uint64_t)timeout * 1000;
        if (sleep_until_something(host, timeout) < 0 && errno != EINTR) {
            bk_log_write(host->log, BK_LOG_ERROR, "BB-POLL",
                         strerror(errno)); /* NOLINT(concurrency-mt-unsafe) */
            return;
        }
        now = bk_host_set_time(host);
        more = take_input(host, now);
        flush(host);
    } while (!is_drained(host, now));
}

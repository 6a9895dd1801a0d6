/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the host share. */
#pragma once

#include "proto/base/time.h"

#include "broker/host/host.h"
#include "broker/plug/door.h"

#include <poll.h>
#include <pthread.h>

#define BK_HOST_PLUGS 2

struct bk_host {
    const struct bk_host_options *options;
    struct bk_log *log;
    struct bk_plug_context context;
    struct bk_crowd crowd;
    struct bk_core *core;
    struct bk_out out; /* the core's */
    struct bk_door *door;
    struct bk_plug *windows;
    struct bk_plug *plugs[BK_HOST_PLUGS]; /* both of them */
    struct bk_backend *backends[BK_STORES];
    bool has_ports_file;     /* it is this broker's, not that of one which runs already */
    int signals;             /* signalfd */
    int wake;                /* eventfd: the loop is to look again */
    pthread_mutex_t running; /* of the core and the plugs: the loop's, but while it sleeps */
    struct pollfd fds[2 + BK_STORES + BK_HOST_PLUGS * BK_PLUG_FDS];
    size_t n_fds;
    uint64_t sleeps_until;
    uint64_t next_tick;
    uint64_t drain_end; /* 0: not ending */
};

static inline uint64_t bk_host_set_time(struct bk_host *host)
{
    uint64_t now = (uint64_t)bb_clock_monotonic_us();
    bk_core_set_time(host->core, now, (uint64_t)bb_clock_wall_us());
    return now;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/host.h"

#include "proto/base/error.h"

#include "broker/host/backends.h"
#include "broker/host/doors.h"
#include "broker/host/loop.h"
#include "broker/host/out.h"
#include "broker/host/signals.h"

#include <malloc.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LINGER_MS 1000

static int open_host(struct bk_host *host)
{
    int r = host->wake >= 0 ? bk_host_open_signals(host) : BB_ESYSTEM;
    if (r == 0) {
        r = bk_host_open_doors(host);
    }
    if (r == 0) {
        r = bk_host_open_core(host);
    }
    if (r == 0) {
        r = bk_host_open_backends(host, bk_host_offer);
    }
    return r == 0 ? bk_host_bind_doors(host) : r;
}

static void close_host(struct bk_host *host)
{
    if (host->core != NULL) {
        (void)bk_host_set_time(host);
        bk_core_say_goodbye(host->core);
    }
    bk_host_close_doors(host);
    bk_host_close_backends(host);
    bk_core_free(host->core);
    if (host->signals >= 0) {
        (void)close(host->signals);
    }
    if (host->wake >= 0) {
        (void)close(host->wake);
    }
    bk_log_free(host->log);
}

static void run(struct bk_host *host, int error)
{
    char text[64];
    if (error == 0) {
        bk_host_loop(host);
        bk_log_write(host->log, BK_LOG_NOTICE, "BB-ENDED", "ended");
        return;
    }
    (void)snprintf(text, sizeof(text), "the broker does not start (%s)", bb_errcode(error));
    bk_log_write(host->log, BK_LOG_ERROR, "BB-START", text);
}

int bk_host_run(const struct bk_host_options *options)
{
    struct bk_host host = {
        .options = options,
        .log = bk_log_new(options->log_format, options->log_level),
        .context =
            {
                .max_message = options->core.max_message,
                .max_peers = options->core.max_clients,
                .server = options->core.server,
                .seed = options->core.seed,
                .linger_ms = LINGER_MS,
            },
        .signals = -1,
        .running = PTHREAD_MUTEX_INITIALIZER,
        .wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
    };
    if (host.log == NULL) {
        return BB_ENOMEM;
    }
    /* Chunks and batches come and go all the time: give their memory back to the system late. No thread yet. */
    (void)mallopt(M_MMAP_THRESHOLD, 4 << 20);  /* NOLINT(concurrency-mt-unsafe) */
    (void)mallopt(M_TRIM_THRESHOLD, 64 << 20); /* NOLINT(concurrency-mt-unsafe) */
    (void)pthread_mutex_lock(&host.running);
    int r = open_host(&host);
    run(&host, r);
    close_host(&host);
    (void)pthread_mutex_unlock(&host.running);
    (void)pthread_mutex_destroy(&host.running);
    return r;
}

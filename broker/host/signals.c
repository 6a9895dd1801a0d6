/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/signals.h"

#include "proto/base/error.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

int bk_host_open_signals(struct bk_host *host)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGTERM);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGHUP);
    (void)sigaddset(&set, SIGUSR1);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN); /* a file that may not grow any more is the log's affair: EFBIG */
    if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0) {
        return BB_ESYSTEM;
    }
    host->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    return host->signals >= 0 ? 0 : BB_ESYSTEM;
}

static void begin_end(struct bk_host *host, uint64_t now)
{
    bk_log_write(host->log, BK_LOG_NOTICE, "BB-ENDING", "ending: no new clients, delivering what waits");
    host->door->ops->stop_accepting(host->door);
    bk_core_shut_down(host->core);
    host->drain_end = now + host->options->drain_us;
}

static void log_counters(const struct bk_host *host)
{
    char text[256];
    (void)snprintf(text, sizeof(text),
                   "events in %" PRIu64 ", out %" PRIu64 ", refused %" PRIu64 ", bad messages %" PRIu64,
                   bk_core_counter(host->core, BK_COUNTER_events_in),
                   bk_core_counter(host->core, BK_COUNTER_events_out),
                   bk_core_counter(host->core, BK_COUNTER_events_refused),
                   bk_core_counter(host->core, BK_COUNTER_bad_messages));
    bk_log_write(host->log, BK_LOG_NOTICE, "BB-COUNTERS", text);
}

void bk_host_take_signals(struct bk_host *host, uint64_t now)
{
    struct signalfd_siginfo info;
    while (read(host->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGUSR1) {
            log_counters(host);
        } else if (info.ssi_signo == SIGHUP) {
            bk_log_write(host->log, BK_LOG_NOTICE, "BB-HANGUP", "there is nothing to reload");
        } else if (host->drain_end == 0) {
            begin_end(host, now);
        } else {
            _exit(EXIT_FAILURE); /* the second one means now */
        }
    }
}

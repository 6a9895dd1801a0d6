/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a bus and ending a command. Signals are blocked before the library starts its thread and read by a
 * thread of ours, since what the main thread waits in (the library, stdin, a full pipe) cannot be interrupted safely.
 */
#include "tools/connection.h"

#include "tools/print.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define DRAIN_MS 1000

int timeout_ms(int64_t us)
{
    if (us < 0) {
        return -1;
    }
    int64_t ms = us / 1000 + (us % 1000 != 0);
    return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

int status_of(int error)
{
    switch (error) {
    case 0:
        return STATUS_OK;
    case BB_EINVAL:
    case BB_EPATH:
    case BB_EPATTERN:
    case BB_EEVENT:
        return STATUS_USAGE;
    case BB_ECONNECT:
        return STATUS_CONNECT;
    case BB_ETIMEOUT:
        return STATUS_TIMEOUT;
    case BB_ENOMEM:
    case BB_ESYSTEM:
    case BB_ECLOSED:
    case BB_ESTATE:
    case BB_EDEADLOCK:
    case BB_EUNKNOWNRESULT:
        return STATUS_FAILURE;
    default:
        return STATUS_REFUSED;
    }
}

const char *particulars(bb_bus *bus, int error, char *to, size_t size)
{
    size_t len = strlen(bb_errcode(error));
    to[0] = '\0';
    if (bus != NULL) {
        bb_bus_last_error(bus, to, size);
    }
    /* What a broker refuses with begins with the code, which the sentence says as well. */
    if (strncmp(to, bb_errcode(error), len) == 0 && strncmp(to + len, ": ", 2) == 0) {
        memmove(to, to + len + 2, strlen(to + len + 2) + 1);
    }
    if (strcmp(to, bb_strerror(error)) == 0) {
        to[0] = '\0';
    }
    return to;
}

int fail(bb_bus *bus, int error, const char *what)
{
    char more[256];
    (void)particulars(bus, error, more, sizeof(more));
    say("%s: %s%s%s", what, bb_strerror(error), more[0] != '\0' ? ": " : "", more);
    if (error == BB_ECORRUPT) {
        say("'busbar log verify' tells more");
    }
    return status_of(error);
}

static int connect_fail(const struct common *common, bb_bus *bus, int error)
{
    const char *url = common->url != NULL ? common->url : secure_getenv("BUSBAR_URL");
    const char *where = url != NULL ? url : "the local endpoint";
    if (error != BB_ECONNECT) {
        char what[512];
        (void)snprintf(what, sizeof(what), "cannot use the broker at %s", where);
        return fail(bus, error, what);
    }
    char last[256] = "";
    bb_bus_last_error(bus, last, sizeof(last));
    bool more = last[0] != '\0' && strcmp(last, bb_strerror(error)) != 0;
    say("no broker answered at %s within %.3g s%s%s", where, (double)common->connect_timeout_us / 1e6,
        more ? ": " : "", more ? last : "");
    say("start one with 'busbard', or name another with --url or BUSBAR_URL");
    return STATUS_CONNECT;
}

static int bus_open(const struct common *common, const struct bb_options *options, bb_bus **ret_bus)
{
    struct bb_options o = *options;
    char why[256] = "";
    o.url = common->url;
    o.error_text = why;
    o.error_size = sizeof(why);
    int r = bb_bus_open(&o, ret_bus);
    if (r < 0) {
        say("%s", why[0] != '\0' ? why : bb_strerror(r));
    }
    return status_of(r);
}

static int bus_wait(const struct common *common, bb_bus *bus)
{
    int r = bb_bus_wait_ready(bus, timeout_ms(common->connect_timeout_us));
    return r != 0 ? connect_fail(common, bus, r) : STATUS_OK;
}

int connection_start(const struct common *common, const struct bb_options *options, bb_bus **ret_bus)
{
    bb_bus *bus;
    int status = bus_open(common, options, &bus);
    if (status != STATUS_OK) {
        return status;
    }
    status = bus_wait(common, bus);
    if (status != STATUS_OK) {
        bb_bus_close(bus);
        return status;
    }
    *ret_bus = bus;
    return STATUS_OK;
}

/* --- the watcher ---------------------------------------------------------------------------------- */

static bool is_pipe(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode));
}

/* Waits for a reason to end: an exit status, or -1 when the command ends by itself. */
static int reason_wait(struct connection *c)
{
    struct pollfd fds[] = {{c->quit, POLLIN, 0}, {c->signals, POLLIN, 0}, {STDOUT_FILENO, 0, 0}};
    nfds_t n = c->watch_stdout && is_pipe(STDOUT_FILENO) ? 3 : 2;
    for (;;) {
        if (poll(fds, n, -1) < 0) {
            continue;
        }
        if (fds[0].revents != 0) {
            return -1;
        }
        struct signalfd_siginfo info;
        if (fds[1].revents != 0 && read(c->signals, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
            return STATUS_SIGNAL + (int)info.ssi_signo;
        }
        if (n == 3 && fds[2].revents != 0) {
            return STATUS_OK;
        }
    }
}

static void *watcher_run(void *arg)
{
    struct connection *c = arg;
    int status = reason_wait(c);
    if (status < 0) {
        return NULL;
    }
    atomic_store(&c->ended, status + 1);
    (void)bb_bus_drain(c->bus, DRAIN_MS);
    struct pollfd quit = {c->quit, POLLIN, 0};
    if (poll(&quit, 1, c->grace_ms) <= 0) {
        _exit(status);
    }
    return NULL;
}

static int watcher_start(struct connection *c)
{
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    c->signals = signalfd(-1, &set, SFD_CLOEXEC);
    c->quit = eventfd(0, EFD_CLOEXEC);
    if (c->signals < 0 || c->quit < 0 || pthread_create(&c->watcher, NULL, watcher_run, c) != 0) {
        return fail(NULL, BB_ESYSTEM, "cannot watch for signals");
    }
    c->watched = true;
    return STATUS_OK;
}

int connection_open(struct connection *connection,
                    const struct common *common,
                    const struct bb_options *options,
                    int grace_ms,
                    bool data)
{
    *connection = (struct connection){.signals = -1, .quit = -1, .grace_ms = grace_ms, .watch_stdout = data};
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, SIGINT);
    (void)sigaddset(&set, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
    int status = bus_open(common, options, &connection->bus);
    if (status == STATUS_OK) {
        status = watcher_start(connection);
    }
    if (status == STATUS_OK) {
        status = bus_wait(common, connection->bus);
    }
    if (status != STATUS_OK) {
        connection_close(connection);
    }
    return status;
}

void connection_close(struct connection *connection)
{
    if (connection->watched) {
        (void)eventfd_write(connection->quit, 1);
        (void)pthread_join(connection->watcher, NULL);
        connection->watched = false;
    }
    bb_bus_close(connection->bus);
    connection->bus = NULL;
    if (connection->signals >= 0) {
        (void)close(connection->signals);
        connection->signals = -1;
    }
    if (connection->quit >= 0) {
        (void)close(connection->quit);
        connection->quit = -1;
    }
}

bool connection_ended(struct connection *connection, int *ret_status)
{
    int ended = atomic_load(&connection->ended);
    if (ended == 0) {
        return false;
    }
    *ret_status = ended - 1;
    return true;
}

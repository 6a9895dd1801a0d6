/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bus for a command: opened with the words that explain why it cannot be, watched by a thread that ends the
 * command on SIGINT and SIGTERM, and when nobody reads stdout any more.
 */
#pragma once

#include "bus/busbar.h"
#include "tools/cmd.h"

#include <pthread.h>
#include <stdatomic.h>

struct connection {
    bb_bus *bus;
    int signals; /* signalfd */
    int quit;    /* eventfd: the watcher is to end */
    int grace_ms;
    bool watch_stdout;
    bool watched;
    pthread_t watcher;
    atomic_int ended; /* exit status + 1 when the command is to end; 0 before */
};

/**
 * connection_open() - open a bus and wait until it is ready
 * @options:  name, and what the command wants to have different; the url comes from @common
 * @grace_ms: after a signal the bus is drained, which ends bb_receive(), and the command has this time to end by
 *            itself; 0: the watcher ends the process
 * @data:     the command writes data to stdout until it is stopped: end it when that is closed
 *
 * To be called before there is any other thread. Return: STATUS_OK, or the exit status when the reason was said.
 */
int connection_open(struct connection *connection,
                    const struct common *common,
                    const struct bb_options *options,
                    int grace_ms,
                    bool data);

/** connection_close() - close the bus and end the watcher; fine on a failed one. */
void connection_close(struct connection *connection);

/** connection_ended() - whether the command is to end, and with which status. */
bool connection_ended(struct connection *connection, int *ret_status);

/** connection_start() - bb_bus_open() and bb_bus_wait_ready() alone, with their explanations. */
int connection_start(const struct common *common, const struct bb_options *options, bb_bus **ret_bus);

/** status_of() - the exit status for an error of the library. */
int status_of(int error);

/** particulars() - what @bus has to say of @error beyond its sentence, copied to @to; empty if nothing; returns @to. */
const char *particulars(bb_bus *bus, int error, char *to, size_t size);

/** fail() - say that @what failed because of @error, with the particulars of @bus if not NULL; the exit status. */
int fail(bb_bus *bus, int error, const char *what);

/** timeout_ms() - a duration for the library: rounded up, -1 for a negative one, which is none. */
int timeout_ms(int64_t us);

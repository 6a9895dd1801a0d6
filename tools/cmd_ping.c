/* SPDX-License-Identifier: Apache-2.0 */
/* busbar ping: is the broker there, and how far away. */
#include "proto/base/time.h"

#include "tools/connection.h"
#include "tools/print.h"

#include <inttypes.h>
#include <time.h>

struct ping_options {
    uint64_t count;
    int64_t interval_us;
    int64_t timeout_us;
};

static const struct ping_options defaults = {
    .count = 1,
    .interval_us = BB_US_PER_S,
    .timeout_us = 5 * BB_US_PER_S,
};

#define AT(member) offsetof(struct ping_options, member)

static const struct option_row options[] = {
    {'n', OPTION_COUNT, "count", "N", "ping N times (1)", AT(count), NULL},
    {'i', OPTION_DURATION, "interval", "TIME", "between two pings (1s)", AT(interval_us), NULL},
    {'t', OPTION_DURATION, "timeout", "TIME", "limit for each answer (5s)", AT(timeout_us), NULL},
    {0},
};

static void interval_wait(int64_t us)
{
    struct timespec left = {us / BB_US_PER_S, us % BB_US_PER_S * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &left, &left) != 0) {
    }
}

static int pings_send(bb_bus *bus, const struct ping_options *o)
{
    struct bb_bus_info info;
    bb_bus_get_info(bus, &info);
    for (uint64_t i = 0; i < o->count; i++) {
        if (i > 0) {
            interval_wait(o->interval_us);
        }
        uint64_t rtt_us;
        int r = bb_ping(bus, timeout_ms(o->timeout_us), &rtt_us);
        if (r != 0) {
            return fail(bus, r, "no answer to the ping");
        }
        (void)printf("pong from broker %" PRIu64 ": %.3f ms\n", info.server, (double)rtt_us / 1000);
        if (print_flush() != 0) {
            return print_end();
        }
    }
    return STATUS_OK;
}

static int ping_run(const struct common *common, const void *values, char **operands)
{
    struct connection connection;
    struct bb_options bus = BB_OPTIONS_INIT;
    (void)operands;
    bus.name = "busbar ping";
    int status = connection_open(&connection, common, &bus, 0, true);
    if (status == STATUS_OK) {
        status = pings_send(connection.bus, values);
        connection_close(&connection);
    }
    return status;
}

const struct command command_ping = {
    .name = "ping",
    .operands = "",
    .summary = "measure the round trip to the broker",
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = ping_run,
};

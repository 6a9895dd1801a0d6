/* SPDX-License-Identifier: Apache-2.0 */
/* A bus inside a plain poll() loop, without a thread of its own; publishes to itself: poll_loop [url] */
#include "bus/busbar.h"

#include <poll.h>
#include <stdio.h>

#define NUMBER 1000

static void count_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    int *seen = arg;
    (void)sub;
    for (size_t i = 0; i < n; i++) {
        *seen += events[i].gap == NULL;
    }
}

/* One turn of the loop; other descriptors would be polled here as well. */
static int turn(bb_bus *bus)
{
    struct pollfd pollfd = {.fd = bb_bus_fd(bus), .events = POLLIN, .revents = 0};
    (void)poll(&pollfd, 1, bb_bus_timeout(bus));
    return bb_bus_step(bus);
}

static int run(bb_bus *bus)
{
    struct bb_subscribe_options subscribe = BB_SUBSCRIBE_OPTIONS_INIT;
    const char *patterns[] = {"example/*"};
    bb_subscription *sub = NULL;
    int seen = 0;
    subscribe.patterns = patterns;
    subscribe.n_patterns = 1;
    subscribe.on_events = count_events;
    subscribe.arg = &seen;
    int r = bb_subscribe(bus, &subscribe, 5000, &sub);
    for (int i = 0; i < NUMBER && r == 0; i++) {
        r = bb_publish(bus, "example/tick", BB_PAYLOAD_TEXT, "tick", 4);
    }
    while (r == 0 && seen < NUMBER) {
        r = turn(bus);
    }
    (void)printf("%d events\n", seen);
    return r;
}

int main(int argc, char **argv)
{
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    options.url = argc > 1 ? argv[1] : NULL;
    options.embedded = true;
    int r = bb_bus_open(&options, &bus);
    if (r == 0) {
        r = run(bus);
        (void)bb_bus_close(bus);
    }
    if (r < 0) {
        (void)fprintf(stderr, "%s\n", bb_strerror(r));
    }
    return r < 0;
}

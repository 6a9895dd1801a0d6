/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscriptions that cannot be, beside others that come and go with a callback: what the bus counts is counted under
 * its lock, also by the calls that fail.
 */
#include "proto/base/error.h"

#include "bus/state.h"
#include "tests/check.h"
#include "tests/race/child.h"

#include <pthread.h>

#define PATIENCE_MS 30000
#define N_PAIRS     2
#define N_BAD       20000
#define N_GOOD      300

static bb_bus *bus;

static void ignore(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    (void)sub;
    (void)events;
    (void)n;
    (void)arg;
}

static struct bb_subscribe_options to(const char *const *pattern)
{
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    options.patterns = pattern;
    options.n_patterns = 1;
    options.on_events = ignore;
    return options;
}

static void *subscribe_badly(void *arg)
{
    static const char *const none[] = {"a/*/b"};
    static const char *const all[] = {"*"};
    struct bb_subscribe_options invalid = to(none);
    struct bb_subscribe_options too_long = to(all);
    bb_subscription *sub;
    too_long.durable = arg;
    for (int i = 0; i < N_BAD; i++) {
        CHECK_INT(bb_subscribe(bus, &invalid, PATIENCE_MS, &sub), BB_EPATTERN);
        CHECK_INT(bb_subscribe(bus, &too_long, PATIENCE_MS, &sub), BB_EINVAL);
    }
    return NULL;
}

static void *come_and_go(void *arg)
{
    static const char *const all[] = {"*"};
    struct bb_subscribe_options options = to(all);
    bb_subscription *sub;
    (void)arg;
    for (int i = 0; i < N_GOOD; i++) {
        CHECK_INT(bb_subscribe(bus, &options, PATIENCE_MS, &sub), 0);
        CHECK_INT(bb_unsubscribe(sub, PATIENCE_MS), 0);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static char name[] =
        "a name of a cursor that is a good deal longer than the sixty-four bytes it may have";
    struct child child;
    struct bb_options options = BB_OPTIONS_INIT;
    pthread_t threads[2 * N_PAIRS];
    CHECK_INT(argc, 2);
    child_start(&child, argv[1]);
    options.url = child.url;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    CHECK_INT(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    for (size_t i = 0; i < N_PAIRS; i++) {
        CHECK_INT(pthread_create(&threads[2 * i], NULL, subscribe_badly, name), 0);
        CHECK_INT(pthread_create(&threads[2 * i + 1], NULL, come_and_go, NULL), 0);
    }
    for (size_t i = 0; i < BB_COUNT(threads); i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    CHECK_INT(pthread_mutex_lock(&bus->lock), 0);
    CHECK_INT(bus->n_callbacks, 0);
    CHECK_INT(bus->n_durable, 0);
    CHECK_INT(bb_map_count(&bus->subs), 0);
    CHECK_INT(pthread_mutex_unlock(&bus->lock), 0);
    CHECK_INT(bb_bus_close(bus), 0);
    child_stop(&child);
    return 0;
}

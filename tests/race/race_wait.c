/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that wait, on a handle that mostly has no callbacks: they receive by themselves, one for all, and hand that on. A subscription
 * with a callback comes and goes meanwhile, which gives it back to the I/O thread, and the broker dies once.
 */
#include "proto/base/error.h"

#include "bus/busbar.h"
#include "tests/check.h"
#include "tests/race/child.h"

#include <pthread.h>

#define PATIENCE_MS  30000
#define N_PUBLISHERS 3
#define N_EACH       300
#define N_ROUNDS     40

static bb_bus *bus;

static void *publish(void *arg)
{
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = arg;
    for (int i = 0; i < N_EACH; i++) {
        struct bb_ack ack;
        CHECK_INT(bb_publish_wait(bus, &draft, PATIENCE_MS, &ack), 0);
    }
    return NULL;
}

static void *receive(void *arg)
{
    bb_subscription *sub = arg;
    struct bb_event events[16];
    int r = 0;
    while ((r = bb_receive(sub, events, BB_COUNT(events), PATIENCE_MS)) > 0) {
    }
    CHECK_INT(r, BB_ECLOSED);
    return NULL;
}

static void count(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    uint64_t *counter = arg;
    (void)sub;
    (void)events;
    *counter += n;
}

static void *come_and_go(void *arg)
{
    static const char *const patterns[] = {"wait/*"};
    (void)arg;
    for (int i = 0; i < N_ROUNDS; i++) {
        struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
        bb_subscription *sub;
        uint64_t counter = 0;
        uint64_t number;
        options.patterns = patterns;
        options.n_patterns = BB_COUNT(patterns);
        options.on_events = count;
        options.arg = &counter;
        CHECK_INT(bb_subscribe(bus, &options, PATIENCE_MS, &sub), 0);
        CHECK_INT(bb_unsubscribe(sub, PATIENCE_MS), 0);
        CHECK_INT(bb_ping(bus, PATIENCE_MS, &number), 0);
    }
    return NULL;
}

static pthread_t start(void *(*function)(void *), void *arg)
{
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, function, arg), 0);
    return thread;
}

int main(int argc, char **argv)
{
    static char path[] = "wait/a";
    static const char *const patterns[] = {"wait/*"};
    struct child child;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options to_all = BB_SUBSCRIBE_OPTIONS_INIT;
    pthread_t publishers[N_PUBLISHERS];
    bb_subscription *sub;
    CHECK_INT(argc, 2);
    child_start(&child, argv[1]);
    options.url = child.url;
    options.reconnect_max_ms = 100;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    CHECK_INT(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    to_all.patterns = patterns;
    to_all.n_patterns = 1;
    CHECK_INT(bb_subscribe(bus, &to_all, PATIENCE_MS, &sub), 0);
    pthread_t receiver = start(receive, sub);
    pthread_t visitor = start(come_and_go, NULL);
    for (size_t i = 0; i < N_PUBLISHERS; i++) {
        publishers[i] = start(publish, path);
    }
    CHECK_INT(pthread_join(visitor, NULL), 0);
    child_restart(&child);
    for (size_t i = 0; i < N_PUBLISHERS; i++) {
        CHECK_INT(pthread_join(publishers[i], NULL), 0);
    }
    CHECK_INT(bb_bus_drain(bus, PATIENCE_MS), 0);
    CHECK_INT(pthread_join(receiver, NULL), 0);
    CHECK_INT(bb_bus_close(bus), 0);
    child_stop(&child);
    return 0;
}

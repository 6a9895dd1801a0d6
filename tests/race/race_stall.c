/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A callback that takes so long that the broker gives the client up. When it returns, the bus comes back by
 * itself, and nothing is missing that the broker still has.
 */
#include "proto/base/error.h"

#include "bus/busbar.h"
#include "tests/check.h"
#include "tests/race/child.h"

#include <pthread.h>

#define PATIENCE_MS  30000
#define HEARTBEAT_MS 100
#define N_EACH       100

struct stall {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool is_inside;
    bool may_go;
    uint64_t last;
};

static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct stall *stall = arg;
    (void)sub;
    (void)pthread_mutex_lock(&stall->lock);
    for (size_t i = 0; i < n; i++) {
        CHECK(events[i].gap == NULL);
        CHECK_INT(events[i].sequence, ++stall->last);
    }
    stall->is_inside = true;
    (void)pthread_cond_broadcast(&stall->cond);
    while (!stall->may_go) {
        (void)pthread_cond_wait(&stall->cond, &stall->lock);
    }
    (void)pthread_mutex_unlock(&stall->lock);
}

static void publish(bb_bus *bus)
{
    for (int i = 0; i < N_EACH; i++) {
        CHECK_INT(bb_publish(bus, "race/stall", BB_PAYLOAD_NIL, NULL, 0), 0);
    }
    CHECK_INT(bb_bus_flush(bus, PATIENCE_MS), 0);
}

int main(int argc, char **argv)
{
    const char *const patterns[] = {"race/*"};
    struct child child;
    struct stall stall = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options to_all = BB_SUBSCRIBE_OPTIONS_INIT;
    struct bb_bus_info info;
    bb_bus *stalled;
    bb_bus *other;
    bb_subscription *sub;
    uint64_t n_matches = 1;
    CHECK_INT(argc, 2);
    child_start(&child, argv[1]);
    options.url = child.url;
    options.reconnect_max_ms = 100;
    CHECK_INT(bb_bus_open(&options, &other), 0);
    options.heartbeat_ms = HEARTBEAT_MS;
    CHECK_INT(bb_bus_open(&options, &stalled), 0);
    to_all.patterns = patterns;
    to_all.n_patterns = 1;
    to_all.on_events = on_events;
    to_all.arg = &stall;
    CHECK_INT(bb_subscribe(stalled, &to_all, PATIENCE_MS, &sub), 0);
    publish(other);
    (void)pthread_mutex_lock(&stall.lock);
    while (!stall.is_inside) {
        (void)pthread_cond_wait(&stall.cond, &stall.lock);
    }
    (void)pthread_mutex_unlock(&stall.lock);
    while (n_matches > 0) { /* until the broker has given it up */
        CHECK_INT(bb_request_matches(other, "race/stall", 0, PATIENCE_MS, &n_matches), 0);
    }
    publish(other);
    (void)pthread_mutex_lock(&stall.lock);
    stall.may_go = true;
    (void)pthread_cond_broadcast(&stall.cond);
    while (stall.last < (uint64_t)2 * N_EACH) {
        (void)pthread_cond_wait(&stall.cond, &stall.lock);
    }
    (void)pthread_mutex_unlock(&stall.lock);
    bb_bus_get_info(stalled, &info);
    CHECK_INT(info.connects, 2);
    CHECK_INT(bb_bus_close(stalled), 0);
    CHECK_INT(bb_bus_close(other), 0);
    child_stop(&child);
    return 0;
}

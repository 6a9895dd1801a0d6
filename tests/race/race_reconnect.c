/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads publish and receive on one handle while the broker dies and comes back, again and again; in the end
 * the handle is closed while calls still wait. Each event is answered exactly once, and sequences rise within a
 * life of the broker.
 */
#include "proto/base/error.h"

#include "bus/busbar.h"
#include "tests/check.h"
#include "tests/race/child.h"

#include <pthread.h>
#include <stdatomic.h>

#define PATIENCE_MS  60000
#define N_PUBLISHERS 2
#define N_LIVES      5

struct state {
    bb_bus *bus;
    atomic_bool is_over;
    uint64_t published[N_PUBLISHERS];
    uint64_t acked; /* by callbacks, which run one at a time */
    uint64_t run_last;
    uint64_t n_events;
};

struct publisher {
    struct state *state;
    int number;
};

static void on_ack(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    struct state *state = arg;
    (void)bus;
    CHECK_INT(ack->error, 0);
    state->acked++;
}

static void *publish(void *arg)
{
    struct publisher *publisher = arg;
    struct state *state = publisher->state;
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "race/plain";
    draft.on_ack = on_ack;
    draft.arg = state;
    while (!atomic_load(&state->is_over)) {
        CHECK_INT(bb_publish_event(state->bus, &draft, NULL), 0);
        state->published[publisher->number]++;
    }
    return NULL;
}

static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct state *state = arg;
    (void)sub;
    for (size_t i = 0; i < n; i++) {
        if (events[i].gap != NULL) {
            state->run_last = 0;
        } else {
            CHECK(events[i].sequence > state->run_last);
            state->run_last = events[i].sequence;
            state->n_events++;
        }
    }
}

/* Until the end, which comes when all that came is read. */
static void *receive(void *arg)
{
    bb_subscription *sub = arg;
    struct bb_event events[64];
    int n = 1;
    while (n > 0) {
        n = bb_receive(sub, events, BB_COUNT(events), -1);
    }
    CHECK_INT(n, BB_ECLOSED);
    return NULL;
}

static bb_subscription *subscribe(struct state *state, const char *pattern, bb_events_fn *callback)
{
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    bb_subscription *sub;
    options.patterns = &pattern;
    options.n_patterns = 1;
    options.on_events = callback;
    options.arg = state;
    CHECK_INT(bb_subscribe(state->bus, &options, PATIENCE_MS, &sub), 0);
    return sub;
}

static pthread_t start(void *(*function)(void *), void *arg)
{
    pthread_t thread;
    CHECK_INT(pthread_create(&thread, NULL, function, arg), 0);
    return thread;
}

/* A life of the broker is over when it has taken something. */
static void live(struct state *state)
{
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "race/mark";
    CHECK_INT(bb_publish_wait(state->bus, &draft, PATIENCE_MS, NULL), 0);
}

int main(int argc, char **argv)
{
    struct child child;
    struct bb_options options = BB_OPTIONS_INIT;
    struct state state = {0};
    struct publisher publishers[N_PUBLISHERS];
    struct bb_bus_info info;
    pthread_t threads[N_PUBLISHERS];
    CHECK_INT(argc, 2);
    child_start(&child, argv[1]);
    options.url = child.url;
    options.queue_bytes = 65536;
    options.reconnect_min_ms = 1;
    options.reconnect_max_ms = 20;
    CHECK_INT(bb_bus_open(&options, &state.bus), 0);
    (void)subscribe(&state, "race/plain", on_events);
    pthread_t receiver = start(receive, subscribe(&state, "race/*", NULL));
    for (int i = 0; i < N_PUBLISHERS; i++) {
        publishers[i] = (struct publisher){&state, i};
        threads[i] = start(publish, &publishers[i]);
    }
    live(&state);
    for (int i = 0; i < N_LIVES; i++) {
        child_restart(&child);
        live(&state);
    }
    atomic_store(&state.is_over, true);
    uint64_t n_published = 0;
    for (int i = 0; i < N_PUBLISHERS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
        n_published += state.published[i];
    }
    CHECK_INT(bb_bus_flush(state.bus, PATIENCE_MS), 0);
    CHECK_INT(state.acked, n_published);
    bb_bus_get_info(state.bus, &info);
    CHECK_INT(info.connects, N_LIVES + 1);
    CHECK_INT(bb_bus_drain(state.bus, PATIENCE_MS), 0);
    CHECK_INT(pthread_join(receiver, NULL), 0);
    CHECK_INT(bb_bus_close(state.bus), 0);
    CHECK(state.n_events > 0);
    child_stop(&child);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything at once on one handle: threads that publish, one that receives by call, one that subscribes with
 * callbacks and ends it again, one that asks and flushes. Counters of callbacks are plain on purpose: what a
 * flush or an unsubscribe promises to have ended must be visible without more.
 */
#include "proto/base/error.h"

#include "bus/busbar.h"
#include "tests/check.h"
#include "tests/race/child.h"

#include <pthread.h>

#define PATIENCE_MS  30000
#define N_PUBLISHERS 3
#define N_EACH       4000
#define ACKED_EACH   8
#define N_ROUNDS     60

struct publisher {
    bb_bus *bus;
    int number;
    int acked;
};

static void on_ack(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    struct publisher *publisher = arg;
    (void)bus;
    CHECK_INT(ack->error, 0);
    publisher->acked++;
}

static void *publish(void *arg)
{
    struct publisher *publisher = arg;
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "race/acked";
    draft.on_ack = on_ack;
    draft.arg = publisher;
    for (int i = 0; i < N_EACH; i++) {
        if (i % ACKED_EACH == 0) {
            CHECK_INT(bb_publish_event(publisher->bus, &draft, NULL), 0);
        } else {
            CHECK_INT(bb_publish(publisher->bus, "race/plain", BB_PAYLOAD_TEXT, "x", 1), 0);
        }
        if (i % 500 == 0) {
            CHECK_INT(bb_bus_flush(publisher->bus, PATIENCE_MS), 0);
            CHECK_INT(publisher->acked, i / ACKED_EACH + 1);
        }
    }
    CHECK_INT(bb_bus_flush(publisher->bus, PATIENCE_MS), 0);
    CHECK_INT(publisher->acked, N_EACH / ACKED_EACH);
    return NULL;
}

static void *receive(void *arg)
{
    bb_subscription *sub = arg;
    struct bb_event events[64];
    uint64_t last = 0;
    while (last < (uint64_t)N_PUBLISHERS * N_EACH) {
        int n = bb_receive(sub, events, BB_COUNT(events), PATIENCE_MS);
        CHECK(n > 0);
        for (int i = 0; i < n; i++) {
            CHECK(events[i].gap == NULL);
            CHECK_INT(events[i].sequence, ++last);
        }
    }
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
    bb_bus *bus = arg;
    const char *const patterns[] = {"race/*", "other/?"};
    for (int i = 0; i < N_ROUNDS; i++) {
        struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
        struct bb_subscription_counts counts;
        bb_subscription *sub;
        uint64_t counter = 0;
        options.patterns = patterns;
        options.n_patterns = BB_COUNT(patterns);
        options.from = i % 2 == 0 ? BB_FROM_NEW : BB_FROM_SEQUENCE;
        options.from_value = 1;
        options.on_events = count;
        options.arg = &counter;
        CHECK_INT(bb_subscribe(bus, &options, PATIENCE_MS, &sub), 0);
        bb_subscription_get_counts(sub, &counts);
        CHECK_INT(bb_unsubscribe(sub, i % 3 == 0 ? 0 : PATIENCE_MS), 0);
        CHECK(counter >= counts.events);
    }
    return NULL;
}

static void *ask(void *arg)
{
    bb_bus *bus = arg;
    for (int i = 0; i < N_ROUNDS; i++) {
        struct bb_bus_info info;
        char text[128];
        char *json;
        uint64_t number;
        CHECK_INT(bb_request_status(bus, PATIENCE_MS, &json), 0);
        free(json);
        CHECK_INT(bb_ping(bus, PATIENCE_MS, &number), 0);
        CHECK_INT(bb_request_matches(bus, "race/plain", 1, PATIENCE_MS, &number), 0);
        CHECK_INT(bb_bus_flush(bus, PATIENCE_MS), 0);
        bb_bus_get_info(bus, &info);
        CHECK_INT(info.connects, 1);
        CHECK_INT(bb_bus_state(bus), BB_STATE_READY);
        (void)bb_bus_last_error(bus, text, sizeof(text));
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
    static const char *const patterns[] = {"race/*"};
    struct child child;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options to_all = BB_SUBSCRIBE_OPTIONS_INIT;
    struct publisher publishers[N_PUBLISHERS];
    pthread_t threads[N_PUBLISHERS + 3];
    bb_subscription *sub;
    bb_bus *bus;
    CHECK_INT(argc, 2);
    child_start(&child, argv[1]);
    options.url = child.url;
    options.queue_bytes = 65536;
    options.reconnect_max_ms = 100;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    CHECK_INT(bb_bus_wait_ready(bus, PATIENCE_MS), 0);
    to_all.patterns = patterns;
    to_all.n_patterns = 1;
    CHECK_INT(bb_subscribe(bus, &to_all, PATIENCE_MS, &sub), 0);
    for (int i = 0; i < N_PUBLISHERS; i++) {
        publishers[i] = (struct publisher){bus, i, 0};
        threads[i] = start(publish, &publishers[i]);
    }
    threads[N_PUBLISHERS] = start(receive, sub);
    threads[N_PUBLISHERS + 1] = start(come_and_go, bus);
    threads[N_PUBLISHERS + 2] = start(ask, bus);
    for (size_t i = 0; i < BB_COUNT(threads); i++) {
        CHECK_INT(pthread_join(threads[i], NULL), 0);
    }
    CHECK_INT(bb_bus_close(bus), 0);
    child_stop(&child);
    return 0;
}

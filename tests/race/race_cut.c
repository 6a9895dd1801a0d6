/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections to a broker that lives on are cut in the middle, again and again, while events are published: what
 * is taken is there once and in order, and what is refused is told as refused, however often it was repeated.
 */
#include "proto/base/error.h"

#include "bus/busbar.h"
#include "tests/check.h"
#include "tests/race/child.h"
#include "tests/race/cutter.h"

#include <pthread.h>
#include <stdatomic.h>

#define PATIENCE_MS 60000
#define N_CUTS      40

enum kind {
    PLAIN,
    REFUSED,
    MIXED,
    N_KINDS
};

struct kind_row {
    const char *name;
    const char *path;
    const char *other_path; /* of every second event */
    enum bb_level level;
};

static const struct kind_row kind_rows[N_KINDS] = {
    [PLAIN] = {"cut1", "cut/plain", "cut/plain", BB_LEVEL_ACCEPTED},
    [REFUSED] = {"cut2", "cut/refused", "cut/refused", BB_LEVEL_SYNCED},
    [MIXED] = {"cut3", "cut/mixed", "$cut/mixed", BB_LEVEL_ACCEPTED},
};

struct publisher {
    enum kind kind;
    const struct child *child;
    uint64_t published;
    uint64_t taken; /* by the acks, which come on one thread */
    uint64_t refused;
    uint64_t unknown;
};

static void on_ack(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    struct publisher *publisher = arg;
    (void)bus;
    if (ack->error == BB_EUNKNOWNRESULT) {
        publisher->unknown++;
    } else if (ack->error != 0) {
        CHECK_INT(ack->error, publisher->kind == REFUSED ? BB_EUNSUPPORTED : BB_EREFUSED);
        publisher->refused++;
    } else {
        publisher->taken++;
    }
}

static void *publish(void *arg)
{
    struct publisher *publisher = arg;
    const struct kind_row *row = &kind_rows[publisher->kind];
    struct cutter cutter;
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_draft draft = BB_DRAFT_INIT;
    struct bb_bus_info info;
    bb_bus *bus;
    cutter_start(&cutter, publisher->child, row->name, N_CUTS);
    options.url = cutter.url;
    options.queue_bytes = 65536;
    options.batch_bytes = 1024;
    options.reconnect_min_ms = 1;
    options.reconnect_max_ms = 10;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    draft.kind = BB_PAYLOAD_BINARY;
    draft.data = &publisher->published;
    draft.len = sizeof(publisher->published);
    draft.level = row->level;
    draft.on_ack = on_ack;
    draft.arg = publisher;
    while (atomic_load(&cutter.n_cut) < N_CUTS) {
        draft.path = ++publisher->published % 2 == 0 ? row->path : row->other_path;
        CHECK_INT(bb_publish_event(bus, &draft, NULL), 0);
    }
    CHECK(bb_bus_flush(bus, PATIENCE_MS) != BB_ETIMEOUT);
    bb_bus_get_info(bus, &info);
    CHECK(info.repeated > 0);
    CHECK(info.connects > 1);
    CHECK_INT(bb_bus_close(bus), 0);
    cutter_stop(&cutter);
    return NULL;
}

/* --- the other side, whose connection nobody cuts --------------------------------------------------- */

struct watch {
    pthread_mutex_t lock;
    pthread_cond_t seen_more;
    uint64_t last[N_KINDS];
    uint64_t seen[N_KINDS];
};

static enum kind kind_of(const struct bb_event *event)
{
    int kind = 0;
    while (kind < N_KINDS && (strlen(kind_rows[kind].path) != event->path_len ||
                              memcmp(kind_rows[kind].path, event->path, event->path_len) != 0)) {
        kind++;
    }
    CHECK(kind < N_KINDS);
    return (enum kind)kind;
}

static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct watch *watch = arg;
    (void)sub;
    (void)pthread_mutex_lock(&watch->lock);
    for (size_t i = 0; i < n; i++) {
        uint64_t number;
        CHECK(events[i].gap == NULL);
        CHECK_INT(events[i].len, sizeof(number));
        memcpy(&number, events[i].data, sizeof(number));
        enum kind kind = kind_of(&events[i]);
        CHECK(number > watch->last[kind]);
        watch->last[kind] = number;
        watch->seen[kind]++;
    }
    (void)pthread_cond_broadcast(&watch->seen_more);
    (void)pthread_mutex_unlock(&watch->lock);
}

static void wait_seen(struct watch *watch, enum kind kind, uint64_t n)
{
    (void)pthread_mutex_lock(&watch->lock);
    while (watch->seen[kind] < n) {
        (void)pthread_cond_wait(&watch->seen_more, &watch->lock);
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

static bb_bus *watch_all(const struct child *child, struct watch *watch)
{
    const char *const patterns[] = {"cut/*"};
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options to_all = BB_SUBSCRIBE_OPTIONS_INIT;
    bb_bus *bus;
    bb_subscription *sub;
    options.url = child->url;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    to_all.patterns = patterns;
    to_all.n_patterns = 1;
    to_all.on_events = on_events;
    to_all.arg = watch;
    CHECK_INT(bb_subscribe(bus, &to_all, PATIENCE_MS, &sub), 0);
    return bus;
}

int main(int argc, char **argv)
{
    struct child child;
    struct watch watch = {.lock = PTHREAD_MUTEX_INITIALIZER, .seen_more = PTHREAD_COND_INITIALIZER};
    struct publisher publishers[N_KINDS];
    pthread_t threads[N_KINDS];
    CHECK_INT(argc, 2);
    child_start(&child, argv[1]);
    bb_bus *watcher = watch_all(&child, &watch);
    for (int i = 0; i < N_KINDS; i++) {
        publishers[i] = (struct publisher){.kind = (enum kind)i, .child = &child};
        CHECK_INT(pthread_create(&threads[i], NULL, publish, &publishers[i]), 0);
    }
    for (int i = 0; i < N_KINDS; i++) {
        const struct publisher *publisher = &publishers[i];
        CHECK_INT(pthread_join(threads[i], NULL), 0);
        CHECK_INT(publisher->taken + publisher->refused + publisher->unknown, publisher->published);
    }
    wait_seen(&watch, PLAIN, publishers[PLAIN].published);
    wait_seen(&watch, MIXED, publishers[MIXED].published / 2);
    CHECK_INT(bb_bus_close(watcher), 0);
    CHECK_INT(publishers[PLAIN].taken, publishers[PLAIN].published);
    CHECK_INT(watch.seen[PLAIN], publishers[PLAIN].published);
    CHECK_INT(publishers[REFUSED].refused, publishers[REFUSED].published);
    CHECK_INT(watch.seen[REFUSED], 0);
    CHECK_INT(watch.seen[MIXED], publishers[MIXED].published / 2);
    CHECK(publishers[MIXED].taken <= watch.seen[MIXED]);
    CHECK(publishers[MIXED].refused > 0);
    CHECK(publishers[MIXED].unknown > 0);
    child_stop(&child);
    return 0;
}

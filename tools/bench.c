/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Threads: a publisher and a subscriber write only what is their own, main reads it when it has joined them. They
 * share `expected`, which tells the subscribers when they have all.
 */
#include "tools/bench.h"

#include "proto/base/time.h"

#include "tools/connection.h"
#include "tools/print.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RECEIVE_MAX  256
#define RECEIVE_MS   100
#define SETTLE_US    (3 * BB_US_PER_S) /* silence after which nothing more is expected */
#define FLUSH_MS     30000
#define PATH_MAX_LEN 64

struct stamp {
    uint64_t time_us;
    uint32_t publisher;
    uint32_t number;
};

_Static_assert(sizeof(struct stamp) == BENCH_STAMP_BYTES, "a stamp has no padding");

struct bench {
    const struct bench_plan *plan;
    char path[PATH_MAX_LEN]; /* below it, each publisher has a segment */
    int64_t start_us;
    atomic_uint_fast64_t expected; /* events each subscriber is to account for; UINT64_MAX while publishing */
};

struct bench_publisher {
    struct bench *bench;
    bb_bus *bus;
    pthread_t thread;
    bool started;
    uint32_t number;
    uint64_t published;
    uint64_t refused;
    int64_t end_us;
    int error;
};

struct bench_subscriber {
    struct bench *bench;
    bb_bus *bus;
    bb_subscription *subscription;
    pthread_t thread;
    bool started;
    uint32_t *last; /* number of the last event by publisher */
    uint64_t delivered;
    uint64_t gapped;
    uint64_t disordered;
    int64_t last_us;
    int error;
    struct histogram latency_us;
};

/* --- publishers ----------------------------------------------------------------------------------- */

static void until_wait(int64_t due_us)
{
    struct timespec at = {due_us / BB_US_PER_S, due_us % BB_US_PER_S * 1000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR) {
    }
}

static bool has_more(const struct bench_publisher *p, int64_t now)
{
    const struct bench_plan *plan = p->bench->plan;
    return plan->count > 0 ? p->published < plan->count : now - p->bench->start_us < plan->time_us;
}

static int publish_all(struct bench_publisher *p, uint8_t *payload)
{
    const struct bench_plan *plan = p->bench->plan;
    char path[PATH_MAX_LEN + 16];
    (void)snprintf(path, sizeof(path), "%s/%" PRIu32, p->bench->path, p->number);
    int64_t now = bb_clock_monotonic_us();
    while (has_more(p, now)) {
        struct stamp stamp = {(uint64_t)now, p->number, (uint32_t)p->published + 1};
        memcpy(payload, &stamp, sizeof(stamp));
        int r = bb_publish(p->bus, path, BB_PAYLOAD_BINARY, payload, plan->size);
        if (r != 0) {
            return r;
        }
        p->published++;
        if (plan->rate > 0) {
            until_wait(p->bench->start_us + (int64_t)((double)p->published * 1e6 / plan->rate));
        }
        now = bb_clock_monotonic_us();
    }
    return 0;
}

static void *publisher_run(void *arg)
{
    struct bench_publisher *p = arg;
    uint8_t *payload = calloc(1, p->bench->plan->size);
    p->error = payload != NULL ? publish_all(p, payload) : BB_ENOMEM;
    int r = bb_bus_flush(p->bus, FLUSH_MS);
    struct bb_bus_info info;
    bb_bus_get_info(p->bus, &info);
    p->refused = info.refused;
    p->end_us = bb_clock_monotonic_us();
    if (p->error == 0 && info.refused == 0) {
        p->error = r;
    }
    free(payload);
    return NULL;
}

/* --- subscribers ---------------------------------------------------------------------------------- */

static void event_judge(struct bench_subscriber *s, const struct bb_event *event, int64_t now)
{
    struct stamp stamp;
    if (event->gap != NULL) {
        s->gapped += event->gap->count != BB_UNKNOWN ? event->gap->count : 0;
        return;
    }
    s->delivered++;
    if (event->len < sizeof(stamp)) {
        s->disordered++;
        return;
    }
    memcpy(&stamp, event->data, sizeof(stamp));
    if (stamp.publisher >= s->bench->plan->publishers || stamp.number <= s->last[stamp.publisher]) {
        s->disordered++;
        return;
    }
    s->last[stamp.publisher] = stamp.number;
    histogram_add(&s->latency_us, (uint64_t)BB_MAX(now - (int64_t)stamp.time_us, 0));
}

static void *subscriber_run(void *arg)
{
    struct bench_subscriber *s = arg;
    struct bb_event events[RECEIVE_MAX];
    int64_t heard_us = s->bench->start_us;
    s->last_us = heard_us;
    for (;;) {
        uint64_t expected = atomic_load(&s->bench->expected);
        if (s->delivered + s->gapped >= expected) {
            break;
        }
        int r = bb_receive(s->subscription, events, RECEIVE_MAX, RECEIVE_MS);
        int64_t now = bb_clock_monotonic_us();
        if (r == BB_ETIMEOUT) {
            if (expected != UINT64_MAX && now - heard_us > SETTLE_US) {
                break;
            }
            heard_us = expected == UINT64_MAX ? now : heard_us;
            continue;
        }
        if (r < 0) {
            s->error = r;
            break;
        }
        heard_us = now;
        s->last_us = now;
        for (int i = 0; i < r; i++) {
            event_judge(s, &events[i], now);
        }
    }
    return NULL;
}

static int subscriber_open(struct bench_subscriber *s, const struct common *common)
{
    char pattern[PATH_MAX_LEN + 4];
    (void)snprintf(pattern, sizeof(pattern), "%s/*", s->bench->path);
    const char *patterns[] = {pattern};
    s->last = calloc(s->bench->plan->publishers, sizeof(*s->last));
    if (s->last == NULL) {
        return fail(NULL, BB_ENOMEM, "cannot start");
    }
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar bench sub";
    int status = connection_start(common, &bus, &s->bus);
    if (status != STATUS_OK) {
        return status;
    }
    struct bb_subscribe_options subscribe = BB_SUBSCRIBE_OPTIONS_INIT;
    subscribe.patterns = patterns;
    subscribe.n_patterns = 1;
    int r = bb_subscribe(s->bus, &subscribe, timeout_ms(common->connect_timeout_us), &s->subscription);
    return r != 0 ? fail(s->bus, r, "cannot subscribe") : STATUS_OK;
}

static int publisher_open(struct bench_publisher *p, const struct common *common)
{
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar bench pub";
    bus.unbatched = p->bench->plan->unbatched;
    if (p->bench->plan->batch > 0) {
        bus.batch_bytes = p->bench->plan->batch;
    }
    return connection_start(common, &bus, &p->bus);
}

/* --- all of them ---------------------------------------------------------------------------------- */

struct crew {
    struct bench bench;
    struct bench_publisher *publishers;
    struct bench_subscriber *subscribers;
};

static int crew_open(struct crew *crew, const struct common *common)
{
    const struct bench_plan *plan = crew->bench.plan;
    int status = STATUS_OK;
    crew->publishers = calloc(plan->publishers, sizeof(*crew->publishers));
    crew->subscribers = calloc(plan->subscribers + 1, sizeof(*crew->subscribers));
    if (crew->publishers == NULL || crew->subscribers == NULL) {
        return fail(NULL, BB_ENOMEM, "cannot start");
    }
    for (uint64_t i = 0; status == STATUS_OK && i < plan->subscribers; i++) {
        crew->subscribers[i].bench = &crew->bench;
        status = subscriber_open(&crew->subscribers[i], common);
    }
    for (uint64_t i = 0; status == STATUS_OK && i < plan->publishers; i++) {
        crew->publishers[i].bench = &crew->bench;
        crew->publishers[i].number = (uint32_t)i;
        status = publisher_open(&crew->publishers[i], common);
    }
    return status;
}

static void crew_close(struct crew *crew)
{
    const struct bench_plan *plan = crew->bench.plan;
    for (uint64_t i = 0; crew->publishers != NULL && i < plan->publishers; i++) {
        bb_bus_close(crew->publishers[i].bus);
    }
    for (uint64_t i = 0; crew->subscribers != NULL && i < plan->subscribers; i++) {
        bb_bus_close(crew->subscribers[i].bus);
        free(crew->subscribers[i].last);
    }
    free(crew->publishers);
    free(crew->subscribers);
}

/* Starts all, and ends when all have ended, also when some could not be started. */
static int crew_run(struct crew *crew)
{
    const struct bench_plan *plan = crew->bench.plan;
    int failed = 0;
    uint64_t expected = 0;
    crew->bench.start_us = bb_clock_monotonic_us();
    for (uint64_t i = 0; i < plan->subscribers; i++) {
        struct bench_subscriber *s = &crew->subscribers[i];
        s->started = pthread_create(&s->thread, NULL, subscriber_run, s) == 0;
        failed += !s->started;
    }
    for (uint64_t i = 0; i < plan->publishers && failed == 0; i++) {
        struct bench_publisher *p = &crew->publishers[i];
        p->started = pthread_create(&p->thread, NULL, publisher_run, p) == 0;
        failed += !p->started;
    }
    for (uint64_t i = 0; i < plan->publishers; i++) {
        if (crew->publishers[i].started) {
            (void)pthread_join(crew->publishers[i].thread, NULL);
            expected += crew->publishers[i].published - crew->publishers[i].refused;
        }
    }
    atomic_store(&crew->bench.expected, expected);
    for (uint64_t i = 0; i < plan->subscribers; i++) {
        if (crew->subscribers[i].started) {
            (void)pthread_join(crew->subscribers[i].thread, NULL);
        }
    }
    return failed > 0 ? fail(NULL, BB_ESYSTEM, "cannot start a thread") : STATUS_OK;
}

static int crew_judge(const struct crew *crew, struct bench_result *result)
{
    const struct bench_plan *plan = crew->bench.plan;
    int64_t start_us = crew->bench.start_us;
    for (uint64_t i = 0; i < plan->publishers; i++) {
        const struct bench_publisher *p = &crew->publishers[i];
        if (p->error != 0) {
            return fail(p->bus, p->error, "a publisher stopped");
        }
        result->published += p->published - p->refused;
        result->refused += p->refused;
        result->publish_s = BB_MAX(result->publish_s, (double)(p->end_us - start_us) / 1e6);
    }
    for (uint64_t i = 0; i < plan->subscribers; i++) {
        const struct bench_subscriber *s = &crew->subscribers[i];
        if (s->error != 0) {
            return fail(s->bus, s->error, "a subscriber stopped");
        }
        uint64_t accounted = s->delivered + s->gapped;
        result->delivered += s->delivered;
        result->gapped += s->gapped;
        result->disordered += s->disordered;
        result->missing += accounted < result->published ? result->published - accounted : 0;
        result->deliver_s = BB_MAX(result->deliver_s, (double)(s->last_us - start_us) / 1e6);
        histogram_add_all(&result->latency_us, &s->latency_us);
    }
    return STATUS_OK;
}

int bench_run(const struct common *common, const struct bench_plan *plan, struct bench_result *ret_result)
{
    struct crew crew = {.bench.plan = plan};
    atomic_init(&crew.bench.expected, UINT64_MAX);
    (void)snprintf(crew.bench.path, sizeof(crew.bench.path), "busbar-bench/%" PRIx64,
                   (uint64_t)bb_clock_wall_us());
    int status = crew_open(&crew, common);
    if (status == STATUS_OK) {
        status = crew_run(&crew);
    }
    if (status == STATUS_OK) {
        status = crew_judge(&crew, ret_result);
    }
    crew_close(&crew);
    return status;
}

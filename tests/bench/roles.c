/* SPDX-License-Identifier: Apache-2.0 */
/* The processes of a run beside its broker. They end when the driver kills them. */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_S     UINT64_C(1000000000)
#define TIME_OFFSET  8U                   /* in a payload; before it the number of the publisher */
#define WAKE_NS      UINT64_C(200000)     /* at a rate, a publisher wakes at most every so often */
#define LOST_NS      UINT64_C(2000000000) /* a window that stays full this long has lost something */
#define PROBE_US     5000
#define PROBES_QUIET 10
#define STALL_US     50
#define FLUSH_NS     UINT64_C(5000000)

void bench_received(const void *payload, size_t len)
{
    const uint8_t *bytes = payload;
    struct bench_subscriber *me = &bench_board->subscribers[bench_subscriber_index];
    if (len != bench_config.size || bytes[0] >= BENCH_ROLES_MAX) {
        atomic_store(&bench_board->lost, true);
        return;
    }
    /* The only writer of this counter: no atomic addition is needed. */
    uint64_t received = atomic_load_explicit(&me->received[bytes[0]], memory_order_relaxed);
    atomic_store_explicit(&me->received[bytes[0]], received + 1, memory_order_relaxed);
    if (bench_config.rate > 0) {
        uint64_t sent_ns = 0;
        memcpy(&sent_ns, bytes + TIME_OFFSET, sizeof(sent_ns));
        if (sent_ns != 0) {
            bench_histogram_add(bench_now_ns() - sent_ns);
        }
    }
}

static void set_path(const struct bench_contestant *contestant, uint32_t pair, char path[BENCH_PATH_LEN + 1])
{
    (void)snprintf(path, BENCH_PATH_LEN + 1, "evt%corder%ccreated%c%02u", contestant->separator,
                   contestant->separator, contestant->separator, (unsigned)(pair % 100));
}

static bool hears(uint64_t subscriber, uint32_t publisher)
{
    return bench_config.pairs == 0 || subscriber == publisher;
}

/* What the slowest subscriber has of this publisher. */
static uint64_t received_by_all(uint32_t publisher)
{
    uint64_t least = UINT64_MAX;
    for (uint64_t i = 0; i < bench_config.subscribers; i++) {
        if (hears(i, publisher)) {
            const struct bench_subscriber *subscriber = &bench_board->subscribers[i];
            uint64_t received = atomic_load_explicit(&subscriber->received[publisher], memory_order_relaxed);
            least = received < least ? received : least;
        }
    }
    return least;
}

static void flush(const struct bench_contestant *contestant, void *publisher)
{
    if (contestant->flush != NULL) {
        contestant->flush(publisher);
    }
}

/* Publishes until every subscriber hears it, then waits until those events have arrived. */
static uint64_t probe(const struct bench_contestant *contestant,
                      void *publisher,
                      uint32_t index,
                      const char *path,
                      void *payload)
{
    uint64_t sent = 0;
    for (; received_by_all(index) == 0; sent++) {
        contestant->publish(publisher, path, payload, bench_config.size);
        flush(contestant, publisher);
        bench_sleep_us(PROBE_US);
    }
    uint64_t last = 0;
    for (unsigned quiet = 0; quiet < PROBES_QUIET;) {
        uint64_t received = received_by_all(index);
        quiet = received == last ? quiet + 1 : 0;
        last = received;
        flush(contestant, publisher);
        bench_sleep_us(PROBE_US);
    }
    return last;
}

struct flow {
    const struct bench_contestant *contestant;
    void *publisher;
    uint32_t index;
    char path[BENCH_PATH_LEN + 1];
    uint8_t *payload;
    uint64_t base; /* received before the start */
};

static void publish_flood(const struct flow *flow)
{
    struct bench_publisher *me = &bench_board->publishers[flow->index];
    uint64_t received = 0;
    uint64_t stall_ns = 0;
    for (uint64_t sent = 0;;) {
        if (sent - received >= bench_config.window) {
            received = received_by_all(flow->index) - flow->base;
        }
        if (sent - received < bench_config.window) {
            stall_ns = 0;
            flow->contestant->publish(flow->publisher, flow->path, flow->payload, bench_config.size);
            atomic_store_explicit(&me->sent, ++sent, memory_order_relaxed);
            continue;
        }
        uint64_t now = bench_now_ns();
        if (stall_ns == 0 || now - stall_ns > FLUSH_NS) {
            flush(flow->contestant, flow->publisher);
        }
        stall_ns = stall_ns == 0 ? now : stall_ns;
        if (now - stall_ns > LOST_NS) {
            atomic_store(&bench_board->lost, true);
            bench_fail("nothing arrives any more, %llu events are missing",
                       (unsigned long long)(sent - received));
        }
        bench_sleep_us(STALL_US);
    }
}

static void publish_paced(const struct flow *flow)
{
    struct bench_publisher *me = &bench_board->publishers[flow->index];
    uint64_t gap = NS_PER_S / bench_config.rate;
    gap = gap < WAKE_NS ? WAKE_NS : gap;
    uint64_t at_once = (bench_config.rate * gap + NS_PER_S / 2) / NS_PER_S;
    uint64_t sent = 0;
    for (uint64_t next = bench_now_ns() + gap;; next += gap) {
        bench_sleep_until_ns(next);
        for (uint64_t i = 0; i < at_once; i++, sent++) {
            uint64_t now = bench_now_ns();
            memcpy(flow->payload + TIME_OFFSET, &now, sizeof(now));
            flow->contestant->publish(flow->publisher, flow->path, flow->payload, bench_config.size);
        }
        flush(flow->contestant, flow->publisher);
        atomic_store_explicit(&me->sent, sent, memory_order_relaxed);
    }
}

uint8_t *bench_payload_new(uint32_t index)
{
    uint8_t *payload = malloc(bench_config.size);
    if (payload == NULL) {
        bench_fail("no memory");
    }
    for (size_t i = 0; i < bench_config.size; i++) {
        payload[i] = (uint8_t)(i * 31 + 7);
    }
    memset(payload, 0, (size_t)2 * TIME_OFFSET);
    payload[0] = (uint8_t)index;
    return payload;
}

static void wait_start(struct bench_publisher *me)
{
    atomic_store(&me->ready, true);
    while (!atomic_load(&bench_board->start)) {
        bench_sleep_us(500);
    }
}

void bench_publisher_run(const struct bench_contestant *contestant, uint32_t index)
{
    struct flow flow = {.contestant = contestant, .index = index, .payload = bench_payload_new(index)};
    set_path(contestant, bench_config.pairs != 0 ? index : 0, flow.path);
    flow.publisher = contestant->publisher_open(index);
    flow.base = probe(contestant, flow.publisher, index, flow.path, flow.payload);
    wait_start(&bench_board->publishers[index]);
    if (bench_config.rate > 0) {
        publish_paced(&flow);
    } else {
        publish_flood(&flow);
    }
    _exit(EXIT_FAILURE);
}

void bench_subscriber_run(const struct bench_contestant *contestant, uint32_t index)
{
    char path[BENCH_PATH_LEN + 1];
    bench_subscriber_index = index;
    set_path(contestant, bench_config.pairs != 0 ? index : 0, path);
    void *subscriber = contestant->subscriber_open(path);
    atomic_store(&bench_board->subscribers[index].ready, true);
    for (;;) {
        contestant->receive(subscriber);
    }
}

void bench_requester_run(const struct bench_contestant *contestant, uint32_t index)
{
    uint8_t *payload = bench_payload_new(index);
    struct bench_publisher *me = &bench_board->publishers[index];
    void *requester = contestant->requester_open();
    for (unsigned i = 0; i < PROBES_QUIET; i++) {
        contestant->request(requester, payload, bench_config.size);
    }
    wait_start(me);
    uint64_t next = bench_now_ns();
    for (uint64_t sent = 1;; sent++) {
        if (bench_config.rate > 0) {
            next += NS_PER_S / bench_config.rate;
            bench_sleep_until_ns(next);
        }
        uint64_t begin = bench_now_ns();
        contestant->request(requester, payload, bench_config.size);
        bench_histogram_add(bench_now_ns() - begin);
        atomic_store(&me->sent, sent);
    }
}

void bench_replier_ready(void)
{
    atomic_store(&bench_board->subscribers[0].ready, true);
}

void bench_replier_run(const struct bench_contestant *contestant, uint32_t index)
{
    (void)index;
    contestant->reply();
    _exit(EXIT_FAILURE);
}

void bench_clients_run(const struct bench_contestant *contestant, uint32_t index)
{
    uint64_t begin = bench_now_ns();
    contestant->clients_open(bench_config.clients);
    atomic_store(&bench_board->connect_ns, bench_now_ns() - begin);
    atomic_store(&bench_board->publishers[index].ready, true);
    for (;;) {
        (void)pause();
    }
}

bool bench_is_kept(void)
{
    return bench_config.mode == BENCH_SYNCED || bench_config.mode == BENCH_READ;
}

void bench_synced_ready(uint32_t index)
{
    wait_start(&bench_board->publishers[index]);
}

void bench_acked(uint32_t index, uint64_t n)
{
    struct bench_publisher *me = &bench_board->publishers[index]; /* its only writer */
    uint64_t sent = atomic_load_explicit(&me->sent, memory_order_relaxed);
    atomic_store_explicit(&me->sent, sent + n, memory_order_relaxed);
}

void bench_synced_run(const struct bench_contestant *contestant, uint32_t index)
{
    contestant->synced(index);
    _exit(EXIT_FAILURE);
}

void bench_filler_run(const struct bench_contestant *contestant, uint32_t index)
{
    char path[BENCH_PATH_LEN + 1];
    set_path(contestant, 0, path);
    contestant->fill(path, bench_config.events);
    atomic_store(&bench_board->publishers[index].ready, true);
    for (;;) {
        (void)pause();
    }
}

void bench_reader_run(const struct bench_contestant *contestant, uint32_t index)
{
    char path[BENCH_PATH_LEN + 1];
    bench_subscriber_index = index;
    set_path(contestant, 0, path);
    void *reader = contestant->reader_open(path);
    for (;;) {
        contestant->receive(reader);
    }
}

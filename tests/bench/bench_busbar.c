/* SPDX-License-Identifier: Apache-2.0 */
/*
 * busbar: busbard and libbusbar with their default options, one bb_publish() for each event.
 *
 * The one exception is the ring of a channel: several publishers may have more outstanding than the default
 * holds, and a subscriber that falls behind the ring loses events, so it grows with their number.
 */
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/busbar.h"
#include "tests/bench/bench.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#define WAIT_MS        10000
#define RECEIVE_US     100000
#define FILL_MS        60000
#define RING_MIB       UINT64_C(16) /* of the broker, for each publisher: its defaults for one */
#define MEMORY_MIB     UINT64_C(256)
#define REQUEST_PATH   "evt/order/request/00"
#define REPLY_PATH     "evt/order/reply/0000"
#define EVENTS_AT_ONCE 256

static pid_t broker_start(void)
{
    char ring[24];
    char memory[24];
    (void)snprintf(ring, sizeof(ring), "%lluM", (unsigned long long)(RING_MIB * bench_config.publishers));
    (void)snprintf(memory, sizeof(memory), "%lluM",
                   (unsigned long long)(MEMORY_MIB * bench_config.publishers));
    const char *argv[16] = {
        bench_config.busbard, "--listen", bench_endpoint(0), "--ring", ring, "--memory", memory,
    };
    size_t n = 7;
    if (bench_is_kept()) {
        argv[n++] = "--data";
        argv[n++] = bench_file("data");
    }
    argv[n] = bench_config.option;
    pid_t pid = bench_exec(argv);
    (void)close(bench_connect(0));
    return pid;
}

static void check(bb_bus *bus, int r, const char *what)
{
    char text[256] = "";
    if (r < 0) {
        if (bus != NULL) {
            (void)bb_bus_last_error(bus, text, sizeof(text));
        }
        bench_fail("%s: %s; %s", what, bb_strerror(r), text);
    }
}

static bb_bus *bus_open(void)
{
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus = NULL;
    options.url = bench_endpoint(0);
    options.unbatched = bench_config.unbatched != 0;
    options.embedded = bench_config.embedded != 0;
    check(NULL, bb_bus_open(&options, &bus), "bb_bus_open");
    check(bus, bb_bus_wait_ready(bus, WAIT_MS), "bb_bus_wait_ready");
    return bus;
}

static bb_subscription *subscribe(bb_bus *bus, const char *pattern, bb_events_fn *on_events)
{
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    bb_subscription *sub = NULL;
    options.patterns = &pattern;
    options.n_patterns = 1;
    options.on_events = on_events;
    check(bus, bb_subscribe(bus, &options, WAIT_MS, &sub), "bb_subscribe");
    return sub;
}

/* A bare DEALER. Nothing is limited: the window bounds what is queued. */
static void *plain_open(void)
{
    static const int none = 0;
    void *zmq = zmq_ctx_new();
    void *socket = zmq != NULL ? zmq_socket(zmq, ZMQ_DEALER) : NULL;
    if (socket == NULL || zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof(none)) != 0 ||
        zmq_connect(socket, bench_endpoint(0)) != 0) {
        bench_fail("no plain publisher: %s", zmq_strerror(zmq_errno()));
    }
    return socket;
}

static void plain_publish(void *socket, const char *path, const void *data, size_t len)
{
    uint8_t head[1 + 2 * BB_MP_MAX_HEAD + BB_PATH_MAX];
    size_t path_len = strlen(path);
    uint8_t *p = bb_mp_put_str_head(bb_mp_put_array_head(head, 2), (uint32_t)path_len);
    memcpy(p, path, path_len);
    p = bb_mp_put_bin_head(p + path_len, (uint32_t)len);
    size_t head_len = (size_t)(p - head);
    zmq_msg_t msg;
    if (zmq_msg_init_size(&msg, head_len + len) != 0) {
        bench_fail("no memory for a message");
    }
    memcpy(zmq_msg_data(&msg), head, head_len);
    memcpy((uint8_t *)zmq_msg_data(&msg) + head_len, data, len);
    if (zmq_msg_send(&msg, socket, 0) < 0) {
        bench_fail("zmq_msg_send: %s", zmq_strerror(zmq_errno()));
    }
}

static void *publisher_open(uint32_t index)
{
    (void)index;
    return bench_config.plain != 0 ? plain_open() : bus_open();
}

static void publish(void *publisher, const char *path, const void *data, size_t len)
{
    if (bench_config.plain != 0) {
        plain_publish(publisher, path, data, len);
        return;
    }
    check(publisher, bb_publish(publisher, path, BB_PAYLOAD_BINARY, data, len), "bb_publish");
}

static void take_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    (void)sub;
    (void)arg;
    for (size_t i = 0; i < n; i++) {
        if (events[i].gap != NULL) {
            atomic_store(&bench_board->lost, true);
        } else {
            bench_received(events[i].data, events[i].len);
        }
    }
}

static void *subscriber_open(const char *path)
{
    return subscribe(bus_open(), path, take_events);
}

static void receive(void *subscriber)
{
    (void)subscriber; /* the callback does it */
    bench_sleep_us(RECEIVE_US);
}

static void answer_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    (void)arg;
    for (size_t i = 0; i < n; i++) {
        publish(bb_subscription_bus(sub), REPLY_PATH, events[i].data, events[i].len);
    }
}

static void reply(void)
{
    bb_bus *bus = bus_open();
    (void)subscribe(bus, REQUEST_PATH, answer_events);
    bench_replier_ready();
    bool is_embedded = bench_config.embedded != 0;
    struct pollfd readable = {.fd = is_embedded ? bb_bus_fd(bus) : -1, .events = POLLIN};
    for (;;) {
        (void)poll(&readable, 1, is_embedded ? bb_bus_timeout(bus) : -1);
        if (is_embedded) {
            check(bus, bb_bus_step(bus), "bb_bus_step");
        }
    }
}

static void *requester_open(void)
{
    return subscribe(bus_open(), REPLY_PATH, NULL);
}

static void request(void *requester, void *data, size_t len)
{
    struct bb_event events[EVENTS_AT_ONCE];
    bb_bus *bus = bb_subscription_bus(requester);
    publish(bus, REQUEST_PATH, data, len);
    check(bus, bb_receive(requester, events, EVENTS_AT_ONCE, WAIT_MS), "bb_receive");
}

/* Clients without a library of ours: a bare DEALER each that said hello. */
static void clients_open(uint64_t n)
{
    static const char hello[] = "{\"op\":\"hello\",\"corr\":1,\"version\":1,\"client\":null,\"epoch\":0}";
    char welcome[1024];
    void *zmq = zmq_ctx_new();
    void **sockets = calloc(n, sizeof(*sockets));
    if (zmq == NULL || sockets == NULL || zmq_ctx_set(zmq, ZMQ_MAX_SOCKETS, (int)n + 1) != 0) {
        bench_fail("no context for the clients");
    }
    for (uint64_t i = 0; i < n; i++) {
        sockets[i] = zmq_socket(zmq, ZMQ_DEALER);
        if (sockets[i] == NULL || zmq_connect(sockets[i], bench_endpoint(0)) != 0 ||
            zmq_send(sockets[i], hello, sizeof(hello) - 1, 0) < 0) {
            bench_fail("a client cannot say hello: %s", zmq_strerror(zmq_errno()));
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        if (zmq_recv(sockets[i], welcome, sizeof(welcome), 0) < 0) {
            bench_fail("a client was not welcome: %s", zmq_strerror(zmq_errno()));
        }
    }
    free(sockets); /* they stay open */
}

/* --- kept on disk ------------------------------------------------------------------------------ */

struct synced {
    uint32_t index;
    _Atomic uint64_t n_acked;
    atomic_bool waits; /* for more of them */
    pthread_mutex_t mutex;
    pthread_cond_t acked;
};

static void take_ack(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    struct synced *me = arg;
    check(bus, ack->error, "an event was refused");
    if (ack->level != BB_LEVEL_SYNCED) {
        bench_fail("an acknowledgement below synced");
    }
    bench_acked(me->index, 1);
    atomic_fetch_add(&me->n_acked, 1);
    if (atomic_load(&me->waits)) {
        (void)pthread_mutex_lock(&me->mutex);
        atomic_store(&me->waits, false);
        (void)pthread_cond_signal(&me->acked);
        (void)pthread_mutex_unlock(&me->mutex);
    }
}

/* Until so many are acknowledged. */
static void wait_acked(struct synced *me, uint64_t n)
{
    if (atomic_load_explicit(&me->n_acked, memory_order_acquire) >= n) {
        return;
    }
    (void)pthread_mutex_lock(&me->mutex);
    for (;;) {
        atomic_store(&me->waits, true);
        if (atomic_load(&me->n_acked) >= n) {
            break;
        }
        (void)pthread_cond_wait(&me->acked, &me->mutex);
    }
    atomic_store(&me->waits, false);
    (void)pthread_mutex_unlock(&me->mutex);
}

static void synced(uint32_t index)
{
    struct synced me = {
        .index = index, .mutex = PTHREAD_MUTEX_INITIALIZER, .acked = PTHREAD_COND_INITIALIZER};
    bb_bus *bus = bus_open();
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = REQUEST_PATH;
    draft.kind = BB_PAYLOAD_BINARY;
    draft.data = bench_payload_new(index);
    draft.len = bench_config.size;
    draft.level = BB_LEVEL_SYNCED;
    bench_synced_ready(index);
    for (uint64_t begin = bench_now_ns(); bench_config.inflight == 1; begin = bench_now_ns()) {
        check(bus, bb_publish_wait(bus, &draft, WAIT_MS, NULL), "bb_publish_wait");
        bench_histogram_add(bench_now_ns() - begin);
        bench_acked(index, 1);
    }
    draft.on_ack = take_ack;
    draft.arg = &me;
    for (uint64_t n_sent = 0;; n_sent++) {
        if (n_sent >= bench_config.inflight) {
            wait_acked(&me, n_sent + 1 - bench_config.inflight);
        }
        check(bus, bb_publish_event(bus, &draft, NULL), "bb_publish_event");
    }
}

static void fill(const char *path, uint64_t n)
{
    bb_bus *bus = bus_open();
    const uint8_t *payload = bench_payload_new(0);
    for (uint64_t i = 0; i < n; i++) {
        check(bus, bb_publish(bus, path, BB_PAYLOAD_BINARY, payload, bench_config.size), "bb_publish");
    }
    check(bus, bb_bus_flush(bus, FILL_MS), "bb_bus_flush");
}

static void *reader_open(const char *path)
{
    bb_bus *bus = bus_open();
    struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
    bb_subscription *sub = NULL;
    options.patterns = &path;
    options.n_patterns = 1;
    options.from = BB_FROM_SEQUENCE;
    options.from_value = 1;
    options.on_events = take_events;
    check(bus, bb_subscribe(bus, &options, WAIT_MS, &sub), "bb_subscribe");
    return sub;
}

extern const struct bench_contestant bench_busbar;
const struct bench_contestant bench_busbar = {
    .name = "busbar",
    .separator = '/',
    .broker_start = broker_start,
    .publisher_open = publisher_open,
    .publish = publish,
    .subscriber_open = subscriber_open,
    .receive = receive,
    .reply = reply,
    .requester_open = requester_open,
    .request = request,
    .clients_open = clients_open,
    .synced = synced,
    .fill = fill,
    .reader_open = reader_open,
};

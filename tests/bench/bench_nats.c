/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nats-server and nats.c: buffered publishing and delivery by callback, which is their fastest; at a rate and
 * for round trips SendAsap, which is their quickest.
 */
#include "tests/bench/bench.h"

#include <nats/nats.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define RECEIVE_US   100000
#define WAIT_MS      10000
#define FILL_PENDING 4096
#define REQUEST_PATH "evt.order.request.00"
#define REPLY_PATH   "evt.order.reply.0000"

struct requester {
    natsConnection *connection;
    natsSubscription *replies;
};

static void check(natsStatus status, const char *what)
{
    if (status != NATS_OK) {
        bench_fail("%s: %s", what, natsStatus_GetText(status));
    }
}

static pid_t broker_start(void)
{
    const char *conf = bench_file("nats.conf");
    FILE *file = fopen(conf, "w");
    if (file == NULL || bench_is_ipc()) {
        bench_fail("only tcp, with a file for its options");
    }
    (void)fprintf(file,
                  "listen: 127.0.0.1:%u\nmax_payload: 8MB\nmax_pending: 512MB\nwrite_deadline: \"60s\"\n"
                  "max_connections: 20000\n",
                  (unsigned)bench_port(0));
    if (bench_is_kept()) {
        (void)fprintf(file, "jetstream: {store_dir: \"%s\"}\n", bench_file("jetstream"));
    }
    (void)fclose(file);
    const char *const argv[] = {"nats-server", "-c", conf, NULL};
    pid_t pid = bench_exec(argv);
    (void)close(bench_connect(0));
    return pid;
}

static natsConnection *connection_open(bool asap)
{
    natsOptions *options = NULL;
    natsConnection *connection = NULL;
    char url[64];
    (void)snprintf(url, sizeof(url), "nats://127.0.0.1:%u", (unsigned)bench_port(0));
    check(natsOptions_Create(&options), "natsOptions_Create");
    check(natsOptions_SetURL(options, url), "natsOptions_SetURL");
    check(natsOptions_SetSendAsap(options, asap), "natsOptions_SetSendAsap");
    check(natsConnection_Connect(&connection, options), "natsConnection_Connect");
    natsOptions_Destroy(options);
    return connection;
}

static void *publisher_open(uint32_t index)
{
    (void)index;
    return connection_open(bench_config.rate > 0);
}

static void publish(void *publisher, const char *path, const void *data, size_t len)
{
    check(natsConnection_Publish(publisher, path, data, (int)len), "natsConnection_Publish");
}

static void take_message(natsConnection *connection, natsSubscription *sub, natsMsg *message, void *arg)
{
    (void)connection;
    (void)sub;
    (void)arg;
    bench_received(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message));
    natsMsg_Destroy(message);
}

static void begin_subscription(natsConnection *connection, natsSubscription *sub)
{
    check(natsSubscription_SetPendingLimits(sub, -1, -1), "natsSubscription_SetPendingLimits");
    check(natsConnection_Flush(connection), "natsConnection_Flush");
}

static void *subscriber_open(const char *path)
{
    natsSubscription *sub = NULL;
    natsConnection *connection = connection_open(false);
    check(natsConnection_Subscribe(&sub, connection, path, take_message, NULL), "natsConnection_Subscribe");
    begin_subscription(connection, sub);
    return sub;
}

static void receive(void *subscriber)
{
    (void)subscriber; /* the callback does it */
    bench_sleep_us(RECEIVE_US);
}

static struct requester *listener_open(const char *path)
{
    struct requester *requester = calloc(1, sizeof(*requester));
    if (requester == NULL) {
        bench_fail("no memory");
    }
    requester->connection = connection_open(true);
    check(natsConnection_SubscribeSync(&requester->replies, requester->connection, path),
          "natsConnection_SubscribeSync");
    begin_subscription(requester->connection, requester->replies);
    return requester;
}

static void reply(void)
{
    struct requester *replier = listener_open(REQUEST_PATH);
    natsMsg *message = NULL;
    bench_replier_ready();
    for (;;) {
        natsStatus status = natsSubscription_NextMsg(&message, replier->replies, WAIT_MS);
        if (status == NATS_OK) {
            publish(replier->connection, REPLY_PATH, natsMsg_GetData(message),
                    (size_t)natsMsg_GetDataLength(message));
            natsMsg_Destroy(message);
        }
    }
}

static void *requester_open(void)
{
    return listener_open(REPLY_PATH);
}

static void request(void *requester, void *data, size_t len)
{
    const struct requester *me = requester;
    natsMsg *message = NULL;
    publish(me->connection, REQUEST_PATH, data, len);
    check(natsSubscription_NextMsg(&message, me->replies, WAIT_MS), "natsSubscription_NextMsg");
    natsMsg_Destroy(message);
}

static void clients_open(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        (void)connection_open(false);
    }
}

/* --- JetStream with file storage, which acknowledges what is in the page cache --------------------- */

struct synced {
    uint32_t index;
    bool is_counted;
    _Atomic uint64_t acked;
};

static void take_ack(jsCtx *js, natsMsg *message, jsPubAck *ack, jsPubAckErr *error, void *arg)
{
    struct synced *me = arg;
    (void)js;
    (void)ack;
    if (error != NULL) {
        bench_fail("an event was refused: %s", error->ErrText);
    }
    if (me->is_counted) {
        bench_acked(me->index, 1);
    }
    natsMsg_Destroy(message);
}

static jsCtx *jetstream_open(int64_t pending, struct synced *synced)
{
    const char *subjects[] = {"evt.>"};
    jsCtx *js = NULL;
    jsOptions options;
    jsStreamConfig config;
    natsConnection *connection = connection_open(false);
    check(jsOptions_Init(&options), "jsOptions_Init");
    options.PublishAsync.MaxPending = pending;
    options.PublishAsync.StallWait = WAIT_MS;
    options.PublishAsync.AckHandler = take_ack;
    options.PublishAsync.AckHandlerClosure = synced;
    check(natsConnection_JetStream(&js, connection, &options), "natsConnection_JetStream");
    check(jsStreamConfig_Init(&config), "jsStreamConfig_Init");
    config.Name = "EVT";
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Storage = js_FileStorage;
    check(js_AddStream(NULL, js, &config, NULL, NULL), "js_AddStream"); /* the same again does nothing */
    return js;
}

static void synced(uint32_t index)
{
    static struct synced me;
    me.index = index;
    me.is_counted = true;
    jsCtx *js = jetstream_open((int64_t)bench_config.inflight, &me);
    const uint8_t *payload = bench_payload_new(index);
    bench_synced_ready(index);
    for (uint64_t begin = bench_now_ns(); bench_config.inflight == 1; begin = bench_now_ns()) {
        check(js_Publish(NULL, js, REQUEST_PATH, payload, (int)bench_config.size, NULL, NULL), "js_Publish");
        bench_histogram_add(bench_now_ns() - begin);
        bench_acked(index, 1);
    }
    for (;;) {
        check(js_PublishAsync(js, REQUEST_PATH, payload, (int)bench_config.size, NULL), "js_PublishAsync");
    }
}

static void fill(const char *path, uint64_t n)
{
    static struct synced me;
    jsCtx *js = jetstream_open(FILL_PENDING, &me);
    const uint8_t *payload = bench_payload_new(0);
    for (uint64_t i = 0; i < n; i++) {
        check(js_PublishAsync(js, path, payload, (int)bench_config.size, NULL), "js_PublishAsync");
    }
    check(js_PublishAsyncComplete(js, NULL), "js_PublishAsyncComplete");
}

static void *reader_open(const char *path)
{
    static struct synced me;
    jsSubOptions options;
    natsSubscription *sub = NULL;
    jsCtx *js = jetstream_open(FILL_PENDING, &me);
    check(jsSubOptions_Init(&options), "jsSubOptions_Init");
    options.Ordered = true;
    check(js_Subscribe(&sub, js, path, take_message, NULL, NULL, &options, NULL), "js_Subscribe");
    check(natsSubscription_SetPendingLimits(sub, -1, -1), "natsSubscription_SetPendingLimits");
    return sub;
}

extern const struct bench_contestant bench_nats;
const struct bench_contestant bench_nats = {
    .name = "nats",
    .separator = '.',
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

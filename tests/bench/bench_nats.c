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
};

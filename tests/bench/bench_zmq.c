/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZeroMQ alone. zmq: PUB and SUB through an XSUB/XPUB proxy, one event a message. zmq_round: REQ and REP
 * through a ROUTER/DEALER proxy. Nothing is limited: the window bounds what is queued.
 */
#include "tests/bench/bench.h"

#include <errno.h>
#include <string.h>
#include <zmq.h>

#define RECEIVE_MS 100
#define FRONT      0
#define BACK       1

static void *socket_open(int type)
{
    static void *zmq; /* one of each process */
    static const int none = 0;
    static const int receive_ms = RECEIVE_MS;
    zmq = zmq == NULL ? zmq_ctx_new() : zmq;
    void *socket = zmq_socket(zmq, type);
    if (socket == NULL) {
        bench_fail("zmq_socket: %s", zmq_strerror(zmq_errno()));
    }
    (void)zmq_setsockopt(socket, ZMQ_SNDHWM, &none, sizeof(none));
    (void)zmq_setsockopt(socket, ZMQ_RCVHWM, &none, sizeof(none));
    (void)zmq_setsockopt(socket, ZMQ_LINGER, &none, sizeof(none));
    if (type == ZMQ_SUB) {
        (void)zmq_setsockopt(socket, ZMQ_RCVTIMEO, &receive_ms, sizeof(receive_ms));
    }
    return socket;
}

static void *socket_connect(int type, size_t door)
{
    void *socket = socket_open(type);
    if (zmq_connect(socket, bench_endpoint(door)) != 0) {
        bench_fail("zmq_connect: %s", zmq_strerror(zmq_errno()));
    }
    return socket;
}

static pid_t proxy_start(int front_type, int back_type)
{
    pid_t pid = bench_fork();
    if (pid != 0) {
        return pid;
    }
    void *front = socket_open(front_type);
    void *back = socket_open(back_type);
    if (zmq_bind(front, bench_endpoint(FRONT)) != 0 || zmq_bind(back, bench_endpoint(BACK)) != 0) {
        bench_fail("zmq_bind: %s", zmq_strerror(zmq_errno()));
    }
    (void)zmq_proxy(front, back, NULL);
    bench_fail("zmq_proxy: %s", zmq_strerror(zmq_errno()));
}

static pid_t events_proxy_start(void)
{
    return proxy_start(ZMQ_XSUB, ZMQ_XPUB);
}

static pid_t requests_proxy_start(void)
{
    return proxy_start(ZMQ_ROUTER, ZMQ_DEALER);
}

static void *publisher_open(uint32_t index)
{
    (void)index;
    return socket_connect(ZMQ_PUB, FRONT);
}

static void publish(void *publisher, const char *path, const void *data, size_t len)
{
    zmq_msg_t message;
    if (zmq_msg_init_size(&message, BENCH_PATH_LEN + len) != 0) {
        bench_fail("no memory");
    }
    char *at = zmq_msg_data(&message);
    memcpy(at, path, BENCH_PATH_LEN);
    memcpy(at + BENCH_PATH_LEN, data, len);
    if (zmq_msg_send(&message, publisher, 0) < 0) {
        bench_fail("zmq_msg_send: %s", zmq_strerror(zmq_errno()));
    }
}

static void *subscriber_open(const char *path)
{
    void *subscriber = socket_connect(ZMQ_SUB, BACK);
    (void)zmq_setsockopt(subscriber, ZMQ_SUBSCRIBE, path, BENCH_PATH_LEN);
    return subscriber;
}

static void receive(void *subscriber)
{
    zmq_msg_t message;
    (void)zmq_msg_init(&message);
    if (zmq_msg_recv(&message, subscriber, 0) >= 0) {
        const char *at = zmq_msg_data(&message);
        bench_received(at + BENCH_PATH_LEN, zmq_msg_size(&message) - BENCH_PATH_LEN);
    } else if (zmq_errno() != EAGAIN) {
        bench_fail("zmq_msg_recv: %s", zmq_strerror(zmq_errno()));
    }
    (void)zmq_msg_close(&message);
}

static void reply(void)
{
    void *replier = socket_connect(ZMQ_REP, BACK);
    zmq_msg_t message;
    (void)zmq_msg_init(&message);
    bench_replier_ready();
    while (zmq_msg_recv(&message, replier, 0) >= 0 && zmq_msg_send(&message, replier, 0) >= 0) {
    }
}

static void *requester_open(void)
{
    return socket_connect(ZMQ_REQ, FRONT);
}

static void request(void *requester, void *data, size_t len)
{
    if (zmq_send(requester, data, len, 0) < 0 || zmq_recv(requester, data, len, 0) < 0) {
        bench_fail("a request failed: %s", zmq_strerror(zmq_errno()));
    }
}

extern const struct bench_contestant bench_zmq_proxy;
const struct bench_contestant bench_zmq_proxy = {
    .name = "zmq",
    .separator = '/',
    .broker_start = events_proxy_start,
    .publisher_open = publisher_open,
    .publish = publish,
    .subscriber_open = subscriber_open,
    .receive = receive,
};

extern const struct bench_contestant bench_zmq_round;
const struct bench_contestant bench_zmq_round = {
    .name = "zmq_round",
    .broker_start = requests_proxy_start,
    .reply = reply,
    .requester_open = requester_open,
    .request = request,
};

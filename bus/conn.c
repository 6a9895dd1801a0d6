/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets of a bus: what the connection machine says is done here. */
#include "proto/base/error.h"
#include "proto/base/handover.h"
#include "proto/wire/mp.h"

#include "bus/internal.h"
#include "bus/subscription.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>

/* Messages a step takes before it looks at other things. */
#define MESSAGES_PER_STEP 64

#define MONITOR_EVENTS                                                                                \
    (ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |                           \
     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED | \
     ZMQ_EVENT_CLOSED)

static int set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) < 0 ? BB_ESYSTEM : 0;
}

static int socket_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof(fd);
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) < 0 ? -1 : fd;
}

static bool has_input(void *socket)
{
    int events = 0;
    size_t size = sizeof(events);
    return socket != NULL && zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 &&
           (events & ZMQ_POLLIN) != 0;
}

static int watch(struct bb_bus *bus, void *socket)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = socket}};
    return epoll_ctl(bus->epoll_fd, EPOLL_CTL_ADD, socket_fd(socket), &event) < 0 ? BB_ESYSTEM : 0;
}

uint64_t bb_conn_lend(struct bb_bus *bus, int *ret_fd)
{
    struct epoll_event none = {.events = 0, .data = {.ptr = bus->socket}};
    *ret_fd = socket_fd(bus->socket);
    (void)epoll_ctl(bus->epoll_fd, EPOLL_CTL_MOD, *ret_fd, &none);
    return bus->n_sockets;
}

void bb_conn_take_back(struct bb_bus *bus, uint64_t n_socket)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = bus->socket}};
    if (bus->socket != NULL && bus->n_sockets == n_socket) {
        (void)epoll_ctl(bus->epoll_fd, EPOLL_CTL_MOD, socket_fd(bus->socket), &event);
    }
}

static void close_one(struct bb_bus *bus, void **socket, int linger_ms)
{
    if (*socket != NULL) {
        struct epoll_event ignored = {0};
        (void)epoll_ctl(bus->epoll_fd, EPOLL_CTL_DEL, socket_fd(*socket), &ignored);
        (void)set_int(*socket, ZMQ_LINGER, linger_ms);
        (void)zmq_close(*socket);
        *socket = NULL;
    }
}

void bb_conn_close_socket(struct bb_bus *bus, int linger_ms)
{
    /* First: libzmq leaks the events that it would still like to tell to a monitor that is gone. */
    if (bus->socket != NULL) {
        (void)zmq_socket_monitor(bus->socket, NULL, 0);
    }
    close_one(bus, &bus->socket, linger_ms);
    close_one(bus, &bus->monitor, 0);
}

/*
 * A new socket for each attempt, so that nothing of an older connection is left in it, and libzmq never
 * reconnects behind our back. It has no high water marks: what is on its way out is bounded by the outbox and
 * what is on its way in by the credit that was given.
 */
static int set_options(struct bb_bus *bus)
{
    void *socket = bus->socket;
    int64_t max = (int64_t)(BB_MESSAGE_MAX + BB_MESSAGE_SLACK);
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof(max)) < 0) {
        return BB_ESYSTEM;
    }
    int open_ms = (int)bus->conn.config.open_ms;
    if (set_int(socket, ZMQ_RECONNECT_IVL, -1) < 0 || set_int(socket, ZMQ_LINGER, 0) < 0 ||
        set_int(socket, ZMQ_SNDHWM, 0) < 0 || set_int(socket, ZMQ_RCVHWM, 0) < 0 ||
        set_int(socket, ZMQ_IPV6, 1) < 0 || set_int(socket, ZMQ_CONNECT_TIMEOUT, open_ms) < 0 ||
        set_int(socket, ZMQ_HANDSHAKE_IVL, open_ms) < 0) {
        return BB_ESYSTEM;
    }
    return 0;
}

static int open_monitor(struct bb_bus *bus)
{
    char endpoint[48];
    (void)snprintf(endpoint, sizeof(endpoint), "inproc://busbar-monitor-%llu",
                   (unsigned long long)bus->n_sockets);
    if (zmq_socket_monitor(bus->socket, endpoint, MONITOR_EVENTS) < 0) {
        return BB_ESYSTEM;
    }
    bus->monitor = zmq_socket(bus->zmq, ZMQ_PAIR);
    if (bus->monitor == NULL || zmq_connect(bus->monitor, endpoint) < 0) {
        return BB_ESYSTEM;
    }
    return watch(bus, bus->monitor);
}

static int open_socket(struct bb_bus *bus)
{
    bus->n_sockets++;
    bus->socket = zmq_socket(bus->zmq, ZMQ_DEALER);
    if (bus->socket == NULL || set_options(bus) < 0 || open_monitor(bus) < 0 || watch(bus, bus->socket) < 0) {
        return BB_ESYSTEM;
    }
    const char *url = bus->url;
    bus->url += strlen(url) + 1;
    if (*bus->url == 0) {
        bus->url = bus->urls;
    }
    if (zmq_connect(bus->socket, url) < 0) {
        bb_bus_note(bus, BB_EINVAL, "%s: %s", url, zmq_strerror(errno));
        return BB_EINVAL;
    }
    bb_bus_wake(bus); /* descriptors tell of edges only: look once at what may be there already */
    return 0;
}

static void send_hello(struct bb_bus *bus)
{
    struct bb_buf options = BB_BUF_INIT;
    bb_mp_write_map(&options, bus->name[0] != 0 ? 2 : 1);
    bb_mp_write_str(&options, bb_slice_str("heartbeat"));
    bb_mp_write_uint(&options, bus->options.heartbeat_ms);
    if (bus->name[0] != 0) {
        bb_mp_write_str(&options, bb_slice_str("name"));
        bb_mp_write_str(&options, bb_slice_str(bus->name));
    }
    struct bb_msg msg = {
        .type = BB_MSG_HELLO,
        .corr = ++bus->last_corr,
        .version = BB_PROTOCOL_VERSION,
        .client = bb_slice(bus->client, sizeof(bus->client)),
        .options = bb_buf_slice(&options),
    };
    if (options.error < 0 || bb_conn_send(bus, &msg) < 0) {
        bb_conn_drop(bus, BB_ENOMEM, "hello could not be sent");
    }
    bb_buf_fini(&options);
}

static void break_connection(struct bb_bus *bus)
{
    bb_conn_close_socket(bus, 0);
    bb_requests_fail(bus, BB_EUNKNOWNRESULT);
    bb_subscriptions_lost(bus);
    bb_bus_changed(bus);
}

void bb_conn_perform(struct bb_bus *bus, unsigned actions)
{
    if ((actions & BB_CONN_DO_BREAK) != 0) {
        break_connection(bus);
    }
    if ((actions & BB_CONN_DO_OPEN) != 0 && open_socket(bus) < 0) {
        bb_conn_perform(bus, bb_conn_lost(&bus->conn, bb_now_ms()));
    }
    if ((actions & BB_CONN_DO_HELLO) != 0) {
        send_hello(bus);
    }
    if ((actions & BB_CONN_DO_PING) != 0) {
        struct bb_msg msg = {.type = BB_MSG_PING};
        (void)bb_conn_send(bus, &msg);
    }
}

void bb_conn_drop(struct bb_bus *bus, int error, const char *text)
{
    bb_bus_note(bus, error, "%s", text);
    bb_conn_perform(bus, bb_conn_lost(&bus->conn, bb_now_ms()));
    bb_bus_wake(bus); /* the timer for the next attempt is set by a step */
}

void bb_conn_end(struct bb_bus *bus, int error, const char *text)
{
    bb_bus_note(bus, error, "%s", text);
    bus->error = error;
    bb_conn_perform(bus, bb_conn_close(&bus->conn));
    bb_outbox_fail(&bus->outbox, BB_ECLOSED);
    bb_subscriptions_end(bus, error, text);
}

/* --- receiving ---------------------------------------------------------------------------------- */

/* The frames of one message into bus->frames. Return: how many, 0 for nothing there. */
static size_t receive(struct bb_bus *bus)
{
    size_t n = 0;
    bool has_more = true;
    bool is_too_long = false;
    while (has_more) {
        zmq_msg_t surplus;
        zmq_msg_t *frame = n < BB_FRAMES_MAX ? &bus->frames[n] : &surplus;
        (void)zmq_msg_init(frame);
        if (zmq_msg_recv(frame, bus->socket, ZMQ_DONTWAIT) < 0) {
            (void)zmq_msg_close(frame);
            break;
        }
        has_more = zmq_msg_more(frame) != 0;
        if (n < BB_FRAMES_MAX) {
            n++;
        } else {
            is_too_long = true;
            (void)zmq_msg_close(frame);
        }
    }
    if (is_too_long) {
        for (size_t i = 0; i < n; i++) {
            (void)zmq_msg_close(&bus->frames[i]);
        }
        bb_conn_drop(bus, BB_EMALFORMED, "a message of the broker has too many frames");
        return 0;
    }
    return n;
}

static bool read_messages(struct bb_bus *bus)
{
    for (size_t i = 0; i < MESSAGES_PER_STEP && bus->socket != NULL; i++) {
        size_t n = receive(bus);
        if (n == 0) {
            return false;
        }
        bb_conn_heard(&bus->conn, bb_now_ms());
        bb_handle_message(bus, n);
    }
    return has_input(bus->socket);
}

static void handle_monitor_event(struct bb_bus *bus, unsigned event)
{
    if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) {
        bb_conn_perform(bus, bb_conn_connected(&bus->conn, bb_now_ms()));
    } else if (bb_bus_is_ready(bus)) {
        bb_conn_drop(bus, BB_ECONNECT, "the connection broke");
    } else {
        bb_conn_drop(bus, BB_ECONNECT, "no broker could be reached");
    }
}

static void read_monitor(struct bb_bus *bus)
{
    while (bus->monitor != NULL) {
        uint8_t frame[6];
        char address[512];
        uint16_t event;
        if (zmq_recv(bus->monitor, frame, sizeof(frame), ZMQ_DONTWAIT) != sizeof(frame)) {
            return;
        }
        (void)zmq_recv(bus->monitor, address, sizeof(address), ZMQ_DONTWAIT);
        memcpy(&event, frame, sizeof(event));
        handle_monitor_event(bus, event);
    }
}

/*
 * Sockets tell of input by edges; one that was read until nothing was there tells again, and a send that takes the edge of what came
 * meanwhile is followed by a look (after_send()).
 */
bool bb_conn_read(struct bb_bus *bus, bool with_monitor)
{
    /* What a connection brought counts before its end does. */
    bool has_more = read_messages(bus);
    if (!has_more && with_monitor) {
        read_monitor(bus);
    }
    return has_more;
}

/* --- sending ------------------------------------------------------------------------------------ */

/* libzmq tells of input by edges, and each call on the socket may take one: wake a sleeping stepper. */
static void after_send(struct bb_bus *bus)
{
    if (has_input(bus->socket)) {
        bb_bus_wake(bus);
    }
}

int bb_conn_send(struct bb_bus *bus, const struct bb_msg *msg)
{
    if (bus->socket == NULL) {
        return BB_ECONNECT;
    }
    bb_buf_reset(&bus->scratch);
    bb_msg_encode(&bus->scratch, msg);
    if (bus->scratch.error < 0) {
        return bus->scratch.error;
    }
    if (zmq_send(bus->socket, bus->scratch.data, bus->scratch.len, ZMQ_DONTWAIT) < 0) {
        return BB_ECONNECT;
    }
    after_send(bus);
    return 0;
}

static void unref_batch(void *data, void *hint)
{
    (void)data;
    BB_HANDOVER_TAKE(hint);
    bb_batch_unref(hint);
}

static bool send_batch(struct bb_bus *bus, struct bb_batch *batch)
{
    zmq_msg_t msg;
    size_t len = bb_batch_message_len(batch);
    bb_batch_ref(batch);
    BB_HANDOVER_GIVE(batch);
    if (zmq_msg_init_data(&msg, batch->bytes + batch->start, len, unref_batch, batch) < 0) {
        bb_batch_unref(batch);
        return false;
    }
    if (zmq_msg_send(&msg, bus->socket, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&msg);
        return false;
    }
    return true;
}

void bb_conn_send_batches(struct bb_bus *bus)
{
    struct bb_batch *batch;
    bool has_sent = false;
    if (!bb_bus_is_ready(bus)) {
        return;
    }
    while ((batch = bb_outbox_next(&bus->outbox)) != NULL && send_batch(bus, batch)) {
        bb_outbox_sent(&bus->outbox);
        has_sent = true;
    }
    if (has_sent) {
        after_send(bus);
    }
}

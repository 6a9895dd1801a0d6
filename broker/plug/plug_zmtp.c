/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* accept4() */
#include "broker/plug/plug_zmtp.h"

#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/wire/message.h"
#include "proto/wire/zmtp.h"

#include "broker/plug/conn.h"
#include "broker/plug/edge.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX  64
#define ACCEPTS_MAX 64

/* A peer that has not finished the handshake by then is cut off. */
#define HANDSHAKE_US UINT64_C(3000000)

/* A message that has begun is whole within this time. */
#define MESSAGE_US UINT64_C(30000000)

/* What is still to be written to a peer that is being closed has this time; and then the peer, to close as well. */
#define LINGER_US UINT64_C(1000000)

/* Pongs wait for no more than this: only who does not read has so much unread, and it may ping without end. */
#define PONG_UNWRITTEN_MAX ((size_t)64 << 10)

/* What peers that are being closed still send is dropped in pieces of this size. */
#define DROP_SIZE 16384

struct peer {
    int fd;
    bool listening; /* not a peer: a socket to accept from */
    bool writable_wanted;
    bool paused;              /* not read: what it sends is not wanted now */
    bool unwatched;           /* not in epoll: paused, and has all that was written */
    bool dirty;               /* has something to write, in the plug's list */
    bool closing;             /* written out, then closed; what it still sends is dropped */
    bool mute;                /* nothing can be written any more; what it has sent is still read */
    struct bk_client *client; /* NULL: not open yet, or closing */
    struct peer *next;
    struct peer *prev;
    struct peer *next_dirty;
    uint64_t since; /* connection, message or closing began */
    struct bb_zmtp zmtp;
    struct bk_edge edge;
    struct bk_conn_in in;
    struct bk_conn_out out;
    struct bb_buf joined; /* frames of a message that is not whole */
    size_t n_frames;
};

struct plug_zmtp {
    struct bk_door door;
    const struct bk_plug_context *context;
    int epoll;
    struct peer *peers;
    struct peer *listeners;
    struct peer *dirty;
    struct peer *dead; /* freed when no event can mean them any more */
    struct epoll_event events[EVENTS_MAX];
    int n_events;
    int next_event; /* those from here on are for the next step */
    struct bk_bytes *spare;
    struct bk_edge_scratch scratch;
    struct bb_buf handshake; /* scratch */
    uint64_t now;
    bool accepting;
    bool is_full;
};

static struct plug_zmtp *of(struct bk_plug *plug)
{
    return BB_CONTAINER(BB_CONTAINER(plug, struct bk_door, plug), struct plug_zmtp, door);
}

static struct plug_zmtp *of_door(struct bk_door *door)
{
    return BB_CONTAINER(door, struct plug_zmtp, door);
}

static struct bk_meter *meter_of(const struct plug_zmtp *plug)
{
    return bk_core_meter(plug->context->core);
}

/* --- peers ---------------------------------------------------------------------------------------- */

static int watch(struct plug_zmtp *plug, struct peer *peer, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = peer};
    return epoll_ctl(plug->epoll, operation, peer->fd, &event) == 0 ? 0 : BB_ESYSTEM;
}

/* Be told of what matters to @peer now. Who waits for nothing is not watched: its end would be told again and again. */
static void rewatch(struct plug_zmtp *plug, struct peer *peer)
{
    uint32_t events = (peer->paused ? 0u : EPOLLIN) | (peer->writable_wanted ? EPOLLOUT : 0u);
    (void)watch(plug, peer,
                events == 0       ? EPOLL_CTL_DEL
                : peer->unwatched ? EPOLL_CTL_ADD
                                  : EPOLL_CTL_MOD,
                events);
    peer->unwatched = events == 0;
}

static void listeners_watch(struct plug_zmtp *plug, bool accepting)
{
    for (struct peer *listener = plug->listeners; listener != NULL; listener = listener->next) {
        (void)watch(plug, listener, EPOLL_CTL_MOD, accepting ? EPOLLIN : 0);
    }
    plug->is_full = !accepting;
}

static void dirty_add(struct plug_zmtp *plug, struct peer *peer)
{
    if (!peer->dirty) {
        peer->dirty = true;
        peer->next_dirty = plug->dirty;
        plug->dirty = peer;
    }
}

/* The end of a connection. The struct lives until the events are taken. */
static void peer_end(struct plug_zmtp *plug, struct peer *peer)
{
    if (peer->fd < 0) {
        return;
    }
    (void)close(peer->fd); /* leaves epoll by itself */
    peer->fd = -1;
    struct bk_client *client = peer->client;
    peer->client = NULL;
    if (client != NULL) {
        bk_core_client_gone(plug->context->core, client);
    }
    *(peer->prev != NULL ? &peer->prev->next : &plug->peers) = peer->next;
    if (peer->next != NULL) {
        peer->next->prev = peer->prev;
    }
    plug->context->crowd->n--;
    peer->next = plug->dead;
    plug->dead = peer;
}

static void peer_free(struct peer *peer)
{
    bk_edge_fini(&peer->edge);
    bk_conn_in_fini(&peer->in);
    bk_conn_out_fini(&peer->out);
    bb_buf_fini(&peer->joined);
    free(peer);
}

static void dead_free(struct plug_zmtp *plug)
{
    struct peer *kept = NULL;
    if (plug->next_event < plug->n_events) {
        return;
    }
    while (plug->dead != NULL) {
        struct peer *peer = plug->dead;
        plug->dead = peer->next;
        if (peer->dirty) { /* still in that list; the flush takes it off */
            peer->next = kept;
            kept = peer;
        } else {
            peer_free(peer);
        }
    }
    plug->dead = kept;
}

/* Write what waits, then close. Called from within the core, which may still look at what was read. */
static void peer_close(struct plug_zmtp *plug, struct peer *peer)
{
    peer->closing = true;
    peer->client = NULL;
    peer->since = plug->now;
    if (peer->paused) {
        peer->paused = false;
        rewatch(plug, peer);
    }
    dirty_add(plug, peer);
}

/* Writing is over. The peer's end will be read, behind what it had sent before. */
static void peer_mute(struct peer *peer)
{
    peer->mute = true;
    bk_conn_out_fini(&peer->out);
    (void)shutdown(peer->fd, SHUT_WR);
}

/* --- sending -------------------------------------------------------------------------------------- */

static int send_frame(struct plug_zmtp *plug, struct peer *peer, const struct bk_part *part, bool more)
{
    uint8_t head[BB_ZMTP_HEAD_MAX];
    size_t len = bb_zmtp_head(head, part->len, more);
    int r = bk_conn_out_copy(&peer->out, meter_of(plug), head, len);
    return r < 0 ? r : bk_conn_out_part(&peer->out, meter_of(plug), part);
}

static int door_send(struct bk_door *door, void *to, const struct bk_part *parts, size_t n_parts)
{
    struct plug_zmtp *plug = of_door(door);
    struct peer *peer = to;
    struct bk_part text = {0};
    if (peer->fd < 0 || peer->closing) {
        return BB_ECLOSED;
    }
    if (peer->mute) {
        return 0;
    }
    if (peer->edge.json) {
        struct bb_slice json = {0};
        if (bk_edge_to_json(plug->context, &peer->edge, &plug->scratch, parts, n_parts, &json) < 0) {
            return BB_ECLOSED;
        }
        text = (struct bk_part){NULL, json.data, json.len};
        parts = &text;
        n_parts = 1;
    }
    for (size_t i = 0; i < n_parts; i++) {
        if (send_frame(plug, peer, &parts[i], i + 1 < n_parts) < 0) {
            peer_mute(peer); /* a part may be out: no way back but the end */
            return BB_ECLOSED;
        }
    }
    dirty_add(plug, peer);
    return 0;
}

static void door_close_peer(struct bk_door *door, void *to, bool shut_out)
{
    (void)shut_out; /* the connection ends either way */
    peer_close(of_door(door), to);
}

static void door_pause(struct bk_door *door, void *to, bool paused)
{
    struct plug_zmtp *plug = of_door(door);
    struct peer *peer = to;
    if (peer->fd >= 0 && !peer->closing && peer->paused != paused) {
        peer->paused = paused;
        peer->since = plug->now; /* of a message that has begun */
        rewatch(plug, peer);
    }
}

static void peer_write(struct plug_zmtp *plug, struct peer *peer)
{
    if (peer->mute || bk_conn_out_write(&peer->out, peer->fd) < 0) {
        peer_mute(peer);
    }
    bool wanted = peer->out.bytes > 0;
    if (wanted != peer->writable_wanted) {
        peer->writable_wanted = wanted;
        rewatch(plug, peer);
    }
    if (peer->closing && !wanted) { /* not closed yet: if it still sends, that would undo what was written */
        (void)shutdown(peer->fd, SHUT_WR);
    }
}

static void flush(struct bk_plug *base)
{
    struct plug_zmtp *plug = of(base);
    while (plug->dirty != NULL) {
        struct peer *peer = plug->dirty;
        plug->dirty = peer->next_dirty;
        peer->dirty = false;
        if (peer->fd >= 0) {
            peer_write(plug, peer);
        }
    }
    dead_free(plug);
}

/* --- receiving ------------------------------------------------------------------------------------ */

static int greet(struct plug_zmtp *plug, struct peer *peer)
{
    uint8_t greeting[BB_ZMTP_GREETING_LEN];
    bb_zmtp_greeting(greeting);
    dirty_add(plug, peer);
    return bk_conn_out_copy(&peer->out, meter_of(plug), greeting, sizeof(greeting));
}

static int send_handshake(struct plug_zmtp *plug, struct peer *peer)
{
    int r = plug->handshake.error;
    dirty_add(plug, peer);
    return r != 0 ? r
                  : bk_conn_out_copy(&peer->out, meter_of(plug), plug->handshake.data, plug->handshake.len);
}

static int send_ready(struct plug_zmtp *plug, struct peer *peer)
{
    bb_buf_reset(&plug->handshake);
    bb_zmtp_ready(&plug->handshake, BB_ZMTP_ROUTER);
    return send_handshake(plug, peer);
}

/* PROTOCOL 1. */
static int refuse_routing_id(struct plug_zmtp *plug, struct peer *peer)
{
    struct bb_msg msg = {
        .type = BB_MSG_ERROR,
        .code = bb_slice_str(bb_errcode(BB_EROUTINGID)),
        .text = bb_slice_str(bb_strerror(BB_EROUTINGID)),
    };
    int r = send_ready(plug, peer);
    bb_buf_reset(&plug->handshake);
    bb_msg_encode(&plug->handshake, &msg);
    struct bk_part part = {NULL, plug->handshake.data, plug->handshake.len};
    if (r == 0) {
        r = plug->handshake.error != 0 ? BB_ENOMEM : send_frame(plug, peer, &part, false);
    }
    peer_close(plug, peer);
    return r;
}

/* The peer's client, from its first message on. NULL: there may be no more; the peer is closed. */
static struct bk_client *client_of(struct plug_zmtp *plug, struct peer *peer)
{
    if (peer->client == NULL) {
        peer->client = bk_core_client_add(plug->context->core, peer);
    }
    if (peer->client == NULL) {
        peer_close(plug, peer); /* too many, or ending */
    }
    return peer->client;
}

static void take_message(struct plug_zmtp *plug, struct peer *peer, struct bb_slice bytes)
{
    if (client_of(plug, peer) != NULL) {
        bk_edge_take(plug->context, &peer->edge, peer->client, bytes, peer->in.chunk);
    }
}

static const struct bk_bad_message too_big = {.error = BB_ETOOBIG, .is_strike = true};

/* One more frame: the message is this alone, or what was put together so far. */
static int take_frame(struct plug_zmtp *plug, struct peer *peer, const struct bb_zmtp_input *input)
{
    if (peer->n_frames == 0 && !input->more) {
        take_message(plug, peer, input->data);
        return 0;
    }
    if (peer->n_frames < BB_FRAMES_MAX && input->data.len <= plug->context->max_message - peer->joined.len) {
        peer->n_frames++;
        bb_buf_append(&peer->joined, input->data.data, input->data.len);
    } else {
        peer->n_frames = BB_FRAMES_MAX + 1; /* and so it stays */
        bb_buf_fini(&peer->joined);
    }
    if (input->more || peer->joined.error != 0) {
        return peer->joined.error;
    }
    struct bb_buf joined = peer->joined; /* the peer may be closed when the core has seen them */
    bool is_whole = peer->n_frames <= BB_FRAMES_MAX;
    peer->joined = BB_BUF_INIT;
    peer->n_frames = 0;
    if (client_of(plug, peer) == NULL) {
        bb_buf_fini(&joined);
    } else if (is_whole) {
        bk_edge_take_joined(plug->context, &peer->edge, peer->client, &joined);
    } else {
        bk_core_bad_message(plug->context->core, peer->client, &too_big);
    }
    return 0;
}

/* What follows cannot be told apart any more. */
static int take_too_big(struct plug_zmtp *plug, struct peer *peer)
{
    if (peer->client != NULL) {
        bk_core_bad_message(plug->context->core, peer->client, &too_big);
    }
    struct bk_client *client = peer->client;
    peer_close(plug, peer);
    if (client != NULL) {
        bk_core_client_gone(plug->context->core, client);
    }
    return 0;
}

/* Returns 0 to go on, 1 when more bytes are needed, or why the connection ends. */
static int take_step(struct plug_zmtp *plug, struct peer *peer, size_t *ret_wanted)
{
    struct bb_zmtp_input input;
    enum bb_zmtp_step step = bb_zmtp_step(&peer->zmtp, bk_conn_in_bytes(&peer->in), &input);
    *ret_wanted = input.wanted;
    peer->in.start += input.used;
    switch (step) {
    case BB_ZMTP_MORE:
        return 1;
    case BB_ZMTP_SILENT:
        return 0;
    case BB_ZMTP_READY_IN:
        return send_ready(plug, peer);
    case BB_ZMTP_ROUTED:
        return refuse_routing_id(plug, peer);
    case BB_ZMTP_PING:
        if (peer->out.bytes > PONG_UNWRITTEN_MAX) {
            return 0;
        }
        bb_buf_reset(&plug->handshake);
        bb_zmtp_pong(&plug->handshake, input.data);
        return send_handshake(plug, peer);
    case BB_ZMTP_FRAME:
        return take_frame(plug, peer, &input);
    case BB_ZMTP_TOO_BIG:
        return take_too_big(plug, peer);
    case BB_ZMTP_BROKEN:
        break;
    }
    return BB_EMALFORMED;
}

/* Returns bytes read. */
static size_t peer_read(struct plug_zmtp *plug, struct peer *peer)
{
    size_t wanted = 0;
    bool begins = bk_conn_in_bytes(&peer->in).len == 0 && peer->n_frames == 0; /* a message, here or below */
    ssize_t n = bk_conn_in_read(&peer->in, meter_of(plug), &plug->spare, peer->fd);
    int r = n < 0 ? (int)n : take_step(plug, peer, &wanted);
    while (r == 0 && !peer->closing) {
        begins = begins || peer->n_frames == 0;
        r = take_step(plug, peer, &wanted);
    }
    if (begins && peer->zmtp.state == BB_ZMTP_OPEN && !peer->closing) {
        peer->since = plug->now;
    }
    if (peer->closing) {
        bk_conn_in_fini(&peer->in);
    } else if (r == 1) {
        r = bk_conn_in_keep(&peer->in, meter_of(plug), &plug->spare, wanted);
    }
    if (r < 0) {
        peer_end(plug, peer);
    }
    return n > 0 ? (size_t)n : 0;
}

/* The same for one that is being closed. */
static size_t peer_drop(struct plug_zmtp *plug, struct peer *peer)
{
    uint8_t bytes[DROP_SIZE];
    ssize_t n = recv(peer->fd, bytes, sizeof(bytes), MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
        peer_end(plug, peer);
    }
    return n > 0 ? (size_t)n : 0;
}

/* --- accepting ------------------------------------------------------------------------------------ */

static void set_tcp_options(int fd)
{
    const struct {
        int level;
        int option;
        int value;
    } rows[] = {
        {IPPROTO_TCP, TCP_NODELAY, 1},
        {SOL_SOCKET, SO_KEEPALIVE, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 30},
        {IPPROTO_TCP, TCP_KEEPINTVL, 10},
        {IPPROTO_TCP, TCP_KEEPCNT, 3},
        {IPPROTO_TCP, TCP_USER_TIMEOUT, 60000}, /* also cuts off who keeps its window shut */
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) { /* on a unix socket they fail, and matter to nobody */
        (void)setsockopt(fd, rows[i].level, rows[i].option, &rows[i].value, sizeof(int));
    }
}

static int peer_add(struct plug_zmtp *plug, int fd)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return BB_ENOMEM;
    }
    peer->fd = fd;
    peer->since = plug->now;
    bb_zmtp_init(&peer->zmtp, BB_ZMTP_ROUTER, plug->context->max_message);
    if (watch(plug, peer, EPOLL_CTL_ADD, EPOLLIN) < 0) {
        free(peer);
        return BB_ESYSTEM;
    }
    peer->next = plug->peers;
    if (peer->next != NULL) {
        peer->next->prev = peer;
    }
    plug->peers = peer;
    plug->context->crowd->n++;
    if (greet(plug, peer) < 0) {
        peer_end(plug, peer);
    }
    return 0;
}

static void accept_some(struct plug_zmtp *plug, const struct peer *listener)
{
    const struct bk_crowd *crowd = plug->context->crowd;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        if (bk_crowd_is_large(crowd)) {
            listeners_watch(plug, false);
            return;
        }
        int fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                listeners_watch(plug, false);
            }
            return;
        }
        set_tcp_options(fd);
        if (peer_add(plug, fd) < 0) {
            (void)close(fd);
        }
    }
}

static int door_bind(struct bk_door *door, const char *endpoint, bool insecure, struct bb_buf *err)
{
    struct plug_zmtp *plug = of_door(door);
    int fd = -1;
    struct peer *listener = calloc(1, sizeof(*listener));
    int r = listener == NULL ? BB_ENOMEM : bk_endpoint_listen(endpoint, insecure, &door->endpoints, err, &fd);
    if (r < 0) {
        free(listener);
        return r;
    }
    listener->fd = fd;
    listener->listening = true;
    listener->next = plug->listeners;
    plug->listeners = listener;
    return watch(plug, listener, EPOLL_CTL_ADD, EPOLLIN);
}

static void door_stop_accepting(struct bk_door *door)
{
    struct plug_zmtp *plug = of_door(door);
    plug->accepting = false;
    plug->n_events = plug->next_event = 0; /* they may mean a listener; the others are told again */
    bk_endpoints_fini(&door->endpoints);   /* while it is ours: afterwards another may have bound there */
    while (plug->listeners != NULL) {
        struct peer *listener = plug->listeners;
        plug->listeners = listener->next;
        (void)close(listener->fd);
        free(listener);
    }
}

/* --- the plug ------------------------------------------------------------------------------------- */

static size_t fds(const struct bk_plug *base, int to[BK_PLUG_FDS])
{
    to[0] = of(bb_unconst(base))->epoll;
    return 1;
}

/* Returns bytes read. */
static size_t take_event(struct plug_zmtp *plug, const struct epoll_event *event)
{
    struct peer *peer = event->data.ptr;
    if (peer->listening) {
        accept_some(plug, peer);
        return 0;
    }
    if (peer->fd >= 0 && (event->events & EPOLLOUT) != 0) {
        peer_write(plug, peer);
    }
    if (peer->fd < 0 || peer->paused || (event->events & (EPOLLIN | EPOLLHUP | EPOLLERR)) == 0) {
        return 0;
    }
    if (peer->closing) {
        return peer_drop(plug, peer);
    }
    bool waited = peer->in.chunk != NULL;
    size_t n = peer_read(plug, peer);
    if (waited && n > 0 && peer->fd >= 0 && !peer->closing && !peer->paused && peer->in.chunk == NULL) {
        n += peer_read(plug, peer); /* that was the end of a frame alone */
    }
    return n;
}

/* All events of one look are taken before the next look: else who always has something would come first always. */
static bool step(struct bk_plug *base, uint64_t now, size_t budget)
{
    struct plug_zmtp *plug = of(base);
    size_t taken = 0;
    plug->now = now;
    if (plug->next_event == plug->n_events) {
        int n = epoll_wait(plug->epoll, plug->events, EVENTS_MAX, 0);
        plug->n_events = BB_MAX(n, 0);
        plug->next_event = 0;
    }
    while (plug->next_event < plug->n_events && taken < budget) {
        taken += take_event(plug, &plug->events[plug->next_event++]);
    }
    return plug->n_events == EVENTS_MAX || taken >= budget;
}

static bool is_late(const struct plug_zmtp *plug, const struct peer *peer)
{
    uint64_t since = plug->now - BB_MIN(peer->since, plug->now);
    if (peer->closing) {
        return since > LINGER_US;
    }
    if (peer->zmtp.state != BB_ZMTP_OPEN) {
        return since > HANDSHAKE_US;
    }
    return !peer->paused && since > MESSAGE_US && (peer->in.chunk != NULL || peer->n_frames > 0);
}

static void tick(struct bk_plug *base, uint64_t now)
{
    struct plug_zmtp *plug = of(base);
    struct peer *peer = plug->peers;
    plug->now = now;
    while (peer != NULL) {
        struct peer *next = peer->next; /* others are closed at most, and stay in the list */
        if (is_late(plug, peer)) {
            peer_end(plug, peer);
        }
        peer = next;
    }
    dead_free(plug);
    /* The crowd is that of the windows as well: nobody says when they went. */
    if (plug->is_full && plug->accepting && bk_crowd_is_small(plug->context->crowd)) {
        listeners_watch(plug, true);
    }
}

/* Goodbyes are written as long as their peers take them, within the linger time. */
static void close_plug(struct bk_plug *base)
{
    struct plug_zmtp *plug = of(base);
    uint64_t now = (uint64_t)bb_clock_monotonic_us();
    uint64_t end = now + (uint64_t)plug->context->linger_ms * 1000;
    door_stop_accepting(&plug->door);
    for (struct peer *peer = plug->peers; peer != NULL;) {
        struct peer *next = peer->next;
        if (!peer->closing) {
            peer_end(plug, peer);
        }
        peer = next;
    }
    flush(base);
    while (plug->peers != NULL && now < end) {
        struct pollfd item = {.fd = plug->epoll, .events = POLLIN};
        (void)poll(&item, 1, (int)((end - now) / 1000) + 1);
        now = (uint64_t)bb_clock_monotonic_us();
        (void)step(base, now, SIZE_MAX);
        flush(base);
    }
    while (plug->peers != NULL) {
        peer_end(plug, plug->peers);
    }
    flush(base);
}

static void free_plug(struct bk_plug *base)
{
    struct plug_zmtp *plug = of(base);
    bk_bytes_unref(plug->spare);
    bk_endpoints_fini(&plug->door.endpoints);
    bk_edge_scratch_fini(&plug->scratch);
    bb_buf_fini(&plug->handshake);
    (void)close(plug->epoll);
    free(plug);
}

static const struct bk_plug_ops plug_ops = {
    .fds = fds,
    .step = step,
    .flush = flush,
    .tick = tick,
    .close = close_plug,
    .free = free_plug,
};

static const struct bk_door_ops door_ops = {
    .bind = door_bind,
    .stop_accepting = door_stop_accepting,
    .send = door_send,
    .close_peer = door_close_peer,
    .pause = door_pause,
};

int bk_plug_zmtp_new(const struct bk_plug_context *context, struct bk_door **ret_door)
{
    struct plug_zmtp *plug = calloc(1, sizeof(*plug));
    if (plug == NULL) {
        return BB_ENOMEM;
    }
    plug->door.plug.ops = &plug_ops;
    plug->door.ops = &door_ops;
    plug->context = context;
    plug->accepting = true;
    plug->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (plug->epoll < 0) {
        free(plug);
        return BB_ESYSTEM;
    }
    *ret_door = &plug->door;
    return 0;
}

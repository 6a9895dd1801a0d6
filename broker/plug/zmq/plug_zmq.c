/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/zmq/plug_zmq.h"

#include "proto/base/error.h"
#include "proto/base/map.h"
#include "proto/wire/message.h"

#include "broker/plug/edge.h"
#include "broker/plug/zmq/connections.h"
#include "broker/plug/zmq/zmq_bytes.h"
#include "broker/plug/zmq/zmq_socket.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <zmq.h>

/* What the broker assigns: a zero and a counter. No peer can set an id that begins with zero, so an id of this
 * form cannot be taken over by another peer (PROTOCOL 1). */
#define ROUTING_ID_LEN 5

/* Messages received but not yet taken, of one peer; times max_message they are memory. */
#define RECEIVE_HWM 256

/* Messages sent but not yet written, of one peer; their bytes are bounded by the core. */
#define SEND_HWM 16384

/* A peer that has not finished ZeroMQ's handshake by then is cut off. */
#define HANDSHAKE_MS 3000

/* Peers that are shut out and remembered; the oldest are forgotten. */
#define SHUT_OUT_MAX 4096

/* From this size on a message may be kept as it came. */
#define KEEP_MIN ((size_t)8 << 10)

struct peer {
    uint8_t id[ROUTING_ID_LEN];
    struct bk_client *client; /* NULL: shut out */
    struct bk_edge edge;
    struct peer *next_shut_out;
};

struct plug_zmq {
    struct bk_door door;
    const struct bk_plug_context *context;
    void *socket;
    struct bk_connections connections;
    struct bb_map peers; /* by id */
    struct peer *shut_out_first;
    struct peer *shut_out_last;
    size_t n_shut_out;
    zmq_msg_t id;
    zmq_msg_t msg;
    struct bk_edge_scratch scratch;
};

static struct plug_zmq *of(struct bk_plug *plug)
{
    return BB_CONTAINER(BB_CONTAINER(plug, struct bk_door, plug), struct plug_zmq, door);
}

static struct plug_zmq *of_door(struct bk_door *door)
{
    return BB_CONTAINER(door, struct plug_zmq, door);
}

/* --- peers ---------------------------------------------------------------------------------------- */

static void peer_free(struct peer *peer)
{
    bk_edge_fini(&peer->edge);
    free(peer);
}

static void peer_remove(struct plug_zmq *zmq, struct peer *peer)
{
    (void)bb_map_remove(&zmq->peers, bb_slice(peer->id, sizeof(peer->id)));
    peer_free(peer);
}

static struct peer *peer_add(struct plug_zmq *zmq, const uint8_t *id)
{
    struct peer *peer = calloc(1, sizeof(*peer));
    if (peer == NULL) {
        return NULL;
    }
    memcpy(peer->id, id, sizeof(peer->id));
    if (bb_map_add(&zmq->peers, bb_slice(peer->id, sizeof(peer->id)), peer) < 0) {
        free(peer);
        return NULL;
    }
    peer->client = bk_core_client_add(zmq->context->core, peer);
    if (peer->client == NULL) {
        peer_remove(zmq, peer);
        return NULL;
    }
    return peer;
}

static void shut_out(struct plug_zmq *zmq, struct peer *peer)
{
    peer->client = NULL;
    *(zmq->shut_out_last != NULL ? &zmq->shut_out_last->next_shut_out : &zmq->shut_out_first) = peer;
    zmq->shut_out_last = peer;
    if (++zmq->n_shut_out > SHUT_OUT_MAX) {
        struct peer *oldest = zmq->shut_out_first;
        zmq->shut_out_first = oldest->next_shut_out;
        zmq->n_shut_out--;
        peer_remove(zmq, oldest);
    }
}

static void door_close_peer(struct bk_door *door, void *peer, bool is_shut_out)
{
    if (is_shut_out) {
        shut_out(of_door(door), peer);
    } else {
        peer_remove(of_door(door), peer);
    }
}

/* --- sending -------------------------------------------------------------------------------------- */

static int door_send(struct bk_door *door, void *to, const struct bk_part *parts, size_t n_parts)
{
    struct plug_zmq *zmq = of_door(door);
    const struct peer *peer = to;
    if (zmq_send(zmq->socket, peer->id, sizeof(peer->id), ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
        return zmq_errno() == EAGAIN ? BB_EAGAIN : BB_ECLOSED; /* EHOSTUNREACH: it went */
    }
    struct bk_part text = {0};
    if (peer->edge.json) {
        struct bb_slice json = {0};
        if (bk_edge_to_json(zmq->context, &peer->edge, &zmq->scratch, parts, n_parts, &json) < 0) {
            return BB_ECLOSED;
        }
        text = (struct bk_part){NULL, json.data, json.len};
        parts = &text;
        n_parts = 1;
    }
    for (size_t i = 0; i < n_parts; i++) {
        if (bk_zmq_send_part(zmq->socket, &parts[i], i + 1 < n_parts) < 0) {
            return BB_ECLOSED; /* a part of a message is out: no way back but the end */
        }
    }
    return 0;
}

/* --- receiving ------------------------------------------------------------------------------------ */

static const uint8_t *taken_id(const struct plug_zmq *zmq)
{
    zmq_msg_t *id = bb_unconst(&zmq->id); /* libzmq's getters take no const */
    const uint8_t *bytes = zmq_msg_data(id);
    return zmq_msg_size(id) == ROUTING_ID_LEN && bytes[0] == 0 ? bytes : NULL;
}

/* PROTOCOL 1. Sent without a client: it never becomes one. */
static void refuse_routing_id(struct plug_zmq *zmq)
{
    struct bb_msg msg = {
        .type = BB_MSG_ERROR,
        .code = bb_slice_str(bb_errcode(BB_EROUTINGID)),
        .text = bb_slice_str(bb_strerror(BB_EROUTINGID)),
    };
    struct bb_buf refusal = BB_BUF_INIT;
    bb_msg_encode(&refusal, &msg);
    if (refusal.error == 0 && zmq_msg_send(&zmq->id, zmq->socket, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0) {
        (void)zmq_send(zmq->socket, refusal.data, refusal.len, ZMQ_DONTWAIT);
    }
    bb_buf_fini(&refusal);
}

static struct peer *taken_peer(struct plug_zmq *zmq)
{
    const uint8_t *id = taken_id(zmq);
    if (id == NULL) {
        return NULL;
    }
    struct peer *peer = bb_map_find(&zmq->peers, bb_slice(id, ROUTING_ID_LEN));
    return peer != NULL ? peer : peer_add(zmq, id);
}

/* A message of one frame; large ones may be kept by the core. */
static void take_frame(struct plug_zmq *zmq, struct peer *peer)
{
    struct bb_slice bytes = bb_slice(zmq_msg_data(&zmq->msg), zmq_msg_size(&zmq->msg));
    struct bk_bytes *owner = NULL;
    if (bytes.len >= KEEP_MIN) {
        owner = bk_zmq_take(bk_core_meter(zmq->context->core), &zmq->msg);
        if (owner != NULL) {
            bytes = bb_slice(owner->data, owner->len);
        }
    }
    bk_edge_take(zmq->context, &peer->edge, peer->client, bytes, owner);
    bk_bytes_unref(owner);
}

static void take_frames(struct plug_zmq *zmq, struct peer *peer)
{
    struct bb_buf joined = BB_BUF_INIT;
    int r = bk_zmq_receive_rest(zmq->socket, &zmq->msg, zmq->context->max_message, &joined);
    if (r < 0) {
        struct bk_bad_message bad = {.error = r, .is_strike = r != BB_ENOMEM};
        bk_core_bad_message(zmq->context->core, peer->client, &bad);
    } else {
        bk_edge_take_joined(zmq->context, &peer->edge, peer->client, &joined);
    }
    bb_buf_fini(&joined);
}

static void take_message(struct plug_zmq *zmq)
{
    struct peer *peer = taken_peer(zmq);
    if (peer == NULL || peer->client == NULL) {
        bk_zmq_drop_rest(zmq->socket, &zmq->msg);
        if (taken_id(zmq) == NULL) {
            refuse_routing_id(zmq);
        }
    } else if (zmq_msg_more(&zmq->msg)) {
        take_frames(zmq, peer);
    } else {
        take_frame(zmq, peer);
    }
}

static bool step(struct bk_plug *plug, uint64_t now, size_t budget)
{
    struct plug_zmq *zmq = of(plug);
    (void)now;
    size_t taken = 0;
    bk_connections_step(&zmq->connections);
    while (taken < budget) {
        if (zmq_msg_recv(&zmq->id, zmq->socket, ZMQ_DONTWAIT) < 0) {
            return false;
        }
        if (zmq_msg_recv(&zmq->msg, zmq->socket, ZMQ_DONTWAIT) < 0) {
            return false;
        }
        taken += 256 + zmq_msg_size(&zmq->msg); /* small messages cost more than their bytes */
        take_message(zmq);
    }
    return true;
}

static size_t fds(const struct bk_plug *plug, int to[BK_PLUG_FDS])
{
    const struct plug_zmq *zmq = of(bb_unconst(plug));
    to[0] = bk_zmq_fd(zmq->socket);
    to[1] = bk_zmq_fd(zmq->connections.monitor);
    return 2;
}

static bool has_input(const struct bk_plug *plug)
{
    const struct plug_zmq *zmq = of(bb_unconst(plug));
    return bk_zmq_has_input(zmq->socket) || bk_zmq_has_input(zmq->connections.monitor);
}

/* --- opening and closing ----------------------------------------------------------------------------- */

static void close_plug(struct bk_plug *plug)
{
    struct plug_zmq *zmq = of(plug);
    bk_connections_fini(&zmq->connections);
    if (zmq->socket != NULL) {
        (void)zmq_close(zmq->socket);
    }
    zmq->socket = NULL;
}

static void free_plug(struct bk_plug *plug)
{
    struct plug_zmq *zmq = of(plug);
    struct peer *peer = NULL;
    size_t at = 0;
    while ((peer = bb_map_next(&zmq->peers, &at, NULL)) != NULL) {
        peer_free(peer);
    }
    bb_map_fini(&zmq->peers);
    bk_endpoints_fini(&zmq->door.endpoints);
    bk_edge_scratch_fini(&zmq->scratch);
    (void)zmq_msg_close(&zmq->id);
    (void)zmq_msg_close(&zmq->msg);
    free(zmq);
}

static const struct bk_plug_ops plug_ops = {
    .fds = fds,
    .has_input = has_input,
    .step = step,
    .close = close_plug,
    .free = free_plug,
};

static int set_options(const struct plug_zmq *zmq)
{
    const struct {
        int option;
        int value;
    } rows[] = {
        {ZMQ_ROUTER_MANDATORY, 1}, /* a send to a peer that went fails, and is noticed */
        {ZMQ_ROUTER_HANDOVER, 0},      {ZMQ_SNDHWM, SEND_HWM},
        {ZMQ_RCVHWM, RECEIVE_HWM},     {ZMQ_LINGER, zmq->context->linger_ms},
        {ZMQ_BACKLOG, 1024},           {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_TCP_KEEPALIVE, 1},        {ZMQ_TCP_KEEPALIVE_IDLE, 30},
        {ZMQ_TCP_KEEPALIVE_INTVL, 10}, {ZMQ_TCP_KEEPALIVE_CNT, 3},
        {ZMQ_TCP_MAXRT, 60000}, /* also cuts off who keeps its window shut */
    };
    int64_t max = (int64_t)zmq->context->max_message;
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        if (zmq_setsockopt(zmq->socket, rows[i].option, &rows[i].value, sizeof(int)) != 0) {
            return BB_ESYSTEM;
        }
    }
    return zmq_setsockopt(zmq->socket, ZMQ_MAXMSGSIZE, &max, sizeof(max)) == 0 ? 0 : BB_ESYSTEM;
}

static int door_bind(struct bk_door *door, const char *endpoint, bool insecure, struct bb_buf *err)
{
    return bk_zmq_bind(of_door(door)->socket, endpoint, insecure, &door->endpoints, err);
}

static void door_stop_accepting(struct bk_door *door)
{
    bk_connections_end(&of_door(door)->connections);
}

static const struct bk_door_ops door_ops = {
    .bind = door_bind,
    .stop_accepting = door_stop_accepting,
    .send = door_send,
    .close_peer = door_close_peer,
};

int bk_plug_zmq_new(const struct bk_plug_context *context, struct bk_door **ret_door)
{
    struct plug_zmq *zmq = calloc(1, sizeof(*zmq));
    if (zmq == NULL) {
        return BB_ENOMEM;
    }
    zmq->door.plug.ops = &plug_ops;
    zmq->door.ops = &door_ops;
    zmq->context = context;
    (void)zmq_msg_init(&zmq->id);
    (void)zmq_msg_init(&zmq->msg);
    bb_map_init(&zmq->peers, context->seed, context->max_peers + SHUT_OUT_MAX + 1);
    zmq->socket = zmq_socket(context->zmq, ZMQ_ROUTER);
    int r = zmq->socket != NULL ? set_options(zmq) : BB_ESYSTEM;
    if (r == 0) {
        r = bk_connections_watch(&zmq->connections, context->zmq, zmq->socket, context->crowd);
    }
    if (r < 0) {
        close_plug(&zmq->door.plug);
        free_plug(&zmq->door.plug);
        return r;
    }
    *ret_door = &zmq->door;
    return 0;
}

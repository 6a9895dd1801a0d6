/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/plug_zmq.h"

#include "broker/plug/zmq_bytes.h"
#include "proto/base/error.h"
#include "proto/base/map.h"
#include "proto/json/message_json.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

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

/* Subscriptions of one JSON client that ask for another shape of events. */
#define SHAPED_MAX 1024

struct peer {
    uint8_t id[ROUTING_ID_LEN];
    bool json;
    struct bk_client *client; /* NULL: shut out */
    struct peer *next_shut_out;
    uint64_t *nexus_subs; /* subscriptions in the shape of async_nexus */
    size_t n_nexus_subs;
};

struct plug_zmq {
    struct bk_plug plug;
    const struct bk_plug_context *context;
    void *socket;
    void *monitor;
    struct bk_endpoints endpoints;
    struct bb_map peers; /* by id */
    struct peer *shut_out_first;
    struct peer *shut_out_last;
    size_t n_shut_out;
    size_t n_connections;
    bool accepting;
    bool is_full; /* not accepting because the descriptors are used up */
    zmq_msg_t id;
    zmq_msg_t msg;
    struct bb_buf joined;    /* a message of several frames */
    struct bb_buf converted; /* from or to JSON */
    struct bb_buf err;
};

static struct plug_zmq *of(struct bk_plug *plug)
{
    return BB_CONTAINER(plug, struct plug_zmq, plug);
}

/* --- peers ---------------------------------------------------------------------------------------- */

static void peer_free(struct peer *peer)
{
    free(peer->nexus_subs);
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

void bk_plug_zmq_close(struct bk_plug *plug, void *peer, bool is_shut_out)
{
    if (is_shut_out) {
        shut_out(of(plug), peer);
    } else {
        peer_remove(of(plug), peer);
    }
}

/* --- JSON clients ------------------------------------------------------------------------------------ */

static enum bb_event_shape shape_of(const struct peer *peer, uint64_t sub)
{
    for (size_t i = 0; i < peer->n_nexus_subs; i++) {
        if (peer->nexus_subs[i] == sub) {
            return BB_SHAPE_NEXUS;
        }
    }
    return BB_SHAPE_EVENT;
}

static bool asks_for_nexus(const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->options);
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_MAP ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        bool is_shape = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("shape"));
        struct bb_slice value = bb_mp_read_raw(&reader);
        struct bb_mp_reader inner = bb_mp_reader(value);
        if (is_shape && bb_slice_equal(bb_mp_read_str(&inner), bb_slice_str("nexus"))) {
            return true;
        }
    }
    return false;
}

/* The shape is a matter of this edge: note it on the way in. */
static int note_shape(struct peer *peer, struct bb_slice message)
{
    struct bb_msg msg;
    if (!bb_msg_is_head(message) || bb_msg_decode(message, &msg) < 0 || msg.type != BB_MSG_SUBSCRIBE) {
        return 0;
    }
    for (size_t i = 0; i < peer->n_nexus_subs; i++) {
        if (peer->nexus_subs[i] == msg.sub) {
            peer->nexus_subs[i] = peer->nexus_subs[--peer->n_nexus_subs];
            break;
        }
    }
    if (!asks_for_nexus(&msg)) {
        return 0;
    }
    if (peer->n_nexus_subs >= SHAPED_MAX) {
        return BB_ELIMIT;
    }
    uint64_t *subs = realloc(peer->nexus_subs, (peer->n_nexus_subs + 1) * sizeof(uint64_t));
    if (subs == NULL) {
        return BB_ENOMEM;
    }
    peer->nexus_subs = subs;
    peer->nexus_subs[peer->n_nexus_subs++] = msg.sub;
    return 0;
}

static void take_json(struct plug_zmq *zmq, struct peer *peer, struct bb_slice text)
{
    struct bk_core *core = zmq->context->core;
    bb_buf_reset(&zmq->converted);
    bb_buf_reset(&zmq->err);
    peer->json = true;
    int r = text.len > zmq->context->max_message ? BB_ETOOBIG
                                                 : bb_message_json_read(text, &zmq->converted, &zmq->err);
    if (r == 0) {
        r = note_shape(peer, bb_buf_slice(&zmq->converted));
    }
    if (r < 0) {
        bk_core_bad_message(core, peer->client, r, zmq->err.len > 0 ? bb_buf_string(&zmq->err) : NULL);
        return;
    }
    bk_core_message(core, peer->client, bb_buf_slice(&zmq->converted), NULL);
}

static int send_json(struct plug_zmq *zmq, const struct peer *peer, const struct bk_part *parts, size_t n_parts)
{
    struct bb_msg msg;
    bb_buf_reset(&zmq->joined);
    bb_buf_reset(&zmq->converted);
    for (size_t i = 0; i < n_parts; i++) {
        bb_buf_append(&zmq->joined, parts[i].data, parts[i].len);
    }
    struct bb_slice message = bb_buf_slice(&zmq->joined);
    int r = zmq->joined.error != 0 ? BB_ENOMEM : bb_msg_decode(message, &msg);
    if (r == 0) {
        enum bb_event_shape shape = msg.type == BB_MSG_DELIVER ? shape_of(peer, msg.sub) : BB_SHAPE_EVENT;
        r = bb_message_json_write(message, zmq->context->server, shape, &zmq->converted);
    }
    if (r < 0) {
        return BB_ECLOSED; /* nothing can be said to it any more */
    }
    return zmq_send(zmq->socket, zmq->converted.data, zmq->converted.len, ZMQ_DONTWAIT) < 0 ? BB_EAGAIN : 0;
}

/* --- sending -------------------------------------------------------------------------------------- */

int bk_plug_zmq_send(struct bk_plug *plug, void *to, const struct bk_part *parts, size_t n_parts)
{
    struct plug_zmq *zmq = of(plug);
    const struct peer *peer = to;
    if (zmq_send(zmq->socket, peer->id, sizeof(peer->id), ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
        return zmq_errno() == EAGAIN ? BB_EAGAIN : BB_ECLOSED; /* EHOSTUNREACH: it went */
    }
    if (peer->json) {
        return send_json(zmq, peer, parts, n_parts);
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
    zmq_msg_t *id = (zmq_msg_t *)(uintptr_t)&zmq->id; /* libzmq's getters take no const */
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
    bb_buf_reset(&zmq->converted);
    bb_msg_encode(&zmq->converted, &msg);
    if (zmq->converted.error == 0 && zmq_msg_send(&zmq->id, zmq->socket, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0) {
        (void)zmq_send(zmq->socket, zmq->converted.data, zmq->converted.len, ZMQ_DONTWAIT);
    }
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
    if (bb_message_is_json(bytes)) {
        take_json(zmq, peer, bytes);
        return;
    }
    if (bytes.len >= KEEP_MIN) {
        owner = bk_zmq_take(bk_core_meter(zmq->context->core), &zmq->msg);
        if (owner != NULL) {
            bytes = bb_slice(owner->data, owner->len);
        }
    }
    bk_core_message(zmq->context->core, peer->client, bytes, owner);
    bk_bytes_unref(owner);
}

static void take_frames(struct plug_zmq *zmq, struct peer *peer)
{
    int r = bk_zmq_receive_rest(zmq->socket, &zmq->msg, zmq->context->max_message, &zmq->joined);
    if (r < 0) {
        bk_core_bad_message(zmq->context->core, peer->client, r, NULL);
    } else if (bb_message_is_json(bb_buf_slice(&zmq->joined))) {
        take_json(zmq, peer, bb_buf_slice(&zmq->joined));
    } else {
        bk_core_message(zmq->context->core, peer->client, bb_buf_slice(&zmq->joined), NULL);
    }
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

static void set_accepting(struct plug_zmq *zmq, bool accepting)
{
    if (accepting == zmq->accepting) {
        return;
    }
    zmq->accepting = accepting;
    for (size_t i = 0; i < zmq->endpoints.n_names; i++) {
        (void)(accepting ? zmq_bind(zmq->socket, zmq->endpoints.names[i])
                         : zmq_unbind(zmq->socket, zmq->endpoints.names[i]));
    }
}

static void take_monitor(struct plug_zmq *zmq)
{
    uint16_t event = 0;
    while (zmq_msg_recv(&zmq->msg, zmq->monitor, ZMQ_DONTWAIT) >= 0) {
        if (zmq_msg_size(&zmq->msg) >= sizeof(event)) {
            memcpy(&event, zmq_msg_data(&zmq->msg), sizeof(event));
        }
        bk_zmq_drop_rest(zmq->monitor, &zmq->msg); /* the endpoint */
        if (event == ZMQ_EVENT_ACCEPTED) {
            zmq->n_connections++;
        } else if (event == ZMQ_EVENT_DISCONNECTED && zmq->n_connections > 0) {
            zmq->n_connections--;
        }
    }
    /* Without descriptors libzmq would spin on accept(): stop before, go on when there is room again. */
    size_t max = zmq->context->max_connections;
    if (zmq->accepting && zmq->n_connections >= max - max / 10) {
        set_accepting(zmq, false);
        zmq->is_full = true;
    } else if (zmq->is_full && zmq->n_connections < max - max / 5) {
        set_accepting(zmq, true);
        zmq->is_full = false;
    }
}

static bool step(struct bk_plug *plug, size_t budget)
{
    struct plug_zmq *zmq = of(plug);
    size_t taken = 0;
    take_monitor(zmq);
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

static size_t items(struct bk_plug *plug, zmq_pollitem_t *to)
{
    struct plug_zmq *zmq = of(plug);
    to[0] = (zmq_pollitem_t){.socket = zmq->socket, .events = ZMQ_POLLIN};
    to[1] = (zmq_pollitem_t){.socket = zmq->monitor, .events = ZMQ_POLLIN};
    return 2;
}

/* --- opening and closing ----------------------------------------------------------------------------- */

static void close_plug(struct bk_plug *plug)
{
    struct plug_zmq *zmq = of(plug);
    if (zmq->monitor != NULL) {
        (void)zmq_close(zmq->monitor);
    }
    if (zmq->socket != NULL) {
        (void)zmq_close(zmq->socket);
    }
    zmq->monitor = zmq->socket = NULL;
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
    bk_endpoints_fini(&zmq->endpoints);
    bb_buf_fini(&zmq->joined);
    bb_buf_fini(&zmq->converted);
    bb_buf_fini(&zmq->err);
    (void)zmq_msg_close(&zmq->id);
    (void)zmq_msg_close(&zmq->msg);
    free(zmq);
}

static const struct bk_plug_ops ops = {
    .items = items,
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
        {ZMQ_ROUTER_HANDOVER, 0},
        {ZMQ_SNDHWM, SEND_HWM},
        {ZMQ_RCVHWM, RECEIVE_HWM},
        {ZMQ_LINGER, zmq->context->linger_ms},
        {ZMQ_BACKLOG, 1024},
        {ZMQ_HANDSHAKE_IVL, HANDSHAKE_MS},
        {ZMQ_TCP_KEEPALIVE, 1},
        {ZMQ_TCP_KEEPALIVE_IDLE, 30},
        {ZMQ_TCP_KEEPALIVE_INTVL, 10},
        {ZMQ_TCP_KEEPALIVE_CNT, 3},
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

static int start_monitor(struct plug_zmq *zmq)
{
    char name[64];
    (void)snprintf(name, sizeof(name), "inproc://monitor-%p", (void *)zmq);
    if (zmq_socket_monitor(zmq->socket, name, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) != 0) {
        return BB_ESYSTEM;
    }
    zmq->monitor = zmq_socket(zmq->context->zmq, ZMQ_PAIR);
    return zmq->monitor != NULL && zmq_connect(zmq->monitor, name) == 0 ? 0 : BB_ESYSTEM;
}

int bk_plug_zmq_new(const struct bk_plug_context *context, struct bk_plug **ret_plug)
{
    struct plug_zmq *zmq = calloc(1, sizeof(*zmq));
    if (zmq == NULL) {
        return BB_ENOMEM;
    }
    zmq->plug.ops = &ops;
    zmq->context = context;
    zmq->accepting = true;
    (void)zmq_msg_init(&zmq->id);
    (void)zmq_msg_init(&zmq->msg);
    bb_map_init(&zmq->peers, context->seed, context->max_peers + SHUT_OUT_MAX + 1);
    zmq->socket = zmq_socket(context->zmq, ZMQ_ROUTER);
    int r = zmq->socket != NULL ? set_options(zmq) : BB_ESYSTEM;
    if (r == 0) {
        r = start_monitor(zmq);
    }
    if (r < 0) {
        close_plug(&zmq->plug);
        free_plug(&zmq->plug);
        return r;
    }
    *ret_plug = &zmq->plug;
    return 0;
}

int bk_plug_zmq_bind(struct bk_plug *plug, const char *endpoint, bool insecure, struct bb_buf *err)
{
    return bk_endpoint_bind(of(plug)->socket, endpoint, insecure, &of(plug)->endpoints, err);
}

const struct bk_endpoints *bk_plug_zmq_endpoints(struct bk_plug *plug)
{
    return &of(plug)->endpoints;
}

void bk_plug_zmq_stop_accepting(struct bk_plug *plug)
{
    of(plug)->is_full = false;
    set_accepting(of(plug), false);
}

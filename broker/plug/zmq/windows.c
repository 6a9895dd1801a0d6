/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/zmq/windows.h"

#include "proto/base/error.h"
#include "proto/json/event_json.h"
#include "proto/wire/path.h"

#include "broker/plug/ingest.h"
#include "broker/plug/zmq/connections.h"
#include "broker/plug/zmq/zmq_bytes.h"
#include "broker/plug/zmq/zmq_socket.h"

#include <stdlib.h>
#include <zmq.h>

/* Messages that wait for one subscriber; with the bytes of all of them below. */
#define PUBLISH_HWM   10000
#define PUBLISH_BYTES ((size_t)64 << 20)

/* Topics on their way in, of one subscriber. libzmq takes in all that come without a pause before we see the
 * first: there is a pause when this many were taken. */
#define PUBLISH_TOPICS_HWM 16

#define INGEST_HWM   256
#define HANDSHAKE_MS 3000

/* Topics of one subscriber, and of all. libzmq keeps each (about 1.4 KB) whatever is said to it, so that who has
 * too many is cut off. */
#define TOPICS_MAX     10000
#define TOPICS_ALL_MAX 50000

struct window {
    void *socket;
    struct bk_endpoints endpoints;
    struct bk_connections connections;
    bool has_topics; /* somebody subscribed since nobody was connected */
};

struct windows {
    struct bk_plug plug;
    const struct bk_plug_context *context;
    struct window windows[BK_WINDOW_KINDS];
    struct bk_meter meter; /* bytes on their way out */
    bool is_open;
    zmq_msg_t msg;
    struct bb_buf shown; /* what goes out; what came in lies elsewhere: see ingest.c */
};

static struct windows *of(struct bk_plug *plug)
{
    return BB_CONTAINER(plug, struct windows, plug);
}

static bool is_output(enum bk_window_kind kind)
{
    return kind == BK_WINDOW_PUBLISH || kind == BK_WINDOW_PUBLISH_JSON;
}

/* --- out ------------------------------------------------------------------------------------------ */

static void is_open_set(struct windows *windows)
{
    windows->is_open =
        windows->windows[BK_WINDOW_PUBLISH].has_topics || windows->windows[BK_WINDOW_PUBLISH_JSON].has_topics;
}

static void take_topic(struct windows *windows, struct window *window, const uint8_t *bytes, size_t len)
{
    bool is_added = bytes[0] == 1;
    int fd = zmq_msg_get(&windows->msg, ZMQ_SRCFD); /* -1 for the topics of who went */
    uint32_t n = bk_connections_charge(&window->connections, fd, is_added ? 1 : -1);
    if (is_added && (n > TOPICS_MAX || window->connections.charged > TOPICS_ALL_MAX)) {
        bk_connections_cut(fd);
        return;
    }
    if (len > 1 + BB_PATH_MAX || bytes[0] > 1) {
        return;
    }
    (void)zmq_setsockopt(window->socket, is_added ? ZMQ_SUBSCRIBE : ZMQ_UNSUBSCRIBE, bytes + 1, len - 1);
    window->has_topics = window->has_topics || is_added;
}

/* Subscriptions are ours to accept (XPUB_MANUAL): libzmq 4.3.4 matches topics of 246 to 255 bytes wrongly. */
static void take_topics(struct windows *windows, struct window *window)
{
    while (zmq_msg_recv(&windows->msg, window->socket, ZMQ_DONTWAIT) >= 0) {
        size_t len = zmq_msg_size(&windows->msg);
        if (len > 0) {
            take_topic(windows, window, zmq_msg_data(&windows->msg), len);
        }
    }
    is_open_set(windows);
}

static void send_event(struct windows *windows, struct window *window, struct bb_slice path)
{
    size_t len = windows->shown.len;
    if (atomic_load_explicit(&windows->meter.bytes, memory_order_relaxed) + len > PUBLISH_BYTES) {
        bk_core_window_dropped(windows->context->core);
        return;
    }
    struct bk_bytes *bytes = bk_bytes_new(&windows->meter, len);
    if (bytes == NULL) {
        bk_core_window_dropped(windows->context->core);
        return;
    }
    memcpy(bytes->data, windows->shown.data, len);
    struct bk_part part = {bytes, bytes->data, len};
    if (zmq_send(window->socket, path.data, path.len, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0 ||
        bk_zmq_send_part(window->socket, &part, false) < 0) {
        bk_core_window_dropped(windows->context->core);
    }
    bk_bytes_unref(bytes);
}

void bk_windows_show(struct bk_plug *plug, const struct bk_window_event *shown)
{
    struct windows *windows = of(plug);
    struct bb_slice rest = shown->raw;
    struct bb_event_view event;
    struct bb_event_meta meta = {
        .server = shown->server,
        .session = shown->session,
        .instance = shown->instance,
        .sequence = shown->sequence,
        .time = shown->time,
        .source = shown->source,
    };
    if (bb_event_read(&rest, &event) < 0) {
        return;
    }
    for (enum bk_window_kind kind = BK_WINDOW_PUBLISH; kind <= BK_WINDOW_PUBLISH_JSON; kind++) {
        struct window *window = &windows->windows[kind];
        bb_buf_reset(&windows->shown);
        if (!window->has_topics) {
            continue;
        }
        int r = kind == BK_WINDOW_PUBLISH
                    ? bb_event_map_write(&windows->shown, &meta, &event)
                    : bb_event_json_write(&windows->shown, &meta, &event, BB_SHAPE_EVENT);
        if (r == 0) {
            send_event(windows, window, event.path);
        }
    }
}

const bool *bk_windows_is_open(struct bk_plug *plug)
{
    return &of(plug)->is_open;
}

/* --- in ------------------------------------------------------------------------------------------- */

static int take_pair(struct windows *windows, void *socket)
{
    uint8_t path[BB_PATH_MAX];
    size_t len = zmq_msg_size(&windows->msg);
    if (len <= sizeof(path)) {
        memcpy(path, zmq_msg_data(&windows->msg), len);
    }
    if (zmq_msg_recv(&windows->msg, socket, ZMQ_DONTWAIT) < 0) {
        return BB_EMALFORMED;
    }
    if (zmq_msg_more(&windows->msg)) {
        bk_zmq_drop_rest(socket, &windows->msg);
        return BB_EMALFORMED;
    }
    struct bb_slice payload = bb_slice(zmq_msg_data(&windows->msg), zmq_msg_size(&windows->msg));
    return len > sizeof(path) ? BB_EPATH
                              : bk_ingest_pair(windows->context->core, bb_slice(path, len), payload);
}

static int take_one(struct windows *windows)
{
    struct bk_core *core = windows->context->core;
    struct bk_bytes *owner = bk_zmq_take(bk_core_meter(core), &windows->msg);
    if (owner == NULL) {
        return BB_ENOMEM;
    }
    int r = bk_ingest_frame(core, bb_slice(owner->data, owner->len), owner);
    bk_bytes_unref(owner);
    return r;
}

static bool take_events(struct windows *windows, void *socket, size_t budget)
{
    for (size_t taken = 0; taken < budget;) {
        if (zmq_msg_recv(&windows->msg, socket, ZMQ_DONTWAIT) < 0) {
            return false;
        }
        taken += 256 + zmq_msg_size(&windows->msg);
        bool is_pair = zmq_msg_more(&windows->msg);
        int r = is_pair ? take_pair(windows, socket) : take_one(windows);
        if (r < 0) {
            bk_core_ingest_refused(windows->context->core, r);
        }
    }
    return true;
}

/* --- the plug ------------------------------------------------------------------------------------- */

static size_t fds(const struct bk_plug *plug, int to[BK_PLUG_FDS])
{
    const struct windows *windows = of(bb_unconst(plug));
    size_t n = 0;
    for (size_t i = 0; i < BK_WINDOW_KINDS; i++) {
        if (windows->windows[i].socket != NULL) {
            to[n++] = bk_zmq_fd(windows->windows[i].socket);
            to[n++] = bk_zmq_fd(windows->windows[i].connections.monitor);
        }
    }
    return n;
}

static bool has_input(const struct bk_plug *plug)
{
    const struct windows *windows = of(bb_unconst(plug));
    bool found = false;
    for (size_t i = 0; i < BK_WINDOW_KINDS && !found; i++) {
        const struct window *window = &windows->windows[i];
        found = window->socket != NULL &&
                (bk_zmq_has_input(window->socket) || bk_zmq_has_input(window->connections.monitor));
    }
    return found;
}

static bool step(struct bk_plug *plug, uint64_t now, size_t budget)
{
    (void)now;
    struct windows *windows = of(plug);
    bool more = false;
    for (enum bk_window_kind kind = 0; kind < BK_WINDOW_KINDS; kind++) {
        struct window *window = &windows->windows[kind];
        if (window->socket == NULL) {
            continue;
        }
        size_t n_before = window->connections.n;
        bk_connections_step(&window->connections);
        if (n_before > 0 && window->connections.n == 0) { /* a topic may be heard of before its connection */
            window->has_topics = false;
        }
        if (is_output(kind)) {
            take_topics(windows, window);
        } else if (take_events(windows, window->socket, budget)) {
            more = true;
        }
    }
    return more;
}

static void close_plug(struct bk_plug *plug)
{
    struct windows *windows = of(plug);
    for (size_t i = 0; i < BK_WINDOW_KINDS; i++) {
        bk_endpoints_fini(&windows->windows[i].endpoints);
        bk_connections_fini(&windows->windows[i].connections);
        if (windows->windows[i].socket != NULL) {
            (void)zmq_close(windows->windows[i].socket);
            windows->windows[i].socket = NULL;
        }
    }
}

static void free_plug(struct bk_plug *plug)
{
    struct windows *windows = of(plug);
    (void)zmq_msg_close(&windows->msg);
    bb_buf_fini(&windows->shown);
    free(windows);
}

static const struct bk_plug_ops ops = {
    .fds = fds,
    .has_input = has_input,
    .step = step,
    .close = close_plug,
    .free = free_plug,
};

int bk_windows_new(const struct bk_plug_context *context, struct bk_plug **ret_plug)
{
    struct windows *windows = calloc(1, sizeof(*windows));
    if (windows == NULL) {
        return BB_ENOMEM;
    }
    windows->plug.ops = &ops;
    windows->context = context;
    atomic_init(&windows->meter.bytes, 0);
    (void)zmq_msg_init(&windows->msg);
    *ret_plug = &windows->plug;
    return 0;
}

static const int socket_types[BK_WINDOW_KINDS] = {
    [BK_WINDOW_PUBLISH] = ZMQ_XPUB,
    [BK_WINDOW_PUBLISH_JSON] = ZMQ_XPUB,
    [BK_WINDOW_INGEST] = ZMQ_PULL,
    [BK_WINDOW_INGEST_SUB] = ZMQ_SUB,
};

static int window_open(struct windows *windows, enum bk_window_kind kind)
{
    struct window *window = &windows->windows[kind];
    const int one = 1;
    const int hwm = is_output(kind) ? PUBLISH_HWM : INGEST_HWM;
    const int hwm_in = is_output(kind) ? PUBLISH_TOPICS_HWM : INGEST_HWM;
    const int handshake = HANDSHAKE_MS;
    const int64_t max = (int64_t)windows->context->max_message;
    window->socket = zmq_socket(windows->context->zmq, socket_types[kind]);
    void *socket = window->socket;
    const struct bk_plug_context *context = windows->context;
    bool ok = socket != NULL &&
              bk_connections_watch(&window->connections, context->zmq, socket, context->crowd) == 0 &&
              zmq_setsockopt(socket, ZMQ_SNDHWM, &hwm, sizeof(hwm)) == 0 &&
              zmq_setsockopt(socket, ZMQ_RCVHWM, &hwm_in, sizeof(hwm_in)) == 0 &&
              zmq_setsockopt(socket, ZMQ_HANDSHAKE_IVL, &handshake, sizeof(handshake)) == 0 &&
              zmq_setsockopt(socket, ZMQ_TCP_KEEPALIVE, &one, sizeof(one)) == 0 &&
              zmq_setsockopt(socket, ZMQ_LINGER, &windows->context->linger_ms, sizeof(int)) == 0 &&
              zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &max, sizeof(max)) == 0;
    if (ok && is_output(kind)) {
        ok = zmq_setsockopt(socket, ZMQ_XPUB_MANUAL, &one, sizeof(one)) == 0;
    } else if (ok && kind == BK_WINDOW_INGEST_SUB) {
        ok = zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0) == 0;
    }
    return ok ? 0 : BB_ESYSTEM;
}

int bk_windows_bind(struct bk_plug *plug,
                    enum bk_window_kind kind,
                    const char *endpoint,
                    bool insecure,
                    struct bb_buf *err)
{
    struct windows *windows = of(plug);
    if (windows->windows[kind].socket == NULL && window_open(windows, kind) < 0) {
        bb_buf_reset(err);
        bb_buf_printf(err, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
        return BB_ESYSTEM;
    }
    return bk_zmq_bind(windows->windows[kind].socket, endpoint, insecure, &windows->windows[kind].endpoints,
                       err);
}

const struct bk_endpoints *bk_windows_endpoints(struct bk_plug *plug, enum bk_window_kind kind)
{
    return &of(plug)->windows[kind].endpoints;
}

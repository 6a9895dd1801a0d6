/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/zmq/zmq_bytes.h"

#include "proto/base/error.h"
#include "proto/wire/message.h"

#include "broker/plug/zmq/handover.h"

#include <errno.h>
#include <stdlib.h>

/* Below this, copying costs less than libzmq's bookkeeping of a reference. */
#define REFERENCE_MIN ((size_t)1 << 10)

struct zmq_bytes {
    struct bk_bytes bytes;
    zmq_msg_t msg;
};

static void zmq_bytes_free(struct bk_bytes *bytes)
{
    struct zmq_bytes *held = BB_CONTAINER(bytes, struct zmq_bytes, bytes);
    (void)zmq_msg_close(&held->msg);
    free(held);
}

struct bk_bytes *bk_zmq_take(struct bk_meter *meter, zmq_msg_t *msg)
{
    struct zmq_bytes *held = malloc(sizeof(*held));
    if (held == NULL) {
        return NULL;
    }
    (void)zmq_msg_init(&held->msg);
    (void)zmq_msg_move(&held->msg, msg);
    size_t size = zmq_msg_size(&held->msg);
    bk_bytes_init(&held->bytes, meter, zmq_msg_data(&held->msg), size, zmq_bytes_free);
    held->bytes.len = size;
    return &held->bytes;
}

static void part_free(void *data, void *hint)
{
    (void)data;
    BB_HANDOVER_TAKE(hint);
    bk_bytes_unref(hint);
}

int bk_zmq_send_part(void *socket, const struct bk_part *part, bool more)
{
    zmq_msg_t msg;
    int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    if (part->owner == NULL || part->len < REFERENCE_MIN) {
        return zmq_send(socket, part->data, part->len, flags) < 0 ? -1 : 0;
    }
    struct bk_bytes *owner = bk_bytes_ref(part->owner);
    BB_HANDOVER_GIVE(owner);
    /* libzmq takes the bytes without const and never writes to them */
    if (zmq_msg_init_data(&msg, bb_unconst(part->data), part->len, part_free, owner) != 0) {
        bk_bytes_unref(owner);
        return -1;
    }
    if (zmq_msg_send(&msg, socket, flags) < 0) {
        int error = errno;
        (void)zmq_msg_close(&msg);
        errno = error;
        return -1;
    }
    return 0;
}

void bk_zmq_drop_rest(void *socket, zmq_msg_t *msg)
{
    while (zmq_msg_more(msg) && zmq_msg_recv(msg, socket, ZMQ_DONTWAIT) >= 0) {
    }
}

int bk_zmq_receive_rest(void *socket, zmq_msg_t *first, size_t limit, struct bb_buf *out)
{
    int r = 0;
    bb_buf_reset(out);
    for (size_t n = 1;; n++) {
        if (zmq_msg_size(first) > limit - out->len || n > BB_FRAMES_MAX) {
            r = BB_ETOOBIG;
        }
        if (r < 0) {
            bk_zmq_drop_rest(socket, first);
            return r;
        }
        bb_buf_append(out, zmq_msg_data(first), zmq_msg_size(first));
        if (!zmq_msg_more(first)) {
            return out->error;
        }
        if (zmq_msg_recv(first, socket, ZMQ_DONTWAIT) < 0) {
            return BB_EMALFORMED; /* cannot be: libzmq hands over whole messages */
        }
    }
}

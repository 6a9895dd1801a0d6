/* SPDX-License-Identifier: Apache-2.0 */
/* Between libzmq's messages and the core's shared bytes, both ways without copying what is large. */
#pragma once

#include "broker/core/bytes.h"
#include "broker/core/core.h"

#include <stdbool.h>
#include <zmq.h>

/** bk_zmq_take() - shared bytes of a received message, which is empty afterwards; NULL without memory (the message
 * stays as it is). */
struct bk_bytes *bk_zmq_take(struct bk_meter *meter, zmq_msg_t *msg);

/** bk_zmq_send_part() - send a part as a frame: by reference if it has an owner and is worth it. Return: 0, or -1 with
 * errno set by libzmq. */
int bk_zmq_send_part(void *socket, const struct bk_part *part, bool more);

/** bk_zmq_drop_rest() - receive and forget the rest of a multipart message after @msg. */
void bk_zmq_drop_rest(void *socket, zmq_msg_t *msg);

/**
 * bk_zmq_receive_rest() - the rest of a message of several frames, put together (PROTOCOL 2)
 * @first: the first frame
 * @limit: of bytes in all
 * @out:   the frames one after the other
 *
 * Return: 0, BB_ETOOBIG (bytes or frames; the message has been received to its end all the same), BB_ENOMEM.
 */
int bk_zmq_receive_rest(void *socket, zmq_msg_t *first, size_t limit, struct bb_buf *out);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZMTP 3 (https://rfc.zeromq.org/spec/23) with the NULL mechanism, as a ROUTER or a DEALER speaks it: a pure machine
 * over bytes, for one connection. Bytes that came go in; what they mean comes out one step at a time. No sockets.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BB_ZMTP_GREETING_LEN 64
#define BB_ZMTP_HEAD_MAX     9

enum bb_zmtp_state {
    BB_ZMTP_GREETING,  /* the peer's greeting has not come */
    BB_ZMTP_HANDSHAKE, /* its READY has not come */
    BB_ZMTP_OPEN,
};

/* What this side is. */
enum bb_zmtp_role {
    BB_ZMTP_ROUTER, /* the broker */
    BB_ZMTP_DEALER, /* the library */
};

struct bb_zmtp {
    enum bb_zmtp_role role;
    enum bb_zmtp_state state;
    size_t max_frame;
};

enum bb_zmtp_step {
    BB_ZMTP_MORE,     /* more bytes are needed */
    BB_ZMTP_SILENT,   /* something was taken that needs nothing */
    BB_ZMTP_READY_IN, /* the peer is ready: answer with READY */
    BB_ZMTP_ROUTED,   /* the same to a ROUTER, but it set a routing id */
    BB_ZMTP_PING,     /* answer PONG with the context */
    BB_ZMTP_FRAME,    /* a frame of a message */
    BB_ZMTP_TOO_BIG,  /* a frame is announced that is larger than the limit; nothing can follow */
    BB_ZMTP_BROKEN,   /* this is not ZMTP 3 with NULL, or no peer for this role; nothing can follow */
};

struct bb_zmtp_input {
    size_t used;          /* bytes taken off the front */
    size_t wanted;        /* BB_ZMTP_MORE: bytes the next step needs in all, as far as is known */
    struct bb_slice data; /* of a frame; context of a ping */
    bool more;            /* the message goes on after this frame */
};

/** bb_zmtp_init() - a new connection. @max_frame: largest frame taken. */
void bb_zmtp_init(struct bb_zmtp *zmtp, enum bb_zmtp_role role, size_t max_frame);

/** bb_zmtp_step() - take one thing off the front of @bytes, which are distrusted. Total: any bytes are answered. */
enum bb_zmtp_step bb_zmtp_step(struct bb_zmtp *zmtp, struct bb_slice bytes, struct bb_zmtp_input *ret_input);

/** bb_zmtp_greeting() - what is sent first. */
void bb_zmtp_greeting(uint8_t to[BB_ZMTP_GREETING_LEN]);

/** bb_zmtp_ready() - append the READY of @role. */
void bb_zmtp_ready(struct bb_buf *out, enum bb_zmtp_role role);

/** bb_zmtp_pong() - append the PONG for a ping's context. */
void bb_zmtp_pong(struct bb_buf *out, struct bb_slice context);

/** bb_zmtp_head() - write the head of a frame of @len bytes; returns its length. */
size_t bb_zmtp_head(uint8_t to[BB_ZMTP_HEAD_MAX], size_t len, bool more);

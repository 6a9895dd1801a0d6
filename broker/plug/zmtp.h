/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ZMTP 3 (https://rfc.zeromq.org/spec/23) as a ROUTER speaks it with the NULL mechanism: a pure machine over bytes, for
 * one connection. Bytes that came go in; what they mean comes out one step at a time. No sockets.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BK_ZMTP_GREETING_LEN 64
#define BK_ZMTP_HEAD_MAX     9

enum bk_zmtp_state {
    BK_ZMTP_GREETING,  /* the peer's greeting has not come */
    BK_ZMTP_HANDSHAKE, /* its READY has not come */
    BK_ZMTP_OPEN,
};

struct bk_zmtp {
    enum bk_zmtp_state state;
    size_t max_frame;
};

enum bk_zmtp_step {
    BK_ZMTP_MORE,     /* more bytes are needed */
    BK_ZMTP_SILENT,   /* something was taken that needs nothing */
    BK_ZMTP_READY_IN, /* the peer is ready: answer with READY */
    BK_ZMTP_ROUTED,   /* the same, but it set a routing id */
    BK_ZMTP_PING,     /* answer PONG with the context */
    BK_ZMTP_FRAME,    /* a frame of a message */
    BK_ZMTP_TOO_BIG,  /* a frame is announced that is larger than the limit; nothing can follow */
    BK_ZMTP_BROKEN,   /* this is not ZMTP 3 with NULL, or not a peer for a ROUTER; nothing can follow */
};

struct bk_zmtp_input {
    size_t used;          /* bytes taken off the front */
    size_t wanted;        /* BK_ZMTP_MORE: bytes the next step needs in all, as far as is known */
    struct bb_slice data; /* of a frame; context of a ping */
    bool more;            /* the message goes on after this frame */
};

/** bk_zmtp_init() - a new connection. @max_frame: largest frame taken. */
void bk_zmtp_init(struct bk_zmtp *zmtp, size_t max_frame);

/** bk_zmtp_step() - take one thing off the front of @bytes, which are distrusted. Total: any bytes are answered. */
enum bk_zmtp_step bk_zmtp_step(struct bk_zmtp *zmtp, struct bb_slice bytes, struct bk_zmtp_input *ret_input);

/** bk_zmtp_greeting() - what the broker sends first. */
void bk_zmtp_greeting(uint8_t to[BK_ZMTP_GREETING_LEN]);

/** bk_zmtp_ready() - append the broker's READY. */
void bk_zmtp_ready(struct bb_buf *out);

/** bk_zmtp_pong() - append the PONG for a ping's context. */
void bk_zmtp_pong(struct bb_buf *out, struct bb_slice context);

/** bk_zmtp_head() - write the head of a frame of @len bytes; returns its length. */
size_t bk_zmtp_head(uint8_t to[BK_ZMTP_HEAD_MAX], size_t len, bool more);

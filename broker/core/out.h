/* SPDX-License-Identifier: Apache-2.0 */
/* What comes out of the core: counters, messages, log lines. */
#pragma once

#include "proto/base/buf.h"

#include "broker/core/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Counters, by row of counters.def. */
enum bk_counter {
#define COUNTER(name, help) BK_COUNTER_##name,
#include "broker/core/counters.def"
#undef COUNTER
    BK_COUNTERS
};

/* A piece of a message on its way out. With an owner the bytes may be referenced, else they are copied. */
struct bk_part {
    struct bk_bytes *owner;
    const uint8_t *data;
    size_t len;
};

/* No message has more parts. */
#define BK_PARTS_MAX 16

/* An event for the windows. */
struct bk_window_event {
    struct bb_slice raw; /* the event as in its batch */
    uint64_t server;
    uint64_t session;
    uint64_t instance;
    uint64_t sequence;
    uint64_t time;
    uint64_t source;
};

enum bk_log_level {
    BK_LOG_ERROR,
    BK_LOG_WARNING,
    BK_LOG_NOTICE,
    BK_LOG_DEBUG,
};

/* What the core needs of the outside. Calls come from inside the core's functions and must not call back, but for
 * bk_core_window_dropped(). */
struct bk_out {
    void *context;
    /* Send to the client's peer. Return: 0; BB_EAGAIN: no room now, nothing was sent; BB_ECLOSED: the peer is gone
     * (the core then forgets the client by itself). */
    int (*send)(void *context, void *peer, const struct bk_part *parts, size_t n_parts);
    /* The core has no client for this peer any more. @shut_out: drop whatever still comes from it. */
    void (*close)(void *context, void *peer, bool shut_out);
    /* @paused: what the peer sends is not wanted now: read no more of it than has to be, until it is called with false. What
     * still comes is kept. NULL: no peer can be stopped. */
    void (*pause)(void *context, void *peer, bool paused);
    /* An event was published; NULL when there are no windows. Called only while *window_is_open. */
    void (*window)(void *context, const struct bk_window_event *event);
    const bool *window_is_open;
    /* A log entry: a stable id, then one sentence. */
    void (*log)(void *context, enum bk_log_level level, const char *id, const char *text);
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A plug: a way in or out of the broker. It owns its endpoints and its peers and runs on the core's thread: the
 * loop waits on its descriptors and calls step() when something may have happened. What carries bytes is
 * nothing the core knows about; it sees struct bk_out alone.
 */
#pragma once

#include "broker/core/core.h"
#include "broker/plug/crowd.h"

#include <stdbool.h>
#include <stddef.h>

/* Descriptors of a plug at most. */
#define BK_PLUG_FDS 8

struct bk_plug;

struct bk_plug_ops {
    /* Fill @fds with what is readable when there may be something to take; returns how many. They stay the same. */
    size_t (*fds)(const struct bk_plug *plug, int fds[BK_PLUG_FDS]);
    /* Whether there is something to take, for descriptors that tell of changes alone. NULL: they are readable as long as
     * there is. */
    bool (*has_input)(const struct bk_plug *plug);
    /* Take what has arrived into the core, about @budget bytes at most. Returns whether there may be more. @now: us. */
    bool (*step)(struct bk_plug *plug, uint64_t now, size_t budget);
    /* Write what the core has sent since. NULL: sending does it. */
    void (*flush)(struct bk_plug *plug);
    /* Now and then, at least once a second. NULL: not needed. */
    void (*tick)(struct bk_plug *plug, uint64_t now);
    /* Close the sockets; what was sent leaves within the linger time, on the transport's threads. */
    void (*close)(struct bk_plug *plug);
    /* After the transport's threads have ended, since they let go of bytes that are metered here. */
    void (*free)(struct bk_plug *plug);
};

struct bk_plug {
    const struct bk_plug_ops *ops;
};

/* What every plug is opened with. */
struct bk_plug_context {
    void *zmq;            /* libzmq's context, for the plugs on it */
    struct bk_core *core; /* NULL until the core exists; plugs are opened first */
    size_t max_message;
    size_t max_peers;
    struct bk_crowd *crowd; /* the connections of all sockets */
    uint64_t server;
    uint64_t seed;
    int linger_ms;
};

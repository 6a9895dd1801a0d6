/* SPDX-License-Identifier: Apache-2.0 */
/* A main door: a plug whose peers are clients of the core. There are two, and nothing above can tell them apart. */
#pragma once

#include "broker/plug/endpoint.h"
#include "broker/plug/plug.h"

struct bk_door;

struct bk_door_ops {
    /* Listen on one more endpoint. Errors as bk_endpoint_check(). */
    int (*bind)(struct bk_door *door, const char *endpoint, bool insecure, struct bb_buf *err);
    /* No new connections from now on. The ones that are there stay. */
    void (*stop_accepting)(struct bk_door *door);
    /* struct bk_out's. */
    int (*send)(struct bk_door *door, void *peer, const struct bk_part *parts, size_t n_parts);
    void (*close_peer)(struct bk_door *door, void *peer, bool shut_out);
    void (*pause)(struct bk_door *door, void *peer, bool paused); /* NULL: it cannot */
};

struct bk_door {
    struct bk_plug plug;
    const struct bk_door_ops *ops;
    struct bk_endpoints endpoints; /* what it listens on */
};

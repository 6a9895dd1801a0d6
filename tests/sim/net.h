/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection between a peer and the broker: two queues with latency. Messages from the broker keep
 * referring to the core's bytes
 * until they arrive, as a real transport does.
 */
#pragma once

#include "broker/core/core.h"
#include "broker/plug/edge.h"
#include "tests/sim/model/judge.h"

struct sim_peer;

struct link_msg {
    struct link_msg *next;
    uint64_t arrival;
    size_t len;
    size_t n_parts;
    struct bk_part parts[BK_PARTS_MAX];
    uint8_t copy[]; /* parts that had no owner */
};

struct link_queue {
    struct link_msg *first;
    struct link_msg *last;
    size_t bytes;
    uint64_t last_arrival;
};

struct sim_link {
    struct sim_link *next;
    struct sim_peer *peer;
    uint64_t number;        /* of all links of the world */
    struct bk_client *core; /* NULL: the core knows nobody here */
    struct bk_edge edge;
    struct link_queue to_broker;
    struct link_queue to_client;
    bool is_json;
    bool is_open;       /* the peer has not left it */
    bool broken;        /* the broker's transport knows that nobody is there */
    bool is_clogged;    /* it had no room for something */
    bool shut_out;      /* by the core */
    bool is_paused;     /* the core wants nothing of it now */
    uint64_t broken_at; /* when the transport will notice; UINT64_MAX: never */
    uint64_t latency;
    uint64_t jitter; /* state of a generator of its own */
    size_t capacity;
    uint64_t met; /* features: why the peer has come again */
    struct judged_link judged;
};

/** link_msg_new() - a message from parts; those with an owner are referenced, the others copied. */
struct link_msg *link_msg_new(const struct bk_part *parts, size_t n_parts);
void link_msg_free(struct link_msg *msg);

/** link_msg_flatten() - its bytes in one piece, written over what is in @out. */
void link_msg_flatten(const struct link_msg *msg, struct bb_buf *out);

/** link_queue_push() - @msg arrives at @arrival, or right after the one before it. */
void link_queue_push(struct link_queue *queue, struct link_msg *msg, uint64_t arrival);
struct link_msg *link_queue_pop(struct link_queue *queue);
void link_queue_clear(struct link_queue *queue);

/* SPDX-License-Identifier: Apache-2.0 */
/* A `deliver` message: its head, the ranges and gaps, and what it does to the accounts when it was sent (PROTOCOL 7.4). */
#pragma once

#include "broker/core/deliver/parcel.h"

struct bk_sub;

/* Where its events come from, and so how they are counted. */
enum bk_source {
    BK_SOURCE_LIVE, /* they arrive and leave in one */
    BK_SOURCE_RING, /* they waited */
    BK_SOURCE_LOG,  /* they were not counted before */
};

/* Events that are left out, which is reported as a gap from the end of what is settled in the channel to here. */
struct bk_move {
    struct bk_channel *channel;
    uint64_t to;
    uint64_t count; /* BK_NO_NUMBER: not known */
    uint64_t bytes;
    enum bk_reason reason;
};

struct bk_delivery {
    enum bk_source source;
    const struct bk_move *moves; /* in the order of sequences in each channel */
    size_t n_moves;
    const struct bk_range *ranges;
    size_t n_ranges;
    const struct bk_part *parts; /* what follows the head */
    size_t n_parts;
    bool is_small; /* the parts are one small one: better copied behind the head */
    uint64_t events;
    uint64_t bytes;
};

/**
 * bk_deliver() - send @delivery to @sub and settle it
 *
 * What the subscription has lost before is reported in the same message, then what the delivery leaves out, then come the events,
 * which may lie between those.
 *
 * Return: 0; BB_EAGAIN or BB_ECLOSED: nothing was sent and nothing has changed.
 */
int bk_deliver(struct bk_core *core, struct bk_sub *sub, const struct bk_delivery *delivery) BB_MUST_CHECK;

/** bk_delivery_of() - a delivery of what @parcel has. */
struct bk_delivery bk_delivery_of(const struct bk_parcel *parcel, enum bk_source source);

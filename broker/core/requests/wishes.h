/* SPDX-License-Identifier: Apache-2.0 */
/* What a subscribe message asks for, read and checked (PROTOCOL 7.1). */
#pragma once

#include "proto/base/cc.h"
#include "proto/wire/message.h"

#include "broker/core/backend.h"
#include "broker/core/deliver/until.h"
#include "broker/core/keep/policy.h"

enum bk_from_kind {
    BK_FROM_NEW,
    BK_FROM_LAST,
    BK_FROM_OLDEST,
    BK_FROM_SEQUENCE,
    BK_FROM_TIME,
    BK_FROM_ID,
    BK_FROM_AFTER,
    BK_FROM_CURSOR,
};

struct bk_from {
    enum bk_from_kind kind;
    uint64_t number; /* sequence or time */
    uint64_t run;    /* of positions without a life */
    struct bb_slice
        after; /* a map, channel to sequence or [sequence, life]; of a cursor an array of [channel, sequence, life?] */
    struct bk_event_id id;
};

/* Slices borrow from the message. */
struct bk_wishes {
    struct bk_from from;
    struct bk_until_wish until;
    bool wants_retained;
    bool wants_lives;
    bool has_overflow;
    bool has_view;
    bool is_early;
    enum bk_overflow overflow;
    uint64_t credit_bytes;
    uint64_t credit_events;
    uint64_t budget;
    struct bb_slice durable;
    uint32_t n_patterns;
    const char *wrong; /* what of it must be otherwise, NULL: nothing, or the error says it */
};

/** bk_wishes_read() - @msg is distrusted. Return: 0, BB_EINVAL, BB_EPATTERN. */
int bk_wishes_read(const struct bb_msg *msg, struct bk_wishes *ret_wishes) BB_MUST_CHECK;

/** bk_wishes_cover() - whether @patterns match every event of @channel, so that sequences count matching events. */
bool bk_wishes_cover(struct bb_slice patterns, struct bb_slice channel);

/** bk_wishes_can_match() - whether they can match an event of @channel. */
bool bk_wishes_can_match(struct bb_slice patterns, struct bb_slice channel);

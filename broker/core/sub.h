/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscriptions. A live subscription gets each block when it comes; one without credit lags: its cursor
 * stands in the ring, and what waits for it is only counted. So a subscriber that is behind costs a few
 * numbers, whatever it is behind by.
 *
 * Positions: per channel, `covered` is the sequence up to which the client knows the fate of every event;
 * of the matching events after it, `pending` wait in the ring and `lost` have left it unsent, up to the sequence
 * `lost_to`. delivered + gaps + pending + lost = published, at every instant.
 *
 * When what follows a position has left the ring but not the log, all in logged channels are cold: they are fed from there (cold.c)
 * and neither pending nor lost are counted, until the ring has the rest.
 */
#pragma once

#include "broker/core/filter.h"
#include "broker/core/ring.h"
#include "broker/core/route.h"

#include <stdbool.h>
#include <stdint.h>

struct bk_client;

enum bk_overflow {
    BK_OVERFLOW_SLIDE,
    BK_OVERFLOW_DROP_OLDEST,
    BK_OVERFLOW_DROP_NEWEST,
    BK_OVERFLOW_CONFLATE,
    BK_OVERFLOW_REFUSE,
    BK_OVERFLOW_DISCONNECT,
};

struct bk_position {
    struct bk_channel *channel;
    uint64_t covered;
    uint64_t pending;
    uint64_t lost;
    uint64_t lost_to;
    uint64_t stop; /* the last sequence wanted */
    bool cold;
};

/* Up to where, beside credit (PROTOCOL 7.1). Such a subscription is never live, so that nothing passes its end. */
enum bk_until {
    BK_UNTIL_NONE,
    BK_UNTIL_STOP, /* `stop` of each position */
    BK_UNTIL_TIME,
};

struct bk_sub_read;
struct bk_snapshot;
struct bk_cursor;

struct bk_sub {
    struct bk_client *client;
    struct bk_sub *next; /* of its client */
    struct bk_sub *prev;
    struct bk_sub *next_ready; /* of those that lag and may be sent something */
    struct bk_sub *prev_ready;
    bool ready;
    bool live;
    bool dropping;       /* drop_newest: everything from skip_pos on is dropped */
    bool early;          /* the early view */
    bool is_begun;       /* counted as what it is */
    uint64_t early_seen; /* of the blocks ever staged, so many are settled */
    enum bk_until until;
    uint64_t until_time;          /* us, the last time wanted */
    uint64_t new_stop;            /* `stop` of positions in channels to come */
    struct bk_filter *filter;     /* its patterns for the log; NULL: never fed from there */
    size_t n_cold;                /* positions that are */
    struct bk_sub_read *read;     /* under way */
    uint64_t read_hint;           /* where the log goes on for the same positions */
    struct bk_snapshot *snapshot; /* retained values, to be sent before anything else */
    struct bk_cursor *durable;    /* the cursor that it holds */
    enum bk_overflow overflow;
    uint64_t id;     /* the client's; also the key in its map */
    uint64_t serial; /* the broker's, in the order of subscribing */
    uint64_t cursor; /* lagging: position in the ring up to which all is sent */
    uint64_t skip_pos;
    uint64_t evicted_pos; /* the evicted block that was counted last, + 1 */
    uint64_t lag_bytes;   /* waiting, of matching events */
    uint64_t budget;
    uint64_t sent_bytes;
    uint64_t sent_events;
    uint64_t credit_bytes;
    uint64_t credit_events;
    uint64_t round;                /* the fan-out round it was last met in, */
    uint64_t round_key;            /* the sum of the keys of the round's sets that it is in, */
    uint32_t round_sets;           /* how many they are, */
    struct bk_set *round_set;      /* and the last of them */
    struct bk_position *positions; /* by channel index */
    size_t n_positions;
    size_t n_position_slots;
    size_t n_patterns;
    struct bk_pattern patterns[];
};

/** bk_overflow_name() - the word of PROTOCOL 7.3. */
const char *bk_overflow_name(enum bk_overflow overflow);

/** bk_overflow_find() - the policy called @name. Return: 0 or BB_EINVAL. */
int bk_overflow_find(struct bb_slice name, enum bk_overflow *ret_overflow);

/** bk_sub_new() - a subscription without patterns' texts, NULL without memory. */
struct bk_sub *bk_sub_new(size_t n_patterns);

/** bk_sub_free() - take its patterns out of @route and free it. */
void bk_sub_free(struct bk_sub *sub, struct bk_route *route);

/** bk_sub_find_position() - its position in @channel, NULL if it has none. */
struct bk_position *bk_sub_find_position(const struct bk_sub *sub, const struct bk_channel *channel);

/** bk_sub_position() - its position in @channel, made (covered 0) if it had none; NULL without memory. */
struct bk_position *bk_sub_position(struct bk_sub *sub, struct bk_channel *channel);

static inline bool bk_sub_has_credit(const struct bk_sub *sub)
{
    return sub->sent_bytes < sub->credit_bytes && sub->sent_events < sub->credit_events;
}

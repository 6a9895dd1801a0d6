/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscriptions. A live subscription gets each block when it comes; one without credit lags: its cursor
 * stands in the ring, and what waits for it is only counted. So a subscriber that is behind costs a few
 * numbers, whatever it is behind by.
 *
 * It has a position in each channel that it has to do with: its account there, and up to where it wants events. When what follows a
 * position has left the ring but not the log, all positions in logged channels are cold: they are fed from there (deliver/cold.c)
 * until the ring has the rest.
 */
#pragma once

#include "broker/core/filter.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/policy.h"
#include "broker/core/keep/ring.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/route.h"

#include <stdbool.h>
#include <stdint.h>

struct bk_core;
struct bk_client;
struct bk_sub_read;
struct bk_retained;

/* What will find out where a subscription begins; embedded in who does. */
struct bk_beginning {
    struct bk_sub *sub; /* NULL: it has ended */
};

struct bk_position {
    struct bk_channel *channel;
    struct bk_account account;
    uint64_t life;  /* of the channel, as the client was told; 0: not yet */
    uint64_t stop;  /* the last sequence wanted */
    uint64_t begin; /* the sequence that `subscribed` told */
    bool is_cold;
};

/* Up to where, beside credit (PROTOCOL 7.1). Such a subscription is never live, so that nothing passes its end. */
enum bk_until {
    BK_UNTIL_NONE,
    BK_UNTIL_STOP, /* `stop` of each position */
    BK_UNTIL_TIME,
};

enum bk_sub_state {
    BK_SUB_BEGINNING, /* the log is asked where: it matches nothing yet */
    BK_SUB_RETAINED,  /* it gets retained values first; what comes meanwhile waits */
    BK_SUB_LAGGING,   /* fed at its own pace from ring and log */
    BK_SUB_LIVE,      /* has everything, and gets each block when it comes */
    BK_SUB_STATES
};

struct bk_sub {
    struct bk_client *client;
    struct bk_sub *next; /* of its client */
    struct bk_sub *prev;
    struct bk_sub *next_ready; /* of those that may be sent something */
    struct bk_sub *prev_ready;
    enum bk_sub_state state;
    enum bk_overflow overflow;
    enum bk_until until;
    bool is_ready;       /* in the list of those */
    bool is_dropping;    /* drop_newest: everything from skip_pos on is lost */
    bool is_early;       /* the early view */
    bool has_lives;      /* its client wants to know the lives of channels */
    bool is_ahead;       /* it began behind what was durable then */
    uint64_t early_seen; /* of the blocks ever staged, so many are settled */
    uint64_t until_time; /* us, the last time wanted */
    uint64_t new_stop;   /* `stop` of positions in channels to come */
    struct bb_buf
        over; /* names of channels that were removed and are not wanted again: a length, then the name */
    struct bk_filter *filter;       /* its patterns for the log; NULL: never fed from there */
    size_t n_cold;                  /* positions that are */
    size_t n_losing;                /* positions with losses to report */
    struct bk_sub_read *read;       /* a piece of the log, under way or to be sent */
    bool is_reading;                /* under way */
    bool awaits_values;             /* retained values are not known yet */
    uint64_t log_session;           /* of the newest event that came out of the log, if channels are mixed, */
    uint64_t log_instance;          /* and its instance */
    uint64_t read_hint;             /* where the log goes on for the same positions */
    struct bk_retained *retained;   /* values to be sent before anything else */
    struct bk_beginning *beginning; /* what its beginning waits for */
    uint64_t id;                    /* the client's; also the key in its map */
    uint64_t serial;                /* the broker's, in the order of subscribing */
    uint64_t cursor;                /* position in the ring up to which all is sent */
    uint64_t skip_pos;
    uint64_t eviction;  /* the last one that it was held against */
    uint64_t lag_bytes; /* waiting, of matching events: the sum of its accounts */
    uint64_t budget;
    uint64_t sent_bytes;
    uint64_t sent_events;
    uint64_t credit_bytes;
    uint64_t credit_events;
    uint64_t round;                /* the fan-out round it was last met in, */
    uint64_t round_key;            /* the sum of the keys of the round's sets that it is in, */
    uint32_t round_sets;           /* how many they are, */
    struct bk_set *round_set;      /* and the last of them */
    struct bk_position *positions; /* by channel id */
    size_t n_positions;
    size_t n_position_slots;
    size_t n_patterns;
    struct bk_pattern patterns[];
};

/** bk_sub_new() - a subscription without patterns' texts, NULL without memory. */
struct bk_sub *bk_sub_new(size_t n_patterns);

/** bk_sub_free() - take its patterns out of @route and free it. */
void bk_sub_free(struct bk_sub *sub, struct bk_route *route);

/** bk_sub_enter() - go from one state to another. */
void bk_sub_enter(struct bk_core *core, struct bk_sub *sub, enum bk_sub_state state);

/** bk_sub_find_position() - its position in @channel, NULL if it has none. */
struct bk_position *bk_sub_find_position(const struct bk_sub *sub, const struct bk_channel *channel);

/** bk_sub_end_in() - with an end in sequences: nothing of a channel called @name is wanted any more; before it has a position there. */
void bk_sub_end_in(struct bk_sub *sub, struct bb_slice name);

/** bk_sub_position() - its position in @channel, made (covered 0) if it had none; NULL without memory. */
struct bk_position *bk_sub_position(struct bk_sub *sub, struct bk_channel *channel);

/** bk_sub_drop_position() - the channel is no more: forget the position and what was counted there. With an end in sequences nothing of
 * another channel of that name is wanted. */
void bk_sub_drop_position(struct bk_sub *sub, struct bk_position *position);

/** bk_sub_life_at() - the life of @sequence in @channel for @sub's client, 0 if it does not want to know. */
static inline uint64_t
bk_sub_life_at(const struct bk_sub *sub, const struct bk_channel *channel, uint64_t sequence)
{
    return sub->has_lives ? bk_channel_life_at(channel, sequence) : 0;
}

/** bk_sub_untold_life() - the same, 0 if the client was told it. */
static inline uint64_t
bk_sub_untold_life(const struct bk_sub *sub, const struct bk_position *position, uint64_t sequence)
{
    uint64_t life = bk_sub_life_at(sub, position->channel, sequence);
    return position->life != life ? life : 0;
}

static inline bool bk_sub_is_live(const struct bk_sub *sub)
{
    return sub->state == BK_SUB_LIVE;
}

static inline bool bk_sub_has_credit(const struct bk_sub *sub)
{
    return sub->sent_bytes < sub->credit_bytes && sub->sent_events < sub->credit_events;
}

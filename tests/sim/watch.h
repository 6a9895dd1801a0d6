/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a client knows of one of its subscriptions, and the checks of PROTOCOL 7 against the ledger: ranges
 * join, everything in a range is there, in order, once and as it was published, and gaps count exactly
 * what is missing.
 */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/early.h"
#include "tests/sim/ledger.h"
#include "tests/sim/retained.h"

struct world;

#define WATCH_PATTERNS_MAX 3

enum watch_until {
    UNTIL_NONE,
    UNTIL_NOW,
    UNTIL_SEQUENCE,
    UNTIL_TIME,
};

enum watch_from {
    WATCH_NEW,
    WATCH_LAST,
    WATCH_SEQUENCE,
    WATCH_TIME,
    WATCH_ID,
    WATCH_CURSOR, /* the client's, or new */
    WATCH_AFTER,  /* resumed */
};

struct watch_channel {
    uint64_t life;
    bool is_named;      /* the client has a position */
    uint64_t covered;   /* fate known up to here */
    uint64_t delivered; /* the newest sequence delivered */
    uint64_t base;      /* counted from after this sequence: */
    uint64_t n_delivered;
    uint64_t n_lost;
    uint64_t asked; /* position named in the last subscribe */
    bool was_asked;
    bool restart_due;   /* a gap with reason restart must come */
    uint64_t last_then; /* the newest event when the last subscribe came to the broker */
    uint64_t stop;      /* no event after this one is wanted */
};

struct watch {
    bool in_use;
    bool is_subscribed;
    bool has_begun; /* was subscribed once: is resumed, not begun again */
    bool is_conflated;
    uint64_t id;
    uint64_t corr;
    uint64_t run; /* its positions are of */
    uint64_t session;
    uint64_t instance;
    enum watch_from from;
    uint64_t number; /* sequence, time, or session of an id, */
    uint64_t number_instance;
    enum watch_until until;
    uint64_t until_sequence;
    uint64_t until_time; /* no event after it is wanted */
    struct retained retained;
    struct early early;
    const char *overflow;
    uint64_t budget;
    uint64_t window_bytes;
    uint64_t window_events;
    uint64_t credit_bytes;
    uint64_t credit_events;
    uint64_t got_bytes;
    uint64_t got_events;
    size_t n_patterns;
    const char *patterns[WATCH_PATTERNS_MAX];
    struct watch_channel channels[SIM_CHANNELS];
};

/** watch_matches() - whether the subscription wants events with this path. */
bool watch_matches(const struct watch *watch, struct bb_slice path);

/** watch_expect() - `subscribed` leaves the broker: are its positions what was asked for, by the ledger of now? */
void watch_expect(struct world *world, struct watch *watch, const struct bb_msg *msg);

/** watch_subscribed(), watch_deliver(), watch_gap() - the message has arrived. */
void watch_subscribed(struct world *world, struct watch *watch, const struct bb_msg *msg);
void watch_deliver(struct world *world, struct watch *watch, const struct bb_msg *msg);
void watch_gap(struct world *world, struct watch *watch, const struct bb_msg *msg);

/** watch_note_end() - `ended` leaves the broker. */
void watch_note_end(const struct world *world, struct watch *watch);

/** watch_ended() - it is over: all that was wanted must have come. */
void watch_ended(struct world *world, struct watch *watch, const struct bb_msg *msg);

/** watch_count() - a message has arrived whose events are not looked at here. */
void watch_count(struct watch *watch, const struct bb_msg *msg);

/** watch_missing() - how many events it still must hear of. */
uint64_t watch_missing(const struct ledger *ledger, const struct watch *watch);

/** watch_check_sums() - delivered + gaps = published, of a quiet world. */
void watch_check_sums(struct world *world, struct watch *watch);

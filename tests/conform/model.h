/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a store ought to have, as naively as can be: all events in one list, each condition tried on each of
 * them. Nothing of this shares code with the stores but the patterns of one path at a time.
 */
#pragma once

#include "tests/conform/world.h"
#include "tests/sim/rng.h"

#define SLOTS        3 /* channels at a time; what has gone comes again under another id */
#define MODEL_EVENTS 2400

struct event {
    uint32_t channel;
    char path[32];
    uint64_t session;
    uint64_t instance;
    uint64_t sequence;
    uint64_t time;
    int64_t source_time; /* 0: none */
    uint64_t ttl_ms;     /* 0: none */
    uint64_t bytes;
    int64_t value;
    bool is_gone;   /* with its channel */
    bool is_kept;   /* in the log */
    bool is_latest; /* of its path */
};

struct slot {
    uint32_t id;
    char name[8];
    struct bk_retention retention;
    uint64_t trimmed; /* what is before is gone */
};

struct model {
    struct sim_rng rng;
    struct event events[MODEL_EVENTS]; /* in the order of their ids */
    size_t n;
    struct slot slots[SLOTS];
    uint32_t last_id;
    struct event found[MODEL_EVENTS];
    size_t n_found;
};

/** model_begin() - as the world is when it has been opened. */
void model_begin(struct model *model, uint64_t seed);

/** model_publish() - up to four blocks under one ticket. */
void model_publish(struct world *world, struct model *model);

/** model_remove() - a channel goes with all it has, and one of the same name begins. */
void model_remove(struct world *world, struct model *model, struct slot *slot);

/** model_limit() - another limit for a channel. */
void model_limit(struct world *world, struct model *model, struct slot *slot);

/** model_trim() - some of what a channel has. */
void model_trim(struct world *world, struct model *model, struct slot *slot);

/** model_expect() - note what is kept and what is latest, when retention has done all its work at @now. */
void model_expect(struct model *model, uint64_t now);

/** model_event() - the event of a channel with this sequence, NULL if there is none. */
const struct event *model_event(const struct model *model, uint32_t channel, uint64_t sequence);

bool event_has_expired(const struct event *event, uint64_t now);

/** event_matches() - whether one of the patterns, a MessagePack array, matches; empty bytes match all. */
bool event_matches(const struct event *event, struct bb_slice patterns);

/** model_find() - what @query finds at @now, in order, into found; @above: what its `where` wants values to
 * be above, -2: anything. */
void model_find(struct model *model, const struct bb_query *query, int64_t above, uint64_t now);

/** model_patterns() - up to @max patterns, as a MessagePack array. */
void model_patterns(struct model *model, size_t max, struct bb_buf *out);

const char *model_path(struct model *model);

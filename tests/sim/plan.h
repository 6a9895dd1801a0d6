/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What happens in a world, decided before it begins: a profile, in which a few features are frequent, so
 * that pairs and triples of them
 * meet often, and a list of acts, each with chance of its own, so that leaving one out changes the others
 * little.
 */
#pragma once

#include "tests/sim/rng.h"

#include <stddef.h>

enum act_kind {
#define ACT(name, weight) ACT_##name,
#include "tests/sim/acts.def"
#undef ACT
    ACTS
};

struct act {
    uint64_t at;
    enum act_kind kind;
    uint32_t who; /* a peer */
    uint64_t seed;
};

#define PLAN_ACTS_MAX 400

/* How often things are, in permille, and what is preferred. */
struct profile {
    uint64_t n_peers;
    uint64_t n_names;
    bool has_log;
    bool has_memory;
    uint64_t policy; /* preferred: index of a policy, 6: none */
    uint64_t until;  /* 0: none */
    uint64_t from;
    uint64_t early, retained, durable, by_default, ttl, small_credit, small_budget, wildcard, expects, large,
        window;
    uint64_t json, old_form, deaf, anonymous, jumps;
    uint64_t in_memory; /* channels that are made with that store in a world with a log */
    uint64_t n_paths;
    uint64_t limits, per_path, age, floor, lazy, early_channels, channel_policies; /* of settings */
    bool is_tight; /* memory is so small that it runs out all the time */
    bool small_flight, small_stage, slow_net, small_backend;
    bool shaky, fills_up, slow_disk, corrupt, short_reads, small_queue;
    uint64_t clock_steps;
    uint64_t restarts;
};

struct plan {
    struct profile profile;
    struct act acts[PLAN_ACTS_MAX];
    size_t n;
};

/* What the shrinker leaves out. */
struct plan_mask {
    bool without[PLAN_ACTS_MAX];
    uint32_t without_peers; /* one bit each */
    bool calm;              /* no faults of network and disk */
};

/** plan_make() - the plan of a seed. */
void plan_make(struct plan *plan, uint64_t seed);

/** act_name() - for the story. */
const char *act_name(enum act_kind kind);

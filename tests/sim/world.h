/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world: the real core, both stores, peers and a faulty network in virtual time, all of it the work of one
 * seed. The world plays the
 * plugs and the host; what goes into the core and what comes out is handed to the model.
 */
#pragma once

#include "broker/core/core.h"
#include "broker/plug/edge.h"
#include "tests/sim/coverage.h"
#include "tests/sim/disk/disk.h"
#include "tests/sim/disk/memory.h"
#include "tests/sim/model/judge.h"
#include "tests/sim/model/truth.h"
#include "tests/sim/net.h"
#include "tests/sim/peer/peer.h"
#include "tests/sim/plan.h"
#include "tests/sim/rng.h"
#include "tests/sim/sabotage.h"

#define WORLD_PEERS_MAX 5

/* 2026-01-01 in us. */
#define WALL_BASE UINT64_C(1767225600000000)

/* So many of the times at which the clock was set are remembered. */
#define WALL_SETS_MAX 16

struct world {
    struct sim_rng rng; /* of what the broker's side does: flushes, delays */
    uint64_t seed;
    struct plan plan;
    struct bk_core *core;
    struct bk_config config;
    struct bk_out out;
    struct bk_plug_context plug;
    struct bk_edge_scratch scratch;
    struct bb_buf shown; /* what the windows convert to */
    bool window_is_open;
    bool has_log;    /* this run of the broker */
    bool has_memory; /* the backend in memory too */
    struct sim_disk disk;
    struct sim_memory memory;
    bool is_dead;     /* the broker is being killed: nothing leaves it */
    bool is_draining; /* an orderly shutdown has begun */
    uint64_t drain_until;
    bool is_ending; /* nothing new happens; what is under way arrives */
    bool failed;
    char kind[48]; /* of the failure, for the shrinker */
    char why[600];
    uint64_t run;
    uint64_t n_runs;
    uint64_t now;
    int64_t wall_offset;
    struct {
        uint64_t at;
        int64_t before;         /* the offset until then */
    } wall_sets[WALL_SETS_MAX]; /* the last ones, in a circle */
    size_t n_wall_sets;
    uint64_t wall_most; /* the highest that the wall clock has shown */
    uint64_t next_tick;
    uint64_t flush_at; /* UINT64_MAX: nothing to flush */
    struct truth truth;
    struct judge judge;
    struct sim_peer peers[WORLD_PEERS_MAX];
    size_t n_peers;
    struct sim_link *links;
    uint64_t n_links;
    struct bb_buf flat;
    const struct plan_mask *mask; /* NULL: nothing is left out */
    size_t next_act;
    struct sabotage sabotage;
    uint64_t least_ring; /* the smallest memory that any run has had */
    uint64_t least_memory;
    uint64_t hash; /* of all that left the core */
    uint64_t n_steps;
    bool tells; /* the story */
};

struct world_result {
    bool failed;
    bool sabotaged;
    char kind[48];
    char why[600];
    uint64_t hash;
    uint64_t n_steps;
    uint64_t n_events;
    uint64_t n_gaps;
    uint64_t n_runs;
};

struct world_options {
    enum sabotage_kind sabotage;
    bool is_dry;                  /* the world of the sabotage, without it */
    const struct plan_mask *mask; /* acts and peers to leave out; NULL: none */
    bool tells;
};

/** world_run() - live through the world of @seed, then until it is quiet. */
void world_run(uint64_t seed, const struct world_options *options, struct world_result *ret_result);

/** world_fail() - something is wrong: its kind in a few words and a sentence; the first one is kept and the
 * world ends. */
void world_fail(struct world *world, const char *kind, const char *format, ...) BB_PRINTF(3, 4);

/* Kinds of failures that are let pass, one after the other; NULL: none. For looking behind what is known. */
extern const char *world_ignored;

/** world_wall() - the wall clock. */
uint64_t world_wall(const struct world *world);

/** world_wall_least() - the least offset that the wall clock has had since @since. */
int64_t world_wall_least(const struct world *world, uint64_t since);

/** world_when() - when the wall clock showed @wall first, as far as is remembered. */
uint64_t world_when(const struct world *world, uint64_t wall);

/** world_connect() - a new link. */
struct sim_link *world_connect(struct world *world, struct sim_peer *peer);

/** world_cut() - the peer's end of @link is gone; what was under way may arrive or not. */
void world_cut(struct world *world, struct sim_link *link, struct sim_rng *rng);

/** world_send() - a message of the peer to the broker. */
void world_send(struct world *world, struct sim_link *link, struct bb_slice bytes);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A world: the real core, model clients and a faulty network in virtual time, all of it the work of one seed.
 * The world plays the plug; it sees what leaves the core, checks what can be checked there, and keeps the
 * ledger of what was published.
 */
#pragma once

#include "tests/sim/client.h"
#include "tests/sim/disk.h"
#include "tests/sim/rng.h"

#define WORLD_CLIENTS_MAX 6

/* What the world does wrong on purpose, once, to show that the checks see it. */
enum sabotage {
    SABOTAGE_NONE,
    SABOTAGE_DROP_DELIVER,
    SABOTAGE_REPEAT_DELIVER,
    SABOTAGE_SWAP_DELIVERS,
    SABOTAGE_FLIP_BYTE,
    SABOTAGE_DROP_GAP,
    SABOTAGE_DROP_ACK,
    SABOTAGE_REPEAT_PUBLISH,
    SABOTAGE_FORGE_CREDIT,
    SABOTAGE_DROP_RETRACTED,
    SABOTAGE_LIE_FLUSHED, /* these are of the disk */
    SABOTAGE_LIE_PRODUCERS,
    SABOTAGE_LIE_READ,
    SABOTAGE_LIE_LOCATE,
    SABOTAGE_LIE_QUERY,
    SABOTAGE_LIE_LATEST,
    SABOTAGE_LIE_CURSORS,
    SABOTAGES,
};

struct world {
    struct sim_rng rng;
    struct bk_core *core;
    struct bk_config config;
    struct bk_out out;
    bool window_is_open;
    bool is_logged; /* channels are on a disk and outlive the broker */
    struct sim_disk disk;
    bool is_dead;   /* the broker is being killed: nothing leaves it */
    bool is_ending; /* nothing new happens; what is under way arrives */
    bool failed;
    char why[400];
    uint64_t run;
    uint64_t life; /* of what was published: with a log one for all, else one a run */
    uint64_t now;
    int64_t wall_offset;
    uint64_t next_tick;
    uint64_t flush_at; /* UINT64_MAX: nothing to flush */
    uint64_t next_fault;
    struct ledger ledger;
    struct sim_client clients[WORLD_CLIENTS_MAX];
    size_t n_clients;
    struct sim_link *links;
    struct bb_buf flat;
    enum sabotage sabotage;
    bool sabotaged;
    struct link_msg *held; /* for SABOTAGE_SWAP_DELIVERS */
    struct sim_link *held_link;
    uint64_t hash; /* of all that left the core */
    uint64_t n_steps;
    uint64_t n_events; /* published, all runs */
    uint64_t n_gaps;
    uint64_t n_runs;
    bool is_talkative;
};

struct world_result {
    bool failed;
    bool sabotaged;
    char why[400];
    uint64_t hash;
    uint64_t n_steps;
    uint64_t n_events;
    uint64_t n_gaps;
    uint64_t n_runs;
};

/** world_run() - live through the world of @seed: @n_steps steps, then until it is quiet. */
void world_run(uint64_t seed,
               uint64_t n_steps,
               enum sabotage sabotage,
               bool is_talkative,
               struct world_result *ret_result);

/** world_fail() - something is wrong; the first reason is kept and the world ends. */
void world_fail(struct world *world, const char *format, ...) BB_PRINTF(2, 3);

/** world_wall() - the wall clock. */
uint64_t world_wall(const struct world *world);

/** world_connect() - a new link. */
struct sim_link *world_connect(struct world *world, struct sim_client *client);

/** world_cut() - the client's end of @link is gone; what was under way may arrive or not. */
void world_cut(struct world *world, struct sim_link *link);

/** world_send() - a message of the client to the broker. */
void world_send(struct world *world, struct sim_link *link, struct bb_slice bytes);

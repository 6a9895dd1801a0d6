/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of a simulated world: a backend as core/backend.h wants it, on a disk that outlives brokers. What
 * is registered waits as
 * bytes until its commit is due. Commits fail, the disk fills up, reads are short or damaged, answers are
 * slow, and a crash takes what
 * was not committed. What it is told is told on to the truth.
 */
#pragma once

#include "broker/core/backend.h"
#include "broker/core/core.h"
#include "tests/sim/disk/store.h"
#include "tests/sim/rng.h"

struct world;

/* What the disk does wrong on purpose, once. */
enum disk_lie {
    LIE_NONE,
    LIE_FLUSHED,   /* tell that tickets are durable and throw them away */
    LIE_PRODUCERS, /* load() keeps back how far producers have come */
    LIE_READ,      /* leave events out of what is read */
    LIE_LOCATE,    /* a place that is one too far */
    LIE_QUERY,     /* leave an event out of an answer */
    LIE_LATEST,    /* an older event as the latest of its path */
    LIE_CURSORS,   /* load() tells cursors that are one too far */
    LIE_EXPIRED,   /* what has expired is read all the same, or lives and is left out */
    LIE_TRIM,      /* more goes than is told */
};

/* How it behaves; drawn for each run of the broker. */
struct disk_temper {
    bool is_shaky; /* fails often */
    bool fills_up;
    bool is_slow;
    bool is_corrupt; /* some reads are damaged */
    bool is_short;   /* reads give less than they might */
    size_t queue;    /* tickets that may wait */
};

struct sim_disk {
    struct bk_backend backend;
    struct world *world;
    const struct bk_backend_listener *listener; /* of the broker that runs; NULL: none */
    struct sim_rng rng;
    struct bk_meter meter;
    struct store store;
    struct store copy; /* an older state, for being restored */
    bool has_copy;
    uint64_t generation; /* ids of channels are given anew after each wipe */
    uint64_t n_generations;
    uint64_t copy_generation;
    uint64_t copied_at;
    struct disk_ticket *queue; /* registered, not durable */
    struct bk_request *requests;
    uint64_t ticket; /* the newest registered */
    uint64_t now;
    uint64_t next_at; /* when there is something to do, UINT64_MAX: never */
    uint64_t commit_at;
    uint64_t answer_at;
    uint64_t state_at;
    uint64_t tidy_at;
    enum bk_backend_state state;
    enum bk_backend_state told;
    struct disk_temper temper;
    bool is_calm;
    uint64_t n_commits;
    uint64_t n_failures;
    uint64_t n_corrupt;
    uint64_t slowest_read; /* us between a question and its answer */
    enum disk_lie lie;
    bool has_lied;
};

void disk_init(struct sim_disk *disk, struct world *world, uint64_t seed);
void disk_fini(struct sim_disk *disk);

/** disk_open() - for a new broker, before bk_core_set_backend() with &disk->backend. */
void disk_open(struct sim_disk *disk,
               const struct bk_backend_listener *listener,
               const struct disk_temper *temper,
               uint64_t now);

/** disk_crash() - the broker ends: requests end, what is not durable is lost. Before the core is freed. */
void disk_crash(struct sim_disk *disk);

/** disk_wipe() - all is gone. disk_restore() - an older copy takes its place. Between brokers. */
void disk_wipe(struct sim_disk *disk);
void disk_restore(struct sim_disk *disk);

/** disk_step() - it is @now: do what is due. The core is flushed behind it. */
void disk_step(struct sim_disk *disk, uint64_t now);

/** disk_calm() - no more failures. */
void disk_calm(struct sim_disk *disk);

/** disk_is_quiet() - nothing waits. */
bool disk_is_quiet(const struct sim_disk *disk);

/** disk_answer() - work off a request. */
void disk_answer(struct sim_disk *disk, struct bk_request *request);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of a simulated world: a backend as core/backend.h wants it, before a disk that outlives brokers. What is registered
 * waits as bytes until its commit is due; what is committed is kept by the backend in memory, which also answers.
 * Commits fail at times, the disk is full at times, and a crash takes what was not committed.
 */
#pragma once

#include "broker/core/backend.h"
#include "broker/core/core.h"
#include "tests/sim/rng.h"

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
};

struct disk_block {
    uint32_t channel; /* id */
    struct bb_block head;
    uint8_t *events;
};

struct sim_disk {
    struct bk_backend backend;
    const struct bk_backend_listener *listener; /* of the broker that runs */
    struct sim_rng rng;
    struct bk_backend *kept;
    struct bk_backend_listener kept_listener;
    struct bk_meter meter;
    struct disk_block *blocks; /* all that is durable, in order */
    size_t n_blocks;
    struct disk_channel *channels;
    size_t n_channels;
    struct disk_row *producers;
    size_t n_producers;
    struct disk_row *cursors;
    size_t n_cursors;
    struct disk_ticket *queue; /* registered, not durable */
    struct bk_request *requests;
    uint64_t now;
    uint64_t next_at; /* when there is something to do, UINT64_MAX: never */
    uint64_t commit_at;
    uint64_t answer_at;
    uint64_t state_at;   /* when it can be written again, or fails or fills up next */
    uint64_t refuses_at; /* a commit has failed, which it tells later; until then it refuses */
    enum bk_backend_state state;
    uint64_t kept_ticket;
    uint64_t n_commits;
    uint64_t n_failures;
    bool is_shaky; /* fails all the time */
    enum disk_lie lie;
    bool has_lied;
};

void disk_init(struct sim_disk *disk, uint64_t seed);
void disk_fini(struct sim_disk *disk);

/** disk_open() - for a new broker, before bk_core_set_backend() with &disk->backend. */
void disk_open(struct sim_disk *disk, const struct bk_backend_listener *listener, uint64_t now);

/** disk_crash() - the broker ends: requests end, what is not durable is lost. Before the core is freed. */
void disk_crash(struct sim_disk *disk);

/** disk_step() - it is @now: do what is due. The core is flushed behind it. */
void disk_step(struct sim_disk *disk, uint64_t now);

/** disk_calm() - no more failures. */
void disk_calm(struct sim_disk *disk);

/** disk_is_quiet() - nothing waits. */
bool disk_is_quiet(const struct sim_disk *disk);

/** disk_channel_name() - of a channel id; empty and no data if it is not known. */
struct bb_slice disk_channel_name(const struct sim_disk *disk, uint32_t channel);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage: events of logged channels between being taken and being durable. They have their sequences already but nobody
 * sees them. With each flush what was staged is registered with the log under one ticket (append.c); when the ticket is
 * durable its blocks go into the ring, from where on they live like all others, and the batches that waited for it are
 * acknowledged (durable.c). A ticket that fails takes everything staged after it along, since sequences are contiguous.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"

#include "broker/core/backend.h"
#include "broker/core/clients/ack.h"
#include "broker/core/keep/ring.h"

#include <stdbool.h>

struct bk_core;
struct bk_cursor;
struct bk_held;

/* A block that is not durable yet. */
struct bk_staged {
    struct bk_block block;
    uint64_t ticket;
};

/* A channel that is to be removed from the log. */
struct bk_removed {
    struct bk_log_channel channel;
    uint64_t ticket; /* 0: to be registered, again if that has failed */
};

/* What waits for the log. */
struct bk_stage {
    struct bk_backend *backend; /* NULL: there is no log */
    enum bk_backend_state state;
    struct bb_buf blocks; /* struct bk_staged, oldest first, */
    size_t first;         /* of which those before this index have gone */
    uint64_t n_gone;      /* blocks that ever went */
    size_t bytes;
    size_t ticket_bytes; /* staged under the ticket that is not registered yet */
    uint64_t ticket;     /* of what is staged now; all below it are registered */
    uint64_t durable;    /* all tickets up to here are decided */
    bool is_broken;      /* it and the backend disagree: nothing more is staged */
    bool has_news;       /* something is to be registered under `ticket` */
    bool is_stalled;     /* the log's queue is full: registered when it has written some of it */
    bool is_behind;      /* too much waits, and not yet half of it has gone */
    bool drains;         /* it is behind until nothing waits */
    size_t n_going;      /* logged channels that are being removed: it is behind until they are gone */
    struct bk_client *paused_first; /* clients that wait until it has, longest first */
    struct bk_client *paused_last;
    struct bk_producer *producers; /* the log is to be told of */
    struct bb_buf removed;         /* struct bk_removed, until that is on disk */
    struct bb_buf forgotten;       /* struct bk_log_producer, to be removed there */
    struct bk_client *waiting;     /* clients with batches that wait */
    struct bk_waiting *orphans;    /* batches that wait, of clients that went */
    struct bk_cursor *unsaved;     /* cursors that are not on disk as they are */
    struct bk_held *held;          /* answers that wait, oldest first */
    struct bk_held **held_end;
    size_t n_held;
    uint64_t failure_told_at; /* monotonic; 0: never */
    uint64_t n_untold;        /* failures since */
};

/** bk_stage_end() - the index behind the newest staged block. */
static inline size_t bk_stage_end(const struct bk_stage *stage)
{
    return stage->blocks.len / sizeof(struct bk_staged);
}

static inline struct bk_staged *bk_stage_at(const struct bk_stage *stage, size_t i)
{
    return (struct bk_staged *)(void *)stage->blocks.data + i;
}

/** bk_stage_admit() - whether an event for @channel may be taken that is to reach @level. Return: 0, or why not. */
int bk_stage_admit(const struct bk_core *core,
                   const struct bk_channel *channel,
                   uint64_t level) BB_MUST_CHECK;

/** bk_stage_has_caught_up() - the log has taken half of what may wait for it, or all if that is wanted. */
bool bk_stage_has_caught_up(const struct bk_core *core);

/** bk_stage_has_room() - whether @bytes more of blocks still fit under the ticket that is being filled. */
bool bk_stage_has_room(const struct bk_core *core, size_t bytes);

/** bk_stage_add() - take over @block until it is durable. Return: 0 or BB_ENOMEM. */
int bk_stage_add(struct bk_core *core, const struct bk_block *block) BB_MUST_CHECK;

/** bk_stage_drop_gone() - blocks before `first` went: keep the memory in bounds. */
void bk_stage_drop_gone(struct bk_stage *stage);

/** bk_stage_remove_channel() - the log is to forget @channel, of which nothing is on its way there. A logged one is there until that
 * is on disk. Return: 0 or BB_ENOMEM. */
int bk_stage_remove_channel(struct bk_core *core, struct bk_channel *channel) BB_MUST_CHECK;

/** bk_stage_removals_done() - tickets up to @durable are durable, and what they removed is gone; removals of those from @failed on are
 * to be registered again. */
void bk_stage_removals_done(struct bk_core *core, uint64_t durable, uint64_t failed);

/** bk_stage_has_removals() - whether some are to be registered. */
bool bk_stage_has_removals(const struct bk_stage *stage);

void bk_stage_fini(struct bk_core *core);

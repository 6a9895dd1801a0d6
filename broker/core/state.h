/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the core, for its own files. Nobody outside broker/core includes this. */
#pragma once

#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "broker/core/backend.h"
#include "broker/core/clients/client.h"
#include "broker/core/core.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/stage.h"
#include "broker/core/subs/route.h"

/* What is fanned out in one go; a larger message only if it came so. */
#define BK_ROUND_BYTES ((size_t)256 << 10)

struct bk_waiter;

struct bk_core {
    struct bk_config config;
    const struct bk_out *out;
    struct bk_meter meter;
    uint64_t counters[BK_COUNTERS];

    uint64_t monotonic;
    uint64_t wall;
    uint64_t started_at;
    uint64_t tick_at;   /* when bk_core_tick() is due */
    uint64_t ticked_at; /* when it was called last */
    bool shutting_down;

    /* keep */
    struct bk_channels channels;
    struct bk_ring ring;
    uint64_t session;      /* the newest */
    uint64_t session_time; /* its time; never goes back */

    /* clients */
    struct bk_client *clients;
    size_t n_clients;
    uint64_t next_number;
    struct bb_map clients_by_id;
    struct bb_map producers;
    struct bk_producer *idle_first; /* producers without connection, oldest first */
    struct bk_producer *idle_last;
    size_t n_idle;
    struct bk_client *doomed;   /* clients to be removed at the end of the call */
    size_t check_turn;          /* what check.c may do since it last held the invariants */
    struct bk_client *acked;    /* clients with acks to send */
    struct bk_client *resuming; /* clients whose kept messages are to be taken */

    /* subs */
    struct bk_route route;
    uint64_t next_serial;
    size_t n_subs;
    size_t n_patterns;
    size_t n_lagging;
    size_t n_early;       /* subscriptions with the early view */
    size_t n_held_values; /* subscriptions whose retained values cannot be asked for yet */
    size_t n_until;       /* subscriptions that come to an end */
    struct bk_sub *ready_first;
    struct bk_sub *ready_last;
    struct bb_buf gaps; /* struct bk_gap: of one message */

    /* deliver */
    struct bk_fan *fan;
    uint64_t round;
    bool round_is_old;   /* some of its events may have expired */
    uint64_t fanned_pos; /* up to here the ring has been fanned out */
    size_t fanned_bytes; /* bytes after it */
    uint64_t n_evictions;
    struct bk_parcel parcel; /* of a lagging subscription, */
    struct bb_buf moves;     /* struct bk_move: what it leaves out, */
    struct bb_buf ranges;    /* struct bk_range: and what the log says of it */

    /* log */
    struct bk_stage stage;
    struct bk_backend *backends[BK_STORES]; /* NULL: there is none */
    struct bk_backend_listener listeners[BK_STORES];
    uint64_t memory_ticket;
    struct bb_buf kept;    /* struct bk_log_block of the batch, for the memory's backend */
    struct bb_map cursors; /* struct bk_cursor by name */
    struct bk_ask *asks;   /* what backends are asked */
    size_t n_asks;

    /* ingest */
    struct bb_buf runs;    /* struct bk_run of the batch being published, */
    struct bb_buf refused; /* and [index, code] of its events that are refused */

    /* requests */
    struct bk_waiter *waiters;
    size_t n_waiters;
    uint64_t waiters_generation; /* of the routes that they were held against */

    struct bb_buf scratch; /* a message being written */
    struct bb_buf nested;  /* a field of one */
};

static inline void bk_count(struct bk_core *core, enum bk_counter counter, uint64_t n)
{
    core->counters[counter] += n;
}

/** bk_tick_by() - bk_core_tick() is needed within @us. */
static inline void bk_tick_by(struct bk_core *core, uint64_t us)
{
    core->tick_at = BB_MIN(core->tick_at, core->monotonic + us);
}

/** bk_gaps_any() - whether gaps are collected (subs/gap.h). */
static inline bool bk_gaps_any(const struct bk_core *core)
{
    return core->gaps.len > 0 || core->gaps.error != 0;
}

/** bk_block_is_old() - some event of @block may have expired since it was taken. */
static inline bool bk_block_is_old(const struct bk_core *core, const struct bk_block *block)
{
    return block->has_ttl && core->wall >= block->time + 1000; /* the shortest time to live, in us */
}

/** bk_store_of() - where @channel is kept. */
static inline enum bk_store bk_store_of(const struct bk_core *core, const struct bk_channel *channel)
{
    return channel->settings.logged && core->stage.backend != NULL ? BK_STORE_LOG : BK_STORE_MEMORY;
}

/** bk_note() - a line for the person who runs the broker: a stable id, then formatted text. */
void bk_note(struct bk_core *core, enum bk_log_level level, const char *id, const char *format, ...)
    BB_PRINTF(4, 5);

/** bk_core_check() - hold all invariants; aborts where one does not. */
void bk_core_check(struct bk_core *core);

/** bk_sweep() - remove the clients that are doomed (leave.c). */
void bk_sweep(struct bk_core *core);

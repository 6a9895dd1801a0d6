/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the core and what its files call in each other. Nobody outside broker/core includes this. */
#pragma once

#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "broker/core/client.h"
#include "broker/core/conflation.h"
#include "broker/core/core.h"
#include "broker/core/parcel.h"
#include "broker/core/ring.h"
#include "broker/core/route.h"

/* What is fanned out in one go; a larger message only if it came so. */
#define BK_ROUND_BYTES ((size_t)256 << 10)

/* Every client may have this much on its way, however many clients there are. */
#define BK_INFLIGHT_MIN ((size_t)256 << 10)

/* A request that waits for matches. */
struct bk_waiter {
    struct bk_waiter *next;
    struct bk_client *client;
    uint64_t corr;
    uint64_t min;
    uint64_t deadline;
    size_t path_len;
    uint8_t path[];
};

struct bk_core {
    struct bk_config config;
    const struct bk_out *out;
    struct bk_meter meter;
    struct bk_channels channels;
    struct bk_route route;
    struct bk_ring ring;
    uint64_t monotonic;
    uint64_t wall;
    uint64_t started_at;
    uint64_t session;      /* the newest */
    uint64_t session_time; /* its time; never goes back */
    uint64_t fanned_pos;   /* up to here the ring has been fanned out */
    size_t fanned_bytes;   /* bytes after it */
    uint64_t round;
    struct bk_client *clients;
    size_t n_clients;
    uint64_t next_number;
    uint64_t next_serial;
    struct bb_map producers;
    struct bk_producer *idle_first; /* producers without connection, oldest first */
    struct bk_producer *idle_last;
    struct bk_client *gone;  /* to be freed at the end of the call */
    struct bk_client *acked; /* clients with acks to send */
    struct bk_sub *ready_first;
    struct bk_sub *ready_last;
    struct bk_waiter *waiters;
    size_t n_waiters;
    size_t n_subs;
    size_t n_patterns;
    struct bb_buf scratch; /* a message being written */
    struct bb_buf gaps;    /* gaps of one subscription, one after the other, */
    uint32_t n_gaps;       /* and how many */
    uint64_t tick_at;      /* when bk_core_tick() is due */
    struct bb_buf nested;  /* a field of a message being written */
    struct bb_buf runs;    /* struct run of the batch being published, */
    struct bb_buf refused; /* and [index, code] of its events that are refused */
    struct bk_fan *fan;
    struct bk_parcel parcel; /* of a lagging subscription */
    size_t n_lagging;
    bool fanning; /* subscriptions are being walked: removals wait */
    struct bk_client *doomed;
    bool shutting_down;
    uint64_t counters[BK_COUNTERS];
};

/* --- core.c --- */

static inline void bk_count(struct bk_core *core, enum bk_counter counter, uint64_t n)
{
    core->counters[counter] += n;
}

/** bk_log() - a log entry with formatted text. */
void bk_log(struct bk_core *core, enum bk_log_level level, const char *id, const char *format, ...)
    BB_PRINTF(4, 5);

/* --- client.c --- */

/** bk_client_hello() - PROTOCOL 5.1. */
void bk_client_hello(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_client_remove() - end it in every list, after the fan-out that may be going on; freed when the current
 * call into the core ends. */
void bk_client_remove(struct bk_core *core, struct bk_client *client, bool tell_plug);

/** bk_client_send() - send parts of @len bytes in all; a peer that is gone ends the client. Return: 0, BB_EAGAIN, BB_ECLOSED. */
int bk_client_send(struct bk_core *core,
                   struct bk_client *client,
                   const struct bk_part *parts,
                   size_t n_parts);

/** bk_client_send_msg() - send a message that is a head. A client that takes no answers is sent away. */
void bk_client_send_msg(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_client_send_error() - PROTOCOL 9; @detail is one MessagePack value or empty. */
void bk_client_send_error(struct bk_core *core,
                          struct bk_client *client,
                          enum bb_msg_type about,
                          uint64_t corr,
                          int error,
                          const char *text,
                          struct bb_slice detail);

/** bk_client_send_away() - goodbye with @error's code, and remove. */
void bk_client_send_away(struct bk_core *core, struct bk_client *client, int error, const char *text);

/** bk_client_strike() - count a malformed message; the last one sends it away. */
void bk_client_strike(struct bk_core *core, struct bk_client *client);

/** bk_client_has_room() - whether more may be put on its way. */
bool bk_client_has_room(const struct bk_core *core, const struct bk_client *client);

/** bk_client_read() - the client has read the first @bytes of what was sent. */
void bk_client_read(struct bk_core *core, struct bk_client *client, uint64_t bytes);

/** bk_producer_get() - the producer of (id, epoch), made if there is none. NULL without memory. */
struct bk_producer *bk_producer_get(struct bk_core *core, struct bb_slice id, uint64_t epoch);

/* --- publish.c --- */

/** bk_publish() - scan, split and keep the events of a batch. @client NULL: a window. */
int bk_publish(struct bk_core *core,
               struct bk_client *client,
               const struct bb_msg *msg,
               struct bb_slice events,
               struct bk_bytes *owner);

/* --- subscribe.c --- */

void bk_handle_subscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);
void bk_handle_unsubscribe(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);
void bk_handle_credit(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_sub_remove() - end a subscription. What waited for it is counted. */
void bk_sub_remove(struct bk_core *core, struct bk_sub *sub);

/* --- deliver.c --- */

/** bk_fan_new() - the scratch memory of fan-outs, NULL without memory. */
struct bk_fan *bk_fan_new(void);
void bk_fan_free(struct bk_fan *fan);

/** bk_fan_out() - give every live subscription what came since the last fan-out. */
void bk_fan_out(struct bk_core *core);

/** bk_fan_out_if_due() - before a batch: fan out if much has come, and keep the route's memory in bounds. */
void bk_fan_out_if_due(struct bk_core *core);

/** bk_fanning_end() - remove the clients whose removal had to wait. */
void bk_fanning_end(struct bk_core *core);

/** bk_deliver() - send @parcel to @sub and move its positions. Return: 0, BB_EAGAIN, BB_ECLOSED. */
int bk_deliver(struct bk_core *core, struct bk_sub *sub, struct bk_parcel *parcel);

/* --- catchup.c --- */

/** bk_sub_set_ready() - let the next flush send to a lagging subscription if it may have something. */
void bk_sub_set_ready(struct bk_core *core, struct bk_sub *sub);

/** bk_sub_clear_ready() - undo bk_sub_set_ready(). */
void bk_sub_clear_ready(struct bk_core *core, struct bk_sub *sub);

/** bk_catch_up() - send one message to each lagging subscription that is ready. */
void bk_catch_up(struct bk_core *core);

typedef int bk_item_fn(void *context, const struct bk_item *item);

/** bk_for_each_wanted() - call @on_item for each run of events of @block that match @sub and come after its
 * position. Return: 0, BB_ENOMEM, or what @on_item returned to end it. */
int bk_for_each_wanted(struct bk_core *core,
                       struct bk_sub *sub,
                       const struct bk_block *block,
                       bk_item_fn *on_item,
                       void *context);

/** bk_sub_leave_live() - from now on it is fed from the ring, from @pos on. */
void bk_sub_leave_live(struct bk_core *core, struct bk_sub *sub, uint64_t pos);

/** bk_count_waiting() - count what in the ring matches @sub after its cursor and positions: sets pending and
 * lag_bytes. Return: 0 or BB_ENOMEM. */
int bk_count_waiting(struct bk_core *core, struct bk_sub *sub);

/** bk_block_evicted() - the ring's: count what @block's loss costs those that lag behind it. */
void bk_block_evicted(void *context, const struct bk_block *block);

/* PROTOCOL 7.4. BK_GAP_NO_NUMBER: it cannot be known. */
struct bk_gap {
    struct bk_channel *channel;
    struct bb_slice channel_name; /* when there is no such channel */
    uint64_t from;
    uint64_t to;
    uint64_t count;
    enum bk_counter reason;
};

#define BK_GAP_NO_NUMBER UINT64_MAX

/** bk_gap_add() - collect a gap of @sub and count it; errors stick to core->gaps. bk_gaps_send() or bk_deliver() follows. */
void bk_gap_add(struct bk_core *core, struct bk_sub *sub, const struct bk_gap *gap);

/** bk_gaps_send() - tell what was collected, if anything. */
void bk_gaps_send(struct bk_core *core, struct bk_sub *sub);

/** bk_gaps_take() - append the array of what was collected to @to, nothing if there is none; returns it. */
struct bb_slice bk_gaps_take(struct bk_core *core, struct bb_buf *to);

/** bk_tick_by() - bk_core_tick() is needed within @us. */
static inline void bk_tick_by(struct bk_core *core, uint64_t us)
{
    core->tick_at = BB_MIN(core->tick_at, core->monotonic + us);
}

/* --- request.c --- */

void bk_handle_status(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);
void bk_handle_matches(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_waiters_check() - answer the waiting requests that can be, time out the others that must. */
void bk_waiters_check(struct bk_core *core);

/** bk_waiters_remove() - forget those of a client that goes. */
void bk_waiters_remove(struct bk_core *core, const struct bk_client *client);

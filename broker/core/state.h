/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the core and what its files call in each other. Nobody outside broker/core includes this. */
#pragma once

#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "broker/core/backend.h"
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
    uint64_t ticket;                /* of what is staged now; all below it are registered */
    uint64_t durable;               /* all tickets up to here are decided */
    bool is_broken;                 /* it and the backend disagree: nothing more is staged */
    bool has_news;                  /* something is to be registered under `ticket` */
    bool is_stalled;                /* the log's queue is full: registered when it has written some of it */
    bool is_behind;                 /* too much waits, and not yet half of it has gone */
    struct bk_client *paused_first; /* clients that wait until it has, longest first */
    struct bk_client *paused_last;
    struct bk_producer *producers; /* the log is to be told of */
    struct bb_buf removed;         /* struct bk_removed, until that is on disk */
    struct bb_buf forgotten;       /* struct bk_log_producer, to be removed there */
    struct bk_client *waiting;     /* clients with batches that wait */
    struct bk_waiting *orphans;    /* batches that wait, of clients that went */
    struct bk_save *saves;         /* cursors to be registered, oldest first */
    struct bk_save **saves_end;
    struct bk_held *held; /* answers that wait, oldest first */
    struct bk_held **held_end;
    size_t n_held;
    uint64_t failure_told_at; /* monotonic; 0: never */
    uint64_t n_untold;        /* failures since */
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
    uint64_t ticked_at;    /* when it was called last */
    struct bb_buf nested;  /* a field of a message being written */
    struct bb_buf runs;    /* struct run of the batch being published, */
    struct bb_buf refused; /* and [index, code] of its events that are refused */
    struct bk_stage stage;
    struct bk_backend *backends[BK_STORES]; /* NULL: there is none */
    struct bk_backend_listener listeners[BK_STORES];
    uint64_t memory_ticket;
    bool tell_memory;      /* the memory's backend does not know all channels */
    struct bb_buf kept;    /* struct bk_log_block of the batch, for the memory's backend */
    struct bb_map cursors; /* struct bk_cursor by name */
    struct bk_ask *asks;   /* what backends are asked */
    size_t n_asks;
    struct bk_fan *fan;
    struct bk_parcel parcel; /* of a lagging subscription */
    size_t n_lagging;
    size_t n_early; /* subscriptions with the early view */
    size_t n_until; /* subscriptions that end at a time */
    bool fanning;   /* subscriptions are being walked: removals wait */
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

/** bk_publish_refuse() - refuse a batch that is not looked at, for @error; of BB_ECONFLICT the detail is in core->nested. */
void bk_publish_refuse(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, int error);

/** bk_ack_waiting() - a batch that waited is decided: durable, or what of it was for the log has failed with its error. Frees
 * it. */
void bk_ack_waiting(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting);

/** bk_waiting_outcome() - what a repetition of @waiting is to be told when what of it was for the log has failed. */
int bk_waiting_outcome(const struct bk_waiting *waiting, int error);

/** bk_producer_note() - what became of @number: 0 or an error. */
void bk_producer_note(struct bk_producer *producer, uint64_t number, int outcome);

/* --- stage.c --- */

/** bk_store_of() - where @channel is kept. */
enum bk_store bk_store_of(const struct bk_core *core, const struct bk_channel *channel);

/** bk_stage_admit() - whether an event for @channel may be taken that is to reach @level. Return: 0, or why not. */
int bk_stage_admit(const struct bk_core *core, const struct bk_channel *channel, uint64_t level);

/** bk_stage_add() - take over @block until it is durable. Return: 0 or BB_ENOMEM. */
int bk_stage_add(struct bk_core *core, const struct bk_block *block);

/** bk_stage_producer() - tell the log how far @producer has come. */
void bk_stage_producer(struct bk_core *core, struct bk_producer *producer);

/** bk_stage_drop_producer() - it is forgotten, also by the log. */
void bk_stage_drop_producer(struct bk_core *core, struct bk_producer *producer);

/** bk_stage_wait() - let @waiting wait for its turn. */
void bk_stage_wait(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting);

/** bk_stage_forget() - free what waits for @client, which goes. */
void bk_stage_forget(struct bk_core *core, struct bk_client *client);

/** bk_stage_submit() - register what has been staged. */
void bk_stage_submit(struct bk_core *core);

void bk_stage_fini(struct bk_core *core);

/** bk_log_block_of() - @block as backends take it. */
struct bk_log_block bk_log_block_of(const struct bk_core *core, const struct bk_block *block);

/** bk_log_channel_of() - @channel as backends take it; its settings are written to @settings. */
struct bk_log_channel bk_log_channel_of(const struct bk_channel *channel, struct bb_buf *settings);

/* --- pause.c --- */

/** bk_pause_is_due() - whether a client that publishes @events is to wait until the log has caught up. */
bool bk_pause_is_due(const struct bk_core *core, struct bb_slice events);

/** bk_pause() - let what @client sends wait, and ask the plug not to read it. */
void bk_pause(struct bk_core *core, struct bk_client *client);

/** bk_pause_is_over() - whether bk_pause_end() has something to do. */
bool bk_pause_is_over(const struct bk_core *core);

/** bk_pause_end() - take in what waited, as far as the log now has room. */
void bk_pause_end(struct bk_core *core);

/** bk_pause_forget() - the client goes. */
void bk_pause_forget(struct bk_core *core, struct bk_client *client);

/* --- keep.c --- */

/** bk_memory_keep() - let the memory's backend have @block, which is in the ring, at the end of the batch. */
void bk_memory_keep(struct bk_core *core, const struct bk_block *block);

/** bk_memory_register() - the end of the batch. */
void bk_memory_register(struct bk_core *core);

/* --- held.c --- */

/** bk_can_hold() - whether one more answer may be held back. */
bool bk_can_hold(const struct bk_core *core);

/** bk_hold_answer() - answer @msg with @value when what is staged now is on disk; at once without a log. */
void bk_hold_answer(struct bk_core *core,
                    struct bk_client *client,
                    const struct bb_msg *msg,
                    struct bb_slice value);

/** bk_held_release() - tickets up to @durable are durable, from @failed on they have failed with @error. */
void bk_held_release(struct bk_core *core, uint64_t durable, uint64_t failed, int error);

/** bk_held_forget() - nobody is to be told any more: the client goes. */
void bk_held_forget(struct bk_core *core, const struct bk_client *client);

void bk_held_fini(struct bk_core *core);

/* --- cursor.c --- */

/** bk_handle_cursor() - PROTOCOL 7.6. */
void bk_handle_cursor(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_cursor_load() - the loader's. */
int bk_cursor_load(void *context, const struct bk_log_cursor *entry);

/** bk_cursor_find() - the positions of the cursor called @name: one MessagePack array; empty if there is none. */
struct bb_slice bk_cursor_find(const struct bk_core *core, struct bb_slice name);

/** bk_cursors_collect() - append struct bk_log_cursor for each that is to be registered now. */
void bk_cursors_collect(const struct bk_core *core, struct bb_buf *out);

/** bk_cursors_collected() - forget them: they are registered, or that has failed. */
void bk_cursors_collected(struct bk_core *core);

void bk_cursors_fini(struct bk_core *core);

/** bk_cursors_write() - append an array of all cursors, for status. */
void bk_cursors_write(struct bb_buf *out, const struct bk_core *core);

/* --- cold.c --- */

/** bk_sub_set_cold() - from now on @sub has what comes after its positions in logged channels from the log. */
void bk_sub_set_cold(struct bk_core *core, struct bk_sub *sub);

/** bk_cold_step() - read on in the log, or send what was read. Return: 0 or why its client must go. */
int bk_cold_step(struct bk_core *core, struct bk_sub *sub);

/** bk_cold_is_waiting() - whether nothing but the log's answer brings @sub on. */
bool bk_cold_is_waiting(const struct bk_core *core, const struct bk_sub *sub);

/** bk_cold_end() - @sub ends; an answer under way comes to nothing. */
void bk_cold_end(struct bk_sub *sub);

/* --- until.c --- */

/**
 * bk_until_read() - read the option `until` (PROTOCOL 7.1) into @sub
 * @ret_last: the sequences by channel that it names; borrowed; untouched if it names none
 *
 * Return: 0 or BB_EINVAL; errors of @reader are for the caller to see.
 */
int bk_until_read(struct bb_mp_reader *reader, struct bk_sub *sub, struct bb_slice *ret_last);

/** bk_until_is_now() - whether @sub ends with what there was when it began, and channels to come are not wanted. */
bool bk_until_is_now(const struct bk_sub *sub);

/** bk_until_limit() - end all positions of @sub as @last says; @is_other_run: it is what another run of the broker said. */
void bk_until_limit(struct bk_core *core, struct bk_sub *sub, struct bb_slice last, bool is_other_run);

/** bk_until_write() - where the positions of @sub end, as `last` takes it. */
void bk_until_write(const struct bk_sub *sub, struct bb_buf *out);

/** bk_until_is_reached() - whether everything that @sub still was to have is sent. */
bool bk_until_is_reached(const struct bk_core *core, const struct bk_sub *sub);

/** bk_sub_end() - tell the client that its subscription has ended, and remove it. */
void bk_sub_end(struct bk_core *core, struct bk_sub *sub, const char *code);

/** bk_until_tick() - look at the subscriptions that end at a time; returns when to look again, in us from now. */
uint64_t bk_until_tick(struct bk_core *core);

/* --- snapshot.c --- */

/** bk_snapshot_start() - ask for the newest event of each path that @sub matches; they are sent before anything else.
 * Return: 0 or an error. */
int bk_snapshot_start(struct bk_core *core, struct bk_sub *sub, struct bb_slice patterns);

/** bk_snapshot_step() - send some of them. Return: 0 or why the client must go. */
int bk_snapshot_step(struct bk_core *core, struct bk_sub *sub);

/** bk_snapshot_is_waiting() - whether they are not known yet. */
bool bk_snapshot_is_waiting(const struct bk_sub *sub);

/** bk_snapshot_end() - @sub ends. */
void bk_snapshot_end(struct bk_sub *sub);

/* --- ask.c --- */

void bk_handle_query(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);
void bk_handle_log(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_asks_forget() - nobody is to be told any more: the client goes. */
void bk_asks_forget(struct bk_core *core, const struct bk_client *client);

/** bk_ask_locate() - find places in the log for the subscribe message @msg; bk_subscribe_located() gets them. Return: 0 or an
 * error. */
int bk_ask_locate(struct bk_core *core,
                  struct bk_client *client,
                  const struct bb_msg *msg,
                  const struct bk_locate *locate);

/** bk_ask_trim() - remove what is before @before from the log and answer @msg with what is left. */
int bk_ask_trim(struct bk_core *core,
                struct bk_client *client,
                const struct bb_msg *msg,
                const struct bk_channel *channel,
                uint64_t before);

/** bk_ask_path() - ask the log for the newest event of @path; the client's messages wait until it answers. */
int bk_ask_path(struct bk_core *core,
                struct bk_client *client,
                const struct bk_channel *channel,
                struct bb_slice path);

/* --- expect.c --- */

/** bk_expect_judge() - whether what @options of a publish demand holds. Return: 0; BB_ECONFLICT, with the detail in core->nested;
 * BB_EAGAIN: the log has been asked, and the publish is to be judged again; BB_EINVAL, BB_ELIMIT, BB_ENOMEM. */
int bk_expect_judge(struct bk_core *core, struct bk_client *client, struct bb_slice options);

/** bk_expect_located() - the log's answer to bk_ask_path(). */
void bk_expect_located(struct bk_client *client, const struct bk_locate *locate);

/** bk_defer() - let a message wait until the log has answered. Return: 0, or why the client has been sent away. */
int bk_defer(struct bk_core *core, struct bk_client *client, struct bb_slice bytes, struct bk_bytes *owner);

/** bk_deferred_take() - the oldest of them, NULL if there is none; to be freed with bk_deferred_free(). */
struct bk_deferred *
bk_deferred_take(struct bk_client *client, struct bb_slice *ret_bytes, struct bk_bytes **ret_owner);
void bk_deferred_free(struct bk_deferred *deferred);

/** bk_deferred_return() - put one that was taken back in front. */
void bk_deferred_return(struct bk_client *client, struct bk_deferred *deferred);

/** bk_deferred_forget() - free all. */
void bk_deferred_forget(struct bk_client *client);

/** bk_deferred_resume() - take in what has waited (core.c). */
void bk_deferred_resume(struct bk_core *core, struct bk_client *client);

/* --- early.c --- */

/** bk_early_show() - show what is staged to those who have the early view. */
void bk_early_show(struct bk_core *core);

/** bk_early_has_seen() - whether @sub has had all of @parcel, or (@ret_some) some of it. */
bool bk_early_has_seen(const struct bk_sub *sub, const struct bk_parcel *parcel, bool *ret_some);

/** bk_early_retract() - the log has failed: take back what was shown and does not exist. */
void bk_early_retract(struct bk_core *core);

/* --- admin.c --- */

void bk_handle_channel(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/* --- subscribe.c --- */

/** bk_subscribe_located() - go on with a subscription whose beginning had to be looked up in the log. */
void bk_subscribe_located(struct bk_core *core,
                          struct bk_client *client,
                          const struct bb_msg *msg,
                          const struct bk_locate *located);

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

/** bk_send_all_away() - without memory to go on, all who subscribe are told to come again. */
void bk_send_all_away(struct bk_core *core);

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

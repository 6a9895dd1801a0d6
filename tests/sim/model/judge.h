/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The judge: holds what leaves the broker against what went in and the truth, by PROTOCOL. What leaves
 * during one call into the core is
 * collected and judged when the call is over, so that what the broker shows at its windows in the same call
 * is known by then.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world;
struct sim_link;
struct truth_event;
struct account;
struct asked;
struct published;

/* What is judged of a link. */
struct judged_link {
    bool is_ready;      /* welcome was sent */
    bool has_goodbye;   /* nothing more may come */
    bool said_goodbye;  /* the peer did */
    bool is_taken_over; /* another link has its identity */
    bool has_id;
    uint8_t id[16];
    uint64_t epoch;
    uint64_t heartbeat_us;
    uint64_t heard_at;
    uint64_t number;      /* the client's, of welcome */
    uint64_t next_number; /* that a publish must have; 0: any above last */
    uint64_t last_number; /* taken; without identity */
    uint64_t sent_bytes;  /* by the core, pings excluded */
    uint64_t read_bytes;  /* known to the core from a pong */
    uint64_t read_surely; /* from one that did not have to wait behind a publish */
    uint64_t strikes;
    struct account *accounts;
    struct asked *asked;
    struct published *published; /* oldest first */
    struct published **published_end;
};

struct trace_entry {
    struct sim_link *link;
    size_t at; /* in the bytes */
    size_t len;
};

struct judge {
    struct trace_entry *trace;
    size_t n_trace;
    size_t n_trace_slots;
    struct bb_buf bytes;
    struct producer *producers;
    struct saved *saved;
    struct written_list *written;
    bool has_lives; /* the broker says that its positions carry lives */
    uint64_t mark;
    uint64_t n_gaps;
    uint64_t n_accounts; /* ever made */
    uint64_t n_asked;
    uint64_t n_refusers_moved; /* how often a subscription that refuses got something, or was over */
    uint64_t full_since;       /* when the log said that it is full; 0: it is not */
    uint64_t met;              /* features of the world, for all subscriptions that are open */
};

void judge_fini(struct judge *judge);

/** judge_input() - @bytes, MessagePack, go from @link into the core. */
void judge_input(struct world *world, struct sim_link *link, struct bb_slice bytes);

/** judge_output() - @bytes leave the core for @link; judged by judge_settle(). */
void judge_output(struct world *world, struct sim_link *link, struct bb_slice bytes);

/** judge_settle() - a call into the core is over. */
void judge_settle(struct world *world);

/** judge_closed() - the core, or the transport, has closed @link. */
void judge_closed(struct world *world, struct sim_link *link, bool by_core);

/** judge_broker_ended() - all that was remembered without a disk is gone. @has_log: what the disk kept is
 * still there. */
void judge_broker_ended(struct world *world, bool has_log);

/** judge_window_input() - bare events went in at a window, all good, by the number of their first one. */
void judge_window_input(struct world *world, uint64_t first, uint64_t n);

/** judge_written() - an event was numbered: by whom was it written? judge_unwritten() - and was taken back.
 * judge_written() - an event was numbered: by whom was it written? judge_unwritten() - and was taken back. */
void judge_written(struct world *world, struct truth_event *event);
void judge_unwritten(struct world *world, struct truth_event *event);

/** judge_removed() - a channel was removed. */
void judge_removed(struct world *world, size_t channel);

/** judge_meets() - all open subscriptions meet these features; those of @channel if it is not SIZE_MAX. */
void judge_meets(struct world *world, size_t channel, uint64_t features);

/** judge_meets_of() - those of one link. */
void judge_meets_of(struct world *world, struct sim_link *link, uint64_t features);

/** judge_owes() - what is still to come when the world is quiet; NULL: nothing. */
const char *judge_owes(struct world *world);

/** judge_link_fini() - forget a link. */
void judge_link_fini(struct world *world, struct sim_link *link);

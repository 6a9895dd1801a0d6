/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The truth of a simulated world: what was published, in which life of its channel, and what of it is seen,
 * durable, or gone. Kept
 * from what the broker shows at its windows and registers with its log, by the rules of PROTOCOL alone.
 *
 * An incarnation is a channel between its making and its removal; in memory it ends with the broker. A cut
 * is the moment when sequences
 * of it are taken back: the log failed or an older copy was restored. Lives (PROTOCOL 7.5) are numbers that
 * the broker gives to the
 * pieces between; which piece a number means is learnt when it is first told.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NAMES_MAX 32
#define NO_LIMIT  UINT64_MAX

struct world;
struct truth_inc;

/** sim_grown() - @array with room for one more than @n. */
void *sim_grown(void *array, size_t n, size_t *n_slots, size_t size);

struct truth_event {
    struct truth_event *older; /* of all, to be freed */
    struct truth_inc *inc;
    uint8_t *raw;
    size_t len;
    struct bb_slice path;
    struct bb_slice payload;
    uint64_t sequence;
    uint64_t session;
    uint64_t instance;
    uint64_t time;
    uint64_t source;
    uint64_t ttl_us; /* 0: none */
    int64_t source_time;
    bool has_source_time;
    bool is_durable;
    bool is_registered; /* the log has heard of it */
    bool is_gone;       /* cut off: it does not exist any more */
    uint64_t writer;
    uint64_t serial;
    uint64_t taken_at; /* virtual time at which it was first heard of */
    uint64_t seen;     /* rank among the visible ones, from 1; 0: not visible */
    uint64_t seen_at;
    uint64_t mark; /* the message that is being judged holds it */
};

/* The loosest limits that an incarnation had since some time: what they cannot have taken must be there. */
struct truth_limits {
    uint64_t max_age_us;
    uint64_t max_bytes;
    uint64_t max_events;
    uint64_t max_per_path;
    uint64_t min_events;
};

struct truth_cut {
    uint64_t end; /* the last sequence that is left */
    uint64_t at;
};

struct truth_inc {
    struct truth_inc *next; /* older ones of the channel */
    size_t channel;
    uint64_t number; /* of all */
    bool is_logged;
    bool has_store; /* known where it is kept */
    bool is_ended;
    uint32_t id;         /* in the log; 0: unknown */
    uint64_t generation; /* of the log */
    struct truth_event **events;
    size_t n; /* taken */
    size_t n_slots;
    size_t visible; /* so many of the first */
    size_t durable;
    struct truth_cut *cuts;
    size_t n_cuts;
    size_t n_cut_slots;
    uint64_t trim_done; /* of a request that was answered */
    uint64_t trim_done_at;
    uint64_t ended_at; /* the broker has shown that it was removed */
    uint64_t gone_at;  /* its removal was answered: nothing finds it any more */
    uint64_t trimmed;  /* a request to trim went up to before this sequence */
    struct truth_limits limits;
    bool has_floor;
    uint64_t ring; /* the smallest ring that it had */
    bool is_lazy;  /* was at some time */
    bool was_set;
    bool is_of_log;        /* and by a broker with a log: one without leaves on the disk what is there */
    bool is_set_to_log;    /* what the log was told of it, before it has events */
    bool was_set_in_doubt; /* while it was to be removed: it may be the next one that was meant */
    uint64_t born_at;
    uint32_t
        n_rm_open; /* requests to remove the channel when its first event came: each may have removed an empty one before it */
};

struct truth_life {
    size_t channel;
    uint64_t number;
    struct truth_inc *inc;
    uint64_t end;        /* what was told of it and taken back lies behind it; UINT64_MAX: nothing was */
    uint64_t told_most;  /* the highest sequence told with it */
    uint64_t told_least; /* and the lowest */
    uint64_t
        stored_at; /* something of the channel went to the disk since it was told: at the latest then; 0: not yet */
    bool is_unsure; /* the log that a broker has found may not know it */
};

struct truth_run {
    uint64_t run;
    struct {
        struct truth_inc *inc;
        size_t cut;
        uint64_t n; /* what was there when the run began */
    } first[NAMES_MAX];
};

struct truth_name {
    char text[12];
    struct truth_inc *inc; /* newest; NULL: there was none yet */
    uint32_t n_rm_asked;   /* requests to remove it that may be, or become, true */
    bool has_appeared;
    bool was_removed_empty; /* there was one before it that had nothing */
};

struct truth {
    struct truth_name names[NAMES_MAX];
    size_t n_names;
    struct truth_life *lives;
    size_t n_lives;
    size_t n_life_slots;
    struct truth_run *runs;
    size_t n_runs;
    size_t n_run_slots;
    struct truth_event *events;
    struct truth_event **visible; /* by rank */
    size_t n_visible;
    size_t n_visible_slots;
    uint64_t n_incs;
    uint64_t n_events;
};

void truth_fini(struct truth *truth);

/** truth_name() - the index of a channel, made if it is not known. */
size_t truth_name(struct world *world, struct bb_slice name);

/** truth_name_of_path() - of the channel of a path. */
size_t truth_name_of_path(struct world *world, struct bb_slice path);

/** truth_current() - the incarnation that @channel has now, made if there is none. */
struct truth_inc *truth_current(struct world *world, size_t channel);

/** truth_event_at() - NULL if there is none (any more). */
struct truth_event *truth_event_at(const struct truth_inc *inc, uint64_t sequence);

/* One event as the broker shows it somewhere. */
struct truth_shown {
    struct bb_slice raw;
    uint64_t session;
    uint64_t instance;
    uint64_t time;
    uint64_t source;
    uint64_t sequence;
    uint32_t id; /* of the channel in the log; 0: not said */
};

/** truth_take() - an event has been numbered. Return: it, or NULL if the world has failed. */
struct truth_event *truth_take(struct world *world, const struct truth_shown *shown, bool is_logged);

/** truth_see() - an event was shown at the window: it is visible now. */
void truth_see(struct world *world, const struct truth_shown *shown);

/** truth_durable() - what @inc has up to @sequence is on the disk. */
void truth_durable(struct world *world, struct truth_inc *inc, uint64_t sequence);

/** truth_load() - a broker has found @inc on its disk: all of it is visible. */
void truth_load(struct world *world, struct truth_inc *inc);

/** truth_cut() - what @inc has behind @end is taken back. */
void truth_cut(struct world *world, struct truth_inc *inc, uint64_t end);

/** truth_cut_unregistered() - the same, if the log has never heard of it: the broker takes it back by
 * itself. */
void truth_cut_unregistered(struct world *world, struct truth_inc *inc, uint64_t end);

/** truth_remove() - the broker has shown that @channel was removed; fails if nobody has asked for it. */
void truth_remove(struct world *world, size_t channel, const char *evidence);

/** truth_limit() - the settings of a channel were changed, by the map of a request. */
void truth_limit(struct world *world, size_t channel, struct bb_slice settings, bool is_new);

/** truth_restored() - a copy of the log that was made at @time has taken its place. */
void truth_restored(struct world *world, uint64_t time);

/** truth_forget_lives() - a broker is gone: what was told in a life that nothing on the disk is of, the next one
 * need not know. */
void truth_forget_lives(struct world *world);

/** truth_carry() - what a channel was set to outlives the broker, its events do not. @is_older: the log is an older copy, in which it
 * may be what it was set to at any time. */
void truth_carry(struct world *world, size_t channel, bool is_older);

/** truth_begin_run() - a broker starts: channels in memory are gone. */
void truth_begin_run(struct world *world, uint64_t run);

/* --- positions -------------------------------------------------------------------------------- */

enum truth_verdict {
    POSITION_VALID,
    POSITION_RETRACTED, /* void from ret_end on */
    POSITION_VOID,
    POSITION_UNSURE, /* more lives than a broker must remember */
};

/** truth_judge_life() - PROTOCOL 7.5, the table: [sequence, life] of @channel. */
enum truth_verdict
truth_judge_life(struct world *world, size_t channel, uint64_t sequence, uint64_t life, uint64_t *ret_end);

/** truth_judge_run() - the same for a position of the run @run. */
enum truth_verdict
truth_judge_run(struct world *world, size_t channel, uint64_t sequence, uint64_t run, uint64_t *ret_end);

/** truth_judge_inc() - the same for a position taken in @inc when it had @cut cuts. */
enum truth_verdict truth_judge_inc(struct world *world,
                                   const struct truth_inc *inc,
                                   size_t cut,
                                   uint64_t sequence,
                                   uint64_t *ret_end);

/** truth_told_life() - the broker has told that @sequence of @inc is in the life @life: it must mean that
 * and no other. */
void truth_told_life(struct world *world, struct truth_inc *inc, uint64_t sequence, uint64_t life);

/** truth_end_life() - what was told of @inc in the life @number behind @end was taken back, and the log has never heard of it. */
void truth_end_life(struct world *world, const struct truth_inc *inc, uint64_t number, uint64_t end);

/* --- what may be gone ------------------------------------------------------------------------- */

/** truth_may_be_trimmed() - whether a request to trim or some limit can have taken @event. */
bool truth_may_be_trimmed(const struct world *world, const struct truth_event *event);

/** truth_may_be_evicted() - whether memory can have been too small for @event. */
bool truth_may_be_evicted(const struct world *world, const struct truth_event *event);

/** truth_may_have_expired() - whether its time to live is over by some clock. */
bool truth_may_have_expired(const struct world *world, const struct truth_event *event);

/** truth_has_expired() - whether it is over by every clock, and was @slack_us ago. */
bool truth_has_expired(const struct world *world, const struct truth_event *event, uint64_t slack_us);

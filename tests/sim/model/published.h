/* SPDX-License-Identifier: Apache-2.0 */
/* What was written by whom, and what became of it (PROTOCOL 6). */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/model/truth.h"

struct sim_link;

/* An event that a peer or a window has written. */
struct written {
    uint8_t *raw;
    size_t len;
    const char *refusal;  /* the code with which the broker must refuse it; NULL: it is good */
    bool is_numbered;     /* its order and number count */
    uint64_t refused_run; /* refused for a reason that came up: it must not appear any more in this run */
    uint64_t
        fresh_at; /* published last under a number that was new: what appeared before is of another try */
    const struct sim_link *fresh_link; /* and by it */
    uint64_t epoch;       /* in which it was published last; in another one it is another publish */
    uint64_t event_epoch; /* in which `event` was */
    bool has_claim;       /* an ack has named its sequence before it was heard of */
    uint64_t claim;
    uint64_t run;              /* in which it appeared last */
    uint64_t n_refusers_moved; /* in all, when it appeared */
    struct truth_event *event;
};

/** written_add() - @writer has written an event. Return: its serial. */
uint64_t
written_add(struct world *world, uint64_t writer, struct bb_slice raw, const char *refusal, bool is_numbered);

/** written_next() - the serial that the next event of @writer gets. */
uint64_t written_next(const struct world *world, uint64_t writer);
struct written *written_at(struct world *world, uint64_t writer, uint64_t serial);
void written_fini(struct world *world);

enum publish_class {
    PUBLISH_FRESH,
    PUBLISH_REPEATED,
    PUBLISH_OUT_OF_SEQUENCE,
    PUBLISH_FORGOTTEN, /* number 0 */
};

/* A batch that went in and waits for its answer. */
struct published {
    struct published *next;
    uint64_t number;
    uint64_t level;
    uint64_t writer;
    uint64_t *serials;
    size_t n;
    bool is_broken;    /* its bytes cannot be followed to the end */
    bool *must_refuse; /* for each: a subscription with that policy is behind for sure */
    bool may_refuse;
    uint64_t n_refusers_moved; /* in all, when it went in */
    uint64_t *matches;         /* how many subscriptions there were for each */
    uint64_t n_accounts;       /* ever made when it went in */
    enum publish_class class;
    struct bb_buf options;
    uint64_t at;
    uint64_t run;
    struct {
        uint64_t visible;
        uint64_t taken;
        const struct truth_inc *inc;
    } then[NAMES_MAX];
};

void published_input(struct world *world, struct sim_link *link, const struct bb_msg *msg, bool is_bare);
void published_ack(struct world *world, struct sim_link *link, struct bb_slice entries);
void published_error(struct world *world, struct sim_link *link, const struct bb_msg *msg);
void published_free(struct published *published);

/** published_owes() - what is still to come in a quiet world; NULL: nothing. */
const char *published_owes(struct world *world, struct sim_link *link);

/** expect_held() - a batch with conditions was taken: they must have held. expect_refused() - and the other
 * way round. */
void expect_held(struct world *world, const struct published *published);
void expect_refused(struct world *world, const struct published *published, struct bb_slice detail);

/* --- producers: identities of peers and how far their numbers have come ----------------------- */

struct producer {
    struct producer *next;
    uint8_t id[16];
    uint64_t epoch;
    uint64_t last;         /* taken in this run, or known to be restored */
    uint64_t most;         /* that `last` ever was */
    uint64_t last_durable; /* at least so far the log knows */
    bool is_sure;          /* `last` was told or counted in this run */
};

struct producer *producer_of(struct world *world, const uint8_t *id, uint64_t epoch);
/** producer_newest_epoch() - that a broker must know of @id. */
uint64_t producer_newest_epoch(const struct world *world, const uint8_t *id);
void producers_broker_ended(struct world *world, bool has_log);
void producers_fini(struct world *world);

/* --- requests --------------------------------------------------------------------------------- */

void asked_input(struct world *world, struct sim_link *link, const struct bb_msg *msg);
void asked_answer(struct world *world, struct sim_link *link, const struct bb_msg *msg);
/** asked_loosen_trims() - what trims that are not answered may take of @inc: they may have waited, also behind a
 * removal. */
void asked_loosen_trims(struct world *world, struct truth_inc *inc);

/** asked_consume_rm() - @channel was removed: one of the requests to do so has done it. */
void asked_consume_rm(struct world *world, size_t channel);
/** asked_is_set() - a setting of @channel is not answered: it may come to the next one of the name. */
bool asked_is_set(const struct world *world, size_t channel);

/** asked_doubt() - what @link still waits for will not be answered. */
void asked_doubt(struct sim_link *link);
void asked_free_all(struct world *world, struct sim_link *link);
const char *asked_owes(struct world *world, struct sim_link *link);

/* --- queries ---------------------------------------------------------------------------------- */

/* What was asked, with the truth as it was then. */
struct asked_query {
    struct bb_buf bytes;
    uint64_t rank; /* visible events then */
    uint64_t n_incs;
    uint64_t at;
};

/** query_judge() - the answer, against the truth. NULL: it is right. */
const char *query_judge(struct world *world, const struct asked_query *asked, const struct bb_msg *msg);

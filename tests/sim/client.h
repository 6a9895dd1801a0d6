/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model client: speaks the real bytes, keeps what it has published until it is acknowledged, comes back
 * after each cut and resumes. What it does next is chance.
 */
#pragma once

#include "tests/sim/cursor.h"
#include "tests/sim/link.h"
#include "tests/sim/query.h"
#include "tests/sim/watch.h"

#include <stdbool.h>

#define CLIENT_WATCHES_MAX 4
#define CLIENT_STRIKES_MAX 10
#define CLIENT_BATCH_MAX   80 /* events */

enum client_state {
    CLIENT_DOWN,
    CLIENT_HELLO, /* waits for welcome */
    CLIENT_READY,
};

/* An event that was written. */
struct client_event {
    uint8_t *raw;
    size_t len;
    const char *refusal; /* the code with which the broker must refuse it; NULL: it is good */
    uint64_t number;     /* 0: fire and forget */
    uint64_t seen_run;   /* published in this run of the broker */
};

struct client_batch {
    uint64_t number;
    uint64_t level;
    uint64_t first; /* serial of its first event */
    uint32_t n_events;
    bool is_bad;          /* must be refused whole */
    uint64_t refused_run; /* an error left the broker in this run */
    uint8_t *bytes;
    size_t len;
};

struct sim_client {
    struct world *world;
    uint64_t index;
    uint8_t id[BB_CLIENT_ID_LEN];
    bool is_anonymous;
    enum client_state state;
    struct sim_link *link;
    uint64_t epoch;
    uint64_t run;
    uint64_t corr;
    uint64_t next_act;
    uint64_t stalled_until; /* reads nothing before */
    uint64_t miserly_until; /* grants no credit before */
    uint64_t heard_at;
    uint64_t heartbeat_ms;
    uint64_t next_sub;
    uint32_t strikes; /* of this link */
    struct watch watches[CLIENT_WATCHES_MAX];
    struct sim_cursor cursor;
    struct sim_query query;
    struct client_event *events; /* by serial */
    uint64_t n_events;
    uint64_t n_event_slots;
    struct client_batch *batches; /* in the order of numbers */
    uint64_t n_batches;
    uint64_t n_batch_slots;
    uint64_t first_unacked; /* index of a batch */
    uint64_t next_number;
    uint64_t newest_seen[SIM_CHANNELS]; /* serial + 1 of numbered events published in this run */
    uint64_t newest_run;
};

void client_init(struct sim_client *client, struct world *world, uint64_t index);
void client_fini(struct sim_client *client);

/** client_act() - it is its turn: do something. */
void client_act(struct sim_client *client);

/** client_message() - a message has arrived over its link. */
void client_message(struct sim_client *client, struct bb_slice bytes);

/** client_leave() - drop the link without a word. */
void client_leave(struct sim_client *client);

/** client_saw() - one of its events was published: once, unchanged, and in order? */
void client_saw(struct sim_client *client, uint64_t serial, const struct bb_slice raw, size_t channel);

/** client_refused() - an error for publish @number leaves the broker. */
void client_refused(struct sim_client *client, uint64_t number);

/** client_is_quiet() - it waits for nothing. */
bool client_is_quiet(const struct sim_client *client);

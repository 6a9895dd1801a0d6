/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer of a simulated world: speaks the real bytes, keeps what it has published until it is answered,
 * comes back after each cut and
 * resumes. It believes what it is told; the judge does not.
 */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/model/truth.h"
#include "tests/sim/plan.h"

#include <stdbool.h>

#define PEER_SUBS_MAX  4
#define PEER_BATCH_MAX 60 /* events */

enum peer_state {
    PEER_DOWN,
    PEER_HELLO, /* waits for welcome */
    PEER_READY,
};

struct peer_position {
    bool is_there;
    uint64_t sequence;
    uint64_t life;
};

struct peer_sub {
    bool in_use;
    bool has_begun;
    bool is_open;
    uint64_t id;
    uint64_t corr;
    struct bb_buf patterns;
    struct bb_buf from;    /* at the beginning */
    struct bb_buf options; /* members of the map but for credit, until, retained */
    uint32_t n_options;
    struct bb_buf until; /* its value; empty: none */
    bool until_is_now;
    bool retained;
    struct bb_buf ends;
    struct peer_position positions[NAMES_MAX];
    uint64_t run;
    uint64_t window_bytes, window_events;
    uint64_t credit_bytes, credit_events;
    uint64_t got_bytes, got_events;
};

struct peer_batch {
    uint64_t number;
    uint64_t level;
    struct bb_buf options;
    struct bb_buf body;
    bool has_answer; /* it waits for those before it: numbers follow each other when they come again */
};

struct sim_peer {
    struct world *world;
    uint64_t index;
    struct sim_rng rng; /* of what it does by itself */
    uint8_t id[BB_CLIENT_ID_LEN];
    bool is_anonymous;
    bool is_json;
    bool is_old;  /* knows nothing of lives */
    bool is_deaf; /* answers no ping */
    bool jumps;   /* goes on with its numbers after a broker that forgot, else begins anew in a new epoch */
    enum peer_state state;
    struct sim_link *link;
    uint64_t epoch;
    uint64_t run;
    bool has_lives;
    uint64_t corr;
    uint64_t next_turn;
    uint64_t stalled_until; /* reads nothing before */
    uint64_t miserly_until; /* grants no credit before */
    uint64_t heard_at;
    uint64_t heartbeat_ms;
    uint64_t next_sub;
    uint32_t strikes; /* of this link */
    struct peer_sub subs[PEER_SUBS_MAX];
    struct peer_batch *batches; /* without answer, in the order of numbers */
    size_t n_batches;
    size_t n_batch_slots;
    struct peer_batch answered; /* one that has its answer, to be repeated */
    uint64_t next_number;
    uint64_t query_corr; /* 0: none is under way */
    uint32_t n_query;    /* members of it that stay from page to page */
    uint64_t query_pages;
    struct bb_buf query;
    uint64_t met; /* features, for its next subscriptions */
};

void peer_init(struct sim_peer *peer, struct world *world, uint64_t index, uint64_t seed);
void peer_fini(struct sim_peer *peer);

/** peer_turn() - it is its turn: connect, grant credit, give up a silent broker. */
void peer_turn(struct sim_peer *peer);

/** peer_message() - a message has arrived over its link. */
void peer_message(struct sim_peer *peer, struct bb_slice bytes);

/** peer_leave() - drop the link without a word. */
void peer_leave(struct sim_peer *peer, struct sim_rng *rng);

/** peer_act() - do something that the plan says. */
void peer_act(struct sim_peer *peer, const struct act *act);

/** peer_send() - a message, in the peer's form. */
void peer_send(struct sim_peer *peer, struct bb_slice bytes);
void peer_send_msg(struct sim_peer *peer, const struct bb_msg *msg);

/** peer_is_quiet() - it waits for nothing. */
bool peer_is_quiet(const struct sim_peer *peer);

/* --- acts ------------------------------------------------------------------------------------- */

void peer_publish(struct sim_peer *peer, struct sim_rng *rng);
void peer_repeat(struct sim_peer *peer);
void peer_republish(struct sim_peer *peer, uint64_t last);
void peer_forget(struct sim_peer *peer); /* all that it has published: it begins anew */
void peer_settle(struct sim_peer *peer, uint64_t number);
void peer_subscribe(struct sim_peer *peer, struct sim_rng *rng);
void peer_resume(struct sim_peer *peer, struct peer_sub *sub);
void peer_unsubscribe(struct sim_peer *peer, struct sim_rng *rng);
void peer_save_cursor(struct sim_peer *peer, struct sim_rng *rng, bool is_removal);
void peer_query(struct sim_peer *peer, struct sim_rng *rng);
void peer_query_answer(struct sim_peer *peer, const struct bb_msg *msg);
void peer_settings(struct sim_peer *peer, struct sim_rng *rng);
void peer_remove(struct sim_peer *peer, struct sim_rng *rng);
void peer_trim(struct sim_peer *peer, struct sim_rng *rng);

/** peer_sub_message() - something came for a subscription. */
void peer_sub_message(struct sim_peer *peer, const struct bb_msg *msg);

/** peer_grant() - credit, when about half is worked off. */
void peer_grant(struct sim_peer *peer, struct peer_sub *sub);
void peer_sub_end(struct peer_sub *sub);

/* --- words ------------------------------------------------------------------------------------ */

/** words_name(), words_path(), words_pattern() - of the world's channels; in @text, which has room for 24
 * bytes. */
struct bb_slice words_name(struct world *world, struct sim_rng *rng, char *text);
struct bb_slice words_path(struct world *world, struct sim_rng *rng, char *text);
struct bb_slice words_pattern(struct world *world, struct sim_rng *rng, char *text);

/** words_event() - an event of @writer is written, and noted; appended to @body. */
void words_event(struct world *world,
                 struct sim_rng *rng,
                 uint64_t writer,
                 bool is_numbered,
                 bool may_be_bad,
                 struct bb_slice path,
                 struct bb_buf *body);

/* --- JSON ------------------------------------------------------------------------------------- */

/** json_of_message() - the text that says the same as the MessagePack @bytes of a client. */
void json_of_message(struct bb_slice bytes, struct bb_buf *out);

/** json_check() - whether the text that the edge made says what the broker's message @bytes says. NULL, or
 * why not. */
const char *json_check(struct bb_slice text, struct bb_slice bytes);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core with peers, a clock and a log that the test moves by hand. Messages are said in JSON with ' for ", and what a peer is
 * told is written down in short words, so that a test reads as a conversation:
 *
 *     rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/ *'],'from':'oldest'}");
 *     RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,2] = a1-2");
 *
 * The words:
 *
 *     subscribed a@5 b@0 until a@7    positions, and `ends`; a life behind them as a@5/100, in ranges and gaps too
 *     deliver gap a[1,2]x2 expired, a(2,5] b(0,1] = a3-4 b1 a5    gaps, ranges, events in their order; `retained1`, `retained2`
 *     gap a[6,-]x- restart            `-` is nil
 *     ack 3@1 a7+2 m1, 4@3 repeated   number@level, first sequence+count, matches; `refused 0:bad_path`
 *     result 5, error publish/3 bad_sequence, goodbye overflow, ended done, pong 7, welcome 0 (the last number), events more = a1
 *
 * Pings are not written down. All invariants are held after each call.
 */
#pragma once

#include "proto/base/error.h"
#include "proto/wire/message.h"

#include "broker/core/backend.h"
#include "broker/core/core.h"
#include "broker/core/state.h"

#include <criterion/criterion.h>

#define RIG_PEERS 4
#define RIG_STORY 4096

struct rig_peer {
    struct bk_client *client;
    int answer;     /* of send: 0, BB_EAGAIN, BB_ECLOSED; */
    size_t n_lucky; /* but so many messages still go */
    size_t n_pings;
    uint64_t last_ping;
    bool is_closed;
    bool is_shut_out;
    bool is_paused;
    struct bb_buf result; /* the value of the last result, or the detail of the last error */
    char text[128];       /* the sentence of the last error */
    char story[RIG_STORY];
};

/* A log of which the test says when tickets are durable, fail, and requests are answered. It outlives the core. */
struct rig_log {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_backend *kept; /* what is durable, in the backend in memory */
    struct bk_backend_listener kept_listener;
    struct bk_meter meter;
    uint64_t kept_ticket;
    struct rig_ticket *queue; /* registered, oldest first */
    struct bk_request *requests;
    struct bb_buf rows; /* channels, producers and cursors as they were registered, for load() */
    int refusal;        /* of register_ */
    int block_error;    /* of each block */
    int answer_error;   /* of each request */
    size_t n_registered;
};

struct rig {
    struct bk_core *core;
    struct bk_config config;
    struct bk_out out;
    struct rig_log *log;       /* NULL: none */
    struct bk_backend *memory; /* NULL: none */
    struct rig_peer peers[RIG_PEERS];
    uint64_t now;
    size_t payload;  /* bytes of what is published; 0: nil */
    uint64_t ttl_ms; /* of what is published; 0: none */
    uint64_t level;  /* at which it is published */
    uint64_t n_windowed;
    bool window_is_open;
    char notes[512]; /* ids of log lines */
};

/** rig_init() - before rig_start(), for who changes the configuration. */
void rig_init(struct rig *rig);

/** rig_start() - a core, with what the configuration says, and peers that have not said hello. */
void rig_start(struct rig *rig, bool has_memory, bool has_log);
void rig_stop(struct rig *rig);

/** rig_restart() - the broker crashes and starts again, with the same log and another run. Peers are new. */
void rig_restart(struct rig *rig, bool has_log);

/** rig_new_peer() - the peer's connection is another one from now on; what the core has for the older one stays. */
void rig_new_peer(struct rig *rig, size_t i);

/** rig_gone() - the peer's connection ends. */
void rig_gone(struct rig *rig, size_t i);

/** rig_say() - a message in JSON with ' for ", and a flush; rig_put(): without the flush. */
void rig_say(struct rig *rig, size_t i, const char *format, ...) BB_PRINTF(3, 4);
void rig_put(struct rig *rig, size_t i, const char *format, ...) BB_PRINTF(3, 4);

/** rig_hello() - @id NULL: without one. What is told for it is forgotten. */
void rig_hello(struct rig *rig, size_t i, const char *id, uint64_t epoch);

/** rig_hello_all() - all of them, without ids. */
void rig_hello_all(struct rig *rig);

/** rig_publish() - a batch of the paths, which spaces separate; "5:a/x" is five events. And a flush; rig_batch(): without it. */
void rig_publish(struct rig *rig, size_t i, uint64_t number, const char *paths);
void rig_batch(struct rig *rig, size_t i, uint64_t number, const char *paths);

/** rig_events() - the events alone. */
void rig_events(const struct rig *rig, const char *paths, struct bb_buf *out);

/** rig_subscribe() - to one pattern as subscription 1; @rest is what else the message has, as "'from':'last'", or NULL. */
void rig_subscribe(struct rig *rig, size_t i, const char *pattern, const char *rest);

/** rig_credit() - of subscription 1. */
void rig_credit(struct rig *rig, size_t i, uint64_t bytes, uint64_t events);

/** rig_pass() - let time pass, and tick. */
void rig_pass(struct rig *rig, uint64_t us);

/** rig_commit() - the oldest ticket is durable, and a flush; rig_fail(): all that wait have failed. */
void rig_commit(struct rig *rig);
void rig_fail(struct rig *rig, int error);

/** rig_answer() - all that the backends are asked is answered, and a flush; rig_asked(): whether the log is asked anything. */
void rig_answer(struct rig *rig);
bool rig_asked(const struct rig *rig);

/** rig_settle() - flush, commit and answer until nothing changes any more. */
void rig_settle(struct rig *rig);

/** rig_told() - what the peer was told since, which is forgotten. */
const char *rig_told(struct rig *rig, size_t i);

#define RIG_TOLD(rig, i, words) cr_assert_str_eq(rig_told(rig, i), words)

/** rig_channel() - the channel, which exists. */
struct bk_channel *rig_channel(const struct rig *rig, const char *name);

/** rig_sub() - the only subscription of the peer. */
struct bk_sub *rig_sub(const struct rig *rig, size_t i);

/** rig_count() - a counter. */
#define RIG_COUNT(rig, name) bk_core_counter((rig)->core, BK_COUNTER_##name)

/* --- of core_rig_log.c ---------------------------------------------------------------------------------- */

struct rig_log *rig_log_new(void);
void rig_log_open(struct rig_log *log, const struct bk_backend_listener *listener);

/** rig_log_crash() - what is not durable is lost, requests end. */
void rig_log_crash(struct rig_log *log);
void rig_log_free(struct rig_log *log);

/** rig_log_commit() - the oldest ticket. False if there is none. */
bool rig_log_commit(struct rig_log *log);

/** rig_log_answer() - the oldest request. False if there is none. */
bool rig_log_answer(struct rig_log *log);

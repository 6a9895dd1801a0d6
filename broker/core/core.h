/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core: the whole of the broker that decides. It has no sockets, no clock, no threads and no
 * disk: messages and time go in, messages come out through struct bk_out, and the same inputs give the same
 * outputs. One thread owns it. Order of an event's life: bk_core_message() scans it, gives it its session and
 * puts it into the ring; bk_core_flush() fans out what came since the last flush and sends acks.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/message.h"

#include "broker/core/bytes.h"
#include "broker/core/out.h"
#include "broker/core/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bk_core;
struct bk_client;
struct bk_backend;
struct bk_backend_listener;

struct bk_config {
    uint64_t server;        /* number in event ids */
    uint64_t run;           /* differs for each start, and grows; below 2^53 */
    uint64_t first_session; /* session numbers begin above it, and above the newest one in the log */
    uint64_t seed;          /* of the hash tables */
    size_t ring_bytes;      /* memory of one channel's ring */
    size_t memory_bytes;    /* memory of all rings */
    size_t inflight_bytes;  /* most on the way to one client */
    size_t inflight_all;    /* what all clients share, as far as each has its minimum */
    size_t max_message;
    size_t max_channels;
    size_t max_clients;
    size_t max_patterns; /* of one client */
    size_t max_patterns_all;
    uint64_t heartbeat_us; /* where the client does not ask */
    size_t stage_bytes;    /* most that waits for the log */
    size_t check;          /* of the work to hold all invariants, so much is done a call (check.c); 0: none */
};

/* In a world of a test that is after each call. */
#define BK_CHECK_ALWAYS ((size_t)1 << 16)

#define BK_CONFIG_INIT                                     \
    ((struct bk_config){.server = 1,                       \
                        .run = 1,                          \
                        .ring_bytes = (size_t)16 << 20,    \
                        .memory_bytes = (size_t)256 << 20, \
                        .inflight_bytes = (size_t)4 << 20, \
                        .inflight_all = (size_t)256 << 20, \
                        .max_message = (size_t)1 << 20,    \
                        .max_channels = 16384,             \
                        .max_clients = 20000,              \
                        .max_patterns = 100000,            \
                        .max_patterns_all = 1000000,       \
                        .heartbeat_us = 10000000,          \
                        .stage_bytes = (size_t)64 << 20})

/** bk_core_new() - @out is borrowed for the core's life. Return: 0 or BB_ENOMEM. */
int bk_core_new(const struct bk_config *config, const struct bk_out *out, struct bk_core **ret_core);

/** bk_core_free() - forgets everything without a word to anyone; out->close() is called for each client. */
void bk_core_free(struct bk_core *core);

/** bk_core_listener() - what the backend of @store is to be opened with. */
const struct bk_backend_listener *bk_core_listener(struct bk_core *core, enum bk_store store);

/**
 * bk_core_set_backend() - keep channels of @store in @backend, borrowed until the core is freed
 *
 * Before the first client. Loads what the backend knows: channels, how far producers have come, cursors. With a backend for
 * the log new channels are logged. The owner calls the backend's dispatch() when its descriptor is readable, then
 * bk_core_flush().
 *
 * Return: 0, or what load() returned.
 */
int bk_core_set_backend(struct bk_core *core, enum bk_store store, struct bk_backend *backend);

/** bk_core_meter() - what every struct bk_bytes that enters the core is charged to. */
struct bk_meter *bk_core_meter(struct bk_core *core);

/** bk_core_set_time() - what time it is, before each other call: monotonic and wall clock, in us. */
void bk_core_set_time(struct bk_core *core, uint64_t monotonic, uint64_t wall);

/** bk_core_client_add() - a peer spoke for the first time. NULL: refused, too many; or no memory. */
struct bk_client *bk_core_client_add(struct bk_core *core, void *peer);

/**
 * bk_core_message() - a message of @client
 * @bytes: distrusted
 * @owner: what @bytes lie in, referenced if it is kept; NULL: copied if it is kept
 *
 * The client may be gone (out->close() was called) when this returns.
 */
void bk_core_message(struct bk_core *core,
                     struct bk_client *client,
                     struct bb_slice bytes,
                     struct bk_bytes *owner);

/* What is known of a message that a plug could not turn into one. */
struct bk_bad_message {
    enum bb_msg_type about; /* BB_MSG_NONE: unknown */
    uint64_t corr;          /* of a publish its number; 0: unknown */
    int error;
    const char *text; /* a sentence for a person; NULL: that of @error */
    bool is_strike;   /* PROTOCOL 9 */
};

/**
 * bk_core_bad_message() - the plug could not turn what @client sent into a message: answer, count, strike
 *
 * A publish with a number is refused whole: it is answered in its turn, and its number is used up.
 */
void bk_core_bad_message(struct bk_core *core, struct bk_client *client, const struct bk_bad_message *bad);

/** bk_core_client_gone() - the transport says so. out->close() is not called. */
void bk_core_client_gone(struct bk_core *core, struct bk_client *client);

/** bk_core_ingest() - bare events of a window. Return: 0 or why nothing was taken, for bk_core_ingest_refused(). */
int bk_core_ingest(struct bk_core *core, struct bb_slice events, struct bk_bytes *owner);

/** bk_core_window_dropped() - the publish window had no room for an event: count it. */
void bk_core_window_dropped(struct bk_core *core);

/** bk_core_ingest_refused() - a window message could not be taken: count it and log it. */
void bk_core_ingest_refused(struct bk_core *core, int error);

/** bk_core_flush() - fan out and acknowledge what came. Call when the input is drained. */
void bk_core_flush(struct bk_core *core);

/** bk_core_wants_flush() - whether there is more to send that nothing but a flush will. */
bool bk_core_wants_flush(const struct bk_core *core);

/** bk_core_tick() - heartbeats, expiry, waiting requests. Returns when to call again, in us from now. */
uint64_t bk_core_tick(struct bk_core *core);

/** bk_core_tick_at() - when to call bk_core_tick() next, on the monotonic clock; what comes meanwhile may bring it nearer. */
uint64_t bk_core_tick_at(const struct bk_core *core);

/** bk_core_shut_down() - refuse new clients and publishes; go on delivering. */
void bk_core_shut_down(struct bk_core *core);

/** bk_core_is_drained() - after bk_core_shut_down(): nothing waits for a client that could take it. */
bool bk_core_is_drained(const struct bk_core *core);

/** bk_core_say_goodbye() - after draining: tell every client. */
void bk_core_say_goodbye(struct bk_core *core);

/** bk_core_counter() - a counter's value. */
uint64_t bk_core_counter(const struct bk_core *core, enum bk_counter counter);

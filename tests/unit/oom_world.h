/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A broker core with peers, for tests in which memory runs out: what is said to each peer is noted and compared with what was
 * published. Calls into the core are made through world_*(), which let allocations fail; nothing else does.
 */
#pragma once

#include "proto/wire/event.h"
#include "proto/wire/message.h"

#include "broker/core/backend.h"
#include "broker/core/core.h"

#define PEERS_MAX    24
#define WATCHES_MAX  32
#define CHANNELS_MAX 6
#define EVENTS_MAX   512
#define BATCHES_MAX  64
#define REQUESTS_MAX 16
#define ASKED_MAX    64

struct peer {
    struct world *world;
    struct bk_client *client;
    bool is_open;
    bool is_ready;
    bool said_goodbye; /* the core did */
    bool left;         /* by itself */
    uint64_t sent_bytes;
    uint64_t requests[REQUESTS_MAX]; /* corrs without an answer, 0: free */
};

/* Of a channel, for a subscription. */
struct progress {
    uint64_t begin;
    uint64_t position; /* the fate of all before is known */
    uint64_t delivered;
    uint64_t lost;
    bool is_over; /* the channel was removed */
};

struct watch {
    struct peer *peer;
    uint64_t sub;
    uint64_t corr;
    const char *const *patterns;
    size_t n_patterns;
    bool is_live;  /* subscribed was received */
    bool is_early; /* it may be told of what does not come to be, and is not judged */
    struct progress channels[CHANNELS_MAX];
};

/* What became of a batch. */
enum fate {
    FATE_UNKNOWN,
    FATE_ACKED,
    FATE_REFUSED,
    FATE_PARTIAL, /* refused in part, which is known no more */
};

struct batch {
    uint64_t number;
    uint64_t first_serial;
    uint64_t n_events; /* good ones */
    uint64_t n_taken;  /* as acknowledged; UINT64_MAX for a repetition */
    enum fate fate;
    struct bb_buf bytes;
};

struct published {
    char path[64];
    size_t channel;
    uint64_t sequence;
    uint64_t serial;
};

/* A request of the core to the log, and whom its answer is for. */
struct asked {
    struct bk_request *request;
    void (*done)(void *context, struct bk_request *request);
    void *context;
};

struct world {
    struct bk_core *core;
    struct rig_log *log;       /* NULL: none */
    struct bk_backend *memory; /* with a log */
    struct bk_backend_ops log_ops;
    struct bk_backend_listener log_listener;
    const struct bk_backend_listener *core_listener;
    struct asked asked[ASKED_MAX];
    struct bk_out out;
    bool window_is_open;
    uint64_t now;
    uint64_t corr;
    uint64_t serial;
    uint64_t number; /* of the newest batch */
    char channels[CHANNELS_MAX][16];
    size_t n_channels;
    struct published events[EVENTS_MAX];
    size_t n_events;
    struct peer peers[PEERS_MAX];
    size_t n_peers;
    struct watch watches[WATCHES_MAX];
    size_t n_watches;
    struct batch batches[BATCHES_MAX];
    size_t n_batches;
};

/** world_open() - a core, with a log or without. False without memory. */
bool world_open(struct world *world, bool has_log);
void world_close(struct world *world);

/** world_peer() - a peer that says hello; @secret is its client id or NULL. NULL if the core has no memory for it. */
struct peer *world_peer(struct world *world, const char *secret);

/** world_say() - @msg from @peer, with a corr that must be answered if @wants_answer. */
void world_say(struct world *world, struct peer *peer, struct bb_msg *msg, bool wants_answer);

/** world_watch() - subscribe. @from is one MessagePack value or empty. */
void world_watch(struct world *world,
                 struct peer *peer,
                 const char *const *patterns,
                 size_t n_patterns,
                 struct bb_slice from,
                 const char *overflow,
                 uint64_t events);

/** world_watch_with() - the same; @options is the map of the message. */
struct watch *world_watch_with(struct world *world,
                               struct peer *peer,
                               const char *const *patterns,
                               size_t n_patterns,
                               struct bb_slice from,
                               struct bb_slice options);

/** world_unwatch() - unsubscribe whatever @peer subscribed to last. */
void world_unwatch(struct world *world, struct peer *peer);

/** world_credit() - as much as anybody can want, for all. */
void world_credit(struct world *world);

/**
 * world_publish() - a batch of one event for each path, and one bad event if @has_bad
 * @filler: bytes in each payload
 * @by_owner: in bytes that the core may keep
 * @numbered: to be acknowledged
 */
void world_publish(struct world *world,
                   struct peer *peer,
                   const char *const *paths,
                   size_t n_paths,
                   size_t filler,
                   bool by_owner,
                   bool numbered,
                   bool has_bad);

/** world_publish_if() - one event on @path, if its newest sequence is @sequence. */
void world_publish_if(struct world *world, struct peer *peer, const char *path, uint64_t sequence);

/** world_repeat() - publish once more what was not answered. */
void world_repeat(struct world *world, struct peer *peer);

/** world_ingest() - one bare event. */
void world_ingest(struct world *world, const char *path);

void world_leave(struct world *world, struct peer *peer);

/** world_flush() - after the log has made one ticket durable and answered a few requests. */
void world_flush(struct world *world);
void world_tick(struct world *world, uint64_t us);

/** world_drain() - flush until nothing is left. */
void world_drain(struct world *world);

/** world_note_event() - it is there now, once. */
void world_note_event(struct world *world, struct bb_slice raw, uint64_t sequence);

/** world_open_stores() - a log and a store in memory for the core. */
void world_open_stores(struct world *world);

/** world_check() - after world_drain(), with credit: whoever is still there knows the fate of everything. */
void world_check(struct world *world, bool is_strict);

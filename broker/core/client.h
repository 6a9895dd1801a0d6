/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients, and the numbers their publishes have reached, which outlive a connection.
 *
 * How much is on its way to a client is bounded whatever credit it gave: after each quarter of the bound a
 * ping carries the byte count as token, and the pong says that all before it has been read.
 */
#pragma once

#include "proto/wire/message.h"

#include "broker/core/sub.h"

#include <stdbool.h>
#include <stdint.h>

/* PROTOCOL 9: a peer with this many strikes is not listened to any more. */
#define BK_STRIKES_MAX 16

#define BK_NAME_MAX 64

enum bk_client_state {
    BK_CLIENT_NEW,
    BK_CLIENT_READY,
    BK_CLIENT_GONE, /* out of every list; freed at the end of the call */
};

/* So many numbers back it is known which publishes were refused whole. */
#define BK_OUTCOMES 256

/* (client, epoch): what publishes it made, kept when the connection ends, and in the log. */
struct bk_producer {
    uint8_t key[BB_CLIENT_ID_LEN + 8];
    uint64_t last;                /* highest number taken */
    int8_t outcomes[BK_OUTCOMES]; /* of the last numbers, by number: 0 or the error */
    uint64_t refused;             /* the newest number with an outcome, 0 for none */
    bool is_restored; /* from the log: numbers that were refused, or not for the log, may be missing there */
    bool is_staged;   /* the log is to be told */
    struct bk_producer *next_staged;
    struct bk_client *client; /* NULL: not connected */
    struct bk_producer *next; /* the unconnected ones, oldest first */
    struct bk_producer *prev;
};

/* A run of a batch that waits to be acknowledged. */
struct bk_waiting_run {
    struct bk_channel *channel;
    uint64_t sequence;
    uint32_t first; /* index in the batch */
    uint32_t count;
    bool logged;
};

/* A batch that waits for the log, or behind one that does. */
struct bk_waiting {
    struct bk_waiting *next;
    uint64_t ticket; /* 0: it only waits for its turn */
    int error;       /* its ticket has failed */
    uint64_t number;
    uint64_t level;
    uint64_t matches; /* UINT64_MAX: not asked for */
    bool repeated;
    uint8_t producer[BB_CLIENT_ID_LEN + 8]; /* when the client is gone: whose it was */
    uint32_t n_refused;
    struct bb_buf refused; /* [index, code] one after the other */
    size_t n_runs;
    struct bk_waiting_run runs[];
};

struct bk_client {
    void *peer;
    struct bk_client *next;
    struct bk_client *prev;
    struct bk_client *next_acked;   /* of those with acks to send */
    struct bk_client *next_waiting; /* of those with batches that wait for the log */
    struct bk_client *prev_waiting;
    struct bk_waiting *waiting_first;
    struct bk_waiting *waiting_last;
    size_t n_waiting;
    struct bk_deferred *deferred_first; /* messages that wait for the log to answer */
    struct bk_deferred *deferred_last;
    size_t deferred_bytes;
    bool is_deferring;
    bool is_paused;  /* until the log has caught up */
    bool is_stopped; /* the plug is not to read it */
    struct bk_client *next_paused;
    struct bk_client *prev_paused;
    struct bb_buf known; /* what it answered */
    size_t n_early;      /* subscriptions with the early view */
    struct bk_client *next_doomed;
    struct bk_producer *producer; /* NULL without a client id */
    struct bk_sub *subs;
    struct bb_map subs_by_id;
    struct bb_buf acks; /* entries, one after the other */
    enum bk_client_state state;
    bool doomed; /* to be removed when the fan-out is over */
    bool shut_out;
    bool stuck; /* the transport has no room; retried on the next tick */
    uint32_t n_acks;
    uint32_t strikes;
    uint64_t number;       /* what others see as source */
    uint64_t last_number;  /* of publishes, without a producer */
    uint64_t heartbeat_us; /* 0: never expires */
    uint64_t heard_at;
    uint64_t pinged_at;
    uint64_t sent_bytes; /* ever; the token of pings */
    uint64_t probed_bytes;
    uint64_t read_bytes; /* of them, known to be read */
    uint64_t n_patterns;
    uint64_t n_subs;
    uint64_t events_in;
    uint64_t events_out;
    uint64_t events_lost;
    uint64_t came_at;
    char name[BK_NAME_MAX + 1];
};

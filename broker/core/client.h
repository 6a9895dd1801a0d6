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

/* (client, epoch): what publishes it made, kept when the connection ends. */
struct bk_producer {
    uint8_t key[BB_CLIENT_ID_LEN + 8];
    uint64_t last;                /* highest number taken */
    int8_t outcomes[BK_OUTCOMES]; /* of the last numbers, by number: 0 or the error */
    struct bk_client *client;     /* NULL: not connected */
    struct bk_producer *next;     /* the unconnected ones, oldest first */
    struct bk_producer *prev;
};

struct bk_client {
    void *peer;
    struct bk_client *next;
    struct bk_client *prev;
    struct bk_client *next_acked; /* of those with acks to send */
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

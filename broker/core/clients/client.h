/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients: the peers of the main door, and what is sent to them.
 *
 * How much is on its way to a client is bounded whatever credit it gave: after each quarter of the bound a
 * ping carries the byte count as token, and the pong says that all before it has been read.
 *
 * A client ends in one way: whoever finds out marks it (bk_client_doom()), and the core removes it at the end of the call
 * (leave.c). So nobody's client, subscription or list changes while it is being worked with. A marked client is sent nothing more.
 */
#pragma once

#include "proto/base/cc.h"
#include "proto/base/map.h"
#include "proto/wire/message.h"

#include "broker/core/out.h"

#include <stdbool.h>
#include <stdint.h>

/* PROTOCOL 9: a peer with this many strikes is not listened to any more. */
#define BK_STRIKES_MAX 16

#define BK_NAME_MAX 64

/* When a send is tried again for which the transport had no room. */
#define BK_STUCK_RETRY_US UINT64_C(10000)

/* Every client may have this much on its way, however many clients there are. */
#define BK_INFLIGHT_MIN ((size_t)256 << 10)

struct bk_core;
struct bk_producer;
struct bk_waiting;
struct bk_deferred;
struct bk_sub;

enum bk_client_state {
    BK_CLIENT_NEW, /* has not said hello */
    BK_CLIENT_READY,
    BK_CLIENT_DOOMED, /* removed at the end of the call */
};

/* What becomes of the messages it sends. */
enum bk_client_input {
    BK_INPUT_TAKEN,
    BK_INPUT_DEFERRED, /* kept until the log has answered what the first of them needs */
    BK_INPUT_PAUSED,   /* kept until the log has caught up */
};

struct bk_client {
    void *peer;
    struct bk_client *next;
    struct bk_client *prev;
    enum bk_client_state state;
    enum bk_client_input input;
    bool was_ready;  /* before it was doomed */
    bool tell_plug;  /* doomed: the plug does not know */
    bool shut_out;   /* doomed: what it still sends is not to be read */
    bool is_stuck;   /* the transport has no room; retried on the next tick */
    bool is_stopped; /* the plug was asked not to read it */
    uint32_t
        removing; /* id of a logged channel that it removes, 0: none; the request is answered when it comes again */
    bool is_resuming;   /* in the list of those whose kept messages are to be taken */
    bool has_published; /* a numbered batch, over this connection */
    struct bk_client *next_doomed;
    struct bk_client *next_acked; /* of those with acks to send */
    struct bk_client *next_resuming;
    struct bk_client *next_paused;
    struct bk_client *prev_paused;
    struct bk_client *next_waiting; /* of those with batches that wait for the log */
    struct bk_client *prev_waiting;
    struct bk_waiting *waiting_first;
    struct bk_waiting *waiting_last;
    struct bk_deferred *deferred_first; /* messages that are kept */
    struct bk_deferred *deferred_last;
    size_t deferred_bytes;
    struct bb_buf known; /* what the log answered for the first of them */
    uint8_t id[BB_CLIENT_ID_LEN];
    bool has_id;
    uint64_t epoch;
    struct bk_producer *producer; /* NULL until it publishes, and without an id */
    struct bk_sub *subs;
    struct bb_map subs_by_id;
    struct bb_buf acks; /* entries, one after the other */
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
    uint64_t n_early; /* subscriptions with the early view */
    uint64_t events_in;
    uint64_t events_out;
    uint64_t events_lost;
    uint64_t came_at;
    char name[BK_NAME_MAX + 1];
};

static inline bool bk_client_is_doomed(const struct bk_client *client)
{
    return client->state == BK_CLIENT_DOOMED;
}

/** bk_client_doom() - it ends with this call. @tell_plug: the plug does not know yet. */
void bk_client_doom(struct bk_core *core, struct bk_client *client, bool tell_plug);

/** bk_client_send() - send a message. A peer that is gone dooms the client. Return: 0, BB_EAGAIN, BB_ECLOSED. */
int bk_client_send(struct bk_core *core,
                   struct bk_client *client,
                   const struct bk_part *parts,
                   size_t n_parts) BB_MUST_CHECK;

/** bk_client_answer() - send an answer of several parts. A client that takes no answers is doomed. */
void bk_client_answer(struct bk_core *core,
                      struct bk_client *client,
                      const struct bk_part *parts,
                      size_t n_parts);

/** bk_client_send_msg() - send a message that is a head; the same. */
void bk_client_send_msg(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_client_send_result() - PROTOCOL 5: the answer to a request. */
void bk_client_send_result(struct bk_core *core,
                           struct bk_client *client,
                           uint64_t corr,
                           struct bb_slice value);

/** bk_client_send_nil() - a result without a value. */
void bk_client_send_nil(struct bk_core *core, struct bk_client *client, uint64_t corr);

/** bk_client_send_error() - PROTOCOL 9; @text NULL: the error's own; @detail is one MessagePack value or empty. */
void bk_client_send_error(struct bk_core *core,
                          struct bk_client *client,
                          enum bb_msg_type about,
                          uint64_t corr,
                          int error,
                          const char *text,
                          struct bb_slice detail);

/** bk_client_refuse() - an error about the request @msg. */
void bk_client_refuse(struct bk_core *core,
                      struct bk_client *client,
                      const struct bb_msg *msg,
                      int error,
                      const char *text);

/** bk_client_send_away() - goodbye with @error's code, and doom. */
void bk_client_send_away(struct bk_core *core, struct bk_client *client, int error, const char *text);

/** bk_client_strike() - count a malformed message; the last one sends it away. */
void bk_client_strike(struct bk_core *core, struct bk_client *client);

/** bk_client_has_room() - whether more may be put on its way. */
bool bk_client_has_room(const struct bk_core *core, const struct bk_client *client);

/** bk_client_read() - the client has read the first @bytes of what was sent. Returns whether there is room again. */
bool bk_client_read(const struct bk_core *core, struct bk_client *client, uint64_t bytes);

/** bk_client_probe() - ask how far it has read. */
void bk_client_probe(struct bk_core *core, struct bk_client *client);

/** bk_client_probe_if_due() - the same if a quarter of its bound was sent since. */
void bk_client_probe_if_due(struct bk_core *core, struct bk_client *client);

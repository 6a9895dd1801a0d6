/* SPDX-License-Identifier: Apache-2.0 */
/* Acknowledgements: what a batch came to, and the `ack` message that collects them (PROTOCOL 6.2). */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/message.h"

#include <stdbool.h>
#include <stdint.h>

struct bk_core;
struct bk_client;
struct bk_channel;

/* A run of a batch that is to be acknowledged. */
struct bk_waiting_run {
    struct bk_channel *channel; /* referenced */
    uint64_t sequence;
    uint32_t first; /* index in the batch */
    uint32_t count;
    bool is_logged;
};

/* A batch that is to be acknowledged: at once, or when its ticket is. */
struct bk_waiting {
    struct bk_waiting *next;
    uint64_t ticket; /* 0: it only waits for its turn */
    bool needs_disk; /* for its level the ticket must be durable; else it must have been taken by the log */
    int error;       /* its ticket has failed */
    uint64_t number;
    uint64_t level;
    uint64_t matches; /* UINT64_MAX: not asked for */
    bool is_repeated;
    uint8_t id[BB_CLIENT_ID_LEN]; /* when the client is gone: whose it was */
    uint64_t epoch;
    uint32_t n_refused;
    struct bb_buf refused; /* [index, code] one after the other */
    size_t n_runs;
    struct bk_waiting_run runs[];
};

/** bk_waiting_new() - without memory NULL. */
struct bk_waiting *bk_waiting_new(size_t n_runs);
void bk_waiting_free(struct bk_waiting *waiting);

/** bk_waiting_refuse() - one more of its events is refused, for @error. */
void bk_waiting_refuse(struct bk_waiting *waiting, uint32_t index, int error);

/** bk_ack_add() - let the client's next `ack` message have @ack. */
void bk_ack_add(struct bk_core *core, struct bk_client *client, const struct bk_waiting *ack);

/** bk_acks_send() - send all that was collected: one message a client. */
void bk_acks_send(struct bk_core *core);

/** bk_acks_send_to() - what was collected for @client, before something else is said of the same numbers. */
void bk_acks_send_to(struct bk_core *core, struct bk_client *client);

/** bk_acks_forget() - the client ends. */
void bk_acks_forget(struct bk_core *core, const struct bk_client *client);

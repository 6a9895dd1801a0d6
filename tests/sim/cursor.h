/* SPDX-License-Identifier: Apache-2.0 */
/* What a client knows of its cursor, the durable name of a place: it is where it was acknowledged to be, or where a later save put it. */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/ledger.h"

struct world;
struct sim_client;
struct watch;

/* Most that are under way; the client then saves no more until one is acknowledged. */
#define CURSOR_SAVES_MAX 32

struct cursor_save {
    uint64_t corr;
    bool is_named[SIM_CHANNELS];
    uint64_t positions[SIM_CHANNELS];
};

struct sim_cursor {
    bool is_kept; /* the first save was acknowledged */
    struct cursor_save saves[CURSOR_SAVES_MAX];
    size_t n_saves;
};

/** cursor_name() - a client has one. */
struct bb_slice cursor_name(const struct sim_client *client, char buf[16]);

/** cursor_save() - the client saves how far @watch has come. */
void cursor_save(struct sim_client *client, const struct watch *watch);

/** cursor_acked() - the answer to a save leaves the broker. */
void cursor_acked(struct sim_client *client, uint64_t corr);

/** cursor_expect() - `subscribed` of a subscription that begins at the cursor leaves the broker. */
void cursor_expect(struct world *world, const struct sim_client *client, const struct bb_msg *msg);

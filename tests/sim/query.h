/* SPDX-License-Identifier: Apache-2.0 */
/* A query of a client: its answer is a run of what the ledger has, from the end that was asked for, without a hole. */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/ledger.h"

struct world;
struct sim_client;

struct sim_query {
    uint64_t corr; /* 0: none is under way */
    const char *pattern;
    bool ascending;
    uint64_t t_from;
    uint64_t max;
    uint64_t last_then[SIM_CHANNELS]; /* the newest events when it came to the broker */
};

/** query_ask() - the client asks for what @pattern matches, if it does not wait for an answer. */
void query_ask(struct sim_client *client, const char *pattern);

/** query_note() - the message with @corr has come to the broker. */
void query_note(struct sim_client *client, uint64_t corr);

/** query_answer() - `events` has come to the client. */
void query_answer(struct sim_client *client, const struct bb_msg *msg);

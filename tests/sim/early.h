/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A subscription with the early view, by what leaves the broker for it: ranges join, and what was shown becomes the truth as it was
 * shown, or is retracted before its sequence is given again. It is not resumed: what was retracted meanwhile nobody would tell.
 */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/ledger.h"

struct world;
struct watch;

#define EARLY_SEEN_MAX 512

/* An event that was shown and is not in the ledger yet. */
struct early_event {
    size_t channel;
    uint64_t sequence;
    uint64_t hash; /* of all that was shown of it */
};

struct early {
    bool is_on;
    uint64_t covered[SIM_CHANNELS];
    uint64_t verified[SIM_CHANNELS]; /* up to here what was shown is what became durable */
    struct early_event seen[EARLY_SEEN_MAX];
    size_t n_seen;
};

/** early_output() - `subscribed`, a delivery or a gap leaves the broker. */
void early_output(struct world *world, struct watch *watch, const struct bb_msg *msg);

/** early_verify() - hold what was shown against what is durable by now. */
void early_verify(struct world *world, struct watch *watch);

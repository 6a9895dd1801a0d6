/* SPDX-License-Identifier: Apache-2.0 */
/* The retained values of a subscription: of each path the newest event up to where the subscription begins, once. */
#pragma once

#include "proto/wire/message.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world;
struct watch;

#define RETAINED_MAX 64 /* more than there are paths */

struct retained {
    bool is_due; /* asked for, not over */
    struct {
        size_t channel;
        uint64_t sequence;
    } got[RETAINED_MAX];
    size_t n_got;
};

/** retained_deliver() - a delivery of retained values has arrived. */
void retained_deliver(struct world *world, struct watch *watch, const struct bb_msg *msg);

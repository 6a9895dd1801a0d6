/* SPDX-License-Identifier: Apache-2.0 */
/* The truth of one run of the broker: every event that was published, by channel and sequence. */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_CHANNELS 6

struct ledger_event {
    uint8_t *raw;
    size_t len;
    struct bb_slice path; /* in raw */
    uint64_t session;
    uint64_t instance;
    uint64_t time;
    uint64_t source;
    uint64_t client; /* who wrote it, */
    uint64_t serial; /* and which of its events it is */
};

struct ledger_channel {
    struct ledger_event *events; /* the first has sequence 1 */
    uint64_t n_events;
    uint64_t n_slots;
};

struct ledger {
    struct ledger_channel channels[SIM_CHANNELS];
    uint64_t session;
    uint64_t instance;
    uint64_t time;
    uint64_t n_events;
};

/** sim_channel_find() - number of the channel called @name, -1 if no world has it. */
int sim_channel_find(struct bb_slice name);

/** sim_channel_name() - the name of channel @channel. */
struct bb_slice sim_channel_name(size_t channel);

/** ledger_append() - the next event; @event's raw is copied. Return: NULL or what is wrong. */
const char *ledger_append(struct ledger *ledger, const struct ledger_event *event, uint64_t sequence);

void ledger_fini(struct ledger *ledger);

/** ledger_last() - the newest sequence of a channel. */
static inline uint64_t ledger_last(const struct ledger *ledger, size_t channel)
{
    return ledger->channels[channel].n_events;
}

/** ledger_at() - the event with @sequence, NULL if there is none. */
static inline const struct ledger_event *
ledger_at(const struct ledger *ledger, size_t channel, uint64_t sequence)
{
    const struct ledger_channel *events = &ledger->channels[channel];
    return sequence >= 1 && sequence <= events->n_events ? &events->events[sequence - 1] : NULL;
}

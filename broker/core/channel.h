/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: made by the first event published to them or by name, never taken out of the list.
 *
 * Of a logged channel three places matter: `taken`, the newest sequence given out; `last`, the newest that is durable and
 * therefore visible; `log_first`, the oldest that the log still has. The ring holds some of what is visible.
 */
#pragma once

#include "proto/base/map.h"

#include "broker/core/settings.h"

#include <stddef.h>
#include <stdint.h>

struct bk_channel {
    struct bb_slice name; /* points behind the struct */
    uint32_t index;       /* in the order of making */
    uint64_t last;        /* the newest visible sequence, 0 before the first event */
    uint64_t taken;       /* the newest sequence given out, above `last` while events wait for the log */
    uint64_t log_first;   /* the oldest sequence in the log */
    uint64_t loaded;      /* `last` when the broker started: no later one that an older run gave out holds */
    uint32_t id;          /* for the backends; never used again, also not after a restart */
    bool is_known[2];     /* the backend (enum bk_store) knows it as it is */
    bool is_named;        /* made or changed by name: its settings are kept, also of a channel in memory */
    struct bk_settings settings;
    uint64_t first;     /* the oldest sequence in the ring, last + 1 if none is */
    uint64_t first_pos; /* position in the ring of its oldest block, or at least no block lies before it */
    uint64_t last_pos;  /* of its newest block, if it has one */
    size_t ring_bytes;
    size_t ring_max;
    uint64_t n_events; /* counters */
    uint64_t n_bytes;
    uint64_t n_delivered;
    uint64_t n_gaps; /* events reported as lost, summed over subscriptions */
};

struct bk_channels {
    struct bb_map by_name;
    struct bk_channel **list; /* by index */
    size_t n_channels;
    size_t n_slots;
    size_t max;
    uint32_t last_id;            /* given to a channel */
    struct bk_settings defaults; /* of new channels */
};

/** bk_channels_init() - @defaults: settings of channels that are made without any. */
void bk_channels_init(struct bk_channels *channels,
                      uint64_t seed,
                      size_t max,
                      const struct bk_settings *defaults);
void bk_channels_fini(struct bk_channels *channels);

/** bk_channels_find() - the channel called @name, NULL if there is none. */
struct bk_channel *bk_channels_find(const struct bk_channels *channels, struct bb_slice name);

/** bk_channel_is_gone() - it was removed, or nobody has made it yet: it has nothing but its place in the list. */
static inline bool bk_channel_is_gone(const struct bk_channel *channel)
{
    return !channel->is_named && channel->taken == 0;
}

/** bk_channels_count() - how many are not gone. */
size_t bk_channels_count(const struct bk_channels *channels);

/** bk_channels_get() - find it or make it. Return: 0, BB_ELIMIT, BB_ENOMEM. */
int bk_channels_get(struct bk_channels *channels, struct bb_slice name, struct bk_channel **ret_channel);

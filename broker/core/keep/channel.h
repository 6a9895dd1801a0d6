/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels: made by the first event published to them or by name; gone when they are removed.
 *
 * Of a logged channel three places matter: `taken`, the newest sequence given out; `last`, the newest that is durable and
 * therefore visible; `log_first`, the oldest that the log still has. The ring holds some of what is visible.
 */
#pragma once

#include "proto/base/map.h"

#include "broker/core/keep/life.h"
#include "broker/core/keep/settings.h"
#include "broker/core/store.h"

#include <stddef.h>
#include <stdint.h>

struct bk_channel {
    struct bb_slice name; /* points behind the struct */
    uint32_t refs;        /* the list's, and one for each acknowledgement that will name it */
    uint32_t index;       /* in the list; may change when another one is removed */
    uint32_t id;          /* for the backends, rising; never used again, also not after a restart */
    uint64_t last;        /* the newest visible sequence, 0 before the first event */
    uint64_t taken;       /* the newest sequence given out, above `last` while events wait for the log */
    uint64_t shown;     /* the newest sequence that somebody may have seen, in the early view above `last` */
    uint64_t log_first; /* the oldest sequence in the log */
    struct bk_lives lives;
    uint64_t stored_life; /* the newest of them that is on disk, 0: none */
    uint64_t sent_life;   /* on its way there, */
    uint64_t sent_ticket; /* under this ticket; 0: none is */
    bool is_loaded;       /* its life is that of an earlier run: the first event of this one begins another */
    bool is_known[BK_STORES]; /* the backend knows it as it is */
    bool
        is_going; /* its removal is on its way to the log; until it is on disk the channel is there and takes nothing more */
    bool is_named; /* made or changed by name: its settings are kept, also of a channel in memory */
    struct bk_settings settings;
    uint64_t first;     /* the oldest sequence in the ring that is still shown, last + 1 if none is */
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
    struct bk_channel **list;
    size_t n_channels;
    size_t n_slots;
    size_t max;
    uint32_t last_id;      /* given to a channel */
    uint64_t run;          /* above all lives of earlier runs */
    uint64_t last_life;    /* no life above it was ever given */
    uint64_t birth_life;   /* of new channels */
    struct bb_map removed; /* names of channels that were removed in this run, and the life of the next one */
    bool has_sent_lives;   /* some channel may have a life on its way to the log */
    bool has_unknown[BK_STORES]; /* some channel may not be known to the backend as it is */
    struct bk_settings defaults; /* of new channels */
};

/** bk_channels_init() - @run: the first life that is given (bk_channels_raise_run()); @defaults: settings of channels that are made without any. */
void bk_channels_init(struct bk_channels *channels,
                      uint64_t seed,
                      size_t max,
                      uint64_t run,
                      const struct bk_settings *defaults);
void bk_channels_fini(struct bk_channels *channels);

/** bk_channels_raise_run() - the backend knows @life, which is of an earlier run: this one's number is above it. */
void bk_channels_raise_run(struct bk_channels *channels, uint64_t life);

/** bk_channels_find() - the channel called @name, NULL if there is none. */
struct bk_channel *bk_channels_find(const struct bk_channels *channels, struct bb_slice name);

/** bk_channels_find_id() - the channel with @id, NULL if there is none. */
struct bk_channel *bk_channels_find_id(const struct bk_channels *channels, uint32_t id);

/** bk_channel_is_empty() - nothing was published to it and nobody made it by name: nobody knows of it. */
static inline bool bk_channel_is_empty(const struct bk_channel *channel)
{
    return !channel->is_named && channel->taken == 0;
}

/** bk_channels_count() - how many are not empty. */
size_t bk_channels_count(const struct bk_channels *channels);

/** bk_channels_get() - find it or make it. Return: 0, BB_ELIMIT, BB_ENOMEM. */
int bk_channels_get(struct bk_channels *channels,
                    struct bb_slice name,
                    struct bk_channel **ret_channel) BB_MUST_CHECK;

/** bk_channels_undo() - take one out of the list that nobody knows of. */
void bk_channels_undo(struct bk_channels *channels, struct bk_channel *channel);

/** bk_channels_remove() - take it out of the list; nobody but acknowledgements may still have it. Channels made from now on begin other lives. */
void bk_channels_remove(struct bk_channels *channels, struct bk_channel *channel);

static inline struct bk_channel *bk_channel_ref(struct bk_channel *channel)
{
    channel->refs++;
    return channel;
}

void bk_channel_unref(struct bk_channel *channel);

/** bk_channel_changed() - the backends are to be told of it again. */
void bk_channel_changed(struct bk_channels *channels, struct bk_channel *channel);

/** bk_channel_end_life() - sequences behind @upto will mean other events. */
void bk_channel_end_life(struct bk_channels *channels, struct bk_channel *channel, uint64_t upto);

/**
 * bk_channel_life_at() - the life in which a client is told the position @sequence
 *
 * A life that is not on disk may be forgotten with the broker, and all that was told in it would be void. So
 * as long as the last stored one means the same, that is told.
 */
uint64_t bk_channel_life_at(const struct bk_channel *channel, uint64_t sequence);

/** bk_channel_life_sent() - the life of today is registered with the log under @ticket. */
void bk_channel_life_sent(struct bk_channels *channels, struct bk_channel *channel, uint64_t ticket);

/** bk_channels_lives_stored() - tickets up to @durable are on disk, those from @failed on will not be. */
void bk_channels_lives_stored(struct bk_channels *channels, uint64_t durable, uint64_t failed);

/** bk_channel_begin_run() - the first event of this run is published to a channel of an earlier one: another life begins, so that an older
 * copy of the log can be told from this one. */
void bk_channel_begin_run(struct bk_channels *channels, struct bk_channel *channel);

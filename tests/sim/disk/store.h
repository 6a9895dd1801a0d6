/* SPDX-License-Identifier: Apache-2.0 */
/* What is durable on the simulated disk: plain lists, which can be copied as a whole. */
#pragma once

#include "broker/core/backend.h"

struct store_channel {
    uint32_t id;
    bool removed;
    struct bk_retention retention;
    uint64_t last;
    struct bb_buf name;
    struct bb_buf settings;
};

/* A producer or cursor. */
struct store_row {
    struct bb_buf key;
    struct bb_buf value; /* a cursor's value, a producer's notes */
    uint64_t last;
    uint64_t time;
    bool removed;
};

struct store_event {
    uint32_t channel;
    uint64_t server;
    struct bb_block head; /* of this event alone */
    const uint8_t *raw;
    uint8_t *owned;       /* the same, to be freed */
    struct bb_slice path; /* in raw */
    bool is_gone;         /* trimmed, or taken by retention */
    bool is_latest;       /* of its path */
};

struct store {
    struct store_channel *channels;
    size_t n_channels;
    struct store_row *producers;
    size_t n_producers;
    struct store_row *cursors;
    size_t n_cursors;
    struct store_event *events; /* in the order in which they were registered */
    size_t n_events;
    size_t n_event_slots;
};

void store_fini(struct store *store);
void store_copy(struct store *to, const struct store *from);

struct store_channel *store_channel_of(const struct store *store, uint32_t id);
void store_channel(struct store *store, const struct bk_log_channel *entry);
void store_block(struct store *store, const struct bk_log_block *block);
void store_producer(struct store *store, const struct bk_log_producer *entry);
void store_cursor(struct store *store, const struct bk_log_cursor *entry);

/** store_first() - the oldest sequence kept of a channel, last + 1 if none is. */
uint64_t store_first(const struct store *store, const struct store_channel *channel);

/** store_trim() - events before @before go. */
void store_trim(struct store *store, uint32_t channel, uint64_t before);

/** store_retain() - what the limits of @channel want gone goes. */
void store_retain(struct store *store, const struct store_channel *channel, uint64_t wall);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring: the blocks of all channels that are still in memory, in the order of their sessions.
 *
 * A block is kept as it goes out: its head, then its events, so that a run of blocks that a subscriber
 * wants is one piece of memory, sent by reference. Small batches are collected in chunks; large ones stay
 * in the bytes they came in and only their head is written. Each block has a position, counted from 0 and never
 * reused; cursors are positions. The blocks of a channel are chained: with thousands of channels nobody may look for one among
 * all the others. Each channel has a byte limit and so has the whole: the oldest blocks go
 * first, of the channel or of all. A block that went leaves a hole until the holes at the front are taken
 * off or there are so many that the ring is packed.
 */
#pragma once

#include "proto/wire/event.h"

#include "broker/core/bytes.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bk_channel;
struct bk_chunk;

/* No position. */
#define BK_NO_POS UINT64_MAX

struct bk_block {
    uint64_t pos;
    uint64_t
        before; /* position of the block of its channel before this one, which may have gone, or BK_NO_POS */
    uint64_t after; /* of the one behind it, or BK_NO_POS */
    uint64_t session;
    uint64_t time;
    uint64_t source;
    uint64_t sequence;           /* of the first event */
    struct bk_channel *channel;  /* NULL: the block went */
    struct bk_bytes *head_bytes; /* holds the head, and the events unless body_bytes does */
    struct bk_bytes *body_bytes; /* NULL: the events follow the head */
    const uint8_t *head;
    const uint8_t *body;
    uint32_t head_len;
    uint32_t body_len;
    uint32_t count;
    uint32_t instance; /* of the first event */
    bool uniform;      /* all events have the path of the first */
    bool has_ttl;      /* some event of it may have a time to live */
    bool has_source_time;
};

/* Notified before events go: those of @block before the sequence @before. @is_trim: they were trimmed; else the ring was too small. */
typedef void bk_ring_evict_fn(void *context, const struct bk_block *block, uint64_t before, bool is_trim);

struct bk_ring {
    struct bk_meter *meter;
    bk_ring_evict_fn *on_evict;
    void *context;
    struct bk_block *blocks; /* circular, a power of two */
    size_t n_slots;
    size_t first; /* index of the oldest block */
    size_t n_blocks;
    size_t n_holes;
    uint64_t next_pos;
    size_t bytes; /* of the blocks that are there */
    size_t max_bytes;
    uint64_t keep_pos; /* from here on nothing is evicted: it has not been fanned out */
    size_t
        chunk_bytes; /* of the chunks that a block of it lies in; bounded as bytes is: one block pins a chunk */
    struct bk_chunk *chunk;         /* being filled, */
    struct bk_chunk *chunk_waiting; /* and the one for blocks that are not pushed at once */
};

void bk_ring_init(struct bk_ring *ring,
                  struct bk_meter *meter,
                  size_t max_bytes,
                  bk_ring_evict_fn *on_evict,
                  void *context);
void bk_ring_fini(struct bk_ring *ring);

/**
 * bk_ring_build() - make a block of events that is in no ring yet
 * @channel: whose block it is
 * @head:    what its head says; length and count describe @events
 * @events:  the events
 * @owner:   what @events lie in: referenced if they are large, else they are copied; NULL: copied
 * @waits:   it is pushed later than those that are built meanwhile, and so lies in a chunk with its like
 *
 * It holds references; bk_ring_push() takes them over or bk_ring_drop() lets them go. Its flags are the caller's to set.
 *
 * Return: 0 or BB_ENOMEM, then nothing has changed.
 */
int bk_ring_build(struct bk_ring *ring,
                  struct bk_channel *channel,
                  const struct bb_block *head,
                  struct bb_slice events,
                  struct bk_bytes *owner,
                  bool waits,
                  struct bk_block *ret_block);

/** bk_ring_drop() - let go of a block that was built and not pushed. */
void bk_ring_drop(const struct bk_block *block);

/**
 * bk_ring_push() - add a block at the end, evicting what exceeds the limits
 *
 * The channel's first and last sequences and bytes are kept up to date. Return: 0, or BB_ENOMEM, then nothing has
 * changed.
 */
int bk_ring_push(struct bk_ring *ring, const struct bk_block *block);

/** bk_ring_append() - build and push. */
int bk_ring_append(struct bk_ring *ring,
                   struct bk_channel *channel,
                   const struct bb_block *head,
                   struct bb_slice events,
                   struct bk_bytes *owner,
                   bool uniform);

/**
 * bk_ring_trim() - do not show events of @channel before the sequence @before any more
 *
 * A block goes when none of its events is shown. What was not fanned out stays.
 */
void bk_ring_trim(struct bk_ring *ring, struct bk_channel *channel, uint64_t before);

/** bk_ring_drop_all() - let all blocks of @channel go, fanned out or not, without a word: nobody has a place in it. */
void bk_ring_drop_all(struct bk_ring *ring, struct bk_channel *channel);

/** bk_ring_evict() - let the oldest block go before its time. False if none may. */
bool bk_ring_evict(struct bk_ring *ring);

/** bk_ring_at() - the first block at or after *@pos that is there, and its position in *@pos; NULL at the end.
 * Valid until the next append. */
const struct bk_block *bk_ring_at(const struct bk_ring *ring, uint64_t *pos);

/** bk_ring_before() - the last block before *@pos that is there, and its position in *@pos; NULL if none is. */
const struct bk_block *bk_ring_before(const struct bk_ring *ring, uint64_t *pos);

/** bk_ring_oldest_of(), bk_ring_newest_of() - a block of @channel, NULL if none is there. Valid until the next append. */
const struct bk_block *bk_ring_oldest_of(const struct bk_ring *ring, const struct bk_channel *channel);
const struct bk_block *bk_ring_newest_of(const struct bk_ring *ring, const struct bk_channel *channel);

/** bk_ring_next_of(), bk_ring_previous_of() - the block of the same channel behind or before @block, NULL if none is there. */
const struct bk_block *bk_ring_next_of(const struct bk_ring *ring, const struct bk_block *block);
const struct bk_block *bk_ring_previous_of(const struct bk_ring *ring, const struct bk_block *block);

/** bk_ring_end() - the position after the newest block. */
static inline uint64_t bk_ring_end(const struct bk_ring *ring)
{
    return ring->next_pos;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/keep/ring.h"

#include "proto/base/error.h"

#include "broker/core/keep/channel.h"

#include <stdlib.h>

/* Batches of at least this size stay in the bytes they came in: copying them would cost more than the
 * memory that a reference may pin. */
#define REFERENCE_MIN ((size_t)8 << 10)

/* Chunks may exceed the limit by the two being filled, and by one of old blocks behind each of them. */
#define CHUNKS_SLACK 4

/* A small ring has small chunks, since a block at each of its ends may pin a whole one. */
#define CHUNKS_MIN     16
#define CHUNK_SIZE_MIN ((size_t)4 << 10)

/* What blocks are written into, one after the other. */
struct bk_chunk {
    struct bk_bytes bytes;
    size_t n_blocks; /* of the ring that lie in it; those that wait for the log are counted there */
    uint8_t data[];
};

static size_t chunk_size(const struct bk_ring *ring)
{
    return BB_MIN(BB_MAX(ring->max_bytes / CHUNKS_MIN, CHUNK_SIZE_MIN), BK_CHUNK_SIZE);
}

static void chunk_free(struct bk_bytes *bytes)
{
    free(BB_CONTAINER(bytes, struct bk_chunk, bytes));
}

static struct bk_chunk *chunk_new(const struct bk_ring *ring, size_t size)
{
    struct bk_chunk *chunk = malloc(sizeof(*chunk) + size);
    if (chunk != NULL) {
        chunk->n_blocks = 0;
        bk_bytes_init(&chunk->bytes, ring->meter, chunk->data, size, chunk_free);
    }
    return chunk;
}

/* Let go of a chunk that was being filled. */
static void chunk_close(struct bk_chunk *chunk)
{
    if (chunk != NULL) {
        bk_bytes_unref(&chunk->bytes);
    }
}

void bk_ring_init(struct bk_ring *ring,
                  struct bk_meter *meter,
                  size_t max_bytes,
                  bk_ring_evict_fn *on_evict,
                  void *context)
{
    *ring =
        (struct bk_ring){.meter = meter, .max_bytes = max_bytes, .on_evict = on_evict, .context = context};
}

static struct bk_block *ring_slot(const struct bk_ring *ring, size_t i)
{
    return &ring->blocks[(ring->first + i) & (ring->n_slots - 1)];
}

static bool has_blocks(const struct bk_channel *channel)
{
    return channel->first <= channel->last;
}

static size_t block_bytes(const struct bk_block *block)
{
    return sizeof(*block) + block->head_len + block->body_len;
}

static struct bk_chunk *chunk_of(const struct bk_block *block)
{
    return BB_CONTAINER(block->head_bytes, struct bk_chunk, bytes);
}

static void block_drop(struct bk_ring *ring, struct bk_block *block)
{
    struct bk_channel *channel = block->channel;
    ring->bytes -= block_bytes(block);
    channel->ring_bytes -= block_bytes(block);
    if (block->pos == channel->first_pos &&
        has_blocks(channel)) { /* else its blocks were forgotten already */
        channel->first = block->sequence + block->count;
        channel->first_pos = block->after != BK_NO_POS ? block->after : block->pos + 1;
    }
    block->channel = NULL;
    struct bk_chunk *chunk = chunk_of(block);
    ring->chunk_bytes -= --chunk->n_blocks == 0 ? chunk->bytes.size : 0;
    bk_ring_drop(block);
    ring->n_holes++;
}

void bk_ring_fini(struct bk_ring *ring)
{
    for (size_t i = 0; i < ring->n_blocks; i++) {
        if (ring_slot(ring, i)->channel != NULL) {
            block_drop(ring, ring_slot(ring, i));
        }
    }
    chunk_close(ring->chunk);
    chunk_close(ring->chunk_waiting);
    free(ring->blocks);
    *ring = (struct bk_ring){0};
}

static void trim_front(struct bk_ring *ring)
{
    while (ring->n_blocks > 0 && ring_slot(ring, 0)->channel == NULL) {
        ring->first = (ring->first + 1) & (ring->n_slots - 1);
        ring->n_blocks--;
        ring->n_holes--;
    }
}

/* Close the holes, keeping the order. */
static void pack(struct bk_ring *ring)
{
    size_t kept = 0;
    for (size_t i = 0; i < ring->n_blocks; i++) {
        if (ring_slot(ring, i)->channel != NULL) {
            *ring_slot(ring, kept++) = *ring_slot(ring, i);
        }
    }
    ring->n_blocks = kept;
    ring->n_holes = 0;
}

static int ring_grow(struct bk_ring *ring)
{
    if (ring->n_blocks < ring->n_slots) {
        return 0;
    }
    if (ring->n_holes > ring->n_blocks / 2) {
        pack(ring);
        return 0;
    }
    size_t n = ring->n_slots > 0 ? 2 * ring->n_slots : 64;
    struct bk_block *blocks = malloc(n * sizeof(*blocks));
    if (blocks == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < ring->n_blocks; i++) {
        blocks[i] = *ring_slot(ring, i);
    }
    free(ring->blocks);
    ring->blocks = blocks;
    ring->n_slots = n;
    ring->first = 0;
    return 0;
}

/* Index of the first block at or after @pos; holes are in order too. */
static size_t index_of(const struct bk_ring *ring, uint64_t pos)
{
    size_t low = 0;
    size_t high = ring->n_blocks;
    if (high > 0) { /* without packing, positions are consecutive */
        uint64_t oldest = ring_slot(ring, 0)->pos;
        if (pos <= oldest) {
            return 0;
        }
        if (ring_slot(ring, high - 1)->pos - oldest == high - 1) {
            return pos - oldest < high ? (size_t)(pos - oldest) : high;
        }
    }
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (ring_slot(ring, middle)->pos < pos) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const struct bk_block *bk_ring_at(const struct bk_ring *ring, uint64_t *pos)
{
    for (size_t i = index_of(ring, *pos); i < ring->n_blocks; i++) {
        const struct bk_block *block = ring_slot(ring, i);
        if (block->channel != NULL) {
            *pos = block->pos;
            return block;
        }
    }
    *pos = ring->next_pos;
    return NULL;
}

const struct bk_block *bk_ring_before(const struct bk_ring *ring, uint64_t *pos)
{
    for (size_t i = index_of(ring, *pos); i > 0; i--) {
        const struct bk_block *block = ring_slot(ring, i - 1);
        if (block->channel != NULL) {
            *pos = block->pos;
            return block;
        }
    }
    return NULL;
}

/* The block at @pos, which is there. */
static struct bk_block *block_at(const struct bk_ring *ring, uint64_t pos)
{
    return ring_slot(ring, index_of(ring, pos));
}

const struct bk_block *bk_ring_oldest_of(const struct bk_ring *ring, const struct bk_channel *channel)
{
    return has_blocks(channel) ? block_at(ring, channel->first_pos) : NULL;
}

const struct bk_block *bk_ring_newest_of(const struct bk_ring *ring, const struct bk_channel *channel)
{
    return has_blocks(channel) ? block_at(ring, channel->last_pos) : NULL;
}

const struct bk_block *bk_ring_next_of(const struct bk_ring *ring, const struct bk_block *block)
{
    return block->after != BK_NO_POS ? block_at(ring, block->after) : NULL;
}

const struct bk_block *bk_ring_previous_of(const struct bk_ring *ring, const struct bk_block *block)
{
    bool is_there = block->before != BK_NO_POS && block->before >= block->channel->first_pos;
    return is_there ? block_at(ring, block->before) : NULL;
}

static bool evict_block(struct bk_ring *ring, struct bk_block *block, bool is_trim)
{
    if (block->pos >= ring->keep_pos) {
        return false;
    }
    ring->on_evict(ring->context, block, block->sequence + block->count, is_trim);
    block_drop(ring, block);
    trim_front(ring);
    return true;
}

bool bk_ring_evict(struct bk_ring *ring)
{
    return ring->n_blocks > 0 && evict_block(ring, ring_slot(ring, 0), false); /* a hole is never in front */
}

static bool evict_from(struct bk_ring *ring, const struct bk_channel *channel)
{
    return has_blocks(channel) && evict_block(ring, block_at(ring, channel->first_pos), false);
}

void bk_ring_trim(struct bk_ring *ring, struct bk_channel *channel, uint64_t before)
{
    while (has_blocks(channel) && channel->first < before) {
        struct bk_block *block = block_at(ring, channel->first_pos);
        uint64_t end = block->sequence + block->count;
        if (end <= before) {
            if (!evict_block(ring, block, true)) {
                return;
            }
            continue;
        }
        if (block->pos < ring->keep_pos) {
            ring->on_evict(ring->context, block, before, true);
            channel->first = before;
        }
        return;
    }
}

void bk_ring_drop_all(struct bk_ring *ring, struct bk_channel *channel)
{
    while (has_blocks(channel)) {
        block_drop(ring, block_at(ring, channel->first_pos));
    }
    trim_front(ring);
}

static void evict(struct bk_ring *ring, const struct bk_channel *channel)
{
    while (channel->ring_bytes > channel->ring_max && evict_from(ring, channel)) {
    }
    while ((ring->bytes > ring->max_bytes ||
            ring->chunk_bytes > ring->max_bytes + CHUNKS_SLACK * chunk_size(ring)) &&
           bk_ring_evict(ring)) {
    }
}

/* A chunk with room for @len bytes, at @filled, where the one before it was being filled. */
static struct bk_chunk *chunk_with_room(const struct bk_ring *ring, struct bk_chunk **filled, size_t len)
{
    const struct bk_chunk *now = *filled;
    if (now == NULL || now->bytes.size - now->bytes.len < len) {
        struct bk_chunk *chunk = chunk_new(ring, BB_MAX(chunk_size(ring), len));
        if (chunk == NULL) {
            return NULL;
        }
        chunk_close(*filled);
        *filled = chunk;
    }
    return *filled;
}

int bk_ring_build(struct bk_ring *ring,
                  struct bk_channel *channel,
                  const struct bb_block *head,
                  struct bb_slice events,
                  struct bk_bytes *owner,
                  bool waits,
                  struct bk_block *ret_block)
{
    bool by_reference = owner != NULL && events.len >= REFERENCE_MIN;
    struct bk_chunk *chunk = chunk_with_room(ring, waits ? &ring->chunk_waiting : &ring->chunk,
                                             BB_BLOCK_HEAD_MAX + (by_reference ? 0 : events.len));
    if (chunk == NULL) {
        return BB_ENOMEM;
    }
    uint8_t *at = chunk->data + chunk->bytes.len;
    *ret_block = (struct bk_block){
        .session = head->session,
        .time = head->time,
        .source = head->source,
        .instance = (uint32_t)head->instance,
        .sequence = head->sequence,
        .channel = channel,
        .head_bytes = bk_bytes_ref(&chunk->bytes),
        .head = at,
        .head_len = (uint32_t)bb_block_write(at, head),
        .body_len = (uint32_t)events.len,
        .count = (uint32_t)head->count,
    };
    chunk->bytes.len += ret_block->head_len;
    if (by_reference) {
        ret_block->body_bytes = bk_bytes_ref(owner);
        ret_block->body = events.data;
    } else {
        ret_block->body = at + ret_block->head_len;
        memcpy(at + ret_block->head_len, events.data, events.len);
        chunk->bytes.len += events.len;
    }
    return 0;
}

void bk_ring_drop(const struct bk_block *block)
{
    bk_bytes_unref(block->head_bytes);
    bk_bytes_unref(block->body_bytes);
}

int bk_ring_push(struct bk_ring *ring, const struct bk_block *block)
{
    struct bk_channel *channel = block->channel;
    if (ring_grow(ring) < 0) {
        return BB_ENOMEM;
    }
    struct bk_block *slot = ring_slot(ring, ring->n_blocks);
    *slot = *block;
    slot->pos = ring->next_pos;
    slot->before = slot->after = BK_NO_POS;
    if (has_blocks(channel)) {
        slot->before = channel->last_pos;
        block_at(ring, channel->last_pos)->after = slot->pos;
    } else {
        channel->first_pos = slot->pos;
        channel->first = block->sequence;
    }
    channel->last_pos = slot->pos;
    channel->last = block->sequence + block->count - 1;
    channel->ring_bytes += block_bytes(slot);
    ring->bytes += block_bytes(slot);
    struct bk_chunk *chunk = chunk_of(slot);
    ring->chunk_bytes += chunk->n_blocks++ == 0 ? chunk->bytes.size : 0;
    ring->n_blocks++;
    ring->next_pos++;
    evict(ring, channel);
    return 0;
}

int bk_ring_append(struct bk_ring *ring,
                   struct bk_channel *channel,
                   const struct bb_block *head,
                   struct bb_slice events,
                   struct bk_bytes *owner,
                   bool uniform)
{
    struct bk_block block;
    int r = bk_ring_build(ring, channel, head, events, owner, false, &block);
    if (r < 0) {
        return r;
    }
    block.uniform = uniform;
    r = bk_ring_push(ring, &block);
    if (r < 0) {
        bk_ring_drop(&block);
    }
    return r;
}

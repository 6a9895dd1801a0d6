/* SPDX-License-Identifier: Apache-2.0 */
/* Taking an append: first all that needs memory, then all of it. The numbers refuse what does not go on
 * from the last. */
#include "broker/backend/memory/keep.h"

#include "proto/base/error.h"

#include <stdlib.h>

/* --- channels --------------------------------------------------------------------------- */

static struct bk_memory_channel *find_any(const struct bk_memory *memory, uint32_t id)
{
    return bb_map_find(&memory->channels, bb_slice(&id, sizeof(id)));
}

struct bk_memory_channel *bk_memory_find(const struct bk_memory *memory, uint32_t id)
{
    struct bk_memory_channel *channel = find_any(memory, id);
    return channel != NULL && channel->is_known ? channel : NULL;
}

static struct bk_memory_channel *get_channel(struct bk_memory *memory, uint32_t id)
{
    struct bk_memory_channel *channel = find_any(memory, id);
    if (channel != NULL) {
        return channel;
    }
    channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return NULL;
    }
    channel->id = id;
    channel->first = 1;
    channel->retention = BK_RETENTION_INIT;
    bb_map_init(&channel->paths, 0, SIZE_MAX);
    if (bk_memory_due_add(memory, channel) < 0) {
        free(channel);
        return NULL;
    }
    if (bb_map_add(&memory->channels, bb_slice(&channel->id, sizeof(id)), channel) < 0) {
        bk_memory_due_remove(memory, channel);
        free(channel);
        return NULL;
    }
    return channel;
}

static void remove_channel(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    bk_memory_empty(memory, channel);
    bk_memory_forget_trimmed(memory, channel);
    bk_memory_due_remove(memory, channel);
    (void)bb_map_remove(&memory->channels, bb_slice(&channel->id, sizeof(channel->id)));
    bb_map_fini(&channel->paths);
    free(channel);
}

/* --- what needs memory ------------------------------------------------------------------------------ */

/* What is to be linked, in the order of the append's blocks. */
struct take {
    struct bk_memory_block **blocks; /* of each, linked by next_own; NULL: it is refused */
};

static bool limits_paths(const struct bk_retention *retention)
{
    return retention->max_per_path != BK_NO_LIMIT;
}

static int prepare_channel(struct bk_memory *memory, const struct bk_log_channel *entry)
{
    struct bk_memory_channel *channel = entry->removed ? NULL : get_channel(memory, entry->id);
    if (channel == NULL) {
        return entry->removed ? 0 : BB_ENOMEM;
    }
    return !entry->removed && limits_paths(&entry->retention) && !channel->is_by_path
               ? bk_memory_count_paths(memory, channel)
               : 0;
}

static int
prepare_block(struct bk_memory *memory, struct take *take, size_t i, const struct bk_log_block *log)
{
    struct bk_memory_channel *channel = find_any(memory, log->channel);
    if (log->error != 0) {
        return 0;
    }
    take->blocks[i] =
        channel->is_by_path ? bk_memory_split(memory, channel, log) : bk_memory_block_new(memory, log);
    return take->blocks[i] != NULL ? 0 : BB_ENOMEM;
}

static void free_blocks(struct bk_memory_block *block)
{
    while (block != NULL) {
        struct bk_memory_block *next = block->next_own;
        bk_memory_block_free(block);
        block = next;
    }
}

/* A channel that was made for an append that is not taken. */
static void unmake(struct bk_memory *memory, const struct bk_append *append)
{
    for (size_t i = 0; i < append->n_channels; i++) {
        struct bk_memory_channel *channel = find_any(memory, append->channels[i].id);
        if (channel != NULL && !channel->is_known) {
            remove_channel(memory, channel);
        } else if (channel != NULL) {
            channel->is_by_path = limits_paths(&channel->retention);
        }
    }
}

static int prepare(struct bk_memory *memory, struct take *take, const struct bk_append *append)
{
    int r = 0;
    take->blocks = calloc(BB_MAX(append->n_blocks, 1), sizeof(struct bk_memory_block *));
    if (take->blocks == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < append->n_channels && r == 0; i++) {
        r = prepare_channel(memory, &append->channels[i]);
    }
    for (size_t i = 0; i < append->n_blocks && r == 0; i++) {
        r = prepare_block(memory, take, i, &append->blocks[i]);
    }
    for (size_t i = 0; i < append->n_blocks && r != 0; i++) {
        free_blocks(take->blocks[i]);
    }
    if (r != 0) {
        unmake(memory, append);
        free(take->blocks);
    }
    return r;
}

/* --- taking ----------------------------------------------------------------------------------------- */

static void take_channel(struct bk_memory *memory, const struct bk_log_channel *entry)
{
    struct bk_memory_channel *channel = find_any(memory, entry->id);
    if (entry->removed) {
        if (channel != NULL) {
            remove_channel(memory, channel);
        }
        return;
    }
    uint64_t first = channel->first;
    channel->is_known = true;
    channel->retention = entry->retention;
    channel->is_by_path = limits_paths(&entry->retention);
    if (channel->is_by_path) { /* no memory is needed: its blocks have been split */
        bk_memory_hold_paths(memory, channel);
    }
    bk_memory_retain(memory, channel, first, bk_memory_now(memory));
}

static void
take_block(struct bk_memory *memory, const struct bk_log_block *log, struct bk_memory_block *blocks)
{
    struct bk_memory_channel *channel = find_any(memory, log->channel);
    uint64_t first = channel->events == 0 ? log->head.sequence : channel->first;
    while (blocks != NULL) {
        struct bk_memory_block *next = blocks->next_own;
        bk_memory_link(memory, channel, blocks);
        blocks = next;
    }
    bk_memory_retain(memory, channel, first, bk_memory_now(memory));
}

int bk_memory_take(struct bk_memory *memory, struct bk_append *append)
{
    struct take take = {0};
    int r = bk_numbers_judge(memory->numbers, append);
    r = r == 0 ? prepare(memory, &take, append) : r;
    if (r != 0) {
        return r;
    }
    bk_numbers_take(memory->numbers, append);
    for (size_t i = 0; i < append->n_channels; i++) {
        take_channel(memory, &append->channels[i]);
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        if (append->blocks[i].error == 0) {
            take_block(memory, &append->blocks[i], take.blocks[i]);
        }
    }
    free(take.blocks);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- */

void bk_memory_clear(struct bk_memory *memory)
{
    while (memory->n_dues > 0) {
        remove_channel(memory, memory->dues[memory->n_dues - 1]);
    }
    free(memory->dues);
    bb_map_fini(&memory->channels);
}

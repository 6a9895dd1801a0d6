/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks and the lists they are in: of all, of their channel, of their path. */
#include "proto/base/error.h"

#include "broker/backend/memory/keep.h"

#include <stdlib.h>

/* So many of the newest blocks are asked for a path. */
#define LOOK_AT 8

/* --- making ----------------------------------------------------------------------------------------- */

static int copy_events(const struct bk_memory *memory, struct bk_log_block *log)
{
    if (log->owner != NULL) {
        (void)bk_bytes_ref(log->owner);
        return 0;
    }
    log->owner = bk_bytes_new(memory->meter, (size_t)log->head.length);
    if (log->owner == NULL) {
        return BB_ENOMEM;
    }
    memcpy(log->owner->data, log->events, (size_t)log->head.length);
    log->owner->len = (size_t)log->head.length;
    log->events = log->owner->data;
    return 0;
}

struct bk_memory_block *bk_memory_block_new(const struct bk_memory *memory, const struct bk_log_block *log)
{
    struct bk_memory_block *block = calloc(1, sizeof(*block));
    if (block == NULL) {
        return NULL;
    }
    block->log = *log;
    if (copy_events(memory, &block->log) < 0) {
        free(block);
        return NULL;
    }
    return block;
}

void bk_memory_block_free(struct bk_memory_block *block)
{
    if (block->path != NULL) {
        block->path->pending--;
        bk_memory_path_tidy(block->path);
    }
    bk_bytes_unref(block->log.owner);
    free(block);
}

static void free_all(struct bk_memory_block *block)
{
    while (block != NULL) {
        struct bk_memory_block *next = block->next_own;
        bk_memory_block_free(block);
        block = next;
    }
}

struct bk_memory_block *bk_memory_split(const struct bk_memory *memory,
                                        struct bk_memory_channel *channel,
                                        const struct bk_log_block *log)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bk_memory_block *first = NULL;
    struct bk_memory_block **end = &first;
    struct bb_event_view event;
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        struct bk_log_block one = *log;
        one.owner = NULL; /* its bytes are its own, so that it can go alone */
        one.events = event.raw.data;
        one.head.sequence += i;
        one.head.instance += i;
        one.head.count = 1;
        one.head.length = event.raw.len;
        struct bk_memory_path *path = bk_memory_path_get(channel, event.path);
        *end = path != NULL ? bk_memory_block_new(memory, &one) : NULL;
        if (*end == NULL) {
            if (path != NULL) {
                bk_memory_path_tidy(path);
            }
            free_all(first);
            return NULL;
        }
        (*end)->path = path;
        path->pending++;
        end = &(*end)->next_own;
    }
    return first;
}

/* --- the floor -------------------------------------------------------------------------------------- */

static bool has_too_many(const struct bk_memory_channel *channel, const struct bk_memory_path *path)
{
    return path->events > BB_MAX(channel->retention.max_per_path, 1);
}

/* A path's oldest events go as far as the floor lets them. */
static void hold_path(struct bk_memory *memory, struct bk_memory_path *path)
{
    struct bk_memory_block *oldest = path->oldest;
    while (has_too_many(path->channel, path) && !oldest->is_in_floor) {
        struct bk_memory_block *next = oldest->next_same;
        bk_memory_drop(memory, oldest);
        oldest = next;
    }
}

/* As many of the newest as the channel wants are in the floor. */
static void move_floor(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    while (channel->n_floor > channel->retention.min_events) {
        struct bk_memory_block *left = channel->floor;
        channel->floor = left->next_own;
        channel->n_floor--;
        left->is_in_floor = false;
        hold_path(memory, left->path);
    }
}

static void add_to_floor(struct bk_memory_channel *channel, struct bk_memory_block *block)
{
    block->is_in_floor = true;
    channel->floor = channel->floor != NULL ? channel->floor : block;
    channel->n_floor++;
}

static void take_from_floor(struct bk_memory_channel *channel, const struct bk_memory_block *block)
{
    if (block->is_in_floor) {
        channel->n_floor--;
        channel->floor = channel->floor == block ? block->next_own : channel->floor;
    }
}

/* --- linking ---------------------------------------------------------------------------------------- */

static void count_path(struct bk_memory_block *block)
{
    struct bk_memory_path *path = block->path;
    block->next_same = NULL;
    *(path->events > 0 ? &path->newest->next_same : &path->oldest) = block;
    path->newest = block;
    path->events++;
    path->pending--;
}

void bk_memory_link(struct bk_memory *memory,
                    struct bk_memory_channel *channel,
                    struct bk_memory_block *block)
{
    const struct bb_block *head = &block->log.head;
    block->channel = channel;
    block->position = ++memory->position;
    block->next = block->next_own = NULL;
    block->prev = memory->newest;
    *(memory->newest != NULL ? &memory->newest->next : &memory->oldest) = block;
    memory->newest = block;
    block->prev_own = channel->newest;
    *(channel->newest != NULL ? &channel->newest->next_own : &channel->oldest) = block;
    channel->newest = block;
    channel->first = channel->events == 0 ? head->sequence : channel->first;
    channel->last = head->sequence + head->count - 1;
    channel->events += head->count;
    channel->bytes += head->length;
    memory->bytes += head->length;
    if (block->path != NULL) {
        struct bk_memory_path *path = block->path;
        count_path(block);
        add_to_floor(channel, block);
        hold_path(memory, path);
        move_floor(memory, channel);
    }
}

/* --- dropping --------------------------------------------------------------------------------------- */

/* A path's events go from the oldest on. */
static void forget_of_path(struct bk_memory_block *block)
{
    struct bk_memory_path *path = block->path;
    if (path != NULL) {
        path->oldest = block->next_same;
        path->events--;
        block->path = NULL;
        bk_memory_path_tidy(path);
    }
}

static void unlink_block(struct bk_memory *memory, struct bk_memory_block *block)
{
    struct bk_memory_channel *channel = block->channel;
    take_from_floor(channel, block);
    *(block->prev != NULL ? &block->prev->next : &memory->oldest) = block->next;
    *(block->next != NULL ? &block->next->prev : &memory->newest) = block->prev;
    *(block->prev_own != NULL ? &block->prev_own->next_own : &channel->oldest) = block->next_own;
    *(block->next_own != NULL ? &block->next_own->prev_own : &channel->newest) = block->prev_own;
    channel->events -= block->log.head.count;
    channel->bytes -= block->log.head.length;
    memory->bytes -= block->log.head.length;
    if (block->prev_own == NULL) {
        channel->first = channel->oldest != NULL ? channel->oldest->log.head.sequence : channel->last + 1;
    }
    forget_of_path(block);
    bk_memory_block_free(block);
}

/* The path of a block that has one; false if it may have more. */
static bool path_of(const struct bk_memory_block *block, struct bb_slice *ret_path)
{
    struct bb_slice rest = bb_slice(block->log.events, (size_t)block->log.head.length);
    struct bb_event_view event;
    if ((block->log.flags & BK_LOG_UNIFORM) == 0 || bb_event_read(&rest, &event) < 0) {
        return false;
    }
    *ret_path = event.path;
    return true;
}

/* Whether a newer block has an event of each path of @block, as far as a look at a few of the newest ones
 * can tell. */
static bool is_superseded(const struct bk_memory_block *block)
{
    const struct bk_memory_block *newer = block->channel->newest;
    struct bb_slice path;
    struct bb_slice other;
    if (block->path != NULL) {
        return block->path->events > 1;
    }
    if (!path_of(block, &path)) {
        return false;
    }
    for (int i = 0; i < LOOK_AT && newer != block; i++, newer = newer->prev_own) {
        if (path_of(newer, &other) && bb_slice_equal(path, other)) {
            return true;
        }
    }
    return false;
}

void bk_memory_drop(struct bk_memory *memory, struct bk_memory_block *block)
{
    if (!is_superseded(block)) {
        bk_memory_remember(memory, block->channel, &block->log, block->log.head.count);
    }
    unlink_block(memory, block);
}

void bk_memory_drop_oldest(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t n)
{
    struct bk_memory_block *block = channel->oldest;
    struct bb_slice rest = bb_slice(block->log.events, (size_t)block->log.head.length);
    struct bb_event_view event;
    int r = 0;
    for (uint64_t i = 0; i < n && r == 0; i++) {
        r = bb_event_read(&rest, &event);
    }
    if (n >= block->log.head.count || r < 0) { /* it cannot be malformed: it was scanned */
        bk_memory_drop(memory, block);
        return;
    }
    if ((block->log.flags & BK_LOG_UNIFORM) == 0) { /* else its own newest event supersedes them */
        bk_memory_remember(memory, channel, &block->log, n);
    }
    uint64_t bytes = block->log.head.length - rest.len;
    block->log.events = rest.data;
    block->log.head.length = rest.len;
    block->log.head.count -= n;
    block->log.head.sequence += n;
    block->log.head.instance += n;
    channel->first = block->log.head.sequence;
    channel->events -= n;
    channel->bytes -= bytes;
    memory->bytes -= bytes;
}

void bk_memory_empty(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    while (channel->oldest != NULL) {
        unlink_block(memory, channel->oldest);
    }
    while (channel->latest_oldest != NULL) {
        bk_memory_forget(memory, channel->latest_oldest);
    }
}

/* --- counting by path ------------------------------------------------------------------------------- */

/* Put the blocks from @first on, linked by next_own, into the place of @old. */
static void replace(struct bk_memory *memory, struct bk_memory_block *old, struct bk_memory_block *first)
{
    struct bk_memory_channel *channel = old->channel;
    struct bk_memory_block *before = old->prev;
    struct bk_memory_block *before_own = old->prev_own;
    struct bk_memory_block *last = NULL;
    for (struct bk_memory_block *block = first; block != NULL; block = block->next_own) {
        block->channel = channel;
        block->position = old->position;
        block->prev = before;
        *(before != NULL ? &before->next : &memory->oldest) = block;
        block->prev_own = before_own;
        *(before_own != NULL ? &before_own->next_own : &channel->oldest) = block;
        before = before_own = last = block;
    }
    last->next = old->next;
    *(old->next != NULL ? &old->next->prev : &memory->newest) = last;
    last->next_own = old->next_own;
    *(old->next_own != NULL ? &old->next_own->prev_own : &channel->newest) = last;
}

static int split_all(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    struct bk_memory_block *block = channel->oldest;
    while (block != NULL) {
        struct bk_memory_block *next = block->next_own;
        if (block->path == NULL) {
            struct bk_memory_block *first = bk_memory_split(memory, channel, &block->log);
            if (first == NULL) {
                return BB_ENOMEM;
            }
            replace(memory, block, first);
            bk_memory_block_free(block);
        }
        block = next;
    }
    return 0;
}

/* Count anew all blocks that have one event each; all of them are in the floor then. */
static void recount(struct bk_memory_channel *channel)
{
    for (struct bk_memory_block *block = channel->oldest; block != NULL; block = block->next_own) {
        if (block->path != NULL) {
            block->path->pending += block->path->events;
            block->path->events = 0;
        }
    }
    channel->floor = NULL;
    channel->n_floor = 0;
    for (struct bk_memory_block *block = channel->oldest; block != NULL; block = block->next_own) {
        if (block->path != NULL) {
            count_path(block);
            add_to_floor(channel, block);
        }
    }
}

int bk_memory_count_paths(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    int r = split_all(memory, channel);
    recount(channel);
    channel->is_by_path = r == 0;
    return r;
}

void bk_memory_hold_paths(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    recount(channel);
    move_floor(memory, channel);
}

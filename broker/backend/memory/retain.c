/* SPDX-License-Identifier: Apache-2.0 */
/* What channels need not keep any more, and when they have to be looked at again. */
#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/backend/memory/keep.h"

#include <stdlib.h>

uint64_t bk_memory_now(const struct bk_memory *memory)
{
    return memory->now != NULL ? memory->now(memory->now_context) : (uint64_t)bb_clock_wall_us();
}

/* --- channels by when they are due ------------------------------------------------------------------ */

static void due_put(struct bk_memory *memory, size_t at, struct bk_memory_channel *channel)
{
    memory->dues[at] = channel;
    channel->due_at = at;
}

static void due_up(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    size_t at = channel->due_at;
    while (at > 0 && memory->dues[(at - 1) / 2]->due > channel->due) {
        due_put(memory, at, memory->dues[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    due_put(memory, at, channel);
}

static void due_down(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    size_t at = channel->due_at;
    for (size_t child = 2 * at + 1; child < memory->n_dues; child = 2 * at + 1) {
        if (child + 1 < memory->n_dues && memory->dues[child + 1]->due < memory->dues[child]->due) {
            child++;
        }
        if (memory->dues[child]->due >= channel->due) {
            break;
        }
        due_put(memory, at, memory->dues[child]);
        at = child;
    }
    due_put(memory, at, channel);
}

static void due_set(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t due)
{
    if (channel->due != due) {
        channel->due = due;
        due_up(memory, channel);
        due_down(memory, channel);
    }
}

int bk_memory_due_add(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    if (memory->n_dues == memory->dues_cap) {
        size_t cap = BB_MAX(2 * memory->dues_cap, 16);
        struct bk_memory_channel **dues = realloc(memory->dues, cap * sizeof(struct bk_memory_channel *));
        if (dues == NULL) {
            return BB_ENOMEM;
        }
        memory->dues = dues;
        memory->dues_cap = cap;
    }
    channel->due = BK_NO_LIMIT;
    due_put(memory, memory->n_dues++, channel); /* nobody is due later */
    return 0;
}

void bk_memory_due_remove(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    struct bk_memory_channel *last = memory->dues[--memory->n_dues];
    if (last != channel) {
        due_put(memory, channel->due_at, last);
        due_up(memory, last);
        due_down(memory, last);
    }
}

/* When the oldest event becomes too old, if the floor lets it go. */
static uint64_t due_of(const struct bk_memory_channel *channel)
{
    const struct bk_retention *retention = &channel->retention;
    if (channel->oldest == NULL || retention->max_age_us == BK_NO_LIMIT ||
        channel->events <= retention->min_events) {
        return BK_NO_LIMIT;
    }
    uint64_t time = channel->oldest->log.head.time;
    return time < BK_NO_LIMIT - retention->max_age_us ? time + retention->max_age_us + 1 : BK_NO_LIMIT;
}

/* --- what has gone ---------------------------------------------------------------------------------- */

/* Notifications come in dispatch() only, and speak of what the channel's own limits or a trim took: how much fits into this store
 * is nobody's wish. */
static void note_trimmed(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    channel->trimmed_to = channel->first;
    if (!channel->is_trimmed) {
        channel->is_trimmed = true;
        channel->next_trimmed = memory->trimmed;
        memory->trimmed = channel;
    }
}

void bk_memory_forget_trimmed(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    struct bk_memory_channel **at = &memory->trimmed;
    while (channel->is_trimmed && *at != channel) {
        at = &(*at)->next_trimmed;
    }
    *at = channel->is_trimmed ? channel->next_trimmed : *at;
    channel->is_trimmed = false;
}

void bk_memory_tell_trimmed(struct bk_memory *memory)
{
    while (memory->trimmed != NULL) {
        struct bk_memory_channel *channel = memory->trimmed;
        memory->trimmed = channel->next_trimmed;
        channel->is_trimmed = false;
        memory->listener->trimmed(memory->listener->context, channel->id, channel->trimmed_to);
    }
}

/* --- limits ----------------------------------------------------------------------------------------- */

/* How many events of the oldest block the channel's own limits want gone: for these the floor counts. */
static uint64_t n_surplus(const struct bk_memory_channel *channel, uint64_t now)
{
    const struct bk_memory_block *oldest = channel->oldest;
    const struct bk_retention *retention = &channel->retention;
    if (oldest == NULL || channel->events <= retention->min_events) {
        return 0;
    }
    uint64_t above_floor = BB_MIN(channel->events - retention->min_events, oldest->log.head.count);
    if (now >= due_of(channel)) {
        return above_floor;
    }
    if (channel->events > retention->max_events) {
        return BB_MIN(channel->events - retention->max_events, above_floor);
    }
    return channel->bytes > retention->max_bytes;
}

/* The options' limit, for which the floor does not count. Values that have more than half of it make way. */
static void hold_size(struct bk_memory *memory, struct bk_memory_channel *channel)
{
    uint64_t max = memory->values[OPTION_CHANNEL_SIZE];
    while (channel->bytes + channel->latest_bytes > max) {
        if (channel->oldest == NULL || channel->latest_bytes > max / 2) {
            bk_memory_forget(memory, channel->latest_oldest);
        } else {
            channel->lacks_room = true;
            bk_memory_drop(memory, channel->oldest);
        }
    }
}

static void hold_total(struct bk_memory *memory)
{
    uint64_t max = memory->values[OPTION_TOTAL_SIZE];
    while (memory->bytes + memory->latest_bytes > max) {
        if (memory->oldest == NULL || memory->latest_bytes > max / 2) {
            bk_memory_forget(memory, memory->latest_oldest);
        } else {
            memory->oldest->channel->lacks_room = true;
            bk_memory_drop(memory, memory->oldest);
        }
    }
}

void bk_memory_retain(struct bk_memory *memory,
                      struct bk_memory_channel *channel,
                      uint64_t first,
                      uint64_t now)
{
    if (channel->lacks_room) { /* what a path's limit took may lie behind what only the options took */
        first = channel->first;
    }
    for (uint64_t n = n_surplus(channel, now); n > 0; n = n_surplus(channel, now)) {
        bk_memory_drop_oldest(memory, channel, n);
        channel->lacks_room = false;
    }
    if (channel->first != first) {
        note_trimmed(memory, channel);
    }
    hold_size(memory, channel);
    hold_total(memory);
    due_set(memory, channel, due_of(channel));
}

void bk_memory_retain_due(struct bk_memory *memory)
{
    uint64_t now = memory->n_dues > 0 && memory->dues[0]->due != BK_NO_LIMIT ? bk_memory_now(memory) : 0;
    while (memory->n_dues > 0 && memory->dues[0]->due <= now) {
        bk_memory_retain(memory, memory->dues[0], memory->dues[0]->first, now);
    }
}

void bk_memory_trim(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t sequence)
{
    uint64_t first = channel->first;
    while (channel->oldest != NULL && channel->oldest->log.head.sequence < sequence) {
        bk_memory_drop_oldest(memory, channel, sequence - channel->oldest->log.head.sequence);
        channel->lacks_room = false;
    }
    if (channel->first != first) {
        note_trimmed(memory, channel);
    }
    due_set(memory, channel, due_of(channel));
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The paths of a channel, and what stays of them when their events have gone. */
#include "broker/backend/memory/keep.h"

#include <stdlib.h>

struct bk_memory_path *bk_memory_path_get(struct bk_memory_channel *channel, struct bb_slice text)
{
    struct bk_memory_path *path = bb_map_find(&channel->paths, text);
    if (path != NULL) {
        return path;
    }
    path = calloc(1, sizeof(*path) + text.len + 1);
    if (path == NULL) {
        return NULL;
    }
    path->channel = channel;
    path->len = text.len;
    if (text.len > 0) {
        memcpy(path->text, text.data, text.len);
    }
    if (bb_map_add(&channel->paths, bb_slice(path->text, path->len), path) < 0) {
        free(path);
        return NULL;
    }
    return path;
}

void bk_memory_path_tidy(struct bk_memory_path *path)
{
    if (path->events == 0 && path->pending == 0 && path->latest == NULL) {
        (void)bb_map_remove(&path->channel->paths, bb_slice(path->text, path->len));
        free(path);
    }
}

/* --- values --------------------------------------------------------------------------------------- */

static uint64_t size_of(const struct bk_memory_latest *latest)
{
    return sizeof(*latest) + latest->path->len + latest->head.length;
}

static void latest_link(struct bk_memory *memory, struct bk_memory_latest *latest)
{
    struct bk_memory_channel *channel = latest->path->channel;
    latest->next = latest->next_own = NULL;
    latest->prev = memory->latest_newest;
    *(memory->latest_newest != NULL ? &memory->latest_newest->next : &memory->latest_oldest) = latest;
    memory->latest_newest = latest;
    latest->prev_own = channel->latest_newest;
    *(channel->latest_newest != NULL ? &channel->latest_newest->next_own : &channel->latest_oldest) = latest;
    channel->latest_newest = latest;
    latest->path->latest = latest;
    memory->latest_bytes += size_of(latest);
    channel->latest_bytes += size_of(latest);
}

static void latest_unlink(struct bk_memory *memory, struct bk_memory_latest *latest)
{
    struct bk_memory_channel *channel = latest->path->channel;
    *(latest->prev != NULL ? &latest->prev->next : &memory->latest_oldest) = latest->next;
    *(latest->next != NULL ? &latest->next->prev : &memory->latest_newest) = latest->prev;
    *(latest->prev_own != NULL ? &latest->prev_own->next_own : &channel->latest_oldest) = latest->next_own;
    *(latest->next_own != NULL ? &latest->next_own->prev_own : &channel->latest_newest) = latest->prev_own;
    latest->path->latest = NULL;
    memory->latest_bytes -= size_of(latest);
    channel->latest_bytes -= size_of(latest);
}

void bk_memory_forget(struct bk_memory *memory, struct bk_memory_latest *latest)
{
    struct bk_memory_path *path = latest->path;
    latest_unlink(memory, latest);
    free(latest);
    bk_memory_path_tidy(path);
}

/* What was noted in @path while a block went is its value. */
static void
keep_touched(struct bk_memory *memory, struct bk_memory_path *path, const struct bk_log_block *log)
{
    struct bk_memory_latest *latest = path->latest;
    struct bb_slice event = path->touched;
    path->touched = bb_slice(NULL, 0);
    if (latest != NULL) {
        latest_unlink(memory, latest);
    }
    if (latest == NULL || latest->head.length < event.len) {
        free(latest);
        latest = malloc(sizeof(*latest) + event.len);
    }
    if (latest == NULL) {
        bk_memory_path_tidy(path);
        return;
    }
    latest->path = path;
    latest->server = log->server;
    latest->head = log->head;
    latest->head.sequence += path->touched_at;
    latest->head.instance += path->touched_at;
    latest->head.count = 1;
    latest->head.length = event.len;
    memcpy(latest->event, event.data, event.len);
    latest_link(memory, latest);
}

void bk_memory_remember(struct bk_memory *memory,
                        struct bk_memory_channel *channel,
                        const struct bk_log_block *log,
                        uint64_t n)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bk_memory_path *touched = NULL;
    struct bk_memory_path *path = NULL;
    struct bb_event_view event;
    for (uint64_t i = 0; i < n && bb_event_read(&rest, &event) == 0; i++) {
        if (path == NULL || !bb_slice_equal(bb_slice(path->text, path->len), event.path)) {
            path = bk_memory_path_get(channel, event.path);
        }
        if (path != NULL && path->touched.data == NULL) {
            path->next_touched = touched;
            touched = path;
        }
        if (path != NULL) {
            path->touched = event.raw;
            path->touched_at = i;
        }
    }
    while (touched != NULL) {
        path = touched;
        touched = path->next_touched;
        keep_touched(memory, path, log);
    }
}

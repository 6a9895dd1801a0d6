/* SPDX-License-Identifier: Apache-2.0 */
/* The requests; READ is in read.c. */
#include "proto/base/error.h"

#include "broker/backend/find.h"
#include "broker/backend/memory/keep.h"

/* Where in a block the place is; 0 if it is not there. */
static uint64_t place_in(const struct bk_locate *locate, const struct bk_log_block *log)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    uint64_t found = 0;
    if (locate->kind == BK_LOCATE_TIME) {
        return log->head.time >= locate->time ? log->head.sequence : 0;
    }
    if (locate->kind == BK_LOCATE_ID) {
        uint64_t last = log->head.instance + log->head.count - 1;
        bool is_same = log->server == locate->id.server && log->head.session == locate->id.session;
        if (is_same && last > locate->id.instance) {
            return log->head.sequence + (locate->id.instance >= log->head.instance
                                             ? locate->id.instance - log->head.instance + 1
                                             : 0);
        }
        return log->server == locate->id.server && log->head.session > locate->id.session ? log->head.sequence
                                                                                          : 0;
    }
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        bool matches = locate->kind == BK_LOCATE_PATH ? bb_slice_equal(event.path, locate->path)
                                                      : bk_filter_matches(locate->filter, event.path);
        found = matches ? log->head.sequence + i : found;
    }
    return found;
}

static void locate(const struct bk_memory *memory, struct bk_locate *locate)
{
    bool wants_newest = locate->kind == BK_LOCATE_LAST || locate->kind == BK_LOCATE_PATH;
    for (size_t i = 0; i < locate->n_places; i++) {
        struct bk_locate_place *place = &locate->places[i];
        const struct bk_memory_channel *channel = bk_memory_find(memory, place->channel);
        place->sequence = 0;
        place->last = channel != NULL ? channel->last : 0;
        const struct bk_memory_block *block = channel != NULL ? channel->oldest : NULL;
        for (; block != NULL && (wants_newest || place->sequence == 0); block = block->next_own) {
            uint64_t found = place_in(locate, &block->log);
            place->sequence = found != 0 ? found : place->sequence;
        }
    }
}

/* The newest event of a path comes first when read backwards, so the latest of each path are the unique ones. */
static int query_blocks(const struct bk_memory *memory, const struct bb_query *query, struct bk_find *find)
{
    bool backwards = bk_find_is_descending(find) || query->kind == BB_QUERY_LATEST;
    const struct bk_memory_block *block = backwards ? memory->newest : memory->oldest;
    int r = 0;
    for (; block != NULL && r == 0; block = backwards ? block->prev : block->next) {
        const struct bk_log_block *log = &block->log;
        r = bk_find_block(find, log->server, &log->head, bb_slice(log->events, (size_t)log->head.length));
    }
    return r;
}

static int query(const struct bk_memory *memory, struct bk_query *request)
{
    struct bk_find *find = NULL;
    request->body = NULL;
    request->n_events = 0;
    request->more = false;
    int r = bk_find_new(request, &find);
    if (r < 0) {
        return r;
    }
    r = query_blocks(memory, request->query, find);
    if (r >= 0) {
        r = bk_find_end(find, request, memory->meter);
    }
    bk_find_free(find);
    return r;
}

static int trim(struct bk_memory *memory, struct bk_trim *request)
{
    struct bk_memory_channel *channel = bk_memory_find(memory, request->channel);
    if (channel == NULL) {
        return BB_ENOTFOUND;
    }
    uint64_t first = channel->first;
    bk_memory_trim(memory, channel, request->before);
    request->first = channel->first;
    if (channel->first != first) {
        memory->listener->trimmed(memory->listener->context, channel->id, channel->first);
    }
    return 0;
}

int bk_memory_answer(struct bk_memory *memory, struct bk_request *request)
{
    switch (request->kind) {
    case BK_REQUEST_READ:
        return bk_memory_read(memory, BB_CONTAINER(request, struct bk_read, request));
    case BK_REQUEST_LOCATE:
        locate(memory, BB_CONTAINER(request, struct bk_locate, request));
        return 0;
    case BK_REQUEST_QUERY:
        return query(memory, BB_CONTAINER(request, struct bk_query, request));
    case BK_REQUEST_TRIM:
        return trim(memory, BB_CONTAINER(request, struct bk_trim, request));
    case BK_REQUEST_FLUSH:
        return 0;
    case BK_REQUEST_SNAPSHOT:
    case BK_REQUEST_COMPACT:
    case BK_REQUEST_VERIFY:
        break;
    }
    return BB_EUNSUPPORTED;
}

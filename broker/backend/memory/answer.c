/* SPDX-License-Identifier: Apache-2.0 */
/* The requests; READ is in read.c. */
#include "proto/base/error.h"

#include "broker/backend/find.h"
#include "broker/backend/memory/keep.h"

/* Behind the newest event that is not above the id, which is in no block before. */
static uint64_t place_behind(const struct bk_locate *locate, const struct bk_memory_block *block)
{
    const struct bb_block *head = &block->log.head;
    const struct bk_memory_block *prev = block->prev_own;
    if (block->log.server != locate->id.server || head->session < locate->id.session) {
        return 0;
    }
    if (head->session == locate->id.session && locate->id.instance >= head->instance) {
        uint64_t n = locate->id.instance - head->instance + 1;
        return n < head->count ? head->sequence + n : 0;
    }
    return prev != NULL ? prev->log.head.sequence + prev->log.head.count : 1;
}

/* Where in a block the place is; 0 if it is not there. */
static uint64_t place_in(const struct bk_locate *locate, const struct bk_memory_block *block)
{
    const struct bk_log_block *log = &block->log;
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    uint64_t found = 0;
    if (locate->kind == BK_LOCATE_TIME) {
        return log->head.time >= locate->time ? log->head.sequence : 0;
    }
    if (locate->kind == BK_LOCATE_ID) {
        return place_behind(locate, block);
    }
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        bool matches = locate->kind == BK_LOCATE_PATH ? bb_slice_equal(event.path, locate->path)
                                                      : bk_filter_matches(locate->filter, event.path);
        found = matches ? log->head.sequence + i : found;
    }
    return found;
}

/* From the end that the place is nearer to. */
static uint64_t locate_in(const struct bk_memory_channel *channel, const struct bk_locate *locate)
{
    bool is_newest = locate->kind == BK_LOCATE_LAST || locate->kind == BK_LOCATE_PATH;
    const struct bk_memory_block *block = is_newest ? channel->newest : channel->oldest;
    uint64_t found = 0;
    for (; block != NULL && found == 0; block = is_newest ? block->prev_own : block->next_own) {
        found = place_in(locate, block);
    }
    if (locate->kind == BK_LOCATE_ID && channel->oldest == NULL && channel->last > 0) {
        return 1;
    }
    if (found == 0 && locate->kind == BK_LOCATE_PATH) {
        const struct bk_memory_path *path = bb_map_find(&channel->paths, locate->path);
        found = path != NULL && path->latest != NULL ? path->latest->head.sequence : 0;
    }
    return found;
}

static void locate(const struct bk_memory *memory, struct bk_locate *locate)
{
    for (size_t i = 0; i < locate->n_places; i++) {
        struct bk_locate_place *place = &locate->places[i];
        const struct bk_memory_channel *channel = bk_memory_find(memory, place->channel);
        place->sequence = channel != NULL ? locate_in(channel, locate) : 0;
        place->last = channel != NULL ? channel->last : 0;
    }
}

/* The newest event of a path comes first when read backwards, so the latest of each path are the unique
 * ones. */
static int query_blocks(const struct bk_memory *memory, const struct bb_query *query, struct bk_find *find)
{
    bool backwards = bk_find_is_descending(find);
    const struct bk_memory_block *block = backwards ? memory->newest : memory->oldest;
    int r = 0;
    for (; block != NULL && r == 0; block = backwards ? block->prev : block->next) {
        const struct bk_log_block *log = &block->log;
        if (bk_find_wants_channel(find, log->channel)) {
            r = bk_find_block(find, log->server, &log->head, bb_slice(log->events, (size_t)log->head.length));
        }
    }
    const struct bk_memory_latest *latest = query->kind == BB_QUERY_LATEST ? memory->latest_newest : NULL;
    for (; latest != NULL && r == 0; latest = latest->prev) { /* of paths that have not been met above */
        if (bk_find_wants_channel(find, latest->path->channel->id)) {
            r = bk_find_block(find, latest->server, &latest->head,
                              bb_slice(latest->event, (size_t)latest->head.length));
        }
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
    bk_memory_trim(memory, channel, request->before);
    request->first = channel->first;
    bk_memory_tell_trimmed(memory);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The requests. */
#include "proto/base/error.h"

#include "broker/backend/find.h"
#include "broker/backend/memory/keep.h"

static void write_event(struct bb_buf *body, const struct bb_block *block, uint64_t i, struct bb_slice raw)
{
    struct bb_block head = *block;
    head.sequence += i;
    head.instance += i;
    head.count = 1;
    head.length = raw.len;
    uint8_t *to = bb_buf_reserve(body, BB_BLOCK_HEAD_MAX);
    if (to != NULL) {
        body->len += bb_block_write(to, &head);
    }
    bb_buf_append(body, raw.data, raw.len);
}

static struct bk_read_range *find_range(const struct bk_read *read, uint32_t channel)
{
    for (size_t i = 0; i < read->n_ranges; i++) {
        if (read->ranges[i].channel == channel) {
            return &read->ranges[i];
        }
    }
    return NULL;
}

static void read_block(struct bk_read *read,
                       struct bk_read_range *range,
                       const struct bk_log_block *log,
                       struct bb_buf *body)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    if (log->head.time > range->stop_time) {
        range->reached = BB_MAX(range->reached, log->head.sequence - 1);
        range->at_end = true;
        return;
    }
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        uint64_t sequence = log->head.sequence + i;
        if (sequence <= range->reached || sequence > range->stop ||
            !bk_filter_matches(read->filter, event.path)) {
            continue;
        }
        if (bb_event_has_expired(&event, log->head.time, read->now)) {
            range->expired++;
            continue;
        }
        write_event(body, &log->head, i, event.raw);
        range->events++;
        range->bytes += event.raw.len;
        read->n_events++;
    }
    range->reached = BB_MAX(range->reached, BB_MIN(log->head.sequence + log->head.count - 1, range->stop));
    range->at_end = range->reached == range->stop;
}

static int give_body(const struct bk_memory *memory, const struct bb_buf *from, struct bk_bytes **ret_body)
{
    if (from->error != 0 || from->len == 0) {
        return from->error;
    }
    *ret_body = bk_bytes_new(memory->meter, from->len);
    if (*ret_body == NULL) {
        return BB_ENOMEM;
    }
    memcpy((*ret_body)->data, from->data, from->len);
    (*ret_body)->len = from->len;
    return 0;
}

static int read_on(const struct bk_memory *memory, struct bk_read *read)
{
    struct bb_buf body = BB_BUF_INIT;
    read->n_events = 0;
    read->body = NULL;
    for (size_t i = 0; i < read->n_ranges; i++) {
        struct bk_read_range *range = &read->ranges[i];
        const struct bk_memory_channel *channel = bk_memory_find(memory, range->channel);
        uint64_t first = channel != NULL ? channel->first : range->after + 1;
        range->events = range->bytes = range->expired = 0;
        range->at_end = false;
        range->first = first;
        range->reached = BB_MAX(range->after, first - 1);
    }
    const struct bk_memory_block *block = memory->oldest;
    for (; block != NULL && body.len < read->max_bytes; block = block->next) {
        struct bk_read_range *range = find_range(read, block->log.channel);
        uint64_t last = block->log.head.sequence + block->log.head.count - 1;
        if (range == NULL || range->at_end || last <= range->reached) {
            continue;
        }
        const struct bk_read_range before = *range;
        uint64_t n_events = read->n_events;
        size_t len = body.len;
        read_block(read, range, &block->log, &body);
        if (len > 0 && body.len > read->max_bytes) { /* it is the next one's first */
            body.len = len;
            read->n_events = n_events;
            *range = before;
            break;
        }
    }
    for (size_t i = 0; i < read->n_ranges && block == NULL; i++) {
        const struct bk_memory_channel *channel = bk_memory_find(memory, read->ranges[i].channel);
        if (read->ranges[i].at_end) { /* stop or stop_time: what is behind was not looked at */
            continue;
        }
        uint64_t last = channel != NULL ? BB_MIN(channel->last, read->ranges[i].stop) : 0;
        read->ranges[i].reached = BB_MAX(read->ranges[i].reached, last);
        read->ranges[i].at_end = true;
    }
    int r = give_body(memory, &body, &read->body);
    bb_buf_fini(&body);
    return r;
}

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
        return read_on(memory, BB_CONTAINER(request, struct bk_read, request));
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

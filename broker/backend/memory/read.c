/* SPDX-License-Identifier: Apache-2.0 */
/* Reading on. Blocks of all channels are linked in the order of their sessions: one walk serves all
 * ranges. */
#include "proto/base/error.h"

#include "broker/backend/loss.h"
#include "broker/backend/memory/keep.h"

#include <stdlib.h>

/* A range while it is read. */
struct lane {
    struct bk_read_range *range;
    size_t index;                       /* of the range */
    const struct bk_memory_block *next; /* the first block that has something of it, NULL: none */
    uint64_t last;                      /* the newest sequence of the channel */
};

struct reading {
    struct bk_read *read;
    struct bk_losses losses;
    struct lane *lanes; /* by channel */
    struct bb_buf body;
    size_t n_open; /* ranges that are not at their end */
    bool is_full;  /* the next block would not fit */
};

/* Of a block that is looked at: what of it is wanted. */
struct taken {
    uint64_t events;
    uint64_t bytes;
    uint64_t expired;
    uint64_t first_expired;
    uint64_t last_expired;
};

/* What is kept of the range begins again behind @last: what lies between is not kept. */
static void skip_to(struct reading *reading, struct lane *lane, uint64_t last)
{
    struct bk_read_range *range = lane->range;
    uint64_t to = BB_MIN(last, range->stop);
    bk_losses_trimmed(&reading->losses, lane->index, range->reached + 1, to);
    range->reached = BB_MAX(range->reached, to);
}

static uint64_t last_of(const struct bk_memory_block *block)
{
    return block->log.head.sequence + block->log.head.count - 1;
}

/* The first block that has something after @sequence, looked for from the end of the list that is nearer. */
static const struct bk_memory_block *find_block(const struct bk_memory_channel *channel, uint64_t sequence)
{
    const struct bk_memory_block *block = channel->oldest;
    if (block == NULL || sequence >= channel->last) {
        return NULL;
    }
    if (sequence <= channel->first || sequence - channel->first < channel->last - sequence) {
        while (block != NULL && last_of(block) <= sequence) {
            block = block->next_own;
        }
        return block;
    }
    const struct bk_memory_block *after = NULL;
    for (block = channel->newest; block != NULL && last_of(block) > sequence; block = block->prev_own) {
        after = block;
    }
    return after;
}

/* Nothing of it comes any more. */
static void lane_end(struct reading *reading, struct lane *lane)
{
    skip_to(reading, lane, lane->last);
    lane->range->at_end = true;
}

static void lane_begin(const struct bk_memory *memory, struct reading *reading, struct lane *lane)
{
    struct bk_read_range *range = lane->range;
    const struct bk_memory_channel *channel = bk_memory_find(memory, range->channel);
    range->reached = range->after;
    range->events = range->bytes = 0;
    range->at_end = false;
    lane->next = NULL;
    if (channel == NULL) {
        lane->last = range->stop == BK_NO_LIMIT ? range->after : range->stop;
        range->first = BB_MAX(lane->last, range->after) + 1;
    } else {
        lane->last = channel->last;
        range->first = channel->first;
        skip_to(reading, lane, channel->first - 1);
        lane->next = range->reached < range->stop ? find_block(channel, range->reached) : NULL;
    }
    if (lane->next == NULL) {
        lane_end(reading, lane);
    } else {
        reading->n_open++;
    }
}

static int compare_lanes(const void *a, const void *b)
{
    uint32_t left = ((const struct lane *)a)->range->channel;
    uint32_t right = ((const struct lane *)b)->range->channel;
    return left < right ? -1 : left > right;
}

static struct lane *lane_of(const struct reading *reading, uint32_t channel)
{
    struct bk_read_range range = {.channel = channel};
    const struct lane wanted = {.range = &range};
    return bsearch(&wanted, reading->lanes, reading->read->n_ranges, sizeof(wanted), compare_lanes);
}

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

static void put_block(struct reading *reading,
                      const struct bk_read_range *range,
                      const struct bk_log_block *log,
                      struct taken *taken)
{
    struct bb_slice rest = bb_slice(log->events, (size_t)log->head.length);
    struct bb_event_view event;
    for (uint64_t i = 0; i < log->head.count && bb_event_read(&rest, &event) == 0; i++) {
        uint64_t sequence = log->head.sequence + i;
        if (sequence <= range->reached || sequence > range->stop ||
            !bk_filter_matches(reading->read->filter, event.path)) {
            continue;
        }
        if (bb_event_has_expired(&event, log->head.time, reading->read->now)) {
            taken->first_expired = taken->expired++ == 0 ? sequence : taken->first_expired;
            taken->last_expired = sequence;
            continue;
        }
        write_event(&reading->body, &log->head, i, event.raw);
        taken->events++;
        taken->bytes += event.raw.len;
    }
}

/* The block is in the body: count it. */
static void count_block(struct reading *reading,
                        struct lane *lane,
                        const struct bb_block *head,
                        const struct taken *taken)
{
    struct bk_read_range *range = lane->range;
    skip_to(reading, lane, head->sequence - 1);
    bk_losses_expired(&reading->losses, lane->index, taken->first_expired, taken->last_expired,
                      taken->expired);
    range->events += taken->events;
    range->bytes += taken->bytes;
    reading->read->n_events += taken->events;
    range->reached = BB_MIN(head->sequence + head->count - 1, range->stop);
    range->at_end = range->reached == range->stop;
}

/* What does not fit behind something else is left for the next time. */
static void take_block(struct reading *reading, struct lane *lane, const struct bk_memory_block *block)
{
    const struct bk_log_block *log = &block->log;
    struct bk_read_range *range = lane->range;
    struct taken taken = {0};
    size_t len = reading->body.len;
    if (last_of(block) <= range->reached) {
        return;
    }
    if (log->head.time > range->stop_time) {
        skip_to(reading, lane, log->head.sequence - 1);
        range->at_end = true;
        return;
    }
    reading->is_full = !bk_losses_have_room(&reading->losses, lane->index);
    if (!reading->is_full) {
        put_block(reading, range, log, &taken);
        reading->is_full = len > 0 && reading->body.len > reading->read->max_bytes;
    }
    if (reading->is_full) {
        reading->body.len = len;
    } else {
        count_block(reading, lane, &log->head, &taken);
        if (!range->at_end && block->next_own == NULL) {
            lane_end(reading, lane);
        }
    }
}

/* Return: the block to begin with, NULL: there is none. */
static const struct bk_memory_block *begin(const struct bk_memory *memory, struct reading *reading)
{
    const struct bk_memory_block *first = NULL;
    for (size_t i = 0; i < reading->read->n_ranges; i++) {
        struct lane *lane = &reading->lanes[i];
        lane->range = &reading->read->ranges[i];
        lane->index = i;
        lane_begin(memory, reading, lane);
        if (lane->next != NULL && (first == NULL || lane->next->position < first->position)) {
            first = lane->next;
        }
    }
    qsort(reading->lanes, reading->read->n_ranges, sizeof(*reading->lanes), compare_lanes);
    return first;
}

static void walk(const struct bk_memory *memory, struct reading *reading)
{
    const struct bk_memory_block *block = begin(memory, reading);
    while (reading->n_open > 0 && !reading->is_full && reading->body.len < reading->read->max_bytes) {
        struct lane *lane = lane_of(reading, block->log.channel);
        if (lane != NULL && !lane->range->at_end) {
            take_block(reading, lane, block);
            reading->n_open -= lane->range->at_end;
        }
        block = block->next;
    }
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

int bk_memory_read(const struct bk_memory *memory, struct bk_read *read)
{
    struct reading reading = {.read = read, .body = BB_BUF_INIT};
    read->n_events = 0;
    read->body = NULL;
    int r = bk_losses_begin(&reading.losses, read);
    reading.lanes = calloc(BB_MAX(read->n_ranges, 1), sizeof(*reading.lanes));
    r = reading.lanes == NULL ? BB_ENOMEM : r;
    if (r == 0) {
        walk(memory, &reading);
        r = read->losses.error;
    }
    r = r == 0 ? give_body(memory, &reading.body, &read->body) : r;
    bk_losses_end(&reading.losses);
    bb_buf_fini(&reading.body);
    free(reading.lanes);
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/read.h"

#include "proto/base/error.h"

#include "broker/backend/lmdb/txn.h"
#include "broker/backend/loss.h"

#include <stdlib.h>

/* --- groups --------------------------------------------------------------------------------------- */

int bk_group_add(struct bb_buf *list, const struct bk_record *record)
{
    struct bb_slice rest = record->blocks;
    struct bk_group_block block = {
        .channel = record->channel, .server = record->server, .flags = record->flags};
    int r = 0;
    while ((r = bk_record_next_block(&rest, &block.head, &block.events, &block.wire)) > 0) {
        bb_buf_append(list, &block, sizeof(block));
    }
    return r < 0 ? r : list->error;
}

static int compare_blocks(const void *a, const void *b)
{
    const struct bk_group_block *left = a;
    const struct bk_group_block *right = b;
    if (left->head.session != right->head.session) {
        return left->head.session < right->head.session ? -1 : 1;
    }
    return left->head.instance < right->head.instance ? -1 : left->head.instance > right->head.instance;
}

void bk_group_sort(struct bb_buf *list)
{
    size_t n = list->len / sizeof(struct bk_group_block);
    if (n > 1) {
        qsort(list->data, n, sizeof(struct bk_group_block), compare_blocks);
    }
}

/* --- reading on ----------------------------------------------------------------------------------- */

/* A range while it is read. */
struct lane {
    struct bk_read_range *range;
    size_t index;      /* of the range */
    uint64_t position; /* of the record that comes next, UINT64_MAX: none */
    uint64_t last;     /* the newest sequence in the store */
    bool wants_all;    /* whatever the path */
};

struct reading {
    struct bk_store *store;
    MDB_txn *txn;
    struct bk_read *read;
    struct bk_losses losses;
    struct bk_meter *meter;
    struct lane *lanes; /* by channel */
    struct lane **heap; /* those that have a next record, the one at the lowest position first */
    size_t n_heap;
    struct bb_buf group;
    struct bb_buf body;
    bool is_full; /* the next block would not fit */
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

/* Find the next record of a lane. */
static int lane_next(struct reading *reading, struct lane *lane)
{
    struct bk_read_range *range = lane->range;
    struct bk_place place;
    uint64_t first = 0;
    lane->position = UINT64_MAX;
    range->at_end = range->at_end || range->reached >= range->stop;
    if (range->at_end) {
        return 0;
    }
    int r = bk_store_find(reading->store, reading->txn, range->channel, range->reached + 1, &first, &place);
    if (r == BB_ENOTFOUND) { /* what is up to the newest sequence has been looked at or is gone */
        skip_to(reading, lane, lane->last);
        range->at_end = true;
        return 0;
    }
    if (r == 0 && first > range->stop) {
        skip_to(reading, lane, range->stop);
        range->at_end = true;
    } else if (r == 0) {
        lane->position = place.position;
    }
    return r;
}

/* Whether some pattern matches every path of the channel. */
static bool wants_all(const struct bk_filter *filter, struct bb_slice name)
{
    size_t n = filter != NULL && filter->set != NULL ? bb_pattern_set_count(filter->set) : 0;
    for (size_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_pattern_set_get(filter->set, i);
        bool all = pattern.len == 1 && pattern.data[0] == '*';
        bool channel = name.len > 0 && pattern.len == name.len + 2 &&
                       memcmp(pattern.data, name.data, name.len) == 0 &&
                       memcmp(pattern.data + name.len, "/*", 2) == 0;
        if (all || channel) {
            return true;
        }
    }
    return filter == NULL || filter->set == NULL;
}

static int lane_begin(struct reading *reading, struct lane *lane)
{
    struct bk_log_channel channel;
    struct bk_read_range *range = lane->range;
    range->reached = range->after;
    range->events = range->bytes = 0;
    range->at_end = false;
    lane->position = UINT64_MAX;
    int r = bk_store_channel(reading->store, reading->txn, range->channel, &channel);
    if (r == BB_ENOTFOUND || (r == 0 && channel.removed)) {
        skip_to(reading, lane, range->stop == BK_NO_LIMIT ? range->after : range->stop);
        range->first = range->reached + 1;
        range->at_end = true;
        return 0;
    }
    if (r < 0) {
        return r;
    }
    range->first = channel.first;
    lane->wants_all = wants_all(reading->read->filter, channel.name);
    lane->last = channel.last;
    skip_to(reading, lane, BB_MIN(channel.first, channel.last + 1) - 1);
    return lane_next(reading, lane);
}

static void write_run(struct bb_buf *body,
                      const struct bb_block *block,
                      uint64_t first,
                      uint64_t count,
                      struct bb_slice events)
{
    struct bb_block head = *block;
    head.sequence += first;
    head.instance += first;
    head.count = count;
    head.length = events.len;
    uint8_t *to = bb_buf_reserve(body, BB_BLOCK_HEAD_MAX);
    if (to != NULL) {
        body->len += bb_block_write(to, &head);
    }
    bb_buf_append(body, events.data, events.len);
}

/* The events of a block that are wanted, as runs. */
static int take_some(struct reading *reading,
                     const struct bk_read_range *range,
                     const struct bk_group_block *block,
                     struct taken *taken)
{
    struct bb_slice rest = block->events;
    struct bb_slice run = {0};
    uint64_t run_first = 0;
    uint64_t run_count = 0;
    struct bb_event_view event;
    struct bb_slice path = {0};
    bool matches = false;
    for (uint64_t i = 0; i < block->head.count; i++) {
        uint64_t sequence = block->head.sequence + i;
        if (bb_event_read(&rest, &event) < 0) {
            return BB_ECORRUPT;
        }
        if (i == 0 || !bb_slice_equal(event.path, path)) {
            path = event.path;
            matches = bk_filter_matches(reading->read->filter, path);
        }
        bool wanted = matches && sequence > range->after && sequence <= range->stop;
        if (wanted && bb_event_has_expired(&event, block->head.time, reading->read->now)) {
            taken->first_expired = taken->expired++ == 0 ? sequence : taken->first_expired;
            taken->last_expired = sequence;
            wanted = false;
        }
        if (wanted) {
            run_first = run_count == 0 ? i : run_first;
            run = run_count == 0 ? event.raw : bb_slice(run.data, run.len + event.raw.len);
            run_count++;
            taken->events++;
            taken->bytes += event.raw.len;
        } else if (run_count > 0) {
            write_run(&reading->body, &block->head, run_first, run_count, run);
            run_count = 0;
        }
    }
    if (run_count > 0) {
        write_run(&reading->body, &block->head, run_first, run_count, run);
    }
    return reading->body.error;
}

static int put_block(struct reading *reading,
                     const struct lane *lane,
                     const struct bk_group_block *block,
                     struct taken *taken)
{
    const struct bk_read_range *range = lane->range;
    uint64_t last = block->head.sequence + block->head.count - 1;
    bool whole = block->head.sequence > range->after && last <= range->stop &&
                 (block->flags & BK_LOG_TTL) == 0 && lane->wants_all;
    if (!whole) {
        return take_some(reading, range, block, taken);
    }
    bb_buf_append(&reading->body, block->wire.data, block->wire.len);
    taken->events = block->head.count;
    taken->bytes = block->head.length;
    return reading->body.error;
}

/* The block is in the body: count it. */
static void count_block(struct reading *reading,
                        struct lane *lane,
                        const struct bk_group_block *block,
                        const struct taken *taken)
{
    struct bk_read_range *range = lane->range;
    skip_to(reading, lane, block->head.sequence - 1);
    bk_losses_expired(&reading->losses, lane->index, taken->first_expired, taken->last_expired,
                      taken->expired);
    range->events += taken->events;
    range->bytes += taken->bytes;
    reading->read->n_events += taken->events;
    range->reached = BB_MIN(block->head.sequence + block->head.count - 1, range->stop);
    range->at_end = range->reached == range->stop;
}

/* What does not fit behind something else is left for the next time. */
static int take_block(struct reading *reading, struct lane *lane, const struct bk_group_block *block)
{
    struct bk_read_range *range = lane->range;
    struct taken taken = {0};
    size_t len = reading->body.len;
    if (range->at_end || block->head.sequence + block->head.count - 1 <= range->reached) {
        return 0;
    }
    if (block->head.time > range->stop_time) {
        skip_to(reading, lane, block->head.sequence - 1);
        range->at_end = true;
        return 0;
    }
    reading->is_full = !bk_losses_have_room(&reading->losses, lane->index);
    int r = reading->is_full ? 0 : put_block(reading, lane, block, &taken);
    if (r == 0 && len > 0 && reading->body.len > reading->read->max_bytes) {
        reading->is_full = true;
    }
    if (r == 0 && reading->is_full) {
        reading->body.len = len;
    } else if (r == 0) {
        count_block(reading, lane, block, &taken);
    }
    return r;
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

static void heap_swap(struct reading *reading, size_t i, size_t k)
{
    struct lane *lane = reading->heap[i];
    reading->heap[i] = reading->heap[k];
    reading->heap[k] = lane;
}

static void heap_push(struct reading *reading, struct lane *lane)
{
    if (lane->position == UINT64_MAX) {
        return;
    }
    size_t i = reading->n_heap++;
    reading->heap[i] = lane;
    while (i > 0 && reading->heap[(i - 1) / 2]->position > reading->heap[i]->position) {
        heap_swap(reading, i, (i - 1) / 2);
        i = (i - 1) / 2;
    }
}

/* The first one goes behind the others. */
static void heap_pop(struct reading *reading)
{
    size_t n = --reading->n_heap;
    heap_swap(reading, 0, n);
    for (size_t i = 0, least = 0;; i = least) {
        for (size_t k = 2 * i + 1; k <= 2 * i + 2 && k < n; k++) {
            least = reading->heap[k]->position < reading->heap[least]->position ? k : least;
        }
        if (least == i) {
            return;
        }
        heap_swap(reading, i, least);
    }
}

/* The records at the lowest position of all lanes, into the group; their lanes are behind the heap then. */
static int gather_group(struct reading *reading)
{
    uint64_t position = reading->heap[0]->position;
    int r = 0;
    bb_buf_reset(&reading->group);
    while (r == 0 && reading->n_heap > 0 && reading->heap[0]->position == position) {
        struct bk_record record;
        r = bk_store_record(reading->store, reading->txn, position, reading->heap[0]->range->channel,
                            &record);
        r = r == 0 ? bk_group_add(&reading->group, &record) : r;
        heap_pop(reading);
    }
    bk_group_sort(&reading->group);
    return r;
}

/* Return: 1, 0 when there is no more, or an error. */
static int take_group(struct reading *reading)
{
    size_t end = reading->n_heap;
    if (end == 0) {
        return 0;
    }
    int r = gather_group(reading);
    const struct bk_group_block *blocks = (const struct bk_group_block *)(const void *)reading->group.data;
    for (size_t i = 0; i < reading->group.len / sizeof(*blocks) && r == 0 && !reading->is_full; i++) {
        struct lane *lane = lane_of(reading, blocks[i].channel);
        r = lane != NULL ? take_block(reading, lane, &blocks[i]) : BB_ECORRUPT;
    }
    for (size_t i = reading->n_heap; i < end && r == 0 && !reading->is_full; i++) {
        struct lane *lane = reading->heap[i];
        r = lane_next(reading, lane);
        heap_push(reading, lane); /* never beyond i */
    }
    return r < 0 ? r : 1;
}

static int begin(struct reading *reading)
{
    int r = 0;
    for (size_t i = 0; i < reading->read->n_ranges; i++) {
        reading->lanes[i].range = &reading->read->ranges[i];
        reading->lanes[i].index = i;
    }
    qsort(reading->lanes, reading->read->n_ranges, sizeof(*reading->lanes), compare_lanes);
    for (size_t i = 0; i < reading->read->n_ranges && r == 0; i++) {
        r = lane_begin(reading, &reading->lanes[i]);
        heap_push(reading, &reading->lanes[i]);
    }
    return r;
}

static int read_on(struct reading *reading)
{
    int r = begin(reading);
    size_t n_groups = 0;
    while (r == 0 && !reading->is_full && reading->body.len < reading->read->max_bytes && n_groups++ < 256) {
        r = take_group(reading);
        if (r == 0) {
            break;
        }
        r = r > 0 ? 0 : r;
    }
    r = r == 0 ? reading->read->losses.error : r;
    if (r < 0 || reading->body.len == 0) {
        return r;
    }
    reading->read->body = bk_bytes_new(reading->meter, reading->body.len);
    if (reading->read->body == NULL) {
        return BB_ENOMEM;
    }
    memcpy(reading->read->body->data, reading->body.data, reading->body.len);
    reading->read->body->len = reading->body.len;
    return 0;
}

int bk_lmdb_read(struct bk_store *store, struct bk_read *read, struct bk_meter *meter)
{
    struct reading reading = {.store = store, .read = read, .meter = meter};
    read->n_events = 0;
    read->body = NULL;
    reading.lanes = calloc(BB_MAX(read->n_ranges, 1), sizeof(*reading.lanes));
    reading.heap = calloc(BB_MAX(read->n_ranges, 1), sizeof(struct lane *));
    int r = bk_losses_begin(&reading.losses, read);
    r = reading.lanes == NULL || reading.heap == NULL ? BB_ENOMEM : r;
    r = r == 0 ? bk_store_begin(store, &reading.txn) : r;
    if (r == 0) {
        r = read_on(&reading);
        bk_store_end(reading.txn);
    }
    bk_losses_end(&reading.losses);
    bb_buf_fini(&reading.group);
    bb_buf_fini(&reading.body);
    free(reading.lanes);
    free(reading.heap);
    return r;
}

/* --- finding places ------------------------------------------------------------------------------- */

/* Whether an event of the block is at or behind what is looked for; its index. */
static bool
is_behind(const struct bk_locate *locate, uint64_t server, const struct bb_block *head, uint64_t *ret_index)
{
    *ret_index = 0;
    if (locate->kind == BK_LOCATE_TIME) {
        return head->time >= locate->time;
    }
    if (server != locate->id.server || head->session > locate->id.session) {
        return server == locate->id.server;
    }
    uint64_t last = head->instance + head->count - 1;
    if (head->session == locate->id.session && last > locate->id.instance) {
        *ret_index = locate->id.instance >= head->instance ? locate->id.instance - head->instance + 1 : 0;
        return true;
    }
    return false;
}

/* What a search has found. */
struct found {
    uint64_t behind; /* the first event at or behind what is looked for, 0: none */
    uint64_t before; /* the newest event before it that is kept, 0: none */
};

static bool
record_is_behind(const struct bk_locate *locate, const struct bk_record *record, struct found *found)
{
    struct bb_slice rest = record->blocks;
    struct bb_block head = {0};
    uint64_t index = 0;
    while (bk_record_next_block(&rest, &head, NULL, NULL) > 0) {
        bool is_found = is_behind(locate, record->server, &head, &index);
        uint64_t before = is_found ? index : head.count;
        found->before = before > 0 ? BB_MAX(found->before, head.sequence + before - 1) : found->before;
        if (is_found) {
            found->behind = head.sequence + index;
            return true;
        }
    }
    return false;
}

/* Times and ids rise with sequences, so the first record that has one behind is found by halving. */
static int search(struct bk_store *store,
                  MDB_txn *txn,
                  const struct bk_locate *locate,
                  const struct bk_log_channel *channel,
                  struct found *found)
{
    uint64_t low = channel->first;
    uint64_t high = channel->last + 1; /* nothing before low is behind; high is, or is the end */
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        uint64_t first = 0;
        struct bk_place place;
        struct bk_record record = {0};
        int r = bk_store_find(store, txn, channel->id, middle, &first, &place);
        if (r == BB_ENOTFOUND) {
            high = middle;
            continue;
        }
        r = r == 0 ? bk_store_record(store, txn, place.position, channel->id, &record) : r;
        if (r < 0) {
            return r;
        }
        if (record_is_behind(locate, &record, found)) {
            high = BB_MIN(middle, first);
        } else {
            low = place.last + 1;
        }
    }
    return 0;
}

/* Behind an id is also what is not kept any more. */
static uint64_t
sequence_of(const struct bk_locate *locate, const struct bk_log_channel *channel, const struct found *found)
{
    bool is_end = found->behind == 0 && (found->before > 0 || channel->last == 0);
    return locate->kind != BK_LOCATE_ID || is_end ? found->behind : found->before + 1;
}

/* The newest event of a record that @filter wants, 0 if there is none. */
static uint64_t newest_wanted(const struct bk_record *record, const struct bk_filter *filter)
{
    struct bb_slice rest = record->blocks;
    struct bb_slice events = {0};
    struct bb_block head = {0};
    uint64_t found = 0;
    while (bk_record_next_block(&rest, &head, &events, NULL) > 0) {
        struct bb_event_view event;
        for (uint64_t i = 0; i < head.count && bb_event_read(&events, &event) == 0; i++) {
            found = bk_filter_matches(filter, event.path) ? head.sequence + i : found;
        }
    }
    return found;
}

/* The newest event that matches: records from the newest on. */
static int search_last(struct bk_store *store,
                       MDB_txn *txn,
                       const struct bk_locate *locate,
                       uint32_t channel,
                       uint64_t *ret_sequence)
{
    MDB_cursor *cursor = NULL;
    MDB_val value;
    uint8_t bytes[BK_KEY_SEQUENCE];
    MDB_val key = {sizeof(bytes), bytes};
    int r = bk_mdb_error(mdb_cursor_open(txn, store->tables.by_sequence, &cursor));
    if (r < 0) {
        return r;
    }
    bk_key_sequence(bytes, channel, UINT64_MAX);
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    rc = mdb_cursor_get(cursor, &key, &value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    for (; r == 0 && rc == 0 && *ret_sequence == 0 && bk_get_u32(key.mv_data) == channel;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_PREV)) {
        struct bk_place place;
        struct bk_record record;
        r = bk_place_read(bb_slice(key.mv_data, key.mv_size), bb_slice(value.mv_data, value.mv_size), &place);
        r = r == 0 ? bk_store_record(store, txn, place.position, channel, &record) : r;
        if (r == 0) {
            *ret_sequence = newest_wanted(&record, locate->filter);
        }
    }
    mdb_cursor_close(cursor);
    return r;
}

static int
locate_in(struct bk_store *store, MDB_txn *txn, struct bk_locate *locate, struct bk_locate_place *place)
{
    struct bk_log_channel channel;
    struct bk_latest latest;
    place->sequence = place->last = 0;
    int r = bk_store_channel(store, txn, place->channel, &channel);
    if (r < 0 || channel.removed) {
        return r == BB_ENOTFOUND ? 0 : r;
    }
    place->last = channel.last;
    if (locate->kind == BK_LOCATE_PATH) {
        r = bk_store_latest(store, txn, place->channel, locate->path, &latest);
        place->sequence = r == 0 ? latest.sequence : 0;
        return r == BB_ENOTFOUND ? 0 : r;
    }
    if (locate->kind == BK_LOCATE_LAST) {
        return search_last(store, txn, locate, place->channel, &place->sequence);
    }
    struct found found = {0};
    r = search(store, txn, locate, &channel, &found);
    place->sequence = r == 0 ? sequence_of(locate, &channel, &found) : 0;
    return r;
}

int bk_lmdb_locate(struct bk_store *store, struct bk_locate *locate)
{
    MDB_txn *txn = NULL;
    int r = bk_store_begin(store, &txn);
    for (size_t i = 0; i < locate->n_places && r == 0; i++) {
        r = locate_in(store, txn, locate, &locate->places[i]);
    }
    bk_store_end(txn);
    return r;
}

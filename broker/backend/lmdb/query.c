/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/query.h"

#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/backend/find.h"
#include "broker/backend/lmdb/plan.h"
#include "broker/backend/lmdb/read.h"
#include "broker/backend/lmdb/txn.h"

#include <stdlib.h>

/* Rows of `paths` between two looks at the clock. */
#define ROWS_PER_LOOK 64

struct bk_search {
    struct bk_query *request;
    struct bk_find *find;
    struct bk_plan plan;
    struct bk_plan_range left; /* positions that are still to be looked at */
    size_t
        range_at;   /* of the plan's ranges: those before it are done, counted in the direction of the walk */
    size_t span_at; /* of the plan's spans */
    size_t after_len;
    uint8_t after[BK_KEY_MAX + 1]; /* the key in `paths` that was looked at last */
    bool is_planned;
    bool descending;
    struct bb_buf group;
    /* Of a step. */
    struct bk_store *store;
    MDB_txn *txn;
    uint64_t deadline;
};

int bk_search_new(struct bk_query *request, struct bk_search **ret_search)
{
    struct bk_search *search = calloc(1, sizeof(*search));
    if (search == NULL) {
        return BB_ENOMEM;
    }
    search->request = request;
    request->body = NULL;
    request->n_events = 0;
    request->more = false;
    int r = bk_find_new(request, &search->find);
    if (r < 0) {
        bk_search_free(search);
        return r;
    }
    search->descending = bk_find_is_descending(search->find);
    *ret_search = search;
    return 0;
}

void bk_search_free(struct bk_search *search)
{
    if (search == NULL) {
        return;
    }
    bk_find_free(search->find);
    bk_plan_fini(&search->plan);
    bb_buf_fini(&search->group);
    free(search);
}

static bool is_late(const struct bk_search *search)
{
    return (uint64_t)bb_clock_monotonic_us() >= search->deadline;
}

/* --- the latest events -------------------------------------------------------------------------------- */

static int look_at_latest(struct bk_search *search, const MDB_val *key, const MDB_val *value)
{
    struct bk_latest latest;
    struct bb_slice row = bb_slice(key->mv_data, key->mv_size);
    if (!bk_is_whole(*key) || !bk_is_whole(*value) || row.len < BK_KEY_CHANNEL) {
        return BB_ECORRUPT;
    }
    if (!bk_find_wants_path(search->find, bb_slice(row.data + BK_KEY_CHANNEL, row.len - BK_KEY_CHANNEL))) {
        return 0;
    }
    int r = bk_latest_decode(row, bb_slice(value->mv_data, value->mv_size), &latest);
    if (r < 0) {
        return r;
    }
    const struct bb_block head = {
        .session = latest.session,
        .time = latest.time,
        .source = latest.source,
        .sequence = latest.sequence,
        .instance = latest.instance,
        .count = 1,
        .length = latest.event.len,
    };
    return bk_find_latest(search->find, latest.server, &head, latest.event);
}

/* Where the rows of a span go on: behind what was looked at, and behind the path to page after. */
static size_t
span_begin(struct bk_search *search, const struct bk_plan_span *span, uint8_t key[BK_KEY_MAX + 1])
{
    size_t len = bk_plan_span_key(span, key);
    if (search->after_len > 0) {
        memcpy(key, search->after, search->after_len);
        return search->after_len;
    }
    struct bb_slice after = search->request->query->after_path;
    size_t n = BB_MIN(len - BK_KEY_CHANNEL, after.len);
    int r = n > 0 ? memcmp(after.data, key + BK_KEY_CHANNEL, n) : 0;
    if (r > 0 || (r == 0 && after.len > len - BK_KEY_CHANNEL)) {
        memcpy(key + BK_KEY_CHANNEL, after.data, after.len);
        len = BK_KEY_CHANNEL + after.len;
    }
    return len;
}

/* Return: 0 the span is done, 1 the answer is, 2 it is late, or an error. */
static int walk_span(struct bk_search *search, MDB_cursor *cursor, const struct bk_plan_span *span)
{
    uint8_t from[BK_KEY_MAX + 1];
    uint8_t prefix[BK_KEY_MAX + 1];
    size_t prefix_len = bk_plan_span_key(span, prefix);
    MDB_val key = {span_begin(search, span, from), from};
    MDB_val value;
    size_t n = 0;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (rc == 0 && search->after_len > 0 && key.mv_size == search->after_len &&
        memcmp(key.mv_data, search->after, search->after_len) == 0) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        bool is_in = key.mv_size >= prefix_len && memcmp(key.mv_data, prefix, prefix_len) == 0;
        if (!is_in || (!span->is_below && key.mv_size > prefix_len)) {
            return 0;
        }
        int r = look_at_latest(search, &key, &value);
        if (r != 0) {
            return r;
        }
        if (++n % ROWS_PER_LOOK == 0 && is_late(search)) {
            memcpy(search->after, key.mv_data, key.mv_size);
            search->after_len = key.mv_size;
            return 2;
        }
    }
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

static int walk_spans(struct bk_search *search)
{
    const struct bk_plan_span *spans = (const struct bk_plan_span *)(const void *)search->plan.spans.data;
    size_t n = search->plan.spans.len / sizeof(*spans);
    MDB_cursor *cursor = NULL;
    int r = bk_mdb_error(mdb_cursor_open(search->txn, search->store->tables.paths, &cursor));
    if (r < 0) {
        return r;
    }
    while (r == 0 && search->span_at < n) {
        r = walk_span(search, cursor, &spans[search->span_at]);
        if (r == 0) {
            search->span_at++;
            search->after_len = 0;
            r = search->span_at < n && search->span_at % ROWS_PER_LOOK == 0 && is_late(search) ? 2 : 0;
        }
    }
    mdb_cursor_close(cursor);
    return r == 2 ? 1 : BB_MIN(r, 0);
}

/* --- groups ------------------------------------------------------------------------------------------- */

/* The position is done: look at its blocks. Return: 0 go on, 1 the answer is complete, or an error. */
static int look_at_group(struct bk_search *search, uint64_t position)
{
    bk_group_sort(&search->group);
    size_t n = search->group.len / sizeof(struct bk_group_block);
    const struct bk_group_block *blocks = (const struct bk_group_block *)(const void *)search->group.data;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct bk_group_block *block = search->descending ? &blocks[n - 1 - i] : &blocks[i];
        r = bk_find_block(search->find, block->server, &block->head, block->events);
    }
    bb_buf_reset(&search->group);
    if (search->descending) {
        search->left.high = position - 1;
    } else {
        search->left.low = position + 1;
    }
    return r;
}

/* --- all records within positions ------------------------------------------------------------------ */

/* The first record of the walk. Return: an LMDB code. */
static int seek(const struct bk_search *search,
                MDB_cursor *cursor,
                const struct bk_plan_range *range,
                MDB_val *key,
                MDB_val *value)
{
    uint8_t from[BK_KEY_RECORD];
    bk_key_record(from, search->descending ? range->high + 1 : range->low, 0);
    *key = (MDB_val){sizeof(from), from};
    int rc = mdb_cursor_get(cursor, key, value, MDB_SET_RANGE);
    if (search->descending && (rc == 0 || rc == MDB_NOTFOUND)) {
        rc = mdb_cursor_get(cursor, key, value, rc == 0 ? MDB_PREV : MDB_LAST);
    }
    return rc;
}

static int take_row(struct bk_search *search, const MDB_val *key, const MDB_val *value)
{
    struct bk_record record;
    if (bk_plan_channel(&search->plan, bk_get_u32((const uint8_t *)key->mv_data + 8)) == NULL) {
        return 0;
    }
    int r = bk_is_whole(*value) ? bk_record_decode(bb_slice(key->mv_data, key->mv_size),
                                                   bb_slice(value->mv_data, value->mv_size), &record)
                                : BB_ECORRUPT;
    return r == 0 ? bk_group_add(&search->group, &record) : r;
}

/* All records of the position at which the cursor stands; then it stands behind them. An LMDB code in @rc. */
static int take_rows(struct bk_search *search, MDB_cursor *cursor, MDB_val *key, MDB_val *value, int *rc)
{
    uint64_t position = bk_get_u64(key->mv_data);
    int r = 0;
    while (r == 0 && *rc == 0 && bk_get_u64(key->mv_data) == position) {
        r = take_row(search, key, value);
        *rc = mdb_cursor_get(cursor, key, value, search->descending ? MDB_PREV : MDB_NEXT);
        if (*rc == 0 && (!bk_is_whole(*key) || key->mv_size != BK_KEY_RECORD)) {
            r = BB_ECORRUPT;
        }
    }
    return r;
}

/* Return: 0 the range is done, 1 the answer is, 2 it is late, or an error. */
static int walk_range(struct bk_search *search, MDB_cursor *cursor, const struct bk_plan_range *range)
{
    MDB_val key;
    MDB_val value;
    int rc = seek(search, cursor, range, &key, &value);
    if (rc == 0 && (!bk_is_whole(key) || key.mv_size != BK_KEY_RECORD)) {
        return BB_ECORRUPT;
    }
    while (rc == 0) {
        uint64_t position = bk_get_u64(key.mv_data);
        if (position < range->low || position > range->high) {
            return 0;
        }
        int r = take_rows(search, cursor, &key, &value, &rc);
        r = r == 0 ? look_at_group(search, position) : r;
        if (r != 0) {
            return r;
        }
        if (is_late(search)) {
            return 2;
        }
    }
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

static int walk_ranges(struct bk_search *search)
{
    const struct bk_plan_range *ranges = (const struct bk_plan_range *)(const void *)search->plan.ranges.data;
    size_t n = search->plan.has_ranges ? search->plan.ranges.len / sizeof(*ranges) : 1;
    MDB_cursor *cursor = NULL;
    int r = bk_mdb_error(mdb_cursor_open(search->txn, search->store->tables.records, &cursor));
    if (r < 0) {
        return r;
    }
    for (; r == 0 && search->range_at < n; search->range_at += r == 0) {
        struct bk_plan_range range = search->left;
        if (search->plan.has_ranges) {
            const struct bk_plan_range *next =
                &ranges[search->descending ? n - 1 - search->range_at : search->range_at];
            range.low = BB_MAX(range.low, next->low);
            range.high = BB_MIN(range.high, next->high);
        }
        r = range.low <= range.high ? walk_range(search, cursor, &range) : 0;
        if (r == 0 && search->range_at + 1 < n && is_late(search)) {
            search->range_at++;
            r = 2;
        }
    }
    mdb_cursor_close(cursor);
    return r == 2 ? 1 : BB_MIN(r, 0);
}

/* --- lanes, merged --------------------------------------------------------------------------------- */

/* A lane of the plan while it is walked. */
struct lane {
    const struct bk_plan_lane *plan;
    uint64_t first;    /* sequence at which the row begins */
    uint64_t position; /* 0: there is none */
};

struct lanes {
    struct bk_search *search;
    MDB_cursor *by_path;
    MDB_cursor *by_sequence;
    struct lane *all;
    size_t n;
};

static size_t lane_key(const struct bk_plan_lane *lane, uint64_t sequence, uint8_t key[BK_KEY_BY_PATH])
{
    if (lane->is_path) {
        bk_key_pair(key, lane->path_id, sequence);
        return BK_KEY_BY_PATH;
    }
    bk_key_sequence(key, lane->channel, sequence);
    return BK_KEY_SEQUENCE;
}

/* The first row at or behind @sequence, or (@before) the last one before it. position 0: there is none. */
static int lane_row(const struct lanes *lanes, struct lane *lane, uint64_t sequence, bool before)
{
    MDB_cursor *cursor = lane->plan->is_path ? lanes->by_path : lanes->by_sequence;
    uint8_t from[BK_KEY_BY_PATH];
    size_t len = lane_key(lane->plan, sequence, from);
    MDB_val key = {len, from};
    MDB_val value;
    lane->position = 0;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (before && (rc == 0 || rc == MDB_NOTFOUND)) {
        rc = mdb_cursor_get(cursor, &key, &value, rc == 0 ? MDB_PREV : MDB_LAST);
    }
    if (rc != 0) {
        return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
    }
    if (!bk_is_whole(key) || !bk_is_whole(value) || key.mv_size < 8 || value.mv_size < 8) {
        return BB_ECORRUPT;
    }
    if (key.mv_size == len && memcmp(key.mv_data, from, len - 8) == 0) {
        lane->first = bk_get_u64((const uint8_t *)key.mv_data + len - 8);
        lane->position = bk_get_u64(value.mv_data); /* both values begin with it */
    }
    return 0;
}

/* The first row whose position is not below @position; behind @last, position 0, if there is none. */
static int lane_find(const struct lanes *lanes, struct lane *lane, uint64_t position)
{
    uint64_t low = 0;
    uint64_t high = lane->plan->last + 1;
    struct lane found = {lane->plan, high, 0};
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        int r = lane_row(lanes, lane, middle, false);
        if (r < 0) {
            return r;
        }
        if (lane->position == 0) {
            high = middle;
        } else if (lane->position >= position) {
            found = *lane;
            high = middle;
        } else {
            low = lane->first + 1;
        }
    }
    *lane = found;
    return 0;
}

static int lane_begin(const struct lanes *lanes, struct lane *lane)
{
    const struct bk_search *search = lanes->search;
    if (!search->descending) {
        return lane_find(lanes, lane, search->left.low);
    }
    int r = lane_find(lanes, lane, search->left.high + 1);
    return r == 0 ? lane_row(lanes, lane, lane->first, true) : r;
}

static int lane_next(const struct lanes *lanes, struct lane *lane)
{
    bool descending = lanes->search->descending;
    return lane_row(lanes, lane, descending ? lane->first : lane->first + 1, descending);
}

/* The next position of all lanes, 0 if there is none within the bounds. */
static uint64_t next_position(const struct lanes *lanes)
{
    const struct bk_plan_range *left = &lanes->search->left;
    uint64_t next = 0;
    for (size_t i = 0; i < lanes->n; i++) {
        uint64_t position = lanes->all[i].position;
        bool is_in = position != 0 && position >= left->low && position <= left->high;
        if (is_in && (next == 0 || (position > next) == lanes->search->descending)) {
            next = position;
        }
    }
    return next;
}

/* The records at @position, and the lanes that stand there one row further. */
static int take_position(const struct lanes *lanes, uint64_t position)
{
    struct bk_search *search = lanes->search;
    const struct bk_plan_lane *before = NULL;
    int r = 0;
    for (size_t i = 0; i < lanes->n && r == 0; i++) {
        struct lane *lane = &lanes->all[i];
        struct bk_record record;
        if (lane->position != position) {
            continue;
        }
        if (before == NULL || before->channel != lane->plan->channel) {
            r = bk_store_record(search->store, search->txn, position, lane->plan->channel, &record);
            r = r == 0 ? bk_group_add(&search->group, &record) : r == BB_ENOTFOUND ? 0 : r;
        }
        before = lane->plan;
        r = r == 0 ? lane_next(lanes, lane) : r;
    }
    return r;
}

static int lanes_open(struct lanes *lanes)
{
    struct bk_search *search = lanes->search;
    const struct bk_plan_lane *plan = (const struct bk_plan_lane *)(const void *)search->plan.lanes.data;
    lanes->n = search->plan.lanes.len / sizeof(*plan);
    lanes->all = calloc(lanes->n, sizeof(*lanes->all));
    if (lanes->all == NULL) {
        return BB_ENOMEM;
    }
    int rc = mdb_cursor_open(search->txn, search->store->tables.by_path, &lanes->by_path);
    if (rc == 0) {
        rc = mdb_cursor_open(search->txn, search->store->tables.by_sequence, &lanes->by_sequence);
    }
    int r = bk_mdb_error(rc);
    for (size_t i = 0; i < lanes->n && r == 0; i++) {
        lanes->all[i].plan = &plan[i];
        r = lane_begin(lanes, &lanes->all[i]);
    }
    return r;
}

static void lanes_close(struct lanes *lanes)
{
    if (lanes->by_path != NULL) {
        mdb_cursor_close(lanes->by_path);
    }
    if (lanes->by_sequence != NULL) {
        mdb_cursor_close(lanes->by_sequence);
    }
    free(lanes->all);
}

static int walk_lanes(struct bk_search *search)
{
    struct lanes lanes = {.search = search};
    int r = lanes_open(&lanes);
    while (r == 0) {
        uint64_t position = next_position(&lanes);
        if (position == 0) {
            break;
        }
        r = take_position(&lanes, position);
        r = r == 0 ? look_at_group(search, position) : r;
        if (r == 0 && is_late(search)) {
            r = 2;
        }
    }
    lanes_close(&lanes);
    return r == 2 ? 1 : BB_MIN(r, 0);
}

/* --------------------------------------------------------------------------------------------------- */

static int plan(struct bk_search *search)
{
    if (search->is_planned) {
        return 0;
    }
    int r = bk_plan_init(&search->plan, search->store, search->txn, search->request->query, search->find);
    search->left = search->plan.bounds;
    search->is_planned = true;
    return r;
}

int bk_search_step(struct bk_search *search, struct bk_store *store, uint64_t deadline)
{
    search->store = store;
    search->deadline = deadline;
    int r = bk_store_begin(store, &search->txn);
    if (r < 0) {
        return r;
    }
    r = plan(search);
    if (r == 0 && search->request->query->kind == BB_QUERY_LATEST) {
        r = walk_spans(search);
    } else if (r == 0 && search->left.low <= search->left.high) {
        r = search->plan.lanes.len > 0 ? walk_lanes(search) : walk_ranges(search);
    }
    bk_store_end(search->txn);
    search->txn = NULL;
    return r;
}

int bk_search_end(struct bk_search *search, struct bk_meter *meter)
{
    return bk_find_end(search->find, search->request, meter);
}

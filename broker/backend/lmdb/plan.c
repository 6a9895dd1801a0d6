/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/plan.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "broker/backend/lmdb/row.h"
#include "broker/backend/lmdb/txn.h"

#include <stdlib.h>

/* Paths that are looked at to find the few that are wanted. */
#define PATHS_MAX 4096

/* Positions that an index may name. */
#define POSITIONS_MAX ((size_t)1 << 20)

struct planner {
    struct bk_plan *plan;
    struct bk_store *store;
    MDB_txn *txn;
    const struct bb_query *query;
    const struct bk_find *find;
    const struct bk_filter *filter; /* its paths */
    size_t n_kept;                  /* channels, wanted or not */
    size_t n_looked_at;
    struct bb_buf list; /* being made */
    struct bb_buf names;
};

/* --- channels and spans ----------------------------------------------------------------------------- */

/* Text of a pattern before its first wildcard segment, without the slash between them. */
static struct bb_slice literal_of(struct bb_slice pattern, struct bb_slice *ret_wildcard)
{
    *ret_wildcard = bb_slice(NULL, 0);
    for (size_t at = 0; bb_path_has_segment(pattern, at);) {
        struct bb_slice segment = bb_path_segment(pattern, at);
        if (bb_segment_is(segment, '?') || bb_segment_is(segment, '*')) {
            *ret_wildcard = segment;
            return bb_slice(pattern.data, at > 0 ? at - 1 : 0);
        }
        at += segment.len + 1;
    }
    return pattern;
}

static bool begins_wild(struct bb_slice pattern)
{
    struct bb_slice first = bb_path_channel(pattern);
    return bb_segment_is(first, '?') || bb_segment_is(first, '*');
}

static size_t n_patterns(const struct planner *planner)
{
    return planner->filter->set != NULL ? bb_pattern_set_count(planner->filter->set) : 0;
}

static bool is_channel_wanted(const struct planner *planner, struct bb_slice name)
{
    for (size_t i = 0; i < n_patterns(planner); i++) {
        struct bb_slice pattern = bb_pattern_set_get(planner->filter->set, i);
        if (begins_wild(pattern) || bb_slice_equal(bb_path_channel(pattern), name)) {
            return true;
        }
    }
    return planner->filter->set == NULL;
}

static int add_channel(void *to, struct bb_slice key, struct bb_slice value)
{
    struct planner *planner = to;
    struct bk_log_channel info;
    int r = bk_channel_decode(key, value, &info);
    if (r < 0 || info.removed) {
        return r;
    }
    planner->n_kept++;
    if (!bk_find_wants_channel(planner->find, info.id) || !is_channel_wanted(planner, info.name)) {
        return 0;
    }
    struct bk_plan_channel channel = {.id = info.id, .last = info.last, .name = {NULL, info.name.len}};
    bb_buf_append(&planner->list, &channel, sizeof(channel));
    bb_buf_append(&planner->names, info.name.data, info.name.len);
    return planner->list.error != 0 ? planner->list.error : planner->names.error;
}

static int plan_channels(struct planner *planner)
{
    struct bk_plan *plan = planner->plan;
    int r =
        bk_each_row(planner->txn, planner->store->tables.channels, bb_slice(NULL, 0), add_channel, planner);
    plan->names = planner->names.data;
    plan->channels = (struct bk_plan_channel *)(void *)planner->list.data;
    plan->n_channels = planner->list.len / sizeof(struct bk_plan_channel);
    const uint8_t *name = plan->names;
    for (size_t i = 0; i < plan->n_channels && name != NULL; i++) {
        plan->channels[i].name.data = name;
        name += plan->channels[i].name.len;
    }
    planner->list = planner->names = (struct bb_buf)BB_BUF_INIT;
    return r;
}

const struct bk_plan_channel *bk_plan_channel(const struct bk_plan *plan, uint32_t id)
{
    size_t low = 0;
    size_t high = plan->n_channels;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (plan->channels[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < plan->n_channels && plan->channels[low].id == id ? &plan->channels[low] : NULL;
}

size_t bk_plan_span_key(const struct bk_plan_span *span, uint8_t key[BK_KEY_MAX + 1])
{
    size_t len = BB_MIN(span->path.len, (size_t)BK_KEY_MAX - BK_KEY_CHANNEL);
    uint8_t *at = bk_put_u32(key, span->channel);
    if (len > 0) {
        memcpy(at, span->path.data, len);
    }
    if (span->is_below) {
        at[len++] = '/';
    }
    return BK_KEY_CHANNEL + len;
}

/* By the text of the rows, whatever the channel: paths of one channel have a beginning of their own. What may
 * cover others comes before those with the same text: "a/" is a row of its own, and one of those below "a". */
static int compare_spans(const void *a, const void *b)
{
    uint8_t left[BK_KEY_MAX + 1];
    uint8_t right[BK_KEY_MAX + 1];
    size_t n = bk_plan_span_key(a, left) - BK_KEY_CHANNEL;
    size_t m = bk_plan_span_key(b, right) - BK_KEY_CHANNEL;
    int r = memcmp(left + BK_KEY_CHANNEL, right + BK_KEY_CHANNEL, BB_MIN(n, m));
    r = r != 0 ? r : (n > m) - (n < m);
    bool left_is_below = ((const struct bk_plan_span *)a)->is_below;
    return r != 0 ? r : (int)((const struct bk_plan_span *)b)->is_below - (int)left_is_below;
}

static bool covers(const struct bk_plan_span *span, const struct bk_plan_span *other)
{
    uint8_t outer[BK_KEY_MAX + 1];
    uint8_t inner[BK_KEY_MAX + 1];
    size_t n = bk_plan_span_key(span, outer);
    size_t m = bk_plan_span_key(other, inner);
    return n <= m && memcmp(outer, inner, n) == 0 && (span->is_below || (n == m && !other->is_below));
}

static void add_span(struct planner *planner, uint32_t channel, struct bb_slice path, bool is_below)
{
    const struct bk_plan_span span = {channel, is_below, path};
    bb_buf_append(&planner->plan->spans, &span, sizeof(span));
}

static int compare_names(const void *a, const void *b)
{
    struct bb_slice left = ((const struct bk_plan_channel *)a)->name;
    struct bb_slice right = ((const struct bk_plan_channel *)b)->name;
    size_t n = BB_MIN(left.len, right.len);
    int r = n > 0 ? memcmp(left.data, right.data, n) : 0;
    return r != 0 ? r : (left.len > right.len) - (left.len < right.len);
}

/* @by_name: the plan's channels. */
static void
add_pattern(struct planner *planner, const struct bk_plan_channel *by_name, struct bb_slice pattern)
{
    const struct bk_plan_channel wanted = {.name = bb_path_channel(pattern)};
    const struct bk_plan_channel *found =
        bsearch(&wanted, by_name, planner->plan->n_channels, sizeof(wanted), compare_names);
    struct bb_slice wildcard;
    struct bb_slice literal = literal_of(pattern, &wildcard);
    if (found == NULL) {
        return;
    }
    if (wildcard.len == 0 || bb_segment_is(wildcard, '*')) {
        add_span(planner, found->id, literal, false);
    }
    if (wildcard.len > 0) {
        add_span(planner, found->id, literal, true);
    }
}

/* Sort, and leave out what lies within another. */
static void tidy_spans(struct bb_buf *spans)
{
    struct bk_plan_span *all = (struct bk_plan_span *)(void *)spans->data;
    size_t n = spans->len / sizeof(*all);
    size_t kept = 0;
    if (n > 1) {
        qsort(all, n, sizeof(*all), compare_spans);
    }
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || !covers(&all[kept - 1], &all[i])) {
            all[kept++] = all[i];
        }
    }
    spans->len = kept * sizeof(*all);
}

static int plan_spans(struct planner *planner)
{
    struct bk_plan *plan = planner->plan;
    bool is_wild = planner->filter->set == NULL;
    for (size_t i = 0; i < n_patterns(planner) && !is_wild; i++) {
        is_wild = begins_wild(bb_pattern_set_get(planner->filter->set, i));
    }
    if (is_wild) {
        for (size_t i = 0; i < plan->n_channels; i++) {
            add_span(planner, plan->channels[i].id, plan->channels[i].name, false);
            add_span(planner, plan->channels[i].id, plan->channels[i].name, true);
        }
    } else if (plan->n_channels > 0) {
        struct bk_plan_channel *by_name = calloc(plan->n_channels, sizeof(*by_name));
        if (by_name == NULL) {
            return BB_ENOMEM;
        }
        memcpy(by_name, plan->channels, plan->n_channels * sizeof(*by_name));
        qsort(by_name, plan->n_channels, sizeof(*by_name), compare_names);
        for (size_t i = 0; i < n_patterns(planner); i++) {
            add_pattern(planner, by_name, bb_pattern_set_get(planner->filter->set, i));
        }
        free(by_name);
    }
    tidy_spans(&plan->spans);
    return plan->spans.error;
}

/* --- bounds ----------------------------------------------------------------------------------------- */

/* The position at the end of the first key at or behind @from, that begins with @prefix_len bytes of it, and
 * of the one before. 0: there is none. */
struct around {
    uint64_t at;
    uint64_t before;
};

static uint64_t position_in(const MDB_val *key, const uint8_t *from, size_t prefix_len, size_t len)
{
    bool is_it = key->mv_size == len && bk_is_whole(*key) && memcmp(key->mv_data, from, prefix_len) == 0;
    return is_it ? bk_get_u64((const uint8_t *)key->mv_data + len - 8) : 0;
}

static int look_around(struct planner *planner,
                       MDB_dbi dbi,
                       const uint8_t *from,
                       size_t prefix_len,
                       size_t len,
                       struct around *ret_around)
{
    MDB_cursor *cursor = NULL;
    MDB_val key = bk_val(bb_slice(from, len));
    MDB_val value;
    *ret_around = (struct around){0};
    int r = bk_mdb_error(mdb_cursor_open(planner->txn, dbi, &cursor));
    if (r < 0) {
        return r;
    }
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    if (rc == 0) {
        ret_around->at = position_in(&key, from, prefix_len, len);
    }
    if (rc == 0 || rc == MDB_NOTFOUND) {
        rc = mdb_cursor_get(cursor, &key, &value, rc == 0 ? MDB_PREV : MDB_LAST);
    }
    if (rc == 0) {
        ret_around->before = position_in(&key, from, prefix_len, len);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

static int around_time(struct planner *planner, uint64_t time, struct around *ret_around)
{
    uint8_t key[BK_KEY_TIME];
    bk_key_pair(key, time, 0);
    return look_around(planner, planner->store->tables.by_time, key, 0, sizeof(key), ret_around);
}

/* Positions that can have events of sessions of one server. */
static int sessions_range(struct planner *planner,
                          uint64_t server,
                          uint64_t first,
                          uint64_t last,
                          struct bk_plan_range *ret)
{
    uint8_t key[BK_KEY_SESSION];
    struct around low = {0};
    struct around high = {0};
    bk_key_session(key, server, first, 0);
    int r = look_around(planner, planner->store->tables.by_session, key, 8, sizeof(key), &low);
    bk_key_session(key, server, last, UINT64_MAX);
    if (r == 0) {
        r = look_around(planner, planner->store->tables.by_session, key, 8, sizeof(key), &high);
    }
    /* A group is filed under its first session: the one before may reach into these. */
    *ret = r < 0 || high.before == 0
               ? (struct bk_plan_range){1, 0}
               : (struct bk_plan_range){low.before != 0 ? low.before : low.at, high.before};
    return r;
}

static void narrow(struct bk_plan_range *bounds, uint64_t low, uint64_t high)
{
    bounds->low = BB_MAX(bounds->low, low);
    bounds->high = BB_MIN(bounds->high, high);
}

static int bound_times(struct planner *planner)
{
    const struct bb_query *query = planner->query;
    struct bk_plan_range *bounds = &planner->plan->bounds;
    struct around around;
    int r = 0;
    if (query->has_t_from && query->t_from > 0) {
        r = around_time(planner, (uint64_t)query->t_from, &around);
        narrow(bounds, r == 0 && around.at != 0 ? around.at : UINT64_MAX, UINT64_MAX);
    }
    if (r == 0 && query->has_t_to && query->t_to < 0) {
        narrow(bounds, 1, 0);
    } else if (r == 0 && query->has_t_to && query->t_to < INT64_MAX) {
        r = around_time(planner, (uint64_t)query->t_to + 1, &around);
        narrow(bounds, 0, around.at != 0 ? around.at : UINT64_MAX);
    }
    return r;
}

static int bound_sessions(struct planner *planner)
{
    const struct bb_query *query = planner->query;
    struct bk_plan_range *bounds = &planner->plan->bounds;
    struct bk_plan_range range = *bounds;
    int r = 0;
    if (query->has_server) {
        r = sessions_range(planner, query->server, query->has_session ? query->session : 0,
                           query->has_session ? query->session : UINT64_MAX, &range);
        narrow(bounds, range.low, range.high);
    }
    bool by_id = query->kind == BB_QUERY_SERVER ||
                 (query->kind == BB_QUERY_TIMESERIES && query->order_by == BB_ORDER_BY_TIME);
    if (r == 0 && query->has_after && by_id &&
        !query->unique_type) { /* else it has to be known what came before */
        bool up = query->kind == BB_QUERY_SERVER || query->order == BB_ORDER_ASCENDING;
        r = sessions_range(planner, query->after.server, up ? query->after.session : 0,
                           up ? UINT64_MAX : query->after.session, &range);
        bool is_empty = range.low > range.high;
        narrow(bounds, up || is_empty ? range.low : 0, up && !is_empty ? UINT64_MAX : range.high);
    }
    return r;
}

/* What comes while the query is at work is not its business. */
static int bound_end(struct planner *planner)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    int rc = mdb_cursor_open(planner->txn, planner->store->tables.records, &cursor);
    if (rc == 0) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_LAST);
        mdb_cursor_close(cursor);
    }
    if (rc == 0 && (!bk_is_whole(key) || key.mv_size != BK_KEY_RECORD)) {
        return BB_ECORRUPT;
    }
    narrow(&planner->plan->bounds, 0, rc == 0 ? bk_get_u64(key.mv_data) : 0);
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

/* --- ranges ----------------------------------------------------------------------------------------- */

static int compare_ranges(const void *a, const void *b)
{
    const struct bk_plan_range *left = a;
    const struct bk_plan_range *right = b;
    return left->low != right->low ? (left->low > right->low) - (left->low < right->low)
                                   : (left->high > right->high) - (left->high < right->high);
}

static void add_range(struct planner *planner, uint64_t low, uint64_t high)
{
    struct bk_plan_range range = planner->plan->bounds;
    narrow(&range, low, high);
    if (range.low <= range.high) {
        bb_buf_append(&planner->plan->ranges, &range, sizeof(range));
    }
}

/* Sort, and make one of those that touch. */
static void tidy_ranges(struct bb_buf *ranges)
{
    struct bk_plan_range *all = (struct bk_plan_range *)(void *)ranges->data;
    size_t n = ranges->len / sizeof(*all);
    size_t kept = 0;
    if (n > 1) {
        qsort(all, n, sizeof(*all), compare_ranges);
    }
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && all[i].low <= all[kept - 1].high + 1) {
            all[kept - 1].high = BB_MAX(all[kept - 1].high, all[i].high);
        } else {
            all[kept++] = all[i];
        }
    }
    ranges->len = kept * sizeof(*all);
}

static int plan_ids(struct planner *planner)
{
    struct bb_mp_reader reader = bb_mp_reader(planner->query->ids);
    uint64_t n = bb_mp_read_array(&reader);
    int r = 0;
    for (uint64_t i = 0; i < n && reader.error == 0 && r == 0; i++) {
        struct bk_plan_range range;
        (void)bb_mp_read_array(&reader);
        uint64_t server = bb_mp_read_uint(&reader);
        uint64_t session = bb_mp_read_uint(&reader);
        (void)bb_mp_read_uint(&reader);
        r = sessions_range(planner, server, session, session, &range);
        add_range(planner, range.low, range.high);
    }
    planner->plan->has_ranges = true;
    return r;
}

/* Positions of one channel with source times between two seconds. Return: 1 there are too many, 0, or an
 * error. */
static int add_buckets(struct planner *planner,
                       MDB_cursor *cursor,
                       uint32_t channel,
                       uint64_t low,
                       uint64_t high,
                       size_t max)
{
    uint8_t from[BK_KEY_SOURCE_TIME];
    bk_key_source_time(from, channel, low, 0);
    MDB_val key = bk_val(bb_slice(from, sizeof(from)));
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (!bk_is_whole(key) || key.mv_size != BK_KEY_SOURCE_TIME) {
            return BB_ECORRUPT;
        }
        const uint8_t *at = key.mv_data;
        if (bk_get_u32(at) != channel || bk_get_u64(at + 4) > high) {
            return 0;
        }
        if (planner->plan->ranges.len / sizeof(struct bk_plan_range) >= max) {
            return 1;
        }
        add_range(planner, bk_get_u64(at + 12), bk_get_u64(at + 12));
    }
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

/* Reading a record again for each second in it must not cost more than reading all once. */
static int plan_source_times(struct planner *planner)
{
    const struct bb_query *query = planner->query;
    struct bk_plan *plan = planner->plan;
    MDB_stat records;
    MDB_cursor *cursor = NULL;
    int rc = mdb_stat(planner->txn, planner->store->tables.records, &records);
    if (rc == 0) {
        rc = mdb_cursor_open(planner->txn, planner->store->tables.by_source_time, &cursor);
    }
    int r = bk_mdb_error(rc);
    uint64_t low = query->has_source_t_from ? bk_source_bucket(query->source_t_from) : 0;
    uint64_t high = query->has_source_t_to ? bk_source_bucket(query->source_t_to) : UINT64_MAX;
    for (size_t i = 0; i < plan->n_channels && r == 0; i++) {
        r = add_buckets(planner, cursor, plan->channels[i].id, low, high,
                        BB_MIN(records.ms_entries, POSITIONS_MAX));
    }
    if (rc == 0) {
        mdb_cursor_close(cursor);
    }
    plan->has_ranges = r == 0;
    return r > 0 ? 0 : r;
}

static int plan_ranges(struct planner *planner)
{
    const struct bb_query *query = planner->query;
    int r = 0;
    if (query->ids.len > 0) {
        r = plan_ids(planner);
    } else if (query->has_source_t_from || query->has_source_t_to) {
        r = plan_source_times(planner);
    }
    if (planner->plan->has_ranges) {
        tidy_ranges(&planner->plan->ranges);
    }
    return r < 0 ? r : planner->plan->ranges.error;
}

/* --- lanes ------------------------------------------------------------------------------------------ */

static size_t n_lanes(const struct bk_plan *plan)
{
    return plan->lanes.len / sizeof(struct bk_plan_lane);
}

/* Return: 0, 1 (enough), or an error. */
static int add_path_lane(void *to, struct bb_slice key, struct bb_slice value)
{
    struct planner *planner = to;
    struct bk_latest latest;
    struct bb_slice path = bb_slice(key.data + BK_KEY_CHANNEL, key.len - BK_KEY_CHANNEL);
    if (++planner->n_looked_at > PATHS_MAX) {
        return 1;
    }
    if (!bk_filter_matches(planner->filter, path)) {
        return 0;
    }
    const struct bk_plan_channel *channel = bk_plan_channel(planner->plan, bk_get_u32(key.data));
    int r = bk_latest_decode(key, value, &latest);
    if (r < 0 || channel == NULL) {
        return r;
    }
    if (n_lanes(planner->plan) == BK_PLAN_LANES) {
        return 1;
    }
    const struct bk_plan_lane lane = {true, channel->id, latest.path_id, channel->last};
    bb_buf_append(&planner->plan->lanes, &lane, sizeof(lane));
    return planner->plan->lanes.error;
}

static int compare_lanes(const void *a, const void *b)
{
    uint32_t left = ((const struct bk_plan_lane *)a)->channel;
    uint32_t right = ((const struct bk_plan_lane *)b)->channel;
    return (left > right) - (left < right);
}

static int plan_path_lanes(struct planner *planner)
{
    const struct bk_plan_span *spans = (const struct bk_plan_span *)(const void *)planner->plan->spans.data;
    size_t n = planner->plan->spans.len / sizeof(*spans);
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        uint8_t key[BK_KEY_MAX + 1];
        struct bb_slice from = bb_slice(key, bk_plan_span_key(&spans[i], key));
        struct bb_slice value;
        if (spans[i].is_below) {
            r = bk_each_row(planner->txn, planner->store->tables.paths, from, add_path_lane, planner);
        } else {
            r = bk_get(planner->txn, planner->store->tables.paths, from, &value);
            r = r == 0 ? add_path_lane(planner, from, value) : r == BB_ENOTFOUND ? 0 : r;
        }
    }
    if (r == 0 && n_lanes(planner->plan) > 1) {
        qsort(planner->plan->lanes.data, n_lanes(planner->plan), sizeof(struct bk_plan_lane), compare_lanes);
    }
    if (r == 0 && n_lanes(planner->plan) == 0) {
        narrow(&planner->plan->bounds, 1, 0); /* nothing of these paths is kept */
    }
    return r;
}

static int plan_lanes(struct planner *planner)
{
    struct bk_plan *plan = planner->plan;
    if (planner->filter->set == NULL) {
        return 0;
    }
    int r = plan_path_lanes(planner);
    if (r <= 0) {
        return r;
    }
    bb_buf_reset(&plan->lanes);
    if (plan->n_channels == planner->n_kept || plan->n_channels > BK_PLAN_LANES) {
        return 0;
    }
    for (size_t i = 0; i < plan->n_channels; i++) {
        const struct bk_plan_lane lane = {false, plan->channels[i].id, 0, plan->channels[i].last};
        bb_buf_append(&plan->lanes, &lane, sizeof(lane));
    }
    return plan->lanes.error;
}

/* ---------------------------------------------------------------------------------------------------- */

int bk_plan_init(struct bk_plan *plan,
                 struct bk_store *store,
                 MDB_txn *txn,
                 const struct bb_query *query,
                 const struct bk_find *find)
{
    struct planner planner = {
        .plan = plan,
        .store = store,
        .txn = txn,
        .query = query,
        .find = find,
        .filter = bk_find_filter(find),
    };
    static int (*const steps[])(struct planner *) = {
        bound_end,
        bound_times,
        bound_sessions,
        plan_ranges,
    };
    *plan = (struct bk_plan){.bounds = {1, UINT64_MAX}};
    int r = plan_channels(&planner);
    r = r == 0 ? plan_spans(&planner) : r;
    for (size_t i = 0; i < BB_COUNT(steps) && r == 0 && query->kind != BB_QUERY_LATEST; i++) {
        r = steps[i](&planner);
    }
    if (r == 0 && query->kind != BB_QUERY_LATEST && !plan->has_ranges) {
        r = plan_lanes(&planner);
    }
    bb_buf_fini(&planner.list);
    bb_buf_fini(&planner.names);
    return r;
}

void bk_plan_fini(struct bk_plan *plan)
{
    free(plan->channels);
    free(plan->names);
    bb_buf_fini(&plan->ranges);
    bb_buf_fini(&plan->lanes);
    bb_buf_fini(&plan->spans);
}

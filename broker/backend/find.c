/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/find.h"

#include "proto/base/error.h"
#include "proto/base/map.h"
#include "proto/wire/mp.h"
#include "proto/wire/where.h"

#include <stdlib.h>

/* Paths to be told apart take so much at most. */
#define SEEN_BYTES ((size_t)64 << 20)

/* Where an event stands by source time. */
struct rank {
    int64_t key;
    uint64_t session;
    uint64_t instance;
};

/* A path that has been met. */
struct seen {
    struct rank best; /* by source time: of its events that could be the first */
    size_t len;
    uint8_t path[];
};

/* An event that is kept for the answer. */
struct found {
    struct rank rank; /* key: source time, or 0: in the order in which it came */
    size_t offset;    /* of its block in the bytes */
    size_t len;
    size_t path_at; /* of its path, in its block */
    size_t path_len;
    const uint8_t *path;     /* while sorted by path */
    const struct seen *seen; /* by source time and unique: its path */
};

struct bk_find {
    const struct bb_query *query;
    uint32_t end; /* of the channels, 0: none */
    struct bk_filter *filter;
    struct bb_where *where;
    uint64_t now;
    size_t max_bytes;
    struct bb_buf list; /* struct found */
    struct bb_buf bytes;
    struct bb_buf events; /* struct bb_event_view of a block that is read backwards */
    struct bb_map seen;
    size_t seen_bytes;
    struct rank after; /* by source time: what to page after */
    bool is_past;      /* the event to page after has been met, or there is none */
    bool is_walk;      /* the latest events come in the order of their paths */
    bool more;
};

int bk_find_new(const struct bk_query *request, struct bk_find **ret_find)
{
    const struct bb_query *query = request->query;
    struct bk_find *find = calloc(1, sizeof(*find));
    if (find == NULL) {
        return BB_ENOMEM;
    }
    find->end = request->end;
    find->query = query;
    find->now = request->now;
    find->max_bytes = request->max_bytes;
    find->is_past = !query->has_after || query->kind == BB_QUERY_LATEST;
    find->after = (struct rank){query->after_source_t, query->after.session, query->after.instance};
    bb_map_init(&find->seen, 0, SIZE_MAX);
    int r = bk_filter_new(query->patterns, &find->filter);
    if (r == 0 && query->where.len > 0) {
        r = bb_where_parse(query->where, &find->where, NULL);
    }
    if (r < 0) {
        bk_find_free(find);
        return r;
    }
    *ret_find = find;
    return 0;
}

void bk_find_free(struct bk_find *find)
{
    size_t at = 0;
    void *seen = NULL;
    if (find == NULL) {
        return;
    }
    while ((seen = bb_map_next(&find->seen, &at, NULL)) != NULL) {
        free(seen);
    }
    bb_map_fini(&find->seen);
    bk_filter_unref(find->filter);
    bb_where_free(find->where);
    bb_buf_fini(&find->list);
    bb_buf_fini(&find->bytes);
    bb_buf_fini(&find->events);
    free(find);
}

bool bk_find_is_descending(const struct bk_find *find)
{
    return find->query->kind == BB_QUERY_LATEST || /* the newest of each path is met first */
           (find->query->kind == BB_QUERY_TIMESERIES && find->query->order == BB_ORDER_DESCENDING);
}

const struct bk_filter *bk_find_filter(const struct bk_find *find)
{
    return find->filter;
}

bool bk_find_wants_path(const struct bk_find *find, struct bb_slice path)
{
    return bk_filter_matches(find->filter, path);
}

bool bk_find_wants_channel(const struct bk_find *find, uint32_t channel)
{
    return find->end == 0 || channel < find->end;
}

static bool by_source_time(const struct bk_find *find)
{
    return find->query->kind == BB_QUERY_TIMESERIES && find->query->order_by == BB_ORDER_BY_SOURCE_TIME;
}

/* Whether any event may still be the first of the answer. */
static bool is_sorted(const struct bk_find *find)
{
    return by_source_time(find) || (find->query->kind == BB_QUERY_LATEST && !find->is_walk);
}

/* --- conditions ----------------------------------------------------------------------------------- */

static bool id_is_listed(struct bb_slice ids, uint64_t server, const struct bb_block *head)
{
    struct bb_mp_reader reader = bb_mp_reader(ids);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        (void)bb_mp_read_array(&reader);
        uint64_t of = bb_mp_read_uint(&reader);
        uint64_t session = bb_mp_read_uint(&reader);
        uint64_t instance = bb_mp_read_uint(&reader);
        if (of == server && session == head->session && instance == head->instance) {
            return true;
        }
    }
    return false;
}

static bool attributes_hold(const struct bk_find *find,
                            const struct bb_block *head,
                            const struct bb_event_view *event,
                            int64_t *ret_source_time)
{
    const struct bb_query *query = find->query;
    struct bb_attributes attributes = {0};
    bool wants_source_time = by_source_time(find) || query->has_source_t_from || query->has_source_t_to;
    if (event->attributes.len > 0 && bb_event_attributes(event->attributes, &attributes) < 0) {
        return false;
    }
    *ret_source_time = attributes.source_time;
    if (attributes.has_ttl && head->time / 1000 + attributes.ttl_ms < find->now / 1000) {
        return false;
    }
    return !wants_source_time ||
           (attributes.has_source_time &&
            (!query->has_source_t_from || attributes.source_time >= query->source_t_from) &&
            (!query->has_source_t_to || attributes.source_time <= query->source_t_to));
}

/* Whether an event whose head is @head (of this event alone) is wanted. */
static bool holds(const struct bk_find *find,
                  uint64_t server,
                  const struct bb_block *head,
                  const struct bb_event_view *event,
                  int64_t *ret_source_time)
{
    const struct bb_query *query = find->query;
    return (!query->has_server || query->server == server) &&
           (!query->has_session || query->session == head->session) &&
           (!query->has_t_from || (int64_t)head->time >= query->t_from) &&
           (!query->has_t_to || (int64_t)head->time <= query->t_to) &&
           (query->ids.len == 0 || id_is_listed(query->ids, server, head)) &&
           bk_filter_matches(find->filter, event->path) &&
           attributes_hold(find, head, event, ret_source_time) &&
           (query->payload.len == 0 || bb_mp_is_equal(query->payload, event->payload)) &&
           (find->where == NULL || bb_where_holds(find->where, event->payload));
}

/* --- keeping -------------------------------------------------------------------------------------- */

static int compare_ranks(const struct rank *a, const struct rank *b)
{
    if (a->key != b->key) {
        return a->key < b->key ? -1 : 1;
    }
    if (a->session != b->session) {
        return a->session < b->session ? -1 : 1;
    }
    return a->instance < b->instance ? -1 : a->instance > b->instance;
}

static int compare_found(const void *a, const void *b)
{
    return compare_ranks(&((const struct found *)a)->rank, &((const struct found *)b)->rank);
}

static int compare_backwards(const void *a, const void *b)
{
    return compare_found(b, a);
}

static int compare_paths(struct bb_slice a, struct bb_slice b)
{
    size_t n = BB_MIN(a.len, b.len);
    int r = n > 0 ? memcmp(a.data, b.data, n) : 0;
    return r != 0 ? r : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_by_path(const void *a, const void *b)
{
    const struct found *left = a;
    const struct found *right = b;
    return compare_paths(bb_slice(left->path, left->path_len), bb_slice(right->path, right->path_len));
}

static size_t n_found(const struct bk_find *find)
{
    return find->list.len / sizeof(struct found);
}

static struct found *all_found(const struct bk_find *find)
{
    return (struct found *)(void *)find->list.data;
}

static void sort(struct bk_find *find)
{
    struct found *all = all_found(find);
    for (size_t i = 0; i < n_found(find); i++) {
        all[i].path = find->bytes.data + all[i].offset + all[i].path_at;
    }
    if (n_found(find) > 1) {
        qsort(all, n_found(find), sizeof(struct found),
              !by_source_time(find)         ? compare_by_path
              : bk_find_is_descending(find) ? compare_backwards
                                            : compare_found);
    }
}

/* Of the sorted ones keep what belongs to the answer as far as it is known. */
static void cut(struct bk_find *find)
{
    struct found *all = all_found(find);
    size_t n = 0;
    size_t bytes = 0;
    for (size_t i = 0; i < n_found(find); i++) {
        if (all[i].seen != NULL && compare_ranks(&all[i].rank, &all[i].seen->best) != 0) {
            continue; /* another event of its path comes before it */
        }
        if (n >= find->query->max_results || bytes >= find->max_bytes) {
            find->more = true;
            break;
        }
        bytes += all[i].len;
        all[n++] = all[i];
    }
    find->list.len = n * sizeof(struct found);
}

/* Where any event may be the first: keep the best, now and then. */
static int prune(struct bk_find *find)
{
    size_t max = (size_t)BB_MIN(find->query->max_results, SIZE_MAX / 4);
    struct bb_buf bytes = BB_BUF_INIT;
    if (!is_sorted(find) ||
        (n_found(find) < 2 * max + 1024 && find->bytes.len / 2 < find->max_bytes + ((size_t)1 << 20))) {
        return 0;
    }
    sort(find);
    cut(find);
    for (size_t i = 0; i < n_found(find); i++) {
        struct found *found = all_found(find) + i;
        size_t offset = bytes.len;
        bb_buf_append(&bytes, find->bytes.data + found->offset, found->len);
        found->offset = offset;
    }
    int r = bytes.error;
    bb_buf_fini(&find->bytes);
    find->bytes = bytes;
    return r;
}

static int keep(struct bk_find *find,
                const struct bb_block *head,
                const struct bb_event_view *event,
                const struct rank *rank,
                const struct seen *seen)
{
    struct bb_block own = *head;
    own.count = 1;
    own.length = event->raw.len;
    struct found found = {
        .rank = *rank, .offset = find->bytes.len, .path_len = event->path.len, .seen = seen};
    uint8_t *to = bb_buf_reserve(&find->bytes, BB_BLOCK_HEAD_MAX);
    if (to == NULL) {
        return BB_ENOMEM;
    }
    find->bytes.len += bb_block_write(to, &own);
    found.path_at = find->bytes.len - found.offset;
    if (event->path.len > 0) {
        found.path_at += (size_t)(event->path.data - event->raw.data);
    }
    bb_buf_append(&find->bytes, event->raw.data, event->raw.len);
    found.len = find->bytes.len - found.offset;
    bb_buf_append(&find->list, &found, sizeof(found));
    return find->bytes.error != 0 || find->list.error != 0 ? BB_ENOMEM : prune(find);
}

/* Return: 1 if @path is met for the first time, 0 if not, BB_ELIMIT, BB_ENOMEM. */
static int meet_path(struct bk_find *find, struct bb_slice path, struct seen **ret_seen)
{
    *ret_seen = bb_map_find(&find->seen, path);
    if (*ret_seen != NULL) {
        return 0;
    }
    size_t size = sizeof(struct seen) + path.len + 1;
    if (find->seen_bytes + size > SEEN_BYTES) {
        return BB_ELIMIT;
    }
    struct seen *seen = malloc(size);
    if (seen == NULL) {
        return BB_ENOMEM;
    }
    seen->best = (struct rank){0};
    seen->len = path.len;
    if (path.len > 0) {
        memcpy(seen->path, path.data, path.len);
    }
    int r = bb_map_add(&find->seen, bb_slice(seen->path, seen->len), seen);
    if (r < 0) {
        free(seen);
        return r;
    }
    find->seen_bytes += size;
    *ret_seen = seen;
    return 1;
}

/* Whether @a comes before @b in the order asked for. */
static bool is_before(const struct bk_find *find, const struct rank *a, const struct rank *b)
{
    int r = compare_ranks(a, b);
    return bk_find_is_descending(find) ? r > 0 : r < 0;
}

/* Ids of one server have an order; the page after an event of another one begins where it is met. */
static bool is_after(struct bk_find *find, uint64_t server, const struct bb_block *head)
{
    const struct bb_query_id *after = &find->query->after;
    if (find->is_past) {
        return true;
    }
    if (after->server != server) {
        return false;
    }
    bool above = head->session > after->session ||
                 (head->session == after->session && head->instance > after->instance);
    bool is_it = head->session == after->session && head->instance == after->instance;
    bool is_behind = !is_it && above != bk_find_is_descending(find);
    find->is_past = is_it || is_behind;
    return is_behind;
}

static bool is_enough(const struct bk_find *find)
{
    return !is_sorted(find) &&
           (n_found(find) >= find->query->max_results || find->bytes.len >= find->max_bytes);
}

/* HAT-F25: an answer by server has whole sessions, if it can; @session goes on behind it. */
static void leave_out_part(struct bk_find *find, uint64_t session)
{
    const struct found *all = all_found(find);
    size_t n = n_found(find);
    while (n > 0 && all[n - 1].rank.session == session) {
        n--;
    }
    if (find->query->kind == BB_QUERY_SERVER && n > 0) {
        find->list.len = n * sizeof(struct found);
    }
}

/* An event by source time, for which all conditions hold. */
static int take_ranked(struct bk_find *find,
                       const struct bb_block *head,
                       const struct bb_event_view *event,
                       int64_t source_time)
{
    const struct rank rank = {source_time, head->session, head->instance};
    struct seen *seen = NULL;
    if (find->query->unique_type) {
        int r = meet_path(find, event->path, &seen);
        if (r < 0 || (r == 0 && !is_before(find, &rank, &seen->best))) {
            return r;
        }
        seen->best = rank;
    }
    if (find->query->has_after && !is_before(find, &find->after, &rank)) {
        return 0;
    }
    return keep(find, head, event, &rank, seen);
}

static int
look_at(struct bk_find *find, uint64_t server, const struct bb_block *head, const struct bb_event_view *event)
{
    const struct bb_query *query = find->query;
    const struct rank rank = {0, head->session, head->instance};
    bool is_latest = query->kind == BB_QUERY_LATEST;
    struct seen *seen = NULL;
    int64_t source_time = 0;
    if (is_latest && !find->is_walk && bk_filter_matches(find->filter, event->path)) {
        int r = meet_path(find, event->path, &seen);
        if (r <= 0) { /* the other conditions are on the latest event, not on which is */
            return r;
        }
    }
    if (is_latest && query->after_path.data != NULL && compare_paths(event->path, query->after_path) <= 0) {
        return 0;
    }
    if (!holds(find, server, head, event, &source_time)) {
        return 0;
    }
    if (by_source_time(find)) {
        return take_ranked(find, head, event, source_time);
    }
    if (query->unique_type && !is_latest) {
        int r = meet_path(find, event->path, &seen);
        if (r <= 0) {
            return r;
        }
    }
    if (!is_after(find, server, head)) {
        return 0;
    }
    if (is_enough(find)) {
        find->more = true;
        leave_out_part(find, head->session);
        return 1;
    }
    return keep(find, head, event, &rank, NULL);
}

int bk_find_latest(struct bk_find *find, uint64_t server, const struct bb_block *head, struct bb_slice events)
{
    find->is_walk = true;
    return bk_find_block(find, server, head, events);
}

int bk_find_block(struct bk_find *find, uint64_t server, const struct bb_block *head, struct bb_slice events)
{
    struct bb_block own = *head;
    struct bb_event_view event;
    if (!bk_find_is_descending(find)) {
        for (uint64_t i = 0; i < head->count; i++) {
            if (bb_event_read(&events, &event) < 0) {
                return BB_ECORRUPT;
            }
            own.sequence = head->sequence + i;
            own.instance = head->instance + i;
            int r = look_at(find, server, &own, &event);
            if (r != 0) {
                return r;
            }
        }
        return 0;
    }
    bb_buf_reset(&find->events);
    while (events.len > 0) {
        if (bb_event_read(&events, &event) < 0) {
            return BB_ECORRUPT;
        }
        bb_buf_append(&find->events, &event, sizeof(event));
    }
    if (find->events.error != 0) {
        return BB_ENOMEM;
    }
    for (size_t i = find->events.len / sizeof(event); i > 0; i--) {
        own.sequence = head->sequence + i - 1;
        own.instance = head->instance + i - 1;
        int r = look_at(find, server, &own,
                        (const struct bb_event_view *)(const void *)find->events.data + i - 1);
        if (r != 0) {
            return r;
        }
    }
    return 0;
}

/* --- the answer ------------------------------------------------------------------------------------- */

int bk_find_end(struct bk_find *find, struct bk_query *request, struct bk_meter *meter)
{
    if (is_sorted(find)) {
        sort(find);
        cut(find);
    }
    request->n_events = n_found(find);
    request->more = find->more;
    if (request->n_events == 0) {
        return 0;
    }
    const struct found *all = all_found(find);
    size_t len = 0;
    for (size_t i = 0; i < n_found(find); i++) {
        len += all[i].len;
    }
    request->body = bk_bytes_new(meter, len);
    if (request->body == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < n_found(find); i++) {
        memcpy(request->body->data + request->body->len, find->bytes.data + all[i].offset, all[i].len);
        request->body->len += all[i].len;
    }
    return 0;
}

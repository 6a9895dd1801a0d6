/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/find.h"

#include "proto/base/error.h"
#include "proto/base/map.h"
#include "proto/wire/mp.h"
#include "proto/wire/where.h"

#include <stdlib.h>

/* An event that is kept for the answer. */
struct found {
    int64_t key; /* source time, or 0: in the order in which it came */
    uint64_t session;
    uint64_t instance;
    size_t offset; /* of its block in the bytes */
    size_t len;
};

/* A path that has been met. */
struct seen {
    size_t len;
    uint8_t path[];
};

struct bk_find {
    const struct bb_query *query;
    struct bk_filter *filter;
    struct bb_where *where;
    uint64_t now;
    size_t max_bytes;
    struct bb_buf list; /* struct found */
    struct bb_buf bytes;
    struct bb_buf events; /* struct bb_event_view of a block that is read backwards */
    struct bb_map seen;
    bool is_past; /* the event to page after has been met, or there is none */
    bool more;
};

int bk_find_new(const struct bk_query *request, struct bk_find **ret_find)
{
    const struct bb_query *query = request->query;
    struct bk_find *find = calloc(1, sizeof(*find));
    if (find == NULL) {
        return BB_ENOMEM;
    }
    find->query = query;
    find->now = request->now;
    find->max_bytes = request->max_bytes;
    find->is_past = !query->has_after || query->kind == BB_QUERY_LATEST;
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

bool bk_find_wants_path(const struct bk_find *find, struct bb_slice path)
{
    return bk_filter_matches(find->filter, path);
}

static bool by_source_time(const struct bk_find *find)
{
    return find->query->kind == BB_QUERY_TIMESERIES && find->query->order_by == BB_ORDER_BY_SOURCE_TIME;
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

static int compare_found(const void *a, const void *b)
{
    const struct found *left = a;
    const struct found *right = b;
    if (left->key != right->key) {
        return left->key < right->key ? -1 : 1;
    }
    if (left->session != right->session) {
        return left->session < right->session ? -1 : 1;
    }
    return left->instance < right->instance ? -1 : left->instance > right->instance;
}

static int compare_backwards(const void *a, const void *b)
{
    return compare_found(b, a);
}

static size_t n_found(const struct bk_find *find)
{
    return find->list.len / sizeof(struct found);
}

static void sort(struct bk_find *find)
{
    if (n_found(find) > 1) {
        qsort(find->list.data, n_found(find), sizeof(struct found),
              bk_find_is_descending(find) ? compare_backwards : compare_found);
    }
}

/* By source time any event may still be the first: keep the best, now and then. */
static int prune(struct bk_find *find)
{
    size_t max = (size_t)find->query->max_results;
    struct bb_buf bytes = BB_BUF_INIT;
    if (!by_source_time(find) || find->query->has_after || find->query->unique_type ||
        n_found(find) < 2 * max + 1024) {
        return 0; /* pages and unique paths need everything before them */
    }
    sort(find);
    find->more = true;
    find->list.len = max * sizeof(struct found);
    for (size_t i = 0; i < max; i++) {
        struct found *found = (struct found *)(void *)find->list.data + i;
        size_t offset = bytes.len;
        bb_buf_append(&bytes, find->bytes.data + found->offset, found->len);
        found->offset = offset;
    }
    int r = bytes.error;
    bb_buf_fini(&find->bytes);
    find->bytes = bytes;
    return r;
}

static int
keep(struct bk_find *find, const struct bb_block *head, const struct bb_event_view *event, int64_t key)
{
    struct bb_block own = *head;
    own.count = 1;
    own.length = event->raw.len;
    struct found found = {
        .key = by_source_time(find) ? key : 0,
        .session = head->session,
        .instance = head->instance,
        .offset = find->bytes.len,
    };
    uint8_t *to = bb_buf_reserve(&find->bytes, BB_BLOCK_HEAD_MAX);
    if (to == NULL) {
        return BB_ENOMEM;
    }
    find->bytes.len += bb_block_write(to, &own);
    bb_buf_append(&find->bytes, event->raw.data, event->raw.len);
    found.len = find->bytes.len - found.offset;
    bb_buf_append(&find->list, &found, sizeof(found));
    return find->bytes.error != 0 || find->list.error != 0 ? BB_ENOMEM : prune(find);
}

/* Return: 1 if @path is met for the first time, 0 if not, BB_ENOMEM. */
static int meet_path(struct bk_find *find, struct bb_slice path)
{
    if (bb_map_find(&find->seen, path) != NULL) {
        return 0;
    }
    struct seen *seen = malloc(sizeof(*seen) + path.len + 1);
    if (seen == NULL) {
        return BB_ENOMEM;
    }
    seen->len = path.len;
    if (path.len > 0) {
        memcpy(seen->path, path.data, path.len);
    }
    int r = bb_map_add(&find->seen, bb_slice(seen->path, seen->len), seen);
    if (r < 0) {
        free(seen);
        return r;
    }
    return 1;
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
    return !by_source_time(find) &&
           (n_found(find) >= find->query->max_results || find->bytes.len >= find->max_bytes);
}

/* HAT-F25: an answer by server has whole sessions, if it can; @session goes on behind it. */
static void leave_out_part(struct bk_find *find, uint64_t session)
{
    const struct found *all = (const struct found *)(const void *)find->list.data;
    size_t n = n_found(find);
    while (n > 0 && all[n - 1].session == session) {
        n--;
    }
    if (find->query->kind == BB_QUERY_SERVER && n > 0) {
        find->list.len = n * sizeof(struct found);
    }
}

static int
look_at(struct bk_find *find, uint64_t server, const struct bb_block *head, const struct bb_event_view *event)
{
    int64_t source_time = 0;
    if (find->query->kind == BB_QUERY_LATEST && bk_filter_matches(find->filter, event->path)) {
        int r =
            meet_path(find, event->path); /* the other conditions are on the latest event, not on which is */
        if (r <= 0) {
            return r;
        }
    }
    if (!holds(find, server, head, event, &source_time)) {
        return 0;
    }
    if (find->query->unique_type && find->query->kind != BB_QUERY_LATEST && !by_source_time(find)) {
        int r = meet_path(find, event->path);
        if (r <= 0) {
            return r;
        }
    }
    if (!by_source_time(find) && !is_after(find, server, head)) {
        return 0;
    }
    if (is_enough(find)) {
        find->more = true;
        leave_out_part(find, head->session);
        return 1;
    }
    return keep(find, head, event, source_time);
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

/* Whether an event is the first of its path, if that matters. Return: 1, 0, BB_ENOMEM, BB_ECORRUPT. */
static int is_first_of_path(struct bk_find *find, const struct found *found)
{
    struct bb_slice rest = bb_slice(find->bytes.data + found->offset, found->len);
    struct bb_block head;
    struct bb_event_view event;
    if (!find->query->unique_type) {
        return 1;
    }
    if (bb_block_read_head(&rest, &head) < 0 || bb_event_read(&rest, &event) < 0) {
        return BB_ECORRUPT;
    }
    return meet_path(find, event.path);
}

/* By source time everything has been seen now: leave out what is up to the event to page after, and repeated paths. */
static int choose(struct bk_find *find)
{
    const struct bb_query *query = find->query;
    size_t n = 0;
    size_t bytes = 0;
    bool is_past = !query->has_after;
    bool is_full = false;
    struct found *all = (struct found *)(void *)find->list.data;
    for (size_t i = 0; i < n_found(find) && !is_full; i++) {
        int r = is_first_of_path(find, &all[i]);
        if (r < 0) {
            return r;
        }
        if (r > 0 && is_past) {
            is_full = n == query->max_results || bytes >= find->max_bytes;
            bytes += all[i].len;
            all[n] = all[i];
            n += !is_full;
        }
        is_past =
            is_past || (all[i].session == query->after.session && all[i].instance == query->after.instance);
    }
    find->list.len = n * sizeof(struct found);
    find->more = find->more || is_full;
    return 0;
}

struct by_path {
    struct bb_slice path;
    struct found found;
};

static int compare_paths(const void *a, const void *b)
{
    const struct by_path *left = a;
    const struct by_path *right = b;
    size_t n = BB_MIN(left->path.len, right->path.len);
    int r = n > 0 ? memcmp(left->path.data, right->path.data, n) : 0;
    return r != 0 ? r : left->path.len < right->path.len ? -1 : left->path.len > right->path.len;
}

/* The latest events in the order of their paths. */
static int sort_by_path(struct bk_find *find)
{
    size_t n = n_found(find);
    struct found *all = (struct found *)(void *)find->list.data;
    struct by_path *paths = n > 1 ? calloc(n, sizeof(*paths)) : NULL;
    if (paths == NULL) {
        return n > 1 ? BB_ENOMEM : 0;
    }
    for (size_t i = 0; i < n; i++) {
        struct bb_slice rest = bb_slice(find->bytes.data + all[i].offset, all[i].len);
        struct bb_block head;
        struct bb_event_view event = {0};
        (void)bb_block_read_head(&rest, &head);
        (void)bb_event_read(&rest, &event);
        paths[i] = (struct by_path){event.path, all[i]};
    }
    qsort(paths, n, sizeof(*paths), compare_paths);
    for (size_t i = 0; i < n; i++) {
        all[i] = paths[i].found;
    }
    free(paths);
    return 0;
}

int bk_find_end(struct bk_find *find, struct bk_query *request, struct bk_meter *meter)
{
    if (find->query->kind == BB_QUERY_LATEST) {
        int r = sort_by_path(find);
        if (r < 0) {
            return r;
        }
    }
    if (by_source_time(find)) {
        sort(find);
        int r = choose(find);
        if (r < 0) {
            return r;
        }
    }
    request->n_events = n_found(find);
    request->more = find->more;
    if (request->n_events == 0) {
        return 0;
    }
    const struct found *all = (const struct found *)(const void *)find->list.data;
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

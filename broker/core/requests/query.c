/* SPDX-License-Identifier: Apache-2.0 */
/* Queries (PROTOCOL 15.2): both backends are asked, and what they find is merged. */
#include "broker/core/backend.h"
#include "broker/core/bytes.h"
#include "broker/core/clients/client.h"
#include "broker/core/log/ask.h"
#include "broker/core/requests/requests.h"
#include "broker/core/state.h"

#include <stdlib.h>

/* The answer to a query, without its head. */
#define ANSWER_MAX ((size_t)512 << 10)

struct asked {
    struct bk_ask ask;
    size_t n_waiting;
    struct bb_buf copy; /* what the query points into */
    struct bb_query query;
    struct bk_query queries[BK_STORES];
};

static void asked_free(struct asked *asked)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        bk_bytes_unref(asked->queries[i].body);
    }
    bb_buf_fini(&asked->copy);
    free(asked);
}

/* One side of a merge: the next event of a backend's answer. */
struct side {
    struct bb_slice rest;   /* blocks */
    struct bb_block block;  /* the current one, */
    struct bb_slice events; /* and what is left of it */
    struct bb_event_view event;
    int64_t key;
    uint64_t first_session; /* of the answer */
    bool is_at_end;
};

static void side_next(struct side *side, const struct bb_query *query)
{
    if (side->events.len == 0) {
        if (side->rest.len == 0 || bb_block_read(&side->rest, &side->block) < 0) {
            side->is_at_end = true;
            return;
        }
        side->events = bb_slice(side->rest.data, (size_t)side->block.length);
        side->rest =
            bb_slice(side->rest.data + side->block.length, side->rest.len - (size_t)side->block.length);
    } else {
        side->block.sequence++;
        side->block.instance++;
    }
    if (bb_event_read(&side->events, &side->event) < 0) {
        side->is_at_end = true;
        return;
    }
    side->key = (int64_t)side->block.time;
    if (query->order_by == BB_ORDER_BY_SOURCE_TIME) {
        struct bb_attributes attributes;
        if (bb_event_attributes(side->event.attributes, &attributes) == 0 && attributes.has_source_time) {
            side->key = attributes.source_time;
        }
    }
}

static int compare_uint(uint64_t a, uint64_t b)
{
    return a < b ? -1 : a > b;
}

static int compare_paths(struct bb_slice a, struct bb_slice b)
{
    size_t n = BB_MIN(a.len, b.len);
    int r = n > 0 ? memcmp(a.data, b.data, n) : 0;
    return r != 0 ? r : compare_uint(a.len, b.len);
}

/* Which side comes first: negative for @a. */
static int side_compare(const struct side *a, const struct side *b, const struct bb_query *query)
{
    if (query->kind == BB_QUERY_LATEST) {
        return compare_paths(a->event.path, b->event.path);
    }
    int r = query->kind == BB_QUERY_SERVER || a->key == b->key ? 0 : a->key < b->key ? -1 : 1;
    if (r == 0) {
        r = compare_uint(a->block.session, b->block.session);
    }
    if (r == 0) {
        r = compare_uint(a->block.instance, b->block.instance);
    }
    bool ascending = query->kind == BB_QUERY_SERVER || query->order == BB_ORDER_ASCENDING;
    return ascending ? r : -r;
}

static void side_write(struct bb_buf *out, const struct side *side)
{
    struct bb_block head = side->block;
    head.count = 1;
    head.length = side->event.raw.len;
    uint8_t *to = bb_buf_reserve(out, BB_BLOCK_HEAD_MAX);
    if (to != NULL) {
        out->len += bb_block_write(to, &head);
    }
    bb_buf_append(out, side->event.raw.data, side->event.raw.len);
}

static struct bb_slice body_of(const struct bk_query *query)
{
    return query->body != NULL ? bb_slice(query->body->data, query->body->len) : (struct bb_slice){0};
}

/* What both backends found, as one answer while it is made. */
struct merge {
    const struct asked *asked;
    struct side sides[BK_STORES];
    struct bb_buf *out;
    uint64_t n;
    uint64_t session;  /* of the last event, */
    size_t session_at; /* and where it begins */
};

static void merge_begin(struct merge *merge)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        struct side *side = &merge->sides[i];
        side->rest = body_of(&merge->asked->queries[i]);
        side_next(side, &merge->asked->query);
        side->first_session = side->block.session;
    }
}

/* The side that goes on; NULL: both are at their end. */
static struct side *merge_next(struct merge *merge)
{
    struct side *a = &merge->sides[BK_STORE_MEMORY];
    struct side *b = &merge->sides[BK_STORE_LOG];
    if (a->is_at_end && b->is_at_end) {
        return NULL;
    }
    bool first = !a->is_at_end && (b->is_at_end || side_compare(a, b, &merge->asked->query) <= 0);
    return first ? a : b;
}

/* By server a backend gives whole sessions, but for one alone that is larger than an answer. */
static bool ends_whole(const struct bk_query *found, const struct side *side)
{
    return side->first_session != side->block.session ||
           (found->n_events < found->query->max_results && body_of(found).len < found->max_bytes);
}

/* Whether the backend may have something that comes before @next, and was not in its answer. */
static bool hides_something(const struct bk_query *found, const struct side *side, const struct side *next)
{
    if (!side->is_at_end || !found->more) {
        return false;
    }
    bool is_of_last = found->query->kind == BB_QUERY_SERVER && next->block.session == side->block.session;
    return !is_of_last || !ends_whole(found, side);
}

static bool is_sure(const struct merge *merge, const struct side *next)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (hides_something(&merge->asked->queries[i], &merge->sides[i], next)) {
            return false;
        }
    }
    return true;
}

static void merge_take(struct merge *merge, struct side *side)
{
    if (merge->session != side->block.session) {
        merge->session = side->block.session;
        merge->session_at = merge->out->len;
    }
    side_write(merge->out, side);
    side_next(side, &merge->asked->query);
    merge->n++;
}

/* Whether there may be more of the session of the last event. */
static bool is_cut(const struct merge *merge)
{
    bool found = false;
    for (size_t i = 0; i < BK_STORES; i++) {
        const struct side *side = &merge->sides[i];
        const struct bk_query *query = &merge->asked->queries[i];
        bool is_in = !side->is_at_end || (query->more && !ends_whole(query, side));
        found = found || (is_in && side->block.session == merge->session);
    }
    return found;
}

/* Return: whether there is more. */
static bool merge(const struct asked *asked, struct bb_buf *out)
{
    struct merge merge = {.asked = asked, .out = out};
    struct side *next = NULL;
    merge_begin(&merge);
    while ((next = merge_next(&merge)) != NULL && merge.n < asked->query.max_results &&
           is_sure(&merge, next)) {
        merge_take(&merge, next);
    }
    if (asked->query.kind == BB_QUERY_SERVER && merge.session_at > 0 && is_cut(&merge)) {
        out->len = merge.session_at;
    }
    return next != NULL || asked->queries[BK_STORE_MEMORY].more || asked->queries[BK_STORE_LOG].more;
}

static void send_events(struct asked *asked, struct bb_slice body, bool more)
{
    struct bk_core *core = asked->ask.core;
    bb_buf_reset(&core->scratch);
    bb_msg_encode(&core->scratch,
                  &(struct bb_msg){.type = BB_MSG_EVENTS, .corr = asked->ask.corr, .more = more});
    if (core->scratch.error != 0) {
        bk_ask_refuse(&asked->ask, BB_ENOMEM, NULL);
        return;
    }
    struct bk_part parts[2] = {{NULL, core->scratch.data, core->scratch.len}, {NULL, body.data, body.len}};
    bk_client_answer(core, asked->ask.client, parts, body.len > 0 ? 2 : 1);
}

static void answer(struct asked *asked)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (asked->queries[i].request.error != 0) {
            bk_ask_refuse(&asked->ask, asked->queries[i].request.error, NULL);
            return;
        }
    }
    bk_count(asked->ask.core, BK_COUNTER_queries, 1);
    for (size_t i = 0; i < BK_STORES; i++) { /* mostly one of them has found nothing */
        const struct bk_query *other = &asked->queries[1 - i];
        if (other->n_events == 0 && !other->more) {
            send_events(asked, body_of(&asked->queries[i]), asked->queries[i].more);
            return;
        }
    }
    struct bb_buf out = BB_BUF_INIT;
    bool more = merge(asked, &out);
    if (out.error != 0) {
        bk_ask_refuse(&asked->ask, BB_ENOMEM, NULL);
    } else {
        send_events(asked, bb_buf_slice(&out), more);
    }
    bb_buf_fini(&out);
}

static void on_queried(void *context, struct bk_request *request)
{
    struct asked *asked = context;
    (void)request;
    if (--asked->n_waiting > 0) {
        return;
    }
    if (asked->ask.client != NULL) {
        answer(asked);
    }
    bk_ask_end(&asked->ask);
    asked_free(asked);
}

static int read_query(struct asked *asked, struct bb_slice query, struct bb_buf *err)
{
    bb_buf_append(&asked->copy, query.data, query.len);
    return asked->copy.error != 0 ? BB_ENOMEM : bb_query_read(bb_buf_slice(&asked->copy), &asked->query, err);
}

/* done() comes in dispatch(), never here. A channel that comes until then may have the name of one that memory had: the log looks
 * later, and a query sees what there is when it is asked. */
static void submit(struct bk_core *core, struct asked *asked)
{
    size_t max_bytes = BB_MIN(ANSWER_MAX, core->config.max_message / 2);
    for (size_t i = 0; i < BK_STORES; i++) {
        asked->n_waiting += core->backends[i] != NULL;
        asked->queries[i] = (struct bk_query){
            .request = {.kind = BK_REQUEST_QUERY, .done = on_queried, .context = asked},
            .query = &asked->query,
            .now = core->wall,
            .max_bytes = max_bytes,
            .end = core->channels.last_id + 1,
        };
    }
    for (size_t i = 0; i < BK_STORES; i++) {
        if (core->backends[i] != NULL) {
            core->backends[i]->ops->submit(core->backends[i], &asked->queries[i].request);
        }
    }
}

static int query(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    if (core->backends[BK_STORE_MEMORY] == NULL && core->backends[BK_STORE_LOG] == NULL) {
        return BB_EUNSUPPORTED;
    }
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        return BB_ENOMEM;
    }
    int r = read_query(asked, msg->query, err);
    r = r == 0 ? bk_ask_begin(core, client, msg, &asked->ask) : r;
    if (r < 0) {
        asked_free(asked);
        return r;
    }
    submit(core, asked);
    return 0;
}

void bk_handle_query(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bb_buf err = BB_BUF_INIT;
    int r = query(core, client, msg, &err);
    if (r < 0) {
        bk_client_refuse(core, client, msg, r, err.len > 0 ? bb_buf_string(&err) : NULL);
    }
    bb_buf_fini(&err);
}

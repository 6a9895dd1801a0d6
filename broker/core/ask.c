/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What clients ask of the backends: queries, upkeep of the log, and where in the log a subscription begins. The backend answers
 * later; the client may be gone by then.
 */
#include "broker/core/state.h"

#include <stdlib.h>

/* Of all clients. */
#define ASKS_MAX 4096

/* The answer to a query, without its head. */
#define ANSWER_MAX ((size_t)512 << 10)

struct bk_ask {
    struct bk_ask *next;
    struct bk_core *core;
    struct bk_client *client; /* NULL: it went */
    enum bb_msg_type type;
    uint64_t corr;
    size_t n_waiting;
    struct bb_buf copy; /* what the requests point into */
    struct bb_query query;
    struct bk_query queries[BK_STORES];
    struct bk_upkeep upkeep;
    struct bk_locate locate;
    struct bk_trim trim;
};

static int ask_new(struct bk_core *core,
                   struct bk_client *client,
                   const struct bb_msg *msg,
                   struct bb_slice copied,
                   struct bk_ask **ret_ask)
{
    struct bk_ask *ask = core->n_asks < ASKS_MAX ? calloc(1, sizeof(*ask)) : NULL;
    if (ask == NULL) {
        return core->n_asks < ASKS_MAX ? BB_ENOMEM : BB_ELIMIT;
    }
    bb_buf_append(&ask->copy, copied.data, copied.len);
    if (ask->copy.error != 0) {
        bb_buf_fini(&ask->copy);
        free(ask);
        return BB_ENOMEM;
    }
    ask->core = core;
    ask->client = client;
    ask->type = msg->type;
    ask->corr = msg->corr;
    ask->next = core->asks;
    core->asks = ask;
    core->n_asks++;
    *ret_ask = ask;
    return 0;
}

static void ask_free(struct bk_ask *ask)
{
    struct bk_ask **at = &ask->core->asks;
    while (*at != ask) {
        at = &(*at)->next;
    }
    *at = ask->next;
    ask->core->n_asks--;
    for (size_t i = 0; i < BK_STORES; i++) {
        bk_bytes_unref(ask->queries[i].body);
    }
    bk_filter_unref(ask->locate.filter);
    free(ask->locate.places);
    bb_buf_fini(&ask->upkeep.report);
    bb_buf_fini(&ask->copy);
    free(ask);
}

void bk_asks_forget(struct bk_core *core, const struct bk_client *client)
{
    for (struct bk_ask *ask = core->asks; ask != NULL; ask = ask->next) {
        if (ask->client == client) {
            ask->client = NULL;
        }
    }
}

static void refuse(const struct bk_ask *ask, int error, const char *text)
{
    bk_client_send_error(ask->core, ask->client, ask->type, ask->corr, error, text, (struct bb_slice){0});
}

/* --- queries ------------------------------------------------------------------------------------------ */

/* One side of a merge: the next event of a backend's answer. */
struct side {
    struct bb_slice rest;   /* blocks */
    struct bb_block block;  /* the current one, */
    struct bb_slice events; /* and what is left of it */
    struct bb_event_view event;
    int64_t key;
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

/* What both backends found, as one answer; whether there is more. */
static bool merge(const struct bk_ask *ask, struct bb_buf *out)
{
    struct side sides[BK_STORES] = {0};
    bool more = false;
    uint64_t n = 0;
    for (size_t i = 0; i < BK_STORES; i++) {
        const struct bk_bytes *body = ask->queries[i].body;
        sides[i].rest = body != NULL ? bb_slice(body->data, body->len) : (struct bb_slice){0};
        more = more || ask->queries[i].more;
        side_next(&sides[i], &ask->query);
    }
    struct side *a = &sides[BK_STORE_MEMORY];
    struct side *b = &sides[BK_STORE_LOG];
    while (!a->is_at_end || !b->is_at_end) {
        bool first = !a->is_at_end && (b->is_at_end || side_compare(a, b, &ask->query) <= 0);
        /* Past the end of a side that has more nothing is certain. */
        bool unsure = (a->is_at_end && ask->queries[BK_STORE_MEMORY].more) ||
                      (b->is_at_end && ask->queries[BK_STORE_LOG].more);
        if (n == ask->query.max_results || unsure) {
            return true;
        }
        side_write(out, first ? a : b);
        side_next(first ? a : b, &ask->query);
        n++;
    }
    return more;
}

static void send_events(struct bk_ask *ask, struct bb_slice body, bool more)
{
    struct bk_core *core = ask->core;
    bb_buf_reset(&core->scratch);
    bb_msg_encode(&core->scratch, &(struct bb_msg){.type = BB_MSG_EVENTS, .corr = ask->corr, .more = more});
    if (core->scratch.error != 0) {
        refuse(ask, BB_ENOMEM, NULL);
        return;
    }
    struct bk_part parts[2] = {{NULL, core->scratch.data, core->scratch.len}, {NULL, body.data, body.len}};
    if (bk_client_send(core, ask->client, parts, body.len > 0 ? 2 : 1) == BB_EAGAIN) {
        bk_client_remove(core, ask->client, true);
    }
}

static void answer_query(struct bk_ask *ask)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (ask->queries[i].request.error != 0) {
            refuse(ask, ask->queries[i].request.error, NULL);
            return;
        }
    }
    bk_count(ask->core, BK_COUNTER_queries, 1);
    for (size_t i = 0; i < BK_STORES; i++) { /* mostly one of them has found nothing */
        const struct bk_query *other = &ask->queries[1 - i];
        if (other->n_events == 0 && !other->more) {
            const struct bk_bytes *body = ask->queries[i].body;
            send_events(ask, body != NULL ? bb_slice(body->data, body->len) : (struct bb_slice){0},
                        ask->queries[i].more);
            return;
        }
    }
    struct bb_buf out = BB_BUF_INIT;
    bool more = merge(ask, &out);
    if (out.error != 0) {
        refuse(ask, BB_ENOMEM, NULL);
    } else {
        send_events(ask, bb_buf_slice(&out), more);
    }
    bb_buf_fini(&out);
}

static void on_queried(void *context, struct bk_request *request)
{
    struct bk_ask *ask = context;
    (void)request;
    if (--ask->n_waiting > 0) {
        return;
    }
    if (ask->client != NULL) {
        answer_query(ask);
    }
    ask_free(ask);
}

static int query(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, struct bb_buf *err)
{
    struct bk_ask *ask = NULL;
    if (core->backends[BK_STORE_MEMORY] == NULL && core->backends[BK_STORE_LOG] == NULL) {
        return BB_EUNSUPPORTED;
    }
    int r = ask_new(core, client, msg, msg->query, &ask);
    if (r < 0) {
        return r;
    }
    r = bb_query_read(bb_buf_slice(&ask->copy), &ask->query, err);
    if (r < 0) {
        ask_free(ask);
        return r;
    }
    size_t max_bytes = BB_MIN(ANSWER_MAX, core->config.max_message / 2);
    for (size_t i = 0; i < BK_STORES; i++) {
        ask->n_waiting += core->backends[i] != NULL;
        ask->queries[i] = (struct bk_query){
            .request = {.kind = BK_REQUEST_QUERY, .done = on_queried, .context = ask},
            .query = &ask->query,
            .now = core->wall,
            .max_bytes = max_bytes,
        };
    }
    for (size_t i = 0; i < BK_STORES; i++) { /* done() comes in dispatch(), never here */
        if (core->backends[i] != NULL) {
            core->backends[i]->ops->submit(core->backends[i], &ask->queries[i].request);
        }
    }
    return 0;
}

void bk_handle_query(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bb_buf err = BB_BUF_INIT;
    int r = query(core, client, msg, &err);
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r, err.len > 0 ? bb_buf_string(&err) : NULL,
                             (struct bb_slice){0});
    }
    bb_buf_fini(&err);
}

/* --- upkeep ------------------------------------------------------------------------------------------- */

static const struct {
    const char *action;
    enum bk_request_kind kind;
} actions[] = {
    {"backup", BK_REQUEST_SNAPSHOT},
    {"compact", BK_REQUEST_COMPACT},
    {"verify", BK_REQUEST_VERIFY},
};

static void on_kept_up(void *context, struct bk_request *request)
{
    struct bk_ask *ask = context;
    if (ask->client != NULL && request->error != 0) {
        refuse(ask, request->error, NULL);
    } else if (ask->client != NULL) {
        static const uint8_t empty[] = {0x80};
        struct bb_slice report = bb_buf_slice(&ask->upkeep.report);
        bk_client_send_msg(ask->core, ask->client,
                           &(struct bb_msg){
                               .type = BB_MSG_RESULT,
                               .corr = ask->corr,
                               .value = report.len > 0 ? report : bb_slice(empty, sizeof(empty)),
                           });
    }
    ask_free(ask);
}

static int read_name(struct bb_slice options, struct bb_slice *ret_name)
{
    struct bb_mp_reader reader = bb_mp_reader(options);
    *ret_name = (struct bb_slice){0};
    uint64_t n = options.len > 0 ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        if (bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("name"))) {
            *ret_name = bb_mp_read_str(&reader);
        } else {
            bb_mp_skip(&reader);
        }
    }
    return reader.error != 0 ? BB_EINVAL : 0;
}

static int keep_up(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bk_backend *log = core->backends[BK_STORE_LOG];
    struct bk_ask *ask = NULL;
    if (log == NULL) {
        return BB_EUNSUPPORTED;
    }
    if (bb_slice_equal(msg->action, bb_slice_str("status"))) {
        bb_buf_reset(&core->nested);
        log->ops->status(log, &core->nested);
        bk_client_send_msg(
            core, client,
            &(struct bb_msg){.type = BB_MSG_RESULT, .corr = msg->corr, .value = bb_buf_slice(&core->nested)});
        return 0;
    }
    for (size_t i = 0; i < BB_COUNT(actions); i++) {
        if (!bb_slice_equal(msg->action, bb_slice_str(actions[i].action))) {
            continue;
        }
        int r = ask_new(core, client, msg, msg->options, &ask);
        if (r < 0) {
            return r;
        }
        ask->upkeep.request =
            (struct bk_request){.kind = actions[i].kind, .done = on_kept_up, .context = ask};
        r = read_name(bb_buf_slice(&ask->copy), &ask->upkeep.name);
        if (r < 0) {
            ask_free(ask);
            return r;
        }
        log->ops->submit(log, &ask->upkeep.request);
        return 0;
    }
    return BB_EINVAL;
}

void bk_handle_log(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    int r = keep_up(core, client, msg);
    if (r < 0) {
        bk_client_send_error(core, client, msg->type, msg->corr, r,
                             r == BB_EUNSUPPORTED ? "this broker keeps no log (busbard --data)" : NULL,
                             (struct bb_slice){0});
    }
}

/* --- trimming ----------------------------------------------------------------------------------------- */

static void on_trimmed(void *context, struct bk_request *request)
{
    struct bk_ask *ask = context;
    struct bk_core *core = ask->core;
    if (ask->client != NULL && request->error != 0) {
        refuse(ask, request->error, NULL);
    } else if (ask->client != NULL) {
        bb_buf_reset(&core->nested);
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str("first"));
        bb_mp_write_uint(&core->nested, ask->trim.first);
        bk_client_send_msg(
            core, ask->client,
            &(struct bb_msg){.type = BB_MSG_RESULT, .corr = ask->corr, .value = bb_buf_slice(&core->nested)});
    }
    ask_free(ask);
}

int bk_ask_trim(struct bk_core *core,
                struct bk_client *client,
                const struct bb_msg *msg,
                const struct bk_channel *channel,
                uint64_t before)
{
    struct bk_ask *ask = NULL;
    int r = ask_new(core, client, msg, (struct bb_slice){0}, &ask);
    if (r < 0) {
        return r;
    }
    ask->trim = (struct bk_trim){
        .request = {.kind = BK_REQUEST_TRIM, .done = on_trimmed, .context = ask},
        .channel = channel->id,
        .before = before,
    };
    core->stage.backend->ops->submit(core->stage.backend, &ask->trim.request);
    return 0;
}

/* --- where a subscription begins ------------------------------------------------------------------------ */

static void on_located(void *context, struct bk_request *request)
{
    struct bk_ask *ask = context;
    struct bk_client *client = ask->client;
    if (client != NULL && request->error != 0) {
        refuse(ask, request->error, NULL);
    } else if (client != NULL) {
        struct bb_msg msg = {0};
        if (bb_msg_decode(bb_buf_slice(&ask->copy), &msg) == 0) { /* it was one before */
            bk_subscribe_located(ask->core, client, &msg, &ask->locate);
        }
    }
    ask_free(ask);
}

int bk_ask_locate(struct bk_core *core,
                  struct bk_client *client,
                  const struct bb_msg *msg,
                  const struct bk_locate *locate)
{
    struct bk_ask *ask = NULL;
    bb_buf_reset(&core->nested);
    bb_msg_encode(&core->nested, msg);
    if (core->nested.error != 0) {
        return BB_ENOMEM;
    }
    int r = ask_new(core, client, msg, bb_buf_slice(&core->nested), &ask);
    if (r < 0) {
        return r;
    }
    ask->locate = *locate;
    ask->locate.request = (struct bk_request){.kind = BK_REQUEST_LOCATE, .done = on_located, .context = ask};
    bk_filter_ref(ask->locate.filter);
    ask->locate.places = calloc(BB_MAX(locate->n_places, 1), sizeof(*locate->places));
    if (ask->locate.places == NULL) {
        ask_free(ask);
        return BB_ENOMEM;
    }
    memcpy(ask->locate.places, locate->places, locate->n_places * sizeof(*locate->places));
    core->stage.backend->ops->submit(core->stage.backend, &ask->locate.request);
    return 0;
}

/* --- the newest event of a path --------------------------------------------------------------------------- */

static void on_path_located(void *context, struct bk_request *request)
{
    struct bk_ask *ask = context;
    struct bk_client *client = ask->client;
    if (client != NULL && request->error != 0) {
        bk_client_send_away(ask->core, client, request->error, NULL);
    } else if (client != NULL) {
        bk_expect_located(client, &ask->locate);
        bk_deferred_resume(ask->core, client);
    }
    ask_free(ask);
}

int bk_ask_path(struct bk_core *core,
                struct bk_client *client,
                const struct bk_channel *channel,
                struct bb_slice path)
{
    struct bk_ask *ask = NULL;
    int r = ask_new(core, client, &(struct bb_msg){.type = BB_MSG_PUBLISH}, path, &ask);
    if (r < 0) {
        return r;
    }
    ask->locate = (struct bk_locate){
        .request = {.kind = BK_REQUEST_LOCATE, .done = on_path_located, .context = ask},
        .kind = BK_LOCATE_PATH,
        .path = bb_buf_slice(&ask->copy),
        .places = calloc(1, sizeof(struct bk_locate_place)),
        .n_places = 1,
    };
    if (ask->locate.places == NULL) {
        ask_free(ask);
        return BB_ENOMEM;
    }
    ask->locate.places[0].channel = channel->id;
    core->stage.backend->ops->submit(core->stage.backend, &ask->locate.request);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Asking for stored events: one request a page, each behind the last event of the page before. */
#include "proto/wire/query.h"

#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/api/request.h"
#include "bus/signal.h"

/* What the members of a query point to. */
struct asked {
    struct bb_query query;
    struct bb_buf patterns;
    struct bb_buf ids;
    struct bb_buf payload;
    char after_path[BB_PATH_MAX];
};

static void asked_fini(struct asked *asked)
{
    bb_buf_fini(&asked->patterns);
    bb_buf_fini(&asked->ids);
    bb_buf_fini(&asked->payload);
}

static int write_patterns(struct bb_buf *out, const struct bb_query_options *options)
{
    if (options->patterns == NULL) {
        return 0;
    }
    if (options->n_patterns == 0 || options->n_patterns > UINT32_MAX) {
        return BB_EPATTERN;
    }
    bb_mp_write_array(out, (uint32_t)options->n_patterns);
    for (size_t i = 0; i < options->n_patterns; i++) {
        struct bb_slice pattern = bb_slice_str(options->patterns[i]);
        int r = bb_pattern_check(pattern);
        if (r < 0) {
            return r;
        }
        bb_mp_write_str(out, pattern);
    }
    return out->error;
}

static int write_ids(struct bb_buf *out, const struct bb_query_options *options)
{
    if (options->ids == NULL) {
        return 0;
    }
    if (options->n_ids == 0 || options->n_ids > BB_QUERY_IDS_MAX) {
        return BB_EINVAL;
    }
    bb_mp_write_array(out, (uint32_t)options->n_ids);
    for (size_t i = 0; i < options->n_ids; i++) {
        bb_mp_write_array(out, 3);
        bb_mp_write_uint(out, options->ids[i].server);
        bb_mp_write_uint(out, options->ids[i].session);
        bb_mp_write_uint(out, options->ids[i].instance);
    }
    return out->error;
}

static int ask(const struct bb_query_options *options, struct asked *asked)
{
    static const enum bb_query_kind kinds[] = {
        [BB_RESULT_TIMESERIES] = BB_QUERY_TIMESERIES,
        [BB_RESULT_LATEST] = BB_QUERY_LATEST,
        [BB_RESULT_SERVER] = BB_QUERY_SERVER,
    };
    if ((unsigned)options->result > BB_RESULT_SERVER) {
        return BB_EINVAL;
    }
    int r = write_patterns(&asked->patterns, options);
    r = r < 0 ? r : write_ids(&asked->ids, options);
    if (r == 0 && options->payload_json != NULL) {
        r = bb_json_value_to_mp(options->payload_json, strlen(options->payload_json), &asked->payload, NULL);
    }
    asked->query = (struct bb_query){
        .kind = kinds[options->result],
        .order = options->ascending ? BB_ORDER_ASCENDING : BB_ORDER_DESCENDING,
        .order_by = options->by_source_time ? BB_ORDER_BY_SOURCE_TIME : BB_ORDER_BY_TIME,
        .patterns = bb_buf_slice(&asked->patterns),
        .has_t_from = options->has_from,
        .has_t_to = options->has_to,
        .has_source_t_from = options->has_source_from,
        .has_source_t_to = options->has_source_to,
        .t_from = options->from_us,
        .t_to = options->to_us,
        .source_t_from = options->source_from_us,
        .source_t_to = options->source_to_us,
        .has_server = options->has_server,
        .has_session = options->has_session,
        .server = options->server,
        .session = options->session,
        .ids = bb_buf_slice(&asked->ids),
        .payload = bb_buf_slice(&asked->payload),
        .where = options->where != NULL ? bb_slice_str(options->where) : (struct bb_slice){0},
        .unique_type = options->unique,
        .has_after = options->has_after,
        .after = {options->after.server, options->after.session, options->after.instance},
        .has_after_source_t = options->has_after && options->by_source_time,
        .after_source_t = options->after_source_us,
        .after_path = options->after_path != NULL ? bb_slice_str(options->after_path) : (struct bb_slice){0},
    };
    bool is_latest = options->result == BB_RESULT_LATEST;
    if (r == 0 && (is_latest ? options->has_after : options->after_path != NULL)) {
        r = BB_EINVAL;
    }
    return r;
}

/* The page in @request is of another start, or another broker, than the one before. */
static int judge_broker(struct bb_bus *bus, const struct bb_request *before, const struct bb_request *request)
{
    if (before->run_number == 0 ||
        (request->run_number == before->run_number && request->server == before->server)) {
        return 0;
    }
    bb_bus_note(bus, BB_EUNKNOWNRESULT, "since the page before the broker was started again, or changed");
    return BB_EUNKNOWNRESULT;
}

/* The next page, of the same start of the same broker as the one in @request, if there was one. */
static int fetch(struct bb_bus *bus, const struct bb_query *query, int timeout_ms, struct bb_request *request)
{
    struct bb_buf map = BB_BUF_INIT;
    struct bb_request before = *request;
    *request = (struct bb_request){0};
    bb_query_write(&map, query);
    struct bb_msg msg = {.type = BB_MSG_QUERY, .query = bb_buf_slice(&map)};
    int r = map.error;
    if (r == 0) {
        bb_bus_lock(bus);
        r = bb_request_run(bus, &msg, request, bb_deadline(timeout_ms));
        r = r < 0 ? r : judge_broker(bus, &before, request);
        bb_bus_unlock(bus);
    }
    bb_buf_fini(&map);
    bb_buf_fini(&request->value);
    return r;
}

/* The next page is behind @last. */
static void go_on_behind(struct asked *asked, const struct bb_event *last)
{
    struct bb_query *query = &asked->query;
    struct bb_event_attributes attributes;
    if (query->kind == BB_QUERY_LATEST) {
        size_t len = BB_MIN(last->path_len, sizeof(asked->after_path));
        memcpy(asked->after_path, last->path, len);
        query->after_path = bb_slice(asked->after_path, len);
        return;
    }
    query->has_after = true;
    query->after = (struct bb_query_id){last->server, last->session, last->instance};
    if (query->order_by == BB_ORDER_BY_SOURCE_TIME && bb_event_get_attributes(last, &attributes) == 0) {
        query->has_after_source_t = true;
        query->after_source_t = attributes.source_time_us;
    }
}

/* Gives a page to the caller: how many events, or an error; @ret_stopped: on_found has had enough. */
static int
give(struct bb_delivery *page, struct asked *asked, bb_found_fn *on_found, void *arg, bool *ret_stopped)
{
    struct bb_event events[BB_EVENTS_PER_CALL];
    int given = 0;
    size_t n;
    while (!*ret_stopped && (n = bb_delivery_read(page, events, BB_COUNT(events))) > 0) {
        while (n > 0 && events[n - 1].gap != NULL) {
            n--; /* what could not be read, which is_broken says as well */
        }
        if (n > 0) {
            given += (int)n;
            go_on_behind(asked, &events[n - 1]);
            *ret_stopped = on_found(events, n, arg) != 0;
        }
    }
    return page->is_broken ? BB_EMALFORMED : given;
}

static int
run(struct bb_bus *bus, struct asked *asked, uint64_t max, int timeout_ms, bb_found_fn *on_found, void *arg)
{
    uint64_t left = max != 0 ? max : UINT64_MAX;
    struct bb_request page = {0};
    for (;;) {
        bool is_stopped = false;
        asked->query.max_results = BB_MIN(left, BB_QUERY_RESULTS_MAX);
        int r = fetch(bus, &asked->query, timeout_ms, &page);
        r = r < 0 ? r : give(page.found, asked, on_found, arg, &is_stopped);
        bb_deliveries_free(page.found);
        if (r < 0) {
            return r;
        }
        left -= BB_MIN(left, (uint64_t)r);
        if (!page.has_more && !is_stopped) {
            return 0;
        }
        if (is_stopped || left == 0 || r == 0) { /* an empty page would come again */
            return 1;
        }
    }
}

int bb_query(bb_bus *bus,
             const struct bb_query_options *given,
             int timeout_ms,
             bb_found_fn *on_found,
             void *arg)
{
    struct bb_query_options options = BB_QUERY_OPTIONS_INIT;
    struct asked asked = {0};
    if (given == NULL || given->size == 0) {
        return BB_EINVAL;
    }
    memcpy(&options, given, given->size < sizeof(options) ? given->size : sizeof(options));
    int r = ask(&options, &asked);
    r = r < 0 ? r : run(bus, &asked, options.max, timeout_ms, on_found, arg);
    asked_fini(&asked);
    return r;
}

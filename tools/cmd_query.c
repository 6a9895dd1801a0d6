/* SPDX-License-Identifier: Apache-2.0 */
/* busbar query: print stored events. */
#include "proto/base/time.h"
#include "proto/wire/path.h"

#include "tools/body.h"
#include "tools/connection.h"
#include "tools/operands.h"
#include "tools/print.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct query_options {
    bool latest;
    const char *server;
    const char *session;
    struct option_list ids;
    const char *from;
    const char *to;
    const char *source_from;
    const char *source_to;
    bool ascending;
    bool descending;
    int by;
    bool unique;
    const char *payload;
    const char *where;
    uint64_t max;
    const char *after;
    const char *after_source;
    const char *after_path;
    int64_t timeout_us;
};

enum {
    BY_TIME,
    BY_SOURCE_TIME
};

static const struct query_options defaults = {.timeout_us = 30 * BB_US_PER_S};

static const struct option_choice orders[] = {{"time", BY_TIME}, {"source-time", BY_SOURCE_TIME}, {NULL, 0}};

#define AT(member) offsetof(struct query_options, member)

static const struct option_row options[] = {
    {'l', OPTION_FLAG, "latest", NULL, "the newest event of each path", AT(latest), NULL},
    {'f', OPTION_TEXT, "from", "WHEN", "not older: a time ago (10m), an RFC 3339 time", AT(from), NULL},
    {'t', OPTION_TEXT, "to", "WHEN", "not newer", AT(to), NULL},
    {0, OPTION_TEXT, "source-from", "WHEN", "the same for the publisher's time", AT(source_from), NULL},
    {0, OPTION_TEXT, "source-to", "WHEN", "the same for the publisher's time", AT(source_to), NULL},
    {0, OPTION_FLAG, "asc", NULL, "the oldest first", AT(ascending), NULL},
    {0, OPTION_FLAG, "desc", NULL, "the newest first (so it is without)", AT(descending), NULL},
    {0, OPTION_CHOICE, "by", "ORDER", "which time is ordered by (time)", AT(by), orders},
    {0, OPTION_FLAG, "unique", NULL, "of each path only the first", AT(unique), NULL},
    {0, OPTION_TEXT, "payload", "JSON", "only events with this payload", AT(payload), NULL},
    {'w', OPTION_TEXT, "where", "EXPR", "only payloads that it holds for, such as '.temp > 80'", AT(where),
     NULL},
    {0, OPTION_LIST, "id", "S/S/I", "only this event; may be repeated", AT(ids), NULL},
    {0, OPTION_TEXT, "server", "N", "only events of this broker, in the order of their ids", AT(server),
     NULL},
    {0, OPTION_TEXT, "session", "N", "only events of this session", AT(session), NULL},
    {'n', OPTION_COUNT, "max", "N", "at most N events", AT(max), NULL},
    {0, OPTION_TEXT, "after", "S/S/I", "go on behind this event of the same query", AT(after), NULL},
    {0, OPTION_TEXT, "after-source", "US", "its source_time, with --by source-time", AT(after_source), NULL},
    {0, OPTION_TEXT, "after-path", "PATH", "with --latest: go on behind this path", AT(after_path), NULL},
    {0, OPTION_DURATION, "timeout", "TIME", "limit for each answer of the broker (30s)", AT(timeout_us),
     NULL},
    {0},
};

struct query {
    const struct query_options *options;
    struct bb_query_options asked;
    struct bb_event_id ids[OPTION_LIST_MAX];
    struct bb_event_id last;
    int64_t last_source_us;
    char last_path[BB_PATH_MAX + 1];
    uint64_t n;
    int error;
};

/* --- what is asked -------------------------------------------------------------------------------- */

static bool time_set(const char *option, const char *text, bool *ret_has, int64_t *ret_us)
{
    *ret_has = text != NULL;
    if (text != NULL && !when_parse(text, ret_us)) {
        say("--%s cannot be '%s': it is a time ago such as 10m, or an instant such as 2026-01-31T12:00:00Z",
            option, text);
        return false;
    }
    return true;
}

static bool number_set(const char *option, const char *text, bool *ret_has, uint64_t *ret_number)
{
    *ret_has = text != NULL;
    if (text != NULL && !option_parse_count(text, ret_number)) {
        say("--%s cannot be '%s': it is a whole number", option, text);
        return false;
    }
    return true;
}

/* As events are printed with it. */
static bool source_set(const char *text, int64_t *ret_us)
{
    char *end = NULL;
    errno = 0;
    long long us = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text != NULL && (end == text || *end != '\0' || errno != 0)) {
        say("--after-source cannot be '%s': it is a whole number of microseconds", text);
        return false;
    }
    *ret_us = us;
    return true;
}

static bool id_set(const char *option, const char *text, struct bb_event_id *ret_id)
{
    if (!event_id_parse(text, ret_id)) {
        say("--%s cannot be '%s': an id looks like 1/7/3", option, text);
        return false;
    }
    return true;
}

static bool ids_set(struct query *query)
{
    const struct option_list *list = &query->options->ids;
    for (size_t i = 0; i < list->n; i++) {
        if (!id_set("id", list->items[i], &query->ids[i])) {
            return false;
        }
    }
    query->asked.ids = list->n > 0 ? query->ids : NULL;
    query->asked.n_ids = list->n;
    return true;
}

/* The broker would say the same, but of bytes that nobody has typed. */
static bool payload_check(const char *text)
{
    struct bb_buf memory = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct body body;
    int r = text != NULL ? body_parse(BODY_JSON, bb_slice_str(text), &memory, &err, &body) : 0;
    if (r != 0) {
        say("--payload cannot be '%s': it is JSON, a text such as '\"on\"'%s%s", text,
            err.len > 0 ? "; " : "", bb_buf_string(&err));
    }
    bb_buf_fini(&memory);
    bb_buf_fini(&err);
    return r == 0;
}

static bool where_check(const char *text)
{
    struct bb_where *where;
    bool is_right = where_parse(text, &where);
    bb_where_free(where);
    return is_right;
}

static bool query_set(struct query *query)
{
    const struct query_options *o = query->options;
    struct bb_query_options *asked = &query->asked;
    if ((o->ascending && o->descending) || (o->latest && o->server != NULL)) {
        say(o->latest ? "--latest does not go with --server" : "only one of --asc and --desc can be true");
        return false;
    }
    if (o->latest ? o->after != NULL : o->after_path != NULL) {
        say(o->latest ? "--latest goes on with --after-path" : "--after-path goes with --latest");
        return false;
    }
    bool by_source = o->by == BY_SOURCE_TIME && o->after != NULL;
    if (by_source != (o->after_source != NULL)) {
        say("--after-source belongs to --after with --by source-time");
        return false;
    }
    asked->after_path = o->after_path;
    asked->result = o->latest           ? BB_RESULT_LATEST
                    : o->server != NULL ? BB_RESULT_SERVER
                                        : BB_RESULT_TIMESERIES;
    asked->ascending = o->ascending;
    asked->by_source_time = o->by == BY_SOURCE_TIME;
    asked->unique = o->unique;
    asked->payload_json = o->payload;
    asked->where = o->where;
    asked->max = o->max;
    asked->has_after = o->after != NULL;
    return time_set("from", o->from, &asked->has_from, &asked->from_us) &&
           time_set("to", o->to, &asked->has_to, &asked->to_us) &&
           time_set("source-from", o->source_from, &asked->has_source_from, &asked->source_from_us) &&
           time_set("source-to", o->source_to, &asked->has_source_to, &asked->source_to_us) &&
           number_set("server", o->server, &asked->has_server, &asked->server) &&
           number_set("session", o->session, &asked->has_session, &asked->session) && ids_set(query) &&
           (o->after == NULL || id_set("after", o->after, &asked->after)) &&
           source_set(o->after_source, &asked->after_source_us) && payload_check(o->payload) &&
           where_check(o->where);
}

/* --- what is found -------------------------------------------------------------------------------- */

static void last_note(struct query *query, const struct bb_event *event)
{
    struct bb_event_attributes attributes;
    query->last = (struct bb_event_id){event->server, event->session, event->instance};
    if (bb_event_get_attributes(event, &attributes) == 0) {
        query->last_source_us = attributes.source_time_us;
    }
    (void)snprintf(query->last_path, sizeof(query->last_path), "%.*s", (int)event->path_len, event->path);
}

/* How to ask for what comes behind. */
static void more_say(const struct query *query)
{
    char source[64] = "";
    if (query->options->latest) {
        say("there are more; go on with --after-path '%s'", query->last_path);
        return;
    }
    if (query->options->by == BY_SOURCE_TIME) {
        (void)snprintf(source, sizeof(source), " --after-source %" PRId64, query->last_source_us);
    }
    say("there are more; go on with --after %" PRIu64 "/%" PRIu64 "/%" PRIu64 "%s", query->last.server,
        query->last.session, query->last.instance, source);
}

static int found_print(const struct bb_event *events, size_t n, void *arg)
{
    struct query *query = arg;
    for (size_t i = 0; i < n && query->error == 0; i++) {
        query->error = print_event(PRINT_JSON, &events[i]);
        query->n++;
    }
    if (n > 0) {
        last_note(query, &events[n - 1]);
    }
    if (query->error == 0) {
        query->error = print_flush();
    }
    return query->error;
}

static int query_ask(struct query *query, const struct common *common, struct connection *connection)
{
    int r =
        bb_query(connection->bus, &query->asked, timeout_ms(query->options->timeout_us), found_print, query);
    if (query->error != 0) {
        return print_status(query->error);
    }
    if (r < 0) {
        int status = fail(connection->bus, r, query->n > 0 ? "the rest cannot be had" : "cannot query");
        if (query->n > 0) {
            more_say(query);
        }
        return status;
    }
    if (r > 0 && !common->quiet && query->n > 0) {
        more_say(query);
    }
    return STATUS_OK;
}

static int query_run(const struct common *common, const void *values, char **operands)
{
    struct query query = {.options = values, .asked = BB_QUERY_OPTIONS_INIT};
    if (!query_set(&query)) {
        return STATUS_USAGE;
    }
    const char **patterns = patterns_parse(operands, &query.asked.n_patterns);
    if (patterns == NULL) {
        return STATUS_USAGE;
    }
    query.asked.patterns = query.asked.n_patterns > 0 ? patterns : NULL;
    struct connection connection;
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar query";
    int status = connection_open(&connection, common, &bus, 0, true);
    if (status == STATUS_OK) {
        status = query_ask(&query, common, &connection);
        connection_close(&connection);
    }
    free(patterns);
    return status;
}

const struct command command_query = {
    .name = "query",
    .operands = "[PATTERN...]",
    .summary = "print stored events, one JSON object a line",
    .notes = "Without patterns every path is meant. All bounds are inclusive.\n"
             "\n"
             "  busbar query 'plant/*' --latest\n"
             "  busbar query plant/line1/temp --from 1h --asc --where '. > 80'\n",
    .max_operands = SIZE_MAX,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = query_run,
};

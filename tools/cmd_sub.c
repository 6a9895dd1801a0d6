/* SPDX-License-Identifier: Apache-2.0 */
/* busbar sub: print the events that match. */
#include "proto/base/time.h"
#include "proto/wire/where.h"

#include "tools/connection.h"
#include "tools/operands.h"
#include "tools/print.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECEIVE_MAX 256
#define GRACE_MS    2000
#define LOOK_MS     1000 /* how often the connection is looked at while nothing comes */

struct sub_options {
    uint64_t count;
    int64_t timeout_us;
    int64_t idle_us;
    const char *from;
    bool json;
    bool raw;
    bool strict;
    int overflow;
    uint64_t budget;
    const char *ready_file;
    const char *until;
    const char *where;
    const char *durable;
    bool retained;
    bool early;
};

static const struct sub_options defaults = {
    .timeout_us = -1,
    .idle_us = -1,
    .overflow = BB_OVERFLOW_DEFAULT,
};

static const struct option_choice overflows[] = {
    {"slide", BB_OVERFLOW_SLIDE},
    {"drop_oldest", BB_OVERFLOW_DROP_OLDEST},
    {"drop_newest", BB_OVERFLOW_DROP_NEWEST},
    {"conflate", BB_OVERFLOW_CONFLATE},
    {"refuse", BB_OVERFLOW_REFUSE},
    {"disconnect", BB_OVERFLOW_DISCONNECT},
    {NULL, 0},
};

#define AT(member) offsetof(struct sub_options, member)

static const struct option_row options[] = {
    {'n', OPTION_COUNT, "count", "N", "end after N events", AT(count), NULL},
    {'t', OPTION_DURATION, "timeout", "TIME", "end after this time in all", AT(timeout_us), NULL},
    {'i', OPTION_DURATION, "idle", "TIME", "end when nothing came for this time", AT(idle_us), NULL},
    {'f', OPTION_TEXT, "from", "WHERE",
     "new, last, oldest or all, a sequence, an id (S/S/I), a time ago (10m), an RFC 3339 time (new)",
     AT(from), NULL},
    {0, OPTION_TEXT, "until", "WHERE", "end with what there is now, a sequence, or a time", AT(until), NULL},
    {'w', OPTION_TEXT, "where", "EXPR", "only payloads that it holds for, such as '.temp > 80'", AT(where),
     NULL},
    {'r', OPTION_FLAG, "retained", NULL, "first the newest event of each path", AT(retained), NULL},
    {'d', OPTION_TEXT, "durable", "NAME", "go on where the last one of this name ended", AT(durable), NULL},
    {0, OPTION_FLAG, "early", NULL, "see events before they are on disk", AT(early), NULL},
    {'j', OPTION_FLAG, "json", NULL, "one object a line, gaps too", AT(json), NULL},
    {0, OPTION_FLAG, "raw", NULL, "only the payload: text and binary as they are, else JSON", AT(raw), NULL},
    {0, OPTION_FLAG, "strict", NULL, "end with status 6 at the first gap", AT(strict), NULL},
    {0, OPTION_CHOICE, "overflow", "POLICY", "when too much waits (the channel's)", AT(overflow), overflows},
    {0, OPTION_SIZE, "budget", "BYTES", "how much may wait in the broker", AT(budget), NULL},
    {0, OPTION_TEXT, "ready-file", "FILE", "write a line to FILE (or fifo) when subscribed", AT(ready_file),
     NULL},
    {0},
};

struct sub {
    const struct sub_options *options;
    bool quiet;
    struct connection connection;
    struct bb_subscribe_options subscribe;
    bb_subscription *subscription;
    struct bb_where *where;
    uint64_t received;
    bool is_cut; /* it was said that the connection is lost */
    int64_t start_us;
    int64_t last_us; /* of the last event */
};

/* --- what to subscribe to ------------------------------------------------------------------------- */

static bool from_parse(const char *text, struct bb_subscribe_options *to)
{
    int64_t us;
    if (text == NULL || strcmp(text, "new") == 0) {
        to->from = BB_FROM_NEW;
    } else if (strcmp(text, "last") == 0) {
        to->from = BB_FROM_LAST;
    } else if (strcmp(text, "all") == 0 || strcmp(text, "oldest") == 0) {
        to->from = BB_FROM_OLDEST;
    } else if (option_parse_count(text, &to->from_value)) {
        to->from = BB_FROM_SEQUENCE;
    } else if (event_id_parse(text, &to->from_id)) {
        to->from = BB_FROM_ID;
    } else if (when_parse(text, &us)) {
        to->from = BB_FROM_TIME;
        to->from_value = us > 0 ? (uint64_t)us : 0;
    } else {
        say("--from cannot be '%s': it is new, last, oldest (or all), a sequence such as 17, an id such as 1/7/3, a time ago such as "
            "10m, or an instant such as 2026-01-31T12:00:00Z",
            text);
        return false;
    }
    return true;
}

static bool until_parse(const char *text, struct bb_subscribe_options *to)
{
    int64_t us;
    if (text == NULL) {
        to->until = BB_UNTIL_NONE;
    } else if (strcmp(text, "now") == 0) {
        to->until = BB_UNTIL_NOW;
    } else if (option_parse_count(text, &to->until_value) && to->until_value > 0) {
        to->until = BB_UNTIL_SEQUENCE;
    } else if (when_parse(text, &us) && us >= 0) {
        to->until = BB_UNTIL_TIME;
        to->until_value = (uint64_t)us;
    } else {
        say("--until cannot be '%s': it is now, a sequence such as 17, a time ago such as 10m, or an instant such as "
            "2026-01-31T12:00:00Z",
            text);
        return false;
    }
    return true;
}

/* --- events --------------------------------------------------------------------------------------- */

/* Milliseconds until something ends the wait, -1 for never. */
static int wait_ms(const struct sub *sub)
{
    const struct sub_options *o = sub->options;
    int64_t now = bb_clock_monotonic_us();
    int64_t left = INT64_MAX;
    if (o->timeout_us >= 0) {
        left = BB_MAX(sub->start_us + o->timeout_us - now, 0);
    }
    if (o->idle_us >= 0) {
        left = BB_MIN(left, BB_MAX(sub->last_us + o->idle_us - now, 0));
    }
    return left == INT64_MAX ? -1 : timeout_ms(left);
}

static bool is_over(const struct sub *sub)
{
    return sub->options->timeout_us >= 0 &&
           bb_clock_monotonic_us() >= sub->start_us + sub->options->timeout_us;
}

/* What was asked for has come, unless it was a number of events. */
static int end_reached(const struct sub *sub)
{
    if (sub->options->count == 0) {
        return STATUS_OK;
    }
    say("%" PRIu64 " of %" PRIu64 " events came", sub->received, sub->options->count);
    return STATUS_TIMEOUT;
}

static int timed_out(const struct sub *sub)
{
    if (sub->options->count == 0 && sub->options->until != NULL) {
        say("the time was over before all up to --until %s had come", sub->options->until);
        return STATUS_TIMEOUT;
    }
    return end_reached(sub);
}

static bool is_wanted(const struct sub *sub, const struct bb_event *event)
{
    return sub->where == NULL || event->gap != NULL || event->is_retained_end ||
           bb_where_holds(sub->where, bb_slice(event->payload, event->payload_len));
}

/* Prints what came: an exit status, or -1 to go on. */
static int events_print(struct sub *sub, const struct bb_event *events, size_t n)
{
    enum print_form form = sub->options->json ? PRINT_JSON : sub->options->raw ? PRINT_RAW : PRINT_HUMAN;
    for (size_t i = 0; i < n; i++) {
        if (!is_wanted(sub, &events[i])) {
            continue;
        }
        int r = print_event(form, &events[i]);
        if (r != 0) {
            return print_status(r);
        }
        if (events[i].gap != NULL) {
            if (sub->options->strict) {
                return STATUS_GAP;
            }
            continue;
        }
        if (events[i].is_retained_end) {
            continue;
        }
        sub->received++;
        if (sub->received == sub->options->count) {
            return STATUS_OK;
        }
    }
    return -1;
}

/* Not more than what will be printed: a cursor is behind all that was taken. */
static size_t receive_max(const struct sub *sub)
{
    const struct sub_options *o = sub->options;
    uint64_t left = o->count - sub->received;
    if (o->strict && o->durable != NULL) {
        return 1; /* the next one may be a gap, and nothing behind that is printed */
    }
    return o->count > 0 && left < RECEIVE_MAX ? (size_t)left : RECEIVE_MAX;
}

/* The library comes back by itself; who watches is told why nothing comes. */
static void cut_tell(struct sub *sub)
{
    char why[256] = "";
    bool is_cut = bb_bus_state(sub->connection.bus) != BB_STATE_READY;
    if (is_cut == sub->is_cut || sub->quiet) {
        return;
    }
    sub->is_cut = is_cut;
    bb_bus_last_error(sub->connection.bus, why, sizeof(why));
    if (is_cut) {
        say("the connection is lost%s%s; trying to come back", why[0] != '\0' ? ": " : "", why);
    } else {
        say("connected again");
    }
}

/* Waits for events as bb_receive() does, and tells meanwhile when the broker is gone. */
static int events_wait(struct sub *sub, struct bb_event *events, size_t max)
{
    for (;;) {
        int ms = wait_ms(sub);
        bool is_look = ms < 0 || ms > LOOK_MS;
        int r = bb_receive(sub->subscription, events, max, is_look ? LOOK_MS : ms);
        int status;
        cut_tell(sub);
        if (r != BB_ETIMEOUT || !is_look || connection_ended(&sub->connection, &status)) {
            return r;
        }
    }
}

/* What came, after everything before it was written out if it has to be waited for. */
static int events_take(struct sub *sub, struct bb_event *events)
{
    size_t max = receive_max(sub);
    int r = bb_receive(sub->subscription, events, max, 0);
    return r == BB_ETIMEOUT && print_flush() == 0 ? events_wait(sub, events, max) : r;
}

/* Why nothing comes any more, as an exit status. */
static int end_judge(const struct sub *sub, int error)
{
    if (print_flush() != 0) {
        return print_end();
    }
    /* With an end of its own it closes by itself. */
    if (error == BB_ETIMEOUT) {
        return timed_out(sub);
    }
    if (error == BB_ECLOSED && sub->options->until != NULL) {
        return end_reached(sub);
    }
    return fail(sub->connection.bus, error, "the subscription ended");
}

static int receive(struct sub *sub)
{
    struct bb_event events[RECEIVE_MAX];
    int status = -1;
    while (status < 0) {
        int ended_status;
        int r = events_take(sub, events);
        bool is_ended = connection_ended(&sub->connection, &ended_status);
        if (r < 0) {
            return is_ended ? ended_status : end_judge(sub, r);
        }
        /* What was taken is printed also when a signal came meanwhile: a cursor is behind it. */
        status = events_print(sub, events, (size_t)r);
        if (status < 0 && is_ended) {
            return ended_status;
        }
        /* The next call says that these are done with, so they must be out. */
        if (status < 0 && sub->options->durable != NULL && print_flush() != 0) {
            return print_end();
        }
        if (status < 0 && is_over(sub)) {
            return timed_out(sub);
        }
        if (sub->options->idle_us >= 0) {
            sub->last_us = bb_clock_monotonic_us();
        }
    }
    return status;
}

/* --- the command ---------------------------------------------------------------------------------- */

static int ready_tell(const struct sub *sub)
{
    if (!sub->quiet) {
        for (size_t i = 0; i < sub->subscribe.n_patterns; i++) {
            say("subscribed to '%s'", sub->subscribe.patterns[i]);
        }
    }
    const char *name = sub->options->ready_file;
    if (name == NULL) {
        return STATUS_OK;
    }
    FILE *file = fopen(name, "we");
    if (file == NULL) {
        say("cannot write %s: %m", name);
        return STATUS_FAILURE;
    }
    bool written = fputs("subscribed\n", file) >= 0;
    if (fclose(file) != 0 || !written) {
        say("cannot write %s: %m", name);
        return STATUS_FAILURE;
    }
    return STATUS_OK;
}

static int subscribe(struct sub *sub, const struct common *common)
{
    int wait = timeout_ms(common->connect_timeout_us);
    int r = bb_subscribe(sub->connection.bus, &sub->subscribe, wait, &sub->subscription);
    if (r != 0) {
        return fail(sub->connection.bus, r, "cannot subscribe");
    }
    sub->start_us = bb_clock_monotonic_us();
    sub->last_us = sub->start_us;
    return ready_tell(sub);
}

/* What is wrong with the options together, or NULL. */
static const char *options_judge(const struct sub_options *o)
{
    if (o->json && o->raw) {
        return "only one of --json and --raw can be true";
    }
    if (o->durable != NULL && (o->durable[0] == '\0' || strlen(o->durable) > 64)) {
        return "--durable is a name of 1 to 64 bytes";
    }
    if (o->retained && o->from != NULL && strcmp(o->from, "new") != 0) {
        return "--retained begins with the newest events, so --from does not go with it";
    }
    return NULL;
}

static int run(struct sub *sub, const struct common *common)
{
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar sub";
    int status = connection_open(&sub->connection, common, &bus, GRACE_MS, true);
    if (status == STATUS_OK) {
        status = subscribe(sub, common);
    }
    if (status == STATUS_OK) {
        status = receive(sub);
    }
    int printed = print_flush();
    status = status == STATUS_OK ? print_status(printed) : status;
    if (printed != 0 && sub->options->durable != NULL) {
        _exit(status); /* closing would say that all which was received is printed */
    }
    connection_close(&sub->connection);
    return status;
}

static int sub_run(const struct common *common, const void *values, char **operands)
{
    const struct sub_options *o = values;
    struct sub sub = {.options = o, .quiet = common->quiet, .subscribe = BB_SUBSCRIBE_OPTIONS_INIT};
    const char *wrong = options_judge(o);
    if (wrong != NULL) {
        say("%s", wrong);
        return STATUS_USAGE;
    }
    if (!from_parse(o->from, &sub.subscribe) || !until_parse(o->until, &sub.subscribe) ||
        !where_parse(o->where, &sub.where)) {
        return STATUS_USAGE;
    }
    const char **patterns = patterns_parse(operands, &sub.subscribe.n_patterns);
    int status = STATUS_USAGE;
    if (patterns != NULL) {
        sub.subscribe.patterns = patterns;
        sub.subscribe.overflow = (enum bb_overflow)o->overflow;
        sub.subscribe.budget = o->budget;
        sub.subscribe.retained = o->retained;
        sub.subscribe.durable = o->durable;
        sub.subscribe.view = o->early ? BB_VIEW_EARLY : BB_VIEW_DEFAULT;
        status = run(&sub, common);
    }
    bb_where_free(sub.where);
    free(patterns);
    return status;
}

const struct command command_sub = {
    .name = "sub",
    .operands = "PATTERN...",
    .summary = "print the events that match",
    .notes =
        "In a pattern '?' stands for one segment and a last '*' for zero or more; '+' and '#' are understood as\n"
        "well. When --timeout or --idle ends it before --count events came, the status is 5.\n"
        "\n"
        "  busbar sub 'plant/*'\n"
        "  busbar sub 'plant/?/temp' --from 10m --json --where '. > 80'\n"
        "  busbar sub 'plant/*' --from all --until now\n"
        "  busbar sub 'jobs/*' -n 1 --timeout 5s --raw\n",
    .min_operands = 1,
    .max_operands = SIZE_MAX,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = sub_run,
};

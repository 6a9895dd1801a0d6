/* SPDX-License-Identifier: Apache-2.0 */
/* busbar channel: make, show, change, trim and remove channels. */
#include "proto/base/time.h"

#include "tools/connection.h"
#include "tools/print.h"
#include "tools/table.h"

#include <stdlib.h>
#include <string.h>

struct channel_options {
    bool log;
    bool memory;
    bool sync;
    bool lazy;
    bool early;
    bool no_early;
    int64_t max_age_us;
    uint64_t max_bytes;
    uint64_t max_events;
    uint64_t max_per_path;
    uint64_t min_events;
    int overflow;
    uint64_t ring;
    struct option_list resets;
    uint64_t before;
    bool json;
    int64_t timeout_us;
};

static const struct channel_options defaults = {
    .max_age_us = -1,
    .overflow = BB_OVERFLOW_DEFAULT,
    .timeout_us = 30 * BB_US_PER_S,
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

#define AT(member) offsetof(struct channel_options, member)

static const struct option_row options[] = {
    {0, OPTION_FLAG, "log", NULL, "keep its events on disk", AT(log), NULL},
    {0, OPTION_FLAG, "memory", NULL, "keep them in memory alone", AT(memory), NULL},
    {0, OPTION_FLAG, "sync", NULL, "acknowledge what is on disk", AT(sync), NULL},
    {0, OPTION_FLAG, "lazy", NULL, "acknowledge before", AT(lazy), NULL},
    {0, OPTION_FLAG, "early", NULL, "subscribers see events before they are on disk", AT(early), NULL},
    {0, OPTION_FLAG, "no-early", NULL, "they do not", AT(no_early), NULL},
    {0, OPTION_DURATION, "max-age", "TIME", "remove events that are older", AT(max_age_us), NULL},
    {0, OPTION_SIZE, "max-bytes", "BYTES", "remove the oldest beyond this size", AT(max_bytes), NULL},
    {0, OPTION_COUNT, "max-events", "N", "remove the oldest beyond this number", AT(max_events), NULL},
    {0, OPTION_COUNT, "max-per-path", "N", "the same for each path", AT(max_per_path), NULL},
    {0, OPTION_COUNT, "min-events", "N", "but keep so many whatever their age", AT(min_events), NULL},
    {0, OPTION_CHOICE, "overflow", "POLICY", "of subscriptions that do not say", AT(overflow), overflows},
    {0, OPTION_SIZE, "ring", "BYTES", "memory for recent events", AT(ring), NULL},
    {0, OPTION_LIST, "reset", "SETTING", "back to the broker's default; may be repeated", AT(resets), NULL},
    {0, OPTION_COUNT, "before", "N", "trim: remove what is before this sequence", AT(before), NULL},
    {'j', OPTION_FLAG, "json", NULL, "one object or array as the broker gives it", AT(json), NULL},
    {'t', OPTION_DURATION, "timeout", "TIME", "limit for the answer (30s)", AT(timeout_us), NULL},
    {0},
};

/* --- settings ------------------------------------------------------------------------------------- */

static enum bb_toggle toggle_of(bool on, bool off)
{
    return on ? BB_TOGGLE_ON : off ? BB_TOGGLE_OFF : BB_TOGGLE_KEEP;
}

static bool setting_reset(struct bb_channel_settings *settings, const char *name)
{
    const struct {
        const char *name;
        uint64_t *number;
    } numbers[] = {
        {"max-age", &settings->max_age_ms},    {"max-bytes", &settings->max_bytes},
        {"max-events", &settings->max_events}, {"max-per-path", &settings->max_per_path},
        {"min-events", &settings->min_events}, {"ring", &settings->ring_bytes},
    };
    for (size_t i = 0; i < BB_COUNT(numbers); i++) {
        if (strcmp(name, numbers[i].name) == 0) {
            *numbers[i].number = BB_UNKNOWN;
            return true;
        }
    }
    if (strcmp(name, "store") == 0) {
        settings->store = BB_STORE_DEFAULT;
    } else if (strcmp(name, "sync") == 0) {
        settings->sync = BB_TOGGLE_DEFAULT;
    } else if (strcmp(name, "early") == 0) {
        settings->early = BB_TOGGLE_DEFAULT;
    } else {
        say("--reset cannot be '%s': it is store, sync, early, max-age, max-bytes, max-events, max-per-path, min-events "
            "or ring",
            name);
        return false;
    }
    return true;
}

static bool settings_are_given(const struct channel_options *o)
{
    return o->log || o->memory || o->sync || o->lazy || o->early || o->no_early || o->max_age_us >= 0 ||
           o->max_bytes > 0 || o->max_events > 0 || o->max_per_path > 0 || o->min_events > 0 ||
           o->overflow != BB_OVERFLOW_DEFAULT || o->ring > 0 || o->resets.n > 0;
}

static bool settings_set(const struct channel_options *o, struct bb_channel_settings *settings)
{
    if (o->max_age_us == 0) {
        say("--max-age must be above 0; --reset max-age takes the limit away");
        return false;
    }
    if ((o->log && o->memory) || (o->sync && o->lazy) || (o->early && o->no_early)) {
        say("only one of --log and --memory, of --sync and --lazy, of --early and --no-early can be true");
        return false;
    }
    *settings = (struct bb_channel_settings)BB_CHANNEL_SETTINGS_INIT;
    settings->store = o->log ? BB_STORE_LOG : o->memory ? BB_STORE_MEMORY : BB_STORE_KEEP;
    settings->sync = toggle_of(o->sync, o->lazy);
    settings->early = toggle_of(o->early, o->no_early);
    settings->max_age_ms =
        o->max_age_us > 0 ? (uint64_t)(o->max_age_us / 1000) + (o->max_age_us % 1000 != 0) : 0;
    settings->max_bytes = o->max_bytes;
    settings->max_events = o->max_events;
    settings->max_per_path = o->max_per_path;
    settings->min_events = o->min_events;
    settings->overflow = (enum bb_overflow)o->overflow;
    settings->ring_bytes = o->ring;
    for (size_t i = 0; i < o->resets.n; i++) {
        if (!setting_reset(settings, o->resets.items[i])) {
            return false;
        }
    }
    return true;
}

/* --- actions -------------------------------------------------------------------------------------- */

struct channel {
    const struct channel_options *options;
    struct bb_channel_settings settings;
    bb_bus *bus;
    const char *name;
    int wait_ms;
    char *text; /* the answer, if it says anything */
};

static int add(struct channel *c)
{
    return bb_channel_add(c->bus, c->name, &c->settings, c->wait_ms);
}

static int set(struct channel *c)
{
    return bb_channel_set(c->bus, c->name, &c->settings, c->wait_ms);
}

static int list(struct channel *c)
{
    return bb_request_channels(c->bus, c->wait_ms, &c->text);
}

static int info(struct channel *c)
{
    return bb_request_channel(c->bus, c->name, c->wait_ms, &c->text);
}

static int remove_all(struct channel *c)
{
    return bb_channel_remove(c->bus, c->name, c->wait_ms);
}

static int trim(struct channel *c)
{
    return bb_channel_trim(c->bus, c->name, c->options->before, c->wait_ms);
}

static const struct action {
    const char *name;
    const char *verb; /* for a person: it could not be done */
    bool has_name;
    bool has_settings;
    int (*run)(struct channel *c);
} actions[] = {
    {"add", "add", true, true, add},           {"ls", "list", false, false, list},
    {"info", "show", true, false, info},       {"set", "change", true, true, set},
    {"rm", "remove", true, false, remove_all}, {"trim", "trim", true, false, trim},
};

static const struct action *action_find(const char *name)
{
    for (size_t i = 0; i < BB_COUNT(actions); i++) {
        if (strcmp(actions[i].name, name) == 0) {
            return &actions[i];
        }
    }
    say("channel knows add, ls, info, set, rm and trim");
    return NULL;
}

/* What ls shows; --json has the rest. */
static void list_print(json_t *channels)
{
    static const char *const columns[] = {"name",   "store", "sync",    "first",     "last",
                                          "events", "bytes", "max_age", "max_bytes", "max_events"};
    json_t *rows = json_array();
    size_t at;
    json_t *channel;
    json_array_foreach(channels, at, channel)
    {
        json_t *row = json_object();
        for (size_t i = 0; i < BB_COUNT(columns); i++) {
            json_t *value = json_object_get(channel, columns[i]);
            (void)json_object_set(row, columns[i], value != NULL ? value : json_null());
        }
        (void)json_array_append_new(rows, row);
    }
    if (json_array_size(rows) > 0) {
        table_rows_print(rows);
    }
    json_decref(rows);
}

static int answer_print(const struct channel *c)
{
    json_error_t error;
    json_t *answer = c->options->json ? NULL : json_loads(c->text, 0, &error);
    if (c->options->json) {
        (void)puts(c->text);
    } else if (json_is_array(answer)) {
        list_print(answer);
    } else if (json_is_object(answer)) {
        table_pairs_print(answer);
    }
    json_decref(answer);
    return print_end();
}

/* What is wrong with the words together, or NULL. */
static const char *words_judge(const struct channel *c, const struct action *action)
{
    if (action->has_name != (c->name != NULL)) {
        return "every action but ls needs the name of one channel";
    }
    if ((action->run == trim) != (c->options->before != 0)) {
        return "trim, and only trim, needs --before";
    }
    bool is_given = settings_are_given(c->options);
    if (is_given && !action->has_settings) {
        return "settings go with add and set alone";
    }
    return action->run == set && !is_given ? "set needs a setting that is to be changed" : NULL;
}

static int action_fail(const struct channel *c, const struct action *action, int error)
{
    char what[300];
    if (error == BB_ENOTFOUND) {
        say("there is no channel '%s'; 'busbar channel ls' lists all", c->name);
        return status_of(error);
    }
    if (error == BB_EPATH) {
        say("'%s' cannot be the name of a channel: it is one segment of a path, without '/', '?' and '*', does not begin "
            "with '$' and has at most 200 bytes",
            c->name);
        return status_of(error);
    }
    (void)snprintf(what, sizeof(what), "cannot %s channel%s%s%s", action->verb, c->name != NULL ? " '" : "s",
                   c->name != NULL ? c->name : "", c->name != NULL ? "'" : "");
    return fail(c->bus, error, what);
}

static int channel_run(const struct common *common, const void *values, char **operands)
{
    struct channel c = {.options = values, .name = operands[1]};
    const struct action *action = action_find(operands[0]);
    if (action == NULL || !settings_set(c.options, &c.settings)) {
        return STATUS_USAGE;
    }
    const char *wrong = words_judge(&c, action);
    if (wrong != NULL) {
        say("%s", wrong);
        return STATUS_USAGE;
    }
    struct connection connection;
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar channel";
    int status = connection_open(&connection, common, &bus, 0, false);
    if (status != STATUS_OK) {
        return status;
    }
    c.bus = connection.bus;
    c.wait_ms = timeout_ms(c.options->timeout_us);
    int r = action->run(&c);
    if (r != 0) {
        status = action_fail(&c, action, r);
    } else if (c.text != NULL) {
        status = answer_print(&c);
    }
    free(c.text);
    connection_close(&connection);
    return status;
}

const struct command command_channel = {
    .name = "channel",
    .operands = "add NAME | ls | info NAME | set NAME | rm NAME | trim NAME",
    .words = "add ls info set rm trim",
    .summary = "make, show, change, trim and remove channels",
    .notes = "\n"
             "  busbar channel add plant --log --max-age 7d --max-bytes 10G\n"
             "  busbar channel set plant --lazy --reset max-age\n"
             "  busbar channel trim plant --before 100000\n",
    .min_operands = 1,
    .max_operands = 2,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = channel_run,
};

/* SPDX-License-Identifier: Apache-2.0 */
/* busbar log: upkeep of the broker's log. */
#include "proto/base/time.h"

#include "tools/connection.h"
#include "tools/print.h"
#include "tools/table.h"

#include <stdlib.h>
#include <string.h>

struct log_options {
    bool json;
    int64_t timeout_us;
};

static const struct log_options defaults = {.timeout_us = -1};

#define AT(member) offsetof(struct log_options, member)

static const struct option_row options[] = {
    {'j', OPTION_FLAG, "json", NULL, "one object as the broker gives it", AT(json), NULL},
    {'t', OPTION_DURATION, "timeout", "TIME", "limit for the answer (none)", AT(timeout_us), NULL},
    {0},
};

static int report_print(char *text, bool as_json)
{
    json_error_t error;
    json_t *report = json_loads(text, 0, &error);
    if (as_json) {
        (void)puts(text);
    } else if (json_is_object(report)) {
        table_pairs_print(report);
    }
    bool is_damaged = json_integer_value(json_object_get(report, "problems")) > 0;
    json_decref(report);
    free(text);
    int status = print_end();
    if (is_damaged) {
        say("the log is damaged: subscriptions and queries end where they come to it");
        return STATUS_REFUSED;
    }
    return status;
}

static int action_fail(bb_bus *bus, int error, const char *action, const char *name)
{
    char what[300];
    if (name != NULL && error == BB_EINVAL) {
        say("'%s' cannot be the name of a backup: it is the name of a file, without a slash", name);
        return STATUS_USAGE;
    }
    if (name != NULL) {
        (void)snprintf(what, sizeof(what), "cannot make the backup '%s'", name);
    } else {
        (void)snprintf(what, sizeof(what), "log %s", action);
    }
    return fail(bus, error, what);
}

static int log_run(const struct common *common, const void *values, char **operands)
{
    const struct log_options *o = values;
    static const char *const actions[] = {"backup", "compact", "verify", "status"};
    bool is_backup = strcmp(operands[0], "backup") == 0;
    bool is_known = false;
    for (size_t i = 0; i < BB_COUNT(actions); i++) {
        is_known = is_known || strcmp(operands[0], actions[i]) == 0;
    }
    if (!is_known || is_backup != (operands[1] != NULL)) {
        say(is_known ? "only a backup needs a name" : "log knows backup, compact, verify and status");
        return STATUS_USAGE;
    }
    struct connection connection;
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar log";
    int status = connection_open(&connection, common, &bus, 0, false);
    if (status != STATUS_OK) {
        return status;
    }
    char *text;
    int r = bb_request_log(connection.bus, operands[0], operands[1], timeout_ms(o->timeout_us), &text);
    status = r != 0 ? action_fail(connection.bus, r, operands[0], operands[1]) : report_print(text, o->json);
    connection_close(&connection);
    return status;
}

const struct command command_log = {
    .name = "log",
    .operands = "backup NAME | compact | verify | status",
    .words = "backup compact verify status",
    .summary = "copy, compact, check or show the log of the broker",
    .notes =
        "NAME is a file name without a slash, in the broker's directory. Everything is done while the broker works.\n",
    .min_operands = 1,
    .max_operands = 2,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = log_run,
};

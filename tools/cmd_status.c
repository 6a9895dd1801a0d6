/* SPDX-License-Identifier: Apache-2.0 */
/*
 * busbar status: the state and the counters of the broker. The table is made of whatever the broker says: a section
 * that is an object is shown as names and values, one that is an array of objects as a table.
 */
#include "proto/base/time.h"

#include "tools/connection.h"
#include "tools/print.h"
#include "tools/table.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct status_options {
    bool json;
    int64_t timeout_us;
};

static const struct status_options defaults = {.timeout_us = 5 * BB_US_PER_S};

#define AT(member) offsetof(struct status_options, member)

static const struct option_row options[] = {
    {'j', OPTION_FLAG, "json", NULL, "one object as the broker gives it", AT(json), NULL},
    {'t', OPTION_DURATION, "timeout", "TIME", "limit for the answer (5s)", AT(timeout_us), NULL},
    {0},
};

/* Keeps only the sections that were asked for; false when one is not there. */
static bool sections_keep(json_t *status, char **names)
{
    if (names[0] == NULL) {
        return true;
    }
    for (char **name = names; *name != NULL; name++) {
        if (json_object_get(status, *name) == NULL) {
            say("the broker tells nothing named '%s'", *name);
            return false;
        }
    }
    const char *key;
    json_t *value;
    void *next;
    json_object_foreach_safe(status, next, key, value)
    {
        bool wanted = false;
        for (char **name = names; *name != NULL; name++) {
            wanted = wanted || strcmp(*name, key) == 0;
        }
        if (!wanted) {
            (void)json_object_del(status, key);
        }
    }
    return true;
}

static int status_print(const char *text, bool as_json, char **sections)
{
    json_error_t error;
    json_t *status = json_loads(text, 0, &error);
    if (!json_is_object(status)) {
        say("the broker's answer cannot be read: %s", error.text);
        json_decref(status);
        return STATUS_FAILURE;
    }
    if (!sections_keep(status, sections)) {
        json_decref(status);
        return STATUS_USAGE;
    }
    if (as_json) {
        (void)json_dumpf(status, stdout, JSON_COMPACT);
        (void)putchar('\n');
    } else {
        const char *key;
        json_t *value;
        json_object_foreach(status, key, value)
        {
            table_section_print(key, value);
        }
    }
    json_decref(status);
    return print_end();
}

static int status_run(const struct common *common, const void *values, char **operands)
{
    const struct status_options *o = values;
    struct connection connection;
    struct bb_options bus = BB_OPTIONS_INIT;
    bus.name = "busbar status";
    int status = connection_open(&connection, common, &bus, 0, false);
    if (status != STATUS_OK) {
        return status;
    }
    char *text;
    int r = bb_request_status(connection.bus, timeout_ms(o->timeout_us), &text);
    if (r != 0) {
        status = fail(connection.bus, r, "no status");
    } else {
        status = status_print(text, o->json, operands);
        free(text);
    }
    connection_close(&connection);
    return status;
}

const struct command command_status = {
    .name = "status",
    .operands = "[SECTION...]",
    .words = "broker channels clients counters",
    .summary = "show the state and the counters of the broker",
    .notes = "The sections are broker, channels, clients and counters; all of them without operands.\n",
    .max_operands = 16,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = status_run,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * busbar status: the state and the counters of the broker. The table is made of whatever the broker says: a section
 * that is an object is shown as names and values, one that is an array of objects as a table.
 */
#include "proto/base/time.h"

#include "tools/connection.h"
#include "tools/print.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 32

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

/* A value in a cell, for the caller to free(). */
static char *cell_format(const json_t *value)
{
    if (value == NULL || json_is_null(value)) {
        return strdup("-");
    }
    if (json_is_string(value)) {
        return strdup(json_string_value(value));
    }
    return json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII);
}

static void cell_print(const json_t *value, size_t width, const char *behind)
{
    char *text = cell_format(value);
    const char *shown = text != NULL ? text : "?";
    /* Names come from clients: nothing in them may reach a terminal as a command. */
    for (char *p = text; p != NULL && *p != '\0'; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f || (unsigned char)*p == 0xc2) {
            *p = '?';
        }
    }
    (void)printf(json_is_number(value) ? "%*s%s" : "%-*s%s", (int)width, shown, behind);
    free(text);
}

static size_t cell_width(const json_t *value)
{
    char *text = cell_format(value);
    size_t width = text != NULL ? strlen(text) : 1;
    free(text);
    return width;
}

static void pairs_print(json_t *section)
{
    const char *key;
    json_t *value;
    size_t width = 0;
    json_object_foreach(section, key, value)
    {
        width = BB_MAX(width, strlen(key));
    }
    json_object_foreach(section, key, value)
    {
        (void)printf("  %-*s  ", (int)width, key);
        cell_print(value, 0, "\n");
    }
}

static void table_print(json_t *rows)
{
    const char *keys[COLUMNS_MAX];
    size_t widths[COLUMNS_MAX];
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach(json_array_get(rows, 0), key, value)
    {
        if (n < COLUMNS_MAX) {
            keys[n] = key;
            widths[n++] = strlen(key);
        }
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t k = 0; k < n; k++) {
            widths[k] = BB_MAX(widths[k], cell_width(json_object_get(json_array_get(rows, i), keys[k])));
        }
    }
    for (size_t k = 0; k < n; k++) {
        bool number = json_is_number(json_object_get(json_array_get(rows, 0), keys[k]));
        (void)printf(number ? "  %*s%s" : "  %-*s%s", (int)widths[k], keys[k], k + 1 < n ? "" : "\n");
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t k = 0; k < n; k++) {
            (void)fputs("  ", stdout);
            cell_print(json_object_get(json_array_get(rows, i), keys[k]), widths[k], k + 1 < n ? "" : "\n");
        }
    }
}

static void section_print(const char *name, json_t *section)
{
    bool table = json_is_array(section) && json_is_object(json_array_get(section, 0));
    if (json_is_array(section) && !table) {
        (void)printf("%s: ", name);
        cell_print(json_array_size(section) > 0 ? section : NULL, 0, "\n");
    } else if (table) {
        (void)printf("%s: %zu\n", name, json_array_size(section));
        table_print(section);
    } else if (json_is_object(section)) {
        (void)printf("%s\n", name);
        pairs_print(section);
    } else {
        (void)printf("%s: ", name);
        cell_print(section, 0, "\n");
    }
}

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
            section_print(key, value);
        }
    }
    json_decref(status);
    (void)print_flush();
    return STATUS_OK;
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
    .summary = "show the state and the counters of the broker",
    .notes = "The sections are broker, channels, clients and counters; all of them without operands.\n",
    .max_operands = 16,
    .options = options,
    .defaults = &defaults,
    .values_size = sizeof(defaults),
    .run = status_run,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/table.h"

#include "proto/base/cc.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 32

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

void table_pairs_print(json_t *section)
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

void table_rows_print(json_t *rows)
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

void table_section_print(const char *name, json_t *section)
{
    bool table = json_is_array(section) && json_is_object(json_array_get(section, 0));
    if (json_is_array(section) && !table) {
        (void)printf("%s: ", name);
        cell_print(json_array_size(section) > 0 ? section : NULL, 0, "\n");
    } else if (table) {
        (void)printf("%s: %zu\n", name, json_array_size(section));
        table_rows_print(section);
    } else if (json_is_object(section)) {
        (void)printf("%s\n", name);
        table_pairs_print(section);
    } else {
        (void)printf("%s: ", name);
        cell_print(section, 0, "\n");
    }
}

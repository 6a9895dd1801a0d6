/* SPDX-License-Identifier: Apache-2.0 */
/* JSON for people: objects as names and values, arrays of objects as tables; nothing in it reaches a terminal as a command. */
#pragma once

#include <jansson.h>

/** table_pairs_print() - the members of an object, one a line. */
void table_pairs_print(json_t *section);

/** table_rows_print() - an array of objects with the members of the first as columns. */
void table_rows_print(json_t *rows);

/** table_section_print() - a value of any kind under its name. */
void table_section_print(const char *name, json_t *section);

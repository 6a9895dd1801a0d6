/* SPDX-License-Identifier: Apache-2.0 */
/* Words that several commands understand: patterns, instants, ids of events, conditions. */
#pragma once

#include "proto/wire/where.h"

#include "bus/busbar.h"

/** patterns_parse() - @operands, which end with NULL, as the broker knows them: an array of texts in one block for the caller
 * to free(); NULL when the reason was said. */
const char **patterns_parse(char **operands, size_t *ret_n);

/** when_parse() - `10m` or `10m ago`, or RFC 3339: microseconds since 1970 UTC; false if it is neither. */
bool when_parse(const char *text, int64_t *ret_us);

/** event_id_parse() - `SERVER/SESSION/INSTANCE`; false if it is none. */
bool event_id_parse(const char *text, struct bb_event_id *ret_id);

/** where_parse() - the argument of --where, NULL for none, to be freed with bb_where_free(); false when the reason was said. */
bool where_parse(const char *text, struct bb_where **ret_where);

/* SPDX-License-Identifier: Apache-2.0 */
/* The story of a world, when it is told: a line for each thing that happens. */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>

struct world;
struct sim_link;

/** story_tell() - one line. */
void story_tell(struct world *world, const char *format, ...) BB_PRINTF(2, 3);

/** story_message() - a message in words, to or from the broker. */
void story_message(struct world *world, const struct sim_link *link, struct bb_slice bytes, bool is_in);

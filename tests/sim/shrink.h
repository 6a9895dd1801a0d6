/* SPDX-License-Identifier: Apache-2.0 */
/* The shortest story of a seed that goes wrong in the same way. */
#pragma once

#include "tests/sim/plan.h"
#include "tests/sim/world.h"

/** shrink() - leave out what is not needed for @first to happen again, then @ret_mask tells it. Return: how
 * many acts are left. */
size_t shrink(uint64_t seed, const struct world_result *first, struct plan_mask *ret_mask);

/* SPDX-License-Identifier: Apache-2.0 */
/* How often each feature was met, and each pair of features by one subscription; shared by all workers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum feature {
#define FEATURE(name, group) F_##name,
#include "tests/sim/features.def"
#undef FEATURE
    FEATURES
};

#define F(name) (UINT64_C(1) << F_##name)

_Static_assert(FEATURES <= 64, "the features of a subscription fit into one word");

/** coverage_start() - count from now on; before workers are started. */
void coverage_start(void);

/** coverage_add() - what one subscription has met. */
void coverage_add(uint64_t features);

/** coverage_print() - the report. Return: how many features or pairs that can occur were never met. */
uint64_t coverage_print(bool is_long);

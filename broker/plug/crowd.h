/* SPDX-License-Identifier: Apache-2.0 */
/* The connections of all doors and windows together, held below what the descriptors allow. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct bk_crowd {
    size_t max; /* connections that the descriptors allow */
    size_t n;   /* connected now */
};

/** bk_crowd_is_large() - whether nobody else is to be let in: the rest of the descriptors is for others. */
static inline bool bk_crowd_is_large(const struct bk_crowd *crowd)
{
    return crowd->n >= crowd->max - crowd->max / 10;
}

/** bk_crowd_is_small() - whether there is room again. */
static inline bool bk_crowd_is_small(const struct bk_crowd *crowd)
{
    return crowd->n < crowd->max - crowd->max / 5;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The one source of chance of a simulated world: splitmix64, so that a seed means the same world
 * everywhere. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sim_rng {
    uint64_t state;
};

static inline uint64_t sim_next(struct sim_rng *rng)
{
    uint64_t x = rng->state += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/** sim_below() - 0 .. @n - 1. */
static inline uint64_t sim_below(struct sim_rng *rng, uint64_t n)
{
    return sim_next(rng) % n;
}

/** sim_between() - @low .. @high, both included. */
static inline uint64_t sim_between(struct sim_rng *rng, uint64_t low, uint64_t high)
{
    return low + sim_below(rng, high - low + 1);
}

/** sim_chance() - true in @permille of 1000 cases. */
static inline bool sim_chance(struct sim_rng *rng, uint64_t permille)
{
    return sim_below(rng, 1000) < permille;
}

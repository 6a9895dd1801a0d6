/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/shrink.h"

#include <string.h>

struct shrinking {
    uint64_t seed;
    const char *kind;
    size_t n_acts;
};

static bool still_fails(const struct shrinking *shrinking, const struct plan_mask *mask)
{
    struct world_result result;
    world_run(shrinking->seed, &(struct world_options){.mask = mask}, &result);
    return result.failed && strcmp(result.kind, shrinking->kind) == 0;
}

static bool
try_mask(const struct shrinking *shrinking, struct plan_mask *mask, const struct plan_mask *changed)
{
    if (!still_fails(shrinking, changed)) {
        return false;
    }
    *mask = *changed;
    return true;
}

/* Runs of @n acts at a time. */
static bool drop_acts(const struct shrinking *shrinking, struct plan_mask *mask, size_t n)
{
    bool has_dropped = false;
    for (size_t at = 0; at < shrinking->n_acts; at += n) {
        struct plan_mask changed = *mask;
        bool is_new = false;
        for (size_t i = at; i < at + n && i < shrinking->n_acts; i++) {
            is_new = is_new || !changed.without[i];
            changed.without[i] = true;
        }
        has_dropped = (is_new && try_mask(shrinking, mask, &changed)) || has_dropped;
    }
    return has_dropped;
}

size_t shrink(uint64_t seed, const struct world_result *first, struct plan_mask *ret_mask)
{
    static struct plan plan;
    plan_make(&plan, seed);
    const struct shrinking shrinking = {seed, first->kind, plan.n};
    struct plan_mask mask = {0};
    struct plan_mask changed = mask;
    changed.calm = true;
    (void)try_mask(&shrinking, &mask, &changed);
    for (uint32_t i = 0; i < plan.profile.n_peers; i++) {
        changed = mask;
        changed.without_peers |= UINT32_C(1) << i;
        (void)try_mask(&shrinking, &mask, &changed);
    }
    for (size_t n = plan.n / 2; n > 0; n /= 2) {
        while (drop_acts(&shrinking, &mask, n) && n == 1) {
        }
    }
    size_t left = 0;
    for (size_t i = 0; i < plan.n; i++) {
        left += !mask.without[i] && (mask.without_peers >> plan.acts[i].who & 1) == 0;
    }
    *ret_mask = mask;
    return left;
}

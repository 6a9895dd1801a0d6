/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/plan.h"

#include <string.h>

static const struct {
    const char *name;
    uint64_t weight;
} kinds[] = {
#define ACT(name, weight) {#name, weight},
#include "tests/sim/acts.def"
#undef ACT
};

const char *act_name(enum act_kind kind)
{
    return kinds[kind].name;
}

/* Seldom, sometimes, often: each feature is one of these for a whole world. */
static uint64_t taste(struct sim_rng *rng, uint64_t seldom)
{
    uint64_t kind = sim_below(rng, 10);
    return kind < 4 ? seldom : kind < 7 ? 250 : kind < 9 ? 600 : 950;
}

static void choose_wishes(struct profile *profile, struct sim_rng *rng)
{
    profile->policy = sim_below(rng, 8);
    profile->until = sim_chance(rng, 400) ? sim_between(rng, 1, 4) : 0;
    profile->from = sim_below(rng, 8);
    profile->early = taste(rng, 0);
    profile->retained = taste(rng, 50);
    profile->durable = taste(rng, 50);
    profile->by_default = taste(rng, 50) / 3;
    profile->ttl = sim_chance(rng, 500) ? 0 : taste(rng, 100);
    profile->small_credit = taste(rng, 100);
    profile->small_budget = taste(rng, 300);
    profile->wildcard = taste(rng, 200);
    profile->expects = taste(rng, 20) / 4;
    profile->large = sim_chance(rng, 300) ? 150 : 10;
    profile->n_paths = sim_chance(rng, 500) ? sim_between(rng, 1, 3) : sim_between(rng, 4, 8);
}

static void choose_peers(struct profile *profile, struct sim_rng *rng)
{
    profile->n_peers = sim_between(rng, 2, 4);
    profile->n_names = sim_chance(rng, 600) ? sim_between(rng, 1, 3) : sim_between(rng, 4, 14);
    profile->json = taste(rng, 0);
    profile->old_form = taste(rng, 100);
    profile->deaf = sim_chance(rng, 200) ? 300 : 0;
    profile->anonymous = 120;
    profile->jumps = 500;
}

static void choose_channels(struct profile *profile, struct sim_rng *rng)
{
    bool has_limits = sim_chance(rng, 550);
    profile->has_log = sim_chance(rng, 650);
    profile->has_memory = sim_chance(rng, 850);
    profile->in_memory = sim_chance(rng, 600) ? 400 : 0;
    profile->limits = has_limits ? taste(rng, 0) : 0;
    profile->per_path = has_limits ? taste(rng, 0) : 0;
    profile->age = has_limits ? taste(rng, 0) : 0;
    profile->floor = has_limits ? taste(rng, 0) : 0;
    profile->lazy = taste(rng, 0);
    profile->early_channels = taste(rng, 0);
    profile->channel_policies = taste(rng, 0);
}

static void choose_environment(struct profile *profile, struct sim_rng *rng)
{
    profile->is_tight = sim_chance(rng, 550);
    profile->small_flight = sim_chance(rng, 250);
    profile->small_stage = sim_chance(rng, 150);
    profile->slow_net = sim_chance(rng, 200);
    profile->small_backend = sim_chance(rng, 120);
    profile->shaky = sim_chance(rng, 280);
    profile->fills_up = sim_chance(rng, 150);
    profile->slow_disk = sim_chance(rng, 300);
    profile->corrupt = sim_chance(rng, 40);
    profile->short_reads = sim_chance(rng, 300);
    profile->small_queue = sim_chance(rng, 150);
}

/* Half of the acts are three times as frequent, or three times as seldom. */
static void choose_weights(struct sim_rng *rng, uint64_t weights[ACTS])
{
    static const enum act_kind of_channels[] = {ACT_remove, ACT_trim, ACT_settings};
    for (size_t i = 0; i < ACTS; i++) {
        uint64_t kind = sim_below(rng, 4);
        weights[i] = kinds[i].weight * 3;
        weights[i] = kind == 0 ? weights[i] * 3 : kind == 1 ? weights[i] / 3 : weights[i];
    }
    for (size_t i = 0; i < sizeof(of_channels) / sizeof(of_channels[0]); i++) {
        weights[of_channels[i]] = sim_chance(rng, 350) ? 0 : weights[of_channels[i]];
    }
    if (sim_chance(rng, 500)) {
        weights[ACT_crash] = weights[ACT_shut_down] = 0;
    }
    if (sim_chance(rng, 600)) {
        weights[ACT_clock] = 0;
    }
    if (sim_chance(rng, 500)) {
        weights[ACT_window] = 0;
    }
}

static enum act_kind choose(struct sim_rng *rng, const uint64_t weights[ACTS])
{
    uint64_t total = 0;
    for (size_t i = 0; i < ACTS; i++) {
        total += weights[i];
    }
    uint64_t at = sim_below(rng, total);
    size_t i = 0;
    while (at >= weights[i]) {
        at -= weights[i++];
    }
    return (enum act_kind)i;
}

void plan_make(struct plan *plan, uint64_t seed)
{
    struct sim_rng rng = {seed * UINT64_C(0x2545f4914f6cdd1d) + 1};
    uint64_t weights[ACTS];
    memset(plan, 0, sizeof(*plan));
    choose_wishes(&plan->profile, &rng);
    choose_peers(&plan->profile, &rng);
    choose_channels(&plan->profile, &rng);
    choose_environment(&plan->profile, &rng);
    choose_weights(&rng, weights);
    uint64_t at = 20000;
    uint64_t pace = sim_chance(&rng, 300) ? 12000 : 3000;
    plan->n = sim_between(&rng, 70, 300);
    /* Channels that are made by name come first, if any. */
    uint64_t n_made =
        plan->profile.in_memory + plan->profile.limits + plan->profile.per_path + plan->profile.age > 0
            ? sim_between(&rng, 1, 4)
            : 0;
    for (size_t i = 0; i < plan->n; i++) {
        at += sim_between(&rng, 1, pace) * (sim_chance(&rng, 300) ? 0 : 1);
        plan->acts[i] = (struct act){
            .at = at,
            .kind = i < n_made ? ACT_settings : choose(&rng, weights),
            .who = (uint32_t)sim_below(&rng, plan->profile.n_peers),
            .seed = sim_next(&rng),
        };
    }
}

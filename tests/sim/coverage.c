/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/coverage.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

struct counts {
    atomic_ullong pair[FEATURES][FEATURES];
};

static struct counts *counts;

static const struct {
    const char *name;
    int group;
} features[] = {
#define FEATURE(name, group) {#name, group},
#include "tests/sim/features.def"
#undef FEATURE
};

/* Pairs that cannot meet, beside those of one group. */
static const uint64_t impossible[][2] = {
    /* Without a policy of its own the channels' counts; who has one meets its gaps alone. */
    {F(by_default), F(slide) | F(drop_oldest) | F(drop_newest) | F(conflate) | F(refuse) | F(disconnect)},
    {F(gap_dropped), F(slide) | F(conflate) | F(refuse) | F(disconnect) | F(gap_conflated)},
    {F(gap_conflated), F(slide) | F(drop_oldest) | F(drop_newest) | F(refuse) | F(disconnect)},
    /* What comes with a resumption is not asked for again. */
    {F(from_run), F(until_now) | F(retained) | F(no_credit)},
    /* The link is another one. */
    {F(taken_over), F(crashed) | F(shut_down) | F(wiped) | F(restored) | F(other_options)},
    {F(ended), F(unsubscribed)},
};

void coverage_start(void)
{
    counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED) {
        perror("test_sim");
        abort();
    }
}

void coverage_add(uint64_t met)
{
    for (unsigned int i = 0; counts != NULL && i < FEATURES; i++) {
        for (unsigned int j = i; (met >> i & 1) != 0 && j < FEATURES; j++) {
            if ((met >> j & 1) != 0) {
                (void)atomic_fetch_add_explicit(&counts->pair[i][j], 1, memory_order_relaxed);
            }
        }
    }
}

static bool can_meet(unsigned int i, unsigned int j)
{
    if (i != j && features[i].group != 0 && features[i].group == features[j].group) {
        return false;
    }
    for (size_t k = 0; k < sizeof(impossible) / sizeof(impossible[0]); k++) {
        uint64_t a = UINT64_C(1) << i;
        uint64_t b = UINT64_C(1) << j;
        if (((a & impossible[k][0]) != 0 && (b & impossible[k][1]) != 0) ||
            ((b & impossible[k][0]) != 0 && (a & impossible[k][1]) != 0)) {
            return false;
        }
    }
    return true;
}

uint64_t coverage_print(bool is_long)
{
    uint64_t n_never = 0;
    uint64_t n_seldom = 0;
    uint64_t n_pairs = 0;
    for (unsigned int i = 0; i < FEATURES; i++) {
        (void)printf("%-16s %8llu\n", features[i].name, (unsigned long long)counts->pair[i][i]);
    }
    for (unsigned int i = 0; i < FEATURES; i++) {
        for (unsigned int j = i; j < FEATURES; j++) {
            unsigned long long n = counts->pair[i][j];
            n_pairs += can_meet(i, j);
            n_seldom += can_meet(i, j) && n < 10;
            if (can_meet(i, j) && n == 0) {
                n_never++;
                (void)printf("never: %s with %s\n", features[i].name, features[j].name);
            } else if (is_long && can_meet(i, j)) {
                (void)printf("%-16s %-16s %8llu\n", features[i].name, features[j].name, n);
            }
        }
    }
    (void)printf("%" PRIu64 " pairs, never met: %" PRIu64 ", fewer than 10 times: %" PRIu64 "\n", n_pairs,
                 n_never, n_seldom);
    return n_never;
}

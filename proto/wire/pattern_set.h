/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set of patterns as one thing: what somebody subscribes to. Immutable once made, so any number of
 * threads may read it; patterns are copied.
 *
 * A set is kept free of what it says twice: a pattern occurs once, and a pattern ending in `*` swallows
 * every other one with the same beginning ("a/" + `*` swallows "a" and "a/?/b").
 *
 * Cost, for sets of n and m patterns with at most s segments each: making a set n log n; matching visits
 * each distinct prefix of the set at most once, so it is never worse than trying all patterns, and with
 * few `?` it is s binary searches; is_disjoint and intersection do one such walk for each pattern of the
 * first set, at worst n * m * s steps.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* Patterns in one set; also bounds the pairs of patterns that an intersection may have to look at. */
#define BB_PATTERN_SET_MAX 65536

struct bb_pattern_set;

/**
 * bb_pattern_set_new() - a set from a list
 * @patterns: copied; repetitions are fine
 * @n:        none makes the set that matches nothing
 * @ret_set:  yours to free
 *
 * Return: 0, or BB_EPATTERN (one of them is not a pattern), BB_ELIMIT (more than BB_PATTERN_SET_MAX),
 *         BB_ENOMEM.
 */
int bb_pattern_set_new(const struct bb_slice *patterns, size_t n, struct bb_pattern_set **ret_set);

/** bb_pattern_set_free() - free a set. */
void bb_pattern_set_free(struct bb_pattern_set *set);

/** bb_pattern_set_count() - patterns in the set. */
size_t bb_pattern_set_count(const struct bb_pattern_set *set);

/** bb_pattern_set_get() - pattern @i of the set, i < count; sorted, `*` and `?` before other text. */
struct bb_slice bb_pattern_set_get(const struct bb_pattern_set *set, size_t i);

/** bb_pattern_set_matches() - does a pattern of the set match the valid path @path? */
bool bb_pattern_set_matches(const struct bb_pattern_set *set, struct bb_slice path);

/** bb_pattern_set_is_disjoint() - is there no path that both sets match? */
bool bb_pattern_set_is_disjoint(const struct bb_pattern_set *a, const struct bb_pattern_set *b);

/**
 * bb_pattern_set_union() - the set that matches what @a or @b matches
 * @ret_set: yours to free
 *
 * Return: 0, or BB_ELIMIT, BB_ENOMEM.
 */
int bb_pattern_set_union(const struct bb_pattern_set *a,
                         const struct bb_pattern_set *b,
                         struct bb_pattern_set **ret_set);

/**
 * bb_pattern_set_intersection() - the set that matches what both @a and @b match
 * @ret_set: yours to free
 *
 * Return: 0, or BB_ENOMEM, or BB_ELIMIT: more than BB_PATTERN_SET_MAX pairs of a pattern of @a and one of
 *         @b overlap, or what two of them share would need a pattern longer than BB_PATH_MAX.
 */
int bb_pattern_set_intersection(const struct bb_pattern_set *a,
                                const struct bb_pattern_set *b,
                                struct bb_pattern_set **ret_set);

/* SPDX-License-Identifier: Apache-2.0 */
/* Which paths a reader wants: an immutable set of patterns that any thread may hold and ask. */
#pragma once

#include "proto/wire/pattern_set.h"

#include <stdatomic.h>

struct bk_filter {
    atomic_uint refs;
    struct bb_pattern_set *set; /* NULL: everything */
    bool is_literal;            /* no pattern has a wildcard: the set is a list of paths */
};

/** bk_filter_new() - from one MessagePack array of patterns, distrusted; empty bytes: everything. Return: 0,
 * BB_EPATTERN, BB_EINVAL, BB_ELIMIT, BB_ENOMEM. */
BB_MUST_CHECK int bk_filter_new(struct bb_slice patterns, struct bk_filter **ret_filter);

/** bk_filter_ref(), bk_filter_unref() - any thread; NULL is fine. */
struct bk_filter *bk_filter_ref(struct bk_filter *filter);
void bk_filter_unref(struct bk_filter *filter);

/** bk_filter_matches() - whether @path is wanted; NULL wants everything. */
bool bk_filter_matches(const struct bk_filter *filter, struct bb_slice path);

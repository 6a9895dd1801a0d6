/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/filter.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include <stdlib.h>

static int read_patterns(struct bb_slice patterns, struct bb_slice **ret_list, size_t *ret_n)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    uint64_t n = bb_mp_peek_type(&reader) == BB_MP_ARRAY ? bb_mp_read_array(&reader) : 0;
    if (n == 0 || n > patterns.len) { /* each takes a byte at least */
        return BB_EINVAL;
    }
    struct bb_slice *list = calloc((size_t)n, sizeof(*list));
    if (list == NULL) {
        return BB_ENOMEM;
    }
    for (uint64_t i = 0; i < n; i++) {
        list[i] = bb_mp_read_str(&reader);
    }
    if (reader.error != 0) {
        free(list);
        return BB_EPATTERN;
    }
    *ret_list = list;
    *ret_n = (size_t)n;
    return 0;
}

static bool has_wildcard(struct bb_slice pattern)
{
    return memchr(pattern.data, '?', pattern.len) != NULL || memchr(pattern.data, '*', pattern.len) != NULL;
}

int bk_filter_new(struct bb_slice patterns, struct bk_filter **ret_filter)
{
    struct bb_slice *list = NULL;
    size_t n = 0;
    int r = patterns.len > 0 ? read_patterns(patterns, &list, &n) : 0;
    if (r < 0) {
        return r;
    }
    struct bk_filter *filter = calloc(1, sizeof(*filter));
    r = filter == NULL ? BB_ENOMEM : 0;
    if (r == 0 && patterns.len > 0) {
        r = bb_pattern_set_new(list, n, &filter->set);
        filter->is_literal = true;
        for (size_t i = 0; i < n; i++) {
            filter->is_literal = filter->is_literal && (list[i].len == 0 || !has_wildcard(list[i]));
        }
    }
    free(list);
    if (r < 0) {
        free(filter);
        return r;
    }
    atomic_init(&filter->refs, 1);
    *ret_filter = filter;
    return 0;
}

struct bk_filter *bk_filter_ref(struct bk_filter *filter)
{
    if (filter != NULL) {
        atomic_fetch_add_explicit(&filter->refs, 1, memory_order_relaxed);
    }
    return filter;
}

void bk_filter_unref(struct bk_filter *filter)
{
    if (filter != NULL && atomic_fetch_sub_explicit(&filter->refs, 1, memory_order_acq_rel) == 1) {
        bb_pattern_set_free(filter->set);
        free(filter);
    }
}

bool bk_filter_matches(const struct bk_filter *filter, struct bb_slice path)
{
    return filter == NULL || filter->set == NULL || bb_pattern_set_matches(filter->set, path);
}

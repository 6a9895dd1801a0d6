/* SPDX-License-Identifier: Apache-2.0 */
/* Filters: which paths a reader of the log wants. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/core/filter.h"

#include <criterion/criterion.h>

static int make(const char *const *patterns, uint32_t n, struct bk_filter **ret_filter)
{
    struct bb_buf list = BB_BUF_INIT;
    bb_mp_write_array(&list, n);
    for (uint32_t i = 0; i < n; i++) {
        bb_mp_write_str(&list, bb_slice_str(patterns[i]));
    }
    int r = bk_filter_new(bb_buf_slice(&list), ret_filter);
    bb_buf_fini(&list);
    return r;
}

static bool matches(const struct bk_filter *filter, const char *path)
{
    return bk_filter_matches(filter, bb_slice_str(path));
}

Test(core_filter, it_matches_what_its_patterns_do)
{
    struct bk_filter *filter = NULL;
    cr_assert_eq(make((const char *const[]){"a/?", "b"}, 2, &filter), 0);
    cr_assert_not(filter->is_literal);
    cr_assert(matches(filter, "a/x") && matches(filter, "b"));
    cr_assert(!matches(filter, "a") && !matches(filter, "b/x") && !matches(filter, "a/x/y"));
    bk_filter_unref(filter);
}

Test(core_filter, without_wildcards_it_is_a_list_of_paths)
{
    struct bk_filter *filter = NULL;
    cr_assert_eq(make((const char *const[]){"a/x", ""}, 2, &filter), 0);
    cr_assert(filter->is_literal);
    cr_assert(matches(filter, "a/x") && matches(filter, "") && !matches(filter, "a"));
    bk_filter_unref(filter);
}

Test(core_filter, none_wants_everything)
{
    struct bk_filter *filter = NULL;
    cr_assert_eq(bk_filter_new((struct bb_slice){0}, &filter), 0);
    cr_assert(matches(filter, "a/x") && matches(filter, ""));
    cr_assert(matches(NULL, "a/x"));
    bk_filter_unref(filter);
    bk_filter_unref(NULL);
}

Test(core_filter, it_lives_as_long_as_somebody_holds_it)
{
    struct bk_filter *filter = NULL;
    cr_assert_eq(make((const char *const[]){"a/*"}, 1, &filter), 0);
    struct bk_filter *other = bk_filter_ref(filter);
    bk_filter_unref(filter);
    cr_assert(matches(other, "a/x"));
    bk_filter_unref(other);
    cr_assert_null(bk_filter_ref(NULL));
}

Test(core_filter, what_is_no_list_of_patterns_is_refused)
{
    struct bk_filter *filter = NULL;
    cr_assert_eq(make((const char *const[]){"a/*/b"}, 1, &filter), BB_EPATTERN);
    cr_assert_eq(make(NULL, 0, &filter), BB_EINVAL, "an empty list wants nothing");
    cr_assert_eq(bk_filter_new(bb_slice("\xa1x", 2), &filter), BB_EINVAL);
    cr_assert_eq(bk_filter_new(bb_slice("\x91\x05", 2), &filter), BB_EPATTERN);
    cr_assert_eq(bk_filter_new(bb_slice("\xdd\xff\xff\xff\xff\xa1x", 7), &filter), BB_EINVAL,
                 "a count that lies");
    cr_assert_null(filter);
}

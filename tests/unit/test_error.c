/* SPDX-License-Identifier: Apache-2.0 */
/* The table of errors: its numbers are dense, its wire codes are unique and lead back to the number. */
#include "proto/base/error.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <string.h>

static const int numbers[] = {
#define X(name, number, code, text) name,
    BB_ERRORS(X)
#undef X
};

Test(error, numbers_are_dense_from_minus_one_downwards)
{
    for (size_t i = 0; i < BB_COUNT(numbers); i++) {
        cr_assert_eq(numbers[i], -1 - (int)i);
    }
}

Test(error, every_code_leads_back_to_its_number)
{
    cr_assert_eq(bb_error_from_code("ok", 2), 0);
    for (size_t i = 0; i < BB_COUNT(numbers); i++) {
        const char *code = bb_errcode(numbers[i]);
        cr_assert_eq(bb_error_from_code(code, strlen(code)), numbers[i], "%s", code);
    }
}

Test(error, every_code_is_lower_case_with_underscores)
{
    for (size_t i = 0; i < BB_COUNT(numbers); i++) {
        const char *code = bb_errcode(numbers[i]);
        cr_assert_gt(strlen(code), 0);
        cr_assert_eq(strspn(code, "abcdefghijklmnopqrstuvwxyz0123456789_"), strlen(code), "%s", code);
    }
}

Test(error, every_error_has_its_own_sentence)
{
    for (size_t i = 0; i < BB_COUNT(numbers); i++) {
        cr_assert_gt(strlen(bb_strerror(numbers[i])), 0);
        for (size_t j = 0; j < i; j++) {
            cr_assert_str_neq(bb_strerror(numbers[i]), bb_strerror(numbers[j]));
        }
    }
}

Test(error, zero_is_ok)
{
    cr_assert_str_eq(bb_strerror(0), "ok");
    cr_assert_str_eq(bb_errcode(0), "ok");
}

Test(error, an_unknown_code_counts_as_refused)
{
    cr_assert_eq(bb_error_from_code("from_the_future", 15), BB_EREFUSED);
    cr_assert_eq(bb_error_from_code("", 0), BB_EREFUSED);
    cr_assert_eq(bb_error_from_code("bad_pathological", 8), BB_EPATH, "only len bytes are the code");
    cr_assert_eq(bb_error_from_code("bad_path", 7), BB_EREFUSED);
}

Test(error, an_unknown_number_still_has_text_and_code)
{
    const int unknown[] = {1, INT_MAX, INT_MIN, -1 - (int)BB_COUNT(numbers)};
    for (size_t i = 0; i < BB_COUNT(unknown); i++) {
        cr_assert_str_eq(bb_errcode(unknown[i]), "refused");
        cr_assert_str_eq(bb_strerror(unknown[i]), bb_strerror(BB_EREFUSED));
    }
}

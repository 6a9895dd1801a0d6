/* SPDX-License-Identifier: Apache-2.0 */
/* Percentiles from buckets: how near, the ends, adding up. */
#include "tools/histogram.h"

#include <criterion/criterion.h>

Test(histogram, nothing_counted_is_zero)
{
    static struct histogram h;
    cr_assert_eq(histogram_get(&h, 0.5), 0);
    cr_assert_eq(histogram_get(&h, 1.0), 0);
}

Test(histogram, small_values_are_exact)
{
    static struct histogram h;
    for (uint64_t v = 0; v < 32; v++) {
        histogram_add(&h, v);
    }
    cr_assert_eq(histogram_get(&h, 0.5), 15);
    cr_assert_eq(histogram_get(&h, 1.0), 31);
    cr_assert_eq(histogram_get(&h, 0.0), 0);
}

Test(histogram, percentiles_are_at_most_three_percent_too_high_and_never_too_low)
{
    static struct histogram h;
    const uint64_t n = 100000;
    for (uint64_t v = 1; v <= n; v++) {
        histogram_add(&h, v * 7);
    }
    for (uint64_t percent = 1; percent <= 100; percent++) {
        uint64_t exact = n / 100 * percent * 7;
        uint64_t got = histogram_get(&h, (double)percent / 100.0);
        cr_assert_geq(got, exact, "%llu %%", (unsigned long long)percent);
        cr_assert_leq(got, exact + exact / 32 + 7, "%llu %%", (unsigned long long)percent);
    }
}

Test(histogram, one_value_is_every_percentile_whatever_its_size)
{
    static const uint64_t values[] = {0, 31, 32, 33, 1000, UINT64_C(1) << 40, UINT64_MAX - 1, UINT64_MAX};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct histogram h = {0};
        histogram_add(&h, values[i]);
        cr_assert_eq(histogram_get(&h, 0.0), values[i]);
        cr_assert_eq(histogram_get(&h, 0.5), values[i]);
        cr_assert_eq(histogram_get(&h, 1.0), values[i]);
    }
}

Test(histogram, adding_up_is_as_if_all_had_been_counted_in_one)
{
    static struct histogram whole;
    static struct histogram parts[2];
    static struct histogram sum;
    for (uint64_t v = 0; v < 10000; v++) {
        histogram_add(&whole, v * v);
        histogram_add(&parts[v % 2], v * v);
    }
    static const struct histogram empty;
    histogram_add_all(&sum, &empty);
    histogram_add_all(&sum, &parts[1]);
    histogram_add_all(&sum, &empty);
    histogram_add_all(&sum, &parts[0]);
    cr_assert_arr_eq(&sum, &whole, sizeof(sum));
}

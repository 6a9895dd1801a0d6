/* SPDX-License-Identifier: Apache-2.0 */
/* Timestamps (HAT-F04, HAT-T05), RFC 3339 text, durations, clocks. */
#include "proto/base/error.h"
#include "proto/base/time.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <time.h>

static struct bb_timestamp ts(int64_t s, uint32_t us)
{
    return (struct bb_timestamp){s, us};
}

static void assert_ts(struct bb_timestamp t, int64_t s, uint32_t us)
{
    cr_assert_eq(t.s, s, "%ld.%06u is not %ld.%06u", (long)t.s, t.us, (long)s, us);
    cr_assert_eq(t.us, us, "%ld.%06u is not %ld.%06u", (long)t.s, t.us, (long)s, us);
}

Test(time, timestamps_are_ordered_over_negative_seconds)
{
    const struct bb_timestamp sorted[] = {
        BB_TIMESTAMP_MIN, {INT64_MIN, 1}, {-2, 999999}, {-1, 0}, {-1, 999999},     {0, 0},
        {0, 1},           {0, 999999},    {1, 0},       {1, 1},  BB_TIMESTAMP_MAX,
    };
    for (size_t i = 0; i < BB_COUNT(sorted); i++) {
        for (size_t j = 0; j < BB_COUNT(sorted); j++) {
            uint8_t a[BB_TIMESTAMP_BYTES];
            uint8_t b[BB_TIMESTAMP_BYTES];
            int expected = (i > j) - (i < j);
            int order = bb_timestamp_compare(sorted[i], sorted[j]);
            bb_timestamp_encode(sorted[i], a);
            bb_timestamp_encode(sorted[j], b);
            int byte_order = memcmp(a, b, sizeof(a));
            cr_assert_eq((order > 0) - (order < 0), expected);
            cr_assert_eq((byte_order > 0) - (byte_order < 0), expected);
        }
    }
}

Test(time, adding_seconds_carries_both_ways)
{
    static const struct {
        struct bb_timestamp t;
        double seconds;
        struct bb_timestamp sum;
    } cases[] = {
        {{0, 0}, 1.001, {1, 1000}},
        {{0, 0}, -1.001, {-2, 999000}},
        {{0, 999000}, 1.001, {2, 0}},
        {{0, 998999}, 1.001, {1, 999999}},
        {{1, 1000}, -1.001, {0, 0}},
        {{-1, 0}, 1.001, {0, 1000}},
        {{-3, 999500}, 1.001, {-1, 500}},
        {{5, 5}, 0, {5, 5}},
        {{0, 0}, 0.9999996, {1, 0}},
        {{0, 0}, 0.9999994, {0, 999999}},
        {{0, 0}, -0.0000004, {0, 0}},
        {{0, 0}, -0.0000006, {-1, 999999}},
        {{INT64_MAX, 0}, -1, {INT64_MAX - 1, 0}},
        {{INT64_MIN, 0}, 0x1p62, {INT64_MIN / 2, 0}},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        struct bb_timestamp sum;
        cr_assert_eq(bb_timestamp_add(cases[i].t, cases[i].seconds, &sum), 0, "case %zu", i);
        assert_ts(sum, cases[i].sum.s, cases[i].sum.us);
    }
}

Test(time, adding_what_does_not_fit_is_an_error_and_touches_nothing)
{
    struct bb_timestamp sum = {7, 7};
    cr_assert_eq(bb_timestamp_add(ts(0, 0), NAN, &sum), BB_EINVAL);
    cr_assert_eq(bb_timestamp_add(ts(0, 0), INFINITY, &sum), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_add(ts(0, 0), -INFINITY, &sum), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_add(ts(0, 0), 1e300, &sum), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_add(ts(0, 0), 0x1p63, &sum), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_add(BB_TIMESTAMP_MAX, 0.000001, &sum), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_add(BB_TIMESTAMP_MIN, -0.000001, &sum), BB_ETOOBIG);
    assert_ts(sum, 7, 7);
}

Test(time, doubles_round_to_microseconds_and_carry)
{
    struct bb_timestamp t;
    cr_assert_eq(bb_timestamp_from_double(1.9999999, &t), 0);
    assert_ts(t, 2, 0);
    cr_assert_eq(bb_timestamp_from_double(-0.5, &t), 0);
    assert_ts(t, -1, 500000);
    cr_assert_eq(bb_timestamp_from_double(-1e-7, &t), 0);
    assert_ts(t, 0, 0);
    cr_assert_eq(bb_timestamp_from_double(-0x1p63, &t), 0);
    assert_ts(t, INT64_MIN, 0);
    cr_assert_eq(bb_timestamp_to_double(ts(-1, 500000)), -0.5);
    cr_assert_eq(bb_timestamp_to_double(ts(2, 250000)), 2.25);
    for (uint32_t us = 0; us < 1000000; us += 1237) {
        cr_assert_eq(bb_timestamp_from_double(bb_timestamp_to_double(ts(1795253700, us)), &t), 0);
        assert_ts(t, 1795253700, us);
    }
}

Test(time, microseconds_convert_exactly)
{
    static const struct {
        int64_t us;
        struct bb_timestamp t;
    } cases[] = {
        {0, {0, 0}},
        {1, {0, 1}},
        {-1, {-1, 999999}},
        {-1000000, {-1, 0}},
        {-1000001, {-2, 999999}},
        {1795253700123456, {1795253700, 123456}},
        {INT64_MAX, {9223372036854, 775807}},
        {INT64_MIN, {-9223372036855, 224192}},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        int64_t us;
        struct bb_timestamp t = bb_timestamp_from_us(cases[i].us);
        assert_ts(t, cases[i].t.s, cases[i].t.us);
        cr_assert_eq(bb_timestamp_to_us(t, &us), 0);
        cr_assert_eq(us, cases[i].us);
    }
}

Test(time, microseconds_out_of_range_are_an_error)
{
    int64_t us = 5;
    cr_assert_eq(bb_timestamp_to_us(ts(9223372036854, 775808), &us), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_to_us(ts(-9223372036855, 224191), &us), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_to_us(BB_TIMESTAMP_MIN, &us), BB_ETOOBIG);
    cr_assert_eq(bb_timestamp_to_us(BB_TIMESTAMP_MAX, &us), BB_ETOOBIG);
    cr_assert_eq(us, 5);
}

Test(time, the_twelve_byte_form_is_exact)
{
    static const struct {
        struct bb_timestamp t;
        uint8_t bytes[BB_TIMESTAMP_BYTES];
    } cases[] = {
        {{INT64_MIN, 0}, {0}},
        {{0, 0}, {0x80}},
        {{0, 1}, {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}},
        {{-1, 999999}, {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x0f, 0x42, 0x3f}},
        {{INT64_MAX, 999999}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x0f, 0x42, 0x3f}},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        uint8_t bytes[BB_TIMESTAMP_BYTES];
        struct bb_timestamp t;
        bb_timestamp_encode(cases[i].t, bytes);
        cr_assert_arr_eq(bytes, cases[i].bytes, sizeof(bytes), "case %zu", i);
        cr_assert_eq(bb_timestamp_decode(bytes, &t), 0);
        assert_ts(t, cases[i].t.s, cases[i].t.us);
    }
    static const uint8_t too_many[BB_TIMESTAMP_BYTES] = {0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40};
    struct bb_timestamp t = {7, 7};
    cr_assert_eq(bb_timestamp_decode(too_many, &t), BB_EMALFORMED);
    assert_ts(t, 7, 7);
}

Test(time, the_wall_clock_is_the_wall_clock_and_the_other_one_never_goes_back)
{
    int64_t difference = bb_clock_wall_us() - (int64_t)time(NULL) * BB_US_PER_S;
    cr_assert_gt(difference, -BB_US_PER_S);
    cr_assert_lt(difference, 2 * BB_US_PER_S);
    int64_t last = bb_clock_monotonic_us();
    for (int i = 0; i < 100000; i++) {
        int64_t now = bb_clock_monotonic_us();
        cr_assert_geq(now, last);
        last = now;
    }
}

Test(time, rfc_3339_text_is_parsed)
{
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01T00:00:00.000001Z", 1},
        {"1969-12-31T23:59:59.999999Z", -1},
        {"2026-11-21T09:35:00.123456Z", 1795253700123456},
        {"2026-11-21t09:35:00.123456z", 1795253700123456},
        {"2026-11-21 09:35:00.1234569999Z", 1795253700123456},
        {"2026-11-21T09:35:00.5Z", 1795253700500000},
        {"2026-11-21T10:35:00+01:00", 1795253700000000},
        {"2026-11-21T04:05:00-05:30", 1795253700000000},
        {"2000-02-29T00:00:00Z", 951782400000000},
        {"2016-12-31T23:59:60Z", 1483228800000000},
        {"0000-01-01T00:00:00Z", -62167219200000000},
        {"9999-12-31T23:59:59.999999Z", 253402300799999999},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        int64_t us;
        cr_assert_eq(bb_time_parse(bb_slice_str(cases[i].text), &us), 0, "%s", cases[i].text);
        cr_assert_eq(us, cases[i].us, "%s: %ld", cases[i].text, (long)us);
    }
}

Test(time, other_text_is_no_instant)
{
    static const char *const cases[] = {
        "",
        "now",
        "2026-11-21",
        "2026-11-21T09:35:00",
        "2026-11-21T09:35Z",
        "2026-11-21T09:35:00.Z",
        "2026-11-21T09:35:00Zx",
        "2026-11-21T09:35:00+0100",
        "2026-11-21T09:35:00+24:00",
        "2026-11-21T09:35:00+01:60",
        "2026-11-21T24:00:00Z",
        "2026-11-21T09:60:00Z",
        "2026-11-21T09:35:60Z",
        "2026-11-21T09:59:61Z",
        "2026-13-21T09:35:00Z",
        "2026-00-21T09:35:00Z",
        "2026-11-00T09:35:00Z",
        "2026-11-31T09:35:00Z",
        "2026-02-29T09:35:00Z",
        "1900-02-29T09:35:00Z",
        "26-11-21T09:35:00Z",
        "-026-11-21T09:35:00Z",
        " 2026-11-21T09:35:00Z",
        "2026/11/21T09:35:00Z",
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        int64_t us = 5;
        cr_assert_eq(bb_time_parse(bb_slice_str(cases[i]), &us), BB_EINVAL, "%s", cases[i]);
        cr_assert_eq(us, 5);
    }
    cr_assert_eq(bb_time_parse(bb_slice("2026-11-21T09:35:00\0", 20), &(int64_t){0}), BB_EINVAL);
}

Test(time, instants_are_formatted_as_gmtime_says)
{
    for (int64_t s = -62167219200; s <= 253402300799; s += 86400 * 11 + 3661) {
        char text[BB_TIME_TEXT_MAX];
        char expected[64];
        struct tm tm;
        time_t seconds = (time_t)s;
        int64_t us;
        cr_assert_not_null(gmtime_r(&seconds, &tm));
        (void)snprintf(expected, sizeof(expected), "%04d-%02d-%02dT%02d:%02d:%02d.000042Z", tm.tm_year + 1900,
                       tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        cr_assert_eq(bb_time_format(s * BB_US_PER_S + 42, text), 0);
        cr_assert_str_eq(text, expected);
        cr_assert_eq(bb_time_parse(bb_slice_str(text), &us), 0);
        cr_assert_eq(us, s * BB_US_PER_S + 42, "%s", text);
    }
}

Test(time, every_day_of_four_centuries_comes_back)
{
    for (int64_t day = -146097; day <= 146097; day++) {
        char text[BB_TIME_TEXT_MAX];
        int64_t us = 0;
        cr_assert_eq(bb_time_format(day * 86400 * BB_US_PER_S, text), 0);
        cr_assert_eq(bb_time_parse(bb_slice_str(text), &us), 0);
        cr_assert_eq(us, day * 86400 * BB_US_PER_S, "%s", text);
    }
}

Test(time, instants_outside_of_four_digit_years_have_no_text)
{
    static const int64_t cases[] = {-62167219200000001, 253402300800000000, INT64_MIN, INT64_MAX};
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        char text[BB_TIME_TEXT_MAX] = "x";
        cr_assert_eq(bb_time_format(cases[i], text), BB_ETOOBIG);
        cr_assert_str_eq(text, "");
    }
}

Test(time, durations_are_parsed)
{
    static const struct {
        const char *text;
        int64_t us;
    } cases[] = {
        {"10m", 600000000},  {"1h30m", 5400000000},
        {"250ms", 250000},   {"2s", 2000000},
        {"1d", 86400000000}, {"7us", 7},
        {"0s", 0},           {"1d2h3m4s5ms6us", 93784005006},
        {"90m", 5400000000}, {"9223372036854775807us", INT64_MAX},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        int64_t us;
        cr_assert_eq(bb_duration_parse(bb_slice_str(cases[i].text), &us), 0, "%s", cases[i].text);
        cr_assert_eq(us, cases[i].us, "%s: %ld", cases[i].text, (long)us);
    }
}

Test(time, other_text_is_no_duration)
{
    static const struct {
        const char *text;
        int error;
    } cases[] = {
        {"", BB_EINVAL},
        {"10", BB_EINVAL},
        {"m", BB_EINVAL},
        {"-1s", BB_EINVAL},
        {"+1s", BB_EINVAL},
        {"1.5s", BB_EINVAL},
        {"1 s", BB_EINVAL},
        {"1s ", BB_EINVAL},
        {"1S", BB_EINVAL},
        {"1w", BB_EINVAL},
        {"30m1h", BB_EINVAL},
        {"1s1s", BB_EINVAL},
        {"1h30", BB_EINVAL},
        {"9223372036854775808us", BB_ETOOBIG},
        {"106751992d", BB_ETOOBIG},
        {"106751991d24h", BB_ETOOBIG},
        {"99999999999999999999999999s", BB_ETOOBIG},
        {"99999999999999999999999999", BB_EINVAL},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        int64_t us = 5;
        cr_assert_eq(bb_duration_parse(bb_slice_str(cases[i].text), &us), cases[i].error, "%s",
                     cases[i].text);
        cr_assert_eq(us, 5);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/time.h"

#include "proto/base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#define S_PER_DAY     INT64_C(86400)
#define SECONDS_LIMIT 0x1p63 /* the first whole double that int64_t does not have */

static int64_t clock_us(clockid_t clock)
{
    struct timespec now = {0};
    /* These two clocks always exist on Linux; the call has no other way to fail. */
    (void)clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * BB_US_PER_S + now.tv_nsec / 1000;
}

int64_t bb_clock_wall_us(void)
{
    return clock_us(CLOCK_REALTIME);
}

int64_t bb_clock_monotonic_us(void)
{
    return clock_us(CLOCK_MONOTONIC);
}

int bb_timestamp_compare(struct bb_timestamp a, struct bb_timestamp b)
{
    if (a.s != b.s) {
        return a.s < b.s ? -1 : 1;
    }
    return (a.us > b.us) - (a.us < b.us);
}

int bb_timestamp_add(struct bb_timestamp t, double seconds, struct bb_timestamp *ret_t)
{
    if (__builtin_isnan(seconds)) {
        return BB_EINVAL;
    }
    if (seconds < -SECONDS_LIMIT || seconds >= SECONDS_LIMIT) {
        return BB_ETOOBIG;
    }
    int64_t s = (int64_t)seconds;
    s -= (double)s > seconds ? 1 : 0;
    int64_t us = t.us + (int64_t)((seconds - (double)s) * (double)BB_US_PER_S + 0.5);
    if (__builtin_add_overflow(s, us / BB_US_PER_S, &s) || __builtin_add_overflow(s, t.s, &s)) {
        return BB_ETOOBIG;
    }
    *ret_t = (struct bb_timestamp){s, (uint32_t)(us % BB_US_PER_S)};
    return 0;
}

int bb_timestamp_from_double(double seconds, struct bb_timestamp *ret_t)
{
    return bb_timestamp_add((struct bb_timestamp){0}, seconds, ret_t);
}

double bb_timestamp_to_double(struct bb_timestamp t)
{
    return (double)t.s + (double)t.us / (double)BB_US_PER_S;
}

static int64_t floor_div(int64_t value, int64_t by)
{
    return value / by - (value % by < 0 ? 1 : 0);
}

struct bb_timestamp bb_timestamp_from_us(int64_t us)
{
    int64_t rest = us % BB_US_PER_S;
    return (struct bb_timestamp){floor_div(us, BB_US_PER_S),
                                 (uint32_t)(rest < 0 ? rest + BB_US_PER_S : rest)};
}

int bb_timestamp_to_us(struct bb_timestamp t, int64_t *ret_us)
{
    /* Seconds round down, so before 1970 the product may be out of range although the sum is not. */
    int64_t s = t.s < 0 ? t.s + 1 : t.s;
    int64_t rest = t.s < 0 ? (int64_t)t.us - BB_US_PER_S : (int64_t)t.us;
    int64_t us;
    if (__builtin_mul_overflow(s, BB_US_PER_S, &us) || __builtin_add_overflow(us, rest, &us)) {
        return BB_ETOOBIG;
    }
    *ret_us = us;
    return 0;
}

static void put_be(uint8_t *to, uint64_t value, size_t len)
{
    while (len > 0) {
        to[--len] = (uint8_t)value;
        value >>= 8;
    }
}

static uint64_t get_be(const uint8_t *from, size_t len)
{
    uint64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        value = value << 8 | from[i];
    }
    return value;
}

void bb_timestamp_encode(struct bb_timestamp t, uint8_t out[BB_TIMESTAMP_BYTES])
{
    put_be(out, (uint64_t)t.s ^ UINT64_C(1) << 63, 8);
    put_be(out + 8, t.us, 4);
}

int bb_timestamp_decode(const uint8_t in[BB_TIMESTAMP_BYTES], struct bb_timestamp *ret_t)
{
    uint64_t us = get_be(in + 8, 4);
    if (us >= (uint64_t)BB_US_PER_S) {
        return BB_EMALFORMED;
    }
    *ret_t = (struct bb_timestamp){(int64_t)(get_be(in, 8) ^ UINT64_C(1) << 63), (uint32_t)us};
    return 0;
}

/* Days since 1970 of the first of March of @year. A year that begins in March ends with its leap day. */
static int64_t days_to_march(int64_t year)
{
    return year * 365 + floor_div(year, 4) - floor_div(year, 100) + floor_div(year, 400) - 719468;
}

/* @month counts from March = 0. Months from March on have 31 30 31 30 31 days, over and over. */
static int64_t days_to_month(int64_t month)
{
    return (153 * month + 2) / 5;
}

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

static int64_t days_in_month(int64_t year, int64_t month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return days[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

static bool is_digit(struct bb_slice text, size_t at)
{
    return at < text.len && text.data[at] >= '0' && text.data[at] <= '9';
}

/* Text read from the left; @failed is sticky. */
struct reader {
    struct bb_slice text;
    size_t at;
    bool failed;
};

/* A number of exactly @n_digits digits between @min and @max. */
static int64_t read_number(struct reader *reader, int n_digits, int64_t min, int64_t max)
{
    int64_t value = 0;
    for (int i = 0; i < n_digits; i++) {
        if (!is_digit(reader->text, reader->at)) {
            reader->failed = true;
            return min;
        }
        value = value * 10 + (reader->text.data[reader->at++] - '0');
    }
    if (value < min || value > max) {
        reader->failed = true;
        return min;
    }
    return value;
}

/* One of the characters of @set, or 0. */
static char read_one_of(struct reader *reader, const char *set)
{
    if (reader->at < reader->text.len) {
        char c = (char)reader->text.data[reader->at];
        if (c != 0 && strchr(set, c) != NULL) {
            reader->at++;
            return c;
        }
    }
    reader->failed = true;
    return 0;
}

static int64_t read_fraction_us(struct reader *reader)
{
    int64_t us = 0;
    int n_digits = 0;
    if (reader->at >= reader->text.len || reader->text.data[reader->at] != '.') {
        return 0;
    }
    reader->at++;
    reader->failed = reader->failed || !is_digit(reader->text, reader->at);
    for (; is_digit(reader->text, reader->at); reader->at++) {
        if (n_digits++ < 6) {
            us = us * 10 + (reader->text.data[reader->at] - '0');
        }
    }
    for (; n_digits < 6; n_digits++) {
        us *= 10;
    }
    return us;
}

static int64_t read_zone_s(struct reader *reader)
{
    char sign = read_one_of(reader, "Zz+-");
    if (sign != '+' && sign != '-') {
        return 0;
    }
    int64_t hour = read_number(reader, 2, 0, 23);
    (void)read_one_of(reader, ":");
    int64_t s = hour * 3600 + read_number(reader, 2, 0, 59) * 60;
    return sign == '+' ? s : -s;
}

static int64_t read_date(struct reader *reader)
{
    int64_t year = read_number(reader, 4, 0, 9999);
    (void)read_one_of(reader, "-");
    int64_t month = read_number(reader, 2, 1, 12);
    (void)read_one_of(reader, "-");
    int64_t day = read_number(reader, 2, 1, days_in_month(year, month));
    return month > 2 ? days_to_march(year) + days_to_month(month - 3) + day - 1
                     : days_to_march(year - 1) + days_to_month(month + 9) + day - 1;
}

int bb_time_parse(struct bb_slice text, int64_t *ret_us)
{
    struct reader reader = {.text = text};
    int64_t s = read_date(&reader) * S_PER_DAY;
    (void)read_one_of(&reader, "Tt ");
    s += read_number(&reader, 2, 0, 23) * 3600;
    (void)read_one_of(&reader, ":");
    int64_t minute = read_number(&reader, 2, 0, 59);
    (void)read_one_of(&reader, ":");
    s += minute * 60 + read_number(&reader, 2, 0, minute == 59 ? 60 : 59);
    int64_t us = read_fraction_us(&reader);
    s -= read_zone_s(&reader);
    if (reader.failed || reader.at != text.len) {
        return BB_EINVAL;
    }
    *ret_us = s * BB_US_PER_S + us;
    return 0;
}

static void put_decimal(char *to, int64_t value, int n_digits)
{
    while (n_digits-- > 0) {
        to[n_digits] = (char)('0' + value % 10);
        value /= 10;
    }
}

int bb_time_format(int64_t us, char out[BB_TIME_TEXT_MAX])
{
    struct bb_timestamp t = bb_timestamp_from_us(us);
    int64_t day = floor_div(t.s, S_PER_DAY);
    int64_t s = t.s - day * S_PER_DAY;
    /* A first guess of the year is at most one too high or too low; the day of the year corrects it. */
    int64_t year = floor_div((day + 719468) * 400, 146097);
    year -= days_to_march(year) > day ? 1 : 0;
    year += days_to_march(year + 1) <= day ? 1 : 0;
    int64_t rest = day - days_to_march(year);
    int64_t march = (5 * rest + 2) / 153;
    int64_t month = march < 10 ? march + 3 : march - 9;
    year += month <= 2 ? 1 : 0;
    if (year < 0 || year > 9999) {
        out[0] = 0;
        return BB_ETOOBIG;
    }
    memcpy(out, "0000-00-00T00:00:00.000000Z", BB_TIME_TEXT_MAX);
    put_decimal(out, year, 4);
    put_decimal(out + 5, month, 2);
    put_decimal(out + 8, rest - days_to_month(march) + 1, 2);
    put_decimal(out + 11, s / 3600, 2);
    put_decimal(out + 14, s / 60 % 60, 2);
    put_decimal(out + 17, s % 60, 2);
    put_decimal(out + 20, t.us, 6);
    return 0;
}

static const struct {
    const char *name;
    int64_t us;
} units[] = {
    {"d", S_PER_DAY *BB_US_PER_S},
    {"h", 3600 * BB_US_PER_S},
    {"m", 60 * BB_US_PER_S},
    {"s", BB_US_PER_S},
    {"ms", 1000},
    {"us", 1},
};

/* The index of the unit named by the letters at @at, or how many units there are. */
static size_t unit_find(struct bb_slice text, size_t at, size_t *ret_len)
{
    size_t len = 0;
    while (at + len < text.len && !is_digit(text, at + len)) {
        len++;
    }
    size_t i = 0;
    while (i < BB_COUNT(units) &&
           !bb_slice_equal(bb_slice_str(units[i].name), bb_slice(text.data + at, len))) {
        i++;
    }
    *ret_len = len;
    return i;
}

int bb_duration_parse(struct bb_slice text, int64_t *ret_us)
{
    int64_t sum = 0;
    size_t next_unit = 0;
    size_t at = 0;
    bool overflow = false;
    do {
        int64_t value = 0;
        size_t len;
        if (!is_digit(text, at)) {
            return BB_EINVAL;
        }
        for (; is_digit(text, at); at++) {
            overflow = overflow || __builtin_mul_overflow(value, 10, &value) ||
                       __builtin_add_overflow(value, text.data[at] - '0', &value);
        }
        size_t unit = unit_find(text, at, &len);
        if (unit < next_unit || unit >= BB_COUNT(units)) {
            return BB_EINVAL;
        }
        overflow = overflow || __builtin_mul_overflow(value, units[unit].us, &value) ||
                   __builtin_add_overflow(sum, value, &sum);
        next_unit = unit + 1;
        at += len;
    } while (at < text.len);
    if (overflow) {
        return BB_ETOOBIG;
    }
    *ret_us = sum;
    return 0;
}

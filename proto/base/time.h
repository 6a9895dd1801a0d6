/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time. The form used everywhere is a signed 64-bit number of microseconds, since 1970 in UTC where it is
 * an instant; struct bb_timestamp is the wider form for files and foreign interfaces. The two bb_clock_...()
 * functions are the only place that asks for the time; everything else takes it as an argument. All
 * functions may be called from any thread.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdint.h>

#define BB_US_PER_S        INT64_C(1000000)
#define BB_TIMESTAMP_BYTES 12
#define BB_TIME_TEXT_MAX   28 /* "2026-11-21T09:35:00.123456Z" and the zero */

/* Seconds since 1970, also before it, and microseconds after that second, 0 to 999999. */
struct bb_timestamp {
    int64_t s;
    uint32_t us;
};

#define BB_TIMESTAMP_MIN ((struct bb_timestamp){INT64_MIN, 0})
#define BB_TIMESTAMP_MAX ((struct bb_timestamp){INT64_MAX, 999999})

/** bb_clock_wall_us() - microseconds since 1970, UTC; may jump when the clock is set. */
int64_t bb_clock_wall_us(void);

/** bb_clock_monotonic_us() - microseconds since some fixed instant; never goes back. */
int64_t bb_clock_monotonic_us(void);

/** bb_timestamp_compare() - negative, 0 or positive as @a is before, at or after @b. */
int bb_timestamp_compare(struct bb_timestamp a, struct bb_timestamp b);

/**
 * bb_timestamp_add() - @t moved by @seconds, which may be negative, rounded to the microsecond
 *
 * Return: 0, or BB_EINVAL (@seconds is not a number), BB_ETOOBIG (beyond BB_TIMESTAMP_MIN or _MAX).
 */
int bb_timestamp_add(struct bb_timestamp t, double seconds, struct bb_timestamp *ret_t);

/** bb_timestamp_from_double() - from seconds since 1970; errors as bb_timestamp_add(). */
int bb_timestamp_from_double(double seconds, struct bb_timestamp *ret_t);

/** bb_timestamp_to_double() - seconds since 1970; microseconds are exact until about the year 2250. */
double bb_timestamp_to_double(struct bb_timestamp t);

/** bb_timestamp_from_us() - from microseconds since 1970; always possible. */
struct bb_timestamp bb_timestamp_from_us(int64_t us);

/** bb_timestamp_to_us() - 0, or BB_ETOOBIG if @t in microseconds is more than 64 bits. */
int bb_timestamp_to_us(struct bb_timestamp t, int64_t *ret_us);

/**
 * bb_timestamp_encode() - 12 bytes that sort like the timestamps they stand for
 *
 * Big-endian: s + 2^63 in eight bytes, us in four.
 */
void bb_timestamp_encode(struct bb_timestamp t, uint8_t out[BB_TIMESTAMP_BYTES]);

/** bb_timestamp_decode() - back; 0, or BB_EMALFORMED if there are more than 999999 microseconds. */
int bb_timestamp_decode(const uint8_t in[BB_TIMESTAMP_BYTES], struct bb_timestamp *ret_t);

/**
 * bb_time_parse() - an instant from RFC 3339 text
 * @text: e.g. "2026-11-21T09:35:00Z", "2026-11-21 10:35:00.5+01:00"; lower case letters are fine. Digits
 *        beyond the microsecond are cut off; a leap second is the second after it.
 *
 * Return: 0, or BB_EINVAL.
 */
int bb_time_parse(struct bb_slice text, int64_t *ret_us);

/**
 * bb_time_format() - an instant as RFC 3339 text in UTC, always with six decimals
 *
 * Return: 0, or BB_ETOOBIG if it is not in the years 0 to 9999; @out is then "".
 */
int bb_time_format(int64_t us, char out[BB_TIME_TEXT_MAX]);

/**
 * bb_duration_parse() - microseconds from text such as "250ms", "2s", "1h30m"
 * @text: numbers without sign or point, each with one of the units d h m s ms us, longer units first
 *
 * Return: 0, or BB_EINVAL, BB_ETOOBIG (more than 64 bits).
 */
int bb_duration_parse(struct bb_slice text, int64_t *ret_us);

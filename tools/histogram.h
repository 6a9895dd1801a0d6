/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts of values in buckets that are at most 1/32 of the value wide: percentiles of latencies to three percent in 15 KiB.
 * Not thread-safe; histograms of several threads are added up.
 */
#pragma once

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_BUCKETS  ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t n;
    uint64_t min; /* both only if n > 0 */
    uint64_t max;
};

/** histogram_add() - count @value. */
void histogram_add(struct histogram *histogram, uint64_t value);

/** histogram_add_all() - count what @other counted. */
void histogram_add_all(struct histogram *histogram, const struct histogram *other);

/** histogram_get() - the value that the fraction @q (0 to 1) of all does not exceed; 0 if there are none. */
uint64_t histogram_get(const struct histogram *histogram, double q);

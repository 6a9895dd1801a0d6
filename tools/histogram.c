/* SPDX-License-Identifier: Apache-2.0 */
/* Buckets: values below 2^SUB_BITS each have their own; above, each power of two has 2^SUB_BITS. */
#include "tools/histogram.h"

#include "proto/base/cc.h"

#include <math.h>

#define SUB_COUNT (1u << HISTOGRAM_SUB_BITS)

static unsigned int bucket_of(uint64_t value)
{
    if (value < SUB_COUNT) {
        return (unsigned int)value;
    }
    unsigned int shift = 63u - (unsigned int)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return ((shift + 1) << HISTOGRAM_SUB_BITS) + (unsigned int)(value >> shift) - SUB_COUNT;
}

/* The largest value of a bucket. */
static uint64_t bucket_top(unsigned int bucket)
{
    unsigned int row = bucket >> HISTOGRAM_SUB_BITS;
    uint64_t sub = bucket & (SUB_COUNT - 1);
    if (row == 0) {
        return sub;
    }
    unsigned int shift = row - 1;
    return ((SUB_COUNT + sub) << shift) + ((UINT64_C(1) << shift) - 1);
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->min = histogram->n > 0 ? BB_MIN(histogram->min, value) : value;
    histogram->max = BB_MAX(histogram->max, value);
    histogram->counts[bucket_of(value)]++;
    histogram->n++;
}

void histogram_add_all(struct histogram *histogram, const struct histogram *other)
{
    if (other->n == 0) {
        return;
    }
    for (unsigned int i = 0; i < HISTOGRAM_BUCKETS; i++) {
        histogram->counts[i] += other->counts[i];
    }
    histogram->min = histogram->n > 0 ? BB_MIN(histogram->min, other->min) : other->min;
    histogram->max = BB_MAX(histogram->max, other->max);
    histogram->n += other->n;
}

uint64_t histogram_get(const struct histogram *histogram, double q)
{
    uint64_t wanted = (uint64_t)ceil(q * (double)histogram->n);
    uint64_t seen = 0;
    for (unsigned int i = 0; i < HISTOGRAM_BUCKETS && histogram->n > 0; i++) {
        seen += histogram->counts[i];
        if (seen > 0 && seen >= wanted) {
            return BB_MAX(BB_MIN(bucket_top(i), histogram->max), histogram->min);
        }
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nearly all text on a bus is ASCII, so that is judged eight bytes at a time; a multi-byte character
 * costs one row of a table. Only the second byte of a character has a range that depends on the first.
 */
#include "proto/base/utf8.h"

#include <stdint.h>
#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

static const struct lead {
    uint8_t first, last; /* lead bytes of this row */
    uint8_t len;         /* bytes of the whole character */
    uint8_t low, high;   /* what the second byte may be */
} leads[] = {
    {0xc2, 0xdf, 2, 0x80, 0xbf}, {0xe0, 0xe0, 3, 0xa0, 0xbf}, {0xe1, 0xec, 3, 0x80, 0xbf},
    {0xed, 0xed, 3, 0x80, 0x9f}, {0xee, 0xef, 3, 0x80, 0xbf}, {0xf0, 0xf0, 4, 0x90, 0xbf},
    {0xf1, 0xf3, 4, 0x80, 0xbf}, {0xf4, 0xf4, 4, 0x80, 0x8f},
};

static inline bool word_is_ascii(const uint8_t *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof(word));
    return (word & HIGH_BITS) == 0;
}

/* Bytes of the non-ASCII character at @p, 0 when it is not valid. */
static size_t character_len(const uint8_t *p, size_t avail)
{
    for (size_t i = 0; i < BB_COUNT(leads); i++) {
        const struct lead *lead = &leads[i];
        if (p[0] > lead->last) {
            continue;
        }
        if (p[0] < lead->first || avail < lead->len || p[1] < lead->low || p[1] > lead->high) {
            return 0;
        }
        for (size_t k = 2; k < lead->len; k++) {
            if ((p[k] & 0xc0) != 0x80) {
                return 0;
            }
        }
        return lead->len;
    }
    return 0;
}

bool bb_utf8_is_valid(const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t i = 0;
    while (i < len) {
        if (len - i >= 8 && word_is_ascii(p + i)) {
            i += 8;
            /* The last word overlaps what is judged already instead of going byte by byte. */
            if (len - i < 8 && word_is_ascii(p + len - 8)) {
                return true;
            }
            continue;
        }
        size_t step = p[i] < 0x80 ? 1 : character_len(p + i, len - i);
        if (step == 0) {
            return false;
        }
        i += step;
    }
    return true;
}

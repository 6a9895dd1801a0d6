/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/path.h"

#include "proto/base/error.h"
#include "proto/base/utf8.h"

#define ONES UINT64_C(0x0101010101010101)
#define TOPS UINT64_C(0x8080808080808080)

/* Non-zero if any of the eight bytes of @word is zero. */
static inline uint64_t has_zero(uint64_t word)
{
    return (word - ONES) & ~word & TOPS;
}

/* Non-zero if any of eight bytes is not ASCII, or a character that no path has. */
static inline uint64_t has_special(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return (word & TOPS) | has_zero(word) | has_zero(word ^ ONES * '?') | has_zero(word ^ ONES * '*');
}

/* Eight bytes at a time; the last eight may overlap those before. */
static bool is_plain(struct bb_slice path)
{
    if (path.len < 8) {
        uint8_t padded[8] = "________";
        for (size_t i = 0; i < path.len; i++) {
            padded[i] = path.data[i];
        }
        return has_special(padded) == 0;
    }
    uint64_t special = has_special(path.data + path.len - 8);
    for (size_t i = 0; i + 8 < path.len; i += 8) {
        special |= has_special(path.data + i);
    }
    return special == 0;
}

static bool has_byte(struct bb_slice text, int byte)
{
    return text.len > 0 && memchr(text.data, byte, text.len) != NULL;
}

int bb_path_check(struct bb_slice path)
{
    if (path.len > BB_PATH_MAX) {
        return BB_EPATH;
    }
    if (BB_LIKELY(is_plain(path))) {
        return 0;
    }
    if (has_byte(path, '?') || has_byte(path, '*') || has_byte(path, 0) ||
        !bb_utf8_is_valid(path.data, path.len)) {
        return BB_EPATH;
    }
    return 0;
}

int bb_pattern_check(struct bb_slice pattern)
{
    if (pattern.len > BB_PATH_MAX || has_byte(pattern, 0) || !bb_utf8_is_valid(pattern.data, pattern.len)) {
        return BB_EPATTERN;
    }
    for (size_t i = 0; i < pattern.len; i++) {
        uint8_t byte = pattern.data[i];
        if (byte != '?' && byte != '*') {
            continue;
        }
        bool starts = i == 0 || pattern.data[i - 1] == '/';
        bool is_last = i + 1 == pattern.len;
        bool ends = is_last || (byte == '?' && pattern.data[i + 1] == '/');
        if (!starts || !ends) {
            return BB_EPATTERN;
        }
    }
    return 0;
}

static bool is_end(const uint8_t *at, const uint8_t *end)
{
    return at == end || *at == '/';
}

/* Both are at the start of a segment in each round of the loop. */
static bool segments_match(const uint8_t *p, const uint8_t *p_end, const uint8_t *s, const uint8_t *s_end)
{
    for (;;) {
        if (p + 1 == p_end && *p == '*') {
            return true;
        }
        if (p < p_end && *p == '?' && is_end(p + 1, p_end)) {
            p++;
            while (!is_end(s, s_end)) {
                s++;
            }
        }
        while (!is_end(p, p_end) && s < s_end && *p == *s) {
            p++;
            s++;
        }
        if (!is_end(p, p_end) || !is_end(s, s_end)) {
            return false;
        }
        if (p == p_end) {
            return s == s_end;
        }
        if (s == s_end) {
            return p + 2 == p_end && p[1] == '*';
        }
        p++;
        s++;
    }
}

bool bb_pattern_matches(struct bb_slice pattern, struct bb_slice path)
{
    /* Length is the one fault that a valid path would not show by itself: a longer pattern may be fulfilled. */
    if (pattern.len > BB_PATH_MAX) {
        return false;
    }
    if (pattern.len == 0 || path.len == 0) {
        return pattern.len == path.len || bb_segment_is(pattern, '*');
    }
    return segments_match(pattern.data, pattern.data + pattern.len, path.data, path.data + path.len);
}

int bb_pattern_translate(struct bb_slice text, char out[BB_PATH_MAX])
{
    uint8_t pattern[BB_PATH_MAX];
    if (text.len > BB_PATH_MAX) {
        return BB_EPATTERN;
    }
    for (size_t at = 0; bb_path_has_segment(text, at);) {
        struct bb_slice segment = bb_path_segment(text, at);
        size_t end = at + segment.len;
        if (segment.len > 0) {
            memcpy(pattern + at, segment.data, segment.len);
        }
        if (bb_segment_is(segment, '+')) {
            pattern[at] = '?';
        } else if (bb_segment_is(segment, '#')) {
            pattern[at] = '*'; /* before the end it is refused, as `*` is */
        }
        if (end < text.len) {
            pattern[end] = '/';
        }
        at = end + 1;
    }
    int r = bb_pattern_check(bb_slice(pattern, text.len));
    if (r < 0) {
        return r;
    }
    if (text.len > 0) {
        memcpy(out, pattern, text.len);
    }
    return 0;
}

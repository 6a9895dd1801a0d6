/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a pattern, a newline, a path. The checks are compared with the rules written down byte by byte, the
 * matcher with a recursive one over arrays of segments, the translation with one byte by byte.
 */
#include "proto/base/error.h"
#include "proto/base/utf8.h"
#include "proto/wire/path.h"

#include "tests/check.h"

struct segments {
    struct bb_slice list[BB_PATH_SEGMENTS_MAX];
    size_t n;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void split(struct bb_slice text, struct segments *segments)
{
    size_t start = 0;
    segments->n = 0;
    CHECK(text.len <= BB_PATH_MAX);
    for (size_t i = 0; text.len > 0 && i <= text.len; i++) {
        if (i == text.len || text.data[i] == '/') {
            segments->list[segments->n++] = bb_slice(text.data + start, i - start);
            start = i + 1;
        }
    }
}

static bool is_text(struct bb_slice text, const char *other)
{
    return bb_slice_equal(text, bb_slice_str(other));
}

static bool has_any_of(struct bb_slice text, const char *set, size_t n)
{
    for (size_t i = 0; i < text.len; i++) {
        if (memchr(set, text.data[i], n) != NULL) {
            return true;
        }
    }
    return false;
}

static bool slow_check(struct bb_slice text, bool is_pattern)
{
    struct segments segments;
    if (text.len > BB_PATH_MAX || has_any_of(text, "", 1) || !bb_utf8_is_valid(text.data, text.len)) {
        return false;
    }
    split(text, &segments);
    for (size_t i = 0; i < segments.n; i++) {
        bool is_any = is_pattern && is_text(segments.list[i], "?");
        bool is_rest = is_pattern && is_text(segments.list[i], "*") && i + 1 == segments.n;
        if (!is_any && !is_rest && has_any_of(segments.list[i], "?*", 2)) {
            return false;
        }
    }
    return true;
}

static bool slow_matches(const struct segments *pattern, size_t p, const struct segments *path, size_t s)
{
    if (p == pattern->n) {
        return s == path->n;
    }
    if (is_text(pattern->list[p], "*")) {
        return slow_matches(pattern, p + 1, path, s) ||
               (s < path->n && slow_matches(pattern, p, path, s + 1));
    }
    return s < path->n &&
           (is_text(pattern->list[p], "?") || bb_slice_equal(pattern->list[p], path->list[s])) &&
           slow_matches(pattern, p + 1, path, s + 1);
}

static uint8_t slow_spelling(struct bb_slice text, size_t i)
{
    bool is_whole = (i == 0 || text.data[i - 1] == '/') && (i + 1 == text.len || text.data[i + 1] == '/');
    if (is_whole && text.data[i] == '+') {
        return '?';
    }
    return is_whole && text.data[i] == '#' ? '*' : text.data[i];
}

static void check_translation(struct bb_slice text)
{
    uint8_t slow[BB_PATH_MAX];
    char out[BB_PATH_MAX];
    bool is_pattern = text.len <= BB_PATH_MAX;
    for (size_t i = 0; i < text.len && is_pattern; i++) {
        slow[i] = slow_spelling(text, i);
    }
    is_pattern = is_pattern && slow_check(bb_slice(slow, text.len), true);
    CHECK(bb_pattern_translate(text, out) == (is_pattern ? 0 : BB_EPATTERN));
    CHECK(!is_pattern || memcmp(out, slow, text.len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t len = newline != NULL ? (size_t)(newline - data) : size;
    struct bb_slice pattern = bb_slice(data, len);
    struct bb_slice path = newline != NULL ? bb_slice(newline + 1, size - len - 1) : bb_slice(NULL, 0);
    bool is_pattern = slow_check(pattern, true);
    bool is_path = slow_check(path, false);
    CHECK(bb_pattern_check(pattern) == (is_pattern ? 0 : BB_EPATTERN));
    CHECK(bb_path_check(path) == (is_path ? 0 : BB_EPATH));
    CHECK(bb_path_check(pattern) == (slow_check(pattern, false) ? 0 : BB_EPATH));
    check_translation(pattern);
    bool matches = bb_pattern_matches(pattern, path);
    if (is_path && is_pattern) {
        struct segments pattern_segments;
        struct segments path_segments;
        split(pattern, &pattern_segments);
        split(path, &path_segments);
        CHECK(matches == slow_matches(&pattern_segments, 0, &path_segments, 0));
    } else if (is_path) {
        CHECK(!matches);
    }
    return 0;
}

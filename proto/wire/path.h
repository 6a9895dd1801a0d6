/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths, patterns and how they match (PROTOCOL 3).
 *
 * A path is segments joined by `/`, at most BB_PATH_MAX bytes of UTF-8 without `?`, `*` and U+0000. The
 * empty text is the empty path, which has no segments; "a/" has the segments "a" and ""; "/" has two
 * empty ones. The path of exactly one empty segment has no text and therefore does not exist.
 *
 * A pattern is a path in which a whole segment `?` stands for exactly one segment (also an empty one)
 * and a whole last segment `*` for zero or more: behind the segment "a" it matches "a" and "a/b/c", alone it
 * matches everything, the empty path too. The empty pattern matches the empty path alone.
 *
 * All functions are pure, allocate nothing and borrow what they are given.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define BB_PATH_MAX          200
#define BB_PATH_SEGMENTS_MAX (BB_PATH_MAX + 1)

/** bb_path_check() - 0 if @path is a valid path, else BB_EPATH. Any bytes may be given. */
int bb_path_check(struct bb_slice path);

/** bb_pattern_check() - 0 if @pattern is a valid pattern, else BB_EPATTERN. Any bytes may be given. */
int bb_pattern_check(struct bb_slice pattern);

/**
 * bb_pattern_matches() - does @pattern match @path?
 * @pattern: any bytes; an invalid pattern matches no path
 * @path:    a valid path; for anything else the answer means nothing
 *
 * One pass over both, no recursion.
 */
bool bb_pattern_matches(struct bb_slice pattern, struct bb_slice path);

/**
 * bb_pattern_translate() - a pattern from its MQTT spelling
 * @text:    pattern in which `+` may be written for `?` and a last `#` for `*`, each as a whole segment
 * @out:     the pattern, as long as @text; untouched on failure
 *
 * For what a person types. On the wire `+` and `#` are ordinary text, so a path with a segment "+" cannot
 * be subscribed to through this function.
 *
 * Return: 0, or BB_EPATTERN if the result is not a valid pattern.
 */
int bb_pattern_translate(struct bb_slice text, char out[BB_PATH_MAX]);

/*
 * Walking segments by offset: start at 0; while bb_path_has_segment(path, at), the segment is
 * bb_path_segment(path, at) and the next offset is at + segment.len + 1. Patterns walk the same way.
 */

/** bb_path_has_segment() - does a segment start at offset @at of the walk? */
static inline bool bb_path_has_segment(struct bb_slice path, size_t at)
{
    return at <= path.len && path.len > 0;
}

/** bb_path_segment() - the segment that starts at @at; only where bb_path_has_segment(). */
static inline struct bb_slice bb_path_segment(struct bb_slice path, size_t at)
{
    size_t end = at;
    while (end < path.len && path.data[end] != '/') {
        end++;
    }
    return bb_slice(path.data + at, end - at);
}

/** bb_path_channel() - the first segment of @path; empty for the empty path. */
static inline struct bb_slice bb_path_channel(struct bb_slice path)
{
    return bb_path_has_segment(path, 0) ? bb_path_segment(path, 0) : path;
}

/** bb_segment_is() - is @segment the wildcard @wildcard, `?` or `*`? */
static inline bool bb_segment_is(struct bb_slice segment, char wildcard)
{
    return segment.len == 1 && segment.data[0] == (uint8_t)wildcard;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/model/match.h"

#include "proto/wire/mp.h"

/* What is left of a path: its next segment is taken off; false at the end. The empty text has no segments. */
struct walk {
    struct bb_slice rest;
    bool is_over;
};

static struct walk walk_of(struct bb_slice text)
{
    return (struct walk){text, text.len == 0};
}

static struct bb_slice next(struct walk *walk)
{
    size_t n = 0;
    while (n < walk->rest.len && walk->rest.data[n] != '/') {
        n++;
    }
    struct bb_slice segment = bb_slice(walk->rest.data, n);
    walk->is_over = n == walk->rest.len;
    walk->rest = walk->is_over ? bb_slice(walk->rest.data, 0)
                               : bb_slice(walk->rest.data + n + 1, walk->rest.len - n - 1);
    return segment;
}

static bool is(struct bb_slice segment, char wildcard)
{
    return segment.len == 1 && segment.data[0] == (uint8_t)wildcard;
}

bool match_path(struct bb_slice pattern, struct bb_slice path)
{
    struct walk want = walk_of(pattern);
    struct walk have = walk_of(path);
    while (!want.is_over) {
        struct bb_slice segment = next(&want);
        if (is(segment, '*') && want.is_over) {
            return true;
        }
        if (have.is_over) {
            return false;
        }
        struct bb_slice actual = next(&have);
        if (!is(segment, '?') && !bb_slice_equal(segment, actual)) {
            return false;
        }
    }
    return have.is_over;
}

struct bb_slice match_name_of(struct bb_slice path)
{
    struct walk walk = walk_of(path);
    return walk.is_over ? path : next(&walk);
}

bool match_channel(struct bb_slice pattern, struct bb_slice name)
{
    struct bb_slice first = match_name_of(pattern);
    return is(first, '?') || is(first, '*') || bb_slice_equal(first, name);
}

bool match_any(struct bb_slice patterns, struct bb_slice path)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    bool matches = false;
    for (uint32_t n = bb_mp_read_array(&reader); n > 0 && !matches; n--) {
        matches = match_path(bb_mp_read_str(&reader), path);
    }
    return matches;
}

bool match_any_channel(struct bb_slice patterns, struct bb_slice name)
{
    struct bb_mp_reader reader = bb_mp_reader(patterns);
    bool matches = false;
    for (uint32_t n = bb_mp_read_array(&reader); n > 0 && !matches; n--) {
        matches = match_channel(bb_mp_read_str(&reader), name);
    }
    return matches;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A set is a sorted array of patterns. Sorted by segments, all patterns with the same beginning stand
 * together, so a range of the array and an offset are what a node is in a trie: set_walk() goes down such
 * ranges and leaves out those that cannot share a path with the pattern it looks for. A path is a pattern
 * without wildcards, so one walk serves matching, disjointness and intersection. The walk only prunes;
 * what decides about a pair of patterns is the visitor, with bb_pattern_matches() or pattern_meet().
 */
#include "proto/wire/pattern_set.h"

#include "proto/base/error.h"
#include "proto/wire/path.h"

#include <stdlib.h>

/* What two patterns share has at most the segments of the one and the text of both. */
#define MEET_MAX (2 * BB_PATH_MAX + 2)

struct bb_pattern_set {
    size_t count;
    struct bb_slice patterns[]; /* their text follows in the same allocation */
};

struct walk {
    const struct bb_pattern_set *set;
    struct bb_slice pattern;                                           /* what the walk looks for */
    int (*on_candidate)(struct walk *walk, struct bb_slice candidate); /* not 0 ends the walk */
    struct bb_buf *meets; /* for intersection: see meet_collect() */
    size_t n_meets;
};

/* End of text before end of segment before wildcards before other text: keeps equal beginnings together. */
static int byte_rank(struct bb_slice text, size_t i)
{
    if (i >= text.len) {
        return 0;
    }
    switch (text.data[i]) {
    case '/':
        return 1;
    case '*':
        return 2;
    case '?':
        return 3;
    default:
        return 4 + text.data[i];
    }
}

static int text_compare(struct bb_slice a, struct bb_slice b)
{
    size_t i = 0;
    while (i < a.len && i < b.len && a.data[i] == b.data[i]) {
        i++;
    }
    return byte_rank(a, i) - byte_rank(b, i);
}

static int pattern_compare(const void *a, const void *b)
{
    return text_compare(*(const struct bb_slice *)a, *(const struct bb_slice *)b);
}

static bool list_has(const struct bb_slice *sorted, size_t n, struct bb_slice pattern)
{
    return bsearch(&pattern, sorted, n, sizeof(*sorted), pattern_compare) != NULL;
}

/* Is there another pattern in the list that begins like @pattern and goes on with `*`? */
static bool is_swallowed(const struct bb_slice *sorted, size_t n, struct bb_slice pattern)
{
    uint8_t text[BB_PATH_MAX + 2];
    for (size_t at = 0;; at++) {
        text[at] = '*';
        struct bb_slice other = bb_slice(text, at + 1);
        if (!bb_slice_equal(other, pattern) && list_has(sorted, n, other)) {
            return true;
        }
        if (!bb_path_has_segment(pattern, at)) {
            return false;
        }
        struct bb_slice segment = bb_path_segment(pattern, at);
        memcpy(text + at, segment.data, segment.len);
        at += segment.len;
        text[at] = '/';
    }
}

/* Sort @list and copy what must be kept to @ret_kept; returns how many that are. */
static size_t list_sanitise(struct bb_slice *list, size_t n, struct bb_slice *ret_kept)
{
    size_t n_distinct = 0;
    size_t n_kept = 0;
    qsort(list, n, sizeof(*list), pattern_compare);
    for (size_t i = 0; i < n; i++) {
        if (n_distinct == 0 || !bb_slice_equal(list[n_distinct - 1], list[i])) {
            list[n_distinct++] = list[i];
        }
    }
    for (size_t i = 0; i < n_distinct; i++) {
        if (!is_swallowed(list, n_distinct, list[i])) {
            ret_kept[n_kept++] = list[i];
        }
    }
    return n_kept;
}

/* Copies of @n sanitised patterns. */
static int set_copy(const struct bb_slice *patterns, size_t n, struct bb_pattern_set **ret_set)
{
    size_t n_bytes = 0;
    for (size_t i = 0; i < n; i++) {
        n_bytes += patterns[i].len;
    }
    struct bb_pattern_set *set = malloc(sizeof(*set) + n * sizeof(struct bb_slice) + n_bytes);
    if (set == NULL) {
        return BB_ENOMEM;
    }
    uint8_t *text = (uint8_t *)&set->patterns[n];
    set->count = n;
    for (size_t i = 0; i < n; i++) {
        if (patterns[i].len > 0) {
            memcpy(text, patterns[i].data, patterns[i].len);
        }
        set->patterns[i] = bb_slice(text, patterns[i].len);
        text += patterns[i].len;
    }
    *ret_set = set;
    return 0;
}

/* A set of the patterns in the first half of @list, which has room for 2 * @n; frees @list. */
static int set_take(struct bb_slice *list, size_t n, struct bb_pattern_set **ret_set)
{
    size_t n_kept = list_sanitise(list, n, list + n);
    int r = n_kept > BB_PATTERN_SET_MAX ? BB_ELIMIT : set_copy(list + n, n_kept, ret_set);
    free(list);
    return r;
}

/* At least one element, so that NULL always means no memory. */
static struct bb_slice *list_new(size_t n)
{
    return calloc(n + 1, 2 * sizeof(struct bb_slice));
}

int bb_pattern_set_new(const struct bb_slice *patterns, size_t n, struct bb_pattern_set **ret_set)
{
    for (size_t i = 0; i < n; i++) {
        int r = bb_pattern_check(patterns[i]);
        if (r < 0) {
            return r;
        }
    }
    struct bb_slice *list = list_new(n);
    if (list == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        list[i] = patterns[i];
    }
    return set_take(list, n, ret_set);
}

void bb_pattern_set_free(struct bb_pattern_set *set)
{
    free(set);
}

size_t bb_pattern_set_count(const struct bb_pattern_set *set)
{
    return set->count;
}

struct bb_slice bb_pattern_set_get(const struct bb_pattern_set *set, size_t i)
{
    return set->patterns[i];
}

/* The first pattern in [lo, hi) whose segment at @at is @segment or, with @after, greater. */
static size_t
range_bound(const struct walk *walk, size_t lo, size_t hi, size_t at, struct bb_slice segment, bool after)
{
    while (lo < hi) {
        size_t middle = lo + (hi - lo) / 2;
        struct bb_slice pattern = walk->set->patterns[middle];
        int order = -1;
        if (bb_path_has_segment(pattern, at)) {
            order = text_compare(bb_path_segment(pattern, at), segment);
        }
        if (order < 0 || (after && order == 0)) {
            lo = middle + 1;
        } else {
            hi = middle;
        }
    }
    return lo;
}

static int range_walk(struct walk *walk, size_t lo, size_t hi, size_t at_pattern, size_t at_set);

static int
child_walk(struct walk *walk, size_t lo, size_t hi, size_t at_pattern, size_t at_set, struct bb_slice segment)
{
    lo = range_bound(walk, lo, hi, at_set, segment, false);
    if (lo == hi || !bb_slice_equal(bb_path_segment(walk->set->patterns[lo], at_set), segment)) {
        return 0;
    }
    hi = range_bound(walk, lo, hi, at_set, segment, true);
    return range_walk(walk, lo, hi, at_pattern, at_set + segment.len + 1);
}

/* All children, whatever their segment. */
static int children_walk(struct walk *walk, size_t lo, size_t hi, size_t at_pattern, size_t at_set)
{
    int r = 0;
    while (r == 0 && lo < hi) {
        struct bb_slice pattern = walk->set->patterns[lo];
        size_t end = lo + 1;
        if (bb_path_has_segment(pattern, at_set)) {
            struct bb_slice segment = bb_path_segment(pattern, at_set);
            end = range_bound(walk, lo, hi, at_set, segment, true);
            r = range_walk(walk, lo, end, at_pattern, at_set + segment.len + 1);
        }
        lo = end;
    }
    return r;
}

static int candidates_visit(struct walk *walk, size_t lo, size_t hi)
{
    int r = 0;
    while (r == 0 && lo < hi) {
        r = walk->on_candidate(walk, walk->set->patterns[lo++]);
    }
    return r;
}

/*
 * The patterns in [lo, hi) are the same up to @at_set and may share a path with walk->pattern as far as
 * @at_pattern. Recursion is as deep as a pattern has segments.
 */
static int range_walk(struct walk *walk, size_t lo, size_t hi, size_t at_pattern, size_t at_set)
{
    if (hi - lo <= 1) {
        return candidates_visit(walk, lo, hi);
    }
    const struct bb_slice star = bb_slice("*", 1);
    if (!bb_path_has_segment(walk->pattern, at_pattern)) {
        bool ends = !bb_path_has_segment(walk->set->patterns[lo], at_set);
        int r = ends ? candidates_visit(walk, lo, lo + 1) : 0;
        return r != 0 ? r : child_walk(walk, lo, hi, at_pattern, at_set, star);
    }
    struct bb_slice segment = bb_path_segment(walk->pattern, at_pattern);
    if (bb_segment_is(segment, '*')) {
        return candidates_visit(walk, lo, hi);
    }
    size_t next = at_pattern + segment.len + 1;
    if (bb_segment_is(segment, '?')) {
        return children_walk(walk, lo, hi, next, at_set);
    }
    int r = child_walk(walk, lo, hi, next, at_set, star);
    if (r == 0) {
        r = child_walk(walk, lo, hi, next, at_set, bb_slice("?", 1));
    }
    return r != 0 ? r : child_walk(walk, lo, hi, next, at_set, segment);
}

static int path_visit(struct walk *walk, struct bb_slice candidate)
{
    return bb_pattern_matches(candidate, walk->pattern);
}

bool bb_pattern_set_matches(const struct bb_pattern_set *set, struct bb_slice path)
{
    struct walk walk = {.set = set, .pattern = path, .on_candidate = path_visit};
    return range_walk(&walk, 0, set->count, 0, 0) != 0;
}

/* The segment at @at, or NULL data where there is none. */
static struct bb_slice segment_or_none(struct bb_slice pattern, size_t at)
{
    return bb_path_has_segment(pattern, at) ? bb_path_segment(pattern, at) : bb_slice(NULL, 0);
}

/* The segment that stands for both, NULL data if none does. A `*` is good for any one segment here. */
static struct bb_slice segment_meet(struct bb_slice a, struct bb_slice b)
{
    if (a.data == NULL || b.data == NULL) {
        return bb_slice(NULL, 0);
    }
    if (bb_segment_is(a, '*')) {
        return b;
    }
    if (bb_segment_is(b, '*') || bb_segment_is(b, '?')) {
        return a;
    }
    return bb_segment_is(a, '?') || bb_slice_equal(a, b) ? b : bb_slice(NULL, 0);
}

/*
 * The pattern that matches what both match, as text of *@ret_len bytes, perhaps more than BB_PATH_MAX;
 * false if no path fits both.
 */
static bool pattern_meet(struct bb_slice a, struct bb_slice b, uint8_t text[MEET_MAX], size_t *ret_len)
{
    size_t len = 0;
    size_t at_a = 0;
    size_t at_b = 0;
    size_t n_segments = 0;
    size_t n_optional = 0; /* bytes that the shortest path does not have: `?` may be an empty segment */
    for (;;) {
        struct bb_slice segment_a = segment_or_none(a, at_a);
        struct bb_slice segment_b = segment_or_none(b, at_b);
        bool a_is_over = segment_a.data == NULL || bb_segment_is(segment_a, '*');
        bool b_is_over = segment_b.data == NULL || bb_segment_is(segment_b, '*');
        struct bb_slice segment = segment_meet(segment_a, segment_b);
        if (segment.data == NULL) {
            if (a_is_over && b_is_over) {
                break;
            }
            return false;
        }
        if (n_segments++ > 0) {
            text[len++] = '/';
        }
        memcpy(text + len, segment.data, segment.len);
        len += segment.len;
        if (a_is_over && b_is_over) {
            n_optional += 2;
            break;
        }
        n_optional += bb_segment_is(segment, '?') ? 1 : 0;
        at_a += a_is_over ? 0 : segment_a.len + 1;
        at_b += b_is_over ? 0 : segment_b.len + 1;
    }
    /* One empty segment is no path. */
    if ((len == 0 && n_segments > 0) || (len > BB_PATH_MAX && len - n_optional > BB_PATH_MAX)) {
        return false;
    }
    *ret_len = len;
    return true;
}

static int overlap_visit(struct walk *walk, struct bb_slice candidate)
{
    uint8_t text[MEET_MAX];
    size_t len;
    return pattern_meet(walk->pattern, candidate, text, &len);
}

bool bb_pattern_set_is_disjoint(const struct bb_pattern_set *a, const struct bb_pattern_set *b)
{
    struct walk walk = {.set = b, .on_candidate = overlap_visit};
    for (size_t i = 0; i < a->count; i++) {
        walk.pattern = a->patterns[i];
        if (range_walk(&walk, 0, b->count, 0, 0) != 0) {
            return false;
        }
    }
    return true;
}

int bb_pattern_set_union(const struct bb_pattern_set *a,
                         const struct bb_pattern_set *b,
                         struct bb_pattern_set **ret_set)
{
    size_t n = a->count + b->count;
    struct bb_slice *list = list_new(n);
    if (list == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        list[i] = i < a->count ? a->patterns[i] : b->patterns[i - a->count];
    }
    return set_take(list, n, ret_set);
}

/* Meets are collected as text, each behind one byte with its length, since BB_PATH_MAX fits in it. */
static int meet_collect(struct walk *walk, struct bb_slice candidate)
{
    uint8_t text[MEET_MAX];
    size_t len;
    if (!pattern_meet(walk->pattern, candidate, text, &len)) {
        return 0;
    }
    if (len > BB_PATH_MAX || walk->n_meets >= BB_PATTERN_SET_MAX) {
        return BB_ELIMIT;
    }
    bb_buf_append_byte(walk->meets, (uint8_t)len);
    bb_buf_append(walk->meets, text, len);
    walk->n_meets++;
    return walk->meets->error;
}

int bb_pattern_set_intersection(const struct bb_pattern_set *a,
                                const struct bb_pattern_set *b,
                                struct bb_pattern_set **ret_set)
{
    struct bb_buf meets = BB_BUF_INIT;
    struct walk walk = {.set = b, .on_candidate = meet_collect, .meets = &meets};
    struct bb_slice *list = NULL;
    int r = 0;
    for (size_t i = 0; r == 0 && i < a->count; i++) {
        walk.pattern = a->patterns[i];
        r = range_walk(&walk, 0, b->count, 0, 0);
    }
    if (r == 0) {
        list = list_new(walk.n_meets);
        r = list == NULL ? BB_ENOMEM : 0;
    }
    if (list != NULL) {
        const uint8_t *at = meets.data;
        for (size_t i = 0; i < walk.n_meets; i++) {
            list[i] = bb_slice(at + 1, at[0]);
            at += 1 + list[i].len;
        }
        r = set_take(list, walk.n_meets, ret_set);
    }
    bb_buf_fini(&meets);
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: lines, each a pattern; those before the first line "=" are one set, those after it another. Which
 * paths of a small universe (all of up to four segments out of "", "a", "b", "x") the sets match, and their
 * union and intersection, is compared with the lists of patterns.
 */
#include "proto/base/error.h"
#include "proto/wire/path.h"
#include "proto/wire/pattern_set.h"

#include "tests/check.h"

#define N_PATTERNS 16
#define N_SEGMENTS 4
#define N_CHOICES  5 /* one of four segments, or none */

struct list {
    struct bb_slice patterns[N_PATTERNS];
    size_t n;
};

struct sets {
    struct bb_pattern_set *a;
    struct bb_pattern_set *b;
    struct bb_pattern_set *both;
    struct bb_pattern_set *shared; /* NULL: too large */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_lists(const uint8_t *data, size_t size, struct list lists[2])
{
    size_t which = 0;
    while (size > 0) {
        const uint8_t *newline = memchr(data, '\n', size);
        size_t len = newline != NULL ? (size_t)(newline - data) : size;
        struct bb_slice line = bb_slice(data, len);
        if (len == 1 && data[0] == '=') {
            which = 1;
        } else if (lists[which].n < N_PATTERNS && bb_pattern_check(line) == 0) {
            lists[which].patterns[lists[which].n++] = line;
        }
        data += newline != NULL ? len + 1 : len;
        size -= newline != NULL ? len + 1 : len;
    }
}

static bool list_matches(const struct list *list, struct bb_slice path)
{
    for (size_t i = 0; i < list->n; i++) {
        if (bb_pattern_matches(list->patterns[i], path)) {
            return true;
        }
    }
    return false;
}

/* Path number @number of the universe; false if it is one that cannot be written. */
static bool path_number(unsigned number, uint8_t text[2 * N_SEGMENTS], struct bb_slice *ret_path)
{
    static const char segments[] = {0, 'a', 'b', 'x'};
    size_t len = 0;
    size_t n = 0;
    for (; number % N_CHOICES != 0; number /= N_CHOICES) {
        char segment = segments[number % N_CHOICES - 1];
        if (n++ > 0) {
            text[len++] = '/';
        }
        if (segment != 0) {
            text[len++] = (uint8_t)segment;
        }
    }
    *ret_path = bb_slice(text, len);
    return number == 0 && (n != 1 || len > 0);
}

static bool is_repeated(const struct bb_pattern_set *set, size_t i)
{
    for (size_t j = 0; j < i; j++) {
        if (bb_slice_equal(bb_pattern_set_get(set, j), bb_pattern_set_get(set, i))) {
            return true;
        }
    }
    return false;
}

static void check_sanitised(const struct bb_pattern_set *set)
{
    for (size_t i = 0; i < bb_pattern_set_count(set); i++) {
        CHECK(bb_pattern_check(bb_pattern_set_get(set, i)) == 0 && !is_repeated(set, i));
    }
}

static void check_paths(const struct sets *sets, const struct list lists[2])
{
    unsigned n_paths = N_CHOICES * N_CHOICES * N_CHOICES * N_CHOICES;
    bool is_disjoint = bb_pattern_set_is_disjoint(sets->a, sets->b);
    CHECK(is_disjoint == bb_pattern_set_is_disjoint(sets->b, sets->a));
    for (unsigned number = 0; number < n_paths; number++) {
        uint8_t text[2 * N_SEGMENTS];
        struct bb_slice path;
        if (!path_number(number, text, &path)) {
            continue;
        }
        bool in_a = list_matches(&lists[0], path);
        bool in_b = list_matches(&lists[1], path);
        CHECK(bb_pattern_set_matches(sets->a, path) == in_a);
        CHECK(bb_pattern_set_matches(sets->b, path) == in_b);
        CHECK(bb_pattern_set_matches(sets->both, path) == (in_a || in_b));
        CHECK(sets->shared == NULL || bb_pattern_set_matches(sets->shared, path) == (in_a && in_b));
        CHECK(!is_disjoint || !(in_a && in_b));
    }
    CHECK(sets->shared == NULL || (bb_pattern_set_count(sets->shared) == 0) == is_disjoint);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct list lists[2] = {0};
    struct sets sets = {0};
    read_lists(data, size, lists);
    CHECK(bb_pattern_set_new(lists[0].patterns, lists[0].n, &sets.a) == 0);
    CHECK(bb_pattern_set_new(lists[1].patterns, lists[1].n, &sets.b) == 0);
    CHECK(bb_pattern_set_union(sets.a, sets.b, &sets.both) == 0);
    int r = bb_pattern_set_intersection(sets.a, sets.b, &sets.shared);
    CHECK(r == 0 || r == BB_ELIMIT);
    check_sanitised(sets.a);
    check_sanitised(sets.both);
    if (sets.shared != NULL) {
        check_sanitised(sets.shared);
    }
    check_paths(&sets, lists);
    bb_pattern_set_free(sets.a);
    bb_pattern_set_free(sets.b);
    bb_pattern_set_free(sets.both);
    bb_pattern_set_free(sets.shared);
    return 0;
}

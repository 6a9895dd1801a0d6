/* SPDX-License-Identifier: Apache-2.0 */
/* Sets of patterns: HAT-F15 to HAT-F17, HAT-T02 to HAT-T04, and HAT-W7 done right. */
#include "proto/base/error.h"
#include "proto/wire/path.h"
#include "proto/wire/pattern_set.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define NOTHING "nothing"

/* Sets are written as their patterns with `,` between; "" is the set of the empty pattern. */
static struct bb_pattern_set *set_parse(const char *text)
{
    struct bb_slice patterns[16];
    struct bb_pattern_set *set = NULL;
    size_t n = 0;
    while (strcmp(text, NOTHING) != 0) {
        size_t len = strcspn(text, ",");
        cr_assert_lt(n, BB_COUNT(patterns));
        patterns[n++] = bb_slice(text, len);
        if (text[len] == 0) {
            break;
        }
        text += len + 1;
    }
    cr_assert_eq(bb_pattern_set_new(patterns, n, &set), 0, "%s", text);
    return set;
}

static void assert_set(struct bb_pattern_set *set, const char *expected, const char *what)
{
    struct bb_buf buf = BB_BUF_INIT;
    for (size_t i = 0; i < bb_pattern_set_count(set); i++) {
        struct bb_slice pattern = bb_pattern_set_get(set, i);
        bb_buf_printf(&buf, "%s%.*s", i > 0 ? "," : "", (int)pattern.len, (const char *)pattern.data);
    }
    const char *text = bb_pattern_set_count(set) == 0 ? NOTHING : bb_buf_string(&buf);
    cr_assert_str_eq(text, expected, "%s: \"%s\" is not \"%s\"", what, text, expected);
    bb_buf_fini(&buf);
    bb_pattern_set_free(set);
}

/* HAT-T02 */
Test(pattern_set, a_set_is_sanitised)
{
    static const struct {
        const char *patterns;
        const char *sanitised;
    } cases[] = {
        {NOTHING, NOTHING},   {"", ""},
        {"a,b/*,,*", "*"},    {"a/*,a", "a/*"},
        {"c/?,c/*", "c/*"},   {"c/*,c/?/d,c/,c//,c/d/*,c,ca,c/d", "c/*,ca"},
        {"a,a,b,a", "a,b"},   {"a//b,a/,/,", ",/,a/,a//b"},
        {"/*,,/,/a", ",/*"},  {"?/*,a/b", "?/*,a/b"},
        {"?/*,?/b,?", "?/*"}, {"b,?,a/?,a,b/*", "?,a,a/?,b/*"},
        {"a/b/*,a/*", "a/*"}, {"ab,a/b,a!", "a/b,a!,ab"},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        assert_set(set_parse(cases[i].patterns), cases[i].sanitised, cases[i].patterns);
    }
}

/* HAT-T03 */
Test(pattern_set, a_set_matches_what_one_of_its_patterns_matches)
{
    static const struct {
        const char *set;
        const char *path;
        bool matches;
    } cases[] = {
        {NOTHING, "", false},
        {NOTHING, "a", false},
        {"", "", true},
        {"", "a", false},
        {"*", "", true},
        {"*", "a", true},
        {"*", "a/b/c", true},
        {"a/?,a", "a", true},
        {"a/?,a", "a/b", true},
        {"a/?,a", "a/", true},
        {"a/?,a", "a/b/c", false},
        {"a/?,a", "", false},
        {"a/?,a", "b", false},
        {"a/*,b", "a", true},
        {"a/*,b", "a/b/c", true},
        {"a/*,b", "b/a", false},
        {"?/b,a/?/c", "x/b", true},
        {"?/b,a/?/c", "a/b/c", true},
        {"?/b,a/?/c", "a/c", false},
        {"?/?,?/a/*,b", "b/a/c", true},
        {"/*,x", "/", true},
        {"/*,x", "", false},
        {"?,,x/y", "", true},
        {"?/,x", "a/", true},
        {"?/,x", "a", false},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        struct bb_pattern_set *set = set_parse(cases[i].set);
        cr_assert_eq(bb_pattern_set_matches(set, bb_slice_str(cases[i].path)), cases[i].matches,
                     "{%s}, path \"%s\"", cases[i].set, cases[i].path);
        bb_pattern_set_free(set);
    }
}

/* HAT-T04 */
Test(pattern_set, unions)
{
    static const struct {
        const char *a;
        const char *b;
        const char *both;
    } cases[] = {
        {NOTHING, NOTHING, NOTHING}, {NOTHING, "a", "a"},     {"a", "b", "a,b"}, {"a,b", "b,c", "a,b,c"},
        {"a,b", "*", "*"},           {"a/b,a", "a/*", "a/*"}, {"", "a", ",a"},   {"?/a", "a/?", "?/a,a/?"},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        struct bb_pattern_set *a = set_parse(cases[i].a);
        struct bb_pattern_set *b = set_parse(cases[i].b);
        struct bb_pattern_set *set = NULL;
        cr_assert_eq(bb_pattern_set_union(a, b, &set), 0);
        assert_set(set, cases[i].both, cases[i].a);
        cr_assert_eq(bb_pattern_set_union(b, a, &set), 0);
        assert_set(set, cases[i].both, cases[i].a);
        bb_pattern_set_free(a);
        bb_pattern_set_free(b);
    }
}

/* HAT-T04 with the cases of HAT-W7; disjoint is where the intersection is nothing. */
Test(pattern_set, intersections_and_disjointness)
{
    static const struct {
        const char *a;
        const char *b;
        const char *shared;
    } cases[] = {
        {NOTHING, NOTHING, NOTHING},
        {NOTHING, "*", NOTHING},
        {"?/b", "a/b", "a/b"},
        {"*", "a,b,c", "a,b,c"},
        {"a/*", "a", "a"},
        {"*", "", ""},
        {"*", "*", "*"},
        {"", "", ""},
        {"", "a", NOTHING},
        {"", "?", NOTHING},
        {"", "/*", NOTHING},
        {"?/a", "?/b", NOTHING},
        {"a/b/*", "a/b", "a/b"},
        {"a//?", "a/?//b", NOTHING},
        {"a//?", "a/?/b", "a//b"},
        {"a/*", "?/b", "a/b"},
        {"a/*", "?/*", "a/*"},
        {"a/?/*", "?/b/*", "a/b/*"},
        {"a/?/*", "a", NOTHING},
        {"?/?", "a/*,*", "?/?"},
        {"a/*,b/*", "?/c,b", "a/c,b,b/c"},
        {"a,b,c", "b,c,d", "b,c"},
        {"?,a/?", "a,?/b", "a,a/b"},
        {"/*", "?", NOTHING},
        {"/*", "?,?/?", "/?"},
        {"/*", "?/*", "/*"},
        {"a/b/c/*", "a/*", "a/b/c/*"},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        struct bb_pattern_set *a = set_parse(cases[i].a);
        struct bb_pattern_set *b = set_parse(cases[i].b);
        struct bb_pattern_set *set = NULL;
        bool is_disjoint = strcmp(cases[i].shared, NOTHING) == 0;
        cr_assert_eq(bb_pattern_set_intersection(a, b, &set), 0);
        assert_set(set, cases[i].shared, cases[i].a);
        cr_assert_eq(bb_pattern_set_intersection(b, a, &set), 0);
        assert_set(set, cases[i].shared, cases[i].b);
        cr_assert_eq(bb_pattern_set_is_disjoint(a, b), is_disjoint, "{%s} {%s}", cases[i].a, cases[i].b);
        cr_assert_eq(bb_pattern_set_is_disjoint(b, a), is_disjoint, "{%s} {%s}", cases[i].b, cases[i].a);
        bb_pattern_set_free(a);
        bb_pattern_set_free(b);
    }
}

Test(pattern_set, what_is_no_pattern_makes_no_set)
{
    const struct bb_slice patterns[] = {bb_slice_str("a"), bb_slice_str("a/*/b")};
    struct bb_pattern_set *set = NULL;
    cr_assert_eq(bb_pattern_set_new(patterns, 2, &set), BB_EPATTERN);
    cr_assert_null(set);
    cr_assert_eq(bb_pattern_set_new(patterns, 1, &set), 0);
    bb_pattern_set_free(set);
    bb_pattern_set_free(NULL);
}

Test(pattern_set, patterns_are_copied)
{
    char text[] = "a/b";
    const struct bb_slice pattern = bb_slice_str(text);
    struct bb_pattern_set *set = NULL;
    cr_assert_eq(bb_pattern_set_new(&pattern, 1, &set), 0);
    memcpy(text, "xyz", 3);
    assert_set(set, "a/b", "copied");
}

/* "?/aaa..." and "bbb.../?" with @n_a and @n_b letters share one path, or pattern, of both texts. */
static int long_intersection(size_t n_a, size_t n_b, bool *ret_is_disjoint)
{
    uint8_t text_a[BB_PATH_MAX];
    uint8_t text_b[BB_PATH_MAX];
    const struct bb_slice a = bb_slice(text_a, n_a + 4);
    const struct bb_slice b = bb_slice(text_b, n_b + 4);
    struct bb_pattern_set *set_a = NULL;
    struct bb_pattern_set *set_b = NULL;
    struct bb_pattern_set *shared = NULL;
    memset(text_a, 'a', sizeof(text_a));
    memset(text_b, 'b', sizeof(text_b));
    memcpy(text_a, "?/", 2);
    memcpy(text_a + 2 + n_a, "/?", 2);
    memcpy(text_b + n_b, "/?/?", 4);
    cr_assert_eq(bb_pattern_set_new(&a, 1, &set_a), 0);
    cr_assert_eq(bb_pattern_set_new(&b, 1, &set_b), 0);
    int r = bb_pattern_set_intersection(set_a, set_b, &shared);
    *ret_is_disjoint = bb_pattern_set_is_disjoint(set_a, set_b);
    if (r == 0) {
        cr_assert_eq(bb_pattern_set_count(shared), *ret_is_disjoint ? 0 : 1);
    }
    bb_pattern_set_free(set_a);
    bb_pattern_set_free(set_b);
    bb_pattern_set_free(shared);
    return r;
}

Test(pattern_set, an_intersection_longer_than_a_pattern_is_nothing_or_an_error)
{
    bool is_disjoint;
    cr_assert_eq(long_intersection(100, 97, &is_disjoint), 0);
    cr_assert_not(is_disjoint);
    /* 201 bytes as a pattern, but 200 as the path in which `?` is empty */
    cr_assert_eq(long_intersection(100, 98, &is_disjoint), BB_ELIMIT);
    cr_assert_not(is_disjoint);
    cr_assert_eq(long_intersection(100, 99, &is_disjoint), 0);
    cr_assert(is_disjoint);
    cr_assert_eq(long_intersection(196, 196, &is_disjoint), 0);
    cr_assert(is_disjoint);
}

/* @n patterns like "?/17" or, the other way round, "17/?". */
static struct bb_pattern_set *numbered_set(bool any_first, size_t n)
{
    struct bb_slice *patterns = calloc(n, sizeof(*patterns));
    char(*texts)[32] = calloc(n, sizeof(*texts));
    struct bb_pattern_set *set = NULL;
    cr_assert_not_null(patterns);
    cr_assert_not_null(texts);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(texts[i], sizeof(texts[i]), any_first ? "?/%zu" : "%zu/?", i);
        patterns[i] = bb_slice_str(texts[i]);
    }
    int r = bb_pattern_set_new(patterns, n, &set);
    free(patterns);
    free(texts);
    cr_assert_eq(r, n > BB_PATTERN_SET_MAX ? BB_ELIMIT : 0);
    return set;
}

Test(pattern_set, sizes_are_limited)
{
    struct bb_pattern_set *first = numbered_set(true, 300);
    struct bb_pattern_set *second = numbered_set(false, 300);
    struct bb_pattern_set *small = numbered_set(false, 200);
    struct bb_pattern_set *set = NULL;
    cr_assert_null(numbered_set(true, BB_PATTERN_SET_MAX + 1));
    cr_assert_eq(bb_pattern_set_intersection(first, second, &set), BB_ELIMIT);
    cr_assert_null(set);
    cr_assert_eq(bb_pattern_set_intersection(first, small, &set), 0);
    cr_assert_eq(bb_pattern_set_count(set), 300 * 200);
    bb_pattern_set_free(set);
    struct bb_pattern_set *large = numbered_set(true, 60000);
    struct bb_pattern_set *other = numbered_set(false, 60000);
    set = NULL;
    cr_assert_eq(bb_pattern_set_union(large, other, &set), BB_ELIMIT);
    cr_assert_null(set);
    bb_pattern_set_free(large);
    bb_pattern_set_free(other);
    bb_pattern_set_free(first);
    bb_pattern_set_free(second);
    bb_pattern_set_free(small);
}

/* HAT-W7: each of 100 patterns keeps `?` and text side by side on one more level. */
static struct bb_pattern_set *branching_set(char last)
{
    uint8_t texts[99][199];
    struct bb_slice patterns[99];
    struct bb_pattern_set *set = NULL;
    for (size_t i = 0; i < BB_COUNT(patterns); i++) {
        for (size_t j = 0; j < sizeof(texts[i]); j++) {
            texts[i][j] = j % 2 != 0 ? '/' : (j / 2 <= i ? '?' : 'a');
        }
        texts[i][sizeof(texts[i]) - 1] = (uint8_t)last;
        patterns[i] = bb_slice(texts[i], sizeof(texts[i]));
    }
    cr_assert_eq(bb_pattern_set_new(patterns, BB_COUNT(patterns), &set), 0);
    return set;
}

Test(pattern_set, many_branches_are_not_exponential)
{
    struct bb_pattern_set *x = branching_set('x');
    struct bb_pattern_set *y = branching_set('y');
    struct bb_pattern_set *shared = NULL;
    uint8_t path[199];
    for (size_t i = 0; i < sizeof(path); i++) {
        path[i] = i % 2 != 0 ? '/' : 'a';
    }
    cr_assert_eq(bb_pattern_set_count(x), 99);
    for (int i = 0; i < 100; i++) {
        cr_assert_not(bb_pattern_set_matches(x, bb_slice(path, sizeof(path))));
    }
    path[sizeof(path) - 1] = 'x';
    cr_assert(bb_pattern_set_matches(x, bb_slice(path, sizeof(path))));
    cr_assert(bb_pattern_set_is_disjoint(x, y));
    cr_assert_eq(bb_pattern_set_intersection(x, x, &shared), 0);
    cr_assert_geq(bb_pattern_set_count(shared), 99);
    bb_pattern_set_free(x);
    bb_pattern_set_free(y);
    bb_pattern_set_free(shared);
}

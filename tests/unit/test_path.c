/* SPDX-License-Identifier: Apache-2.0 */
/* Paths, patterns and matching: HAT-F02, HAT-F03 and the matcher table HAT-T01. */
#include "proto/base/error.h"
#include "proto/wire/path.h"

#include <criterion/criterion.h>

static struct bb_slice filled(uint8_t *text, char c, size_t len)
{
    memset(text, c, len);
    return bb_slice(text, len);
}

Test(path, valid_paths_are_valid_patterns_too)
{
    static const char *const paths[] = {
        "",
        "a",
        "a/b",
        "/",
        "//",
        "a/",
        "/a",
        "a//b",
        "plant/line1/temp",
        "plant/line 1/\ttemp",
        "+",
        "a/#",
        "a+b",
        "\xc3\xa4/\xe2\x82\xac/\xf0\x9f\x98\x80",
        "plant/l\xc3\xadnea/temperatura",
        "\x01\x7f",
        "a.b>c|$^",
    };
    for (size_t i = 0; i < BB_COUNT(paths); i++) {
        cr_assert_eq(bb_path_check(bb_slice_str(paths[i])), 0, "%s", paths[i]);
        cr_assert_eq(bb_pattern_check(bb_slice_str(paths[i])), 0, "%s", paths[i]);
    }
    cr_assert_eq(bb_path_check(bb_slice(NULL, 0)), 0);
    cr_assert_eq(bb_pattern_check(bb_slice(NULL, 0)), 0);
}

Test(path, one_wrong_byte_anywhere_is_found)
{
    static const uint8_t wrong[] = {'?', '*', 0, 0x80, 0xff, 0xc3};
    for (size_t len = 1; len <= 40; len++) {
        for (size_t at = 0; at < len; at++) {
            for (size_t w = 0; w < BB_COUNT(wrong); w++) {
                uint8_t text[40];
                struct bb_slice path = filled(text, 'x', len);
                cr_assert_eq(bb_path_check(path), 0);
                text[at] = wrong[w];
                cr_assert_eq(bb_path_check(path), BB_EPATH, "byte %02x at %zu of %zu", wrong[w], at, len);
            }
        }
    }
}

Test(path, each_ascii_byte_is_judged)
{
    for (unsigned byte = 0; byte < 128; byte++) {
        uint8_t text[9];
        struct bb_slice path = filled(text, 'x', sizeof(text));
        text[3] = (uint8_t)byte;
        int expected = byte == 0 || byte == '?' || byte == '*' ? BB_EPATH : 0;
        cr_assert_eq(bb_path_check(path), expected, "byte %u", byte);
    }
}

Test(path, two_hundred_bytes_are_the_limit)
{
    uint8_t text[BB_PATH_MAX + 1];
    struct bb_slice longest = filled(text, '/', BB_PATH_MAX);
    struct bb_slice longer = filled(text, '/', BB_PATH_MAX + 1);
    cr_assert_eq(bb_path_check(longest), 0);
    cr_assert_eq(bb_pattern_check(longest), 0);
    cr_assert_eq(bb_path_check(longer), BB_EPATH);
    cr_assert_eq(bb_pattern_check(longer), BB_EPATTERN);
}

Test(path, wildcards_are_whole_segments_and_the_star_is_last)
{
    static const char *const valid[] = {"?",     "*",   "?/?", "?/*", "a/?", "?/a",
                                        "a/?/b", "a/*", "/?",  "?/",  "/*"};
    static const char *const invalid[] = {
        "a*", "*a", "**",   "*/",   "*/a", "a/*/b", "*/*",    "a?",
        "?a", "??", "a/?b", "a?/b", "?*",  "a/b*",  "a/\xff",
    };
    for (size_t i = 0; i < BB_COUNT(valid); i++) {
        cr_assert_eq(bb_pattern_check(bb_slice_str(valid[i])), 0, "%s", valid[i]);
        cr_assert_eq(bb_path_check(bb_slice_str(valid[i])), BB_EPATH, "%s", valid[i]);
    }
    for (size_t i = 0; i < BB_COUNT(invalid); i++) {
        cr_assert_eq(bb_pattern_check(bb_slice_str(invalid[i])), BB_EPATTERN, "%s", invalid[i]);
    }
    cr_assert_eq(bb_pattern_check(bb_slice("a\0", 2)), BB_EPATTERN);
}

/* HAT-T01, with what follows from HAT-F03 beyond it. */
Test(path, the_matcher_table)
{
    static const struct {
        const char *path;
        const char *pattern;
        bool matches;
    } rows[] = {
        {"", "", true},          {"", "*", true},        {"", "?", false},        {"", "a", false},
        {"", "?/*", false},      {"a", "", false},       {"a", "a", true},        {"a", "b", false},
        {"a", "a/*", true},      {"a", "a/?", false},    {"a", "?", true},        {"a", "?/*", true},
        {"a", "?/?", false},     {"a", "a/b", false},    {"a", "*", true},        {"a/b", "a/b", true},
        {"a/b", "a", false},     {"a/b", "", false},     {"a/b", "a/?", true},    {"a/b", "?/b", true},
        {"a/b", "?/?", true},    {"a/b", "a/*", true},   {"a/b", "?/*", true},    {"a/b", "?/b/*", true},
        {"a/b", "?/b/?", false}, {"a/b", "*", true},     {"a/b", "b/a", false},   {"a/b", "a/b/c", false},
        {"a/b", "?", false},     {"a/b", "a/b/*", true}, {"a/b", "?/?/*", true},  {"a/b", "?/?/?", false},
        {"a/b", "b/*", false},   {"a/b", "a/a", false},  {"a/b/c", "a/*", true},  {"a/b/c", "a/?/c", true},
        {"a/b/c", "a/?", false}, {"a/b/c", "?/*", true}, {"a/", "a/?", true},     {"a/", "a/", true},
        {"a/", "a", false},      {"a", "a/", false},     {"a/", "a/*", true},     {"/", "?/?", true},
        {"/", "/", true},        {"/", "/*", true},      {"/", "?", false},       {"", "/*", false},
        {"/a", "?/a", true},     {"//", "/?/", true},    {"ab", "a", false},      {"a", "ab", false},
        {"ab/c", "a/?", false},  {"ab", "a/*", false},   {"a//b", "a/?/b", true}, {"a//b", "a/b", false},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        cr_assert_eq(bb_pattern_matches(bb_slice_str(rows[i].pattern), bb_slice_str(rows[i].path)),
                     rows[i].matches, "pattern \"%s\", path \"%s\"", rows[i].pattern, rows[i].path);
    }
}

Test(path, an_invalid_pattern_matches_no_path)
{
    static const char *const patterns[] = {"*/b", "a/*/c", "a*", "*b", "a?", "?b", "**", "a/b*", "*/*"};
    static const char *const paths[] = {"", "a", "b", "a/b", "a/b/c", "ab", "a/", "/b"};
    uint8_t text[BB_PATH_MAX + 2];
    for (size_t i = 0; i < BB_COUNT(patterns); i++) {
        for (size_t j = 0; j < BB_COUNT(paths); j++) {
            cr_assert_not(bb_pattern_matches(bb_slice_str(patterns[i]), bb_slice_str(paths[j])));
        }
    }
    struct bb_slice too_long = filled(text, 'x', sizeof(text));
    memcpy(text + BB_PATH_MAX, "/*", 2);
    cr_assert_not(bb_pattern_matches(too_long, bb_slice(text, BB_PATH_MAX)));
}

Test(path, segments_are_walked_by_offset)
{
    static const struct {
        const char *path;
        size_t n_segments;
        const char *segments[4];
    } cases[] = {
        {"", 0, {0}},           {"a", 1, {"a"}},
        {"a/", 2, {"a", ""}},   {"/", 2, {"", ""}},
        {"/a", 2, {"", "a"}},   {"//", 3, {"", "", ""}},
        {"a/b", 2, {"a", "b"}}, {"abc//?/*", 4, {"abc", "", "?", "*"}},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        struct bb_slice path = bb_slice_str(cases[i].path);
        size_t n = 0;
        for (size_t at = 0; bb_path_has_segment(path, at); n++) {
            struct bb_slice segment = bb_path_segment(path, at);
            cr_assert_lt(n, cases[i].n_segments);
            cr_assert(bb_slice_equal(segment, bb_slice_str(cases[i].segments[n])));
            at += segment.len + 1;
        }
        cr_assert_eq(n, cases[i].n_segments, "%s", cases[i].path);
    }
}

Test(path, the_first_segment_names_the_channel)
{
    cr_assert(bb_slice_equal(bb_path_channel(bb_slice_str("plant/line1")), bb_slice_str("plant")));
    cr_assert(bb_slice_equal(bb_path_channel(bb_slice_str("plant")), bb_slice_str("plant")));
    cr_assert(bb_slice_equal(bb_path_channel(bb_slice_str("plant/")), bb_slice_str("plant")));
    cr_assert_eq(bb_path_channel(bb_slice_str("/line1")).len, 0);
    cr_assert_eq(bb_path_channel(bb_slice_str("")).len, 0);
    cr_assert_eq(bb_path_channel(bb_slice(NULL, 0)).len, 0);
}

Test(path, mqtt_spellings_are_translated)
{
    static const struct {
        const char *text;
        const char *pattern;
    } cases[] = {
        {"", ""},         {"+", "?"},     {"#", "*"},         {"a/+/b", "a/?/b"},
        {"a/#", "a/*"},   {"+/#", "?/*"}, {"+/+", "?/?"},     {"a+", "a+"},
        {"a/b#", "a/b#"}, {"?/*", "?/*"}, {"+/?/*", "?/?/*"}, {"a//+", "a//?"},
        {"/", "/"},       {"a/", "a/"},   {"++", "++"},       {"/#", "/*"},
    };
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        char pattern[BB_PATH_MAX];
        size_t len = strlen(cases[i].text);
        cr_assert_eq(bb_pattern_translate(bb_slice_str(cases[i].text), pattern), 0, "%s", cases[i].text);
        cr_assert(bb_slice_equal(bb_slice(pattern, len), bb_slice_str(cases[i].pattern)), "%s: %.*s",
                  cases[i].text, (int)len, pattern);
    }
}

Test(path, what_is_no_pattern_is_not_translated)
{
    static const char *const cases[] = {"a*", "#/a", "a/#/b", "*/#", "?+", "*/+", "\xff"};
    uint8_t text[BB_PATH_MAX + 1];
    char pattern[BB_PATH_MAX] = "before";
    for (size_t i = 0; i < BB_COUNT(cases); i++) {
        cr_assert_eq(bb_pattern_translate(bb_slice_str(cases[i]), pattern), BB_EPATTERN, "%s", cases[i]);
    }
    cr_assert_eq(bb_pattern_translate(filled(text, 'x', sizeof(text)), pattern), BB_EPATTERN);
    cr_assert_str_eq(pattern, "before");
}

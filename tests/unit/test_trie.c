/* SPDX-License-Identifier: Apache-2.0 */
/* The pattern trie: matching, order, removal, memory given back (HAT-F18, HAT-W7). */
#include "proto/base/error.h"
#include "proto/wire/path.h"
#include "proto/wire/trie.h"

#include <criterion/criterion.h>
#include <stdio.h>

struct item {
    struct bb_trie_entry entry;
    const char *name;
};

static int note_name(void *context, struct bb_trie_entry *entry)
{
    const struct item *item = BB_CONTAINER(entry, struct item, entry);
    bb_buf_printf(context, "%s ", item->name);
    return 0;
}

static int count_one(void *context, struct bb_trie_entry *entry)
{
    (void)entry;
    (*(size_t *)context)++;
    return 0;
}

static int stop_at_zero(void *context, struct bb_trie_entry *entry)
{
    (void)entry;
    return --*(size_t *)context == 0 ? 42 : 0;
}

static void assert_match(const struct bb_trie *trie, const char *path, const char *names)
{
    struct bb_buf buf = BB_BUF_INIT;
    cr_assert_eq(bb_trie_match(trie, bb_slice_str(path), note_name, &buf), 0);
    cr_assert_str_eq(bb_buf_string(&buf), names, "path \"%s\": %s", path, bb_buf_string(&buf));
    bb_buf_fini(&buf);
}

static struct bb_trie *trie_new(void)
{
    struct bb_trie *trie = NULL;
    cr_assert_eq(bb_trie_new(1, &trie), 0);
    return trie;
}

static void add(struct bb_trie *trie, struct item *item, const char *pattern)
{
    if (item->name == NULL) {
        item->name = pattern;
    }
    cr_assert_eq(bb_trie_add(trie, &item->entry, bb_slice_str(pattern)), 0, "%s", pattern);
}

Test(trie, the_first_segment_of_a_pattern_is_known)
{
    static const struct {
        const char *pattern;
        const char *first; /* NULL: any */
    } rows[] = {{"", ""},   {"*", NULL},  {"?", NULL},    {"?/a", NULL}, {"?/*", NULL},
                {"a", "a"}, {"a/*", "a"}, {"a/?/b", "a"}, {"/a", ""},    {"/*", ""}};
    struct item items[BB_COUNT(rows)] = {0};
    struct bb_trie *trie = trie_new();
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        add(trie, &items[i], rows[i].pattern);
    }
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        struct bb_slice first = {0};
        bool is_one = bb_trie_first(&items[i].entry, &first);
        cr_assert_eq(is_one, rows[i].first != NULL, "%s", rows[i].pattern);
        cr_assert(!is_one || bb_slice_equal(first, bb_slice_str(rows[i].first)), "%s", rows[i].pattern);
        bb_trie_remove(trie, &items[i].entry);
    }
    bb_trie_free(trie);
}

Test(trie, an_empty_trie_matches_nothing)
{
    struct bb_trie *trie = trie_new();
    assert_match(trie, "", "");
    assert_match(trie, "a/b", "");
    cr_assert_eq(bb_trie_count(trie), 0);
    bb_trie_free(trie);
    bb_trie_free(NULL);
}

Test(trie, every_matching_pattern_is_reported_once_in_a_fixed_order)
{
    static const char *const patterns[] = {"?/b", "a/b", "a", "*",     "a/?",  "?/*",
                                           "?/?", "a/*", "b", "a/b/*", "a/b/?"};
    struct item items[BB_COUNT(patterns)] = {0};
    for (int reverse = 0; reverse < 2; reverse++) {
        struct bb_trie *trie = NULL;
        cr_assert_eq(bb_trie_new((uint64_t)reverse + 77, &trie), 0);
        for (size_t i = 0; i < BB_COUNT(patterns); i++) {
            size_t at = reverse != 0 ? BB_COUNT(patterns) - 1 - i : i;
            add(trie, &items[at], patterns[at]);
        }
        assert_match(trie, "", "* ");
        assert_match(trie, "a", "* a/* a ?/* ");
        assert_match(trie, "b", "* b ?/* ");
        assert_match(trie, "a/b", "* a/* a/b/* a/b a/? ?/* ?/b ?/? ");
        assert_match(trie, "a/b/c", "* a/* a/b/* a/b/? ?/* ");
        assert_match(trie, "x/y", "* ?/* ?/? ");
        for (size_t i = 0; i < BB_COUNT(patterns); i++) {
            bb_trie_remove(trie, &items[i].entry);
        }
        bb_trie_free(trie);
    }
}

Test(trie, empty_segments_are_segments)
{
    static const char *const patterns[] = {"", "/", "a/", "?/?", "/*", "a/?"};
    struct item items[BB_COUNT(patterns)] = {0};
    struct bb_trie *trie = trie_new();
    for (size_t i = 0; i < BB_COUNT(patterns); i++) {
        add(trie, &items[i], patterns[i]);
    }
    items[0].name = "empty";
    assert_match(trie, "", "empty ");
    assert_match(trie, "/", "/* / ?/? ");
    assert_match(trie, "a/", "a/ a/? ?/? ");
    assert_match(trie, "a", "");
    assert_match(trie, "//", "/* ");
    bb_trie_free(trie);
}

Test(trie, entries_of_one_pattern_come_in_order_of_addition)
{
    struct item items[] = {{.name = "1"}, {.name = "2"}, {.name = "3"}, {.name = "4"}};
    struct bb_trie *trie = trie_new();
    for (size_t i = 0; i < BB_COUNT(items); i++) {
        add(trie, &items[i], "a/*");
    }
    assert_match(trie, "a", "1 2 3 4 ");
    bb_trie_remove(trie, &items[1].entry);
    assert_match(trie, "a", "1 3 4 ");
    bb_trie_remove(trie, &items[3].entry);
    assert_match(trie, "a", "1 3 ");
    add(trie, &items[1], "a/*");
    bb_trie_remove(trie, &items[0].entry);
    assert_match(trie, "a", "3 2 ");
    bb_trie_remove(trie, &items[2].entry);
    bb_trie_remove(trie, &items[1].entry);
    assert_match(trie, "a", "");
    cr_assert_eq(bb_trie_count(trie), 0);
    bb_trie_free(trie);
}

Test(trie, a_return_other_than_zero_ends_the_match)
{
    struct item items[3] = {0};
    struct bb_trie *trie = trie_new();
    add(trie, &items[0], "a");
    add(trie, &items[1], "?");
    add(trie, &items[2], "*");
    for (size_t n_wanted = 1; n_wanted <= BB_COUNT(items); n_wanted++) {
        size_t n_left = n_wanted;
        cr_assert_eq(bb_trie_match(trie, bb_slice_str("a"), stop_at_zero, &n_left), 42);
        cr_assert_eq(n_left, 0);
    }
    bb_trie_free(trie);
}

Test(trie, what_is_no_pattern_is_refused_and_leaves_no_trace)
{
    struct bb_trie *trie = trie_new();
    struct item item = {.name = "x"};
    size_t bytes = bb_trie_bytes(trie);
    cr_assert_eq(bb_trie_add(trie, &item.entry, bb_slice_str("a/b/c*")), BB_EPATTERN);
    cr_assert_eq(bb_trie_add(trie, &item.entry, bb_slice_str("a/*/c")), BB_EPATTERN);
    cr_assert_eq(bb_trie_bytes(trie), bytes);
    add(trie, &item, "a");
    cr_assert_eq(bb_trie_add(trie, &item.entry, bb_slice_str("b")), BB_EINVAL);
    cr_assert_eq(bb_trie_count(trie), 1);
    bb_trie_free(trie);
}

Test(trie, a_path_too_long_is_an_error)
{
    uint8_t text[BB_PATH_MAX + 1];
    struct bb_trie *trie = trie_new();
    struct item item = {0};
    size_t n = 0;
    memset(text, '/', sizeof(text));
    add(trie, &item, "*");
    cr_assert_eq(bb_trie_match(trie, bb_slice(text, BB_PATH_MAX), count_one, &n), 0);
    cr_assert_eq(n, 1);
    cr_assert_eq(bb_trie_match(trie, bb_slice(text, BB_PATH_MAX + 1), count_one, &n), BB_EPATH);
    bb_trie_free(trie);
}

Test(trie, removing_what_is_not_there_changes_nothing)
{
    struct bb_trie *trie = trie_new();
    struct item item = {0};
    bb_trie_remove(trie, &item.entry);
    add(trie, &item, "a");
    bb_trie_remove(trie, &item.entry);
    bb_trie_remove(trie, &item.entry);
    cr_assert_eq(bb_trie_count(trie), 0);
    bb_trie_free(trie);
}

Test(trie, removal_gives_all_nodes_back)
{
    static const char *const patterns[] = {"a/b/c/d",     "a/b", "a/?/c/*", "?/?/?/?",
                                           "a/?/c/d/e/f", "",    "*",       "////"};
    struct item items[BB_COUNT(patterns)] = {0};
    struct bb_trie *trie = trie_new();
    size_t bytes = bb_trie_bytes(trie);
    for (size_t first = 0; first < BB_COUNT(patterns); first++) {
        for (size_t i = 0; i < BB_COUNT(patterns); i++) {
            add(trie, &items[i], patterns[i]);
        }
        cr_assert_gt(bb_trie_bytes(trie), bytes);
        for (size_t i = 0; i < BB_COUNT(patterns); i++) {
            bb_trie_remove(trie, &items[(first + i * 3) % BB_COUNT(patterns)].entry);
        }
        cr_assert_eq(bb_trie_count(trie), 0);
        cr_assert_eq(bb_trie_bytes(trie), bytes);
    }
    bb_trie_free(trie);
}

Test(trie, two_hundred_thousand_patterns_come_and_go)
{
    enum {
        N = 200000
    };
    struct item *items = calloc(N, sizeof(*items));
    struct bb_trie *trie = trie_new();
    cr_assert_not_null(items);
    for (int i = 0; i < N; i++) {
        char pattern[64];
        int len = snprintf(pattern, sizeof(pattern), "plant/line%d/sensor%d/temperature", i / 200, i % 200);
        cr_assert_eq(bb_trie_add(trie, &items[i].entry, bb_slice(pattern, (size_t)len)), 0);
    }
    cr_assert_lt(bb_trie_bytes(trie) / N, 200);
    for (int i = 0; i < N; i += 777) {
        char path[64];
        size_t n = 0;
        int len = snprintf(path, sizeof(path), "plant/line%d/sensor%d/temperature", i / 200, i % 200);
        cr_assert_eq(bb_trie_match(trie, bb_slice(path, (size_t)len), count_one, &n), 0);
        cr_assert_eq(n, 1);
    }
    for (int i = 0; i < N; i++) {
        bb_trie_remove(trie, &items[(i * 7919LL) % N].entry);
    }
    cr_assert_eq(bb_trie_count(trie), 0);
    bb_trie_free(trie);
    free(items);
}

/* Would take minutes if removal looked through the other entries of the node. */
Test(trie, two_hundred_thousand_entries_of_one_pattern_come_and_go)
{
    enum {
        N = 200000
    };
    struct item *items = calloc(N, sizeof(*items));
    struct bb_trie *trie = trie_new();
    size_t n = 0;
    cr_assert_not_null(items);
    for (int i = 0; i < N; i++) {
        cr_assert_eq(bb_trie_add(trie, &items[i].entry, bb_slice_str("plant/*")), 0);
    }
    cr_assert_eq(bb_trie_match(trie, bb_slice_str("plant/line1"), count_one, &n), 0);
    cr_assert_eq(n, N);
    for (int i = 0; i < N; i++) {
        bb_trie_remove(trie, &items[(i * 7919LL) % N].entry);
    }
    cr_assert_eq(bb_trie_count(trie), 0);
    bb_trie_free(trie);
    free(items);
}

/* HAT-W7: a walk that tries both ways on each level without sharing would need 2^100 steps here. */
Test(trie, many_branches_are_not_exponential)
{
    struct item items[100] = {0};
    struct bb_trie *trie = trie_new();
    uint8_t path[BB_PATH_MAX];
    size_t n = 0;
    for (size_t i = 0; i < sizeof(path); i++) {
        path[i] = i % 2 == 0 ? 'a' : '/';
    }
    struct bb_slice whole = bb_slice(path, sizeof(path) - 1);
    for (size_t i = 0; i < BB_COUNT(items); i++) {
        uint8_t pattern[BB_PATH_MAX];
        memcpy(pattern, path, sizeof(pattern));
        for (size_t j = 0; j <= i; j++) {
            pattern[j * 2] = '?';
        }
        cr_assert_eq(bb_trie_add(trie, &items[i].entry, bb_slice(pattern, whole.len)), 0);
    }
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(bb_trie_match(trie, whole, count_one, &n), 0);
    }
    cr_assert_eq(n, 1000 * BB_COUNT(items));
    bb_trie_free(trie);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The hash and the hash map. */
#include "proto/base/error.h"
#include "proto/base/hash.h"
#include "proto/base/map.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define N_KEYS 5000

struct item {
    char key[24];
    bool is_in;
};

static struct bb_slice item_key(const struct item *item)
{
    return bb_slice_str(item->key);
}

static struct item *items_new(void)
{
    struct item *items = calloc(N_KEYS, sizeof(*items));
    cr_assert_not_null(items);
    for (int i = 0; i < N_KEYS; i++) {
        (void)snprintf(items[i].key, sizeof(items[i].key), "plant/line/%d", i);
    }
    return items;
}

Test(map, an_empty_map_has_nothing)
{
    struct bb_map map;
    size_t at = 0;
    bb_map_init(&map, 1, 10);
    cr_assert_null(bb_map_find(&map, bb_slice_str("a")));
    cr_assert_null(bb_map_remove(&map, bb_slice_str("a")));
    cr_assert_null(bb_map_next(&map, &at, NULL));
    cr_assert_eq(bb_map_count(&map), 0);
    bb_map_fini(&map);
    bb_map_fini(&map);
}

Test(map, keys_are_compared_as_bytes_and_length)
{
    struct bb_map map;
    int values[4];
    bb_map_init(&map, 1, 10);
    cr_assert_eq(bb_map_add(&map, bb_slice(NULL, 0), &values[0]), 0);
    cr_assert_eq(bb_map_add(&map, bb_slice("a", 1), &values[1]), 0);
    cr_assert_eq(bb_map_add(&map, bb_slice("a\0", 2), &values[2]), 0);
    cr_assert_eq(bb_map_add(&map, bb_slice("a\0b", 3), &values[3]), 0);
    cr_assert_eq(bb_map_find(&map, bb_slice("", 0)), &values[0]);
    cr_assert_eq(bb_map_find(&map, bb_slice("ab", 1)), &values[1]);
    cr_assert_eq(bb_map_find(&map, bb_slice("a\0c", 2)), &values[2]);
    cr_assert_eq(bb_map_find(&map, bb_slice("a\0b", 3)), &values[3]);
    cr_assert_null(bb_map_find(&map, bb_slice("b", 1)));
    bb_map_fini(&map);
}

Test(map, what_is_there_stays)
{
    struct bb_map map;
    int values[2];
    bb_map_init(&map, 1, 10);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("a"), &values[0]), 0);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("a"), &values[1]), BB_EEXISTS);
    cr_assert_eq(bb_map_find(&map, bb_slice_str("a")), &values[0]);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("b"), NULL), BB_EINVAL);
    cr_assert_eq(bb_map_count(&map), 1);
    bb_map_fini(&map);
}

Test(map, the_limit_holds_until_something_leaves)
{
    struct bb_map map;
    int value;
    bb_map_init(&map, 1, 2);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("a"), &value), 0);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("b"), &value), 0);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("c"), &value), BB_ELIMIT);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("a"), &value), BB_EEXISTS);
    cr_assert_eq(bb_map_remove(&map, bb_slice_str("a")), &value);
    cr_assert_eq(bb_map_add(&map, bb_slice_str("c"), &value), 0);
    bb_map_fini(&map);
}

Test(map, thousands_of_adds_and_removes_keep_it_right)
{
    struct item *items = items_new();
    struct bb_map map;
    uint64_t random = 12345;
    size_t n_in = 0;
    bb_map_init(&map, 99, N_KEYS);
    for (int step = 0; step < 100000; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        struct item *item = &items[(random >> 33) % N_KEYS];
        if (item->is_in) {
            cr_assert_eq(bb_map_remove(&map, item_key(item)), item);
        } else {
            cr_assert_eq(bb_map_add(&map, item_key(item), item), 0);
        }
        item->is_in = !item->is_in;
        n_in += item->is_in ? 1 : (size_t)-1;
        cr_assert_eq(bb_map_count(&map), n_in);
    }
    for (int i = 0; i < N_KEYS; i++) {
        cr_assert_eq(bb_map_find(&map, item_key(&items[i])), items[i].is_in ? &items[i] : NULL);
    }
    bb_map_fini(&map);
    free(items);
}

Test(map, iteration_visits_each_entry_once_in_an_order_of_its_own)
{
    struct item *items = items_new();
    struct bb_map maps[2];
    size_t n_seen = 0;
    size_t at[2] = {0};
    struct item *item;
    struct bb_slice key;
    for (int m = 0; m < 2; m++) {
        bb_map_init(&maps[m], 7, N_KEYS);
        for (int i = 0; i < N_KEYS; i++) {
            cr_assert_eq(bb_map_add(&maps[m], item_key(&items[i]), &items[i]), 0);
        }
    }
    while ((item = bb_map_next(&maps[0], &at[0], &key)) != NULL) {
        cr_assert(!item->is_in);
        cr_assert(bb_slice_equal(key, item_key(item)));
        cr_assert_eq(bb_map_next(&maps[1], &at[1], NULL), item);
        item->is_in = true;
        n_seen++;
    }
    cr_assert_eq(n_seen, N_KEYS);
    bb_map_fini(&maps[0]);
    bb_map_fini(&maps[1]);
    free(items);
}

Test(map, every_byte_and_the_length_and_the_seed_change_the_hash)
{
    uint8_t data[64] = {0};
    for (size_t len = 0; len <= sizeof(data); len++) {
        uint64_t hash = bb_hash(data, len, 1);
        cr_assert_eq(bb_hash(data, len, 1), hash);
        cr_assert_neq(bb_hash(data, len, 2), hash);
        for (size_t other = 0; other < len; other++) {
            cr_assert_neq(bb_hash(data, other, 1), hash);
        }
        for (size_t bit = 0; bit < len * 8; bit++) {
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            cr_assert_neq(bb_hash(data, len, 1), hash, "bit %zu of %zu bytes", bit, len);
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
    }
}

Test(map, one_flipped_bit_changes_half_of_the_hash)
{
    for (size_t len = 1; len <= 40; len++) {
        uint8_t data[40];
        unsigned n_flipped = 0;
        memset(data, 'a', sizeof(data));
        uint64_t hash = bb_hash(data, len, 42);
        for (size_t bit = 0; bit < len * 8; bit++) {
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
            n_flipped += (unsigned)__builtin_popcountll(hash ^ bb_hash(data, len, 42));
            data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
        double mean = (double)n_flipped / (double)(len * 8);
        cr_assert_gt(mean, 26.0, "%zu bytes: %f", len, mean);
        cr_assert_lt(mean, 38.0, "%zu bytes: %f", len, mean);
    }
}

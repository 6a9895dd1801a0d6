/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash map from bytes to pointers: open addressing, grown by doubling up to a limit of entries.
 * Keys are borrowed: usually the value holds them, and they must neither move nor change while in the
 * map. Values are borrowed and never NULL. The seed comes from the caller; equal seeds and equal
 * histories give equal iteration orders, whatever the addresses are. Not thread-safe.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bb_map_slot;

struct bb_map {
    struct bb_map_slot *slots; /* a power of two of them, NULL before the first entry */
    size_t n_slots;
    size_t count;
    size_t max;
    uint64_t seed;
};

/**
 * bb_map_init() - an empty map
 * @seed: key of the hash; random where peers choose the keys
 * @max:  entries it may hold at most
 *
 * Allocates nothing.
 */
void bb_map_init(struct bb_map *map, uint64_t seed, size_t max);

/** bb_map_fini() - free the map, not its values; it is empty and usable again. */
void bb_map_fini(struct bb_map *map);

/**
 * bb_map_add() - enter @value under @key
 * @key:   borrowed until it is removed
 * @value: borrowed, not NULL
 *
 * Return: 0, or BB_EEXISTS (the map keeps what it had), BB_ELIMIT, BB_ENOMEM, BB_EINVAL (NULL value).
 */
int bb_map_add(struct bb_map *map, struct bb_slice key, void *value);

/** bb_map_find() - the value under @key, NULL if there is none. */
void *bb_map_find(const struct bb_map *map, struct bb_slice key);

/** bb_map_remove() - take @key out and return its value, NULL if there was none. Never allocates. */
void *bb_map_remove(struct bb_map *map, struct bb_slice key);

/**
 * bb_map_next() - iterate: start with *@at = 0 and call until NULL
 * @at:      where the iteration is
 * @ret_key: the key of the returned value, may be NULL
 *
 * The map must not change while iterating.
 */
void *bb_map_next(const struct bb_map *map, size_t *at, struct bb_slice *ret_key);

/** bb_map_count() - entries in the map. */
static inline size_t bb_map_count(const struct bb_map *map)
{
    return map->count;
}

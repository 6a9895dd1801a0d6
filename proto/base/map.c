/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear probing in a table that is at most three quarters full. Removal moves the followers of a run
 * back instead of leaving tombstones, so a map that lives long under churn does not slow down.
 */
#include "proto/base/map.h"

#include "proto/base/error.h"
#include "proto/base/hash.h"

#include <stdlib.h>

#define SLOTS_MIN 16

struct bb_map_slot {
    uint64_t hash;
    struct bb_slice key;
    void *value; /* NULL: the slot is free */
};

void bb_map_init(struct bb_map *map, uint64_t seed, size_t max)
{
    *map = (struct bb_map){.seed = seed, .max = max};
}

void bb_map_fini(struct bb_map *map)
{
    free(map->slots);
    bb_map_init(map, map->seed, map->max);
}

/* The slot of @key, or the free one that ends its run. */
static size_t slot_index(const struct bb_map *map, struct bb_slice key, uint64_t hash)
{
    size_t mask = map->n_slots - 1;
    size_t i = (size_t)hash & mask;
    while (map->slots[i].value != NULL) {
        if (map->slots[i].hash == hash && bb_slice_equal(map->slots[i].key, key)) {
            break;
        }
        i = (i + 1) & mask;
    }
    return i;
}

static int map_grow(struct bb_map *map)
{
    struct bb_map grown = *map;
    grown.n_slots = map->n_slots == 0 ? SLOTS_MIN : map->n_slots * 2;
    grown.slots = calloc(grown.n_slots, sizeof(*grown.slots));
    if (grown.slots == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < map->n_slots; i++) {
        const struct bb_map_slot *slot = &map->slots[i];
        if (slot->value != NULL) {
            grown.slots[slot_index(&grown, slot->key, slot->hash)] = *slot;
        }
    }
    free(map->slots);
    *map = grown;
    return 0;
}

int bb_map_add(struct bb_map *map, struct bb_slice key, void *value)
{
    if (value == NULL) {
        return BB_EINVAL;
    }
    uint64_t hash = bb_hash(key.data, key.len, map->seed);
    if (map->n_slots > 0 && map->slots[slot_index(map, key, hash)].value != NULL) {
        return BB_EEXISTS;
    }
    if (map->count >= map->max) {
        return BB_ELIMIT;
    }
    if (map->count >= map->n_slots - map->n_slots / 4) {
        int r = map_grow(map);
        if (r < 0) {
            return r;
        }
    }
    map->slots[slot_index(map, key, hash)] = (struct bb_map_slot){hash, key, value};
    map->count++;
    return 0;
}

void *bb_map_find(const struct bb_map *map, struct bb_slice key)
{
    if (map->count == 0) {
        return NULL;
    }
    return map->slots[slot_index(map, key, bb_hash(key.data, key.len, map->seed))].value;
}

void *bb_map_remove(struct bb_map *map, struct bb_slice key)
{
    if (map->count == 0) {
        return NULL;
    }
    size_t mask = map->n_slots - 1;
    size_t hole = slot_index(map, key, bb_hash(key.data, key.len, map->seed));
    void *value = map->slots[hole].value;
    if (value == NULL) {
        return NULL;
    }
    for (size_t i = (hole + 1) & mask; map->slots[i].value != NULL; i = (i + 1) & mask) {
        /* An entry may move back into the hole only if that is not before its home slot. */
        size_t from_home = (i - (size_t)map->slots[i].hash) & mask;
        if (from_home >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole] = (struct bb_map_slot){0};
    map->count--;
    return value;
}

void *bb_map_next(const struct bb_map *map, size_t *at, struct bb_slice *ret_key)
{
    for (; *at < map->n_slots; (*at)++) {
        const struct bb_map_slot *slot = &map->slots[*at];
        if (slot->value != NULL) {
            (*at)++;
            if (ret_key != NULL) {
                *ret_key = slot->key;
            }
            return slot->value;
        }
    }
    return NULL;
}

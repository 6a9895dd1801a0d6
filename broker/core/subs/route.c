/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/route.h"

#include "proto/base/error.h"
#include "proto/wire/message.h"
#include "proto/wire/path.h"

#include "broker/core/subs/sub.h"

#include <stdlib.h>

/* Paths are forgotten together when there are this many; beyond it there is room for one whole batch. */
#define PATHS_KEPT ((size_t)32 << 10)
#define SETS_MAX   ((size_t)1 << 20)

int bk_route_init(struct bk_route *route, uint64_t seed, struct bk_channels *channels)
{
    *route = (struct bk_route){.channels = channels, .generation = 1};
    bb_map_init(&route->paths, seed, PATHS_KEPT + BB_EVENTS_MAX);
    bb_map_init(&route->sets, seed, SETS_MAX);
    return bb_trie_new(seed, &route->trie);
}

static void set_unref(struct bk_route *route, struct bk_set *set)
{
    if (set != NULL && --set->refs == 0) {
        (void)bb_map_remove(&route->sets, bb_slice(set->subs, set->n_subs * sizeof(struct bk_sub *)));
        free(set);
    }
}

void bk_route_clear(struct bk_route *route)
{
    size_t at = 0;
    struct bk_path *path = NULL;
    while ((path = bb_map_next(&route->paths, &at, NULL)) != NULL) {
        set_unref(route, path->set);
        free(path);
    }
    uint64_t seed = route->paths.seed;
    size_t max = route->paths.max;
    bb_map_fini(&route->paths);
    bb_map_init(&route->paths, seed, max);
}

void bk_route_fini(struct bk_route *route)
{
    bk_route_clear(route);
    bb_map_fini(&route->paths);
    bb_map_fini(&route->sets);
    bb_trie_free(route->trie);
    free(route->found);
    *route = (struct bk_route){0};
}

void bk_route_trim(struct bk_route *route)
{
    if (bb_map_count(&route->paths) > PATHS_KEPT) {
        bk_route_clear(route);
    }
}

int bk_route_add(struct bk_route *route, struct bk_pattern *pattern, struct bb_slice text)
{
    int r = bb_trie_add(route->trie, &pattern->entry, text);
    if (r == 0) {
        route->generation++;
    }
    return r;
}

void bk_route_remove(struct bk_route *route, struct bk_pattern *pattern)
{
    if (pattern->entry.node != NULL) {
        bb_trie_remove(route->trie, &pattern->entry);
        route->generation++;
    }
}

static int found_add(void *context, struct bb_trie_entry *entry)
{
    struct bk_route *route = context;
    if (route->n_found == route->n_slots) {
        size_t n = route->n_slots > 0 ? 2 * route->n_slots : 64;
        struct bk_sub **found = realloc(route->found, n * sizeof(struct bk_sub *));
        if (found == NULL) {
            return BB_ENOMEM;
        }
        route->found = found;
        route->n_slots = n;
    }
    route->found[route->n_found++] = BB_CONTAINER(entry, struct bk_pattern, entry)->sub;
    return 0;
}

static int by_serial(const void *a, const void *b)
{
    uint64_t left = (*(struct bk_sub *const *)a)->serial;
    uint64_t right = (*(struct bk_sub *const *)b)->serial;
    return left < right ? -1 : left > right;
}

static void found_sort(struct bk_route *route)
{
    size_t n = 0;
    bool sorted = true;
    for (size_t i = 1; i < route->n_found && sorted; i++) {
        sorted = route->found[i - 1]->serial <= route->found[i]->serial;
    }
    if (!sorted) {
        qsort(route->found, route->n_found, sizeof(struct bk_sub *), by_serial);
    }
    for (size_t i = 0; i < route->n_found; i++) {
        if (n == 0 || route->found[n - 1] != route->found[i]) {
            route->found[n++] = route->found[i];
        }
    }
    route->n_found = n;
}

/* The one set that holds just what was found; referenced for the caller. */
static int set_of_found(struct bk_route *route, struct bk_set **ret_set)
{
    size_t size = route->n_found * sizeof(struct bk_sub *);
    struct bk_set *set = bb_map_find(&route->sets, bb_slice(route->found, size));
    if (set == NULL) {
        set = calloc(1, sizeof(*set) + size);
        if (set == NULL) {
            return BB_ENOMEM;
        }
        set->n_subs = (uint32_t)route->n_found;
        for (size_t i = 0; i < route->n_found; i++) {
            set->subs[i] = route->found[i];
        }
        int r = bb_map_add(&route->sets, bb_slice(set->subs, size), set);
        if (r < 0) {
            free(set);
            return r;
        }
    }
    set->refs++;
    set->n_refusers = 0; /* a set that was found may stem from earlier subscriptions at the same addresses */
    for (size_t i = 0; i < route->n_found; i++) {
        set->n_refusers += route->found[i]->overflow == BK_OVERFLOW_REFUSE;
    }
    *ret_set = set;
    return 0;
}

static int path_resolve(struct bk_route *route, struct bk_path *path)
{
    struct bk_set *set = NULL;
    route->n_misses++;
    route->n_found = 0;
    int r = bb_trie_match(route->trie, path->path, found_add, route);
    if (r < 0) {
        return r;
    }
    found_sort(route);
    r = set_of_found(route, &set);
    if (r < 0) {
        return r;
    }
    set_unref(route, path->set);
    path->set = set;
    path->generation = route->generation;
    return 0;
}

static int path_new(struct bk_route *route, struct bb_slice text, struct bk_path **ret_path)
{
    struct bk_path *path = calloc(1, sizeof(*path) + text.len);
    if (path == NULL) {
        return BB_ENOMEM;
    }
    uint8_t *copy = (uint8_t *)(path + 1);
    if (text.len > 0) {
        memcpy(copy, text.data, text.len);
    }
    path->path = bb_slice(copy, text.len);
    int r = bb_map_add(&route->paths, path->path, path);
    if (r < 0) {
        free(path);
        return r;
    }
    *ret_path = path;
    return 0;
}

int bk_route_find(struct bk_route *route, struct bb_slice text, struct bk_path **ret_path)
{
    struct bk_path *path = bb_map_find(&route->paths, text);
    if (BB_LIKELY(path != NULL && path->generation == route->generation)) {
        route->n_hits++;
        *ret_path = path;
        return 0;
    }
    if (path == NULL) {
        int r = path_new(route, text, &path);
        if (r < 0) {
            return r;
        }
    }
    int r = path_resolve(route, path);
    if (r < 0) {
        return r;
    }
    *ret_path = path;
    return 0;
}

int bk_route_channel(struct bk_route *route, struct bk_path *path)
{
    return path->channel != NULL
               ? 0
               : bk_channels_get(route->channels, bb_path_channel(path->path), &path->channel);
}

bool bk_set_has(const struct bk_set *set, const struct bk_sub *sub)
{
    size_t low = 0;
    size_t high = set->n_subs;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (set->subs[middle]->serial < sub->serial) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < set->n_subs && set->subs[low] == sub;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Routing: from a path to the set of subscriptions that match it. Each path is resolved once through the trie
 * and remembered until a subscription comes or goes; equal sets are one object, so that what is built for
 * one path serves all that go to the same subscriptions.
 */
#pragma once

#include "proto/base/map.h"
#include "proto/wire/trie.h"

#include "broker/core/keep/channel.h"

#include <stdbool.h>
#include <stdint.h>

struct bk_sub;

/* A pattern of a subscription, in the trie. */
struct bk_pattern {
    struct bb_trie_entry entry;
    struct bk_sub *sub;
};

/* Subscriptions in the order of their serials, each once. */
struct bk_set {
    uint32_t refs;
    uint32_t n_subs;
    uint32_t n_refusers; /* subscriptions whose policy refuses publishers */
    uint64_t round;      /* the fan-out round it was last met in, */
    uint64_t round_key;  /* its key there, */
    size_t round_first;  /* and its first and last item */
    size_t round_last;
    struct bk_sub *subs[];
};

/* A path that was looked up. Valid until bk_route_clear(). */
struct bk_path {
    struct bb_slice path;       /* points behind the struct */
    struct bk_channel *channel; /* NULL until bk_route_channel() */
    struct bk_set *set;
    uint64_t generation;
};

struct bk_route {
    struct bb_trie *trie;
    struct bb_map paths;
    struct bb_map sets; /* by the pointers they hold */
    struct bk_channels *channels;
    struct bk_sub **found; /* scratch of a match */
    size_t n_found;
    size_t n_slots;
    uint64_t generation;
    uint64_t n_hits;
    uint64_t n_misses;
};

int bk_route_init(struct bk_route *route, uint64_t seed, struct bk_channels *channels);
void bk_route_fini(struct bk_route *route);

/** bk_route_add() - let @pattern's subscription have what @text matches. Return: 0, BB_EPATTERN, BB_ENOMEM. */
int bk_route_add(struct bk_route *route, struct bk_pattern *pattern, struct bb_slice text);

/** bk_route_remove() - undo bk_route_add(); nothing happens if it was not added. */
void bk_route_remove(struct bk_route *route, struct bk_pattern *pattern);

/**
 * bk_route_find() - the subscriptions of the valid path @text
 *
 * The set holds until subscriptions change.
 *
 * Return: 0 or BB_ENOMEM.
 */
int bk_route_find(struct bk_route *route, struct bb_slice text, struct bk_path **ret_path);

/** bk_route_channel() - the path's channel, made if it does not exist. Return: 0, BB_ELIMIT (too many channels),
 * BB_ENOMEM. */
int bk_route_channel(struct bk_route *route, struct bk_path *path);

/** bk_route_clear() - forget the paths; they are looked up again. */
void bk_route_clear(struct bk_route *route);

/** bk_route_trim() - bk_route_clear() if there are so many that a whole batch might not find room. To be called
 * where nobody holds a path or set. */
void bk_route_trim(struct bk_route *route);

/** bk_set_has() - whether @sub is in @set. */
bool bk_set_has(const struct bk_set *set, const struct bk_sub *sub);

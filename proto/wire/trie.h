/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pattern trie: entries under patterns, and all entries whose pattern matches a path in one walk.
 *
 * Entries are embedded in the caller's structs (BB_CONTAINER leads back) and linked into the node of
 * their pattern, so any number of entries may share a pattern, and removal needs no search however many
 * they are.
 *
 * Cost: adding and removing take one step per segment of the pattern. Matching visits each node at most
 * once, and at depth d only nodes whose way from the root fits the path: at most 2^d, and never more than
 * there are nodes at that depth. So a match never costs more than a look at each distinct pattern; it is
 * two or three lookups per segment unless patterns put `?` and text side by side on many levels.
 *
 * Order: what a match reports depends only on the patterns and on the order in which entries were added,
 * never on addresses or the seed. Not thread-safe; matching alone may run in many threads at once.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bb_trie;
struct bb_trie_node;

/* Zero when in no trie. The fields belong to the trie. */
struct bb_trie_entry {
    struct bb_trie_entry *next;
    struct bb_trie_entry *prev;
    struct bb_trie_node *node;
    bool is_rest; /* its pattern ends with a `*` */
};

/**
 * bb_trie_match_fn - told of one matching entry
 *
 * Must not change the trie. A return other than 0 ends the match.
 */
typedef int bb_trie_match_fn(void *context, struct bb_trie_entry *entry);

/**
 * bb_trie_new() - an empty trie
 * @seed:     key of the hash; random where peers choose the patterns
 * @ret_trie: yours to free
 *
 * Return: 0 or BB_ENOMEM.
 */
int bb_trie_new(uint64_t seed, struct bb_trie **ret_trie);

/** bb_trie_free() - free the trie; entries still in it are left alone and are in no trie any more. */
void bb_trie_free(struct bb_trie *trie);

/**
 * bb_trie_add() - put @entry under @pattern
 * @entry:   in no trie (zeroed or removed); borrowed, and must not move, until removed
 * @pattern: copied as far as it is new
 *
 * Limits are the caller's: bb_trie_bytes() before and after is what to charge to whoever asked. A pattern
 * of BB_PATH_MAX slashes alone takes some 20 kB.
 *
 * Return: 0, or BB_EPATTERN, BB_EINVAL (@entry is in a trie), BB_ENOMEM; the trie is then unchanged.
 */
int bb_trie_add(struct bb_trie *trie, struct bb_trie_entry *entry, struct bb_slice pattern);

/** bb_trie_remove() - take @entry out and free what only it needed. Nothing happens if it is in no trie. */
void bb_trie_remove(struct bb_trie *trie, struct bb_trie_entry *entry);

/**
 * bb_trie_match() - report every entry whose pattern matches @path
 * @path:     a valid path
 * @on_match: called once for each entry; who is entered under several matching patterns is told several
 *            times
 *
 * On the way down, the patterns that end with `*` come first, then the deeper ones through the text
 * of the segment, then those through `?`; under one pattern, in order of addition.
 *
 * Return: 0, or what @on_match returned to end it, or BB_EPATH if @path is longer than BB_PATH_MAX.
 */
int bb_trie_match(const struct bb_trie *trie,
                  struct bb_slice path,
                  bb_trie_match_fn *on_match,
                  void *context);

/** bb_trie_count() - entries in the trie. */
size_t bb_trie_count(const struct bb_trie *trie);

/**
 * bb_trie_first() - with which segment the paths begin that the pattern of @entry, which is in a trie, can match
 * @ret_segment: it; valid as long as the pattern is in the trie. The empty path counts as one empty segment
 *
 * Return: whether it is one; false: any.
 */
bool bb_trie_first(const struct bb_trie_entry *entry, struct bb_slice *ret_segment);

/** bb_trie_bytes() - memory the trie has allocated, without the entries. */
size_t bb_trie_bytes(const struct bb_trie *trie);

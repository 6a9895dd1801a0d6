/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node is a prefix of patterns. A trailing `*` needs no node of its own: its entries hang on the node
 * before it as `rest`. The child through `?` has a pointer; all children through text, of all nodes, are
 * in one hash table keyed by parent and segment, which costs one pointer per node instead of a table per
 * node. The hash of a node, chained from its parent's, is the seed of its children's, so equal segments
 * under different parents spread.
 */
#include "proto/wire/trie.h"

#include "proto/base/error.h"
#include "proto/base/hash.h"
#include "proto/wire/path.h"

#include <stdlib.h>

#define BUCKETS_MIN 64

struct bb_trie_node {
    struct bb_trie_node *parent; /* NULL for the root */
    struct bb_trie_node *chain;  /* next in the bucket */
    struct bb_trie_node *any;    /* child through `?` */
    struct bb_trie_entry *exact; /* last entry of the ring of those whose pattern ends here */
    struct bb_trie_entry *rest;  /* the same for those whose pattern goes on with a last `*` */
    uint64_t hash;
    uint32_t n_children; /* through text */
    uint8_t len;
    uint8_t segment[];
};

struct bb_trie {
    struct bb_trie_node *root;
    struct bb_trie_node **buckets; /* a power of two of them */
    size_t n_buckets;
    size_t n_hashed;
    size_t count;
    size_t bytes;
};

static size_t node_size(size_t len)
{
    return sizeof(struct bb_trie_node) + len;
}

static struct bb_trie_node *
node_new(struct bb_trie *trie, struct bb_trie_node *parent, struct bb_slice segment, uint64_t hash)
{
    struct bb_trie_node *node = malloc(node_size(segment.len));
    if (node == NULL) {
        return NULL;
    }
    *node = (struct bb_trie_node){.parent = parent, .hash = hash, .len = (uint8_t)segment.len};
    if (segment.len > 0) {
        memcpy(node->segment, segment.data, segment.len);
    }
    trie->bytes += node_size(segment.len);
    return node;
}

static void node_free(struct bb_trie *trie, struct bb_trie_node *node)
{
    trie->bytes -= node_size(node->len);
    free(node);
}

static struct bb_trie_node **node_bucket(const struct bb_trie *trie, uint64_t hash)
{
    return &trie->buckets[(size_t)hash & (trie->n_buckets - 1)];
}

static struct bb_trie_node *
child_find(const struct bb_trie *trie, const struct bb_trie_node *parent, struct bb_slice segment)
{
    if (parent->n_children == 0) {
        return NULL;
    }
    uint64_t hash = bb_hash(segment.data, segment.len, parent->hash);
    struct bb_trie_node *node = *node_bucket(trie, hash);
    while (node != NULL) {
        if (node->hash == hash && node->parent == parent &&
            bb_slice_equal(bb_slice(node->segment, node->len), segment)) {
            return node;
        }
        node = node->chain;
    }
    return NULL;
}

/* Without memory for a larger table the chains just get longer. */
static void buckets_grow(struct bb_trie *trie)
{
    struct bb_trie_node **old = trie->buckets;
    size_t n_old = trie->n_buckets;
    struct bb_trie_node **grown = calloc(n_old * 2, sizeof(struct bb_trie_node *));
    if (grown == NULL) {
        return;
    }
    trie->buckets = grown;
    trie->n_buckets = n_old * 2;
    trie->bytes += n_old * sizeof(struct bb_trie_node *);
    for (size_t i = 0; i < n_old; i++) {
        struct bb_trie_node *chain = NULL;
        for (struct bb_trie_node *node = old[i]; node != NULL; node = chain) {
            struct bb_trie_node **bucket = node_bucket(trie, node->hash);
            chain = node->chain;
            node->chain = *bucket;
            *bucket = node;
        }
    }
    free(old);
}

/* The child of @parent through @segment, which may be `?`, made if there is none; NULL without memory. */
static struct bb_trie_node *
child_find_or_add(struct bb_trie *trie, struct bb_trie_node *parent, struct bb_slice segment)
{
    bool is_any = bb_segment_is(segment, '?');
    struct bb_trie_node *node = is_any ? parent->any : child_find(trie, parent, segment);
    if (node != NULL) {
        return node;
    }
    node = node_new(trie, parent, segment, bb_hash(segment.data, segment.len, parent->hash));
    if (node == NULL) {
        return NULL;
    }
    if (is_any) {
        parent->any = node;
        return node;
    }
    if (trie->n_hashed >= trie->n_buckets) {
        buckets_grow(trie);
    }
    struct bb_trie_node **bucket = node_bucket(trie, node->hash);
    node->chain = *bucket;
    *bucket = node;
    trie->n_hashed++;
    parent->n_children++;
    return node;
}

/* Free @node and its ancestors as far up as nothing hangs on them. */
static void nodes_prune(struct bb_trie *trie, struct bb_trie_node *node)
{
    while (node->parent != NULL && node->exact == NULL && node->rest == NULL && node->any == NULL &&
           node->n_children == 0) {
        struct bb_trie_node *parent = node->parent;
        if (parent->any == node) {
            parent->any = NULL;
        } else {
            struct bb_trie_node **at = node_bucket(trie, node->hash);
            while (*at != node) {
                at = &(*at)->chain;
            }
            *at = node->chain;
            trie->n_hashed--;
            parent->n_children--;
        }
        node_free(trie, node);
        node = parent;
    }
}

int bb_trie_new(uint64_t seed, struct bb_trie **ret_trie)
{
    struct bb_trie *trie = calloc(1, sizeof(*trie));
    if (trie == NULL) {
        return BB_ENOMEM;
    }
    trie->buckets = calloc(BUCKETS_MIN, sizeof(struct bb_trie_node *));
    trie->root = node_new(trie, NULL, bb_slice(NULL, 0), seed);
    if (trie->buckets == NULL || trie->root == NULL) {
        free(trie->buckets);
        free(trie->root);
        free(trie);
        return BB_ENOMEM;
    }
    trie->n_buckets = BUCKETS_MIN;
    trie->bytes += sizeof(*trie) + BUCKETS_MIN * sizeof(struct bb_trie_node *);
    *ret_trie = trie;
    return 0;
}

/* Free @node with the chain of `?` below it; what is below through text is in the table. */
static void any_chain_free(struct bb_trie_node *node)
{
    while (node != NULL) {
        struct bb_trie_node *any = node->any;
        free(node);
        node = any;
    }
}

void bb_trie_free(struct bb_trie *trie)
{
    if (trie == NULL) {
        return;
    }
    for (size_t i = 0; i < trie->n_buckets; i++) {
        struct bb_trie_node *chain = NULL;
        for (struct bb_trie_node *node = trie->buckets[i]; node != NULL; node = chain) {
            chain = node->chain;
            any_chain_free(node);
        }
    }
    any_chain_free(trie->root);
    free(trie->buckets);
    free(trie);
}

/* Append to the ring whose last entry is *@last. */
static void ring_append(struct bb_trie_entry **last, struct bb_trie_entry *entry)
{
    struct bb_trie_entry *prev = *last != NULL ? *last : entry;
    struct bb_trie_entry *next = *last != NULL ? prev->next : entry;
    entry->prev = prev;
    entry->next = next;
    prev->next = entry;
    next->prev = entry;
    *last = entry;
}

int bb_trie_add(struct bb_trie *trie, struct bb_trie_entry *entry, struct bb_slice pattern)
{
    if (entry->node != NULL) {
        return BB_EINVAL;
    }
    int r = bb_pattern_check(pattern);
    if (r < 0) {
        return r;
    }
    struct bb_trie_node *node = trie->root;
    bool is_rest = false;
    for (size_t at = 0; bb_path_has_segment(pattern, at);) {
        struct bb_slice segment = bb_path_segment(pattern, at);
        is_rest = bb_segment_is(segment, '*');
        if (is_rest) {
            break;
        }
        struct bb_trie_node *child = child_find_or_add(trie, node, segment);
        if (child == NULL) {
            nodes_prune(trie, node);
            return BB_ENOMEM;
        }
        node = child;
        at += segment.len + 1;
    }
    ring_append(is_rest ? &node->rest : &node->exact, entry);
    entry->node = node;
    entry->is_rest = is_rest;
    trie->count++;
    return 0;
}

void bb_trie_remove(struct bb_trie *trie, struct bb_trie_entry *entry)
{
    struct bb_trie_node *node = entry->node;
    if (node == NULL) {
        return;
    }
    struct bb_trie_entry *last = entry->next == entry ? NULL : entry->prev;
    struct bb_trie_entry **ring = entry->is_rest ? &node->rest : &node->exact;
    *ring = *ring == entry ? last : *ring;
    entry->prev->next = entry->next;
    entry->next->prev = entry->prev;
    *entry = (struct bb_trie_entry){0};
    trie->count--;
    nodes_prune(trie, node);
}

static int ring_report(struct bb_trie_entry *last, bb_trie_match_fn *on_match, void *context)
{
    if (last == NULL) {
        return 0;
    }
    struct bb_trie_entry *entry = last;
    do {
        entry = entry->next;
        int r = on_match(context, entry);
        if (r != 0) {
            return r;
        }
    } while (entry != last);
    return 0;
}

int bb_trie_match(const struct bb_trie *trie, struct bb_slice path, bb_trie_match_fn *on_match, void *context)
{
    /* Each level leaves at most one node to come back to. */
    struct {
        const struct bb_trie_node *node;
        size_t at;
    } pending[BB_PATH_SEGMENTS_MAX];
    size_t n_pending = 0;
    const struct bb_trie_node *node = trie->root;
    size_t at = 0;
    if (path.len > BB_PATH_MAX) {
        return BB_EPATH;
    }
    for (;;) {
        int r = ring_report(node->rest, on_match, context);
        const struct bb_trie_node *child = NULL;
        if (bb_path_has_segment(path, at)) {
            struct bb_slice segment = bb_path_segment(path, at);
            at += segment.len + 1;
            child = child_find(trie, node, segment);
            if (node->any != NULL) {
                pending[n_pending].node = node->any;
                pending[n_pending++].at = at;
            }
        } else if (r == 0) {
            r = ring_report(node->exact, on_match, context);
        }
        if (r != 0) {
            return r;
        }
        if (child != NULL) {
            node = child;
        } else if (n_pending > 0) {
            node = pending[--n_pending].node;
            at = pending[n_pending].at;
        } else {
            return 0;
        }
    }
}

size_t bb_trie_count(const struct bb_trie *trie)
{
    return trie->count;
}

size_t bb_trie_bytes(const struct bb_trie *trie)
{
    return trie->bytes;
}

bool bb_trie_first(const struct bb_trie_entry *entry, struct bb_slice *ret_segment)
{
    const struct bb_trie_node *node = entry->node;
    while (node->parent != NULL && node->parent->parent != NULL) {
        node = node->parent;
    }
    *ret_segment = bb_slice(node->segment, node->len); /* the root has none: the empty pattern */
    return node->parent != NULL ? node != node->parent->any : !entry->is_rest;
}

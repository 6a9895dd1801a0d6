/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/scan.h"

#include "proto/base/utf8.h"

struct scan {
    const uint8_t *p, *end;
    const uint8_t *stop; /* as far as max_bytes lets it go */
    uint32_t max_depth;
    uint32_t items_left;
};

/* @p may be NULL for no bytes, but NULL has no address to count from: hence the text. */
static struct scan scan_start(const uint8_t *p, size_t len, const struct bb_scan_limits *limits)
{
    p = p != NULL ? p : (const uint8_t *)"";
    struct bb_scan_limits most = limits != NULL ? *limits : BB_SCAN_LIMITS_INIT;
    return (struct scan){
        .p = p,
        .end = p + len,
        .stop = p + BB_MIN(len, most.max_bytes),
        .max_depth = BB_MIN(most.max_depth, (uint32_t)BB_MP_MAX_DEPTH),
        .items_left = most.max_items,
    };
}

/* One head and its body; @ret_children gets how many values belong to it, for a container. */
static inline int scan_step(struct scan *scan, bool *ret_is_container, uint64_t *ret_children)
{
    struct bb_mp_head head;
    int r = bb_mp_head_read(scan->p, (size_t)(scan->end - scan->p), &head);
    if (r < 0) {
        return r;
    }
    if (scan->items_left-- == 0) {
        return BB_ETOOBIG;
    }
    scan->p += head.len;
    *ret_is_container = head.type >= BB_MP_ARRAY;
    if (head.type >= BB_MP_ARRAY) {
        *ret_children = head.type == BB_MP_MAP ? 2 * head.value : head.value;
    } else if (head.type >= BB_MP_STR) {
        const uint8_t *body = scan->p;
        scan->p += head.value;
        /* The size comes first, so that no text beyond the limit is looked at. */
        if (scan->p <= scan->stop && head.type == BB_MP_STR && !bb_utf8_is_valid(body, (size_t)head.value)) {
            return BB_EUTF8;
        }
    }
    return scan->p <= scan->stop ? 0 : BB_ETOOBIG;
}

static int scan_one(struct scan *scan)
{
    uint64_t left[BB_MP_MAX_DEPTH]; /* values still to come in each open container */
    uint32_t depth = 0;
    do {
        bool is_container;
        uint64_t children;
        int r = scan_step(scan, &is_container, &children);
        if (r < 0) {
            return r;
        }
        if (is_container) {
            if (depth == scan->max_depth) {
                return BB_ETOODEEP;
            }
            /* One more, for the container itself, which counts as come just below. */
            left[depth++] = children + 1;
        }
        while (depth > 0 && --left[depth - 1] == 0) {
            depth--;
        }
    } while (depth > 0);
    return 0;
}

int bb_scan_value(const uint8_t *p, size_t len, const struct bb_scan_limits *limits, size_t *ret_len)
{
    struct scan scan = scan_start(p, len, limits);
    int r = scan_one(&scan);
    if (r < 0) {
        return r;
    }
    *ret_len = (size_t)(scan.p - p);
    return 0;
}

int bb_scan_whole(const uint8_t *p, size_t len, const struct bb_scan_limits *limits)
{
    struct scan scan = scan_start(p, len, limits);
    int r = scan_one(&scan);
    if (r < 0) {
        return r;
    }
    return scan.p == scan.end ? 0 : BB_EMALFORMED;
}

int bb_scan_values(const uint8_t *p, size_t len, const struct bb_scan_limits *limits, size_t *ret_count)
{
    struct scan scan = scan_start(p, len, limits);
    size_t count = 0;
    while (scan.p < scan.end) {
        int r = scan_one(&scan);
        if (r < 0) {
            return r;
        }
        count++;
    }
    *ret_count = count;
    return 0;
}

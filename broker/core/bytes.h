/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Shared bytes: immutable once handed on, counted, freed by whoever lets go last, on any thread (the
 * transport lets go on its own). What is alive is metered, since it is what the broker's memory goes into.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes alive; shared with the threads of the transport. */
struct bk_meter {
    atomic_size_t bytes;
};

struct bk_bytes;
typedef void bk_bytes_free_fn(struct bk_bytes *bytes);

struct bk_bytes {
    atomic_uint refs;
    bk_bytes_free_fn *free_fn;
    struct bk_meter *meter;
    uint8_t *data;
    size_t len;  /* used */
    size_t size; /* charged to the meter */
};

/* Events are collected in pieces of this size; what is nearly as large is kept as it came. */
#define BK_CHUNK_SIZE ((size_t)64 << 10)

/** bk_bytes_init() - for who embeds struct bk_bytes: one reference, charged with @size. */
void bk_bytes_init(struct bk_bytes *bytes,
                   struct bk_meter *meter,
                   uint8_t *data,
                   size_t size,
                   bk_bytes_free_fn *free_fn);

/** bk_bytes_new() - @size writable bytes behind one reference, NULL without memory. */
struct bk_bytes *bk_bytes_new(struct bk_meter *meter, size_t size);

static inline struct bk_bytes *bk_bytes_ref(struct bk_bytes *bytes)
{
    atomic_fetch_add_explicit(&bytes->refs, 1, memory_order_relaxed);
    return bytes;
}

/** bk_bytes_unref() - let go; NULL is fine. Any thread. */
void bk_bytes_unref(struct bk_bytes *bytes);

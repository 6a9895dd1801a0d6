/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/bytes.h"

#include <stdlib.h>

void bk_bytes_init(struct bk_bytes *bytes,
                   struct bk_meter *meter,
                   uint8_t *data,
                   size_t size,
                   bk_bytes_free_fn *free_fn)
{
    atomic_init(&bytes->refs, 1);
    bytes->free_fn = free_fn;
    bytes->meter = meter;
    bytes->data = data;
    bytes->len = 0;
    bytes->size = size;
    atomic_fetch_add_explicit(&meter->bytes, size, memory_order_relaxed);
}

static void heap_bytes_free(struct bk_bytes *bytes)
{
    free(bytes);
}

struct bk_bytes *bk_bytes_new(struct bk_meter *meter, size_t size)
{
    struct bk_bytes *bytes = malloc(sizeof(*bytes) + size);
    if (bytes != NULL) {
        bk_bytes_init(bytes, meter, (uint8_t *)(bytes + 1), size, heap_bytes_free);
    }
    return bytes;
}

void bk_bytes_unref(struct bk_bytes *bytes)
{
    if (bytes == NULL || atomic_fetch_sub_explicit(&bytes->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    atomic_fetch_sub_explicit(&bytes->meter->bytes, bytes->size, memory_order_relaxed);
    bytes->free_fn(bytes);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/batch.h"

#include "proto/base/error.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include <stdlib.h>

/* Memory kept though not needed: as much as a few full batches on their way. */
#define IDLE_MAX 16

#define TRACKED_MIN 4

static void batch_free(struct bb_batch *batch)
{
    if (batch != NULL) {
        free(batch->tracked);
        free(batch);
    }
}

void bb_pool_fini(struct bb_pool *pool)
{
    while (pool->idle != NULL) {
        struct bb_batch *batch = pool->idle;
        pool->idle = batch->next;
        batch_free(batch);
    }
}

static struct bb_batch *take_idle(struct bb_pool *pool)
{
    struct bb_batch *batch = pool->idle;
    if (batch != NULL) {
        pool->idle = batch->next;
        pool->n_idle--;
    }
    return batch;
}

struct bb_batch *bb_batch_new(struct bb_pool *pool, size_t cap, struct bb_slice options)
{
    struct bb_batch *batch = cap == pool->usual && options.len == 0 ? take_idle(pool) : NULL;
    if (batch == NULL) {
        batch = malloc(sizeof(*batch) + BB_BATCH_HEAD_MAX + options.len + cap);
        if (batch == NULL) {
            return NULL;
        }
        batch->tracked = NULL;
        batch->max_tracked = 0;
    }
    batch->refs = 1;
    batch->pool = pool;
    batch->next = NULL;
    batch->n_tracked = 0;
    batch->number = 0;
    batch->returned = 0;
    batch->begin = 0;
    batch->count = 0;
    batch->level = 0;
    batch->cap = cap;
    batch->len = 0;
    batch->start = BB_BATCH_HEAD_MAX;
    batch->options_len = options.len;
    if (options.len > 0) {
        memcpy(batch->bytes + BB_BATCH_HEAD_MAX, options.data, options.len);
    }
    return batch;
}

int bb_batch_track(struct bb_batch *batch)
{
    if (batch->n_tracked < batch->max_tracked) {
        return 0;
    }
    uint32_t max = batch->max_tracked == 0 ? TRACKED_MIN : 2 * batch->max_tracked;
    struct bb_tracked *tracked = realloc(batch->tracked, max * sizeof(*tracked));
    if (tracked == NULL) {
        return BB_ENOMEM;
    }
    batch->tracked = tracked;
    batch->max_tracked = max;
    return 0;
}

void bb_batch_ref(struct bb_batch *batch)
{
    batch->refs++;
}

void bb_batch_unref(struct bb_batch *batch)
{
    if (batch == NULL || --batch->refs > 0) {
        return;
    }
    struct bb_pool *pool = batch->pool;
    if (batch->cap == pool->usual && batch->options_len == 0 && pool->n_idle < IDLE_MAX) {
        if (batch->max_tracked * sizeof(*batch->tracked) > pool->usual) { /* events were unusually small */
            free(batch->tracked);
            batch->tracked = NULL;
            batch->max_tracked = 0;
        }
        batch->next = pool->idle;
        pool->idle = batch;
        pool->n_idle++;
        batch = NULL;
    }
    batch_free(batch);
}

void bb_batches_unref(struct bb_batch *first)
{
    while (first != NULL) {
        struct bb_batch *batch = first;
        first = batch->next;
        bb_batch_unref(batch);
    }
}

void bb_batch_number(struct bb_batch *batch, uint64_t number)
{
    uint8_t head[BB_BATCH_HEAD_MAX];
    uint8_t *p = bb_mp_put_array_head(head, batch->options_len > 0 ? 4 : 3);
    p = bb_mp_put_uint(p, BB_MSG_PUBLISH);
    p = bb_mp_put_uint(p, number);
    p = bb_mp_put_uint(p, batch->level);
    size_t len = (size_t)(p - head);
    batch->number = number;
    batch->start = BB_BATCH_HEAD_MAX - len;
    memcpy(batch->bytes + batch->start, head, len);
}

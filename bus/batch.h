/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a batch: events, and room for the head in front of them, so that the whole message is one
 * piece. Counted, because some of the bytes may still wait for the socket when the broker has answered. Buffers of
 * the usual size are kept for the next batch.
 */
#pragma once

#include "proto/base/buf.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct bb_tracked;

/* The head of a publish: array, type, number of nine bytes, level. Options are not counted. */
#define BB_BATCH_HEAD_MAX 12

struct bb_pool {
    pthread_mutex_t lock;
    struct bb_batch *idle;
    unsigned n_idle;
    size_t usual; /* bytes of events in a buffer that is kept */
};

struct bb_batch {
    atomic_uint refs;
    struct bb_pool *pool;
    struct bb_batch *next;
    struct bb_tracked *tracked; /* events that someone waits for, newest first */
    uint64_t number;            /* 0 until it is sent */
    uint64_t begin;             /* events published before it */
    uint32_t count;             /* of events */
    uint32_t level;             /* the highest asked for */
    size_t cap;
    size_t len;
    size_t start; /* of the message in bytes[] */
    size_t options_len;
    uint8_t bytes[];
};

/** bb_pool_init() - @usual: bytes of a usual batch. Return: 0 or BB_ESYSTEM. */
int bb_pool_init(struct bb_pool *pool, size_t usual);

/** bb_pool_fini() - free what is idle; all batches must have come back. */
void bb_pool_fini(struct bb_pool *pool);

/**
 * bb_batch_new() - an empty batch with room for @cap bytes of events, one reference; NULL without memory
 * @options: MessagePack map of the publish, copied; empty for none
 */
struct bb_batch *bb_batch_new(struct bb_pool *pool, size_t cap, struct bb_slice options);

/** bb_batch_ref() - one more reference. */
void bb_batch_ref(struct bb_batch *batch);

/** bb_batch_unref() - from any thread. */
void bb_batch_unref(struct bb_batch *batch);

/** bb_batch_number() - write the head in front of the events; nobody else may hold a reference. */
void bb_batch_number(struct bb_batch *batch, uint64_t number);

/** bb_batch_options() - as they were given. */
static inline struct bb_slice bb_batch_options(const struct bb_batch *batch)
{
    return bb_slice(batch->bytes + BB_BATCH_HEAD_MAX, batch->options_len);
}

/** bb_batch_message_len() - bytes of the message, which begin at bytes[start]. */
static inline size_t bb_batch_message_len(const struct bb_batch *batch)
{
    return BB_BATCH_HEAD_MAX - batch->start + batch->options_len + batch->len;
}

/** bb_batch_events() - where the events begin. */
static inline uint8_t *bb_batch_events(struct bb_batch *batch)
{
    return batch->bytes + BB_BATCH_HEAD_MAX + batch->options_len;
}

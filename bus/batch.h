/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of a batch: events, and room for the head in front of them, so that the whole message is one
 * piece. Counted, because some of the bytes may still wait for the socket when the broker has answered.
 * Buffers of the usual size are kept for the next batch. With it goes who waits for its events. The lock of
 * the bus guards it all.
 */
#pragma once

#include "proto/base/buf.h"

#include "bus/busbar.h"

#include <stddef.h>
#include <stdint.h>

/* Who waits in bb_publish_wait(): told under the lock. */
struct bb_waiter {
    struct bb_ack ack;
    bool is_done;
};

/* An event whose publisher wants to know. */
struct bb_tracked {
    bb_ack_fn *on_ack; /* or NULL, and there is a waiter; neither: it does not want to know any more */
    void *arg;
    struct bb_waiter *waiter;
    uint64_t ticket;
    uint64_t sequence; /* with the answer, as the error */
    int error;
    uint32_t index; /* in its batch */
};

/* The head of a publish: array, type, number of nine bytes, level. Options are not counted. */
#define BB_BATCH_HEAD_MAX 12

struct bb_pool {
    struct bb_batch *idle;
    unsigned n_idle;
    size_t usual; /* bytes of events in a buffer that is kept */
};

struct bb_batch {
    unsigned refs;
    struct bb_pool *pool;
    struct bb_batch *next;
    struct bb_tracked *tracked; /* events that someone waits for */
    uint32_t n_tracked;
    uint32_t max_tracked;
    struct bb_ack answer; /* what is the same for all its events */
    uint64_t number;      /* 0 until it is sent */
    int returned;         /* why the broker that it was sent to last did not take it, 0 if it may have */
    uint64_t begin;       /* events published before it */
    uint32_t count;       /* of events */
    uint32_t level;       /* the highest asked for */
    size_t cap;
    size_t len;
    size_t start; /* of the message in bytes[] */
    size_t options_len;
    uint8_t bytes[];
};

/** bb_pool_fini() - free what is idle; all batches must have come back. */
void bb_pool_fini(struct bb_pool *pool);

/**
 * bb_batch_new() - an empty batch with room for @cap bytes of events, one reference; NULL without memory
 * @options: MessagePack map of the publish, copied; empty for none
 */
struct bb_batch *bb_batch_new(struct bb_pool *pool, size_t cap, struct bb_slice options);

/** bb_batch_track() - room for one more in tracked[]. Return: 0 or BB_ENOMEM. */
BB_MUST_CHECK int bb_batch_track(struct bb_batch *batch);

/** bb_batch_ref() - one more reference. */
void bb_batch_ref(struct bb_batch *batch);

/** bb_batch_unref() - one less; NULL is ignored. */
void bb_batch_unref(struct bb_batch *batch);

/** bb_batches_unref() - the same for all of a list. */
void bb_batches_unref(struct bb_batch *first);

/** bb_batch_number() - write the head in front of the events; nobody else may read it. */
void bb_batch_number(struct bb_batch *batch, uint64_t number);

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

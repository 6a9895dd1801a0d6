/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A batch (PROTOCOL 6) is scanned to its end and cut into runs of good events of one channel before anything changes, so that a
 * batch that cannot be taken leaves no trace.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"
#include "proto/wire/event.h"

#include <stdbool.h>
#include <stdint.h>

struct bk_core;
struct bk_channel;
struct bk_path;
struct bk_sub;

/* Consecutive good events of one channel. */
struct bk_run {
    const uint8_t *data;
    size_t len;
    uint32_t first; /* index in the batch */
    uint32_t count;
    uint64_t sequence; /* of the first event, once it is kept */
    struct bk_channel *channel;
    const struct bk_path *path; /* of the newest event */
    bool is_uniform;
    bool has_ttl;
    bool has_source_time;
    bool is_logged;
};

struct bk_batch {
    uint64_t level;      /* asked for */
    size_t log_bytes;    /* of events for the log */
    uint32_t n_logged;   /* runs for the log, */
    uint32_t n_unsynced; /* and those whose publisher need not wait for the disk */
    uint32_t n_events;
    uint32_t n_refused;
    uint64_t matches; /* smallest number of subscriptions an event met */
    uint64_t unmatched;
    const struct bk_sub *behind; /* a subscription that refuses publishers now */
    struct bk_run *run;          /* being extended */
    struct bb_buf *runs;         /* struct bk_run */
    struct bb_buf *refused;      /* [index, code] one after the other */
};

static inline size_t bk_batch_n_runs(const struct bk_batch *batch)
{
    return batch->runs->len / sizeof(struct bk_run);
}

static inline struct bk_run *bk_batch_run(const struct bk_batch *batch, size_t i)
{
    return (struct bk_run *)(void *)batch->runs->data + i;
}

/** bk_batch_scan() - read @events to their end. Return: 0, or why nothing of the batch may be taken. */
int bk_batch_scan(struct bk_core *core, struct bk_batch *batch, struct bb_slice events) BB_MUST_CHECK;

/** bk_batch_cut() - run @i and all after it are refused event by event, for @error. */
void bk_batch_cut(struct bk_batch *batch, size_t i, int error);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which part of the tables a query has to look at, so that a page of it costs what it finds and not what is
 * kept.
 *
 *     bounds   lowest and highest position, from by_time, by_session and the id to go on behind
 *     ranges   positions within them, when ids are asked for or by_source_time narrows enough
 *     lanes    else, the rows of few paths in by_path or of few channels in by_sequence, merged by position
 *     spans    for the latest events: rows of `paths`, in the order of the paths
 *
 * Without ranges and lanes all records within the bounds are looked at. A plan borrows nothing from the
 * transaction in which it was made, and stays good: what comes later lies above its bounds, what goes
 * meanwhile is not met.
 */
#pragma once

#include "broker/backend/find.h"
#include "broker/backend/lmdb/store.h"

/* More lanes are not worth the merging. */
#define BK_PLAN_LANES 256

/* A channel that is to be searched. */
struct bk_plan_channel {
    uint32_t id;
    uint64_t last;        /* sequence */
    struct bb_slice name; /* lies in the plan */
};

/* Positions, both inclusive. */
struct bk_plan_range {
    uint64_t low;
    uint64_t high;
};

/* Rows (prefix, first sequence of a record) -> its position, rising together. */
struct bk_plan_lane {
    bool is_path; /* of by_path, else of by_sequence */
    uint32_t channel;
    uint64_t path_id;
    uint64_t last; /* no row begins behind this sequence */
};

/* The row of one path, or those of all paths below it. */
struct bk_plan_span {
    uint32_t channel;
    bool is_below; /* the rows that begin with path and a slash */
    struct bb_slice path;
};

struct bk_plan {
    struct bk_plan_channel *channels; /* by id */
    size_t n_channels;
    uint8_t *names;
    struct bk_plan_range bounds; /* low above high: nothing can be found */
    struct bb_buf ranges;        /* struct bk_plan_range, rising */
    bool has_ranges;
    struct bb_buf lanes; /* struct bk_plan_lane, by channel */
    struct bb_buf spans; /* struct bk_plan_span, rising by path, none within another */
};

/**
 * bk_plan_init() - for @query, at which @find is at work; both must outlive the plan
 *
 * Return: 0, BB_ENOMEM, BB_ECORRUPT, BB_ESYSTEM; bk_plan_fini() in any case.
 */
BB_MUST_CHECK int bk_plan_init(struct bk_plan *plan,
                               struct bk_store *store,
                               MDB_txn *txn,
                               const struct bb_query *query,
                               const struct bk_find *find);
void bk_plan_fini(struct bk_plan *plan);

/** bk_plan_channel() - the channel to be searched with this id, NULL if it is not to be. */
const struct bk_plan_channel *bk_plan_channel(const struct bk_plan *plan, uint32_t id);

/** bk_plan_span_key() - the lowest key that the rows of @span can have, to be filled in. Return: its length. */
size_t bk_plan_span_key(const struct bk_plan_span *span, uint8_t key[BK_KEY_MAX + 1]);

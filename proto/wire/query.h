/* SPDX-License-Identifier: Apache-2.0 */
/* What a query asks for (PROTOCOL 8): one flat struct, and its MessagePack map read and written. */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

enum bb_query_kind {
    BB_QUERY_TIMESERIES, /* by time (the default): order and order_by count */
    BB_QUERY_LATEST,     /* the newest event of each path, in the order of paths; paged by `after_path` */
    BB_QUERY_SERVER, /* all events of one server after an id, ascending ids, whole sessions as far as they fit */
};

enum bb_query_order {
    BB_ORDER_DESCENDING, /* HAT-F09: the default */
    BB_ORDER_ASCENDING,
};

enum bb_query_order_by {
    BB_ORDER_BY_TIME,
    BB_ORDER_BY_SOURCE_TIME, /* only events that have one; equal ones by id */
};

/* HAT-F71: the default and the most. */
#define BB_QUERY_RESULTS_DEFAULT 4096
#define BB_QUERY_RESULTS_MAX     65536

/* Of `ids`. */
#define BB_QUERY_IDS_MAX 1024

struct bb_query_id {
    uint64_t server;
    uint64_t session;
    uint64_t instance;
};

/* Slices borrow from what was read. All conditions must hold. */
struct bb_query {
    enum bb_query_kind kind;
    enum bb_query_order order;
    enum bb_query_order_by order_by;
    struct bb_slice patterns; /* one MessagePack array of patterns; empty: all paths */
    bool has_t_from, has_t_to, has_source_t_from, has_source_t_to;
    int64_t t_from; /* us; all bounds are inclusive */
    int64_t t_to;
    int64_t source_t_from; /* events without a source time are not found then */
    int64_t source_t_to;
    bool has_server, has_session;
    uint64_t server;
    uint64_t session;
    struct bb_slice ids; /* one MessagePack array of [server, session, instance]; empty: any */
    struct bb_slice
        payload; /* one MessagePack value that the payload is equal to, bb_mp_is_equal(); empty: any */
    struct bb_slice where; /* text, where.h; empty: any */
    bool unique_type;      /* of each path only the first in the order asked for */
    bool has_after;
    struct bb_query_id after; /* page: skip up to and including this event of the result before */
    bool has_after_source_t;
    int64_t after_source_t;     /* its source time: by source time a page begins behind both */
    struct bb_slice after_path; /* the same for BB_QUERY_LATEST: paths behind this one; no data: all */
    uint64_t max_results;
};

#define BB_QUERY_INIT ((struct bb_query){.max_results = BB_QUERY_RESULTS_DEFAULT})

/**
 * bb_query_read() - from its map
 * @map: distrusted: one MessagePack map; borrowed by @ret_query
 * @err: gets a sentence that names the member; may be NULL
 *
 * Checks everything that can be checked without events: types, ranges, patterns, that `where` parses.
 *
 * Return: 0, BB_EINVAL, BB_EPATTERN, BB_ENOMEM.
 */
int bb_query_read(struct bb_slice map, struct bb_query *ret_query, struct bb_buf *err);

/** bb_query_write() - append the map; members that are at their defaults are left out. Errors stick to @out. */
void bb_query_write(struct bb_buf *out, const struct bb_query *query);

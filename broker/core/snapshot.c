/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retained values: the newest event of each path that a new subscription matches, sent before anything else. The
 * subscription begins where the channels stood when it was made; an event that came after that is not sent twice, for what is
 * newer than the beginning is left out here and comes with the flow.
 */
#include "broker/core/state.h"

#include <stdlib.h>

/* Of all values together. */
#define SNAPSHOT_BYTES ((size_t)64 << 20)

struct bk_snapshot {
    struct bk_core *core;
    struct bk_sub *sub; /* NULL: it has ended */
    struct bb_query query;
    struct bb_buf patterns;
    struct bk_query asked[BK_STORES];
    size_t n_waiting;
    size_t store; /* being sent */
    size_t at;    /* in its body */
};

static void snapshot_free(struct bk_snapshot *snapshot)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        bk_bytes_unref(snapshot->asked[i].body);
    }
    bb_buf_fini(&snapshot->patterns);
    free(snapshot);
}

static void on_found(void *context, struct bk_request *request)
{
    struct bk_snapshot *snapshot = context;
    (void)request;
    snapshot->n_waiting--;
    if (snapshot->n_waiting > 0) {
        return;
    }
    if (snapshot->sub == NULL) {
        snapshot_free(snapshot);
    } else {
        bk_sub_set_ready(snapshot->core, snapshot->sub);
    }
}

int bk_snapshot_start(struct bk_core *core, struct bk_sub *sub, struct bb_slice patterns)
{
    struct bk_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (snapshot == NULL) {
        return BB_ENOMEM;
    }
    bb_buf_append(&snapshot->patterns, patterns.data, patterns.len);
    if (snapshot->patterns.error != 0) {
        snapshot_free(snapshot);
        return BB_ENOMEM;
    }
    snapshot->core = core;
    snapshot->sub = sub;
    snapshot->query = BB_QUERY_INIT;
    snapshot->query.kind = BB_QUERY_LATEST;
    snapshot->query.patterns = bb_buf_slice(&snapshot->patterns);
    snapshot->query.max_results = UINT64_MAX; /* their bytes are the bound */
    sub->snapshot = snapshot;
    for (size_t i = 0; i < BK_STORES; i++) {
        snapshot->n_waiting += core->backends[i] != NULL;
    }
    size_t n = snapshot->n_waiting;
    for (size_t i = 0; i < BK_STORES && n > 0; i++) {
        if (core->backends[i] != NULL) {
            snapshot->asked[i] = (struct bk_query){
                .request = {.kind = BK_REQUEST_QUERY, .done = on_found, .context = snapshot},
                .query = &snapshot->query,
                .now = core->wall,
                .max_bytes = SNAPSHOT_BYTES,
            };
            core->backends[i]->ops->submit(core->backends[i], &snapshot->asked[i].request);
        }
    }
    return 0;
}

bool bk_snapshot_is_waiting(const struct bk_sub *sub)
{
    return sub->snapshot != NULL && sub->snapshot->n_waiting > 0;
}

static bool is_wanted(const struct bk_sub *sub, const struct bb_block *block, struct bb_slice events)
{
    struct bb_event_view event;
    if (bb_event_read(&events, &event) < 0) {
        return false;
    }
    struct bb_slice path = event.path;
    const uint8_t *slash = path.len > 0 ? memchr(path.data, '/', path.len) : NULL;
    struct bb_slice name = bb_slice(path.data, slash != NULL ? (size_t)(slash - path.data) : path.len);
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (bb_slice_equal(sub->positions[i].channel->name, name)) {
            return block->sequence <= sub->positions[i].covered;
        }
    }
    return false; /* the channel came later: all of it comes with the flow */
}

/* Write wanted values to the message until it is full; returns how many. */
static uint64_t write_values(struct bk_core *core, struct bk_sub *sub, struct bk_snapshot *snapshot)
{
    const struct bk_bytes *body = snapshot->asked[snapshot->store].body;
    struct bb_slice rest = bb_slice(body->data + snapshot->at, body->len - snapshot->at);
    struct bb_block block;
    uint64_t n = 0;
    while (rest.len > 0 && core->scratch.len < BK_ROUND_BYTES) {
        const uint8_t *start = rest.data;
        if (bb_block_read(&rest, &block) < 0) {
            rest.len = 0;
            break;
        }
        size_t head_len = (size_t)(rest.data - start);
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        if (is_wanted(sub, &block, events)) {
            bb_buf_append(&core->scratch, start, head_len + events.len);
            n += block.count;
        }
    }
    snapshot->at = body->len - rest.len;
    return n;
}

static bool is_sent(const struct bk_snapshot *snapshot)
{
    const struct bk_bytes *body = snapshot->asked[snapshot->store].body;
    return body == NULL || snapshot->at >= body->len;
}

int bk_snapshot_step(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_snapshot *snapshot = sub->snapshot;
    if (snapshot->n_waiting > 0) {
        return 0;
    }
    for (size_t i = 0; i < BK_STORES; i++) {
        if (snapshot->asked[i].request.error != 0) {
            return snapshot->asked[i].request.error;
        }
        if (snapshot->asked[i].more) {
            return BB_ELIMIT;
        }
    }
    size_t store = snapshot->store;
    size_t at = snapshot->at;
    uint64_t n = 0;
    while (snapshot->store < BK_STORES && is_sent(snapshot)) {
        snapshot->store++;
        snapshot->at = 0;
    }
    bool is_last = snapshot->store == BK_STORES;
    bb_buf_reset(&core->scratch);
    bb_mp_write_array(&core->scratch, 5);
    bb_mp_write_uint(&core->scratch, BB_MSG_DELIVER);
    bb_mp_write_uint(&core->scratch, sub->id);
    bb_mp_write_array(&core->scratch, 0);
    bb_mp_write_nil(&core->scratch);
    bb_mp_write_uint(&core->scratch, is_last ? 2 : 1);
    size_t head = core->scratch.len;
    if (!is_last) {
        n = write_values(core, sub, snapshot);
    }
    if (core->scratch.error != 0) {
        return BB_ENOMEM;
    }
    struct bk_part part = {NULL, core->scratch.data, core->scratch.len};
    int r = is_last || n > 0 ? bk_client_send(core, sub->client, &part, 1) : 0;
    if (r == BB_EAGAIN) {
        snapshot->store = store;
        snapshot->at = at;
        return 0;
    }
    if (r == 0) {
        sub->sent_bytes += core->scratch.len - head;
        sub->sent_events += n;
        sub->client->events_out += n;
        bk_count(core, BK_COUNTER_events_out, n);
        if (is_last) {
            sub->snapshot = NULL;
            snapshot_free(snapshot);
        }
    }
    return 0;
}

void bk_snapshot_end(struct bk_sub *sub)
{
    struct bk_snapshot *snapshot = sub->snapshot;
    if (snapshot != NULL && snapshot->n_waiting > 0) {
        snapshot->sub = NULL;
    } else if (snapshot != NULL) {
        snapshot_free(snapshot);
    }
    sub->snapshot = NULL;
}

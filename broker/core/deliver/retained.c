/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Retained values: the newest event of each path that a new subscription matches, sent before anything else. The
 * subscription begins where the channels stood when it was made; an event that came after that is not sent twice, for what is
 * newer than the beginning is left out here and comes with the flow, unless it lies behind the end.
 */
#include "broker/core/deliver/retained.h"

#include "broker/core/backend.h"
#include "broker/core/bytes.h"
#include "broker/core/clients/client.h"
#include "broker/core/state.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/sub.h"

#include <stdlib.h>

/* Of all values together. */
#define RETAINED_BYTES ((size_t)64 << 20)

struct bk_retained {
    struct bk_core *core;
    struct bk_sub *sub; /* NULL: it has ended */
    struct bb_query query;
    struct bb_buf patterns;
    struct bk_query asked[BK_STORES];
    size_t n_waiting;
    bool is_held; /* the log does not know yet what is newest */
    size_t store; /* being sent */
    size_t at;    /* in its body */
};

static void retained_free(struct bk_retained *values)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        bk_bytes_unref(values->asked[i].body);
    }
    bb_buf_fini(&values->patterns);
    free(values);
}

static void on_found(void *context, struct bk_request *request)
{
    struct bk_retained *values = context;
    (void)request;
    values->n_waiting--;
    if (values->n_waiting > 0) {
        return;
    }
    if (values->sub == NULL) {
        retained_free(values);
        return;
    }
    values->sub->awaits_values = false;
    bk_sub_set_ready(values->core, values->sub);
}

int bk_retained_start(struct bk_core *core, struct bk_sub *sub, struct bb_slice patterns)
{
    struct bk_retained *values = calloc(1, sizeof(*values));
    if (values == NULL) {
        return BB_ENOMEM;
    }
    bb_buf_append(&values->patterns, patterns.data, patterns.len);
    if (values->patterns.error != 0) {
        retained_free(values);
        return BB_ENOMEM;
    }
    values->core = core;
    values->sub = sub;
    values->query = BB_QUERY_INIT;
    values->query.kind = BB_QUERY_LATEST;
    values->query.patterns = bb_buf_slice(&values->patterns);
    values->query.max_results = UINT64_MAX; /* their bytes are the bound */
    sub->retained = values;
    return 0;
}

static void ask(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_retained *values = sub->retained;
    for (size_t i = 0; i < BK_STORES; i++) {
        values->n_waiting += core->backends[i] != NULL;
    }
    sub->awaits_values = values->n_waiting > 0;
    size_t n = values->n_waiting;
    for (size_t i = 0; i < BK_STORES && n > 0; i++) {
        if (core->backends[i] != NULL) {
            values->asked[i] = (struct bk_query){
                .request = {.kind = BK_REQUEST_QUERY, .done = on_found, .context = values},
                .query = &values->query,
                .now = core->wall,
                .max_bytes = RETAINED_BYTES,
                .end = core->channels.last_id + 1,
            };
            core->backends[i]->ops->submit(core->backends[i], &values->asked[i].request);
        }
    }
}

/* Who saw more in the early view, and resumes there. */
static bool is_ahead(const struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].account.covered > sub->positions[i].channel->last) {
            return true;
        }
    }
    return false;
}

void bk_retained_ask(struct bk_core *core, struct bk_sub *sub)
{
    if (is_ahead(sub)) {
        sub->retained->is_held = sub->awaits_values = true;
        core->n_held_values++;
    } else {
        ask(core, sub);
    }
}

void bk_retained_durable(struct bk_core *core)
{
    for (struct bk_client *client = core->clients; client != NULL && core->n_held_values > 0;
         client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (sub->retained != NULL && sub->retained->is_held && !is_ahead(sub)) {
                sub->retained->is_held = false;
                core->n_held_values--;
                ask(core, sub);
            }
        }
    }
}

static bool is_wanted(const struct bk_core *core,
                      const struct bk_sub *sub,
                      const struct bb_block *block,
                      struct bb_slice events)
{
    struct bb_event_view event;
    if (bb_event_read(&events, &event) < 0 || bb_event_has_expired(&event, block->time, core->wall)) {
        return false;
    }
    struct bb_slice path = event.path;
    const uint8_t *slash = path.len > 0 ? memchr(path.data, '/', path.len) : NULL;
    struct bb_slice name = bb_slice(path.data, slash != NULL ? (size_t)(slash - path.data) : path.len);
    for (size_t i = 0; i < sub->n_positions; i++) {
        const struct bk_position *position = &sub->positions[i];
        if (bb_slice_equal(position->channel->name, name)) {
            bool is_beyond = block->sequence > position->stop || block->time > sub->until_time;
            uint64_t begin =
                BB_MIN(position->begin, position->account.covered); /* it may have been taken back */
            return block->sequence <= begin || (position->begin > 0 && is_beyond);
        }
    }
    return false; /* the channel came later: all of it comes with the flow */
}

/* Write wanted values to the message until it is full; returns how many. */
static uint64_t write_values(struct bk_core *core, struct bk_sub *sub, struct bk_retained *values)
{
    const struct bk_bytes *body = values->asked[values->store].body;
    struct bb_slice rest = bb_slice(body->data + values->at, body->len - values->at);
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
        if (is_wanted(core, sub, &block, events)) {
            bb_buf_append(&core->scratch, start, head_len + events.len);
            n += block.count;
        }
    }
    values->at = body->len - rest.len;
    return n;
}

static bool is_sent(const struct bk_retained *values)
{
    const struct bk_bytes *body = values->asked[values->store].body;
    return body == NULL || values->at >= body->len;
}

static int find_error(const struct bk_retained *values)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (values->asked[i].request.error != 0) {
            return values->asked[i].request.error;
        }
        if (values->asked[i].more) {
            return BB_ELIMIT;
        }
    }
    return 0;
}

static void write_head(struct bk_core *core, const struct bk_sub *sub, bool is_last)
{
    bb_buf_reset(&core->scratch);
    bb_mp_write_array(&core->scratch, 5);
    bb_mp_write_uint(&core->scratch, BB_MSG_DELIVER);
    bb_mp_write_uint(&core->scratch, sub->id);
    bb_mp_write_array(&core->scratch, 0);
    bb_mp_write_nil(&core->scratch);
    bb_mp_write_uint(&core->scratch, is_last ? 2 : 1);
}

static void note_sent(struct bk_core *core, struct bk_sub *sub, size_t bytes, uint64_t n)
{
    sub->sent_bytes += bytes;
    sub->sent_events += n;
    sub->client->events_out += n;
    bk_count(core, BK_COUNTER_events_out, n);
}

int bk_retained_step(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_retained *values = sub->retained;
    if (values->n_waiting > 0) {
        return 0;
    }
    int r = find_error(values);
    if (r < 0) {
        return r;
    }
    size_t store = values->store;
    size_t at = values->at;
    while (values->store < BK_STORES && is_sent(values)) {
        values->store++;
        values->at = 0;
    }
    bool is_last = values->store == BK_STORES;
    write_head(core, sub, is_last);
    size_t head = core->scratch.len;
    uint64_t n = is_last ? 0 : write_values(core, sub, values);
    if (core->scratch.error != 0) {
        return BB_ENOMEM;
    }
    struct bk_part part = {NULL, core->scratch.data, core->scratch.len};
    r = is_last || n > 0 ? bk_client_send(core, sub->client, &part, 1) : 0;
    if (r < 0) { /* tried again, or doomed already */
        values->store = store;
        values->at = at;
        return 0;
    }
    note_sent(core, sub, core->scratch.len - head, n);
    if (is_last) {
        bk_retained_end(core, sub);
        bk_sub_enter(core, sub, BK_SUB_LAGGING);
    }
    return 0;
}

void bk_retained_end(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_retained *values = sub->retained;
    core->n_held_values -= values != NULL && values->is_held;
    if (values != NULL && values->n_waiting > 0) {
        values->sub = NULL;
    } else if (values != NULL) {
        retained_free(values);
    }
    sub->retained = NULL;
    sub->awaits_values = false;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing (PROTOCOL 6): a batch is scanned to its end and cut into runs of good events of one channel before
 * anything changes, so that a batch that cannot be taken leaves no trace; then each run becomes a block.
 */
#include "broker/core/state.h"

/* Consecutive good events of one channel. */
struct run {
    const uint8_t *data;
    size_t len;
    uint32_t first; /* index in the batch */
    uint32_t count;
    uint64_t sequence; /* of the first event, once it is kept */
    struct bk_channel *channel;
    const struct bk_path *path; /* of the newest event */
    bool uniform;
};

/* A batch while it is scanned. */
struct batch {
    struct bk_core *core;
    uint32_t n_events;
    uint32_t n_refused;
    uint64_t matches; /* smallest number of subscriptions an event met */
    uint64_t unmatched;
    const struct bk_sub *behind; /* a subscription that refuses publishers now */
    struct run *run;             /* being extended */
    struct bb_buf *refused;      /* [index, code] one after the other */
};

static size_t n_runs(const struct bk_core *core)
{
    return core->runs.len / sizeof(struct run);
}

static struct run *run_at(const struct bk_core *core, size_t i)
{
    return (struct run *)(void *)(core->runs.data + i * sizeof(struct run));
}

static void find_who_refuses(struct batch *batch, const struct bk_set *set)
{
    for (uint32_t i = 0; i < set->n_subs && batch->behind == NULL; i++) {
        const struct bk_sub *sub = set->subs[i];
        if (sub->overflow == BK_OVERFLOW_REFUSE && sub->lag_bytes > sub->budget) {
            batch->behind = sub;
        }
    }
}

static void refuse_event(struct batch *batch, int error)
{
    bb_mp_write_array(batch->refused, 2);
    bb_mp_write_uint(batch->refused, batch->n_events);
    bb_mp_write_str(batch->refused, bb_slice_str(bb_errcode(error)));
    batch->n_refused++;
    batch->run = NULL;
}

static int start_run(struct batch *batch, const struct bb_event_view *event, const struct bk_path *path)
{
    struct bk_core *core = batch->core;
    struct run run = {
        .data = event->raw.data,
        .len = event->raw.len,
        .first = batch->n_events,
        .count = 1,
        .channel = path->channel,
        .path = path,
        .uniform = true,
    };
    bb_buf_append(&core->runs, &run, sizeof(run));
    if (core->runs.error != 0) {
        return core->runs.error;
    }
    batch->run = run_at(core, n_runs(core) - 1);
    return 0;
}

/* The path of an event; the previous one's without a lookup if it is the same again. */
static int event_path(struct batch *batch, const struct bb_event_view *event, const struct bk_path **ret_path)
{
    struct bk_path *path = NULL;
    if (batch->run != NULL && bb_slice_equal(batch->run->path->path, event->path)) {
        *ret_path = batch->run->path;
        return 0;
    }
    if (event->path.len > 0 && event->path.data[0] == '$') {
        return BB_EREFUSED; /* PROTOCOL 3: the broker's own channels */
    }
    int r = bk_route_find(&batch->core->route, event->path, &path);
    if (r == 0) {
        r = bk_route_channel(&batch->core->route, path);
    }
    if (r < 0) {
        return r;
    }
    if (path->set->n_refusers > 0) {
        find_who_refuses(batch, path->set);
    }
    *ret_path = path;
    return 0;
}

static int add_event(struct batch *batch, const struct bb_event_view *event)
{
    const struct bk_path *path = NULL;
    int error = event->error != 0 ? event->error : event_path(batch, event, &path);
    if (error == BB_ENOMEM) {
        return error;
    }
    if (error != 0) {
        refuse_event(batch, error);
        return batch->refused->error;
    }
    batch->matches = BB_MIN(batch->matches, path->set->n_subs);
    batch->unmatched += path->set->n_subs == 0;
    struct run *run = batch->run;
    if (run == NULL || run->channel != path->channel) {
        return start_run(batch, event, path);
    }
    run->len += event->raw.len;
    run->count++;
    run->uniform = run->uniform && run->path == path;
    run->path = path;
    return 0;
}

static int scan_batch(struct batch *batch, struct bb_slice events)
{
    struct bb_event_view event;
    while (events.len > 0) {
        int r = bb_event_read(&events, &event);
        if (r == 0) {
            r = batch->n_events < BB_EVENTS_MAX ? add_event(batch, &event) : BB_ETOOBIG;
        }
        if (r < 0) {
            return r;
        }
        batch->n_events++;
    }
    return 0;
}

/* --- keeping -------------------------------------------------------------------------------------- */

/* Memory ran out at run @i: what comes from there on is refused event by event. */
static int refuse_runs(struct batch *batch, size_t i)
{
    struct bk_core *core = batch->core;
    if (i == 0) {
        return BB_ENOMEM;
    }
    uint32_t n_events = batch->n_events;
    for (size_t j = i; j < n_runs(core); j++) {
        const struct run *run = run_at(core, j);
        for (uint32_t k = 0; k < run->count; k++) {
            batch->n_events = run->first + k;
            refuse_event(batch, BB_ENOMEM);
        }
    }
    batch->n_events = n_events;
    core->runs.len = i * sizeof(struct run);
    return 0;
}

static int keep_runs(struct batch *batch, const struct bk_client *client, struct bk_bytes *owner)
{
    struct bk_core *core = batch->core;
    uint64_t session = core->session + 1;
    uint64_t time = BB_MAX(core->session_time, core->wall); /* PROTOCOL 4: never goes back */
    for (size_t i = 0; i < n_runs(core); i++) {
        struct run *run = run_at(core, i);
        struct bb_block block = {
            .session = session,
            .time = time,
            .source = client != NULL ? client->number : 0,
            .sequence = run->channel->last + 1,
            .instance = (uint64_t)run->first + 1,
            .count = run->count,
            .length = run->len,
        };
        int r = bk_ring_append(&core->ring, run->channel, &block, bb_slice(run->data, run->len), owner,
                               run->uniform);
        if (r < 0) {
            return refuse_runs(batch, i);
        }
        run->sequence = block.sequence;
        core->session = session;
        core->session_time = time;
        core->fanned_bytes += run->len;
        run->channel->n_events += run->count;
        run->channel->n_bytes += run->len;
        bk_count(core, BK_COUNTER_events_in, run->count);
        bk_count(core, BK_COUNTER_bytes_in, run->len);
    }
    return 0;
}

/* --- acknowledging -------------------------------------------------------------------------------- */

static void
ack_begin(struct bk_core *core, struct bk_client *client, uint64_t number, uint64_t level, uint32_t n)
{
    if (client->n_acks++ == 0) {
        client->next_acked = core->acked;
        core->acked = client;
    }
    bb_mp_write_array(&client->acks, n);
    bb_mp_write_uint(&client->acks, number);
    bb_mp_write_uint(&client->acks, level);
}

static void ack_repeated(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    bk_count(core, BK_COUNTER_batches_repeated, 1);
    ack_begin(core, client, msg->number, msg->level, 4);
    bb_mp_write_nil(&client->acks);
    bb_mp_write_nil(&client->acks);
}

static void ack_batch(struct bk_client *client, const struct bb_msg *msg, const struct batch *batch)
{
    struct bk_core *core = batch->core;
    struct bb_buf *acks = &client->acks;
    ack_begin(core, client, msg->number, msg->level, batch->n_refused > 0 ? 5 : 4);
    if (msg->level >= BB_LEVEL_ROUTED) {
        bb_mp_write_uint(acks, n_runs(core) > 0 ? batch->matches : 0);
    } else {
        bb_mp_write_nil(acks);
    }
    bb_mp_write_array(acks, (uint32_t)n_runs(core));
    for (size_t i = 0; i < n_runs(core); i++) {
        const struct run *run = run_at(core, i);
        bb_mp_write_array(acks, 3);
        bb_mp_write_str(acks, run->channel->name);
        bb_mp_write_uint(acks, run->sequence);
        bb_mp_write_uint(acks, run->count);
    }
    if (batch->n_refused > 0) {
        bb_mp_write_array(acks, batch->n_refused);
        bb_buf_append(acks, batch->refused->data, batch->refused->len);
        acks->error = acks->error != 0 ? acks->error : batch->refused->error;
    }
}

static void refuse_batch(struct bk_core *core,
                         struct bk_client *client,
                         const struct bb_msg *msg,
                         const struct batch *batch,
                         int error)
{
    struct bb_slice detail = {0};
    bk_count(core, BK_COUNTER_batches_refused, 1);
    if (client == NULL) {
        return;
    }
    bb_buf_reset(&core->nested);
    if (batch != NULL && error == BB_EOVERFLOW && batch->behind != NULL) {
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str("client"));
        bb_mp_write_uint(&core->nested, batch->behind->client->number);
        detail = bb_buf_slice(&core->nested);
    } else if (batch != NULL && (error == BB_EMALFORMED || error == BB_ETOODEEP)) {
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str("index"));
        bb_mp_write_uint(&core->nested, batch->n_events);
        detail = bb_buf_slice(&core->nested);
    }
    bk_client_send_error(core, client, BB_MSG_PUBLISH, msg->number, error, NULL, detail);
    if (batch != NULL && (error == BB_EMALFORMED || error == BB_ETOODEEP)) {
        bk_client_strike(core, client);
    }
}

/* --- the whole ------------------------------------------------------------------------------------ */

/* Memory that is alive beyond what rings and clients may hold: someone holds on to more than was foreseen. */
static bool memory_is_used_up(const struct bk_core *core)
{
    size_t alive = atomic_load_explicit(&core->meter.bytes, memory_order_relaxed);
    return alive > 2 * (core->config.memory_bytes + core->config.inflight_all);
}

/* Whether the batch may be looked at. */
static int admit(struct bk_core *core, const struct bb_msg *msg)
{
    if (core->shutting_down) {
        return BB_ESHUTDOWN;
    }
    if (msg->level > BB_LEVEL_ROUTED) {
        return BB_EUNSUPPORTED;
    }
    while (memory_is_used_up(core) && bk_ring_evict(&core->ring)) { /* small blocks may pin large bytes */
    }
    return memory_is_used_up(core) ? BB_ENOMEM : 0;
}

/* What was refused whole is refused again when it is repeated: the first answer may have been lost. */
static void note_outcome(const struct bk_client *client, uint64_t number, int outcome)
{
    if (client != NULL && client->producer != NULL && number != 0) {
        client->producer->outcomes[number % BK_OUTCOMES] = (int8_t)outcome;
    }
}

static int find_outcome(const struct bk_client *client, uint64_t number)
{
    const struct bk_producer *producer = client->producer;
    bool is_known = producer != NULL && number != 0 && producer->last - number < BK_OUTCOMES;
    return is_known ? producer->outcomes[number % BK_OUTCOMES] : 0;
}

static int take_number(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    uint64_t *last = client->producer != NULL ? &client->producer->last : &client->last_number;
    if (msg->number <= *last) {
        int outcome = find_outcome(client, msg->number);
        if (outcome < 0) {
            refuse_batch(core, client, msg, NULL, outcome);
        } else {
            ack_repeated(core, client, msg);
        }
        return BB_EEXISTS;
    }
    if (msg->number > *last + 1) {
        refuse_batch(core, client, msg, NULL, BB_ESEQUENCE);
        return BB_ESEQUENCE;
    }
    *last = msg->number;
    note_outcome(client, msg->number, 0);
    return 0;
}

static void count_batch(struct bk_core *core, struct bk_client *client, const struct batch *batch)
{
    uint32_t taken = batch->n_events - batch->n_refused;
    bk_count(core, BK_COUNTER_publishes, 1);
    bk_count(core, BK_COUNTER_events_refused, batch->n_refused);
    bk_count(core, BK_COUNTER_events_unmatched, batch->unmatched);
    if (client != NULL) {
        client->events_in += taken;
    } else {
        bk_count(core, BK_COUNTER_ingest_events, taken);
    }
}

/* Fire and forget has no ack that could carry refusals: they are errors. */
static void
answer(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, const struct batch *batch)
{
    if (client == NULL) {
        return;
    }
    if (msg->number != 0) {
        ack_batch(client, msg, batch);
    } else if (batch->n_refused > 0) {
        bb_buf_reset(&core->nested);
        bb_mp_write_map(&core->nested, 1);
        bb_mp_write_str(&core->nested, bb_slice_str("refused"));
        bb_mp_write_array(&core->nested, batch->n_refused);
        bb_buf_append(&core->nested, batch->refused->data, batch->refused->len);
        if (core->nested.error != 0 || batch->refused->error != 0) {
            bk_client_send_away(core, client, BB_ENOMEM, NULL);
            return;
        }
        bk_client_send_error(core, client, BB_MSG_PUBLISH, 0, BB_EEVENT, NULL, bb_buf_slice(&core->nested));
    }
}

int bk_publish(struct bk_core *core,
               struct bk_client *client,
               const struct bb_msg *msg,
               struct bb_slice events,
               struct bk_bytes *owner)
{
    struct batch batch = {.core = core, .matches = UINT64_MAX, .refused = &core->refused};
    int r = 0;
    bk_fan_out_if_due(core);
    if (client != NULL && client->state == BK_CLIENT_GONE) {
        return BB_ECLOSED; /* the fan-out found out; the number is not used up */
    }
    if (client != NULL && msg->number != 0) {
        r = take_number(core, client, msg);
        if (r < 0) {
            return r;
        }
    }
    bb_buf_reset(&core->runs);
    bb_buf_reset(&core->refused);
    r = admit(core, msg);
    if (r == 0) {
        r = scan_batch(&batch, events);
    }
    if (r == 0 && batch.behind != NULL) {
        r = BB_EOVERFLOW;
    }
    if (r == 0) {
        r = keep_runs(&batch, client, owner);
    }
    if (r < 0) {
        note_outcome(client, msg->number, r);
        refuse_batch(core, client, msg, &batch, r);
        return r;
    }
    count_batch(core, client, &batch);
    answer(core, client, msg, &batch);
    if (client != NULL && batch.n_refused > 0) {
        note_outcome(client, msg->number, BB_EUNKNOWNRESULT); /* which events, is not kept */
    }
    return 0;
}

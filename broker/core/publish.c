/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Publishing (PROTOCOL 6): a batch is scanned to its end and cut into runs of good events of one channel before
 * anything changes, so that a batch that cannot be taken leaves no trace; then each run becomes a block.
 */
#include "broker/core/state.h"

#include <stdlib.h>

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
    bool has_ttl;
    bool has_source_time;
    bool logged;
};

/* A batch while it is scanned. */
struct batch {
    struct bk_core *core;
    uint64_t level;      /* asked for */
    uint32_t n_logged;   /* runs for the log, */
    uint32_t n_unsynced; /* and those whose publisher need not wait for the disk */
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
        .has_ttl = event->has_ttl,
        .has_source_time = event->has_source_time,
        .logged = bk_store_of(core, path->channel) == BK_STORE_LOG,
    };
    batch->n_logged += run.logged;
    batch->n_unsynced += !run.logged || !path->channel->settings.sync;
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
    if (r == 0) {
        r = bk_stage_admit(batch->core, path->channel, batch->level);
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
    run->has_ttl = run->has_ttl || event->has_ttl;
    run->has_source_time = run->has_source_time || event->has_source_time;
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
    batch->n_logged = batch->n_unsynced = 0;
    for (size_t j = 0; j < i; j++) {
        const struct run *run = run_at(core, j);
        batch->n_logged += run->logged;
        batch->n_unsynced += !run->logged || !run->channel->settings.sync;
    }
    return 0;
}

/* Put one block where its channel is kept. */
static int keep_block(struct bk_core *core, const struct run *run, struct bk_block *block)
{
    block->uniform = run->uniform;
    block->has_ttl = run->has_ttl;
    block->has_source_time = run->has_source_time;
    int r = run->logged ? bk_stage_add(core, block) : bk_ring_push(&core->ring, block);
    if (r < 0) {
        bk_ring_drop(&core->ring, block);
        return r;
    }
    if (!run->logged) {
        run->channel->taken = run->channel->last;
        core->fanned_bytes += run->len;
        bk_memory_keep(core, block);
    }
    return 0;
}

static int keep_runs(struct batch *batch, const struct bk_client *client, struct bk_bytes *owner)
{
    struct bk_core *core = batch->core;
    uint64_t session = core->session + 1;
    uint64_t time = BB_MAX(core->session_time, core->wall); /* PROTOCOL 4: never goes back */
    for (size_t i = 0; i < n_runs(core); i++) {
        struct run *run = run_at(core, i);
        struct bk_block block;
        struct bb_block head = {
            .session = session,
            .time = time,
            .source = client != NULL ? client->number : 0,
            .sequence = run->channel->taken + 1,
            .instance = (uint64_t)run->first + 1,
            .count = run->count,
            .length = run->len,
        };
        int r = bk_ring_build(&core->ring, run->channel, &head, bb_slice(run->data, run->len), owner, &block);
        if (r == 0) {
            r = keep_block(core, run, &block);
        }
        if (r < 0) {
            return refuse_runs(batch, i);
        }
        run->sequence = head.sequence;
        core->session = session;
        core->session_time = time;
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

/* What a batch is acknowledged with (PROTOCOL 6.2). */
static void ack_write(struct bk_core *core, struct bk_client *client, const struct bk_waiting *ack)
{
    struct bb_buf *acks = &client->acks;
    ack_begin(core, client, ack->number, ack->level, ack->n_refused > 0 ? 5 : 4);
    if (ack->repeated) {
        bb_mp_write_nil(acks);
        bb_mp_write_nil(acks);
        return;
    }
    if (ack->matches == UINT64_MAX) {
        bb_mp_write_nil(acks);
    } else {
        bb_mp_write_uint(acks, ack->matches);
    }
    bb_mp_write_array(acks, (uint32_t)ack->n_runs);
    for (size_t i = 0; i < ack->n_runs; i++) {
        bb_mp_write_array(acks, 3);
        bb_mp_write_str(acks, ack->runs[i].channel->name);
        bb_mp_write_uint(acks, ack->runs[i].sequence);
        bb_mp_write_uint(acks, ack->runs[i].count);
    }
    if (ack->n_refused > 0) {
        bb_mp_write_array(acks, ack->n_refused);
        bb_buf_append(acks, ack->refused.data, ack->refused.len);
        acks->error = acks->error != 0 ? acks->error : ack->refused.error;
    }
}

static void waiting_free(struct bk_waiting *waiting)
{
    bb_buf_fini(&waiting->refused);
    free(waiting);
}

/* Acknowledge now, or in turn behind what waits for the log. Return: 0 or BB_ENOMEM. */
static int ack_or_wait(struct bk_core *core, struct bk_client *client, struct bk_waiting *ack)
{
    if (ack->ticket == 0 && client->waiting_first == NULL) {
        ack_write(core, client, ack);
        waiting_free(ack);
    } else {
        bk_stage_wait(core, client, ack);
    }
    return 0;
}

static void ack_repeated(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg)
{
    struct bk_waiting *ack = calloc(1, sizeof(*ack));
    bk_count(core, BK_COUNTER_batches_repeated, 1);
    if (ack == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, "no memory for acknowledgements");
        return;
    }
    ack->number = msg->number;
    ack->level = msg->level;
    ack->repeated = true;
    /* What the first one waits for is decided before: it is in the queue, or the connection that it came over has
     * ended, and then it was staged before what is staged now. */
    ack->ticket = core->stage.backend != NULL ? core->stage.ticket - !core->stage.has_news : 0;
    if (ack->ticket <= core->stage.durable) {
        ack->ticket = 0;
    }
    (void)ack_or_wait(core, client, ack);
}

/* The level that the batch reaches, and whether that takes the disk. */
static uint64_t level_reached(const struct batch *batch, bool *ret_waits)
{
    size_t n = n_runs(batch->core);
    *ret_waits = batch->level == BB_LEVEL_SYNCED || (batch->level == BB_LEVEL_NONE && n > batch->n_unsynced);
    *ret_waits = *ret_waits && batch->n_logged > 0;
    if (batch->level != BB_LEVEL_NONE) {
        return batch->level;
    }
    bool is_synced = n > 0 && batch->n_unsynced == 0 && batch->core->stage.backend->is_durable;
    return is_synced ? BB_LEVEL_SYNCED : BB_LEVEL_ACCEPTED;
}

static void ack_batch(struct bk_client *client, const struct bb_msg *msg, const struct batch *batch)
{
    struct bk_core *core = batch->core;
    bool waits = false;
    size_t n = n_runs(core);
    struct bk_waiting *ack = calloc(1, sizeof(*ack) + n * sizeof(ack->runs[0]));
    if (ack == NULL) {
        bk_client_send_away(core, client, BB_ENOMEM, "no memory for acknowledgements");
        return;
    }
    ack->number = msg->number;
    ack->level = level_reached(batch, &waits);
    ack->ticket = waits ? core->stage.ticket : 0;
    ack->matches = msg->level < BB_LEVEL_ROUTED ? UINT64_MAX : n > 0 ? batch->matches : 0;
    ack->n_refused = batch->n_refused;
    bb_buf_append(&ack->refused, batch->refused->data, batch->refused->len);
    ack->refused.error = ack->refused.error != 0 ? ack->refused.error : batch->refused->error;
    ack->n_runs = n;
    for (size_t i = 0; i < n; i++) {
        const struct run *run = run_at(core, i);
        ack->runs[i] =
            (struct bk_waiting_run){run->channel, run->sequence, run->first, run->count, run->logged};
    }
    (void)ack_or_wait(core, client, ack);
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

/* What was refused whole is refused again when it is repeated: the first answer may have been lost. */
static void note_outcome(const struct bk_client *client, uint64_t number, int outcome)
{
    if (client != NULL && client->producer != NULL && number != 0) {
        bk_producer_note(client->producer, number, outcome);
    }
}

static int find_outcome(const struct bk_client *client, uint64_t number)
{
    const struct bk_producer *producer = client->producer;
    bool is_known = producer != NULL && number != 0 && producer->last - number < BK_OUTCOMES;
    return is_known ? producer->outcomes[number % BK_OUTCOMES] : 0;
}

/* Of a batch whose events for the log have failed: what is left of it. */
static void strike_out(struct bk_waiting *waiting, int error)
{
    size_t kept = 0;
    for (size_t i = 0; i < waiting->n_runs; i++) {
        const struct bk_waiting_run *run = &waiting->runs[i];
        if (!run->logged) {
            waiting->runs[kept++] = *run;
            continue;
        }
        for (uint32_t k = 0; k < run->count; k++) {
            bb_mp_write_array(&waiting->refused, 2);
            bb_mp_write_uint(&waiting->refused, run->first + k);
            bb_mp_write_str(&waiting->refused, bb_slice_str(bb_errcode(error)));
            waiting->n_refused++;
        }
    }
    waiting->n_runs = kept;
    waiting->level = BB_MIN(waiting->level, BB_LEVEL_ACCEPTED);
}

int bk_waiting_outcome(const struct bk_waiting *waiting, int error)
{
    bool has_others = waiting->n_refused > 0;
    for (size_t i = 0; i < waiting->n_runs; i++) {
        has_others = has_others || !waiting->runs[i].logged;
    }
    return has_others ? BB_EUNKNOWNRESULT : error;
}

/* What is known of the first one: @error came over it, or over a later one only. */
static void answer_repeated(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting)
{
    int outcome = find_outcome(client, waiting->number);
    if (outcome < 0) {
        struct bb_msg msg = {.number = waiting->number};
        refuse_batch(core, client, &msg, NULL, outcome);
    } else {
        ack_write(core, client, waiting);
    }
}

void bk_ack_waiting(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting)
{
    int error = waiting->error;
    if (waiting->repeated) {
        answer_repeated(core, client, waiting);
    } else if (error != 0 && waiting->ticket != 0) {
        int outcome = bk_waiting_outcome(waiting, error);
        struct bb_msg msg = {.number = waiting->number};
        note_outcome(client, waiting->number, outcome);
        strike_out(waiting, error);
        if (outcome == error) {
            refuse_batch(core, client, &msg, NULL, error);
        } else {
            ack_write(core, client, waiting);
        }
    } else {
        ack_write(core, client, waiting);
    }
    waiting_free(waiting);
}

void bk_producer_note(struct bk_producer *producer, uint64_t number, int outcome)
{
    producer->outcomes[number % BK_OUTCOMES] = (int8_t)outcome;
    if (outcome != 0) {
        producer->refused = BB_MAX(producer->refused, number);
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
    if (msg->level > (core->stage.backend != NULL ? BB_LEVEL_SYNCED : BB_LEVEL_ROUTED)) {
        return BB_EUNSUPPORTED;
    }
    while (memory_is_used_up(core) && bk_ring_evict(&core->ring)) { /* small blocks may pin large bytes */
    }
    return memory_is_used_up(core) ? BB_ENOMEM : 0;
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
    bool may_jump = client->producer != NULL && client->producer->is_restored;
    if (msg->number > *last + 1 && !may_jump) {
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
    struct batch batch = {
        .core = core, .level = msg->level, .matches = UINT64_MAX, .refused = &core->refused};
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
    bk_memory_register(core);
    count_batch(core, client, &batch);
    if (batch.n_logged > 0 && client != NULL && client->producer != NULL && msg->number != 0) {
        bk_stage_producer(core, client->producer);
    }
    answer(core, client, msg, &batch);
    if (client != NULL && batch.n_refused > 0) {
        note_outcome(client, msg->number, BB_EUNKNOWNRESULT); /* which events, is not kept */
    }
    return 0;
}

/* The same as @detail, for a person. */
static void write_conflict(struct bb_buf *out, struct bb_slice detail)
{
    struct bb_mp_reader reader = bb_mp_reader(detail);
    (void)bb_mp_read_map(&reader);
    struct bb_slice what = bb_mp_read_str(&reader);
    struct bb_slice name = bb_mp_read_str(&reader);
    (void)bb_mp_read_str(&reader);
    uint64_t last = bb_mp_read_uint(&reader);
    bb_buf_printf(out, "the newest of the %.*s '%.*s' is %llu", (int)what.len, (const char *)what.data,
                  (int)name.len, name.len > 0 ? (const char *)name.data : "", (unsigned long long)last);
}

void bk_publish_refuse(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg, int error)
{
    struct bb_buf detail = BB_BUF_INIT;
    struct bb_buf text = BB_BUF_INIT;
    if (error == BB_ECONFLICT) {
        bb_buf_append(&detail, core->nested.data, core->nested.len);
        write_conflict(&text, bb_buf_slice(&detail));
    }
    if (msg->number == 0 || take_number(core, client, msg) == 0) {
        note_outcome(client, msg->number, error);
        bk_count(core, BK_COUNTER_batches_refused, 1);
        bk_client_send_error(core, client, BB_MSG_PUBLISH, msg->number, error,
                             text.error == 0 && text.len > 0 ? bb_buf_string(&text) : NULL,
                             bb_buf_slice(&detail));
    }
    bb_buf_fini(&text);
    bb_buf_fini(&detail);
}

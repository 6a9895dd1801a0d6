/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/batch.h"

#include "broker/core/deliver/overflow.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"
#include "broker/core/subs/route.h"

static void refuse_event(struct bk_batch *batch, uint32_t index, int error)
{
    bb_mp_write_array(batch->refused, 2);
    bb_mp_write_uint(batch->refused, index);
    bb_mp_write_str(batch->refused, bb_slice_str(bb_errcode(error)));
    batch->n_refused++;
    batch->run = NULL;
}

static void find_who_refuses(struct bk_batch *batch, const struct bk_set *set)
{
    for (uint32_t i = 0; i < set->n_subs && batch->behind == NULL; i++) {
        if (bk_overflow_refuses(set->subs[i])) {
            batch->behind = set->subs[i];
        }
    }
}

/* The path of an event; the previous one's without a look-up if it is the same again. */
static int find_path(struct bk_core *core,
                     struct bk_batch *batch,
                     const struct bb_event_view *event,
                     const struct bk_path **ret_path)
{
    struct bk_path *path = NULL;
    if (batch->run != NULL && bb_slice_equal(batch->run->path->path, event->path)) {
        *ret_path = batch->run->path;
        return 0;
    }
    if (event->path.len > 0 && event->path.data[0] == '$') {
        return BB_EREFUSED; /* PROTOCOL 3: the broker's own channels */
    }
    int r = bk_route_find(&core->route, event->path, &path);
    if (r == 0) {
        r = bk_route_channel(&core->route, path);
    }
    if (r == 0) {
        r = bk_stage_admit(core, path->channel, batch->level);
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

static int start_run(struct bk_core *core,
                     struct bk_batch *batch,
                     const struct bb_event_view *event,
                     const struct bk_path *path)
{
    struct bk_run run = {
        .data = event->raw.data,
        .len = event->raw.len,
        .first = batch->n_events,
        .count = 1,
        .channel = path->channel,
        .path = path,
        .is_uniform = true,
        .has_ttl = event->has_ttl,
        .has_source_time = event->has_source_time,
        .is_logged = bk_store_of(core, path->channel) == BK_STORE_LOG,
    };
    bb_buf_append(batch->runs, &run, sizeof(run));
    if (batch->runs->error != 0) {
        return batch->runs->error;
    }
    batch->run = bk_batch_run(batch, bk_batch_n_runs(batch) - 1);
    return 0;
}

static void extend_run(struct bk_run *run, const struct bb_event_view *event, const struct bk_path *path)
{
    run->len += event->raw.len;
    run->count++;
    run->is_uniform = run->is_uniform && run->path == path;
    run->has_ttl = run->has_ttl || event->has_ttl;
    run->has_source_time = run->has_source_time || event->has_source_time;
    run->path = path;
}

static int add_event(struct bk_core *core, struct bk_batch *batch, const struct bb_event_view *event)
{
    const struct bk_path *path = NULL;
    int error = event->error != 0 ? event->error : find_path(core, batch, event, &path);
    if (error == BB_ENOMEM) {
        return error;
    }
    if (error != 0) {
        refuse_event(batch, batch->n_events, error);
        return batch->refused->error;
    }
    batch->matches = BB_MIN(batch->matches, path->set->n_subs);
    batch->unmatched += path->set->n_subs == 0;
    if (batch->run == NULL || batch->run->channel != path->channel) {
        return start_run(core, batch, event, path);
    }
    extend_run(batch->run, event, path);
    return 0;
}

/* What the batch is by its runs. */
static void sum_up(struct bk_batch *batch)
{
    batch->n_logged = batch->n_unsynced = 0;
    batch->log_bytes = 0;
    for (size_t i = 0; i < bk_batch_n_runs(batch); i++) {
        const struct bk_run *run = bk_batch_run(batch, i);
        batch->n_logged += run->is_logged;
        batch->n_unsynced += !run->is_logged || !run->channel->settings.sync;
        batch->log_bytes += run->is_logged ? run->len + BK_ENTRY_SIZE : 0;
    }
}

int bk_batch_scan(struct bk_core *core, struct bk_batch *batch, struct bb_slice events)
{
    struct bb_event_view event;
    while (events.len > 0) {
        int r = bb_event_read(&events, &event);
        if (r == 0) {
            r = batch->n_events < BB_EVENTS_MAX ? add_event(core, batch, &event) : BB_ETOOBIG;
        }
        if (r < 0) {
            return r;
        }
        batch->n_events++;
    }
    sum_up(batch);
    return 0;
}

void bk_batch_cut(struct bk_batch *batch, size_t i, int error)
{
    for (size_t j = i; j < bk_batch_n_runs(batch); j++) {
        const struct bk_run *run = bk_batch_run(batch, j);
        for (uint32_t k = 0; k < run->count; k++) {
            refuse_event(batch, run->first + k, error);
        }
    }
    batch->runs->len = i * sizeof(struct bk_run);
    sum_up(batch);
}

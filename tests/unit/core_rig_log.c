/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/batch.h"
#include "broker/backend/registry.h"
#include "tests/unit/core_rig.h"

#include <stdlib.h>

struct rig_ticket {
    struct rig_ticket *next;
    uint64_t ticket;
    struct bb_buf payload;
};

static struct rig_log *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct rig_log, backend);
}

/* --- what is durable -------------------------------------------------------------------------------------- */

/* One entry at a time: all of them must be taken. Producers and cursors are of no interest to the backend in memory. */
static void keep(struct rig_log *log, struct bk_batch_entry *entry)
{
    struct bk_append append = {0};
    if (entry->kind == BK_BATCH_CHANNEL) {
        append = (struct bk_append){.channels = &entry->channel, .n_channels = 1};
    } else if (entry->kind == BK_BATCH_BLOCK) {
        append = (struct bk_append){.blocks = &entry->block, .n_blocks = 1};
    } else {
        return;
    }
    cr_assert_eq(log->kept->ops->register_(log->kept, &append, ++log->kept_ticket), 0);
    cr_assert(entry->kind == BK_BATCH_CHANNEL || entry->block.error == 0);
    log->kept->ops->dispatch(log->kept);
}

bool rig_log_commit(struct rig_log *log)
{
    struct rig_ticket *ticket = log->queue;
    struct bk_batch_entry entry;
    if (ticket == NULL) {
        return false;
    }
    struct bb_slice rest = bb_buf_slice(&ticket->payload);
    while (bk_batch_next(&rest, &entry) > 0) {
        keep(log, &entry);
    }
    bb_buf_append(&log->rows, ticket->payload.data, ticket->payload.len);
    uint64_t number = ticket->ticket;
    log->queue = ticket->next;
    bb_buf_fini(&ticket->payload);
    free(ticket);
    log->listener->flushed(log->listener->context, number, 0);
    return true;
}

static uint64_t drop_queue(struct rig_log *log)
{
    uint64_t first = log->queue != NULL ? log->queue->ticket : 0;
    while (log->queue != NULL) {
        struct rig_ticket *ticket = log->queue;
        log->queue = ticket->next;
        bb_buf_fini(&ticket->payload);
        free(ticket);
    }
    return first;
}

void rig_fail(struct rig *rig, int error)
{
    struct rig_log *log = rig->log;
    uint64_t first = drop_queue(log);
    cr_assert_neq(first, 0, "nothing waits that could fail");
    log->listener->flushed(log->listener->context, first, error);
    bk_core_flush(rig->core);
}

bool rig_log_answer(struct rig_log *log)
{
    struct bk_request *request = log->requests;
    if (request == NULL) {
        return false;
    }
    log->requests = request->next;
    if (log->answer_error != 0) {
        request->error = log->answer_error;
        request->done(request->context, request);
        return true;
    }
    log->kept->ops->submit(log->kept, request);
    log->kept->ops->dispatch(log->kept);
    return true;
}

/* --- loading ------------------------------------------------------------------------------------------------ */

/* Where a channel was and where it is: of all entries for it the newest counts. */
struct loading {
    const struct rig_log *log;
    const struct bk_backend_loader *loader;
};

static bool is_same(const struct bk_batch_entry *a, const struct bk_batch_entry *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    return a->kind == BK_BATCH_CHANNEL ? a->channel.id == b->channel.id
           : a->kind == BK_BATCH_PRODUCER
               ? memcmp(a->producer.key, b->producer.key, sizeof(a->producer.key)) == 0
           : a->kind == BK_BATCH_CURSOR ? bb_slice_equal(a->cursor.name, b->cursor.name)
                                        : false;
}

static bool is_newest(struct bb_slice rest, const struct bk_batch_entry *entry)
{
    struct bk_batch_entry later;
    while (bk_batch_next(&rest, &later) > 0) {
        if (is_same(entry, &later)) {
            return false;
        }
    }
    return true;
}

static void load_bounds(const struct rig_log *log, struct bk_log_channel *channel)
{
    struct bb_slice rest = bb_buf_slice(&log->rows);
    struct bk_batch_entry entry;
    channel->first = 1;
    while (bk_batch_next(&rest, &entry) > 0) {
        if (entry.kind == BK_BATCH_BLOCK && entry.block.channel == channel->id) {
            channel->last = entry.block.head.sequence + entry.block.head.count - 1;
            channel->events += entry.block.head.count;
        }
    }
    channel->first = channel->events > 0 ? 1 : channel->last + 1;
}

static int load_entry(const struct loading *loading, struct bk_batch_entry *entry)
{
    const struct bk_backend_loader *loader = loading->loader;
    switch (entry->kind) {
    case BK_BATCH_CHANNEL:
        load_bounds(loading->log, &entry->channel);
        return loader->channel(loader->context, &entry->channel);
    case BK_BATCH_PRODUCER:
        return entry->producer.removed ? 0 : loader->producer(loader->context, &entry->producer);
    case BK_BATCH_CURSOR:
        return entry->cursor.removed ? 0 : loader->cursor(loader->context, &entry->cursor);
    case BK_BATCH_BLOCK:
        break;
    }
    return 0;
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    const struct rig_log *log = of(backend);
    const struct loading loading = {log, loader};
    struct bb_slice rest = bb_buf_slice(&log->rows);
    struct bk_batch_entry entry;
    int r = 0;
    while (r == 0 && bk_batch_next(&rest, &entry) > 0) {
        if (is_newest(rest, &entry)) {
            r = load_entry(&loading, &entry);
        }
    }
    return r;
}

/* --- the contract ------------------------------------------------------------------------------------------- */

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct rig_log *log = of(backend);
    struct rig_ticket **end = &log->queue;
    if (log->refusal != 0) {
        return log->refusal;
    }
    while (*end != NULL) {
        end = &(*end)->next;
    }
    struct rig_ticket *added = calloc(1, sizeof(*added));
    cr_assert_not_null(added);
    for (size_t i = 0; i < append->n_blocks; i++) {
        append->blocks[i].error = log->block_error;
    }
    added->ticket = ticket;
    cr_assert_eq(bk_batch_encode(&added->payload, append), 0);
    *end = added;
    log->n_registered++;
    log->listener->registered(log->listener->context, ticket);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    struct bk_backend *kept = of(backend)->kept;
    kept->ops->get_last_event_id(kept, server, ret_id, ret_time);
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct bk_request **end = &of(backend)->requests;
    while (*end != NULL) {
        end = &(*end)->next;
    }
    request->next = NULL;
    request->error = 0;
    *end = request;
}

static int op_fd(struct bk_backend *backend)
{
    (void)backend;
    return -1;
}

static void op_dispatch(struct bk_backend *backend)
{
    (void)backend;
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    (void)backend;
    bb_buf_append(out, "\x80", 1);
}

static const struct bk_backend_ops ops = {
    .load = op_load,
    .register_ = op_register,
    .get_last_event_id = op_get_last,
    .submit = op_submit,
    .fd = op_fd,
    .dispatch = op_dispatch,
    .status = op_status,
    .close = op_dispatch, /* rig_log_free() ends it */
};

/* --- the whole ---------------------------------------------------------------------------------------------- */

static void ignore_ticket(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void ignore_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static void pass_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct rig_log *log = context;
    if (log->listener != NULL) {
        log->listener->trimmed(log->listener->context, channel, first);
    }
}

static void ignore_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    (void)state;
    (void)text;
}

struct rig_log *rig_log_new(void)
{
    struct rig_log *log = calloc(1, sizeof(*log));
    struct bb_buf err = BB_BUF_INIT;
    cr_assert_not_null(log);
    log->backend = (struct bk_backend){&ops, true, SIZE_MAX};
    log->kept_listener =
        (struct bk_backend_listener){log, ignore_ticket, ignore_flushed, pass_trimmed, ignore_state};
    struct bk_backend_env env = {.listener = &log->kept_listener, .meter = &log->meter};
    cr_assert_eq(bk_backend_open("memory", NULL, 0, &env, &log->kept, &err), 0);
    bb_buf_fini(&err);
    return log;
}

void rig_log_open(struct rig_log *log, const struct bk_backend_listener *listener)
{
    log->listener = listener;
    log->refusal = log->block_error = log->answer_error = 0;
}

void rig_log_crash(struct rig_log *log)
{
    while (log->requests != NULL) {
        struct bk_request *request = log->requests;
        log->requests = request->next;
        request->error = BB_ECLOSED;
        request->done(request->context, request);
    }
    (void)drop_queue(log);
    log->listener = NULL;
}

void rig_log_free(struct rig_log *log)
{
    log->kept->ops->close(log->kept);
    bb_buf_fini(&log->rows);
    free(log);
}

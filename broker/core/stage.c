/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stage: events of logged channels between being taken and being durable. They have their sequences already but nobody
 * sees them. With each flush what was staged is registered with the log under one ticket; when the ticket is
 * durable its blocks go into the ring, from where on they live like all others, and the batches that waited for it are
 * acknowledged. A ticket that fails takes everything staged after it along, since sequences are contiguous.
 */
#include "broker/core/state.h"

#include <inttypes.h>
#include <stdlib.h>

/* Failures of the log are told no more often than this. */
#define FAILURE_PAUSE_US UINT64_C(1000000)

static size_t n_staged(const struct bk_stage *stage)
{
    return stage->blocks.len / sizeof(struct bk_staged);
}

static struct bk_staged *staged_at(const struct bk_stage *stage, size_t i)
{
    return (struct bk_staged *)(void *)stage->blocks.data + i;
}

static size_t n_removed(const struct bk_stage *stage)
{
    return stage->removed.len / sizeof(struct bk_removed);
}

static struct bk_removed *removed_at(const struct bk_stage *stage, size_t i)
{
    return (struct bk_removed *)(void *)stage->removed.data + i;
}

/* Removals of tickets up to @durable are done; those of @failed on are to be registered again. */
static void removals_release(struct bk_stage *stage, uint64_t durable, uint64_t failed)
{
    size_t kept = 0;
    for (size_t i = 0; i < n_removed(stage); i++) {
        struct bk_removed *removed = removed_at(stage, i);
        if (removed->ticket != 0 && removed->ticket <= durable) {
            continue;
        }
        removed->ticket = removed->ticket >= failed ? 0 : removed->ticket;
        *removed_at(stage, kept++) = *removed;
    }
    stage->removed.len = kept * sizeof(struct bk_removed);
}

enum bk_store bk_store_of(const struct bk_core *core, const struct bk_channel *channel)
{
    return channel->settings.logged && core->stage.backend != NULL ? BK_STORE_LOG : BK_STORE_MEMORY;
}

int bk_stage_admit(const struct bk_core *core, const struct bk_channel *channel, uint64_t level)
{
    const struct bk_stage *stage = &core->stage;
    if (bk_store_of(core, channel) == BK_STORE_MEMORY) {
        return level >= BB_LEVEL_SYNCED ? BB_EUNSUPPORTED : 0;
    }
    if (level >= BB_LEVEL_SYNCED && !stage->backend->is_durable) {
        return BB_EUNSUPPORTED;
    }
    if (stage->is_broken) {
        return BB_ELOGFAILED;
    }
    if (stage->state != BK_BACKEND_OK) {
        return stage->state == BK_BACKEND_FULL ? BB_ELOGFULL : BB_ELOGFAILED;
    }
    return stage->is_behind ? BB_EFULL : 0; /* who can be paused is, before it comes to this */
}

int bk_stage_add(struct bk_core *core, const struct bk_block *block)
{
    struct bk_stage *stage = &core->stage;
    struct bk_staged staged = {*block, stage->ticket};
    bb_buf_append(&stage->blocks, &staged, sizeof(staged));
    if (stage->blocks.error != 0) {
        stage->blocks.error = 0; /* what is staged already stays */
        return BB_ENOMEM;
    }
    stage->bytes += sizeof(staged) + block->head_len + block->body_len;
    stage->is_behind = stage->is_behind || stage->bytes > core->config.stage_bytes;
    stage->has_news = true;
    block->channel->taken = block->sequence + block->count - 1;
    return 0;
}

void bk_stage_producer(struct bk_core *core, struct bk_producer *producer)
{
    if (!producer->is_staged) {
        producer->is_staged = true;
        producer->next_staged = core->stage.producers;
        core->stage.producers = producer;
    }
    core->stage.has_news = true;
}

void bk_stage_drop_producer(struct bk_core *core, struct bk_producer *producer)
{
    struct bk_stage *stage = &core->stage;
    struct bk_log_producer entry = {.removed = true};
    for (struct bk_producer **at = &stage->producers; *at != NULL; at = &(*at)->next_staged) {
        if (*at == producer) {
            *at = producer->next_staged;
            break;
        }
    }
    if (stage->backend != NULL) {
        memcpy(entry.key, producer->key, sizeof(entry.key));
        bb_buf_append(&stage->forgotten, &entry, sizeof(entry));
        stage->forgotten.error = 0; /* it may stay in the log without harm */
        stage->has_news = true;
    }
}

/* --- batches that wait ------------------------------------------------------------------------------ */

static void waiting_link(struct bk_core *core, struct bk_client *client)
{
    client->prev_waiting = NULL;
    client->next_waiting = core->stage.waiting;
    if (client->next_waiting != NULL) {
        client->next_waiting->prev_waiting = client;
    }
    core->stage.waiting = client;
}

static void waiting_unlink(struct bk_core *core, struct bk_client *client)
{
    *(client->prev_waiting != NULL ? &client->prev_waiting->next_waiting : &core->stage.waiting) =
        client->next_waiting;
    if (client->next_waiting != NULL) {
        client->next_waiting->prev_waiting = client->prev_waiting;
    }
}

void bk_stage_wait(struct bk_core *core, struct bk_client *client, struct bk_waiting *waiting)
{
    waiting->next = NULL;
    if (client->waiting_first == NULL) {
        waiting_link(core, client);
        client->waiting_first = waiting;
    } else {
        client->waiting_last->next = waiting;
    }
    client->waiting_last = waiting;
    client->n_waiting++;
}

static struct bk_waiting *waiting_take(struct bk_core *core, struct bk_client *client)
{
    struct bk_waiting *waiting = client->waiting_first;
    client->waiting_first = waiting->next;
    client->n_waiting--;
    if (client->waiting_first == NULL) {
        waiting_unlink(core, client);
    }
    return waiting;
}

static void waiting_free(struct bk_waiting *waiting)
{
    bb_buf_fini(&waiting->refused);
    free(waiting);
}

void bk_stage_forget(struct bk_core *core, struct bk_client *client)
{
    while (client->waiting_first != NULL) {
        struct bk_waiting *waiting = waiting_take(core, client);
        if (client->producer == NULL || waiting->ticket == 0 || waiting->repeated) {
            waiting_free(waiting);
            continue;
        }
        if (waiting->error != 0) {
            bk_producer_note(client->producer, waiting->number, bk_waiting_outcome(waiting, waiting->error));
            waiting_free(waiting);
            continue;
        }
        memcpy(waiting->producer, client->producer->key, sizeof(waiting->producer));
        waiting->next = core->stage.orphans;
        core->stage.orphans = waiting;
    }
}

/* Nobody waits for these any more, but whether they failed must be known when they are repeated. */
static void release_orphans(struct bk_core *core, uint64_t durable, uint64_t failed, int error)
{
    struct bk_waiting **at = &core->stage.orphans;
    while (*at != NULL) {
        struct bk_waiting *waiting = *at;
        if (waiting->ticket > durable && waiting->ticket < failed) {
            at = &waiting->next;
            continue;
        }
        struct bk_producer *producer =
            bb_map_find(&core->producers, bb_slice(waiting->producer, sizeof(waiting->producer)));
        if (waiting->ticket >= failed && producer != NULL) {
            bk_producer_note(producer, waiting->number, bk_waiting_outcome(waiting, error));
        }
        *at = waiting->next;
        waiting_free(waiting);
    }
}

/* Batches are answered in their order: one that has failed may have to wait for those before it, and its ticket will be
 * another one's. */
static void mark_failed(struct bk_client *client, uint64_t failed, int error)
{
    for (struct bk_waiting *waiting = client->waiting_first; waiting != NULL; waiting = waiting->next) {
        if (waiting->ticket >= failed && waiting->error == 0) {
            waiting->error = error;
        }
    }
}

/* Acknowledge what waited for tickets up to @durable; from @failed on tickets have failed with @error. */
static void release(struct bk_core *core, uint64_t durable, uint64_t failed, int error)
{
    release_orphans(core, durable, failed, error);
    bool fanning = core->fanning;
    core->fanning = true; /* a client that goes now must not take others from under this loop */
    for (struct bk_client *client = core->stage.waiting, *next = NULL; client != NULL; client = next) {
        next = client->next_waiting;
        if (error != 0) {
            mark_failed(client, failed, error);
        }
        while (client->waiting_first != NULL &&
               (client->waiting_first->error != 0 || client->waiting_first->ticket <= durable)) {
            bk_ack_waiting(core, client, waiting_take(core, client));
        }
    }
    core->fanning = fanning;
    if (!fanning) {
        bk_fanning_end(core);
    }
}

/* --- registering ----------------------------------------------------------------------------------- */

struct bk_log_block bk_log_block_of(const struct bk_core *core, const struct bk_block *block)
{
    return (struct bk_log_block){
        .channel = block->channel->id,
        .flags = (block->uniform ? (uint32_t)BK_LOG_UNIFORM : 0) |
                 (block->has_ttl ? (uint32_t)BK_LOG_TTL : 0) |
                 (block->has_source_time ? (uint32_t)BK_LOG_SOURCE_TIME : 0),
        .server = core->config.server,
        .head =
            {
                .session = block->session,
                .time = block->time,
                .source = block->source,
                .sequence = block->sequence,
                .instance = block->instance,
                .count = block->count,
                .length = block->body_len,
            },
        .events = block->body,
        .owner = block->body_bytes != NULL ? block->body_bytes : block->head_bytes,
    };
}

struct bk_log_channel bk_log_channel_of(const struct bk_channel *channel, struct bb_buf *settings)
{
    size_t start = settings->len;
    struct bb_buf members = BB_BUF_INIT;
    uint32_t n = bk_settings_write(&members, &channel->settings);
    bb_mp_write_map(settings, n);
    bb_buf_append(settings, members.data, members.len);
    settings->error = settings->error != 0 ? settings->error : members.error;
    bb_buf_fini(&members);
    return (struct bk_log_channel){
        .id = channel->id,
        .name = channel->name,
        .retention = channel->settings.retention,
        .settings = bb_slice(settings->data + start, settings->len - start),
    };
}

/* What is registered under one ticket, while it is put together. */
struct append {
    struct bb_buf channels;
    struct bb_buf blocks;
    struct bb_buf producers;
    struct bb_buf cursors;
    struct bb_buf text; /* what their slices point into */
};

static void append_fini(struct append *append)
{
    bb_buf_fini(&append->channels);
    bb_buf_fini(&append->blocks);
    bb_buf_fini(&append->producers);
    bb_buf_fini(&append->cursors);
    bb_buf_fini(&append->text);
}

/* Room that the notes and settings of one append need at most: slices into `text` must not move. */
static int reserve_text(struct append *append, const struct bk_core *core)
{
    size_t n = 0;
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        n += core->channels.list[i]->is_known[BK_STORE_LOG] ? 0 : 256;
    }
    for (const struct bk_producer *producer = core->stage.producers; producer != NULL;
         producer = producer->next_staged) {
        n += producer->refused != 0 ? BK_OUTCOMES * 16 : 0;
    }
    return n == 0 || bb_buf_reserve(&append->text, n) != NULL ? 0 : BB_ENOMEM;
}

static bool is_for_log(const struct bk_core *core, const struct bk_channel *channel)
{
    return !channel->is_known[BK_STORE_LOG] && channel->id != 0 &&
           (channel->is_named || (bk_store_of(core, channel) == BK_STORE_LOG && channel->taken > 0));
}

static void collect_channels(struct append *append, struct bk_core *core)
{
    for (size_t i = 0; i < n_removed(&core->stage); i++) {
        const struct bk_removed *removed = removed_at(&core->stage, i);
        if (removed->ticket == 0) {
            bb_buf_append(&append->channels, &removed->channel, sizeof(removed->channel));
        }
    }
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        const struct bk_channel *channel = core->channels.list[i];
        if (is_for_log(core, channel)) {
            struct bk_log_channel entry = bk_log_channel_of(channel, &append->text);
            bb_buf_append(&append->channels, &entry, sizeof(entry));
        }
    }
}

static void collect_blocks(struct append *append, const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    for (size_t i = n_staged(stage); i > stage->first && staged_at(stage, i - 1)->ticket == stage->ticket;
         i--) {
        append->blocks.len += sizeof(struct bk_log_block); /* counted first, since they lie at the end */
    }
    size_t n = append->blocks.len / sizeof(struct bk_log_block);
    append->blocks.len = 0;
    for (size_t i = n_staged(stage) - n; i < n_staged(stage); i++) {
        struct bk_log_block block = bk_log_block_of(core, &staged_at(stage, i)->block);
        bb_buf_append(&append->blocks, &block, sizeof(block));
    }
}

/* The refused numbers that are remembered, as [number, error, ...]. */
static struct bb_slice write_notes(struct bb_buf *out, const struct bk_producer *producer)
{
    size_t start = out->len;
    uint32_t n = 0;
    if (producer->refused == 0 || producer->last - producer->refused >= BK_OUTCOMES) {
        return (struct bb_slice){0};
    }
    uint64_t first = producer->last >= BK_OUTCOMES ? producer->last - BK_OUTCOMES + 1 : 1;
    for (uint64_t number = first; number <= producer->last; number++) {
        n += producer->outcomes[number % BK_OUTCOMES] != 0;
    }
    bb_mp_write_array(out, 2 * n);
    for (uint64_t number = first; number <= producer->last; number++) {
        if (producer->outcomes[number % BK_OUTCOMES] != 0) {
            bb_mp_write_uint(out, number);
            bb_mp_write_int(out, producer->outcomes[number % BK_OUTCOMES]);
        }
    }
    return bb_slice(out->data + start, out->len - start);
}

static void collect_producers(struct append *append, struct bk_core *core)
{
    bb_buf_append(&append->producers, core->stage.forgotten.data, core->stage.forgotten.len);
    for (struct bk_producer *producer = core->stage.producers; producer != NULL;
         producer = producer->next_staged) {
        struct bk_log_producer entry = {.last = producer->last, .time = core->wall};
        memcpy(entry.key, producer->key, sizeof(entry.key));
        entry.notes = write_notes(&append->text, producer);
        bb_buf_append(&append->producers, &entry, sizeof(entry));
    }
}

static void producers_clear(struct bk_stage *stage)
{
    while (stage->producers != NULL) {
        struct bk_producer *producer = stage->producers;
        stage->producers = producer->next_staged;
        producer->is_staged = false;
        producer->next_staged = NULL;
    }
}

static int collect(struct append *append, struct bk_core *core, struct bk_append *ret_append)
{
    int r = reserve_text(append, core);
    if (r < 0) {
        return r;
    }
    collect_channels(append, core);
    collect_blocks(append, core);
    collect_producers(append, core);
    bk_cursors_collect(core, &append->cursors);
    if (append->channels.error != 0 || append->blocks.error != 0 || append->producers.error != 0 ||
        append->cursors.error != 0 || append->text.error != 0) {
        return BB_ENOMEM;
    }
    *ret_append = (struct bk_append){
        .channels = (struct bk_log_channel *)(void *)append->channels.data,
        .n_channels = append->channels.len / sizeof(struct bk_log_channel),
        .blocks = (struct bk_log_block *)(void *)append->blocks.data,
        .n_blocks = append->blocks.len / sizeof(struct bk_log_block),
        .producers = (struct bk_log_producer *)(void *)append->producers.data,
        .n_producers = append->producers.len / sizeof(struct bk_log_producer),
        .cursors = (struct bk_log_cursor *)(void *)append->cursors.data,
        .n_cursors = append->cursors.len / sizeof(struct bk_log_cursor),
    };
    return 0;
}

/* The core numbers what it registers, so a refused block means that it and the backend disagree. */
static int find_refused(const struct bk_append *append)
{
    for (size_t i = 0; i < append->n_blocks; i++) {
        if (append->blocks[i].error != 0) {
            return append->blocks[i].error;
        }
    }
    return 0;
}

static void fail_from(struct bk_core *core, uint64_t ticket, int error);

void bk_stage_submit(struct bk_core *core)
{
    struct bk_stage *stage = &core->stage;
    if (!stage->has_news || stage->is_stalled || stage->backend == NULL) {
        return;
    }
    struct append append = {0};
    struct bk_append entries = {0};
    uint64_t ticket = stage->ticket;
    int r = collect(&append, core, &entries);
    if (r == 0) {
        r = stage->backend->ops->register_(stage->backend, &entries, ticket);
    }
    if (r == 0) {
        stage->has_news = false;
        for (size_t i = 0; i < n_removed(stage); i++) {
            struct bk_removed *removed = removed_at(stage, i);
            removed->ticket = removed->ticket == 0 ? ticket : removed->ticket;
        }
        stage->ticket++;
    }
    if (r == BB_EFULL && stage->durable + 1 < ticket) { /* what is on its way will make room */
        stage->is_stalled = stage->is_behind = true;
        append_fini(&append);
        return;
    }
    int refused = r == 0 ? find_refused(&entries) : 0;
    if (r == 0) {
        for (size_t i = 0; i < core->channels.n_channels; i++) {
            struct bk_channel *channel = core->channels.list[i];
            channel->is_known[BK_STORE_LOG] = channel->is_known[BK_STORE_LOG] || is_for_log(core, channel);
        }
    }
    append_fini(&append);
    bb_buf_reset(&stage->forgotten);
    producers_clear(stage);
    bk_cursors_collected(core);
    if (refused !=
        0) { /* they disagree about what comes next: nothing may be acknowledged that is not there */
        bk_log(
            core, BK_LOG_ERROR, "BB-LOG-REFUSED",
            "the log refused what the broker had numbered: %s; nothing is taken for it until the broker is "
            "started again",
            bb_strerror(refused));
        stage->is_broken = true;
        fail_from(core, ticket, BB_ELOGFAILED);
    }
    if (r < 0) {
        fail_from(core, ticket, r);
    }
}

/* --- outcomes ---------------------------------------------------------------------------------------- */

static void drop_gone(struct bk_stage *stage)
{
    if (stage->first == n_staged(stage)) {
        stage->first = 0;
        stage->blocks.len = 0;
    } else if (stage->first > n_staged(stage) / 2) {
        size_t left = n_staged(stage) - stage->first;
        memmove(stage->blocks.data, staged_at(stage, stage->first), left * sizeof(struct bk_staged));
        stage->blocks.len = left * sizeof(struct bk_staged);
        stage->first = 0;
    }
}

static void make_visible(struct bk_core *core, const struct bk_block *block)
{
    if (bk_ring_push(&core->ring, block) == 0) {
        core->fanned_bytes += block->body_len;
        return;
    }
    /* It is in the log: who reads that will find it; who is live is told to come again. */
    bk_log(core, BK_LOG_ERROR, "BB-MEMORY", "no memory for %" PRIu32 " events that are in the log",
           block->count);
    bk_ring_forget(&core->ring, block->channel);
    block->channel->last = block->sequence + block->count - 1;
    block->channel->first = block->channel->last + 1;
    bk_ring_drop(&core->ring, block);
    bk_send_all_away(core);
}

static void succeed_to(struct bk_core *core, uint64_t ticket)
{
    struct bk_stage *stage = &core->stage;
    while (stage->first < n_staged(stage) && staged_at(stage, stage->first)->ticket <= ticket) {
        struct bk_block block = staged_at(stage, stage->first)->block;
        stage->bytes -= sizeof(struct bk_staged) + block.head_len + block.body_len;
        stage->first++;
        stage->n_gone++;
        make_visible(core, &block);
    }
    drop_gone(stage);
    stage->durable = BB_MAX(stage->durable, ticket);
    release(core, ticket, UINT64_MAX, 0);
    removals_release(stage, ticket, UINT64_MAX);
    bk_held_release(core, ticket, UINT64_MAX, 0);
}

/* A log that is full fails for each publish: the person who reads of it needs one line, not all. */
static void tell_failure(struct bk_core *core, int error)
{
    struct bk_stage *stage = &core->stage;
    stage->n_untold++;
    if (stage->failure_told_at != 0 && core->monotonic < stage->failure_told_at + FAILURE_PAUSE_US) {
        return;
    }
    bk_log(core, BK_LOG_ERROR, "BB-LOG-FAILED", "events could not be written to the log, %llu times: %s",
           (unsigned long long)stage->n_untold, bb_strerror(error));
    stage->failure_told_at = BB_MAX(core->monotonic, 1);
    stage->n_untold = 0;
}

/* @ticket and those after it have failed. Earlier ones may still be on their way: nothing is said of those. */
static void fail_from(struct bk_core *core, uint64_t ticket, int error)
{
    struct bk_stage *stage = &core->stage;
    uint64_t durable = BB_MIN(stage->durable, ticket - 1);
    size_t keep = n_staged(stage);
    while (keep > stage->first && staged_at(stage, keep - 1)->ticket >= ticket) {
        const struct bk_block *block = &staged_at(stage, --keep)->block;
        stage->bytes -= sizeof(struct bk_staged) + block->head_len + block->body_len;
        block->channel->taken = block->sequence - 1; /* walked backwards: the lowest stays */
        bk_count(core, BK_COUNTER_log_refused, block->count);
        bk_ring_drop(&core->ring, block);
    }
    stage->blocks.len = keep * sizeof(struct bk_staged);
    drop_gone(stage);
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        core->channels.list[i]->is_known[BK_STORE_LOG] = false; /* told again: what was told may be lost */
    }
    stage->has_news = false; /* what was staged since fails too; its number is free again */
    if (ticket < stage->ticket) {
        stage->durable = stage->ticket - 1;
    }
    producers_clear(stage);
    tell_failure(core, error);
    bk_early_retract(core);
    release(core, durable, ticket, error);
    bk_cursors_collected(core);
    removals_release(stage, durable, ticket);
    bk_held_release(core, durable, ticket, error);
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    struct bk_core *core = context;
    core->stage.is_stalled = false;
    if (error == 0) {
        succeed_to(core, ticket);
    } else {
        fail_from(core, ticket, error);
    }
}

static struct bk_channel *channel_by_id(const struct bk_core *core, uint32_t id)
{
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        if (core->channels.list[i]->id == id) {
            return core->channels.list[i];
        }
    }
    return NULL;
}

static void on_trimmed(void *context, uint32_t id, uint64_t first)
{
    struct bk_core *core = context;
    struct bk_channel *channel = channel_by_id(core, id);
    if (channel != NULL) {
        channel->log_first = BB_MAX(channel->log_first, first);
    }
}

static void on_state(void *context, enum bk_backend_state state, const char *text)
{
    struct bk_core *core = context;
    static const char *const words[] = {"can be written again", "is full", "cannot be written"};
    core->stage.state = state;
    core->stage.has_news =
        core->stage.has_news || state == BK_BACKEND_OK; /* what channels are set to may have been lost */
    bk_log(core, state == BK_BACKEND_OK ? BK_LOG_NOTICE : BK_LOG_ERROR, "BB-LOG-STATE", "the log %s: %s",
           words[state], text != NULL ? text : "");
}

static void ignore_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static void ignore_registered(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void ignore_trimmed(void *context, uint32_t id, uint64_t first)
{
    (void)context;
    (void)id;
    (void)first;
}

static void ignore_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    (void)state;
    (void)text;
}

const struct bk_backend_listener *bk_core_listener(struct bk_core *core, enum bk_store store)
{
    core->listeners[store] =
        store == BK_STORE_LOG
            ? (struct bk_backend_listener){core, ignore_registered, on_flushed, on_trimmed, on_state}
            : (struct bk_backend_listener){core, ignore_registered, ignore_flushed, ignore_trimmed,
                                           ignore_state};
    return &core->listeners[store];
}

/* --- loading ----------------------------------------------------------------------------------------- */

static int load_channel(void *context, const struct bk_log_channel *entry)
{
    struct bk_core *core = context;
    struct bk_channel *channel = NULL;
    struct bb_buf err = BB_BUF_INIT;
    core->channels.last_id = BB_MAX(core->channels.last_id, entry->id);
    if (entry->removed) {
        return 0;
    }
    int r = bk_channels_get(&core->channels, entry->name, &channel);
    if (r < 0) {
        return r;
    }
    r = bk_settings_read(entry->settings, &core->channels.defaults, &channel->settings, &err);
    bb_buf_fini(&err);
    channel->id = entry->id;
    channel->is_known[BK_STORE_LOG] = channel->is_named = true;
    channel->ring_max = channel->settings.ring_bytes;
    channel->taken = channel->last = channel->loaded = entry->last;
    channel->first = entry->last + 1;
    channel->log_first = BB_MAX(entry->first, 1);
    return r;
}

static void read_notes(struct bk_producer *producer, struct bb_slice notes)
{
    struct bb_mp_reader reader = bb_mp_reader(notes);
    uint32_t n = notes.len > 0 ? bb_mp_read_array(&reader) : 0;
    for (uint32_t i = 0; i + 1 < n; i += 2) {
        uint64_t number = bb_mp_read_uint(&reader);
        int64_t outcome = bb_mp_read_int(&reader);
        if (reader.error == 0 && number <= producer->last && outcome < 0 && outcome >= INT8_MIN) {
            bk_producer_note(producer, number, (int)outcome);
        }
    }
}

static int load_producer(void *context, const struct bk_log_producer *entry)
{
    struct bk_core *core = context;
    uint64_t epoch = 0;
    memcpy(&epoch, entry->key + BB_CLIENT_ID_LEN, sizeof(epoch));
    struct bk_producer *producer = bk_producer_get(core, bb_slice(entry->key, BB_CLIENT_ID_LEN), epoch);
    if (producer == NULL) {
        return BB_ENOMEM;
    }
    producer->last = entry->last;
    producer->is_restored = true;
    read_notes(producer, entry->notes);
    return 0;
}

int bk_core_set_backend(struct bk_core *core, enum bk_store store, struct bk_backend *backend)
{
    const struct bk_backend_loader loader = {core, load_channel, load_producer, bk_cursor_load};
    core->backends[store] = backend;
    if (store == BK_STORE_MEMORY) {
        return 0;
    }
    struct bk_event_id id = {0};
    core->stage.backend = backend;
    core->channels.defaults.logged = true;
    int r = backend->ops->load(backend, &loader);
    backend->ops->get_last_event_id(backend, core->config.server, &id, &core->session_time);
    core->session = id.session;
    return r;
}

void bk_stage_fini(struct bk_core *core)
{
    struct bk_stage *stage = &core->stage;
    for (size_t i = stage->first; i < n_staged(stage); i++) {
        bk_ring_drop(&core->ring, &staged_at(stage, i)->block);
    }
    bb_buf_fini(&stage->blocks);
    bb_buf_fini(&stage->forgotten);
    bb_buf_fini(&stage->removed);
    bk_held_fini(core);
    while (stage->orphans != NULL) {
        struct bk_waiting *waiting = stage->orphans;
        stage->orphans = waiting->next;
        waiting_free(waiting);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/append.h"

#include "broker/core/backend.h"
#include "broker/core/clients/producer.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/life.h"
#include "broker/core/keep/ring.h"
#include "broker/core/keep/settings.h"
#include "broker/core/log/cursor.h"
#include "broker/core/log/durable.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"

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

/* [settings, lives]. Before there were lives it was the settings alone, a map (restore.c). */
void bk_log_channel_write(struct bb_buf *out, const struct bk_channel *channel)
{
    struct bb_buf members = BB_BUF_INIT;
    uint32_t n = bk_settings_write(&members, &channel->settings);
    bb_mp_write_array(out, 2);
    bb_mp_write_map(out, n);
    bb_buf_append(out, members.data, members.len);
    out->error = out->error != 0 ? out->error : members.error;
    bb_buf_fini(&members);
    bk_lives_write(out, &channel->lives);
}

struct bk_log_channel bk_log_channel_of(const struct bk_channel *channel, struct bb_slice written)
{
    return (struct bk_log_channel){
        .id = channel->id,
        .name = channel->name,
        .retention = channel->settings.retention,
        .settings = written,
    };
}

/* --- collecting --------------------------------------------------------------------------------------------- */

/* What is registered under one ticket, while it is put together. Slices of its entries point into `text` once it is complete;
 * until then they are offsets. */
struct append {
    struct bb_buf channels;
    struct bb_buf blocks;
    struct bb_buf producers;
    struct bb_buf cursors;
    struct bb_buf text;
};

static void append_fini(struct append *append)
{
    bb_buf_fini(&append->channels);
    bb_buf_fini(&append->blocks);
    bb_buf_fini(&append->producers);
    bb_buf_fini(&append->cursors);
    bb_buf_fini(&append->text);
}

static bool is_for_log(const struct bk_core *core, const struct bk_channel *channel)
{
    return !channel->is_known[BK_STORE_LOG] && !channel->is_going &&
           (channel->is_named || (bk_store_of(core, channel) == BK_STORE_LOG && channel->taken > 0));
}

static void collect_channels(struct append *append, struct bk_core *core)
{
    const struct bk_removed *removed = (const struct bk_removed *)(const void *)core->stage.removed.data;
    for (size_t i = 0; i < core->stage.removed.len / sizeof(*removed); i++) {
        if (removed[i].ticket == 0) {
            bb_buf_append(&append->channels, &removed[i].channel, sizeof(removed[i].channel));
        }
    }
    for (size_t i = 0; i < core->channels.n_channels && core->channels.has_unknown[BK_STORE_LOG]; i++) {
        const struct bk_channel *channel = core->channels.list[i];
        if (is_for_log(core, channel)) {
            size_t start = append->text.len;
            bk_log_channel_write(&append->text, channel);
            struct bk_log_channel entry =
                bk_log_channel_of(channel, (struct bb_slice){NULL, append->text.len - start});
            bb_buf_append(&append->channels, &entry, sizeof(entry));
        }
    }
}

static void collect_blocks(struct append *append, const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    size_t first = bk_stage_end(stage);
    while (first > stage->first && bk_stage_at(stage, first - 1)->ticket == stage->ticket) {
        first--; /* they lie at the end */
    }
    for (size_t i = first; i < bk_stage_end(stage); i++) {
        struct bk_log_block block = bk_log_block_of(core, &bk_stage_at(stage, i)->block);
        bb_buf_append(&append->blocks, &block, sizeof(block));
    }
}

/* The refused numbers that are remembered, as [number, error, ...]. */
static size_t write_notes(struct bb_buf *out, const struct bk_producer *producer)
{
    size_t start = out->len;
    uint64_t last = producer->staged_last;
    uint64_t n_known = BB_MIN(last, BK_OUTCOMES);
    uint32_t n = 0;
    if (producer->refused == 0 || last >= producer->refused + BK_OUTCOMES) {
        return 0; /* as nearly always: nothing to look for */
    }
    for (uint64_t i = 0; i < n_known; i++) {
        n += bk_producer_outcome(producer, last - i) != 0;
    }
    if (n == 0) {
        return 0;
    }
    bb_mp_write_array(out, 2 * n);
    for (uint64_t i = n_known; i > 0; i--) {
        uint64_t number = last - i + 1;
        int outcome = bk_producer_outcome(producer, number);
        if (outcome != 0) {
            bb_mp_write_uint(out, number);
            bb_mp_write_int(out, outcome);
        }
    }
    return out->len - start;
}

static void collect_producers(struct append *append, struct bk_core *core)
{
    bb_buf_append(&append->producers, core->stage.forgotten.data, core->stage.forgotten.len);
    for (struct bk_producer *producer = core->stage.producers; producer != NULL;
         producer = producer->next_staged) {
        struct bk_log_producer entry = {.last = producer->staged_last, .time = core->wall};
        memcpy(entry.key, producer->id, BB_CLIENT_ID_LEN);
        memcpy(entry.key + BB_CLIENT_ID_LEN, &producer->epoch, sizeof(producer->epoch));
        entry.notes.len = write_notes(&append->text, producer);
        bb_buf_append(&append->producers, &entry, sizeof(entry));
    }
}

/* The text does not move any more: let the slices point into it, in the order in which they were written. */
static void set_pointers(struct append *append)
{
    struct bk_log_channel *channels = (struct bk_log_channel *)(void *)append->channels.data;
    struct bk_log_producer *producers = (struct bk_log_producer *)(void *)append->producers.data;
    const uint8_t *at = append->text.data;
    for (size_t i = 0; i < append->channels.len / sizeof(*channels); i++) {
        channels[i].settings.data = at;
        at += channels[i].settings.len;
    }
    for (size_t i = 0; i < append->producers.len / sizeof(*producers); i++) {
        producers[i].notes.data = at;
        at += producers[i].notes.len;
    }
}

static int collect(struct append *append, struct bk_core *core, struct bk_append *ret_append)
{
    collect_channels(append, core);
    collect_blocks(append, core);
    collect_producers(append, core);
    bk_cursors_collect(core, &append->cursors);
    if (append->channels.error != 0 || append->blocks.error != 0 || append->producers.error != 0 ||
        append->cursors.error != 0 || append->text.error != 0) {
        return BB_ENOMEM;
    }
    if (append->text.len > 0) {
        set_pointers(append);
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

/* --- registering --------------------------------------------------------------------------------------------- */

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

static void note_registered(struct bk_core *core, uint64_t ticket)
{
    struct bk_stage *stage = &core->stage;
    struct bk_removed *removed = (struct bk_removed *)(void *)stage->removed.data;
    for (size_t i = 0; i < stage->removed.len / sizeof(*removed); i++) {
        removed[i].ticket = removed[i].ticket == 0 ? ticket : removed[i].ticket;
    }
    for (size_t i = 0; i < core->channels.n_channels && core->channels.has_unknown[BK_STORE_LOG]; i++) {
        struct bk_channel *channel = core->channels.list[i];
        if (is_for_log(core, channel)) {
            channel->is_known[BK_STORE_LOG] = true;
            bk_channel_life_sent(&core->channels, channel, ticket);
        }
    }
    core->channels.has_unknown[BK_STORE_LOG] = false;
    stage->has_news = false;
    stage->ticket_bytes = 0;
    stage->ticket++;
}

static void forget_collected(struct bk_core *core)
{
    bb_buf_reset(&core->stage.forgotten);
    bk_producers_unstage(core);
}

/* They disagree about what comes next: nothing may be acknowledged that is not there. */
static void break_off(struct bk_core *core, uint64_t ticket, int refused)
{
    bk_note(
        core, BK_LOG_ERROR, "BB-LOG-REFUSED",
        "the log refused what the broker had numbered: %s; nothing is taken for it until the broker is started again",
        bb_strerror(refused));
    core->stage.is_broken = true;
    bk_stage_fail(core, ticket, BB_ELOGFAILED);
}

void bk_append_submit(struct bk_core *core)
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
    int refused = r == 0 ? find_refused(&entries) : 0;
    append_fini(&append);
    if (r == BB_EFULL && stage->durable + 1 < ticket) { /* what is on its way will make room */
        stage->is_stalled = stage->is_behind = true;
        bk_cursors_stalled(core);
        return;
    }
    if (r == 0) {
        note_registered(core, ticket);
    }
    forget_collected(core);
    if (refused != 0) {
        break_off(core, ticket, refused);
    } else if (r < 0) {
        bk_stage_fail(core, ticket, r);
    } else {
        bk_stage_registered(core);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/stage.h"

#include "broker/core/backend.h"
#include "broker/core/deliver/removal.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"

#include <stdlib.h>

bool bk_stage_has_caught_up(const struct bk_core *core)
{
    const struct bk_stage *stage = &core->stage;
    size_t most = stage->drains ? 0 : core->config.stage_bytes / 2;
    return !stage->is_stalled && stage->bytes <= most;
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
    /* Who can be paused is, before it comes to this. For windows the removal of another channel is no reason. */
    bool is_full = stage->is_behind && (stage->drains || !bk_stage_has_caught_up(core));
    return channel->is_going || is_full ? BB_EFULL : 0;
}

bool bk_stage_has_room(const struct bk_core *core, size_t bytes)
{
    const struct bk_stage *stage = &core->stage;
    return stage->backend == NULL || stage->ticket_bytes + bytes <= stage->backend->max_ticket;
}

int bk_stage_add(struct bk_core *core, const struct bk_block *block)
{
    struct bk_stage *stage = &core->stage;
    struct bk_channel *channel = block->channel;
    struct bk_staged staged = {*block, stage->ticket};
    bb_buf_append(&stage->blocks, &staged, sizeof(staged));
    if (stage->blocks.error != 0) {
        stage->blocks.error = 0; /* what is staged already stays */
        return BB_ENOMEM;
    }
    if (channel->is_loaded) {
        bk_channel_begin_run(&core->channels, channel);
    }
    core->channels.has_unknown[BK_STORE_LOG] |= !channel->is_known[BK_STORE_LOG];
    stage->bytes += sizeof(staged) + block->head_len + block->body_len;
    stage->ticket_bytes += BK_ENTRY_SIZE + block->body_len;
    stage->is_behind = stage->is_behind || stage->bytes > core->config.stage_bytes;
    stage->has_news = true;
    channel->taken = block->sequence + block->count - 1;
    return 0;
}

void bk_stage_drop_gone(struct bk_stage *stage)
{
    size_t end = bk_stage_end(stage);
    if (stage->first == end) {
        stage->first = 0;
        stage->blocks.len = 0;
    } else if (stage->first > end / 2) {
        size_t left = end - stage->first;
        memmove(stage->blocks.data, bk_stage_at(stage, stage->first), left * sizeof(struct bk_staged));
        stage->blocks.len = left * sizeof(struct bk_staged);
        stage->first = 0;
    }
}

/* --- channels that are to go ------------------------------------------------------------------------------ */

static struct bk_removed *removed_at(const struct bk_stage *stage, size_t i)
{
    return (struct bk_removed *)(void *)stage->removed.data + i;
}

bool bk_stage_has_removals(const struct bk_stage *stage)
{
    for (size_t i = 0; i < stage->removed.len / sizeof(struct bk_removed); i++) {
        if (removed_at(stage, i)->ticket == 0) {
            return true;
        }
    }
    return false;
}

/* A crash must not bring back what was said to be gone. */
int bk_stage_remove_channel(struct bk_core *core, struct bk_channel *channel)
{
    struct bk_stage *stage = &core->stage;
    struct bk_removed entry = {.channel = {.id = channel->id, .removed = true}};
    if (stage->backend == NULL) {
        return 0;
    }
    bb_buf_append(&stage->removed, &entry, sizeof(entry));
    if (stage->removed.error != 0) {
        stage->removed.error = 0;
        return BB_ENOMEM;
    }
    stage->has_news = true;
    if (bk_store_of(core, channel) == BK_STORE_LOG) {
        channel->is_going = true;
        stage->n_going++;
        stage->is_behind = true;
    }
    return 0;
}

static void end_channel(struct bk_core *core, uint32_t id)
{
    struct bk_channel *channel = bk_channels_find_id(&core->channels, id);
    if (channel != NULL && channel->is_going) {
        core->stage.n_going--;
        bk_channel_end(core, channel);
    }
}

void bk_stage_removals_done(struct bk_core *core, uint64_t durable, uint64_t failed)
{
    struct bk_stage *stage = &core->stage;
    size_t kept = 0;
    for (size_t i = 0; i < stage->removed.len / sizeof(struct bk_removed); i++) {
        struct bk_removed *removed = removed_at(stage, i);
        if (removed->ticket != 0 && removed->ticket <= durable) {
            end_channel(core, removed->channel.id);
            continue;
        }
        removed->ticket = removed->ticket >= failed ? 0 : removed->ticket;
        *removed_at(stage, kept++) = *removed;
    }
    stage->removed.len = kept * sizeof(struct bk_removed);
}

void bk_stage_fini(struct bk_core *core)
{
    struct bk_stage *stage = &core->stage;
    for (size_t i = stage->first; i < bk_stage_end(stage); i++) {
        bk_ring_drop(&bk_stage_at(stage, i)->block);
    }
    bb_buf_fini(&stage->blocks);
    bb_buf_fini(&stage->forgotten);
    bb_buf_fini(&stage->removed);
}

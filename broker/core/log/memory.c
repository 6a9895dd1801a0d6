/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/log/memory.h"

#include "broker/core/backend.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/append.h"
#include "broker/core/state.h"

void bk_memory_keep(struct bk_core *core, const struct bk_block *block)
{
    if (core->backends[BK_STORE_MEMORY] != NULL) {
        struct bk_log_block entry = bk_log_block_of(core, block);
        bb_buf_append(&core->kept, &entry, sizeof(entry));
        core->channels.has_unknown[BK_STORE_MEMORY] |= !block->channel->is_known[BK_STORE_MEMORY];
    }
}

static int register_channel(struct bk_core *core, struct bk_log_channel *entry)
{
    struct bk_backend *backend = core->backends[BK_STORE_MEMORY];
    struct bk_append append = {.channels = entry, .n_channels = 1};
    return backend->ops->register_(backend, &append, ++core->memory_ticket);
}

/* Without memory it is tried again with the next batch. */
static bool register_changed(struct bk_core *core, const struct bk_channel *channel)
{
    struct bb_buf written = BB_BUF_INIT;
    bk_log_channel_write(&written, channel);
    struct bk_log_channel entry = bk_log_channel_of(channel, bb_buf_slice(&written));
    int r = written.error != 0 ? written.error : register_channel(core, &entry);
    bb_buf_fini(&written);
    return r == 0;
}

void bk_memory_changed(struct bk_core *core)
{
    if (core->backends[BK_STORE_MEMORY] == NULL || !core->channels.has_unknown[BK_STORE_MEMORY]) {
        return;
    }
    core->channels.has_unknown[BK_STORE_MEMORY] = false;
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        struct bk_channel *channel = core->channels.list[i];
        if (!channel->is_known[BK_STORE_MEMORY] && channel->taken > 0 &&
            bk_store_of(core, channel) == BK_STORE_MEMORY) {
            channel->is_known[BK_STORE_MEMORY] = register_changed(core, channel);
            core->channels.has_unknown[BK_STORE_MEMORY] |= !channel->is_known[BK_STORE_MEMORY];
        }
    }
}

void bk_memory_remove(struct bk_core *core, const struct bk_channel *channel)
{
    if (core->backends[BK_STORE_MEMORY] != NULL && channel->is_known[BK_STORE_MEMORY]) {
        struct bk_log_channel entry = {.id = channel->id, .name = channel->name, .removed = true};
        if (register_channel(core, &entry) < 0) {
            bk_note(core, BK_LOG_ERROR, "BB-MEMORY",
                    "no memory to forget a channel: queries may still find it");
        }
    }
}

/* Without memory what came is not found by queries; who subscribes has it all the same. */
void bk_memory_register(struct bk_core *core)
{
    struct bk_backend *backend = core->backends[BK_STORE_MEMORY];
    if (core->kept.len == 0) {
        core->kept.error = 0;
        return;
    }
    bk_memory_changed(core);
    struct bk_append append = {
        .blocks = (struct bk_log_block *)(void *)core->kept.data,
        .n_blocks = core->kept.len / sizeof(struct bk_log_block),
    };
    if (backend->ops->register_(backend, &append, ++core->memory_ticket) < 0) {
        bk_count(core, BK_COUNTER_memory_refused, append.n_blocks);
    }
    bb_buf_reset(&core->kept);
}

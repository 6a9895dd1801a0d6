/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept in memory alone is registered with the memory's backend, which answers queries about it. */
#include "broker/core/state.h"

void bk_memory_keep(struct bk_core *core, const struct bk_block *block)
{
    if (core->backends[BK_STORE_MEMORY] == NULL) {
        return;
    }
    struct bk_log_block entry = bk_log_block_of(core, block);
    bb_buf_append(&core->kept, &entry, sizeof(entry));
    if (!block->channel->is_known[BK_STORE_MEMORY]) {
        core->tell_memory = true;
    }
}

static void tell_channels(struct bk_core *core, struct bk_backend *backend)
{
    core->tell_memory = false;
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        struct bk_channel *channel = core->channels.list[i];
        if (channel->is_known[BK_STORE_MEMORY] || channel->taken == 0) {
            continue;
        }
        struct bb_buf settings = BB_BUF_INIT;
        struct bk_log_channel entry = bk_log_channel_of(channel, &settings);
        struct bk_append append = {.channels = &entry, .n_channels = 1};
        if (settings.error == 0) {
            channel->is_known[BK_STORE_MEMORY] =
                backend->ops->register_(backend, &append, ++core->memory_ticket) == 0;
        }
        bb_buf_fini(&settings);
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
    if (core->tell_memory) {
        tell_channels(core, backend);
    }
    struct bk_append append = {
        .blocks = (struct bk_log_block *)(void *)core->kept.data,
        .n_blocks = core->kept.len / sizeof(struct bk_log_block),
    };
    if (backend->ops->register_(backend, &append, ++core->memory_ticket) < 0) {
        bk_count(core, BK_COUNTER_memory_refused, append.n_blocks);
    }
    bb_buf_reset(&core->kept);
}

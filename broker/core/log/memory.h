/* SPDX-License-Identifier: Apache-2.0 */
/* What is kept in memory alone is registered with the memory's backend, which answers queries about it. */
#pragma once

#include "broker/core/keep/ring.h"

struct bk_core;
struct bk_channel;

/** bk_memory_keep() - let the memory's backend have @block, which is in the ring, at the end of the batch. */
void bk_memory_keep(struct bk_core *core, const struct bk_block *block);

/** bk_memory_register() - the end of the batch. */
void bk_memory_register(struct bk_core *core);

/** bk_memory_changed() - settings of channels have changed: they hold at once, also for what is kept. */
void bk_memory_changed(struct bk_core *core);

/** bk_memory_remove() - let it forget @channel. */
void bk_memory_remove(struct bk_core *core, const struct bk_channel *channel);

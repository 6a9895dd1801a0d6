/* SPDX-License-Identifier: Apache-2.0 */
/* What is registered with the log under one ticket. */
#pragma once

#include "broker/core/backend.h"
#include "broker/core/keep/ring.h"

struct bk_core;
struct bk_channel;

/** bk_append_submit() - register what has been staged. */
void bk_append_submit(struct bk_core *core);

/** bk_log_block_of() - @block as backends take it. */
struct bk_log_block bk_log_block_of(const struct bk_core *core, const struct bk_block *block);

/** bk_log_channel_write() - append what of @channel the core wants back from the backend: one MessagePack value. */
void bk_log_channel_write(struct bb_buf *out, const struct bk_channel *channel);

/** bk_log_channel_of() - @channel as backends take it; @written: by bk_log_channel_write(). */
struct bk_log_channel bk_log_channel_of(const struct bk_channel *channel, struct bb_slice written);

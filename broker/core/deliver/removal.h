/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a channel (PROTOCOL 15.1). */
#pragma once

struct bk_core;
struct bk_channel;

/**
 * bk_channel_end() - @channel is removed: who has a position in it gets a gap `restart`, and nothing of it is left in
 * memory
 */
void bk_channel_end(struct bk_core *core, struct bk_channel *channel);

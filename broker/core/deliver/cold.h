/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "proto/base/cc.h"

struct bk_channel;
struct bk_core;
struct bk_sub;

/** bk_sub_set_cold() - from now on @sub has what comes after its positions in logged channels from the log. */
void bk_sub_set_cold(struct bk_core *core, struct bk_sub *sub);

/** bk_cold_step() - read on in the log, or send what was read. Return: 0 or why its client must go. */
int bk_cold_step(struct bk_core *core, struct bk_sub *sub) BB_MUST_CHECK;

/** bk_cold_store_changed() - @channel, which has no events, is kept elsewhere from now on. */
void bk_cold_store_changed(struct bk_core *core, struct bk_sub *sub, const struct bk_channel *channel);

/** bk_cold_abandon() - what was read, or is being read, is not wanted any more. */
void bk_cold_abandon(struct bk_sub *sub);

/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"

struct bk_core;
struct bk_sub;

/** bk_retained_start() - the newest event of each path that @sub matches is to be sent before anything else. Return: 0 or BB_ENOMEM. */
int bk_retained_start(struct bk_core *core, struct bk_sub *sub, struct bb_slice patterns) BB_MUST_CHECK;

/** bk_retained_ask() - ask for them, now that @sub has its positions; later if one of those is ahead of what is durable. */
void bk_retained_ask(struct bk_core *core, struct bk_sub *sub);

/** bk_retained_durable() - more is durable, or has failed: ask for those that had to wait. */
void bk_retained_durable(struct bk_core *core);

/** bk_retained_step() - send some of them. Return: 0 or why the client must go. */
int bk_retained_step(struct bk_core *core, struct bk_sub *sub) BB_MUST_CHECK;

/** bk_retained_end() - no more of them are wanted. */
void bk_retained_end(struct bk_core *core, struct bk_sub *sub);

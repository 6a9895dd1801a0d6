/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that are held back until what they speak of is on disk. */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/message.h"

#include <stdbool.h>

struct bk_core;
struct bk_client;

/** bk_can_hold() - whether one more answer may be held back. */
bool bk_can_hold(const struct bk_core *core);

/** bk_hold_answer() - answer @msg with @value when what is staged now is on disk; at once without a log. */
void bk_hold_answer(struct bk_core *core,
                    struct bk_client *client,
                    const struct bb_msg *msg,
                    struct bb_slice value);

/** bk_hold_removal() - answer @msg with nil when what was removed is removed on disk too, however often that has to be tried. */
void bk_hold_removal(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

/** bk_held_release() - tickets up to @durable are durable, from @failed on they have failed with @error. */
void bk_held_release(struct bk_core *core, uint64_t durable, uint64_t failed, int error);

/** bk_held_forget() - nobody is to be told any more: the client ends. */
void bk_held_forget(struct bk_core *core, const struct bk_client *client);

void bk_held_fini(struct bk_core *core);

/* SPDX-License-Identifier: Apache-2.0 */
/* What the policies for falling behind do (PROTOCOL 7.3): one row each. */
#pragma once

#include "proto/base/cc.h"

#include "broker/core/subs/wanted.h"

struct bk_conflation;

/** bk_overflow_goes_on() - whether @sub goes on in the log where the ring ends. */
bool bk_overflow_goes_on(const struct bk_sub *sub);

/** bk_overflow_refuses() - whether events that match @sub are refused now. */
bool bk_overflow_refuses(const struct bk_sub *sub);

/** bk_overflow_arrived() - what came brought @sub above its budget; the ring has it up to @end. */
void bk_overflow_arrived(struct bk_core *core, struct bk_sub *sub, uint64_t end);

/** bk_overflow_removed() - a channel is gone: nothing of it waits for @sub any more. */
void bk_overflow_removed(struct bk_core *core, struct bk_sub *sub);

/**
 * bk_overflow_apply() - before a message from the ring: let the policy lose what it must
 * @ret_conflation: of what waits this alone is to be sent; NULL: everything. For bk_conflation_free()
 *
 * Return: 0 or BB_ENOMEM.
 */
int bk_overflow_apply(struct bk_core *core,
                      struct bk_sub *sub,
                      struct bk_conflation **ret_conflation) BB_MUST_CHECK;

/** bk_conflation_keeps() - whether the event at @raw is the newest of its path that still lives. */
bool bk_conflation_keeps(const struct bk_conflation *conflation, struct bb_slice path, const uint8_t *raw);
void bk_conflation_free(struct bk_conflation *conflation);

/* SPDX-License-Identifier: Apache-2.0 */
/* What of a block a subscription wants: the one place that answers it. */
#pragma once

#include "proto/base/cc.h"

#include "broker/core/keep/ring.h"
#include "broker/core/subs/account.h"

struct bk_core;
struct bk_sub;

/* Consecutive events of a block. */
struct bk_item {
    const struct bk_block *block;
    const uint8_t *data;
    uint32_t len;
    uint32_t first; /* index in the block */
    uint32_t count;
};

/** bk_item_extend() - let @item, which may be empty, have @count more events, which begin with the one at index @first. */
void bk_item_extend(struct bk_item *item, struct bb_slice raw, uint32_t first, uint32_t count);

/** bk_item_last() - the sequence of its last event. */
static inline uint64_t bk_item_last(const struct bk_item *item)
{
    return item->block->sequence + item->first + item->count - 1;
}

typedef int bk_item_fn(void *context, const struct bk_item *item);

/**
 * bk_wanted_each() - call @on_item for each run of events of @block that @sub wants from memory
 * @before: of those before this sequence; UINT64_MAX: of all
 *
 * Wanted is what matches, comes after what is settled and not after the end of the subscription, and is still shown.
 * The subscription has a position in the channel when @on_item is called. Who calls it for block after block keeps the route's memory in
 * bounds (bk_route_trim()).
 *
 * Return: 0, BB_ENOMEM, or what @on_item returned to end it.
 */
int bk_wanted_each(struct bk_core *core,
                   struct bk_sub *sub,
                   const struct bk_block *block,
                   uint64_t before,
                   bk_item_fn *on_item,
                   void *context) BB_MUST_CHECK;

/** bk_wanted_arrive() - count what @sub wants of @block as waiting. Return: 0 or BB_ENOMEM. */
int bk_wanted_arrive(struct bk_core *core, struct bk_sub *sub, const struct bk_block *block) BB_MUST_CHECK;

/** bk_wanted_recount() - count all that waits in the ring behind its cursor; nothing is counted as waiting yet. Return: 0 or BB_ENOMEM. */
int bk_wanted_recount(struct bk_core *core, struct bk_sub *sub) BB_MUST_CHECK;

/** bk_wanted_lose() - what @sub wants of @block before the sequence @before is lost. Return: 0 or BB_ENOMEM. */
int bk_wanted_lose(struct bk_core *core,
                   struct bk_sub *sub,
                   const struct bk_block *block,
                   uint64_t before,
                   enum bk_reason reason) BB_MUST_CHECK;

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/wanted.h"

#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"

struct wanting {
    struct bk_core *core;
    struct bk_sub *sub;
    const struct bk_block *block;
    struct bk_path *path; /* of the event before */
    uint64_t after;       /* UINT64_MAX: unknown until something matches */
    uint64_t stop;
};

/* Between which sequences @sub wants events of the block's channel from memory. */
static int find_bounds(struct wanting *wanting, uint64_t before)
{
    struct bk_channel *channel = wanting->block->channel;
    const struct bk_position *position = bk_sub_position(wanting->sub, channel);
    if (position == NULL) {
        return BB_ENOMEM;
    }
    wanting->after = BB_MAX(bk_account_settled(&position->account), channel->first - 1);
    wanting->stop = position->is_cold ? 0 : BB_MIN(position->stop, before - 1);
    return 0;
}

/* Does the subscription match @path? 1, 0, or BB_ENOMEM. */
static int wants_path(struct wanting *wanting, struct bb_slice path, uint64_t before)
{
    if (wanting->path == NULL || !bb_slice_equal(path, wanting->path->path)) {
        int r = bk_route_find(&wanting->core->route, path, &wanting->path);
        if (r < 0) {
            return r;
        }
    }
    if (!bk_set_has(wanting->path->set, wanting->sub)) {
        return 0;
    }
    int r = wanting->after == UINT64_MAX ? find_bounds(wanting, before) : 0;
    return r < 0 ? r : 1;
}

void bk_item_extend(struct bk_item *item, struct bb_slice raw, uint32_t first, uint32_t count)
{
    if (item->count == 0) {
        item->data = raw.data;
        item->first = first;
        item->len = 0;
    }
    item->len += (uint32_t)raw.len;
    item->count += count;
}

/* All events of a block with one path that is wanted, in one go. */
static bool is_wanted_whole(const struct wanting *wanting)
{
    const struct bk_block *block = wanting->block;
    return block->uniform && block->sequence > wanting->after &&
           block->sequence + block->count - 1 <= wanting->stop;
}

static int walk(struct wanting *wanting, uint64_t before, bk_item_fn *on_item, void *context)
{
    const struct bk_block *block = wanting->block;
    struct bb_slice rest = bb_slice(block->body, block->body_len);
    struct bb_event_view event;
    struct bk_item item = {.block = block};
    int r = 0;
    for (uint32_t i = 0; i < block->count && r == 0; i++) {
        r = bb_event_read(&rest, &event);
        int matches = r < 0 ? r : wants_path(wanting, event.path, before);
        if (matches < 0 || (matches == 0 && block->uniform)) {
            return matches;
        }
        if (matches > 0 && is_wanted_whole(wanting)) {
            bk_item_extend(&item, bb_slice(block->body, block->body_len), 0, block->count);
            break;
        }
        uint64_t sequence = block->sequence + i;
        if (matches > 0 && sequence > wanting->after && sequence <= wanting->stop) {
            bk_item_extend(&item, event.raw, i, 1);
        } else if (item.count > 0) {
            r = on_item(context, &item);
            item.count = 0;
        }
    }
    return r == 0 && item.count > 0 ? on_item(context, &item) : r;
}

/* What comes later than @sub wants is behind its end. */
static void note_end(struct bk_sub *sub, const struct bk_block *block)
{
    struct bk_position *position = bk_sub_find_position(sub, block->channel);
    if (position != NULL) {
        position->stop = BB_MIN(position->stop, block->sequence - 1);
    }
}

int bk_wanted_each(struct bk_core *core,
                   struct bk_sub *sub,
                   const struct bk_block *block,
                   uint64_t before,
                   bk_item_fn *on_item,
                   void *context)
{
    struct wanting wanting = {core, sub, block, NULL, UINT64_MAX, 0};
    if (block->time > sub->until_time) {
        note_end(sub, block);
        return 0;
    }
    return walk(&wanting, before, on_item, context);
}

static int arrive(void *context, const struct bk_item *item)
{
    struct bk_sub *sub = context;
    struct bk_position *position = bk_sub_find_position(sub, item->block->channel);
    bk_account_arrive(&position->account, bk_item_last(item), item->count, item->len);
    sub->lag_bytes += item->len;
    return 0;
}

int bk_wanted_arrive(struct bk_core *core, struct bk_sub *sub, const struct bk_block *block)
{
    return bk_wanted_each(core, sub, block, UINT64_MAX, arrive, sub);
}

int bk_wanted_recount(struct bk_core *core, struct bk_sub *sub)
{
    const struct bk_block *block = NULL;
    int r = 0;
    for (uint64_t pos = sub->cursor;
         r == 0 && (block = bk_ring_at(&core->ring, &pos)) != NULL && pos < core->fanned_pos; pos++) {
        bk_route_trim(&core->route);
        r = bk_wanted_arrive(core, sub, block);
    }
    return r;
}

struct losing {
    struct bk_sub *sub;
    enum bk_reason reason;
};

static int lose(void *context, const struct bk_item *item)
{
    const struct losing *losing = context;
    struct bk_sub *sub = losing->sub;
    struct bk_account *account = &bk_sub_find_position(sub, item->block->channel)->account;
    sub->n_losing += account->n_losses == 0;
    bk_account_lose(account, bk_item_last(item), item->count, item->len, losing->reason);
    sub->lag_bytes -= item->len;
    return 0;
}

int bk_wanted_lose(struct bk_core *core,
                   struct bk_sub *sub,
                   const struct bk_block *block,
                   uint64_t before,
                   enum bk_reason reason)
{
    struct losing losing = {sub, reason};
    return bk_wanted_each(core, sub, block, before, lose, &losing);
}

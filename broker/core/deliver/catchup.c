/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscriptions that lag: fed from the ring, one message a flush each, until their cursor meets the end and they
 * join the live flow.
 */
#include "broker/core/deliver/catchup.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/end.h"
#include "broker/core/deliver/overflow.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/deliver/retained.h"
#include "broker/core/deliver/send.h"
#include "broker/core/deliver/until.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

/* How much of the ring is looked through for one message, so that a subscription that wants little of it does
 * not hold up the others. */
#define LOOK_BYTES ((size_t)4 << 20)

/* A message reports at most so many gaps. */
#define MOVES_MAX 64

/* Not an error: the message has no room for another gap. */
#define GATHERED_ENOUGH 1

struct gathering {
    struct bk_core *core;
    const struct bk_sub *sub;
    const struct bk_conflation *conflation; /* NULL: everything goes */
    uint64_t done;                          /* the last sequence of the block that was decided about */
};

static size_t n_moves(const struct bk_core *core)
{
    return core->moves.len / sizeof(struct bk_move);
}

static struct bk_move *move_at(const struct bk_core *core, size_t i)
{
    return (struct bk_move *)(void *)core->moves.data + i;
}

/* --- what is left out ---------------------------------------------------------------------------------- */

static struct bk_move *last_move(const struct bk_core *core, const struct bk_channel *channel)
{
    for (size_t i = n_moves(core); i > 0; i--) {
        if (move_at(core, i - 1)->channel == channel) {
            return move_at(core, i - 1);
        }
    }
    return NULL;
}

/* Events are left out in the order of their sequences, so those of one reason are one gap. */
static int leave_out(struct bk_core *core,
                     const struct bk_block *block,
                     uint64_t sequence,
                     size_t len,
                     enum bk_reason reason)
{
    struct bk_move *last = last_move(core, block->channel);
    if (last != NULL && last->reason == reason) {
        last->to = sequence;
        last->count++;
        last->bytes += len;
        return 0;
    }
    if (n_moves(core) >= MOVES_MAX) {
        return GATHERED_ENOUGH;
    }
    const struct bk_move move = {block->channel, sequence, 1, len, reason};
    bb_buf_append(&core->moves, &move, sizeof(move));
    return core->moves.error;
}

/* The log has gone on behind the event at @index and did not have it any more: it would come out of order. */
static bool is_passed(const struct gathering *gathering, const struct bk_block *block, uint32_t index)
{
    const struct bk_sub *sub = gathering->sub;
    bool is_before =
        block->session < sub->log_session ||
        (block->session == sub->log_session && (uint64_t)block->instance + index <= sub->log_instance);
    return is_before && bk_store_of(gathering->core, block->channel) == BK_STORE_LOG;
}

/* Why the event at @index is not sent; BK_REASONS: it is. */
static enum bk_reason reason_to_leave(const struct gathering *gathering,
                                      const struct bk_block *block,
                                      uint32_t index,
                                      const struct bb_event_view *event)
{
    if (block->has_ttl && bb_event_has_expired(event, block->time, gathering->core->wall)) {
        return BK_REASON_EXPIRED;
    }
    if (is_passed(gathering, block, index)) {
        return BK_REASON_TRIMMED;
    }
    bool is_kept = gathering->conflation == NULL ||
                   bk_conflation_keeps(gathering->conflation, event->path, event->raw.data);
    return is_kept ? BK_REASONS : BK_REASON_CONFLATED;
}

/* --- gathering ------------------------------------------------------------------------------------------ */

static int gather_one_by_one(struct gathering *gathering, const struct bk_item *item)
{
    struct bk_core *core = gathering->core;
    struct bb_slice rest = bb_slice(item->data, item->len);
    struct bk_item run = {.block = item->block};
    int r = 0;
    for (uint32_t i = item->first; rest.len > 0 && r == 0; i++) {
        struct bb_event_view event;
        r = bb_event_read(&rest, &event);
        enum bk_reason reason = r == 0 ? reason_to_leave(gathering, item->block, i, &event) : BK_REASONS;
        if (r == 0 && reason == BK_REASONS) {
            bk_item_extend(&run, event.raw, i, 1);
        } else if (r == 0) {
            r = leave_out(core, item->block, item->block->sequence + i, event.raw.len, reason);
            if (run.count > 0) {
                bk_parcel_add(&core->parcel, &run);
                run.count = 0;
            }
        }
        gathering->done = r == 0 ? item->block->sequence + i : gathering->done;
    }
    if (run.count > 0) {
        bk_parcel_add(&core->parcel, &run);
    }
    return r != 0 ? r : core->parcel.error;
}

static int gather_item(void *context, const struct bk_item *item)
{
    struct gathering *gathering = context;
    if (item->block->has_ttl || gathering->conflation != NULL ||
        is_passed(gathering, item->block, item->first)) {
        return gather_one_by_one(gathering, item);
    }
    bk_parcel_add(&gathering->core->parcel, item);
    return gathering->core->parcel.error;
}

/* A block that was left in the middle: its range ends there. */
static void end_range(struct bk_parcel *parcel, const struct bk_block *block, uint64_t done)
{
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        if (parcel->ranges[i].channel == block->channel && parcel->ranges[i].to > done) {
            parcel->ranges[i].to = BB_MAX(done, parcel->ranges[i].last);
        }
    }
}

static bool has_room_for(const struct bk_parcel *parcel, const struct bk_block *block)
{
    return parcel->bytes == 0 || parcel->bytes + block->body_len <= BK_ROUND_BYTES;
}

/* Fill the core's parcel and moves from the ring. Where it got to. */
static int
gather(struct bk_core *core, struct bk_sub *sub, const struct bk_conflation *conflation, uint64_t *ret_pos)
{
    struct gathering gathering = {core, sub, conflation, 0};
    uint64_t end = sub->is_dropping ? BB_MIN(sub->skip_pos, core->fanned_pos) : core->fanned_pos;
    uint64_t pos = sub->cursor;
    size_t looked = 0;
    int r = 0;
    bk_parcel_reset(&core->parcel);
    bb_buf_reset(&core->moves);
    while (pos < end && looked < LOOK_BYTES && core->parcel.bytes < BK_ROUND_BYTES) {
        const struct bk_block *block = bk_ring_at(&core->ring, &pos);
        if (block == NULL || pos >= end || !has_room_for(&core->parcel, block)) {
            pos = BB_MIN(pos, end);
            break;
        }
        bk_route_trim(&core->route);
        gathering.done = block->sequence - 1;
        r = bk_wanted_each(core, sub, block, UINT64_MAX, gather_item, &gathering);
        if (r == GATHERED_ENOUGH) {
            end_range(&core->parcel, block, gathering.done);
            break;
        }
        if (r < 0) {
            return r;
        }
        looked += sizeof(*block) + block->body_len;
        pos++;
    }
    *ret_pos = pos;
    return bk_parcel_finish(&core->parcel, &core->meter);
}

/* What the ring has for it, as far as one message goes. Return: as bk_deliver(), BB_ENOMEM. */
static int deliver_from_ring(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_conflation *conflation = NULL;
    uint64_t pos = 0;
    int r = bk_overflow_apply(core, sub, &conflation);
    if (r == 0) {
        r = gather(core, sub, conflation, &pos);
    }
    bk_conflation_free(conflation);
    if (r < 0) {
        return r;
    }
    struct bk_delivery delivery = bk_delivery_of(&core->parcel, BK_SOURCE_RING);
    delivery.moves = (const struct bk_move *)(const void *)core->moves.data;
    delivery.n_moves = n_moves(core);
    r = bk_deliver(core, sub, &delivery);
    if (r == 0) {
        sub->cursor = pos;
    }
    return r;
}

/* --- one subscription ------------------------------------------------------------------------------------ */

/* Whether it has been sent all that is there for it. */
static bool has_all(const struct bk_core *core, const struct bk_sub *sub)
{
    return sub->state == BK_SUB_LIVE || (sub->state == BK_SUB_LAGGING && sub->cursor >= core->fanned_pos &&
                                         sub->n_cold == 0 && sub->n_losing == 0 && !sub->is_dropping);
}

static bool may_have(const struct bk_core *core, const struct bk_sub *sub)
{
    return bk_sub_has_credit(sub) && bk_client_has_room(core, sub->client);
}

/* One message. Return: 0; BB_ECORRUPT or BB_ELIMIT if it must end; else why its client must go. */
static int catch_up(struct bk_core *core, struct bk_sub *sub)
{
    int r = 0;
    if (sub->state == BK_SUB_RETAINED) {
        r = bk_retained_step(core, sub);
        if (r < 0 || sub->state == BK_SUB_RETAINED || !may_have(core, sub)) {
            return r;
        }
    }
    if (sub->n_cold > 0) {
        r = bk_cold_step(core, sub);
        if (r < 0 || !may_have(core, sub)) {
            return r;
        }
    }
    r = deliver_from_ring(core, sub);
    if (r == 0 && sub->is_dropping && sub->cursor >= sub->skip_pos) {
        r = deliver_from_ring(core, sub); /* all that waited is sent: what came since is lost, and no more */
    }
    if (r == BB_EAGAIN || r == BB_ECLOSED) {
        return 0; /* tried again, or doomed already */
    }
    if (r == 0 && has_all(core, sub) && sub->until == BK_UNTIL_NONE) {
        bk_sub_enter(core, sub, BK_SUB_LIVE);
        bk_count(core, BK_COUNTER_live_joins, 1);
    }
    return r;
}

static void look_at(struct bk_core *core, struct bk_sub *sub)
{
    bool could_have = may_have(core, sub);
    int r = could_have ? catch_up(core, sub) : 0;
    if (r == BB_ECORRUPT || r == BB_ELIMIT) {
        bk_sub_end(core, sub, bb_errcode(r)); /* it would be the same each time that it came again */
    } else if (r < 0) {
        bk_client_send_away(core, sub->client, r, NULL);
    } else if (bk_until_is_reached(core, sub)) {
        bk_sub_end(core, sub, "done");
    } else if (could_have && may_have(core, sub) && !has_all(core, sub)) {
        bk_sub_set_ready(core, sub);
    }
}

void bk_catch_up(struct bk_core *core)
{
    struct bk_sub *last = core->ready_last;
    for (bool more = last != NULL; more;) {
        struct bk_sub *sub = core->ready_first;
        more = sub != last;
        bk_sub_clear_ready(core, sub);
        look_at(core, sub);
    }
    bk_parcel_reset(&core->parcel);
}

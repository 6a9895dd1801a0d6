/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Subscriptions that lag: fed from the ring, one message a flush each, until their cursor meets the end and they
 * join the live flow. What the ring loses before they had it is counted when it goes, so that the gap
 * they are told is exact.
 */
#include "broker/core/state.h"

#include <inttypes.h>

/* How much of the ring is looked through for one message, so that a subscription that wants little of it does
 * not hold up the others. */
#define LOOK_BYTES ((size_t)4 << 20)

void bk_sub_set_ready(struct bk_core *core, struct bk_sub *sub)
{
    if (sub->live || sub->ready || !bk_sub_has_credit(sub) || !bk_client_has_room(core, sub->client) ||
        bk_cold_is_waiting(core, sub) || bk_snapshot_is_waiting(sub)) {
        return;
    }
    sub->ready = true;
    sub->next_ready = NULL;
    sub->prev_ready = core->ready_last;
    *(core->ready_last != NULL ? &core->ready_last->next_ready : &core->ready_first) = sub;
    core->ready_last = sub;
}

void bk_sub_clear_ready(struct bk_core *core, struct bk_sub *sub)
{
    if (sub->ready) {
        *(sub->prev_ready != NULL ? &sub->prev_ready->next_ready : &core->ready_first) = sub->next_ready;
        *(sub->next_ready != NULL ? &sub->next_ready->prev_ready : &core->ready_last) = sub->prev_ready;
        sub->ready = false;
    }
}

void bk_sub_leave_live(struct bk_core *core, struct bk_sub *sub, uint64_t pos)
{
    sub->live = false;
    sub->cursor = pos;
    core->n_lagging++;
    bk_count(core, BK_COUNTER_live_leaves, 1);
}

static void join_live(struct bk_core *core, struct bk_sub *sub)
{
    sub->live = true;
    sub->dropping = false;
    sub->lag_bytes = 0;
    core->n_lagging--;
    bk_count(core, BK_COUNTER_live_joins, 1);
}

/* --- gaps ----------------------------------------------------------------------------------------- */

static const char *gap_reason(enum bk_counter counter)
{
    switch ((int)counter) {
    case BK_COUNTER_gap_overflow:
        return "overflow";
    case BK_COUNTER_gap_dropped_oldest:
        return "dropped_oldest";
    case BK_COUNTER_gap_dropped_newest:
        return "dropped_newest";
    case BK_COUNTER_gap_conflated:
        return "conflated";
    case BK_COUNTER_gap_trimmed:
        return "trimmed";
    case BK_COUNTER_gap_expired:
        return "expired";
    case BK_COUNTER_gap_retracted:
        return "retracted";
    default:
        return "restart";
    }
}

static void write_number(struct bb_buf *out, uint64_t number)
{
    if (number == BK_GAP_NO_NUMBER) {
        bb_mp_write_nil(out);
    } else {
        bb_mp_write_uint(out, number);
    }
}

void bk_gap_add(struct bk_core *core, struct bk_sub *sub, const struct bk_gap *gap)
{
    struct bb_buf *out = &core->gaps;
    uint64_t known = gap->count == BK_GAP_NO_NUMBER ? 0 : gap->count;
    bb_mp_write_array(out, 5);
    bb_mp_write_str(out, gap->channel != NULL ? gap->channel->name : gap->channel_name);
    bb_mp_write_uint(out, gap->from);
    write_number(out, gap->to);
    write_number(out, gap->count);
    bb_mp_write_str(out, bb_slice_str(gap_reason(gap->reason)));
    core->n_gaps++;
    if (gap->reason < BK_COUNTERS) {
        bk_count(core, gap->reason, known);
    }
    bk_count(core, BK_COUNTER_gaps_out, 1);
    sub->client->events_lost += known;
    if (gap->channel != NULL) {
        gap->channel->n_gaps += known;
    }
}

struct bb_slice bk_gaps_take(struct bk_core *core, struct bb_buf *to)
{
    size_t start = to->len;
    if (core->n_gaps > 0) {
        bb_mp_write_array(to, core->n_gaps);
        bb_buf_append(to, core->gaps.data, core->gaps.len);
        to->error = to->error != 0 ? to->error : core->gaps.error;
    }
    core->n_gaps = 0;
    bb_buf_reset(&core->gaps);
    return bb_slice(to->data + start, to->len - start);
}

void bk_gaps_send(struct bk_core *core, struct bk_sub *sub)
{
    if (core->n_gaps == 0) {
        return;
    }
    bb_buf_reset(&core->nested);
    struct bb_slice gaps = bk_gaps_take(core, &core->nested);
    if (core->nested.error != 0) {
        bk_client_send_away(core, sub->client, core->nested.error, NULL);
        return;
    }
    bk_client_send_msg(core, sub->client, &(struct bb_msg){.type = BB_MSG_GAP, .sub = sub->id, .gaps = gaps});
}

/* Add what was lost in each channel so far, for one reason; it is then told. */
static void add_lost(struct bk_core *core, struct bk_sub *sub, enum bk_counter reason)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        if (position->lost == 0) {
            continue;
        }
        bk_gap_add(core, sub,
                   &(struct bk_gap){
                       .channel = position->channel,
                       .from = position->covered + 1,
                       .to = position->lost_to,
                       .count = position->lost,
                       .reason = reason,
                   });
        position->covered = position->lost_to;
        position->lost = 0;
    }
}

static void tell_lost(struct bk_core *core, struct bk_sub *sub, enum bk_counter reason)
{
    add_lost(core, sub, reason);
    bk_gaps_send(core, sub);
}

/* --- what of a block a subscription wants ------------------------------------------------------------ */

/* The sequence up to which @sub's fate in @channel is settled, and up to which it wants events from the ring. */
static int
wanted_after(struct bk_sub *sub, struct bk_channel *channel, uint64_t *ret_after, uint64_t *ret_stop)
{
    const struct bk_position *position = bk_sub_position(sub, channel);
    if (position == NULL) {
        return BB_ENOMEM;
    }
    *ret_after = BB_MAX(position->covered, position->lost > 0 ? position->lost_to : 0);
    *ret_stop = position->cold ? 0 : position->stop;
    return 0;
}

struct wanting {
    struct bk_core *core;
    struct bk_sub *sub;
    const struct bk_block *block;
    struct bk_path *path; /* of the event before */
    uint64_t after;       /* UINT64_MAX: unknown until something matches */
    uint64_t stop;
};

/* Does the subscription match @path? 1, 0, or BB_ENOMEM. */
static int wants_path(struct wanting *wanting, struct bb_slice path)
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
    int r = wanting->after == UINT64_MAX
                ? wanted_after(wanting->sub, wanting->block->channel, &wanting->after, &wanting->stop)
                : 0;
    return r < 0 ? r : 1;
}

static void item_extend(struct bk_item *item, struct bb_slice raw, uint32_t first, uint32_t count)
{
    if (item->count == 0) {
        item->data = raw.data;
        item->first = first;
        item->len = 0;
    }
    item->len += (uint32_t)raw.len;
    item->count += count;
}

int bk_for_each_wanted(struct bk_core *core,
                       struct bk_sub *sub,
                       const struct bk_block *block,
                       bk_item_fn *on_item,
                       void *context)
{
    struct bb_slice rest = bb_slice(block->body, block->body_len);
    struct bb_event_view event;
    struct wanting wanting = {core, sub, block, NULL, UINT64_MAX, 0};
    struct bk_item item = {.block = block};
    bool whole = false;
    int r = 0;
    if (block->time > sub->until_time) {
        return 0;
    }
    for (uint32_t i = 0; i < block->count && r == 0 && !whole; i++) {
        r = bb_event_read(&rest, &event);
        r = r < 0 ? r : wants_path(&wanting, event.path);
        if (r < 0 || (r == 0 && block->uniform)) {
            return r;
        }
        uint64_t sequence = block->sequence + i;
        bool wanted = r > 0 && sequence > wanting.after && sequence <= wanting.stop;
        r = 0;
        if (wanted && block->uniform && i == 0 && block->sequence + block->count - 1 <= wanting.stop) {
            whole = true;
            item_extend(&item, bb_slice(block->body, block->body_len), 0, block->count);
        } else if (wanted) {
            item_extend(&item, event.raw, i, 1);
        } else if (item.count > 0) {
            r = on_item(context, &item);
            item.count = 0;
        }
    }
    return r == 0 && item.count > 0 ? on_item(context, &item) : r;
}

struct counting {
    struct bk_sub *sub;
    uint64_t lost_to; /* the events are lost, up to here; 0: they wait */
};

static int count_waiting(void *context, const struct bk_item *item)
{
    struct counting *counting = context;
    struct bk_position *position = bk_sub_position(counting->sub, item->block->channel);
    position->pending += item->count; /* bk_for_each_wanted() made the position */
    counting->sub->lag_bytes += item->len;
    return 0;
}

int bk_count_waiting(struct bk_core *core, struct bk_sub *sub)
{
    struct counting counting = {.sub = sub};
    const struct bk_block *block = NULL;
    for (uint64_t pos = sub->cursor; (block = bk_ring_at(&core->ring, &pos)) != NULL; pos++) {
        bk_route_trim(&core->route);
        int r = bk_for_each_wanted(core, sub, block, count_waiting, &counting);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

static int count_lost(void *context, const struct bk_item *item)
{
    struct counting *counting = context;
    struct bk_position *position = bk_sub_position(counting->sub, item->block->channel);
    position->pending -= BB_MIN(item->count, position->pending);
    position->lost += item->count;
    counting->lost_to = item->block->sequence + item->first + item->count - 1;
    counting->sub->lag_bytes -= BB_MIN(item->len, counting->sub->lag_bytes);
    return 0;
}

/* @sub will not get @block. */
static int lose_block(struct bk_core *core, struct bk_sub *sub, const struct bk_block *block)
{
    struct counting counting = {.sub = sub};
    int r = bk_for_each_wanted(core, sub, block, count_lost, &counting);
    if (counting.lost_to != 0) {
        bk_sub_position(sub, block->channel)->lost_to = counting.lost_to;
    }
    return r;
}

/* What a subscription that slides misses in the ring it finds in the log. */
static bool go_on_from_log(struct bk_core *core, struct bk_sub *sub, const struct bk_block *block)
{
    struct bk_position *position = bk_sub_position(sub, block->channel); /* it matches a path of the block */
    bool can = sub->filter != NULL && sub->overflow == BK_OVERFLOW_SLIDE && position != NULL &&
               bk_store_of(core, block->channel) == BK_STORE_LOG;
    if (can && position->covered < block->sequence + block->count - 1) {
        bk_sub_set_cold(core, sub);
    }
    return can;
}

static int lose_for_set(struct bk_core *core, const struct bk_block *block, const struct bk_set *set)
{
    for (uint32_t i = 0; i < set->n_subs; i++) {
        struct bk_sub *sub = set->subs[i];
        if (sub->live || sub->cursor > block->pos || sub->evicted_pos == block->pos + 1) {
            continue;
        }
        sub->evicted_pos = block->pos + 1; /* met again through another path of the block: counted once */
        int r = go_on_from_log(core, sub, block) ? 0 : lose_block(core, sub, block);
        if (r < 0) {
            bk_client_send_away(core, sub->client, r, NULL);
        }
    }
    return 0;
}

/* Without memory to find out whom @block's loss costs something, all that may have waited for it are told to
 * come again. */
static void lose_for_all(struct bk_core *core, const struct bk_block *block)
{
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (const struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (!sub->live && sub->cursor <= block->pos) {
                bk_client_send_away(core, client, BB_ENOMEM, NULL);
            }
        }
    }
}

void bk_block_evicted(void *context, const struct bk_block *block)
{
    struct bk_core *core = context;
    struct bb_slice rest = bb_slice(block->body, block->body_len);
    struct bb_event_view event;
    struct bk_path *path = NULL;
    bool fanning = core->fanning;
    if (core->n_lagging == 0) {
        return;
    }
    bk_route_trim(&core->route);
    core->fanning = true; /* sets are being walked */
    while (rest.len > 0 && bb_event_read(&rest, &event) == 0) {
        const struct bk_set *set = path != NULL ? path->set : NULL;
        if (bk_route_find(&core->route, event.path, &path) < 0) {
            lose_for_all(core, block);
            break;
        }
        if (path->set != set) {
            (void)lose_for_set(core, block, path->set);
        }
        if (block->uniform) {
            break;
        }
    }
    if (!fanning) {
        core->fanning = false;
    }
}

/* --- policies ------------------------------------------------------------------------------------- */

/* drop_newest: all that came since the budget was used up is lost; then it is live again. */
static void drop_newest(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        if (position->pending > 0) {
            position->lost += position->pending;
            position->lost_to = BB_MIN(position->channel->last, position->stop);
            position->pending = 0;
        }
    }
    tell_lost(core, sub, BK_COUNTER_gap_dropped_newest);
    sub->cursor = core->fanned_pos;
    join_live(core, sub);
}

static int drop_oldest(struct bk_core *core, struct bk_sub *sub)
{
    const struct bk_block *block = NULL;
    uint64_t pos = sub->cursor;
    while (sub->lag_bytes > sub->budget && pos < core->fanned_pos &&
           (block = bk_ring_at(&core->ring, &pos)) != NULL) {
        bk_route_trim(&core->route);
        int r = lose_block(core, sub, block);
        if (r < 0) {
            return r;
        }
        sub->cursor = ++pos;
    }
    tell_lost(core, sub, BK_COUNTER_gap_dropped_oldest);
    return 0;
}

/* --- sending -------------------------------------------------------------------------------------- */

struct gathering {
    struct bk_core *core;
    struct bk_sub *sub;
    struct bk_conflation *conflation; /* NULL: everything goes */
    uint64_t expired;                 /* events */
};

static int gather_run(const struct gathering *gathering, const struct bk_item *item)
{
    if (gathering->conflation != NULL) {
        return bk_conflation_add(gathering->conflation, gathering->sub, &gathering->core->parcel, item);
    }
    bk_parcel_add(&gathering->core->parcel, item);
    return gathering->core->parcel.error;
}

static void expire(struct gathering *gathering, const struct bk_item *item, uint32_t index, size_t len)
{
    struct bk_sub *sub = gathering->sub;
    struct bk_position *position = bk_sub_position(sub, item->block->channel);
    position->pending -= BB_MIN(1, position->pending);
    position->lost++;
    position->lost_to = item->block->sequence + index;
    sub->lag_bytes -= BB_MIN(len, sub->lag_bytes);
    gathering->expired++;
}

/* Without what has waited longer than its time to live. */
static int gather_item(void *context, const struct bk_item *item)
{
    struct gathering *gathering = context;
    struct bb_slice rest = bb_slice(item->data, item->len);
    struct bk_item run = {.block = item->block};
    int r = 0;
    if (!item->block->has_ttl) {
        return gather_run(gathering, item);
    }
    for (uint32_t i = item->first; rest.len > 0 && r == 0; i++) {
        struct bb_event_view event;
        r = bb_event_read(&rest, &event);
        bool is_over = r == 0 && bb_event_has_expired(&event, item->block->time, gathering->core->wall);
        if (r == 0 && !is_over) {
            item_extend(&run, event.raw, i, 1);
        } else if (r == 0) {
            expire(gathering, item, i, event.raw.len);
            r = run.count > 0 ? gather_run(gathering, &run) : 0;
            run.count = 0;
        }
    }
    return r == 0 && run.count > 0 ? gather_run(gathering, &run) : r;
}

/* Fill the core's parcel from the ring; where it got to, and how many events have expired on the way. */
static int gather(struct bk_core *core,
                  struct bk_sub *sub,
                  struct bk_conflation *conflation,
                  uint64_t *ret_pos,
                  uint64_t *ret_expired)
{
    struct gathering gathering = {core, sub, conflation, 0};
    uint64_t end = sub->dropping ? BB_MIN(sub->skip_pos, core->fanned_pos) : core->fanned_pos;
    uint64_t pos = sub->cursor;
    const struct bk_block *block = NULL;
    size_t looked = 0;
    bk_parcel_reset(&core->parcel);
    while (pos < end && looked < LOOK_BYTES && core->parcel.bytes < BK_ROUND_BYTES) {
        block = bk_ring_at(&core->ring, &pos);
        if (block == NULL || pos >= end ||
            (core->parcel.bytes > 0 && core->parcel.bytes + block->body_len > BK_ROUND_BYTES)) {
            pos = BB_MIN(pos, end);
            break;
        }
        bk_route_trim(&core->route);
        int r = bk_for_each_wanted(core, sub, block, gather_item, &gathering);
        if (r < 0) {
            return r;
        }
        looked += sizeof(*block) + block->body_len;
        pos++;
    }
    *ret_pos = pos;
    *ret_expired = gathering.expired;
    return bk_parcel_finish(&core->parcel, &core->meter);
}

/* What the ring has for it, as far as one message goes; where that ends. Return: as bk_deliver(), BB_EOVERFLOW, ... */
static int deliver_from_ring(struct bk_core *core, struct bk_sub *sub, uint64_t *ret_pos)
{
    struct bk_conflation *conflation = NULL;
    uint64_t expired = 0;
    int r = 0;
    if (sub->overflow == BK_OVERFLOW_DROP_OLDEST && sub->lag_bytes > sub->budget) {
        r = drop_oldest(core, sub);
    } else if (sub->overflow == BK_OVERFLOW_CONFLATE && sub->lag_bytes > sub->budget) {
        r = bk_conflation_new(core, sub, &conflation);
    }
    if (r == 0) {
        r = gather(core, sub, conflation, ret_pos, &expired);
    }
    if (r == 0 && (conflation != NULL || expired > 0)) { /* what is kept lies between: one message for both */
        add_lost(core, sub, conflation != NULL ? BK_COUNTER_gap_conflated : BK_COUNTER_gap_expired);
    }
    bk_conflation_free(conflation);
    if (r == 0 && core->parcel.events > 0) {
        bool has_gaps = core->n_gaps > 0;
        r = bk_deliver(core, sub, &core->parcel);
        return r == BB_EAGAIN && has_gaps ? BB_EOVERFLOW
                                          : r; /* its positions have moved: it must come again */
    }
    if (r == 0) {
        bk_gaps_send(core, sub);
    }
    return r;
}

/* One message to a lagging subscription. Return: 0; BB_ECORRUPT if it must end; else why its client must go. */
static int catch_up(struct bk_core *core, struct bk_sub *sub)
{
    uint64_t pos = 0;
    int r = 0;
    if (sub->snapshot != NULL) {
        return bk_snapshot_step(core, sub);
    }
    tell_lost(core, sub, BK_COUNTER_gap_overflow);
    if (sub->n_cold > 0) {
        r = bk_cold_step(core, sub);
        if (r < 0 || sub->client->doomed || !bk_sub_has_credit(sub) ||
            !bk_client_has_room(core, sub->client)) {
            return r;
        }
    }
    if (sub->dropping && sub->cursor >= sub->skip_pos) {
        drop_newest(core, sub);
        return 0;
    }
    r = deliver_from_ring(core, sub, &pos);
    if (r == BB_EAGAIN || r == BB_ECLOSED) {
        return 0; /* tried again, or gone already */
    }
    if (r < 0) {
        return r;
    }
    sub->cursor = pos;
    if (sub->cursor >= core->fanned_pos && !sub->dropping && sub->n_cold == 0 &&
        sub->until == BK_UNTIL_NONE) {
        join_live(core, sub);
    }
    return 0;
}

void bk_catch_up(struct bk_core *core)
{
    struct bk_sub *last = core->ready_last;
    core->fanning = true;
    for (bool more = last != NULL; more;) {
        struct bk_sub *sub = core->ready_first;
        more = sub != last;
        bk_sub_clear_ready(core, sub);
        if (!bk_sub_has_credit(sub) || !bk_client_has_room(core, sub->client)) {
            continue;
        }
        int r = catch_up(core, sub);
        if (r == BB_ECORRUPT) {
            bk_sub_end(core, sub, bb_errcode(r)); /* it would be the same each time that it came again */
        } else if (r < 0) {
            bk_client_send_away(core, sub->client, r, NULL);
        } else if (bk_until_is_reached(core, sub)) {
            bk_sub_end(core, sub, "done");
        } else if (sub->until == BK_UNTIL_NONE || sub->cursor < core->fanned_pos || sub->n_cold > 0 ||
                   sub->snapshot != NULL) {
            bk_sub_set_ready(core, sub);
        }
    }
    bk_parcel_reset(&core->parcel);
    bk_fanning_end(core);
}

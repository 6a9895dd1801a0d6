/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/deliver/send.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/sub.h"

/* How far @range brings the position: what comes after the last event wanted is none of its business. */
static uint64_t reached(const struct bk_position *position, const struct bk_range *range, uint64_t settled)
{
    return BB_MAX(BB_MIN(range->to, position->stop), settled);
}

static void write_range(struct bk_core *core,
                        const struct bk_sub *sub,
                        const struct bk_position *position,
                        const struct bk_range *range)
{
    struct bb_buf *out = &core->scratch;
    uint64_t settled = bk_gaps_any(core) ? bk_gaps_settled(core, position) : position->account.covered;
    uint64_t to = reached(position, range, settled);
    uint64_t life = bk_sub_untold_life(sub, position, to);
    bb_mp_write_array(out, life != 0 ? 4 : 3);
    bb_mp_write_str(out, range->channel->name);
    bb_mp_write_uint(out, settled);
    bb_mp_write_uint(out, to);
    if (life != 0) {
        bb_mp_write_uint(out, life);
    }
}

static void write_ranges(struct bk_core *core, struct bk_sub *sub, const struct bk_delivery *delivery)
{
    bb_mp_write_array(&core->scratch, (uint32_t)delivery->n_ranges);
    for (size_t i = 0; i < delivery->n_ranges; i++) {
        const struct bk_position *position = bk_sub_position(sub, delivery->ranges[i].channel);
        if (position == NULL) {
            core->scratch.error = BB_ENOMEM;
            return;
        }
        write_range(core, sub, position, &delivery->ranges[i]);
    }
}

/* With ranges it is a `deliver`, without them a `gap`. */
static void write_head(struct bk_core *core, struct bk_sub *sub, const struct bk_delivery *delivery)
{
    bool has_ranges = delivery->n_ranges > 0;
    bb_buf_reset(&core->scratch);
    bb_mp_write_array(&core->scratch, 2u + has_ranges + bk_gaps_any(core));
    bb_mp_write_uint(&core->scratch, has_ranges ? BB_MSG_DELIVER : BB_MSG_GAP);
    bb_mp_write_uint(&core->scratch, sub->id);
    if (has_ranges) {
        write_ranges(core, sub, delivery);
    }
    if (bk_gaps_any(core)) {
        bk_gaps_write(core, &core->scratch);
    }
}

static void add_moves(struct bk_core *core, const struct bk_sub *sub, const struct bk_delivery *delivery)
{
    for (size_t i = 0; i < delivery->n_moves; i++) {
        const struct bk_move *move = &delivery->moves[i];
        const struct bk_position *position = bk_sub_find_position(sub, move->channel);
        bk_gap_add(core, &(struct bk_gap){.channel = move->channel,
                                          .name = move->channel->name,
                                          .from = bk_gaps_settled(core, position) + 1,
                                          .to = move->to,
                                          .count = move->count,
                                          .reason = move->reason,
                                          .life = bk_sub_untold_life(sub, position, move->to)});
    }
}

static void settle_move(struct bk_sub *sub, const struct bk_move *move, enum bk_source source)
{
    struct bk_account *account = &bk_sub_find_position(sub, move->channel)->account;
    if (source == BK_SOURCE_RING) {
        bk_account_report_waiting(account, move->to, move->count, move->bytes);
        sub->lag_bytes -= move->bytes;
    } else {
        bk_account_report_unseen(account, move->to, move->count == BK_NO_NUMBER ? 0 : move->count);
    }
}

/* The losses that were sent along are settled before. */
static void settle_range(struct bk_sub *sub, const struct bk_range *range, enum bk_source source)
{
    struct bk_position *position = bk_sub_find_position(sub, range->channel); /* write_head() made it */
    struct bk_account *account = &position->account;
    uint64_t to = reached(position, range, account->covered);
    if (source == BK_SOURCE_RING) {
        bk_account_deliver(account, to, range->events, range->bytes);
        sub->lag_bytes -= range->bytes;
    } else {
        bk_account_pass(account, to, range->events);
    }
    position->life = bk_sub_life_at(sub, range->channel, to);
    range->channel->n_delivered += range->events;
}

static void settle(struct bk_core *core, struct bk_sub *sub, const struct bk_delivery *delivery)
{
    if (bk_gaps_any(core)) {
        bk_gaps_sent(core, sub);
    }
    for (size_t i = 0; i < delivery->n_moves; i++) {
        settle_move(sub, &delivery->moves[i], delivery->source);
    }
    for (size_t i = 0; i < delivery->n_ranges; i++) {
        settle_range(sub, &delivery->ranges[i], delivery->source);
    }
    sub->sent_bytes += delivery->bytes;
    sub->sent_events += delivery->events;
    sub->client->events_out += delivery->events;
    bk_count(core, BK_COUNTER_events_out, delivery->events);
    bk_count(core, BK_COUNTER_bytes_out, delivery->bytes);
}

static int send(struct bk_core *core, struct bk_sub *sub, const struct bk_delivery *delivery)
{
    struct bk_part parts[BK_PARTS_MAX];
    size_t n = 1;
    if (delivery->is_small) {
        bb_buf_append(&core->scratch, delivery->parts[0].data, delivery->parts[0].len);
    } else if (delivery->n_parts > 0) {
        memcpy(parts + 1, delivery->parts, delivery->n_parts * sizeof(parts[0]));
        n += delivery->n_parts;
    }
    if (core->scratch.error != 0) {
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return BB_ECLOSED;
    }
    parts[0] = (struct bk_part){NULL, core->scratch.data, core->scratch.len};
    return bk_client_send(core, sub->client, parts, n);
}

int bk_deliver(struct bk_core *core, struct bk_sub *sub, const struct bk_delivery *delivery)
{
    if (sub->n_losing > 0) {
        bk_gaps_add_losses(core, sub);
    }
    add_moves(core, sub, delivery);
    if (delivery->n_ranges == 0 && !bk_gaps_any(core)) {
        return 0;
    }
    write_head(core, sub, delivery);
    int r = send(core, sub, delivery);
    if (r < 0) {
        bk_gaps_forget(core);
        return r;
    }
    settle(core, sub, delivery);
    return 0;
}

struct bk_delivery bk_delivery_of(const struct bk_parcel *parcel, enum bk_source source)
{
    return (struct bk_delivery){
        .source = source,
        .ranges = parcel->ranges,
        .n_ranges = parcel->n_ranges,
        .parts = parcel->parts,
        .n_parts = parcel->n_parts,
        .is_small = parcel->n_parts == 1 && parcel->parts[0].owner == parcel->copy,
        .events = parcel->events,
        .bytes = parcel->bytes,
    };
}

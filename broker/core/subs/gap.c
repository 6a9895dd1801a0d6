/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/gap.h"

#include "broker/core/clients/client.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/sub.h"

static const struct {
    const char *word;
    enum bk_counter counter;
} reasons[BK_REASONS] = {
    [BK_REASON_OVERFLOW] = {"overflow", BK_COUNTER_gap_overflow},
    [BK_REASON_DROPPED_OLDEST] = {"dropped_oldest", BK_COUNTER_gap_dropped_oldest},
    [BK_REASON_DROPPED_NEWEST] = {"dropped_newest", BK_COUNTER_gap_dropped_newest},
    [BK_REASON_CONFLATED] = {"conflated", BK_COUNTER_gap_conflated},
    [BK_REASON_TRIMMED] = {"trimmed", BK_COUNTER_gap_trimmed},
    [BK_REASON_EXPIRED] = {"expired", BK_COUNTER_gap_expired},
    [BK_REASON_RETRACTED] = {"retracted", BK_COUNTER_gap_retracted},
    [BK_REASON_RESTART] = {"restart", BK_COUNTER_gap_restart},
};

static size_t n_gaps(const struct bk_core *core)
{
    return core->gaps.len / sizeof(struct bk_gap);
}

static const struct bk_gap *gap_at(const struct bk_core *core, size_t i)
{
    return (const struct bk_gap *)(const void *)core->gaps.data + i;
}

void bk_gap_add(struct bk_core *core, const struct bk_gap *gap)
{
    bb_buf_append(&core->gaps, gap, sizeof(*gap));
}

void bk_gaps_add_losses(struct bk_core *core, const struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions && sub->n_losing > 0; i++) {
        const struct bk_position *position = &sub->positions[i];
        uint64_t from = position->account.covered + 1;
        uint64_t life = bk_sub_untold_life(sub, position, bk_account_settled(&position->account));
        for (uint32_t k = 0; k < position->account.n_losses; k++) {
            const struct bk_loss *loss = &position->account.losses[k];
            bk_gap_add(core, &(struct bk_gap){.channel = position->channel,
                                              .name = position->channel->name,
                                              .from = from,
                                              .to = loss->to,
                                              .count = loss->count,
                                              .reason = loss->reason,
                                              .life = life});
            from = loss->to + 1;
        }
    }
}

uint64_t bk_gaps_settled(const struct bk_core *core, const struct bk_position *position)
{
    for (size_t i = n_gaps(core); i > 0; i--) {
        if (gap_at(core, i - 1)->channel == position->channel) {
            return gap_at(core, i - 1)->to;
        }
    }
    return position->account.covered;
}

static void write_number(struct bb_buf *out, uint64_t number)
{
    if (number == BK_NO_NUMBER) {
        bb_mp_write_nil(out);
    } else {
        bb_mp_write_uint(out, number);
    }
}

void bk_gaps_write(const struct bk_core *core, struct bb_buf *out)
{
    if (!bk_gaps_any(core)) {
        return;
    }
    bb_mp_write_array(out, (uint32_t)n_gaps(core));
    for (size_t i = 0; i < n_gaps(core); i++) {
        const struct bk_gap *gap = gap_at(core, i);
        bb_mp_write_array(out, gap->life != 0 ? 6 : 5);
        bb_mp_write_str(out, gap->name);
        bb_mp_write_uint(out, gap->from);
        write_number(out, gap->to);
        write_number(out, gap->count);
        bb_mp_write_str(out, bb_slice_str(reasons[gap->reason].word));
        if (gap->life != 0) {
            bb_mp_write_uint(out, gap->life);
        }
    }
    out->error = out->error != 0 ? out->error : core->gaps.error;
}

void bk_gaps_forget(struct bk_core *core)
{
    bb_buf_reset(&core->gaps);
}

static void count(struct bk_core *core, struct bk_sub *sub, const struct bk_gap *gap)
{
    uint64_t known = gap->count == BK_NO_NUMBER ? 0 : gap->count;
    bk_count(core, reasons[gap->reason].counter, known);
    bk_count(core, BK_COUNTER_gaps_out, 1);
    sub->client->events_lost += known;
    struct bk_position *position = gap->channel != NULL ? bk_sub_find_position(sub, gap->channel) : NULL;
    if (gap->channel != NULL) {
        gap->channel->n_gaps += known;
    }
    if (position != NULL && gap->life != 0) {
        position->life = gap->life;
    }
}

void bk_gaps_sent(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < n_gaps(core); i++) {
        count(core, sub, gap_at(core, i));
    }
    for (size_t i = 0; i < sub->n_positions && sub->n_losing > 0; i++) {
        if (sub->positions[i].account.n_losses > 0) {
            bk_account_report(&sub->positions[i].account);
            sub->n_losing--;
        }
    }
    bk_gaps_forget(core);
}

void bk_gaps_send(struct bk_core *core, struct bk_sub *sub)
{
    if (!bk_gaps_any(core)) {
        return;
    }
    bk_gaps_add_losses(core, sub);
    bb_buf_reset(&core->nested);
    bk_gaps_write(core, &core->nested);
    if (core->nested.error != 0) {
        bk_gaps_forget(core);
        bk_client_send_away(core, sub->client, BB_ENOMEM, NULL);
        return;
    }
    bk_client_send_msg(
        core, sub->client,
        &(struct bb_msg){.type = BB_MSG_GAP, .sub = sub->id, .gaps = bb_buf_slice(&core->nested)});
    bk_gaps_sent(core, sub);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The early view: events of logged channels shown before they are durable. A subscription that has it is served from the stage
 * while it is live, each for itself; what it could not be given there reaches it like everybody else, out of the ring. Its
 * positions run ahead of what is durable, so that nothing comes twice, and go back when the log fails.
 */
#include "broker/core/deliver/early.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/parcel.h"
#include "broker/core/deliver/send.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

static int add_item(void *context, const struct bk_item *item)
{
    struct bk_core *core = context;
    bk_parcel_add(&core->parcel, item);
    return core->parcel.error;
}

/* What is staged and not shown to @sub yet, up to a message's worth; where it got to. */
static int gather(struct bk_core *core, struct bk_sub *sub, uint64_t *ret_seen)
{
    const struct bk_stage *stage = &core->stage;
    size_t i = stage->first;
    i += sub->early_seen > stage->n_gone ? (size_t)(sub->early_seen - stage->n_gone) : 0;
    bk_parcel_reset(&core->parcel);
    for (; i < bk_stage_end(stage) && core->parcel.bytes < BK_ROUND_BYTES; i++) {
        if (bk_block_is_old(core, &bk_stage_at(stage, i)->block)) {
            break; /* out of the ring, where what has expired is sorted out */
        }
        bk_route_trim(&core->route);
        int r = bk_wanted_each(core, sub, &bk_stage_at(stage, i)->block, UINT64_MAX, add_item, core);
        if (r < 0) {
            return r;
        }
    }
    *ret_seen = stage->n_gone + (i - stage->first);
    return bk_parcel_finish(&core->parcel, &core->meter);
}

static void note_shown(const struct bk_parcel *parcel)
{
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        struct bk_channel *channel = parcel->ranges[i].channel;
        channel->shown = BB_MAX(channel->shown, parcel->ranges[i].to);
    }
}

/* Return: 0, BB_EAGAIN, BB_ECLOSED, BB_ENOMEM. */
static int show_some(struct bk_core *core, struct bk_sub *sub)
{
    uint64_t seen = 0;
    int r = gather(core, sub, &seen);
    if (r == 0 && core->parcel.events > 0) {
        struct bk_delivery delivery = bk_delivery_of(&core->parcel, BK_SOURCE_LIVE);
        r = bk_deliver(core, sub, &delivery);
    }
    if (r == 0) {
        note_shown(&core->parcel);
        sub->early_seen = seen;
    }
    return r;
}

static void show(struct bk_core *core, struct bk_sub *sub)
{
    uint64_t end = core->stage.n_gone + (bk_stage_end(&core->stage) - core->stage.first);
    int r = 0;
    uint64_t before = UINT64_MAX;
    while (r == 0 && bk_sub_is_live(sub) && sub->early_seen < end && sub->early_seen != before &&
           bk_sub_has_credit(sub) && bk_client_has_room(core, sub->client)) {
        before = sub->early_seen;
        r = show_some(core, sub);
    }
    if (r < 0 && r != BB_EAGAIN && r != BB_ECLOSED) {
        bk_client_send_away(core, sub->client, r, NULL);
    }
}

void bk_early_show(struct bk_core *core)
{
    if (core->n_early == 0 || bk_stage_end(&core->stage) == core->stage.first) {
        return;
    }
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL && client->n_early > 0; sub = sub->next) {
            if (sub->is_early) {
                show(core, sub);
            }
        }
    }
    bk_parcel_reset(&core->parcel);
}

bool bk_early_has_seen(const struct bk_sub *sub, const struct bk_parcel *parcel, bool *ret_some)
{
    bool all = true;
    *ret_some = false;
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        const struct bk_position *position = bk_sub_find_position(sub, parcel->ranges[i].channel);
        uint64_t covered = position != NULL ? position->account.covered : 0;
        all = all && covered >= parcel->ranges[i].to;
        *ret_some = *ret_some || covered >= parcel->ranges[i].from;
    }
    return all;
}

/* --- what does not exist after all ---------------------------------------------------------------------- */

static void retract(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        const struct bk_channel *channel = position->channel;
        uint64_t life = bk_sub_untold_life(sub, position, channel->taken);
        if (position->account.covered <= channel->taken) {
            continue;
        }
        bk_gap_add(core, &(struct bk_gap){.channel = position->channel,
                                          .name = channel->name,
                                          .from = channel->taken + 1,
                                          .to = position->account.covered,
                                          .count = BK_NO_NUMBER,
                                          .reason = BK_REASON_RETRACTED,
                                          .life = life});
        if (position->is_cold) {
            bk_cold_abandon(sub); /* it was asked for from behind there */
        }
        bk_account_retract(&position->account, channel->taken);
    }
    bk_gaps_send(core, sub);
    bk_sub_set_ready(core, sub);
}

void bk_early_retract(struct bk_core *core)
{
    bool any = false;
    for (size_t i = 0; i < core->channels.n_channels; i++) {
        struct bk_channel *channel = core->channels.list[i];
        if (channel->shown > channel->taken) { /* by somebody who may be gone, and come again */
            bk_channel_end_life(&core->channels, channel, channel->taken);
            channel->shown = channel->taken;
            any = true;
        }
    }
    for (struct bk_client *client = core->clients; client != NULL && (any || core->n_early > 0);
         client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL && !bk_client_is_doomed(client);
             sub = sub->next) {
            sub->early_seen = core->stage.n_gone; /* what is still staged comes again where it was not told */
            if (any) {
                retract(core, sub);
            }
        }
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The early view: events of logged channels shown before they are durable. A subscription that has it is served from the stage
 * while it is live, each for itself; what it could not be given there reaches it like everybody else, out of the ring. Its
 * positions run ahead of what is durable, so that nothing comes twice, and go back when the log fails.
 */
#include "broker/core/state.h"

static size_t n_staged(const struct bk_stage *stage)
{
    return stage->blocks.len / sizeof(struct bk_staged);
}

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
    for (; i < n_staged(stage) && core->parcel.bytes < BK_ROUND_BYTES; i++) {
        const struct bk_staged *staged = (const struct bk_staged *)(const void *)stage->blocks.data + i;
        bk_route_trim(&core->route);
        int r = bk_for_each_wanted(core, sub, &staged->block, add_item, core);
        if (r < 0) {
            return r;
        }
    }
    *ret_seen = stage->n_gone + (i - stage->first);
    return bk_parcel_finish(&core->parcel, &core->meter);
}

static void show(struct bk_core *core, struct bk_sub *sub)
{
    uint64_t end = core->stage.n_gone + (n_staged(&core->stage) - core->stage.first);
    while (sub->live && sub->early_seen < end && bk_sub_has_credit(sub) &&
           bk_client_has_room(core, sub->client)) {
        uint64_t seen = 0;
        int r = gather(core, sub, &seen);
        if (r == 0 && core->parcel.events > 0) {
            r = bk_deliver(core, sub, &core->parcel);
        }
        if (r == BB_EAGAIN || r == BB_ECLOSED) {
            return;
        }
        if (r < 0) {
            bk_client_send_away(core, sub->client, r, NULL);
            return;
        }
        sub->early_seen = seen;
    }
}

void bk_early_show(struct bk_core *core)
{
    if (core->n_early == 0 || core->stage.blocks.len == 0) {
        return;
    }
    core->fanning = true; /* a client that goes now must not take others from under this loop */
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL && client->n_early > 0; sub = sub->next) {
            if (sub->early && !client->doomed) {
                show(core, sub);
            }
        }
    }
    bk_parcel_reset(&core->parcel);
    bk_fanning_end(core);
}

bool bk_early_has_seen(const struct bk_sub *sub, const struct bk_parcel *parcel, bool *ret_some)
{
    bool all = true;
    *ret_some = false;
    for (size_t i = 0; i < parcel->n_ranges; i++) {
        const struct bk_position *position = bk_sub_find_position(sub, parcel->ranges[i].channel);
        bool seen = position != NULL && position->covered >= parcel->ranges[i].to;
        bool partly = position != NULL && position->covered >= parcel->ranges[i].from;
        all = all && seen;
        *ret_some = *ret_some || seen || partly;
    }
    return all;
}

static void retract(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_position *position = &sub->positions[i];
        uint64_t last = position->channel->last;
        if (position->covered > last) {
            bk_gap_add(core, sub,
                       &(struct bk_gap){.channel = position->channel,
                                        .from = last + 1,
                                        .to = position->covered,
                                        .count = BK_GAP_NO_NUMBER,
                                        .reason = BK_COUNTER_gap_retracted});
            position->covered = last;
        }
    }
    sub->early_seen = core->stage.n_gone; /* what is still staged comes again where it was not told */
    bk_gaps_send(core, sub);
}

void bk_early_retract(struct bk_core *core)
{
    bool fanning = core->fanning;
    if (core->n_early == 0) {
        return;
    }
    core->fanning = true;
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL && client->n_early > 0; sub = sub->next) {
            if (sub->early && !client->doomed) {
                retract(core, sub);
            }
        }
    }
    core->fanning = fanning;
    if (!fanning) {
        bk_fanning_end(core);
    }
}

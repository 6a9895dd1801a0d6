/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/deliver/removal.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/deliver/overflow.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"

/* Whoever has a place in the channel loses it, and what was read of it. */
static void void_position(struct bk_core *core, struct bk_sub *sub, struct bk_channel *channel)
{
    struct bk_position *position = bk_sub_find_position(sub, channel);
    if (position == NULL) {
        return;
    }
    const struct bk_gap gap = {
        .channel = channel,
        .name = channel->name,
        .from = position->account.covered + 1,
        .to = BK_NO_NUMBER,
        .count = BK_NO_NUMBER,
        .reason = BK_REASON_RESTART,
    };
    if (position->is_cold) {
        bk_cold_abandon(sub);
    }
    bk_sub_drop_position(sub, position);
    bk_gap_add(core, &gap);
    bk_gaps_send(core, sub);
    bk_sub_set_ready(core, sub);
}

static void void_positions(struct bk_core *core, struct bk_channel *channel)
{
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            void_position(core, sub, channel);
        }
    }
}

/* What waited in it may have been all that others had to wait for. */
static void look_again(struct bk_core *core)
{
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            bk_overflow_removed(core, sub);
        }
    }
}

void bk_channel_end(struct bk_core *core, struct bk_channel *channel)
{
    bk_fan_out(core); /* nothing of it may wait for that */
    void_positions(core, channel);
    bk_ring_drop_all(&core->ring, channel);
    bk_route_clear(&core->route); /* its paths know it */
    bk_channels_remove(&core->channels, channel);
    look_again(core);
}

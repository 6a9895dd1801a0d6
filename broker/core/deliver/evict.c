/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ring loses before a lagging subscription had it. It is counted when it goes, so that the gap that is reported is exact; a
 * subscription that slides goes on from the log, if the channel is kept there.
 */
#include "broker/core/deliver/evict.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/overflow.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

struct eviction {
    const struct bk_block *block;
    uint64_t before;
    bool is_trim;
};

static int lose(struct bk_core *core, struct bk_sub *sub, const struct eviction *eviction)
{
    const struct bk_block *block = eviction->block;
    bool can_go_on = bk_overflow_goes_on(sub) && bk_store_of(core, block->channel) == BK_STORE_LOG;
    if (!can_go_on) {
        return bk_wanted_lose(core, sub, block, eviction->before,
                              eviction->is_trim ? BK_REASON_TRIMMED : BK_REASON_OVERFLOW);
    }
    const struct bk_position *position = bk_sub_position(sub, block->channel);
    if (position == NULL) {
        return BB_ENOMEM;
    }
    if (bk_account_settled(&position->account) + 1 < eviction->before) {
        bk_sub_set_cold(core, sub);
    }
    return 0;
}

static void lose_for_set(struct bk_core *core, const struct eviction *eviction, const struct bk_set *set)
{
    for (uint32_t i = 0; i < set->n_subs; i++) {
        struct bk_sub *sub = set->subs[i];
        if (bk_sub_is_live(sub) || bk_client_is_doomed(sub->client) || sub->cursor > eviction->block->pos ||
            sub->eviction == core->n_evictions) {
            continue;
        }
        sub->eviction = core->n_evictions; /* met again through another path of the block: counted once */
        int r = lose(core, sub, eviction);
        if (r < 0) {
            bk_client_send_away(core, sub->client, r, NULL);
        }
    }
}

/* Without memory to find out whom the loss costs something, all that may have waited are told to come again. */
static void lose_for_all(struct bk_core *core, const struct bk_block *block)
{
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (const struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (!bk_sub_is_live(sub) && sub->cursor <= block->pos) {
                bk_client_send_away(core, client, BB_ENOMEM, NULL);
            }
        }
    }
}

void bk_evicted(void *context, const struct bk_block *block, uint64_t before, bool is_trim)
{
    struct bk_core *core = context;
    const struct eviction eviction = {block, before, is_trim};
    struct bb_slice rest = bb_slice(block->body, block->body_len);
    struct bb_event_view event;
    struct bk_path *path = NULL;
    if (core->n_lagging == 0) {
        return;
    }
    core->n_evictions++;
    bk_route_trim(&core->route);
    while (rest.len > 0 && bb_event_read(&rest, &event) == 0) {
        const struct bk_set *set = path != NULL ? path->set : NULL;
        if (bk_route_find(&core->route, event.path, &path) < 0) {
            lose_for_all(core, block);
            return;
        }
        if (path->set != set) {
            lose_for_set(core, &eviction, path->set);
        }
        if (block->uniform) {
            return;
        }
    }
}

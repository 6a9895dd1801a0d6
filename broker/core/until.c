/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions that come to an end by themselves (PROTOCOL 7.1, until). */
#include "broker/core/state.h"

/* The longest time between two looks: the wall clock may be set. */
#define LOOK_MAX_US UINT64_C(1000000)

/* Whether an event may still come that is not after @time. */
static bool may_come_by(const struct bk_core *core, uint64_t time)
{
    const struct bk_stage *stage = &core->stage;
    if (BB_MAX(core->wall, core->session_time) <= time) {
        return true;
    }
    if (stage->first * sizeof(struct bk_staged) >= stage->blocks.len) {
        return false;
    }
    const struct bk_staged *oldest =
        (const struct bk_staged *)(const void *)stage->blocks.data + stage->first;
    return oldest->block.time <= time;
}

bool bk_until_is_reached(const struct bk_core *core, const struct bk_sub *sub)
{
    if (sub->until == BK_UNTIL_NONE || sub->n_cold > 0 || sub->snapshot != NULL || sub->client->doomed ||
        sub->cursor < core->fanned_pos) {
        return false;
    }
    if (sub->until == BK_UNTIL_TIME) {
        return !may_come_by(core, sub->until_time);
    }
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].channel->last < sub->positions[i].stop) {
            return false;
        }
    }
    return sub->n_positions > 0 || sub->new_stop == 0;
}

void bk_sub_end(struct bk_core *core, struct bk_sub *sub, const char *code)
{
    struct bk_client *client = sub->client;
    uint64_t id = sub->id;
    bk_sub_remove(core, sub);
    bk_count(core, BK_COUNTER_subs_done, 1);
    bk_client_send_msg(core, client,
                       &(struct bb_msg){.type = BB_MSG_ENDED, .sub = id, .code = bb_slice_str(code)});
}

uint64_t bk_until_tick(struct bk_core *core)
{
    uint64_t next = UINT64_MAX;
    if (core->n_until == 0) {
        return next;
    }
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (sub->until == BK_UNTIL_TIME) {
                uint64_t left =
                    sub->until_time >= core->wall ? sub->until_time - core->wall + 1 : LOOK_MAX_US;
                next = BB_MIN(next, BB_MIN(left, LOOK_MAX_US));
                bk_sub_set_ready(core, sub);
            }
        }
    }
    return next;
}

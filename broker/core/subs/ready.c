/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/ready.h"

#include "broker/core/clients/client.h"
#include "broker/core/state.h"
#include "broker/core/subs/sub.h"

/* Whether nothing but an answer of the log brings it on. */
static bool waits_for_log(const struct bk_core *core, const struct bk_sub *sub)
{
    return sub->awaits_values || (sub->is_reading && sub->n_cold > 0 && sub->cursor >= core->fanned_pos);
}

void bk_sub_set_ready(struct bk_core *core, struct bk_sub *sub)
{
    bool may_lag = sub->state == BK_SUB_LAGGING || sub->state == BK_SUB_RETAINED;
    bool may_have = bk_sub_has_credit(sub) && bk_client_has_room(core, sub->client);
    if (!may_lag || sub->is_ready || waits_for_log(core, sub) ||
        !(may_have || sub->until != BK_UNTIL_NONE)) { /* that can be reached without sending anything */
        return;
    }
    sub->is_ready = true;
    sub->next_ready = NULL;
    sub->prev_ready = core->ready_last;
    *(core->ready_last != NULL ? &core->ready_last->next_ready : &core->ready_first) = sub;
    core->ready_last = sub;
}

void bk_sub_clear_ready(struct bk_core *core, struct bk_sub *sub)
{
    if (sub->is_ready) {
        *(sub->prev_ready != NULL ? &sub->prev_ready->next_ready : &core->ready_first) = sub->next_ready;
        *(sub->next_ready != NULL ? &sub->next_ready->prev_ready : &core->ready_last) = sub->prev_ready;
        sub->is_ready = false;
    }
}

void bk_subs_set_ready(struct bk_core *core, struct bk_client *client)
{
    for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
        bk_sub_set_ready(core, sub);
    }
}

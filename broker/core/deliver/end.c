/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/deliver/end.h"

#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/deliver/retained.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/sub.h"

#include <string.h>

static void forget_counts(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_client *client = sub->client;
    for (size_t i = 0; i < sub->n_positions; i++) {
        const struct bk_account *account = &sub->positions[i].account;
        bk_count(core, BK_COUNTER_gap_client_gone, account->waiting + bk_account_lost(account));
    }
    if (sub->state != BK_SUB_BEGINNING) {
        core->n_lagging -= !bk_sub_is_live(sub);
        core->n_until -= sub->until != BK_UNTIL_NONE;
        core->n_early -= sub->is_early;
        client->n_early -= sub->is_early;
    }
    client->n_subs--;
    client->n_patterns -= sub->n_patterns;
    core->n_subs--;
    core->n_patterns -= sub->n_patterns;
}

void bk_sub_remove(struct bk_core *core, struct bk_sub *sub)
{
    struct bk_client *client = sub->client;
    forget_counts(core, sub);
    bk_sub_clear_ready(core, sub);
    bk_cold_abandon(sub);
    bk_retained_end(core, sub);
    if (sub->beginning != NULL) {
        sub->beginning->sub = NULL;
    }
    (void)bb_map_remove(&client->subs_by_id, bb_slice(&sub->id, sizeof(sub->id)));
    *(sub->prev != NULL ? &sub->prev->next : &client->subs) = sub->next;
    if (sub->next != NULL) {
        sub->next->prev = sub->prev;
    }
    bk_sub_free(sub, &core->route);
}

void bk_sub_end(struct bk_core *core, struct bk_sub *sub, const char *code)
{
    struct bk_client *client = sub->client;
    uint64_t id = sub->id;
    bk_sub_remove(core, sub);
    bk_count(core, BK_COUNTER_subs_done, strcmp(code, "done") == 0);
    bk_client_send_msg(core, client,
                       &(struct bb_msg){.type = BB_MSG_ENDED, .sub = id, .code = bb_slice_str(code)});
}

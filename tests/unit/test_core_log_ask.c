/* SPDX-License-Identifier: Apache-2.0 */
/* What clients ask of the backends, and answers that are held back: who went is told nothing. */
#include "broker/core/clients/client.h"
#include "broker/core/log/ask.h"
#include "broker/core/log/held.h"
#include "tests/unit/core_rig.h"

static const struct bb_msg msg = {.type = BB_MSG_QUERY, .corr = 5};

static void start(struct rig *rig, bool has_log)
{
    rig_init(rig);
    rig_start(rig, false, has_log);
    rig_hello_all(rig);
}

Test(core_log_ask, those_under_way_are_a_list)
{
    struct rig rig;
    struct bk_ask asks[3];
    start(&rig, false);
    for (size_t i = 0; i < BB_COUNT(asks); i++) {
        cr_assert_eq(bk_ask_begin(rig.core, rig.peers[i].client, &msg, &asks[i]), 0);
    }
    cr_assert_eq(rig.core->n_asks, 3);
    bk_ask_end(&asks[1]);
    cr_assert(rig.core->asks == &asks[2] && asks[2].next == &asks[0] && asks[0].prev == &asks[2]);
    bk_ask_refuse(&asks[2], BB_ELIMIT, NULL);
    RIG_TOLD(&rig, 2, "error query/5 limit");
    rig_gone(&rig, 2);
    cr_assert_null(asks[2].client);
    bk_ask_refuse(&asks[2], BB_ELIMIT, NULL);
    bk_ask_end(&asks[2]);
    bk_ask_end(&asks[0]);
    cr_assert(rig.core->asks == NULL && rig.core->n_asks == 0);
    rig_stop(&rig);
}

Test(core_log_ask, there_is_a_bound_for_all_clients_together)
{
    enum {
        MOST = 4096
    };
    static struct bk_ask asks[MOST + 1];
    struct rig rig;
    start(&rig, false);
    for (size_t i = 0; i < MOST; i++) {
        cr_assert_eq(bk_ask_begin(rig.core, rig.peers[i % RIG_PEERS].client, &msg, &asks[i]), 0);
    }
    cr_assert_eq(bk_ask_begin(rig.core, rig.peers[0].client, &msg, &asks[MOST]), BB_ELIMIT);
    bk_ask_end(&asks[7]);
    cr_assert_eq(bk_ask_begin(rig.core, rig.peers[0].client, &msg, &asks[MOST]), 0);
    for (size_t i = 0; i <= MOST; i++) {
        if (i != 7) {
            bk_ask_end(&asks[i]);
        }
    }
    rig_stop(&rig);
}

/* --- held back ------------------------------------------------------------------------------------------------ */

Test(core_log_ask, without_a_log_an_answer_is_not_held)
{
    struct rig rig;
    start(&rig, false);
    bk_hold_answer(rig.core, rig.peers[0].client, &msg, bb_slice("\xc0", 1));
    RIG_TOLD(&rig, 0, "result 5");
    rig_stop(&rig);
}

Test(core_log_ask, an_answer_is_held_until_its_ticket_is_decided)
{
    struct rig rig;
    start(&rig, true);
    bk_hold_answer(rig.core, rig.peers[0].client, &msg, bb_slice("\xc0", 1));
    bk_hold_answer(rig.core, rig.peers[1].client, &msg, bb_slice("\xc0", 1));
    bk_core_flush(rig.core);
    bk_hold_answer(rig.core, rig.peers[2].client, &msg, bb_slice("\xc0", 1));
    bk_core_flush(rig.core);
    bk_hold_answer(rig.core, rig.peers[3].client, &msg, bb_slice("\xc0", 1));
    bk_core_flush(rig.core);
    rig_gone(&rig, 1);
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "result 5");
    RIG_TOLD(&rig, 1, "");
    RIG_TOLD(&rig, 2, "");
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(&rig, 2, "error query/5 log_failed");
    RIG_TOLD(&rig, 3, "error query/5 log_failed");
    cr_assert_eq(rig.core->stage.n_held, 0);
    cr_assert_eq(rig.core->stage.held_end, &rig.core->stage.held);
    rig_stop(&rig);
}

Test(core_log_ask, no_more_answers_are_held_than_the_bound)
{
    struct rig rig;
    start(&rig, true);
    for (int i = 0; bk_can_hold(rig.core); i++) {
        cr_assert_lt(i, 5000);
        bk_hold_answer(rig.core, rig.peers[0].client, &msg, bb_slice("\xc0", 1));
    }
    rig_say(&rig, 1, "{'op':'cursor','corr':5,'name':'here','positions':[['a',1]]}");
    rig_say(&rig, 1, "{'op':'channel','corr':6,'action':'add','name':'a'}");
    RIG_TOLD(&rig, 1, "error cursor/5 limit; error channel/6 limit");
    rig_gone(&rig, 0);
    rig_settle(&rig);
    cr_assert(bk_can_hold(rig.core));
    rig_stop(&rig);
}

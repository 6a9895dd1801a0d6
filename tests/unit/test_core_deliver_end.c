/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a subscription: what waited is counted, and nobody knows of it any more. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/end.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

Test(core_deliver_end, what_waited_is_counted_as_gone_with_its_client)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.ring_bytes = 4000;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 1000;
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    for (int i = 0; i < 5; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig_gone(&rig, 1);
    cr_assert_eq(RIG_COUNT(&rig, gap_client_gone), 5, "two were lost, three waited");
    cr_assert_eq(rig.core->n_subs, 0);
    cr_assert_eq(rig.core->n_lagging, 0);
    cr_assert_eq(rig.core->n_patterns, 0);
    rig_stop(&rig);
}

Test(core_deliver_end, its_number_is_free_again_and_others_go_on)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    for (int sub = 1; sub <= 3; sub++) {
        rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':%d,'patterns':['a/*']}", sub);
    }
    rig_say(&rig, 1, "{'op':'unsubscribe','corr':2,'sub':2}"); /* from the middle of the list */
    rig_say(&rig, 1, "{'op':'unsubscribe','corr':3,'sub':2}");
    rig_say(&rig, 1, "{'op':'subscribe','corr':4,'sub':2,'patterns':['b/*']}");
    RIG_TOLD(&rig, 1,
             "subscribed; subscribed; subscribed; result 2; error unsubscribe/3 not_found; subscribed");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "deliver a(0,1] = a1; deliver a(0,1] = a1");
    rig_stop(&rig);
}

Test(core_deliver_end, what_came_before_it_was_ended_is_still_delivered)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_batch(&rig, 0, 0, "a/x"); /* not fanned out yet */
    rig_put(&rig, 1, "{'op':'unsubscribe','corr':2,'sub':1}");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; result 2");
    rig_stop(&rig);
}

Test(core_deliver_end, it_says_why)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    bk_sub_end(rig.core, rig_sub(&rig, 1), "corrupt");
    RIG_TOLD(&rig, 1, "subscribed; ended corrupt");
    cr_assert_eq(RIG_COUNT(&rig, subs_done), 0);
    rig_subscribe(&rig, 1, "a/*", NULL);
    bk_sub_end(rig.core, rig_sub(&rig, 1), "done");
    cr_assert_eq(RIG_COUNT(&rig, subs_done), 1);
    rig_stop(&rig);
}

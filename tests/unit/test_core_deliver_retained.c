/* SPDX-License-Identifier: Apache-2.0 */
/* Retained values: the newest event of each path first, then everything after the beginning. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/retained.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#define RETAINED "'options':{'retained':true}"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, true, true);
    rig_hello_all(rig);
    rig_say(rig, 3, "{'op':'channel','corr':3,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig_settle(rig);
    (void)rig_told(rig, 3);
}

Test(core_deliver_retained, values_of_both_stores_come_before_anything_else)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x a/y a/x m/x m/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", RETAINED);
    cr_assert_eq(rig_sub(&rig, 1)->state, BK_SUB_RETAINED);
    rig_publish(&rig, 0, 0, "a/y m/x"); /* before the stores have answered */
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "subscribed m@2 a@3");
    rig_settle(&rig);
    const char *told = rig_told(&rig, 1);
    cr_assert_str_eq(told, "deliver retained1 = a3; deliver retained2 =; deliver m(2,3] a(3,4] = m3 a4", "%s",
                     told);
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_stop(&rig);
}

Test(core_deliver_retained, without_values_the_last_message_has_none)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", RETAINED);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; deliver retained2 =");
    rig_stop(&rig);
}

/* It resumes where the early view had got to: what is newest there is known when that is on disk. */
Test(core_deliver_retained, who_is_ahead_of_what_is_durable_gets_the_newest_of_there)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x a/y");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early'}");
    rig_publish(&rig, 0, 0, "a/x a/z");
    rig_subscribe(&rig, 2, "a/*",
                  "'from':{'after':{'a':[4,100]}},'options':{'retained':true,'view':'early'}");
    rig_subscribe(&rig, 3, "a/*",
                  "'from':{'after':{'a':[4,100]}},'options':{'retained':true,'view':'early'}");
    rig_answer(&rig);
    RIG_TOLD(&rig, 2, "subscribed a@4");
    rig_gone(&rig, 3); /* while it waits */
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "deliver retained1 = a3 a2 a4; deliver retained2 =");
    cr_assert_eq(rig.core->n_held_values, 0);
    rig_stop(&rig);
}

Test(core_deliver_retained, what_was_taken_back_is_not_waited_for)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early'}");
    rig_publish(&rig, 0, 0, "a/x");
    rig_subscribe(&rig, 2, "a/*",
                  "'from':{'after':{'a':[2,100]}},'options':{'retained':true,'view':'early'}");
    rig_fail(&rig, BB_ELOGFAILED);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "subscribed a@2; gap a[2,2]x- retracted; deliver retained2 =; deliver a(1,2] = a2");
    rig_stop(&rig);
}

Test(core_deliver_retained, without_stores_there_are_none)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'retained':true}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver retained2 =; deliver a(0,1] = a1");
    rig_stop(&rig);
}

Test(core_deliver_retained, they_wait_for_credit_and_are_sent_once_when_a_message_does_not_go)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x m/y");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "m/*", "'options':{'retained':true,'events':0}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed m@2");
    rig.peers[1].answer = BB_EAGAIN;
    rig_credit(&rig, 1, 1000, 100);
    cr_assert_eq(rig_sub(&rig, 1)->sent_events, 0);
    rig.peers[1].answer = 0;
    rig_pass(&rig, BK_STUCK_RETRY_US);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver retained1 = m1-2; deliver retained2 =");
    cr_assert_eq(rig_sub(&rig, 1)->sent_events, 2);
    rig_stop(&rig);
}

Test(core_deliver_retained, with_an_end_they_come_before_it)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x m/y");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "m/*", "'options':{'retained':true,'until':'now'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed m@2 until m@2; deliver retained1 = m1-2; deliver retained2 =; ended done");
    rig_stop(&rig);
}

Test(core_deliver_retained, a_newer_one_beyond_the_end_comes_as_a_retained_value)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x m/x m/y");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", "'options':{'retained':true,'until':'now'}");
    rig_publish(&rig, 0, 0, "a/x m/x"); /* before the stores have answered */
    rig_commit(&rig);
    rig_settle(&rig);
    RIG_TOLD(
        &rig, 1,
        "subscribed m@2 a@1 until m@2 a@1; deliver retained1 = m3 m2; deliver retained1 = a2; deliver retained2 =; ended done");
    rig_stop(&rig);
}

Test(core_deliver_retained, what_waits_meanwhile_falls_under_the_policy)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "m/*",
                  "'options':{'retained':true,'overflow':'drop_oldest','budget':20,'events':0}");
    for (int i = 0; i < 6; i++) {
        rig_publish(&rig, 0, 0, "m/x");
    }
    rig_credit(&rig, 1, 1000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1,
             "subscribed m@1; deliver retained2 =; deliver gap m[2,4]x3 dropped_oldest, m(4,7] = m5-7");
    rig_stop(&rig);
}

Test(core_deliver_retained, a_removed_channel_has_no_values)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x");
    rig_settle(&rig);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'m'}");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", RETAINED);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; deliver retained2 =");
    rig_stop(&rig);
}

Test(core_deliver_retained, a_channel_that_is_removed_while_its_values_are_looked_for_has_none)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", RETAINED);
    rig_put(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'m'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed m@1; gap m[2,-]x- restart; deliver retained2 =");
    rig_stop(&rig);
}

Test(core_deliver_retained, who_goes_while_they_are_looked_for_leaves_nothing_behind)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", RETAINED);
    rig_subscribe(&rig, 2, "*", RETAINED);
    rig_gone(&rig, 1);
    rig_say(&rig, 2, "{'op':'unsubscribe','corr':2,'sub':1}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "subscribed m@1 a@1; result 2");
    rig_stop(&rig);
}

/* What follows the beginning is told there, be it delivered or lost; as a value it would be told twice. */
Test(core_deliver_retained, what_comes_after_the_beginning_is_no_value_though_it_is_a_gap)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x m/y m/y");
    rig_settle(&rig);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'m','settings':{'before':3}}");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "m/*", "'from':1,'options':{'retained':true}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed m@0; gap m[1,2]x2 trimmed; deliver retained2 =; deliver m(2,3] = m3");
    rig_subscribe(&rig, 2, "m/*", RETAINED);
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "subscribed m@3; deliver retained1 = m1 m3; deliver retained2 =");
    rig_stop(&rig);
}

Test(core_deliver_retained, a_value_that_expires_while_it_waits_to_be_sent_is_none)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m/x");
    rig.ttl_ms = 3000;
    rig_publish(&rig, 0, 0, "m/y");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "m/*", "'options':{'retained':true,'events':0}");
    rig_settle(&rig);
    rig_pass(&rig, 4000000);
    rig_credit(&rig, 1, 1000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed m@2; deliver retained1 = m1; deliver retained2 =");
    rig_stop(&rig);
}

Test(core_deliver_retained, more_values_than_are_held_for_a_subscription_end_it)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", RETAINED);
    struct bk_query *asked = (struct bk_query *)(void *)rig.log->requests;
    rig.log->requests = NULL;
    asked->more = true;
    asked->request.done(asked->request.context, &asked->request);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; ended limit");
    cr_assert_eq(rig.core->n_subs, 0);
    rig_stop(&rig);
}

/* All of it comes with the flow. And a path may be the name of a channel alone. */
Test(core_deliver_retained, a_channel_that_comes_while_values_are_looked_for_has_none)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "m a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", RETAINED);
    rig_publish(&rig, 0, 0, "b/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1,
             "subscribed m@1 a@1; deliver retained1 = m1; deliver retained1 = a1; deliver retained2 =; "
             "deliver b(0,1] = b1");
    rig_stop(&rig);
}

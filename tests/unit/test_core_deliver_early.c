/* SPDX-License-Identifier: Apache-2.0 */
/* The early view: events before they are durable, once, and what is told when they do not come to be. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/early.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#define EARLY "'options':{'view':'early','lives':true}"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, true);
    rig_hello_all(rig);
}

Test(core_deliver_early, events_are_seen_before_they_are_durable_and_not_again)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig_subscribe(&rig, 2, "a/*", NULL);
    rig_publish(&rig, 0, 0, "a/x a/y");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,2]/100 = a1-2");
    RIG_TOLD(&rig, 2, "subscribed");
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "");
    RIG_TOLD(&rig, 2, "deliver a(0,2] = a1-2");
    rig_publish(&rig, 0, 0, "a/x");
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "deliver a(2,3] = a3");
    rig_stop(&rig);
}

Test(core_deliver_early, the_channel_says_what_holds_for_who_does_not)
{
    struct rig rig;
    start(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'add','name':'a','settings':{'early':true}}");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_subscribe(&rig, 2, "a/*", "'options':{'view':'durable'}");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    RIG_TOLD(&rig, 2, "subscribed a@0");
    rig_stop(&rig);
}

Test(core_deliver_early, with_an_end_they_are_seen_when_they_are_durable)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early','until':2}");
    rig_publish(&rig, 0, 0, "2:a/x");
    RIG_TOLD(&rig, 1, "subscribed");
    rig_commit(&rig);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(0,2] = a1-2; ended done");
    rig_stop(&rig);
}

Test(core_deliver_early, who_lags_gets_them_out_of_the_ring)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early','events':2}");
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "a/x"); /* no credit for it */
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; deliver a(1,2] = a2");
    rig_settle(&rig);
    cr_assert_not(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "deliver a(2,3] = a3");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "deliver a(3,4] = a4");
    rig_stop(&rig);
}

Test(core_deliver_early, who_has_seen_some_of_what_becomes_durable_at_once_waits_for_the_rest_alone)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early','events':2}");
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    while (rig_log_commit(rig.log)) {
    }
    bk_core_flush(rig.core);
    cr_assert_eq(rig_sub(&rig, 1)->positions[0].account.waiting, 1);
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; deliver a(1,2] = a2; deliver a(2,3] = a3");
    rig_stop(&rig);
}

Test(core_deliver_early, what_the_log_refuses_is_retracted_and_ends_the_life_of_the_channel)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_commit(&rig);
    rig_publish(&rig, 0, 0, "2:a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,3]/100 = a1-3; deliver a(3,5] = a4-5");
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(&rig, 1,
             "gap a[4,5]x- retracted"); /* the new life is not stored, and 3 is of the old one as well */
    cr_assert_eq(rig_channel(&rig, "a")->lives.now, 101);
    rig_publish(&rig, 0, 0, "a/x");
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "deliver a(3,4]/101 = a4");
    rig_stop(&rig);
}

Test(core_deliver_early, what_nobody_was_shown_ends_no_life)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'lives':true}");
    rig_subscribe(&rig, 2, "b/*", EARLY);
    rig_publish(&rig, 0, 0, "a/x");
    rig_fail(&rig, BB_ELOGFAILED);
    cr_assert_eq(rig_channel(&rig, "a")->lives.now, 100);
    RIG_TOLD(&rig, 1, "subscribed");
    rig_stop(&rig);
}

/* The events that failed were of no interest to it; those that come in their place are. */
Test(core_deliver_early, what_comes_after_a_failure_is_seen_though_nothing_was_retracted)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig_publish(&rig, 0, 0, "b/x");
    rig_publish(&rig, 0, 0, "b/x");
    rig_fail(&rig, BB_ELOGFAILED);
    rig_publish(&rig, 0, 0, "a/x b/x a/y b/x a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,3]/100 = a1-3");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "");
    rig_stop(&rig);
}

/* Who saw 4 and 5, went, and comes again when other events have these numbers. */
Test(core_deliver_early, a_position_in_what_was_retracted_goes_back_to_before_it_for_who_resumes)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_commit(&rig);
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_gone(&rig, 1);
    rig_fail(&rig, BB_ELOGFAILED);
    rig_publish(&rig, 0, 0, "4:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 2, "a/*", "'from':{'after':{'a':[5,100]}},'options':{'lives':true}");
    RIG_TOLD(&rig, 2, "subscribed a@3/101; gap a[4,5]x- retracted/101; deliver a(3,7] = a4-7");
    rig_subscribe(&rig, 3, "a/*", "'from':{'run':100,'after':{'a':5}}");
    RIG_TOLD(&rig, 3, "subscribed a@3; gap a[4,5]x- retracted; deliver a(3,7] = a4-7");
    rig_stop(&rig);
}

Test(core_deliver_early, a_position_before_what_was_retracted_holds)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_commit(&rig);
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_fail(&rig, BB_ELOGFAILED);
    rig_subscribe(&rig, 2, "a/*", "'from':{'after':{'a':[3,100]}},'options':{'lives':true}");
    RIG_TOLD(&rig, 2, "subscribed a@3/100");
    rig_stop(&rig);
}

Test(core_deliver_early, only_what_failed_is_retracted)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "*", EARLY);
    rig_publish(&rig, 0, 0, "c/x");
    rig_commit(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "b/x a/x");
    rig_log_commit(rig.log);
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(
        &rig, 1,
        "subscribed; deliver c(0,1]/100 = c1; deliver a(0,1]/100 = a1; deliver b(0,1]/100 a(1,2] = b1 a2; "
        "gap a[2,2]x- retracted gap b[1,1]x- retracted/102");
    rig_stop(&rig);
}

/* Its policy counts what is lost once, whether it was seen early or not. */
Test(core_deliver_early, drop_newest_loses_no_more_events_than_there_were)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*",
                  "'options':{'view':'early','overflow':'drop_newest','budget':20,'events':2}");
    for (int i = 0; i < 12; i++) {
        rig_publish(&rig, 0, 0, "a/x");
        if (i % 3 == 2) {
            rig_commit(&rig);
        }
    }
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; deliver a(1,2] = a2");
    rig_credit(&rig, 1, 100000, 100);
    rig_settle(&rig);
    const char *told = rig_told(&rig, 1);
    cr_assert_str_eq(told, "deliver a(2,6] = a3-6; gap a[7,12]x6 dropped_newest");
    rig_stop(&rig);
}

/* It may not have the early view itself: an earlier connection had it, or the channel did. */
Test(core_deliver_early, who_resumes_ahead_of_what_is_durable_gets_nothing_twice)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_subscribe(&rig, 2, "a/*", "'from':{'after':{'a':[2,100]}}");
    rig_subscribe(&rig, 3, "a/*", "'from':{'after':{'a':[3,100]}}");
    rig_commit(&rig);
    RIG_TOLD(&rig, 2, "subscribed a@2; deliver a(2,3] = a3");
    RIG_TOLD(&rig, 3, "subscribed a@3");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "deliver a(3,4] = a4");
    RIG_TOLD(&rig, 3, "deliver a(3,4] = a4");
    rig_stop(&rig);
}

/* Whether it has expired is found out where it comes out of the ring. */
Test(core_deliver_early, what_may_have_expired_is_not_shown_before_it_is_durable)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", EARLY);
    rig.ttl_ms = 5;
    rig_batch(&rig, 0, 0, "a/x");
    rig_pass(&rig, 2000);
    rig_batch(&rig, 0, 0, "a/x");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "subscribed");
    rig_pass(&rig, 4000);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "gap a[1,1]x1 expired/100; deliver a(1,2] = a2");
    rig_stop(&rig);
}

Test(core_deliver_early, much_is_shown_in_messages_of_limited_size)
{
    struct rig rig;
    start(&rig);
    rig.payload = 100000;
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early','bytes':10000000}");
    for (int i = 0; i < 5; i++) {
        rig_batch(&rig, 0, 0, "a/x");
    }
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,3] = a1-3; deliver a(3,5] = a4-5");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "");
    rig_stop(&rig);
}

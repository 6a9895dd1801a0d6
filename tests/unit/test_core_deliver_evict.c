/* SPDX-License-Identifier: Apache-2.0 */
/* What the ring loses, or a trim takes, before a lagging subscription had it: counted exactly, and named by its cause. */
#include "broker/core/deliver/evict.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

/* The ring holds three blocks of one event. */
static void start(struct rig *rig)
{
    rig_init(rig);
    rig->config.ring_bytes = 4000;
    rig->payload = 1000;
    rig_start(rig, false, false);
    rig_hello_all(rig);
}

static void trim(struct rig *rig, uint64_t before)
{
    rig_say(rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'a','settings':{'before':%llu}}",
            (unsigned long long)before);
    RIG_TOLD(rig, 3, "result 3");
}

Test(core_deliver_evict, only_what_matches_is_lost)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/x", "'options':{'events':0}");
    rig_subscribe(&rig, 2, "b/*", "'options':{'events':0}");
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 0, 0, "a/x");
        rig_publish(&rig, 0, 0, "a/y");
    }
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,3]x2 overflow, a(3,5] = a5");
    RIG_TOLD(&rig, 2, "subscribed");
    rig_stop(&rig);
}

Test(core_deliver_evict, a_block_of_several_paths_is_counted_once)
{
    struct rig rig;
    start(&rig);
    rig.payload = 500;
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    for (int i = 0; i < 6; i++) {
        rig_publish(&rig, 0, 0, "a/x a/y");
    }
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,6]x6 overflow, a(6,12] = a7-12");
    rig_stop(&rig);
}

Test(core_deliver_evict, who_is_live_loses_nothing)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    for (int i = 0; i < 6; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    cr_assert_eq(RIG_COUNT(&rig, gaps_out), 0);
    cr_assert_eq(RIG_COUNT(&rig, events_out), 6);
    rig_stop(&rig);
}

Test(core_deliver_evict, what_is_lost_behind_the_end_is_not_told)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0,'until':2}");
    for (int i = 0; i < 9; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig_credit(&rig, 1, 100000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; gap a[1,2]x2 overflow; ended done");
    rig_stop(&rig);
}

/* --- trimming ------------------------------------------------------------------------------------------------ */

Test(core_deliver_evict, a_lagging_subscription_is_told_that_it_was_trimmed_and_not_that_it_was_slow)
{
    struct rig rig;
    start(&rig);
    rig.payload = 0;
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    for (int i = 0; i < 5; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    trim(&rig, 4);
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,3]x3 trimmed, a(3,5] = a4-5");
    rig_stop(&rig);
}

Test(core_deliver_evict, a_trim_in_the_middle_of_a_batch_takes_what_is_before_and_no_more)
{
    struct rig rig;
    start(&rig);
    rig.payload = 0;
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    rig_publish(&rig, 0, 0, "5:a/x");
    trim(&rig, 4);
    cr_assert_eq(rig_channel(&rig, "a")->first, 4);
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,3]x3 trimmed, a(3,5] = a4-5");
    rig_subscribe(&rig, 2, "a/*", "'from':1");
    RIG_TOLD(&rig, 2, "subscribed a@0; gap a[1,3]x3 trimmed; deliver a(3,5] = a4-5");
    rig_stop(&rig);
}

Test(core_deliver_evict, a_trim_takes_nothing_twice)
{
    struct rig rig;
    start(&rig);
    rig.payload = 0;
    rig_subscribe(&rig, 1, "a/x", "'options':{'events':0}");
    rig_publish(&rig, 0, 0, "a/x a/y a/x a/x a/y a/x");
    trim(&rig, 3);
    trim(&rig, 2);
    trim(&rig, 3);
    trim(&rig, 5);
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,4]x3 trimmed, a(4,6] = a6");
    rig_stop(&rig);
}

Test(core_deliver_evict, a_trim_is_not_told_beyond_the_end)
{
    struct rig rig;
    start(&rig);
    rig.payload = 0;
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'events':0,'until':2}");
    trim(&rig, 5);
    rig_credit(&rig, 1, 100000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[1,2]x2 trimmed; ended done");
    rig_subscribe(&rig, 2, "a/*", "'from':1,'options':{'until':2}");
    RIG_TOLD(&rig, 2, "subscribed a@0; gap a[1,2]x2 trimmed; ended done");
    rig_stop(&rig);
}

Test(core_deliver_evict, two_causes_are_two_gaps)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    for (int i = 0; i < 6; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    trim(&rig, 6);
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,3]x3 overflow gap a[4,5]x2 trimmed, a(5,6] = a6");
    rig_stop(&rig);
}

Test(core_deliver_evict, what_the_policy_has_lost_is_not_lost_again)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':1,'overflow':'drop_oldest','budget':2500}");
    rig_publish(&rig, 0, 0, "a/x");
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig.peers[1].answer = BB_EAGAIN;
    rig_credit(&rig, 1, 100000, 100); /* drops, and cannot say so */
    for (int i = 0; i < 4; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig.peers[1].answer = 0;
    rig_pass(&rig, 20000);
    RIG_TOLD(&rig, 1,
             "subscribed; deliver a(0,1] = a1; deliver gap a[2,2]x1 dropped_oldest gap a[3,6]x4 overflow, "
             "a(6,8] = a7-8");
    rig_stop(&rig);
}

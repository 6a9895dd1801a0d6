/* SPDX-License-Identifier: Apache-2.0 */
/* Catching up from the ring: one message a flush, no seam with the live flow, gaps where something is left out. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/catchup.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>

Test(core_deliver_catchup, who_fell_behind_joins_the_live_flow_without_a_seam)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "*", "'options':{'events':2}");
    rig_publish(&rig, 0, 0, "a/x b/x");
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "b/x a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] b(0,1] = a1 b1");
    rig_credit(&rig, 1, 100000, 100);
    RIG_TOLD(&rig, 1, "deliver a(1,3] b(1,2] = a2 b2 a3");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "deliver a(3,4] = a4");
    cr_assert_eq(RIG_COUNT(&rig, live_leaves), 1);
    cr_assert_eq(RIG_COUNT(&rig, live_joins), 1);
    rig_stop(&rig);
}

Test(core_deliver_catchup, each_flush_brings_one_message_of_limited_size)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 100000;
    for (int i = 0; i < 5; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'bytes':10000000}");
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,2] = a1-2");
    cr_assert(bk_core_wants_flush(rig.core));
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "deliver a(2,4] = a3-4");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "deliver a(4,5] = a5");
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)) && !bk_core_wants_flush(rig.core));
    rig_stop(&rig);
}

Test(core_deliver_catchup, those_that_lag_take_turns)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 200000;
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig_put(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['*'],'from':1}");
    rig_put(&rig, 2, "{'op':'subscribe','corr':1,'sub':1,'patterns':['*'],'from':1}");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    RIG_TOLD(&rig, 2, "subscribed a@0; deliver a(0,1] = a1");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "deliver a(1,2] = a2");
    RIG_TOLD(&rig, 2, "deliver a(1,2] = a2");
    rig_stop(&rig);
}

/* Lives and expired events in turn: a message has only so many gaps. */
Test(core_deliver_catchup, more_gaps_than_a_message_has_come_with_the_next)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0,'overflow':'conflate','budget':1}");
    struct bb_buf events = BB_BUF_INIT;
    for (int i = 0; i < 80; i++) { /* one that is conflated, one that expires */
        rig.ttl_ms = 0;
        rig_events(&rig, "a/x", &events);
        rig.ttl_ms = 1;
        rig_events(&rig, "a/x", &events);
    }
    rig.ttl_ms = 0;
    rig_events(&rig, "a/x", &events);
    bk_core_message(rig.core, rig.peers[0].client, bb_buf_slice(&events), NULL);
    bb_buf_fini(&events);
    rig_pass(&rig, 10000);
    rig_credit(&rig, 1, 100000, 1000);
    const char *told = rig_told(&rig, 1);
    cr_assert_not_null(strstr(told, "subscribed; gap a[1,1]x1 conflated gap a[2,2]x1 expired gap a[3,3]"),
                       "%s", told);
    cr_assert_str_eq(told + strlen(told) - 22, "gap a[64,64]x1 expired");
    rig_settle(&rig);
    told = rig_told(&rig, 1);
    cr_assert_eq(strstr(told, "gap a[65,65]x1 conflated gap a[66,66]x1 expired"), told);
    cr_assert_not_null(strstr(told, "gap a[160,160]x1 expired, a(160,161] = a161"), "%s", told);
    cr_assert_eq(RIG_COUNT(&rig, gap_conflated), 80);
    cr_assert_eq(RIG_COUNT(&rig, gap_expired), 80);
    rig_stop(&rig);
}

Test(core_deliver_catchup, what_expired_in_the_middle_of_a_block_is_a_gap_of_its_own_count)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/x", "'options':{'events':0}");
    rig_publish(&rig, 0, 0, "a/x a/y");
    rig.ttl_ms = 5;
    rig_publish(&rig, 0, 0, "a/x a/y a/x");
    rig.ttl_ms = 0;
    rig_publish(&rig, 0, 0, "a/x");
    rig_pass(&rig, 6000);
    rig_credit(&rig, 1, 100000, 1000);
    RIG_TOLD(&rig, 1, "subscribed; deliver gap a[1,5]x2 expired, a(5,6] = a1 a6");
    rig_stop(&rig);
}

/* Those that expired and those that a newer one stands for take turns, so that each is a gap of its own. */
Test(core_deliver_catchup, a_message_that_has_no_room_for_another_gap_ends_there)
{
    enum {
        N_PAIRS = 50
    };
    struct rig rig;
    char events[8000] = "";
    size_t len = 0;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    for (int i = 0; i < N_PAIRS; i++) {
        len += (size_t)snprintf(events + len, sizeof(events) - len, "{'path':'a/x','ttl':5},{'path':'a/y'},");
    }
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0,'overflow':'conflate','budget':1}");
    rig_put(&rig, 0, "{'op':'publish','number':0,'events':[{'path':'a/w'},%s{'path':'a/z'}]}", events);
    bk_core_flush(rig.core);
    rig_pass(&rig, 10000);
    rig_credit(&rig, 1, 100000, 1000);
    const char *told = rig_told(&rig, 1);
    cr_assert_not_null(strstr(told, " gap a[65,65]x1 conflated, a(65,65] = a1"), "%s", told);
    cr_assert_eq(rig_sub(&rig, 1)->positions[0].account.covered, 65);
    rig_settle(&rig);
    told = rig_told(&rig, 1);
    cr_assert_not_null(strstr(told, " gap a[100,100]x1 expired, a(100,102] = a101-102"), "%s", told);
    cr_assert_eq(rig_sub(&rig, 1)->positions[0].account.reported, 2 * N_PAIRS - 1);
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_stop(&rig);
}

/* So that who wants little of much does not hold up the others. */
Test(core_deliver_catchup, no_more_than_a_part_of_the_ring_is_looked_through_for_a_message)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig.payload = 100000;
    for (int i = 0; i < 50; i++) {
        rig_publish(&rig, 0, 0, "a/y");
    }
    rig.payload = 0;
    rig_publish(&rig, 0, 0, "a/x");
    rig_subscribe(&rig, 1, "a/x", "'from':1");
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    cr_assert(bk_core_wants_flush(rig.core));
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(1,52] = a52");
    rig_stop(&rig);
}

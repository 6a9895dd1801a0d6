/* SPDX-License-Identifier: Apache-2.0 */
/* The policies for falling behind: what each does alone, with times to live and with an end. */
#include "broker/core/deliver/overflow.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

/* Three events of a/x or a/y are below the budget, four above. */
#define BUDGET "'budget':20,'events':0"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, false);
    rig_hello_all(rig);
}

/* Each in a block of its own. */
static void publish_each(struct rig *rig, const char *letters)
{
    for (; *letters != 0; letters++) {
        char path[] = "a/?";
        path[2] = *letters;
        rig_publish(rig, 0, 0, path);
    }
}

static void assert_caught_up(struct rig *rig, const char *words)
{
    rig_credit(rig, 1, 100000, 100000);
    rig_settle(rig);
    RIG_TOLD(rig, 1, words);
}

/* --- alone ---------------------------------------------------------------------------------------------- */

Test(core_deliver_overflow, slide_loses_nothing_that_the_ring_has)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{" BUDGET "}");
    publish_each(&rig, "xyxyxx");
    assert_caught_up(&rig, "subscribed; deliver a(0,6] = a1-6");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_oldest_keeps_what_the_budget_holds)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'drop_oldest'," BUDGET "}");
    publish_each(&rig, "xxx");
    assert_caught_up(&rig, "subscribed; deliver a(0,3] = a1-3");
    rig_say(&rig, 1, "{'op':'unsubscribe','corr':2,'sub':1}");
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'drop_oldest'," BUDGET "}");
    publish_each(&rig, "xyxyxx");
    assert_caught_up(&rig, "result 2; subscribed a@3; deliver gap a[4,6]x3 dropped_oldest, a(6,9] = a7-9");
    publish_each(&rig, "x");
    RIG_TOLD(&rig, 1, "deliver a(9,10] = a10");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_oldest_counts_what_matches)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/x", "'options':{'overflow':'drop_oldest'," BUDGET "}");
    publish_each(&rig, "xyxyxyxyx");
    assert_caught_up(&rig, "subscribed; deliver gap a[1,3]x2 dropped_oldest, a(3,9] = a5 a7 a9");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_newest_keeps_what_waited_before_the_budget_was_used_up)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'drop_newest'," BUDGET "}");
    publish_each(&rig, "xyxyxxx");
    cr_assert(rig_sub(&rig, 1)->is_dropping);
    assert_caught_up(&rig, "subscribed; deliver a(0,4] = a1-4; gap a[5,7]x3 dropped_newest");
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    publish_each(&rig, "x");
    RIG_TOLD(&rig, 1, "deliver a(7,8] = a8");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_newest_drops_nothing_more_when_what_waited_is_gone_with_its_channel)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "?/*", "'options':{'overflow':'drop_newest'," BUDGET "}");
    publish_each(&rig, "xyxyxxx");
    cr_assert(rig_sub(&rig, 1)->is_dropping);
    rig_publish(&rig, 0, 0, "b/x");
    rig_say(&rig, 0, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    publish_each(&rig, "x");
    assert_caught_up(&rig,
                     "subscribed; gap a[1,-]x- restart; deliver gap b[1,1]x1 dropped_newest, a(0,1] = a1");
    rig_stop(&rig);
}

Test(core_deliver_overflow, conflate_keeps_the_newest_of_each_path)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'conflate'," BUDGET "}");
    publish_each(&rig, "xyxyxx");
    assert_caught_up(&rig, "subscribed; deliver gap a[1,5]x4 conflated, a(5,6] = a4 a6");
    publish_each(&rig, "xx");
    RIG_TOLD(&rig, 1, "deliver a(6,7] = a7; deliver a(7,8] = a8");
    rig_stop(&rig);
}

Test(core_deliver_overflow, conflate_below_the_budget_sends_all)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'conflate'," BUDGET "}");
    publish_each(&rig, "xxx");
    assert_caught_up(&rig, "subscribed; deliver a(0,3] = a1-3");
    rig_stop(&rig);
}

Test(core_deliver_overflow, refuse_refuses_what_matches_until_it_has_caught_up)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/x", "'options':{'overflow':'refuse'," BUDGET "}");
    rig_publish(&rig, 0, 1, "4:a/x");
    rig_publish(&rig, 0, 2, "a/y a/x");
    rig_publish(&rig, 0, 3, "a/y");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+4; error publish/2 overflow; ack 3@1 a5+1");
    assert_caught_up(&rig, "subscribed; deliver a(0,4] = a1-4");
    rig_publish(&rig, 0, 4, "a/x");
    RIG_TOLD(&rig, 0, "ack 4@1 a6+1");
    rig_stop(&rig);
}

Test(core_deliver_overflow, what_is_refused_leaves_no_channel)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/x", "'options':{'overflow':'refuse'," BUDGET "}");
    rig_publish(&rig, 0, 1, "4:a/x");
    size_t n_channels = rig.core->channels.n_channels;
    rig_publish(&rig, 0, 2, "b/x c/x a/x");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+4; error publish/2 overflow");
    cr_assert_eq(rig.core->channels.n_channels, n_channels);
    rig_publish(&rig, 0, 3, "c/x");
    RIG_TOLD(&rig, 0, "ack 3@1 c1+1");
    rig_stop(&rig);
}

Test(core_deliver_overflow, disconnect_sends_the_client_away)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/x", "'options':{'overflow':'disconnect'," BUDGET "}");
    rig_publish(&rig, 0, 0, "3:a/x 9:a/y");
    cr_assert_not(rig.peers[1].is_closed);
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "subscribed; goodbye overflow");
    cr_assert(rig.peers[1].is_closed);
    cr_assert_eq(RIG_COUNT(&rig, clients_overflowed), 1);
    rig_stop(&rig);
}

/* --- with times to live ------------------------------------------------------------------------------------ */

/* A capital letter is an event that expires. */
static void publish_mortal(struct rig *rig, const char *letters)
{
    for (; *letters != 0; letters++) {
        bool is_mortal = *letters < 'a';
        char path[] = "a/?";
        path[2] = (char)(is_mortal ? *letters + ('a' - 'A') : *letters);
        rig->ttl_ms = is_mortal ? 10 : 0;
        rig_publish(rig, 0, 0, path);
    }
    rig->ttl_ms = 0;
    rig_pass(rig, 20000);
}

Test(core_deliver_overflow, conflate_keeps_the_newest_that_still_lives)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'conflate'," BUDGET "}");
    publish_mortal(&rig, "xXX");
    assert_caught_up(&rig, "subscribed; deliver gap a[1,3]x2 expired, a(3,3] = a1");
    rig_stop(&rig);
}

Test(core_deliver_overflow, conflated_and_expired_events_are_counted_once_each)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'conflate'," BUDGET "}");
    publish_mortal(&rig, "xYxYx");
    assert_caught_up(&rig,
                     "subscribed; deliver gap a[1,1]x1 conflated gap a[2,2]x1 expired gap a[3,3]x1 conflated "
                     "gap a[4,4]x1 expired, a(4,5] = a5");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_oldest_drops_and_the_rest_may_expire)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'drop_oldest','budget':30,'events':0}");
    publish_mortal(&rig, "xxXxXx");
    assert_caught_up(&rig,
                     "subscribed; deliver gap a[1,3]x3 dropped_oldest gap a[4,5]x1 expired, a(5,6] = a4 a6");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_newest_drops_what_expired_with_the_rest)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'overflow':'drop_newest','budget':30,'events':0}");
    publish_mortal(&rig, "xXxxXxX");
    assert_caught_up(
        &rig, "subscribed; deliver gap a[1,5]x2 expired, a(5,5] = a1 a3-4; gap a[6,7]x2 dropped_newest");
    publish_mortal(&rig, "x");
    RIG_TOLD(&rig, 1, "deliver a(7,8] = a8");
    rig_stop(&rig);
}

/* --- with an end ------------------------------------------------------------------------------------------- */

Test(core_deliver_overflow, drop_oldest_ends_with_the_last_that_is_wanted)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'until':8,'overflow':'drop_oldest'," BUDGET "}");
    publish_each(&rig, "xyxyxyxyxy");
    assert_caught_up(&rig, "subscribed; deliver gap a[1,5]x5 dropped_oldest, a(5,8] = a6-8; ended done");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_newest_ends_and_loses_nothing_behind_the_end)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'until':8,'overflow':'drop_newest'," BUDGET "}");
    publish_each(&rig, "xyxyxyxyxy");
    assert_caught_up(&rig, "subscribed; deliver a(0,4] = a1-4; gap a[5,8]x4 dropped_newest; ended done");
    rig_stop(&rig);
}

Test(core_deliver_overflow, drop_newest_until_now_has_all_that_there_was)
{
    struct rig rig;
    start(&rig);
    publish_each(&rig, "xyxyxy");
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'until':'now','overflow':'drop_newest'," BUDGET "}");
    publish_each(&rig, "xyxy");
    assert_caught_up(&rig, "subscribed a@0 until a@6; deliver a(0,6] = a1-6; ended done");
    rig_stop(&rig);
}

Test(core_deliver_overflow, conflate_keeps_the_newest_that_is_wanted)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'until':4,'overflow':'conflate'," BUDGET "}");
    publish_each(&rig, "xyxyxy");
    assert_caught_up(&rig, "subscribed; deliver gap a[1,2]x2 conflated, a(2,4] = a3-4; ended done");
    rig_stop(&rig);
}

Test(core_deliver_overflow, refuse_does_not_refuse_for_what_is_behind_the_end)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'until':2,'overflow':'refuse'," BUDGET "}");
    for (uint64_t i = 1; i <= 8; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "ack 1@1 a9+1");
    assert_caught_up(&rig, "subscribed; deliver a(0,2] = a1-2; ended done");
    rig_stop(&rig);
}

Test(core_deliver_overflow, disconnect_does_not_disconnect_for_what_is_behind_the_end)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'until':2,'overflow':'disconnect'," BUDGET "}");
    publish_each(&rig, "xyxyxyxyxy");
    assert_caught_up(&rig, "subscribed; deliver a(0,2] = a1-2; ended done");
    rig_stop(&rig);
}

/* --- while history comes from the log ----------------------------------------------------------------------- */

Test(core_deliver_overflow, drop_newest_does_not_join_the_live_flow_while_the_log_has_more)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "6:a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'overflow':'drop_newest','budget':20}");
    for (int i = 0; i < 6; i++) { /* the log has not answered yet */
        rig_publish(&rig, 0, 0, "a/x");
        rig_commit(&rig);
    }
    cr_assert_not(bk_sub_is_live(rig_sub(&rig, 1)));
    RIG_TOLD(&rig, 1, "subscribed a@0");
    rig_settle(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(0,6] = a1-6; deliver a(6,12] = a7-12; deliver a(12,13] = a13");
    rig_stop(&rig);
}

Test(core_deliver_overflow, with_the_log_only_slide_goes_on_where_the_ring_ends)
{
    static const char *const policies[] = {"slide", "drop_oldest", "drop_newest", "conflate", "refuse"};
    for (size_t i = 0; i < BB_COUNT(policies); i++) {
        struct rig rig;
        rig_init(&rig);
        rig.config.ring_bytes = 4000;
        rig_start(&rig, false, true);
        rig_hello_all(&rig);
        rig.payload = 1000;
        rig_say(&rig, 1,
                "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/*'],"
                "'options':{'events':0,'overflow':'%s'}}",
                policies[i]);
        for (int k = 0; k < 6; k++) {
            rig_publish(&rig, 0, 0, "a/x");
            rig_settle(&rig);
        }
        rig_credit(&rig, 1, 100000, 100);
        rig_settle(&rig);
        cr_assert_str_eq(rig_told(&rig, 1),
                         i == 0 ? "subscribed; deliver a(0,6] = a1-6"
                                : "subscribed; deliver gap a[1,3]x3 overflow, a(3,6] = a4-6",
                         "%s", policies[i]);
        rig_stop(&rig);
    }
}

/* The one that its first pattern names. */
Test(core_deliver_overflow, the_channel_says_what_holds_for_who_does_not)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_say(&rig, 0,
            "{'op':'channel','corr':1,'action':'add','name':'a','settings':{'overflow':'drop_oldest'}}");
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0,'budget':20}");
    rig_subscribe(&rig, 2, "a/*", "'options':{'events':0,'budget':20,'overflow':'conflate'}");
    rig_subscribe(&rig, 3, "*", "'options':{'events':0,'budget':20}");
    rig_publish(&rig, 0, 0, "5:a/x");
    for (size_t i = 1; i <= 3; i++) {
        rig_credit(&rig, i, 1000, 100);
    }
    rig_settle(&rig);
    const char *told = rig_told(&rig, 1);
    cr_assert_not_null(strstr(told, "dropped_oldest"), "%s", told);
    RIG_TOLD(&rig, 2, "subscribed a@0; deliver gap a[1,4]x4 conflated, a(4,5] = a5");
    RIG_TOLD(&rig, 3, "subscribed a@0; deliver a(0,5] = a1-5");
    rig_stop(&rig);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions that come to an end by themselves: where that is, and that it comes. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/until.h"
#include "tests/unit/core_rig.h"

static void start(struct rig *rig, bool has_log)
{
    rig_init(rig);
    rig_start(rig, true, has_log);
    rig_hello_all(rig);
}

static int read_until(const char *bytes, size_t len, struct bk_until_wish *ret_wish)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(bytes, len));
    int r = bk_until_read(&reader, ret_wish);
    return r != 0 ? r : reader.error != 0 ? BB_EINVAL : 0;
}

Test(core_deliver_until, its_forms)
{
    struct bk_until_wish wish;
    cr_assert_eq(read_until("\xc0", 1, &wish), 0);
    cr_assert(wish.kind == BK_UNTIL_NONE && wish.stop == UINT64_MAX);
    cr_assert_eq(read_until("\x07", 1, &wish), 0);
    cr_assert(wish.kind == BK_UNTIL_STOP && wish.stop == 7);
    cr_assert_eq(read_until("\xa3now", 4, &wish), 0);
    cr_assert(wish.kind == BK_UNTIL_STOP && wish.stop == 0);
    cr_assert_eq(read_until("\x81\xa4time\x07", 7, &wish), 0);
    cr_assert(wish.kind == BK_UNTIL_TIME && wish.time == 7 && wish.stop == UINT64_MAX);
    cr_assert_eq(read_until("\x81\xa4last\x82\xa1"
                            "a\x05\xa1"
                            "b\x92\x06\x07",
                            15, &wish),
                 0);
    cr_assert(wish.kind == BK_UNTIL_STOP && wish.last.len == 9);
    cr_assert_neq(read_until("\x00", 1, &wish), 0, "there is no sequence 0");
    cr_assert_neq(read_until("\xa4then", 5, &wish), 0);
    cr_assert_neq(read_until("\x80", 1, &wish), 0);
    cr_assert_neq(read_until("\x81\xa4"
                             "when\x07",
                             7, &wish),
                  0);
    cr_assert_neq(read_until("\x82\xa4time\x07\xa4time\x08", 13, &wish), 0);
    cr_assert_neq(read_until("\x81\xa4last\x81\xa1"
                             "a\xa1x",
                             11, &wish),
                  0);
    cr_assert_neq(read_until("\x81\xa4time\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 15, &wish), 0);
}

Test(core_deliver_until, now_ends_with_what_there_was)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "2:a/x b/x");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':'now'}");
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0 until a@2 b@1; deliver a(0,2] b(0,1] = a1-2 b1; ended done");
    rig_subscribe(&rig, 2, "c/*", "'options':{'until':'now'}");
    RIG_TOLD(&rig, 2, "subscribed until; ended done");
    cr_assert_eq(RIG_COUNT(&rig, subs_done), 2);
    rig_stop(&rig);
}

Test(core_deliver_until, now_without_credit_waits_and_ends_without_what_came_later)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':'now','events':0,'lives':true}");
    rig_publish(&rig, 0, 0, "a/x b/x");
    RIG_TOLD(&rig, 1, "subscribed a@0/100 until a@2/100");
    rig_credit(&rig, 1, 1000, 10);
    RIG_TOLD(&rig, 1, "deliver a(0,2] = a1-2; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, a_sequence_is_waited_for_in_each_channel)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "a/x");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':2}");
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    rig_publish(&rig, 0, 0, "b/x");
    rig_publish(&rig, 0, 0, "3:a/x");
    RIG_TOLD(&rig, 1, "deliver b(0,1] = b1; deliver a(1,2] = a2");
    rig_publish(&rig, 0, 0, "b/x");
    RIG_TOLD(&rig, 1, "deliver b(1,2] = b2; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, a_sequence_on_its_way_to_the_disk_is_waited_for)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'until':2}");
    rig_publish(&rig, 0, 0, "a/x");
    rig_pass(&rig, 1000000);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(1,2] = a2; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, a_time_ends_when_nothing_of_it_can_come_any_more)
{
    struct rig rig;
    start(&rig, true);
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':{'time':3000000}}");
    rig_publish(&rig, 0, 0, "a/x");
    rig_commit(&rig);
    rig.now = 3000000;
    bk_core_set_time(rig.core, rig.now, rig.now);
    rig_publish(&rig, 0, 0, "a/x"); /* of that time, and on its way to the disk */
    rig_pass(&rig, 1000000);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(1,2] = a2; ended done");
    cr_assert_eq(rig.core->n_until, 0);
    rig_stop(&rig);
}

Test(core_deliver_until, a_time_that_nothing_comes_in_ends_by_the_clock)
{
    struct rig rig;
    start(&rig, false);
    rig_subscribe(&rig, 1, "*", "'options':{'until':{'time':3000000}}");
    rig_pass(&rig, 2000000);
    RIG_TOLD(&rig, 1, "subscribed");
    cr_assert_leq(bk_core_tick_at(rig.core), rig.now + 1);
    rig_pass(&rig, 1);
    RIG_TOLD(&rig, 1, "ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, last_ends_where_it_would_have_ended_before)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "5:a/x 2:b/x");
    rig_subscribe(&rig, 1, "*", "'from':{'after':{'a':[2,100]}},'options':{'until':{'last':{'a':[4,100]}}}");
    RIG_TOLD(&rig, 1, "subscribed a@2 b@0 until a@4 b@0; deliver a(2,4] = a3-4; ended done");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':{'last':{'a':[99,100],'c':[5,100]}}}");
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0 until a@5 b@0; deliver a(0,5] = a1-5; ended done");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':{'last':{'a':3}}}");
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0 until a@3 b@0; deliver a(0,3] = a1-3; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, last_without_a_life_is_of_the_life_of_now)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'remove','name':'a'}");
    rig_settle(&rig);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'oldest','options':{'until':{'last':{'a':2}}}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 until a@2; deliver a(0,2] = a1-2; ended done");
    rig_say(&rig, 3, "{'op':'cursor','corr':4,'name':'D','positions':[['a',1]]}");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'durable':'D','until':{'last':{'a':3}}}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@1 until a@3; deliver a(1,3] = a2-3; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, last_of_a_life_that_is_over_is_not_waited_for)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_subscribe(&rig, 1, "*", "'from':{'after':{'a':[3,100]}},'options':{'until':{'last':{'a':[5,100]}}}");
    RIG_TOLD(&rig, 1, "subscribed a@0 until a@0; gap a[4,-]x- restart; ended done");
    rig_stop(&rig);
}

/* --- a channel that is removed -------------------------------------------------------------------------------- */

Test(core_deliver_until, now_of_a_channel_that_is_removed_ends_and_takes_nothing_of_the_new_one)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'until':'now','events':0}");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    RIG_TOLD(&rig, 1, "subscribed a@0 until a@3; gap a[1,-]x- restart; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, a_sequence_in_a_channel_that_is_removed_is_not_waited_for)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "a/x b/x");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':3}");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0; deliver a(0,1] b(0,1] = a1 b1; gap a[2,-]x- restart");
    rig_publish(&rig, 0, 0, "2:b/x");
    RIG_TOLD(&rig, 1, "deliver b(1,3] = b2-3; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, who_resumes_after_the_removal_wants_nothing_of_the_new_channel)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "2:a/x b/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_subscribe(&rig, 1, "*",
                  "'from':{'after':{'a':[2,100],'b':[1,100]}},'options':{'until':3,'lives':true}");
    RIG_TOLD(&rig, 1, "subscribed b@1/100 a@0/101; gap a[3,-]x- restart/101");
    rig_publish(&rig, 0, 0, "2:b/x a/x");
    RIG_TOLD(&rig, 1, "deliver b(1,3] = b2-3; ended done");
    rig_subscribe(&rig, 2, "c/*", "'from':{'after':{'c':[2,100]}},'options':{'until':3,'lives':true}");
    RIG_TOLD(&rig, 2, "subscribed; gap c[3,-]x- restart; ended done");
    rig_stop(&rig);
}

/* Its name is known for what was refused, as it is for one that nobody heard of. */
Test(core_deliver_until, who_resumes_in_a_channel_of_which_all_was_taken_back_wants_nothing_of_the_next)
{
    struct rig rig;
    start(&rig, true);
    rig_subscribe(&rig, 2, "a/*", "'options':{'view':'early','lives':true}");
    rig_publish(&rig, 0, 0, "a/x");
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(&rig, 2, "subscribed; deliver a(0,1]/100 = a1; gap a[1,1]x- retracted/101");
    rig_subscribe(&rig, 1, "a/*", "'from':{'after':{'a':[0,100]}},'options':{'until':3,'lives':true}");
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; gap a[1,-]x- restart; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, the_end_comes_when_the_log_has_been_read)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'until':'now'}");
    RIG_TOLD(&rig, 1, "subscribed a@0 until a@3");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(0,3] = a1-3; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, the_end_needs_no_credit_when_nothing_is_to_be_sent)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "3:a/y");
    rig_subscribe(&rig, 1, "a/x", "'from':1,'options':{'until':'now','events':0}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 until a@3; ended done");
    rig_stop(&rig);
}

Test(core_deliver_until, a_channel_that_comes_later_need_have_no_event_that_matches)
{
    struct rig rig;
    start(&rig, false);
    rig_subscribe(&rig, 1, "a/x", "'options':{'until':2}");
    rig_subscribe(&rig, 2, "?/x", "'options':{'until':2}");
    rig_subscribe(&rig, 3, "b/x", "'options':{'until':2}");
    rig_publish(&rig, 0, 0, "a/y");
    rig_pass(&rig, 1000000);
    RIG_TOLD(&rig, 1, "subscribed");
    RIG_TOLD(&rig, 2, "subscribed");
    RIG_TOLD(&rig, 3, "subscribed");
    rig_publish(&rig, 0, 0, "a/y");
    rig_pass(&rig, 1000000);
    RIG_TOLD(&rig, 1, "ended done");
    RIG_TOLD(&rig, 2, "ended done");
    RIG_TOLD(&rig, 3, "");
    rig_stop(&rig);
}

Test(core_deliver_until, the_last_event_wanted_need_not_match)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "a/y");
    rig_subscribe(&rig, 1, "a/x", "'options':{'until':3}");
    rig_subscribe(&rig, 2, "a/x", "'options':{'until':3,'events':0}");
    rig_publish(&rig, 0, 0, "a/y");
    rig_pass(&rig, 1000000);
    RIG_TOLD(&rig, 1, "subscribed a@1");
    RIG_TOLD(&rig, 2, "subscribed a@1");
    rig_publish(&rig, 0, 0, "2:a/y");
    rig_pass(&rig, 1000000);
    RIG_TOLD(&rig, 1, "ended done");
    RIG_TOLD(&rig, 2, "ended done");
    cr_assert_eq(rig.core->n_until, 0);
    rig_stop(&rig);
}

/* How many of them came before that time nobody knows any more, nor which was the last. */
Test(core_deliver_until, what_was_trimmed_before_a_time_is_a_gap_without_a_count_up_to_what_is_too_late)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "2:a/x");
    uint64_t time = rig.now + 1;
    rig_pass(&rig, 10);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'a','settings':{'before':5}}");
    rig_say(
        &rig, 1,
        "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/*'],'from':1,'options':{'until':{'time':%llu}}}",
        (unsigned long long)time);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[1,4]x- trimmed; ended done");
    rig_stop(&rig);
}

/* What the log has behind that time is not waited for. */
Test(core_deliver_until, a_time_in_the_log_ends_when_it_has_been_read_up_to_there)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "2:a/x");
    uint64_t time = rig.now + 1;
    rig_pass(&rig, 10);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_say(
        &rig, 1,
        "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/*'],'from':1,'options':{'until':{'time':%llu}}}",
        (unsigned long long)time);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,2] = a1-2; ended done");
    cr_assert_eq(RIG_COUNT(&rig, log_reads), 1);
    rig_stop(&rig);
}

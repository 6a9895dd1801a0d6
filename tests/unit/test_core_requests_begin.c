/* SPDX-License-Identifier: Apache-2.0 */
/* Where a subscription begins: every `from`, positions that are void, and what has to be asked of the log. */
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

/* --- every `from`, from memory ---------------------------------------------------------------------------- */

/* a/x has 1, 3 and 5, a/y 2 and 4; sessions 1 to 5, one second apart. */
static void start_with_five(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, false);
    rig_hello_all(rig);
    for (uint64_t i = 1; i <= 5; i++) {
        rig->now = i * 1000000;
        bk_core_set_time(rig->core, rig->now, rig->now);
        rig_publish(rig, 0, 0, i % 2 == 1 ? "a/x" : "a/y");
    }
}

static void assert_begins(struct rig *rig, const char *from, const char *words)
{
    rig_subscribe(rig, 1, "a/*", from);
    cr_assert_str_eq(rig_told(rig, 1), words, "from %s", from);
    rig_say(rig, 1, "{'op':'unsubscribe','corr':2,'sub':1}");
    RIG_TOLD(rig, 1, "result 2");
}

Test(core_requests_begin, each_from_begins_where_it_says)
{
    struct rig rig;
    start_with_five(&rig);
    assert_begins(&rig, "'from':'new'", "subscribed a@5");
    assert_begins(&rig, "'from':null", "subscribed a@5");
    assert_begins(&rig, "'from':'last'", "subscribed a@4; deliver a(4,5] = a5");
    assert_begins(&rig, "'from':'oldest'", "subscribed a@0; deliver a(0,5] = a1-5");
    assert_begins(&rig, "'from':1", "subscribed a@0; deliver a(0,5] = a1-5");
    assert_begins(&rig, "'from':4", "subscribed a@3; deliver a(3,5] = a4-5");
    assert_begins(&rig, "'from':0", "subscribed a@0; deliver a(0,5] = a1-5");
    assert_begins(&rig, "'from':99", "subscribed a@5");
    assert_begins(&rig, "'from':{'time':3000000}", "subscribed a@2; deliver a(2,5] = a3-5");
    assert_begins(&rig, "'from':{'time':3000001}", "subscribed a@3; deliver a(3,5] = a4-5");
    assert_begins(&rig, "'from':{'time':9000000}", "subscribed a@5");
    assert_begins(&rig, "'from':{'id':[1,3,1]}", "subscribed a@3; deliver a(3,5] = a4-5");
    assert_begins(&rig, "'from':{'id':[1,0,1]}", "subscribed a@0; deliver a(0,5] = a1-5");
    assert_begins(&rig, "'from':{'run':100,'after':{'a':3}}", "subscribed a@3; deliver a(3,5] = a4-5");
    assert_begins(&rig, "'from':{'after':{'a':[3,100]}}", "subscribed a@3; deliver a(3,5] = a4-5");
    assert_begins(&rig, "'from':{'after':{}}", "subscribed a@0; deliver a(0,5] = a1-5");
    rig_stop(&rig);
}

Test(core_requests_begin, last_is_the_newest_that_matches)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "?/y", "'from':'last'");
    RIG_TOLD(&rig, 1, "subscribed a@3; deliver a(3,4] = a4");
    rig_subscribe(&rig, 2, "a/z", "'from':'last'");
    RIG_TOLD(&rig, 2, "subscribed a@5");
    rig_stop(&rig);
}

Test(core_requests_begin, an_id_inside_of_a_batch_begins_behind_it)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x a/x b/x b/x");
    rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['*'],'from':{'id':[1,1,3]}}");
    RIG_TOLD(&rig, 1, "subscribed a@2 b@1; deliver b(1,2] = b2");
    rig_stop(&rig);
}

Test(core_requests_begin, an_id_of_another_server_is_refused)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'id':[2,3,1]}");
    RIG_TOLD(&rig, 1, "error subscribe/1 bad_argument");
    cr_assert_eq(rig.core->n_subs, 0);
    rig_stop(&rig);
}

Test(core_requests_begin, lives_are_told_to_who_wants_them)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':4,'options':{'lives':true}");
    RIG_TOLD(&rig, 1, "subscribed a@3/100; deliver a(3,5] = a4-5");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "deliver a(5,6] = a6");
    rig_publish(&rig, 0, 0, "b/x");
    rig_say(&rig, 1, "{'op':'subscribe','corr':2,'sub':2,'patterns':['?/x'],'options':{'lives':true}}");
    rig_publish(&rig, 0, 0, "c/x");
    RIG_TOLD(&rig, 1, "subscribed a@6/100 b@1/100; deliver c(0,1]/100 = c1");
    rig_stop(&rig);
}

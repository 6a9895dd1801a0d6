/* SPDX-License-Identifier: Apache-2.0 */
/* Where a subscription begins: every `from`, positions that are void, and what has to be asked of the log. */
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>

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

Test(core_requests_begin, what_comes_later_in_the_batch_of_an_id_is_behind_it_in_every_channel)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "5:b/x");
    rig_publish(&rig, 0, 0, "a/x a/x b/x b/x");
    rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['*'],'from':{'id':[1,2,1]}}");
    RIG_TOLD(&rig, 1, "subscribed b@5 a@1; deliver a(1,2] b(5,7] = a2 b6-7");
    rig_stop(&rig);
}

static void trim(struct rig *rig, uint64_t before)
{
    rig_say(rig, 0, "{'op':'channel','corr':1,'action':'trim','name':'a','settings':{'before':%llu}}",
            (unsigned long long)before);
    rig_settle(rig);
    (void)rig_told(rig, 0);
}

#define TRIMMED        "subscribed a@0; gap a[1,3]x- trimmed; deliver a(3,5] = a4-5"
#define TRIMMED_IN_LOG "subscribed a@0; deliver gap a[1,3]x- trimmed, a(3,5] = a4-5"

Test(core_requests_begin, what_was_trimmed_behind_an_id_is_told)
{
    static const struct {
        uint64_t before;
        const char *id;
        const char *words[2]; /* out of memory, and of the log */
    } rows[] = {
        {4, "[1,3,1]", {TRIMMED, TRIMMED_IN_LOG}}, /* which of them were behind it nobody knows any more */
        {4, "[1,0,0]", {TRIMMED, TRIMMED_IN_LOG}},
        {4, "[1,4,1]", {"subscribed a@4; deliver a(4,5] = a5", "subscribed a@4; deliver a(4,5] = a5"}},
        {9,
         "[1,2,1]",
         {"subscribed a@0; gap a[1,5]x- trimmed", "subscribed a@0; deliver gap a[1,5]x- trimmed, a(5,5] ="}},
        {9,
         "[1,9007199254740000,1]",
         {"subscribed a@5", "subscribed a@5"}}, /* of a session that has not been */
    };
    for (int has_log = 0; has_log < 2; has_log++) {
        for (size_t i = 0; i < BB_COUNT(rows); i++) {
            struct rig rig;
            rig_init(&rig);
            rig_start(&rig, has_log == 0, has_log != 0);
            rig_hello_all(&rig);
            for (int n = 0; n < 5; n++) {
                rig_publish(&rig, 0, 0, "a/x");
                rig_settle(&rig);
            }
            trim(&rig, rows[i].before);
            if (has_log != 0) {
                rig_restart(&rig, true); /* so that the log is asked */
                rig_hello_all(&rig);
            }
            char from[64];
            (void)snprintf(from, sizeof(from), "'from':{'id':%s}", rows[i].id);
            rig_subscribe(&rig, 1, "a/*", from);
            rig_settle(&rig);
            const char *told = rig_told(&rig, 1);
            cr_assert_str_eq(told, rows[i].words[has_log], "%s, log %d: %s", rows[i].id, has_log, told);
            rig_stop(&rig);
        }
    }
}

Test(core_requests_begin, where_an_id_was_is_known_as_long_as_its_batch_is)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, true, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "5:a/x");
    trim(&rig, 4);
    rig_subscribe(&rig, 1, "a/*", "'from':{'id':[1,1,2]}");
    RIG_TOLD(&rig, 1, "subscribed a@2; gap a[3,3]x1 trimmed; deliver a(3,5] = a4-5");
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

/* --- positions that are void ------------------------------------------------------------------------------ */

static void remove_channel(struct rig *rig, const char *name)
{
    rig_say(rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'%s'}", name);
    rig_settle(rig);
    RIG_TOLD(rig, 3, "result 3");
}

Test(core_requests_begin, a_position_in_a_channel_that_was_removed_and_made_again_is_void)
{
    for (int has_log = 0; has_log < 2; has_log++) {
        struct rig rig;
        rig_init(&rig);
        rig_start(&rig, true, has_log != 0);
        rig_hello_all(&rig);
        rig_publish(&rig, 0, 0, "10:a/x");
        rig_settle(&rig);
        remove_channel(&rig, "a");
        rig_publish(&rig, 0, 0, "5:a/x");
        rig_settle(&rig);
        rig_subscribe(&rig, 1, "a/*", "'from':{'run':100,'after':{'a':10}}");
        rig_subscribe(&rig, 2, "a/*", "'from':{'after':{'a':[3,100]}},'options':{'lives':true}");
        RIG_TOLD(&rig, 1, "subscribed a@0; gap a[11,-]x- restart; deliver a(0,5] = a1-5");
        RIG_TOLD(&rig, 2, "subscribed a@0/101; gap a[4,-]x- restart/101; deliver a(0,5] = a1-5");
        rig_stop(&rig);
    }
}

Test(core_requests_begin, a_position_in_a_channel_that_is_no_more_is_void)
{
    struct rig rig;
    start_with_five(&rig);
    remove_channel(&rig, "a");
    rig_subscribe(&rig, 1, "a/*", "'from':{'after':{'a':[3,100],'b':[7,100]}}");
    RIG_TOLD(&rig, 1, "subscribed; gap a[4,-]x- restart");
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "deliver a(0,1] = a1");
    rig_stop(&rig);
}

Test(core_requests_begin, a_position_of_a_channel_in_memory_is_void_in_the_next_run)
{
    struct rig rig;
    start_with_five(&rig);
    rig_restart(&rig, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "7:a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':{'run':100,'after':{'a':5}}");
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[6,-]x- restart; deliver a(0,7] = a1-7");
    rig_subscribe(&rig, 2, "a/*", "'from':{'run':200,'after':{'a':5}}");
    RIG_TOLD(&rig, 2, "subscribed a@5; deliver a(5,7] = a6-7");
    rig_stop(&rig);
}

Test(core_requests_begin, a_position_that_says_nothing_yet_is_not_told_as_void)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "*", "'from':{'run':100,'after':{'a':5,'later':0}}");
    RIG_TOLD(&rig, 1, "subscribed a@5");
    rig_stop(&rig);
}

Test(core_requests_begin, what_is_removed_while_somebody_is_there_is_told_and_goes_on_with_the_new_one)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'lives':true}");
    rig_subscribe(&rig, 2, "a/*", "'from':1,'options':{'events':0}");
    remove_channel(&rig, "a");
    rig_publish(&rig, 0, 0, "2:a/x");
    RIG_TOLD(&rig, 1, "subscribed a@5/100; gap a[6,-]x- restart; deliver a(0,2]/101 = a1-2");
    rig_credit(&rig, 2, 1000, 100);
    RIG_TOLD(&rig, 2, "subscribed a@0; gap a[1,-]x- restart; deliver a(0,2] = a1-2");
    rig_stop(&rig);
}

/* --- what is not kept any more ----------------------------------------------------------------------------- */

Test(core_requests_begin, oldest_begins_with_what_there_is_and_sequence_one_with_a_gap)
{
    struct rig rig;
    start_with_five(&rig);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'a','settings':{'before':4}}");
    rig_subscribe(&rig, 1, "a/*", "'from':'oldest'");
    RIG_TOLD(&rig, 1, "subscribed a@3; deliver a(3,5] = a4-5");
    rig_subscribe(&rig, 2, "a/*", "'from':1");
    RIG_TOLD(&rig, 2, "subscribed a@0; gap a[1,3]x3 trimmed; deliver a(3,5] = a4-5");
    rig_say(&rig, 3, "{'op':'subscribe','corr':4,'sub':1,'patterns':['a/x'],'from':1}");
    RIG_TOLD(&rig, 3, "result 3; subscribed a@0; gap a[1,3]x- trimmed; deliver a(3,5] = a5");
    rig_stop(&rig);
}

Test(core_requests_begin, oldest_reaches_back_into_the_log)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'oldest'");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,4] = a1-4");
    rig_stop(&rig);
}

/* --- what the log is asked ------------------------------------------------------------------------------------ */

/* a/x 1, a/y 2, a/x 3, one a session, in the log alone. */
static void start_with_log(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, true);
    rig_hello_all(rig);
    for (int i = 0; i < 3; i++) {
        rig->now = (uint64_t)(i + 1) * 1000000;
        bk_core_set_time(rig->core, rig->now, rig->now);
        rig_publish(rig, 0, 0, i == 1 ? "a/y" : "a/x");
        rig_settle(rig);
    }
    rig_restart(rig, true);
    rig_hello_all(rig);
}

Test(core_requests_begin, the_log_is_asked_for_places_that_the_ring_does_not_reach_back_to)
{
    static const struct {
        const char *from;
        const char *words;
    } rows[] = {
        {"'from':'last'", "subscribed a@2; deliver a(2,3] = a3"},
        {"'from':{'time':2000000}", "subscribed a@1; deliver a(1,3] = a2-3"},
        {"'from':{'time':9000000}", "subscribed a@3"},
        {"'from':{'id':[1,2,1]}", "subscribed a@2; deliver a(2,3] = a3"},
        {"'from':{'id':[1,9,1]}", "subscribed a@3"},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        struct rig rig;
        start_with_log(&rig);
        rig_subscribe(&rig, 1, "a/*", rows[i].from);
        cr_assert_str_eq(rig_told(&rig, 1), "", "it waits for the log");
        cr_assert_eq(rig_sub(&rig, 1)->state, BK_SUB_BEGINNING);
        rig_settle(&rig);
        cr_assert_str_eq(rig_told(&rig, 1), rows[i].words, "%s", rows[i].from);
        rig_stop(&rig);
    }
}

Test(core_requests_begin, what_comes_while_the_log_is_asked_comes_once)
{
    struct rig rig;
    start_with_log(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'last'");
    rig_subscribe(&rig, 2, "a/y", "'from':'last'");
    rig_publish(&rig, 0, 0, "a/x");
    rig_commit(&rig);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@3; deliver a(3,4] = a4");
    RIG_TOLD(&rig, 2, "subscribed a@1; deliver a(1,4] = a2");
    rig_stop(&rig);
}

/* A batch and the answer come in one round: the batch has not been fanned out when the subscription begins behind it. */
Test(core_requests_begin, what_came_in_the_round_of_the_answer_comes_once)
{
    static const struct {
        const char *rest;
        const char *words;
    } rows[] = {
        {"'from':'last'", "subscribed a@2 m@1; deliver m(1,2] = m2; deliver a(2,3] = a3"},
        {"'from':{'time':9000000}", "subscribed a@3 m@2"},
        {"'from':'last','options':{'until':'now'}",
         "subscribed a@2 m@1 until a@3 m@2; deliver m(1,2] = m2; deliver a(2,3] = a3; ended done"},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        struct rig rig;
        start_with_log(&rig);
        rig_say(&rig, 0, "{'op':'channel','corr':3,'action':'add','name':'m','settings':{'store':'memory'}}");
        rig_settle(&rig);
        rig_publish(&rig, 0, 0, "m/x");
        rig_subscribe(&rig, 1, "*", rows[i].rest);
        rig_batch(&rig, 0, 0, "m/x");
        cr_assert(rig_log_answer(rig.log));
        bk_core_flush(rig.core);
        rig_settle(&rig);
        RIG_TOLD(&rig, 1, rows[i].words);
        rig_stop(&rig);
    }
}

/* What came after it had looked was in the ring, and is not any more when it answers. */
Test(core_requests_begin, the_log_is_asked_again_for_what_the_ring_lost_meanwhile)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.ring_bytes = (size_t)64 << 10;
    rig_start(&rig, true, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/y", "'from':'last'");
    struct bk_locate *asked = (struct bk_locate *)(void *)rig.log->requests;
    rig.log->requests = NULL;
    rig_publish(&rig, 0, 0, "a/y");
    rig_commit(&rig);
    rig.payload = 30000;
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 0, 0, "a/x");
        rig_commit(&rig);
    }
    cr_assert_gt(rig_channel(&rig, "a")->first, 2);
    asked->places[0].sequence = 0;
    asked->places[0].last = 1;
    asked->request.done(asked->request.context, &asked->request);
    RIG_TOLD(&rig, 1, "");
    cr_assert(rig_asked(&rig));
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@1; deliver a(1,5] = a2");
    rig_stop(&rig);
}

Test(core_requests_begin, it_can_be_ended_while_the_log_is_asked_and_does_not_come_back)
{
    struct rig rig;
    start_with_log(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'last','options':{'overflow':'refuse','budget':0,'events':0}");
    rig_say(&rig, 1, "{'op':'unsubscribe','corr':2,'sub':1}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "result 2; error subscribe/1 refused");
    cr_assert_eq(rig.core->n_subs, 0);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a4+1; ack 2@3 a5+1");
    rig_stop(&rig);
}

Test(core_requests_begin, its_number_is_in_use_and_credit_counts_while_the_log_is_asked)
{
    struct rig rig;
    start_with_log(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'last','options':{'events':0}");
    rig_say(&rig, 1, "{'op':'subscribe','corr':2,'sub':1,'patterns':['b']}");
    rig_credit(&rig, 1, 1000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "error subscribe/2 exists; subscribed a@2; deliver a(2,3] = a3");
    rig_stop(&rig);
}

Test(core_requests_begin, a_channel_that_is_removed_while_the_log_is_asked_is_no_position)
{
    struct rig rig;
    start_with_log(&rig);
    rig_publish(&rig, 0, 0, "b/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", "'from':'last'");
    rig_put(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed b@0; deliver b(0,1] = b1");
    rig_stop(&rig);
}

Test(core_requests_begin, a_client_that_goes_while_the_log_is_asked_leaves_nothing_behind)
{
    struct rig rig;
    start_with_log(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'last'");
    rig_gone(&rig, 1);
    rig_settle(&rig);
    cr_assert_eq(rig.core->n_subs, 0);
    cr_assert_eq(rig.core->n_asks, 0);
    rig_stop(&rig);
}

Test(core_requests_begin, what_the_log_cannot_say_refuses_the_subscription)
{
    struct rig rig;
    start_with_log(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'last'");
    rig.log->answer_error = BB_ECORRUPT;
    rig_answer(&rig);
    RIG_TOLD(&rig, 1, "error subscribe/1 corrupt");
    cr_assert_eq(rig.core->n_subs, 0);
    rig_stop(&rig);
}

Test(core_requests_begin, limits_and_numbers_in_use_are_refused)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.max_patterns = 3;
    rig.config.max_patterns_all = 4;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['a','b']}");
    rig_say(&rig, 1, "{'op':'subscribe','corr':2,'sub':1,'patterns':['c']}");
    rig_say(&rig, 1, "{'op':'subscribe','corr':3,'sub':2,'patterns':['c','d']}");
    rig_say(&rig, 2, "{'op':'subscribe','corr':4,'sub':1,'patterns':['a','b','c']}");
    rig_say(&rig, 2, "{'op':'subscribe','corr':5,'sub':1,'patterns':['a','b']}");
    RIG_TOLD(&rig, 1, "subscribed; error subscribe/2 exists; error subscribe/3 limit");
    RIG_TOLD(&rig, 2, "error subscribe/4 limit; subscribed");
    rig_stop(&rig);
}

Test(core_requests_begin, a_run_that_has_not_come_yet_is_of_somebody_else)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'run':9007199254740991,'after':{'a':3}}");
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[4,-]x- restart; deliver a(0,5] = a1-5");
    rig_stop(&rig);
}

Test(core_requests_begin, a_void_position_at_zero_is_told_as_any_other)
{
    struct rig rig;
    start_with_five(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'run':50,'after':{'a':0}}");
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[1,-]x- restart; deliver a(0,5] = a1-5");
    rig_stop(&rig);
}

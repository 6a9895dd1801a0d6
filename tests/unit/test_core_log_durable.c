/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of tickets: what is visible, acknowledged, refused, remembered. */
#include "broker/core/clients/producer.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/durable.h"
#include "tests/unit/core_rig.h"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, true, true);
    rig_hello(rig, 0, "p", 1);
    rig_hello(rig, 1, NULL, 0);
    (void)rig_told(rig, 0);
    (void)rig_told(rig, 1);
}

static void add_in_memory(struct rig *rig)
{
    rig_say(rig, 1, "{'op':'channel','corr':3,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig_settle(rig);
    (void)rig_told(rig, 1);
}

Test(core_log_durable, events_are_seen_when_they_are_on_disk)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x");
    RIG_TOLD(&rig, 1, "subscribed");
    cr_assert(rig_channel(&rig, "a")->taken == 2 && rig_channel(&rig, "a")->last == 0);
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a1+1");
    RIG_TOLD(&rig, 1, "deliver a(0,1] = a1");
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "deliver a(1,2] = a2");
    rig_stop(&rig);
}

Test(core_log_durable, who_asks_for_less_is_acknowledged_when_the_log_has_taken_it)
{
    struct rig rig;
    start(&rig);
    rig.level = 1;
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1");
    rig.level = 3;
    rig_publish(&rig, 0, 2, "a/x");
    rig.level = 1;
    rig_publish(&rig, 0, 3, "a/x");
    RIG_TOLD(&rig, 0, "");
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "");
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "ack 2@3 a2+1 m0, 3@1 a3+1");
    rig_stop(&rig);
}

/* An earlier ticket is durable in the round in which they came. */
Test(core_log_durable, who_asks_for_less_is_not_acknowledged_before_the_log_has_taken_it)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig.level = 1;
    rig_batch(&rig, 0, 2, "a/x");
    cr_assert(rig_log_commit(rig.log));
    rig.log->refusal = BB_ENOMEM;
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "error publish/2 no_memory; ack 1@3 a1+1");
    rig_stop(&rig);
}

Test(core_log_durable, a_log_that_takes_nothing_more_acknowledges_nothing_at_any_level)
{
    struct rig rig;
    start(&rig);
    rig.level = 1;
    rig.log->refusal = BB_ELOGFULL;
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "error publish/1 log_full");
    rig.log->listener->state(rig.log->listener->context, BK_BACKEND_FULL, "no room");
    rig_publish(&rig, 0, 2, "a/x");
    RIG_TOLD(&rig, 0, "ack 2@1 refused 0:log_full");
    cr_assert_eq(rig_channel(&rig, "a")->taken, 0);
    rig.log->refusal = 0;
    rig.log->listener->state(rig.log->listener->context, BK_BACKEND_OK, NULL);
    rig_publish(&rig, 0, 3, "a/x");
    RIG_TOLD(&rig, 0, "ack 3@1 a1+1");
    rig_stop(&rig);
}

Test(core_log_durable, a_lazy_channel_is_acknowledged_before_the_disk_if_nobody_asks)
{
    struct rig rig;
    start(&rig);
    rig_say(&rig, 1, "{'op':'channel','corr':3,'action':'add','name':'a','settings':{'sync':false}}");
    rig_settle(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1");
    rig.level = 3;
    rig_publish(&rig, 0, 2, "a/x");
    RIG_TOLD(&rig, 0, "");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 2@3 a2+1 m0");
    rig_stop(&rig);
}

Test(core_log_durable, a_batch_for_both_stores_waits_for_the_disk_if_nobody_asks)
{
    struct rig rig;
    start(&rig);
    add_in_memory(&rig);
    rig_publish(&rig, 0, 1, "a/x m/x");
    RIG_TOLD(&rig, 0, "");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1 m1+1");
    rig_stop(&rig);
}

Test(core_log_durable, sequences_of_what_failed_are_given_again)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "2:a/x");
    rig_batch(&rig, 0, 3, "a/x"); /* staged, not registered */
    rig_log_commit(rig.log);
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(&rig, 0, "error publish/2 log_failed; error publish/3 log_failed; ack 1@3 a1+1");
    rig_publish(&rig, 0, 4, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 4@3 a2+1");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; deliver a(1,2] = a2");
    cr_assert_eq(RIG_COUNT(&rig, log_refused), 3);
    rig_stop(&rig);
}

Test(core_log_durable, of_a_batch_for_both_stores_what_was_in_memory_stays)
{
    struct rig rig;
    start(&rig);
    add_in_memory(&rig);
    rig.level = 1;
    rig_batch(&rig, 0, 1, "a/x m/x a/x m/x");
    rig.log->refusal = BB_ELOGFAILED;
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "ack 1@1 m1+1 m2+1 refused 0:log_failed 2:log_failed");
    rig.log->refusal = 0;
    rig_publish(&rig, 0, 1, "a/x m/x a/x m/x");
    RIG_TOLD(&rig, 0, "error publish/1 unknown_result");
    rig_stop(&rig);
}

Test(core_log_durable, what_failed_is_refused_again_for_who_repeats_it_over_another_connection)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x");
    rig_gone(&rig, 0);
    rig_log_commit(rig.log);
    rig_fail(&rig, BB_ELOGFAILED);
    rig_new_peer(&rig, 0);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x");
    RIG_TOLD(&rig, 0, "welcome 2; ack 1@0 repeated; error publish/2 log_failed");
    rig_stop(&rig);
}

Test(core_log_durable, a_failure_that_comes_after_a_newer_epoch_is_not_noted_there)
{
    struct rig rig;
    start(&rig);
    add_in_memory(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_hello(&rig, 2, "p", 2);
    rig_publish(&rig, 2, 1, "m/x");
    rig_fail(&rig, BB_ELOGFAILED);
    rig_publish(&rig, 2, 1, "m/x");
    RIG_TOLD(&rig, 2, "welcome 0; ack 1@1 m1+1; ack 1@0 repeated");
    rig_stop(&rig);
}

Test(core_log_durable, a_repetition_is_acknowledged_when_the_first_one_is_on_disk)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_hello(&rig, 2, "p", 1);
    rig_publish(&rig, 2, 1, "a/x");
    RIG_TOLD(&rig, 2, "welcome 1");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "ack 1@0 repeated");
    RIG_TOLD(&rig, 0, "goodbye exists");
    cr_assert_eq(rig_channel(&rig, "a")->last, 1);
    rig_stop(&rig);
}

Test(core_log_durable, what_retention_took_is_not_shown_any_more)
{
    struct rig rig;
    start(&rig);
    rig_say(&rig, 1, "{'op':'channel','corr':3,'action':'add','name':'a','settings':{'max_events':2}}");
    rig_settle(&rig);
    (void)rig_told(&rig, 1);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    for (int i = 0; i < 5; i++) {
        rig_publish(&rig, 0, 0, "a/x");
        rig_settle(&rig);
    }
    cr_assert_eq(rig_channel(&rig, "a")->log_first, 4);
    cr_assert_eq(rig_channel(&rig, "a")->first, 4);
    rig_credit(&rig, 1, 1000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver gap a[1,3]x- trimmed, a(3,5] = a4-5");
    rig_stop(&rig);
}

/* As when the channel is idle. */
Test(core_log_durable, retention_of_a_channel_in_memory_holds_for_subscribers_too)
{
    struct rig rig;
    start(&rig);
    rig_say(
        &rig, 1,
        "{'op':'channel','corr':3,'action':'add','name':'m','settings':{'store':'memory','max_age':1000}}");
    rig_settle(&rig);
    (void)rig_told(&rig, 1);
    rig_publish(&rig, 0, 0, "2:m/x");
    rig_pass(&rig, 5000000);
    rig_answer(&rig);
    cr_assert_eq(rig_channel(&rig, "m")->first, 3);
    rig_subscribe(&rig, 1, "m/*", "'from':'oldest'");
    RIG_TOLD(&rig, 1, "subscribed m@2");
    rig_subscribe(&rig, 2, "m/*", NULL);
    rig_stop(&rig);
}

Test(core_log_durable, an_outcome_is_unknown_when_some_of_it_was_taken)
{
    struct bk_channel channel = {.refs = 9};
    struct bk_waiting *waiting = bk_waiting_new(2);
    waiting->runs[0] = (struct bk_waiting_run){&channel, 1, 0, 1, true};
    waiting->runs[1] = (struct bk_waiting_run){&channel, 2, 1, 1, true};
    cr_assert_eq(bk_waiting_outcome(waiting, BB_ELOGFULL), BB_ELOGFULL);
    waiting->runs[1].is_logged = false;
    cr_assert_eq(bk_waiting_outcome(waiting, BB_ELOGFULL), BB_EUNKNOWNRESULT);
    waiting->runs[1].is_logged = true;
    bk_waiting_refuse(waiting, 2, BB_EPATH);
    cr_assert_eq(bk_waiting_outcome(waiting, BB_ELOGFULL), BB_EUNKNOWNRESULT);
    bk_waiting_free(waiting);
}

/* Whoever of them is answered first. */
Test(core_log_durable, of_several_that_wait_each_is_answered_when_its_own_is_decided)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    for (size_t i = 0; i < 3; i++) {
        rig_publish(&rig, i, 1, "a/x");
    }
    rig_gone(&rig, 1); /* from between the others */
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a1+1");
    RIG_TOLD(&rig, 2, "");
    rig_commit(&rig);
    rig_commit(&rig);
    RIG_TOLD(&rig, 2, "ack 1@3 a3+1");
    cr_assert_null(rig.core->stage.waiting);
    rig_stop(&rig);
}

Test(core_log_durable, a_repetition_that_waits_for_what_then_fails_is_refused_too)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_hello(&rig, 2, "p", 1);
    rig_publish(&rig, 2, 1, "a/x");
    rig_publish(&rig, 2, 2, "a/x");
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(&rig, 2, "welcome 1; error publish/1 log_failed; error publish/2 log_failed");
    cr_assert_eq(rig_channel(&rig, "a")->taken, 0);
    rig_stop(&rig);
}

/* The repetition is put behind all that there is, of which a part fails before the first one is decided. */
Test(core_log_durable, a_repetition_waits_on_for_the_first_one_when_something_later_fails)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_hello(&rig, 2, "p", 1);
    rig.log->refusal = BB_ELOGFULL;
    rig_batch(&rig, 1, 0, "a/x");
    rig_publish(&rig, 2, 1, "a/x");
    rig.log->refusal = 0;
    RIG_TOLD(&rig, 2, "welcome 1");
    rig_fail(&rig, BB_ELOGFAILED);
    RIG_TOLD(&rig, 2, "error publish/1 log_failed");
    rig_stop(&rig);
}

/* As when the first one is repeated over the same connection before its answer has come. */
Test(core_log_durable, a_repetition_is_not_refused_before_the_first_one_is_answered)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x a/*");
    rig_publish(&rig, 0, 1, "a/x a/*");
    RIG_TOLD(&rig, 0, "");
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a1+1 refused 1:bad_path; error publish/1 unknown_result");
    rig_publish(&rig, 0, 1, "a/x a/*");
    RIG_TOLD(&rig, 0, "error publish/1 unknown_result");
    rig_stop(&rig);
}

/* It waits for the batch before it, which is on its way, and knows already that it has failed. */
Test(core_log_durable,
     what_has_failed_and_was_not_answered_when_its_client_went_is_refused_when_it_is_repeated)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig.log->refusal = BB_ELOGFULL;
    rig_publish(&rig, 0, 2, "a/x");
    rig.log->refusal = 0;
    rig_gone(&rig, 0);
    rig_commit(&rig);
    rig_hello(&rig, 2, "p", 1);
    rig_publish(&rig, 2, 1, "a/x");
    rig_publish(&rig, 2, 2, "a/x");
    RIG_TOLD(&rig, 2, "welcome 2; ack 1@0 repeated; error publish/2 log_full");
    cr_assert_eq(rig_channel(&rig, "a")->taken, 1);
    rig_stop(&rig);
}

/* A log that was full or broken says when it takes something again; one that had no memory says nothing. */
Test(core_log_durable, a_removal_that_was_refused_is_tried_again_by_itself)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig.log->refusal = BB_ENOMEM;
    rig_say(&rig, 1, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    cr_assert_not(bk_core_wants_flush(rig.core), "not over and over");
    rig.log->refusal = 0;
    rig_pass(&rig, 400000);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, ""); /* not before a second is over */
    rig.log->refusal = BB_ENOMEM;
    rig_pass(&rig, 2000000);
    cr_assert_not(bk_core_wants_flush(rig.core));
    RIG_TOLD(&rig, 1, "");
    rig.log->refusal = 0;
    rig_pass(&rig, 2000000);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "result 3");
    rig_restart(&rig, true);
    cr_assert_null(bk_channels_find(&rig.core->channels, bb_slice_str("a")), "it is gone for good");
    rig_stop(&rig);
}

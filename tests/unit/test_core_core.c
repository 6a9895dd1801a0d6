/* SPDX-License-Identifier: Apache-2.0 */
/* The table of messages, what is settled before one is handled, time, the end of clients, and the invariants. */
#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/core.h"
#include "broker/core/keep/channel.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#include <inttypes.h>
#include <signal.h>

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, true, true);
    rig_hello_all(rig);
}

/* --- the table ------------------------------------------------------------------------------------------------ */

static const char *const before_hello[] = {
    "{'op':'subscribe','corr':1,'sub':1,'patterns':['a']}",
    "{'op':'unsubscribe','corr':1,'sub':1}",
    "{'op':'credit','sub':1,'bytes':1,'events':1}",
    "{'op':'ping','token':1}",
    "{'op':'status','corr':1}",
    "{'op':'matches','corr':1,'path':'a'}",
    "{'op':'cursor','corr':1,'name':'x'}",
    "{'op':'query','corr':1,'query':{}}",
    "{'op':'channel','corr':1,'action':'ls'}",
    "{'op':'log','corr':1,'action':'status'}",
};

Test(core_core, only_hello_goodbye_and_pong_are_taken_before_hello)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, true, true);
    for (size_t i = 0; i < BB_COUNT(before_hello); i++) {
        rig_say(&rig, 0, "%s", before_hello[i]);
        const char *told = rig_told(&rig, 0);
        cr_assert_not_null(strstr(told, " hello_first"), "%s: %s", before_hello[i], told);
    }
    rig_say(&rig, 0, "{'op':'pong','token':1}");
    RIG_TOLD(&rig, 0, "");
    rig_say(&rig, 0, "{'op':'goodbye','code':'closed'}");
    cr_assert(rig.peers[0].is_closed);
    rig_stop(&rig);
}

Test(core_core, what_only_a_broker_says_is_unknown_from_a_client)
{
    static const uint8_t own[][3] = {{0x92, 18, 0x90}, {0x92, 21, 1}};
    static const uint8_t none[] = {0x92, 99, 1};
    struct rig rig;
    start(&rig);
    bk_core_message(rig.core, rig.peers[0].client, bb_slice(own[0], 3), NULL);
    RIG_TOLD(&rig, 0, "error ack/0 unknown_message");
    cr_assert_eq(rig.peers[0].client->strikes, 0, "it is well-formed");
    bk_core_message(rig.core, rig.peers[0].client, bb_slice(none, sizeof(none)), NULL);
    const char *told = rig_told(&rig, 0);
    cr_assert_not_null(strstr(told, "unknown_message"), "%s", told);
    rig_stop(&rig);
}

Test(core_core, nothing_follows_a_message_that_has_no_events)
{
    static const uint8_t ping[] = {0x92, 6, 1, 0x92, 0xa1, 'a', 0xc0};
    struct rig rig;
    start(&rig);
    bk_core_message(rig.core, rig.peers[0].client, bb_slice(ping, sizeof(ping)), NULL);
    bk_core_message(rig.core, rig.peers[0].client, (struct bb_slice){0}, NULL);
    RIG_TOLD(&rig, 0, "error ping/0 malformed; error -/0 malformed");
    cr_assert_eq(rig.peers[0].client->strikes, 2);
    rig_stop(&rig);
}

Test(core_core, a_message_that_is_too_big_is_not_looked_at)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.max_message = 20;
    rig_start(&rig, false, false);
    rig_hello(&rig, 0, NULL, 0);
    rig.payload = 30;
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "welcome 0; error -/0 too_big");
    rig_stop(&rig);
}

Test(core_core, what_came_before_is_fanned_out_before_a_message_that_depends_on_it)
{
    static const char *const settled[] = {
        "{'op':'subscribe','corr':1,'sub':2,'patterns':['b']}",
        "{'op':'unsubscribe','corr':1,'sub':7}",
        "{'op':'matches','corr':1,'path':'a'}",
        "{'op':'channel','corr':1,'action':'ls'}",
    };
    for (size_t i = 0; i < BB_COUNT(settled); i++) {
        struct rig rig;
        rig_init(&rig);
        rig_start(&rig, false, false);
        rig_hello_all(&rig);
        rig_subscribe(&rig, 1, "a", NULL);
        rig_batch(&rig, 0, 0, "a");
        rig_put(&rig, 2, "%s", settled[i]);
        cr_assert_str_eq(rig_told(&rig, 1), "subscribed; deliver a(0,1] = a1", "%s", settled[i]);
        rig_stop(&rig);
    }
}

Test(core_core, an_answer_goes_behind_what_was_published_before_it)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a", NULL);
    rig_batch(&rig, 0, 0, "a");
    rig_put(&rig, 1, "{'op':'subscribe','corr':1,'sub':2,'patterns':['a']}");
    rig_batch(&rig, 0, 0, "a");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1,
             "subscribed; deliver a(0,1] = a1; subscribed a@1; deliver a(1,2] = a2; deliver a(1,2] = a2");
    rig_stop(&rig);
}

/* --- shutting down ---------------------------------------------------------------------------------------------- */

Test(core_core, it_is_drained_when_nothing_waits_for_the_disk_or_a_subscriber)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    rig_publish(&rig, 0, 1, "a/x");
    bk_core_shut_down(rig.core);
    cr_assert_not(bk_core_is_drained(rig.core), "it waits for the disk");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a1+1");
    cr_assert_not(bk_core_is_drained(rig.core), "it waits for credit");
    rig_credit(&rig, 1, 1000, 10);
    cr_assert(bk_core_is_drained(rig.core));
    bk_core_say_goodbye(rig.core);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; goodbye shutting_down");
    cr_assert_null(bk_core_client_add(rig.core, &rig));
    rig_stop(&rig);
}

Test(core_core, it_is_drained_when_everybody_has_an_answer)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_say(&rig, 0, "{'op':'query','corr':1,'query':{}}");
    rig_say(&rig, 1, "{'op':'channel','corr':1,'action':'set','name':'a','settings':{'max_events':5}}");
    rig_say(&rig, 2, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    bk_core_shut_down(rig.core);
    cr_assert_not(bk_core_is_drained(rig.core));
    rig_commit(&rig);
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "result 1");
    RIG_TOLD(&rig, 2, "result 1");
    cr_assert_not(bk_core_is_drained(rig.core), "the log is asked");
    rig_answer(&rig);
    cr_assert(bk_core_is_drained(rig.core));
    rig_stop(&rig);
}

Test(core_core, an_end_that_is_in_time_does_not_keep_it_from_being_drained)
{
    struct rig rig;
    start(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'until':{'time':99000000}}");
    rig_publish(&rig, 0, 0, "a/x");
    bk_core_shut_down(rig.core);
    cr_assert_not(bk_core_is_drained(rig.core));
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1");
    cr_assert(bk_core_is_drained(rig.core), "nothing comes any more");
    rig_stop(&rig);
}

Test(core_core, what_windows_lose_and_refuse_is_counted)
{
    struct rig rig;
    start(&rig);
    bk_core_window_dropped(rig.core);
    bk_core_ingest_refused(rig.core, BB_EMALFORMED);
    bk_core_ingest_refused(rig.core, BB_ETOOBIG);
    cr_assert_eq(RIG_COUNT(&rig, window_dropped), 1);
    cr_assert_eq(RIG_COUNT(&rig, ingest_refused), 2);
    rig_stop(&rig);
}

/* --- time --------------------------------------------------------------------------------------------------------- */

Test(core_core, a_silent_client_is_pinged_each_interval_and_ends_after_three)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.heartbeat_us = 1000000;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_pass(&rig, 0); /* the first look, from where on silence counts */
    for (int i = 1; i <= 11; i++) {
        rig_pass(&rig, 250000);
        cr_assert_eq(rig.peers[0].n_pings, (size_t)i / 4, "%zu after %d quarters", rig.peers[0].n_pings, i);
        rig_say(&rig, 1, "{'op':'pong','token':0}");
    }
    rig_pass(&rig, 250000);
    cr_assert(rig.peers[0].is_closed && !rig.peers[1].is_closed);
    cr_assert_eq(RIG_COUNT(&rig, clients_expired), 3);
    rig_stop(&rig);
}

Test(core_core, a_client_without_heartbeat_is_left_alone)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_say(&rig, 0, "{'op':'hello','corr':5,'version':1,'client':null,'epoch':0,'options':{'heartbeat':0}}");
    for (int i = 0; i < 100; i++) {
        rig_pass(&rig, 10000000);
    }
    cr_assert(!rig.peers[0].is_closed && rig.peers[1].is_closed);
    cr_assert_eq(rig.peers[0].n_pings, 0);
    rig_stop(&rig);
}

Test(core_core, the_next_tick_is_due_when_something_is)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_pass(&rig, 1);
    cr_assert_geq(bk_core_tick_at(rig.core), rig.now + 1000000);
    rig_say(&rig, 0, "{'op':'matches','corr':4,'path':'a/x','min':1,'timeout':50}");
    cr_assert_eq(bk_core_tick_at(rig.core), rig.now + 50000);
    rig_stop(&rig);
}

/* --- the end of a client ------------------------------------------------------------------------------------------ */

Test(core_core, a_client_that_goes_with_everything_it_can_have_is_forgotten_by_all)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.stage_bytes = 1;
    rig_start(&rig, true, true);
    rig_hello(&rig, 0, "p", 1);
    rig_hello(&rig, 1, NULL, 0);
    rig_subscribe(&rig, 0, "*", "'options':{'view':'early','retained':true,'until':{'time':99000000}}");
    rig_say(&rig, 0, "{'op':'subscribe','corr':2,'sub':2,'patterns':['*'],'options':{'events':0}}");
    rig_say(&rig, 0, "{'op':'matches','corr':3,'path':'x','min':9,'timeout':50000}");
    rig_say(&rig, 0, "{'op':'query','corr':4,'query':{}}");
    rig_say(&rig, 0, "{'op':'cursor','corr':5,'name':'here','positions':[['a',1]]}");
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x"); /* the log is behind: it is paused */
    cr_assert(rig.peers[0].is_paused);
    rig_gone(&rig, 0);
    struct bk_core *core = rig.core;
    cr_assert(core->n_subs == 0 && core->n_patterns == 0 && core->n_waiters == 0 && core->n_until == 0);
    cr_assert(core->n_early == 0 && core->n_lagging == 0 && core->stage.paused_first == NULL);
    cr_assert(core->stage.waiting == NULL && core->stage.orphans != NULL);
    rig_settle(&rig);
    cr_assert(core->stage.orphans == NULL && core->n_asks == 0 && core->stage.n_held == 0);
    cr_assert_eq(rig_channel(&rig, "a")->last, 1);
    rig_stop(&rig);
}

Test(core_core, what_waits_is_fanned_out_before_a_client_and_its_subscriptions_go)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "*", NULL);
    rig_subscribe(&rig, 2, "*", NULL);
    rig_batch(&rig, 0, 0, "a/x");
    rig_gone(&rig, 1);
    RIG_TOLD(&rig, 2, "subscribed; deliver a(0,1] = a1");
    cr_assert_eq(rig.core->fanned_pos, bk_ring_end(&rig.core->ring));
    rig_stop(&rig);
}

/* --- the invariants ----------------------------------------------------------------------------------------------- */

/* A core with something of everything, which is sound. */
static void start_sound(struct rig *rig)
{
    start(rig);
    rig->config.check = BK_CHECK_ALWAYS;
    rig_hello(rig, 0, NULL, 0);
    rig_say(rig, 0, "{'op':'channel','corr':1,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig_settle(rig);
    rig_subscribe(rig, 1, "m/*", "'options':{'events':0}");
    rig_subscribe(rig, 2, "*", "'options':{'view':'early'}");
    rig_publish(rig, 0, 0, "3:m/x");
    rig_publish(rig, 0, 0, "a/x");
    bk_core_check(rig->core);
}

Test(core_core, a_sound_core_passes)
{
    struct rig rig;
    start_sound(&rig);
    rig_settle(&rig);
    bk_core_check(rig.core);
    rig_stop(&rig);
}

#define MUST_ABORT(name, change)                      \
    Test(core_core, name##_aborts, .signal = SIGABRT) \
    {                                                 \
        struct rig rig;                               \
        start_sound(&rig);                            \
        change;                                       \
        bk_core_check(rig.core);                      \
    }

MUST_ABORT(a_wrong_number_of_subscriptions, rig.core->n_subs++)
MUST_ABORT(a_wrong_number_of_clients, rig.core->n_clients--)
MUST_ABORT(a_wrong_number_of_lagging_subscriptions, rig.core->n_lagging--)
MUST_ABORT(a_wrong_number_of_early_subscriptions, rig.core->n_early++)
MUST_ABORT(a_wrong_number_of_patterns, rig.core->n_patterns++)
MUST_ABORT(a_miscount_of_what_waits,
           (rig_sub(&rig, 1)->positions[0].account.waiting--,
            rig_sub(&rig, 1)->positions[0].account.arrived--))
MUST_ABORT(an_account_that_does_not_add_up, rig_sub(&rig, 1)->positions[0].account.delivered++)
MUST_ABORT(a_wrong_sum_of_bytes_that_wait, rig_sub(&rig, 1)->lag_bytes++)
MUST_ABORT(a_position_beyond_its_channel, rig_sub(&rig, 2)->positions[0].account.covered = 99)
MUST_ABORT(a_live_subscription_with_an_end, rig_sub(&rig, 2)->until = BK_UNTIL_STOP)
MUST_ABORT(a_channel_that_shows_what_was_not_given_out, rig_channel(&rig, "m")->shown = 99)
MUST_ABORT(a_life_that_nobody_gave, rig_channel(&rig, "m")->lives.now = 9999)
MUST_ABORT(a_wrong_sum_of_the_ring, rig.core->ring.bytes++)
MUST_ABORT(a_wrong_sum_of_the_stage, rig.core->stage.bytes++)
MUST_ABORT(a_gap_that_was_collected_and_not_sent, bb_buf_append_byte(&rig.core->gaps, 0))

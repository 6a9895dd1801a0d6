/* SPDX-License-Identifier: Apache-2.0 */
/* Reading the log for subscriptions: pieces, the way back to the ring, losses, and channels that go meanwhile. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/cold.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

/* A log that has the batches, before a ring that has nothing. */
static void start(struct rig *rig, const char *const *batches, size_t n)
{
    rig_init(rig);
    rig_start(rig, true, true);
    rig_hello_all(rig);
    for (size_t i = 0; i < n; i++) {
        rig_publish(rig, 0, 0, batches[i]);
        rig_settle(rig);
    }
    rig->ttl_ms = 0;
    rig_restart(rig, true);
    rig_hello_all(rig);
}

#define START(rig, ...) \
    start(rig, (const char *const[]){__VA_ARGS__}, BB_COUNT(((const char *const[]){__VA_ARGS__})))

static void remove_channel(struct rig *rig, const char *name)
{
    rig_say(rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'%s'}", name);
    rig_commit(rig);
}

Test(core_deliver_cold, what_the_log_has_comes_in_the_order_of_its_sessions_and_joins_the_flow)
{
    struct rig rig;
    START(&rig, "a/x", "b/x a/x", "b/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0");
    cr_assert(rig_asked(&rig));
    rig_publish(&rig, 0, 0, "a/x b/x"); /* while it reads */
    rig_commit(&rig);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(0,2] b(0,2] = a1 b1 a2 b2; deliver a(2,3] b(2,3] = a3 b3");
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    cr_assert_eq(RIG_COUNT(&rig, cold_begins), RIG_COUNT(&rig, cold_ends));
    rig_publish(&rig, 0, 0, "a/x");
    rig_commit(&rig);
    RIG_TOLD(&rig, 1, "deliver a(3,4] = a4");
    rig_stop(&rig);
}

Test(core_deliver_cold, the_log_chooses_the_paths)
{
    struct rig rig;
    START(&rig, "a/x a/y a/x", "a/y");
    rig_subscribe(&rig, 1, "a/x", "'from':1");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,4] = a1 a3");
    rig_stop(&rig);
}

Test(core_deliver_cold, without_credit_nothing_is_read)
{
    struct rig rig;
    START(&rig, "a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'events':0}");
    rig_settle(&rig);
    cr_assert_eq(RIG_COUNT(&rig, log_reads), 0);
    rig_credit(&rig, 1, 100000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    rig_stop(&rig);
}

Test(core_deliver_cold, a_channel_in_memory_goes_on_beside_the_log)
{
    struct rig rig;
    START(&rig, "a/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig_commit(&rig);
    rig_subscribe(&rig, 1, "*", "'from':1");
    rig_publish(&rig, 0, 0, "m/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 m@0; deliver a(0,1] = a1; deliver m(0,1] = m1");
    rig_stop(&rig);
}

/* --- losses ---------------------------------------------------------------------------------------------- */

Test(core_deliver_cold, what_max_per_path_took_out_of_the_middle_is_a_gap)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'add','name':'a','settings':{'max_per_path':1}}");
    rig_settle(&rig);
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 0, 0, i == 1 ? "a/y" : "a/x");
        rig_settle(&rig);
    }
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':1");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver gap a[1,3]x- trimmed, a(3,4] = a2 a4");
    rig_stop(&rig);
}

/* The log does not have a2 any more and has gone on to b1 when the ring takes over, which still has a2. */
Test(core_deliver_cold, what_the_log_has_passed_does_not_come_out_of_the_ring_after_it)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'add','name':'a','settings':{'max_per_path':1}}");
    rig_publish(&rig, 0, 0, "a/y");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig.payload = (size_t)150 << 10; /* two do not fit into a piece */
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "b/x");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", "'from':1");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1,
             "subscribed a@0 b@0; deliver a(0,1] b(0,1] = a1 b1; deliver gap a[2,2]x1 trimmed, a(2,3] = a3");
    rig_stop(&rig);
}

Test(core_deliver_cold, what_expired_in_the_log_is_a_gap)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig.ttl_ms = 10;
    rig_publish(&rig, 0, 0, "2:a/x");
    rig.ttl_ms = 0;
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true); /* a second later */
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':1");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver gap a[1,3]x2 expired, a(3,4] = a1 a4");
    rig_stop(&rig);
}

Test(core_deliver_cold, what_is_trimmed_while_it_lags_is_a_gap_that_ends_where_it_wanted_to_end)
{
    struct rig rig;
    START(&rig, "a/x", "a/x", "a/x", "a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':1,'options':{'events':0,'until':2}");
    rig_subscribe(&rig, 2, "a/*", "'from':1,'options':{'events':0}");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'a','settings':{'before':4}}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 3, "result 3");
    rig_credit(&rig, 1, 100000, 100);
    rig_credit(&rig, 2, 100000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver gap a[1,2]x- trimmed, a(2,2] =; ended done");
    RIG_TOLD(&rig, 2, "subscribed a@0; deliver gap a[1,3]x- trimmed, a(3,4] = a4");
    rig_stop(&rig);
}

/* --- what goes meanwhile -------------------------------------------------------------------------------------- */

Test(core_deliver_cold, nothing_of_a_channel_that_is_removed_while_it_is_read_comes_after_the_gap)
{
    struct rig rig;
    START(&rig, "a/x b/x", "a/x b/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    cr_assert(rig_asked(&rig));
    remove_channel(&rig, "a");
    rig_answer(&rig); /* what was asked for before finds it still there */
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0; gap a[1,-]x- restart; deliver b(0,2] = b1-2");
    cr_assert_eq(rig_sub(&rig, 1)->sent_events, 2, "nothing of it is charged");
    rig_stop(&rig);
}

Test(core_deliver_cold, nothing_of_the_only_channel_comes_after_it_was_removed)
{
    struct rig rig;
    START(&rig, "3:a/x");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'events':2}");
    cr_assert(rig_asked(&rig));
    remove_channel(&rig, "a");
    rig_answer(&rig);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[1,-]x- restart");
    cr_assert_eq(rig_sub(&rig, 1)->sent_bytes, 0, "its bytes are not taken off the credit");
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver a(0,2] = a1-2");
    rig_stop(&rig);
}

Test(core_deliver_cold, nothing_of_a_channel_that_is_removed_comes_out_of_a_piece_that_waits_to_be_sent)
{
    struct rig rig;
    START(&rig, "a/x b/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    rig.peers[1].answer = BB_EAGAIN;
    rig_answer(&rig); /* it is there, and does not go */
    cr_assert_not_null(rig_sub(&rig, 1)->read);
    cr_assert_not(rig_sub(&rig, 1)->is_reading);
    rig.peers[1].answer = 0;
    remove_channel(&rig, "a");
    rig_pass(&rig, BK_STUCK_RETRY_US);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 b@0; gap a[1,-]x- restart; deliver b(0,1] = b1");
    rig_stop(&rig);
}

Test(core_deliver_cold, a_channel_in_memory_that_is_removed_does_not_stop_the_reading)
{
    struct rig rig;
    START(&rig, "a/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig_commit(&rig);
    rig_publish(&rig, 0, 0, "m/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    remove_channel(&rig, "m");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 m@0; deliver m(0,1] = m1; gap m[2,-]x- restart; deliver a(0,1] = a1");
    rig_stop(&rig);
}

Test(core_deliver_cold, a_client_that_goes_while_it_is_read_for_leaves_nothing_behind)
{
    struct rig rig;
    START(&rig, "a/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    rig_gone(&rig, 1);
    rig_settle(&rig);
    cr_assert_eq(RIG_COUNT(&rig, events_out), 0);
    rig_stop(&rig);
}

Test(core_deliver_cold, what_is_damaged_ends_the_subscription_that_comes_to_it)
{
    struct rig rig;
    START(&rig, "a/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    rig.log->answer_error = BB_ECORRUPT;
    rig_answer(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; ended corrupt");
    cr_assert_eq(rig.core->n_subs, 0);
    cr_assert_not(rig.peers[1].is_closed);
    rig_stop(&rig);
}

Test(core_deliver_cold, a_log_that_cannot_answer_sends_the_client_away)
{
    struct rig rig;
    START(&rig, "a/x");
    rig_subscribe(&rig, 1, "*", "'from':1");
    rig.log->answer_error = BB_ENOMEM;
    rig_answer(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; goodbye no_memory");
    rig_stop(&rig);
}

/* A second after the log was opened its events are two seconds old. */
Test(core_deliver_cold, what_expires_while_a_piece_waits_to_be_sent_is_a_gap)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig.ttl_ms = 3000;
    rig_publish(&rig, 0, 0, "a/x");
    rig.ttl_ms = 0;
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':1");
    rig.peers[1].answer = BB_EAGAIN;
    rig_answer(&rig);
    cr_assert_not_null(rig_sub(&rig, 1)->read);
    rig.peers[1].answer = 0;
    rig_pass(&rig, 2500000);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver gap a[1,1]x1 expired, a(1,2] = a2");
    cr_assert_eq(RIG_COUNT(&rig, log_reads), 2);
    rig_stop(&rig);
}

/* It was shown early; what is read from behind it would bring the place on over what comes there instead. */
Test(core_deliver_cold, a_piece_asked_for_behind_what_is_retracted_is_not_taken)
{
    struct rig rig;
    START(&rig, "b/x");
    rig_subscribe(&rig, 1, "a/*", "'options':{'view':'early'}");
    rig_publish(&rig, 0, 0, "2:a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,2] = a1-2");
    rig_subscribe(&rig, 2, "*", "'from':{'run':200,'after':{'a':2}}");
    cr_assert(rig_asked(&rig));
    rig_fail(&rig, BB_ELOGFAILED);
    rig_answer(&rig);
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "subscribed b@0 a@2; gap a[1,2]x- retracted; deliver b(0,1] = b1");
    rig_publish(&rig, 0, 0, "2:a/y");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "deliver a(0,2] = a1-2");
    rig_stop(&rig);
}

/* --- channels without events that are kept elsewhere from now on ---------------------------------------- */

static void move_channel(struct rig *rig, const char *action, const char *name, const char *store)
{
    rig_put(rig, 3, "{'op':'channel','corr':3,'action':'%s','name':'%s','settings':{'store':'%s'}}", action,
            name, store);
    bk_core_flush(rig->core);
}

Test(core_deliver_cold, a_channel_that_is_moved_to_memory_is_not_read_from_the_log_any_more)
{
    struct rig rig;
    START(&rig, "a/x");
    move_channel(&rig, "add", "e", "log");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'events':1}");
    cr_assert_eq(rig_sub(&rig, 1)->n_cold, 2);
    cr_assert(rig_asked(&rig));
    move_channel(&rig, "set", "e", "memory");
    cr_assert_eq(rig_sub(&rig, 1)->n_cold, 1);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 e@0; deliver a(0,1] = a1");
    rig_publish(&rig, 0, 0, "2:e/x");
    rig_credit(&rig, 1, 100000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "deliver e(0,2] = e1-2");
    rig_stop(&rig);
}

Test(core_deliver_cold, a_channel_that_is_moved_to_the_log_is_read_there_with_the_others)
{
    struct rig rig;
    START(&rig, "a/x");
    move_channel(&rig, "add", "e", "memory");
    rig_subscribe(&rig, 1, "*", "'from':1,'options':{'events':0}");
    cr_assert_eq(rig_sub(&rig, 1)->n_cold, 1);
    move_channel(&rig, "set", "e", "log");
    cr_assert_eq(rig_sub(&rig, 1)->n_cold, 2);
    rig_settle(&rig);
    rig_publish(&rig, 0, 0, "e/x a/x");
    rig_settle(&rig);
    rig_credit(&rig, 1, 100000, 100);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0 e@0; deliver a(0,2] e(0,1] = a1 e1 a2");
    rig_stop(&rig);
}

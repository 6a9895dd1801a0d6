/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that are kept while their client has to wait, and clients that are paused. */
#include "broker/core/clients/client.h"
#include "broker/core/ingest/defer.h"
#include "broker/core/ingest/pause.h"
#include "broker/core/keep/channel.h"
#include "tests/unit/core_rig.h"

#include <stdlib.h>

static void start(struct rig *rig, bool has_log)
{
    rig_init(rig);
    rig_start(rig, false, has_log);
    rig_hello_all(rig);
}

static void take(struct bk_client *client, const char *wanted)
{
    struct bk_deferred *deferred = bk_deferred_take(client);
    cr_assert_not_null(deferred);
    cr_assert(bb_slice_equal(deferred->bytes, bb_slice_str(wanted)));
    bk_deferred_free(deferred);
}

Test(core_ingest_defer, messages_are_taken_in_the_order_in_which_they_came)
{
    struct rig rig;
    start(&rig, false);
    struct bk_client *client = rig.peers[0].client;
    struct bk_bytes *shared = bk_bytes_new(bk_core_meter(rig.core), 3);
    memcpy(shared->data, "two", 3);
    client->input = BK_INPUT_DEFERRED;
    bk_defer(rig.core, client, bb_slice_str("one"), NULL);
    bk_defer(rig.core, client, bb_slice(shared->data, 3), shared);
    bk_defer(rig.core, client, bb_slice_str("three"), NULL);
    bk_bytes_unref(shared); /* kept by reference */
    cr_assert_eq(client->deferred_bytes, 11 + 3 * sizeof(struct bk_deferred));
    take(client, "one");
    struct bk_deferred *deferred = bk_deferred_take(client);
    cr_assert_eq(deferred->owner, shared);
    bk_deferred_return(client, deferred);
    take(client, "two");
    take(client, "three");
    cr_assert(client->deferred_bytes == 0 && client->deferred_last == NULL);
    cr_assert_null(bk_deferred_take(client));
    client->input = BK_INPUT_TAKEN;
    rig_stop(&rig);
}

Test(core_ingest_defer, who_sends_too_much_meanwhile_is_sent_away)
{
    struct rig rig;
    start(&rig, false);
    struct bk_client *client = rig.peers[0].client;
    uint8_t *large = calloc(1, (size_t)16 << 20);
    client->input = BK_INPUT_DEFERRED;
    bk_defer(rig.core, client, bb_slice(large, (size_t)16 << 20), NULL);
    bk_defer(rig.core, client, bb_slice(large, ((size_t)16 << 20) - 2 * sizeof(struct bk_deferred)), NULL);
    RIG_TOLD(&rig, 0, "");
    bk_defer(rig.core, client, bb_slice(large, 1), NULL);
    RIG_TOLD(&rig, 0, "goodbye overflow");
    bk_core_flush(rig.core);
    cr_assert(rig.peers[0].is_closed);
    free(large);
    rig_stop(&rig);
}

Test(core_ingest_defer, small_messages_count_with_what_they_cost)
{
    enum {
        MANY = 1000000
    };
    struct rig rig;
    start(&rig, false);
    struct bk_client *client = rig.peers[0].client;
    size_t n = 0;
    client->input = BK_INPUT_DEFERRED;
    for (; n < MANY && !bk_client_is_doomed(client); n++) {
        bk_defer_bad(rig.core, client, &(struct bk_bad_message){.error = BB_EMALFORMED});
    }
    RIG_TOLD(&rig, 0, "goodbye overflow");
    cr_assert_leq(n * sizeof(struct bk_deferred), (size_t)33 << 20);
    rig_stop(&rig);
}

/* Its number is in its place between those before and behind it. */
Test(core_ingest_defer, what_a_plug_could_not_convert_is_answered_in_its_turn)
{
    struct rig rig;
    char text[] = "it is no event";
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    (void)rig_told(&rig, 0);
    rig_put(&rig, 0,
            "{'op':'publish','number':2,'options':{'expect_path':{'a/x':1}},'events':[{'path':'a/x'}]}");
    cr_assert_eq(rig.peers[0].client->input, BK_INPUT_DEFERRED);
    const struct bk_bad_message bad = {.about = BB_MSG_PUBLISH, .corr = 3, .error = BB_EINVAL, .text = text};
    bk_core_bad_message(rig.core, rig.peers[0].client, &bad);
    memset(text, 'x', sizeof(text) - 1); /* it is borrowed for the call */
    rig_publish(&rig, 0, 4, "a/x");
    RIG_TOLD(&rig, 0, "");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "error publish/3 bad_argument; ack 2@3 a2+1, 4@3 a3+1");
    cr_assert_str_eq(rig.peers[0].text, "it is no event");
    rig_stop(&rig);
}

Test(core_ingest_defer, those_that_may_go_on_do_so_in_order_and_once)
{
    struct rig rig;
    start(&rig, false);
    for (size_t i = 0; i < 3; i++) {
        rig.peers[i].client->input = BK_INPUT_DEFERRED;
        rig_say(&rig, i, "{'op':'ping','token':%zu}", i);
    }
    bk_deferred_resume(rig.core, rig.peers[1].client);
    bk_deferred_resume(rig.core, rig.peers[0].client);
    bk_deferred_resume(rig.core, rig.peers[1].client);
    cr_assert_eq(rig.core->resuming, rig.peers[1].client);
    cr_assert(bk_core_wants_flush(rig.core));
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "pong 0");
    RIG_TOLD(&rig, 1, "pong 1");
    RIG_TOLD(&rig, 2, "");
    bk_deferred_resume(rig.core, rig.peers[2].client);
    rig_gone(&rig, 2);
    cr_assert_null(rig.core->resuming);
    rig_stop(&rig);
}

/* --- pauses -------------------------------------------------------------------------------------------------- */

static void start_narrow(struct rig *rig)
{
    rig_init(rig);
    rig->config.stage_bytes = 1;
    rig_start(rig, false, true);
    rig_hello_all(rig);
    rig_publish(rig, 0, 1, "a/x");
}

Test(core_ingest_defer, those_that_are_paused_go_on_in_the_order_in_which_they_waited)
{
    struct rig rig;
    start_narrow(&rig);
    for (size_t i = 3; i > 0; i--) {
        rig_publish(&rig, i, 1, "a/x");
        cr_assert(rig.peers[i].is_paused);
    }
    cr_assert_not(rig.peers[0].is_paused);
    rig_gone(&rig, 2); /* from the middle of those that wait */
    rig_commit(&rig);
    cr_assert(!rig.peers[3].is_paused && rig.peers[1].is_paused, "the first of them fills the log again");
    rig_settle(&rig);
    RIG_TOLD(&rig, 3, "ack 1@3 a2+1");
    RIG_TOLD(&rig, 1, "ack 1@3 a3+1");
    cr_assert_not(rig.peers[1].is_paused);
    cr_assert_eq(RIG_COUNT(&rig, clients_paused), 3);
    rig_stop(&rig);
}

Test(core_ingest_defer, who_is_paused_is_not_kept_from_the_answer_that_the_log_fails)
{
    struct rig rig;
    start_narrow(&rig);
    rig_publish(&rig, 1, 1, "a/x");
    cr_assert(rig.peers[1].is_paused);
    rig.log->refusal = BB_ELOGFAILED;
    rig.log->listener->state(rig.log->listener->context, BK_BACKEND_FAILED, "gone");
    bk_core_flush(rig.core);
    cr_assert_not(rig.peers[1].is_paused);
    RIG_TOLD(&rig, 1, "ack 1@1 refused 0:log_failed");
    rig_stop(&rig);
}

Test(core_ingest_defer, only_events_for_the_log_are_a_reason_to_pause)
{
    struct rig rig;
    struct bb_buf events = BB_BUF_INIT;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig_settle(&rig);
    rig.core->stage.is_behind = true;
    rig_events(&rig, "m/x m/y", &events);
    cr_assert_not(bk_pause_is_due(rig.core, bb_buf_slice(&events)));
    rig_events(&rig, "a/x", &events);
    cr_assert(bk_pause_is_due(rig.core, bb_buf_slice(&events)));
    rig.core->shutting_down = true;
    cr_assert_not(bk_pause_is_due(rig.core, bb_buf_slice(&events)), "it is refused instead");
    rig.core->shutting_down = false;
    rig.core->stage.is_behind = false;
    cr_assert_not(bk_pause_is_due(rig.core, bb_buf_slice(&events)));
    bb_buf_fini(&events);
    rig_stop(&rig);
}

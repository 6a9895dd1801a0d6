/* SPDX-License-Identifier: Apache-2.0 */
/* Publishing: numbers, repetitions, refusals, levels. */
#include "broker/core/clients/client.h"
#include "broker/core/clients/producer.h"
#include "broker/core/ingest/publish.h"
#include "broker/core/keep/channel.h"
#include "tests/unit/core_rig.h"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, false);
    rig_hello(rig, 0, "p", 1);
    RIG_TOLD(rig, 0, "welcome 0");
}

Test(core_ingest_publish, the_first_number_of_a_connection_may_be_any_and_each_other_is_one_more)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 500, "a/x");
    rig_publish(&rig, 0, 501, "a/x");
    rig_publish(&rig, 0, 503, "a/x");
    rig_publish(&rig, 0, 502, "a/x");
    RIG_TOLD(&rig, 0, "ack 500@1 a1+1; ack 501@1 a2+1; error publish/503 bad_sequence; ack 502@1 a3+1");
    rig_gone(&rig, 0);
    rig_new_peer(&rig, 0);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 600, "a/x");
    RIG_TOLD(&rig, 0, "welcome 502; ack 600@1 a4+1");
    rig_stop(&rig);
}

Test(core_ingest_publish, a_publisher_goes_on_with_its_numbers_at_a_broker_that_does_not_know_it)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x");
    rig_restart(&rig, false); /* channels in memory alone: nothing is left */
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 3, "a/x");
    rig_publish(&rig, 0, 4, "a/x");
    RIG_TOLD(&rig, 0, "welcome 0; ack 3@1 a1+1; ack 4@1 a2+1");
    rig_publish(&rig, 0, 3, "a/x");
    RIG_TOLD(&rig, 0, "ack 3@0 repeated");
    rig_stop(&rig);
}

Test(core_ingest_publish, a_repetition_is_the_first_of_a_connection_too)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 5, "a/x");
    rig_gone(&rig, 0);
    rig_new_peer(&rig, 0);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 5, "a/x");
    rig_publish(&rig, 0, 7, "a/x");
    RIG_TOLD(&rig, 0, "welcome 5; ack 5@0 repeated; error publish/7 bad_sequence");
    rig_stop(&rig);
}

Test(core_ingest_publish, a_broker_that_ends_uses_up_no_number)
{
    struct rig rig;
    uint8_t id[BB_CLIENT_ID_LEN] = "p";
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    bk_core_shut_down(rig.core);
    rig_publish(&rig, 0, 2, "a/x");
    rig_publish(&rig, 0, 3, "a/x");
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0,
             "ack 1@1 a1+1; error publish/2 shutting_down; error publish/3 shutting_down; ack 1@0 repeated");
    cr_assert_eq(bk_producer_find(rig.core, id)->last, 1);
    rig_stop(&rig);
}

Test(core_ingest_publish, what_a_broker_that_ended_did_not_take_the_next_one_takes)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_settle(&rig);
    bk_core_shut_down(rig.core);
    rig_publish(&rig, 0, 2, "a/x");
    RIG_TOLD(&rig, 0, "welcome 0; ack 1@3 a1+1; error publish/2 shutting_down");
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 2, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "welcome 1; ack 2@3 a2+1");
    rig_stop(&rig);
}

Test(core_ingest_publish, a_number_that_is_refused_is_used_up_and_refused_again)
{
    struct rig rig;
    start(&rig);
    rig.level = 3;
    rig_publish(&rig, 0, 1, "a/x");
    rig.level = 0;
    rig_publish(&rig, 0, 2, "a/x");
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0, "error publish/1 unsupported; ack 2@1 a1+1; error publish/1 unsupported");
    rig_stop(&rig);
}

/* A plug could not make a message of it: a JSON publish with an unknown member, or a value that cannot be held. */
Test(core_ingest_publish, a_publish_that_a_plug_cannot_convert_uses_up_its_number)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    const struct bk_bad_message bad = {.about = BB_MSG_PUBLISH, .corr = 2, .error = BB_EINVAL, .text = "no"};
    bk_core_bad_message(rig.core, rig.peers[0].client, &bad);
    rig_publish(&rig, 0, 3, "a/x");
    bk_core_bad_message(rig.core, rig.peers[0].client, &bad);
    RIG_TOLD(&rig, 0,
             "ack 1@1 a1+1; error publish/2 bad_argument; ack 3@1 a2+1; error publish/2 bad_argument");
    cr_assert_eq(rig.peers[0].client->strikes, 0);
    rig_stop(&rig);
}

Test(core_ingest_publish, a_message_that_a_plug_cannot_convert_is_answered_about_what_it_was)
{
    struct rig rig;
    start(&rig);
    bk_core_bad_message(rig.core, rig.peers[0].client,
                        &(struct bk_bad_message){
                            .about = BB_MSG_QUERY, .corr = 7, .error = BB_EMALFORMED, .is_strike = true});
    bk_core_bad_message(rig.core, rig.peers[1].client,
                        &(struct bk_bad_message){.about = BB_MSG_PUBLISH, .corr = 7, .error = BB_EINVAL});
    RIG_TOLD(&rig, 0, "error query/7 malformed");
    RIG_TOLD(&rig, 1, "error publish/7 bad_argument");
    cr_assert_eq(rig.peers[0].client->strikes, 1);
    rig_stop(&rig);
}

Test(core_ingest_publish, a_batch_that_cannot_be_followed_is_refused_whole_with_the_place)
{
    static const uint8_t broken[] = {0x93, 0x02, 0x01, 0x01, 0x92, 0xa1, 'a', 0xc0, 0xc1};
    struct rig rig;
    start(&rig);
    bk_core_message(rig.core, rig.peers[0].client, bb_slice(broken, sizeof(broken)), NULL);
    RIG_TOLD(&rig, 0, "error publish/1 malformed");
    cr_assert(bb_slice_equal(bb_buf_slice(&rig.peers[0].result), bb_slice("\x81\xa5index\x01", 8)));
    cr_assert_eq(rig.peers[0].client->strikes, 1);
    cr_assert_eq(RIG_COUNT(&rig, events_in), 0, "not even the good one");
    rig_publish(&rig, 0, 2, "a");
    RIG_TOLD(&rig, 0, "ack 2@1 a1+1");
    rig_stop(&rig);
}

Test(core_ingest_publish, what_is_refused_of_fire_and_forget_is_an_error)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x a/?");
    RIG_TOLD(&rig, 0, "error publish/0 bad_event");
    cr_assert_eq(rig_channel(&rig, "a")->last, 1);
    rig_stop(&rig);
}

Test(core_ingest_publish, numbers_before_hello_are_refused_and_bare_events_are_taken)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 1, 1, "a/x");
    rig_publish(&rig, 1, 0, "a/x");
    RIG_TOLD(&rig, 1, "error publish/1 hello_first");
    struct bb_buf events = BB_BUF_INIT;
    rig_events(&rig, "a/x a/y", &events);
    bk_core_message(rig.core, rig.peers[1].client, bb_buf_slice(&events), NULL);
    cr_assert_eq(rig_channel(&rig, "a")->last, 3);
    cr_assert_eq(bk_core_ingest(rig.core, bb_buf_slice(&events), NULL), 0);
    cr_assert_eq(rig_channel(&rig, "a")->last, 5);
    cr_assert_eq(RIG_COUNT(&rig, ingest_events), 2);
    bk_core_shut_down(rig.core);
    cr_assert_eq(bk_core_ingest(rig.core, bb_buf_slice(&events), NULL), BB_ESHUTDOWN);
    bb_buf_fini(&events);
    rig_stop(&rig);
}

Test(core_ingest_publish, levels_that_the_broker_does_not_have_are_refused)
{
    struct rig rig;
    start(&rig);
    for (uint64_t level = 3; level <= 6; level++) {
        rig.level = level;
        rig_publish(&rig, 0, level - 2, "a/x");
    }
    RIG_TOLD(&rig, 0,
             "error publish/1 unsupported; error publish/2 unsupported; error publish/3 unsupported; "
             "error publish/4 unsupported");
    rig_stop(&rig);
}

Test(core_ingest_publish, a_broker_whose_memory_is_used_up_says_so_and_gives_rings_up_before)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.memory_bytes = 100000;
    rig.config.inflight_all = 0;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    struct bk_meter *meter = bk_core_meter(rig.core);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x");
    struct bk_bytes *held = bk_bytes_new(meter, 300000); /* as by a transport that lets nothing go */
    rig_publish(&rig, 0, 3, "a/x");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1; ack 2@1 a2+1; error publish/3 no_memory");
    cr_assert_eq(rig_channel(&rig, "a")->first, 3);
    bk_bytes_unref(held);
    rig_publish(&rig, 0, 4, "a/x");
    RIG_TOLD(&rig, 0, "ack 4@1 a3+1");
    rig_stop(&rig);
}

Test(core_ingest_publish, a_number_that_not_every_language_can_say_is_refused_and_takes_none)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, (UINT64_C(1) << 53) + 1, "a/x");
    rig_publish(&rig, 0, UINT64_MAX, "a/x");
    rig_publish(&rig, 0, 1, "a/x");
    RIG_TOLD(&rig, 0,
             "error publish/9007199254740993 bad_argument; error publish/18446744073709551615 bad_argument; "
             "ack 1@1 a1+1");
    rig_stop(&rig);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Publishing under a condition: channels, paths, and what the backend has to be asked for. */
#include "broker/core/clients/client.h"
#include "broker/core/ingest/expect.h"
#include "broker/core/keep/channel.h"
#include "tests/unit/core_rig.h"

#include <inttypes.h>
#include <stdio.h>

static void start(struct rig *rig, bool has_log)
{
    rig_init(rig);
    rig_start(rig, true, has_log);
    rig_hello(rig, 0, "p", 1);
    (void)rig_told(rig, 0);
}

static void publish(struct rig *rig, uint64_t number, const char *options)
{
    rig_say(rig, 0,
            "{'op':'publish','number':%" PRIu64 ",'level':1,'options':{%s},'events':[{'path':'a/x'}]}",
            number, options);
}

Test(core_ingest_expect, a_channel_has_the_newest_sequence_that_is_expected)
{
    struct rig rig;
    start(&rig, false);
    publish(&rig, 1, "'expect':{'a':0,'b':0}");
    publish(&rig, 2, "'expect':{'a':1}");
    publish(&rig, 3, "'expect':{'a':1}");
    publish(&rig, 4, "'expect':{'a':2,'b':1}");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1; ack 2@1 a2+1; error publish/3 conflict; error publish/4 conflict");
    cr_assert(bb_slice_equal(bb_buf_slice(&rig.peers[0].result), bb_slice("\x82\xa7"
                                                                          "channel\xa1"
                                                                          "b\xa4last\x00",
                                                                          17)));
    rig_stop(&rig);
}

Test(core_ingest_expect, what_is_on_its_way_to_the_disk_is_there_already)
{
    struct rig rig;
    start(&rig, true);
    publish(&rig, 1, "'expect':{'a':0}");
    publish(&rig, 2, "'expect':{'a':1}");
    publish(&rig, 3, "'expect':{'a':0}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1; ack 2@1 a2+1; error publish/3 conflict");
    rig_stop(&rig);
}

Test(core_ingest_expect, a_conflict_uses_up_the_number_and_a_repetition_is_not_judged_again)
{
    struct rig rig;
    start(&rig, false);
    publish(&rig, 1, "'expect':{'a':0}");
    publish(&rig, 2, "'expect':{'a':0}");
    publish(&rig, 1, "'expect':{'a':0}");
    publish(&rig, 2, "'expect':{'a':1}");
    publish(&rig, 3, "'expect':{'a':1}");
    RIG_TOLD(&rig, 0,
             "ack 1@1 a1+1; error publish/2 conflict; ack 1@1 repeated; error publish/2 conflict; "
             "ack 3@1 a2+1");
    rig_stop(&rig);
}

Test(core_ingest_expect, a_path_is_looked_for_in_the_ring_and_in_what_waits_for_the_disk)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x a/y a/x a/y");
    publish(&rig, 1, "'expect_path':{'a/x':3,'a/y':4,'a/z':0}");
    rig_settle(&rig);
    publish(&rig, 2, "'expect_path':{'a/x':3}");
    publish(&rig, 3, "'expect_path':{'a/x':5}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@1 a5+1; error publish/2 conflict; ack 3@1 a6+1");
    rig_stop(&rig);
}

Test(core_ingest_expect, the_log_is_asked_for_what_the_ring_has_not_and_the_order_stays)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 1, "a/x a/y");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    publish(&rig, 2, "'expect_path':{'a/x':1,'a/y':2}");
    rig_publish(&rig, 0, 3, "a/x");
    rig_say(&rig, 0, "{'op':'ping','token':7}");
    RIG_TOLD(&rig, 0, "welcome 1");
    cr_assert_eq(rig.peers[0].client->input, BK_INPUT_DEFERRED);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "pong 7; ack 2@1 a3+1; ack 3@3 a4+1");
    cr_assert_eq(rig.peers[0].client->known.len, 0, "it is asked again for the next one");
    rig_stop(&rig);
}

/* The newest of a path stays as such when it is trimmed. */
Test(core_ingest_expect, what_was_trimmed_is_still_the_newest_of_its_path)
{
    struct rig rig;
    start(&rig, true);
    rig_hello(&rig, 3, NULL, 0);
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/y");
    rig_settle(&rig);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'a','settings':{'before':2}}");
    rig_settle(&rig);
    cr_assert_eq(rig_channel(&rig, "a")->log_first, rig_channel(&rig, "a")->first);
    publish(&rig, 3, "'expect_path':{'a/x':0}");
    rig_settle(&rig);
    publish(&rig, 4, "'expect_path':{'a/x':1,'a/y':2}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a1+1; ack 2@3 a2+1; error publish/3 conflict; ack 4@1 a3+1");
    rig_stop(&rig);
}

Test(core_ingest_expect, what_came_while_the_log_was_asked_counts)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 1, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    rig_hello(&rig, 1, NULL, 0);
    publish(&rig, 2, "'expect_path':{'a/x':1}");
    rig_publish(&rig, 1, 1, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "welcome 1; error publish/2 conflict");
    rig_stop(&rig);
}

/* What came after it had looked was in the ring, and is not any more when it answers. */
Test(core_ingest_expect, the_log_is_asked_again_for_what_the_ring_lost_meanwhile)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.ring_bytes = (size_t)64 << 10;
    rig_start(&rig, true, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 1, 0, "a/y");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    publish(&rig, 1, "'expect_path':{'a/z':2}");
    struct bk_locate *asked = (struct bk_locate *)(void *)rig.log->requests;
    rig.log->requests = NULL;
    rig_publish(&rig, 1, 0, "a/z");
    rig_commit(&rig);
    rig.payload = 30000;
    for (int i = 0; i < 3; i++) {
        rig_publish(&rig, 1, 0, "a/y");
        rig_commit(&rig);
    }
    cr_assert_gt(rig_channel(&rig, "a")->first, 3);
    asked->places[0].sequence = 0;
    asked->places[0].last = 1;
    asked->request.done(asked->request.context, &asked->request);
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "");
    cr_assert(rig_asked(&rig));
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@1 a6+1");
    rig_stop(&rig);
}

Test(core_ingest_expect, a_client_that_goes_while_the_log_is_asked_leaves_nothing_behind)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 1, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello(&rig, 0, "p", 1);
    publish(&rig, 2, "'expect_path':{'a/x':1}");
    rig_publish(&rig, 0, 3, "a/x");
    rig_gone(&rig, 0);
    rig_settle(&rig);
    cr_assert_eq(rig_channel(&rig, "a")->taken, 1);
    cr_assert_eq(rig.core->n_asks, 0);
    rig_stop(&rig);
}

Test(core_ingest_expect, what_is_no_condition_is_refused)
{
    static const char *const bad[] = {"'expect':[1]",
                                      "'expect':{'a':'b'}",
                                      "'expect':{'a':-1}",
                                      "'expect_path':{'a/?':1}",
                                      "'expect_path':{'a':null}",
                                      "'expect_path':7"};
    struct rig rig;
    start(&rig, false);
    for (uint64_t i = 0; i < BB_COUNT(bad); i++) {
        char wanted[64];
        publish(&rig, i + 1, bad[i]);
        (void)snprintf(wanted, sizeof(wanted), "error publish/%" PRIu64 " bad_argument", i + 1);
        cr_assert_str_eq(rig_told(&rig, 0), wanted, "%s", bad[i]);
    }
    rig_stop(&rig);
}

Test(core_ingest_expect, other_options_and_none_are_no_condition)
{
    struct rig rig;
    start(&rig, false);
    publish(&rig, 1, "'weather':{'a':[1,2]},'expect':{'a':0}");
    rig_say(&rig, 0, "{'op':'publish','number':2,'level':1,'options':null,'events':[{'path':'a/x'}]}");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1; ack 2@1 a2+1");
    rig_stop(&rig);
}

Test(core_ingest_expect, there_is_a_bound_for_the_paths_of_one_batch)
{
    enum {
        MOST = 256
    };
    struct rig rig;
    char options[6000] = "'expect_path':{";
    start(&rig, false);
    for (int i = 0; i <= MOST; i++) {
        size_t len = strlen(options);
        (void)snprintf(options + len, sizeof(options) - len, "%s'a/%d':0", i > 0 ? "," : "", i);
    }
    (void)strncat(options, "}", sizeof(options) - strlen(options) - 1);
    publish(&rig, 1, options);
    RIG_TOLD(&rig, 0, "error publish/1 limit");
    rig_stop(&rig);
}

Test(core_ingest_expect, other_channels_that_wait_for_the_disk_do_not_matter)
{
    struct rig rig;
    start(&rig, true);
    rig_batch(&rig, 0, 0, "a/x");
    rig_batch(&rig, 0, 0, "b/x a/y");
    rig_batch(&rig, 0, 0, "b/x");
    publish(&rig, 1, "'expect_path':{'a/x':1}");
    RIG_TOLD(&rig, 0, "ack 1@1 a3+1");
    rig_stop(&rig);
}

Test(core_ingest_expect, a_conflict_is_explained)
{
    struct bb_buf out = BB_BUF_INIT;
    bk_expect_explain(&out, bb_slice("\x82\xa4path\xa3"
                                     "a/x\xa4last\x07",
                                     16));
    cr_assert_str_eq(bb_buf_string(&out), "the newest of the path 'a/x' is 7");
    bb_buf_fini(&out);
}

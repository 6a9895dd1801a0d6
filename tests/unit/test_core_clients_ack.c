/* SPDX-License-Identifier: Apache-2.0 */
/* Acknowledgements: one message for all since the last flush, and what stands in it. */
#include "broker/core/clients/ack.h"
#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "tests/unit/core_rig.h"

Test(core_clients_ack, one_message_acknowledges_all_batches_in_their_order)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_batch(&rig, 0, 1, "a/x a/y");
    rig_batch(&rig, 1, 1, "a/x");
    rig_batch(&rig, 0, 2, "a/x b/x a/x");
    RIG_TOLD(&rig, 0, "");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "ack 1@1 a1+2, 2@1 a4+1 b1+1 a5+1");
    RIG_TOLD(&rig, 1, "ack 1@1 a3+1");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "");
    rig_stop(&rig);
}

Test(core_clients_ack, refused_events_are_named_by_their_index)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 1, "a/? a/x $b a/x");
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1 a2+1 refused 0:bad_path 2:refused");
    rig_publish(&rig, 0, 2, "a/?");
    RIG_TOLD(&rig, 0, "ack 2@1 refused 0:bad_path");
    rig_stop(&rig);
}

Test(core_clients_ack, matches_are_the_fewest_that_an_event_met)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_subscribe(&rig, 2, "a/x", NULL);
    rig.level = 2;
    rig_publish(&rig, 0, 1, "a/x");
    rig_publish(&rig, 0, 2, "a/x a/y");
    rig_publish(&rig, 0, 3, "a/x a/y b/x");
    RIG_TOLD(&rig, 0, "ack 1@2 a1+1 m2; ack 2@2 a2+2 m1; ack 3@2 a4+2 b1+1 m0");
    rig_stop(&rig);
}

/* So many that it does not fit on the stack; and behind one that waits for the disk. */
Test(core_clients_ack, a_batch_of_many_runs_is_acknowledged_in_its_turn)
{
    static const char many[] = "m/x n/x m/x n/x m/x n/x m/x n/x m/x n/x m/x n/x m/x n/x m/x n/x m/x n/x";
    static const char runs[] = " m1+1 n1+1 m2+1 n2+1 m3+1 n3+1 m4+1 n4+1 m5+1 n5+1 m6+1 n6+1 m7+1 n7+1 m8+1 "
                               "n8+1 m9+1 n9+1";
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    for (const char *name = "m\0n\0"; *name != 0; name += 2) {
        rig_say(&rig, 3, "{'op':'channel','corr':1,'action':'add','name':'%s','settings':{'store':'memory'}}",
                name);
    }
    rig_settle(&rig);
    rig_publish(&rig, 0, 1, many);
    const char *told = rig_told(&rig, 0);
    cr_assert_eq(strncmp(told, "ack 1@1", 7), 0, "%s", told);
    cr_assert_str_eq(told + 7, runs);
    rig_publish(&rig, 0, 2, "a/x");
    rig_publish(&rig, 0, 3, "m/x");
    RIG_TOLD(&rig, 0, "");
    rig_commit(&rig);
    RIG_TOLD(&rig, 0, "ack 2@3 a1+1, 3@1 m10+1");
    rig_stop(&rig);
}

Test(core_clients_ack, a_client_that_goes_is_acknowledged_nothing)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    for (size_t i = 0; i < 3; i++) {
        rig_batch(&rig, i, 1, "a/x");
    }
    rig_gone(&rig, 1); /* from the middle of the list */
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1");
    RIG_TOLD(&rig, 1, "");
    RIG_TOLD(&rig, 2, "ack 1@1 a3+1");
    rig_stop(&rig);
}

Test(core_clients_ack, it_names_a_channel_that_was_removed_before_it_went)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_batch(&rig, 0, 1, "a/x");
    rig_put(&rig, 1, "{'op':'channel','corr':2,'action':'rm','name':'a'}");
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 0, "ack 1@1 a1+1");
    rig_stop(&rig);
}

Test(core_clients_ack, a_waiting_batch_holds_its_channels)
{
    struct bk_channel channel = {.refs = 1};
    struct bk_waiting *waiting = bk_waiting_new(1);
    cr_assert_not_null(waiting);
    cr_assert_eq(waiting->matches, UINT64_MAX);
    waiting->runs[0].channel = bk_channel_ref(&channel);
    bk_waiting_refuse(waiting, 3, BB_EPATH);
    bk_waiting_refuse(waiting, 4, BB_ELIMIT);
    cr_assert_eq(waiting->n_refused, 2);
    cr_assert(bb_slice_equal(bb_buf_slice(&waiting->refused), bb_slice("\x92\x03\xa8"
                                                                       "bad_path\x92\x04\xa5limit",
                                                                       19)));
    cr_assert_eq(channel.refs, 2);
    bk_waiting_free(waiting);
    cr_assert_eq(channel.refs, 1);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Hello: take-over, epochs, what is refused, and signs of life. */
#include "broker/core/clients/client.h"
#include "broker/core/requests/requests.h"
#include "tests/unit/core_rig.h"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, false);
}

Test(core_requests_hello, a_newer_epoch_takes_over_and_fences_the_older)
{
    struct rig rig;
    start(&rig);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_subscribe(&rig, 0, "a/*", NULL);
    rig_hello(&rig, 1, "p", 2);
    RIG_TOLD(&rig, 0, "welcome 0; ack 1@1 a1+1; subscribed a@1; goodbye exists");
    RIG_TOLD(&rig, 1, "welcome 0");
    cr_assert(rig.peers[0].is_closed);
    cr_assert_eq(rig.core->n_subs, 0);
    rig_hello(&rig, 2, "p", 1);
    RIG_TOLD(&rig, 2, "error hello/1 exists");
    rig_hello(&rig, 2, NULL, 0);
    RIG_TOLD(&rig, 2, "welcome 0");
    rig_publish(&rig, 1, 1, "a/x");
    RIG_TOLD(&rig, 1, "ack 1@1 a2+1");
    cr_assert_eq(RIG_COUNT(&rig, clients_taken_over), 1);
    rig_stop(&rig);
}

Test(core_requests_hello, the_same_epoch_takes_over_and_goes_on_counting)
{
    struct rig rig;
    start(&rig);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x");
    rig_hello(&rig, 1, "p", 1);
    RIG_TOLD(&rig, 1, "welcome 1");
    rig_stop(&rig);
}

Test(core_requests_hello, an_older_epoch_is_refused_also_when_nobody_has_published)
{
    struct rig rig;
    start(&rig);
    rig_hello(&rig, 0, "p", 5);
    rig_hello(&rig, 1, "p", 4);
    RIG_TOLD(&rig, 0, "welcome 0");
    RIG_TOLD(&rig, 1, "error hello/1 exists");
    cr_assert(!rig.peers[0].is_closed && !rig.peers[1].is_closed);
    rig_stop(&rig);
}

Test(core_requests_hello, an_older_epoch_is_refused_also_when_the_newer_one_is_not_connected)
{
    struct rig rig;
    start(&rig);
    rig_hello(&rig, 0, "p", 5);
    rig_publish(&rig, 0, 1, "a/x");
    rig_gone(&rig, 0);
    rig_hello(&rig, 1, "p", 4);
    rig_hello(&rig, 2, "p", 5);
    RIG_TOLD(&rig, 1, "error hello/1 exists");
    RIG_TOLD(&rig, 2, "welcome 1");
    rig_stop(&rig);
}

Test(core_requests_hello, what_the_older_connection_still_sends_is_not_taken)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello(&rig, 0, "p", 1);
    rig_publish(&rig, 0, 1, "a/x"); /* waits for the disk */
    rig_hello(&rig, 1, "p", 2);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "welcome 0; goodbye exists");
    cr_assert_null(rig.peers[0].client);
    rig_publish(&rig, 1, 1, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "welcome 0; ack 1@3 a2+1");
    rig_stop(&rig);
}

Test(core_requests_hello, versions_ids_and_options_are_checked)
{
    struct rig rig;
    start(&rig);
    rig_say(&rig, 0, "{'op':'hello','corr':1,'version':0,'client':null,'epoch':0}");
    rig_say(&rig, 0, "{'op':'hello','corr':2,'version':1,'client':{'$binary':'AAAA'},'epoch':0}");
    rig_say(&rig, 0, "{'op':'hello','corr':3,'version':1,'client':null,'epoch':0,'options':{'name':5}}");
    rig_say(&rig, 0, "{'op':'hello','corr':4,'version':1,'client':null,'epoch':0,'options':{'name':'%065d'}}",
            7);
    RIG_TOLD(&rig, 0,
             "error hello/1 bad_version; error hello/2 bad_argument; error hello/3 bad_argument; "
             "error hello/4 bad_argument");
    rig_say(&rig, 0,
            "{'op':'hello','corr':5,'version':9,'client':null,'epoch':0,"
            "'options':{'name':'probe','heartbeat':1,'later':[]}}");
    RIG_TOLD(&rig, 0, "welcome 0");
    cr_assert_str_eq(rig.peers[0].client->name, "probe");
    cr_assert_eq(rig.peers[0].client->heartbeat_us, 100000, "not below the bound");
    rig_say(&rig, 0, "{'op':'hello','corr':6,'version':1,'client':null,'epoch':0}");
    RIG_TOLD(&rig, 0, "error hello/6 bad_state");
    rig_say(&rig, 1, "{'op':'hello','corr':5,'version':1,'client':null,'epoch':0,'options':{'heartbeat':0}}");
    cr_assert_eq(rig.peers[1].client->heartbeat_us, 0);
    rig_stop(&rig);
}

Test(core_requests_hello, a_broker_that_ends_welcomes_nobody)
{
    struct rig rig;
    start(&rig);
    bk_core_shut_down(rig.core);
    rig_hello(&rig, 0, "p", 1);
    RIG_TOLD(&rig, 0, "error hello/1 shutting_down");
    rig_stop(&rig);
}

Test(core_requests_hello, a_ping_is_answered_and_a_goodbye_ends_it)
{
    struct rig rig;
    start(&rig);
    rig_hello_all(&rig);
    rig_say(&rig, 0, "{'op':'ping','token':7}");
    RIG_TOLD(&rig, 0, "pong 7");
    rig_say(&rig, 0, "{'op':'goodbye','code':'closed'}");
    RIG_TOLD(&rig, 0, "");
    cr_assert(rig.peers[0].is_closed && !rig.peers[0].is_shut_out);
    rig_say(&rig, 1, "{'op':'pong','token':99999}");
    cr_assert_eq(rig.peers[1].client->read_bytes, 0, "nobody asked for that");
    rig_stop(&rig);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Clients: how they end, what is sent to them, and how much may be on its way. */
#include "broker/core/clients/client.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

static const uint8_t bytes[] = {0x92, 7, 1}; /* a pong */

static int send(struct rig *rig, size_t i)
{
    const struct bk_part part = {NULL, bytes, sizeof(bytes)};
    return bk_client_send(rig->core, rig->peers[i].client, &part, 1);
}

Test(core_clients_client, doom_marks_and_the_sweep_removes)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 0, "a/*", NULL);
    (void)rig_told(&rig, 0);
    struct bk_client *client = rig.peers[0].client;
    bk_client_doom(rig.core, client, true);
    bk_client_doom(rig.core, client, false);
    cr_assert(bk_client_is_doomed(client) && client->was_ready && client->tell_plug);
    cr_assert_eq(rig.core->n_clients, RIG_PEERS);
    cr_assert_eq(rig.core->n_subs, 1, "nothing that somebody may be walking has gone");
    cr_assert_eq(send(&rig, 0), BB_ECLOSED);
    bk_client_send_nil(rig.core, client, 5);
    bk_client_strike(rig.core, client);
    cr_assert_not(bk_client_has_room(rig.core, client));
    RIG_TOLD(&rig, 0, "");
    cr_assert(bk_core_wants_flush(rig.core));
    bk_core_flush(rig.core);
    cr_assert(rig.peers[0].is_closed && !rig.peers[0].is_shut_out);
    cr_assert_eq(rig.core->n_clients, RIG_PEERS - 1);
    cr_assert_eq(rig.core->n_subs, 0);
    rig_stop(&rig);
}

Test(core_clients_client, a_peer_that_is_gone_dooms_its_client_and_eagain_does_not)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.peers[0].answer = BB_EAGAIN;
    uint64_t sent = rig.peers[0].client->sent_bytes;
    cr_assert_eq(send(&rig, 0), BB_EAGAIN);
    cr_assert(!bk_client_is_doomed(rig.peers[0].client) && rig.peers[0].client->is_stuck);
    cr_assert_eq(rig.peers[0].client->sent_bytes, sent);
    cr_assert_leq(bk_core_tick_at(rig.core), rig.now + BK_STUCK_RETRY_US);
    rig.peers[0].answer = 0;
    rig_pass(&rig, BK_STUCK_RETRY_US);
    cr_assert_not(rig.peers[0].client->is_stuck);
    rig.peers[0].answer = BB_ECLOSED;
    cr_assert_eq(send(&rig, 0), BB_ECLOSED);
    cr_assert(bk_client_is_doomed(rig.peers[0].client));
    bk_core_flush(rig.core);
    cr_assert(rig.peers[0].is_closed);
    rig_stop(&rig);
}

Test(core_clients_client, a_pong_frees_what_a_ping_has_asked_for_and_no_more)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.inflight_bytes = 100;
    rig.config.max_message = 200;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    struct bk_client *client = rig.peers[0].client;
    client->read_bytes = client->probed_bytes = client->sent_bytes;
    rig.peers[0].n_pings = 0;
    for (int i = 0; i < 8; i++) {
        cr_assert_eq(send(&rig, 0), 0);
    }
    cr_assert_eq(rig.peers[0].n_pings, 0);
    cr_assert_eq(send(&rig, 0), 0);
    cr_assert_eq(rig.peers[0].n_pings, 1, "a quarter of the bound has gone");
    cr_assert_eq(rig.peers[0].last_ping, client->sent_bytes);
    while (bk_client_has_room(rig.core, client)) {
        cr_assert_eq(send(&rig, 0), 0);
    }
    cr_assert_geq(client->sent_bytes - client->read_bytes, 100);
    cr_assert_not(bk_client_read(rig.core, client, client->probed_bytes + 1), "nobody asked that far");
    cr_assert_not(bk_client_has_room(rig.core, client));
    cr_assert(bk_client_read(rig.core, client, client->probed_bytes), "there is room again");
    cr_assert(bk_client_has_room(rig.core, client));
    cr_assert_not(bk_client_read(rig.core, client, client->probed_bytes), "said already");
    (void)rig_told(&rig, 0);
    rig_stop(&rig);
}

Test(core_clients_client, a_subscriber_that_reads_nothing_is_sent_no_more_than_may_be_on_its_way)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.inflight_bytes = 1000;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 400;
    rig_subscribe(&rig, 1, "a/*", NULL);
    for (uint64_t i = 1; i <= 10; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; deliver a(1,2] = a2; deliver a(2,3] = a3");
    rig_say(&rig, 1, "{'op':'pong','token':%llu}", (unsigned long long)rig.peers[1].last_ping);
    RIG_TOLD(&rig, 1, "deliver a(3,10] = a4-10");
    rig_stop(&rig);
}

Test(core_clients_client, what_was_on_its_way_before_its_share_became_smaller_does_not_count_as_unread)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.inflight_bytes = (size_t)4 << 20;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 500000;
    rig_subscribe(&rig, 1, "a/*", "'options':{'bytes':100000000}");
    for (int i = 0; i < 9; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    rig.core->config.inflight_all = 1; /* many have come */
    (void)rig_told(&rig, 1);
    rig_say(&rig, 1, "{'op':'status','corr':2}");
    RIG_TOLD(&rig, 1, "result 2");
    cr_assert_not(rig.peers[1].is_closed);
    rig_stop(&rig);
}

/* With gaps to itself a client was removed in the middle of its own request, which then went on with it. */
Test(core_clients_client, a_client_that_reads_nothing_ends_in_the_middle_of_its_own_removal_of_a_channel)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.inflight_bytes = 100;
    rig.config.max_message = 200;
    rig_start(&rig, true, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 1, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_say(&rig, 1, "{'op':'status','corr':2}"); /* more than it may leave unread */
    (void)rig_told(&rig, 1);
    rig_say(&rig, 1, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_commit(&rig); /* the gap is too much */
    cr_assert(rig.peers[1].is_closed, "at the end of the call");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "goodbye overflow");
    cr_assert_null(bk_channels_find(&rig.core->channels, bb_slice_str("a")));
    rig_stop(&rig);
}

/* A subscription of it ends in the middle of what somebody else asks. */
Test(core_clients_client, a_client_that_reads_nothing_ends_in_the_middle_of_another_ones_request)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.inflight_bytes = 100;
    rig.config.max_message = 200;
    rig_start(&rig, true, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 1, "a/x b/x");
    rig_settle(&rig);
    rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/*']}");
    rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':2,'patterns':['*']}");
    rig_say(&rig, 1, "{'op':'status','corr':2}");
    (void)rig_told(&rig, 0);
    (void)rig_told(&rig, 1);
    rig_say(&rig, 0, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_commit(&rig);
    cr_assert(rig.peers[1].is_closed);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 3");
    rig_stop(&rig);
}

/* Never less than 256 KiB each. */
Test(core_clients_client, what_all_may_have_on_their_way_is_shared)
{
    for (size_t all = 0; all <= 4; all += 4) { /* MiB, for four clients */
        uint64_t share = BB_MAX(all << 18, 1 << 18);
        struct rig rig;
        rig_init(&rig);
        rig.config.inflight_all = all << 20;
        rig_start(&rig, false, false);
        rig_hello_all(&rig);
        rig.payload = 100000;
        rig_subscribe(&rig, 1, "a/*", "'options':{'bytes':100000000}");
        for (int i = 0; i < 20; i++) {
            rig_publish(&rig, 0, 0, "a/x");
        }
        uint64_t sent = rig.peers[1].client->sent_bytes;
        cr_assert_geq(sent, share);
        cr_assert_lt(sent, share + 110000, "by one message more at most");
        rig_stop(&rig);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Sending a delivery: when it fails nothing has changed, and the next one carries the same. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/send.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

/* What a delivery may change. */
struct before {
    struct bk_account account;
    uint64_t cursor;
    uint64_t lag_bytes;
    uint64_t sent_events;
    size_t n_losing;
    uint64_t gaps_out;
    uint64_t events_out;
    uint64_t n_delivered;
};

static struct before look(const struct rig *rig, size_t i)
{
    const struct bk_sub *sub = rig_sub(rig, i);
    return (struct before){
        .account = sub->positions[0].account,
        .cursor = sub->cursor,
        .lag_bytes = sub->lag_bytes,
        .sent_events = sub->sent_events,
        .n_losing = sub->n_losing,
        .gaps_out = RIG_COUNT(rig, gaps_out),
        .events_out = RIG_COUNT(rig, events_out),
        .n_delivered = sub->positions[0].channel->n_delivered,
    };
}

static void assert_unchanged(const struct rig *rig, size_t i, const struct before *before)
{
    struct before now = look(rig, i);
    cr_assert_eq(memcmp(&now, before, sizeof(now)), 0);
    cr_assert_eq(rig->core->gaps.len, 0, "what was collected is forgotten");
}

Test(core_deliver_send, a_message_that_does_not_go_is_the_same_when_it_goes)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.ring_bytes = 4000;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 1000;
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':0}");
    for (int i = 0; i < 6; i++) {
        rig_publish(&rig, 0, 0, "a/x");
    }
    RIG_TOLD(&rig, 1, "subscribed");
    struct before before = look(&rig, 1);
    cr_assert_eq(before.n_losing, 1);
    rig.peers[1].answer = BB_EAGAIN;
    rig_credit(&rig, 1, 100000, 100);
    assert_unchanged(&rig, 1, &before);
    rig_pass(&rig, BK_STUCK_RETRY_US);
    assert_unchanged(&rig, 1, &before);
    rig.peers[1].answer = 0;
    rig_pass(&rig, BK_STUCK_RETRY_US);
    RIG_TOLD(&rig, 1, "deliver gap a[1,3]x3 overflow, a(3,6] = a4-6");
    rig_stop(&rig);
}

Test(core_deliver_send, a_live_one_that_does_not_go_waits_in_the_ring)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_publish(&rig, 0, 0, "a/x");
    rig.peers[1].answer = BB_EAGAIN;
    rig_publish(&rig, 0, 0, "a/x");
    cr_assert_not(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_publish(&rig, 0, 0, "a/x");
    rig.peers[1].answer = 0;
    rig_publish(&rig, 0, 0, "a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1");
    rig_pass(&rig, BK_STUCK_RETRY_US);
    RIG_TOLD(&rig, 1, "deliver a(1,4] = a2-4");
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_stop(&rig);
}

Test(core_deliver_send, a_peer_that_goes_in_the_middle_of_a_round_leaves_the_others_theirs)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    for (size_t i = 1; i < 4; i++) {
        rig_subscribe(&rig, i, "a/*", NULL);
    }
    rig.peers[2].answer = BB_ECLOSED;
    rig_publish(&rig, 0, 0, "a/x");
    cr_assert(rig.peers[2].is_closed);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1");
    RIG_TOLD(&rig, 3, "subscribed; deliver a(0,1] = a1");
    cr_assert_eq(RIG_COUNT(&rig, events_out), 2);
    rig_stop(&rig);
}

Test(core_deliver_send, a_piece_of_the_log_that_does_not_go_is_the_same_when_it_goes)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x a/x a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':1");
    rig.peers[1].answer = BB_EAGAIN;
    struct before before = look(&rig, 1);
    rig_answer(&rig);
    assert_unchanged(&rig, 1, &before);
    rig.peers[1].answer = 0;
    rig_pass(&rig, BK_STUCK_RETRY_US);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,3] = a1-3");
    rig_stop(&rig);
}

Test(core_deliver_send, what_a_client_is_sent_it_is_charged_for)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'events':3,'bytes':1000}");
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_publish(&rig, 0, 0, "2:a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,2] = a1-2; deliver a(2,4] = a3-4");
    const struct bk_sub *sub = rig_sub(&rig, 1);
    cr_assert_eq(sub->sent_events, 4, "it may exceed its credit by the last message");
    cr_assert_eq(sub->client->events_out, 4);
    cr_assert_eq(RIG_COUNT(&rig, events_out), 4);
    cr_assert_eq(rig_channel(&rig, "a")->n_delivered, 4);
    rig_credit(&rig, 1, 0, 4);
    RIG_TOLD(&rig, 1, "");
    rig_credit(&rig, 1, 0, 5);
    RIG_TOLD(&rig, 1, "deliver a(4,6] = a5-6");
    rig_stop(&rig);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Gaps: collected, sent, and counted when they were sent. */
#include "broker/core/clients/client.h"
#include "broker/core/subs/gap.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>

/* Peer 1 lags behind a1-4 in blocks of one. */
static struct bk_sub *start(struct rig *rig)
{
    rig_init(rig);
    rig->config.check = false; /* what is lost here is still in the ring */
    rig_start(rig, false, false);
    rig_hello_all(rig);
    rig_subscribe(rig, 1, "a/*", "'options':{'events':0,'lives':true}");
    for (int i = 0; i < 4; i++) {
        rig_publish(rig, 0, 0, "a/x");
    }
    RIG_TOLD(rig, 1, "subscribed");
    return rig_sub(rig, 1);
}

static void lose(struct rig *rig, struct bk_sub *sub, uint64_t pos, enum bk_reason reason)
{
    const struct bk_block *block = bk_ring_at(&rig->core->ring, &pos);
    cr_assert_eq(bk_wanted_lose(rig->core, sub, block, UINT64_MAX, reason), 0);
}

Test(core_subs_gap, losses_are_told_in_their_order_and_counted_when_they_were_sent)
{
    struct rig rig;
    struct bk_sub *sub = start(&rig);
    lose(&rig, sub, 0, BK_REASON_OVERFLOW);
    lose(&rig, sub, 1, BK_REASON_OVERFLOW);
    lose(&rig, sub, 2, BK_REASON_TRIMMED);
    bk_gaps_send(rig.core, sub);
    RIG_TOLD(&rig, 1, "");
    cr_assert_eq(sub->n_losing, 1, "losses wait for another gap, or a delivery");
    cr_assert_eq(RIG_COUNT(&rig, gap_overflow), 0);
    bk_gap_add(rig.core, &(struct bk_gap){.name = bb_slice_str("gone"),
                                          .from = 8,
                                          .to = BK_NO_NUMBER,
                                          .count = BK_NO_NUMBER,
                                          .reason = BK_REASON_RESTART});
    bk_gaps_send(rig.core, sub);
    RIG_TOLD(&rig, 1, "gap gone[8,-]x- restart gap a[1,2]x2 overflow/100 gap a[3,3]x1 trimmed/100");
    cr_assert_not(bk_gaps_any(rig.core));
    const struct bk_account *account = &sub->positions[0].account;
    cr_assert(account->covered == 3 && account->reported == 3 && account->n_losses == 0);
    cr_assert_eq(sub->n_losing, 0);
    cr_assert_eq(sub->positions[0].life, 100, "it was told with the gap");
    cr_assert_eq(RIG_COUNT(&rig, gap_overflow), 2);
    cr_assert_eq(RIG_COUNT(&rig, gap_trimmed), 1);
    cr_assert_eq(RIG_COUNT(&rig, gap_restart), 0, "how many is not known");
    cr_assert_eq(RIG_COUNT(&rig, gaps_out), 3);
    cr_assert_eq(rig_channel(&rig, "a")->n_gaps, 3);
    cr_assert_eq(sub->client->events_lost, 3);
    rig_stop(&rig);
}

Test(core_subs_gap, what_is_collected_settles_a_position_that_far)
{
    struct rig rig;
    struct bk_sub *sub = start(&rig);
    struct bk_position *position = &sub->positions[0];
    cr_assert_eq(bk_gaps_settled(rig.core, position), 0);
    lose(&rig, sub, 0, BK_REASON_OVERFLOW);
    bk_gaps_add_losses(rig.core, sub);
    cr_assert_eq(bk_gaps_settled(rig.core, position), 1);
    bk_gap_add(rig.core, &(struct bk_gap){.channel = position->channel, .from = 2, .to = 3});
    bk_gap_add(rig.core, &(struct bk_gap){.name = bb_slice_str("b"), .from = 2, .to = 9});
    cr_assert_eq(bk_gaps_settled(rig.core, position), 3);
    bk_gaps_forget(rig.core);
    cr_assert_eq(bk_gaps_settled(rig.core, position), 0, "it was not sent");
    cr_assert_eq(position->account.n_losses, 1);
    rig_stop(&rig);
}

Test(core_subs_gap, every_reason_has_its_word_and_its_counter)
{
    static const char *const words[] = {"overflow", "dropped_oldest", "dropped_newest", "conflated",
                                        "trimmed",  "expired",        "retracted",      "restart"};
    static const enum bk_counter counters[] = {BK_COUNTER_gap_overflow,       BK_COUNTER_gap_dropped_oldest,
                                               BK_COUNTER_gap_dropped_newest, BK_COUNTER_gap_conflated,
                                               BK_COUNTER_gap_trimmed,        BK_COUNTER_gap_expired,
                                               BK_COUNTER_gap_retracted,      BK_COUNTER_gap_restart};
    struct rig rig;
    struct bk_sub *sub = start(&rig);
    for (int i = 0; i < BK_REASONS; i++) {
        char wanted[64];
        (void)snprintf(wanted, sizeof(wanted), "gap b[1,2]x2 %s", words[i]);
        bk_gap_add(
            rig.core,
            &(struct bk_gap){
                .name = bb_slice_str("b"), .from = 1, .to = 2, .count = 2, .reason = (enum bk_reason)i});
        bk_gaps_send(rig.core, sub);
        RIG_TOLD(&rig, 1, wanted);
        cr_assert_eq(bk_core_counter(rig.core, counters[i]), 2);
    }
    rig_stop(&rig);
}

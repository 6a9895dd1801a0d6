/* SPDX-License-Identifier: Apache-2.0 */
/* What of a block a subscription wants: bounds, whole blocks, runs, ends, times. */
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>

struct seen {
    char text[256];
    int answer; /* to end it */
};

static int note(void *context, const struct bk_item *item)
{
    struct seen *seen = context;
    size_t len = strlen(seen->text);
    (void)snprintf(seen->text + len, sizeof(seen->text) - len, "%s%llu-%llu", len > 0 ? " " : "",
                   (unsigned long long)(item->block->sequence + item->first),
                   (unsigned long long)bk_item_last(item));
    return seen->answer;
}

static void assert_wanted(struct rig *rig, size_t peer, uint64_t pos, uint64_t before, const char *wanted)
{
    struct seen seen = {0};
    const struct bk_block *block = bk_ring_at(&rig->core->ring, &pos);
    cr_assert_eq(bk_wanted_each(rig->core, rig_sub(rig, peer), block, before, note, &seen), 0);
    cr_assert_str_eq(seen.text, wanted);
}

/* Peer 1 lags behind a/x*; block 0 is x1-6, block 1 is x7 y8 y9 x10 x11 y12. */
static void start(struct rig *rig)
{
    rig_init(rig);
    rig->config.check = false; /* the subscriptions are changed by hand */
    rig_start(rig, false, false);
    rig_hello_all(rig);
    rig_subscribe(rig, 1, "?/x", "'options':{'events':0}");
    rig_publish(rig, 0, 0, "6:a/x");
    rig_publish(rig, 0, 0, "a/x 2:a/y 2:a/x a/y");
}

Test(core_subs_wanted, of_a_block_the_runs_that_match)
{
    struct rig rig;
    start(&rig);
    assert_wanted(&rig, 1, 0, UINT64_MAX, "1-6");
    assert_wanted(&rig, 1, 1, UINT64_MAX, "7-7 10-11");
    rig_subscribe(&rig, 2, "b/*", "'options':{'events':0}");
    assert_wanted(&rig, 2, 0, UINT64_MAX, "");
    cr_assert_eq(rig_sub(&rig, 2)->n_positions, 0, "what does not match leaves no position");
    rig_subscribe(&rig, 3, "*", "'from':1,'options':{'events':0}");
    assert_wanted(&rig, 3, 1, UINT64_MAX, "7-12");
    rig_stop(&rig);
}

Test(core_subs_wanted, nothing_that_is_settled_nor_at_or_behind_the_bound)
{
    struct rig rig;
    start(&rig);
    struct bk_position *position = &rig_sub(&rig, 1)->positions[0];
    assert_wanted(&rig, 1, 0, 4, "1-3");
    assert_wanted(&rig, 1, 0, 1, "");
    assert_wanted(&rig, 1, 1, 11, "7-7 10-10");
    position->account.covered = 2;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "3-6");
    assert_wanted(&rig, 1, 0, 5, "3-4");
    position->account.n_losses = 1;
    position->account.losses[0] = (struct bk_loss){10, 8, BK_REASON_OVERFLOW};
    assert_wanted(&rig, 1, 1, UINT64_MAX, "11-11");
    rig_stop(&rig);
}

Test(core_subs_wanted, nothing_behind_the_end_nor_what_is_trimmed)
{
    struct rig rig;
    start(&rig);
    struct bk_position *position = &rig_sub(&rig, 1)->positions[0];
    position->stop = 10;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "1-6");
    assert_wanted(&rig, 1, 1, UINT64_MAX, "7-7 10-10");
    position->stop = 3;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "1-3");
    position->stop = 0;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "");
    position->stop = UINT64_MAX;
    position->channel->first = 5;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "5-6");
    rig_stop(&rig);
}

Test(core_subs_wanted, nothing_from_memory_where_the_log_is_read)
{
    struct rig rig;
    start(&rig);
    rig_sub(&rig, 1)->positions[0].is_cold = true;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "");
    rig_stop(&rig);
}

Test(core_subs_wanted, nothing_later_than_the_time_wanted)
{
    struct rig rig;
    start(&rig);
    rig_sub(&rig, 1)->until_time = rig.now;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "1-6");
    rig_sub(&rig, 1)->until_time = rig.now - 1;
    assert_wanted(&rig, 1, 0, UINT64_MAX, "");
    rig_stop(&rig);
}

Test(core_subs_wanted, who_is_called_can_end_it)
{
    struct rig rig;
    start(&rig);
    struct seen seen = {.answer = 7};
    uint64_t pos = 1;
    const struct bk_block *block = bk_ring_at(&rig.core->ring, &pos);
    cr_assert_eq(bk_wanted_each(rig.core, rig_sub(&rig, 1), block, UINT64_MAX, note, &seen), 7);
    cr_assert_str_eq(seen.text, "7-7");
    rig_stop(&rig);
}

Test(core_subs_wanted, what_waits_and_what_is_lost_is_counted_with_its_bytes)
{
    struct rig rig;
    start(&rig);
    struct bk_sub *sub = rig_sub(&rig, 1);
    struct bk_account *account = &sub->positions[0].account;
    cr_assert_eq(account->waiting, 9);
    cr_assert_eq(account->waiting_to, 11);
    cr_assert_eq(sub->lag_bytes, account->waiting_bytes);
    uint64_t bytes = sub->lag_bytes;
    uint64_t pos = 0;
    cr_assert_eq(bk_wanted_lose(rig.core, sub, bk_ring_at(&rig.core->ring, &pos), 3, BK_REASON_TRIMMED), 0);
    cr_assert_eq(sub->n_losing, 1);
    cr_assert(account->waiting == 7 && account->losses[0].to == 2);
    cr_assert_eq(sub->lag_bytes, bytes / 9 * 7);
    sub->lag_bytes -= bk_account_leave_to_log(account);
    cr_assert_eq(sub->lag_bytes, 0);
    cr_assert_eq(bk_wanted_recount(rig.core, sub), 0);
    cr_assert(account->waiting == 7 && sub->lag_bytes == bytes / 9 * 7, "all but what is lost");
    rig_stop(&rig);
}

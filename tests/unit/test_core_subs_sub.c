/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions: the edges of their states, positions, and the list of those that may be sent something. */
#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const names[] = {"beginning", "retained", "lagging", "live"};

Test(core_subs_sub, states_follow_each_other_along_their_edges)
{
    static const enum bk_sub_state ways[][2] = {
        {BK_SUB_BEGINNING, BK_SUB_RETAINED}, {BK_SUB_BEGINNING, BK_SUB_LAGGING},
        {BK_SUB_BEGINNING, BK_SUB_LIVE},     {BK_SUB_RETAINED, BK_SUB_LAGGING},
        {BK_SUB_LAGGING, BK_SUB_LIVE},       {BK_SUB_LIVE, BK_SUB_LAGGING},
    };
    struct bk_core core = {.n_lagging = 5};
    for (size_t i = 0; i < BB_COUNT(ways); i++) {
        struct bk_sub sub = {.state = ways[i][0]};
        bool was_behind = sub.state == BK_SUB_RETAINED || sub.state == BK_SUB_LAGGING;
        bool is_behind = ways[i][1] == BK_SUB_RETAINED || ways[i][1] == BK_SUB_LAGGING;
        core.n_lagging = 5;
        bk_sub_enter(&core, &sub, ways[i][1]);
        cr_assert_eq(sub.state, ways[i][1]);
        cr_assert_eq(core.n_lagging, 5u + is_behind - was_behind, "from %s to %s", names[ways[i][0]],
                     names[ways[i][1]]);
    }
}

#ifndef NDEBUG

Test(core_subs_sub, a_live_one_does_not_begin_again, .signal = SIGABRT)
{
    struct bk_core core = {0};
    struct bk_sub sub = {.state = BK_SUB_LIVE};
    bk_sub_enter(&core, &sub, BK_SUB_BEGINNING);
}

Test(core_subs_sub, retained_values_come_first_or_never, .signal = SIGABRT)
{
    struct bk_core core = {.n_lagging = 1};
    struct bk_sub sub = {.state = BK_SUB_LAGGING};
    bk_sub_enter(&core, &sub, BK_SUB_RETAINED);
}

Test(core_subs_sub, retained_values_are_not_left_for_the_live_flow, .signal = SIGABRT)
{
    struct bk_core core = {.n_lagging = 1};
    struct bk_sub sub = {.state = BK_SUB_RETAINED};
    bk_sub_enter(&core, &sub, BK_SUB_LIVE);
}

#endif

Test(core_subs_sub, positions_lie_in_the_order_of_their_channels)
{
    struct bk_channel channels[5];
    static const uint32_t order[] = {3, 1, 5, 2, 4};
    struct bk_sub *sub = bk_sub_new(0);
    sub->new_stop = 77;
    for (size_t i = 0; i < BB_COUNT(order); i++) {
        channels[i] = (struct bk_channel){.id = order[i]};
        cr_assert_null(bk_sub_find_position(sub, &channels[i]));
        struct bk_position *position = bk_sub_position(sub, &channels[i]);
        cr_assert_eq(position->stop, 77);
        position->account.covered = order[i];
    }
    for (size_t i = 0; i < BB_COUNT(order); i++) {
        cr_assert_eq(sub->positions[i].channel->id, i + 1);
        cr_assert_eq(bk_sub_position(sub, &channels[i])->account.covered, order[i], "found, not made again");
    }
    cr_assert_eq(sub->n_positions, BB_COUNT(order));
    free(sub->positions);
    free(sub);
}

Test(core_subs_sub, what_is_counted_in_a_position_goes_with_it)
{
    struct bk_channel a = {.id = 1};
    struct bk_channel b = {.id = 2};
    struct bk_sub *sub = bk_sub_new(0);
    bk_account_arrive(&bk_sub_position(sub, &a)->account, 5, 5, 100);
    bk_account_arrive(&bk_sub_position(sub, &b)->account, 5, 5, 30);
    bk_account_lose(&bk_sub_find_position(sub, &a)->account, 1, 1, 20, BK_REASON_OVERFLOW);
    bk_sub_find_position(sub, &a)->is_cold = true;
    sub->lag_bytes = 110;
    sub->n_losing = sub->n_cold = 1;
    bk_sub_drop_position(sub, bk_sub_find_position(sub, &a));
    cr_assert(sub->lag_bytes == 30 && sub->n_losing == 0 && sub->n_cold == 0 && sub->n_positions == 1);
    cr_assert_eq(bk_sub_find_position(sub, &b)->account.waiting, 5);
    free(sub->positions);
    free(sub);
}

Test(core_subs_sub, a_channel_that_comes_while_others_are_cold_is_cold_too)
{
    struct bk_channel logged = {.id = 1, .settings = {.logged = true}};
    struct bk_channel other = {.id = 2};
    struct bk_sub *sub = bk_sub_new(0);
    sub->n_cold = 1;
    cr_assert(bk_sub_position(sub, &logged)->is_cold && !bk_sub_position(sub, &other)->is_cold);
    cr_assert_eq(sub->n_cold, 2);
    free(sub->positions);
    free(sub);
}

Test(core_subs_sub, a_life_is_told_once_and_only_to_who_asks)
{
    struct bk_channel channel = {.lives = {.now = 7}};
    struct bk_sub sub = {.has_lives = true};
    struct bk_position position = {.channel = &channel};
    cr_assert_eq(bk_sub_untold_life(&sub, &position, 0), 7);
    position.life = 7;
    cr_assert_eq(bk_sub_untold_life(&sub, &position, 0), 0);
    channel.lives.now = 8;
    cr_assert_eq(bk_sub_untold_life(&sub, &position, 0), 8);
    sub.has_lives = false;
    cr_assert_eq(bk_sub_untold_life(&sub, &position, 0), 0);
}

/* --- those that may be sent something ----------------------------------------------------------------------- */

static void start_with_lagging(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, false);
    rig_hello_all(rig);
    for (size_t i = 1; i < 4; i++) {
        rig_subscribe(rig, i, "a/*", "'options':{'events':0}");
    }
    rig_publish(rig, 0, 0, "a/x");
}

Test(core_subs_sub, the_list_of_the_ready_keeps_its_order_and_has_each_once)
{
    struct rig rig;
    start_with_lagging(&rig);
    struct bk_sub *subs[3];
    for (size_t i = 0; i < 3; i++) {
        subs[i] = rig_sub(&rig, i + 1);
        bk_sub_set_ready(rig.core, subs[i]);
        cr_assert_not(subs[i]->is_ready, "without credit nothing can be sent");
        subs[i]->credit_events = 5;
        bk_sub_set_ready(rig.core, subs[i]);
        bk_sub_set_ready(rig.core, subs[i]);
    }
    cr_assert_eq(rig.core->ready_first, subs[0]);
    cr_assert_eq(subs[0]->next_ready, subs[1]);
    bk_sub_clear_ready(rig.core, subs[1]);
    bk_sub_clear_ready(rig.core, subs[1]);
    cr_assert_eq(subs[0]->next_ready, subs[2]);
    cr_assert_eq(rig.core->ready_last, subs[2]);
    bk_core_flush(rig.core);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1");
    RIG_TOLD(&rig, 2, "subscribed");
    RIG_TOLD(&rig, 3, "subscribed; deliver a(0,1] = a1");
    cr_assert_null(rig.core->ready_first);
    rig_stop(&rig);
}

Test(core_subs_sub, a_live_one_and_one_that_the_log_is_asked_for_are_not_ready)
{
    struct rig rig;
    start_with_lagging(&rig);
    struct bk_sub *sub = rig_sub(&rig, 1);
    sub->credit_events = 5;
    sub->awaits_values = true;
    bk_sub_set_ready(rig.core, sub);
    cr_assert_not(sub->is_ready);
    sub->awaits_values = false;
    sub->client->is_stuck = true;
    bk_sub_set_ready(rig.core, sub);
    cr_assert_not(sub->is_ready, "its client has no room");
    sub->until = BK_UNTIL_STOP;
    bk_sub_set_ready(rig.core, sub);
    cr_assert(sub->is_ready, "its end may be reached without a message");
    sub->until = BK_UNTIL_NONE;
    sub->client->is_stuck = false;
    bk_core_flush(rig.core);
    cr_assert(bk_sub_is_live(sub));
    bk_sub_set_ready(rig.core, sub);
    cr_assert_not(sub->is_ready);
    rig_stop(&rig);
}

/* --- channels that were removed ------------------------------------------------------------------------- */

static void remove_position(struct bk_sub *sub, const char *name, uint32_t id)
{
    struct bk_channel channel = {.id = id, .name = bb_slice_str(name)};
    bk_sub_drop_position(sub, bk_sub_position(sub, &channel));
}

/* Whether a new channel of that name is wanted up to the end. */
static bool is_wanted(struct bk_sub *sub, const char *name)
{
    struct bk_channel channel = {.id = UINT32_MAX, .name = bb_slice_str(name)};
    bool wanted = bk_sub_position(sub, &channel)->stop == 9;
    sub->n_positions--;
    return wanted;
}

Test(core_subs_sub, with_an_end_in_sequences_names_that_are_over_are_remembered)
{
    struct bk_sub *sub = bk_sub_new(0);
    sub->until = BK_UNTIL_STOP;
    sub->new_stop = 9;
    remove_position(sub, "a", 1);
    remove_position(sub, "bc", 2);
    size_t len = sub->over.len;
    remove_position(sub, "a", 3);
    cr_assert_eq(sub->over.len, len, "each once");
    cr_assert(!is_wanted(sub, "a") && !is_wanted(sub, "bc"));
    cr_assert(is_wanted(sub, "b") && is_wanted(sub, "c") && is_wanted(sub, ""));
    bk_sub_free(sub, NULL);
}

Test(core_subs_sub, when_more_names_are_over_than_can_be_remembered_no_new_channel_is_wanted)
{
    struct bk_sub *sub = bk_sub_new(0);
    char name[201];
    sub->until = BK_UNTIL_STOP;
    sub->new_stop = 9;
    for (uint32_t i = 0; i < 1000 && sub->new_stop == 9; i++) {
        (void)snprintf(name, sizeof(name), "%0200u", i);
        remove_position(sub, name, i + 1);
        cr_assert_lt(sub->over.len, (size_t)65 << 10);
    }
    cr_assert_eq(sub->new_stop, 0);
    cr_assert_not(is_wanted(sub, "another"));
    bk_sub_free(sub, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The account: each operation, the sum that always holds, and that a miscount stops the program. */
#include "broker/core/subs/account.h"

#include <criterion/criterion.h>
#include <signal.h>

static void assert_numbers(const struct bk_account *account,
                           uint64_t covered,
                           uint64_t delivered,
                           uint64_t reported,
                           uint64_t lost,
                           uint64_t waiting)
{
    cr_assert(bk_account_is_sound(account));
    cr_assert_eq(account->covered, covered);
    cr_assert_eq(account->delivered, delivered);
    cr_assert_eq(account->reported, reported);
    cr_assert_eq(bk_account_lost(account), lost);
    cr_assert_eq(account->waiting, waiting);
    cr_assert_eq(account->arrived, delivered + reported + lost + waiting);
}

Test(core_subs_account, what_passes_was_never_waiting)
{
    struct bk_account account = {.covered = 5};
    bk_account_pass(&account, 9, 2);
    assert_numbers(&account, 9, 2, 0, 0, 0);
    bk_account_pass(&account, 12, 0);
    assert_numbers(&account, 12, 2, 0, 0, 0);
    cr_assert_eq(bk_account_settled(&account), 12);
}

Test(core_subs_account, what_arrives_waits_until_it_is_delivered)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 3, 2, 100);
    bk_account_arrive(&account, 8, 4, 300);
    assert_numbers(&account, 0, 0, 0, 0, 6);
    cr_assert_eq(account.waiting_bytes, 400);
    cr_assert_eq(account.waiting_to, 8);
    bk_account_deliver(&account, 4, 3, 150);
    assert_numbers(&account, 4, 3, 0, 0, 3);
    bk_account_deliver(&account, 10, 3, 250);
    assert_numbers(&account, 10, 6, 0, 0, 0);
    cr_assert_eq(account.waiting_bytes, 0);
}

Test(core_subs_account, what_is_lost_is_settled_and_reported_once)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 10, 10, 1000);
    bk_account_lose(&account, 4, 4, 400, BK_REASON_OVERFLOW);
    assert_numbers(&account, 0, 0, 0, 4, 6);
    cr_assert_eq(bk_account_settled(&account), 4);
    bk_account_report(&account);
    assert_numbers(&account, 4, 0, 4, 0, 6);
    bk_account_report(&account);
    assert_numbers(&account, 4, 0, 4, 0, 6);
    bk_account_deliver(&account, 10, 6, 600);
    assert_numbers(&account, 10, 6, 4, 0, 0);
}

Test(core_subs_account, losses_of_one_reason_are_one_and_of_several_in_their_order)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 20, 20, 2000);
    bk_account_lose(&account, 2, 2, 200, BK_REASON_OVERFLOW);
    bk_account_lose(&account, 5, 3, 300, BK_REASON_OVERFLOW);
    cr_assert_eq(account.n_losses, 1);
    cr_assert_eq(account.losses[0].to, 5);
    cr_assert_eq(account.losses[0].count, 5);
    bk_account_lose(&account, 7, 2, 200, BK_REASON_TRIMMED);
    cr_assert_eq(account.n_losses, 2);
    assert_numbers(&account, 0, 0, 0, 7, 13);
    bk_account_lose(&account, 9, 2, 200, BK_REASON_DROPPED_OLDEST);
    cr_assert_eq(account.n_losses, BK_ACCOUNT_LOSSES, "told with the last one: the count stays right");
    cr_assert_eq(account.losses[1].reason, BK_REASON_TRIMMED);
    cr_assert_eq(account.losses[1].to, 9);
    cr_assert_eq(account.losses[1].count, 4);
    cr_assert_eq(bk_account_settled(&account), 9);
    assert_numbers(&account, 0, 0, 0, 9, 11);
}

Test(core_subs_account, all_that_waits_can_be_lost_at_once)
{
    struct bk_account account = {0};
    bk_account_lose_all(&account, BK_REASON_DROPPED_NEWEST);
    assert_numbers(&account, 0, 0, 0, 0, 0);
    cr_assert_eq(account.n_losses, 0);
    bk_account_arrive(&account, 7, 3, 50);
    bk_account_lose_all(&account, BK_REASON_DROPPED_NEWEST);
    assert_numbers(&account, 0, 0, 0, 3, 0);
    cr_assert_eq(bk_account_settled(&account), 7);
    bk_account_arrive(&account, 8, 1, 10);
    assert_numbers(&account, 0, 0, 0, 3, 1);
}

Test(core_subs_account, what_is_reported_at_once_never_stands_as_a_loss)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 5, 5, 500);
    bk_account_report_waiting(&account, 3, 3, 300);
    assert_numbers(&account, 3, 0, 3, 0, 2);
    bk_account_report_waiting(&account, 5, 2, 200);
    assert_numbers(&account, 5, 0, 5, 0, 0);
    bk_account_report_unseen(&account, 20, 4);
    assert_numbers(&account, 20, 0, 9, 0, 0);
    bk_account_report_unseen(&account, 25, 0);
    assert_numbers(&account, 25, 0, 9, 0, 0);
}

Test(core_subs_account, what_is_left_to_the_log_has_not_arrived)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 5, 5, 500);
    bk_account_lose(&account, 1, 1, 100, BK_REASON_OVERFLOW);
    cr_assert_eq(bk_account_leave_to_log(&account), 400);
    assert_numbers(&account, 0, 0, 0, 1, 0);
    cr_assert_eq(bk_account_leave_to_log(&account), 0);
}

Test(core_subs_account, a_retraction_goes_back_and_what_was_delivered_stays_delivered)
{
    struct bk_account account = {0};
    bk_account_pass(&account, 9, 9);
    bk_account_retract(&account, 6);
    assert_numbers(&account, 6, 9, 0, 0, 0);
    bk_account_arrive(&account, 7, 1, 10);
    assert_numbers(&account, 6, 9, 0, 0, 1);
}

Test(core_subs_account, an_account_that_does_not_add_up_is_not_sound)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 10, 5, 500);
    bk_account_lose(&account, 4, 2, 200, BK_REASON_OVERFLOW);
    cr_assert(bk_account_is_sound(&account));
    struct bk_account wrong = account;
    wrong.waiting++;
    cr_assert_not(bk_account_is_sound(&wrong));
    wrong = account;
    wrong.delivered++;
    cr_assert_not(bk_account_is_sound(&wrong));
    wrong = account;
    wrong.waiting_bytes = 0;
    cr_assert_not(bk_account_is_sound(&wrong), "events without bytes");
    wrong = account;
    wrong.covered = 4;
    cr_assert_not(bk_account_is_sound(&wrong), "a loss before what is covered");
    wrong = account;
    wrong.covered = 3;
    cr_assert_not(bk_account_is_sound(&wrong), "more lost than sequences");
    wrong = account;
    wrong.losses[0].to = 10;
    cr_assert_not(bk_account_is_sound(&wrong), "nothing can wait behind it");
}

/* --- a miscount shows where it happens ------------------------------------------------------------------ */

#ifndef NDEBUG

Test(core_subs_account, more_delivered_than_waited_aborts, .signal = SIGABRT)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 2, 2, 20);
    bk_account_deliver(&account, 3, 3, 20);
}

Test(core_subs_account, more_bytes_delivered_than_waited_aborts, .signal = SIGABRT)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 2, 2, 20);
    bk_account_deliver(&account, 2, 2, 21);
}

Test(core_subs_account, a_range_that_goes_back_aborts, .signal = SIGABRT)
{
    struct bk_account account = {.covered = 5};
    bk_account_pass(&account, 4, 0);
}

Test(core_subs_account, a_delivery_before_the_losses_are_told_aborts, .signal = SIGABRT)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 2, 2, 20);
    bk_account_lose(&account, 1, 1, 10, BK_REASON_OVERFLOW);
    bk_account_deliver(&account, 2, 1, 10);
}

Test(core_subs_account, an_arrival_out_of_order_aborts, .signal = SIGABRT)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 5, 1, 10);
    bk_account_arrive(&account, 5, 1, 10);
}

Test(core_subs_account, an_arrival_of_what_is_settled_aborts, .signal = SIGABRT)
{
    struct bk_account account = {.covered = 5};
    bk_account_arrive(&account, 5, 1, 10);
}

Test(core_subs_account, a_live_delivery_over_what_waits_aborts, .signal = SIGABRT)
{
    struct bk_account account = {0};
    bk_account_arrive(&account, 5, 1, 10);
    bk_account_pass(&account, 6, 1);
}

Test(core_subs_account, a_retraction_of_what_was_never_shown_aborts, .signal = SIGABRT)
{
    struct bk_account account = {.covered = 5};
    bk_account_retract(&account, 6);
}

#endif

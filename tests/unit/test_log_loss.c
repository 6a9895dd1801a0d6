/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/error.h"

#include "broker/backend/loss.h"

#include <criterion/criterion.h>

static const struct bk_read_loss *at(const struct bk_read *read, size_t i)
{
    cr_assert_lt(i, read->losses.len / sizeof(struct bk_read_loss));
    return &((const struct bk_read_loss *)(const void *)read->losses.data)[i];
}

static void is(const struct bk_read *read, size_t i, struct bk_read_loss want)
{
    const struct bk_read_loss *got = at(read, i);
    cr_assert(got->range == want.range && got->reason == want.reason && got->from == want.from &&
              got->to == want.to && got->count == want.count);
}

Test(log_loss, neighbours_of_one_reason_are_one)
{
    struct bk_read read = {.n_ranges = 2};
    struct bk_losses losses;
    cr_assert_eq(bk_losses_begin(&losses, &read), 0);
    bk_losses_trimmed(&losses, 0, 1, 4);
    bk_losses_trimmed(&losses, 1, 7, 7); /* another range lies between */
    bk_losses_trimmed(&losses, 0, 5, 6);
    bk_losses_trimmed(&losses, 0, 9, 9);
    bk_losses_expired(&losses, 0, 10, 14, 3);
    bk_losses_expired(&losses, 1, 8, 8, 1);
    bk_losses_trimmed(&losses, 0, 15, 15);
    bk_losses_end(&losses);
    cr_assert_eq(read.losses.len / sizeof(struct bk_read_loss), 5);
    is(&read, 0, (struct bk_read_loss){0, BK_LOSS_TRIMMED, 1, 9, 7});
    is(&read, 1, (struct bk_read_loss){1, BK_LOSS_TRIMMED, 7, 7, 1});
    is(&read, 2, (struct bk_read_loss){0, BK_LOSS_EXPIRED, 10, 14, 3});
    is(&read, 3, (struct bk_read_loss){1, BK_LOSS_EXPIRED, 8, 8, 1});
    is(&read, 4, (struct bk_read_loss){0, BK_LOSS_TRIMMED, 15, 15, 1});
    bb_buf_fini(&read.losses);
}

Test(log_loss, nothing_is_no_loss)
{
    struct bk_read read = {.n_ranges = 1};
    struct bk_losses losses;
    cr_assert_eq(bk_losses_begin(&losses, &read), 0);
    bk_losses_trimmed(&losses, 0, 5, 4);
    bk_losses_expired(&losses, 0, 0, 0, 0);
    bk_losses_end(&losses);
    cr_assert_eq(read.losses.len, 0);
}

/* Before a block, in it, and behind it: as long as there is room for these a range does not exceed its
 * limit. */
Test(log_loss, a_range_has_room_for_a_block_or_ends)
{
    struct bk_read read = {.n_ranges = 2};
    struct bk_losses losses;
    uint64_t sequence = 1;
    cr_assert_eq(bk_losses_begin(&losses, &read), 0);
    while (bk_losses_have_room(&losses, 1)) {
        bk_losses_trimmed(&losses, 1, sequence, sequence);
        bk_losses_expired(&losses, 1, sequence + 1, sequence + 1, 1);
        sequence += 2;
    }
    bk_losses_trimmed(&losses, 1, sequence, sequence);
    cr_assert_leq(read.losses.len / sizeof(struct bk_read_loss), BK_LOSSES_MAX);
    cr_assert(bk_losses_have_room(&losses, 0), "each has its own");
    bk_losses_end(&losses);
    bb_buf_fini(&read.losses);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Lives: what a position in an earlier one is worth, and how they are kept. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/core/keep/life.h"

#include <criterion/criterion.h>

static enum bk_verdict
judge(const struct bk_lives *lives, uint64_t life, uint64_t sequence, uint64_t *ret_upto)
{
    return bk_lives_judge(lives, life, sequence, 50, ret_upto);
}

Test(core_keep_life, a_position_of_today_holds_as_far_as_there_are_events)
{
    struct bk_lives lives = {.now = 7};
    uint64_t upto = 0;
    cr_assert_eq(judge(&lives, 7, 50, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&lives, 7, 51, &upto), BK_POSITION_ENDED);
    cr_assert_eq(upto, 50);
    cr_assert_eq(judge(&lives, 6, 1, &upto), BK_POSITION_VOID);
    cr_assert_eq(judge(&lives, 8, 1, &upto), BK_POSITION_VOID, "of a future that never was");
}

Test(core_keep_life, a_position_of_an_ended_life_holds_up_to_its_end)
{
    struct bk_lives lives = {.now = 7};
    uint64_t upto = 0;
    bk_lives_end(&lives, 10, 9);
    bk_lives_end(&lives, 20, 12);
    cr_assert_eq(lives.now, 12);
    cr_assert_eq(judge(&lives, 7, 10, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&lives, 7, 11, &upto), BK_POSITION_ENDED);
    cr_assert_eq(upto, 10);
    cr_assert_eq(judge(&lives, 9, 11, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&lives, 9, 25, &upto), BK_POSITION_ENDED);
    cr_assert_eq(upto, 20);
    bk_lives_fini(&lives);
}

Test(core_keep_life, what_is_taken_back_is_taken_back_from_all_lives_before)
{
    struct bk_lives lives = {.now = 1};
    uint64_t upto = 0;
    bk_lives_end(&lives, 30, 2);
    bk_lives_end(&lives, 5, 3);
    cr_assert_eq(judge(&lives, 1, 30, &upto), BK_POSITION_ENDED);
    cr_assert_eq(upto, 5, "its events behind that do not exist any more");
    cr_assert_eq(judge(&lives, 1, 5, &upto), BK_POSITION_HOLDS);
    bk_lives_fini(&lives);
}

Test(core_keep_life, the_oldest_lives_are_forgotten_and_positions_in_them_void)
{
    struct bk_lives lives = {.now = 1};
    uint64_t upto = 0;
    for (uint64_t life = 2; life <= BK_LIVES_MAX + 2; life++) {
        bk_lives_end(&lives, life, life);
    }
    cr_assert_eq(lives.n_past, BK_LIVES_MAX);
    cr_assert_eq(judge(&lives, 1, 1, &upto), BK_POSITION_VOID);
    cr_assert_eq(judge(&lives, 2, 3, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&lives, 2, 4, &upto), BK_POSITION_ENDED);
    bk_lives_fini(&lives);
}

Test(core_keep_life, the_life_at_the_start_of_a_run_is_the_newest_up_to_its_number)
{
    struct bk_lives lives = {.now = 100};
    cr_assert_eq(bk_lives_at(&lives, 99), 0);
    cr_assert_eq(bk_lives_at(&lives, 100), 100, "its first event began it");
    cr_assert_eq(bk_lives_at(&lives, 150), 100);
    bk_lives_end(&lives, 10, 103);
    bk_lives_end(&lives, 12, 200);
    cr_assert_eq(bk_lives_at(&lives, 100), 100);
    cr_assert_eq(bk_lives_at(&lives, 103), 103);
    cr_assert_eq(bk_lives_at(&lives, 199), 103);
    cr_assert_eq(bk_lives_at(&lives, 200), 200);
    cr_assert_eq(bk_lives_at(&lives, 50), 0);
    bk_lives_fini(&lives);
}

Test(core_keep_life, they_are_written_and_read_back)
{
    struct bk_lives lives = {.now = 7};
    struct bk_lives read = {0};
    struct bb_buf out = BB_BUF_INIT;
    bk_lives_end(&lives, 10, 9);
    bk_lives_end(&lives, 8, 4000000000000);
    bk_lives_write(&out, &lives);
    cr_assert_eq(bk_lives_read(bb_buf_slice(&out), &read), 0);
    cr_assert_eq(read.now, lives.now);
    cr_assert_eq(read.n_past, 2);
    cr_assert_eq(memcmp(read.past, lives.past, 2 * sizeof(*read.past)), 0);
    bk_lives_fini(&lives);
    bk_lives_fini(&read);
    bb_buf_fini(&out);
}

static int read_numbers(const uint64_t *numbers, uint32_t n)
{
    struct bb_buf out = BB_BUF_INIT;
    struct bk_lives lives = {.now = 77};
    bb_mp_write_array(&out, n);
    for (uint32_t i = 0; i < n; i++) {
        bb_mp_write_uint(&out, numbers[i]);
    }
    int r = bk_lives_read(bb_buf_slice(&out), &lives);
    cr_assert(r == 0 || lives.now == 77, "it is as it was");
    if (r == 0) {
        bk_lives_fini(&lives);
    }
    bb_buf_fini(&out);
    return r;
}

Test(core_keep_life, what_cannot_be_lives_is_corrupt)
{
    cr_assert_eq(read_numbers((const uint64_t[]){5}, 1), 0);
    cr_assert_eq(read_numbers((const uint64_t[]){5, 3, 10, 4, 10}, 5), 0);
    cr_assert_eq(read_numbers((const uint64_t[]){0}, 0), BB_ECORRUPT);
    cr_assert_eq(read_numbers((const uint64_t[]){5, 3}, 2), BB_ECORRUPT, "an end is missing");
    cr_assert_eq(read_numbers((const uint64_t[]){5, 4, 10, 3, 10}, 5), BB_ECORRUPT, "out of order");
    cr_assert_eq(read_numbers((const uint64_t[]){5, 4, 10, 4, 10}, 5), BB_ECORRUPT, "twice");
    cr_assert_eq(read_numbers((const uint64_t[]){5, 5, 10}, 3), BB_ECORRUPT, "not before today's");
    uint64_t many[2 * BK_LIVES_MAX + 3] = {1000};
    for (uint32_t i = 0; i <= BK_LIVES_MAX; i++) {
        many[1 + 2 * i] = i + 1;
    }
    cr_assert_eq(read_numbers(many, 2 * BK_LIVES_MAX + 1), 0);
    cr_assert_eq(read_numbers(many, 2 * BK_LIVES_MAX + 3), BB_ECORRUPT, "more than are remembered");
    struct bk_lives lives;
    cr_assert_eq(bk_lives_read(bb_slice("\xa1x", 2), &lives), BB_ECORRUPT);
    cr_assert_eq(bk_lives_read(bb_slice("\x91\xa1x", 3), &lives), BB_ECORRUPT);
}

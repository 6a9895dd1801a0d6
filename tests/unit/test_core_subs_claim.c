/* SPDX-License-Identifier: Apache-2.0 */
/* Positions as clients say them. */
#include "proto/base/error.h"

#include "broker/core/keep/channel.h"
#include "broker/core/subs/claim.h"

#include <criterion/criterion.h>

static int read_claim(const char *bytes, size_t len, struct bk_claim *ret_claim)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(bytes, len));
    bk_claim_read(&reader, ret_claim);
    return reader.error;
}

Test(core_subs_claim, a_sequence_alone_or_with_its_life)
{
    struct bk_claim claim;
    cr_assert_eq(read_claim("\x05", 1, &claim), 0);
    cr_assert(claim.sequence == 5 && claim.life == 0);
    cr_assert_eq(read_claim("\x92\x05\x07", 3, &claim), 0);
    cr_assert(claim.sequence == 5 && claim.life == 7);
    cr_assert_neq(read_claim("\x91\x05", 2, &claim), 0);
    cr_assert_neq(read_claim("\x93\x05\x06\x07", 4, &claim), 0);
    cr_assert_neq(read_claim("\xa1x", 2, &claim), 0);
    cr_assert_neq(read_claim("\x92\x05\xa1x", 4, &claim), 0);
    cr_assert_neq(read_claim("", 0, &claim), 0);
}

Test(core_subs_claim, what_not_every_language_can_say_is_none)
{
    struct bk_claim claim;
    cr_assert_eq(read_claim("\xcf\x00\x20\x00\x00\x00\x00\x00\x00", 9, &claim), 0);
    cr_assert_eq(claim.sequence, UINT64_C(1) << 53);
    cr_assert_eq(read_claim("\xcf\x00\x20\x00\x00\x00\x00\x00\x01", 9, &claim), BB_EINVAL);
    cr_assert_eq(read_claim("\x92\x05\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 11, &claim), BB_EINVAL);
}

static enum bk_verdict
judge(const struct bk_channel *channel, uint64_t sequence, uint64_t life, uint64_t run, uint64_t *ret_upto)
{
    return bk_claim_judge(channel, &(struct bk_claim){sequence, life}, run, ret_upto);
}

Test(core_subs_claim, without_a_life_it_is_judged_by_the_run_it_is_of)
{
    struct bk_channel channel = {.last = 20, .lives = {.now = 100}};
    uint64_t upto = 0;
    bk_lives_end(&channel.lives, 15, 200);
    cr_assert_eq(judge(&channel, 15, 0, 150, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&channel, 18, 0, 150, &upto), BK_POSITION_ENDED);
    cr_assert_eq(upto, 15);
    cr_assert_eq(judge(&channel, 18, 0, 200, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&channel, 1, 0, 99, &upto), BK_POSITION_VOID, "the channel was not there");
    cr_assert_eq(judge(&channel, 18, 100, 200, &upto), BK_POSITION_ENDED, "the life counts if there is one");
    bk_lives_fini(&channel.lives);
}

Test(core_subs_claim, what_the_early_view_has_shown_holds)
{
    struct bk_channel channel = {.last = 3, .shown = 6, .lives = {.now = 100}};
    uint64_t upto = 0;
    cr_assert_eq(judge(&channel, 6, 100, 0, &upto), BK_POSITION_HOLDS);
    cr_assert_eq(judge(&channel, 7, 100, 0, &upto), BK_POSITION_ENDED);
    cr_assert_eq(upto, 6);
}

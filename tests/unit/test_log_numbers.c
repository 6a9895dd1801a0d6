/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/error.h"

#include "broker/backend/numbers.h"

#include <criterion/criterion.h>

#define SERVER 7

static struct bk_log_block block(uint32_t channel, uint64_t session, uint64_t sequence, uint64_t count)
{
    return (struct bk_log_block){
        .channel = channel,
        .server = SERVER,
        .head = {.session = session, .time = session, .sequence = sequence, .instance = 1, .count = count},
        .error = -1,
    };
}

static int judge(struct bk_numbers *numbers, struct bk_log_block *one)
{
    struct bk_append append = {.blocks = one, .n_blocks = 1};
    cr_assert_eq(bk_numbers_judge(numbers, &append), 0);
    return one->error;
}

static int take(struct bk_numbers *numbers, struct bk_log_block one)
{
    struct bk_append append = {.blocks = &one, .n_blocks = 1};
    (void)judge(numbers, &one);
    bk_numbers_take(numbers, &append);
    return one.error;
}

static void change(struct bk_numbers *numbers, uint32_t id, bool removed)
{
    struct bk_log_channel entry = {.id = id, .removed = removed};
    struct bk_append append = {.channels = &entry, .n_channels = 1};
    cr_assert_eq(bk_numbers_judge(numbers, &append), 0);
    bk_numbers_take(numbers, &append);
}

Test(log_numbers, what_does_not_go_on_is_refused)
{
    struct bk_numbers *numbers = bk_numbers_new();
    struct bk_event_id id;
    uint64_t time = 0;
    cr_assert_eq(bk_numbers_add_channel(numbers, 1, 10), 0);
    cr_assert_eq(bk_numbers_add_server(numbers, &(struct bk_event_id){SERVER, 5, 2}, 5), 0);
    cr_assert_eq(take(numbers, block(1, 4, 11, 1)), BB_EEXISTS);
    cr_assert_eq(take(numbers, block(1, 6, 12, 1)), BB_ESEQUENCE);
    cr_assert_eq(take(numbers, block(2, 6, 1, 1)), BB_ENOTFOUND);
    struct bk_log_block early = block(1, 6, 11, 1);
    early.head.time = 4;
    cr_assert_eq(take(numbers, early), BB_ETIME);
    cr_assert_eq(take(numbers, block(1, 6, 11, 3)), 0);
    cr_assert_eq(take(numbers, block(1, 7, 14, 1)), 0);
    bk_numbers_last(numbers, SERVER, &id, &time);
    cr_assert(id.server == SERVER && id.session == 7 && id.instance == 1 && time == 7);
    bk_numbers_last(numbers, SERVER + 1, &id, &time);
    cr_assert(id.session == 0 && id.instance == 0 && time == 0);
    bk_numbers_free(numbers);
}

/* Judging alone leaves no trace. */
Test(log_numbers, what_was_judged_and_not_taken_is_judged_again)
{
    struct bk_numbers *numbers = bk_numbers_new();
    struct bk_log_channel entry = {.id = 1};
    struct bk_log_block one = block(1, 1, 1, 5);
    struct bk_append append = {.channels = &entry, .n_channels = 1, .blocks = &one, .n_blocks = 1};
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(bk_numbers_judge(numbers, &append), 0);
        cr_assert_eq(one.error, 0);
    }
    cr_assert_eq(judge(numbers, &one), BB_ENOTFOUND, "the channel was about to be made, and is not");
    change(numbers, 1, false);
    cr_assert_eq(take(numbers, block(1, 1, 1, 5)), 0);
    cr_assert_eq(judge(numbers, &one), BB_EEXISTS);
    bk_numbers_free(numbers);
}

Test(log_numbers, blocks_of_one_append_follow_each_other)
{
    struct bk_numbers *numbers = bk_numbers_new();
    change(numbers, 1, false);
    struct bk_log_block blocks[] = {block(1, 1, 1, 2), block(1, 2, 3, 2), block(1, 2, 5, 1),
                                    block(1, 3, 6, 1), block(1, 4, 5, 1)};
    struct bk_append append = {.blocks = blocks, .n_blocks = BB_COUNT(blocks)};
    cr_assert_eq(bk_numbers_judge(numbers, &append), 0);
    cr_assert_eq(blocks[0].error, 0);
    cr_assert_eq(blocks[1].error, 0);
    cr_assert_eq(blocks[2].error, BB_EEXISTS);
    cr_assert_eq(blocks[3].error, BB_ESEQUENCE);
    cr_assert_eq(blocks[4].error, 0);
    bk_numbers_free(numbers);
}

Test(log_numbers, a_channel_that_is_removed_takes_nothing)
{
    struct bk_numbers *numbers = bk_numbers_new();
    change(numbers, 1, false);
    struct bk_log_channel entry = {.id = 1, .removed = true};
    struct bk_log_block one = block(1, 1, 1, 1);
    struct bk_append append = {.channels = &entry, .n_channels = 1, .blocks = &one, .n_blocks = 1};
    cr_assert_eq(bk_numbers_judge(numbers, &append), 0);
    cr_assert_eq(one.error, BB_ENOTFOUND);
    bk_numbers_take(numbers, &append);
    cr_assert_eq(take(numbers, block(1, 2, 1, 1)), BB_ENOTFOUND);
    change(numbers, 1, false);
    cr_assert_eq(take(numbers, block(1, 2, 1, 1)), 0, "what is made again begins anew");
    bk_numbers_free(numbers);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Channels: names and ids, the list after a removal, lives of those that are made again. */
#include "proto/base/error.h"

#include "broker/core/keep/channel.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define MAX 4

static void init(struct bk_channels *channels)
{
    bk_channels_init(channels, 1, MAX, 100, &(struct bk_settings){.ring_bytes = 1000, .sync = true});
}

static struct bk_channel *get(struct bk_channels *channels, const char *name)
{
    struct bk_channel *channel = NULL;
    cr_assert_eq(bk_channels_get(channels, bb_slice_str(name), &channel), 0);
    return channel;
}

Test(core_keep_channel, a_channel_is_made_once_with_the_defaults)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *a = get(&channels, "a");
    cr_assert_eq(get(&channels, "a"), a);
    cr_assert_eq(a->id, 1);
    cr_assert_eq(a->lives.now, 100);
    cr_assert_eq(a->first, 1);
    cr_assert_eq(a->log_first, 1);
    cr_assert_eq(a->ring_max, 1000);
    cr_assert(a->settings.sync && bk_channel_is_empty(a));
    cr_assert(channels.has_unknown[BK_STORE_LOG] && channels.has_unknown[BK_STORE_MEMORY]);
    cr_assert_eq(bk_channels_find_id(&channels, 1), a);
    cr_assert_null(bk_channels_find_id(&channels, 2));
    cr_assert_null(bk_channels_find(&channels, bb_slice_str("b")));
    bk_channels_fini(&channels);
}

Test(core_keep_channel, the_empty_name_is_a_name)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *nameless = get(&channels, "");
    cr_assert_eq(bk_channels_find(&channels, (struct bb_slice){0}), nameless);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, only_channels_that_somebody_knows_of_are_counted)
{
    struct bk_channels channels;
    init(&channels);
    get(&channels, "a")->taken = 1;
    get(&channels, "b")->is_named = true;
    (void)get(&channels, "c");
    cr_assert_eq(bk_channels_count(&channels), 2);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, a_removed_channel_makes_room_for_another_one)
{
    struct bk_channels channels;
    struct bk_channel *channel = NULL;
    init(&channels);
    for (const char *name = "a\0b\0c\0d\0"; *name != 0; name += 2) {
        (void)get(&channels, name);
    }
    cr_assert_eq(bk_channels_get(&channels, bb_slice_str("e"), &channel), BB_ELIMIT);
    bk_channels_remove(&channels, get(&channels, "b"));
    (void)get(&channels, "e");
    cr_assert_eq(channels.n_channels, MAX);
    for (size_t i = 0; i < channels.n_channels; i++) {
        cr_assert_eq(channels.list[i]->index, i, "the last one took its place");
    }
    cr_assert_null(bk_channels_find(&channels, bb_slice_str("b")));
    bk_channels_fini(&channels);
}

Test(core_keep_channel, a_channel_that_is_made_again_lives_another_life_under_another_id)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *a = get(&channels, "a");
    uint64_t life = a->lives.now;
    uint32_t id = a->id;
    bk_channels_remove(&channels, a);
    a = get(&channels, "a");
    cr_assert_gt(a->lives.now, life);
    cr_assert_gt(a->id, id);
    cr_assert_eq(a->lives.n_past, 0, "nothing of the older one holds here");
    cr_assert_eq(get(&channels, "b")->lives.now, life, "no life is wasted on others");
    life = a->lives.now;
    bk_channels_remove(&channels, get(&channels, "b"));
    cr_assert_gt(get(&channels, "b")->lives.now, life);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, each_time_that_a_channel_is_removed_its_name_gets_another_life)
{
    struct bk_channels channels;
    init(&channels);
    uint64_t life = get(&channels, "a")->lives.now;
    for (int i = 0; i < 3; i++) {
        bk_channels_remove(&channels, get(&channels, "a"));
        cr_assert_gt(get(&channels, "a")->lives.now, life, "removal %d", i);
        life = get(&channels, "a")->lives.now;
    }
    cr_assert_eq(get(&channels, "b")->lives.now, 100, "others have what they had");
    cr_assert_eq(bb_map_count(&channels.removed), 1);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, when_more_names_were_removed_than_are_remembered_no_old_life_is_given)
{
    struct bk_channels channels;
    char name[16];
    size_t n = 0;
    init(&channels);
    do {
        (void)snprintf(name, sizeof(name), "c%zu", n++);
        bk_channels_remove(&channels, get(&channels, name));
    } while (bb_map_count(&channels.removed) == n);
    cr_assert_gt(get(&channels, name)->lives.now, 100, "its name is not remembered");
    cr_assert_gt(get(&channels, "c0")->lives.now, 100);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, an_acknowledgement_keeps_a_removed_channel_alive)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *a = bk_channel_ref(get(&channels, "a"));
    bk_channels_remove(&channels, a);
    cr_assert(bb_slice_equal(a->name, bb_slice_str("a")));
    bk_channel_unref(a);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, this_runs_lives_are_above_all_that_the_log_knows)
{
    struct bk_channels channels;
    init(&channels);
    bk_channels_raise_run(&channels, 50);
    cr_assert_eq(channels.run, 100, "the clock is ahead of them already");
    bk_channels_raise_run(&channels, 300);
    cr_assert_eq(channels.run, 301);
    cr_assert_eq(get(&channels, "a")->lives.now, 301);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, a_life_that_ends_is_told_to_the_backends)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *a = get(&channels, "a");
    a->is_known[BK_STORE_LOG] = true;
    channels.has_unknown[BK_STORE_LOG] = false;
    a->taken = 10;
    bk_channel_end_life(&channels, a, 7);
    cr_assert_eq(a->lives.now, 101);
    cr_assert_eq(a->lives.past[0].life, 100);
    cr_assert_eq(a->lives.past[0].upto, 7);
    cr_assert(!a->is_known[BK_STORE_LOG] && channels.has_unknown[BK_STORE_LOG]);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, the_first_event_of_a_run_begins_a_life_that_has_its_number)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *a = get(&channels, "a");
    a->lives.now = 5;
    a->is_loaded = true;
    a->taken = 10;
    bk_channel_begin_run(&channels, a);
    cr_assert_not(a->is_loaded);
    cr_assert_eq(a->lives.now, 100);
    cr_assert_eq(a->lives.past[0].life, 5);
    cr_assert_eq(a->lives.past[0].upto, 10);
    bk_channels_fini(&channels);
}

Test(core_keep_channel, a_life_is_told_when_it_is_stored_or_nothing_older_means_the_same)
{
    struct bk_channels channels;
    init(&channels);
    struct bk_channel *a = get(&channels, "a");
    cr_assert_eq(bk_channel_life_at(a, 0), 100, "there is no other");
    bk_channel_life_sent(&channels, a, 7);
    bk_channels_lives_stored(&channels, 7, UINT64_MAX);
    bk_channel_end_life(&channels, a, 3);
    cr_assert_eq(bk_channel_life_at(a, 3), 100);
    cr_assert_eq(bk_channel_life_at(a, 4), 101);
    bk_channel_life_sent(&channels, a, 8);
    bk_channels_lives_stored(&channels, 7, 8);
    cr_assert_eq(bk_channel_life_at(a, 3), 100, "its ticket has failed");
    bk_channel_life_sent(&channels, a, 9);
    bk_channels_lives_stored(&channels, 9, UINT64_MAX);
    cr_assert_eq(bk_channel_life_at(a, 3), 101);
    bk_channels_fini(&channels);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Routes: sets of subscriptions shared by paths, looked up again when subscriptions change. */
#include "proto/base/error.h"

#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define SUBS 3

struct fixture {
    struct bk_channels channels;
    struct bk_route route;
    struct bk_sub *subs[SUBS];
};

static void fixture_init(struct fixture *fixture)
{
    *fixture = (struct fixture){0};
    bk_channels_init(&fixture->channels, 1, 2, 1, &(struct bk_settings){.ring_bytes = 1000});
    cr_assert_eq(bk_route_init(&fixture->route, 1, &fixture->channels), 0);
}

static void fixture_fini(struct fixture *fixture)
{
    for (size_t i = 0; i < SUBS; i++) {
        if (fixture->subs[i] != NULL) {
            bk_sub_free(fixture->subs[i], &fixture->route);
        }
    }
    bk_route_fini(&fixture->route);
    bk_channels_fini(&fixture->channels);
}

static void add(struct fixture *fixture, size_t i, const char *first, const char *second)
{
    fixture->subs[i] = bk_sub_new(second != NULL ? 2 : 1);
    cr_assert_not_null(fixture->subs[i]);
    fixture->subs[i]->serial = i + 1;
    cr_assert_eq(bk_route_add(&fixture->route, &fixture->subs[i]->patterns[0], bb_slice_str(first)), 0);
    if (second != NULL) {
        cr_assert_eq(bk_route_add(&fixture->route, &fixture->subs[i]->patterns[1], bb_slice_str(second)), 0);
    }
}

static struct bk_path *find(struct fixture *fixture, const char *path)
{
    struct bk_path *found = NULL;
    cr_assert_eq(bk_route_find(&fixture->route, bb_slice_str(path), &found), 0);
    return found;
}

Test(route, paths_with_the_same_subscriptions_share_their_set)
{
    struct fixture fixture;
    fixture_init(&fixture);
    add(&fixture, 0, "a/*", NULL);
    add(&fixture, 1, "a/x", "?/x");
    cr_assert_eq(find(&fixture, "a/y")->set, find(&fixture, "a/z")->set);
    const struct bk_set *both = find(&fixture, "a/x")->set;
    cr_assert_eq(both->n_subs, 2, "once each, whatever patterns match");
    cr_assert(bk_set_has(both, fixture.subs[0]) && bk_set_has(both, fixture.subs[1]));
    cr_assert_eq(find(&fixture, "c")->set->n_subs, 0);
    uint64_t hits = fixture.route.n_hits;
    (void)find(&fixture, "a/x");
    cr_assert_eq(fixture.route.n_hits, hits + 1);
    fixture_fini(&fixture);
}

Test(route, a_change_of_subscriptions_is_seen_at_the_next_look)
{
    struct fixture fixture;
    fixture_init(&fixture);
    add(&fixture, 0, "a/*", NULL);
    cr_assert_eq(find(&fixture, "a/x")->set->n_subs, 1);
    add(&fixture, 1, "*", NULL);
    cr_assert_eq(find(&fixture, "a/x")->set->n_subs, 2);
    bk_sub_free(fixture.subs[0], &fixture.route);
    fixture.subs[0] = NULL;
    const struct bk_set *set = find(&fixture, "a/x")->set;
    cr_assert_eq(set->n_subs, 1);
    cr_assert_eq(set->subs[0], fixture.subs[1]);
    fixture_fini(&fixture);
}

Test(route, who_refuses_is_counted_anew_for_a_set_that_is_met_again)
{
    struct fixture fixture;
    fixture_init(&fixture);
    add(&fixture, 0, "a/*", NULL);
    cr_assert_eq(find(&fixture, "a/x")->set->n_refusers, 0);
    (void)find(&fixture, "a/y"); /* holds the set while the other path looks again */
    bk_route_remove(&fixture.route, &fixture.subs[0]->patterns[0]);
    fixture.subs[0]->overflow = BK_OVERFLOW_REFUSE; /* as another subscription at the same address */
    cr_assert_eq(bk_route_add(&fixture.route, &fixture.subs[0]->patterns[0], bb_slice_str("a/*")), 0);
    cr_assert_eq(find(&fixture, "a/x")->set->n_refusers, 1);
    fixture_fini(&fixture);
}

Test(route, channels_are_made_once_and_limited)
{
    struct fixture fixture;
    fixture_init(&fixture);
    cr_assert_eq(bk_route_channel(&fixture.route, find(&fixture, "a/x")), 0);
    cr_assert_eq(bk_route_channel(&fixture.route, find(&fixture, "a/y")), 0);
    cr_assert_eq(find(&fixture, "a/x")->channel, find(&fixture, "a/y")->channel);
    cr_assert_eq(bk_route_channel(&fixture.route, find(&fixture, "")), 0);
    cr_assert_eq(bk_route_channel(&fixture.route, find(&fixture, "c")), BB_ELIMIT);
    bk_route_clear(&fixture.route);
    cr_assert_null(find(&fixture, "a/x")->channel);
    cr_assert_eq(fixture.channels.n_channels, 2);
    fixture_fini(&fixture);
}

Test(route, a_pattern_that_is_none_is_not_added_and_can_be_removed)
{
    struct fixture fixture;
    fixture_init(&fixture);
    fixture.subs[0] = bk_sub_new(1);
    uint64_t generation = fixture.route.generation;
    cr_assert_eq(bk_route_add(&fixture.route, &fixture.subs[0]->patterns[0], bb_slice_str("a/*/b")),
                 BB_EPATTERN);
    bk_route_remove(&fixture.route, &fixture.subs[0]->patterns[0]);
    cr_assert_eq(fixture.route.generation, generation, "paths need not be looked up again");
    fixture_fini(&fixture);
}

Test(route, only_those_in_a_set_are_in_it)
{
    struct fixture fixture;
    fixture_init(&fixture);
    add(&fixture, 0, "a/x", NULL);
    add(&fixture, 1, "b/x", NULL);
    add(&fixture, 2, "a/*", NULL);
    const struct bk_set *set = find(&fixture, "a/x")->set;
    cr_assert(bk_set_has(set, fixture.subs[0]) && bk_set_has(set, fixture.subs[2]));
    cr_assert_not(bk_set_has(set, fixture.subs[1]));
    const struct bk_sub twin = {.serial = fixture.subs[2]->serial};
    cr_assert_not(bk_set_has(set, &twin), "it is not the number that counts");
    fixture_fini(&fixture);
}

Test(route, paths_are_forgotten_when_there_are_too_many_and_found_again)
{
    struct fixture fixture;
    char path[32];
    size_t n = 0;
    fixture_init(&fixture);
    add(&fixture, 0, "a/*", NULL);
    for (; bb_map_count(&fixture.route.paths) == n; n++) {
        (void)snprintf(path, sizeof(path), "a/%zu", n);
        cr_assert_eq(find(&fixture, path)->set->n_subs, 1);
        bk_route_trim(&fixture.route);
        cr_assert_lt(n, (size_t)1 << 20, "there is no end to it");
    }
    cr_assert_eq(bb_map_count(&fixture.route.paths), 0);
    cr_assert_eq(find(&fixture, "a/0")->set->subs[0], fixture.subs[0]);
    fixture_fini(&fixture);
}

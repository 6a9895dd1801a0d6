/* SPDX-License-Identifier: Apache-2.0 */
/* Fan-out: rounds, sets, and parcels that are shared by just those who want the same. */
#include "broker/core/clients/client.h"
#include "broker/core/deliver/fanout.h"
#include "broker/core/subs/sub.h"
#include "tests/unit/core_rig.h"

#include <inttypes.h>
#include <stdio.h>

Test(core_deliver_fanout, everybody_gets_what_it_matches_once)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_say(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/*','?/x']}");
    rig_subscribe(&rig, 2, "?/x", NULL);
    rig_subscribe(&rig, 3, "b/*", NULL);
    rig_publish(&rig, 0, 0, "a/x a/y b/x b/y a/x");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,3] b(0,2] = a1-2 b1 a3");
    RIG_TOLD(&rig, 2, "subscribed; deliver a(0,3] b(0,2] = a1 b1 a3");
    RIG_TOLD(&rig, 3, "subscribed; deliver b(0,2] = b1-2");
    rig_stop(&rig);
}

Test(core_deliver_fanout, what_nobody_wants_brings_nobody_on)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/x", NULL);
    rig_publish(&rig, 0, 0, "a/y");
    rig_publish(&rig, 0, 0, "a/y a/x a/y");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,4] = a3");
    cr_assert_eq(RIG_COUNT(&rig, events_unmatched), 3);
    rig_stop(&rig);
}

Test(core_deliver_fanout, much_comes_in_rounds_of_limited_size_and_in_order)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig.payload = 50000;
    rig_subscribe(&rig, 1, "*", NULL);
    for (int i = 0; i < 4; i++) {
        rig_batch(&rig, 0, 0, "a/x b/x");
    }
    bk_core_flush(rig.core);
    RIG_TOLD(
        &rig, 1,
        "subscribed; deliver a(0,3] b(0,2] = a1 b1 a2 b2 a3; deliver b(2,3] = b3; deliver a(3,4] b(3,4] = a4 b4");
    rig_stop(&rig);
}

Test(core_deliver_fanout, the_windows_see_every_event_once_while_they_are_open)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x a/y");
    cr_assert_eq(rig.n_windowed, 0);
    rig.window_is_open = true;
    rig_publish(&rig, 0, 0, "a/x a/y b/x");
    cr_assert_eq(rig.n_windowed, 3);
    rig_stop(&rig);
}

/* --- keys that collide --------------------------------------------------------------------------------------- */

/*
 * Sets of a round, by index: with the seed 0 the keys of the first eight have the same sum as those of the others. Where they
 * do not any more (the test says so), others are found by a generalised birthday search over differences of two keys.
 */
static const uint32_t first_sets[] = {25, 88, 170, 345, 373, 429, 465, 727};
static const uint32_t other_sets[] = {99, 355, 382, 511, 608, 649, 692, 738};

#define SETS 739

static void subscribe_to(struct rig *rig, size_t i, uint64_t sub, const uint32_t *paths, size_t n)
{
    char patterns[8000] = "";
    size_t len = 0;
    for (size_t k = 0; k < n; k++) {
        len += (size_t)snprintf(patterns + len, sizeof(patterns) - len, "%s'a/%" PRIu32 "'", k > 0 ? "," : "",
                                paths[k]);
    }
    rig_say(rig, i, "{'op':'subscribe','corr':1,'sub':%" PRIu64 ",'patterns':[%s]}", sub, patterns);
    (void)rig_told(rig, i);
}

/* Subscriptions that let each of the paths go to a set of its own. */
static void tell_paths_apart(struct rig *rig, size_t i)
{
    for (uint32_t bit = 0; bit < 10; bit++) {
        uint32_t paths[SETS];
        size_t n = 0;
        for (uint32_t path = 0; path < SETS; path++) {
            if (((path + 1) >> bit & 1) != 0) {
                paths[n++] = path;
            }
        }
        subscribe_to(rig, i, bit + 1, paths, n);
    }
}

static void publish_all_paths(struct rig *rig)
{
    char paths[8000] = "";
    size_t len = 0;
    for (uint32_t path = 0; path < SETS; path++) {
        len += (size_t)snprintf(paths + len, sizeof(paths) - len, "a/%" PRIu32 " ", path);
    }
    rig_publish(rig, 0, 0, paths);
}

Test(core_deliver_fanout, subscriptions_whose_keys_collide_get_their_own_events)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.check = false; /* it looks at all paths again after each call */
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    tell_paths_apart(&rig, 1);
    subscribe_to(&rig, 2, 1, first_sets, BB_COUNT(first_sets));
    subscribe_to(&rig, 3, 1, other_sets, BB_COUNT(other_sets));
    rig.peers[1].answer = BB_EAGAIN; /* of no interest */
    publish_all_paths(&rig);
    cr_assert_eq(rig_sub(&rig, 2)->round_key, rig_sub(&rig, 3)->round_key, "other keys must be found");
    RIG_TOLD(&rig, 2, "deliver a(0,739] = a26 a89 a171 a346 a374 a430 a466 a728");
    RIG_TOLD(&rig, 3, "deliver a(0,739] = a100 a356 a383 a512 a609 a650 a693 a739");
    rig_stop(&rig);
}

/* It waited for the disk longer than it is of use. */
Test(core_deliver_fanout, what_has_expired_when_it_becomes_durable_is_a_gap_for_who_is_live)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_publish(&rig, 0, 0, "a/x");
    rig.ttl_ms = 5;
    rig_publish(&rig, 0, 0, "a/x");
    rig_pass(&rig, 6000);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; gap a[2,2]x1 expired");
    cr_assert(bk_sub_is_live(rig_sub(&rig, 1)));
    rig_stop(&rig);
}

Test(core_deliver_fanout, many_different_subscriptions_in_one_round_each_get_their_own)
{
    enum {
        MANY = 100
    };
    struct rig rig;
    char paths[8 * MANY] = "";
    size_t len = 0;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    for (int i = 0; i < MANY; i++) {
        rig_put(&rig, 1, "{'op':'subscribe','corr':1,'sub':%d,'patterns':['a/%d']}", i + 1, i);
        len += (size_t)snprintf(paths + len, sizeof(paths) - len, "a/%d ", i);
    }
    (void)rig_told(&rig, 1);
    rig_publish(&rig, 0, 0, paths);
    const char *told = rig_told(&rig, 1);
    for (int i = 0; i < MANY; i++) {
        char wanted[64];
        (void)snprintf(wanted, sizeof(wanted), "deliver a(0,%d] = a%d;", MANY, i + 1);
        cr_assert(i == MANY - 1 || strstr(told, wanted) != NULL, "%s in %s", wanted, told);
    }
    cr_assert_eq(RIG_COUNT(&rig, events_out), MANY);
    rig_stop(&rig);
}

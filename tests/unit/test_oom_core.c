/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory runs out in the broker's core, at every allocation of a scenario that goes through all of it, with a log
 * and without: once, and from there on. Nothing is lost without a word, nobody goes without a word, the core works on
 * when there is memory again, and all memory comes back.
 */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "tests/lib/fault.h"
#include "tests/unit/oom_world.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#define MANY 80

static const char *const all[] = {"*"};
static const char *const filtered[] = {"plant/?/temp", "other/*", "third/x"};
static const char *const plant[] = {"plant/*"};
static const char *const third[] = {"third/*", "?/1/temp"};
static char many_text[MANY][24];
static const char *many[MANY];

static const char *const mixed[] = {"plant/1/temp", "plant/2/temp", "plant/1/state",
                                    "other/a",      "third/x",      "third/y"};
static const char *const temps[] = {"plant/1/temp", "plant/1/temp", "plant/2/temp"};
static const char *const two[] = {"plant/3/temp", "other/b"};
/* Together more than one chunk, and a run for each event. */
static const char *const turns[] = {"plant/1/temp", "other/a", "plant/1/temp", "other/a",
                                    "plant/1/temp", "other/a", "plant/1/temp", "other/a",
                                    "plant/1/temp", "other/a", "plant/1/temp", "other/a"};

static const char *const secrets[] = {"0123456789abcdef", "fedcba9876543210"};

static void many_init(void)
{
    for (size_t i = 0; i < MANY; i++) {
        (void)snprintf(many_text[i], sizeof(many_text[i]), "%s/%zu/temp", i % 2 == 0 ? "plant" : "other", i);
        many[i] = many_text[i];
    }
}

/* The ways to begin (PROTOCOL 7.1). */
static void write_from(struct bb_buf *out, size_t i)
{
    bb_buf_reset(out);
    if (i == 0) {
        bb_mp_write_str(out, bb_slice_str("last"));
    } else if (i == 1) {
        bb_mp_write_uint(out, 2);
    } else if (i == 2) {
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, 1);
    } else {
        bb_mp_write_map(out, 2);
        bb_mp_write_str(out, bb_slice_str("run"));
        bb_mp_write_uint(out, i == 3 ? 7 : 6);
        bb_mp_write_str(out, bb_slice_str("after"));
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("plant"));
        bb_mp_write_uint(out, 1);
    }
}

static void ask(struct world *world, struct peer *peer)
{
    world_say(world, peer, &(struct bb_msg){.type = BB_MSG_STATUS}, true);
    world_say(world, peer,
              &(struct bb_msg){
                  .type = BB_MSG_MATCHES, .path = bb_slice_str("plant/1/temp"), .min = 1, .timeout = 100},
              true);
    world_say(world, peer,
              &(struct bb_msg){
                  .type = BB_MSG_MATCHES, .path = bb_slice_str("nobody/wants"), .min = 1, .timeout = 100},
              true);
}

static void watch_from_everywhere(struct world *world)
{
    struct bb_buf from = BB_BUF_INIT;
    struct peer *peer = world_peer(world, NULL);
    for (size_t i = 0; i < 5; i++) {
        write_from(&from, i);
        world_watch(world, peer, i % 2 == 0 ? filtered : all, i % 2 == 0 ? BB_COUNT(filtered) : 1,
                    bb_buf_slice(&from), "slide", 1000);
    }
    bb_buf_fini(&from);
}

/* Each on its own; returns where in the world's peers they begin. */
static size_t watch_slowly(struct world *world)
{
    size_t first = world->n_peers;
    static const char *const policies[] = {"slide",       "slide",       "slide",     "conflate",
                                           "drop_oldest", "drop_newest", "disconnect"};
    const struct bb_slice none = {0};
    for (size_t i = 0; i < BB_COUNT(policies); i++) {
        struct peer *peer = world_peer(world, NULL);
        world_watch(world, peer, i % 2 == 0 ? all : filtered, i % 2 == 0 ? 1 : BB_COUNT(filtered), none,
                    policies[i], 1);
    }
    return first;
}

/* One life of a broker, in little. @secret is the publisher's. */
static void live(struct world *world, const char *secret)
{
    const struct bb_slice none = {0};
    struct peer *publisher = world_peer(world, secret);
    struct peer *asker = world_peer(world, NULL);
    ask(world, asker);
    struct peer *quick = world_peer(world, NULL);
    world_watch(world, quick, all, 1, none, "slide", 100000);
    world_watch(world, quick, many, MANY, none, "slide", 100000);
    struct peer *same = world_peer(world, NULL);
    world_watch(world, same, plant, 1, none, "slide", 100000);
    world_watch(world, same, third, BB_COUNT(third), none, "slide", 100000);
    size_t slow = watch_slowly(world);
    world_publish(world, publisher, mixed, BB_COUNT(mixed), 10, false, true, true);
    world_publish(world, publisher, two, BB_COUNT(two), 6000, true, true, false);
    world_flush(world);
    ask(world, asker);
    watch_from_everywhere(world);
    world_publish(world, publisher, two, BB_COUNT(two), 6000, true, true, false);
    world_flush(world);
    world_watch(world, same, plant, 1, none, "refuse", 100000);
    for (int i = 0; i < 6; i++) {
        world_publish(world, publisher, temps, BB_COUNT(temps), 1500, i % 2 == 0, true, false);
        world_publish(world, publisher, mixed, BB_COUNT(mixed), 100, false, i % 3 != 0, i == 3);
        if (i == 2) { /* so that what is evicted later has to be matched again */
            world_leave(world, &world->peers[slow]);
        }
        world_flush(world);
    }
    world_publish(world, publisher, turns, BB_COUNT(turns), 6000, false, true, false);
    world_publish(world, publisher, turns, BB_COUNT(turns), 6000, false, false, false);
    world_flush(world);
    watch_from_everywhere(world); /* much is not kept any more */
    world_ingest(world, "third/z");
    world_unwatch(world, same);
    world_leave(world, quick);
    world_publish(world, publisher, mixed, BB_COUNT(mixed), 10, false, true, false);
    struct peer *again = world_peer(world, secret);
    world_publish(world, again, mixed, BB_COUNT(mixed), 10, false, true, false);
    world_tick(world, 1000);
    world_credit(world);
    for (int i = 0; i < 4; i++) {
        world_flush(world);
    }
    ask(world, asker);
}

/* --- with a log ----------------------------------------------------------------------------------------- */

/* What is written in MessagePack by hand. */
#define MP(text) bb_slice(text, sizeof(text) - 1)

static void say_channel(struct world *world,
                        struct peer *peer,
                        const char *action,
                        const char *name,
                        struct bb_slice settings)
{
    world_say(world, peer,
              &(struct bb_msg){.type = BB_MSG_CHANNEL,
                               .action = bb_slice_str(action),
                               .name = bb_slice_str(name),
                               .settings = settings},
              true);
}

static void save_cursor(struct world *world, struct peer *peer)
{
    world_say(world, peer,
              &(struct bb_msg){
                  .type = BB_MSG_CURSOR, .name = bb_slice_str("c"), .positions = MP("\x91\x92\xa5plant\x03")},
              true);
}

static void ask_log(struct world *world, struct peer *peer)
{
    world_say(world, peer, &(struct bb_msg){.type = BB_MSG_QUERY, .query = MP("\x80")}, true);
    world_say(world, peer, &(struct bb_msg){.type = BB_MSG_QUERY, .query = MP("\x81\xa4kind\xa6latest")},
              true);
    world_say(world, peer, &(struct bb_msg){.type = BB_MSG_LOG, .action = bb_slice_str("status")}, true);
}

/* Each on its own, so that it ends alone. */
static void watch_with(struct world *world, struct bb_slice from, struct bb_slice options, bool is_early)
{
    struct peer *peer = world_peer(world, NULL);
    struct watch *watch = world_watch_with(world, peer, all, 1, from, options);
    if (watch != NULL) {
        watch->is_early = is_early;
    }
}

static void publish_some(struct world *world, struct peer *publisher)
{
    world_publish(world, publisher, mixed, BB_COUNT(mixed), 100, false, true, false);
    world_publish(world, publisher, two, BB_COUNT(two), 6000, true, true, false);
    world_publish(world, publisher, temps, BB_COUNT(temps), 1500, false, true, true);
    world_flush(world);
}

/* The same life where channels are kept in a log. */
static void live_with_log(struct world *world, const char *secret)
{
    const struct bb_slice none = {0};
    struct peer *asker = world_peer(world, NULL);
    say_channel(world, asker, "add", "third", MP("\x81\xa5store\xa6memory"));
    say_channel(world, asker, "add", "gone", none);
    world_flush(world);
    struct peer *publisher = world_peer(world, secret);
    struct peer *quick = world_peer(world, NULL);
    world_watch(world, quick, all, 1, none, "slide", 100000);
    watch_with(world, none,
               MP("\x81\xa4view\xa5"
                  "early"),
               true);
    (void)watch_slowly(world);
    publish_some(world, publisher);
    save_cursor(world, asker);
    publish_some(world, publisher);
    publish_some(world, publisher);
    watch_from_everywhere(world);
    watch_with(world, none,
               MP("\x81\xa7"
                  "durable\xa1"
                  "c"),
               false);
    watch_with(world, none, MP("\x81\xa8retained\xc3"), false);
    watch_with(world, MP("\xa6oldest"), MP("\x81\xa5until\xa3now"), false);
    world_flush(world);
    world_publish_if(world, publisher, "plant/3/temp", 5); /* a conflict, or the log is asked */
    world_publish_if(world, publisher, "plant/1/none", 0);
    world_publish(world, publisher, mixed, BB_COUNT(mixed), 10, false, true, false);
    ask_log(world, asker);
    for (int i = 0; i < 4; i++) {
        world_flush(world);
    }
    world_publish(world, publisher, many, MANY, 1, false, true, false); /* as many blocks */
    world_flush(world);
    say_channel(world, asker, "set", "plant", MP("\x81\xaamax_events\x14"));
    say_channel(world, asker, "rm", "gone", none);
    say_channel(world, asker, "trim", "other", MP("\x81\xa4keep\x02"));
    world_credit(world);
    publish_some(world, publisher);
    struct peer *again = world_peer(world, secret); /* while what it published is on its way */
    world_repeat(world, again);
    publish_some(world, again);
    save_cursor(world, asker);
    world_leave(world, again);
    for (int i = 0; i < 6; i++) {
        world_flush(world);
        world_tick(world, 1000);
    }
}

/* --- what holds afterwards ------------------------------------------------------------------------------ */

/* Memory is there again: all is settled, and everything works. */
static void settle(struct world *world, const char *secret, bool is_strict)
{
    struct peer *publisher = world_peer(world, secret);
    cr_assert(publisher != NULL && publisher->is_ready);
    world_repeat(world, publisher);
    world_credit(world);
    world_drain(world);
    world_tick(world, 2000000); /* requests that wait end, removals are tried again */
    world_drain(world);
    world_check(world, is_strict);
}

static void work_on(struct world *world)
{
    struct peer *publisher = world_peer(world, secrets[1]);
    struct peer *reader = world_peer(world, NULL);
    cr_assert(publisher != NULL && publisher->is_ready && reader != NULL && reader->is_ready);
    world->number = 0; /* of another producer */
    world->n_batches = 0;
    world_watch(world, reader, all, 1, (struct bb_slice){0}, "slide", 100000);
    world_watch(world, reader, filtered, BB_COUNT(filtered), (struct bb_slice){0}, "slide", 100000);
    world_publish(world, publisher, mixed, BB_COUNT(mixed), 10, false, true, true);
    world_publish(world, publisher, two, BB_COUNT(two), 6000, true, true, false);
    world_drain(world);
    world_check(world, true);
    cr_assert(publisher->is_open && reader->is_open);
    for (size_t i = 0; i < world->n_batches; i++) {
        cr_assert_eq(world->batches[i].fate, FATE_ACKED);
        cr_assert_eq(world->batches[i].n_taken, world->batches[i].n_events);
    }
}

static void batches_forget(struct world *world)
{
    for (size_t i = 0; i < world->n_batches; i++) {
        bb_buf_fini(&world->batches[i].bytes);
    }
    world->n_batches = 0;
}

/* Whether a fault happened. */
static bool run(size_t nth, enum fault_mode mode, bool has_log)
{
    struct world *world = calloc(1, sizeof(*world));
    cr_assert_not_null(world);
    size_t live_before = fault_live();
    fault_start(nth, mode);
    bool is_open = world_open(world, has_log);
    if (is_open) {
        (has_log ? live_with_log : live)(world, secrets[0]);
    }
    bool failed = fault_stop();
    cr_assert(is_open || failed);
    if (is_open) {
        settle(world, secrets[0], mode == FAULT_ONCE);
        batches_forget(world);
        work_on(world);
        world_close(world);
    }
    cr_assert_eq(fault_live(), live_before, "fault %zu: %zu pieces of memory did not come back", nth,
                 fault_live() - live_before);
    free(world);
    return failed;
}

static void sweep(enum fault_mode mode, bool has_log)
{
    size_t nth = 0;
    many_init();
    while (run(nth, mode, has_log)) {
        nth++;
    }
    cr_assert_gt(nth, 300, "the scenario allocates more than that");
}

Test(oom_core, whatever_allocation_fails_everybody_knows_and_the_core_works_on)
{
    sweep(FAULT_ONCE, false);
}

Test(oom_core, whenever_memory_ends_everybody_knows_and_the_core_works_on_when_it_is_back)
{
    sweep(FAULT_ONWARD, false);
}

Test(oom_core, with_a_log_whatever_allocation_fails_everybody_knows_and_the_core_works_on)
{
    sweep(FAULT_ONCE, true);
}

Test(oom_core, with_a_log_whenever_memory_ends_everybody_knows_and_the_core_works_on_when_it_is_back)
{
    sweep(FAULT_ONWARD, true);
}

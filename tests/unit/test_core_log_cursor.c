/* SPDX-License-Identifier: Apache-2.0 */
/* Durable cursors: what is saved, and what it is worth later. */
#include "proto/wire/mp.h"

#include "broker/core/keep/channel.h"
#include "broker/core/log/cursor.h"
#include "tests/unit/core_rig.h"

static void start(struct rig *rig, bool has_log)
{
    rig_init(rig);
    rig_start(rig, false, has_log);
    rig_hello_all(rig);
}

static void save(struct rig *rig, const char *positions)
{
    rig_say(rig, 0, "{'op':'cursor','corr':5,'name':'here','positions':%s}", positions);
    rig_settle(rig);
    RIG_TOLD(rig, 0, "result 5");
}

static void assert_saved(const struct rig *rig, const char *bytes, size_t len)
{
    cr_assert(bb_slice_equal(bk_cursor_find(rig->core, bb_slice_str("here")), bb_slice(bytes, len)));
}

Test(core_log_cursor, a_position_is_saved_with_the_life_that_its_channel_has)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "3:a/x");
    save(&rig, "[['a',2]]");
    assert_saved(&rig,
                 "\x91\x93\xa1"
                 "a\x02\x64",
                 6);
    save(&rig, "[['a',2,7]]");
    assert_saved(&rig,
                 "\x91\x93\xa1"
                 "a\x02\x07",
                 6);
    save(&rig, "[['a',4],['none',1]]");
    assert_saved(&rig,
                 "\x92\x92\xa1"
                 "a\x04\x92\xa4none\x01",
                 12);
    rig_stop(&rig);
}

Test(core_log_cursor, who_begins_there_begins_behind_it)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "3:a/x b/x");
    save(&rig, "[['a',2]]");
    rig_subscribe(&rig, 1, "*", "'options':{'durable':'here'}");
    RIG_TOLD(&rig, 1, "subscribed a@2 b@0; deliver a(2,3] b(0,1] = a3 b1");
    rig_subscribe(&rig, 2, "*", "'from':{'after':{'a':[1,100],'b':[1,100]}},'options':{'durable':'here'}");
    RIG_TOLD(&rig, 2, "subscribed a@1 b@1; deliver a(1,3] = a2-3");
    rig_subscribe(&rig, 3, "*", "'from':'oldest','options':{'durable':'there'}");
    RIG_TOLD(&rig, 3, "subscribed a@0 b@0; deliver a(0,3] b(0,1] = a1-3 b1");
    rig_stop(&rig);
}

Test(core_log_cursor, without_positions_it_is_forgotten)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    save(&rig, "[['a',2]]");
    rig_say(&rig, 0, "{'op':'cursor','corr':6,'name':'here'}");
    rig_settle(&rig);
    cr_assert_eq(bk_cursor_find(rig.core, bb_slice_str("here")).len, 0);
    rig_restart(&rig, true);
    cr_assert_eq(bk_cursor_find(rig.core, bb_slice_str("here")).len, 0);
    rig_stop(&rig);
}

Test(core_log_cursor, it_outlives_the_broker_with_a_log)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    save(&rig, "[['a',1]]");
    save(&rig, "[['a',2]]");
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'durable':'here'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@2; deliver a(2,3] = a3");
    rig_stop(&rig);
}

/* --- made where a subscription begins ---------------------------------------------------------------------- */

#define HERE "'options':{'durable':'here'}"

/* The next one of that name, without a save: what it is told. */
static const char *begin_again(struct rig *rig, const char *pattern)
{
    rig_gone(rig, 1);
    rig_new_peer(rig, 1);
    rig_hello(rig, 1, NULL, 0);
    (void)rig_told(rig, 1);
    rig_subscribe(rig, 1, pattern, HERE);
    rig_settle(rig);
    return rig_told(rig, 1);
}

Test(core_log_cursor, who_ends_before_it_saves_is_gone_on_with_where_it_began)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "*", HERE);
    rig_publish(&rig, 0, 0, "a/x b/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@3; deliver a(3,4] b(0,1] = a4 b1");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    cr_assert_str_eq(begin_again(&rig, "*"), "subscribed a@3 b@0; deliver a(3,5] b(0,1] = a4 b1 a5");
    cr_assert_str_eq(begin_again(&rig, "*"), "subscribed a@3 b@0; deliver a(3,5] b(0,1] = a4 b1 a5");
    rig_stop(&rig);
}

Test(core_log_cursor, one_that_was_made_is_on_disk_with_what_comes_after_it)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_put(&rig, 1, "{'op':'subscribe','corr':1,'sub':1,'patterns':['a/*'],%s}", HERE);
    RIG_TOLD(&rig, 1, "subscribed a@3");
    rig_publish(&rig, 0, 0, "a/x");
    rig_commit(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", HERE);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@3; deliver a(3,4] = a4");
    rig_stop(&rig);
}

Test(core_log_cursor, one_that_the_log_did_not_take_is_registered_again)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", HERE);
    rig_fail(&rig, BB_ENOMEM);
    rig_pass(&rig, 2000000);
    rig_settle(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", HERE);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@3; deliver a(3,4] = a4");
    rig_stop(&rig);
}

Test(core_log_cursor, one_is_made_where_the_log_says_and_with_an_end)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':2,'options':{'durable':'here','until':'now'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@1 until a@3; deliver a(1,3] = a2-3; ended done");
    cr_assert_str_eq(begin_again(&rig, "a/*"), "subscribed a@1; deliver a(1,3] = a2-3");
    rig_restart(&rig, true); /* the ring is empty */
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':'last','options':{'durable':'there'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@2; deliver a(2,3] = a3");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 2, "a/*", "'options':{'durable':'there'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "subscribed a@2; deliver a(2,4] = a3-4");
    rig_stop(&rig);
}

Test(core_log_cursor, one_is_made_too_when_retained_values_are_wanted_first)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x a/y");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'durable':'here','retained':true}");
    RIG_TOLD(&rig, 1, "subscribed a@2"); /* and it ends before it has got them */
    rig_publish(&rig, 0, 0, "a/x a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 2, "a/*", "'options':{'durable':'here','retained':true}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 2, "subscribed a@2; deliver retained1 = a2; deliver retained2 =; deliver a(2,4] = a3-4");
    rig_stop(&rig);
}

Test(core_log_cursor, one_is_made_in_memory_and_void_in_the_next_run)
{
    struct rig rig;
    start(&rig, true);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'add','name':'mem','settings':{'store':'memory'}}");
    rig_publish(&rig, 0, 0, "10:mem/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "mem/*", HERE);
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed mem@10");
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "5:mem/x");
    for (size_t i = 0; i < 2; i++) { /* nobody has saved another place */
        rig_subscribe(&rig, 1 + i, "mem/*", HERE);
        rig_settle(&rig);
        RIG_TOLD(&rig, 1 + i, "subscribed mem@0; gap mem[11,-]x- restart; deliver mem(0,5] = mem1-5");
    }
    rig_stop(&rig);
}

Test(core_log_cursor, who_resumes_makes_none)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_subscribe(&rig, 1, "a/*", "'from':{'after':{'a':[2,100]}},'options':{'durable':'here'}");
    RIG_TOLD(&rig, 1, "subscribed a@2; deliver a(2,3] = a3");
    cr_assert_eq(bk_cursor_find(rig.core, bb_slice_str("here")).len, 0);
    rig_stop(&rig);
}

/* --- what is void ------------------------------------------------------------------------------------------ */

Test(core_log_cursor, in_a_channel_that_was_removed_and_made_again_it_is_void)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "10:a/x");
    rig_settle(&rig);
    save(&rig, "[['a',10]]");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'durable':'here'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; gap a[11,-]x- restart; deliver a(0,5] = a1-5");
    rig_stop(&rig);
}

Test(core_log_cursor, in_a_channel_in_memory_after_a_restart_it_is_void)
{
    struct rig rig;
    start(&rig, true);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'add','name':'mem','settings':{'store':'memory'}}");
    rig_publish(&rig, 0, 0, "10:mem/x");
    rig_settle(&rig);
    save(&rig, "[['mem',10]]");
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "5:mem/x");
    rig_subscribe(&rig, 1, "mem/*", "'options':{'durable':'here'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed mem@0; gap mem[11,-]x- restart; deliver mem(0,5] = mem1-5");
    rig_stop(&rig);
}

Test(core_log_cursor, a_cursor_from_before_there_were_lives_holds_in_a_log_from_then)
{
    static const uint8_t positions[] = {0x91, 0x92, 0xa1, 'a', 2};
    struct rig rig;
    struct bk_log_cursor cursor = {.name = bb_slice_str("old"),
                                   .value = bb_slice(positions, sizeof(positions))};
    struct bk_log_channel channel = {
        .id = 1, .name = bb_slice_str("a"), .retention = BK_RETENTION_INIT, .settings = bb_slice("\x80", 1)};
    struct bb_buf events = BB_BUF_INIT;
    start(&rig, true);
    rig_events(&rig, "3:a/x", &events);
    struct bk_log_block block = {.channel = 1,
                                 .server = 1,
                                 .head = {.session = 1, .time = 5, .sequence = 1, .instance = 1, .count = 3},
                                 .events = events.data};
    block.head.length = events.len;
    struct bk_append append = {.channels = &channel,
                               .n_channels = 1,
                               .blocks = &block,
                               .n_blocks = 1,
                               .cursors = &cursor,
                               .n_cursors = 1};
    cr_assert_eq(rig.log->backend.ops->register_(&rig.log->backend, &append, 1), 0);
    rig_commit(&rig);
    bb_buf_fini(&events);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_subscribe(&rig, 1, "a/*", "'options':{'durable':'old'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@2; deliver a(2,3] = a3");
    rig_stop(&rig);
}

Test(core_log_cursor, what_is_no_list_of_positions_is_refused)
{
    static const char *const bad[] = {"{}",      "[1]",       "[['a']]", "[['a','b']]", "[['a',1,2,3]]",
                                      "[[1,2]]", "[['a',-1]]"};
    struct rig rig;
    start(&rig, true);
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        rig_say(&rig, 0, "{'op':'cursor','corr':5,'name':'here','positions':%s}", bad[i]);
        cr_assert_str_eq(rig_told(&rig, 0), "error cursor/5 bad_argument", "%s", bad[i]);
    }
    rig_say(&rig, 0, "{'op':'cursor','corr':5,'name':'','positions':[['a',1]]}");
    RIG_TOLD(&rig, 0, "error cursor/5 bad_argument");
    rig_say(&rig, 0, "{'op':'cursor','corr':5,'name':'%065d','positions':[['a',1]]}", 7);
    RIG_TOLD(&rig, 0, "error cursor/5 bad_argument");
    cr_assert_not(bk_core_wants_flush(rig.core));
    rig_stop(&rig);
}

Test(core_log_cursor, there_are_bounds_for_one_and_for_all)
{
    enum {
        MOST = 65536
    };
    struct rig rig;
    rig_init(&rig);
    rig.config.check = false; /* after each of so many calls it takes long */
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_say(&rig, 0, "{'op':'cursor','corr':5,'name':'c','positions':[['a',9007199254740993]]}");
    RIG_TOLD(&rig, 0, "error cursor/5 bad_argument");
    for (int i = 0; i < MOST; i++) {
        rig_put(&rig, 0, "{'op':'cursor','corr':5,'name':'c%d','positions':[['a',1]]}", i);
        RIG_TOLD(&rig, 0, "result 5");
    }
    rig_say(&rig, 0, "{'op':'cursor','corr':5,'name':'one more','positions':[['a',1]]}");
    rig_say(&rig, 0, "{'op':'cursor','corr':6,'name':'c7','positions':[['a',2]]}");
    rig_say(&rig, 0, "{'op':'cursor','corr':7,'name':'c8'}");
    rig_say(&rig, 0, "{'op':'cursor','corr':8,'name':'one more','positions':[['a',1]]}");
    RIG_TOLD(&rig, 0, "error cursor/5 limit; result 6; result 7; result 8");
    rig_publish(&rig, 0, 0, "a/x");
    rig_subscribe(&rig, 1, "*", "'options':{'durable':'another','retained':true,'until':'now'}");
    RIG_TOLD(&rig, 1, "error subscribe/1 limit");
    cr_assert_str_eq(rig.peers[1].text, "there is no room for the cursor of a new durable name");
    rig_say(&rig, 0, "{'op':'cursor','corr':9,'name':'c9'}");
    RIG_TOLD(&rig, 0, "result 9");
    rig_subscribe(&rig, 1, "*", "'options':{'durable':'another'}"); /* its number is free */
    RIG_TOLD(&rig, 1, "subscribed a@1");
    rig_stop(&rig);
}

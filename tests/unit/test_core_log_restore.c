/* SPDX-License-Identifier: Apache-2.0 */
/* What an earlier run left in the log, and what of it still holds. */
#include "broker/core/clients/producer.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/policy.h"
#include "broker/core/log/cursor.h"
#include "broker/core/log/restore.h"
#include "tests/unit/core_rig.h"

static void restart(struct rig *rig)
{
    rig_restart(rig, true);
    rig_hello_all(rig);
}

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, true);
    rig_hello_all(rig);
}

Test(core_log_restore, channels_come_back_with_their_ends_settings_and_lives)
{
    struct rig rig;
    start(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'add','name':'a','settings':{'early':true}}");
    rig_publish(&rig, 0, 0, "3:a/x b/x");
    rig_settle(&rig);
    uint32_t id = rig_channel(&rig, "a")->id;
    restart(&rig);
    const struct bk_channel *a = rig_channel(&rig, "a");
    cr_assert(a->id == id && a->last == 3 && a->taken == 3 && a->first == 4 && a->log_first == 1);
    cr_assert(a->settings.early && a->settings.logged);
    cr_assert_eq(a->lives.now, 100, "nothing of it was changed");
    rig_publish(&rig, 0, 0, "a/x");
    cr_assert_eq(a->lives.now, 200, "an older copy could not have this");
    cr_assert_eq(a->lives.past[0].upto, 3);
    cr_assert_eq(rig_channel(&rig, "b")->lives.now, 100);
    rig_stop(&rig);
}

Test(core_log_restore, a_log_of_another_server_is_refused)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig.core->config.server = 2;
    cr_assert_eq(bk_restore(rig.core, rig.core->stage.backend), BB_EINVAL);
    rig.core->config.server = 1;
    rig_stop(&rig);
}

Test(core_log_restore, positions_of_the_run_before_hold)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    restart(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'run':100,'after':{'a':2}}");
    rig_subscribe(&rig, 2, "a/*", "'from':{'after':{'a':[2,100]}},'options':{'lives':true}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@2; deliver a(2,4] = a3-4");
    RIG_TOLD(&rig, 2, "subscribed a@2/200; deliver a(2,4] = a3-4");
    rig_stop(&rig);
}

/* The last events were seen early, or the log is an older copy: the next ones have their numbers. */
Test(core_log_restore, a_position_ahead_of_the_log_goes_back_to_its_end)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    rig_publish(&rig, 0, 0, "2:a/x"); /* not durable when it crashes */
    restart(&rig);
    rig_publish(&rig, 0, 0, "4:a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'run':100,'after':{'a':5}}");
    rig_subscribe(&rig, 2, "a/*", "'from':{'after':{'a':[5,100]}}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@3; gap a[4,5]x- retracted; deliver a(3,7] = a4-7");
    RIG_TOLD(&rig, 2, "subscribed a@3; gap a[4,5]x- retracted; deliver a(3,7] = a4-7");
    rig_stop(&rig);
}

Test(core_log_restore, a_position_ahead_of_the_log_is_told_before_anything_new_came_too)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    restart(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'run':100,'after':{'a':5}}");
    RIG_TOLD(&rig, 1, "subscribed a@3; gap a[4,5]x- retracted");
    rig_stop(&rig);
}

/* The first event of a run begins a life. Whoever has only durable events must not be told it before it is stored: a crash would make
 * the place void. */
Test(core_log_restore, a_life_that_is_not_stored_is_not_told_to_who_has_only_what_is_durable)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "3:a/x");
    rig_settle(&rig);
    restart(&rig);
    rig_publish(&rig, 0, 0, "a/x"); /* not durable when it crashes */
    rig_subscribe(&rig, 1, "a/*", "'from':{'after':{'a':[2,100]}},'options':{'lives':true}");
    rig_subscribe(&rig, 2, "a/*", "'from':'oldest','options':{'lives':true,'until':'now'}");
    RIG_TOLD(&rig, 1, "subscribed a@2/100");
    RIG_TOLD(&rig, 2, "subscribed a@0/100 until a@3/100");
    restart(&rig);
    rig_subscribe(&rig, 1, "a/*", "'from':{'after':{'a':[3,100]}},'options':{'lives':true}");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@3/100; deliver a(3,4]/300 = a4");
    rig_stop(&rig);
}

Test(core_log_restore, a_channel_in_memory_begins_anew_and_keeps_its_settings)
{
    struct rig rig;
    start(&rig);
    rig_say(
        &rig, 0,
        "{'op':'channel','corr':1,'action':'add','name':'m','settings':{'store':'memory','overflow':'refuse'}}");
    rig_publish(&rig, 0, 0, "3:m/x");
    rig_settle(&rig);
    restart(&rig);
    const struct bk_channel *m = rig_channel(&rig, "m");
    cr_assert(!m->settings.logged && m->settings.overflow == BK_OVERFLOW_REFUSE && m->taken == 0);
    cr_assert_eq(m->lives.now, 200);
    rig_publish(&rig, 0, 0, "5:m/x");
    rig_subscribe(&rig, 1, "m/*", "'from':{'after':{'m':[3,100]}}");
    rig_subscribe(&rig, 2, "m/*", "'from':{'run':100,'after':{'m':3}}");
    RIG_TOLD(&rig, 1, "subscribed m@0; gap m[4,-]x- restart; deliver m(0,5] = m1-5");
    RIG_TOLD(&rig, 2, "subscribed m@0; gap m[4,-]x- restart; deliver m(0,5] = m1-5");
    rig_stop(&rig);
}

Test(core_log_restore, a_log_from_before_there_were_lives_is_read)
{
    static const uint8_t settings[] = {0x81, 0xa5, 'e', 'a', 'r', 'l', 'y', 0xc3};
    struct rig rig;
    struct bk_append append = {0};
    struct bk_log_channel channel = {.id = 4,
                                     .name = bb_slice_str("a"),
                                     .retention = BK_RETENTION_INIT,
                                     .settings = bb_slice(settings, sizeof(settings))};
    start(&rig);
    append = (struct bk_append){.channels = &channel, .n_channels = 1};
    cr_assert_eq(rig.log->backend.ops->register_(&rig.log->backend, &append, 1), 0);
    rig_commit(&rig);
    restart(&rig);
    cr_assert_eq(rig_channel(&rig, "a")->lives.now, 1);
    cr_assert(rig_channel(&rig, "a")->settings.early);
    cr_assert_eq(rig_channel(&rig, "a")->id, 4);
    rig_publish(&rig, 0, 0, "b/x");
    cr_assert_gt(rig_channel(&rig, "b")->id, 4, "ids go on above those that are known");
    rig_stop(&rig);
}

/* As when the log was not told to forget the older one. */
Test(core_log_restore, of_several_epochs_of_one_client_the_newest_counts)
{
    static const uint8_t notes[] = {0x92, 0x03, 0xf0}; /* the older one's third was refused */
    for (uint64_t newer = 0; newer < 2; newer++) {     /* in which order they are stored does not matter */
        struct rig rig;
        start(&rig);
        struct bk_log_producer entries[2] = {{.key = "p", .last = 3}, {.key = "p", .last = 7}};
        entries[1 - newer].notes = bb_slice(notes, sizeof(notes));
        entries[1 - newer].last = 9;
        entries[newer].key[BB_CLIENT_ID_LEN] = 2;
        entries[1 - newer].key[BB_CLIENT_ID_LEN] = 1;
        entries[newer].last = 4;
        struct bk_append append = {.producers = entries, .n_producers = 2};
        cr_assert_eq(rig.log->backend.ops->register_(&rig.log->backend, &append, 1), 0);
        rig_commit(&rig);
        restart(&rig);
        rig_gone(&rig, 0);
        rig_new_peer(&rig, 0);
        rig_hello(&rig, 0, "p", 2);
        rig_publish(&rig, 0, 3, "a/x");
        RIG_TOLD(&rig, 0, "welcome 4; ack 3@0 repeated");
        rig_stop(&rig);
    }
}

Test(core_log_restore, what_cannot_be_read_ends_it)
{
    static const char *const bad[] = {"\x91\x80", "\x92\x80\x90", "\x92\x80\x92\x05\x04",
                                      "\x92\xa1x\x91\x05"};
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        struct rig rig;
        rig_init(&rig);
        rig_start(&rig, false, true);
        struct bk_log_channel channel = {.id = 1,
                                         .name = bb_slice_str("a"),
                                         .retention = BK_RETENTION_INIT,
                                         .settings = bb_slice_str(bad[i])};
        struct bk_append append = {.channels = &channel, .n_channels = 1};
        cr_assert_eq(rig.log->backend.ops->register_(&rig.log->backend, &append, 1), 0);
        cr_assert(rig_log_commit(rig.log));
        struct bk_core *core = NULL;
        cr_assert_eq(bk_core_new(&rig.config, &rig.out, &core), 0);
        cr_assert_lt(bk_core_set_backend(core, BK_STORE_LOG, &rig.log->backend), 0, "%zu", i);
        bk_core_free(core);
        rig_stop(&rig);
    }
}

Test(core_log_restore, a_run_whose_clock_is_behind_still_gives_newer_lives)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    rig.config.run = 0; /* rig_restart() makes it 100 again */
    rig_restart(&rig, true);
    rig_hello(&rig, 0, NULL, 0);
    cr_assert_eq(rig.core->channels.run, 101);
    rig_publish(&rig, 0, 0, "a/x");
    cr_assert_eq(rig_channel(&rig, "a")->lives.now, 101);
    rig_stop(&rig);
}

Test(core_log_restore, sessions_and_times_go_on_above_those_in_the_log)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    uint64_t session = rig.core->session;
    uint64_t time = rig.core->session_time;
    rig.now = 5; /* the clock was set back */
    rig_restart(&rig, true);
    rig_hello(&rig, 0, NULL, 0);
    cr_assert_eq(rig.core->session, session);
    cr_assert_eq(rig.core->session_time, time);
    rig_publish(&rig, 0, 0, "a/x");
    cr_assert_eq(rig.core->session, session + 1);
    cr_assert_geq(rig.core->session_time, time);
    rig_stop(&rig);
}

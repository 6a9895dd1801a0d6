/* SPDX-License-Identifier: Apache-2.0 */
/* Channels in memory: their backend answers for them, and forgets what is removed, trimmed or too old. */
#include "proto/wire/mp.h"

#include "broker/core/keep/channel.h"
#include "broker/core/log/memory.h"
#include "tests/unit/core_rig.h"

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, true, false);
    rig_hello_all(rig);
}

static void assert_found(struct rig *rig, const char *query, const char *words)
{
    rig_say(rig, 1, "{'op':'query','corr':4,'query':%s}", query);
    rig_answer(rig);
    RIG_TOLD(rig, 1, words);
}

static uint64_t bytes_kept(const struct rig *rig)
{
    struct bb_buf out = BB_BUF_INIT;
    rig->memory->ops->status(rig->memory, &out);
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&out));
    (void)bb_mp_read_map(&reader);
    (void)bb_mp_read_str(&reader);
    uint64_t bytes = bb_mp_read_uint(&reader);
    bb_buf_fini(&out);
    return bytes;
}

Test(core_log_memory, what_is_published_is_found)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x a/y b/x a/x");
    assert_found(&rig, "{'order':'ascending'}", "events = a1-2 b1 a3");
    assert_found(&rig, "{'kind':'latest','types':['a/*']}", "events = a3 a2");
    rig_stop(&rig);
}

Test(core_log_memory, a_removed_channel_is_found_nowhere_and_its_memory_is_free)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "b/x");
    uint64_t before = bytes_kept(&rig);
    rig.payload = 1000;
    rig_publish(&rig, 0, 0, "3:a/x");
    cr_assert_gt(bytes_kept(&rig), before + 3000);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    RIG_TOLD(&rig, 3, "result 3");
    rig_answer(&rig);
    cr_assert_eq(bytes_kept(&rig), before);
    assert_found(&rig, "{}", "events = b1");
    assert_found(&rig, "{'kind':'latest'}", "events = b1");
    rig.payload = 0;
    rig_publish(&rig, 0, 0, "a/y");
    assert_found(&rig, "{'types':['a/*']}", "events = a1");
    rig_stop(&rig);
}

Test(core_log_memory, what_is_trimmed_is_not_found_though_the_channel_is_idle)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'trim','name':'a','settings':{'before':4}}");
    rig_answer(&rig);
    RIG_TOLD(&rig, 3, "result 3");
    assert_found(&rig, "{'order':'ascending'}", "events = a4-5");
    cr_assert_eq(rig_channel(&rig, "a")->first, 4);
    rig_stop(&rig);
}

Test(core_log_memory, what_is_too_old_goes_though_the_channel_is_idle)
{
    struct rig rig;
    start(&rig);
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'add','name':'a','settings':{'max_age':2000}}");
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_pass(&rig, 1000000);
    rig_publish(&rig, 0, 0, "a/x");
    rig_pass(&rig, 1500000);
    assert_found(&rig, "{'order':'ascending'}", "events = a3");
    cr_assert_eq(rig_channel(&rig, "a")->first, 3);
    rig_stop(&rig);
}

Test(core_log_memory, changed_settings_hold_for_what_is_kept_already)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "5:a/x");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'set','name':'a','settings':{'max_events':2}}");
    rig_answer(&rig);
    assert_found(&rig, "{'order':'ascending'}", "events = a4-5");
    cr_assert_eq(rig_channel(&rig, "a")->first, 4);
    rig_stop(&rig);
}

Test(core_log_memory, the_newest_of_a_path_is_expected_also_when_it_has_left_the_ring)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.ring_bytes = 3000;
    rig_start(&rig, true, false);
    rig_hello_all(&rig);
    rig.payload = 1000;
    rig_publish(&rig, 0, 0, "a/x");
    for (int i = 0; i < 5; i++) {
        rig_publish(&rig, 0, 0, "a/y");
    }
    cr_assert_gt(rig_channel(&rig, "a")->first, 1);
    rig_say(&rig, 0,
            "{'op':'publish','number':1,'options':{'expect_path':{'a/x':0}},'events':[{'path':'a/x'}]}");
    rig_answer(&rig);
    rig_say(&rig, 0,
            "{'op':'publish','number':2,'options':{'expect_path':{'a/x':1}},'events':[{'path':'a/x'}]}");
    rig_answer(&rig);
    RIG_TOLD(&rig, 0, "error publish/1 conflict; ack 2@1 a7+1");
    rig_stop(&rig);
}

Test(core_log_memory, a_channel_that_has_no_backend_is_kept_in_the_ring_alone)
{
    struct rig rig;
    rig_init(&rig);
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_say(&rig, 1, "{'op':'query','corr':4,'query':{}}");
    RIG_TOLD(&rig, 1, "error query/4 unsupported");
    cr_assert_eq(rig.core->kept.len, 0);
    rig_stop(&rig);
}

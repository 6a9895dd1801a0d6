/* SPDX-License-Identifier: Apache-2.0 */
/* Channels by name: made, shown, changed, trimmed and removed. */
#include "proto/json/json_value.h"

#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/durable.h"
#include "broker/core/requests/requests.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>

static void start(struct rig *rig, bool has_memory, bool has_log)
{
    rig_init(rig);
    rig_start(rig, has_memory, has_log);
    rig_hello_all(rig);
}

static const char *change(struct rig *rig, const char *action, const char *name, const char *settings)
{
    rig_say(rig, 0, "{'op':'channel','corr':1,'action':'%s','name':'%s'%s%s}", action, name,
            settings != NULL ? ",'settings':" : "", settings != NULL ? settings : "");
    rig_settle(rig);
    return rig_told(rig, 0);
}

/* The last result in JSON, with ' for ". */
static const char *result(struct rig *rig)
{
    static char text[4096];
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(bb_mp_to_json(bb_buf_slice(&rig->peers[0].result), &out), 0);
    (void)snprintf(text, sizeof(text), "%s", bb_buf_string(&out));
    for (char *at = text; (at = strchr(at, '"')) != NULL;) {
        *at = '\'';
    }
    bb_buf_fini(&out);
    return text;
}

Test(core_requests_channel, a_channel_is_made_shown_and_changed)
{
    struct rig rig;
    start(&rig, false, true);
    cr_assert_str_eq(change(&rig, "info", "a", NULL), "error channel/1 not_found");
    cr_assert_str_eq(change(&rig, "set", "a", NULL), "error channel/1 not_found");
    cr_assert_str_eq(change(&rig, "add", "a", "{'max_events':5}"), "result 1");
    cr_assert_str_eq(change(&rig, "add", "a", NULL), "error channel/1 exists");
    cr_assert_str_eq(change(&rig, "set", "a", "{'overflow':'conflate'}"), "result 1");
    cr_assert_str_eq(change(&rig, "info", "a", NULL), "result 1");
    const char *info = result(&rig);
    cr_assert_not_null(strstr(info, "'name':'a','first':1,'last':0,'log_first':1"), "%s", info);
    cr_assert_not_null(strstr(info, "'store':'log','sync':true"), "%s", info);
    cr_assert_not_null(strstr(info, "'max_events':5"), "%s", info);
    cr_assert_not_null(strstr(info, "'overflow':'conflate'"), "%s", info);
    cr_assert_str_eq(change(&rig, "add", "b", NULL), "result 1");
    cr_assert_str_eq(change(&rig, "ls", "", NULL), "result 1");
    cr_assert_not_null(strstr(result(&rig), "'name':'b'"));
    rig_stop(&rig);
}

Test(core_requests_channel, what_cannot_be_is_refused)
{
    struct rig rig;
    start(&rig, false, false);
    cr_assert_str_eq(change(&rig, "fly", "a", NULL), "error channel/1 bad_argument");
    cr_assert_str_eq(change(&rig, "add", "a/b", NULL), "error channel/1 bad_path");
    cr_assert_str_eq(change(&rig, "add", "$a", NULL), "error channel/1 bad_path");
    cr_assert_str_eq(change(&rig, "add", "?", NULL), "error channel/1 bad_path");
    cr_assert_str_eq(change(&rig, "add", "a", "{'rings':1}"), "error channel/1 bad_argument");
    cr_assert_str_eq(change(&rig, "info", "a", NULL), "error channel/1 not_found");
    cr_assert_str_eq(change(&rig, "add", "a", "{'store':'log'}"), "error channel/1 unsupported");
    rig_stop(&rig);
}

Test(core_requests_channel, a_channel_that_has_events_stays_where_it_is_kept)
{
    struct rig rig;
    start(&rig, false, true);
    cr_assert_str_eq(change(&rig, "add", "a", NULL), "result 1");
    cr_assert_str_eq(change(&rig, "set", "a", "{'store':'memory'}"), "result 1");
    cr_assert_str_eq(change(&rig, "set", "a", "{'store':'log'}"), "result 1");
    rig_publish(&rig, 1, 0, "a/x");
    rig_settle(&rig);
    cr_assert_str_eq(change(&rig, "set", "a", "{'store':'memory'}"), "error channel/1 exists");
    cr_assert_str_eq(change(&rig, "rm", "a", NULL), "result 1");
    cr_assert_str_eq(change(&rig, "add", "a", "{'store':'memory'}"), "result 1");
    rig_stop(&rig);
}

Test(core_requests_channel, trimming_says_what_is_the_oldest_now)
{
    static const struct {
        const char *settings;
        const char *first;
    } rows[] = {
        {"{'before':3}", "{'first':3}"}, {"{'before':0}", "{'first':3}"},  {"{'keep':2}", "{'first':4}"},
        {"{'keep':9}", "{'first':4}"},   {"{'before':99}", "{'first':6}"},
    };
    for (int has_backend = 0; has_backend < 2; has_backend++) {
        struct rig rig;
        start(&rig, has_backend != 0, false);
        rig_publish(&rig, 1, 0, "5:a/x");
        for (size_t i = 0; i < BB_COUNT(rows); i++) {
            cr_assert_str_eq(change(&rig, "trim", "a", rows[i].settings), "result 1");
            cr_assert_str_eq(result(&rig), rows[i].first, "%s, backend %d", rows[i].settings, has_backend);
        }
        cr_assert_str_eq(change(&rig, "trim", "a", "{}"), "error channel/1 bad_argument");
        cr_assert_str_eq(change(&rig, "trim", "a", "{'before':'x'}"), "error channel/1 bad_argument");
        cr_assert_str_eq(change(&rig, "trim", "b", "{'before':1}"), "error channel/1 not_found");
        rig_stop(&rig);
    }
}

Test(core_requests_channel, a_trim_that_the_backend_cannot_do_is_refused)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 1, 0, "5:a/x");
    rig_settle(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'trim','name':'a','settings':{'before':3}}");
    rig.log->answer_error = BB_ELOGFAILED;
    rig_answer(&rig);
    RIG_TOLD(&rig, 0, "error channel/1 log_failed");
    rig_stop(&rig);
}

Test(core_requests_channel, the_removal_of_a_channel_that_is_being_written_to_waits_for_the_log)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 1, 1, "a/x");
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_say(&rig, 0,
            "{'op':'channel','corr':2,'action':'info','name':'a'}"); /* what comes behind it waits too */
    RIG_TOLD(&rig, 0, "");
    cr_assert(rig.peers[0].is_paused);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 1; error channel/2 not_found");
    RIG_TOLD(&rig, 1, "ack 1@3 a1+1");
    cr_assert_not(rig.peers[0].is_paused);
    rig_restart(&rig, true);
    cr_assert_null(bk_channels_find(&rig.core->channels, bb_slice_str("a")));
    rig_stop(&rig);
}

Test(core_requests_channel, a_channel_that_is_always_written_to_is_removed_before_publishers_go_on)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 1, 1, "a/x");
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_publish(&rig, 1, 2, "a/x"); /* waits, and is the first of the next channel */
    rig_publish(&rig, 2, 1, "a/x");
    cr_assert(rig.peers[1].is_paused && rig.peers[2].is_paused);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 1");
    RIG_TOLD(&rig, 1, "ack 1@3 a1+1; ack 2@3 a1+1");
    RIG_TOLD(&rig, 2, "ack 1@3 a2+1");
    cr_assert_not(rig.peers[0].is_paused || rig.peers[1].is_paused || rig.peers[2].is_paused);
    cr_assert_eq(RIG_COUNT(&rig, clients_paused), 4,
                 "who removes it: for what is on its way, and for the removal");
    rig_stop(&rig);
}

Test(core_requests_channel, who_removes_a_channel_goes_before_publishers_that_wait_already)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 1, 1, "a/x b/x");
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_publish(&rig, 1, 2, "b/x");
    rig_say(&rig, 2, "{'op':'channel','corr':1,'action':'rm','name':'b'}");
    cr_assert(rig.peers[0].is_paused && rig.peers[1].is_paused && rig.peers[2].is_paused);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 1");
    RIG_TOLD(&rig, 1, "ack 1@3 a1+1 b1+1; ack 2@3 b1+1");
    RIG_TOLD(&rig, 2, "result 1");
    rig_stop(&rig);
}

Test(core_requests_channel, a_channel_whose_events_cannot_be_written_is_not_removed)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 1, 0, "a/x");
    rig.core->shutting_down = true;
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    RIG_TOLD(&rig, 0, "error channel/1 again");
    rig_settle(&rig);
    cr_assert_str_eq(change(&rig, "rm", "a", NULL), "result 1");
    cr_assert_str_eq(change(&rig, "rm", "a", NULL), "error channel/1 not_found");
    rig_stop(&rig);
}

Test(core_requests_channel, who_waits_to_remove_a_channel_may_go)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 1, 1, "a/x");
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_gone(&rig, 0);
    rig_publish(&rig, 1, 2, "a/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "ack 1@3 a1+1; ack 2@3 a2+1");
    rig_stop(&rig);
}

Test(core_requests_channel, what_waited_to_be_fanned_out_is_delivered_before_its_channel_goes)
{
    struct rig rig;
    start(&rig, true, false);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_batch(&rig, 2, 0, "a/x");
    rig_put(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    RIG_TOLD(&rig, 1, "subscribed; deliver a(0,1] = a1; gap a[2,-]x- restart");
    rig_stop(&rig);
}

Test(core_requests_channel, a_channel_is_there_until_its_removal_is_on_disk)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 2, 1, "a/x");
    rig_settle(&rig);
    rig_subscribe(&rig, 1, "a/*", NULL);
    rig_settle(&rig);
    (void)rig_told(&rig, 1);
    (void)rig_told(&rig, 2);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_say(&rig, 3, "{'op':'channel','corr':1,'action':'info','name':'a'}");
    RIG_TOLD(&rig, 0, "");
    RIG_TOLD(&rig, 1, "");
    RIG_TOLD(&rig, 3, "result 1");
    rig_restart(&rig, true); /* it crashes before */
    cr_assert_eq(rig_channel(&rig, "a")->last, 1);
    rig_stop(&rig);
}

Test(core_requests_channel, a_channel_that_is_being_removed_takes_nothing_and_is_not_changed)
{
    struct rig rig;
    struct bb_buf events = BB_BUF_INIT;
    start(&rig, false, true);
    rig_publish(&rig, 2, 1, "a/x");
    rig_settle(&rig);
    (void)rig_told(&rig, 2);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_say(&rig, 1, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_say(&rig, 3, "{'op':'channel','corr':1,'action':'set','name':'a','settings':{'max_events':5}}");
    rig_publish(&rig, 2, 2, "a/x");
    rig_events(&rig, "a/x", &events);
    (void)bk_core_ingest(rig.core, bb_buf_slice(&events), NULL); /* a window cannot wait */
    cr_assert_eq(rig_channel(&rig, "a")->taken, 1);
    bb_buf_reset(&events);
    rig_events(&rig, "b/x", &events);
    (void)bk_core_ingest(rig.core, bb_buf_slice(&events), NULL);
    cr_assert_eq(rig_channel(&rig, "b")->taken, 1, "of other channels it loses nothing");
    rig_log_commit(rig.log);
    (void)bk_core_ingest(rig.core, bb_buf_slice(&events), NULL);
    cr_assert_eq(rig_channel(&rig, "b")->taken, 2, "nor before publishers go on");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 1");
    RIG_TOLD(&rig, 2, "ack 2@3 a1+1");
    RIG_TOLD(&rig, 1, "error channel/1 not_found");
    RIG_TOLD(&rig, 3, "error channel/1 not_found");
    bb_buf_fini(&events);
    rig_stop(&rig);
}

Test(core_requests_channel, a_removal_that_a_full_log_does_not_take_is_done_when_it_does)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 2, 1, "a/x");
    rig_settle(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    bk_on_state(rig.core, BK_BACKEND_FULL, "full");
    rig_fail(&rig, BB_ELOGFULL);
    RIG_TOLD(&rig, 0, "");
    cr_assert_eq(rig_channel(&rig, "a")->last, 1);
    rig_say(&rig, 1, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    RIG_TOLD(&rig, 1, "error channel/1 again");
    bk_on_state(rig.core, BK_BACKEND_OK, NULL);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 1");
    cr_assert_null(bk_channels_find(&rig.core->channels, bb_slice_str("a")));
    rig_stop(&rig);
}

Test(core_requests_channel, a_removal_that_is_done_is_answered_however_many_others_wait)
{
    struct rig rig;
    start(&rig, false, true);
    rig_publish(&rig, 2, 0, "a/x b/x");
    rig_settle(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig.core->stage.n_held += 4096; /* as if so many waited */
    rig_commit(&rig);
    rig_say(&rig, 1, "{'op':'channel','corr':1,'action':'rm','name':'b'}");
    rig.core->stage.n_held -= 4096;
    RIG_TOLD(&rig, 0, "result 1");
    RIG_TOLD(&rig, 1, "error channel/1 limit");
    rig_say(&rig, 0, "{'op':'channel','corr':2,'action':'rm','name':'b'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 2");
    cr_assert_null(bk_channels_find(&rig.core->channels, bb_slice_str("b")));
    rig_stop(&rig);
}

Test(core_requests_channel, who_waits_for_a_busy_channel_is_not_passed_by_other_removals)
{
    struct rig rig;
    struct bb_buf events = BB_BUF_INIT;
    start(&rig, false, true);
    rig_publish(&rig, 2, 0, "a/x b/x");
    rig_settle(&rig);
    rig_events(&rig, "a/x", &events);
    (void)bk_core_ingest(rig.core, bb_buf_slice(&events), NULL);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}"); /* waits for that */
    rig_say(&rig, 1, "{'op':'channel','corr':1,'action':'rm','name':'b'}");
    (void)bk_core_ingest(rig.core, bb_buf_slice(&events), NULL);
    cr_assert_eq(rig_channel(&rig, "a")->taken, 2, "nothing more is taken before it goes");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "result 1");
    RIG_TOLD(&rig, 1, "result 1");
    bb_buf_fini(&events);
    rig_stop(&rig);
}

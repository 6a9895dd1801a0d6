/* SPDX-License-Identifier: Apache-2.0 */
/* Queries over both stores, upkeep of the log, status, and matches. */
#include "proto/json/json_value.h"

#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/ask.h"
#include "broker/core/requests/requests.h"
#include "tests/unit/core_rig.h"

#include <stdio.h>
#include <stdlib.h>

static void start(struct rig *rig, bool has_log)
{
    rig_init(rig);
    rig_start(rig, true, has_log);
    rig_hello_all(rig);
    if (has_log) {
        rig_say(rig, 0, "{'op':'channel','corr':1,'action':'add','name':'m','settings':{'store':'memory'}}");
        rig_settle(rig);
        (void)rig_told(rig, 0);
    }
}

static const char *query(struct rig *rig, const char *text)
{
    rig_say(rig, 1, "{'op':'query','corr':4,'query':%s}", text);
    rig_answer(rig);
    return rig_told(rig, 1);
}

Test(core_requests_query, what_both_stores_found_is_merged_in_the_order_asked_for)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x m/x a/y");
    rig_pass(&rig, 1000);
    rig_publish(&rig, 0, 0, "m/y");
    rig_pass(&rig, 1000);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    (void)rig_told(&rig, 0);
    cr_assert_str_eq(query(&rig, "{'order':'ascending'}"), "events = a1 m1 a2 m2 a3");
    cr_assert_str_eq(query(&rig, "{}"), "events = a3 m2 a2 m1 a1");
    cr_assert_str_eq(query(&rig, "{'order':'ascending','max':3}"), "events more = a1 m1 a2");
    cr_assert_str_eq(query(&rig, "{'kind':'server','server':1,'after':[1,1,3]}"), "events = m2 a3");
    cr_assert_str_eq(query(&rig, "{'kind':'latest'}"), "events = a3 a2 m1-2");
    cr_assert_str_eq(query(&rig, "{'types':['m/*']}"), "events = m2 m1");
    cr_assert_str_eq(query(&rig, "{'types':['none']}"), "events =");
    rig_stop(&rig);
}

Test(core_requests_query, what_is_no_query_is_refused_and_a_store_that_fails_is_told)
{
    struct rig rig;
    start(&rig, true);
    cr_assert_str_eq(query(&rig, "{'kind':'sideways'}"), "error query/4 bad_argument");
    cr_assert_str_eq(query(&rig, "[]"), "error query/4 bad_argument");
    rig.log->answer_error = BB_ECORRUPT;
    cr_assert_str_eq(query(&rig, "{}"), "error query/4 corrupt");
    cr_assert_eq(rig.core->n_asks, 0);
    rig_stop(&rig);
}

Test(core_requests_query, who_goes_while_it_is_answered_leaves_nothing_behind)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x m/x");
    rig_settle(&rig);
    rig_say(&rig, 1, "{'op':'query','corr':4,'query':{}}");
    rig_gone(&rig, 1);
    rig_answer(&rig);
    cr_assert_eq(rig.core->n_asks, 0);
    rig_stop(&rig);
}

Test(core_requests_query, upkeep_is_the_logs_business)
{
    struct rig rig;
    start(&rig, false);
    rig_say(&rig, 1, "{'op':'log','corr':5,'action':'verify'}");
    RIG_TOLD(&rig, 1, "error log/5 unsupported");
    rig_stop(&rig);
    start(&rig, true);
    rig_say(&rig, 1, "{'op':'log','corr':5,'action':'dance'}");
    rig_say(&rig, 1, "{'op':'log','corr':6,'action':'status'}");
    rig_say(&rig, 1, "{'op':'log','corr':7,'action':'backup','options':{'name':5}}");
    rig_say(&rig, 1, "{'op':'log','corr':8,'action':'compact'}");
    rig.log->answer_error = BB_EUNSUPPORTED;
    rig_answer(&rig);
    RIG_TOLD(&rig, 1,
             "error log/5 bad_argument; result 6; error log/7 bad_argument; error log/8 unsupported");
    rig_stop(&rig);
}

Test(core_requests_query, by_source_time_the_stores_are_merged_by_that)
{
    struct rig rig;
    start(&rig, true);
    rig_say(&rig, 0,
            "{'op':'publish','number':0,'events':[{'path':'a/x','source_time':30},"
            "{'path':'m/x','source_time':20},"
            "{'path':'m/y','source_time':50},{'path':'a/y','source_time':40},{'path':'a/z'}]}");
    rig_settle(&rig);
    (void)rig_told(&rig, 0);
    cr_assert_str_eq(query(&rig, "{'order':'ascending','order_by':'source_time'}"), "events = m1 a1-2 m2");
    cr_assert_str_eq(query(&rig, "{'order_by':'source_time'}"), "events = m2 a2 a1 m1");
    cr_assert_str_eq(query(&rig, "{'order_by':'source_time','source_t_from':40,'max':1}"),
                     "events more = m2");
    rig_stop(&rig);
}

/* A side that is at its end and has more may have something before what the other one has. */
Test(core_requests_query, pages_of_both_stores_join_though_each_has_its_own_end)
{
    static const char order[] = "aamammaaaammmmmmaaaaamamam";
    struct rig rig;
    char all[512] = "";
    char found[512] = "";
    unsigned sequences[2] = {0};
    rig_init(&rig);
    rig.config.max_message = 4096; /* an answer has half of that */
    rig_start(&rig, true, true);
    rig_hello_all(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'add','name':'m','settings':{'store':'memory'}}");
    rig.payload = 400;
    for (size_t i = 0; i + 1 < sizeof(order); i++) {
        rig_pass(&rig, 1000);
        rig_publish(&rig, 0, 0, order[i] == 'a' ? "a/x" : "m/x");
        (void)snprintf(all + strlen(all), sizeof(all) - strlen(all), " %c%u", order[i],
                       ++sequences[order[i] == 'm']);
    }
    rig_settle(&rig);
    size_t n = 0;
    for (bool more = true; more;) {
        char text[128];
        (void)snprintf(text, sizeof(text), "{'order':'ascending','after':[1,%zu,%d]}", n, n > 0);
        const char *told = query(&rig, text);
        more = strncmp(told, "events more =", 13) == 0;
        cr_assert(!more || strlen(told) > 13, "it goes on");
        for (const char *at = strchr(told, '=') + 1; *at != 0; at += strcspn(at, " ")) {
            at += *at == ' ';
            char letter = *at;
            char *end = NULL;
            unsigned long first = strtoul(at + 1, &end, 10);
            unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;
            for (; first <= last; first++, n++) {
                (void)snprintf(found + strlen(found), sizeof(found) - strlen(found), " %c%lu", letter, first);
            }
        }
    }
    cr_assert_str_eq(found, all);
    rig_stop(&rig);
}

static const char *after(struct rig *rig, uint64_t session, uint64_t instance, uint64_t max)
{
    char text[128];
    (void)snprintf(text, sizeof(text), "{'kind':'server','server':1,'after':[1,%llu,%llu],'max':%llu}",
                   (unsigned long long)session, (unsigned long long)instance, (unsigned long long)max);
    return query(rig, text);
}

/* Sessions are 1 and 2 of two events, 3 of four, 4 of two. */
Test(core_requests_query, pages_by_server_end_with_whole_sessions_that_lie_in_both_stores)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x m/x");
    rig_publish(&rig, 0, 0, "m/x a/x");
    rig_publish(&rig, 0, 0, "a/x 3:m/x");
    rig_publish(&rig, 0, 0, "m/y a/x");
    rig_settle(&rig);
    cr_assert_str_eq(after(&rig, 0, 0, 2), "events more = a1 m1");
    cr_assert_str_eq(after(&rig, 0, 0, 3), "events more = a1 m1", "where the count ends");
    cr_assert_str_eq(after(&rig, 1, 2, 3), "events more = m2 a2", "where memory ends it goes on in the log");
    cr_assert_str_eq(after(&rig, 2, 2, 3), "events more = a3 m3-4", "one alone is larger");
    cr_assert_str_eq(after(&rig, 2, 2, 4), "events more = a3 m3-5");
    cr_assert_str_eq(after(&rig, 2, 2, 5), "events more = a3 m3-5");
    cr_assert_str_eq(after(&rig, 2, 2, 6), "events = a3 m3-6 a4");
    cr_assert_str_eq(after(&rig, 3, 4, 1), "events more = m6");
    cr_assert_str_eq(after(&rig, 4, 1, 1), "events = a4");
    rig_stop(&rig);
}

/* In the other store. The channel is there until the log has removed it. */
Test(core_requests_query, a_removed_channel_is_not_found_beside_the_next_one_of_its_name)
{
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "3:a/x a/y b/x");
    rig_settle(&rig);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'a'}");
    rig_say(&rig, 0, "{'op':'channel','corr':2,'action':'add','name':'a','settings':{'store':'memory'}}");
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_say(&rig, 1, "{'op':'query','corr':4,'query':{'kind':'latest'}}");
    rig_answer(&rig);
    RIG_TOLD(&rig, 1, "events = a3-4 b1");
    rig_settle(&rig);
    cr_assert_str_eq(query(&rig, "{'kind':'latest'}"), "events = a2 b1");
    cr_assert_str_eq(query(&rig, "{'unique':true}"), "events = a2 b1");
    rig_stop(&rig);
}

/* Memory has answered when its channel goes and another one of the name comes to the log. */
Test(core_requests_query, a_channel_that_comes_while_the_log_looks_is_not_found)
{
    static const char *const queries[] = {"{'kind':'latest'}", "{'unique':true,'order':'ascending'}"};
    for (size_t i = 0; i < BB_COUNT(queries); i++) {
        struct rig rig;
        start(&rig, true);
        rig_publish(&rig, 0, 0, "a/x 2:m/x");
        rig_settle(&rig);
        rig_say(&rig, 1, "{'op':'query','corr':4,'query':%s}", queries[i]);
        rig.memory->ops->dispatch(rig.memory);
        rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'rm','name':'m'}");
        rig_publish(&rig, 0, 0, "m/x b/x");
        rig_commit(&rig);
        rig_commit(&rig);
        cr_assert(bk_store_of(rig.core, rig_channel(&rig, "m")) == BK_STORE_LOG);
        rig_answer(&rig);
        RIG_TOLD(&rig, 1, i == 0 ? "events = a1 m2" : "events = a1 m1");
        cr_assert_str_eq(query(&rig, "{'kind':'latest'}"), "events = a1 b1 m1");
        rig_stop(&rig);
    }
}

/* What the log says of its upkeep is passed on. */
Test(core_requests_query, upkeep_is_answered_with_the_report_or_an_empty_one)
{
    struct rig rig;
    start(&rig, true);
    rig_say(&rig, 1, "{'op':'log','corr':5,'action':'verify'}");
    rig_say(&rig, 1, "{'op':'log','corr':6,'action':'backup','options':{'where':[1],'name':'b'}}");
    for (int i = 0; i < 2; i++) {
        struct bk_request *request = rig.log->requests;
        struct bk_upkeep *upkeep = (struct bk_upkeep *)(void *)request;
        rig.log->requests = request->next;
        cr_assert(i == 0 || bb_slice_equal(upkeep->name, bb_slice_str("b")));
        if (i == 0) {
            bb_buf_append(&upkeep->report, "\x81\xa1n\x07", 4);
        }
        request->done(request->context, request);
        const char *wanted = i == 0 ? "\x81\xa1n\x07" : "\x80";
        cr_assert(bb_slice_equal(bb_buf_slice(&rig.peers[1].result), bb_slice_str(wanted)));
    }
    RIG_TOLD(&rig, 1, "result 5; result 6");
    cr_assert_eq(rig.core->n_asks, 0);
    rig_stop(&rig);
}

/* --- when as much is asked as may be -------------------------------------------------------------------- */

Test(core_requests_query, when_too_much_is_asked_of_the_log_every_request_for_it_is_refused)
{
    enum {
        MOST = 4096
    };
    static struct bk_ask asks[MOST];
    static const struct bb_msg msg = {.type = BB_MSG_QUERY, .corr = 5};
    struct rig rig;
    start(&rig, true);
    rig_publish(&rig, 0, 0, "a/x m/x");
    rig_settle(&rig);
    rig_restart(&rig, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 0, "m/x");
    rig_settle(&rig);
    for (size_t i = 0; i < MOST; i++) {
        cr_assert_eq(bk_ask_begin(rig.core, rig.peers[3].client, &msg, &asks[i]), 0);
    }
    rig_say(&rig, 1, "{'op':'query','corr':4,'query':{}}");
    rig_say(&rig, 1, "{'op':'log','corr':5,'action':'verify'}");
    rig_say(&rig, 1, "{'op':'channel','corr':6,'action':'trim','name':'a','settings':{'keep':0}}");
    rig_say(&rig, 1, "{'op':'subscribe','corr':7,'sub':1,'patterns':['a/*'],'from':'last'}");
    rig_say(&rig, 1,
            "{'op':'publish','number':1,'options':{'expect_path':{'a/x':1}},'events':[{'path':'a/x'}]}");
    RIG_TOLD(&rig, 1,
             "error query/4 limit; error log/5 limit; error channel/6 limit; error subscribe/7 limit; "
             "error publish/1 limit");
    cr_assert_eq(rig_channel(&rig, "a")->log_first, 1, "nothing was trimmed");
    cr_assert_eq(rig.core->n_subs, 0);
    for (size_t i = 0; i < MOST; i++) {
        bk_ask_end(&asks[i]);
    }
    rig_say(&rig, 1, "{'op':'subscribe','corr':7,'sub':1,'patterns':['a/*'],'from':'last'}");
    rig_settle(&rig);
    RIG_TOLD(&rig, 1, "subscribed a@0; deliver a(0,1] = a1");
    rig_stop(&rig);
}

/* --- status ------------------------------------------------------------------------------------------------- */

static const char *status(struct rig *rig, const char *what)
{
    static char text[8192];
    struct bb_buf out = BB_BUF_INIT;
    rig_say(rig, 1, "{'op':'status','corr':2,'what':%s}", what);
    RIG_TOLD(rig, 1, "result 2");
    cr_assert_eq(bb_mp_to_json(bb_buf_slice(&rig->peers[1].result), &out), 0);
    (void)snprintf(text, sizeof(text), "%s", bb_buf_string(&out));
    for (char *at = text; (at = strchr(at, '"')) != NULL;) {
        *at = '\'';
    }
    bb_buf_fini(&out);
    return text;
}

Test(core_requests_query, status_answers_the_sections_that_are_asked_for)
{
    struct rig rig;
    start(&rig, false);
    rig_publish(&rig, 0, 0, "2:a/x");
    rig_subscribe(&rig, 2, "a/*", "'from':1,'options':{'events':0}");
    const char *text = status(&rig, "['channels']");
    cr_assert_eq(strstr(text, "{'channels':[{'name':'a','first':1,'last':2,"), text, "%s", text);
    cr_assert_null(strstr(text, "counters"));
    text = status(&rig, "['clients']");
    cr_assert_not_null(strstr(text, "'lagging':1,'lag_bytes':12"), "%s", text);
    text = status(&rig, "null");
    cr_assert_not_null(strstr(text, "'broker':{'server':1,'run':100,"), "%s", text);
    cr_assert_not_null(strstr(text, "'counters':{'messages_in':"), "%s", text);
    cr_assert_str_eq(status(&rig, "['weather']"), "{}");
    rig_stop(&rig);
}

/* --- matches ------------------------------------------------------------------------------------------------ */

Test(core_requests_query, matches_is_answered_at_once_later_or_not_in_time)
{
    struct rig rig;
    start(&rig, false);
    rig_say(&rig, 1, "{'op':'matches','corr':1,'path':'a/x'}");
    rig_say(&rig, 1, "{'op':'matches','corr':2,'path':'a/x','min':1}");
    rig_say(&rig, 1, "{'op':'matches','corr':3,'path':'a/?','min':0}");
    rig_say(&rig, 1, "{'op':'matches','corr':4,'path':'a/x','min':1,'timeout':50}");
    rig_say(&rig, 1, "{'op':'matches','corr':5,'path':'a/x','min':2,'timeout':50}");
    RIG_TOLD(&rig, 1, "result 1; error matches/2 timeout; error matches/3 bad_path");
    rig_subscribe(&rig, 2, "a/*", NULL);
    RIG_TOLD(&rig, 1, "result 4");
    cr_assert(bb_slice_equal(bb_buf_slice(&rig.peers[1].result), bb_slice("\x81\xa7matches\x01", 10)));
    rig_pass(&rig, 49999);
    RIG_TOLD(&rig, 1, "");
    rig_pass(&rig, 1);
    RIG_TOLD(&rig, 1, "error matches/5 timeout");
    cr_assert_eq(rig.core->n_waiters, 0);
    rig_stop(&rig);
}

Test(core_requests_query, a_client_that_goes_is_not_waited_for)
{
    struct rig rig;
    start(&rig, false);
    for (size_t i = 0; i < 3; i++) {
        rig_say(&rig, i, "{'op':'matches','corr':4,'path':'a/x','min':1,'timeout':50}");
    }
    rig_gone(&rig, 1);
    cr_assert_eq(rig.core->n_waiters, 2);
    rig_subscribe(&rig, 3, "a/*", NULL);
    RIG_TOLD(&rig, 0, "result 4");
    RIG_TOLD(&rig, 2, "result 4");
    rig_stop(&rig);
}

Test(core_requests_query, no_more_wait_than_the_bound)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.check = false;
    rig_start(&rig, false, false);
    rig_hello_all(&rig);
    for (int i = 0; i < 4096; i++) {
        rig_put(&rig, 0, "{'op':'matches','corr':4,'path':'a/x','min':1,'timeout':50}");
    }
    rig_say(&rig, 1, "{'op':'matches','corr':4,'path':'a/x','min':1,'timeout':50}");
    RIG_TOLD(&rig, 1, "error matches/4 limit");
    rig_stop(&rig);
}

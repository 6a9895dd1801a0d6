/* SPDX-License-Identifier: Apache-2.0 */
/* A batch: scanned to its end before anything changes, cut into runs, kept as one session. */
#include "broker/core/ingest/batch.h"
#include "broker/core/ingest/session.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/subs/route.h"
#include "tests/unit/core_rig.h"

#include <inttypes.h>
#include <stdio.h>

struct scan {
    struct bk_batch batch;
    struct bb_buf runs;
    struct bb_buf refused;
    struct bb_buf events;
};

static void scan_fini(struct scan *scan)
{
    bb_buf_fini(&scan->runs);
    bb_buf_fini(&scan->refused);
    bb_buf_fini(&scan->events);
}

static int scan(struct rig *rig, const char *paths, struct scan *ret_scan)
{
    *ret_scan = (struct scan){0};
    ret_scan->batch =
        (struct bk_batch){.matches = UINT64_MAX, .runs = &ret_scan->runs, .refused = &ret_scan->refused};
    rig_events(rig, paths, &ret_scan->events);
    return bk_batch_scan(rig->core, &ret_scan->batch, bb_buf_slice(&ret_scan->events));
}

/* Runs as channel:first+count, with `=` behind those of one path. */
static void assert_runs(const struct scan *scan, const char *words)
{
    char text[256] = "";
    for (size_t i = 0; i < bk_batch_n_runs(&scan->batch); i++) {
        const struct bk_run *run = bk_batch_run(&scan->batch, i);
        size_t len = strlen(text);
        (void)snprintf(text + len, sizeof(text) - len, "%s%.*s:%" PRIu32 "+%" PRIu32 "%s", len > 0 ? " " : "",
                       (int)run->channel->name.len, (const char *)run->channel->name.data, run->first,
                       run->count, run->is_uniform ? "=" : "");
    }
    cr_assert_str_eq(text, words);
}

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, false);
    rig_hello_all(rig);
}

Test(core_ingest_batch, runs_are_consecutive_good_events_of_a_channel)
{
    struct rig rig;
    struct scan s;
    start(&rig);
    cr_assert_eq(scan(&rig, "2:a/x a/y b/x b/x a/? a/x a/x", &s), 0);
    assert_runs(&s, "a:0+3 b:3+2= a:6+2=");
    cr_assert_eq(s.batch.n_events, 8);
    cr_assert_eq(s.batch.n_refused, 1);
    cr_assert_eq(s.batch.unmatched, 7);
    cr_assert_eq(s.batch.matches, 0);
    cr_assert_eq(s.batch.n_unsynced, 3);
    cr_assert_eq(rig.core->session, 0, "nothing has changed");
    cr_assert_eq(rig_channel(&rig, "a")->taken, 0);
    scan_fini(&s);
    rig_stop(&rig);
}

Test(core_ingest_batch, a_bad_event_between_two_good_ones_parts_their_run)
{
    struct rig rig;
    struct scan s;
    start(&rig);
    cr_assert_eq(scan(&rig, "a/x $a/x a/x", &s), 0);
    assert_runs(&s, "a:0+1= a:2+1=");
    scan_fini(&s);
    rig_stop(&rig);
}

Test(core_ingest_batch, one_more_than_a_batch_may_have_is_too_much)
{
    struct rig rig;
    struct scan s;
    start(&rig);
    cr_assert_eq(scan(&rig, "65536:a/x", &s), 0);
    assert_runs(&s, "a:0+65536=");
    scan_fini(&s);
    cr_assert_eq(scan(&rig, "65537:a/x", &s), BB_ETOOBIG);
    scan_fini(&s);
    rig_stop(&rig);
}

Test(core_ingest_batch, what_is_cut_off_is_refused_event_by_event)
{
    struct rig rig;
    struct scan s;
    start(&rig);
    cr_assert_eq(scan(&rig, "a/x 2:b/x a/x", &s), 0);
    bk_batch_cut(&s.batch, 1, BB_ENOMEM);
    assert_runs(&s, "a:0+1=");
    cr_assert_eq(s.batch.n_refused, 3);
    cr_assert_eq(s.batch.n_unsynced, 1);
    bk_batch_cut(&s.batch, 0, BB_ENOMEM);
    assert_runs(&s, "");
    cr_assert_eq(s.batch.n_refused, 4);
    scan_fini(&s);
    rig_stop(&rig);
}

Test(core_ingest_batch, channels_beyond_the_limit_are_refused_and_a_removal_makes_room)
{
    struct rig rig;
    rig_init(&rig);
    rig.config.max_channels = 2;
    rig_start(&rig, true, true);
    rig_hello_all(&rig);
    rig_publish(&rig, 0, 1, "a/x b/x c/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 1@3 a1+1 b1+1 refused 2:limit");
    rig_say(&rig, 3, "{'op':'channel','corr':3,'action':'rm','name':'a'}");
    rig_publish(&rig, 0, 2, "c/x");
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "ack 2@3 c1+1");
    rig_stop(&rig);
}

/* --- the session ---------------------------------------------------------------------------------------------- */

Test(core_ingest_batch, all_of_a_batch_has_one_session_and_one_time_that_never_goes_back)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x b/x a/x");
    rig.now -= 500000;
    bk_core_set_time(rig.core, rig.now + 500000, rig.now);
    rig_publish(&rig, 1, 0, "a/x");
    const struct bk_block *block = NULL;
    uint64_t n = 0;
    for (uint64_t pos = 0; (block = bk_ring_at(&rig.core->ring, &pos)) != NULL; pos++, n++) {
        cr_assert_eq(block->session, n < 3 ? 1 : 2);
        cr_assert_eq(block->instance, n < 3 ? n + 1 : 1);
        cr_assert_eq(block->time, 1000000);
        cr_assert_eq(block->source, n < 3 ? 1 : 2);
    }
    cr_assert_eq(n, 4);
    rig_stop(&rig);
}

Test(core_ingest_batch, a_batch_of_which_nothing_is_taken_has_no_session)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 1, "a/?");
    cr_assert_eq(rig.core->session, 0);
    rig_publish(&rig, 0, 2, "a/x");
    cr_assert_eq(rig.core->session, 1);
    rig_stop(&rig);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What is registered with the log under one ticket, and what the stage takes. */
#include "broker/backend/lmdb/batch.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/append.h"
#include "broker/core/log/stage.h"
#include "tests/unit/core_rig.h"

/* The durable rows of a kind; the last one in *ret_entry. */
static size_t count_rows(const struct rig *rig, enum bk_batch_kind kind, struct bk_batch_entry *ret_entry)
{
    struct bb_slice rest = bb_buf_slice(&rig->log->rows);
    struct bk_batch_entry entry;
    size_t n = 0;
    while (bk_batch_next(&rest, &entry) > 0) {
        if (entry.kind == kind) {
            *ret_entry = entry;
            n++;
        }
    }
    return n;
}

static void start(struct rig *rig)
{
    rig_init(rig);
    rig_start(rig, false, true);
    rig_hello(rig, 0, "p", 1);
    (void)rig_told(rig, 0);
}

Test(core_log_append, what_came_since_the_last_flush_is_one_ticket)
{
    struct rig rig;
    struct bk_batch_entry entry;
    start(&rig);
    rig_batch(&rig, 0, 1, "a/x a/y b/x");
    rig_batch(&rig, 0, 2, "a/x");
    cr_assert_eq(rig.log->n_registered, 0);
    bk_core_flush(rig.core);
    cr_assert_eq(rig.log->n_registered, 1);
    bk_core_flush(rig.core);
    cr_assert_eq(rig.log->n_registered, 1, "nothing is new");
    rig_commit(&rig);
    cr_assert_eq(count_rows(&rig, BK_BATCH_CHANNEL, &entry), 2);
    cr_assert_eq(count_rows(&rig, BK_BATCH_BLOCK, &entry), 3);
    cr_assert_eq(entry.block.head.sequence, 3);
    cr_assert_eq(entry.block.head.session, 2);
    cr_assert_eq(entry.block.head.instance, 1);
    cr_assert_eq(entry.block.flags & BK_LOG_UNIFORM, BK_LOG_UNIFORM);
    cr_assert_eq(count_rows(&rig, BK_BATCH_PRODUCER, &entry), 1);
    cr_assert_eq(entry.producer.last, 2);
    rig_stop(&rig);
}

Test(core_log_append, a_channel_is_told_once_and_again_when_it_changes)
{
    struct rig rig;
    struct bk_batch_entry entry;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    cr_assert_eq(count_rows(&rig, BK_BATCH_CHANNEL, &entry), 1);
    rig_say(&rig, 0, "{'op':'channel','corr':1,'action':'set','name':'a','settings':{'max_events':5}}");
    rig_settle(&rig);
    cr_assert_eq(count_rows(&rig, BK_BATCH_CHANNEL, &entry), 2);
    cr_assert_eq(entry.channel.retention.max_events, 5);
    cr_assert(bb_slice_equal(entry.channel.name, bb_slice_str("a")));
    rig_stop(&rig);
}

Test(core_log_append, a_channel_nobody_published_to_is_not_told)
{
    struct rig rig;
    struct bk_batch_entry entry;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_say(&rig, 0, "{'op':'publish','number':0,'options':{'expect':{'b':5}},'events':[{'path':'b/x'}]}");
    rig_settle(&rig);
    cr_assert_eq(count_rows(&rig, BK_BATCH_CHANNEL, &entry), 1);
    rig_stop(&rig);
}

Test(core_log_append, settings_and_lives_are_read_back_as_they_were)
{
    struct bk_channel channel = {.id = 3, .settings = {.logged = true, .ring_bytes = 1 << 20}};
    struct bb_buf out = BB_BUF_INIT;
    channel.lives.now = 7;
    bk_lives_end(&channel.lives, 4, 9);
    bk_log_channel_write(&out, &channel);
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&out));
    cr_assert_eq(bb_mp_read_array(&reader), 2);
    cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_MAP);
    bb_mp_skip(&reader);
    cr_assert(bb_slice_equal(bb_mp_read_raw(&reader), bb_slice("\x93\x09\x07\x04", 4)));
    cr_assert_eq(reader.error, 0);
    struct bk_log_channel entry = bk_log_channel_of(&channel, bb_buf_slice(&out));
    cr_assert_eq(entry.id, 3);
    cr_assert_eq(entry.settings.len, out.len);
    bb_buf_fini(&out);
    bk_lives_fini(&channel.lives);
}

/* --- the stage --------------------------------------------------------------------------------------------- */

Test(core_log_append, a_batch_that_is_larger_than_a_ticket_is_refused_and_one_that_fits_waits_for_its_own)
{
    struct rig rig;
    start(&rig);
    rig.log->backend.max_ticket = 200;
    rig.payload = 60;
    rig_batch(&rig, 0, 1, "a/x");
    rig_batch(&rig, 0, 2, "a/x");
    cr_assert_eq(rig.log->n_registered, 1, "the second one does not fit beside the first");
    rig_batch(&rig, 0, 3, "6:a/x");
    bk_core_flush(rig.core);
    rig_settle(&rig);
    RIG_TOLD(&rig, 0, "error publish/3 too_big; ack 1@3 a1+1; ack 2@3 a2+1");
    rig_stop(&rig);
}

Test(core_log_append, levels_and_states_of_the_log_decide_who_is_admitted)
{
    struct rig rig;
    start(&rig);
    rig_publish(&rig, 0, 0, "a/x");
    rig_settle(&rig);
    struct bk_core *core = rig.core;
    struct bk_channel *channel = rig_channel(&rig, "a");
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_SYNCED), 0);
    rig.log->backend.is_durable = false;
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_SYNCED), BB_EUNSUPPORTED);
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_ACCEPTED), 0);
    core->stage.is_behind = core->stage.drains = true;
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_ACCEPTED), BB_EFULL);
    core->stage.state = BK_BACKEND_FULL;
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_ACCEPTED), BB_ELOGFULL);
    core->stage.state = BK_BACKEND_FAILED;
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_ACCEPTED), BB_ELOGFAILED);
    core->stage.state = BK_BACKEND_OK;
    core->stage.is_behind = core->stage.drains = false;
    core->stage.is_broken = true;
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_ACCEPTED), BB_ELOGFAILED);
    core->stage.is_broken = false;
    channel->settings.logged = false;
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_ACCEPTED), 0);
    cr_assert_eq(bk_stage_admit(core, channel, BB_LEVEL_SYNCED), BB_EUNSUPPORTED);
    channel->settings.logged = true;
    rig_stop(&rig);
}

/* Whoever publishes there cannot be paused. */
Test(core_log_append, a_window_is_refused_while_the_log_takes_no_more_and_the_ticket_is_full)
{
    struct rig rig;
    struct bb_buf events = BB_BUF_INIT;
    rig_init(&rig);
    rig_start(&rig, false, true);
    rig_hello_all(&rig);
    rig.log->backend.max_ticket = 2000;
    rig.payload = 1000;
    rig_events(&rig, "a/x", &events);
    rig_publish(&rig, 0, 0, "a/x");
    rig.log->refusal = BB_EFULL;
    cr_assert_eq(bk_core_ingest(rig.core, bb_buf_slice(&events), NULL), 0);
    cr_assert_eq(bk_core_ingest(rig.core, bb_buf_slice(&events), NULL), BB_EFULL);
    rig.log->refusal = 0;
    rig_settle(&rig);
    cr_assert_eq(bk_core_ingest(rig.core, bb_buf_slice(&events), NULL), 0);
    rig_settle(&rig);
    cr_assert_eq(rig_channel(&rig, "a")->last, 3);
    bb_buf_fini(&events);
    rig_stop(&rig);
}

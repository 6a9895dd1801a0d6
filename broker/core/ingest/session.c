/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/ingest/session.h"

#include "broker/core/bytes.h"
#include "broker/core/clients/client.h"
#include "broker/core/ingest/batch.h"
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"
#include "broker/core/log/memory.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"

/* Put one block where its channel is kept. */
static int keep_block(struct bk_core *core, const struct bk_run *run, struct bk_block *block)
{
    struct bk_channel *channel = run->channel;
    block->uniform = run->is_uniform;
    block->has_ttl = run->has_ttl;
    block->has_source_time = run->has_source_time;
    int r = run->is_logged ? bk_stage_add(core, block) : bk_ring_push(&core->ring, block);
    if (r < 0) {
        bk_ring_drop(block);
        return r;
    }
    if (!run->is_logged) {
        channel->taken = channel->shown = channel->last;
        core->fanned_bytes += run->len;
        bk_memory_keep(core, block);
    }
    return 0;
}

static void count_run(struct bk_core *core, const struct bk_run *run)
{
    run->channel->n_events += run->count;
    run->channel->n_bytes += run->len;
    bk_count(core, BK_COUNTER_events_in, run->count);
    bk_count(core, BK_COUNTER_bytes_in, run->len);
}

int bk_session_keep(struct bk_core *core,
                    struct bk_batch *batch,
                    const struct bk_client *client,
                    struct bk_bytes *owner)
{
    uint64_t session = core->session + 1;
    uint64_t time = BB_MAX(core->session_time, core->wall); /* PROTOCOL 4: never goes back */
    for (size_t i = 0; i < bk_batch_n_runs(batch); i++) {
        struct bk_run *run = bk_batch_run(batch, i);
        struct bk_block block;
        struct bb_block head = {
            .session = session,
            .time = time,
            .source = client != NULL ? client->number : 0,
            .sequence = run->channel->taken + 1,
            .instance = (uint64_t)run->first + 1,
            .count = run->count,
            .length = run->len,
        };
        int r = bk_ring_build(&core->ring, run->channel, &head, bb_slice(run->data, run->len), owner,
                              run->is_logged, &block);
        r = r == 0 ? keep_block(core, run, &block) : r;
        if (r < 0 && i == 0) {
            return r;
        }
        if (r < 0) {
            bk_batch_cut(batch, i, r);
            break;
        }
        run->sequence = head.sequence;
        core->session = session;
        core->session_time = time;
        count_run(core, run);
    }
    bk_memory_register(core);
    return 0;
}

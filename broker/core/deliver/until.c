/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions that come to an end by themselves (PROTOCOL 7.1, until). */
#include "broker/core/deliver/until.h"

#include "proto/wire/trie.h"

#include "broker/core/clients/client.h"
#include "broker/core/keep/channel.h"
#include "broker/core/log/stage.h"
#include "broker/core/state.h"
#include "broker/core/subs/claim.h"
#include "broker/core/subs/ready.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"

/* The longest time between two looks: the wall clock may be set, and the last event that is wanted need not match, so
 * that nobody looks when it comes. */
#define LOOK_MAX_US UINT64_C(1000000)

/* --- where it is ---------------------------------------------------------------------------------- */

/* A map of sequences by channel, looked through so that it can be relied on. */
static struct bb_slice read_ends(struct bb_mp_reader *reader)
{
    const uint8_t *from = reader->p;
    uint64_t n = bb_mp_read_map(reader);
    for (uint64_t i = 0; i < n && reader->error == 0; i++) {
        struct bk_claim claim;
        (void)bb_mp_read_str(reader);
        bk_claim_read(reader, &claim);
    }
    return bb_slice(from, (size_t)(reader->p - from));
}

int bk_until_read(struct bb_mp_reader *reader, struct bk_until_wish *ret_wish)
{
    enum bb_mp_type type = bb_mp_peek_type(reader);
    *ret_wish = (struct bk_until_wish){.kind = BK_UNTIL_STOP, .time = UINT64_MAX};
    if (type == BB_MP_NIL) {
        bb_mp_read_nil(reader);
        ret_wish->kind = BK_UNTIL_NONE;
        ret_wish->stop = UINT64_MAX;
        return 0;
    }
    if (type == BB_MP_UINT) {
        ret_wish->stop = bb_mp_read_uint(reader);
        return ret_wish->stop > 0 ? 0 : BB_EINVAL;
    }
    if (type == BB_MP_STR) {
        return bb_slice_equal(bb_mp_read_str(reader), bb_slice_str("now")) ? 0 : BB_EINVAL;
    }
    uint64_t n = bb_mp_read_map(reader);
    struct bb_slice key = bb_mp_read_str(reader);
    if (n == 1 && bb_slice_equal(key, bb_slice_str("last"))) {
        ret_wish->last = read_ends(reader);
        return 0;
    }
    ret_wish->kind = BK_UNTIL_TIME;
    ret_wish->stop = UINT64_MAX;
    ret_wish->time = bb_mp_read_uint(reader);
    return n == 1 && bb_slice_equal(key, bb_slice_str("time")) && ret_wish->time < UINT64_MAX ? 0 : BB_EINVAL;
}

bool bk_until_is_now(const struct bk_sub *sub)
{
    return sub->until == BK_UNTIL_STOP && sub->new_stop == 0;
}

void bk_until_write(const struct bk_sub *sub, struct bb_buf *out)
{
    bb_mp_write_map(out, (uint32_t)sub->n_positions);
    for (size_t i = 0; i < sub->n_positions; i++) {
        bb_mp_write_str(out, sub->positions[i].channel->name);
        if (sub->has_lives) {
            bb_mp_write_array(out, 2);
        }
        bb_mp_write_uint(out, sub->positions[i].stop);
        if (sub->has_lives) {
            bb_mp_write_uint(out, bk_channel_life_at(sub->positions[i].channel, sub->positions[i].stop));
        }
    }
}

/* --- whether it is reached ------------------------------------------------------------------------ */

/* Whether an event may still come that is not after @time. */
static bool may_come_by(const struct bk_core *core, uint64_t time)
{
    const struct bk_stage *stage = &core->stage;
    if (BB_MAX(core->wall, core->session_time) <= time) {
        return true;
    }
    return stage->first < bk_stage_end(stage) && bk_stage_at(stage, stage->first)->block.time <= time;
}

/* Whether @channel has had less than @sub wants of it; @ret_any is set if it has had anything. */
static bool is_short(const struct bk_sub *sub, const struct bk_channel *channel, bool *ret_any)
{
    bool has_some = channel != NULL && channel->last > 0;
    *ret_any = *ret_any || has_some;
    return has_some && channel->last < sub->new_stop;
}

/* It has to do with no channel, for in those that came later nothing matched: it ends when each of them that a pattern can match
 * has had all that it wants of it. */
static bool later_stops_are_reached(const struct bk_core *core, const struct bk_sub *sub)
{
    const struct bk_channels *channels = &core->channels;
    bool has_all = false; /* a pattern for any channel */
    bool any = false;
    for (size_t i = 0; i < sub->n_patterns; i++) {
        struct bb_slice name;
        bool is_one = bb_trie_first(&sub->patterns[i].entry, &name);
        if (is_one && is_short(sub, bk_channels_find(channels, name), &any)) {
            return false;
        }
        has_all = has_all || !is_one;
    }
    for (size_t i = 0; has_all && i < channels->n_channels; i++) {
        if (is_short(sub, channels->list[i], &any)) {
            return false;
        }
    }
    return any;
}

static bool stops_are_reached(const struct bk_core *core, const struct bk_sub *sub)
{
    bool any = bk_until_is_now(sub) || sub->over.len > 0 || sub->n_positions > 0;
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].channel->last < sub->positions[i].stop) {
            return false;
        }
    }
    return any || later_stops_are_reached(core, sub);
}

bool bk_until_is_reached(const struct bk_core *core, const struct bk_sub *sub)
{
    if (sub->until == BK_UNTIL_NONE || sub->state != BK_SUB_LAGGING || sub->n_cold > 0 || sub->n_losing > 0 ||
        sub->is_dropping || sub->lag_bytes > 0) { /* what the ring has and it does not want needs no credit */
        return false;
    }
    return sub->until == BK_UNTIL_TIME ? !may_come_by(core, sub->until_time) : stops_are_reached(core, sub);
}

uint64_t bk_until_tick(struct bk_core *core)
{
    uint64_t next = UINT64_MAX;
    if (core->n_until == 0) {
        return next;
    }
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (sub->until != BK_UNTIL_NONE) {
                bool is_over = sub->until_time < core->wall;
                uint64_t left = is_over ? LOOK_MAX_US - 1 : sub->until_time - core->wall;
                next = BB_MIN(next, BB_MIN(left, LOOK_MAX_US - 1) + 1);
                bk_sub_set_ready(core, sub);
            }
        }
    }
    return next;
}

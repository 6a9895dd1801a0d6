/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions that come to an end by themselves (PROTOCOL 7.1, until). */
#include "broker/core/state.h"

#include <string.h>

/* The longest time between two looks: the wall clock may be set. */
#define LOOK_MAX_US UINT64_C(1000000)

/* --- where it is ---------------------------------------------------------------------------------- */

/* A map of sequences by channel, looked through so that it can be relied on. */
static struct bb_slice read_ends(struct bb_mp_reader *reader)
{
    const uint8_t *from = reader->p;
    uint64_t n = bb_mp_read_map(reader);
    for (uint64_t i = 0; i < n && reader->error == 0; i++) {
        (void)bb_mp_read_str(reader);
        (void)bb_mp_read_uint(reader);
    }
    return bb_slice(from, (size_t)(reader->p - from));
}

int bk_until_read(struct bb_mp_reader *reader, struct bk_sub *sub, struct bb_slice *ret_last)
{
    enum bb_mp_type type = bb_mp_peek_type(reader);
    sub->until = BK_UNTIL_STOP;
    if (type == BB_MP_UINT) {
        sub->new_stop = bb_mp_read_uint(reader);
        return sub->new_stop > 0 ? 0 : BB_EINVAL;
    }
    sub->new_stop = 0;
    if (type == BB_MP_STR) {
        return bb_slice_equal(bb_mp_read_str(reader), bb_slice_str("now")) ? 0 : BB_EINVAL;
    }
    uint64_t n = bb_mp_read_map(reader);
    struct bb_slice key = bb_mp_read_str(reader);
    if (n == 1 && bb_slice_equal(key, bb_slice_str("last"))) {
        *ret_last = read_ends(reader);
        return 0;
    }
    sub->until = BK_UNTIL_TIME;
    sub->new_stop = UINT64_MAX;
    sub->until_time = bb_mp_read_uint(reader);
    return n == 1 && bb_slice_equal(key, bb_slice_str("time")) && sub->until_time < UINT64_MAX ? 0
                                                                                               : BB_EINVAL;
}

bool bk_until_is_now(const struct bk_sub *sub)
{
    return sub->until == BK_UNTIL_STOP && sub->new_stop == 0;
}

/* What @channel can still be expected to have up to @last, a sequence of another run or of this one. */
static uint64_t
stop_of(const struct bk_core *core, const struct bk_channel *channel, uint64_t last, bool is_other_run)
{
    if (!is_other_run) {
        return BB_MIN(last, channel->last);
    }
    return bk_store_of(core, channel) == BK_STORE_LOG ? BB_MIN(last, channel->loaded) : 0;
}

void bk_until_limit(struct bk_core *core, struct bk_sub *sub, struct bb_slice last, bool is_other_run)
{
    struct bb_mp_reader reader = bb_mp_reader(last);
    uint64_t n = bb_mp_read_map(&reader);
    for (size_t i = 0; i < sub->n_positions; i++) {
        sub->positions[i].stop = 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        const struct bk_channel *channel = bk_channels_find(&core->channels, bb_mp_read_str(&reader));
        uint64_t sequence = bb_mp_read_uint(&reader);
        struct bk_position *position = channel != NULL ? bk_sub_find_position(sub, channel) : NULL;
        if (position != NULL) {
            position->stop = stop_of(core, channel, sequence, is_other_run);
        }
    }
}

void bk_until_write(const struct bk_sub *sub, struct bb_buf *out)
{
    bb_mp_write_map(out, (uint32_t)sub->n_positions);
    for (size_t i = 0; i < sub->n_positions; i++) {
        bb_mp_write_str(out, sub->positions[i].channel->name);
        bb_mp_write_uint(out, sub->positions[i].stop);
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
    if (stage->first * sizeof(struct bk_staged) >= stage->blocks.len) {
        return false;
    }
    const struct bk_staged *oldest =
        (const struct bk_staged *)(const void *)stage->blocks.data + stage->first;
    return oldest->block.time <= time;
}

bool bk_until_is_reached(const struct bk_core *core, const struct bk_sub *sub)
{
    if (sub->until == BK_UNTIL_NONE || sub->n_cold > 0 || sub->snapshot != NULL || sub->client->doomed ||
        sub->cursor < core->fanned_pos) {
        return false;
    }
    if (sub->until == BK_UNTIL_TIME) {
        return !may_come_by(core, sub->until_time);
    }
    for (size_t i = 0; i < sub->n_positions; i++) {
        if (sub->positions[i].channel->last < sub->positions[i].stop) {
            return false;
        }
    }
    return sub->n_positions > 0 || bk_until_is_now(sub);
}

void bk_sub_end(struct bk_core *core, struct bk_sub *sub, const char *code)
{
    struct bk_client *client = sub->client;
    uint64_t id = sub->id;
    bk_sub_remove(core, sub);
    bk_count(core, BK_COUNTER_subs_done, strcmp(code, "done") == 0);
    bk_client_send_msg(core, client,
                       &(struct bb_msg){.type = BB_MSG_ENDED, .sub = id, .code = bb_slice_str(code)});
}

uint64_t bk_until_tick(struct bk_core *core)
{
    uint64_t next = UINT64_MAX;
    if (core->n_until == 0) {
        return next;
    }
    for (struct bk_client *client = core->clients; client != NULL; client = client->next) {
        for (struct bk_sub *sub = client->subs; sub != NULL; sub = sub->next) {
            if (sub->until == BK_UNTIL_TIME) {
                uint64_t left =
                    sub->until_time >= core->wall ? sub->until_time - core->wall + 1 : LOOK_MAX_US;
                next = BB_MIN(next, BB_MIN(left, LOOK_MAX_US));
                bk_sub_set_ready(core, sub);
            }
        }
    }
    return next;
}

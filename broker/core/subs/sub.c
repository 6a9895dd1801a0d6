/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/sub.h"

#include "broker/core/filter.h"
#include "broker/core/keep/channel.h"
#include "broker/core/state.h"
#include "broker/core/subs/route.h"

#include <assert.h>
#include <stdlib.h>

/* Bytes of names that are remembered. */
#define OVER_MAX ((size_t)64 << 10)

struct bk_sub *bk_sub_new(size_t n_patterns)
{
    struct bk_sub *sub = calloc(1, sizeof(*sub) + n_patterns * sizeof(sub->patterns[0]));
    if (sub == NULL) {
        return NULL;
    }
    sub->n_patterns = n_patterns;
    sub->until_time = sub->new_stop = UINT64_MAX;
    for (size_t i = 0; i < n_patterns; i++) {
        sub->patterns[i].sub = sub;
    }
    return sub;
}

void bk_sub_free(struct bk_sub *sub, struct bk_route *route)
{
    for (size_t i = 0; i < sub->n_patterns; i++) {
        bk_route_remove(route, &sub->patterns[i]);
    }
    bk_filter_unref(sub->filter);
    bb_buf_fini(&sub->over);
    free(sub->positions);
    free(sub);
}

static bool is_behind(enum bk_sub_state state)
{
    return state == BK_SUB_RETAINED || state == BK_SUB_LAGGING;
}

void bk_sub_enter(struct bk_core *core, struct bk_sub *sub, enum bk_sub_state state)
{
    /* Which states may follow which. */
    static const bool edges[BK_SUB_STATES][BK_SUB_STATES] = {
        [BK_SUB_BEGINNING] = {[BK_SUB_RETAINED] = true, [BK_SUB_LAGGING] = true, [BK_SUB_LIVE] = true},
        [BK_SUB_RETAINED] = {[BK_SUB_LAGGING] = true},
        [BK_SUB_LAGGING] = {[BK_SUB_LIVE] = true},
        [BK_SUB_LIVE] = {[BK_SUB_LAGGING] = true},
    };
    (void)edges; /* without assertions */
    assert(edges[sub->state][state]);
    core->n_lagging += is_behind(state);
    core->n_lagging -= is_behind(sub->state);
    sub->state = state;
}

static int positions_grow(struct bk_sub *sub)
{
    if (sub->n_positions < sub->n_position_slots) {
        return 0;
    }
    size_t n = sub->n_position_slots > 0 ? 2 * sub->n_position_slots : 1;
    struct bk_position *positions = realloc(sub->positions, n * sizeof(*positions));
    if (positions == NULL) {
        return BB_ENOMEM;
    }
    sub->positions = positions;
    sub->n_position_slots = n;
    return 0;
}

/* Where the position of @channel is or belongs. */
static size_t position_index(const struct bk_sub *sub, const struct bk_channel *channel)
{
    size_t low = 0;
    size_t high = sub->n_positions;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sub->positions[middle].channel->id < channel->id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct bk_position *bk_sub_find_position(const struct bk_sub *sub, const struct bk_channel *channel)
{
    size_t i = position_index(sub, channel);
    return i < sub->n_positions && sub->positions[i].channel == channel ? &sub->positions[i] : NULL;
}

/* Whether a channel called @name was removed, and is over for a subscription with an end in sequences (PROTOCOL 7.1). */
static bool is_over(const struct bk_sub *sub, struct bb_slice name)
{
    for (size_t at = 0; at < sub->over.len;) {
        uint32_t len = 0;
        memcpy(&len, sub->over.data + at, sizeof(len));
        at += sizeof(len);
        if (bb_slice_equal(bb_slice(sub->over.data + at, len), name)) {
            return true;
        }
        at += len;
    }
    return false;
}

void bk_sub_end_in(struct bk_sub *sub, struct bb_slice name)
{
    uint32_t len = (uint32_t)name.len;
    if (sub->until != BK_UNTIL_STOP || is_over(sub, name)) {
        return;
    }
    if (sub->over.len < OVER_MAX && bb_buf_reserve(&sub->over, sizeof(len) + len) != NULL) {
        bb_buf_append(&sub->over, &len, sizeof(len));
        bb_buf_append(&sub->over, name.data, len);
    } else {
        sub->over.error = 0;
        sub->new_stop = 0; /* no other channel is wanted either */
    }
}

struct bk_position *bk_sub_position(struct bk_sub *sub, struct bk_channel *channel)
{
    struct bk_position *position = bk_sub_find_position(sub, channel);
    if (position != NULL || positions_grow(sub) < 0) {
        return position;
    }
    size_t i = position_index(sub, channel);
    memmove(&sub->positions[i + 1], &sub->positions[i], (sub->n_positions - i) * sizeof(sub->positions[0]));
    sub->n_positions++;
    sub->positions[i] = (struct bk_position){
        .channel = channel,
        .stop = is_over(sub, channel->name) ? 0 : sub->new_stop,
        .is_cold = sub->n_cold > 0 && channel->settings.logged, /* as all others in logged channels are */
    };
    sub->n_cold += sub->positions[i].is_cold;
    return &sub->positions[i];
}

void bk_sub_drop_position(struct bk_sub *sub, struct bk_position *position)
{
    size_t i = (size_t)(position - sub->positions);
    bk_sub_end_in(sub, position->channel->name);
    sub->lag_bytes -= position->account.waiting_bytes;
    sub->n_losing -= position->account.n_losses > 0;
    sub->n_cold -= position->is_cold;
    sub->n_positions--;
    memmove(&sub->positions[i], &sub->positions[i + 1], (sub->n_positions - i) * sizeof(sub->positions[0]));
}

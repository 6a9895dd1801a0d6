/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/sub.h"

#include "proto/base/error.h"

#include <stdlib.h>

static const char *const overflow_names[] = {
    [BK_OVERFLOW_SLIDE] = "slide",
    [BK_OVERFLOW_DROP_OLDEST] = "drop_oldest",
    [BK_OVERFLOW_DROP_NEWEST] = "drop_newest",
    [BK_OVERFLOW_CONFLATE] = "conflate",
    [BK_OVERFLOW_REFUSE] = "refuse",
    [BK_OVERFLOW_DISCONNECT] = "disconnect",
};

const char *bk_overflow_name(enum bk_overflow overflow)
{
    return overflow_names[overflow];
}

int bk_overflow_find(struct bb_slice name, enum bk_overflow *ret_overflow)
{
    for (size_t i = 0; i < BB_COUNT(overflow_names); i++) {
        if (bb_slice_equal(name, bb_slice_str(overflow_names[i]))) {
            *ret_overflow = (enum bk_overflow)i;
            return 0;
        }
    }
    return BB_EINVAL;
}

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
    free(sub->positions);
    free(sub);
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
        if (sub->positions[middle].channel->index < channel->index) {
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
        .stop = sub->new_stop,
        .cold = sub->n_cold > 0 && channel->settings.logged, /* as all others in logged channels are */
    };
    sub->n_cold += sub->positions[i].cold;
    return &sub->positions[i];
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/channel.h"

#include "proto/base/error.h"

#include <stdlib.h>

void bk_channels_init(struct bk_channels *channels,
                      uint64_t seed,
                      size_t max,
                      const struct bk_settings *defaults)
{
    *channels = (struct bk_channels){.max = max, .defaults = *defaults};
    bb_map_init(&channels->by_name, seed, max);
}

void bk_channels_fini(struct bk_channels *channels)
{
    for (size_t i = 0; i < channels->n_channels; i++) {
        free(channels->list[i]);
    }
    free(channels->list);
    bb_map_fini(&channels->by_name);
    *channels = (struct bk_channels){0};
}

struct bk_channel *bk_channels_find(const struct bk_channels *channels, struct bb_slice name)
{
    return bb_map_find(&channels->by_name, name);
}

static int channels_grow(struct bk_channels *channels)
{
    if (channels->n_channels < channels->n_slots) {
        return 0;
    }
    size_t n = channels->n_slots > 0 ? 2 * channels->n_slots : 16;
    struct bk_channel **list = realloc(channels->list, n * sizeof(struct bk_channel *));
    if (list == NULL) {
        return BB_ENOMEM;
    }
    channels->list = list;
    channels->n_slots = n;
    return 0;
}

size_t bk_channels_count(const struct bk_channels *channels)
{
    size_t n = 0;
    for (size_t i = 0; i < channels->n_channels; i++) {
        n += !bk_channel_is_gone(channels->list[i]);
    }
    return n;
}

int bk_channels_get(struct bk_channels *channels, struct bb_slice name, struct bk_channel **ret_channel)
{
    struct bk_channel *channel = bk_channels_find(channels, name);
    if (channel != NULL) {
        *ret_channel = channel;
        return 0;
    }
    if (channels->n_channels >= channels->max) {
        return BB_ELIMIT;
    }
    if (channels_grow(channels) < 0) {
        return BB_ENOMEM;
    }
    channel = calloc(1, sizeof(*channel) + name.len);
    if (channel == NULL) {
        return BB_ENOMEM;
    }
    uint8_t *copy = (uint8_t *)(channel + 1);
    if (name.len > 0) {
        memcpy(copy, name.data, name.len);
    }
    channel->name = bb_slice(copy, name.len);
    channel->index = (uint32_t)channels->n_channels;
    channel->id = channels->last_id + 1;
    channel->first = 1;
    channel->log_first = 1;
    channel->settings = channels->defaults;
    channel->ring_max = channel->settings.ring_bytes;
    int r = bb_map_add(&channels->by_name, channel->name, channel);
    if (r < 0) {
        free(channel);
        return r;
    }
    channels->list[channels->n_channels++] = channel;
    channels->last_id++;
    *ret_channel = channel;
    return 0;
}

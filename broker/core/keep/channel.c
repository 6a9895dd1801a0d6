/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/keep/channel.h"

#include "proto/base/error.h"

#include <stdlib.h>

/* So many names of removed channels are told apart. */
#define REMOVED_MAX 16384

/* A name that was a removed channel's. */
struct removed {
    uint64_t next_life;
    size_t len;
    uint8_t name[];
};

static void removed_free(struct bk_channels *channels)
{
    size_t at = 0;
    struct removed *removed = NULL;
    while ((removed = bb_map_next(&channels->removed, &at, NULL)) != NULL) {
        free(removed);
    }
    bb_map_fini(&channels->removed);
}

/* A position in the channel must not hold in the next one of its name. Without memory for the name no new channel is trusted. */
static void note_removed(struct bk_channels *channels, struct bb_slice name)
{
    struct removed *removed = bb_map_find(&channels->removed, name);
    uint64_t life = ++channels->last_life;
    if (removed != NULL) {
        removed->next_life = life;
        return;
    }
    removed = calloc(1, sizeof(*removed) + name.len);
    if (removed != NULL) {
        removed->next_life = life;
        removed->len = name.len;
        if (name.len > 0) {
            memcpy(removed->name, name.data, name.len);
        }
    }
    if (removed == NULL ||
        bb_map_add(&channels->removed, bb_slice(removed->name, removed->len), removed) < 0) {
        free(removed);
        channels->birth_life = life;
    }
}

void bk_channels_init(struct bk_channels *channels,
                      uint64_t seed,
                      size_t max,
                      uint64_t run,
                      const struct bk_settings *defaults)
{
    *channels = (struct bk_channels){.max = max, .defaults = *defaults};
    bk_channels_raise_run(channels, run - 1);
    bb_map_init(&channels->by_name, seed, max);
    bb_map_init(&channels->removed, seed, REMOVED_MAX);
}

void bk_channels_raise_run(struct bk_channels *channels, uint64_t life)
{
    channels->run = channels->last_life = channels->birth_life = BB_MAX(channels->run, life + 1);
}

void bk_channels_fini(struct bk_channels *channels)
{
    for (size_t i = 0; i < channels->n_channels; i++) {
        bk_channel_unref(channels->list[i]);
    }
    free(channels->list);
    removed_free(channels);
    bb_map_fini(&channels->by_name);
    *channels = (struct bk_channels){0};
}

struct bk_channel *bk_channels_find(const struct bk_channels *channels, struct bb_slice name)
{
    return bb_map_find(&channels->by_name, name);
}

struct bk_channel *bk_channels_find_id(const struct bk_channels *channels, uint32_t id)
{
    for (size_t i = 0; i < channels->n_channels; i++) {
        if (channels->list[i]->id == id) {
            return channels->list[i];
        }
    }
    return NULL;
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
        n += !bk_channel_is_empty(channels->list[i]);
    }
    return n;
}

static struct bk_channel *channel_new(struct bk_channels *channels, struct bb_slice name)
{
    const struct removed *removed = bb_map_find(&channels->removed, name);
    struct bk_channel *channel = calloc(1, sizeof(*channel) + name.len);
    if (channel == NULL) {
        return NULL;
    }
    uint8_t *copy = (uint8_t *)(channel + 1);
    if (name.len > 0) {
        memcpy(copy, name.data, name.len);
    }
    channel->name = bb_slice(copy, name.len);
    channel->refs = 1;
    channel->index = (uint32_t)channels->n_channels;
    channel->id = channels->last_id + 1;
    channel->lives.now =
        removed != NULL ? BB_MAX(removed->next_life, channels->birth_life) : channels->birth_life;
    channel->first = 1;
    channel->log_first = 1;
    channel->settings = channels->defaults;
    channel->ring_max = channel->settings.ring_bytes;
    return channel;
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
    channel = channels_grow(channels) == 0 ? channel_new(channels, name) : NULL;
    if (channel == NULL) {
        return BB_ENOMEM;
    }
    int r = bb_map_add(&channels->by_name, channel->name, channel);
    if (r < 0) {
        free(channel);
        return r;
    }
    channels->list[channels->n_channels++] = channel;
    channels->last_id++;
    bk_channel_changed(channels, channel);
    *ret_channel = channel;
    return 0;
}

void bk_channels_undo(struct bk_channels *channels, struct bk_channel *channel)
{
    struct bk_channel *last = channels->list[--channels->n_channels];
    channels->list[channel->index] = last;
    last->index = channel->index;
    (void)bb_map_remove(&channels->by_name, channel->name);
    bk_channel_unref(channel);
}

void bk_channels_remove(struct bk_channels *channels, struct bk_channel *channel)
{
    note_removed(channels, channel->name);
    bk_channels_undo(channels, channel);
}

void bk_channel_unref(struct bk_channel *channel)
{
    if (--channel->refs == 0) {
        bk_lives_fini(&channel->lives);
        free(channel);
    }
}

void bk_channel_changed(struct bk_channels *channels, struct bk_channel *channel)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        channel->is_known[i] = false;
        channels->has_unknown[i] = true;
    }
}

void bk_channel_end_life(struct bk_channels *channels, struct bk_channel *channel, uint64_t upto)
{
    bk_lives_end(&channel->lives, upto, ++channels->last_life);
    bk_channel_changed(channels, channel);
}

void bk_channel_begin_run(struct bk_channels *channels, struct bk_channel *channel)
{
    channel->is_loaded = false;
    bk_lives_end(&channel->lives, channel->taken, channels->run);
    bk_channel_changed(channels, channel);
}

uint64_t bk_channel_life_at(const struct bk_channel *channel, uint64_t sequence)
{
    uint64_t upto = 0;
    bool is_stored = channel->stored_life != 0 &&
                     bk_lives_judge(&channel->lives, channel->stored_life, sequence, UINT64_MAX, &upto) ==
                         BK_POSITION_HOLDS;
    return is_stored ? channel->stored_life : channel->lives.now;
}

void bk_channel_life_sent(struct bk_channels *channels, struct bk_channel *channel, uint64_t ticket)
{
    if (channel->lives.now != channel->stored_life && channel->lives.now != channel->sent_life) {
        channel->sent_life = channel->lives.now;
        channel->sent_ticket = ticket;
        channels->has_sent_lives = true;
    }
}

void bk_channels_lives_stored(struct bk_channels *channels, uint64_t durable, uint64_t failed)
{
    bool has_sent = false;
    for (size_t i = 0; i < channels->n_channels && channels->has_sent_lives; i++) {
        struct bk_channel *channel = channels->list[i];
        if (channel->sent_ticket != 0 && channel->sent_ticket <= durable) {
            channel->stored_life = channel->sent_life;
        }
        if (channel->sent_ticket <= durable || channel->sent_ticket >= failed) {
            channel->sent_life = channel->sent_ticket = 0;
        }
        has_sent = has_sent || channel->sent_ticket != 0;
    }
    channels->has_sent_lives = has_sent;
}

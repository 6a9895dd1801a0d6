/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/retained.h"

#include "proto/wire/event.h"
#include "proto/wire/path.h"

#include "tests/sim/world.h"

/* The newest event of @path up to @last, 0 if there is none. */
static uint64_t newest_of(const struct ledger *ledger, size_t channel, struct bb_slice path, uint64_t last)
{
    const struct ledger_event *event = NULL;
    while ((event = ledger_at(ledger, channel, last)) != NULL && !bb_slice_equal(event->path, path)) {
        last--;
    }
    return event != NULL ? last : 0;
}

static bool has_got(const struct retained *retained, size_t channel, uint64_t sequence)
{
    for (size_t i = 0; i < retained->n_got; i++) {
        if (retained->got[i].channel == channel && retained->got[i].sequence == sequence) {
            return true;
        }
    }
    return false;
}

static void check_value(struct world *world,
                        struct watch *watch,
                        const struct bb_block *block,
                        const struct bb_event_view *event)
{
    struct retained *retained = &watch->retained;
    int index = sim_channel_find(bb_path_channel(event->path));
    const struct ledger_event *truth =
        index >= 0 ? ledger_at(&world->ledger, (size_t)index, block->sequence) : NULL;
    if (truth == NULL || truth->len != event->raw.len ||
        memcmp(truth->raw, event->raw.data, truth->len) != 0 || truth->session != block->session ||
        truth->instance != block->instance || truth->time != block->time) {
        world_fail(world, "a retained value is not what was published");
        return;
    }
    size_t channel = (size_t)index;
    if (!watch_matches(watch, event->path) || has_got(retained, channel, block->sequence) ||
        retained->n_got == RETAINED_MAX) {
        world_fail(world, "a retained value that nobody asked for, or twice");
        return;
    }
    if (newest_of(&world->ledger, channel, event->path, watch->channels[channel].base) != block->sequence) {
        world_fail(world, "sub %llu: a retained value that is not the newest of its path",
                   (unsigned long long)watch->id);
    }
    retained->got[retained->n_got].channel = channel;
    retained->got[retained->n_got++].sequence = block->sequence;
}

/* What has not come has a newer event by now, which comes with the flow. */
static void check_end(struct world *world, const struct watch *watch)
{
    const struct ledger *ledger = &world->ledger;
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        uint64_t base = watch->channels[i].base;
        for (uint64_t sequence = 1; sequence <= base; sequence++) {
            const struct ledger_event *event = ledger_at(ledger, i, sequence);
            if (event != NULL && watch_matches(watch, event->path) &&
                newest_of(ledger, i, event->path, ledger_last(ledger, i)) == sequence &&
                !has_got(&watch->retained, i, sequence)) {
                world_fail(world, "sub %llu: the retained value %llu of channel %zu is missing",
                           (unsigned long long)watch->id, (unsigned long long)sequence, i);
                return;
            }
        }
    }
}

void retained_deliver(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct bb_slice rest = msg->body;
    struct bb_block block;
    struct bb_event_view event;
    if (!watch->retained.is_due) {
        world_fail(world, "retained values that nobody asked for, or behind the last");
        return;
    }
    while (rest.len > 0 && !world->failed) {
        if (bb_block_read(&rest, &block) < 0 || block.count != 1) {
            world_fail(world, "a retained value that cannot be read");
            return;
        }
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        if (bb_event_read(&events, &event) < 0) {
            world_fail(world, "a retained value that cannot be read");
            return;
        }
        check_value(world, watch, &block, &event);
        watch->got_events++;
    }
    watch->got_bytes += msg->body.len;
    if (msg->retained == 2 && !world->failed) {
        check_end(world, watch);
        watch->retained.is_due = false;
    }
}

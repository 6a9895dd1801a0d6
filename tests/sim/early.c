/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/early.h"

#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "tests/sim/world.h"

#define FNV_BASE  UINT64_C(0xcbf29ce484222325)
#define FNV_PRIME UINT64_C(0x100000001b3)

static uint64_t hash_of(uint64_t session, uint64_t instance, uint64_t time, struct bb_slice raw)
{
    uint64_t hash = FNV_BASE;
    hash = (hash ^ session) * FNV_PRIME;
    hash = (hash ^ instance) * FNV_PRIME;
    hash = (hash ^ time) * FNV_PRIME;
    for (size_t i = 0; i < raw.len; i++) {
        hash = (hash ^ raw.data[i]) * FNV_PRIME;
    }
    return hash;
}

static void forget(struct early *early, size_t i)
{
    early->n_seen--;
    memmove(&early->seen[i], &early->seen[i + 1], (early->n_seen - i) * sizeof(early->seen[0]));
}

static void
fail(struct world *world, const struct watch *watch, const char *what, size_t channel, uint64_t sequence)
{
    world_fail(world, "sub %llu (early): %s: %llu of channel %zu", (unsigned long long)watch->id, what,
               (unsigned long long)sequence, channel);
}

static void verify_event(struct world *world, struct watch *watch, size_t channel, uint64_t sequence)
{
    struct early *early = &watch->early;
    const struct ledger_event *truth = ledger_at(&world->ledger, channel, sequence);
    size_t i = 0;
    while (i < early->n_seen && (early->seen[i].channel != channel || early->seen[i].sequence != sequence)) {
        i++;
    }
    bool is_wanted = watch_matches(watch, truth->path);
    if (is_wanted != (i < early->n_seen)) {
        fail(world, watch, is_wanted ? "an event was not shown" : "an event was shown that nobody asked for",
             channel, sequence);
    } else if (is_wanted) {
        if (early->seen[i].hash !=
            hash_of(truth->session, truth->instance, truth->time, bb_slice(truth->raw, truth->len))) {
            fail(world, watch, "an event became another than was shown", channel, sequence);
        }
        forget(early, i);
    }
}

void early_verify(struct world *world, struct watch *watch)
{
    struct early *early = &watch->early;
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        uint64_t end = BB_MIN(early->covered[i], ledger_last(&world->ledger, i));
        while (early->verified[i] < end && !world->failed) {
            verify_event(world, watch, i, ++early->verified[i]);
        }
    }
}

/* --- what leaves the broker -------------------------------------------------------------------------- */

static void begin(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct early *early = &watch->early;
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    uint64_t n = bb_mp_read_array(&reader);
    *early = (struct early){.is_on = true};
    for (uint64_t i = 0; i < n && !world->failed; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t position = bb_mp_read_uint(&reader);
        for (uint32_t k = 2; k < fields; k++)
            bb_mp_skip(&reader);
        if (channel < 0) {
            world_fail(world, "positions that cannot be read");
            return;
        }
        early->covered[channel] = early->verified[channel] = position;
    }
}

/* All that is not durable goes, and nothing else. */
static void retract(struct world *world, struct watch *watch, struct bb_slice gaps)
{
    struct early *early = &watch->early;
    struct bb_mp_reader reader = bb_mp_reader(gaps);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n && !world->failed; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t from = bb_mp_read_uint(&reader);
        uint64_t to = bb_mp_read_uint(&reader);
        bb_mp_skip(&reader);
        bool is_it = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("retracted"));
        uint64_t life = fields > 5 ? bb_mp_read_uint(&reader) : 0;
        watch->channels[channel < 0 ? 0 : channel].life = life;
        if (channel < 0 || !is_it || reader.error != 0 || to != early->covered[channel] || from > to) {
            world_fail(world, "sub %llu (early): a gap that is not right", (unsigned long long)watch->id);
            return;
        }
        if (from <= early->verified[channel]) {
            fail(world, watch, "what is durable is retracted", (size_t)channel, from);
        }
        early->covered[channel] = from - 1;
        for (size_t j = early->n_seen; j > 0; j--) {
            if (early->seen[j - 1].channel == (size_t)channel && early->seen[j - 1].sequence >= from) {
                forget(early, j - 1);
            }
        }
        world->n_gaps++;
    }
}

struct reach {
    uint64_t from;
    uint64_t to;
};

static void note_event(struct world *world,
                       struct watch *watch,
                       const struct reach reaches[SIM_CHANNELS],
                       const struct bb_block *block,
                       uint64_t i,
                       const struct bb_event_view *event)
{
    struct early *early = &watch->early;
    int channel = sim_channel_find(bb_path_channel(event->path));
    uint64_t sequence = block->sequence + i;
    if (channel < 0 || sequence <= reaches[channel].from || sequence > reaches[channel].to) {
        fail(world, watch, "an event in no range, or again", 0, sequence);
        return;
    }
    if (early->n_seen == EARLY_SEEN_MAX) {
        fail(world, watch, "too much is shown that is not durable", (size_t)channel, sequence);
        return;
    }
    for (size_t j = 0; j < early->n_seen; j++) {
        if (early->seen[j].channel == (size_t)channel && early->seen[j].sequence >= sequence) {
            fail(world, watch, "an event out of order", (size_t)channel, sequence);
        }
    }
    early->seen[early->n_seen++] = (struct early_event){
        (size_t)channel, sequence, hash_of(block->session, block->instance + i, block->time, event->raw)};
    early->covered[channel] = sequence;
    early_verify(world, watch); /* which makes room, if it is durable already */
}

static void note_blocks(struct world *world,
                        struct watch *watch,
                        const struct reach reaches[SIM_CHANNELS],
                        struct bb_slice rest)
{
    struct bb_block block;
    struct bb_event_view event;
    while (rest.len > 0 && !world->failed) {
        if (bb_block_read(&rest, &block) < 0) {
            world_fail(world, "a block that cannot be read");
            return;
        }
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        for (uint64_t i = 0; i < block.count && !world->failed && bb_event_read(&events, &event) == 0; i++) {
            note_event(world, watch, reaches, &block, i, &event);
        }
    }
}

static void deliver(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct early *early = &watch->early;
    struct reach reaches[SIM_CHANNELS] = {{0, 0}};
    struct bb_mp_reader reader = bb_mp_reader(msg->ranges);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t from = bb_mp_read_uint(&reader);
        uint64_t to = bb_mp_read_uint(&reader);
        uint64_t life = fields > 3 ? bb_mp_read_uint(&reader) : 0;
        if (life != 0 && channel >= 0)
            watch->channels[channel].life = life;
        if (reader.error != 0 || channel < 0 || from != early->covered[channel] || to < from) {
            world_fail(world, "sub %llu (early): ranges do not join", (unsigned long long)watch->id);
            return;
        }
        reaches[channel] = (struct reach){from, to};
    }
    note_blocks(world, watch, reaches, msg->body);
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        early->covered[i] = BB_MAX(early->covered[i], reaches[i].to);
    }
}

void early_output(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    if (msg->type == BB_MSG_SUBSCRIBED) {
        begin(world, watch, msg);
        return;
    }
    if (msg->gaps.len > 0 && world->sabotage == SABOTAGE_DROP_RETRACTED && !world->sabotaged) {
        world->sabotaged = true;
    } else if (msg->gaps.len > 0) {
        retract(world, watch, msg->gaps);
    }
    if (msg->type == BB_MSG_DELIVER && !world->failed) {
        deliver(world, watch, msg);
    }
    early_verify(world, watch);
}

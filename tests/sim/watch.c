/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/watch.h"

#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "tests/sim/world.h"

bool watch_matches(const struct watch *watch, struct bb_slice path)
{
    for (size_t i = 0; i < watch->n_patterns; i++) {
        if (bb_pattern_matches(bb_slice_str(watch->patterns[i]), path)) {
            return true;
        }
    }
    return false;
}

static bool
matches_at(const struct ledger *ledger, const struct watch *watch, size_t channel, uint64_t sequence)
{
    const struct ledger_event *event = ledger_at(ledger, channel, sequence);
    return event != NULL && watch_matches(watch, event->path);
}

static bool is_before(const struct ledger *ledger, size_t channel, uint64_t sequence, uint64_t time)
{
    const struct ledger_event *event = ledger_at(ledger, channel, sequence);
    return event != NULL && event->time < time;
}

/* Matching events with @after < sequence <= @to. */
static uint64_t count_matching(const struct ledger *ledger,
                               const struct watch *watch,
                               size_t channel,
                               uint64_t after,
                               uint64_t to)
{
    uint64_t n = 0;
    to = BB_MIN(to, ledger_last(ledger, channel));
    for (uint64_t sequence = after + 1; sequence <= to; sequence++) {
        n += matches_at(ledger, watch, channel, sequence) &&
             ledger_at(ledger, channel, sequence)->time <= watch->until_time;
    }
    return n;
}

uint64_t watch_missing(const struct ledger *ledger, const struct watch *watch)
{
    uint64_t n = 0;
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        n += count_matching(ledger, watch, i,
                            watch->early.is_on ? watch->early.covered[i] : watch->channels[i].covered,
                            watch->channels[i].stop);
    }
    return n;
}

void watch_check_sums(struct world *world, struct watch *watch)
{
    if (watch->early.is_on) {
        early_verify(world, watch);
        if (watch->early.n_seen > 0) {
            world_fail(world, "sub %llu: events were shown that are not durable at the end",
                       (unsigned long long)watch->id);
        }
        return;
    }
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        const struct watch_channel *channel = &watch->channels[i];
        uint64_t published = count_matching(&world->ledger, watch, i, channel->base, channel->stop);
        uint64_t told = channel->n_delivered + channel->n_lost;
        if (told != published) {
            world_fail(
                world,
                "sub %llu (%s): channel %zu from %llu: %llu delivered + %llu lost is not %llu published",
                (unsigned long long)watch->id, watch->overflow, i, (unsigned long long)channel->base,
                (unsigned long long)channel->n_delivered, (unsigned long long)channel->n_lost,
                (unsigned long long)published);
        }
    }
}

/* --- subscribed ----------------------------------------------------------------------------------- */

/* The sequence before the newest matching event up to @last; @last if there is none. */
static uint64_t
before_newest(const struct ledger *ledger, const struct watch *watch, size_t channel, uint64_t last)
{
    uint64_t sequence = last;
    while (sequence > 0 && !matches_at(ledger, watch, channel, sequence)) {
        sequence--;
    }
    return sequence > 0 ? sequence - 1 : last;
}

static bool
is_up_to_id(const struct ledger *ledger, const struct watch *watch, size_t channel, uint64_t sequence)
{
    const struct ledger_event *event = ledger_at(ledger, channel, sequence);
    return event != NULL && (event->session < watch->number ||
                             (event->session == watch->number && event->instance <= watch->number_instance));
}

/* The sequence after which a subscription begins that is answered this instant. May be exceeded by @ret_most: the ledger
 * cannot know what the ring still has, and a log is asked some time before. */
static uint64_t
expected_position(const struct world *world, const struct watch *watch, size_t channel, uint64_t *ret_most)
{
    const struct ledger *ledger = &world->ledger;
    uint64_t last = ledger_last(ledger, channel);
    uint64_t sequence = 0;
    *ret_most = 0;
    switch (watch->from) {
    case WATCH_NEW:
        return last;
    case WATCH_SEQUENCE:
        return BB_MIN(BB_MAX(watch->number, 1) - 1, last);
    case WATCH_AFTER:
        if ((watch->run != world->run && !world->is_logged) || !watch->channels[channel].was_asked) {
            return 0;
        }
        return BB_MIN(watch->channels[channel].asked, last);
    case WATCH_LAST:
        *ret_most = world->is_logged ? before_newest(ledger, watch, channel, last) : last;
        return before_newest(ledger, watch, channel, watch->channels[channel].last_then);
    case WATCH_TIME:
        while (is_before(ledger, channel, sequence + 1, watch->number)) {
            sequence++;
        }
        *ret_most = world->is_logged ? 0 : last;
        return sequence;
    case WATCH_ID:
        while (is_up_to_id(ledger, watch, channel, sequence + 1)) {
            sequence++;
        }
        *ret_most = world->is_logged ? 0 : last;
        return sequence;
    case WATCH_CURSOR:
        break;
    }
    return 0;
}

/* Where the subscription ends is decided now, too; when it comes back, that stays. */
static void note_stops(const struct world *world, struct watch *watch)
{
    if (watch->until == UNTIL_NOW && watch->has_begun) {
        return;
    }
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        watch->channels[i].stop = watch->until == UNTIL_NOW        ? ledger_last(&world->ledger, i)
                                  : watch->until == UNTIL_SEQUENCE ? watch->until_sequence
                                                                   : UINT64_MAX;
    }
}

static void check_ends(struct world *world, const struct watch *watch, struct bb_slice ends)
{
    struct bb_mp_reader reader = bb_mp_reader(ends);
    uint64_t n = ends.len > 0 ? bb_mp_read_map(&reader) : 0;
    if ((ends.len > 0) != (watch->until == UNTIL_NOW)) {
        world_fail(world, "sub %llu: ends are told to who does not end now", (unsigned long long)watch->id);
    }
    for (uint64_t i = 0; i < n; i++) {
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        (void)bb_mp_read_array(&reader);
        uint64_t end = bb_mp_read_uint(&reader);
        (void)bb_mp_read_uint(&reader);
        if (reader.error != 0 || channel < 0 || end != watch->channels[channel].stop) {
            world_fail(world, "sub %llu ends in channel %d with %llu, not with %llu",
                       (unsigned long long)watch->id, channel, (unsigned long long)end,
                       (unsigned long long)(channel < 0 ? 0 : watch->channels[channel].stop));
            return;
        }
    }
}

void watch_expect(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    uint64_t n = bb_mp_read_array(&reader);
    note_stops(world, watch);
    check_ends(world, watch, msg->ends);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t position = bb_mp_read_uint(&reader);
        for (uint32_t k = 2; k < fields; k++)
            bb_mp_skip(&reader);
        uint64_t most = 0;
        if (reader.error != 0 || channel < 0) {
            world_fail(world, "positions that cannot be read");
            return;
        }
        if (watch->from == WATCH_CURSOR) {
            continue;
        }
        uint64_t expected = expected_position(world, watch, (size_t)channel, &most);
        if (position < expected || position > BB_MAX(expected, most)) {
            world_fail(world, "sub %llu begins after %llu in channel %d instead of %llu (from %d)",
                       (unsigned long long)watch->id, (unsigned long long)position, channel,
                       (unsigned long long)expected, (int)watch->from);
        }
    }
}

void watch_subscribed(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    uint64_t n = bb_mp_read_array(&reader);
    bool resumes = watch->has_begun && (watch->run == world->run || world->is_logged);
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        struct watch_channel *channel = &watch->channels[i];
        channel->restart_due = watch->has_begun && !resumes && channel->was_asked;
        if (!resumes) {
            *channel = (struct watch_channel){
                .restart_due = channel->restart_due,
                .asked = channel->asked,
                .stop = channel->stop,
                .life = channel->life,
            };
        }
    }
    if (!resumes) {
        watch->session = watch->instance = 0;
    }
    for (uint64_t i = 0; i < n; i++) {
        (void)bb_mp_read_array(&reader);
        int index = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t position = bb_mp_read_uint(&reader);
        uint64_t life = bb_mp_read_uint(&reader);
        if (index < 0) {
            world_fail(world, "a position in a channel that no world has");
            return;
        }
        struct watch_channel *channel = &watch->channels[index];
        if (resumes && position != channel->covered) {
            world_fail(world, "sub %llu does not resume where it was", (unsigned long long)watch->id);
        }
        channel->is_named = true;
        channel->life = life;
        if (!resumes) {
            channel->covered = channel->delivered = channel->base = position;
        }
    }
    watch->run = world->run;
    watch->is_subscribed = watch->has_begun = true;
    watch->got_bytes = watch->got_events = 0;
}

/* --- deliver -------------------------------------------------------------------------------------- */

struct range {
    bool is_there;
    uint64_t at; /* checked up to here */
    uint64_t to;
};

static bool read_ranges(struct world *world,
                        struct watch *watch,
                        const struct bb_msg *msg,
                        struct range ranges[SIM_CHANNELS])
{
    struct bb_mp_reader reader = bb_mp_reader(msg->ranges);
    uint64_t n = bb_mp_read_array(&reader);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        int index = sim_channel_find(bb_mp_read_str(&reader));
        uint64_t from = bb_mp_read_uint(&reader);
        uint64_t to = bb_mp_read_uint(&reader);
        uint64_t life = fields > 3 ? bb_mp_read_uint(&reader) : 0;
        if (reader.error != 0 || index < 0 || ranges[index].is_there || to < from) {
            world_fail(world, "ranges that cannot be read");
            return false;
        }
        struct watch_channel *channel = &watch->channels[index];
        channel->life = life != 0 ? life : channel->life;
        if (from != channel->covered) {
            world_fail(world, "sub %llu (%s): a range of channel %d begins at %llu instead of %llu",
                       (unsigned long long)watch->id, watch->overflow, index, (unsigned long long)from,
                       (unsigned long long)channel->covered);
            return false;
        }
        ranges[index] = (struct range){true, watch->is_conflated ? channel->delivered : from, to};
    }
    return true;
}

static void check_event(struct world *world,
                        struct watch *watch,
                        const struct bb_block *block,
                        const struct bb_event_view *event,
                        uint64_t i)
{
    int index = sim_channel_find(bb_path_channel(event->path));
    uint64_t sequence = block->sequence + i;
    uint64_t instance = block->instance + i;
    const struct ledger_event *truth = index >= 0 ? ledger_at(&world->ledger, (size_t)index, sequence) : NULL;
    if (truth == NULL || truth->len != event->raw.len ||
        memcmp(truth->raw, event->raw.data, truth->len) != 0) {
        world_fail(world, "an event was delivered that is not what was published");
    } else if (truth->session != block->session || truth->instance != instance ||
               truth->time != block->time || truth->source != block->source) {
        world_fail(world, "an event was delivered with another id, time or source than published");
    } else if (!watch_matches(watch, event->path)) {
        world_fail(world, "an event was delivered that no pattern matches");
    } else if (sequence > watch->channels[index].stop || block->time > watch->until_time) {
        world_fail(world, "sub %llu: an event was delivered that comes after the last one wanted",
                   (unsigned long long)watch->id);
    } else if (block->session < watch->session ||
               (block->session == watch->session && instance <= watch->instance)) {
        world_fail(world, "sub %llu: events are not in the order of their ids",
                   (unsigned long long)watch->id);
    }
    watch->session = block->session;
    watch->instance = instance;
}

/* Everything that matches between the last event checked and @sequence must have been in the message. */
static void check_step(struct world *world,
                       struct watch *watch,
                       size_t channel,
                       struct range *range,
                       uint64_t sequence,
                       bool is_event)
{
    if (!range->is_there || sequence > range->to || (is_event && sequence <= range->at)) {
        world_fail(world, "sub %llu (%s): sequence %llu of channel %zu is a repetition or in no range",
                   (unsigned long long)watch->id, watch->overflow, (unsigned long long)sequence, channel);
        return;
    }
    uint64_t to = is_event ? sequence - 1 : sequence;
    if (!watch->is_conflated && count_matching(&world->ledger, watch, channel, range->at, to) > 0) {
        world_fail(world, "sub %llu (%s): an event of channel %zu up to %llu is missing in its range",
                   (unsigned long long)watch->id, watch->overflow, channel, (unsigned long long)to);
    }
    range->at = BB_MAX(range->at, sequence);
}

static void check_blocks(struct world *world,
                         struct watch *watch,
                         const struct bb_msg *msg,
                         struct range ranges[SIM_CHANNELS])
{
    struct bb_slice rest = msg->body;
    struct bb_block block;
    struct bb_event_view event;
    while (rest.len > 0 && !world->failed) {
        if (bb_block_read(&rest, &block) < 0 || block.length > rest.len) {
            world_fail(world, "a block that cannot be read");
            return;
        }
        struct bb_slice events = bb_slice(rest.data, block.length);
        rest = bb_slice(rest.data + block.length, rest.len - block.length);
        for (uint64_t i = 0; i < block.count && !world->failed; i++) {
            if (bb_event_read(&events, &event) < 0) {
                world_fail(world, "an event that cannot be read was delivered");
                return;
            }
            check_event(world, watch, &block, &event, i);
            if (world->failed) {
                return;
            }
            size_t index = (size_t)sim_channel_find(bb_path_channel(event.path));
            check_step(world, watch, index, &ranges[index], block.sequence + i, true);
            watch->channels[index].delivered = block.sequence + i;
            watch->channels[index].n_delivered++;
            watch->got_events++;
        }
        if (events.len != 0) {
            world_fail(world, "a block holds more than it says");
        }
    }
}

/* --- gap ------------------------------------------------------------------------------------------ */

struct gap {
    size_t channel;
    uint64_t from;
    uint64_t to;
    uint64_t count;
    bool has_to;
    bool has_count;
    struct bb_slice reason;
};

static uint64_t read_number(struct bb_mp_reader *reader, bool *ret_is_there)
{
    *ret_is_there = bb_mp_peek_type(reader) != BB_MP_NIL;
    if (*ret_is_there) {
        return bb_mp_read_uint(reader);
    }
    bb_mp_read_nil(reader);
    return 0;
}

static void apply_restart(struct world *world, struct watch *watch, const struct gap *gap)
{
    struct watch_channel *channel = &watch->channels[gap->channel];
    /* Of a channel that never came to the disk a position was named all the same. */
    bool never_was = world->is_logged && ledger_last(&world->ledger, gap->channel) == 0;
    if ((!channel->restart_due && !never_was) || gap->has_to || gap->has_count ||
        gap->from != channel->asked + 1) {
        world_fail(world, "sub %llu: a gap with reason restart that is not right",
                   (unsigned long long)watch->id);
    }
    channel->restart_due = false;
}

static void apply_gap(struct world *world, struct watch *watch, const struct gap *gap)
{
    struct watch_channel *channel = &watch->channels[gap->channel];
    if (bb_slice_equal(gap->reason, bb_slice_str("restart"))) {
        apply_restart(world, watch, gap);
        return;
    }
    bool is_trimmed = bb_slice_equal(gap->reason, bb_slice_str("trimmed"));
    bool is_conflated = bb_slice_equal(gap->reason, bb_slice_str("conflated"));
    if (world->is_logged && strcmp(watch->overflow, "slide") == 0) {
        world_fail(world, "sub %llu: a gap (%.*s) in channel %zu, all of which is in the log",
                   (unsigned long long)watch->id, (int)gap->reason.len, (const char *)gap->reason.data,
                   gap->channel);
    }
    if (gap->from != channel->covered + 1 || !gap->has_to || gap->to < gap->from ||
        gap->to > ledger_last(&world->ledger, gap->channel) || (!gap->has_count && !is_trimmed)) {
        world_fail(world, "sub %llu (%s): a gap %llu..%llu of channel %zu that does not follow %llu",
                   (unsigned long long)watch->id, watch->overflow, (unsigned long long)gap->from,
                   (unsigned long long)gap->to, gap->channel, (unsigned long long)channel->covered);
        return;
    }
    uint64_t lost = count_matching(&world->ledger, watch, gap->channel, gap->from - 1, gap->to);
    if (gap->has_count && (is_conflated ? gap->count > lost : gap->count != lost)) {
        world_fail(
            world,
            "sub %llu (%s, \"%s\"...): a gap of %llu (%.*s) from %llu to %llu of channel %zu, but %llu are missing",
            (unsigned long long)watch->id, watch->overflow, watch->patterns[0],
            (unsigned long long)gap->count, (int)gap->reason.len, (const char *)gap->reason.data,
            (unsigned long long)gap->from, (unsigned long long)gap->to, gap->channel,
            (unsigned long long)lost);
    }
    channel->n_lost += gap->has_count ? gap->count : lost;
    channel->covered = gap->to;
    channel->delivered = is_conflated ? channel->delivered : gap->to;
    channel->is_named = true;
    world->n_gaps++;
}

void watch_gap(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->gaps);
    uint64_t n = bb_mp_read_array(&reader);
    if (!watch->is_subscribed) {
        world_fail(world, "a gap came before the answer to subscribe");
        return;
    }
    for (uint64_t i = 0; i < n && !world->failed; i++) {
        struct gap gap = {0};
        uint32_t fields = bb_mp_read_array(&reader);
        int channel = sim_channel_find(bb_mp_read_str(&reader));
        gap.from = bb_mp_read_uint(&reader);
        gap.to = read_number(&reader, &gap.has_to);
        gap.count = read_number(&reader, &gap.has_count);
        gap.reason = bb_mp_read_str(&reader);
        uint64_t life = fields > 5 ? bb_mp_read_uint(&reader) : 0;
        if (reader.error != 0 || channel < 0) {
            world_fail(world, "a gap that cannot be read");
            return;
        }
        gap.channel = (size_t)channel;
        watch->channels[channel].life = life != 0 ? life : watch->channels[channel].life;
        apply_gap(world, watch, &gap);
    }
}

/* --- deliver, whole ---------------------------------------------------------------------------------- */

void watch_deliver(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    struct range ranges[SIM_CHANNELS] = {{0}};
    if (!watch->is_subscribed) {
        world_fail(world, "a delivery came before the answer to subscribe");
        return;
    }
    if (msg->retained != 0) {
        retained_deliver(world, watch, msg);
        return;
    }
    if (watch->retained.is_due) {
        world_fail(world, "sub %llu: a delivery came before the last retained value",
                   (unsigned long long)watch->id);
    }
    if (msg->gaps.len > 0) {
        watch_gap(world, watch, msg); /* PROTOCOL 7.4: first the gaps, then the rest */
    }
    if (world->failed || !read_ranges(world, watch, msg, ranges)) {
        return;
    }
    check_blocks(world, watch, msg, ranges);
    watch->got_bytes += msg->body.len;
    for (size_t i = 0; i < SIM_CHANNELS && !world->failed; i++) {
        if (ranges[i].is_there) {
            check_step(world, watch, i, &ranges[i], ranges[i].to, false);
            watch->channels[i].covered = ranges[i].to;
            watch->channels[i].is_named = true;
        }
    }
}

void watch_note_end(const struct world *world, struct watch *watch)
{
    for (size_t i = 0; i < SIM_CHANNELS; i++) {
        watch->channels[i].stop = BB_MIN(watch->channels[i].stop, ledger_last(&world->ledger, i));
    }
}

void watch_ended(struct world *world, struct watch *watch, const struct bb_msg *msg)
{
    if (watch->until == UNTIL_NONE || !watch->is_subscribed || watch->retained.is_due ||
        !bb_slice_equal(msg->code, bb_slice_str("done"))) {
        world_fail(world, "sub %llu: an end that was not asked for", (unsigned long long)watch->id);
        return;
    }
    watch_check_sums(world, watch);
    watch->in_use = false;
}

void watch_count(struct watch *watch, const struct bb_msg *msg)
{
    struct bb_slice rest = msg->body;
    struct bb_block block;
    watch->got_bytes += msg->body.len;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0) {
        watch->got_events += block.count;
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
    }
}

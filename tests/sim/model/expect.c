/* SPDX-License-Identifier: Apache-2.0 */
/* Conditions of a publish (PROTOCOL 6.4). What they held against when it was taken shows in the sequences
 * that it got. */
#include "proto/wire/mp.h"

#include "tests/sim/model/match.h"
#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <inttypes.h>

/* The first of its own events in a channel; NULL if it has none there. */
static const struct truth_event *
first_own(struct world *world, const struct published *published, size_t channel)
{
    const struct truth_event *first = NULL;
    for (size_t i = 0; i < published->n; i++) {
        const struct written *written = written_at(world, published->writer, published->serials[i]);
        const struct truth_event *event = written->event;
        bool is_here = event != NULL && !event->is_gone && event->inc->channel == channel;
        if (is_here && (first == NULL || event->sequence < first->sequence)) {
            first = event;
        }
    }
    return first;
}

/* The channel that was there when it was sent is there still, and nobody has asked to remove it. */
static bool is_there(const struct world *world, const struct published *published, size_t channel)
{
    const struct truth_name *name = &world->truth.names[channel];
    return name->inc != NULL && !name->inc->is_ended && name->n_rm_asked == 0 &&
           published->then[channel].inc == name->inc;
}

static void fail(struct world *world,
                 const struct published *published,
                 struct bb_slice name,
                 uint64_t expected,
                 uint64_t actual)
{
    world_fail(world, "expect",
               "publish %" PRIu64 " expected %" PRIu64 " of '%.*s' and was taken at %" PRIu64,
               published->number, expected, (int)name.len, (const char *)name.data, actual);
}

static void
held_channel(struct world *world, const struct published *published, struct bb_slice name, uint64_t expected)
{
    size_t channel = truth_name(world, name);
    const struct truth_event *own = first_own(world, published, channel);
    const struct truth_inc *inc = world->truth.names[channel].inc;
    if (own != NULL) {
        if (own->sequence - 1 != expected) {
            fail(world, published, name, expected, own->sequence - 1);
        }
        return;
    }
    bool is_known = is_there(world, published, channel) && inc->n_cuts == 0;
    if (is_known && (expected < published->then[channel].visible || expected > inc->n)) {
        fail(world, published, name, expected, inc->n);
    }
}

/* The newest event of a path that lies before @before; 0 if there is none. */
static uint64_t newest_before(const struct truth_inc *inc, struct bb_slice path, uint64_t before)
{
    uint64_t at = BB_MIN(before - 1, inc->n);
    while (at > 0 && !bb_slice_equal(inc->events[at - 1]->path, path)) {
        at--;
    }
    return at;
}

static void
held_path(struct world *world, const struct published *published, struct bb_slice path, uint64_t expected)
{
    size_t channel = truth_name_of_path(world, path);
    const struct truth_event *own = first_own(world, published, channel);
    if (own == NULL || own->inc->is_ended) {
        return; /* when it was taken cannot be seen */
    }
    const struct truth_inc *inc = own->inc; /* there may be a newer one by now */
    uint64_t newest = newest_before(inc, path, own->sequence);
    const struct truth_event *event = truth_event_at(inc, newest);
    bool may_be_unknown =
        event != NULL && (truth_may_have_expired(world, event) || event->sequence < inc->trimmed ||
                          (!inc->is_logged && !world->has_memory && truth_may_be_evicted(world, event)));
    bool is_unkept = event != NULL && !inc->is_logged && (!world->has_memory || world->memory.is_small);
    if (newest != expected && !may_be_unknown && !is_unkept) {
        fail(world, published, path, expected, newest);
    }
}

void expect_held(struct world *world, const struct published *published)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&published->options));
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_MAP ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        bool is_path = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("expect_path"));
        for (uint32_t m = bb_mp_read_map(&reader); m > 0 && reader.error == 0; m--) {
            struct bb_slice name = bb_mp_read_str(&reader);
            uint64_t expected = bb_mp_read_uint(&reader);
            if (is_path) {
                held_path(world, published, name, expected);
            } else {
                held_channel(world, published, name, expected);
            }
        }
    }
}

/* What was expected of @name; false: nothing. */
static bool
find_expected(const struct published *published, struct bb_slice name, bool is_path, uint64_t *ret_expected)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&published->options));
    bool is_found = false;
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_MAP ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        bool is_of_paths = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("expect_path"));
        for (uint32_t m = bb_mp_read_map(&reader); m > 0 && reader.error == 0; m--) {
            bool is_it = bb_slice_equal(bb_mp_read_str(&reader), name) && is_of_paths == is_path;
            uint64_t expected = bb_mp_read_uint(&reader);
            *ret_expected = is_it ? expected : *ret_expected;
            is_found = is_found || is_it;
        }
    }
    return is_found;
}

void expect_refused(struct world *world, const struct published *published, struct bb_slice detail)
{
    struct bb_mp_reader reader = bb_mp_reader(detail);
    struct bb_slice name = {0};
    bool is_path = false;
    uint64_t last = 0;
    uint64_t expected = 0;
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        struct bb_slice key = bb_mp_read_str(&reader);
        if (bb_slice_equal(key, bb_slice_str("last"))) {
            last = bb_mp_read_uint(&reader);
        } else {
            is_path = bb_slice_equal(key, bb_slice_str("path"));
            name = bb_mp_read_str(&reader);
        }
    }
    if (reader.error != 0 || !find_expected(published, name, is_path, &expected)) {
        world_fail(world, "expect", "publish %" PRIu64 ": a conflict over what it did not expect",
                   published->number);
        return;
    }
    size_t channel = is_path ? truth_name_of_path(world, name) : truth_name(world, name);
    const struct truth_inc *inc = world->truth.names[channel].inc;
    bool is_known = is_there(world, published, channel) && inc->n_cuts == 0;
    uint64_t least = is_known ? published->then[channel].visible : 0;
    if (is_path && is_known) {
        const struct truth_event *event = NULL;
        least = newest_before(inc, name, least + 1);
        event = truth_event_at(inc, least);
        bool is_unkept = !inc->is_logged && (!world->has_memory || world->memory.is_small);
        least = event == NULL || is_unkept || truth_may_have_expired(world, event) ||
                        event->sequence < inc->trimmed
                    ? 0
                    : least;
    }
    if (last == expected || last < least) {
        world_fail(world, "expect",
                   "publish %" PRIu64 " expected %" PRIu64 " of '%.*s': a conflict, for %" PRIu64
                   " (at least %" PRIu64 ")",
                   published->number, expected, (int)name.len, (const char *)name.data, last, least);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of blocks: limits, order of eviction, holes and packing, chains of channels, memory given back. */
#include "broker/core/keep/channel.h"
#include "broker/core/keep/ring.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

#define BLOCK_LEN 100

struct fixture {
    struct bk_meter meter;
    struct bk_channels channels;
    struct bk_ring ring;
    uint64_t session;
    uint64_t n_evicted;
    uint64_t last_evicted; /* position */
};

static void note_evicted(void *context, const struct bk_block *block, uint64_t before, bool is_trim)
{
    struct fixture *fixture = context;
    (void)before;
    (void)is_trim;
    fixture->n_evicted++;
    fixture->last_evicted = block->pos;
}

static void fixture_init(struct fixture *fixture, size_t channel_bytes, size_t all_bytes)
{
    *fixture = (struct fixture){0};
    atomic_init(&fixture->meter.bytes, 0);
    bk_channels_init(&fixture->channels, 1, 16, 1, &(struct bk_settings){.ring_bytes = channel_bytes});
    bk_ring_init(&fixture->ring, &fixture->meter, all_bytes, note_evicted, fixture);
}

static void fixture_fini(struct fixture *fixture)
{
    bk_ring_fini(&fixture->ring);
    bk_channels_fini(&fixture->channels);
    cr_assert_eq(atomic_load(&fixture->meter.bytes), 0);
}

/* One block of one event of @len bytes, fanned out at once. */
static struct bk_channel *
append(struct fixture *fixture, const char *name, size_t len, struct bk_bytes *owner)
{
    static const uint8_t zeros[70000];
    struct bk_channel *channel = NULL;
    cr_assert_eq(bk_channels_get(&fixture->channels, bb_slice_str(name), &channel), 0);
    struct bb_block block = {
        .session = ++fixture->session,
        .time = 1000 * fixture->session,
        .sequence = channel->last + 1,
        .instance = 1,
        .count = 1,
        .length = len,
    };
    struct bb_slice events = bb_slice(owner != NULL ? owner->data : zeros, len);
    cr_assert_eq(bk_ring_append(&fixture->ring, channel, &block, events, owner, true), 0);
    fixture->ring.keep_pos = bk_ring_end(&fixture->ring);
    return channel;
}

Test(ring, a_full_channel_loses_its_own_oldest_blocks_only)
{
    struct fixture fixture;
    fixture_init(&fixture, 2000, 1000000);
    struct bk_channel *quiet = append(&fixture, "quiet", BLOCK_LEN, NULL);
    struct bk_channel *busy = NULL;
    for (int i = 0; i < 50; i++) {
        busy = append(&fixture, "busy", BLOCK_LEN, NULL);
    }
    cr_assert_eq(quiet->first, 1);
    cr_assert_eq(quiet->last, 1);
    cr_assert_gt(busy->first, 1);
    cr_assert_leq(busy->ring_bytes, 2000 + 300);
    cr_assert_eq(busy->first, fixture.n_evicted + 1);
    uint64_t pos = 0;
    cr_assert_eq(bk_ring_at(&fixture.ring, &pos)->channel, quiet);
    pos++;
    cr_assert_eq(bk_ring_at(&fixture.ring, &pos)->sequence, busy->first);
    fixture_fini(&fixture);
}

Test(ring, the_limit_of_all_takes_the_oldest_whoever_owns_it)
{
    struct fixture fixture;
    fixture_init(&fixture, 1000000, 3000);
    const struct bk_channel *first = append(&fixture, "first", BLOCK_LEN, NULL);
    for (int i = 0; i < 40; i++) {
        (void)append(&fixture, "second", BLOCK_LEN, NULL);
    }
    cr_assert_eq(first->first, 2, "its only block went");
    cr_assert_eq(first->ring_bytes, 0);
    cr_assert_leq(fixture.ring.bytes, 3000 + 300);
    cr_assert_eq(fixture.last_evicted + 1, fixture.n_evicted, "in the order of positions");
    fixture_fini(&fixture);
}

Test(ring, what_was_not_fanned_out_is_not_evicted)
{
    struct fixture fixture;
    fixture_init(&fixture, 500, 500);
    struct bk_channel *channel = append(&fixture, "a", BLOCK_LEN, NULL);
    uint64_t keep = fixture.ring.keep_pos;
    for (uint64_t i = 0; i < 20; i++) {
        struct bb_block block = {.session = 2 + i, .sequence = 2 + i, .count = 1, .length = 4};
        cr_assert_eq(bk_ring_append(&fixture.ring, channel, &block, bb_slice("abcd", 4), NULL, true), 0);
    }
    cr_assert_leq(channel->first_pos, keep);
    cr_assert_eq(channel->last - channel->first + 1, fixture.ring.n_blocks - fixture.ring.n_holes);
    cr_assert_leq(fixture.n_evicted, 1);
    fixture_fini(&fixture);
}

Test(ring, holes_are_packed_and_positions_stay)
{
    struct fixture fixture;
    fixture_init(&fixture, 1000, 100000000);
    (void)append(&fixture, "quiet", BLOCK_LEN, NULL);
    for (int i = 0; i < 5000; i++) {
        (void)append(&fixture, "busy", BLOCK_LEN, NULL);
    }
    cr_assert_leq(fixture.ring.n_slots, 64, "%zu slots", fixture.ring.n_slots);
    uint64_t pos = 0;
    uint64_t n = 0;
    uint64_t last = 0;
    for (const struct bk_block *block = NULL; (block = bk_ring_at(&fixture.ring, &pos)) != NULL; pos++) {
        cr_assert(n == 0 || block->pos > last);
        cr_assert_eq(block->session, block->pos + 1);
        last = block->pos;
        n++;
    }
    cr_assert_eq(pos, bk_ring_end(&fixture.ring));
    cr_assert_eq(n, fixture.ring.n_blocks - fixture.ring.n_holes);
    while (bk_ring_before(&fixture.ring, &pos) != NULL) {
        n--;
    }
    cr_assert_eq(n, 0);
    fixture_fini(&fixture);
}

/* The chain of a channel, both ways, is what a walk over the whole ring finds of it. */
static void assert_chain(const struct fixture *fixture, const struct bk_channel *channel)
{
    const struct bk_ring *ring = &fixture->ring;
    const struct bk_block *at = bk_ring_oldest_of(ring, channel);
    const struct bk_block *newest = NULL;
    const struct bk_block *block = NULL;
    for (uint64_t pos = 0; (block = bk_ring_at(ring, &pos)) != NULL; pos++) {
        if (block->channel == channel) {
            cr_assert_eq(at, block);
            cr_assert_eq(bk_ring_previous_of(ring, block), newest);
            newest = block;
            at = bk_ring_next_of(ring, block);
        }
    }
    cr_assert_null(at);
    cr_assert_eq(bk_ring_newest_of(ring, channel), newest);
}

Test(ring, the_blocks_of_a_channel_are_chained_whatever_holes_there_are)
{
    static const char *const names[] = {"a", "b", "c"};
    struct fixture fixture;
    fixture_init(&fixture, 2000, 4000);
    for (uint64_t i = 0; i < 2000; i++) {
        struct bk_channel *channel = append(&fixture, names[i * i * 7 % 11 % BB_COUNT(names)], i % 300, NULL);
        if (i % 97 == 0) {
            bk_ring_trim(&fixture.ring, channel, UINT64_MAX);
        }
        for (size_t k = 0; k < fixture.channels.n_channels; k++) {
            assert_chain(&fixture, fixture.channels.list[k]);
        }
    }
    cr_assert_gt(fixture.n_evicted, 1000);
    fixture_fini(&fixture);
}

Test(ring, large_events_stay_in_the_bytes_they_came_in)
{
    struct fixture fixture;
    fixture_init(&fixture, 1000000, 1000000);
    struct bk_bytes *owner = bk_bytes_new(&fixture.meter, 20000);
    cr_assert_not_null(owner);
    memset(owner->data, 'x', 20000);
    (void)append(&fixture, "a", 20000, owner);
    uint64_t pos = 0;
    cr_assert_eq(bk_ring_at(&fixture.ring, &pos)->body, owner->data);
    cr_assert_eq(atomic_load(&owner->refs), 2);
    (void)append(&fixture, "a", 100, owner);
    pos = 1;
    cr_assert_neq(bk_ring_at(&fixture.ring, &pos)->body, owner->data);
    bk_bytes_unref(owner);
    fixture_fini(&fixture);
}

Test(ring, small_blocks_lie_side_by_side)
{
    struct fixture fixture;
    fixture_init(&fixture, 1000000, 1000000);
    (void)append(&fixture, "a", BLOCK_LEN, NULL);
    (void)append(&fixture, "b", BLOCK_LEN, NULL);
    uint64_t pos = 0;
    const struct bk_block *first = bk_ring_at(&fixture.ring, &pos);
    pos = 1;
    const struct bk_block *second = bk_ring_at(&fixture.ring, &pos);
    cr_assert_eq(first->body, first->head + first->head_len);
    cr_assert_eq(second->head, first->body + first->body_len);
    fixture_fini(&fixture);
}

Test(ring, blocks_of_a_quiet_channel_do_not_pin_memory_without_bound)
{
    enum {
        ALL = 1 << 20
    };
    struct fixture fixture;
    fixture_init(&fixture, 100000, ALL);
    for (int i = 0; i < 100; i++) {
        (void)append(&fixture, "quiet", BLOCK_LEN, NULL);
        for (int j = 0; j < 20; j++) { /* a chunk and a half */
            (void)append(&fixture, "busy", 5000, NULL);
        }
        cr_assert_leq(atomic_load(&fixture.meter.bytes), ALL + 4 * BK_CHUNK_SIZE);
    }
    cr_assert_gt(bk_channels_find(&fixture.channels, bb_slice_str("quiet"))->first, 1);
    fixture_fini(&fixture);
}

Test(ring, what_waits_for_the_log_takes_nothing_out_of_the_ring)
{
    enum {
        N = 100,
        LEN = 5000
    };
    static const uint8_t zeros[LEN];
    struct fixture fixture;
    struct bk_block waiting[N];
    fixture_init(&fixture, 1000000, 100000);
    struct bk_channel *channel = append(&fixture, "a", BLOCK_LEN, NULL);
    for (uint64_t i = 0; i < N; i++) { /* of chunks more than all that the ring may hold */
        struct bb_block head = {
            .session = i + 2, .sequence = i + 2, .instance = 1, .count = 1, .length = LEN};
        cr_assert_eq(
            bk_ring_build(&fixture.ring, channel, &head, bb_slice(zeros, LEN), NULL, true, &waiting[i]), 0);
    }
    (void)append(&fixture, "b", BLOCK_LEN, NULL);
    cr_assert_eq(fixture.n_evicted, 0);
    for (int i = 1; i < N; i++) {
        bk_ring_drop(&waiting[i]);
    }
    cr_assert_eq(bk_ring_push(&fixture.ring, &waiting[0]), 0); /* late, and in a chunk of that time */
    cr_assert_eq(fixture.n_evicted, 0);
    fixture_fini(&fixture);
}

/* A block of the log, and behind it what was refused, which fills the chunk. */
static void push_from_log(struct fixture *fixture, struct bk_channel *channel)
{
    enum {
        REFUSED = 3900
    };
    static const uint8_t zeros[REFUSED];
    struct bk_block blocks[2];
    for (size_t i = 0; i < BB_COUNT(blocks); i++) {
        uint64_t length = i == 0 ? BLOCK_LEN : REFUSED;
        struct bb_block head = {.session = ++fixture->session,
                                .sequence = channel->last + 1 + i,
                                .instance = 1,
                                .count = 1,
                                .length = length};
        cr_assert_eq(
            bk_ring_build(&fixture->ring, channel, &head, bb_slice(zeros, length), NULL, true, &blocks[i]),
            0);
    }
    cr_assert_eq(bk_ring_push(&fixture->ring, &blocks[0]), 0);
    bk_ring_drop(&blocks[1]);
}

/* Beside the ring's own. */
Test(ring, the_chunk_of_what_waits_may_be_part_empty_too)
{
    struct fixture fixture;
    fixture_init(&fixture, 1000000, 9000); /* chunks of 4 KiB */
    struct bk_channel *channel = append(&fixture, "a", BLOCK_LEN, NULL);
    for (int i = 0; i < 3; i++) {
        push_from_log(&fixture, channel);
    }
    (void)append(&fixture, "b", 4080, NULL);
    cr_assert_lt(fixture.ring.bytes, 9000);
    cr_assert_eq(fixture.n_evicted, 0);
    for (int i = 0; i < 3; i++) {
        push_from_log(&fixture, channel);
    }
    cr_assert_gt(fixture.n_evicted, 0, "there is a bound all the same");
    fixture_fini(&fixture);
}

/* Of each two chunks are begun, and none is full of what is still there. */
Test(ring, old_blocks_of_both_kinds_may_pin_a_chunk_each)
{
    enum {
        LEN = 600, /* six in a chunk of 4 KiB */
        MAX = 4000
    };
    static const uint8_t zeros[LEN];
    struct fixture fixture;
    fixture_init(&fixture, 1000000, MAX);
    for (int i = 0; i < 50; i++) {
        struct bk_channel *channel = append(&fixture, "a", LEN, NULL);
        struct bb_block head = {.session = ++fixture.session,
                                .sequence = channel->last + 1,
                                .instance = 1,
                                .count = 1,
                                .length = LEN};
        struct bk_block block;
        cr_assert_eq(bk_ring_build(&fixture.ring, channel, &head, bb_slice(zeros, LEN), NULL, true, &block),
                     0);
        cr_assert_eq(bk_ring_push(&fixture.ring, &block), 0);
        fixture.ring.keep_pos = bk_ring_end(&fixture.ring);
        cr_assert(fixture.n_evicted == 0 || fixture.ring.bytes > MAX - LEN, "%zu bytes are left",
                  fixture.ring.bytes);
    }
    fixture_fini(&fixture);
}

/* One block of @count events, not fanned out. */
static struct bk_channel *append_batch(struct fixture *fixture, const char *name, uint64_t count)
{
    static const uint8_t zeros[100];
    struct bk_channel *channel = NULL;
    cr_assert_eq(bk_channels_get(&fixture->channels, bb_slice_str(name), &channel), 0);
    struct bb_block block = {.session = ++fixture->session,
                             .sequence = channel->last + 1,
                             .instance = 1,
                             .count = count,
                             .length = count};
    cr_assert_eq(bk_ring_append(&fixture->ring, channel, &block, bb_slice(zeros, count), NULL, true), 0);
    return channel;
}

Test(ring, a_trim_inside_a_block_hides_what_is_before_and_keeps_the_block)
{
    struct fixture fixture;
    fixture_init(&fixture, 100000, 100000);
    struct bk_channel *channel = append_batch(&fixture, "a", 5);
    (void)append_batch(&fixture, "a", 5);
    fixture.ring.keep_pos = bk_ring_end(&fixture.ring);
    bk_ring_trim(&fixture.ring, channel, 4);
    cr_assert_eq(channel->first, 4);
    cr_assert_eq(fixture.n_evicted, 1, "who lags is told of the part");
    cr_assert_eq(bk_ring_oldest_of(&fixture.ring, channel)->sequence, 1);
    bk_ring_trim(&fixture.ring, channel, 4);
    cr_assert_eq(fixture.n_evicted, 1, "once");
    bk_ring_trim(&fixture.ring, channel, 6);
    cr_assert_eq(channel->first, 6);
    cr_assert_eq(bk_ring_oldest_of(&fixture.ring, channel)->sequence, 6);
    bk_ring_trim(&fixture.ring, channel, UINT64_MAX);
    cr_assert_eq(channel->first, 11);
    cr_assert_eq(channel->ring_bytes, 0);
    cr_assert_null(bk_ring_oldest_of(&fixture.ring, channel));
    fixture_fini(&fixture);
}

Test(ring, a_trim_leaves_what_was_not_fanned_out)
{
    struct fixture fixture;
    fixture_init(&fixture, 100000, 100000);
    struct bk_channel *channel = append_batch(&fixture, "a", 5);
    fixture.ring.keep_pos = bk_ring_end(&fixture.ring);
    (void)append_batch(&fixture, "a", 5);
    bk_ring_trim(&fixture.ring, channel, 9);
    cr_assert_eq(channel->first, 6);
    cr_assert_eq(fixture.n_evicted, 1);
    fixture_fini(&fixture);
}

Test(ring, all_of_a_channel_goes_without_a_word_fanned_out_or_not)
{
    struct fixture fixture;
    fixture_init(&fixture, 100000, 100000);
    struct bk_channel *a = append_batch(&fixture, "a", 5);
    struct bk_channel *b = append_batch(&fixture, "b", 5);
    (void)append_batch(&fixture, "a", 5);
    uint64_t end = bk_ring_end(&fixture.ring);
    bk_ring_drop_all(&fixture.ring, a);
    cr_assert_eq(fixture.n_evicted, 0);
    cr_assert_eq(a->ring_bytes, 0);
    cr_assert_eq(fixture.ring.bytes, b->ring_bytes);
    uint64_t pos = 0;
    cr_assert_eq(bk_ring_at(&fixture.ring, &pos)->channel, b);
    pos++;
    cr_assert_null(bk_ring_at(&fixture.ring, &pos));
    cr_assert_eq(bk_ring_end(&fixture.ring), end, "positions are never given again");
    bk_ring_drop_all(&fixture.ring, a);
    fixture_fini(&fixture);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Parcels: what lies side by side is one part by reference, the rest is copied, and never too many parts. */
#include "broker/core/deliver/parcel.h"
#include "broker/core/keep/channel.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

struct fixture {
    struct bk_meter meter;
    struct bk_channel channel;
    struct bk_ring ring;
    struct bk_parcel parcel;
};

static void nothing(void *context, const struct bk_block *block, uint64_t before, bool is_trim)
{
    (void)context;
    (void)block;
    (void)before;
    (void)is_trim;
}

static void fixture_init(struct fixture *fixture)
{
    *fixture = (struct fixture){.channel = {.first = 1, .ring_max = 10000000}};
    atomic_init(&fixture->meter.bytes, 0);
    bk_ring_init(&fixture->ring, &fixture->meter, 10000000, nothing, NULL);
}

static void fixture_fini(struct fixture *fixture)
{
    bk_parcel_fini(&fixture->parcel);
    bk_ring_fini(&fixture->ring);
    cr_assert_eq(atomic_load(&fixture->meter.bytes), 0);
}

/* A block of @count one-byte events, and then some. */
static void append(struct fixture *fixture, uint32_t count, size_t len)
{
    static const uint8_t zeros[20000];
    struct bb_block block = {
        .session = 1, .sequence = fixture->channel.last + 1, .instance = 1, .count = count, .length = len};
    cr_assert_eq(bk_ring_append(&fixture->ring, &fixture->channel, &block, bb_slice(zeros, len), NULL, false),
                 0);
}

static void add(struct fixture *fixture, uint64_t pos, uint32_t first, uint32_t count, uint32_t len)
{
    const struct bk_block *block = bk_ring_at(&fixture->ring, &pos);
    bk_parcel_add(&fixture->parcel, &(struct bk_item){block, block->body + first, len, first, count});
}

static size_t bytes_of_parts(const struct bk_parcel *parcel)
{
    size_t n = 0;
    for (size_t i = 0; i < parcel->n_parts; i++) {
        n += parcel->parts[i].len;
    }
    return n;
}

Test(parcel, blocks_side_by_side_are_one_reference)
{
    struct fixture fixture;
    fixture_init(&fixture);
    for (uint64_t i = 0; i < 10; i++) {
        append(&fixture, 1, 1000);
        add(&fixture, i, 0, 1, 1000);
    }
    cr_assert_eq(bk_parcel_finish(&fixture.parcel, &fixture.meter), 0);
    cr_assert_eq(fixture.parcel.n_parts, 1);
    cr_assert_null(fixture.parcel.copy);
    cr_assert_eq(bytes_of_parts(&fixture.parcel), fixture.parcel.bytes);
    cr_assert_eq(fixture.parcel.n_ranges, 1);
    cr_assert_eq(fixture.parcel.ranges[0].to, 10);
    cr_assert_eq(fixture.parcel.ranges[0].events, 10);
    fixture_fini(&fixture);
}

Test(parcel, small_pieces_are_copied_together)
{
    struct fixture fixture;
    fixture_init(&fixture);
    append(&fixture, 1, 100);
    append(&fixture, 1, 100);
    append(&fixture, 1, 100);
    add(&fixture, 0, 0, 1, 100);
    add(&fixture, 2, 0, 1, 100);
    cr_assert_eq(bk_parcel_finish(&fixture.parcel, &fixture.meter), 0);
    cr_assert_eq(fixture.parcel.n_parts, 1);
    cr_assert_eq(fixture.parcel.parts[0].owner, fixture.parcel.copy);
    cr_assert_eq(bytes_of_parts(&fixture.parcel), fixture.parcel.bytes);
    fixture_fini(&fixture);
}

Test(parcel, a_part_of_a_block_gets_its_own_head)
{
    struct fixture fixture;
    struct bb_block head;
    fixture_init(&fixture);
    append(&fixture, 10, 10);
    add(&fixture, 0, 3, 2, 2);
    cr_assert_eq(bk_parcel_finish(&fixture.parcel, &fixture.meter), 0);
    struct bb_slice bytes = bb_slice(fixture.parcel.parts[0].data, fixture.parcel.parts[0].len);
    cr_assert_eq(bb_block_read(&bytes, &head), 0);
    cr_assert_eq(head.sequence, 4);
    cr_assert_eq(head.instance, 4);
    cr_assert_eq(head.count, 2);
    cr_assert_eq(head.length, 2);
    cr_assert_eq(bytes.len, 2);
    cr_assert_eq(fixture.parcel.ranges[0].to, 10, "the rest of the block is known not to match");
    fixture_fini(&fixture);
}

Test(parcel, too_many_pieces_become_one_copy)
{
    struct fixture fixture;
    fixture_init(&fixture);
    for (uint64_t i = 0; i < 40; i++) {
        append(&fixture, 2, 5000);
        add(&fixture, i, 0, 1, 4999);
    }
    cr_assert_eq(bk_parcel_finish(&fixture.parcel, &fixture.meter), 0);
    cr_assert_eq(fixture.parcel.n_parts, 1);
    cr_assert_eq(bytes_of_parts(&fixture.parcel), fixture.parcel.bytes);
    bk_parcel_reset(&fixture.parcel);
    cr_assert_eq(fixture.parcel.n_parts, 0);
    fixture_fini(&fixture);
}

Test(parcel, large_pieces_stay_references_between_copies)
{
    struct fixture fixture;
    fixture_init(&fixture);
    append(&fixture, 2, 10000);
    append(&fixture, 2, 10000);
    add(&fixture, 0, 0, 1, 9999);
    add(&fixture, 1, 0, 1, 9999);
    cr_assert_eq(bk_parcel_finish(&fixture.parcel, &fixture.meter), 0);
    cr_assert_eq(fixture.parcel.n_parts, 4);
    cr_assert_eq(fixture.parcel.parts[0].owner, fixture.parcel.copy);
    cr_assert_neq(fixture.parcel.parts[1].owner, fixture.parcel.copy);
    cr_assert_eq(bytes_of_parts(&fixture.parcel), fixture.parcel.bytes);
    fixture_fini(&fixture);
}

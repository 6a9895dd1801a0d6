/* SPDX-License-Identifier: Apache-2.0 */
/* register_(), what is told of it, and what is refused. */
#include "proto/base/error.h"

#include "tests/conform/world.h"

#include <string.h>

#define ON_ALL(test)                \
    ON(conform_write, memory, test) \
    ON(conform_write, lmdb, test)   \
    ON(conform_write, plugin, test) \
    ON(conform_write, dummy, test)

#define ON_STORES(test)             \
    ON(conform_write, memory, test) \
    ON(conform_write, lmdb, test)

static const struct spec ABC[] = {{"c1/a", 1, 0, 0, 0}, {"c1/b", 2, 0, 0, 0}, {"c1/c", 3, 0, 0, 0}};

static void is_at(struct world *world, uint64_t session, uint64_t instance)
{
    struct bk_event_id id;
    uint64_t time = 1;
    world->backend->ops->get_last_event_id(world->backend, SERVER, &id, &time);
    cr_assert_eq(id.session, session);
    cr_assert_eq(id.instance, instance);
    cr_assert_eq(time, TIME0 + 1000 * session);
}

/* The listener holds every notification against the order; here there is enough for one to be wrong. */
static void order_of_notifications(struct world *world)
{
    for (int64_t i = 0; i < 500; i++) {
        put(world, 1, "c1/a", i);
        cr_assert_eq(world->registered, world->ticket);
    }
    settle(world);
}
ON_ALL(order_of_notifications)

/* "@ticket: above all earlier ones": not the next one. */
static void tickets_with_holes(struct world *world)
{
    for (int64_t i = 0; i < 20; i++) {
        world->ticket += 10;
        put(world, 1, "c1/a", i);
        settle(world);
    }
}
ON_ALL(tickets_with_holes)

static void append_of_nothing(struct world *world)
{
    struct bk_append append = {0};
    cr_assert_eq(commit_append(world, &append), 0);
    settle(world);
}
ON_ALL(append_of_nothing)

/* A block that @spoil makes unacceptable, between two that are good: it alone is refused (HAT-W5). */
static void refuse_one(struct world *world, void (*spoil)(struct bk_log_block *block), int error)
{
    const struct spec bad_event = {.path = "c2/bad", .value = 99};
    put(world, 2, "c2/first", 1);
    const struct bk_log_block *before = stage(world, 1, ABC, 3);
    struct bk_log_block *bad = stage(world, 2, &bad_event, 1);
    const struct bk_log_block *after = stage(world, 1, ABC, 3);
    world->sequences[2]--;
    spoil(bad);
    cr_assert_eq(commit(world), 0);
    cr_assert_eq(before->error, 0);
    cr_assert_eq(bad->error, error, "%d", bad->error);
    cr_assert_eq(after->error, 0);
    is_at(world, 4, 3);
    settle(world);
    put(world, 2, "c2/second", 2); /* the channel goes on where it was */
    settle(world);
}

/* Neither read, nor queried, nor located. */
static void is_not_stored(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    read_all(world, 2);
    cr_assert_eq(n_hits(world), 2);
    cr_assert_eq(hit(world, 0)->value, 1);
    cr_assert_eq(hit(world, 1)->value, 2);
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 8);
    query.kind = BB_QUERY_LATEST;
    cr_assert_eq(ask(world, &query, NULL), 0);
    cr_assert_eq(n_hits(world), 5);
    struct bk_locate path = {.kind = BK_LOCATE_PATH, .path = bb_slice_str("c2/bad")};
    cr_assert_eq(locate(world, &path, 2), 0);
}

static void same_id(struct bk_log_block *block)
{
    block->head.session -= 1; /* of the block before, with its last instance */
    block->head.instance = 3;
}

static void older_id(struct bk_log_block *block)
{
    block->head.session = 1;
}

static void older_time(struct bk_log_block *block)
{
    block->head.time -= 1001;
}

static void hole_in_sequence(struct bk_log_block *block)
{
    block->head.sequence++;
}

static void sequence_again(struct bk_log_block *block)
{
    block->head.sequence--;
}

static void id_that_is_there_f83_w5(struct world *world)
{
    refuse_one(world, same_id, BB_EEXISTS);
}
ON_ALL(id_that_is_there_f83_w5)

static void older_id_f83_w5(struct world *world)
{
    refuse_one(world, older_id, BB_EEXISTS);
}
ON_ALL(older_id_f83_w5)

static void older_time_f83_w5_w6(struct world *world)
{
    refuse_one(world, older_time, BB_ETIME);
}
ON_ALL(older_time_f83_w5_w6)

static void hole_f83_w5(struct world *world)
{
    refuse_one(world, hole_in_sequence, BB_ESEQUENCE);
}
ON_ALL(hole_f83_w5)

static void sequence_again_f83_w5(struct world *world)
{
    refuse_one(world, sequence_again, BB_ESEQUENCE);
}
ON_ALL(sequence_again_f83_w5)

static void refused_is_not_stored_w5(struct world *world)
{
    refuse_one(world, older_id, BB_EEXISTS);
    is_not_stored(world);
}
ON_STORES(refused_is_not_stored_w5)

static void refused_by_time_is_not_stored_w5(struct world *world)
{
    refuse_one(world, older_time, BB_ETIME);
    is_not_stored(world);
}
ON_STORES(refused_by_time_is_not_stored_w5)

static void refused_by_sequence_is_not_stored_w5(struct world *world)
{
    refuse_one(world, hole_in_sequence, BB_ESEQUENCE);
    is_not_stored(world);
}
ON_STORES(refused_by_sequence_is_not_stored_w5)

/* HAT-W6, a clock that was set back: who asks for the last time goes on from it, and nothing is dropped. */
static void clock_set_back_w6(struct world *world)
{
    const struct spec spec = {.path = "c1/a"};
    struct bk_event_id id;
    uint64_t time = 0;
    put(world, 1, "c1/a", 0);
    for (unsigned i = 0; i < 10; i++) {
        world->backend->ops->get_last_event_id(world->backend, SERVER, &id, &time);
        struct bk_log_block *block = stage(world, 1, &spec, 1);
        block->head.time = BB_MAX(time, TIME0 - 3600000000);
        cr_assert_eq(commit(world), 0);
        cr_assert_eq(block->error, 0, "equal times are in order");
    }
    settle(world);
}
ON_ALL(clock_set_back_w6)

static void all_of_an_append_refused_w5(struct world *world)
{
    put(world, 1, "c1/a", 1);
    struct bk_log_block *bad = stage(world, 1, ABC, 3);
    world->sequences[1] -= 3;
    older_id(bad);
    cr_assert_eq(commit(world), 0);
    cr_assert_eq(bad->error, BB_EEXISTS);
    settle(world);
    is_at(world, 1, 1);
}
ON_ALL(all_of_an_append_refused_w5)

static void first_sequence_is_free(struct world *world)
{
    world->sequences[3] = 1000;
    put(world, 3, "c3/a", 1);
    put(world, 3, "c3/a", 2);
    settle(world);
}
ON_ALL(first_sequence_is_free)

static void last_id_f22(struct world *world)
{
    struct bk_event_id id = {1, 1, 1};
    uint64_t time = 1;
    world->backend->ops->get_last_event_id(world->backend, 12345, &id, &time);
    cr_assert_eq(id.session, 0);
    cr_assert_eq(id.instance, 0);
    cr_assert_eq(time, 0);
    (void)stage(world, 1, ABC, 3);
    cr_assert_eq(commit(world), 0);
    is_at(world, 1, 3); /* at once: what was registered counts */
    settle(world);
    is_at(world, 1, 3);
    world->backend->ops->get_last_event_id(world->backend, 12345, &id, &time);
    cr_assert_eq(id.session, 0);
}
ON_ALL(last_id_f22)

static void servers_do_not_mix_f22(struct world *world)
{
    (void)stage(world, 1, ABC, 3);
    struct bk_log_block *foreign = stage(world, 1, ABC, 3);
    foreign->server = SERVER + 1;
    foreign->head.session = 1;
    foreign->head.time = TIME0;
    cr_assert_eq(commit(world), 0);
    cr_assert_eq(foreign->error, 0, "ids and times are ordered by server");
    is_at(world, 1, 3);
    settle(world);
}
ON_ALL(servers_do_not_mix_f22)

static void flush_f26(struct world *world)
{
    struct bk_request flush = {.kind = BK_REQUEST_FLUSH};
    run(world, &flush);
    cr_assert_eq(flush.error, 0);
    for (int64_t i = 0; i < 50; i++) {
        put(world, 1, "c1/a", i);
    }
    run(world, &flush);
    cr_assert_eq(flush.error, 0);
    cr_assert_eq(world->flushed, world->ticket, "done before what it waits for is told");
}
ON_ALL(flush_f26)

/* The largest ticket that is promised. */
static void ticket_of_max_ticket(struct world *world)
{
    size_t max = BB_MIN(world->backend->max_ticket, (size_t)4 << 20);
    const struct spec specs[] = {{"c1/a", 1, 0, 0, max / 2}, {"c1/a", 2, 0, 0, max / 2 - 2 * BK_ENTRY_SIZE}};
    cr_assert_geq(max, (size_t)64 << 10);
    (void)stage(world, 1, &specs[0], 1);
    (void)stage(world, 1, &specs[1], 1);
    cr_assert_eq(commit(world), 0);
    settle(world);
    cr_assert_eq(world->flush_error, 0);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 2);
}
ON_STORES(ticket_of_max_ticket)

static struct bk_bytes *bytes_of(struct world *world, const struct bk_log_block *block)
{
    struct bk_bytes *bytes = bk_bytes_new(&world->meter, (size_t)block->head.length);
    cr_assert_not_null(bytes);
    memcpy(bytes->data, block->events, (size_t)block->head.length);
    bytes->len = (size_t)block->head.length;
    return bytes;
}

/* What is borrowed may be gone after the call; an owner is kept by reference. */
static void borrowed_bytes(struct world *world)
{
    struct bk_log_block *copied = stage(world, 1, ABC, 3);
    struct bk_log_block *owned = stage(world, 1, ABC, 3);
    owned->owner = bytes_of(world, owned);
    owned->events = owned->owner->data;
    struct bk_bytes *owner = owned->owner;
    cr_assert_eq(commit(world), 0);
    memset(world->events[0].data, 0xff, (size_t)copied->head.length);
    memset(world->events[1].data, 0xff, (size_t)owned->head.length);
    bk_bytes_unref(owner);
    settle(world);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 6);
    for (size_t i = 0; i < 6; i++) {
        cr_assert_eq(hit(world, i)->value, (int64_t)(i % 3 + 1));
    }
}
ON_STORES(borrowed_bytes)

/* HAT-W8: a query finds an event from flushed() on, whatever the backend does with it meanwhile. */
static void no_gap_while_flushing_w8(struct world *world)
{
    for (int64_t i = 1; i <= 300; i++) {
        put(world, 1, "c1/a", i);
        settle(world);
        struct bb_query query = BB_QUERY_INIT;
        query.max_results = 1;
        cr_assert_eq(ask(world, &query, NULL), 0);
        cr_assert_eq(hit(world, 0)->value, i);
        struct bk_locate last = {.kind = BK_LOCATE_LAST};
        cr_assert_eq(locate(world, &last, 1), (uint64_t)i);
        struct bk_read_range range = {1, (uint64_t)i - 1, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
        read_range(world, &range, NULL, SIZE_MAX);
        cr_assert_eq(n_hits(world), 1);
        cr_assert_eq(range.reached, (uint64_t)i);
        put(world, 2, "c2/b", i); /* and another one on its way */
    }
    settle(world);
}
ON_STORES(no_gap_while_flushing_w8)

/* --- dummy: everything is taken, nothing is kept (HAT-F80) -------------------------------------------- */

static void keeps_nothing_f80(struct world *world)
{
    struct bb_query query = BB_QUERY_INIT;
    bool more = true;
    set_channel(world, 1, NULL, false);
    put(world, 1, "c1/a", 1);
    settle(world);
    cr_assert_not(world->backend->is_durable);
    for (int kind = BB_QUERY_TIMESERIES; kind <= BB_QUERY_SERVER; kind++) {
        query.kind = (enum bb_query_kind)kind;
        cr_assert_eq(ask(world, &query, &more), 0);
        cr_assert_eq(n_hits(world), 0);
        cr_assert_not(more);
    }
    for (int i = 2; i <= 9; i++) {
        put(world, 1, "c1/a", i);
    }
    settle(world);
    read_all(world, 1);
    cr_assert_eq(n_hits(world), 0);
    cr_assert_eq(n_losses(world), 1);
    cr_assert(loss(world, 0)->from == 1 && loss(world, 0)->to == 9, "and it says what is lost");
    struct bk_read_range range = {1, .after = 2, .stop = 4, .stop_time = BK_NO_LIMIT};
    read_range(world, &range, NULL, SIZE_MAX);
    cr_assert_eq(range.reached, 4);
    cr_assert(loss(world, 0)->from == 3 && loss(world, 0)->to == 4);
    struct bk_locate last = {.kind = BK_LOCATE_LAST};
    cr_assert_eq(locate(world, &last, 1), 0);
    struct bk_upkeep verify = {.request = {.kind = BK_REQUEST_VERIFY}};
    run(world, &verify.request);
    cr_assert_eq(verify.request.error, BB_EUNSUPPORTED);
}
ON(conform_write, dummy, keeps_nothing_f80)

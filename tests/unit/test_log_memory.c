/* SPDX-License-Identifier: Apache-2.0 */
/* The backend in memory, where the conformance suite does not look: what its options bound, and when
 * channels are due. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/memory/keep.h"
#include "broker/backend/registry.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define SERVER   7
#define TIME0    UINT64_C(1700000000000000)
#define CHANNELS 200

struct owner {
    struct bk_backend *backend;
    struct bk_backend_listener listener;
    struct bk_meter meter;
    uint64_t clock;
    uint64_t ticket;
    uint64_t session;
    uint64_t last[CHANNELS + 1];
    uint64_t trimmed[CHANNELS + 1];
};

static void on_registered(void *context, uint64_t ticket)
{
    struct owner *owner = context;
    cr_assert_eq(ticket, owner->ticket);
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    struct owner *owner = context;
    cr_assert_leq(ticket, owner->ticket);
    cr_assert_eq(error, 0);
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct owner *owner = context;
    owner->trimmed[channel] = first;
}

static uint64_t now(void *context)
{
    return ((struct owner *)context)->clock;
}

static void owner_open(struct owner *owner, const char *const *options, size_t n)
{
    struct bb_buf err = BB_BUF_INIT;
    *owner = (struct owner){.clock = TIME0};
    owner->listener = (struct bk_backend_listener){owner, on_registered, on_flushed, on_trimmed, NULL};
    struct bk_backend_env env = {.server = SERVER,
                                 .listener = &owner->listener,
                                 .meter = &owner->meter,
                                 .now = now,
                                 .now_context = owner};
    cr_assert_eq(bk_backend_open("memory", options, n, &env, &owner->backend, &err), 0);
}

static void owner_close(struct owner *owner)
{
    owner->backend->ops->close(owner->backend);
    cr_assert_eq(atomic_load(&owner->meter.bytes), 0);
}

static struct bk_memory *memory_of(const struct owner *owner)
{
    return BB_CONTAINER(owner->backend, struct bk_memory, backend);
}

static void set_channel(struct owner *owner, uint32_t id, uint64_t max_age_us, bool removed)
{
    struct bk_log_channel entry = {.id = id, .removed = removed, .retention = BK_RETENTION_INIT};
    struct bk_append append = {.channels = &entry, .n_channels = 1};
    entry.retention.max_age_us = max_age_us;
    cr_assert_eq(owner->backend->ops->register_(owner->backend, &append, ++owner->ticket), 0);
}

static void put(struct owner *owner, uint32_t channel, const char *path, size_t size)
{
    static const uint8_t zeros[4096];
    struct bb_buf payload = BB_BUF_INIT;
    struct bb_buf events = BB_BUF_INIT;
    bb_mp_write_bin(&payload, bb_slice(zeros, size));
    bb_event_write(&events, bb_slice_str(path), bb_buf_slice(&payload), NULL);
    struct bk_log_block block = {
        .channel = channel,
        .server = SERVER,
        .head =
            {
                .session = ++owner->session,
                .time = owner->clock,
                .sequence = ++owner->last[channel],
                .instance = 1,
                .count = 1,
                .length = events.len,
            },
        .events = events.data,
    };
    struct bk_append append = {.blocks = &block, .n_blocks = 1};
    cr_assert_eq(owner->backend->ops->register_(owner->backend, &append, ++owner->ticket), 0);
    cr_assert_eq(block.error, 0);
    bb_buf_fini(&payload);
    bb_buf_fini(&events);
}

/* Events and values together; where values have more than half they make way. */
Test(log_memory, options_bound_events_and_values)
{
    static const char *const options[] = {"channel-size=64K", "total-size=100K"};
    struct owner owner;
    owner_open(&owner, options, 2);
    const struct bk_memory *memory = memory_of(&owner);
    for (uint32_t channel = 1; channel <= 3; channel++) {
        set_channel(&owner, channel, BK_NO_LIMIT, false);
        for (int i = 0; i < 2000; i++) {
            char path[32];
            (void)snprintf(path, sizeof(path), "c%u/%d", channel, i);
            put(&owner, channel, path, 50);
            cr_assert_leq(memory->bytes + memory->latest_bytes, 100 << 10);
        }
        cr_assert_geq(memory->latest_bytes, 20 << 10);
        cr_assert_geq(memory->bytes, 20 << 10, "values do not drive out the events");
    }
    set_channel(&owner, 3, BK_NO_LIMIT, true);
    set_channel(&owner, 2, BK_NO_LIMIT, true);
    set_channel(&owner, 1, BK_NO_LIMIT, true);
    cr_assert_eq(memory->bytes, 0);
    cr_assert_eq(memory->latest_bytes, 0);
    cr_assert_eq(atomic_load(&owner.meter.bytes), 0, "what is removed is freed at once");
    owner_close(&owner);
}

/* Memory of the core may still have what only the options took. */
Test(log_memory, what_the_options_took_is_not_told_as_trimmed)
{
    static const char *const options[] = {"channel-size=4K"};
    struct owner owner;
    owner_open(&owner, options, 1);
    struct bk_log_channel entry = {.id = 1, .retention = BK_RETENTION_INIT};
    struct bk_append append = {.channels = &entry, .n_channels = 1};
    entry.retention.max_per_path = 1;
    cr_assert_eq(owner.backend->ops->register_(owner.backend, &append, ++owner.ticket), 0);
    put(&owner, 1, "c1/a", 2000);
    put(&owner, 1, "c1/b", 1000);
    put(&owner, 1, "c1/c", 2000); /* no room for 1 any more */
    put(&owner, 1, "c1/b", 10);   /* now 2 has gone as well, because its path has a newer one */
    owner.backend->ops->dispatch(owner.backend);
    cr_assert_eq(owner.trimmed[1], 0);
    owner_close(&owner);
}

/* A value is the newest event of its path that has gone, and there is one of each path. */
Test(log_memory, values_are_replaced)
{
    struct owner owner;
    owner_open(&owner, NULL, 0);
    const struct bk_memory *memory = memory_of(&owner);
    set_channel(&owner, 1, 10, false);
    uint64_t bytes = 0;
    for (size_t i = 0; i < 50; i++) {
        put(&owner, 1, "c1/a", 200 - i);
        put(&owner, 1, "c1/b", i);
        owner.clock += 100;
        owner.backend->ops->dispatch(owner.backend);
        cr_assert_eq(memory->bytes, 0);
        cr_assert_not_null(memory->latest_oldest);
        cr_assert_eq(memory->latest_oldest->next, memory->latest_newest);
        cr_assert_eq(memory->latest_newest->head.sequence, 2 * i + 2);
        cr_assert_eq(memory->latest_oldest->head.sequence, 2 * i + 1);
        cr_assert(i < 2 || memory->latest_bytes <= bytes + 1);
        bytes = memory->latest_bytes;
    }
    owner_close(&owner);
}

/* Channels of all ages, some of which go: each loses its events at its time, not before. */
Test(log_memory, channels_are_due_in_their_order)
{
    struct owner owner;
    owner_open(&owner, NULL, 0);
    for (uint32_t channel = 1; channel <= CHANNELS; channel++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "c%u/a", channel);
        set_channel(&owner, channel, 1 + channel * 7919 % 1009, false);
        put(&owner, channel, path, 10);
    }
    for (uint32_t channel = 3; channel <= CHANNELS; channel += 3) {
        set_channel(&owner, channel, 0, true);
    }
    for (uint64_t age = 0; age < 1012; age++) {
        owner.clock = TIME0 + age;
        owner.backend->ops->dispatch(owner.backend);
        for (uint32_t channel = 1; channel <= CHANNELS; channel++) {
            bool is_over = channel % 3 != 0 && age > 1 + channel * 7919 % 1009;
            cr_assert_eq(owner.trimmed[channel], is_over ? 2 : 0, "channel %u at %llu", channel,
                         (unsigned long long)age);
        }
    }
    cr_assert_eq(memory_of(&owner)->bytes, 0);
    owner_close(&owner);
}

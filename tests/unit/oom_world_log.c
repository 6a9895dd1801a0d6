/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stores of a world in which memory runs out. What the log does itself does not fail; what the core does on its word
 * may.
 */
#include "proto/base/error.h"

#include "broker/backend/registry.h"
#include "tests/lib/fault.h"
#include "tests/unit/core_rig.h"
#include "tests/unit/oom_world.h"

#include <criterion/criterion.h>

static struct world *world_of_log; /* one at a time */

static void note_block(struct world *world, const struct bk_log_block *block)
{
    struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
    for (uint64_t sequence = block->head.sequence; rest.len > 0; sequence++) {
        struct bb_slice raw = rest;
        struct bb_event_view view;
        cr_assert_eq(bb_event_read(&rest, &view), 0);
        raw.len -= rest.len;
        world_note_event(world, raw, sequence);
    }
}

/* What it has taken comes to be. */
static int log_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct world *world = world_of_log;
    bool was_inside = fault_leave();
    int r = world->log_ops.register_(backend, append, ticket);
    for (size_t i = 0; i < append->n_blocks; i++) {
        note_block(world, &append->blocks[i]);
    }
    if (was_inside) {
        fault_enter();
    }
    return r;
}

static void on_done(void *context, struct bk_request *request)
{
    struct asked asked = *(struct asked *)context;
    ((struct asked *)context)->request = NULL;
    request->context = asked.context;
    fault_enter();
    asked.done(asked.context, request);
    (void)fault_leave();
}

static void log_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct world *world = world_of_log;
    size_t i = 0;
    while (world->asked[i].request != NULL) {
        cr_assert_lt(++i, (size_t)ASKED_MAX);
    }
    world->asked[i] = (struct asked){request, request->done, request->context};
    request->done = on_done;
    request->context = &world->asked[i];
    world->log_ops.submit(backend, request);
}

static void log_flushed(void *context, uint64_t ticket, int error)
{
    const struct world *world = context;
    fault_enter();
    world->core_listener->flushed(world->core_listener->context, ticket, error);
    (void)fault_leave();
}

static void log_registered(void *context, uint64_t ticket)
{
    const struct world *world = context;
    world->core_listener->registered(world->core_listener->context, ticket);
}

static void log_trimmed(void *context, uint32_t channel, uint64_t first)
{
    const struct world *world = context;
    fault_enter();
    world->core_listener->trimmed(world->core_listener->context, channel, first);
    (void)fault_leave();
}

static void open_log(struct world *world)
{
    static struct bk_backend_ops ops;
    world_of_log = world;
    world->log = rig_log_new();
    world->log_ops = ops = *world->log->backend.ops;
    ops.register_ = log_register;
    ops.submit = log_submit;
    world->log->backend.ops = &ops;
    world->core_listener = bk_core_listener(world->core, BK_STORE_LOG);
    world->log_listener = (struct bk_backend_listener){world, log_registered, log_flushed, log_trimmed, NULL};
    rig_log_open(world->log, &world->log_listener);
    cr_assert_eq(bk_core_set_backend(world->core, BK_STORE_LOG, &world->log->backend), 0);
}

static uint64_t wall(void *context)
{
    const struct world *world = context;
    return world->now;
}

static void open_memory(struct world *world)
{
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {
        .listener = bk_core_listener(world->core, BK_STORE_MEMORY),
        .meter = bk_core_meter(world->core),
        .now = wall,
        .now_context = world,
    };
    cr_assert_eq(bk_backend_open("memory", NULL, 0, &env, &world->memory, &err), 0);
    cr_assert_eq(bk_core_set_backend(world->core, BK_STORE_MEMORY, world->memory), 0);
    bb_buf_fini(&err);
}

void world_open_stores(struct world *world)
{
    open_memory(world);
    open_log(world);
}

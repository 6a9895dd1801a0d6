/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/disk/memory.h"

#include "broker/backend/registry.h"
#include "tests/sim/world.h"

#include <stdlib.h>

/* Retention by age is looked at so often. */
#define TIDY_US 20000

static struct sim_memory *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct sim_memory, between);
}

static void has_news(struct sim_memory *memory)
{
    memory->next_at = BB_MIN(memory->next_at, memory->world->now + sim_between(&memory->world->rng, 1, 2000));
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    return of(backend)->backend->ops->load(of(backend)->backend, loader);
}

/* A query may find what the windows have not shown yet. */
static void tell_block(struct world *world, const struct bk_log_block *block)
{
    struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
    struct bb_event_view view;
    for (uint64_t i = 0; i < block->head.count && !world->failed && bb_event_read(&rest, &view) == 0; i++) {
        const struct truth_shown shown = {
            .raw = view.raw,
            .session = block->head.session,
            .instance = block->head.instance + i,
            .time = block->head.time,
            .source = block->head.source,
            .sequence = block->head.sequence + i,
        };
        (void)truth_take(world, &shown, false);
    }
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    has_news(of(backend));
    for (size_t i = 0; i < append->n_blocks; i++) {
        tell_block(of(backend)->world, &append->blocks[i]);
    }
    return of(backend)->backend->ops->register_(of(backend)->backend, append, ticket);
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    of(backend)->backend->ops->get_last_event_id(of(backend)->backend, server, ret_id, ret_time);
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    has_news(of(backend));
    of(backend)->backend->ops->submit(of(backend)->backend, request);
}

static int op_fd(struct bk_backend *backend)
{
    (void)backend;
    return -1;
}

static void op_dispatch(struct bk_backend *backend)
{
    of(backend)->backend->ops->dispatch(of(backend)->backend);
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    of(backend)->backend->ops->status(of(backend)->backend, out);
}

static void op_close(struct bk_backend *backend)
{
    (void)backend; /* memory_close() */
}

static const struct bk_backend_ops ops = {
    .load = op_load,
    .register_ = op_register,
    .get_last_event_id = op_get_last,
    .submit = op_submit,
    .fd = op_fd,
    .dispatch = op_dispatch,
    .status = op_status,
    .close = op_close,
};

static uint64_t wall_of(void *context)
{
    return world_wall(context);
}

void memory_open(struct world *world, bool is_small)
{
    static const char *const large[] = {"channel-size=1G", "total-size=1G"};
    static const char *const small[] = {"channel-size=2K", "total-size=6K"};
    struct bk_backend_env env = {
        .server = world->config.server,
        .listener = bk_core_listener(world->core, BK_STORE_MEMORY),
        .meter = bk_core_meter(world->core),
        .now = wall_of,
        .now_context = world,
    };
    struct bb_buf err = BB_BUF_INIT;
    struct sim_memory *memory = &world->memory;
    *memory = (struct sim_memory){.is_small = is_small, .next_at = world->now + TIDY_US, .world = world};
    if (bk_backend_open("memory", is_small ? small : large, 2, &env, &memory->backend, &err) < 0) {
        abort();
    }
    bb_buf_fini(&err);
    memory->between = (struct bk_backend){&ops, memory->backend->is_durable, memory->backend->max_ticket};
    if (bk_core_set_backend(world->core, BK_STORE_MEMORY, &memory->between) < 0) {
        world_fail(world, "memory", "the backend in memory cannot be set");
    }
}

void memory_close(struct world *world)
{
    if (world->memory.backend != NULL) {
        world->memory.backend->ops->close(world->memory.backend);
    }
    world->memory = (struct sim_memory){.next_at = UINT64_MAX};
}

void memory_step(struct world *world)
{
    world->memory.next_at = world->now + TIDY_US;
    world->memory.backend->ops->dispatch(world->memory.backend);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/memory/memory.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/memory/keep.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

/* clang-format off */
static const struct bk_backend_option options[] = {
    [OPTION_CHANNEL_SIZE] = {"channel-size", BK_OPTION_SIZE, 1024, (uint64_t)1 << 40, 16 * MIB, NULL, "most that is kept of one channel (16M)"},
    [OPTION_TOTAL_SIZE] = {"total-size", BK_OPTION_SIZE, 1024, (uint64_t)1 << 40, 256 * MIB, NULL, "most that is kept in all (256M)"},
    [OPTIONS] = {0},
};
/* clang-format on */

static struct bk_memory *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct bk_memory, backend);
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    (void)backend;
    (void)loader;
    return 0;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct bk_memory *memory = of(backend);
    for (size_t i = 0; i < append->n_channels; i++) {
        if (bk_memory_take_channel(memory, &append->channels[i]) < 0) {
            return BB_ENOMEM;
        }
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        if (bk_memory_take_block(memory, &append->blocks[i]) < 0) {
            append->blocks[i].error = BB_ENOMEM;
        }
    }
    memory->ticket = ticket;
    memory->listener->registered(memory->listener->context, ticket);
    (void)eventfd_write(memory->wake, 1); /* tickets rise, but some numbers may be left out */
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    const struct bk_memory_server *found =
        bb_map_find(&of(backend)->servers, bb_slice(&server, sizeof(server)));
    *ret_id = found != NULL ? found->id : (struct bk_event_id){.server = server};
    *ret_time = found != NULL ? found->time : 0;
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct bk_memory *memory = of(backend);
    request->next = NULL;
    request->error = 0;
    *memory->requests_end = request;
    memory->requests_end = &request->next;
    (void)eventfd_write(memory->wake, 1);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->wake;
}

static void op_dispatch(struct bk_backend *backend)
{
    struct bk_memory *memory = of(backend);
    eventfd_t count = 0;
    (void)eventfd_read(memory->wake, &count);
    if (memory->ticket > memory->told) {
        memory->told = memory->ticket;
        memory->listener->flushed(memory->listener->context, memory->ticket, 0);
    }
    bk_memory_tell_trimmed(memory);
    struct bk_request *request = memory->requests;
    memory->requests = NULL;
    memory->requests_end = &memory->requests;
    while (request != NULL) {
        struct bk_request *next = request->next;
        request->error = bk_memory_answer(memory, request);
        request->done(request->context, request);
        request = next;
    }
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("bytes"));
    bb_mp_write_uint(out, of(backend)->bytes);
}

static void op_close(struct bk_backend *backend)
{
    struct bk_memory *memory = of(backend);
    op_dispatch(backend);
    bk_memory_clear(memory);
    (void)close(memory->wake);
    free(memory);
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

static int open_memory(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    struct bk_memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        return BB_ENOMEM;
    }
    memory->backend = (struct bk_backend){&ops, false, SIZE_MAX};
    memory->listener = env->listener;
    memory->meter = env->meter;
    memory->requests_end = &memory->requests;
    for (size_t i = 0; i < OPTIONS; i++) {
        memory->values[i] = env->values[i].number;
    }
    bb_map_init(&memory->channels, 0, SIZE_MAX);
    bb_map_init(&memory->servers, 0, SIZE_MAX);
    memory->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (memory->wake < 0) {
        bb_buf_printf(err, "no eventfd: %m");
        free(memory);
        return BB_ESYSTEM;
    }
    *ret_backend = &memory->backend;
    return 0;
}

const struct bk_backend_driver bk_memory_driver = {BK_BACKEND_ABI, "memory", false, options, open_memory};

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/memory/memory.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/memory/keep.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
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

/* fd() becomes readable, and stays so until dispatch(). */
static void raise_now(struct bk_memory *memory)
{
    const uint64_t one = 1;
    if (!memory->is_raised) {
        memory->is_raised = true;
        (void)!write(memory->raised, &one, sizeof(one));
    }
}

/* The same at @time, wall clock. */
static void arm(struct bk_memory *memory, uint64_t time)
{
    const struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(time / 1000000), .tv_nsec = (long)(time % 1000000) * 1000 + 1}};
    if (memory->armed != time && time != BK_NO_LIMIT) {
        memory->armed = time;
        (void)timerfd_settime(memory->timer, TFD_TIMER_ABSTIME, &at, NULL);
    }
}

/* Readable no more. */
static void lower(struct bk_memory *memory)
{
    uint64_t count = 0;
    if (memory->is_raised) {
        (void)!read(memory->raised, &count, sizeof(count));
        memory->is_raised = false;
    }
    if (memory->armed != BK_NO_LIMIT && read(memory->timer, &count, sizeof(count)) == sizeof(count)) {
        memory->armed = BK_NO_LIMIT;
    }
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
    int r = bk_memory_take(memory, append);
    if (r == 0) {
        memory->ticket = ticket; /* tickets rise, but some numbers may be left out */
        memory->listener->registered(memory->listener->context, ticket);
        raise_now(memory);
    }
    return r;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    bk_numbers_last(of(backend)->numbers, server, ret_id, ret_time);
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct bk_memory *memory = of(backend);
    request->next = NULL;
    request->error = 0;
    *memory->requests_end = request;
    memory->requests_end = &request->next;
    raise_now(memory);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->fd;
}

static void op_dispatch(struct bk_backend *backend)
{
    struct bk_memory *memory = of(backend);
    lower(memory);
    bk_memory_retain_due(memory);
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
    if (memory->now == NULL && memory->n_dues > 0) {
        arm(memory, memory->dues[0]->due);
    }
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    const struct bk_memory *memory = of(backend);
    bb_mp_write_map(out, 2);
    bb_mp_write_str(out, bb_slice_str("bytes"));
    bb_mp_write_uint(out, memory->bytes);
    bb_mp_write_str(out, bb_slice_str("latest_bytes"));
    bb_mp_write_uint(out, memory->latest_bytes);
}

static void memory_free(struct bk_memory *memory)
{
    bk_memory_clear(memory);
    bk_numbers_free(memory->numbers);
    const int fds[] = {memory->fd, memory->raised, memory->timer};
    for (size_t i = 0; i < BB_COUNT(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    free(memory);
}

static void op_close(struct bk_backend *backend)
{
    struct bk_memory *memory = of(backend);
    op_dispatch(backend);
    memory_free(memory);
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

static int open_fds(struct bk_memory *memory)
{
    struct epoll_event any = {.events = EPOLLIN};
    memory->fd = epoll_create1(EPOLL_CLOEXEC);
    memory->raised = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    memory->timer = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    bool has_all = memory->fd >= 0 && memory->raised >= 0 && memory->timer >= 0;
    return has_all && epoll_ctl(memory->fd, EPOLL_CTL_ADD, memory->raised, &any) == 0
               ? epoll_ctl(memory->fd, EPOLL_CTL_ADD, memory->timer, &any)
               : -1;
}

static int open_memory(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    struct bk_memory *memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        return BB_ENOMEM;
    }
    memory->backend = (struct bk_backend){&ops, false, SIZE_MAX};
    memory->listener = env->listener;
    memory->meter = env->meter;
    memory->now = env->now;
    memory->now_context = env->now_context;
    memory->armed = BK_NO_LIMIT;
    memory->requests_end = &memory->requests;
    for (size_t i = 0; i < OPTIONS; i++) {
        memory->values[i] = env->values[i].number;
    }
    bb_map_init(&memory->channels, 0, SIZE_MAX);
    memory->numbers = bk_numbers_new();
    int r = open_fds(memory) < 0 ? BB_ESYSTEM : memory->numbers == NULL ? BB_ENOMEM : 0;
    if (r == BB_ESYSTEM) {
        bb_buf_printf(err, "no descriptors to wait with: %m");
    }
    if (r < 0) {
        memory_free(memory);
        return r;
    }
    *ret_backend = &memory->backend;
    return 0;
}

const struct bk_backend_driver bk_memory_driver = {BK_BACKEND_ABI, "memory", false, options, open_memory};

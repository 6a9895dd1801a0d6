/* SPDX-License-Identifier: Apache-2.0 */
/* Memory runs out in the backend in memory, at every allocation: an append is taken whole or not at all. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/registry.h"
#include "tests/lib/fault.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define SERVER 7
#define TIME0  UINT64_C(1700000000000000)

struct owner {
    struct bk_backend *backend;
    struct bk_backend_listener listener;
    struct bk_meter meter;
    uint64_t registered;
    uint64_t session;
    uint64_t last;
    bool is_done;
};

static void on_registered(void *context, uint64_t ticket)
{
    struct owner *owner = context;
    owner->registered = ticket;
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    (void)context;
    (void)channel;
    (void)first;
}

static uint64_t now(void *context)
{
    (void)context;
    return TIME0;
}

static void on_done(void *context, struct bk_request *request)
{
    (void)request;
    ((struct owner *)context)->is_done = true;
}

static void owner_open(struct owner *owner)
{
    struct bb_buf err = BB_BUF_INIT;
    *owner = (struct owner){0};
    owner->listener = (struct bk_backend_listener){owner, on_registered, on_flushed, on_trimmed, NULL};
    struct bk_backend_env env = {
        .server = SERVER, .listener = &owner->listener, .meter = &owner->meter, .now = now};
    cr_assert_eq(bk_backend_open("memory", NULL, 0, &env, &owner->backend, &err), 0);
}

static void run(struct owner *owner, struct bk_request *request)
{
    owner->is_done = false;
    request->done = on_done;
    request->context = owner;
    owner->backend->ops->submit(owner->backend, request);
    fault_enter();
    owner->backend->ops->dispatch(owner->backend);
    (void)fault_leave();
    cr_assert(owner->is_done);
}

/* Events of channel 1 that are kept, and the newest of them. */
static uint64_t count(struct owner *owner, uint64_t *ret_reached)
{
    struct bk_read_range range = {1, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    struct bk_read read = {
        .request = {.kind = BK_REQUEST_READ}, .ranges = &range, .n_ranges = 1, .max_bytes = SIZE_MAX};
    run(owner, &read.request);
    cr_assert_eq(read.request.error, 0);
    bk_bytes_unref(read.body);
    bb_buf_fini(&read.losses);
    *ret_reached = range.reached;
    return read.n_events;
}

/* Two blocks on four paths, and the channel with its limit. Return: as register_(). */
static int append_some(struct owner *owner, const struct bk_retention *retention, uint64_t ticket)
{
    struct bb_buf events = BB_BUF_INIT;
    struct bk_log_block blocks[2];
    struct bk_log_channel entry = {.id = 1, .retention = *retention};
    for (int i = 0; i < 8; i++) {
        char path[16];
        (void)snprintf(path, sizeof(path), "c/%d", i % 4);
        bb_event_write(&events, bb_slice_str(path), bb_slice("\x07", 1), NULL);
    }
    for (size_t i = 0; i < 2; i++) {
        blocks[i] = (struct bk_log_block){
            .channel = 1,
            .server = SERVER,
            .head = {.session = owner->session + 1 + i,
                     .time = TIME0,
                     .sequence = owner->last + 1 + 8 * i,
                     .instance = 1,
                     .count = 8,
                     .length = events.len},
            .events = events.data,
        };
    }
    struct bk_append append = {.channels = &entry, .n_channels = 1, .blocks = blocks, .n_blocks = 2};
    fault_enter();
    int r = owner->backend->ops->register_(owner->backend, &append, ticket);
    (void)fault_leave();
    cr_assert(r != 0 || (blocks[0].error == 0 && blocks[1].error == 0));
    owner->session += r == 0 ? 2 : 0;
    owner->last += r == 0 ? 16 : 0;
    bb_buf_fini(&events);
    return r;
}

/* @first: the limit of what is there already; @then: that of the append in which memory runs out. */
static void sweep(const struct bk_retention *first, const struct bk_retention *then)
{
    bool has_failed = true;
    for (size_t nth = 0; has_failed; nth++) {
        struct owner owner;
        uint64_t reached = 0;
        owner_open(&owner);
        if (first != NULL) {
            cr_assert_eq(append_some(&owner, first, 1), 0);
        }
        uint64_t n = count(&owner, &reached);
        fault_start(nth, FAULT_ONCE);
        int r = append_some(&owner, then, 2);
        has_failed = fault_stop();
        cr_assert(r == 0 || (has_failed && r == BB_ENOMEM), "%d", r);
        if (r != 0) {
            uint64_t still = 0;
            cr_assert_neq(owner.registered, 2);
            cr_assert_eq(count(&owner, &still), n, "nothing of it was taken");
            cr_assert_eq(still, reached);
            cr_assert_eq(append_some(&owner, then, 3), 0, "the same numbers");
        }
        n = count(&owner, &reached);
        cr_assert_eq(reached, owner.last);
        cr_assert_eq(n, then->max_per_path == 2 ? 8 : owner.last);
        owner.backend->ops->close(owner.backend);
        cr_assert_eq(atomic_load(&owner.meter.bytes), 0);
    }
}

Test(log_oom, appends_to_memory)
{
    struct bk_retention none = BK_RETENTION_INIT;
    struct bk_retention of_path = BK_RETENTION_INIT;
    of_path.max_per_path = 2;
    sweep(NULL, &none);
    sweep(NULL, &of_path);
    sweep(&none, &none);
    sweep(&none, &of_path);
    sweep(&of_path, &of_path);
}

/* A request says BB_ENOMEM, or is right. */
Test(log_oom, requests_to_memory)
{
    struct bk_retention none = BK_RETENTION_INIT;
    struct owner owner;
    bool has_failed = true;
    owner_open(&owner);
    cr_assert_eq(append_some(&owner, &none, 1), 0);
    struct bb_query query = BB_QUERY_INIT;
    for (size_t nth = 0; has_failed; nth++) {
        struct bk_read_range range = {1, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
        struct bk_read read = {
            .request = {.kind = BK_REQUEST_READ}, .ranges = &range, .n_ranges = 1, .max_bytes = SIZE_MAX};
        struct bk_query ask = {.request = {.kind = BK_REQUEST_QUERY}, .query = &query, .max_bytes = SIZE_MAX};
        fault_start(nth, FAULT_ONCE);
        run(&owner, &read.request);
        has_failed = fault_stop();
        fault_start(nth, FAULT_ONCE);
        run(&owner, &ask.request);
        has_failed = fault_stop() || has_failed;
        cr_assert(read.request.error == 0 ? read.n_events == 16 : read.request.error == BB_ENOMEM);
        cr_assert(ask.request.error == 0 ? ask.n_events == 16 : ask.request.error == BB_ENOMEM);
        bk_bytes_unref(read.body);
        bb_buf_fini(&read.losses);
        bk_bytes_unref(ask.body);
    }
    owner.backend->ops->close(owner.backend);
    cr_assert_eq(atomic_load(&owner.meter.bytes), 0);
}

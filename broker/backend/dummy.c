/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/dummy.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/numbers.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct dummy {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_numbers *numbers;
    int wake;
    uint64_t told; /* tickets up to here are */
    uint64_t ticket;
    struct bk_request *requests;
    struct bk_request **requests_end;
};

static struct dummy *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct dummy, backend);
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    (void)backend;
    (void)loader;
    return 0;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct dummy *dummy = of(backend);
    int r = bk_numbers_judge(dummy->numbers, append);
    if (r < 0) {
        return r;
    }
    bk_numbers_take(dummy->numbers, append);
    dummy->ticket = ticket;
    dummy->listener->registered(dummy->listener->context, ticket);
    (void)eventfd_write(dummy->wake, 1);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    bk_numbers_last(of(backend)->numbers, server, ret_id, ret_time);
}

/* Whatever is wanted is gone. */
static void lose_range(const struct dummy *dummy, struct bk_read *read, size_t i)
{
    struct bk_read_range *range = &read->ranges[i];
    uint64_t last = range->stop == BK_NO_LIMIT ? range->after : range->stop;
    if (bk_numbers_channel(dummy->numbers, range->channel, &last)) {
        last = BB_MIN(last, range->stop);
    }
    range->reached = BB_MAX(last, range->after);
    range->first = range->reached + 1;
    range->events = range->bytes = 0;
    range->at_end = true;
    const struct bk_read_loss loss = {(uint32_t)i, BK_LOSS_TRIMMED, range->after + 1, range->reached,
                                      range->reached - range->after};
    if (loss.count > 0) {
        bb_buf_append(&read->losses, &loss, sizeof(loss));
    }
}

static int read_on(const struct dummy *dummy, struct bk_read *read)
{
    read->losses = BB_BUF_INIT;
    read->body = NULL;
    read->n_events = 0;
    for (size_t i = 0; i < read->n_ranges; i++) {
        lose_range(dummy, read, i);
    }
    return read->losses.error;
}

static int locate(const struct dummy *dummy, struct bk_locate *locate)
{
    for (size_t i = 0; i < locate->n_places; i++) {
        locate->places[i].sequence = locate->places[i].last = 0;
        (void)bk_numbers_channel(dummy->numbers, locate->places[i].channel, &locate->places[i].last);
    }
    return 0;
}

static int query(struct bk_query *query)
{
    query->body = NULL;
    query->n_events = 0;
    query->more = false;
    return 0;
}

static int trim(const struct dummy *dummy, struct bk_trim *trim)
{
    uint64_t last = 0;
    bool is_there = bk_numbers_channel(dummy->numbers, trim->channel, &last);
    trim->first = last + 1;
    return is_there ? 0 : BB_ENOTFOUND;
}

static int answer(const struct dummy *dummy, struct bk_request *request)
{
    switch (request->kind) {
    case BK_REQUEST_READ:
        return read_on(dummy, BB_CONTAINER(request, struct bk_read, request));
    case BK_REQUEST_LOCATE:
        return locate(dummy, BB_CONTAINER(request, struct bk_locate, request));
    case BK_REQUEST_QUERY:
        return query(BB_CONTAINER(request, struct bk_query, request));
    case BK_REQUEST_TRIM:
        return trim(dummy, BB_CONTAINER(request, struct bk_trim, request));
    case BK_REQUEST_FLUSH:
        return 0;
    case BK_REQUEST_SNAPSHOT:
    case BK_REQUEST_COMPACT:
    case BK_REQUEST_VERIFY:
        break;
    }
    return BB_EUNSUPPORTED;
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct dummy *dummy = of(backend);
    request->error = answer(dummy, request);
    request->next = NULL;
    *dummy->requests_end = request;
    dummy->requests_end = &request->next;
    (void)eventfd_write(dummy->wake, 1);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->wake;
}

static void op_dispatch(struct bk_backend *backend)
{
    struct dummy *dummy = of(backend);
    eventfd_t count = 0;
    (void)eventfd_read(dummy->wake, &count);
    if (dummy->ticket > dummy->told) {
        dummy->told = dummy->ticket;
        dummy->listener->flushed(dummy->listener->context, dummy->ticket, 0);
    }
    struct bk_request *request = dummy->requests;
    dummy->requests = NULL;
    dummy->requests_end = &dummy->requests;
    while (request != NULL) {
        struct bk_request *next = request->next;
        request->done(request->context, request);
        request = next;
    }
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    (void)backend;
    bb_mp_write_map(out, 0);
}

static void dummy_free(struct dummy *dummy)
{
    bk_numbers_free(dummy->numbers);
    if (dummy->wake >= 0) {
        (void)close(dummy->wake);
    }
    free(dummy);
}

static void op_close(struct bk_backend *backend)
{
    op_dispatch(backend);
    dummy_free(of(backend));
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

static int open_dummy(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    struct dummy *dummy = calloc(1, sizeof(*dummy));
    if (dummy == NULL) {
        return BB_ENOMEM;
    }
    dummy->backend = (struct bk_backend){&ops, false, SIZE_MAX};
    dummy->listener = env->listener;
    dummy->requests_end = &dummy->requests;
    dummy->numbers = bk_numbers_new();
    dummy->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    int r = dummy->wake < 0 ? BB_ESYSTEM : dummy->numbers == NULL ? BB_ENOMEM : 0;
    if (r == BB_ESYSTEM) {
        bb_buf_printf(err, "no eventfd: %m");
    }
    if (r < 0) {
        dummy_free(dummy);
        return r;
    }
    *ret_backend = &dummy->backend;
    return 0;
}

static const struct bk_backend_option options[] = {{0}};

const struct bk_backend_driver bk_dummy_driver = {BK_BACKEND_ABI, "dummy", false, options, open_dummy};

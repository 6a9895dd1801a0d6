/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/flaky.h"

#include "proto/base/error.h"

#include "broker/backend/registry.h"
#include "tests/check.h"

/* What was registered under one ticket, copied. */
struct ticket {
    struct ticket *next;
    uint64_t number;
    struct bk_append append;
};

struct flaky {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_backend_listener inner_listener;
    struct bk_backend *inner;
    struct bk_meter *meter;
    struct ticket *first;
    struct ticket **last;
    struct bk_request *requests;
    struct bk_request **requests_end;
    size_t n_failing; /* requests */
    enum bk_backend_state state;
    struct bk_event_id newest; /* registered; of one server */
    uint64_t newest_time;
};

static struct flaky *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct flaky, backend);
}

/* --- tickets -------------------------------------------------------------------------------------- */

static void *copy(const void *data, size_t size)
{
    void *to = malloc(size + 1);
    CHECK(to != NULL);
    return size > 0 ? memcpy(to, data, size) : to;
}

static struct bb_slice copy_slice(struct bb_slice slice)
{
    return bb_slice(copy(slice.data, slice.len), slice.len);
}

static struct ticket *ticket_new(struct flaky *flaky, const struct bk_append *append, uint64_t number)
{
    struct ticket *ticket = calloc(1, sizeof(*ticket));
    CHECK(ticket != NULL);
    ticket->number = number;
    ticket->append.n_channels = append->n_channels;
    ticket->append.channels = copy(append->channels, append->n_channels * sizeof(*append->channels));
    ticket->append.n_blocks = append->n_blocks;
    ticket->append.blocks = copy(append->blocks, append->n_blocks * sizeof(*append->blocks));
    for (size_t i = 0; i < append->n_channels; i++) {
        ticket->append.channels[i].name = copy_slice(append->channels[i].name);
        ticket->append.channels[i].settings = copy_slice(append->channels[i].settings);
    }
    for (size_t i = 0; i < append->n_blocks; i++) {
        const struct bk_log_block *from = &append->blocks[i];
        struct bk_bytes *owner = bk_bytes_new(flaky->meter, from->head.length);
        CHECK(owner != NULL);
        memcpy(owner->data, from->events, from->head.length);
        owner->len = from->head.length;
        ticket->append.blocks[i].owner = owner;
        ticket->append.blocks[i].events = owner->data;
    }
    return ticket;
}

static void ticket_free(struct ticket *ticket)
{
    for (size_t i = 0; i < ticket->append.n_channels; i++) {
        free(bb_unconst(ticket->append.channels[i].name.data));
        free(bb_unconst(ticket->append.channels[i].settings.data));
    }
    for (size_t i = 0; i < ticket->append.n_blocks; i++) {
        bk_bytes_unref(ticket->append.blocks[i].owner);
    }
    free(ticket->append.channels);
    free(ticket->append.blocks);
    free(ticket);
}

static struct ticket *ticket_take(struct flaky *flaky)
{
    struct ticket *ticket = flaky->first;
    flaky->first = ticket->next;
    flaky->last = flaky->first == NULL ? &flaky->first : flaky->last;
    return ticket;
}

/* The core gives each number once, in order, and channels before their events: nothing is refused. */
static void ticket_write(struct flaky *flaky, struct ticket *ticket)
{
    CHECK(flaky->inner->ops->register_(flaky->inner, &ticket->append, ticket->number) == 0);
    for (size_t i = 0; i < ticket->append.n_blocks; i++) {
        CHECK(ticket->append.blocks[i].error == 0);
    }
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t number)
{
    struct flaky *flaky = of(backend);
    if (flaky->state == BK_BACKEND_FAILED || (flaky->state == BK_BACKEND_FULL && append->n_blocks > 0)) {
        return flaky->state == BK_BACKEND_FAILED ? BB_ELOGFAILED : BB_ELOGFULL;
    }
    struct ticket *ticket = ticket_new(flaky, append, number);
    *flaky->last = ticket;
    flaky->last = &ticket->next;
    for (size_t i = 0; i < append->n_blocks; i++) {
        const struct bb_block *head = &append->blocks[i].head;
        append->blocks[i].error = 0;
        flaky->newest =
            (struct bk_event_id){append->blocks[i].server, head->session, head->instance + head->count - 1};
        flaky->newest_time = head->time;
    }
    flaky->listener->registered(flaky->listener->context, number);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    const struct flaky *flaky = of(backend);
    *ret_id = flaky->newest.server == server ? flaky->newest : (struct bk_event_id){.server = server};
    *ret_time = flaky->newest_time;
}

/* --- requests ------------------------------------------------------------------------------------- */

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct flaky *flaky = of(backend);
    request->next = NULL;
    *flaky->requests_end = request;
    flaky->requests_end = &request->next;
}

/* What waits for the disk goes on waiting while anything does. */
static void answer_requests(struct flaky *flaky)
{
    struct bk_request *request = flaky->requests;
    flaky->requests = NULL;
    flaky->requests_end = &flaky->requests;
    while (request != NULL) {
        struct bk_request *next = request->next;
        if (request->kind == BK_REQUEST_FLUSH && flaky->first != NULL) {
            op_submit(&flaky->backend, request);
        } else if (flaky->n_failing > 0) {
            flaky->n_failing--;
            request->error = flaky->n_failing % 2 == 0 ? BB_ECORRUPT : BB_ELOGFAILED;
            request->done(request->context, request);
        } else {
            flaky->inner->ops->submit(flaky->inner, request);
        }
        request = next;
    }
    flaky->inner->ops->dispatch(flaky->inner);
}

static void op_dispatch(struct bk_backend *backend)
{
    answer_requests(of(backend));
}

/* --- what the test does --------------------------------------------------------------------------- */

void flaky_write(struct bk_backend *backend, size_t n)
{
    struct flaky *flaky = of(backend);
    uint64_t number = 0;
    for (; n > 0 && flaky->first != NULL; n--) {
        struct ticket *ticket = ticket_take(flaky);
        ticket_write(flaky, ticket);
        number = ticket->number;
        ticket_free(ticket);
    }
    if (number != 0) {
        flaky->listener->flushed(flaky->listener->context, number, 0);
    }
    answer_requests(flaky);
}

void flaky_fail(struct bk_backend *backend, size_t kept, bool is_broken)
{
    struct flaky *flaky = of(backend);
    flaky_write(backend, kept);
    if (is_broken) {
        flaky_state(backend, BK_BACKEND_FAILED);
    }
    if (flaky->first == NULL) {
        return;
    }
    uint64_t number = flaky->first->number;
    while (flaky->first != NULL) {
        ticket_free(ticket_take(flaky));
    }
    flaky->inner->ops->get_last_event_id(flaky->inner, flaky->newest.server, &flaky->newest,
                                         &flaky->newest_time);
    flaky->listener->flushed(flaky->listener->context, number, BB_ELOGFAILED);
    answer_requests(flaky);
}

void flaky_state(struct bk_backend *backend, enum bk_backend_state state)
{
    struct flaky *flaky = of(backend);
    if (flaky->state != state) {
        flaky->state = state;
        flaky->listener->state(flaky->listener->context, state, "the test says so");
    }
}

void flaky_fail_requests(struct bk_backend *backend, size_t n)
{
    of(backend)->n_failing = n;
}

/* --- the rest ------------------------------------------------------------------------------------- */

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    const struct flaky *flaky = of(backend);
    return flaky->inner->ops->load(flaky->inner, loader);
}

static int op_fd(struct bk_backend *backend)
{
    (void)backend;
    return -1;
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    const struct flaky *flaky = of(backend);
    flaky->inner->ops->status(flaky->inner, out);
}

static void op_close(struct bk_backend *backend)
{
    struct flaky *flaky = of(backend);
    flaky_write(backend, SIZE_MAX);
    flaky->inner->ops->close(flaky->inner);
    free(flaky);
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

/* What the memory says of tickets is said before. */
static void on_ticket(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    CHECK(error == 0);
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    const struct flaky *flaky = context;
    flaky->listener->trimmed(flaky->listener->context, channel, first);
}

struct bk_backend *flaky_open(const struct bk_backend_listener *listener, struct bk_meter *meter)
{
    static const char *const options[] = {"channel-size=8K", "total-size=16K"};
    struct flaky *flaky = calloc(1, sizeof(*flaky));
    struct bb_buf err = BB_BUF_INIT;
    CHECK(flaky != NULL);
    flaky->backend = (struct bk_backend){&ops, true, SIZE_MAX};
    flaky->listener = listener;
    flaky->meter = meter;
    flaky->last = &flaky->first;
    flaky->requests_end = &flaky->requests;
    flaky->inner_listener = (struct bk_backend_listener){
        .context = flaky, .registered = on_ticket, .flushed = on_flushed, .trimmed = on_trimmed};
    struct bk_backend_env env = {.server = 1, .listener = &flaky->inner_listener, .meter = meter};
    CHECK(bk_backend_open("memory", options, BB_COUNT(options), &env, &flaky->inner, &err) == 0);
    bb_buf_fini(&err);
    return &flaky->backend;
}

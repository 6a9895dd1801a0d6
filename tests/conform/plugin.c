/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A backend as somebody else would write one: the numbers of what was registered, and no events. What it cannot do it says
 * (BB_EUNSUPPORTED). status() tells the options as they came in.
 */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/core/backend.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#ifndef PLUGIN_ABI
#    define PLUGIN_ABI BK_BACKEND_ABI
#endif

#ifndef PLUGIN_SYMBOL
#    define PLUGIN_SYMBOL bk_backend_driver
#endif

#define MANY 64

enum option {
    OPTION_COUNT,
    OPTION_WIDE,
    OPTION_SIZE,
    OPTION_WAIT,
    OPTION_STRICT,
    OPTION_LABEL,
    OPTIONS
};

/* clang-format off */
static const struct bk_backend_option options[] = {
    [OPTION_COUNT] = {"count", BK_OPTION_NUMBER, 1, 10, 3, NULL, "from 1 to 10 (3)"},
    [OPTION_WIDE] = {"wide", BK_OPTION_NUMBER, 0, UINT64_MAX, 0, NULL, "any number"},
    [OPTION_SIZE] = {"size", BK_OPTION_SIZE, 1024, 1 << 20, 4096, NULL, "from 1K to 1M (4K)"},
    [OPTION_WAIT] = {"wait", BK_OPTION_DURATION, 1000, 1000000, 5000, NULL, "from 1ms to 1s (5ms)"},
    [OPTION_STRICT] = {"strict", BK_OPTION_FLAG, 0, 1, 0, NULL, "yes or no (no)"},
    [OPTION_LABEL] = {"label", BK_OPTION_TEXT, 0, 0, 0, "none", "any text"},
#ifdef PLUGIN_MANY
    [OPTIONS ... 63] = {"many", BK_OPTION_FLAG, 0, 1, 0, NULL, "one of too many"},
    [64] = {0},
#else
    [OPTIONS] = {0},
#endif
};
/* clang-format on */

struct last {
    uint64_t key; /* server or channel */
    struct bk_event_id id;
    uint64_t time;
    uint64_t sequence;
};

struct plugin {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    uint64_t numbers[OPTIONS];
    char label[16];
    int wake;
    uint64_t ticket;
    uint64_t told;
    struct last servers[MANY];
    struct last channels[MANY];
    struct bk_request *requests;
    struct bk_request **requests_end;
};

static struct plugin *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct plugin, backend);
}

/* The row of @key, a new one if there is none; NULL when there are too many. Keys are above 0. */
static struct last *find(struct last *rows, uint64_t key)
{
    for (size_t i = 0; i < MANY; i++) {
        if (rows[i].key == key || rows[i].key == 0) {
            rows[i].key = key;
            return &rows[i];
        }
    }
    return NULL;
}

static int take(struct plugin *plugin, const struct bk_log_block *block)
{
    struct last *server = find(plugin->servers, block->server);
    struct last *channel = find(plugin->channels, block->channel);
    const struct bb_block *head = &block->head;
    if (server == NULL || channel == NULL) {
        return BB_ENOMEM;
    }
    if (head->session < server->id.session ||
        (head->session == server->id.session && head->instance <= server->id.instance)) {
        return BB_EEXISTS;
    }
    if (head->time < server->time) {
        return BB_ETIME;
    }
    if (channel->sequence != 0 && head->sequence != channel->sequence + 1) {
        return BB_ESEQUENCE;
    }
    server->id = (struct bk_event_id){block->server, head->session, head->instance + head->count - 1};
    server->time = head->time;
    channel->sequence = head->sequence + head->count - 1;
    return 0;
}

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    (void)backend;
    (void)loader;
    return 0;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct plugin *plugin = of(backend);
    for (size_t i = 0; i < append->n_blocks; i++) {
        append->blocks[i].error = take(plugin, &append->blocks[i]);
    }
    plugin->ticket = ticket;
    plugin->listener->registered(plugin->listener->context, ticket);
    (void)eventfd_write(plugin->wake, 1);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    const struct plugin *plugin = of(backend);
    *ret_id = (struct bk_event_id){.server = server};
    *ret_time = 0;
    for (size_t i = 0; i < MANY; i++) {
        if (plugin->servers[i].key == server) {
            *ret_id = plugin->servers[i].id;
            *ret_time = plugin->servers[i].time;
        }
    }
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct plugin *plugin = of(backend);
    request->error = request->kind == BK_REQUEST_FLUSH ? 0 : BB_EUNSUPPORTED;
    request->next = NULL;
    *plugin->requests_end = request;
    plugin->requests_end = &request->next;
    (void)eventfd_write(plugin->wake, 1);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->wake;
}

static void op_dispatch(struct bk_backend *backend)
{
    struct plugin *plugin = of(backend);
    eventfd_t count = 0;
    (void)eventfd_read(plugin->wake, &count);
    if (plugin->ticket > plugin->told) {
        plugin->told = plugin->ticket;
        plugin->listener->flushed(plugin->listener->context, plugin->ticket, 0);
    }
    struct bk_request *request = plugin->requests;
    plugin->requests = NULL;
    plugin->requests_end = &plugin->requests;
    while (request != NULL) {
        struct bk_request *next = request->next;
        request->done(request->context, request);
        request = next;
    }
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    const struct plugin *plugin = of(backend);
    bb_mp_write_map(out, OPTIONS);
    for (size_t i = 0; i < OPTIONS; i++) {
        bb_mp_write_str(out, bb_slice_str(options[i].name));
        if (i == OPTION_LABEL) {
            bb_mp_write_str(out, bb_slice_str(plugin->label));
        } else {
            bb_mp_write_uint(out, plugin->numbers[i]);
        }
    }
}

static void op_close(struct bk_backend *backend)
{
    struct plugin *plugin = of(backend);
    op_dispatch(backend);
    (void)close(plugin->wake);
    free(plugin);
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

static int open_plugin(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    struct plugin *plugin = calloc(1, sizeof(*plugin));
    if (plugin == NULL) {
        return BB_ENOMEM;
    }
    plugin->backend = (struct bk_backend){&ops, false, SIZE_MAX};
    plugin->listener = env->listener;
    plugin->requests_end = &plugin->requests;
    for (size_t i = 0; i < OPTIONS; i++) {
        plugin->numbers[i] = env->values[i].number;
    }
    size_t len = strnlen(env->values[OPTION_LABEL].text, sizeof(plugin->label) - 1);
    memcpy(plugin->label, env->values[OPTION_LABEL].text, len);
    plugin->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (plugin->wake < 0) {
        bb_buf_printf(err, "no eventfd: %m");
        free(plugin);
        return BB_ESYSTEM;
    }
    *ret_backend = &plugin->backend;
    return 0;
}

extern const struct bk_backend_driver PLUGIN_SYMBOL __attribute__((visibility("default")));
const struct bk_backend_driver PLUGIN_SYMBOL = {PLUGIN_ABI, "plugin", false, options, open_plugin};

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/backends.h"

#include "proto/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

/* The largest batch fits into the log if it goes from one channel to another so many times; one that does it
 * more often may be refused (too_big). */
#define RUNS_MIN 256

static void log_backend(void *context, int level, const char *id, const char *text)
{
    const struct bk_host *host = context;
    bk_log_write(host->log, (enum bk_log_level)level, id, text);
}

static int open_backend(struct bk_host *host,
                        struct bk_backend_env *env,
                        enum bk_store store,
                        const char *name,
                        const char *const *options,
                        size_t n_options)
{
    struct bb_buf err = BB_BUF_INIT;
    int r = bk_backend_open(name, options, n_options, env, &host->backends[store], &err);
    if (r == 0) {
        r = bk_core_set_backend(host->core, store, host->backends[store]);
    }
    if (r < 0) {
        /* What is damaged is said by nobody else; the other sentences say less than the backend did. */
        if (err.len == 0 || r == BB_ECORRUPT) {
            bb_buf_printf(&err, "%s%s", err.len > 0 ? ": " : "", bb_strerror(r));
        }
        bk_log_write(host->log, BK_LOG_ERROR, "BB-BACKEND", bb_buf_string(&err));
    }
    bb_buf_fini(&err);
    return r;
}

static int open_memory(struct bk_host *host, struct bk_backend_env env)
{
    char channel_size[48];
    char total_size[48];
    const char *sizes[] = {channel_size, total_size};
    (void)snprintf(channel_size, sizeof(channel_size), "channel-size=%zu", host->options->core.ring_bytes);
    (void)snprintf(total_size, sizeof(total_size), "total-size=%zu", host->options->core.memory_bytes);
    env.listener = bk_core_listener(host->core, BK_STORE_MEMORY);
    return open_backend(host, &env, BK_STORE_MEMORY, "memory", sizes, BB_COUNT(sizes));
}

static int make_directory(const struct bk_host *host)
{
    char text[320];
    if (mkdir(host->options->data, 0700) == 0 || errno == EEXIST) {
        return 0;
    }
    (void)snprintf(text, sizeof(text), "cannot make the directory %s: %m", host->options->data);
    bk_log_write(host->log, BK_LOG_ERROR, "BB-DATA", text);
    return BB_ESYSTEM;
}

static int open_log(struct bk_host *host, struct bk_backend_env env)
{
    const struct bk_host_options *options = host->options;
    if (options->data == NULL && options->backend == NULL && options->n_backend_options == 0) {
        return 0;
    }
    int r = options->data != NULL ? make_directory(host) : 0; /* whether it needs one the backend says */
    if (r < 0) {
        return r;
    }
    env.directory = options->data;
    env.listener = bk_core_listener(host->core, BK_STORE_LOG);
    env.min_ticket = options->core.max_message + RUNS_MIN * BK_ENTRY_SIZE;
    return open_backend(host, &env, BK_STORE_LOG, options->backend != NULL ? options->backend : "lmdb",
                        options->backend_options, options->n_backend_options);
}

int bk_host_open_backends(struct bk_host *host, bool (*offer)(void *host))
{
    struct bk_backend_env env = {
        .server = host->options->core.server,
        .meter = bk_core_meter(host->core),
        .offer = offer,
        .offer_context = host,
        .log = log_backend,
        .log_context = host,
    };
    (void)bk_host_set_time(host);
    int r = open_memory(host, env);
    return r < 0 ? r : open_log(host, env);
}

void bk_host_dispatch_backends(struct bk_host *host, const struct pollfd *fds)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (host->backends[i] != NULL && (fds == NULL || (fds[i].revents & POLLIN) != 0)) {
            host->backends[i]->ops->dispatch(host->backends[i]);
        }
    }
}

void bk_host_close_backends(struct bk_host *host)
{
    for (size_t i = 0; i < BK_STORES; i++) {
        if (host->backends[i] != NULL) {
            host->backends[i]->ops->close(host->backends[i]);
        }
    }
}

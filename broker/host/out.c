/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/out.h"

#include "broker/plug/zmq/windows.h"

static int out_send(void *context, void *peer, const struct bk_part *parts, size_t n_parts)
{
    const struct bk_host *host = context;
    return host->door->ops->send(host->door, peer, parts, n_parts);
}

static void out_close(void *context, void *peer, bool shut_out)
{
    const struct bk_host *host = context;
    host->door->ops->close_peer(host->door, peer, shut_out);
}

static void out_pause(void *context, void *peer, bool paused)
{
    const struct bk_host *host = context;
    if (host->door->ops->pause != NULL) {
        host->door->ops->pause(host->door, peer, paused);
    }
}

static void out_window(void *context, const struct bk_window_event *event)
{
    const struct bk_host *host = context;
    bk_windows_show(host->windows, event);
}

static void out_log(void *context, enum bk_log_level level, const char *id, const char *text)
{
    const struct bk_host *host = context;
    bk_log_write(host->log, level, id, text);
}

int bk_host_open_core(struct bk_host *host)
{
    host->out = (struct bk_out){
        .context = host,
        .send = out_send,
        .close = out_close,
        .pause = out_pause,
        .window = out_window,
        .window_is_open = bk_windows_is_open(host->windows),
        .log = out_log,
    };
    int r = bk_core_new(&host->options->core, &host->out, &host->core);
    host->context.core = host->core;
    return r;
}

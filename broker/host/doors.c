/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/host/doors.h"

#include "proto/base/error.h"

#include "broker/host/ports_file.h"
#include "broker/plug/plug_zmtp.h"
#include "broker/plug/zmq/plug_zmq.h"
#include "broker/plug/zmq/windows.h"
#include "broker/plug/zmq/zmq_socket.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

/* Descriptors that are not for clients: libzmq's own, the windows', the log. */
#define DESCRIPTORS_RESERVED 96

/* Of all but the main door, which listens: the window that is opened there. */
static const enum bk_window_kind windows[BK_DOORS] = {
    [BK_DOOR_PUBLISH] = BK_WINDOW_PUBLISH,
    [BK_DOOR_PUBLISH_JSON] = BK_WINDOW_PUBLISH_JSON,
    [BK_DOOR_INGEST] = BK_WINDOW_INGEST,
    [BK_DOOR_INGEST_SUB] = BK_WINDOW_INGEST_SUB,
};

/* How many connections there is room for. */
static int raise_descriptors(struct bk_host *host)
{
    char text[160];
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return BB_ESYSTEM;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < (rlim_t)2 * DESCRIPTORS_RESERVED) {
        (void)snprintf(text, sizeof(text), "only %llu files may be open; the broker needs %d (ulimit -n)",
                       (unsigned long long)limit.rlim_cur, 2 * DESCRIPTORS_RESERVED);
        bk_log_write(host->log, BK_LOG_ERROR, "BB-DESCRIPTORS", text);
        return BB_ELIMIT;
    }
    host->crowd.max = (size_t)limit.rlim_cur - DESCRIPTORS_RESERVED;
    host->context.crowd = &host->crowd;
    return 0;
}

int bk_host_open_doors(struct bk_host *host)
{
    int r = raise_descriptors(host);
    if (r < 0) {
        return r;
    }
    host->context.zmq = bk_zmq_new(host->options->io_threads);
    if (host->context.zmq == NULL) {
        return BB_ESYSTEM;
    }
    r = host->options->libzmq ? bk_plug_zmq_new(&host->context, &host->door)
                              : bk_plug_zmtp_new(&host->context, &host->door);
    if (r == 0) {
        host->plugs[0] = &host->door->plug;
        r = bk_windows_new(&host->context, &host->windows);
    }
    host->plugs[1] = host->windows;
    return r;
}

static int bind_door(struct bk_host *host, enum bk_door_kind door, const char *endpoint, struct bb_buf *err)
{
    bool insecure = host->options->insecure;
    return door == BK_DOOR_LISTEN ? host->door->ops->bind(host->door, endpoint, insecure, err)
                                  : bk_windows_bind(host->windows, windows[door], endpoint, insecure, err);
}

static const struct bk_endpoints *endpoints_of(const struct bk_host *host, enum bk_door_kind door)
{
    return door == BK_DOOR_LISTEN ? &host->door->endpoints
                                  : bk_windows_endpoints(host->windows, windows[door]);
}

static int bind_all(struct bk_host *host)
{
    struct bb_buf err = BB_BUF_INIT;
    int r = 0;
    for (enum bk_door_kind door = 0; door < BK_DOORS && r == 0; door++) {
        for (size_t i = 0; i < host->options->n_endpoints[door] && r == 0; i++) {
            r = bind_door(host, door, host->options->endpoints[door][i], &err);
        }
    }
    if (r < 0) {
        bk_log_write(host->log, BK_LOG_ERROR, "BB-BIND", bb_buf_string(&err));
    }
    bb_buf_fini(&err);
    return r;
}

static int write_ports_file(struct bk_host *host)
{
    const struct bk_endpoints *doors[BK_DOORS];
    char text[320];
    for (enum bk_door_kind door = 0; door < BK_DOORS; door++) {
        doors[door] = endpoints_of(host, door);
    }
    if (bk_ports_file_write(host->options->ports_file, doors) == 0) {
        host->has_ports_file = true;
        return 0;
    }
    (void)snprintf(text, sizeof(text), "cannot write %s: %m", host->options->ports_file);
    bk_log_write(host->log, BK_LOG_ERROR, "BB-PORTS-FILE", text);
    return BB_ESYSTEM;
}

int bk_host_bind_doors(struct bk_host *host)
{
    int r = bind_all(host);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < host->door->endpoints.n_names; i++) {
        char text[320];
        (void)snprintf(text, sizeof(text), "listening on %s", host->door->endpoints.names[i]);
        bk_log_write(host->log, BK_LOG_NOTICE, "BB-LISTENING", text);
    }
    return host->options->ports_file != NULL ? write_ports_file(host) : 0;
}

void bk_host_close_doors(struct bk_host *host)
{
    for (size_t i = 0; i < BK_HOST_PLUGS; i++) {
        if (host->plugs[i] != NULL) {
            host->plugs[i]->ops->close(host->plugs[i]);
        }
    }
    bk_zmq_end(host->context.zmq);
    for (size_t i = 0; i < BK_HOST_PLUGS; i++) {
        if (host->plugs[i] != NULL) {
            host->plugs[i]->ops->free(host->plugs[i]); /* before the core: what they hold is metered there */
        }
    }
    if (host->has_ports_file) {
        (void)unlink(host->options->ports_file);
    }
}

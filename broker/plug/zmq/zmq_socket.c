/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/zmq/zmq_socket.h"

#include "proto/base/error.h"

#include <errno.h>
#include <stdio.h>
#include <zmq.h>

void *bk_zmq_new(int io_threads)
{
    void *context = zmq_ctx_new();
    if (context != NULL) {
        (void)zmq_ctx_set(context, ZMQ_IO_THREADS, io_threads);
    }
    return context;
}

void bk_zmq_end(void *context)
{
    if (context != NULL) {
        (void)zmq_ctx_term(context);
    }
}

int bk_zmq_bind(void *socket,
                const char *endpoint,
                bool insecure,
                struct bk_endpoints *endpoints,
                struct bb_buf *err)
{
    char name[256];
    size_t len = sizeof(name);
    int r = bk_endpoint_check(endpoint, insecure, err);
    if (r < 0) {
        return r;
    }
    if (zmq_bind(socket, endpoint) != 0) {
        int error = zmq_errno();
        bb_buf_printf(err, "cannot bind %s: %s", endpoint, zmq_strerror(error));
        return error == EADDRINUSE ? BB_EEXISTS : error == EINVAL ? BB_EINVAL : BB_ESYSTEM;
    }
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, name, &len) != 0) {
        bb_buf_printf(err, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
        return BB_ESYSTEM;
    }
    return bk_endpoints_add(endpoints, name);
}

int bk_zmq_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof(fd);
    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0 ? fd : -1;
}

bool bk_zmq_has_input(void *socket)
{
    int events = 0;
    size_t size = sizeof(events);
    return zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 && (events & ZMQ_POLLIN) != 0;
}

void bk_zmq_version(char text[BK_ZMQ_VERSION_MAX])
{
    int major = 0;
    int minor = 0;
    int patch = 0;
    zmq_version(&major, &minor, &patch);
    (void)snprintf(text, BK_ZMQ_VERSION_MAX, "%d.%d.%d", major, minor, patch);
}

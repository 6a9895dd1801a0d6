/* SPDX-License-Identifier: Apache-2.0 */
/* What the plugs on libzmq do alike: share a context, bind, wait. */
#pragma once

#include "proto/base/buf.h"

#include "broker/plug/endpoint.h"

#include <stdbool.h>

/** bk_zmq_new() - a context, NULL without memory. */
void *bk_zmq_new(int io_threads);

/** bk_zmq_end() - end it when closed sockets have sent what they can within their linger times; NULL is fine. */
void bk_zmq_end(void *context);

/** bk_zmq_bind() - bind @socket and note what it was bound to. Return: as bk_endpoint_check(), or BB_ENOMEM. */
int bk_zmq_bind(void *socket,
                const char *endpoint,
                bool insecure,
                struct bk_endpoints *endpoints,
                struct bb_buf *err);

/** bk_zmq_fd() - becomes readable when what @socket has changes; any call on the socket may take that back. */
int bk_zmq_fd(void *socket);

/** bk_zmq_has_input() - whether a message waits in @socket. */
bool bk_zmq_has_input(void *socket);

#define BK_ZMQ_VERSION_MAX 48

/** bk_zmq_version() - of libzmq. */
void bk_zmq_version(char text[BK_ZMQ_VERSION_MAX]);

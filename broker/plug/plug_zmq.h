/* SPDX-License-Identifier: Apache-2.0 */
/* The main door: a ROUTER socket on any number of endpoints. */
#pragma once

#include "broker/plug/endpoint.h"
#include "broker/plug/plug.h"

/** bk_plug_zmq_new() - the socket, not bound yet. @context is borrowed. Return: 0, BB_ESYSTEM, BB_ENOMEM. */
int bk_plug_zmq_new(const struct bk_plug_context *context, struct bk_plug **ret_plug);

/** bk_plug_zmq_bind() - listen on one more endpoint. Errors as bk_endpoint_bind(). */
int bk_plug_zmq_bind(struct bk_plug *plug, const char *endpoint, bool insecure, struct bb_buf *err);

/** bk_plug_zmq_endpoints() - what it listens on. */
const struct bk_endpoints *bk_plug_zmq_endpoints(struct bk_plug *plug);

/** bk_plug_zmq_stop_accepting() - no new connections from now on. The ones that are there stay. */
void bk_plug_zmq_stop_accepting(struct bk_plug *plug);

/** bk_plug_zmq_send(), bk_plug_zmq_close() - struct bk_out's. */
int bk_plug_zmq_send(struct bk_plug *plug, void *peer, const struct bk_part *parts, size_t n_parts);
void bk_plug_zmq_close(struct bk_plug *plug, void *peer, bool shut_out);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The open windows (PROTOCOL 11), for peers that have nothing but a ZeroMQ library: XPUB out, PULL and SUB in.
 * Best effort: what cannot be sent or taken is counted, nobody is told.
 */
#pragma once

#include "broker/plug/endpoint.h"
#include "broker/plug/plug.h"

enum bk_window_kind {
    BK_WINDOW_PUBLISH,
    BK_WINDOW_PUBLISH_JSON,
    BK_WINDOW_INGEST,
    BK_WINDOW_INGEST_SUB,
    BK_WINDOW_KINDS
};

/** bk_windows_new() - without any window. @context is borrowed. Return: 0, BB_ENOMEM. */
int bk_windows_new(const struct bk_plug_context *context, struct bk_plug **ret_plug);

/** bk_windows_bind() - open a window on one more endpoint. Errors as bk_zmq_bind(). */
int bk_windows_bind(struct bk_plug *plug,
                    enum bk_window_kind kind,
                    const char *endpoint,
                    bool insecure,
                    struct bb_buf *err);

/** bk_windows_endpoints() - where the windows of a kind are open. */
const struct bk_endpoints *bk_windows_endpoints(struct bk_plug *plug, enum bk_window_kind kind);

/** bk_windows_is_open() - whether anybody listens; the flag changes as they come and go. */
const bool *bk_windows_is_open(struct bk_plug *plug);

/** bk_windows_show() - struct bk_out's window(). */
void bk_windows_show(struct bk_plug *plug, const struct bk_window_event *shown);

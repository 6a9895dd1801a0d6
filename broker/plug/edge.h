/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The edge between a peer and the core that all transports share: JSON is converted here, both ways, and what is
 * asked of the form of events (PROTOCOL 10) is remembered here. The core sees MessagePack alone.
 */
#pragma once

#include "proto/base/buf.h"

#include "broker/plug/plug.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A peer's side of it. Zeroed at the beginning. */
struct bk_edge {
    bool json; /* it is answered in JSON: the form of its hello, before that of its last message */
    bool has_said_hello;
    uint64_t *nexus_subs; /* subscriptions in the shape of async_nexus */
    size_t n_nexus_subs;
};

/* Memory in which a transport converts what goes out, and nothing that came in: see input.h. */
struct bk_edge_scratch {
    struct bb_buf joined;
    struct bb_buf text;
};

void bk_edge_fini(struct bk_edge *edge);
void bk_edge_scratch_fini(struct bk_edge_scratch *scratch);

/**
 * bk_edge_take() - hand a whole message of @client to the core
 * @owner: what @bytes lie in, NULL if the core must copy what it keeps
 *
 * The client and its edge may be gone when this returns.
 */
void bk_edge_take(const struct bk_plug_context *context,
                  struct bk_edge *edge,
                  struct bk_client *client,
                  struct bb_slice bytes,
                  struct bk_bytes *owner);

/** bk_edge_take_joined() - the same of a message whose frames were put together in @joined, which is empty afterwards. */
void bk_edge_take_joined(const struct bk_plug_context *context,
                         struct bk_edge *edge,
                         struct bk_client *client,
                         struct bb_buf *joined);

/**
 * bk_edge_to_json() - the JSON text of a message on its way out
 * @ret_text: in @scratch
 *
 * Return: 0 or BB_ENOMEM.
 */
int bk_edge_to_json(const struct bk_plug_context *context,
                    const struct bk_edge *edge,
                    struct bk_edge_scratch *scratch,
                    const struct bk_part *parts,
                    size_t n_parts,
                    struct bb_slice *ret_text);

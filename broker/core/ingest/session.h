/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "broker/core/ingest/batch.h"

struct bk_client;
struct bk_bytes;

/**
 * bk_session_keep() - give the batch its session, a time and sequences, and put its runs where their channels are kept
 * @client: NULL: a window
 * @owner:  what the events lie in; NULL: they are copied
 *
 * Without memory the rest of the batch is refused event by event. Return: 0, or BB_ENOMEM: nothing was kept.
 */
int bk_session_keep(struct bk_core *core,
                    struct bk_batch *batch,
                    const struct bk_client *client,
                    struct bk_bytes *owner) BB_MUST_CHECK;

/* SPDX-License-Identifier: Apache-2.0 */
/* What a window takes in (PROTOCOL 11), turned into bare events for the core. */
#pragma once

#include "broker/core/core.h"

/**
 * bk_ingest_frame() - a message of one frame: JSON or bare events
 * @owner: what @bytes lie in, NULL if the core must copy what it keeps
 *
 * Return: 0, or why nothing was taken, for bk_core_ingest_refused().
 */
int bk_ingest_frame(struct bk_core *core, struct bb_slice bytes, struct bk_bytes *owner);

/** bk_ingest_pair() - a message of two frames, a path and a payload. Return: as bk_ingest_frame(). */
int bk_ingest_pair(struct bk_core *core, struct bb_slice path, struct bb_slice payload);

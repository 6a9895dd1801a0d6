/* SPDX-License-Identifier: Apache-2.0 */
/* Durable cursors (PROTOCOL 15.3): places in channels under a name, which outlive their client and, with a log, the broker. */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"

#include "broker/core/backend.h"

struct bk_core;

/** bk_cursor_load() - the loader's. */
int bk_cursor_load(void *context, const struct bk_log_cursor *entry) BB_MUST_CHECK;

/** bk_cursor_find() - the positions of the cursor called @name: one MessagePack array of [channel, sequence, life?]; empty if there is none. */
struct bb_slice bk_cursor_find(const struct bk_core *core, struct bb_slice name);

/**
 * bk_cursor_change() - set or (without positions) forget a cursor
 *
 * The log is told with what is staged next, again and again until it takes it. Return: 0, BB_EINVAL, BB_ELIMIT (one too many, or too long),
 * BB_ENOMEM: then nothing has changed.
 */
int bk_cursor_change(struct bk_core *core, struct bb_slice name, struct bb_slice positions) BB_MUST_CHECK;

/** bk_cursors_collect() - append struct bk_log_cursor for each that is to be registered under the ticket of now. */
void bk_cursors_collect(struct bk_core *core, struct bb_buf *out);

/** bk_cursors_stalled() - it was not registered yet. */
void bk_cursors_stalled(struct bk_core *core);

/** bk_cursors_saved() - tickets up to @durable are on disk; bk_cursors_failed(): those from @failed on will not be. */
void bk_cursors_saved(struct bk_core *core, uint64_t durable);
void bk_cursors_failed(struct bk_core *core, uint64_t failed);

/** bk_cursors_wait() - whether some failed and can be registered again. */
bool bk_cursors_wait(const struct bk_core *core);

void bk_cursors_fini(struct bk_core *core);

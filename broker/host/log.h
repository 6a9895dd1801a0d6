/* SPDX-License-Identifier: Apache-2.0 */
/* The broker's log: one entry a line on stderr, as text or JSON, each with a stable id. Entries beyond a rate per id are
 * counted, not written. One thread. */
#pragma once

#include "broker/core/core.h"

enum bk_log_format {
    BK_LOG_TEXT,
    BK_LOG_JSON,
};

struct bk_log;

/** bk_log_new() - NULL without memory. Entries above @level are dropped. */
struct bk_log *bk_log_new(enum bk_log_format format, enum bk_log_level level);
void bk_log_free(struct bk_log *log);

/** bk_log_write() - write an entry. @id is a string constant. */
void bk_log_write(struct bk_log *log, enum bk_log_level level, const char *id, const char *text);

/** bk_log_level_find() - the level called @name. Return: 0 or BB_EINVAL. */
int bk_log_level_find(const char *name, enum bk_log_level *ret_level);

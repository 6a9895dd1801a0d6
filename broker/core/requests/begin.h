/* SPDX-License-Identifier: Apache-2.0 */
/* Where a subscription begins: its positions, what of them is void or trimmed, and what has to be asked of the log for that. */
#pragma once

#include "broker/core/requests/wishes.h"

struct bk_core;
struct bk_sub;

/**
 * bk_begin() - let @sub, which is linked to its client, begin, or ask the log where
 *
 * @ret_text: a sentence about the error, or NULL
 *
 * The log's answer goes on with it. Return: 0, or why it cannot be: then nobody has been told, and @sub is to be removed.
 */
int bk_begin(struct bk_core *core,
             struct bk_sub *sub,
             const struct bb_msg *msg,
             struct bk_wishes *wishes,
             const char **ret_text) BB_MUST_CHECK;

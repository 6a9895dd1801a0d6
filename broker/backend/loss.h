/* SPDX-License-Identifier: Apache-2.0 */
/* The losses of one read while it is made: an array of struct bk_read_loss in read->losses, at most
 * BK_LOSSES_MAX of a range. */
#pragma once

#include "proto/base/cc.h"

#include "broker/core/backend.h"

struct bk_losses {
    struct bk_read *read;
    struct bk_loss_end *ends; /* one of each range */
};

/** bk_losses_begin() - none yet. Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_losses_begin(struct bk_losses *losses, struct bk_read *read);

/** bk_losses_end() - what was found stays in the read. */
void bk_losses_end(struct bk_losses *losses);

/** bk_losses_have_room() - whether the range can lose once more before a block, in it, and behind it. */
bool bk_losses_have_room(const struct bk_losses *losses, size_t range);

/** bk_losses_trimmed() - sequences @from to @to of the range are not kept; none if @from is above @to. */
void bk_losses_trimmed(struct bk_losses *losses, size_t range, uint64_t from, uint64_t to);

/** bk_losses_expired() - @count matching events, the first @from and the last @to; 0: none. */
void bk_losses_expired(struct bk_losses *losses, size_t range, uint64_t from, uint64_t to, uint64_t count);

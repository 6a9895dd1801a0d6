/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gaps (PROTOCOL 7.4): what one message reports to a subscription as lost. They are collected, sent, and counted when they were sent.
 */
#pragma once

#include "proto/base/buf.h"

#include "broker/core/out.h"
#include "broker/core/subs/account.h"

struct bk_core;
struct bk_sub;
struct bk_channel;
struct bk_position;

/* It cannot be known. */
#define BK_NO_NUMBER UINT64_MAX

struct bk_gap {
    struct bk_channel *channel; /* NULL: there is none of that name */
    struct bb_slice name;       /* of the channel, borrowed */
    uint64_t from;
    uint64_t to;
    uint64_t count;
    enum bk_reason reason;
    uint64_t life; /* the position's from now on; 0: as it was */
};

/** bk_gap_add() - collect a gap. Errors stick to core->gaps. */
void bk_gap_add(struct bk_core *core, const struct bk_gap *gap);

/** bk_gaps_add_losses() - collect what @sub lost and was not told. */
void bk_gaps_add_losses(struct bk_core *core, const struct bk_sub *sub);

/** bk_gaps_settled() - up to where the fate of @position is settled when what is collected has been sent. */
uint64_t bk_gaps_settled(const struct bk_core *core, const struct bk_position *position);

/** bk_gaps_write() - append the array of what is collected; nothing if there is none. */
void bk_gaps_write(const struct bk_core *core, struct bb_buf *out);

/** bk_gaps_sent() - @sub was sent what is collected, all its losses among it: count it, settle those, and forget it. */
void bk_gaps_sent(struct bk_core *core, struct bk_sub *sub);

/** bk_gaps_forget() - it was not sent. */
void bk_gaps_forget(struct bk_core *core);

/** bk_gaps_send() - if something is collected, send it in a message of its own, with what @sub lost and was not told. */
void bk_gaps_send(struct bk_core *core, struct bk_sub *sub);

/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions that come to an end by themselves (PROTOCOL 7.1, until). */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"
#include "proto/wire/mp.h"

#include "broker/core/subs/sub.h"

/* What was asked for. */
struct bk_until_wish {
    enum bk_until kind;
    uint64_t time;        /* us */
    uint64_t stop;        /* of every channel; 0: what there is now, or `last` */
    struct bb_slice last; /* a map from channels to sequences or [sequence, life]; borrowed; empty: none */
};

/** bk_until_read() - read the option. Return: 0 or BB_EINVAL; errors of @reader are for the caller to see. */
int bk_until_read(struct bb_mp_reader *reader, struct bk_until_wish *ret_wish) BB_MUST_CHECK;

/** bk_until_is_now() - whether @sub ends with what there was when it began, and channels to come are not wanted. */
bool bk_until_is_now(const struct bk_sub *sub);

/** bk_until_write() - where the positions of @sub end, as `last` takes it. */
void bk_until_write(const struct bk_sub *sub, struct bb_buf *out);

/** bk_until_is_reached() - whether everything that @sub still was to have is sent. */
bool bk_until_is_reached(const struct bk_core *core, const struct bk_sub *sub);

/** bk_until_tick() - look at the subscriptions that come to an end; returns when to look again, in us from now. */
uint64_t bk_until_tick(struct bk_core *core);

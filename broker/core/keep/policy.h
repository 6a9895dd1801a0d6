/* SPDX-License-Identifier: Apache-2.0 */
/* The words for what happens to a subscription that falls behind (PROTOCOL 7.3); deliver/overflow.c has what they do. */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"

enum bk_overflow {
    BK_OVERFLOW_SLIDE,
    BK_OVERFLOW_DROP_OLDEST,
    BK_OVERFLOW_DROP_NEWEST,
    BK_OVERFLOW_CONFLATE,
    BK_OVERFLOW_REFUSE,
    BK_OVERFLOW_DISCONNECT,
    BK_OVERFLOWS
};

/** bk_overflow_name() - the word of PROTOCOL 7.3. */
const char *bk_overflow_name(enum bk_overflow overflow);

/** bk_overflow_find() - the policy called @name. Return: 0 or BB_EINVAL. */
int bk_overflow_find(struct bb_slice name, enum bk_overflow *ret_overflow) BB_MUST_CHECK;

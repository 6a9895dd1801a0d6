/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/keep/policy.h"

#include "proto/base/error.h"

static const char *const names[] = {
    [BK_OVERFLOW_SLIDE] = "slide",
    [BK_OVERFLOW_DROP_OLDEST] = "drop_oldest",
    [BK_OVERFLOW_DROP_NEWEST] = "drop_newest",
    [BK_OVERFLOW_CONFLATE] = "conflate",
    [BK_OVERFLOW_REFUSE] = "refuse",
    [BK_OVERFLOW_DISCONNECT] = "disconnect",
};

const char *bk_overflow_name(enum bk_overflow overflow)
{
    return names[overflow];
}

int bk_overflow_find(struct bb_slice name, enum bk_overflow *ret_overflow)
{
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        if (bb_slice_equal(name, bb_slice_str(names[i]))) {
            *ret_overflow = (enum bk_overflow)i;
            return 0;
        }
    }
    return BB_EINVAL;
}

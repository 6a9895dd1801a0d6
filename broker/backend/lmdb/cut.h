/* SPDX-License-Identifier: Apache-2.0 */
/* Taking events out of a record, and out of every index with them. */
#pragma once

#include "broker/backend/lmdb/write.h"

/* Which events of a record go: from its front as long as one of the limits asks for it, or the surplus of
 * its paths. */
struct bk_cut {
    bool surplus;
    uint64_t before;      /* sequence: those below go */
    uint64_t before_time; /* those older go */
    uint64_t events;      /* at least so many go */
    uint64_t bytes;       /* at least so many bytes go */
    uint64_t max;         /* at most so many events go */
};

/**
 * bk_cut() - take events out of the record of @channel whose first sequence is @first
 * @ret_dropped: how many went; @place->count: the record is gone
 *
 * A damaged record goes as a whole, unless surplus is what is looked for.
 */
BB_MUST_CHECK int bk_cut(struct bk_write *write,
                         struct bk_write_channel *channel,
                         uint64_t first,
                         const struct bk_place *place,
                         const struct bk_cut *cut,
                         uint64_t *ret_dropped);

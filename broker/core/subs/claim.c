/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/subs/claim.h"

#include "broker/core/keep/channel.h"
#include "broker/core/keep/life.h"
#include "broker/core/state.h"

/* No sequence and no life is above it. */
#define CLAIM_MAX (UINT64_C(1) << 53)

void bk_claim_read(struct bb_mp_reader *reader, struct bk_claim *ret_claim)
{
    *ret_claim = (struct bk_claim){0};
    bool has_life = bb_mp_peek_type(reader) == BB_MP_ARRAY;
    if (has_life && bb_mp_read_array(reader) != 2) {
        bb_mp_reader_fail(reader, BB_EINVAL);
    }
    ret_claim->sequence = bb_mp_read_uint(reader);
    if (has_life) {
        ret_claim->life = bb_mp_read_uint(reader);
    }
    if (ret_claim->sequence > CLAIM_MAX || ret_claim->life > CLAIM_MAX) {
        bb_mp_reader_fail(reader, BB_EINVAL);
    }
}

enum bk_verdict bk_claim_judge(const struct bk_channel *channel,
                               const struct bk_claim *claim,
                               uint64_t run,
                               uint64_t *ret_upto)
{
    uint64_t life = claim->life != 0 ? claim->life : bk_lives_at(&channel->lives, run);
    return life == 0 ? BK_POSITION_VOID
                     : bk_lives_judge(&channel->lives, life, claim->sequence,
                                      BB_MAX(channel->last, channel->shown), ret_upto);
}

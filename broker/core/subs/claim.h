/* SPDX-License-Identifier: Apache-2.0 */
/* A position as a client says it: a sequence, alone or with the life that it is of (PROTOCOL 7.5). */
#pragma once

#include "proto/wire/mp.h"

#include "broker/core/keep/life.h"

struct bk_core;
struct bk_channel;

struct bk_claim {
    uint64_t sequence;
    uint64_t life; /* 0: not said */
};

/** bk_claim_read() - read `sequence` or `[sequence, life]`; errors are the reader's. */
void bk_claim_read(struct bb_mp_reader *reader, struct bk_claim *ret_claim);

/**
 * bk_claim_judge() - what @claim is worth in @channel
 * @run: the run that it is of, if it has no life
 * @ret_upto: for BK_POSITION_ENDED: up to where it holds
 */
enum bk_verdict bk_claim_judge(const struct bk_channel *channel,
                               const struct bk_claim *claim,
                               uint64_t run,
                               uint64_t *ret_upto);

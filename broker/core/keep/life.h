/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lives of a channel (PROTOCOL 7.5). A position is a sequence in a life. A life ends when sequences that were given out in it may
 * come to mean other events; the events up to its end are those of the next life as well, so positions up to there still hold.
 *
 * Lives are ordered numbers. Those that begin in one run of the broker lie between its run number and that of the next one.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"

#include <stdint.h>

/* So many ended lives are remembered; a position in an older one is void. */
#define BK_LIVES_MAX 64

/* A life that has ended. */
struct bk_life {
    uint64_t life;
    uint64_t upto; /* its last sequence that still means the same event */
};

struct bk_lives {
    uint64_t now;         /* the life of today */
    struct bk_life *past; /* oldest first */
    uint32_t n_past;
};

enum bk_verdict {
    BK_POSITION_HOLDS,
    BK_POSITION_ENDED, /* it holds up to an earlier sequence */
    BK_POSITION_VOID,
};

void bk_lives_fini(struct bk_lives *lives);

/**
 * bk_lives_end() - the life of today ends at @upto, @next begins
 * @next: above all lives before
 *
 * Without memory the past is forgotten: positions in it become void, which is safe.
 */
void bk_lives_end(struct bk_lives *lives, uint64_t upto, uint64_t next);

/**
 * bk_lives_judge() - what a position in @life is worth
 * @last:     the newest sequence that exists in the life of today
 * @ret_upto: for BK_POSITION_ENDED: up to where it holds, below @sequence
 */
enum bk_verdict bk_lives_judge(const struct bk_lives *lives,
                               uint64_t life,
                               uint64_t sequence,
                               uint64_t last,
                               uint64_t *ret_upto);

/** bk_lives_at() - the life that a channel had at the start of @run, or that its first event in @run began; 0 if none is known. */
uint64_t bk_lives_at(const struct bk_lives *lives, uint64_t run);

/** bk_lives_write() - append them as one MessagePack array: today's, then each past one and its end. */
void bk_lives_write(struct bb_buf *out, const struct bk_lives *lives);

/** bk_lives_read() - the opposite. Return: 0, BB_ECORRUPT, BB_ENOMEM. */
int bk_lives_read(struct bb_slice bytes, struct bk_lives *ret_lives) BB_MUST_CHECK;

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is on its way out of a socket. Frames of batches are written from the batch, which is held until they
 * are out; others are copied when the socket does not take them at once.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/zmtp.h"

#include "bus/batch.h"

struct bb_out_piece {
    struct bb_batch *batch; /* holds the bytes; NULL: `copy` does, or the caller still */
    uint8_t *copy;
    const uint8_t *data;
    size_t len;
    size_t done;     /* of head and bytes, written */
    size_t head_len; /* 0: not a frame */
    uint8_t head[BB_ZMTP_HEAD_MAX];
};

struct bb_outlet {
    struct bb_out_piece *pieces; /* a ring: from first to first + n_pieces */
    size_t first;
    size_t n_pieces;
    size_t n_slots;
    size_t copied; /* bytes of copies that wait */
};

/**
 * bb_outlet_put() - append a frame of @bytes; @batch: is held until it is out
 *
 * Without a batch bb_outlet_settle() must follow before @bytes go. Return: 0 or BB_ENOMEM.
 */
BB_MUST_CHECK int bb_outlet_put(struct bb_outlet *out, struct bb_slice bytes, struct bb_batch *batch);

/** bb_outlet_put_raw() - the same for bytes as they are. */
BB_MUST_CHECK int bb_outlet_put_raw(struct bb_outlet *out, struct bb_slice bytes);

/** bb_outlet_settle() - copy what the last put left with its caller. Return: 0 or BB_ENOMEM. */
BB_MUST_CHECK int bb_outlet_settle(struct bb_outlet *out);

/**
 * bb_outlet_write() - write what the socket takes
 *
 * Return: 0: all is out; 1: the socket is full; BB_ECLOSED: nothing can be written any more.
 */
BB_MUST_CHECK int bb_outlet_write(struct bb_outlet *out, int fd);

/** bb_outlet_fini() - let go of everything. */
void bb_outlet_fini(struct bb_outlet *out);

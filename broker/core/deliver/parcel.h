/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parcel: what one `deliver` message carries after its head, for one subscription or for all that want the
 * same. Whole blocks that lie side by side in the ring become one piece by reference; of the others the
 * wanted events get heads of their own. Small pieces are copied together, since a reference costs more than
 * a small copy and may pin a large chunk.
 */
#pragma once

#include "broker/core/keep/ring.h"
#include "broker/core/out.h"
#include "broker/core/subs/wanted.h"

/* What a parcel says of a channel. */
struct bk_range {
    struct bk_channel *channel;
    uint64_t from; /* the first sequence */
    uint64_t to;   /* of the last block, wanted or not */
    uint64_t last; /* of the last event */
    uint64_t events;
    uint64_t bytes; /* of the events alone */
};

struct bk_piece {
    struct bk_bytes *owner; /* NULL: in heads, at offset */
    const uint8_t *data;
    size_t offset;
    size_t len;
};

struct bk_parcel {
    uint64_t key;       /* who wants it (fan-out), */
    struct bb_buf sets; /* exactly: struct bk_set *, all that they are in */
    uint64_t events;
    size_t bytes;
    struct bk_range *ranges;
    size_t n_ranges;
    size_t n_range_slots;
    struct bk_piece *pieces;
    size_t n_pieces;
    size_t n_piece_slots;
    struct bb_buf heads;
    struct bk_bytes *copy; /* holds what was copied */
    struct bk_part parts[BK_PARTS_MAX - 1];
    size_t n_parts;
    int error; /* sticky: 0 or BB_ENOMEM */
};

/** bk_parcel_reset() - empty, for use again. Also right on a zeroed one. */
void bk_parcel_reset(struct bk_parcel *parcel);
void bk_parcel_fini(struct bk_parcel *parcel);

/** bk_parcel_add() - add events; in the order of their blocks. */
void bk_parcel_add(struct bk_parcel *parcel, const struct bk_item *item);

/** bk_parcel_finish() - cut it into parts. Return: 0 or BB_ENOMEM. The blocks must be still there. */
int bk_parcel_finish(struct bk_parcel *parcel, struct bk_meter *meter);

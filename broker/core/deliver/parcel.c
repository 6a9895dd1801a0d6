/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/deliver/parcel.h"

#include "proto/base/error.h"

#include <stdlib.h>

/* Smaller pieces are copied. */
#define REFERENCE_MIN ((size_t)4 << 10)

void bk_parcel_reset(struct bk_parcel *parcel)
{
    bk_bytes_unref(parcel->copy);
    parcel->copy = NULL;
    parcel->key = 0;
    parcel->events = 0;
    parcel->bytes = 0;
    parcel->n_ranges = 0;
    parcel->n_pieces = 0;
    parcel->n_parts = 0;
    parcel->error = 0;
    bb_buf_reset(&parcel->sets);
    bb_buf_reset(&parcel->heads);
}

void bk_parcel_fini(struct bk_parcel *parcel)
{
    bk_parcel_reset(parcel);
    free(parcel->ranges);
    free(parcel->pieces);
    bb_buf_fini(&parcel->heads);
    bb_buf_fini(&parcel->sets);
}

/* Room for one more in an array of @size; the array itself or NULL. */
static void *grown(void *array, size_t n, size_t *n_slots, size_t size)
{
    if (n < *n_slots) {
        return array;
    }
    size_t slots = *n_slots > 0 ? 2 * *n_slots : 8;
    void *bigger = realloc(array, slots * size);
    if (bigger != NULL) {
        *n_slots = slots;
    }
    return bigger;
}

static void range_add(struct bk_parcel *parcel, const struct bk_item *item)
{
    const struct bk_block *block = item->block;
    size_t i = parcel->n_ranges;
    while (i > 0 && parcel->ranges[i - 1].channel != block->channel) {
        i--;
    }
    if (i == 0) {
        void *ranges =
            grown(parcel->ranges, parcel->n_ranges, &parcel->n_range_slots, sizeof(struct bk_range));
        if (ranges == NULL) {
            parcel->error = BB_ENOMEM;
            return;
        }
        parcel->ranges = ranges;
        parcel->ranges[parcel->n_ranges++] =
            (struct bk_range){.channel = block->channel, .from = block->sequence};
        i = parcel->n_ranges;
    }
    struct bk_range *range = &parcel->ranges[i - 1];
    range->to = block->sequence + block->count - 1;
    range->last = bk_item_last(item);
    range->events += item->count;
    range->bytes += item->len;
}

static void piece_add(struct bk_parcel *parcel, const struct bk_piece *piece)
{
    struct bk_piece *last = parcel->n_pieces > 0 ? &parcel->pieces[parcel->n_pieces - 1] : NULL;
    if (last != NULL && last->owner == piece->owner && piece->owner != NULL &&
        last->data + last->len == piece->data) {
        last->len += piece->len;
        return;
    }
    void *pieces = grown(parcel->pieces, parcel->n_pieces, &parcel->n_piece_slots, sizeof(struct bk_piece));
    if (pieces == NULL) {
        parcel->error = BB_ENOMEM;
        return;
    }
    parcel->pieces = pieces;
    parcel->pieces[parcel->n_pieces++] = *piece;
}

/* The head of a block that holds only the item's events. */
static size_t head_add(struct bk_parcel *parcel, const struct bk_item *item)
{
    const struct bk_block *block = item->block;
    struct bb_block head = {
        .session = block->session,
        .time = block->time,
        .source = block->source,
        .sequence = block->sequence + item->first,
        .instance = (uint64_t)block->instance + item->first,
        .count = item->count,
        .length = item->len,
    };
    size_t offset = parcel->heads.len;
    uint8_t *to = bb_buf_reserve(&parcel->heads, BB_BLOCK_HEAD_MAX);
    if (to == NULL) {
        parcel->error = BB_ENOMEM;
        return 0;
    }
    size_t len = bb_block_write(to, &head);
    parcel->heads.len += len;
    piece_add(parcel, &(struct bk_piece){.offset = offset, .len = len});
    return len;
}

void bk_parcel_add(struct bk_parcel *parcel, const struct bk_item *item)
{
    const struct bk_block *block = item->block;
    struct bk_bytes *body_owner = block->body_bytes != NULL ? block->body_bytes : block->head_bytes;
    size_t head_len = 0;
    if (item->count == block->count) {
        head_len = block->head_len;
        piece_add(parcel,
                  &(struct bk_piece){.owner = block->head_bytes, .data = block->head, .len = head_len});
    } else {
        head_len = head_add(parcel, item);
    }
    piece_add(parcel, &(struct bk_piece){.owner = body_owner, .data = item->data, .len = item->len});
    range_add(parcel, item);
    parcel->events += item->count;
    parcel->bytes += head_len + item->len;
}

static bool piece_is_copied(const struct bk_piece *piece, size_t reference_min)
{
    return piece->owner == NULL || piece->len < reference_min;
}

/* Parts needed, and bytes to copy, when pieces below @reference_min are copied. */
static size_t count_parts(const struct bk_parcel *parcel, size_t reference_min, size_t *ret_copied)
{
    size_t n = 0;
    size_t copied = 0;
    bool in_copy = false;
    for (size_t i = 0; i < parcel->n_pieces; i++) {
        bool copy = piece_is_copied(&parcel->pieces[i], reference_min);
        n += !copy || !in_copy;
        copied += copy ? parcel->pieces[i].len : 0;
        in_copy = copy;
    }
    *ret_copied = copied;
    return n;
}

int bk_parcel_finish(struct bk_parcel *parcel, struct bk_meter *meter)
{
    size_t reference_min = REFERENCE_MIN;
    size_t copied = 0;
    if (parcel->error != 0) {
        return parcel->error;
    }
    if (count_parts(parcel, reference_min, &copied) > BB_COUNT(parcel->parts)) {
        reference_min = SIZE_MAX;
        (void)count_parts(parcel, reference_min, &copied);
    }
    if (copied > 0) {
        parcel->copy = bk_bytes_new(meter, copied);
        if (parcel->copy == NULL) {
            return parcel->error = BB_ENOMEM;
        }
    }
    for (size_t i = 0; i < parcel->n_pieces; i++) {
        const struct bk_piece *piece = &parcel->pieces[i];
        struct bk_part *last = parcel->n_parts > 0 ? &parcel->parts[parcel->n_parts - 1] : NULL;
        if (!piece_is_copied(piece, reference_min)) {
            parcel->parts[parcel->n_parts++] = (struct bk_part){piece->owner, piece->data, piece->len};
            continue;
        }
        uint8_t *to = parcel->copy->data + parcel->copy->len;
        memcpy(to, piece->owner != NULL ? piece->data : parcel->heads.data + piece->offset, piece->len);
        parcel->copy->len += piece->len;
        if (last != NULL && last->owner == parcel->copy) {
            last->len += piece->len;
        } else {
            parcel->parts[parcel->n_parts++] = (struct bk_part){parcel->copy, to, piece->len};
        }
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/loss.h"

#include "proto/base/error.h"

#include <stdlib.h>

/* A block may lose three times: before it, in it, and behind it where the range ends. */
#define LOSSES_OF_A_BLOCK 3

/* Where the newest loss of a range is. */
struct bk_loss_end {
    size_t at;
    uint32_t n;
};

int bk_losses_begin(struct bk_losses *losses, struct bk_read *read)
{
    losses->read = read;
    read->losses = (struct bb_buf)BB_BUF_INIT;
    losses->ends = calloc(BB_MAX(read->n_ranges, 1), sizeof(*losses->ends));
    return losses->ends == NULL ? BB_ENOMEM : 0;
}

void bk_losses_end(struct bk_losses *losses)
{
    free(losses->ends);
    losses->ends = NULL;
}

bool bk_losses_have_room(const struct bk_losses *losses, size_t range)
{
    return losses->ends[range].n + LOSSES_OF_A_BLOCK <= BK_LOSSES_MAX;
}

static void add(struct bk_losses *losses, const struct bk_read_loss *loss)
{
    struct bk_loss_end *end = &losses->ends[loss->range];
    struct bb_buf *list = &losses->read->losses;
    struct bk_read_loss *all = (struct bk_read_loss *)(void *)list->data;
    if (end->n > 0 && all[end->at].reason == loss->reason) {
        all[end->at].to = loss->to;
        all[end->at].count += loss->count;
        return;
    }
    end->at = list->len / sizeof(*loss);
    end->n++;
    bb_buf_append(list, loss, sizeof(*loss));
}

void bk_losses_trimmed(struct bk_losses *losses, size_t range, uint64_t from, uint64_t to)
{
    if (from <= to && losses->read->losses.error == 0) {
        add(losses, &(struct bk_read_loss){(uint32_t)range, BK_LOSS_TRIMMED, from, to, to - from + 1});
    }
}

void bk_losses_expired(struct bk_losses *losses, size_t range, uint64_t from, uint64_t to, uint64_t count)
{
    if (count > 0 && losses->read->losses.error == 0) {
        add(losses, &(struct bk_read_loss){(uint32_t)range, BK_LOSS_EXPIRED, from, to, count});
    }
}

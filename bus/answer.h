/* SPDX-License-Identifier: Apache-2.0 */
/* What the broker says of a batch (PROTOCOL 6.2), and what that means for each of its events. */
#pragma once

#include "proto/base/buf.h"

#include "bus/busbar.h"

struct bb_answer {
    int error; /* of the whole batch */
    enum bb_level level;
    uint64_t matches;
    struct bb_slice positions; /* empty: none */
    struct bb_slice refused;   /* empty: none */
    bool repeated;
};

/**
 * bb_answer_read() - read one entry of an ack, distrusted
 * @ret_answer: borrows from @entry
 *
 * Return: 0 or BB_EMALFORMED.
 */
int bb_answer_read(struct bb_slice entry, uint64_t *ret_number, struct bb_answer *ret_answer);

/** bb_answer_event() - what became of event @index of the batch; all of @ack but the ticket is set. */
void bb_answer_event(const struct bb_answer *answer, uint32_t index, struct bb_ack *ack);

/** bb_answer_refusals() - how many of @count events were refused; @ret_error: why the first was, or 0. */
uint64_t bb_answer_refusals(const struct bb_answer *answer, uint32_t count, int *ret_error);

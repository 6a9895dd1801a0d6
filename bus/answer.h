/* SPDX-License-Identifier: Apache-2.0 */
/* What the broker says of a batch (PROTOCOL 6.2), and what that means for each of its events. */
#pragma once

#include "proto/base/buf.h"

#include "bus/busbar.h"

/* Events of a batch, of those that were taken, with sequences behind each other. */
struct bb_run {
    uint64_t begin;
    uint64_t count;
    uint64_t first; /* sequence */
};

struct bb_answer {
    int error; /* of the whole batch */
    enum bb_level level;
    uint64_t matches;
    struct bb_slice positions; /* empty: none */
    struct bb_slice refused;   /* empty: none */
    bool repeated;
    struct bb_run run; /* where the last sequence was found: the next is there too, nearly always */
};

/**
 * bb_answer_read() - read one entry of an ack, distrusted
 * @ret_answer: borrows from @entry
 *
 * Return: 0 or BB_EMALFORMED.
 */
BB_MUST_CHECK int bb_answer_read(struct bb_slice entry, uint64_t *ret_number, struct bb_answer *ret_answer);

/**
 * bb_answer_event() - what became of event @index of the batch
 * @ret_sequence: BB_UNKNOWN if it has none or that is not known
 *
 * Return: 0, or why it was refused.
 */
int bb_answer_event(struct bb_answer *answer, uint32_t index, uint64_t *ret_sequence);

/** bb_answer_refusals() - how many of @count events were refused; @ret_error: why the first was, or 0. */
uint64_t bb_answer_refusals(const struct bb_answer *answer, uint32_t count, int *ret_error);

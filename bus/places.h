/* SPDX-License-Identifier: Apache-2.0 */
/* Where a subscription is in each channel (PROTOCOL 7.4, 7.5). */
#pragma once

#include "bus/subscription.h"

/** bb_places_begin() - `subscribed` came: set the places. Return: 0, BB_EMALFORMED, BB_ENOMEM. */
BB_MUST_CHECK int bb_places_begin(struct bb_subscription *sub, struct bb_slice positions, uint64_t run);

/**
 * bb_places_stage() - read what a message says of places: its gaps, then its ranges; either may be empty
 * @delivery: gets the gaps, and one for each hole, in that order
 *
 * Nothing counts before bb_places_commit(). Return: 0, BB_EMALFORMED, BB_ENOMEM; then nothing is staged.
 */
BB_MUST_CHECK int bb_places_stage(struct bb_subscription *sub,
                                  struct bb_slice gaps,
                                  struct bb_slice ranges,
                                  struct bb_delivery *delivery);

/** bb_places_commit() - @delivery reaches the application: its places and gaps count. */
void bb_places_commit(struct bb_subscription *sub, const struct bb_delivery *delivery);

/** bb_places_revert() - it does not: forget what is staged. */
void bb_places_revert(struct bb_subscription *sub);

/**
 * bb_places_write() - the value of `from` that resumes after these places; @with_lives: the broker knows
 * lives.
 */
void bb_places_write(const struct bb_subscription *sub, bool with_lives, struct bb_buf *out);

/** bb_places_fini() - free them. */
void bb_places_fini(struct bb_subscription *sub);

/* SPDX-License-Identifier: Apache-2.0 */
/* Time, and how a thread that waits for the bus learns that it should look again. */
#pragma once

#include "bus/state.h"

uint64_t bb_now_ms(void);

/** bb_deadline() - when a call with @timeout_ms is over; BB_NEVER for a negative one. */
uint64_t bb_deadline(int timeout_ms);

/** bb_time_left() - milliseconds until @deadline for poll(): at most an hour, -1 for BB_NEVER. */
int bb_time_left(uint64_t deadline);

/** bb_bell_ring() - make the descriptor readable. */
void bb_bell_ring(struct bb_bell *bell);

/** bb_bell_clear() - and not any more. */
void bb_bell_clear(struct bb_bell *bell);

/** bb_bus_wake() - have the bus stepped soon. */
void bb_bus_wake(struct bb_bus *bus);

/**
 * bb_bus_changed() - wake the waiting calls
 *
 * A step does it when it gives up the lock: a thread that is woken earlier would only wait for that.
 */
void bb_bus_changed(struct bb_bus *bus);

/** bb_bus_announce() - the same at once; before the lock is given up. */
void bb_bus_announce(struct bb_bus *bus);

/** bb_bus_note() - remember an error for bb_bus_last_error(). */
void bb_bus_note(struct bb_bus *bus, int error, const char *format, ...) BB_PRINTF(3, 4);

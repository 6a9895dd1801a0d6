/* SPDX-License-Identifier: Apache-2.0 */
/* How a call waits: for a change that somebody else makes, or by stepping the bus itself. */
#pragma once

#include "bus/state.h"

/** bb_wait_check() - may this thread wait now? Return: 0, BB_EDEADLOCK. */
BB_MUST_CHECK int bb_wait_check(const struct bb_bus *bus);

/**
 * bb_wait() - give up the lock until something may have changed
 *
 * Return: 0: look again; BB_ETIMEOUT.
 */
int bb_wait(struct bb_bus *bus, uint64_t deadline);

/** bb_wait_end_of_callback() - wait until no callback of @sub runs, however long it takes. Not in one. */
void bb_wait_end_of_callback(struct bb_bus *bus, const struct bb_subscription *sub);

/** bb_wait_ready() - wait for the connection; see bb_bus_wait_ready(). */
BB_MUST_CHECK int bb_wait_ready(struct bb_bus *bus, uint64_t deadline);

/**
 * bb_wait_told() - wait until the first @n events are answered and their on_ack have returned
 *
 * Return: 0, BB_ETIMEOUT, BB_ECLOSED.
 */
int bb_wait_told(struct bb_bus *bus, uint64_t n, uint64_t deadline);

/** bb_wait_leave() - the bus closes: wait until no call waits any more and nobody steps it. */
void bb_wait_leave(struct bb_bus *bus);

/* SPDX-License-Identifier: Apache-2.0 */
/* What a bus does whenever something has happened or time has passed. */
#pragma once

#include "bus/state.h"

/** bb_step() - do what is to be done; @is_lent: only with the socket, the I/O thread looks at the rest. */
void bb_step(struct bb_bus *bus, bool is_lent);

/** bb_step_perform() - do what is marked in bus->pending; a part of a step. */
void bb_step_perform(struct bb_bus *bus);

/** bb_step_run() - the I/O thread; takes the lock itself. */
void *bb_step_run(void *arg);

/** bb_step_deadline() - when the next step is due though nothing happens. */
uint64_t bb_step_deadline(const struct bb_bus *bus);

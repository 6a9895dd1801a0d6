/* SPDX-License-Identifier: Apache-2.0 */
/* The world as the core's outside: what leaves the core is checked and put on a link. */
#pragma once

#include "tests/sim/world.h"

void broker_side_init(struct world *world);

/** broker_note_input() - a message is about to enter the core. */
void broker_note_input(struct world *world, struct sim_link *link, struct bb_slice bytes);

/** broker_repeat() - sabotage: a batch that was published gets published again, with a new number. */
void broker_repeat(struct world *world, struct sim_link *link, struct bb_slice bytes, struct bk_bytes *owner);

/** broker_forge_credit() - sabotage: if @bytes give credit, give the core more than that instead. */
bool broker_forge_credit(struct world *world, struct sim_link *link, struct bb_slice bytes);

/** broker_compare_disk() - after a crash: what was shown is on the disk, and what is there besides counts as published. */
void broker_compare_disk(struct world *world);

/** broker_check() - after a flush: memory is within its bounds. */
void broker_check(struct world *world);

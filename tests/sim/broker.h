/* SPDX-License-Identifier: Apache-2.0 */
/* The broker's life in a simulated world: starts, ends, and each call into its core. */
#pragma once

#include "tests/sim/world.h"

/** broker_init() - what the world gives the core. */
void broker_init(struct world *world);

/** broker_choose_sizes() - of its memory, before it starts. */
void broker_choose_sizes(struct world *world);

/** broker_start() - with the options of this run. */
void broker_start(struct world *world);

/** broker_stop() - it is killed, or has said goodbye. */
void broker_stop(struct world *world);

enum broker_change {
    CHANGE_NOTHING,
    CHANGE_OPTIONS, /* another size of memory, with or without a log */
    CHANGE_WIPED,
    CHANGE_RESTORED,
};

/** broker_restart() - stop, change, start. */
void broker_restart(struct world *world, enum broker_change change);

/** broker_shut_down() - begin an orderly end; broker_drain() - go on with it; when it is drained, or late,
 * the next one starts. */
void broker_shut_down(struct world *world);
void broker_drain(struct world *world);

void broker_flush(struct world *world);
void broker_tick(struct world *world);
void broker_disk(struct world *world);
void broker_memory(struct world *world);

/** broker_message() - the next message of @link arrives. */
void broker_message(struct world *world, struct sim_link *link);

/** broker_gone() - the transport says that the peer of @link has gone. */
void broker_gone(struct world *world, struct sim_link *link);

/** broker_ingest() - bare events at a window. */
void broker_ingest(struct world *world, struct sim_rng *rng);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How what came reaches the application: by a callback at once, or kept for bb_receive(). In a step only; the
 * lock is given up while callbacks run.
 */
#pragma once

#include "bus/subscription.h"

/** bb_deliver() - give @delivery, whose places are staged, to the callback of @sub or keep it; taken over. */
void bb_deliver(struct bb_subscription *sub, struct bb_delivery *delivery);

/** bb_deliver_ends() - call on_ended where it is due. */
void bb_deliver_ends(struct bb_bus *bus);

/** bb_deliver_acks() - report to the publishers of answered events. */
void bb_deliver_acks(struct bb_bus *bus);

/** bb_deliver_state() - call on_state if it is another one. */
void bb_deliver_state(struct bb_bus *bus);

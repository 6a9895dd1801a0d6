/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of the broker. */
#pragma once

#include "bus/state.h"

/** bb_handle_message() - one message of @n frames in bus->frames; which are taken over. */
void bb_handle_message(struct bb_bus *bus, size_t n);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend that keeps events in memory (HAT-F81): bounded, not durable, and it answers every request. It
 * holds references to what the core has in its rings, so it costs a few words a block.
 */
#pragma once

#include "broker/core/backend.h"

extern const struct bk_backend_driver bk_memory_driver;

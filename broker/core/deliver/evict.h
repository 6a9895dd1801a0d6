/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "broker/core/keep/ring.h"

/** bk_evicted() - the ring's: find out what the loss of events costs those that lag behind them. */
bk_ring_evict_fn bk_evicted;

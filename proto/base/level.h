/* SPDX-License-Identifier: Apache-2.0 */
/* How far an event has come before its publisher is told (PROTOCOL 6.1). */
#pragma once

enum bb_level {
    BB_LEVEL_NONE = 0,
    BB_LEVEL_ACCEPTED = 1,
    BB_LEVEL_ROUTED = 2,
    BB_LEVEL_SYNCED = 3,
    BB_LEVEL_REPLICATED = 4,
    BB_LEVEL_CONSUMED = 5,
};

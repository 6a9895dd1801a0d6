/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Allocations that fail on demand. The test program is linked with --wrap for malloc, calloc, realloc, strdup and free
 * (tests/unit/CMakeLists.txt), so that those of our own objects go through here; shared libraries keep
 * theirs. Faults come only between fault_enter() and fault_leave(): a test encloses the calls it tests, not its own.
 * Not thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum fault_mode {
    FAULT_ONCE,   /* one allocation fails */
    FAULT_ONWARD, /* and all that follow, until fault_stop() */
};

/** fault_start() - the @nth allocation from now on fails, counted from 0. */
void fault_start(size_t nth, enum fault_mode mode);

/** fault_stop() - no more faults. Whether there was one. */
bool fault_stop(void);

/** fault_enter() - code under test begins. */
void fault_enter(void);

/** fault_leave() - code under test ends, or calls back. Whether it was within it. */
bool fault_leave(void);

/** fault_live() - pieces of memory allocated and not freed by wrapped code, tests included. */
size_t fault_live(void);

/** fault_json_use() - let jansson allocate through here too. */
void fault_json_use(void);

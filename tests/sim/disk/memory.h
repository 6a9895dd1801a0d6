/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real backend in memory, through its driver, for channels that are not logged. It ends with the broker.
 * Between the core and it
 * stands a backend that passes everything on and notes that there is something to dispatch, since its own
 * descriptor knows real time.
 */
#pragma once

#include "broker/core/backend.h"
#include "broker/core/core.h"

struct world;

struct sim_memory {
    struct bk_backend between;
    struct bk_backend *backend; /* NULL: this broker has none */
    struct world *world;
    bool is_small;    /* it may have let go of what nobody trimmed */
    uint64_t next_at; /* when to dispatch; UINT64_MAX: never */
};

/* What a small one holds, in bytes. */
#define MEMORY_SMALL_CHANNEL 2048
#define MEMORY_SMALL_TOTAL   6144

/** memory_open() - for a new broker. */
void memory_open(struct world *world, bool is_small);
void memory_close(struct world *world);

/** memory_step() - let it tell. */
void memory_step(struct world *world);

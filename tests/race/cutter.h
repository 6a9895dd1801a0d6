/* SPDX-License-Identifier: Apache-2.0 */
/* A connection that breaks: a relay in front of the broker that drops each link after some bytes. */
#pragma once

#include "tests/race/child.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct cutter {
    char url[96]; /* where to connect instead of to the broker */
    const char *broker;
    int listener;
    uint64_t random;
    unsigned cuts; /* how many links are to be cut before one may live */
    atomic_uint n_cut;
    pthread_t thread;
};

/** cutter_start() - relay to @child at a socket named @name beside its own, one link at a time. */
void cutter_start(struct cutter *cutter, const struct child *child, const char *name, unsigned cuts);

/** cutter_stop() - the last link must have ended. */
void cutter_stop(struct cutter *cutter);

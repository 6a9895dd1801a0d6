/* SPDX-License-Identifier: Apache-2.0 */
/* What the world does wrong on purpose, once, between the core and the judge, to show that the judge sees
 * it. */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

struct world;
struct sim_link;

enum sabotage_kind {
#define SABOTAGE(name, text) SABOTAGE_##name,
#include "tests/sim/sabotage.def"
#undef SABOTAGE
    SABOTAGES
};

struct sabotage {
    enum sabotage_kind kind;
    bool is_done;
    uint64_t n_left; /* occasions that pass first */
    struct bb_buf changed;
    struct bb_buf held; /* a delivery that is to change places */
    struct sim_link *held_link;
};

const char *sabotage_text(enum sabotage_kind kind);

/** sabotage_is_of_disk() - which lie it is, 0: none. */
int sabotage_lie(enum sabotage_kind kind);

/**
 * sabotage_output() - a message leaves the core for @link
 * @bytes: the message; may be replaced by another
 *
 * Return: how often it is to be given: 0, 1 or 2.
 */
int sabotage_output(struct world *world, struct sim_link *link, struct bb_slice *bytes);

/** sabotage_input() - a message goes into the core; the judge has seen it. May be replaced. Return: how
 * often. */
int sabotage_input(struct world *world, struct sim_link *link, struct bb_slice *bytes);

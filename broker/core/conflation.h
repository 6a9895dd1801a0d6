/* SPDX-License-Identifier: Apache-2.0 */
/* Conflation: of what waits for a subscription, the newest event of each path. */
#pragma once

#include "broker/core/parcel.h"

struct bk_core;
struct bk_sub;
struct bk_conflation;

/** bk_conflation_new() - look through all that waits for @sub. Return: 0 or BB_ENOMEM. */
int bk_conflation_new(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation);
void bk_conflation_free(struct bk_conflation *conflation);

/** bk_conflation_add() - add to @parcel what of @item is the newest of its path; count the rest as lost. */
int bk_conflation_add(struct bk_conflation *conflation,
                      struct bk_sub *sub,
                      struct bk_parcel *parcel,
                      const struct bk_item *item);

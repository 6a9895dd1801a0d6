/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

struct bk_core;
struct bk_sub;
struct bk_parcel;

/** bk_early_show() - show what is staged to those who have the early view. */
void bk_early_show(struct bk_core *core);

/** bk_early_has_seen() - whether @sub has had all of @parcel, or (@ret_some) some of it. */
bool bk_early_has_seen(const struct bk_sub *sub, const struct bk_parcel *parcel, bool *ret_some);

/** bk_early_retract() - what was staged and shown does not exist: lives end, and whoever saw it is told. */
void bk_early_retract(struct bk_core *core);

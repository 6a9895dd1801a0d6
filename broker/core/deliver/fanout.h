/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

struct bk_core;
struct bk_fan;

/** bk_fan_new() - the scratch memory of fan-outs, NULL without memory. */
struct bk_fan *bk_fan_new(void);
void bk_fan_free(struct bk_fan *fan);

/** bk_fan_out() - give every subscription what came since the last fan-out, or let it wait. */
void bk_fan_out(struct bk_core *core);

/** bk_send_all_away() - without memory to go on, all who subscribe are told to come again. */
void bk_send_all_away(struct bk_core *core);

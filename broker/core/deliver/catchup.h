/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

struct bk_core;

/** bk_catch_up() - send one message to each lagging subscription that is ready. */
void bk_catch_up(struct bk_core *core);

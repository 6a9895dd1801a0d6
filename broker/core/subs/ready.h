/* SPDX-License-Identifier: Apache-2.0 */
/* The subscriptions that the next flush may send something to. */
#pragma once

struct bk_core;
struct bk_client;
struct bk_sub;

/** bk_sub_set_ready() - let the next flush look at @sub if it may be sent something. */
void bk_sub_set_ready(struct bk_core *core, struct bk_sub *sub);

/** bk_sub_clear_ready() - undo it. */
void bk_sub_clear_ready(struct bk_core *core, struct bk_sub *sub);

/** bk_subs_set_ready() - all of a client that has room again. */
void bk_subs_set_ready(struct bk_core *core, struct bk_client *client);

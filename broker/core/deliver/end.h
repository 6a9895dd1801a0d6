/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a subscription. */
#pragma once

struct bk_core;
struct bk_sub;

/** bk_sub_remove() - end a subscription and free it. What waited for it is counted. */
void bk_sub_remove(struct bk_core *core, struct bk_sub *sub);

/** bk_sub_end() - tell the client that its subscription has ended, and remove it. */
void bk_sub_end(struct bk_core *core, struct bk_sub *sub, const char *code);

/* SPDX-License-Identifier: Apache-2.0 */
/* The messages of clients, one file each; core.c has the table. What came before a message has been fanned out where the table says so. */
#pragma once

#include "proto/wire/message.h"

#include <stdint.h>

struct bk_core;
struct bk_client;

typedef void bk_handle_fn(struct bk_core *core, struct bk_client *client, const struct bb_msg *msg);

bk_handle_fn bk_handle_hello;
bk_handle_fn bk_handle_subscribe;
bk_handle_fn bk_handle_unsubscribe;
bk_handle_fn bk_handle_credit;
bk_handle_fn bk_handle_ping;
bk_handle_fn bk_handle_pong;
bk_handle_fn bk_handle_goodbye;
bk_handle_fn bk_handle_status;
bk_handle_fn bk_handle_matches;
bk_handle_fn bk_handle_cursor;
bk_handle_fn bk_handle_query;
bk_handle_fn bk_handle_channel;
bk_handle_fn bk_handle_log;

/** bk_waiters_check() - answer the `matches` that wait and can be answered, time out those that must. Returns when to look again, in us
 * from now. */
uint64_t bk_waiters_check(struct bk_core *core);

/** bk_waiters_remove() - forget those of a client that ends. */
void bk_waiters_remove(struct bk_core *core, const struct bk_client *client);

/** bk_client_release_id() - the client id of @client is another connection's from now on, or nobody's; @client is told nothing more of
 * what it published. */
void bk_client_release_id(struct bk_core *core, struct bk_client *client);

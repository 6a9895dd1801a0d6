/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connection of a bus: what the machine (conn_sm.h) says is done here, on the link. What a break means
 * for others is not: it is marked in bus->pending.
 */
#pragma once

#include "bus/state.h"

/** bb_conn_opened() - the link is up: say hello. */
void bb_conn_opened(struct bb_bus *bus);

/** bb_conn_break() - the connection is of no use: close it and try again later. */
void bb_conn_break(struct bb_bus *bus);

/** bb_conn_drop() - the same, and note why. */
void bb_conn_drop(struct bb_bus *bus, int error, const char *text);

/** bb_conn_end() - the bus will never be ready (again). */
void bb_conn_end(struct bb_bus *bus, int error, const char *text);

/** bb_conn_tick_now() - let the time count. */
void bb_conn_tick_now(struct bb_bus *bus);

/** bb_conn_send() - send a message without a body. Return: 0, BB_ENOMEM, BB_ECONNECT. */
BB_MUST_CHECK int bb_conn_send(struct bb_bus *bus, const struct bb_msg *msg);

/**
 * bb_conn_post() - the same for a message that the connection cannot be without: it breaks if there is no
 * memory.
 */
void bb_conn_post(struct bb_bus *bus, const struct bb_msg *msg);

/** bb_conn_send_batches() - send the batches whose time has come. */
void bb_conn_send_batches(struct bb_bus *bus);

/**
 * bb_conn_lend() - have the I/O thread not look at the socket
 * @ret_fd: readable when there may be something to receive
 *
 * Return: the number of the link, for bb_conn_take_back().
 */
uint64_t bb_conn_lend(struct bb_bus *bus, int *ret_fd);
void bb_conn_take_back(struct bb_bus *bus, uint64_t n_link);

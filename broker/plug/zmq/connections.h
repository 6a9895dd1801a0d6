/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connections of one socket, counted, so that descriptors never run out: without any, libzmq's accept()
 * spins. When most are used up the kernel drops whoever knocks on a tcp endpoint, and what gets in all the same
 * (ipc, or a crowd in one moment) is cut off. zmq_unbind() is no way to stop accepting: it ends the
 * connections that came through the endpoint.
 */
#pragma once

#include "broker/plug/crowd.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BK_LISTENERS_MAX 16

struct bk_connections {
    struct bk_crowd *crowd;
    void *socket;
    void *monitor;
    size_t n;                        /* of this socket */
    int listeners[BK_LISTENERS_MAX]; /* descriptors of the endpoints */
    size_t n_listeners;
    bool is_holding;
    bool is_ending;
    uint32_t *charges; /* by descriptor: what a connection has cost so far, as the owner counts it */
    size_t n_charges;
    size_t charged; /* the sum */
};

/** bk_connections_watch() - begin, before the socket is bound. @connections: zeroed. Return: 0, BB_ESYSTEM. */
int bk_connections_watch(struct bk_connections *connections, void *zmq, void *socket, struct bk_crowd *crowd);

/** bk_connections_step() - take what happened; hold new ones back or let them in. */
void bk_connections_step(struct bk_connections *connections);

/** bk_connections_end() - let nobody in from now on. */
void bk_connections_end(struct bk_connections *connections);

/** bk_connections_charge() - @change for the connection @fd; what it has cost so far, 0 if that is unknown. */
uint32_t bk_connections_charge(struct bk_connections *connections, int fd, int change);

/** bk_connections_cut() - end the connection @fd. Its peer may come again. */
void bk_connections_cut(int fd);

/** bk_connections_fini() - to be called before the socket is closed. */
void bk_connections_fini(struct bk_connections *connections);

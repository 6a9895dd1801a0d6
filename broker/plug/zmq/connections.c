/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/zmq/connections.h"

#include "proto/base/error.h"

#include <linux/filter.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <zmq.h>

#define EVENTS (ZMQ_EVENT_LISTENING | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED)

/* More than any limit of open files is good for. */
#define CHARGES_MAX ((size_t)1 << 20)

int bk_connections_watch(struct bk_connections *connections, void *zmq, void *socket, struct bk_crowd *crowd)
{
    char name[64];
    connections->crowd = crowd;
    connections->socket = socket;
    (void)snprintf(name, sizeof(name), "inproc://monitor-%p", socket);
    if (zmq_socket_monitor(socket, name, EVENTS) != 0) {
        return BB_ESYSTEM;
    }
    connections->monitor = zmq_socket(zmq, ZMQ_PAIR);
    return connections->monitor != NULL && zmq_connect(connections->monitor, name) == 0 ? 0 : BB_ESYSTEM;
}

/* --- charges -------------------------------------------------------------------------------------- */

static uint32_t *charge_of(struct bk_connections *connections, int fd)
{
    if (fd < 0 || (size_t)fd >= CHARGES_MAX) {
        return NULL;
    }
    if ((size_t)fd >= connections->n_charges) {
        size_t n = ((size_t)fd + 1) * 2;
        uint32_t *charges = realloc(connections->charges, n * sizeof(*charges));
        if (charges == NULL) {
            return NULL;
        }
        memset(charges + connections->n_charges, 0, (n - connections->n_charges) * sizeof(*charges));
        connections->charges = charges;
        connections->n_charges = n;
    }
    return &connections->charges[fd];
}

uint32_t bk_connections_charge(struct bk_connections *connections, int fd, int change)
{
    uint32_t *charge = charge_of(connections, fd);
    if (charge == NULL) {
        return 0;
    }
    if (change > 0) {
        *charge += (uint32_t)change;
        connections->charged += (uint32_t)change;
    } else if (*charge >= (uint32_t)-change) {
        *charge -= (uint32_t)-change;
        connections->charged -= (uint32_t)-change;
    }
    return *charge;
}

static void forget_charge(struct bk_connections *connections, int fd)
{
    if (fd >= 0 && (size_t)fd < connections->n_charges) {
        connections->charged -= connections->charges[fd];
        connections->charges[fd] = 0;
    }
}

/* --- holding back ----------------------------------------------------------------------------------- */

/* A filter that drops everything: on a listening socket that is whoever knocks, not who is connected. Best
 * effort: a local socket has no such thing, and what gets in is cut off. */
static void hold_listener(int fd, bool hold)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &drop};
    int unused = 0;
    if (hold) {
        (void)setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
    } else {
        (void)setsockopt(fd, SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof(unused));
    }
}

static void hold(struct bk_connections *connections, bool is_holding)
{
    if (connections->is_holding == is_holding) {
        return;
    }
    connections->is_holding = is_holding;
    for (size_t i = 0; i < connections->n_listeners; i++) {
        hold_listener(connections->listeners[i], is_holding);
    }
}

void bk_connections_end(struct bk_connections *connections)
{
    connections->is_ending = true;
    hold(connections, true);
}

void bk_connections_cut(int fd)
{
    (void)shutdown(fd, SHUT_RDWR);
}

/* --- what happens --------------------------------------------------------------------------------- */

static void take_event(struct bk_connections *connections, int event, int fd)
{
    struct bk_crowd *crowd = connections->crowd;
    if (event == ZMQ_EVENT_LISTENING && connections->n_listeners < BK_LISTENERS_MAX) {
        connections->listeners[connections->n_listeners++] = fd;
    } else if (event == ZMQ_EVENT_ACCEPTED) {
        connections->n++;
        crowd->n++;
        forget_charge(connections, fd);
        if (crowd->n > crowd->max) {
            bk_connections_cut(fd);
        }
    } else if (event == ZMQ_EVENT_DISCONNECTED && connections->n > 0) {
        connections->n--;
        crowd->n--;
        forget_charge(connections, fd);
    }
}

/* An event is a frame of 16 bits and 32 bits; the second frame is the endpoint. */
void bk_connections_step(struct bk_connections *connections)
{
    const struct bk_crowd *crowd = connections->crowd;
    uint8_t frame[6];
    uint8_t endpoint[1];
    while (zmq_recv(connections->monitor, frame, sizeof(frame), ZMQ_DONTWAIT) == (int)sizeof(frame)) {
        uint16_t event = 0;
        int32_t value = 0;
        memcpy(&event, frame, sizeof(event));
        memcpy(&value, frame + sizeof(event), sizeof(value));
        (void)zmq_recv(connections->monitor, endpoint, sizeof(endpoint), ZMQ_DONTWAIT);
        take_event(connections, event, value);
    }
    if (bk_crowd_is_large(crowd)) {
        hold(connections, true);
    } else if (bk_crowd_is_small(crowd) && !connections->is_ending) {
        hold(connections, false);
    }
}

void bk_connections_fini(struct bk_connections *connections)
{
    if (connections->monitor != NULL) {
        /* First: libzmq would leak, or wait for ever with, an event that nobody takes. */
        (void)zmq_socket_monitor(connections->socket, NULL, 0);
        (void)zmq_close(connections->monitor);
    }
    free(connections->charges);
    *connections = (struct bk_connections){0};
}

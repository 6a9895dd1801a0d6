/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When to connect, to say hello, to ping, to give up and to try again: the connection of a bus as a pure
 * machine. Time (monotonic milliseconds) is an argument, what is to be done is returned.
 */
#pragma once

#include <stdint.h>

enum bb_conn_state {
    BB_CONN_IDLE, /* before the first tick */
    BB_CONN_CONNECTING,
    BB_CONN_HELLO_SENT,
    BB_CONN_READY,
    BB_CONN_WAITING, /* a pause before the next attempt */
    BB_CONN_CLOSED,  /* for good */
};

/* What the caller has to do, in this order; several may be set. */
enum bb_conn_action {
    BB_CONN_DO_BREAK = 1, /* close the socket; nothing that it brought counts any more */
    BB_CONN_DO_OPEN = 2,  /* a new socket, to the next endpoint */
    BB_CONN_DO_HELLO = 4,
    BB_CONN_DO_PING = 8,
};

struct bb_conn_config {
    uint32_t open_ms;      /* time for a connection, and again for the welcome */
    uint32_t heartbeat_ms; /* 0 for none */
    uint32_t pause_min_ms; /* the first pause; it doubles with each failure */
    uint32_t pause_max_ms;
    uint64_t seed; /* of the random part of the pauses */
};

struct bb_conn {
    enum bb_conn_state state;
    struct bb_conn_config config;
    uint64_t deadline; /* of the state; in READY when to look at the peer's silence */
    uint64_t heard;
    uint32_t pinged; /* pings since something was heard */
    uint32_t failures;
    uint64_t random;
};

/** bb_conn_init() - an idle machine; the first bb_conn_tick() starts it. */
void bb_conn_init(struct bb_conn *conn, const struct bb_conn_config *config);

/** bb_conn_tick() - time has passed; call at bb_conn_deadline() or whenever. Returns actions. */
unsigned bb_conn_tick(struct bb_conn *conn, uint64_t now);

/** bb_conn_connected() - the transport is up. Returns actions. */
unsigned bb_conn_connected(struct bb_conn *conn, uint64_t now);

/** bb_conn_heard() - any message came. */
void bb_conn_heard(struct bb_conn *conn, uint64_t now);

/** bb_conn_welcomed() - welcome came; @heartbeat_ms is the interval in force. */
void bb_conn_welcomed(struct bb_conn *conn, uint64_t now, uint32_t heartbeat_ms);

/** bb_conn_lost() - the connection is gone or of no use. Returns actions. */
unsigned bb_conn_lost(struct bb_conn *conn, uint64_t now);

/** bb_conn_close() - for good. Returns actions. */
unsigned bb_conn_close(struct bb_conn *conn);

/** bb_conn_deadline() - when to tick at the latest; UINT64_MAX for never. */
static inline uint64_t bb_conn_deadline(const struct bb_conn *conn)
{
    return conn->deadline;
}

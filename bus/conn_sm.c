/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/conn_sm.h"

/* Silence of this many intervals is the end of the peer (PROTOCOL 8). */
#define SILENT_INTERVALS 3

#define NEVER UINT64_MAX

void bb_conn_init(struct bb_conn *conn, const struct bb_conn_config *config)
{
    *conn = (struct bb_conn){
        .state = BB_CONN_IDLE,
        .config = *config,
        .random = config->seed != 0 ? config->seed : 1,
    };
}

static uint64_t next_random(struct bb_conn *conn)
{
    conn->random ^= conn->random << 13;
    conn->random ^= conn->random >> 7;
    conn->random ^= conn->random << 17;
    return conn->random;
}

/* Half of the pause is random, so that clients of a broker that died do not come back as one. */
static uint64_t next_pause(struct bb_conn *conn)
{
    uint64_t pause = conn->config.pause_min_ms;
    for (uint32_t i = 0; i < conn->failures && pause < conn->config.pause_max_ms; i++) {
        pause *= 2;
    }
    if (pause > conn->config.pause_max_ms) {
        pause = conn->config.pause_max_ms;
    }
    return pause - next_random(conn) % (pause / 2 + 1);
}

static unsigned open_next(struct bb_conn *conn, uint64_t now)
{
    conn->state = BB_CONN_CONNECTING;
    conn->deadline = now + conn->config.open_ms;
    return BB_CONN_DO_OPEN;
}

unsigned bb_conn_lost(struct bb_conn *conn, uint64_t now)
{
    if (conn->state == BB_CONN_CLOSED || conn->state == BB_CONN_WAITING || conn->state == BB_CONN_IDLE) {
        return 0;
    }
    conn->state = BB_CONN_WAITING;
    conn->deadline = now + next_pause(conn);
    conn->failures++;
    return BB_CONN_DO_BREAK;
}

/* Ready: ping after each interval of silence, give up after the last. */
static unsigned tick_ready(struct bb_conn *conn, uint64_t now)
{
    uint64_t interval = conn->config.heartbeat_ms;
    if (interval == 0) {
        conn->deadline = NEVER;
        return 0;
    }
    uint64_t silent = (now - conn->heard) / interval;
    if (silent >= SILENT_INTERVALS) {
        return bb_conn_lost(conn, now);
    }
    conn->deadline = conn->heard + (silent + 1) * interval;
    if (silent > conn->pinged) {
        conn->pinged = (uint32_t)silent;
        return BB_CONN_DO_PING;
    }
    return 0;
}

unsigned bb_conn_tick(struct bb_conn *conn, uint64_t now)
{
    if (now < conn->deadline) {
        return 0;
    }
    switch (conn->state) {
    case BB_CONN_IDLE:
    case BB_CONN_WAITING:
        return open_next(conn, now);
    case BB_CONN_CONNECTING:
    case BB_CONN_HELLO_SENT:
        return bb_conn_lost(conn, now);
    case BB_CONN_READY:
        return tick_ready(conn, now);
    case BB_CONN_CLOSED:
        break;
    }
    return 0;
}

unsigned bb_conn_connected(struct bb_conn *conn, uint64_t now)
{
    if (conn->state != BB_CONN_CONNECTING) {
        return 0;
    }
    conn->state = BB_CONN_HELLO_SENT;
    conn->deadline = now + conn->config.open_ms;
    return BB_CONN_DO_HELLO;
}

void bb_conn_heard(struct bb_conn *conn, uint64_t now)
{
    conn->heard = now;
    conn->pinged = 0;
}

void bb_conn_welcomed(struct bb_conn *conn, uint64_t now, uint32_t heartbeat_ms)
{
    if (conn->state != BB_CONN_HELLO_SENT) {
        return;
    }
    conn->state = BB_CONN_READY;
    conn->config.heartbeat_ms = heartbeat_ms;
    conn->failures = 0;
    bb_conn_heard(conn, now);
    conn->deadline = heartbeat_ms == 0 ? NEVER : now + heartbeat_ms;
}

unsigned bb_conn_close(struct bb_conn *conn)
{
    unsigned actions = conn->state == BB_CONN_IDLE || conn->state == BB_CONN_WAITING ? 0 : BB_CONN_DO_BREAK;
    if (conn->state == BB_CONN_CLOSED) {
        return 0;
    }
    conn->state = BB_CONN_CLOSED;
    conn->deadline = NEVER;
    return actions;
}

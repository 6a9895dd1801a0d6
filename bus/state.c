/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/state.h"

#include <assert.h>

#define TO(state) (1u << (state))

/* From each state to which ones. */
static const unsigned runs[] = {
    [BB_RUN_IDLE] = TO(BB_RUN_STEP),
    [BB_RUN_STEP] = TO(BB_RUN_IDLE) | TO(BB_RUN_CALLBACK) | TO(BB_RUN_ACKS),
    [BB_RUN_CALLBACK] = TO(BB_RUN_STEP),
    [BB_RUN_ACKS] = TO(BB_RUN_STEP),
};

static const unsigned lives[] = {
    [BB_LIFE_OPEN] = TO(BB_LIFE_STOPPING),
    [BB_LIFE_STOPPING] = TO(BB_LIFE_CLOSING),
    [BB_LIFE_CLOSING] = 0,
};

void bb_bus_turn(struct bb_bus *bus, enum bb_run run)
{
    bool is_edge = (runs[bus->run] & TO(run)) != 0;
    assert(is_edge);
    (void)is_edge;
    bus->run = run;
}

void bb_bus_age(struct bb_bus *bus, enum bb_life life)
{
    bool is_edge = (lives[bus->life] & TO(life)) != 0;
    assert(is_edge);
    (void)is_edge;
    bus->life = life;
}

enum bb_bus_state bb_bus_public_state(const struct bb_bus *bus)
{
    switch (bus->conn.state) {
    case BB_CONN_IDLE:
    case BB_CONN_CONNECTING:
    case BB_CONN_HELLO_SENT:
        return BB_STATE_CONNECTING;
    case BB_CONN_READY:
        return BB_STATE_READY;
    case BB_CONN_WAITING:
        return BB_STATE_WAITING;
    case BB_CONN_CLOSED:
        break;
    }
    return BB_STATE_CLOSED;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a bus says of itself. */
#include "bus/state.h"

#include <stdio.h>

enum bb_bus_state bb_bus_state(bb_bus *bus)
{
    bb_bus_lock(bus);
    enum bb_bus_state state = bb_bus_public_state(bus);
    bb_bus_unlock(bus);
    return state;
}

const char *bb_bus_last_error(bb_bus *bus, char *to, size_t size)
{
    bb_bus_lock(bus);
    (void)snprintf(to, size, "%s", bus->last_text);
    bb_bus_unlock(bus);
    return to;
}

void bb_bus_get_info(bb_bus *bus, struct bb_bus_info *ret_info)
{
    bb_bus_lock(bus);
    *ret_info = (struct bb_bus_info){
        .server = bus->server,
        .run = bus->run_number,
        .client_number = bus->client_number,
        .max_message = bus->max_message,
        .heartbeat_ms = bus->conn.config.heartbeat_ms,
        .connects = bus->n_connects,
        .repeated = bus->outbox.repeated,
        .refused = bus->outbox.refused,
        .dropped = bus->outbox.dropped,
        .unacked_bytes = bus->outbox.bytes,
    };
    bb_bus_unlock(bus);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A bus inside the caller's loop. */
#include "proto/base/error.h"

#include "bus/api/wait.h"
#include "bus/signal.h"
#include "bus/step.h"

int bb_bus_step(bb_bus *bus)
{
    if (!bus->options.embedded) {
        return BB_ESTATE;
    }
    bb_bus_lock(bus);
    int r = bb_wait_check(bus);
    if (r == 0 && bus->run == BB_RUN_IDLE) {
        bb_step(bus, false);
        r = bus->error != 0 ? BB_ECLOSED : 0;
    }
    bb_bus_unlock(bus);
    return r;
}

int bb_bus_fd(bb_bus *bus)
{
    return bus->options.embedded ? bus->epoll_fd : BB_ESTATE;
}

int bb_bus_timeout(bb_bus *bus)
{
    bb_bus_lock(bus);
    int timeout = bus->wake.is_raised ? 0 : bb_time_left(bb_step_deadline(bus));
    bb_bus_unlock(bus);
    return timeout;
}

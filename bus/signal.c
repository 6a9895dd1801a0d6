/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/signal.h"

#include "proto/base/time.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define HOUR_MS 3600000

uint64_t bb_now_ms(void)
{
    return (uint64_t)bb_clock_monotonic_us() / 1000;
}

uint64_t bb_deadline(int timeout_ms)
{
    return timeout_ms < 0 ? BB_NEVER : bb_now_ms() + (uint64_t)timeout_ms;
}

int bb_time_left(uint64_t deadline)
{
    uint64_t now = bb_now_ms();
    if (deadline == BB_NEVER) {
        return -1;
    }
    uint64_t left = deadline > now ? deadline - now : 0;
    return left > HOUR_MS ? HOUR_MS : (int)left;
}

void bb_bell_ring(struct bb_bell *bell)
{
    if (!bell->is_raised) {
        uint64_t one = 1;
        bell->is_raised = write(bell->fd, &one, sizeof(one)) == sizeof(one);
    }
}

void bb_bell_clear(struct bb_bell *bell)
{
    uint64_t ignored;
    if (bell->is_raised) {
        bell->is_raised = read(bell->fd, &ignored, sizeof(ignored)) != sizeof(ignored);
    }
}

void bb_bus_wake(struct bb_bus *bus)
{
    bb_bell_ring(&bus->wake);
}

void bb_bus_announce(struct bb_bus *bus)
{
    bus->has_changed = false;
    if (bus->n_waiting > 0) {
        (void)pthread_cond_broadcast(&bus->changed);
    }
    if (bus->is_polling) {
        bb_bell_ring(bus->options.embedded ? &bus->wake : &bus->call);
    }
}

void bb_bus_changed(struct bb_bus *bus)
{
    if (bus->run == BB_RUN_STEP) {
        bus->has_changed = true;
    } else {
        bb_bus_announce(bus);
    }
}

void bb_bus_note(struct bb_bus *bus, int error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not look into va_start() */
    (void)vsnprintf(bus->last_text, sizeof(bus->last_text), format, args);
    va_end(args);
    bus->last_error = error;
}

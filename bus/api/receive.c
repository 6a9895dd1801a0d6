/* SPDX-License-Identifier: Apache-2.0 */
/* Taking the events of a subscription without a callback, and where a subscription is. */
#include "proto/base/error.h"

#include "bus/api/wait.h"
#include "bus/cursor.h"
#include "bus/places.h"
#include "bus/signal.h"

#include <stdlib.h>

/* What the last call gave is not needed any more. */
static void release_read(struct bb_subscription *sub)
{
    bb_cursor_take_read(sub);
    for (struct bb_delivery *delivery = sub->read; delivery != NULL; delivery = delivery->next) {
        bb_subscription_consumed(sub, delivery);
    }
    bb_deliveries_free(sub->read);
    sub->read = NULL;
}

static int wait_queue(struct bb_subscription *sub, int timeout_ms, uint64_t deadline)
{
    struct bb_bus *bus = sub->bus;
    int r = 0;
    while (sub->queue == NULL) {
        if (sub->state == BB_SUB_ENDED) {
            return sub->error != 0 ? sub->error : BB_ECLOSED;
        }
        if (r < 0) {
            return r;
        }
        r = timeout_ms == 0 && !bus->options.embedded ? BB_ETIMEOUT : bb_wait_check(bus);
        r = r < 0 ? r : bb_wait(bus, deadline);
    }
    if (bus->life == BB_LIFE_CLOSING) {
        return BB_ECLOSED;
    }
    sub->reading = sub->queue;
    sub->queue = NULL;
    sub->queue_end = &sub->queue;
    return 0;
}

/* Without the lock: nobody else touches `reading` and `read`. */
static size_t read_some(struct bb_subscription *sub, struct bb_event *events, size_t max)
{
    struct bb_delivery **read_end = &sub->read;
    size_t n = 0;
    while (sub->reading != NULL && n < max) {
        struct bb_delivery *delivery = sub->reading;
        n += bb_delivery_read(delivery, events + n, max - n);
        if (n < max) {
            sub->reading = delivery->next;
            delivery->next = NULL;
            *read_end = delivery;
            read_end = &delivery->next;
        }
    }
    return n;
}

/*
 * Takes what is there or waits for it until @deadline. Messages without events may come for ever, so behind
 * that it looks once more and no further. Return: how many, or an error.
 */
static int
take_some(struct bb_subscription *sub, struct bb_event *events, size_t max, int timeout_ms, uint64_t deadline)
{
    bool is_over = false;
    size_t n = 0;
    int r = 0;
    while (r == 0 && n == 0) {
        bb_bus_lock(sub->bus);
        release_read(sub);
        bool is_new = sub->reading == NULL;
        if (is_new) {
            r = is_over && sub->queue == NULL ? BB_ETIMEOUT : wait_queue(sub, timeout_ms, deadline);
        }
        bb_bus_unlock(sub->bus);
        n = r < 0 ? 0 : read_some(sub, events, max);
        r = r == 0 && n == 0 && is_new && is_over ? BB_ETIMEOUT : r;
        is_over = is_new && bb_now_ms() >= deadline;
    }
    return r < 0 ? r : (int)n;
}

int bb_receive(bb_subscription *sub, struct bb_event *events, size_t max, int timeout_ms)
{
    if (sub->options.on_events != NULL) {
        return BB_ESTATE;
    }
    if (max == 0) {
        return BB_EINVAL;
    }
    int r = take_some(sub, events, BB_MIN(max, (size_t)INT32_MAX), timeout_ms, bb_deadline(timeout_ms));
    if (r > 0 && sub->reading != NULL && sub->options.durable != NULL) {
        bb_bus_lock(sub->bus);
        bb_cursor_note_partial(sub, events, (size_t)r);
        bb_bus_unlock(sub->bus);
    }
    return r;
}

void bb_subscription_get_counts(bb_subscription *sub, struct bb_subscription_counts *ret_counts)
{
    bb_bus_lock(sub->bus);
    *ret_counts = sub->counts;
    bb_bus_unlock(sub->bus);
}

/* --- where it is -------------------------------------------------------------------------------- */

static int
list_places(struct bb_subscription *sub, bool at_start, struct bb_position **ret_positions, size_t *ret_n)
{
    bb_bus_lock(sub->bus);
    const struct bb_place *place;
    size_t at = 0;
    size_t n = 0;
    size_t bytes = sizeof(struct bb_position);
    while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
        bytes += sizeof(struct bb_position) + place->len + 1;
    }
    struct bb_position *positions = sub->has_started ? malloc(bytes) : NULL;
    int r = sub->has_started ? BB_ENOMEM : BB_EAGAIN;
    if (positions != NULL) {
        char *text = (char *)(positions + bb_map_count(&sub->places));
        at = 0;
        while ((place = bb_map_next(&sub->places, &at, NULL)) != NULL) {
            if (!at_start || place->has_start) {
                memcpy(text, place->channel, place->len + 1);
                positions[n++] = (struct bb_position){text, at_start ? place->start : place->at.sequence};
                text += place->len + 1;
            }
        }
        *ret_positions = positions;
        *ret_n = n;
        r = 0;
    }
    bb_bus_unlock(sub->bus);
    return r;
}

int bb_subscription_start(bb_subscription *sub, struct bb_position **ret_positions, size_t *ret_n)
{
    return list_places(sub, true, ret_positions, ret_n);
}

int bb_subscription_positions(bb_subscription *sub, struct bb_position **ret_positions, size_t *ret_n)
{
    return list_places(sub, false, ret_positions, ret_n);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How what came reaches the application: by a callback at once, or kept for bb_receive(). */
#include "proto/base/error.h"

#include "bus/subscription.h"

#include <stdlib.h>

/* Calls on_events until all is read; the lock is given up meanwhile. */
static void call_events(struct bb_subscription *sub, struct bb_delivery *delivery)
{
    struct bb_bus *bus = sub->bus;
    struct bb_event events[BB_EVENTS_PER_CALL];
    size_t n;
    bool is_whole = true;
    bb_bus_callback_begin(bus, sub);
    while ((n = bb_delivery_read(delivery, events, BB_COUNT(events))) > 0) {
        sub->options.on_events(sub, events, n, sub->options.arg);
        if (atomic_load_explicit(&sub->is_closing, memory_order_acquire)) {
            is_whole = false;
            break;
        }
    }
    bb_bus_callback_end(bus);
    if (sub->is_abandoned) {
        bb_subscription_free(sub);
        return;
    }
    if (is_whole) {
        bb_cursor_take(sub, delivery);
    } else {
        bb_cursor_take_events(sub, delivery, events, n);
    }
    bb_subscription_consumed(sub, delivery);
}

/* Keeps it for bb_receive(). */
static int queue_delivery(struct bb_subscription *sub, struct bb_delivery *delivery)
{
    struct bb_delivery *kept = bb_delivery_keep(delivery);
    if (kept == NULL) {
        return BB_ENOMEM;
    }
    *sub->queue_end = kept;
    sub->queue_end = &kept->next;
    bb_bus_changed(sub->bus);
    return 0;
}

void bb_subscription_deliver(struct bb_subscription *sub, struct bb_delivery *delivery)
{
    delivery->server = sub->bus->server;
    delivery->connection = sub->bus->n_links;
    bool has_callback = sub->options.on_events != NULL;
    if (!has_callback && queue_delivery(sub, delivery) < 0) {
        bb_places_revert(sub);
        bb_conn_drop(sub->bus, BB_ENOMEM, "no memory for what came");
        bb_delivery_fini(delivery);
        return;
    }
    bb_places_commit(sub, delivery);
    sub->has_retained = sub->has_retained || delivery->retained == BB_RETAINED_LAST;
    sub->received_bytes += delivery->bytes;
    sub->unread_bytes += delivery->bytes;
    if (has_callback) {
        call_events(sub, delivery);
        bb_delivery_fini(delivery);
    }
}

/* --- receiving by call -------------------------------------------------------------------------- */

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
        r = timeout_ms == 0 && !bus->options.embedded ? BB_ETIMEOUT : bb_bus_check_wait(bus);
        r = r < 0 ? r : bb_bus_wait(bus, deadline);
    }
    if (bus->is_closing) {
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

int bb_receive(bb_subscription *sub, struct bb_event *events, size_t max, int timeout_ms)
{
    struct bb_bus *bus = sub->bus;
    if (sub->options.on_events != NULL) {
        return BB_ESTATE;
    }
    if (max == 0) {
        return BB_EINVAL;
    }
    size_t n = 0;
    int r = 0;
    uint64_t deadline = bb_deadline(timeout_ms);
    max = max > INT32_MAX ? INT32_MAX : max;
    while (r == 0 && n == 0) {
        (void)pthread_mutex_lock(&bus->lock);
        release_read(sub);
        if (sub->reading == NULL) {
            r = wait_queue(sub, timeout_ms, deadline);
        }
        (void)pthread_mutex_unlock(&bus->lock);
        n = r < 0 ? 0 : read_some(sub, events, max);
        if (r == 0 && n == 0 && bb_now_ms() >= deadline) { /* what has nothing to read may come for ever */
            r = BB_ETIMEOUT;
        }
    }
    if (r == 0 && sub->reading != NULL && sub->options.durable != NULL) {
        bb_cursor_note_partial(sub, events, n);
    }
    return r < 0 ? r : (int)n;
}

void bb_subscription_get_counts(bb_subscription *sub, struct bb_subscription_counts *ret_counts)
{
    (void)pthread_mutex_lock(&sub->bus->lock);
    *ret_counts = sub->counts;
    (void)pthread_mutex_unlock(&sub->bus->lock);
}

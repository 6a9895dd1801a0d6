/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/deliver.h"

#include "proto/base/error.h"

#include "bus/conn.h"
#include "bus/cursor.h"
#include "bus/places.h"
#include "bus/signal.h"

#include <stdio.h>

/* Gives the lock up for @run, a callback of @sub or of none. */
static void callback_begin(struct bb_bus *bus, enum bb_run run, struct bb_subscription *sub)
{
    bb_bus_turn(bus, run);
    bus->callback_thread = pthread_self();
    bus->calling = sub;
    if (bus->has_changed) {
        bb_bus_announce(bus);
    }
    bb_bus_unlock(bus);
}

static void callback_end(struct bb_bus *bus)
{
    bb_bus_lock(bus);
    bb_bus_turn(bus, BB_RUN_STEP);
    bus->calling = NULL;
    bb_bus_changed(bus);
}

/* --- events ------------------------------------------------------------------------------------- */

/* Calls on_events until all is read; the lock is given up meanwhile. */
static void call_events(struct bb_subscription *sub, struct bb_delivery *delivery)
{
    struct bb_bus *bus = sub->bus;
    struct bb_event events[BB_EVENTS_PER_CALL];
    size_t n;
    bool is_whole = true;
    callback_begin(bus, BB_RUN_CALLBACK, sub);
    while ((n = bb_delivery_read(delivery, events, BB_COUNT(events))) > 0) {
        sub->options.on_events(sub, events, n, sub->options.arg);
        if (atomic_load_explicit(&sub->is_closing, memory_order_acquire)) {
            is_whole = false;
            break;
        }
    }
    callback_end(bus);
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

void bb_deliver(struct bb_subscription *sub, struct bb_delivery *delivery)
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
    sub->has_come = true;
    sub->has_retained = sub->has_retained || delivery->retained == BB_RETAINED_LAST;
    sub->received_bytes += delivery->bytes;
    sub->unread_bytes += delivery->bytes;
    if (has_callback) {
        call_events(sub, delivery);
        bb_delivery_fini(delivery);
    }
}

/* --- the end of subscriptions ------------------------------------------------------------------- */

static struct bb_subscription *find_untold(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        if (sub->state == BB_SUB_ENDED && !sub->is_told && sub->options.on_ended != NULL) {
            return sub;
        }
    }
    return NULL;
}

void bb_deliver_ends(struct bb_bus *bus)
{
    while (bus->n_untold > 0) {
        struct bb_subscription *sub = find_untold(bus);
        bus->n_untold--;
        if (sub == NULL) {
            continue; /* it was unsubscribed before it could be told */
        }
        sub->is_told = true;
        callback_begin(bus, BB_RUN_CALLBACK, sub);
        sub->options.on_ended(sub, sub->error, sub->error_text, sub->options.arg);
        callback_end(bus);
        if (sub->is_abandoned) {
            bb_subscription_free(sub);
        }
    }
}

/* --- answers to publishers ---------------------------------------------------------------------- */

/* Without the lock. Return: how many callbacks were called. */
static unsigned tell_done(struct bb_bus *bus, const struct bb_batch *batch)
{
    unsigned n = 0;
    for (; batch != NULL; batch = batch->next) {
        for (uint32_t i = 0; i < batch->n_tracked; i++) {
            const struct bb_tracked *tracked = &batch->tracked[i];
            if (tracked->on_ack != NULL) {
                struct bb_ack ack = bb_outbox_ack_of(batch, tracked);
                tracked->on_ack(bus, &ack, tracked->arg);
                n++;
            }
        }
    }
    return n;
}

void bb_deliver_acks(struct bb_bus *bus)
{
    uint64_t n_answered = bb_outbox_answered(&bus->outbox);
    struct bb_batch *done = bb_outbox_take_done(&bus->outbox);
    if (done == NULL) {
        return;
    }
    if (bus->outbox.n_callbacks > 0) {
        callback_begin(bus, BB_RUN_ACKS, NULL);
        unsigned n = tell_done(bus, done);
        callback_end(bus);
        bus->outbox.n_callbacks -= n;
    }
    bb_batches_unref(done);
    bus->n_told = n_answered;
}

/* --- the state ---------------------------------------------------------------------------------- */

void bb_deliver_state(struct bb_bus *bus)
{
    enum bb_bus_state state = bb_bus_public_state(bus);
    if (state == bus->told_state) {
        return;
    }
    bus->told_state = state;
    bb_bus_changed(bus);
    if (bus->options.on_state == NULL) {
        return;
    }
    bool is_bad = state == BB_STATE_WAITING || state == BB_STATE_CLOSED;
    int error = is_bad ? bus->last_error : 0;
    char text[sizeof(bus->last_text)];
    (void)snprintf(text, sizeof(text), "%s", is_bad ? bus->last_text : "");
    callback_begin(bus, BB_RUN_CALLBACK, NULL);
    bus->options.on_state(bus, state, error, text, bus->options.arg);
    callback_end(bus);
}

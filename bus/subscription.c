/* SPDX-License-Identifier: Apache-2.0 */
/* A subscription as the broker sees it: asked for, asked for again after a reconnection, credited, ended. */
#include "bus/subscription.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/conn.h"
#include "bus/places.h"
#include "bus/signal.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const overflow_names[] = {
    [BB_OVERFLOW_DEFAULT] = NULL,
    [BB_OVERFLOW_SLIDE] = "slide",
    [BB_OVERFLOW_DROP_OLDEST] = "drop_oldest",
    [BB_OVERFLOW_DROP_NEWEST] = "drop_newest",
    [BB_OVERFLOW_CONFLATE] = "conflate",
    [BB_OVERFLOW_REFUSE] = "refuse",
    [BB_OVERFLOW_DISCONNECT] = "disconnect",
};

const char *bb_overflow_name(enum bb_overflow overflow)
{
    return overflow_names[overflow];
}

struct bb_subscription *bb_subscription_find(struct bb_bus *bus, uint64_t number)
{
    return bb_map_find(&bus->subs, bb_slice(&number, sizeof(number)));
}

/* --- asking ------------------------------------------------------------------------------------- */

static void write_from(const struct bb_subscription *sub, struct bb_buf *out)
{
    if (sub->has_started) {
        bb_places_write(sub, sub->bus->has_lives, out);
        return;
    }
    switch (sub->options.from) {
    case BB_FROM_NEW:
        bb_mp_write_str(out, bb_slice_str("new"));
        break;
    case BB_FROM_LAST:
        bb_mp_write_str(out, bb_slice_str("last"));
        break;
    case BB_FROM_OLDEST:
        bb_mp_write_str(out, bb_slice_str("oldest"));
        break;
    case BB_FROM_SEQUENCE:
        bb_mp_write_uint(out, sub->options.from_value);
        break;
    case BB_FROM_ID:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("id"));
        bb_mp_write_array(out, 3);
        bb_mp_write_uint(out, sub->options.from_id.server);
        bb_mp_write_uint(out, sub->options.from_id.session);
        bb_mp_write_uint(out, sub->options.from_id.instance);
        break;
    case BB_FROM_TIME:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, sub->options.from_value);
        break;
    }
}

/* What was now when it began for the first time. */
static void write_now(const struct bb_subscription *sub, struct bb_buf *out)
{
    if (sub->ends.len == 0) {
        bb_mp_write_str(out, bb_slice_str("now"));
        return;
    }
    bb_mp_write_map(out, 1);
    bb_mp_write_str(out, bb_slice_str("last"));
    bb_buf_append(out, sub->ends.data, sub->ends.len);
}

static void write_until(const struct bb_subscription *sub, struct bb_buf *out)
{
    bb_mp_write_str(out, bb_slice_str("until"));
    switch (sub->options.until) {
    case BB_UNTIL_NONE:
        bb_mp_write_nil(out);
        break;
    case BB_UNTIL_NOW:
        write_now(sub, out);
        break;
    case BB_UNTIL_SEQUENCE:
        bb_mp_write_uint(out, sub->options.until_value);
        break;
    case BB_UNTIL_TIME:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, sub->options.until_value);
        break;
    }
}

static void write_options(const struct bb_subscription *sub, struct bb_buf *out)
{
    bool has_overflow = sub->options.overflow != BB_OVERFLOW_DEFAULT;
    bool has_budget = sub->options.budget != 0;
    bool has_until = sub->options.until != BB_UNTIL_NONE;
    bool has_view = sub->options.view != BB_VIEW_DEFAULT;
    bool has_retained = sub->options.retained && !sub->has_retained;
    bool has_cursor = sub->options.durable != NULL;
    bool has_lives = sub->bus->has_lives;
    bb_mp_write_map(out, 2u + has_overflow + has_budget + has_until + has_view + has_retained + has_cursor +
                             has_lives);
    if (has_lives) {
        bb_mp_write_str(out, bb_slice_str("lives"));
        bb_mp_write_bool(out, true);
    }
    if (has_until) {
        write_until(sub, out);
    }
    if (has_view) {
        bb_mp_write_str(out, bb_slice_str("view"));
        bb_mp_write_str(out, bb_slice_str(sub->options.view == BB_VIEW_EARLY ? "early" : "durable"));
    }
    if (has_retained) {
        bb_mp_write_str(out, bb_slice_str("retained"));
        bb_mp_write_bool(out, true);
    }
    if (has_cursor) {
        bb_mp_write_str(out, bb_slice_str("durable"));
        bb_mp_write_str(out, bb_slice_str(sub->options.durable));
    }
    bb_mp_write_str(out, bb_slice_str("bytes"));
    bb_mp_write_uint(out, sub->granted_bytes);
    bb_mp_write_str(out, bb_slice_str("events"));
    bb_mp_write_uint(out, sub->granted_events);
    if (has_overflow) {
        bb_mp_write_str(out, bb_slice_str("overflow"));
        bb_mp_write_str(out, bb_slice_str(overflow_names[sub->options.overflow]));
    }
    if (has_budget) {
        bb_mp_write_str(out, bb_slice_str("budget"));
        bb_mp_write_uint(out, sub->options.budget);
    }
}

/* What may be on its way: the window less what came earlier and is not read yet. */
static uint64_t bytes_to_grant(const struct bb_subscription *sub)
{
    uint64_t window = sub->options.window_bytes;
    return sub->received_bytes + (window > sub->unread_bytes ? window - sub->unread_bytes : 0);
}

/*
 * Nothing came since `subscribed`, and if the cursor was void the gap that says so is lost. The same start of
 * the broker has that cursor as it was, and tells it again.
 */
static bool begins_at_cursor(const struct bb_subscription *sub)
{
    return sub->options.durable != NULL && !sub->has_come && sub->run == sub->bus->run_number;
}

void bb_subscription_ask(struct bb_subscription *sub)
{
    struct bb_bus *bus = sub->bus;
    struct bb_buf from = BB_BUF_INIT;
    struct bb_buf options = BB_BUF_INIT;
    sub->has_started = sub->has_started && !begins_at_cursor(sub);
    sub->connection = bus->n_links;
    sub->received_bytes = 0;
    sub->consumed_events = 0;
    sub->granted_bytes = bytes_to_grant(sub);
    sub->granted_events = sub->options.window_events;
    write_from(sub, &from);
    write_options(sub, &options);
    sub->corr = ++bus->last_corr;
    struct bb_msg msg = {
        .type = BB_MSG_SUBSCRIBE,
        .corr = sub->corr,
        .sub = sub->number,
        .patterns = bb_buf_slice(&sub->patterns),
        .from = bb_buf_slice(&from),
        .options = bb_buf_slice(&options),
    };
    if (from.error < 0 || options.error < 0 || bb_conn_send(bus, &msg) < 0) {
        bb_conn_drop(bus, BB_ENOMEM, "subscribe could not be sent");
    } else {
        sub->state = BB_SUB_ASKED;
    }
    bb_buf_fini(&from);
    bb_buf_fini(&options);
}

void bb_subscription_consumed(struct bb_subscription *sub, const struct bb_delivery *delivery)
{
    struct bb_bus *bus = sub->bus;
    uint64_t window = sub->options.window_bytes;
    sub->counts.events += delivery->n_events;
    sub->counts.bytes += delivery->bytes;
    sub->unread_bytes -= delivery->bytes;
    if (delivery->connection == sub->connection) {
        sub->consumed_events += delivery->n_events;
    }
    uint64_t bytes = bytes_to_grant(sub);
    uint64_t events = sub->consumed_events + sub->options.window_events;
    bool is_due = bytes >= sub->granted_bytes + window / 2 ||
                  events >= sub->granted_events + sub->options.window_events / 2;
    if (!is_due || !bb_bus_is_ready(bus) || sub->state == BB_SUB_ENDED || sub->is_closing) {
        return;
    }
    /* Never less than before: credit only grows. */
    sub->granted_bytes = BB_MAX(bytes, sub->granted_bytes);
    sub->granted_events = BB_MAX(events, sub->granted_events);
    struct bb_msg msg = {
        .type = BB_MSG_CREDIT,
        .sub = sub->number,
        .bytes = sub->granted_bytes,
        .events = sub->granted_events,
    };
    bb_conn_post(bus, &msg);
}

/* --- all of them -------------------------------------------------------------------------------- */

void bb_subscriptions_ready(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        if (sub->state == BB_SUB_NEW) {
            bb_subscription_ask(sub);
        }
    }
    bus->save_at = bus->n_durable > 0 ? 0 : BB_NEVER; /* what could not be sent before */
}

void bb_subscriptions_lost(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        if (sub->state != BB_SUB_ENDED) {
            sub->state = BB_SUB_NEW;
            /* The retained values begin anew, and with them all that follows. */
            sub->has_started = sub->has_started && (!sub->options.retained || sub->has_retained);
        }
    }
}

void bb_subscription_end(struct bb_subscription *sub, int error, const char *text, size_t text_len)
{
    if (sub->state == BB_SUB_ENDED) {
        return;
    }
    sub->state = BB_SUB_ENDED;
    sub->error = error;
    (void)snprintf(sub->error_text, sizeof(sub->error_text), "%.*s", (int)text_len, text);
    if (sub->options.on_ended != NULL) {
        sub->bus->n_untold++;
    }
    bb_bus_changed(sub->bus);
}

void bb_subscriptions_end(struct bb_bus *bus, int error, const char *text)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        bb_subscription_end(sub, error, text, strlen(text));
    }
}

void bb_subscriptions_refused(struct bb_bus *bus, uint64_t corr, int error, struct bb_slice text)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        if (sub->corr == corr && sub->state == BB_SUB_ASKED) {
            bb_subscription_end(sub, error, (const char *)text.data, text.len);
        }
    }
}

/* --- the end ------------------------------------------------------------------------------------ */

void bb_subscription_free(struct bb_subscription *sub)
{
    if (sub->has_callbacks) {
        sub->bus->n_callbacks--;
    }
    bb_deliveries_free(sub->queue);
    bb_deliveries_free(sub->reading);
    bb_deliveries_free(sub->read);
    bb_places_fini(sub);
    bb_buf_fini(&sub->patterns);
    bb_buf_fini(&sub->ends);
    free(sub);
}

void bb_subscriptions_free(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        bb_subscription_free(sub);
    }
    bb_map_fini(&bus->subs);
}

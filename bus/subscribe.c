/* SPDX-License-Identifier: Apache-2.0 */
/* Subscriptions: asked for, asked for again after a reconnection, credited, ended. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/subscription.h"

#include <stdio.h>
#include <stdlib.h>

#define PLACES_MAX 65536

static const char *const overflow_names[] = {
    [BB_OVERFLOW_SLIDE] = "slide",
    [BB_OVERFLOW_DROP_OLDEST] = "drop_oldest",
    [BB_OVERFLOW_DROP_NEWEST] = "drop_newest",
    [BB_OVERFLOW_CONFLATE] = "conflate",
    [BB_OVERFLOW_REFUSE] = "refuse",
    [BB_OVERFLOW_DISCONNECT] = "disconnect",
};

static struct bb_slice sub_key(const struct bb_subscription *sub)
{
    return bb_slice(&sub->number, sizeof(sub->number));
}

struct bb_subscription *bb_subscription_find(struct bb_bus *bus, uint64_t number)
{
    return bb_map_find(&bus->subs, bb_slice(&number, sizeof(number)));
}

/* --- asking ------------------------------------------------------------------------------------- */

static void write_from(const struct bb_subscription *sub, struct bb_buf *out)
{
    if (sub->has_started) {
        bb_places_write(sub, out);
        return;
    }
    switch (sub->options.from) {
    case BB_FROM_NEW:
        bb_mp_write_str(out, bb_slice_str("new"));
        break;
    case BB_FROM_LAST:
        bb_mp_write_str(out, bb_slice_str("last"));
        break;
    case BB_FROM_SEQUENCE:
        bb_mp_write_uint(out, sub->options.from_value);
        break;
    case BB_FROM_TIME:
        bb_mp_write_map(out, 1);
        bb_mp_write_str(out, bb_slice_str("time"));
        bb_mp_write_uint(out, sub->options.from_value);
        break;
    }
}

static void write_options(const struct bb_subscription *sub, struct bb_buf *out)
{
    bool has_overflow = sub->options.overflow != BB_OVERFLOW_SLIDE;
    bool has_budget = sub->options.budget != 0;
    bb_mp_write_map(out, 2u + has_overflow + has_budget);
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

void bb_subscription_ask(struct bb_subscription *sub)
{
    struct bb_bus *bus = sub->bus;
    struct bb_buf from = BB_BUF_INIT;
    struct bb_buf options = BB_BUF_INIT;
    sub->connection = bus->n_sockets;
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
    (void)bb_conn_send(bus, &msg);
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
}

void bb_subscriptions_lost(struct bb_bus *bus)
{
    struct bb_subscription *sub;
    size_t at = 0;
    while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL) {
        if (sub->state != BB_SUB_ENDED) {
            sub->state = BB_SUB_NEW;
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

void bb_subscriptions_tell(struct bb_bus *bus)
{
    while (bus->n_untold > 0) {
        struct bb_subscription *sub = find_untold(bus);
        bus->n_untold--;
        if (sub == NULL) {
            continue; /* it was unsubscribed before it could be told */
        }
        sub->is_told = true;
        bb_bus_callback_begin(bus, sub);
        sub->options.on_ended(sub, sub->error, sub->error_text, sub->options.arg);
        bb_bus_callback_end(bus);
        if (sub->is_abandoned) {
            bb_subscription_free(sub);
        }
    }
}

/* --- the calls ---------------------------------------------------------------------------------- */

static void free_deliveries(struct bb_delivery *delivery)
{
    while (delivery != NULL) {
        struct bb_delivery *next = delivery->next;
        bb_delivery_fini(delivery);
        free(delivery);
        delivery = next;
    }
}

void bb_subscription_free(struct bb_subscription *sub)
{
    free_deliveries(sub->queue);
    free_deliveries(sub->reading);
    free_deliveries(sub->read);
    bb_places_fini(sub);
    bb_buf_fini(&sub->patterns);
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

static int copy_patterns(struct bb_subscription *sub, const struct bb_subscribe_options *options)
{
    if (options->n_patterns == 0 || options->n_patterns > UINT32_MAX || options->patterns == NULL) {
        return BB_EPATTERN;
    }
    bb_mp_write_array(&sub->patterns, (uint32_t)options->n_patterns);
    for (size_t i = 0; i < options->n_patterns; i++) {
        struct bb_slice pattern = bb_slice_str(options->patterns[i]);
        int r = bb_pattern_check(pattern);
        if (r < 0) {
            return r;
        }
        bb_mp_write_str(&sub->patterns, pattern);
    }
    return sub->patterns.error;
}

static int copy_options(struct bb_subscription *sub, const struct bb_subscribe_options *given)
{
    struct bb_subscribe_options *options = &sub->options;
    *options = (struct bb_subscribe_options)BB_SUBSCRIBE_OPTIONS_INIT;
    if (given == NULL || given->size == 0) {
        return BB_EINVAL;
    }
    memcpy(options, given, given->size < sizeof(*options) ? given->size : sizeof(*options));
    if ((size_t)options->overflow >= BB_COUNT(overflow_names) || (unsigned)options->from > BB_FROM_TIME ||
        options->window_bytes == 0 || options->window_events == 0) {
        return BB_EINVAL;
    }
    int r = copy_patterns(sub, options);
    options->patterns = NULL;
    return r;
}

static int
sub_new(struct bb_bus *bus, const struct bb_subscribe_options *options, struct bb_subscription **ret_sub)
{
    struct bb_subscription *sub = calloc(1, sizeof(*sub));
    if (sub == NULL) {
        return BB_ENOMEM;
    }
    sub->bus = bus;
    sub->queue_end = &sub->queue;
    bb_map_init(&sub->places, bus->subs.seed, PLACES_MAX);
    int r = copy_options(sub, options);
    if (r < 0) {
        bb_subscription_free(sub);
        return r;
    }
    *ret_sub = sub;
    return 0;
}

static int wait_live(struct bb_subscription *sub, uint64_t deadline)
{
    int r = 0;
    while (sub->state != BB_SUB_LIVE && !sub->has_started) {
        if (sub->state == BB_SUB_ENDED) {
            sub->is_told = true; /* by the return value */
            return sub->error;
        }
        if (r < 0) {
            return r;
        }
        r = bb_bus_wait(sub->bus, deadline);
    }
    return 0;
}

/* Out of the map, and out of the broker if it is there. The lock may be given up. */
static int sub_stop(struct bb_subscription *sub, int timeout_ms)
{
    struct bb_bus *bus = sub->bus;
    struct bb_msg msg = {.type = BB_MSG_UNSUBSCRIBE, .sub = sub->number};
    struct bb_request request = {0};
    bool is_known = sub->state == BB_SUB_ASKED || sub->state == BB_SUB_LIVE;
    int r = 0;
    sub->is_closing = true;
    (void)bb_map_remove(&bus->subs, sub_key(sub));
    if (is_known && timeout_ms == 0) {
        msg.corr = ++bus->last_corr;
        (void)bb_conn_send(bus, &msg);
    } else if (is_known) {
        r = bb_request_run(bus, &msg, &request, bb_deadline(timeout_ms));
        bb_buf_fini(&request.value);
    }
    return r;
}

/* In its own callback it is freed when that has returned; otherwise when no callback of it runs. */
static void sub_release(struct bb_subscription *sub)
{
    struct bb_bus *bus = sub->bus;
    if (bus->calling == sub && bb_bus_check_wait(bus) < 0) {
        sub->is_abandoned = true;
        return;
    }
    while (bus->calling == sub) {
        (void)bb_bus_wait(bus, BB_NEVER);
    }
    bb_subscription_free(sub);
}

int bb_subscribe(bb_bus *bus,
                 const struct bb_subscribe_options *options,
                 int timeout_ms,
                 bb_subscription **ret_sub)
{
    struct bb_subscription *sub;
    int r = sub_new(bus, options, &sub);
    if (r < 0) {
        return r;
    }
    uint64_t deadline = bb_deadline(timeout_ms);
    (void)pthread_mutex_lock(&bus->lock);
    r = timeout_ms == 0 ? 0 : bb_bus_check_wait(bus);
    r = r < 0 || bus->error == 0 ? r : BB_ECLOSED;
    sub->number = ++bus->last_sub;
    r = r < 0 ? r : bb_map_add(&bus->subs, sub_key(sub), sub);
    if (r < 0) {
        (void)pthread_mutex_unlock(&bus->lock);
        bb_subscription_free(sub);
        return r;
    }
    if (bb_bus_is_ready(bus)) {
        bb_subscription_ask(sub);
    }
    r = timeout_ms == 0 ? 0 : wait_live(sub, deadline);
    if (r < 0) {
        (void)sub_stop(sub, 0);
        sub_release(sub);
    } else {
        *ret_sub = sub;
    }
    (void)pthread_mutex_unlock(&bus->lock);
    return r;
}

int bb_unsubscribe(bb_subscription *sub, int timeout_ms)
{
    if (sub == NULL) {
        return 0;
    }
    struct bb_bus *bus = sub->bus;
    (void)pthread_mutex_lock(&bus->lock);
    int r = sub_stop(sub, bb_bus_check_wait(bus) < 0 ? 0 : timeout_ms);
    sub_release(sub);
    (void)pthread_mutex_unlock(&bus->lock);
    return r;
}

/* The broker's answer comes behind everything that it sent for the subscription. */
static int drain_one(struct bb_subscription *sub, uint64_t deadline)
{
    struct bb_bus *bus = sub->bus;
    struct bb_msg msg = {.type = BB_MSG_UNSUBSCRIBE, .sub = sub->number};
    struct bb_request request = {0};
    int r = 0;
    if (sub->state == BB_SUB_ASKED || sub->state == BB_SUB_LIVE) {
        r = bb_request_run(bus, &msg, &request, deadline);
        bb_buf_fini(&request.value);
    }
    sub->is_told = true; /* it is what the caller asked for */
    bb_subscription_end(sub, BB_ECLOSED, "drained", strlen("drained"));
    return r;
}

int bb_subscriptions_drain(struct bb_bus *bus, uint64_t deadline)
{
    int result = 0;
    for (;;) {
        struct bb_subscription *sub;
        size_t at = 0;
        while ((sub = bb_map_next(&bus->subs, &at, NULL)) != NULL && sub->state == BB_SUB_ENDED) {
        }
        if (sub == NULL) {
            return result;
        }
        int r = drain_one(sub, deadline);
        result = result < 0 ? result : r;
    }
}

/* --- receiving by call -------------------------------------------------------------------------- */

/* What the last call gave is not needed any more. */
static void release_read(struct bb_subscription *sub)
{
    for (struct bb_delivery *delivery = sub->read; delivery != NULL; delivery = delivery->next) {
        bb_subscription_consumed(sub, delivery);
    }
    free_deliveries(sub->read);
    sub->read = NULL;
}

static int wait_queue(struct bb_subscription *sub, int timeout_ms)
{
    struct bb_bus *bus = sub->bus;
    uint64_t deadline = bb_deadline(timeout_ms);
    int r = 0;
    while (sub->queue == NULL) {
        if (sub->state == BB_SUB_ENDED) {
            return sub->error;
        }
        if (r < 0) {
            return r;
        }
        r = timeout_ms == 0 && !bus->options.embedded ? BB_ETIMEOUT : bb_bus_check_wait(bus);
        r = r < 0 ? r : bb_bus_wait(bus, deadline);
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
    max = max > INT32_MAX ? INT32_MAX : max;
    while (r == 0 && n == 0) {
        (void)pthread_mutex_lock(&bus->lock);
        release_read(sub);
        if (sub->reading == NULL) {
            r = wait_queue(sub, timeout_ms);
        }
        (void)pthread_mutex_unlock(&bus->lock);
        n = r < 0 ? 0 : read_some(sub, events, max);
    }
    return r < 0 ? r : (int)n;
}

void bb_subscription_get_counts(bb_subscription *sub, struct bb_subscription_counts *ret_counts)
{
    (void)pthread_mutex_lock(&sub->bus->lock);
    *ret_counts = sub->counts;
    (void)pthread_mutex_unlock(&sub->bus->lock);
}

bb_bus *bb_subscription_bus(bb_subscription *sub)
{
    return sub->bus;
}

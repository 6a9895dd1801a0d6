/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that begin and end a subscription. */
#include "proto/base/error.h"
#include "proto/base/utf8.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "bus/api/request.h"
#include "bus/api/wait.h"
#include "bus/conn.h"
#include "bus/cursor.h"
#include "bus/signal.h"

#include <stdlib.h>

#define PLACES_MAX 65536

static struct bb_slice sub_key(const struct bb_subscription *sub)
{
    return bb_slice(&sub->number, sizeof(sub->number));
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

/* The name of the cursor. */
static int copy_name(struct bb_subscription *sub, const char *name)
{
    size_t len = name != NULL ? strlen(name) : 0;
    if (name == NULL) {
        return 0;
    }
    if (len == 0 || len >= sizeof(sub->cursor.name) || !bb_utf8_is_valid(name, len)) {
        return BB_EINVAL;
    }
    memcpy(sub->cursor.name, name, len);
    sub->options.durable = sub->cursor.name;
    return 0;
}

static int copy_options(struct bb_subscription *sub, const struct bb_subscribe_options *given)
{
    struct bb_subscribe_options *options = &sub->options;
    *options = (struct bb_subscribe_options)BB_SUBSCRIBE_OPTIONS_INIT;
    if (given == NULL || given->size == 0) {
        return BB_EINVAL;
    }
    memcpy(options, given, given->size < sizeof(*options) ? given->size : sizeof(*options));
    if ((unsigned)options->overflow > BB_OVERFLOW_DISCONNECT || (unsigned)options->from > BB_FROM_OLDEST ||
        (unsigned)options->until > BB_UNTIL_TIME || (unsigned)options->view > BB_VIEW_EARLY ||
        options->window_bytes == 0 || options->window_events == 0 ||
        (options->retained && options->from != BB_FROM_NEW)) {
        return BB_EINVAL;
    }
    int r = copy_name(sub, options->durable);
    r = r < 0 ? r : copy_patterns(sub, options);
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
    bb_map_init(&sub->places, bus->seed, PLACES_MAX);
    int r = copy_options(sub, options);
    if (r < 0) {
        bb_subscription_free(sub);
        return r;
    }
    *ret_sub = sub;
    return 0;
}

/* A callback may end the subscription, and with it the struct, while this waits: found anew each time. */
static int wait_live(struct bb_bus *bus, uint64_t number, uint64_t deadline)
{
    struct bb_subscription *sub;
    int r = 0;
    while ((sub = bb_subscription_find(bus, number)) != NULL && !sub->has_started) {
        if (sub->state == BB_SUB_ENDED) {
            sub->is_told = true; /* by the return value */
            return sub->error;
        }
        if (r < 0) {
            return r;
        }
        r = bb_wait(bus, deadline);
    }
    return 0;
}

/* Out of the map, and out of the broker if it is there. The lock may be given up. @waits: for the answer. */
static int sub_stop(struct bb_subscription *sub, bool waits, uint64_t deadline)
{
    struct bb_bus *bus = sub->bus;
    struct bb_msg msg = {.type = BB_MSG_UNSUBSCRIBE, .sub = sub->number};
    struct bb_request request = {0};
    bool is_known = bb_bus_is_ready(bus) && (sub->state == BB_SUB_ASKED || sub->state == BB_SUB_LIVE);
    int r = 0;
    sub->is_closing = true;
    (void)bb_map_remove(&bus->subs, sub_key(sub));
    if (sub->options.durable != NULL && !bb_bus_in_callback(bus)) {
        bb_wait_end_of_callback(bus, sub); /* what its callback is given counts */
    }
    bb_cursor_finish(sub);
    bus->n_durable -= sub->options.durable != NULL;
    if (is_known && !waits) {
        msg.corr = ++bus->last_corr;
        bb_conn_post(bus, &msg);
    } else if (is_known) {
        r = bb_request_run(bus, &msg, &request, deadline);
        bb_buf_fini(&request.value);
    }
    return r;
}

/* In its own callback it is freed when that has returned; otherwise when no callback of it runs. */
static void sub_release(struct bb_subscription *sub)
{
    struct bb_bus *bus = sub->bus;
    if (bus->calling == sub && bb_bus_in_callback(bus)) {
        sub->is_abandoned = true;
        return;
    }
    bb_wait_end_of_callback(bus, sub);
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
    bb_bus_lock(bus);
    r = timeout_ms == 0 ? 0 : bb_wait_check(bus);
    r = r < 0 || bus->error == 0 ? r : BB_ECLOSED;
    uint64_t number = sub->number = ++bus->last_sub;
    sub->has_callbacks = sub->options.on_events != NULL || sub->options.on_ended != NULL;
    bus->n_callbacks += sub->has_callbacks;
    r = r < 0 ? r : bb_map_add(&bus->subs, sub_key(sub), sub);
    if (r < 0) {
        bb_subscription_free(sub);
        bb_bus_unlock(bus);
        return r;
    }
    bus->n_durable += sub->options.durable != NULL;
    if (bb_bus_is_ready(bus)) {
        bb_subscription_ask(sub);
    }
    r = timeout_ms == 0 ? 0 : wait_live(bus, number, deadline);
    sub = bb_subscription_find(bus, number);
    if (r < 0 && sub != NULL) {
        (void)sub_stop(sub, false, 0);
        sub_release(sub);
    } else if (r == 0) {
        *ret_sub = sub;
    }
    bb_bus_unlock(bus);
    return r;
}

int bb_unsubscribe(bb_subscription *sub, int timeout_ms)
{
    if (sub == NULL) {
        return 0;
    }
    struct bb_bus *bus = sub->bus;
    uint64_t deadline = bb_deadline(timeout_ms);
    bb_bus_lock(bus);
    int r = 0;
    if (!sub->is_closing) { /* else bb_subscribe() gives it up right now, and this is its callback */
        r = sub_stop(sub, timeout_ms != 0 && !bb_bus_in_callback(bus), deadline);
        sub_release(sub);
    }
    bb_bus_unlock(bus);
    return r;
}

/* The broker's answer comes behind everything that it sent for the subscription. */
static int drain_one(struct bb_subscription *sub, uint64_t deadline)
{
    struct bb_bus *bus = sub->bus;
    uint64_t number = sub->number;
    struct bb_msg msg = {.type = BB_MSG_UNSUBSCRIBE, .sub = number};
    struct bb_request request = {0};
    int r = 0;
    if (sub->state == BB_SUB_ASKED || sub->state == BB_SUB_LIVE) {
        r = bb_request_run(bus, &msg, &request, deadline);
        bb_buf_fini(&request.value);
        sub = bb_subscription_find(bus, number); /* its callback may have ended it */
    }
    if (sub != NULL) {
        sub->is_told = true; /* it is what the caller asked for */
        bb_subscription_end(sub, BB_ECLOSED, "drained", strlen("drained"));
    }
    return r;
}

static int drain_all(struct bb_bus *bus, uint64_t deadline)
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

int bb_bus_drain(bb_bus *bus, int timeout_ms)
{
    uint64_t deadline = bb_deadline(timeout_ms);
    bb_bus_lock(bus);
    int r = bb_wait_check(bus);
    if (r == 0) {
        int flushed = bb_wait_told(bus, bus->outbox.n_published, deadline);
        flushed = flushed < 0 ? flushed : bb_outbox_take_refusal(&bus->outbox);
        r = drain_all(bus, deadline);
        r = flushed < 0 ? flushed : r;
    }
    bb_bus_unlock(bus);
    return r;
}

bb_bus *bb_subscription_bus(bb_subscription *sub)
{
    return sub->bus;
}

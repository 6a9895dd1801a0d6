/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and forgetting cursors. */
#include "bus/cursor.h"

#include "proto/base/error.h"

#include "bus/api/request.h"
#include "bus/signal.h"

/* A callback may end the subscription while this waits: found anew. */
static int save_and_wait(struct bb_subscription *sub, uint64_t deadline)
{
    struct bb_bus *bus = sub->bus;
    uint64_t number = sub->number;
    struct bb_buf positions = BB_BUF_INIT;
    struct bb_request request = {0};
    struct bb_msg msg = bb_cursor_message(sub, &positions);
    int r = positions.error < 0 ? positions.error : bb_request_run(bus, &msg, &request, deadline);
    if (r < 0 && (sub = bb_subscription_find(bus, number)) != NULL) {
        bb_cursor_unsaved(sub);
    }
    bb_buf_fini(&positions);
    bb_buf_fini(&request.value);
    return r;
}

int bb_subscription_save(bb_subscription *sub, int timeout_ms)
{
    struct bb_bus *bus = sub->bus;
    uint64_t deadline = bb_deadline(timeout_ms);
    bb_bus_lock(bus);
    if (sub->options.on_events == NULL && sub->has_started) {
        bb_cursor_take_read(sub);
    }
    int r = bb_cursor_check(sub);
    bool is_saved = !sub->cursor.has_moved; /* it is where the subscription began */
    if (r == 0 && !is_saved && timeout_ms != 0) {
        r = save_and_wait(sub, deadline);
    } else if (r == 0 && !is_saved) {
        r = bb_bus_is_ready(bus) ? bb_cursor_send(sub) : BB_ECONNECT;
    }
    bb_bus_unlock(bus);
    return r;
}

int bb_cursor_forget(bb_bus *bus, const char *name, int timeout_ms)
{
    struct bb_msg msg = {.type = BB_MSG_CURSOR, .name = bb_slice_str(name)};
    return bb_request_done(bus, &msg, timeout_ms);
}

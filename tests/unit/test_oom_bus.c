/* SPDX-License-Identifier: Apache-2.0 */
/* Memory runs out in the library's queue of publishes: the publisher is told, what was taken is sent. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "bus/delivery.h"
#include "bus/outbox.h"
#include "tests/lib/fault.h"

#include <criterion/criterion.h>

#define EVENTS 40

/* Publish one event; whether it was taken. */
static bool publish(struct bb_outbox *outbox, size_t len)
{
    uint8_t *to = NULL;
    fault_enter();
    int r = bb_outbox_room(outbox, len, 0, (struct bb_slice){0}, &to);
    (void)fault_leave();
    if (r == 0) {
        memset(to, 'x', len);
        bb_outbox_commit(outbox, len, BB_LEVEL_NONE, NULL);
    } else {
        cr_assert_eq(r, BB_ENOMEM);
    }
    return r == 0;
}

/* Send what may be sent; how many events that were. */
static size_t send_all(struct bb_outbox *outbox)
{
    size_t n = 0;
    struct bb_batch *batch = NULL;
    for (;;) {
        fault_enter();
        batch = bb_outbox_next(outbox);
        (void)fault_leave();
        if (batch == NULL) {
            return n;
        }
        n += batch->count;
        bb_outbox_sent(outbox);
    }
}

static bool run_outbox(size_t nth, enum fault_mode mode)
{
    struct bb_outbox outbox;
    size_t n_taken = 0;
    size_t n_sent = 0;
    size_t live_before = fault_live();
    bb_outbox_init(&outbox, 1024, 1 << 20, false);
    fault_start(nth, mode);
    for (size_t i = 0; i < EVENTS; i++) {
        n_taken += publish(&outbox, i % 7 == 0 ? 3000 : 300);
        n_sent += send_all(&outbox);
    }
    bool failed = fault_stop();
    n_taken += publish(&outbox, 5000);
    n_sent += send_all(&outbox);
    for (uint64_t number = 1; number < outbox.next_number; number++) {
        bb_outbox_refuse(&outbox, number, BB_EREFUSED);
    }
    n_sent += send_all(&outbox);
    cr_assert_eq(n_sent, n_taken, "fault %zu", nth);
    cr_assert_eq(outbox.n_published, n_taken);
    cr_assert(failed ? n_taken <= EVENTS + 1 : n_taken == EVENTS + 1);
    bb_outbox_fini(&outbox);
    cr_assert_eq(fault_live(), live_before, "fault %zu leaks", nth);
    return failed;
}

Test(oom_bus, what_the_outbox_took_is_sent)
{
    for (enum fault_mode mode = FAULT_ONCE; mode <= FAULT_ONWARD; mode++) {
        size_t nth = 0;
        while (run_outbox(nth, mode)) {
            nth++;
        }
        cr_assert_gt(nth, 0);
    }
}

Test(oom_bus, a_gap_without_memory_is_an_error)
{
    for (size_t nth = 0; nth < 4; nth++) {
        struct bb_delivery delivery = {0};
        size_t live_before = fault_live();
        size_t n_added = 0;
        fault_start(nth, FAULT_ONCE);
        for (uint64_t i = 0; i < 3; i++) {
            fault_enter();
            int r = bb_delivery_add_gap(&delivery, bb_slice_str("plant"), i + 1, i + 1, 1,
                                        bb_slice_str("overflow"));
            (void)fault_leave();
            cr_assert(r == 0 || r == BB_ENOMEM);
            n_added += r == 0;
        }
        cr_assert_eq(n_added, fault_stop() ? 2 : 3);
        bb_delivery_fini(&delivery);
        cr_assert_eq(fault_live(), live_before);
    }
}

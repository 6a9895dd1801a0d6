/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/core/deliver/overflow.h"

#include "broker/core/clients/client.h"
#include "broker/core/keep/policy.h"
#include "broker/core/keep/ring.h"
#include "broker/core/state.h"
#include "broker/core/subs/account.h"
#include "broker/core/subs/route.h"
#include "broker/core/subs/sub.h"
#include "broker/core/subs/wanted.h"

#include <stdlib.h>

struct bk_conflation {
    struct bk_core *core;
    struct bb_map newest; /* by path; the value is where the newest event lies */
};

/* --- conflate ------------------------------------------------------------------------------------------ */

static int note_newest(void *context, const struct bk_item *item)
{
    struct bk_conflation *conflation = context;
    struct bb_slice rest = bb_slice(item->data, item->len);
    struct bb_event_view event;
    int r = 0;
    while (rest.len > 0 && r == 0) {
        r = bb_event_read(&rest, &event);
        if (r == 0 && !(item->block->has_ttl &&
                        bb_event_has_expired(&event, item->block->time, conflation->core->wall))) {
            (void)bb_map_remove(&conflation->newest, event.path);
            /* the map never writes through its values */
            r = bb_map_add(&conflation->newest, event.path, bb_unconst(event.raw.data));
        }
    }
    return r;
}

static int conflate(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation)
{
    struct bk_conflation *conflation = calloc(1, sizeof(*conflation));
    const struct bk_block *block = NULL;
    if (conflation == NULL) {
        return BB_ENOMEM;
    }
    conflation->core = core;
    bb_map_init(&conflation->newest, core->config.seed, SIZE_MAX / 2);
    int r = 0;
    for (uint64_t pos = sub->cursor; r == 0 && (block = bk_ring_at(&core->ring, &pos)) != NULL; pos++) {
        bk_route_trim(&core->route);
        r = bk_wanted_each(core, sub, block, UINT64_MAX, note_newest, conflation);
    }
    if (r < 0) {
        bk_conflation_free(conflation);
        return r;
    }
    *ret_conflation = conflation;
    return 0;
}

bool bk_conflation_keeps(const struct bk_conflation *conflation, struct bb_slice path, const uint8_t *raw)
{
    return bb_map_find(&conflation->newest, path) == raw;
}

void bk_conflation_free(struct bk_conflation *conflation)
{
    if (conflation != NULL) {
        bb_map_fini(&conflation->newest);
        free(conflation);
    }
}

/* --- the others ------------------------------------------------------------------------------------------ */

static int drop_oldest(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation)
{
    const struct bk_block *block = NULL;
    uint64_t pos = sub->cursor;
    (void)ret_conflation;
    while (sub->lag_bytes > sub->budget && pos < core->fanned_pos &&
           (block = bk_ring_at(&core->ring, &pos)) != NULL) {
        bk_route_trim(&core->route);
        int r = bk_wanted_lose(core, sub, block, UINT64_MAX, BK_REASON_DROPPED_OLDEST);
        if (r < 0) {
            return r;
        }
        sub->cursor = ++pos;
    }
    return 0;
}

static void begin_dropping(struct bk_core *core, struct bk_sub *sub, uint64_t end)
{
    (void)core;
    if (!sub->is_dropping) {
        sub->is_dropping = true;
        sub->skip_pos = end;
    }
}

/* All that waited before the budget was used up has gone: what came since is lost, and then nothing any
 * more. */
static void end_dropping(struct bk_core *core, struct bk_sub *sub)
{
    for (size_t i = 0; i < sub->n_positions; i++) {
        struct bk_account *account = &sub->positions[i].account;
        sub->n_losing += account->n_losses == 0 && account->waiting > 0;
        sub->lag_bytes -= account->waiting_bytes;
        bk_account_lose_all(account, BK_REASON_DROPPED_NEWEST);
    }
    sub->cursor = core->fanned_pos;
    sub->is_dropping = false;
}

static int drop_newest(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation)
{
    (void)ret_conflation;
    if (sub->is_dropping && sub->cursor >= sub->skip_pos) {
        end_dropping(core, sub);
    }
    return 0;
}

static int note_any(void *context, const struct bk_item *item)
{
    (void)item;
    *(bool *)context = true;
    return 0;
}

void bk_overflow_removed(struct bk_core *core, struct bk_sub *sub)
{
    const struct bk_block *block = NULL;
    bool any = false;
    for (uint64_t pos = sub->cursor; sub->is_dropping && !any && pos < sub->skip_pos; pos++) {
        block = bk_ring_at(&core->ring, &pos);
        if (block == NULL || pos >= sub->skip_pos) {
            break;
        }
        bk_route_trim(&core->route);
        any = bk_wanted_each(core, sub, block, UINT64_MAX, note_any, &any) < 0 || any;
    }
    if (sub->is_dropping && !any) {
        end_dropping(core, sub);
    }
}

static void disconnect(struct bk_core *core, struct bk_sub *sub, uint64_t end)
{
    (void)end;
    if (!bk_client_is_doomed(sub->client)) {
        bk_count(core, BK_COUNTER_clients_overflowed, 1);
        bk_client_send_away(core, sub->client, BB_EOVERFLOW, NULL);
    }
}

/* --- the table ------------------------------------------------------------------------------------------ */

static const struct {
    /* The budget is exceeded by what came. */
    void (*arrived)(struct bk_core *core, struct bk_sub *sub, uint64_t end);
    /* Before a message; if the budget is exceeded, or always. */
    int (*apply)(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation);
    bool goes_on; /* in the log, if the channel is kept there */
    bool refuses; /* publishers */
    bool applies_always;
} policies[BK_OVERFLOWS] = {
    [BK_OVERFLOW_SLIDE] = {.goes_on = true},
    [BK_OVERFLOW_DROP_OLDEST] = {.apply = drop_oldest},
    [BK_OVERFLOW_DROP_NEWEST] = {.arrived = begin_dropping, .apply = drop_newest, .applies_always = true},
    [BK_OVERFLOW_CONFLATE] = {.apply = conflate},
    [BK_OVERFLOW_REFUSE] = {.refuses = true},
    [BK_OVERFLOW_DISCONNECT] = {.arrived = disconnect},
};

bool bk_overflow_goes_on(const struct bk_sub *sub)
{
    return policies[sub->overflow].goes_on && sub->filter != NULL;
}

bool bk_overflow_refuses(const struct bk_sub *sub)
{
    return policies[sub->overflow].refuses && sub->lag_bytes > sub->budget;
}

void bk_overflow_arrived(struct bk_core *core, struct bk_sub *sub, uint64_t end)
{
    if (policies[sub->overflow].arrived != NULL) {
        policies[sub->overflow].arrived(core, sub, end);
    }
}

int bk_overflow_apply(struct bk_core *core, struct bk_sub *sub, struct bk_conflation **ret_conflation)
{
    *ret_conflation = NULL;
    bool is_due = policies[sub->overflow].apply != NULL &&
                  (policies[sub->overflow].applies_always || sub->lag_bytes > sub->budget);
    return is_due ? policies[sub->overflow].apply(core, sub, ret_conflation) : 0;
}

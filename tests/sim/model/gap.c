/* SPDX-License-Identifier: Apache-2.0 */
/* Which events a gap may lose, by its reason (PROTOCOL 7.3 and 7.4). */
#include "tests/sim/model/account.h"
#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>

/* Brokers may count the heads of blocks to what waits. */
#define HEAD_BYTES 64

/* The clock by which a broker judges one message may be a little older than the message. */
#define NOT_YET_OVER_US 20000

static void fail(struct world *world,
                 struct account *account,
                 const struct gap *gap,
                 const struct truth_event *event,
                 const char *why)
{
    char kind[48];
    (void)snprintf(kind, sizeof(kind), "reason %.*s", (int)gap->reason.len, (const char *)gap->reason.data);
    account_fail(world, account, kind,
                 "%" PRIu64 " of '%s' (%.*s) is lost in the gap %" PRIu64 " to %" PRIu64 " as %.*s, but %s",
                 event->sequence, world->truth.names[gap->channel].text, (int)event->path.len,
                 (const char *)event->path.data, gap->from, gap->to, (int)gap->reason.len,
                 (const char *)gap->reason.data, why);
}

/* --- one event at a time ---------------------------------------------------------------------- */

static const char *
judge_overflow(struct world *world, const struct account *account, const struct truth_event *event)
{
    bool slides_only = account->wish.policies == POLICY_SLIDE;
    if (slides_only && event->inc->is_logged && account->wish.says_policy) {
        return "it slides on in the log";
    }
    return truth_may_be_evicted(world, event) ? NULL : "memory has room for it";
}

static const char *
judge_trimmed(struct world *world, const struct account *account, const struct truth_event *event)
{
    asked_loosen_trims(world, event->inc);
    bool may_be = truth_may_be_trimmed(world, event);
    /* A subscription that asks for more than memory has is told the same (PROTOCOL 7.1). */
    bool slides_only = account->wish.policies == POLICY_SLIDE;
    bool is_let_go = !event->inc->is_logged && world->memory.is_small; /* by its store */
    bool was_there = event->sequence <= account->then[event->inc->channel].visible ||
                     (event->seen != 0 && event->seen <= account->opened_rank);
    bool is_first = was_there && !(event->inc->is_logged && slides_only);
    return may_be || ((is_first || is_let_go) && truth_may_be_evicted(world, event)) ? NULL
                                                                                     : "nothing has taken it";
}

static const char *
judge_expired(struct world *world, const struct account *account, const struct truth_event *event)
{
    (void)account;
    return truth_may_have_expired(world, event) ? NULL : "it lives";
}

/* Of each path the newest one that lives is sent. */
static const char *
judge_conflated(struct world *world, const struct account *account, const struct truth_event *event)
{
    const struct place *place = &account->places[event->inc->channel];
    if ((account->wish.policies & POLICY_CONFLATE) == 0) {
        return "its policy is another one";
    }
    if (truth_may_have_expired(world, event)) {
        return NULL;
    }
    for (uint64_t i = event->sequence; i < account_reach(account, event->inc); i++) {
        const struct truth_event *newer = event->inc->events[i];
        if (bb_slice_equal(newer->path, event->path) && account_wants(account, place, newer) &&
            !truth_has_expired(world, newer, NOT_YET_OVER_US)) {
            return NULL;
        }
    }
    return "it is the newest of its path that lives";
}

/* --- all events of a gap together ------------------------------------------------------------- */

static bool is_over_budget(struct world *world, const struct account *account, uint64_t bytes)
{
    (void)world;
    return bytes + 16 * HEAD_BYTES + bytes / 4 > account->wish.budget;
}

/* The block that the newest lost event lies in would have been too much: no more goes than must. */
static void judge_dropped_oldest(struct world *world, struct account *account, const struct gap *gap)
{
    const struct truth_event *last = gap->lost[gap->n_lost - 1];
    uint64_t waiting = account_waiting(world, account) + account->voided;
    uint64_t lost = 0;
    uint64_t last_block = 0;
    if ((account->wish.policies & POLICY_DROP_OLDEST) == 0) {
        fail(world, account, gap, last, "its policy is another one");
        return;
    }
    for (size_t i = 0; i < gap->n_lost; i++) {
        lost += gap->lost[i]->len;
        last_block += gap->lost[i]->session == last->session ? gap->lost[i]->len : 0;
    }
    if (!is_over_budget(world, account, waiting)) {
        fail(world, account, gap, last, "no more waits than the budget allows");
        return;
    }
    /* Other channels may have lost at the same time, in a gap of this message or the one before. */
    uint64_t left = waiting > lost ? waiting - lost : 0;
    if (account->met == 0 || !is_over_budget(world, account, left + last_block + account->wish.budget / 2)) {
        fail(world, account, gap, last, "less than half of the budget is left");
    }
}

static void judge_dropped_newest(struct world *world, struct account *account, const struct gap *gap)
{
    const struct truth_event *first = gap->lost[0];
    if ((account->wish.policies & POLICY_DROP_NEWEST) == 0) {
        fail(world, account, gap, first, "its policy is another one");
        return;
    }
    /* It may have begun to drop before a channel went, and go on until what is left of that time is sent. */
    bool may_drop =
        account->counted_rank > 0 && (first->seen <= account->counted_rank ||
                                      account_waiting_at(world, account, account->counted_rank) > 0);
    if (account_is_early(account) || first->seen == 0 || may_drop) {
        return;
    }
    if (!is_over_budget(world, account, account_waiting_at(world, account, first->seen - 1))) {
        fail(world, account, gap, first, "no more waited than the budget allows when it came");
    }
}

static const struct {
    const char *reason;
    uint64_t feature;
    const char *(*judge)(struct world *world, const struct account *account, const struct truth_event *event);
    void (*judge_all)(struct world *world, struct account *account, const struct gap *gap);
} rows[] = {
    {"overflow", F(gap_overflow), judge_overflow, NULL},
    {"trimmed", F(gap_trimmed), judge_trimmed, NULL},
    {"expired", F(gap_expired), judge_expired, NULL},
    {"conflated", F(gap_conflated), judge_conflated, NULL},
    {"dropped_oldest", F(gap_dropped), NULL, judge_dropped_oldest},
    {"dropped_newest", F(gap_dropped), NULL, judge_dropped_newest},
};

/* A second gap has one reason, and holds what was lost in turns for the others as well (PROTOCOL 7.4). */
static bool may_be_in_turns(struct world *world,
                            const struct account *account,
                            const struct gap *gap,
                            const struct truth_event *event)
{
    const uint64_t drops = POLICY_DROP_OLDEST | POLICY_DROP_NEWEST;
    bool is_of_turns = bb_slice_equal(gap->reason, bb_slice_str("overflow")) ||
                       bb_slice_equal(gap->reason, bb_slice_str("trimmed"));
    return gap->is_second && is_of_turns &&
           (judge_overflow(world, account, event) == NULL || judge_trimmed(world, account, event) == NULL ||
            (account->wish.policies & drops) != 0);
}

void gap_judge(struct world *world, struct account *account, const struct gap *gap)
{
    size_t row = 0;
    while (row < BB_COUNT(rows) && !bb_slice_equal(gap->reason, bb_slice_str(rows[row].reason))) {
        row++;
    }
    if (row == BB_COUNT(rows)) {
        account_fail(world, account, "reason", "a gap for a reason that is none: %.*s", (int)gap->reason.len,
                     (const char *)gap->reason.data);
        return;
    }
    account->met |= rows[row].feature;
    for (size_t i = 0; i < gap->n_lost && rows[row].judge != NULL && !world->failed; i++) {
        const char *why = rows[row].judge(world, account, gap->lost[i]);
        if (why != NULL && !may_be_in_turns(world, account, gap, gap->lost[i])) {
            fail(world, account, gap, gap->lost[i], why);
        }
    }
    if (rows[row].judge_all != NULL && gap->n_lost > 0 && !world->failed) {
        rows[row].judge_all(world, account, gap);
    }
}

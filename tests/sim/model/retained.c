/* SPDX-License-Identifier: Apache-2.0 */
/* Retained values (PROTOCOL 7.1): the newest event of each matching path, before anything else. */
#include "proto/wire/event.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/match.h"
#include "tests/sim/world.h"

#include <inttypes.h>

/* The newest event of @path in @inc up to @last that is not over for sure. */
static const struct truth_event *
newest_of(struct world *world, const struct truth_inc *inc, struct bb_slice path, uint64_t last)
{
    for (uint64_t i = BB_MIN(last, inc->visible); i > 0; i--) {
        const struct truth_event *event = inc->events[i - 1];
        if (bb_slice_equal(event->path, path) && !truth_may_have_expired(world, event)) {
            return event;
        }
    }
    return NULL;
}

/* What comes later in its path, over or not, comes with the flow, unless the flow ends before it. */
static bool is_due(const struct world *world,
                   const struct account *account,
                   const struct place *place,
                   const struct truth_event *event)
{
    for (size_t i = event->sequence; i < event->inc->n; i++) {
        const struct truth_event *newer = event->inc->events[i];
        bool is_same = bb_slice_equal(newer->path, event->path);
        if (is_same && (newer->sequence <= place->begin || account_wants(account, place, newer) ||
                        truth_may_have_expired(world, newer))) {
            return false;
        }
    }
    return !truth_may_have_expired(world, event);
}

static bool has_got(const struct account *account, const struct truth_event *event)
{
    for (size_t i = 0; i < account->n_retained; i++) {
        if (account->retained[i] == event || bb_slice_equal(account->retained[i]->path, event->path)) {
            return true;
        }
    }
    return false;
}

static const char *judge_value(struct world *world,
                               struct account *account,
                               const struct truth_event *event,
                               const struct truth_shown *shown)
{
    if (event == NULL || event->len != shown->raw.len ||
        memcmp(event->raw, shown->raw.data, event->len) != 0 || event->session != shown->session ||
        event->instance != shown->instance || event->time != shown->time) {
        return "it is not what was published";
    }
    if (!match_any(account->wish.patterns, event->path)) {
        return "no pattern matches it";
    }
    if (has_got(account, event)) {
        return "its path has come already";
    }
    const struct place *place = &account->places[event->inc->channel];
    if (event->sequence > place->begin && account_wants(account, place, event) &&
        !truth_may_be_trimmed(world, event) && !truth_may_be_evicted(world, event)) {
        return "it comes with the flow";
    }
    if (truth_has_expired(world, event, 100000 + account->link->latency)) {
        return "its time to live is over";
    }
    const struct truth_event *newest = newest_of(world, event->inc, event->path, place->begin);
    if (newest != NULL && newest->sequence > event->sequence) {
        return "there is a newer one";
    }
    return NULL;
}

static void
take_value(struct world *world, struct account *account, const struct bb_block *block, struct bb_slice raw)
{
    struct bb_event_view view = {0};
    struct bb_slice rest = raw;
    if (block->count != 1 || bb_event_read(&rest, &view) < 0 || rest.len != 0) {
        account_fail(world, account, "retained", "a retained value that cannot be read");
        return;
    }
    size_t channel = truth_name_of_path(world, view.path);
    const struct place *place = account_place(world, account, channel);
    const struct truth_shown shown = {
        .raw = raw, .session = block->session, .instance = block->instance, .time = block->time};
    struct truth_event *event = truth_event_at(place->inc, block->sequence);
    const char *why = judge_value(world, account, event, &shown);
    if (why != NULL) {
        account_fail(world, account, "retained", "%" PRIu64 " of '%s' is given as retained, but %s",
                     block->sequence, world->truth.names[channel].text, why);
        return;
    }
    account->retained = sim_grown(account->retained, account->n_retained, &account->n_retained_slots,
                                  sizeof(struct truth_event *));
    account->retained[account->n_retained++] = event;
    account->sent_events++;
}

/* What has not come is over, or has a newer one by now; or nobody keeps it. */
static void check_end(struct world *world, struct account *account)
{
    for (size_t i = 0; i < world->truth.n_names && !world->failed; i++) {
        const struct place *place = &account->places[i];
        bool is_kept =
            place->inc != NULL && (place->inc->is_logged || (world->has_memory && !world->memory.is_small));
        if (!is_kept || place->inc->is_ended) {
            continue;
        }
        for (uint64_t sequence = 1; sequence <= BB_MIN(place->begin, place->inc->visible) && !world->failed;
             sequence++) {
            const struct truth_event *event = place->inc->events[sequence - 1];
            if (is_due(world, account, place, event) && event->sequence >= place->inc->trimmed &&
                match_any(account->wish.patterns, event->path) && !has_got(account, event)) {
                account_fail(world, account, "retained", "the retained value %" PRIu64 " of '%s' is missing",
                             sequence, world->truth.names[i].text);
            }
        }
    }
}

void account_retained(struct world *world, struct account *account, const struct bb_msg *msg)
{
    struct bb_slice rest = msg->body;
    struct bb_block block;
    if (!account->retained_due) {
        account_fail(world, account, "retained", "retained values that nobody asked for, or behind the last");
        return;
    }
    while (rest.len > 0 && !world->failed) {
        if (bb_block_read(&rest, &block) < 0) {
            account_fail(world, account, "retained", "a block that cannot be read");
            return;
        }
        take_value(world, account, &block, bb_slice(rest.data, (size_t)block.length));
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
    }
    if (msg->retained == 2 && !world->failed) {
        account->retained_due = false;
        check_end(world, account);
    }
}

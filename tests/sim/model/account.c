/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/model/account.h"

#include "proto/wire/mp.h"

#include "tests/sim/model/match.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct account *account_of(struct sim_link *link, uint64_t sub)
{
    struct account *account = link->judged.accounts;
    while (account != NULL && (account->sub != sub || account->state == ACCOUNT_OVER || account->must_fail)) {
        account = account->next;
    }
    return account;
}

/* --- features --------------------------------------------------------------------------------- */

static uint64_t features_of(const struct wish *wish, const struct sim_link *link)
{
    static const uint64_t froms[] = {F(from_new),      F(from_last), F(from_oldest),
                                     F(from_sequence), F(from_time), F(from_id),
                                     F(from_lives),    F(from_run),  F(from_cursor)};
    static const uint64_t untils[] = {0, F(until_now), F(until_sequence), F(until_time), F(until_last)};
    static const uint64_t policies[] = {F(slide),    F(drop_oldest), F(drop_newest),
                                        F(conflate), F(refuse),      F(disconnect)};
    uint64_t met = froms[wish->from] | untils[wish->until];
    for (size_t i = 0; i < BB_COUNT(policies) && wish->says_policy; i++) {
        met |= (wish->policies & UINT32_C(1) << i) != 0 ? policies[i] : 0;
    }
    met |= wish->says_policy ? 0 : F(by_default);
    met |= wish->must_be_early ? F(early) : 0;
    met |= wish->retained ? F(retained) : 0;
    met |= link->is_json ? F(json) : 0;
    met |= wish->bytes_credit == 0 || wish->events_credit == 0 ? F(no_credit) : 0;
    met |= wish->bytes_credit < 3000 || wish->events_credit < 20 ? F(small_credit) : 0;
    struct bb_mp_reader reader = bb_mp_reader(wish->patterns);
    uint32_t n = bb_mp_read_array(&reader);
    met |= n > 1 ? F(many_patterns) : 0;
    for (uint32_t i = 0; i < n; i++) {
        struct bb_slice pattern = bb_mp_read_str(&reader);
        bool is_wild = pattern.len > 0 && (pattern.data[0] == '*' || pattern.data[0] == '?');
        met |= is_wild ? F(wildcard) : 0;
    }
    return met;
}

/* What the channels are that it looks at. */
static uint64_t features_of_places(const struct world *world, const struct account *account)
{
    uint64_t met = 0;
    for (size_t i = 0; i < world->truth.n_names; i++) {
        const struct truth_inc *inc = world->truth.names[i].inc;
        if (inc == NULL || inc->n == 0 || !account_matches(world, account, i)) {
            continue;
        }
        const struct truth_limits *limits = &inc->limits;
        met |= inc->is_logged ? F(logged) : F(in_memory);
        met |= limits->max_per_path != NO_LIMIT ? F(per_path) : 0;
        met |= limits->max_age_us != NO_LIMIT ? F(max_age) : 0;
        met |= limits->max_events != NO_LIMIT || limits->max_bytes != NO_LIMIT ? F(limits) : 0;
        met |= limits->min_events != 0 ? F(floor) : 0;
        met |= inc->is_lazy ? F(lazy) : 0;
    }
    return (met & F(logged)) != 0 && (met & F(in_memory)) != 0 ? met | F(two_stores) : met;
}

/* --- coming and going ------------------------------------------------------------------------- */

/* Or begins at its cursor: both are to find what went on meanwhile. */
static bool resumes(const struct wish *wish)
{
    return wish->from == WISH_AFTER || wish->from == WISH_RUN || wish->from == WISH_CURSOR || wish->retained;
}

void account_new(struct world *world, struct sim_link *link, const struct bb_msg *msg, struct bb_slice bytes)
{
    struct account *account = calloc(1, sizeof(*account));
    if (account == NULL) {
        abort();
    }
    const struct account *other = account_of(link, msg->sub);
    world->judge.n_accounts++;
    account->link = link;
    account->sub = msg->sub;
    account->corr = msg->corr;
    bool can_be = wish_read(world, &account->wish, bytes);
    account->must_fail = !can_be || other != NULL;
    account->credit_bytes = account->wish.bytes_credit;
    account->credit_events = account->wish.events_credit;
    account->retained_due = account->wish.retained;
    for (size_t i = 0; i < world->truth.n_names; i++) {
        const struct truth_inc *inc = world->truth.names[i].inc;
        if (inc != NULL && !inc->is_ended) {
            account->then[i].inc = inc;
            account->then[i].visible = inc->visible;
            account->then[i].taken = inc->n;
        }
    }
    account->met = features_of(&account->wish, link) | (resumes(&account->wish) ? link->met : 0) |
                   (world->has_log && world->disk.temper.is_slow ? F(log_slow) : 0);
    account->next = link->judged.accounts;
    link->judged.accounts = account;
}

void account_close(struct world *world, struct account *account)
{
    if (account->state == ACCOUNT_ASKED && account->wish.from == WISH_CURSOR) {
        cursor_may_be_made(world, account->wish.durable);
    }
    if (account->state == ACCOUNT_OPEN) {
        coverage_add(account->met | features_of_places(world, account));
    }
    world->judge.n_refusers_moved += (account->wish.policies & POLICY_REFUSE) != 0;
    account->state = ACCOUNT_OVER;
}

void account_free(struct world *world, struct account *account)
{
    account_close(world, account);
    bb_buf_fini(&account->wish.bytes);
    free(account->marks);
    free(account->retained);
    free(account);
}

void account_fail(struct world *world,
                  const struct account *account,
                  const char *kind,
                  const char *format,
                  ...)
{
    static const char *const froms[] = {"new", "last",  "oldest", "sequence", "time",
                                        "id",  "after", "run",    "cursor"};
    static const char *const untils[] = {"", " until now", " until sequence", " until time", " until last"};
    static const char *const policies[] = {"slide",    "drop_oldest", "drop_newest",
                                           "conflate", "refuse",      "disconnect"};
    char text[400];
    const char *policy = "by default";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    for (size_t i = 0; i < BB_COUNT(policies) && account->wish.says_policy; i++) {
        policy = (account->wish.policies & UINT32_C(1) << i) != 0 ? policies[i] : policy;
    }
    world_fail(world, kind, "sub %" PRIu64 " of peer %" PRIu64 " (from %s%s, %s%s%s%s): %s", account->sub,
               account->link->peer->index, froms[account->wish.from], untils[account->wish.until], policy,
               account_is_early(account) ? ", early" : "", account->wish.retained ? ", retained" : "",
               account->link->is_json ? ", JSON" : "", text);
}

/* --- what it wants ---------------------------------------------------------------------------- */

bool account_matches(const struct world *world, const struct account *account, size_t channel)
{
    return match_any_channel(account->wish.patterns, bb_slice_str(world->truth.names[channel].text));
}

bool account_wants(const struct account *account, const struct place *place, const struct truth_event *event)
{
    return match_any(account->wish.patterns, event->path) && event->sequence <= place->stop &&
           event->time <= account->wish.until_time;
}

/* PROTOCOL 7.1: with `until` events are seen when they are durable, whatever the view. */
bool account_is_early(const struct account *account)
{
    return account->wish.may_be_early && account->wish.until == WISH_FOR_EVER;
}

uint64_t account_reach(const struct account *account, const struct truth_inc *inc)
{
    return account_is_early(account) ? inc->n : inc->visible;
}

static uint64_t stop_by_default(const struct account *account)
{
    switch ((int)account->wish.until) {
    case WISH_UNTIL_SEQUENCE:
        return account->wish.until_sequence;
    case WISH_UNTIL_NOW: /* channels that come later are not wanted */
    case WISH_UNTIL_LAST:
        return 0;
    default:
        return UINT64_MAX;
    }
}

struct place *account_place(struct world *world, struct account *account, size_t channel)
{
    struct place *place = &account->places[channel];
    if (place->inc == NULL) {
        *place = (struct place){.inc = truth_current(world, channel), .stop = stop_by_default(account)};
        place->told_cut = 0;
        account->met |=
            account->state == ACCOUNT_OPEN && account->then[channel].inc == NULL ? F(came_late) : 0;
    }
    return place;
}

/* --- what waits ------------------------------------------------------------------------------- */

uint64_t account_waiting_in(const struct account *account, const struct place *place)
{
    uint64_t bytes = 0;
    uint64_t reach = place->inc != NULL ? account_reach(account, place->inc) : 0;
    for (uint64_t i = place->covered; i < reach; i++) {
        const struct truth_event *event = place->inc->events[i];
        bytes += account_wants(account, place, event) ? event->len : 0;
    }
    return bytes;
}

uint64_t account_waiting(struct world *world, struct account *account)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < world->truth.n_names && account->state == ACCOUNT_OPEN; i++) {
        if (account_matches(world, account, i)) {
            struct place *place = account_place(world, account, i);
            bytes += account_waiting_in(account, place);
            if (place->inc->is_ended && place->inc != world->truth.names[i].inc && place->covered == 0) {
                struct place next = {.inc = world->truth.names[i].inc, .stop = place->stop};
                bytes += account_waiting_in(account, &next); /* nothing of the older one need be told */
            }
        }
    }
    return bytes;
}

uint64_t account_waiting_surely(struct world *world, const struct account *account)
{
    uint64_t bytes = 0;
    for (size_t i = account->opened_rank; i < world->truth.n_visible; i++) {
        const struct truth_event *event = world->truth.visible[i];
        const struct place *place = &account->places[event->inc->channel];
        bool is_new = place->inc == NULL || (place->inc == event->inc && event->sequence > place->covered);
        if (event->is_gone || event->inc->is_ended || event->inc->is_logged || event->ttl_us != 0 ||
            !is_new) {
            continue;
        }
        if (match_any(account->wish.patterns, event->path) && event->time <= account->wish.until_time &&
            (place->inc == NULL || event->sequence <= place->stop) && !truth_may_be_trimmed(world, event) &&
            !truth_may_be_evicted(world, event)) {
            bytes += event->len;
        }
    }
    return bytes;
}

void account_count(struct world *world, struct account *account, uint64_t bytes)
{
    account->counted += bytes;
    account->marks =
        sim_grown(account->marks, account->n_marks, &account->n_mark_slots, sizeof(account->marks[0]));
    account->marks[account->n_marks++] = (struct account_mark){world->truth.n_visible, account->counted};
}

void account_recount(const struct world *world, struct account *account)
{
    account->counted_rank = world->truth.n_visible;
    account->n_marks = 0;
    account->counted = 0;
    for (size_t i = 0; i < NAMES_MAX; i++) {
        account->places[i].base = account->places[i].covered;
    }
}

uint64_t account_waiting_at(struct world *world, const struct account *account, uint64_t rank)
{
    uint64_t bytes = 0;
    uint64_t counted = 0;
    for (size_t i = 0; i < rank && i < world->truth.n_visible; i++) {
        const struct truth_event *event = world->truth.visible[i];
        const struct place *place = &account->places[event->inc->channel];
        if (place->inc == event->inc && event->sequence > place->base &&
            account_wants(account, place, event)) {
            bytes += event->len;
        }
    }
    for (size_t i = 0; i < account->n_marks && account->marks[i].rank <= rank; i++) {
        counted = account->marks[i].bytes;
    }
    return bytes > counted ? bytes - counted : 0;
}

/* --- the end ---------------------------------------------------------------------------------- */

const struct truth_event *account_missing(struct world *world, struct account *account)
{
    for (size_t i = 0; i < world->truth.n_names && account->state == ACCOUNT_OPEN; i++) {
        if (world->truth.names[i].inc == NULL || !account_matches(world, account, i)) {
            continue;
        }
        struct place *place = account_place(world, account, i);
        if (place->may_be_next && place->inc->is_ended && place->covered == 0) {
            place->inc = truth_current(world, i);
        }
        for (uint64_t at = place->covered; !place->is_over && at < account_reach(account, place->inc); at++) {
            if (account_wants(account, place, place->inc->events[at])) {
                return place->inc->events[at];
            }
        }
    }
    return NULL;
}

/* What is taken and may still become visible. */
static bool has_staged(struct world *world, struct account *account)
{
    for (size_t i = 0; i < world->truth.n_names; i++) {
        const struct place *place = &account->places[i];
        for (size_t at = place->inc != NULL ? place->inc->visible : 0;
             place->inc != NULL && at < place->inc->n; at++) {
            if (account_wants(account, place, place->inc->events[at])) {
                return true;
            }
        }
    }
    return false;
}

/* Times do not go back; but what went with a broker before the next one need not know. */
static uint64_t newest_time(const struct world *world, bool surely)
{
    for (size_t i = world->truth.n_visible; i > 0; i--) {
        const struct truth_event *event = world->truth.visible[i - 1];
        if (!surely || (!event->is_gone && !event->inc->is_ended)) {
            return event->time;
        }
    }
    return 0;
}

static const char *may_end_by_sequence(struct world *world, struct account *account, bool must)
{
    bool has_one = account->wish.until != WISH_UNTIL_SEQUENCE;
    for (size_t i = 0; i < world->truth.n_names; i++) {
        const struct truth_inc *inc = world->truth.names[i].inc;
        if (inc == NULL || !account_matches(world, account, i)) {
            continue;
        }
        const struct place *place = account_place(world, account, i);
        bool may_be_over = place->is_over || (place->may_be_over && !must);
        has_one = has_one || place->is_named || may_be_over || place->inc->n > 0;
        bool is_open = !may_be_over && place->covered < place->stop && place->inc->visible < place->stop;
        /* Channels that came later, or have nothing, need not be waited for. */
        if (is_open && (must ? place->is_named || place->inc->n > 0 : place->is_named)) {
            return "events that are wanted can still be published";
        }
    }
    return has_one ? NULL : "there is no channel yet";
}

const char *account_may_end(struct world *world, struct account *account, bool must)
{
    if (account->retained_due) {
        return "retained values are missing";
    }
    if (account_missing(world, account) != NULL) {
        return "events are missing";
    }
    switch ((int)account->wish.until) {
    case WISH_FOR_EVER:
        return "it has no end";
    case WISH_UNTIL_TIME:
        return has_staged(world, account) ? "events are on their way to the disk"
               : BB_MAX(must ? world_wall(world) : world->wall_most, newest_time(world, must)) <=
                       account->wish.until_time
                   ? "its time has not come"
                   : NULL;
    default:
        return may_end_by_sequence(world, account, must);
    }
}

void account_ended(struct world *world, struct account *account, const struct bb_msg *msg)
{
    if (bb_slice_equal(msg->code, bb_slice_str("corrupt"))) {
        if (world->disk.n_corrupt == 0) {
            account_fail(world, account, "ended corrupt", "it ends as corrupt, and nothing is damaged");
        }
        account_close(world, account);
        return;
    }
    const char *why =
        account->state == ACCOUNT_OPEN ? account_may_end(world, account, false) : "it has not begun";
    if (why != NULL || !bb_slice_equal(msg->code, bb_slice_str("done"))) {
        const struct truth_event *event = account_missing(world, account);
        account_fail(world, account, "ended too early", "ended %.*s, but %s (%s %" PRIu64 ")",
                     (int)msg->code.len, (const char *)msg->code.data, why != NULL ? why : "",
                     event != NULL ? (char *)world->truth.names[event->inc->channel].text : "",
                     event != NULL ? event->sequence : 0);
    }
    account->met |= F(ended);
    account_close(world, account);
}

const char *account_owes(struct world *world, struct account *account)
{
    if (account->state == ACCOUNT_ASKED) {
        return "subscribe has no answer";
    }
    if (account->state == ACCOUNT_OVER) {
        return NULL;
    }
    if (account->retained_due) {
        return "retained values are missing";
    }
    for (size_t i = 0; i < world->truth.n_names; i++) {
        const struct place *place = &account->places[i];
        bool is_void = place->inc != NULL && place->inc->is_ended && place->covered > 0 && !place->is_over &&
                       place->covered < place->stop;
        if (place->due == DUE_RESTART || place->due == DUE_RETRACTED || is_void) {
            return "a void position was not reported";
        }
    }
    if (account_missing(world, account) != NULL) {
        return "events are missing";
    }
    bool ends = account->wish.until != WISH_FOR_EVER && account_may_end(world, account, true) == NULL;
    return ends ? "it has not ended" : NULL;
}

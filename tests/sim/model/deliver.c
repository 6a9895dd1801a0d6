/* SPDX-License-Identifier: Apache-2.0 */
/* A delivery or gap message against the truth (PROTOCOL 7.4): everything that is wanted is there once or in
 * a gap, in order. */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/match.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>

#define GAPS_MAX 256

/* One channel of a message. */
struct stretch {
    bool is_there;
    bool has_range;
    uint64_t start;  /* where the place was; after a restart, where the new channel begins */
    uint64_t at;     /* how far gaps and ranges have come */
    uint64_t newest; /* of the events in it */
};

struct parcel {
    struct stretch stretches[NAMES_MAX];
    struct gap gaps[GAPS_MAX];
    size_t n_gaps;
};

static struct stretch *
stretch_of(struct world *world, struct account *account, struct parcel *parcel, size_t channel)
{
    struct stretch *stretch = &parcel->stretches[channel];
    if (!stretch->is_there) {
        struct place *place = account_place(world, account, channel);
        *stretch = (struct stretch){.is_there = true, .start = place->covered, .at = place->covered};
    }
    return stretch;
}

/* --- gaps ------------------------------------------------------------------------------------- */

static uint64_t read_number(struct bb_mp_reader *reader, bool *ret_is_there)
{
    *ret_is_there = bb_mp_peek_type(reader) == BB_MP_UINT;
    if (*ret_is_there) {
        return bb_mp_read_uint(reader);
    }
    bb_mp_read_nil(reader);
    return 0;
}

static bool is_reason(const struct gap *gap, const char *reason)
{
    return bb_slice_equal(gap->reason, bb_slice_str(reason));
}

static void tell_life(struct world *world, struct place *place, uint64_t sequence, uint64_t life)
{
    if (life != 0) {
        place->life = life;
    }
    if (place->life != 0 && place->inc != NULL && !(place->may_be_next && sequence == 0)) {
        truth_told_life(world, place->inc, sequence, place->life);
    }
}

static void begin_anew(struct world *world, struct account *account, size_t channel, struct stretch *stretch)
{
    struct place *place = &account->places[channel];
    uint64_t stop = place->stop;
    account->voided += account_waiting_in(account, place);
    *place = (struct place){.inc = truth_current(world, channel), .stop = stop};
    if (account->wish.until == WISH_UNTIL_NOW || account->wish.until == WISH_UNTIL_LAST ||
        account->wish.until ==
            WISH_UNTIL_SEQUENCE) { /* PROTOCOL 7.1: nothing of a new channel is waited for */
        place->is_over = account->state == ACCOUNT_OPEN;
    }
    stretch->start = stretch->at = 0;
    account_recount(world, account);
}

/* Who has had nothing of a channel that was removed, and wanted nothing of it, loses nothing: there is
 * nothing to report. */
static void
follow_silently(struct world *world, struct account *account, size_t channel, struct stretch *stretch)
{
    struct place *place = &account->places[channel];
    if (!place->inc->is_ended || place->inc == world->truth.names[channel].inc || stretch->at != 0) {
        return;
    }
    for (uint64_t i = 0; i < account_reach(account, place->inc) && !place->may_be_next; i++) {
        if (account_wants(account, place, place->inc->events[i])) {
            return;
        }
    }
    place->inc = truth_current(world, channel);
}

static void
apply_restart(struct world *world, struct account *account, const struct gap *gap, struct stretch *stretch)
{
    struct place *place = &account->places[gap->channel];
    const char *name = world->truth.names[gap->channel].text;
    bool is_asked = world->truth.names[gap->channel].n_rm_asked > 0;
    if (is_asked && place->inc != NULL) { /* then it is of the newest */
        follow_silently(world, account, gap->channel, stretch);
    }
    if (place->may_be_next && place->inc->is_ended && place->inc->ended_at < world->now) {
        place->inc = truth_current(world, gap->channel); /* of the older one it would have been told then */
    }
    bool is_gone = place->inc != NULL && place->inc->is_ended; /* since it has begun */
    bool is_answer =
        account->opened_at == world->now; /* what may be void is told with the answer, if at all */
    bool was_due = !is_gone && (place->due == DUE_RESTART || (place->due == DUE_EITHER && is_answer));
    uint64_t from = was_due ? place->due_sequence + 1 : stretch->at + 1;
    bool is_new = place->inc != NULL && place->inc->n == 0 && place->inc->next != NULL && stretch->at == 0;
    bool is_of_last =
        is_new && place->inc->next->ended_at == world->now; /* in this call: told to one after the other */
    if (!was_due && !is_of_last && (is_asked || !is_new) && place->inc != NULL && !place->inc->is_ended) {
        truth_remove(world, gap->channel, "a gap with reason restart");
    }
    bool is_unclear = was_due && place->is_due_unclear;
    if (gap->has_to || gap->has_count || (gap->from != from && !is_unclear)) {
        account_fail(world, account, "restart gap", "the restart of '%s' begins at %" PRIu64 ", not %" PRIu64,
                     name, gap->from, from);
    }
    bool is_over = place->is_over;
    bool is_named = place->is_named && was_due; /* by the same answer */
    begin_anew(world, account, gap->channel, stretch);
    bool has_resumed = account->wish.from == WISH_AFTER || account->wish.from == WISH_RUN;
    place->is_over =
        was_due ? is_over || (has_resumed && account->wish.until == WISH_UNTIL_SEQUENCE) : place->is_over;
    place->may_be_over = was_due && is_asked;
    place->is_named = is_named;
    place->may_be_next = was_due && is_asked;
    account->met |= F(gap_restart) | (was_due ? 0 : F(removed));
    tell_life(world, place, 0, gap->life);
}

static void
apply_retracted(struct world *world, struct account *account, const struct gap *gap, struct stretch *stretch)
{
    struct place *place = &account->places[gap->channel];
    const char *name = world->truth.names[gap->channel].text;
    account->met |= F(gap_retracted);
    /* What was void when it began lies behind the place; what goes back before it was taken back since. */
    if (place->due == DUE_RETRACTED || (place->due == DUE_EITHER && gap->from > stretch->at)) {
        bool is_it = place->is_due_unclear || (gap->from == place->due_from && gap->to == place->due_to);
        if (!is_it || !gap->has_to) {
            account_fail(world, account, "retracted gap",
                         "'%s': %" PRIu64 " to %" PRIu64 " instead of %" PRIu64 " to %" PRIu64, name,
                         gap->from, gap->to, place->due_from, place->due_to);
        }
        place->due = DUE_NOTHING;
        tell_life(world, place, gap->from - 1, gap->life);
        return;
    }
    uint64_t end = UINT64_MAX;
    if (place->inc != NULL && stretch->at > place->inc->n && gap->from > place->inc->durable &&
        gap->from <= place->inc->n + 1) {
        end = gap->from - 1; /* it was shown what the log never heard of */
        truth_end_life(world, place->inc, place->life, end);
    }
    if (place->inc != NULL && gap->from > 0) {
        truth_cut_unregistered(world, place->inc, gap->from - 1);
    }
    for (size_t i = place->told_cut; place->inc != NULL && i < place->inc->n_cuts; i++) {
        end = BB_MIN(end, place->inc->cuts[i].end);
    }
    if (end >= stretch->at || gap->from != end + 1 || !gap->has_to || gap->to != stretch->at) {
        account_fail(world, account, "retracted gap",
                     "'%s': %" PRIu64 " to %" PRIu64 " is reported; it had %" PRIu64
                     ", and what was taken back begins behind %" PRIu64,
                     name, gap->from, gap->to, stretch->at, end);
        return;
    }
    place->covered = stretch->start = stretch->at = end;
    place->told_cut = place->inc->n_cuts;
    account_recount(world, account);
    tell_life(world, place, end, gap->life);
}

/* The last sequence that a gap may name: what `until` wants goes no further. */
static uint64_t limit_of(const struct account *account, const struct place *place)
{
    uint64_t limit = BB_MIN(place->stop, account_reach(account, place->inc));
    while (limit > 0 && place->inc->events[limit - 1]->time > account->wish.until_time) {
        limit--;
    }
    return limit;
}

/* What the log has not heard of yet, the early view may show: its queue is full, or it is not asked before
 * the next flush. */
static bool may_know_more(const struct account *account, const struct truth_inc *inc)
{
    return account_is_early(account) && (inc->is_logged || inc->n == 0);
}

/* Several channels may be removed in one call. What one of them had may be told when the first of them is. */
static void stay_in_last(const struct world *world, struct place *place, const struct gap *gap, uint64_t at)
{
    struct truth_inc *last = place->inc->n == 0 && at == 0 ? place->inc->next : NULL;
    if (last != NULL && last->ended_at == world->now && gap->has_to && gap->to <= last->n) {
        place->inc = last;
    }
}

static void apply_gap(struct world *world, struct account *account, struct parcel *parcel, struct gap *gap)
{
    struct stretch *stretch = stretch_of(world, account, parcel, gap->channel);
    struct place *place = &account->places[gap->channel];
    const char *name = world->truth.names[gap->channel].text;
    world->judge.n_gaps++;
    if (is_reason(gap, "restart")) {
        apply_restart(world, account, gap, stretch);
        return;
    }
    if (is_reason(gap, "retracted")) {
        apply_retracted(world, account, gap, stretch);
        return;
    }
    follow_silently(world, account, gap->channel, stretch);
    stay_in_last(world, place, gap, stretch->at);
    if (gap->from <= stretch->at || !gap->has_to || gap->to < gap->from) {
        account_fail(world, account, "gap order",
                     "a gap %" PRIu64 " to %" PRIu64 " (%.*s) of '%s' does not follow %" PRIu64, gap->from,
                     gap->to, (int)gap->reason.len, (const char *)gap->reason.data, name, stretch->at);
        return;
    }
    bool has_no_time = account->wish.until == WISH_UNTIL_TIME && is_reason(gap, "trimmed"); /* PROTOCOL 7.1 */
    bool knows_more = account->wish.until == WISH_FOR_EVER && may_know_more(account, place->inc);
    gap->is_unheard = knows_more && gap->to > limit_of(account, place);
    if (gap->to > limit_of(account, place) && !has_no_time && !knows_more) {
        account_fail(world, account, "gap beyond",
                     "a gap %" PRIu64 " to %" PRIu64 " (%.*s) of '%s' goes beyond %" PRIu64
                     ", the last one wanted",
                     gap->from, gap->to, (int)gap->reason.len, (const char *)gap->reason.data, name,
                     limit_of(account, place));
        return;
    }
    if (place->due == DUE_RESTART || place->due == DUE_RETRACTED) {
        account_fail(world, account, "void not told", "'%s' goes on, its position was void", name);
    }
    place->due = DUE_NOTHING;
    stretch->at = gap->to;
    tell_life(world, place, gap->to, gap->life);
}

static void
read_gaps(struct world *world, struct account *account, struct bb_slice gaps, struct parcel *parcel)
{
    struct bb_mp_reader reader = bb_mp_reader(gaps);
    bool has_some = gaps.len > 0 && bb_mp_peek_type(&reader) == BB_MP_ARRAY;
    uint32_t n = has_some ? bb_mp_read_array(&reader) : 0;
    for (uint32_t i = 0; i < n && !world->failed && parcel->n_gaps < GAPS_MAX; i++) {
        struct gap *gap = &parcel->gaps[parcel->n_gaps++];
        uint32_t fields = bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        *gap = (struct gap){.from = bb_mp_read_uint(&reader)};
        gap->to = read_number(&reader, &gap->has_to);
        gap->count = read_number(&reader, &gap->has_count);
        gap->reason = bb_mp_read_str(&reader);
        gap->life = fields > 5 ? bb_mp_read_uint(&reader) : 0;
        gap->channel = truth_name(world, name);
        if (reader.error != 0 || !account_matches(world, account, gap->channel)) {
            account_fail(world, account, "gap",
                         "a gap that cannot be read, or in a channel that it does not match");
            return;
        }
        for (size_t k = 0; k + 1 < parcel->n_gaps; k++) {
            gap->is_second = gap->is_second || parcel->gaps[k].channel == gap->channel;
        }
        apply_gap(world, account, parcel, gap);
    }
}

/* --- ranges and events ------------------------------------------------------------------------ */

static void apply_range(struct world *world,
                        struct account *account,
                        struct parcel *parcel,
                        size_t channel,
                        uint64_t from,
                        uint64_t to,
                        uint64_t life)
{
    struct stretch *stretch = stretch_of(world, account, parcel, channel);
    struct place *place = &account->places[channel];
    const char *name = world->truth.names[channel].text;
    follow_silently(world, account, channel, stretch);
    if (place->due == DUE_RESTART || place->due == DUE_RETRACTED ||
        (place->inc->is_ended && !stretch->has_range && place->inc != world->truth.names[channel].inc)) {
        account_fail(world, account, "void not told", "'%s' goes on, its position was void", name);
        return;
    }
    place->due = DUE_NOTHING;
    if (from != stretch->at || to < from || stretch->has_range) {
        account_fail(world, account, "range order",
                     "a range %" PRIu64 " to %" PRIu64 " of '%s' does not follow %" PRIu64, from, to, name,
                     stretch->at);
        return;
    }
    if (to > BB_MAX(account_reach(account, place->inc), from) && !may_know_more(account, place->inc)) {
        account_fail(world, account, "range beyond", "a range up to %" PRIu64 " of '%s', which has %" PRIu64,
                     to, name, account_reach(account, place->inc));
    }
    stretch->has_range = true;
    stretch->at = to;
    tell_life(world, place, to, life);
}

static void
read_ranges(struct world *world, struct account *account, struct bb_slice ranges, struct parcel *parcel)
{
    struct bb_mp_reader reader = bb_mp_reader(ranges);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n && !world->failed; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        uint64_t from = bb_mp_read_uint(&reader);
        uint64_t to = bb_mp_read_uint(&reader);
        uint64_t life = fields > 3 ? bb_mp_read_uint(&reader) : 0;
        size_t channel = truth_name(world, name);
        if (reader.error != 0 || !account_matches(world, account, channel)) {
            account_fail(world, account, "range", "a range that cannot be read, or that it does not match");
            return;
        }
        apply_range(world, account, parcel, channel, from, to, life);
    }
}

static const char *judge_event(struct world *world,
                               struct account *account,
                               const struct truth_event *truth,
                               const struct truth_shown *shown,
                               const struct stretch *stretch)
{
    const struct place *place = &account->places[truth->inc->channel];
    size_t store = truth->inc->is_logged;
    if (truth->len != shown->raw.len || memcmp(truth->raw, shown->raw.data, truth->len) != 0) {
        return "it is not what was published";
    }
    if (truth->session != shown->session || truth->instance != shown->instance ||
        truth->time != shown->time || truth->source != shown->source) {
        return "it has another id, time or source than published";
    }
    if (!match_any(account->wish.patterns, truth->path)) {
        return "no pattern matches it";
    }
    if (!account_wants(account, place, truth) || place->is_over) {
        return "it comes after the last one wanted";
    }
    if (shown->sequence <= stretch->start || shown->sequence > stretch->at ||
        shown->sequence <= stretch->newest) {
        return "it is a repetition, out of order, or in no range";
    }
    if (truth->sequence > account_reach(account, truth->inc)) {
        return "it is not durable";
    }
    /* The log is asked before it answers, and answers in turn. */
    uint64_t slack = 100000 + (truth->inc->is_logged ? world->disk.slowest_read : 0);
    if (truth_has_expired(world, truth, slack + account->link->latency)) {
        return "its time to live is over";
    }
    if (shown->session < account->session[store] ||
        (shown->session == account->session[store] && shown->instance <= account->instance[store])) {
        return "it is not in the order of the ids";
    }
    return NULL;
}

static void take_unknown(struct world *world,
                         struct account *account,
                         const struct truth_shown *shown,
                         struct stretch *stretch,
                         struct bb_slice path)
{
    if (shown->sequence <= stretch->start || shown->sequence > stretch->at ||
        shown->sequence <= stretch->newest || !match_any(account->wish.patterns, path)) {
        account_fail(world, account, "wrong event", "%" PRIu64 " is shown early, in no range or again",
                     shown->sequence);
    }
    stretch->newest = shown->sequence;
    account->sent_events++;
}

static void take_event(struct world *world,
                       struct account *account,
                       struct parcel *parcel,
                       const struct truth_shown *shown)
{
    struct bb_event_view view = {0};
    struct bb_slice rest = shown->raw;
    (void)bb_event_read(&rest, &view);
    size_t channel = truth_name_of_path(world, view.path);
    struct place *place = account_place(world, account, channel);
    struct stretch *stretch = stretch_of(world, account, parcel, channel);
    struct truth_event *truth = truth_event_at(place->inc, shown->sequence);
    if (truth == NULL && may_know_more(account, place->inc)) {
        take_unknown(world, account, shown, stretch, view.path);
        return;
    }
    const char *why = truth == NULL ? "there is none" : judge_event(world, account, truth, shown, stretch);
    if (why != NULL) {
        account_fail(world, account, "wrong event",
                     "%" PRIu64 " of '%s' was delivered (path %.*s, session %" PRIu64 "): %s",
                     shown->sequence, world->truth.names[channel].text, (int)view.path.len,
                     (const char *)view.path.data, shown->session, why);
        return;
    }
    stretch->newest = shown->sequence;
    truth->mark = world->judge.mark;
    account->session[truth->inc->is_logged] = shown->session;
    account->instance[truth->inc->is_logged] = shown->instance;
    account->sent_events++;
    account->met |= truth->ttl_us != 0 ? F(ttl) : 0;
    account->met |= truth->source == 0 ? F(window) : 0;
}

static void
read_blocks(struct world *world, struct account *account, struct bb_slice rest, struct parcel *parcel)
{
    struct bb_block block;
    while (rest.len > 0 && !world->failed) {
        if (bb_block_read(&rest, &block) < 0) {
            account_fail(world, account, "block", "a block that cannot be read");
            return;
        }
        struct bb_slice events = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        for (uint64_t i = 0; i < block.count && !world->failed; i++) {
            struct bb_slice before = events;
            struct bb_event_view view;
            if (bb_event_read(&events, &view) < 0) {
                account_fail(world, account, "block", "an event that cannot be read");
                return;
            }
            take_event(world, account, parcel,
                       &(struct truth_shown){.raw = bb_slice(before.data, before.len - events.len),
                                             .session = block.session,
                                             .instance = block.instance + i,
                                             .time = block.time,
                                             .source = block.source,
                                             .sequence = block.sequence + i});
        }
        if (events.len != 0 && !world->failed) {
            account_fail(world, account, "block", "a block holds more than it says");
        }
    }
}

/* --- the sum ---------------------------------------------------------------------------------- */

static struct gap *gap_over(struct parcel *parcel, size_t channel, uint64_t sequence)
{
    for (size_t i = 0; i < parcel->n_gaps; i++) {
        struct gap *gap = &parcel->gaps[i];
        if (gap->channel == channel && gap->has_to && !is_reason(gap, "retracted") && sequence >= gap->from &&
            sequence <= gap->to) {
            return gap;
        }
    }
    return NULL;
}

static void
settle_channel(struct world *world, struct account *account, struct parcel *parcel, size_t channel)
{
    struct stretch *stretch = &parcel->stretches[channel];
    struct place *place = &account->places[channel];
    uint64_t bytes = 0;
    for (uint64_t sequence = stretch->start + 1; sequence <= stretch->at && !world->failed; sequence++) {
        struct truth_event *event = truth_event_at(place->inc, sequence);
        struct gap *gap = gap_over(parcel, channel, sequence);
        if (event == NULL || !account_wants(account, place, event)) {
            continue;
        }
        bytes += event->len;
        if (event->mark == world->judge.mark) {
            continue;
        }
        if (gap == NULL) {
            account_fail(world, account, "lost in silence",
                         "%" PRIu64 " of '%s' is missing in the range %" PRIu64 " to %" PRIu64, sequence,
                         world->truth.names[channel].text, stretch->start, stretch->at);
            return;
        }
        gap->lost = sim_grown(gap->lost, gap->n_lost, &gap->n_lost_slots, sizeof(struct truth_event *));
        gap->lost[gap->n_lost++] = event;
    }
    account_count(world, account, bytes);
}

static void check_count(struct world *world, struct account *account, const struct gap *gap)
{
    bool may_be = gap->is_unheard && gap->count > gap->n_lost && gap->count <= gap->to - gap->from + 1;
    if (gap->has_count && gap->count != gap->n_lost && !may_be) {
        account_fail(world, account, "gap count",
                     "a gap of %" PRIu64 " (%.*s) from %" PRIu64 " to %" PRIu64
                     " of '%s', but %zu are lost in it",
                     gap->count, (int)gap->reason.len, (const char *)gap->reason.data, gap->from, gap->to,
                     world->truth.names[gap->channel].text, gap->n_lost);
    }
}

static void settle(struct world *world, struct account *account, struct parcel *parcel)
{
    for (size_t i = 0; i < world->truth.n_names && !world->failed; i++) {
        if (parcel->stretches[i].is_there) {
            settle_channel(world, account, parcel, i);
        }
    }
    for (size_t i = 0; i < parcel->n_gaps && !world->failed; i++) {
        const struct gap *gap = &parcel->gaps[i];
        if (gap->has_to && !is_reason(gap, "retracted")) {
            check_count(world, account, gap);
            gap_judge(world, account, gap);
        }
    }
    for (size_t i = 0; i < world->truth.n_names; i++) {
        if (parcel->stretches[i].is_there) {
            struct place *place = &account->places[i];
            place->covered = parcel->stretches[i].at;
            place->told_cut = place->inc->n_cuts;
        }
    }
}

/* PROTOCOL 7.2: the broker sends while both totals are below the credit. */
static void check_credit(struct world *world, struct account *account, const struct bb_msg *msg)
{
    if (msg->body.len > 0 &&
        (account->sent_bytes >= account->credit_bytes || account->sent_events >= account->credit_events)) {
        account_fail(
            world, account, "credit",
            "a delivery without credit: %" PRIu64 " of %" PRIu64 " bytes, %" PRIu64 " of %" PRIu64 " events",
            account->sent_bytes, account->credit_bytes, account->sent_events, account->credit_events);
    }
    account->sent_bytes += msg->body.len;
}

void account_deliver(struct world *world, struct account *account, const struct bb_msg *msg)
{
    static struct parcel parcel; /* large, and one at a time */
    memset(parcel.stretches, 0, sizeof(parcel.stretches));
    parcel.n_gaps = 0;
    account->voided = 0;
    world->judge.mark++;
    if (account->state != ACCOUNT_OPEN) {
        account_fail(world, account, "too early", "a delivery or gap came before the answer to subscribe");
        return;
    }
    world->judge.n_refusers_moved += (account->wish.policies & POLICY_REFUSE) != 0;
    if (msg->type == BB_MSG_DELIVER) {
        check_credit(world, account, msg);
    }
    if (msg->type == BB_MSG_DELIVER && msg->retained != 0) {
        account_retained(world, account, msg);
        return;
    }
    if (account->retained_due && msg->type == BB_MSG_DELIVER && msg->body.len > 0) {
        account_fail(world, account, "retained", "a delivery came before the last retained value");
    }
    read_gaps(world, account, msg->gaps, &parcel);
    if (msg->type == BB_MSG_DELIVER && !world->failed) {
        read_ranges(world, account, msg->ranges, &parcel);
        read_blocks(world, account, msg->body, &parcel);
    }
    if (!world->failed) {
        settle(world, account, &parcel);
    }
    for (size_t i = 0; i < parcel.n_gaps; i++) {
        free(parcel.gaps[i].lost);
    }
}

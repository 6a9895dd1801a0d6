/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to subscribe: where it begins in each channel, what of it is void, and where it ends (PROTOCOL
 * 7.1, 7.5). */
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/match.h"
#include "tests/sim/world.h"

#include <inttypes.h>

/* One channel of the answer. */
struct told {
    bool is_there;
    uint64_t position;
    uint64_t life;
};

/* --- from new, last, a sequence, a time, an id ------------------------------------------------ */

/* Whether @event is of those with which the subscription begins; for `last` the newest that matches up to
 * @newest is the first. */
static bool is_from_here(const struct account *account, const struct truth_event *event, uint64_t lo)
{
    const struct wish *wish = &account->wish;
    switch ((int)wish->from) {
    case WISH_NEW:
        return event->sequence > lo;
    case WISH_SEQUENCE:
        return event->sequence >= wish->number;
    case WISH_TIME:
        return event->time >= wish->number;
    case WISH_ID:
        return event->session > wish->session ||
               (event->session == wish->session && event->instance > wish->instance);
    case WISH_OLDEST:
        return true;
    default:
        return event->sequence >= lo;
    }
}

/* The newest sequence up to @to that a pattern matches; 0 if there is none. */
static uint64_t newest_match(const struct account *account, const struct truth_inc *inc, uint64_t to)
{
    while (to > 0 && !match_any(account->wish.patterns, inc->events[to - 1]->path)) {
        to--;
    }
    return to;
}

static bool may_be_gone(struct world *world, const struct truth_event *event)
{
    return truth_may_be_trimmed(world, event) ||
           (!event->inc->is_logged && truth_may_be_evicted(world, event));
}

/* What may be left out in front: it is not kept any more, or was not when the log was asked. Behind an id it is told. */
static bool
may_be_skipped(struct world *world, const struct account *account, const struct truth_event *event)
{
    return account->wish.from != WISH_ID &&
           (may_be_gone(world, event) || truth_may_have_expired(world, event));
}

static void check_simple(struct world *world,
                         struct account *account,
                         struct truth_inc *inc,
                         size_t channel,
                         uint64_t position)
{
    const char *name = world->truth.names[channel].text;
    bool is_known = account->then[channel].inc == inc;
    uint64_t lo = is_known ? BB_MIN(account->then[channel].visible, inc->n) : 0;
    uint64_t hi = account_reach(account, inc);
    uint64_t most = account->wish.from == WISH_SEQUENCE && account->wish.number > 0
                        ? BB_MAX(hi, account->wish.number - 1)
                        : hi;
    if (position > most && !(account_is_early(account) && (inc->is_logged || inc->n == 0))) {
        account_fail(world, account, "begins ahead",
                     "it begins after %" PRIu64 " in '%s', which has %" PRIu64, position, name, hi);
        return;
    }
    if (account->wish.from == WISH_LAST) {
        lo = newest_match(account, inc, lo);
        lo = lo == 0 ? (is_known ? account->then[channel].visible : 0) + 1 : lo;
    }
    uint64_t newest = newest_match(account, inc, BB_MIN(hi, inc->n));
    for (uint64_t i = 0; i < BB_MIN(hi, inc->n); i++) {
        const struct truth_event *event = inc->events[i];
        bool is_late = !is_known || event->sequence > account->then[channel].visible;
        if (!match_any(account->wish.patterns, event->path)) {
            continue;
        }
        bool is_wanted = is_from_here(account, event, lo);
        bool has_newer = account->wish.from == WISH_LAST && newest > position;
        if (event->sequence <= position && is_wanted && !is_late && !has_newer &&
            !may_be_skipped(world, account, event) && account->wish.until_time >= event->time) {
            account_fail(world, account, "begins too late",
                         "it begins after %" PRIu64 " in '%s', and %" PRIu64 " is wanted", position, name,
                         event->sequence);
        } else if (event->sequence > position && !is_wanted && !is_late && account->wish.from != WISH_LAST &&
                   !(account->wish.from == WISH_ID && may_be_gone(world, event)) &&
                   !(account->wish.from == WISH_SEQUENCE &&
                     position >= BB_MIN(account->then[channel].visible, hi))) {
            account_fail(world, account, "begins too early",
                         "it begins after %" PRIu64 " in '%s', and %" PRIu64 " is not wanted", position, name,
                         event->sequence);
        } else if (account->wish.from == WISH_LAST && event->sequence > position && !is_wanted &&
                   lo <= inc->visible && newest_match(account, inc, BB_MIN(hi, inc->n)) != event->sequence) {
            account_fail(world, account, "begins too early",
                         "it begins after %" PRIu64 " in '%s', and the newest is %" PRIu64, position, name,
                         lo);
        }
    }
    if (account->wish.from == WISH_OLDEST && position + 1 < inc->trim_done) {
        account_fail(world, account, "oldest is gone",
                     "it begins after %" PRIu64 " in '%s', trimmed up to %" PRIu64, position, name,
                     inc->trim_done);
    }
}

/* --- from positions --------------------------------------------------------------------------- */

/* What must follow from a position that was given. */
struct given {
    enum truth_verdict verdict;
    uint64_t sequence;
    uint64_t end;
    bool is_empty;   /* the channel has nothing */
    bool may_repeat; /* without lives: what cannot be told apart is sent again */
};

/* Without a life nobody can tell what was taken back, or may still be, from what was not. */
static bool is_unclear_without_life(const struct world *world, size_t channel, uint64_t sequence)
{
    const struct truth_inc *inc = world->truth.names[channel].inc;
    bool has_failed = inc != NULL && inc->is_logged && world->disk.n_failures > 0;
    bool has_other = inc != NULL && (inc->next != NULL || inc->n_rm_open > 0 ||
                                     world->truth.names[channel].was_removed_empty);
    return inc != NULL && (has_failed || has_other || inc->n_cuts > 0 || sequence > inc->visible);
}

static bool is_empty(const struct world *world, size_t channel)
{
    const struct truth_inc *inc = world->truth.names[channel].inc;
    return inc == NULL || inc->n == 0;
}

static bool agrees(const struct given *given, const struct told *told)
{
    if (given->may_repeat && told->is_there && told->position <= given->sequence) {
        return true;
    }
    switch (given->verdict) {
    case POSITION_VALID: /* a channel of which nothing is left may be unknown */
        return told->is_there ? told->position == given->sequence : given->is_empty && given->sequence == 0;
    case POSITION_RETRACTED: /* a channel of which nothing was ever kept does not exist */
        return told->is_there ? told->position == given->end : given->is_empty && given->end == 0;
    case POSITION_VOID:
        return !told->is_there || told->position == 0;
    case POSITION_UNSURE:
        return true;
    }
    return false;
}

/* An answer that fits only if a channel has been removed says that it has been. */
static bool
shows_removal(struct world *world, size_t channel, const struct given *given, const struct told *told)
{
    bool is_one = world->truth.names[channel].n_rm_asked > 0 && told->is_there && told->position == 0 &&
                  given->sequence > 0 && !agrees(given, told);
    if (is_one) {
        truth_remove(world, channel, "a position in it does not hold");
    }
    return is_one;
}

static void owe(struct world *world,
                struct account *account,
                size_t channel,
                const struct given *given,
                const struct told *told)
{
    struct place *place = account_place(world, account, channel);
    place->due_sequence = given->sequence;
    place->due_from = given->sequence + 1;
    if (given->verdict == POSITION_VALID) {
        place->covered = given->sequence;
    } else if (given->verdict == POSITION_RETRACTED) {
        place->covered = given->end;
        place->due = DUE_RETRACTED;
        place->due_from = given->end + 1;
        place->due_to = given->sequence;
    } else if (given->verdict == POSITION_VOID) {
        place->covered = 0;
        place->due = DUE_RESTART;
    } else {
        place->due = DUE_EITHER;
    }
    /* What begins at 0 has nothing to lose: a broker may leave it unsaid. */
    bool is_unclear = given->sequence == 0 || (given->verdict == POSITION_RETRACTED && given->end == 0);
    place->due = is_unclear ? DUE_EITHER : place->due;
    if (told->is_there && (given->may_repeat || given->verdict == POSITION_UNSURE)) {
        place->covered = told->position;
        place->due_from = told->position + 1;
        place->due_to = given->sequence;
        place->due = told->position == given->sequence && given->sequence > 0 ? DUE_NOTHING : DUE_EITHER;
    }
}

static void check_given(struct world *world,
                        struct account *account,
                        size_t channel,
                        const struct given *given,
                        const struct told *told)
{
    static const char *const verdicts[] = {"valid", "retracted", "void", "unsure"};
    if (!account_matches(world, account, channel)) {
        return;
    }
    if (!agrees(given, told)) {
        account_fail(world, account, "resumes elsewhere",
                     "it resumes in '%s' after %" PRIu64 " (%s, up to %" PRIu64
                     "), and is answered %s%" PRIu64,
                     world->truth.names[channel].text, given->sequence, verdicts[given->verdict], given->end,
                     told->is_there ? "" : "nothing ", told->position);
        return;
    }
    owe(world, account, channel, given, told);
}

static void check_after(struct world *world,
                        struct account *account,
                        const struct told told[NAMES_MAX],
                        bool named[NAMES_MAX])
{
    struct bb_mp_reader reader = bb_mp_reader(account->wish.after);
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0 && !world->failed; i++) {
        size_t channel = truth_name(world, bb_mp_read_str(&reader));
        struct given given = {.verdict = POSITION_VOID};
        if (account->wish.from == WISH_AFTER) {
            (void)bb_mp_read_array(&reader);
            given.sequence = bb_mp_read_uint(&reader);
            uint64_t life = bb_mp_read_uint(&reader);
            given.verdict = truth_judge_life(world, channel, given.sequence, life, &given.end);
        } else {
            given.sequence = bb_mp_read_uint(&reader);
            given.verdict = truth_judge_run(world, channel, given.sequence, account->wish.run, &given.end);
            given.may_repeat = is_unclear_without_life(world, channel, given.sequence);
        }
        named[channel] = true;
        given.is_empty = is_empty(world, channel);
        if (account_matches(world, account, channel) &&
            shows_removal(world, channel, &given, &told[channel])) {
            given.verdict = POSITION_VOID;
        }
        check_given(world, account, channel, &given, &told[channel]);
    }
}

static struct given given_by(const struct world *world, const struct saved_place *place)
{
    return (struct given){place->verdict, place->sequence, place->end, is_empty(world, place->channel),
                          false};
}

/* A cursor may be any of those that were saved and not yet answered. */
static bool cursor_agrees(const struct world *world,
                          const struct account *account,
                          const struct saved_place *places,
                          size_t n,
                          const struct told told[NAMES_MAX],
                          bool named[NAMES_MAX])
{
    memset(named, 0, NAMES_MAX * sizeof(bool));
    for (size_t i = 0; i < n; i++) {
        const struct given given = given_by(world, &places[i]);
        named[places[i].channel] = true;
        if (account_matches(world, account, places[i].channel) && !agrees(&given, &told[places[i].channel])) {
            return false;
        }
    }
    for (size_t i = 0; i < world->truth.n_names; i++) {
        if (!named[i] && told[i].is_there && told[i].position != 0) {
            return false;
        }
    }
    return true;
}

static void owe_all(struct world *world,
                    struct account *account,
                    const struct saved_place *places,
                    size_t n,
                    const struct told told[NAMES_MAX])
{
    for (size_t i = 0; i < n; i++) {
        const struct given given = given_by(world, &places[i]);
        if (account_matches(world, account, places[i].channel)) {
            owe(world, account, places[i].channel, &given, &told[places[i].channel]);
        }
    }
}

/* What any of the others would have had to tell may be told. */
static void loosen(struct world *world, struct account *account, const struct told told[NAMES_MAX])
{
    struct saved_place places[NAMES_MAX];
    bool named[NAMES_MAX];
    size_t n = 0;
    bool is_there = false;
    for (size_t i = 0; cursor_lookup(world, account->wish.durable, i, places, &n, &is_there); i++) {
        if (!is_there || !cursor_agrees(world, account, places, n, told, named)) {
            continue;
        }
        for (size_t k = 0; k < n; k++) {
            if (places[k].verdict != POSITION_VALID && account_matches(world, account, places[k].channel)) {
                struct place *place = account_place(world, account, places[k].channel);
                place->due = DUE_EITHER;
                place->is_due_unclear = true;
            }
        }
    }
}

/* The only thing that it can be. */
static bool cursor_shows_removal(struct world *world,
                                 const struct account *account,
                                 const struct saved_place *places,
                                 size_t n,
                                 const struct told told[NAMES_MAX])
{
    bool any = false;
    for (size_t i = 0; i < n; i++) {
        const struct given given = given_by(world, &places[i]);
        any = (account_matches(world, account, places[i].channel) &&
               shows_removal(world, places[i].channel, &given, &told[places[i].channel])) ||
              any;
    }
    return any;
}

/* Whether the broker may have no cursor of that name, and so made one; @ret_is_sure: it had none. */
static bool may_be_new(struct world *world, struct bb_slice name, bool *ret_is_sure)
{
    struct saved_place places[NAMES_MAX];
    size_t n = 0;
    bool is_there = false;
    bool any = false;
    bool any_is_there = false;
    bool none = true;
    for (size_t i = 0; cursor_lookup(world, name, i, places, &n, &is_there); i++) {
        any_is_there = any_is_there || is_there;
        any = any || !is_there;
        none = false;
    }
    *ret_is_sure = !any_is_there;
    return any || none;
}

static void check_cursor(struct world *world,
                         struct account *account,
                         const struct told told[NAMES_MAX],
                         bool named[NAMES_MAX])
{
    struct saved_place places[NAMES_MAX];
    struct saved_place others[NAMES_MAX];
    size_t n = 0;
    size_t n_others = 0;
    bool is_there = false;
    bool may_be_none = false;
    size_t n_candidates = 0;
    for (size_t i = 0; cursor_lookup(world, account->wish.durable, i, places, &n, &is_there); i++) {
        n_candidates++;
        if (!is_there) {
            may_be_none = true;
        } else if (cursor_agrees(world, account, places, n, told, named)) {
            owe_all(world, account, places, n, told);
            if (n_candidates > 1 ||
                cursor_lookup(world, account->wish.durable, i + 1, others, &n_others, &is_there)) {
                loosen(world, account, told);
            }
            return;
        }
    }
    if (n_candidates == 1 && !may_be_none && cursor_shows_removal(world, account, places, n, told)) {
        check_cursor(world, account, told, named);
        return;
    }
    if (!may_be_none && n_candidates > 0) {
        account_fail(world, account, "cursor", "it begins neither where its cursor is nor where it may be");
        return;
    }
    memset(named, 0, NAMES_MAX * sizeof(bool));
    account->wish.from = account->wish.without_cursor;
}

/* --- where it ends ---------------------------------------------------------------------------- */

static void set_last(struct world *world, struct account *account)
{
    struct bb_mp_reader reader = bb_mp_reader(account->wish.last);
    uint32_t n = bb_mp_read_map(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        size_t channel = truth_name(world, bb_mp_read_str(&reader));
        struct truth_inc *inc = truth_current(world, channel);
        uint64_t sequence = 0;
        uint64_t life = 0;
        uint64_t end = 0;
        enum truth_verdict verdict = POSITION_VALID;
        if (bb_mp_peek_type(&reader) == BB_MP_ARRAY) {
            uint32_t fields = bb_mp_read_array(&reader);
            sequence = bb_mp_read_uint(&reader);
            life = fields > 1 ? bb_mp_read_uint(&reader) : 0;
            verdict = life != 0 ? truth_judge_life(world, channel, sequence, life, &end) : POSITION_VALID;
        } else {
            sequence = bb_mp_read_uint(&reader);
        }
        sequence = verdict == POSITION_VOID        ? 0
                   : verdict == POSITION_RETRACTED ? BB_MIN(sequence, end)
                                                   : sequence;
        if (account_matches(world, account, channel)) {
            account_place(world, account, channel)->stop = BB_MIN(sequence, inc->n);
        }
    }
}

/* At 0 of a channel that is to be removed, it may be the channel that comes after it. */
static bool may_be_of_next(const struct world *world, size_t channel, uint64_t sequence)
{
    return sequence == 0 && world->truth.names[channel].n_rm_asked > 0;
}

static void check_end(struct world *world, struct account *account, size_t channel, uint64_t end)
{
    struct place *place = account_place(world, account, channel);
    const char *name = world->truth.names[channel].text;
    if (account->wish.until == WISH_UNTIL_NOW) {
        bool is_known = account->then[channel].inc == place->inc;
        uint64_t least = is_known ? BB_MIN(account->then[channel].visible, place->inc->n) : 0;
        bool may_be = end >= least && end <= place->inc->n;
        if (!may_be && !may_be_of_next(world, channel, end)) {
            account_fail(world, account, "ends", "now is %" PRIu64 " in '%s', which has %" PRIu64 " to %zu",
                         end, name, least, place->inc->n);
        }
    } else if (account->wish.until == WISH_UNTIL_LAST && end > place->stop &&
               account->wish.from != WISH_RUN) {
        account_fail(world, account, "ends", "the last of '%s' is %" PRIu64 ", not %" PRIu64, name,
                     place->stop, end);
    }
    place->stop = end;
}

static void check_ends(struct world *world, struct account *account, struct bb_slice ends)
{
    struct bb_mp_reader reader = bb_mp_reader(ends);
    uint32_t n = ends.len > 0 && bb_mp_peek_type(&reader) == BB_MP_MAP ? bb_mp_read_map(&reader) : 0;
    bool should = account->wish.until == WISH_UNTIL_NOW;
    if (should && ends.len == 0) {
        account_fail(world, account, "ends", "what now is was not answered");
    }
    for (uint32_t i = 0; i < n && reader.error == 0 && !world->failed; i++) {
        size_t channel = truth_name(world, bb_mp_read_str(&reader));
        uint64_t life = 0;
        uint64_t end = 0;
        if (bb_mp_peek_type(&reader) == BB_MP_ARRAY) {
            uint32_t fields = bb_mp_read_array(&reader);
            end = bb_mp_read_uint(&reader);
            life = fields > 1 ? bb_mp_read_uint(&reader) : 0;
        } else {
            end = bb_mp_read_uint(&reader);
        }
        if (!account_matches(world, account, channel)) {
            account_fail(world, account, "ends", "an end in '%s', which it does not match",
                         world->truth.names[channel].text);
            return;
        }
        check_end(world, account, channel, end);
        if (life != 0 && !may_be_of_next(world, channel, end)) {
            truth_told_life(world, account->places[channel].inc, end, life);
        }
    }
}

/* --- the whole -------------------------------------------------------------------------------- */

static void read_positions(struct world *world,
                           struct account *account,
                           struct bb_slice positions,
                           struct told told[NAMES_MAX])
{
    struct bb_mp_reader reader = bb_mp_reader(positions);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n && reader.error == 0 && !world->failed; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct bb_slice name = bb_mp_read_str(&reader);
        uint64_t position = bb_mp_read_uint(&reader);
        uint64_t life = fields > 2 ? bb_mp_read_uint(&reader) : 0;
        size_t channel = truth_name(world, name);
        if (told[channel].is_there || !account_matches(world, account, channel)) {
            account_fail(world, account, "positions", "a position in '%s' twice, or that it does not match",
                         world->truth.names[channel].text);
            return;
        }
        if ((fields > 2) != (account->wish.lives && world->judge.has_lives)) {
            account_fail(world, account, "life",
                         "a position in '%s' without its life, or with one that was not asked for",
                         world->truth.names[channel].text);
        }
        told[channel] = (struct told){true, position, life};
    }
    if (reader.error != 0) {
        account_fail(world, account, "positions", "positions that cannot be read");
    }
}

static void
begin_channel(struct world *world, struct account *account, size_t channel, const struct told *told)
{
    struct truth_inc *inc = truth_current(world, channel);
    if (!told->is_there &&
        (inc->n == 0 || account->then[channel].inc != inc || account->then[channel].visible == 0)) {
        return; /* it came later: from its beginning */
    }
    struct place *place = account_place(world, account, channel);
    if (!may_be_of_next(world, channel, told->position)) {
        check_simple(world, account, inc, channel, told->position);
    }
    place->covered = told->position;
}

/* What is not named and had events is not there any more. */
static void
note_unnamed(struct world *world, const struct account *account, size_t channel, const struct told *told)
{
    const struct truth_name *name = &world->truth.names[channel];
    bool was_there = account->then[channel].inc == name->inc && account->then[channel].visible > 0;
    if (!told->is_there && was_there && name->n_rm_asked > 0) {
        truth_remove(world, channel, "a subscription is not told a position in it");
    }
}

void account_subscribed(struct world *world, struct account *account, const struct bb_msg *msg)
{
    struct told told[NAMES_MAX] = {{0}};
    bool named[NAMES_MAX] = {false};
    read_positions(world, account, msg->positions, told);
    if (account->state != ACCOUNT_ASKED || account->must_fail || world->failed) {
        account_fail(world, account, "subscribed", "it was answered twice, or must be refused");
        return;
    }
    for (size_t i = 0; i < world->truth.n_names; i++) {
        if (account_matches(world, account, i)) {
            note_unnamed(world, account, i, &told[i]);
        }
    }
    if (account->wish.from == WISH_AFTER || account->wish.from == WISH_RUN) {
        check_after(world, account, told, named);
    } else if (account->wish.from == WISH_CURSOR) {
        bool is_sure = false;
        bool is_new = may_be_new(world, account->wish.durable, &is_sure);
        check_cursor(world, account, told, named);
        if (is_new) {
            cursor_made(world, account->wish.durable, msg->positions, is_sure);
        }
    }
    bool is_simple = account->wish.from < WISH_AFTER;
    for (size_t i = 0; i < world->truth.n_names && !world->failed; i++) {
        if (named[i] || !account_matches(world, account, i)) {
            continue;
        }
        if (is_simple) {
            begin_channel(world, account, i, &told[i]);
        } else if (told[i].is_there) {
            struct place *place = account_place(world, account, i);
            place->covered = told[i].position;
            if (told[i].position != 0) {
                account_fail(world, account, "resumes elsewhere",
                             "'%s' was not named and begins after %" PRIu64, world->truth.names[i].text,
                             told[i].position);
            }
        }
    }
    if (account->wish.until == WISH_UNTIL_LAST) {
        set_last(world, account);
    }
    check_ends(world, account, msg->ends);
    for (size_t i = 0; i < world->truth.n_names && !world->failed; i++) {
        struct place *place = &account->places[i];
        place->begin = place->base = place->covered;
        place->told_cut = place->inc != NULL ? place->inc->n_cuts : 0;
        place->is_named = told[i].is_there;
        place->may_be_next = told[i].is_there && may_be_of_next(world, i, told[i].position);
        place->life = told[i].is_there ? told[i].life : 0;
        if (place->life != 0 && !place->may_be_next) {
            truth_told_life(world, place->inc, told[i].position, told[i].life);
        }
    }
    account->state = ACCOUNT_OPEN;
    account->opened_rank = world->truth.n_visible;
    account->opened_at = world->now;
}

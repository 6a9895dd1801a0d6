/* SPDX-License-Identifier: Apache-2.0 */
/* Publishes and their answers: each one answer, in order, that says what happened (PROTOCOL 6). */
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/match.h"
#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* --- going in --------------------------------------------------------------------------------- */

static void classify(struct world *world, struct sim_link *link, struct published *published)
{
    struct judged_link *judged = &link->judged;
    struct producer *producer = judged->has_id ? producer_of(world, judged->id, judged->epoch) : NULL;
    uint64_t *last = producer != NULL ? &producer->last : &judged->last_number;
    if (published->number == 0) {
        published->class = PUBLISH_FORGOTTEN;
    } else if (published->number <= *last) {
        published->class = PUBLISH_REPEATED;
    } else if (judged->next_number != 0 && published->number != judged->next_number) {
        published->class = PUBLISH_OUT_OF_SEQUENCE;
    } else {
        *last = published->number;
        judged->next_number = published->number + 1;
        for (size_t i = 0; i < published->n; i++) {
            struct written *written = written_at(world, published->writer, published->serials[i]);
            written->fresh_at = world->now;
            written->fresh_link = link;
            written->epoch = judged->epoch;
        }
    }
}

static bool path_is_refused(struct world *world, struct sim_link *link, struct bb_slice path, bool surely)
{
    (void)link;
    for (struct sim_link *other = world->links; other != NULL; other = other->next) {
        for (struct account *account = other->judged.accounts; account != NULL; account = account->next) {
            bool refuses = (account->wish.policies & POLICY_REFUSE) != 0 && account->state != ACCOUNT_OVER;
            if (!refuses || !match_any(account->wish.patterns, path)) {
                continue;
            }
            uint64_t waits =
                surely ? account_waiting_surely(world, account) : account_waiting(world, account);
            if (surely &&
                (account->wish.policies != POLICY_REFUSE || account->state != ACCOUNT_OPEN ||
                 other->core == NULL || account->is_leaving || account->wish.until != WISH_FOR_EVER)) {
                continue;
            }
            if (surely ? waits > account->wish.budget : waits * 5 / 4 + 1024 > account->wish.budget) {
                return true;
            }
        }
    }
    return false;
}

/* How many subscriptions there are for an event, be they ready or not. */
static uint64_t count_matches(const struct world *world, struct bb_slice path)
{
    uint64_t n = 0;
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (const struct account *account = link->judged.accounts; account != NULL;
             account = account->next) {
            n += account->state != ACCOUNT_OVER && match_any(account->wish.patterns, path);
        }
    }
    return n;
}

static void note_event(struct world *world,
                       struct sim_link *link,
                       struct published *published,
                       const struct bb_event_view *view)
{
    struct bb_mp_reader reader = bb_mp_reader(view->payload);
    (void)bb_mp_read_array(&reader);
    published->writer = bb_mp_read_uint(&reader);
    uint64_t serial = bb_mp_read_uint(&reader);
    published->serials = realloc(published->serials, (published->n + 1) * sizeof(uint64_t));
    if (published->serials == NULL) {
        abort();
    }
    published->matches = realloc(published->matches, (published->n + 1) * sizeof(uint64_t));
    published->must_refuse = realloc(published->must_refuse, (published->n + 1) * sizeof(bool));
    if (published->matches == NULL || published->must_refuse == NULL) {
        abort();
    }
    published->matches[published->n] = count_matches(world, view->path);
    published->must_refuse[published->n] = written_at(world, published->writer, serial)->refusal == NULL &&
                                           path_is_refused(world, link, view->path, true);
    published->serials[published->n++] = serial;
    published->may_refuse = published->may_refuse || path_is_refused(world, link, view->path, false);
}

void published_input(struct world *world, struct sim_link *link, const struct bb_msg *msg, bool is_bare)
{
    struct published *published = calloc(1, sizeof(*published));
    struct bb_slice rest = msg->body;
    struct bb_event_view view;
    (void)is_bare;
    if (published == NULL) {
        abort();
    }
    published->number = msg->number;
    published->level = msg->level;
    published->at = world->now;
    published->run = world->run;
    published->n_accounts = world->judge.n_accounts;
    published->n_refusers_moved = world->judge.n_refusers_moved;
    bb_buf_append(&published->options, msg->options.data, msg->options.len);
    for (size_t i = 0; i < world->truth.n_names; i++) {
        const struct truth_inc *inc = world->truth.names[i].inc;
        if (inc != NULL && !inc->is_ended) {
            published->then[i].visible = inc->visible;
            published->then[i].taken = inc->n;
            published->then[i].inc = inc;
        }
    }
    while (rest.len > 0 && !published->is_broken) {
        if (bb_event_read(&rest, &view) < 0) {
            published->is_broken = true;
        } else {
            note_event(world, link, published, &view);
        }
    }
    classify(world, link, published);
    struct judged_link *judged = &link->judged;
    published->next = NULL;
    if (judged->published == NULL) {
        judged->published_end = &judged->published;
    }
    *judged->published_end = published;
    judged->published_end = &published->next;
}

void published_free(struct published *published)
{
    free(published->serials);
    free(published->matches);
    free(published->must_refuse);
    bb_buf_fini(&published->options);
    free(published);
}

/* Take it off the list. */
static struct published *take(struct sim_link *link, uint64_t number, bool must_be_first)
{
    struct published **at = &link->judged.published;
    while (*at != NULL && ((*at)->number != number || (*at)->class == PUBLISH_FORGOTTEN)) {
        if (must_be_first && (*at)->class != PUBLISH_FORGOTTEN) {
            return NULL;
        }
        at = &(*at)->next;
    }
    struct published *published = *at;
    if (published != NULL) {
        *at = published->next;
        if (published->next == NULL) {
            link->judged.published_end = at;
        }
    }
    return published;
}

/* --- acks ------------------------------------------------------------------------------------- */

struct ack {
    uint64_t number;
    uint64_t level;
    bool has_matches;
    uint64_t matches;
    bool is_repeated;
    bool *is_named; /* by refused */
    struct published *published;
    bool all_logged; /* and synced by themselves */
    bool has_events; /* some were taken */
    bool
        has_failed; /* some were for a log that did not take them: what came before them may have failed with them */
};

static void
fail(struct world *world, const struct sim_link *link, const char *kind, uint64_t number, const char *why)
{
    world_fail(world, kind, "peer %" PRIu64 ", publish %" PRIu64 ": %s", link->peer->index, number, why);
}

static bool is_one_of(struct bb_slice code, const char *const *codes)
{
    while (*codes != NULL && !bb_slice_equal(code, bb_slice_str(*codes))) {
        codes++;
    }
    return *codes != NULL;
}

/* Since it was published as a new one: a broker that has lost its numbers may refuse what one before it has taken. */
static bool has_appeared(const struct written *written)
{
    return written->event != NULL && !written->event->is_gone &&
           written->event->taken_at >= written->fresh_at;
}

static const char *
judge_refusal(const struct published *published, const struct written *written, struct bb_slice code)
{
    static const char *const of_log[] = {"log_failed", "log_full", "full", NULL};
    if (written->refusal != NULL) {
        return bb_slice_equal(code, bb_slice_str(written->refusal))
                   ? NULL
                   : "an event is refused for another reason";
    }
    if (is_one_of(code, of_log)) {
        return has_appeared(written) && written->event->is_durable ? "an event is refused that is on the disk"
                                                                   : NULL;
    }
    if (bb_slice_equal(code, bb_slice_str("unsupported")) && published->level >= BB_LEVEL_SYNCED) {
        return NULL;
    }
    return "an event is refused that is good";
}

static const char *read_refused(struct world *world, struct ack *ack, struct bb_mp_reader *reader)
{
    struct published *published = ack->published;
    uint32_t n = bb_mp_read_array(reader);
    for (uint32_t i = 0; i < n && reader->error == 0; i++) {
        (void)bb_mp_read_array(reader);
        uint64_t index = bb_mp_read_uint(reader);
        struct bb_slice code = bb_mp_read_str(reader);
        if (index >= published->n || ack->is_named[index]) {
            return "an event is refused twice, or one that is not there";
        }
        struct written *written = written_at(world, published->writer, published->serials[index]);
        const char *why = judge_refusal(published, written, code);
        if (why != NULL) {
            return why;
        }
        ack->is_named[index] = true;
        ack->has_failed = ack->has_failed || bb_slice_equal(code, bb_slice_str("log_failed")) ||
                          bb_slice_equal(code, bb_slice_str("log_full"));
        written->refused_run = world->run;
    }
    return reader->error != 0 ? "refused events that cannot be read" : NULL;
}

static const char *check_named(struct world *world,
                               const struct ack *ack,
                               struct written *written,
                               size_t channel,
                               uint64_t sequence)
{
    const struct truth_event *event = written->event;
    if (written->refusal != NULL) {
        return "a bad event is acknowledged";
    }
    if (event == NULL || event->is_gone || event->taken_at < written->fresh_at) {
        written->has_claim = true;
        written->claim = sequence;
        return ack->level >= BB_LEVEL_SYNCED ? "an event is acknowledged as synced that is not in the log"
                                             : NULL;
    }
    if (event->sequence != sequence || event->inc->channel != channel) {
        return "the positions are not those of its events";
    }
    if (ack->level >= BB_LEVEL_SYNCED && !event->is_durable) {
        return "an event is acknowledged as synced that is not durable";
    }
    if (world->judge.full_since != 0 && event->inc->is_logged && !event->is_durable &&
        ack->published->at > world->judge.full_since) {
        return "it is acknowledged while the log is full";
    }
    return NULL;
}

/* Its channel is logged and was never lazy. */
static bool is_synced_by_itself(const struct written *written)
{
    const struct truth_inc *inc = written->event != NULL ? written->event->inc : NULL;
    return inc != NULL && inc->is_logged && !inc->is_lazy && !inc->is_ended;
}

static const char *read_positions(struct world *world, struct ack *ack, struct bb_mp_reader *reader)
{
    const struct published *published = ack->published;
    uint32_t n = bb_mp_read_array(reader);
    size_t index = 0;
    ack->all_logged = ack->has_events = n > 0;
    for (uint32_t i = 0; i < n && reader->error == 0; i++) {
        (void)bb_mp_read_array(reader);
        size_t channel = truth_name(world, bb_mp_read_str(reader));
        uint64_t first = bb_mp_read_uint(reader);
        uint64_t count = bb_mp_read_uint(reader);
        for (uint64_t j = 0; j < count; j++, index++) {
            while (index < published->n && ack->is_named[index]) {
                index++;
            }
            if (index >= published->n) {
                return "more events are acknowledged than it has";
            }
            struct written *written = written_at(world, published->writer, published->serials[index]);
            ack->all_logged = ack->all_logged && is_synced_by_itself(written);
            const char *why = check_named(world, ack, written, channel, first + j);
            if (why != NULL) {
                return why;
            }
        }
    }
    while (index < published->n && ack->is_named[index]) {
        index++;
    }
    for (size_t i = 0; i < published->n; i++) {
        /* A client that is paused is not looked at before the log has gone on, and by then nobody may be behind. */
        const struct written *written = written_at(world, published->writer, published->serials[i]);
        bool was_paused = written->event != NULL && written->event->taken_at != published->at;
        uint64_t now = was_paused ? world->judge.n_refusers_moved : written->n_refusers_moved;
        bool moved = now != published->n_refusers_moved;
        if (!ack->is_named[i] && published->must_refuse[i] && !moved) {
            return "a subscription refuses and is behind";
        }
    }
    return index != published->n ? "events of it are neither acknowledged nor refused" : NULL;
}

static const char *judge_level(const struct ack *ack)
{
    uint64_t asked = ack->published->level;
    if (asked == BB_LEVEL_NONE) {
        if (ack->level != BB_LEVEL_ACCEPTED && ack->level != BB_LEVEL_SYNCED) {
            return "its level is none that was promised";
        }
        return ack->all_logged && ack->level != BB_LEVEL_SYNCED
                   ? "a logged channel is acknowledged before it is synced"
                   : NULL;
    }
    bool is_lowered = ack->level == BB_LEVEL_ACCEPTED; /* what the log refused is named */
    return ack->level == asked || is_lowered ? NULL : "its level is not the one asked for";
}

static const char *judge_matches(struct world *world, const struct ack *ack)
{
    uint64_t most = UINT64_MAX;
    for (size_t i = 0; i < ack->published->n; i++) {
        most = ack->is_named[i] ? most : BB_MIN(most, ack->published->matches[i]);
    }
    most = most == UINT64_MAX ? most : most + world->judge.n_accounts - ack->published->n_accounts;
    return ack->matches > most ? "more subscriptions match than there ever were" : NULL;
}

static const char *
judge_fresh(struct world *world, struct ack *ack, struct bb_slice positions, struct bb_slice refused)
{
    struct bb_mp_reader reader = bb_mp_reader(refused);
    struct published *published = ack->published;
    const char *why = refused.len > 0 ? read_refused(world, ack, &reader) : NULL;
    if (why == NULL) {
        for (size_t i = 0; i < published->n && why == NULL; i++) {
            const struct written *written = written_at(world, published->writer, published->serials[i]);
            why = written->refusal != NULL && !ack->is_named[i] ? "a bad event is not refused" : NULL;
        }
    }
    reader = bb_mp_reader(positions);
    why = why != NULL ? why : read_positions(world, ack, &reader);
    why = why != NULL ? why : judge_level(ack);
    if (why == NULL && ack->has_matches != (published->level >= BB_LEVEL_ROUTED)) {
        why = "matches are told, or not, against its level";
    }
    if (why == NULL && ack->has_matches) {
        why = judge_matches(world, ack);
    }
    return why;
}

static const char *judge_repeated(struct world *world, const struct ack *ack)
{
    const struct published *published = ack->published;
    if (published->is_broken) {
        return "a repetition is acknowledged that was refused";
    }
    for (size_t i = 0; i < published->n; i++) {
        const struct written *written = written_at(world, published->writer, published->serials[i]);
        if (written->refusal != NULL || written->refused_run == world->run) {
            return "a repetition is acknowledged of which events were refused";
        }
        if (written->event == NULL && published->level != BB_LEVEL_ACCEPTED &&
            published->level != BB_LEVEL_ROUTED) {
            return "a repetition is acknowledged that was not published";
        }
        const struct truth_event *event = written->event;
        bool may_wait = published->level == BB_LEVEL_ACCEPTED || published->level == BB_LEVEL_ROUTED ||
                        (event != NULL && event->inc->is_lazy);
        if (event != NULL && event->inc->is_logged && !may_wait && !event->inc->is_ended &&
            (event->is_gone || !event->is_durable)) {
            return "a repetition is acknowledged that is not on the disk";
        }
    }
    return NULL;
}

static void one_ack(struct world *world, struct sim_link *link, struct bb_mp_reader *reader)
{
    uint32_t fields = bb_mp_read_array(reader);
    struct ack ack = {.number = bb_mp_read_uint(reader)};
    ack.level = bb_mp_read_uint(reader);
    ack.has_matches = bb_mp_peek_type(reader) == BB_MP_UINT;
    struct bb_mp_reader matches = bb_mp_reader(bb_mp_read_raw(reader));
    ack.matches = ack.has_matches ? bb_mp_read_uint(&matches) : 0;
    ack.is_repeated = bb_mp_peek_type(reader) == BB_MP_NIL;
    struct bb_slice positions = bb_mp_read_raw(reader);
    struct bb_slice refused = {0};
    for (uint32_t i = 4; i < fields; i++) {
        struct bb_slice value = bb_mp_read_raw(reader);
        refused = i == 4 ? value : refused;
    }
    ack.published = take(link, ack.number, true);
    const char *why = NULL;
    if (reader->error != 0 || ack.published == NULL) {
        why = "the ack is not for the oldest one that waits";
    } else if (ack.published->class == PUBLISH_OUT_OF_SEQUENCE) {
        why = "it is out of sequence and acknowledged";
    } else if (ack.published->is_broken && ack.published->class == PUBLISH_FRESH) {
        why = "it cannot be followed to its end and is acknowledged";
    }
    if (why == NULL) {
        ack.is_named = calloc(ack.published->n + 1, sizeof(bool));
        if (ack.is_repeated && ack.published->class != PUBLISH_REPEATED) {
            why = "it is acknowledged as a repetition and was none";
        }
        why = why != NULL       ? why
              : ack.is_repeated ? judge_repeated(world, &ack)
                                : judge_fresh(world, &ack, positions, refused);
        free(ack.is_named);
    }
    if (why == NULL && ack.level == BB_LEVEL_SYNCED && !ack.is_repeated && link->judged.has_id &&
        ack.has_events) {
        struct producer *producer = producer_of(world, link->judged.id, link->judged.epoch);
        producer->last_durable = BB_MAX(producer->last_durable, ack.number);
    }
    if (why != NULL) {
        fail(world, link, "ack", ack.number, why);
    } else if (ack.published->options.len > 0 && !ack.is_repeated && !ack.has_failed) {
        expect_held(world, ack.published);
    }
    if (ack.published != NULL) {
        published_free(ack.published);
    }
}

void published_ack(struct world *world, struct sim_link *link, struct bb_slice entries)
{
    struct bb_mp_reader reader = bb_mp_reader(entries);
    uint32_t n = bb_mp_read_array(&reader);
    for (uint32_t i = 0; i < n && !world->failed; i++) {
        one_ack(world, link, &reader);
    }
}

/* --- errors ----------------------------------------------------------------------------------- */

static void set_refused(struct world *world, const struct published *published)
{
    for (size_t i = 0; i < published->n; i++) {
        written_at(world, published->writer, published->serials[i])->refused_run = world->run;
    }
}

static void number_is_free(struct world *world, struct sim_link *link, const struct published *published)
{
    struct judged_link *judged = &link->judged;
    struct producer *producer = judged->has_id ? producer_of(world, judged->id, judged->epoch) : NULL;
    uint64_t *last = producer != NULL ? &producer->last : &judged->last_number;
    if (published->class == PUBLISH_FRESH) {
        *last = BB_MIN(*last, published->number - 1);
        judged->next_number = 0;
    }
}

/* Now, when it is refused: a client that was paused when it sent it was not looked at then. */
static bool may_be_behind(struct world *world, struct sim_link *link, const struct published *published)
{
    bool may_be = published->may_refuse;
    for (size_t i = 0; i < published->n && !may_be; i++) {
        const struct written *written = written_at(world, published->writer, published->serials[i]);
        struct bb_slice rest = bb_slice(written->raw, written->len);
        struct bb_event_view view;
        may_be = bb_event_read(&rest, &view) == 0 && path_is_refused(world, link, view.path, false);
    }
    return may_be;
}

static const char *
judge_error(struct world *world, struct sim_link *link, struct published *published, const struct bb_msg *msg)
{
    static const char *const of_log[] = {"log_failed", "log_full", "full", NULL};
    struct bb_slice code = msg->code;
    bool is_repeated = published->class == PUBLISH_REPEATED;
    if (bb_slice_equal(code, bb_slice_str("shutting_down"))) {
        number_is_free(world, link, published);
        return world->is_draining ? NULL : "the broker does not shut down";
    }
    if (bb_slice_equal(code, bb_slice_str("bad_sequence"))) {
        return published->class == PUBLISH_OUT_OF_SEQUENCE || world->is_draining ? NULL
                                                                                 : "its number is right";
    }
    if (published->class == PUBLISH_OUT_OF_SEQUENCE) {
        return "its number is wrong, and it is refused for another reason";
    }
    if (is_repeated && bb_slice_equal(code, bb_slice_str("unknown_result"))) {
        for (size_t i = 0; i < published->n; i++) {
            const struct written *written = written_at(world, published->writer, published->serials[i]);
            if (written->refusal != NULL || written->refused_run == world->run || !has_appeared(written)) {
                return NULL;
            }
        }
        return "the result of a repetition is unknown though all of it was taken";
    }
    if (!is_repeated) {
        set_refused(world, published);
    }
    if (bb_slice_equal(code, bb_slice_str("malformed")) || bb_slice_equal(code, bb_slice_str("too_deep")) ||
        bb_slice_equal(code, bb_slice_str("bad_event"))) {
        return published->is_broken ? NULL : "its bytes are good";
    }
    if (bb_slice_equal(code, bb_slice_str("conflict"))) {
        if (!is_repeated) {
            expect_refused(world, published, msg->detail);
        }
        return published->options.len > 0 ? NULL : "it expects nothing";
    }
    if (bb_slice_equal(code, bb_slice_str("overflow"))) {
        return is_repeated || may_be_behind(world, link, published)
                   ? NULL
                   : "no subscription that refuses is behind";
    }
    if (bb_slice_equal(code, bb_slice_str("unsupported"))) {
        return published->level >= BB_LEVEL_SYNCED ? NULL : "its level is supported";
    }
    if (is_one_of(code, of_log)) {
        return world->has_log ? NULL : "there is no log";
    }
    return "it is refused for no reason";
}

/* Fire and forget: an error does not say of which batch, so that none of them need appear. */
static void forget_forgotten(struct sim_link *link)
{
    struct published **at = &link->judged.published;
    while (*at != NULL) {
        struct published *published = *at;
        if (published->class == PUBLISH_FORGOTTEN) {
            *at = published->next;
            published_free(published);
        } else {
            at = &published->next;
        }
    }
    link->judged.published_end = at;
}

void published_error(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    if (msg->corr == 0) {
        forget_forgotten(link);
        return;
    }
    struct published *published = take(link, msg->corr, false);
    if (published == NULL) {
        fail(world, link, "publish error", msg->corr, "an error for a batch that does not wait for one");
        return;
    }
    const char *why = judge_error(world, link, published, msg);
    if (why != NULL) {
        char text[160];
        (void)snprintf(text, sizeof(text), "refused with %.*s, but %s", (int)msg->code.len,
                       (const char *)msg->code.data, why);
        fail(world, link, "publish error", msg->corr, text);
    }
    published_free(published);
}

const char *published_owes(struct world *world, struct sim_link *link)
{
    for (const struct published *published = link->judged.published; published != NULL;
         published = published->next) {
        if (published->class != PUBLISH_FORGOTTEN) {
            return "a publish has no answer";
        }
        bool is_log_well = !world->has_log || world->disk.n_failures == 0;
        for (size_t i = 0; i < published->n && is_log_well && !published->is_broken &&
                           published->run == world->run && !published->may_refuse;
             i++) {
            const struct written *written = written_at(world, published->writer, published->serials[i]);
            if (written->refusal == NULL && written->event == NULL) {
                return "an event that was published without a number has not appeared";
            }
        }
    }
    return NULL;
}

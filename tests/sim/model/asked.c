/* SPDX-License-Identifier: Apache-2.0 */
/* Requests with a correlation number: each has one answer (PROTOCOL 5). */
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/match.h"
#include "tests/sim/model/published.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdlib.h>

struct asked {
    struct asked *next;
    const struct sim_link *link;
    enum bb_msg_type type;
    uint64_t number; /* of all */
    uint64_t corr;
    uint64_t sub;
    uint64_t min;
    struct bb_buf text; /* path, action */
    size_t channel;
    uint64_t before; /* of a trim, 0: none */
    uint64_t keep;
    struct asked_query query;
    struct truth_inc *inc;
    uint64_t visible; /* of it then */
    uint64_t taken;
    uint64_t at;
    bool is_consumed; /* a removal that has shown */
};

static bool is_action(const struct asked *asked, const char *action)
{
    return asked->type == BB_MSG_CHANNEL && bb_slice_equal(bb_buf_slice(&asked->text), bb_slice_str(action));
}

/* --- going in --------------------------------------------------------------------------------- */

/* What a trim can take at most, now that the channel has @inc->n events. */
static void loosen_for_trim(struct truth_inc *inc, const struct asked *asked)
{
    uint64_t end = inc->n + 1;
    uint64_t before = asked->before != 0  ? BB_MIN(asked->before, end)
                      : end > asked->keep ? end - asked->keep
                                          : 1;
    inc->trimmed = BB_MAX(inc->trimmed, before);
}

void asked_loosen_trims(struct world *world, struct truth_inc *inc)
{
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (const struct asked *asked = link->judged.asked; asked != NULL; asked = asked->next) {
            if (is_action(asked, "trim") && asked->channel == inc->channel) {
                loosen_for_trim(inc, asked);
            }
        }
    }
}

static void read_trim(struct asked *asked, struct bb_slice settings)
{
    struct bb_mp_reader reader = bb_mp_reader(settings);
    uint32_t n = settings.len > 0 ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n; i++) {
        bool is_before = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("before"));
        uint64_t number = bb_mp_read_uint(&reader);
        *(is_before ? &asked->before : &asked->keep) = number;
    }
}

static void channel_input(struct world *world, struct asked *asked, const struct bb_msg *msg)
{
    asked->channel = truth_name(world, msg->name);
    asked->inc = truth_current(world, asked->channel);
    asked->visible = asked->inc->visible;
    asked->taken = asked->inc->n;
    asked->at = world->now;
    if (is_action(asked, "rm")) {
        world->truth.names[asked->channel].n_rm_asked++;
    } else if (is_action(asked, "add") || is_action(asked, "set")) {
        truth_limit(world, asked->channel, msg->settings, is_action(asked, "add"));
        judge_meets(world, asked->channel, F(changed));
    } else if (is_action(asked, "trim")) {
        read_trim(asked, msg->settings);
        loosen_for_trim(asked->inc, asked);
        judge_meets(world, asked->channel, F(trimmed));
    }
}

static void query_input(struct world *world, struct asked *asked, const struct bb_msg *msg)
{
    bb_buf_append(&asked->query.bytes, msg->query.data, msg->query.len);
    asked->query.rank = world->truth.n_visible;
    asked->query.n_incs = world->truth.n_incs;
    asked->query.at = world->now;
}

void asked_input(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct asked *asked = calloc(1, sizeof(*asked));
    if (asked == NULL) {
        abort();
    }
    asked->link = link;
    asked->type = msg->type;
    asked->number = ++world->judge.n_asked;
    asked->corr = msg->type == BB_MSG_PING ? msg->token : msg->corr;
    asked->sub = msg->sub;
    asked->min = msg->min;
    if (msg->type == BB_MSG_CHANNEL || msg->type == BB_MSG_LOG) {
        bb_buf_append(&asked->text, msg->action.data, msg->action.len);
    } else if (msg->type == BB_MSG_MATCHES) {
        bb_buf_append(&asked->text, msg->path.data, msg->path.len);
    }
    if (msg->type == BB_MSG_CHANNEL) {
        channel_input(world, asked, msg);
    } else if (msg->type == BB_MSG_QUERY) {
        query_input(world, asked, msg);
    } else if (msg->type == BB_MSG_CURSOR) {
        cursor_ask(world, link, msg);
    }
    asked->next = link->judged.asked;
    link->judged.asked = asked;
}

static void asked_free(struct asked *asked)
{
    bb_buf_fini(&asked->text);
    bb_buf_fini(&asked->query.bytes);
    free(asked);
}

/* Nobody will say whether it was done: a floor that may have been refused, or lost with the broker, holds nothing, and a trim may
 * have waited until now. */
void asked_doubt(struct sim_link *link)
{
    for (struct asked *asked = link->judged.asked; asked != NULL; asked = asked->next) {
        if (is_action(asked, "set") || is_action(asked, "add")) {
            asked->inc->limits.min_events = 0;
        } else if (is_action(asked, "trim")) {
            loosen_for_trim(asked->inc, asked);
        }
    }
}

void asked_free_all(struct world *world, struct sim_link *link)
{
    (void)world;
    while (link->judged.asked != NULL) {
        struct asked *asked = link->judged.asked;
        link->judged.asked = asked->next;
        asked_free(asked);
    }
}

static struct asked *take(struct sim_link *link, enum bb_msg_type type, uint64_t corr)
{
    struct asked **at = &link->judged.asked;
    while (*at != NULL && ((*at)->corr != corr || (type != BB_MSG_NONE && (*at)->type != type))) {
        at = &(*at)->next;
    }
    struct asked *asked = *at;
    if (asked != NULL) {
        *at = asked->next;
    }
    return asked;
}

/* --- answers ---------------------------------------------------------------------------------- */

static struct asked *oldest_rm(struct world *world, size_t channel)
{
    struct asked *oldest = NULL;
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (struct asked *asked = link->judged.asked; asked != NULL; asked = asked->next) {
            bool is_open = is_action(asked, "rm") && asked->channel == channel && !asked->is_consumed;
            oldest = is_open && (oldest == NULL || asked->number < oldest->number) ? asked : oldest;
        }
    }
    return oldest;
}

/* A removal that has shown, and is not answered. */
static struct asked *consumed_rm(struct world *world, size_t channel)
{
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (struct asked *asked = link->judged.asked; asked != NULL; asked = asked->next) {
            if (is_action(asked, "rm") && asked->channel == channel && asked->is_consumed) {
                return asked;
            }
        }
    }
    return NULL;
}

bool asked_is_set(const struct world *world, size_t channel)
{
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (const struct asked *asked = link->judged.asked; asked != NULL; asked = asked->next) {
            if ((is_action(asked, "set") || is_action(asked, "add")) && asked->channel == channel) {
                return true;
            }
        }
    }
    return false;
}

void asked_consume_rm(struct world *world, size_t channel)
{
    struct asked *asked = oldest_rm(world, channel);
    if (world->truth.names[channel].n_rm_asked > 0) {
        world->truth.names[channel].n_rm_asked--;
    }
    if (asked != NULL) {
        asked->is_consumed = true;
    }
}

/* It was refused: what has shown was the work of another one. */
static void rm_refused(struct world *world, const struct asked *asked)
{
    struct truth_name *name = &world->truth.names[asked->channel];
    struct asked *other = asked->is_consumed ? oldest_rm(world, asked->channel) : NULL;
    if (other != NULL) {
        other->is_consumed = true;
    }
    if (name->n_rm_asked > 0 && (other != NULL || !asked->is_consumed)) {
        name->n_rm_asked--;
    }
    struct truth_inc *inc = name->inc;
    if (inc != NULL && inc->n > 0 && inc->n_rm_open > 0 && asked->at <= inc->events[0]->taken_at) {
        inc->n_rm_open--;
    }
}

/* All that @inc has was published after the request to remove the channel, which has removed what was before it: the log, which
 * knows @inc, would have been told else. */
static bool came_after(struct world *world, const struct asked *asked, const struct truth_inc *inc)
{
    if (inc == NULL || inc->n == 0 || (inc == asked->inc && asked->taken > 0)) {
        return false;
    }
    const struct written *first = written_at(world, inc->events[0]->writer, inc->events[0]->serial);
    if (first->fresh_link == asked->link && first->fresh_at < asked->at) {
        return false; /* one after the other */
    }
    bool is_known =
        world->has_log && inc->is_logged && inc->id != 0 && inc->generation == world->disk.generation;
    return is_known || inc->events[0]->taken_at > asked->at;
}

static void note_gone(struct world *world, size_t channel)
{
    for (struct truth_inc *inc = world->truth.names[channel].inc; inc != NULL; inc = inc->next) {
        inc->gone_at = inc->is_ended && inc->gone_at == 0 ? world->now : inc->gone_at;
    }
}

static void channel_answer(struct world *world, const struct asked *asked, bool is_done, struct bb_slice code)
{
    struct truth_name *name = &world->truth.names[asked->channel];
    bool is_unclear = !is_done && (bb_slice_equal(code, bb_slice_str("log_failed")) ||
                                   bb_slice_equal(code, bb_slice_str("log_full")) ||
                                   bb_slice_equal(code, bb_slice_str("closed")));
    if (is_action(asked, "rm")) {
        struct asked *other = is_done && !asked->is_consumed ? consumed_rm(world, asked->channel) : NULL;
        if (other != NULL) {
            other->is_consumed = false; /* what has shown was the work of this one */
        } else if (is_done && !asked->is_consumed && came_after(world, asked, name->inc)) {
            name->n_rm_asked--; /* what was removed had nothing, and is followed by what there is */
            name->was_removed_empty = true;
            name->inc->limits.min_events = 0; /* the floor may have been that one's */
            name->inc->n_rm_open -= name->inc->n_rm_open > 0;
        } else if (is_done && !asked->is_consumed &&
                   name->n_rm_asked > 0) { /* else it has shown, as another one's */
            truth_remove(world, asked->channel, "the answer says so");
        }
        if (is_done) {
            note_gone(world, asked->channel);
        } else if (!is_done && !is_unclear) {
            rm_refused(world, asked);
        }
    } else if ((is_action(asked, "set") || is_action(asked, "add")) && !is_done) {
        asked->inc->limits.min_events = 0; /* a floor that was refused holds nothing */
    } else if (is_action(asked, "trim") && asked->inc != name->inc && name->inc != NULL) {
        loosen_for_trim(name->inc, asked); /* it may have waited behind the removal */
    } else if (is_action(asked, "trim") && name->inc != NULL) {
        loosen_for_trim(asked->inc, asked);
        if (is_done && asked->before != 0 && asked->inc->limits.min_events == 0) {
            asked->inc->trim_done = BB_MAX(asked->inc->trim_done, BB_MIN(asked->before, asked->visible + 1));
            asked->inc->trim_done_at = world->now;
        }
    }
}

static void matches_answer(struct world *world, const struct asked *asked, struct bb_slice value)
{
    struct bb_mp_reader reader = bb_mp_reader(value);
    (void)bb_mp_read_map(&reader);
    (void)bb_mp_read_str(&reader);
    uint64_t told = bb_mp_read_uint(&reader);
    uint64_t most = 0;
    uint64_t least = 0;
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (const struct account *account = link->judged.accounts; account != NULL;
             account = account->next) {
            bool matches =
                !account->must_fail && match_any(account->wish.patterns, bb_buf_slice(&asked->text));
            most += matches;
            least += matches && account->state == ACCOUNT_OPEN && !account->is_leaving && link->core != NULL;
        }
    }
    if (reader.error != 0 || told > most || (asked->min == 0 && told < least) || told < asked->min) {
        world_fail(world, "matches", "%" PRIu64 " subscriptions match '%.*s', not %" PRIu64 " to %" PRIu64,
                   told, (int)asked->text.len, (const char *)asked->text.data, least, most);
    }
}

static void unsubscribe_answer(struct world *world,
                               struct sim_link *link,
                               const struct asked *asked,
                               bool is_done,
                               struct bb_slice code)
{
    struct account *account = account_of(link, asked->sub);
    while (account != NULL && !account->is_leaving) {
        account = NULL;
    }
    if (is_done && account == NULL) {
        world_fail(world, "unsubscribe", "sub %" PRIu64 " of peer %" PRIu64 " has ended twice", asked->sub,
                   link->peer->index);
    } else if (is_done) {
        account->met |= F(unsubscribed);
        if (account->state == ACCOUNT_OPEN) {
            account_close(world, account);
        } else {
            account->must_fail = true; /* PROTOCOL 7.1: the subscribe is answered with refused */
        }
    } else if (account != NULL && bb_slice_equal(code, bb_slice_str("not_found"))) {
        world_fail(world, "unsubscribe",
                   "sub %" PRIu64 " of peer %" PRIu64 " is not found, and has not ended", asked->sub,
                   link->peer->index);
    }
}

static const char *name_of(enum bb_msg_type type)
{
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)type);
    return row != NULL ? row->name : "?";
}

static void
judge_refusal(struct world *world, struct sim_link *link, const struct asked *asked, const struct bb_msg *msg)
{
    bool is_query = asked->type == BB_MSG_QUERY && !world->has_log && !world->has_memory;
    bool is_corrupt = bb_slice_equal(msg->code, bb_slice_str("corrupt")) && world->disk.n_corrupt > 0;
    bool is_of_log = bb_slice_equal(msg->code, bb_slice_str("log_failed")) && world->has_log;
    if ((asked->type == BB_MSG_QUERY && !is_query && !is_corrupt && !is_of_log) ||
        asked->type == BB_MSG_STATUS) {
        world_fail(world, "request refused", "peer %" PRIu64 ": %s %" PRIu64 " is refused: %.*s",
                   link->peer->index, name_of(asked->type), asked->corr, (int)msg->code.len,
                   (const char *)msg->code.data);
    }
}

void asked_answer(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    bool is_done = msg->type != BB_MSG_ERROR;
    uint64_t corr = msg->type == BB_MSG_PONG ? msg->token : msg->corr;
    enum bb_msg_type type = msg->type == BB_MSG_PONG     ? BB_MSG_PING
                            : msg->type == BB_MSG_EVENTS ? BB_MSG_QUERY
                            : is_done                    ? BB_MSG_NONE
                                                         : (enum bb_msg_type)msg->about;
    struct asked *asked = take(link, type, corr);
    if (asked == NULL) {
        world_fail(world, "answer",
                   "peer %" PRIu64 ": an answer (%s %" PRIu64
                   ") to nothing that was asked, or the second one",
                   link->peer->index, name_of(msg->type), corr);
        return;
    }
    if (!is_done) {
        judge_refusal(world, link, asked, msg);
    }
    if (asked->type == BB_MSG_CHANNEL) {
        channel_answer(world, asked, is_done, msg->code);
    } else if (asked->type == BB_MSG_MATCHES && is_done) {
        matches_answer(world, asked, msg->value);
    } else if (asked->type == BB_MSG_UNSUBSCRIBE) {
        unsubscribe_answer(world, link, asked, is_done, msg->code);
    } else if (asked->type == BB_MSG_CURSOR) {
        cursor_answer(world, link, corr, is_done);
    } else if (asked->type == BB_MSG_QUERY && is_done) {
        const char *why = query_judge(world, &asked->query, msg);
        if (why != NULL) {
            world_fail(world, "query", "peer %" PRIu64 ": query %" PRIu64 ": %s", link->peer->index, corr,
                       why);
        }
    }
    asked_free(asked);
}

const char *asked_owes(struct world *world, struct sim_link *link)
{
    (void)world;
    return link->judged.asked != NULL ? name_of(link->judged.asked->type) : NULL;
}

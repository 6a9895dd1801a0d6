/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/model/judge.h"

#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "tests/sim/model/account.h"
#include "tests/sim/model/published.h"
#include "tests/sim/story.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* The gaps and answers that may go out between the look at the limit and the delivery. */
#define UNCOUNTED_MOST ((uint64_t)NAMES_MAX * 128)

#define STRIKES_MAX 16

/* --- going in --------------------------------------------------------------------------------- */

static void hello_input(struct sim_link *link, const struct bb_msg *msg)
{
    struct judged_link *judged = &link->judged;
    if (judged->is_ready) {
        return;
    }
    judged->has_id = msg->client.len == sizeof(judged->id);
    if (judged->has_id) {
        memcpy(judged->id, msg->client.data, sizeof(judged->id));
    }
    judged->epoch = msg->epoch;
}

static void credit_input(struct sim_link *link, const struct bb_msg *msg)
{
    struct account *account = account_of(link, msg->sub);
    if (account != NULL) {
        account->credit_bytes = BB_MAX(account->credit_bytes, msg->bytes);
        account->credit_events = BB_MAX(account->credit_events, msg->events);
    }
}

static void unsubscribe_input(struct sim_link *link, const struct bb_msg *msg)
{
    struct account *account = account_of(link, msg->sub);
    if (account != NULL) {
        account->is_leaving = true;
        account->was_asked_when_leaving = account->state == ACCOUNT_ASKED;
    }
}

static void
ready_input(struct world *world, struct sim_link *link, const struct bb_msg *msg, struct bb_slice bytes)
{
    switch ((int)msg->type) {
    case BB_MSG_SUBSCRIBE:
        account_new(world, link, msg, bytes);
        break;
    case BB_MSG_UNSUBSCRIBE:
        unsubscribe_input(link, msg);
        asked_input(world, link, msg);
        break;
    case BB_MSG_CREDIT:
        credit_input(link, msg);
        break;
    case BB_MSG_PING:
    case BB_MSG_STATUS:
    case BB_MSG_MATCHES:
    case BB_MSG_CURSOR:
    case BB_MSG_QUERY:
    case BB_MSG_CHANNEL:
    case BB_MSG_LOG:
        asked_input(world, link, msg);
        break;
    default:
        break;
    }
}

void judge_input(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct judged_link *judged = &link->judged;
    struct bb_msg msg = {0};
    judged->heard_at = world->now;
    if (!bb_msg_is_head(bytes)) {
        msg.type = BB_MSG_PUBLISH;
        msg.body = bytes;
        published_input(world, link, &msg, true);
        return;
    }
    int r = bb_msg_decode(bytes, &msg);
    if (r < 0 || (msg.type != BB_MSG_PUBLISH && msg.body.len > 0)) {
        judged->strikes++;
        return;
    }
    if (msg.type == BB_MSG_HELLO) {
        hello_input(link, &msg);
    } else if (msg.type == BB_MSG_PUBLISH && (judged->is_ready || msg.number == 0)) {
        published_input(world, link, &msg, false);
    } else if (msg.type == BB_MSG_PONG) {
        judged->read_bytes = BB_MAX(judged->read_bytes, msg.token);
        if (judged->published == NULL && !link->is_paused) {
            judged->read_surely = judged->read_bytes;
        }
    } else if (msg.type == BB_MSG_GOODBYE) {
        judged->said_goodbye = true;
    } else if (judged->is_ready) {
        ready_input(world, link, &msg, bytes);
    }
}

void judge_window_input(struct world *world, uint64_t first, uint64_t n)
{
    (void)world;
    (void)first;
    (void)n; /* that they appear, and once, is held by the list of what was written */
}

/* --- coming out ------------------------------------------------------------------------------- */

void judge_output(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct judge *judge = &world->judge;
    judge->trace = sim_grown(judge->trace, judge->n_trace, &judge->n_trace_slots, sizeof(judge->trace[0]));
    judge->trace[judge->n_trace++] = (struct trace_entry){link, judge->bytes.len, bytes.len};
    bb_buf_append(&judge->bytes, bytes.data, bytes.len);
}

static void fail(struct world *world, const struct sim_link *link, const char *kind, const char *why)
{
    world_fail(world, kind, "peer %" PRIu64 " (link %" PRIu64 "): %s", link->peer->index, link->number, why);
}

/* PROTOCOL 5.1: who has the same identity has gone before the new one is answered. */
static void take_over(struct world *world, struct sim_link *link)
{
    for (struct sim_link *other = world->links; other != NULL; other = other->next) {
        bool is_same = other != link && other->judged.has_id && other->judged.is_ready &&
                       other->core != NULL &&
                       memcmp(other->judged.id, link->judged.id, sizeof(link->judged.id)) == 0;
        if (is_same && !other->judged.has_goodbye) {
            other->judged.is_taken_over = true;
            link->met |= F(taken_over);
        }
    }
}

static void welcome_output(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct judged_link *judged = &link->judged;
    struct bb_mp_reader reader = bb_mp_reader(msg->features);
    if (judged->is_ready) {
        fail(world, link, "welcome", "a second welcome");
    }
    judged->is_ready = true;
    judged->number = msg->client_number;
    world->judge.has_lives = false;
    for (uint32_t n = msg->features.len > 0 ? bb_mp_read_array(&reader) : 0; n > 0; n--) {
        bool is_it = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("lives"));
        world->judge.has_lives = world->judge.has_lives || is_it;
    }
    if (msg->run != world->run || msg->server != world->config.server) {
        fail(world, link, "welcome", "another run or server");
    }
    if (!judged->has_id) {
        return;
    }
    struct producer *producer = producer_of(world, judged->id, judged->epoch);
    if (judged->epoch < producer_newest_epoch(world, judged->id)) {
        fail(world, link, "older epoch", "an older epoch is welcome");
    }
    producer->most = BB_MAX(producer->most, producer->last);
    if (msg->last > producer->most || msg->last < producer->last_durable) {
        char text[120];
        (void)snprintf(text, sizeof(text), "last is %" PRIu64 ", not %" PRIu64 " to %" PRIu64, msg->last,
                       producer->last_durable, producer->most);
        fail(world, link, "last", text);
    }
    producer->last = msg->last;
    producer->is_sure = true;
    take_over(world, link);
}

static void goodbye_output(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct judged_link *judged = &link->judged;
    const char *why = NULL;
    if (bb_slice_equal(msg->code, bb_slice_str("shutting_down"))) {
        why = world->is_draining ? NULL : "goodbye: the broker does not shut down";
    } else if (bb_slice_equal(msg->code, bb_slice_str("no_memory"))) {
        why = "goodbye for want of memory";
    } else if (bb_slice_equal(msg->code, bb_slice_str("overflow")) &&
               link->to_client.bytes < link->capacity / 2) {
        bool may_be = judged->sent_bytes - judged->read_bytes >= world->config.inflight_bytes;
        for (struct account *account = judged->accounts; account != NULL; account = account->next) {
            bool disconnects =
                (account->wish.policies & POLICY_DISCONNECT) != 0 && account->state == ACCOUNT_OPEN;
            may_be = may_be ||
                     (disconnects && account_waiting(world, account) * 5 / 4 + 1024 > account->wish.budget);
        }
        why = may_be ? NULL : "goodbye for overflow, and it is not behind";
    }
    if (why != NULL) {
        fail(world, link, "goodbye", why);
    }
    judged->has_goodbye = true;
}

static void sub_output(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct account *account = account_of(link, msg->sub);
    if (account == NULL) {
        fail(world, link, "no such sub", "a message for a subscription that is not there, or not any more");
        return;
    }
    if (msg->type == BB_MSG_ENDED) {
        account_ended(world, account, msg);
        return;
    }
    uint64_t unread = link->judged.sent_bytes - link->judged.read_bytes;
    if (msg->type == BB_MSG_DELIVER && msg->body.len > 0 &&
        unread >= world->config.inflight_bytes + UNCOUNTED_MOST) {
        fail(world, link, "in flight", "more bytes are on their way than may be");
    }
    account_deliver(world, account, msg);
}

static struct account *account_asked(struct sim_link *link, uint64_t corr)
{
    struct account *account = link->judged.accounts;
    while (account != NULL && (account->corr != corr || account->state != ACCOUNT_ASKED)) {
        account = account->next;
    }
    return account;
}

static void subscribe_error(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    static const char *const may_be[] = {"corrupt", "log_failed"};
    struct account *account = account_asked(link, msg->corr);
    if (account == NULL) {
        fail(world, link, "subscribe error", "an error for a subscribe that does not wait");
        return;
    }
    bool is_right =
        account->must_fail || (account->is_leaving && bb_slice_equal(msg->code, bb_slice_str("refused")));
    for (size_t i = 0; i < BB_COUNT(may_be); i++) {
        is_right = is_right || (bb_slice_equal(msg->code, bb_slice_str(may_be[i])) && world->has_log);
    }
    is_right = is_right || (world->is_draining && bb_slice_equal(msg->code, bb_slice_str("shutting_down")));
    if (!is_right) {
        account_fail(world, account, "subscribe error", "it is refused: %.*s", (int)msg->code.len,
                     (const char *)msg->code.data);
    }
    account_close(world, account);
}

static void error_output(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    if (!link->judged.is_ready && msg->about == BB_MSG_HELLO) {
        bool is_old =
            link->judged.has_id; /* after a restart the newest epoch may be known only to the broker */
        if (!is_old || !bb_slice_equal(msg->code, bb_slice_str("exists"))) {
            fail(world, link, "hello", "a hello is refused");
        }
        return;
    }
    switch (msg->about) {
    case BB_MSG_NONE:
    case BB_MSG_HELLO:
        return;
    case BB_MSG_PUBLISH:
        if (!bb_slice_equal(msg->code, bb_slice_str("hello_first"))) {
            published_error(world, link, msg);
        }
        return;
    case BB_MSG_SUBSCRIBE:
        if (link->judged.is_ready && msg->corr > 1) {
            subscribe_error(world, link, msg);
        }
        return;
    default:
        if (link->judged.is_ready && msg->corr > 1) {
            asked_answer(world, link, msg);
        }
    }
}

static void subscribed_output(struct world *world, struct sim_link *link, const struct bb_msg *msg)
{
    struct account *account = account_asked(link, msg->corr);
    if (account == NULL || account->sub != msg->sub) {
        fail(world, link, "subscribed", "an answer to a subscribe that was not sent");
        return;
    }
    account_subscribed(world, account, msg);
}

static void output(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    if (bb_msg_decode(bytes, &msg) < 0) {
        fail(world, link, "message", "a message that cannot be read");
        return;
    }
    if (link->judged.has_goodbye) {
        fail(world, link, "after goodbye", bb_msg_row_find((uint64_t)msg.type)->name);
    }
    switch ((int)msg.type) {
    case BB_MSG_WELCOME:
        welcome_output(world, link, &msg);
        break;
    case BB_MSG_SUBSCRIBED:
        subscribed_output(world, link, &msg);
        break;
    case BB_MSG_ACK:
        published_ack(world, link, msg.entries);
        break;
    case BB_MSG_DELIVER:
    case BB_MSG_GAP:
    case BB_MSG_ENDED:
        sub_output(world, link, &msg);
        break;
    case BB_MSG_RESULT:
    case BB_MSG_EVENTS:
    case BB_MSG_PONG:
        asked_answer(world, link, &msg);
        break;
    case BB_MSG_ERROR:
        error_output(world, link, &msg);
        break;
    case BB_MSG_GOODBYE:
        goodbye_output(world, link, &msg);
        break;
    default:
        break;
    }
    if (msg.type != BB_MSG_PING) {
        link->judged.sent_bytes += bytes.len;
    }
}

/* Who was taken over has been told. */
static void check_taken_over(struct world *world)
{
    for (const struct sim_link *link = world->links; link != NULL; link = link->next) {
        if (link->judged.is_taken_over && link->core != NULL && !link->broken && !link->is_clogged) {
            fail(world, link, "take-over", "another link has its identity, and it is not sent away");
        }
    }
}

void judge_settle(struct world *world)
{
    struct judge *judge = &world->judge;
    for (size_t i = 0; i < judge->n_trace && !world->failed; i++) {
        const struct trace_entry *entry = &judge->trace[i];
        struct bb_slice bytes = bb_slice(judge->bytes.data + entry->at, entry->len);
        story_message(world, entry->link, bytes, false);
        output(world, entry->link, bytes);
    }
    if (!world->failed && judge->n_trace > 0) {
        check_taken_over(world);
    }
    judge->n_trace = 0;
    bb_buf_reset(&judge->bytes);
}

/* --- ends ------------------------------------------------------------------------------------- */

void judge_closed(struct world *world, struct sim_link *link, bool by_core)
{
    const struct judged_link *judged = &link->judged;
    uint64_t patience = 3 * (judged->heartbeat_us != 0 ? judged->heartbeat_us : 100000);
    bool is_silent = world->now >= judged->heard_at + patience;
    bool has_reason = judged->has_goodbye || judged->said_goodbye || is_silent ||
                      judged->sent_bytes - judged->read_surely >= world->config.inflight_bytes ||
                      link->broken || link->is_clogged || !judged->is_ready ||
                      judged->strikes >= STRIKES_MAX || world->is_dead;
    if (by_core && !has_reason) {
        fail(world, link, "closed", "a link is closed for no reason");
    }
    asked_doubt(link);
    for (struct account *account = link->judged.accounts; account != NULL; account = account->next) {
        account_close(world, account);
    }
}

void judge_link_fini(struct world *world, struct sim_link *link)
{
    asked_free_all(world, link);
    while (link->judged.published != NULL) {
        struct published *published = link->judged.published;
        link->judged.published = published->next;
        published_free(published);
    }
    while (link->judged.accounts != NULL) {
        struct account *account = link->judged.accounts;
        link->judged.accounts = account->next;
        account_free(world, account);
    }
    cursor_forget_link(world, link);
}

void judge_broker_ended(struct world *world, bool has_log)
{
    producers_broker_ended(world, has_log);
}

void judge_removed(struct world *world, size_t channel)
{
    judge_meets(world, channel, F(removed));
}

void judge_meets_of(struct world *world, struct sim_link *link, uint64_t features)
{
    (void)world;
    for (struct account *account = link->judged.accounts; account != NULL; account = account->next) {
        account->met |= account->state == ACCOUNT_OPEN ? features : 0;
    }
}

void judge_meets(struct world *world, size_t channel, uint64_t features)
{
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        for (struct account *account = link->judged.accounts; account != NULL; account = account->next) {
            if (account->state == ACCOUNT_OPEN &&
                (channel == SIZE_MAX || account_matches(world, account, channel))) {
                account->met |= features;
            }
        }
    }
}

const char *judge_owes(struct world *world)
{
    static char text[200];
    for (struct sim_link *link = world->links; link != NULL; link = link->next) {
        const char *what = NULL;
        if (link->core == NULL || !link->is_open || !link->judged.is_ready) {
            continue;
        }
        what = published_owes(world, link);
        what = what != NULL ? what : asked_owes(world, link);
        for (struct account *account = link->judged.accounts; account != NULL && what == NULL;
             account = account->next) {
            what = account->must_fail ? NULL : account_owes(world, account);
            if (what != NULL) {
                const struct truth_event *event = account_missing(world, account);
                (void)snprintf(text, sizeof(text), "sub %" PRIu64 " of peer %" PRIu64 ": %s (%s %" PRIu64 ")",
                               account->sub, link->peer->index, what,
                               event != NULL ? world->truth.names[event->inc->channel].text : "-",
                               event != NULL ? event->sequence : 0);
                return text;
            }
        }
        if (what != NULL) {
            (void)snprintf(text, sizeof(text), "peer %" PRIu64 ": %s", link->peer->index, what);
            return text;
        }
    }
    return NULL;
}

void judge_fini(struct judge *judge)
{
    free(judge->trace);
    bb_buf_fini(&judge->bytes);
}

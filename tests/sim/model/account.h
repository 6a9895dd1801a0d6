/* SPDX-License-Identifier: Apache-2.0 */
/* The account of a subscription: what it asked for, how far it is in each channel, and what it is owed. */
#pragma once

#include "proto/wire/message.h"

#include "tests/sim/model/truth.h"

enum wish_from {
    WISH_NEW,
    WISH_LAST,
    WISH_OLDEST,
    WISH_SEQUENCE,
    WISH_TIME,
    WISH_ID,
    WISH_AFTER,
    WISH_RUN,
    WISH_CURSOR,
};

enum wish_until {
    WISH_FOR_EVER,
    WISH_UNTIL_NOW,
    WISH_UNTIL_SEQUENCE,
    WISH_UNTIL_TIME,
    WISH_UNTIL_LAST,
};

enum wish_policy {
    POLICY_SLIDE = 1,
    POLICY_DROP_OLDEST = 2,
    POLICY_DROP_NEWEST = 4,
    POLICY_CONFLATE = 8,
    POLICY_REFUSE = 16,
    POLICY_DISCONNECT = 32,
};

/* A subscribe message, read. Slices point into its copy. */
struct wish {
    struct bb_buf bytes;
    struct bb_slice patterns;
    enum wish_from from;
    uint64_t number; /* sequence or time */
    uint64_t server, session, instance;
    uint64_t run;
    struct bb_slice after;
    enum wish_until until;
    uint64_t until_sequence;
    uint64_t until_time;
    struct bb_slice last;
    enum wish_from without_cursor; /* what counts if there is no cursor of that name */
    uint32_t policies;             /* one bit; with none said those that the channels may have set */
    bool says_policy;
    bool may_be_early;
    bool must_be_early;
    bool retained;
    bool lives;
    struct bb_slice durable;
    uint64_t budget;
    uint64_t bytes_credit;
    uint64_t events_credit;
};

/** wish_read() - false if it cannot be taken by the rules. */
bool wish_read(struct world *world, struct wish *wish, struct bb_slice bytes);

enum place_due {
    DUE_NOTHING,
    DUE_RESTART,
    DUE_RETRACTED,
    DUE_EITHER, /* nobody can know whether the position is void */
};

/* Where a subscription is in a channel. */
struct place {
    struct truth_inc *inc; /* NULL: it has met nothing of the channel */
    uint64_t covered;
    uint64_t begin; /* the answer to subscribe said */
    uint64_t base;  /* where counting began */
    uint64_t stop;
    bool may_be_over; /* the gap may be of the removal, or of a void cursor */
    bool is_over;     /* with an end in sequences: the channel was removed */
    enum place_due due;
    uint64_t due_sequence; /* that was given */
    uint64_t due_from;
    bool is_due_unclear; /* from where: several cursors can have been the one */
    uint64_t due_to;
    uint64_t life;
    bool is_named;    /* in the answer to subscribe */
    bool may_be_next; /* at 0, while the channel was to be removed: it may be in the one after */
    size_t told_cut;  /* n_cuts of the incarnation when it was told something last */
};

enum account_state {
    ACCOUNT_ASKED,
    ACCOUNT_OPEN,
    ACCOUNT_OVER,
};

/* How much was accounted for when the truth had come to a rank. */
struct account_mark {
    uint64_t rank;
    uint64_t bytes;
};

struct account {
    struct account *next;
    struct sim_link *link;
    enum account_state state;
    bool is_leaving; /* unsubscribe is under way */
    bool was_asked_when_leaving;
    bool must_fail; /* its number is in use, or it cannot be taken */
    uint64_t sub;
    uint64_t corr;
    struct wish wish;
    struct {
        const struct truth_inc *inc;
        uint64_t visible;
        uint64_t taken;
    } then[NAMES_MAX]; /* when it was asked */
    struct place places[NAMES_MAX];
    uint64_t credit_bytes, credit_events;
    uint64_t sent_bytes, sent_events;
    uint64_t session[2], instance[2]; /* of the newest delivered, by store */
    struct account_mark *marks;
    size_t n_marks;
    size_t n_mark_slots;
    uint64_t counted;      /* bytes accounted for since the marks begin */
    uint64_t counted_rank; /* n_visible when the marks begin: nothing is known of what waited before */
    uint64_t voided;       /* bytes that waited where this message says that a channel is gone */
    uint64_t opened_rank;  /* n_visible when it was answered */
    uint64_t opened_at;
    bool retained_due;
    struct truth_event **retained;
    size_t n_retained;
    size_t n_retained_slots;
    uint64_t met; /* features */
};

/** account_of() - that is not over, NULL if there is none. */
struct account *account_of(struct sim_link *link, uint64_t sub);

/** account_new() - a subscribe goes in. */
void account_new(struct world *world, struct sim_link *link, const struct bb_msg *msg, struct bb_slice bytes);
void account_close(struct world *world, struct account *account);
void account_free(struct world *world, struct account *account);

/** account_wants() - whether an event is of those that are to be delivered or reported. */
bool account_wants(const struct account *account, const struct place *place, const struct truth_event *event);

/** account_matches() - whether its patterns can match a path of the channel. */
bool account_matches(const struct world *world, const struct account *account, size_t channel);

/** account_place() - its place in @channel, where it begins if it has not met it yet. */
struct place *account_place(struct world *world, struct account *account, size_t channel);

/** account_is_early() - whether it may see what is not durable. */
bool account_is_early(const struct account *account);

/** account_reach() - the newest sequence that @account may see of @inc. */
uint64_t account_reach(const struct account *account, const struct truth_inc *inc);

/** account_waiting() - bytes of wanted events that are visible and not accounted for; for an early one those
 * that are taken. At most. */
uint64_t account_waiting(struct world *world, struct account *account);

uint64_t account_waiting_in(const struct account *account, const struct place *place);

/** account_waiting_surely() - the same, of those that nothing else can have taken. At least. */
uint64_t account_waiting_surely(struct world *world, const struct account *account);

/** account_waiting_at() - what waited when the truth was at @rank. At most. */
uint64_t account_waiting_at(struct world *world, const struct account *account, uint64_t rank);

/** account_count() - @bytes more are accounted for; account_recount() - a place begins anew. */
void account_count(struct world *world, struct account *account, uint64_t bytes);
void account_recount(const struct world *world, struct account *account);

/** account_fail() - with what there is to know about it. */
void account_fail(struct world *world,
                  const struct account *account,
                  const char *kind,
                  const char *format,
                  ...) BB_PRINTF(4, 5);

/** account_missing() - an event that is wanted, could have come and has not; NULL: none. */
const struct truth_event *account_missing(struct world *world, struct account *account);

/** account_may_end() - whether nothing that is wanted can still come; why not otherwise. @must: whether then
 * it must end, too. */
const char *account_may_end(struct world *world, struct account *account, bool must);

/** account_owes() - what is still to come in a quiet world; NULL: nothing. */
const char *account_owes(struct world *world, struct account *account);

/** account_subscribed() - the answer. */
void account_subscribed(struct world *world, struct account *account, const struct bb_msg *msg);

/** account_deliver() - gaps, ranges and events. */
void account_deliver(struct world *world, struct account *account, const struct bb_msg *msg);

/** account_retained() - a delivery of retained values. */
void account_retained(struct world *world, struct account *account, const struct bb_msg *msg);

/** account_ended() - it has ended by itself. */
void account_ended(struct world *world, struct account *account, const struct bb_msg *msg);

/* A gap while its message is judged. */
struct gap {
    size_t channel;
    uint64_t from;
    uint64_t to;
    uint64_t count;
    bool has_to;
    bool has_count;
    bool is_unheard; /* it goes beyond what the truth has heard of */
    bool is_second;  /* of its channel in a message: it may hold what was lost for other reasons later */
    uint64_t life;
    struct bb_slice reason;
    struct truth_event **lost;
    size_t n_lost;
    size_t n_lost_slots;
};

/** gap_judge() - whether each event of an ordinary gap may be lost for its reason. */
void gap_judge(struct world *world, struct account *account, const struct gap *gap);

/* --- cursors ---------------------------------------------------------------------------------- */

/** cursor_ask() - a cursor message goes in; cursor_answer() - and was answered. */
void cursor_ask(struct world *world, struct sim_link *link, const struct bb_msg *msg);
void cursor_answer(struct world *world, struct sim_link *link, uint64_t corr, bool is_done);

/** cursor_made() - the broker made one where a subscription began; not @is_sure: or it had one. */
void cursor_made(struct world *world, struct bb_slice name, struct bb_slice positions, bool is_sure);

/** cursor_may_be_made() - it may have, and nobody was told where. */
void cursor_may_be_made(struct world *world, struct bb_slice name);

/** cursor_broker_ended() - what was not on the disk is gone. @is_older: an older copy is there now. */
void cursor_broker_ended(struct world *world, bool is_wiped, bool is_older);
void cursor_fini(struct world *world);

/** cursor_forget_link() - a link is freed. */
void cursor_forget_link(struct world *world, const struct sim_link *link);

/** cursor_lookup() - the n-th of what the cursor @name may be; false: no more. An empty slice: there is none
 * of that name. */
struct saved_place {
    size_t channel;
    uint64_t sequence;
    enum truth_verdict verdict;
    uint64_t end;
};
bool cursor_lookup(struct world *world,
                   struct bb_slice name,
                   size_t n,
                   struct saved_place places[NAMES_MAX],
                   size_t *ret_n,
                   bool *ret_is_there);

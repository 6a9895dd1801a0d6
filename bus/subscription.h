/* SPDX-License-Identifier: Apache-2.0 */
/* A subscription inside. Guarded by the lock of its bus, but for what bb_receive() took and reads. */
#pragma once

#include "proto/base/map.h"

#include "bus/busbar.h"
#include "bus/delivery.h"
#include "bus/state.h"

#include <stdatomic.h>

enum bb_sub_state {
    BB_SUB_NEW,   /* to be asked for when the bus is ready */
    BB_SUB_ASKED, /* on this connection */
    BB_SUB_LIVE,
    BB_SUB_ENDED,
};

/* Where a subscription is in a channel. */
struct bb_place {
    struct bb_spot at;     /* what came reaches so far */
    struct bb_spot answer; /* where `subscribed` said that it resumes */
    bool has_answer;       /* and nothing came from there yet */
    bool is_settled;       /* what is staged has taken the answer into account */
    bool is_staged;
    bool is_over;              /* the channel is gone, and nothing of the next one is wanted */
    bool ends;                 /* the same after the message that is being taken, by which */
    struct bb_spot next_taken; /* the cursor goes here */
    bool has_start;
    uint64_t start;
    struct bb_spot staged; /* `at` after the message that is being taken */
    struct bb_place *next_staged;
    struct bb_spot taken; /* of a durable subscription: what was given to the application is done with */
    /* The same once the next bb_receive() says so, of a message that is read in part; sequence 0: nothing. */
    struct bb_spot given;
    size_t len;
    char channel[]; /* zero-terminated */
};

/* The cursor of a durable subscription: what is to be saved, and when. */
struct bb_cursor {
    bool has_moved; /* ever; until then it is where the broker has it */
    bool is_moved;  /* since it was sent */
    bool has_given; /* some place has */
    uint64_t bytes; /* worked off since it was sent */
    uint64_t due;   /* when to send it, if it moved */
    uint64_t corr;  /* of the one that is not answered; 0: none */
    char name[65];
};

struct bb_subscription {
    struct bb_bus *bus;
    uint64_t number;
    uint64_t corr;
    enum bb_sub_state state;
    int error; /* why it ended */
    char error_text[128];
    bool is_told;           /* its end, or there is nobody to tell */
    bool has_started;       /* it was live once, so it resumes */
    bool has_come;          /* something has, since it was */
    atomic_bool is_closing; /* no further callback */
    bool has_callbacks;     /* counted in the bus */
    bool is_abandoned;      /* freed when its callback returns */
    uint64_t run;           /* of the broker that the places are of */

    struct bb_subscribe_options options; /* without the patterns; `durable` is cursor.name or NULL */
    struct bb_cursor cursor;
    bool has_retained;       /* all retained values came */
    bool has_taken_retained; /* and are worked off */
    struct bb_buf patterns;  /* MessagePack array */
    struct bb_buf
        ends; /* what "now" was when it began, as it came, for `until` as it resumes; empty: not known */
    struct bb_map places; /* by channel */
    struct bb_place *staged;

    uint64_t connection; /* that the next four are of */
    uint64_t received_bytes;
    uint64_t consumed_events;
    uint64_t granted_bytes;
    uint64_t granted_events;
    uint64_t unread_bytes; /* received and not consumed, by whichever connection */

    struct bb_delivery *queue; /* for bb_receive() */
    struct bb_delivery **queue_end;
    struct bb_delivery *reading; /* taken by bb_receive(), which alone touches these two */
    struct bb_delivery *read;    /* what its last call gave events of */

    struct bb_subscription_counts counts;
};

/** bb_overflow_name() - on the wire; NULL for BB_OVERFLOW_DEFAULT. */
const char *bb_overflow_name(enum bb_overflow overflow);

/** bb_subscription_find() - by its number; NULL if there is none. */
struct bb_subscription *bb_subscription_find(struct bb_bus *bus, uint64_t number);

/** bb_subscription_ask() - send the subscribe that its state asks for. */
void bb_subscription_ask(struct bb_subscription *sub);

/** bb_subscription_end() - the broker ended it, or it was drained. */
void bb_subscription_end(struct bb_subscription *sub, int error, const char *text, size_t text_len);

/** bb_subscription_consumed() - a delivery was worked off: count it and grant more when it is time. */
void bb_subscription_consumed(struct bb_subscription *sub, const struct bb_delivery *delivery);

/** bb_subscription_free() - it is in no map any more; one that was never counted in the bus needs no lock. */
void bb_subscription_free(struct bb_subscription *sub);

/* All subscriptions of a bus. */
void bb_subscriptions_ready(struct bb_bus *bus); /* ask for all */
void bb_subscriptions_lost(struct bb_bus *bus);  /* the connection broke */
void bb_subscriptions_end(struct bb_bus *bus, int error, const char *text);
void bb_subscriptions_free(struct bb_bus *bus);

/** bb_subscriptions_refused() - the subscribe with @corr was refused. */
void bb_subscriptions_refused(struct bb_bus *bus, uint64_t corr, int error, struct bb_slice text);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus inside. One lock guards everything below, the connection as well. Publishing threads write to its
 * socket under it, so a lone event needs no other thread. Whoever steps the bus (its I/O thread, or the
 * caller of an embedded one) receives, and gives the lock up while callbacks run. While a bus has no
 * callbacks, so that no thread can be the wrong one, a call that waits is lent the socket and steps the bus
 * itself: the answer then wakes one thread instead of two.
 *
 * The files of this folder are layers: state and signal, conn, subscription (with places), cursor and
 * requests, deliver, handle, step, and api/ above. A file calls only what is below it. Whoever finds out that
 * something must happen above marks it in `pending`, and the next step performs it. Functions want the lock
 * held unless they say otherwise.
 */
#pragma once

#include "proto/base/map.h"
#include "proto/wire/message.h"

#include "bus/busbar.h"
#include "bus/conn_sm.h"
#include "bus/link.h"
#include "bus/outbox.h"

#include <pthread.h>
#include <sys/types.h>

#define BB_NEVER           UINT64_MAX
#define BB_EVENTS_PER_CALL 256

/* What whoever steps the bus is doing. */
enum bb_run {
    BB_RUN_IDLE, /* nobody steps it */
    BB_RUN_STEP,
    BB_RUN_CALLBACK, /* in a step, without the lock */
    BB_RUN_ACKS,     /* the same, and the callbacks are on_ack */
};

/* How far bb_bus_close() is. */
enum bb_life {
    BB_LIFE_OPEN,
    BB_LIFE_STOPPING, /* the I/O thread is to end */
    BB_LIFE_CLOSING,  /* waiting calls are leaving, and no step begins any more */
};

/* What a step is to do about the connection. */
enum bb_pending {
    BB_PENDING_BROKEN = 1, /* it broke: whoever waits for an answer by it waits in vain */
    BB_PENDING_ENDED = 2,  /* there will be no other, for bus->error */
};

/* An eventfd that wakes whoever polls it. */
struct bb_bell {
    int fd;
    bool is_raised;
};

struct bb_bus {
    pthread_mutex_t lock;
    pthread_cond_t changed; /* anything that a waiting call may wait for */
    unsigned n_waiting;
    pid_t pid;
    uint64_t seed; /* of maps; like pid read without the lock, for it never changes */

    struct bb_options options; /* its pointers are not used: see urls and name */
    char *urls;                /* see bb_urls_copy() */
    const char *url;           /* the next to try */
    char name[65];

    struct bb_link link;
    uint64_t n_links; /* attempts to connect so far; the number of this one */
    int epoll_fd;
    int timer_fd;
    struct bb_bell wake;                   /* for whoever steps the bus */
    struct bb_bell call;                   /* for the call that the socket is lent to */
    uint64_t timer_at;                     /* what timer_fd is set to, BB_NEVER if it is not */
    struct bb_frame frames[BB_FRAMES_MAX]; /* of the message that is being handled */
    struct bb_buf scratch;                 /* small messages to be sent */

    struct bb_conn conn;
    uint8_t client[BB_CLIENT_ID_LEN];
    uint64_t last_corr;
    uint64_t run_number; /* of the broker, 0 before the first welcome */
    uint64_t server;
    uint64_t client_number;
    size_t max_message;
    uint64_t n_connects;

    struct bb_outbox outbox;
    uint64_t n_told;    /* events up to which every on_ack has returned */
    struct bb_map subs; /* by number; the key is in the subscription */
    uint64_t last_sub;
    uint64_t save_at;            /* when the next cursor is to be saved, BB_NEVER: none */
    struct bb_request *requests; /* that wait for their answers */
    unsigned n_durable;          /* subscriptions with a cursor */
    unsigned n_untold;           /* subscriptions whose on_ended may be due */
    unsigned n_callbacks;        /* of the bus and of subscriptions; those of events are the outbox's */

    unsigned pending; /* of enum bb_pending */
    int error;        /* why it is closed for good, 0 if it is not */
    int last_error;
    char last_text[256];
    enum bb_bus_state told_state;

    enum bb_life life;
    enum bb_run run;
    bool has_lives;   /* positions of the broker carry lives */
    bool is_polling;  /* a waiting call, which will step the bus */
    bool has_changed; /* waiting calls are to be woken as soon as the stepper gives up the lock */
    pthread_t thread; /* unless embedded */
    pthread_t callback_thread;
    struct bb_subscription *calling; /* whose callback is running */
};

static inline void bb_bus_lock(struct bb_bus *bus)
{
    (void)pthread_mutex_lock(&bus->lock);
}

static inline void bb_bus_unlock(struct bb_bus *bus)
{
    (void)pthread_mutex_unlock(&bus->lock);
}

static inline bool bb_bus_is_ready(const struct bb_bus *bus)
{
    return bus->conn.state == BB_CONN_READY;
}

/** bb_bus_in_callback() - is this thread in a callback of the bus? */
static inline bool bb_bus_in_callback(const struct bb_bus *bus)
{
    return bus->run >= BB_RUN_CALLBACK && pthread_equal(bus->callback_thread, pthread_self());
}

/** bb_bus_public_state() - of the connection, as the application is told. */
enum bb_bus_state bb_bus_public_state(const struct bb_bus *bus);

/** bb_bus_turn() - whoever steps the bus does something else from now on. */
void bb_bus_turn(struct bb_bus *bus, enum bb_run run);

/** bb_bus_age() - the next stage of bb_bus_close(). */
void bb_bus_age(struct bb_bus *bus, enum bb_life life);

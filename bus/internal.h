/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bus inside. One lock guards everything below, the connection as well. Publishing threads write to its socket
 * under it, so a lone event needs no other thread. Whoever steps the bus (its I/O thread, or the caller of an embedded one) receives, and gives
 * the lock up while callbacks run. While a bus has no callbacks, so that no thread can be the wrong one, a call
 * that waits is lent the socket and steps the bus itself: the answer then wakes one thread instead of
 * two. Functions here want the lock held unless they say otherwise.
 */
#pragma once

#include "proto/base/map.h"
#include "proto/wire/message.h"

#include "bus/busbar.h"
#include "bus/conn_sm.h"
#include "bus/delivery.h"
#include "bus/link.h"
#include "bus/outbox.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

#define BB_NEVER           UINT64_MAX
#define BB_EVENTS_PER_CALL 256

/* A request that a thread waits for; lives on that thread's stack. */
struct bb_request {
    struct bb_request *next;
    enum bb_msg_type type;
    uint64_t corr; /* of a ping its token */
    bool is_done;
    int error;
    struct bb_buf value;       /* MessagePack of a result */
    struct bb_delivery *found; /* the events of a page; the caller's */
    bool has_more;
    uint64_t run; /* of the broker that it is sent to */
    uint64_t server;
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
    int event_fd;
    int timer_fd;
    int call_fd;                           /* wakes the call that the socket is lent to */
    bool is_woken;                         /* event_fd is readable */
    bool is_called;                        /* call_fd is readable */
    uint64_t timer_at;                     /* what timer_fd is set to, BB_NEVER if it is not */
    struct bb_frame frames[BB_FRAMES_MAX]; /* of the message that is being handled */
    struct bb_buf scratch;                 /* small messages to be sent */

    struct bb_conn conn;
    uint8_t client[BB_CLIENT_ID_LEN];
    uint64_t last_corr;
    uint64_t run; /* 0 before the first welcome */
    uint64_t server;
    bool has_lives; /* positions of the broker carry lives */
    uint64_t client_number;
    size_t max_message;
    uint64_t n_connects;

    struct bb_outbox outbox;
    uint64_t n_told;    /* events up to which every on_ack has returned */
    struct bb_map subs; /* by number; the key is in the subscription */
    uint64_t last_sub;
    unsigned n_durable;   /* subscriptions with a cursor */
    uint64_t save_at;     /* when the next cursor is to be saved, BB_NEVER: none */
    unsigned n_untold;    /* subscriptions whose on_ended may be due */
    unsigned n_callbacks; /* of the bus and of subscriptions; those of events are the outbox's */
    struct bb_request *requests;

    int error; /* why it is closed for good, 0 if it is not */
    int last_error;
    char last_text[256];
    enum bb_bus_state told_state;

    pthread_t thread;
    bool has_thread;
    bool is_polling;  /* a waiting call, which will step the bus */
    bool has_changed; /* waiting calls are to be woken as soon as the stepper gives up the lock */
    bool is_telling;  /* on_ack are being called */
    bool is_stopping;
    bool is_closing; /* waiting calls are leaving */
    bool is_stepping;
    bool in_callback;
    pthread_t callback_thread;
    struct bb_subscription *calling; /* whose callback is running */
};

/* --- bus.c -------------------------------------------------------------------------------------- */

uint64_t bb_now_ms(void);
uint64_t bb_deadline(int timeout_ms);

/** bb_bus_check_wait() - may this thread wait now? 0, BB_EDEADLOCK. */
int bb_bus_check_wait(struct bb_bus *bus);

/**
 * bb_bus_wait() - give up the lock until something may have changed
 *
 * Return: 0: look again; BB_ETIMEOUT.
 */
int bb_bus_wait(struct bb_bus *bus, uint64_t deadline);

/** bb_bus_wait_ready_locked() - wait for the connection; see bb_bus_wait_ready(). */
int bb_bus_wait_ready_locked(struct bb_bus *bus, uint64_t deadline);

/** bb_bus_wake() - have the bus stepped soon. */
void bb_bus_wake(struct bb_bus *bus);

/**
 * bb_bus_changed() - wake the waiting calls
 *
 * A step does it when it gives up the lock: who is woken earlier would only wait for that.
 */
void bb_bus_changed(struct bb_bus *bus);

/** bb_bus_wait_told() - wait until the first @n events are answered and their on_ack have returned. */
int bb_bus_wait_told(struct bb_bus *bus, uint64_t n, uint64_t deadline);

/** bb_bus_run() - the I/O thread; takes the lock itself. */
void *bb_bus_run(void *arg);

/** bb_bus_call_done() - tell the publishers of answered events. */
void bb_bus_call_done(struct bb_bus *bus);

/** bb_bus_callback_begin() - give up the lock to run a callback; @sub is whose, may be NULL. */
void bb_bus_callback_begin(struct bb_bus *bus, struct bb_subscription *sub);

/** bb_bus_callback_end() - take the lock again. */
void bb_bus_callback_end(struct bb_bus *bus);

/** bb_bus_note() - remember an error for bb_bus_last_error(). */
void bb_bus_note(struct bb_bus *bus, int error, const char *format, ...) BB_PRINTF(3, 4);

/* --- conn.c ------------------------------------------------------------------------------------- */

/** bb_conn_perform() - do what the machine said. */
void bb_conn_perform(struct bb_bus *bus, unsigned actions);

/** bb_conn_drop() - the connection is of no use: break it and try again later. */
void bb_conn_drop(struct bb_bus *bus, int error, const char *text);

/** bb_conn_end() - the bus will never be ready (again). */
void bb_conn_end(struct bb_bus *bus, int error, const char *text);

/** bb_conn_tick_now() - let the time count. */
void bb_conn_tick_now(struct bb_bus *bus);

/** bb_conn_read() - take what came, up to a bound; returns whether more is here that the socket will not tell of. */
bool bb_conn_read(struct bb_bus *bus);

/** bb_conn_send() - send a message without a body. Return: 0, BB_ENOMEM, BB_ECONNECT. */
int bb_conn_send(struct bb_bus *bus, const struct bb_msg *msg);

/** bb_conn_send_batches() - send the batches whose time has come. */
void bb_conn_send_batches(struct bb_bus *bus);

/**
 * bb_conn_lend() - have the I/O thread not look at the socket
 * @ret_fd: readable when there may be something to receive
 *
 * Return: the number of the link, for bb_conn_take_back().
 */
uint64_t bb_conn_lend(struct bb_bus *bus, int *ret_fd);
void bb_conn_take_back(struct bb_bus *bus, uint64_t n_link);

static inline bool bb_bus_is_ready(const struct bb_bus *bus)
{
    return bus->conn.state == BB_CONN_READY;
}

/* --- handle.c ----------------------------------------------------------------------------------- */

/** bb_handle_message() - one message of @n frames in bus->frames; which are taken over. */
void bb_handle_message(struct bb_bus *bus, size_t n);

/* --- cursor.c ----------------------------------------------------------------------------------- */

/** bb_cursors_tick() - send the cursors that are due. */
void bb_cursors_tick(struct bb_bus *bus);

/** bb_cursors_answered() - the answer with @corr came; false if it is no cursor's. */
bool bb_cursors_answered(struct bb_bus *bus, uint64_t corr, int error);

/* --- request.c ---------------------------------------------------------------------------------- */

/** bb_requests_finish() - answer the request with @type (BB_MSG_NONE: any) and @corr. */
void bb_requests_finish(struct bb_bus *bus,
                        enum bb_msg_type type,
                        uint64_t corr,
                        int error,
                        struct bb_slice value);

/** bb_requests_found() - events came for @corr; @delivery is taken over. */
void bb_requests_found(struct bb_bus *bus, uint64_t corr, bool has_more, struct bb_delivery *delivery);

/** bb_requests_fail() - the connection broke. */
void bb_requests_fail(struct bb_bus *bus, int error);

/** bb_request_json() - run @msg and give its result as JSON for the caller to free(). Takes the lock. */
int bb_request_json(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms, char **ret_json);

/** bb_request_done() - the same for a result that says nothing. Takes the lock. */
int bb_request_done(struct bb_bus *bus, struct bb_msg *msg, int timeout_ms);

/** bb_request_run() - send @msg, whose corr or token is set here, and wait; caller frees @request->value. */
int bb_request_run(struct bb_bus *bus, struct bb_msg *msg, struct bb_request *request, uint64_t deadline);

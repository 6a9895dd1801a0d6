/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who owns a backend on LMDB, as the core does: it numbers events, waits for fd() and dispatches, and writes
 * down what it is told. The journal's writes and flushes go through here (tests/unit/CMakeLists.txt), so that
 * they can fail. What must not happen fails the test; all waiting is for something to be told.
 */
#pragma once

#include "proto/base/error.h"

#include "broker/backend/registry.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

#define OWNER_CHANNELS 4 /* 1 to 3 are there from the beginning */

/* How far the numbers have come. */
struct owner_mark {
    uint64_t session;
    uint64_t last[OWNER_CHANNELS];
};

struct owner {
    char directory[64];
    const char *const *options; /* ended by NULL */
    size_t min_ticket;          /* asked for by the next open */
    atomic_uint_fast64_t aged;  /* us that have passed since the events were made */
    struct bk_backend *backend;
    struct bk_backend_listener listener;
    struct bk_meter meter;
    struct bb_buf err;   /* of the last owner_try_open() */
    struct bb_buf marks; /* struct owner_mark, after each ticket; the first: after none */
    uint64_t ticket;     /* the last one that was taken */
    uint64_t decided;    /* all tickets up to here are */
    uint64_t n_failed;   /* tickets */
    int error;           /* of the last one that failed */
    enum bk_backend_state state;
    unsigned n_states;   /* told */
    unsigned n_failures; /* of them BK_BACKEND_FAILED: it may be well again in the same dispatch() */
    char text[400];      /* of the last one */
    uint64_t trimmed[OWNER_CHANNELS];
    unsigned n_waiting; /* requests */
    struct owner_mark at;
    uint64_t next_path;
};

/** owner_open() - a new directory; @options: texts "name=value", ended by NULL. */
void owner_open(struct owner *owner, const char *const *options);

/** owner_try_open() - open what is in the directory. Return: as bk_backend_open(). */
int owner_try_open(struct owner *owner, struct bk_backend **ret_backend);

/** owner_leave() - close, which must decide all tickets; owner_enter() - open again. */
void owner_leave(struct owner *owner);
void owner_enter(struct owner *owner);

/** owner_close() - close, if it is open, and remove the directory. */
void owner_close(struct owner *owner);

/**
 * owner_put() - @n events under one ticket
 * @padding: bytes of each, all on one path; 0: each on a path that was never used, which the tables need much
 * more for
 *
 * Return: as register_(). Who is refused for the state of the log has been told of it.
 */
int owner_put(struct owner *owner, uint32_t channel, size_t n, size_t padding);

/** owner_set_age() - how old events of a channel may become, under one ticket. */
void owner_set_age(struct owner *owner, uint32_t channel, uint64_t max_age_us);

/** owner_pump() - dispatch until @is_done. */
void owner_pump(struct owner *owner, bool (*is_done)(const struct owner *));

/** owner_settle() - until all tickets are decided. */
void owner_settle(struct owner *owner);

/** owner_submit() - begin a request; owner_wait() - until as many were answered as were submitted. */
void owner_submit(struct owner *owner, struct bk_request *request);
void owner_wait(struct owner *owner);

/** owner_run() - both. Return: the request's error. */
int owner_run(struct owner *owner, struct bk_request *request);

/** owner_count() - the events of a channel that are found. */
uint64_t owner_count(struct owner *owner, uint32_t channel);

/** owner_verify() - records and indexes agree. */
void owner_verify(struct owner *owner);

/** owner_status() - a number of the status; of a text, its length, and @ret_text if that is not NULL. */
uint64_t owner_status(struct owner *owner, const char *name, char ret_text[400]);

/* --- the journal's disk --------------------------------------------------------------------------- */

enum disk {
    DISK_WELL,
    DISK_LOSES, /* one call fails and nothing is written; then it is well */
    DISK_LIES,  /* one call writes and says that it has failed; then it is well */
    DISK_HOLDS, /* calls wait until it is well */
};

/** disk_be() - from the next write on. @when: called in the call that fails, before it returns. */
void disk_be(enum disk is, void (*when)(void *), void *context);

/** disk_wait_held() - until a call is being held. */
void disk_wait_held(void);

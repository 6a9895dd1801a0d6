/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Producers: how far the publishes of a client have come, across connections and, with a log, starts of the broker (PROTOCOL 6.2).
 * There is one for each client that has published under a number; it belongs to the client's newest epoch. Those without a
 * connection are remembered up to a bound, the oldest forgotten first.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/cc.h"
#include "proto/wire/message.h"

#include <stdbool.h>
#include <stdint.h>

/* Producers without a connection that are remembered. */
#define BK_PRODUCERS_IDLE_MAX ((size_t)65536)

/* So many numbers back it is known which publishes were refused whole. */
#define BK_OUTCOMES 256

struct bk_core;
struct bk_client;

struct bk_producer {
    uint8_t id[BB_CLIENT_ID_LEN];
    uint64_t epoch;
    uint64_t last;                /* highest number taken */
    int8_t outcomes[BK_OUTCOMES]; /* of the last numbers, by number: 0 or the error */
    uint64_t refused;             /* the newest number with an outcome, 0 for none */
    bool is_staged;               /* the log is to be told, */
    uint64_t staged_last; /* up to here: the newest batch that is kept, not one that is being looked at */
    struct bk_producer *next_staged;
    struct bk_client *client; /* NULL: not connected */
    struct bk_producer *next; /* the unconnected ones, oldest first */
    struct bk_producer *prev;
};

/** bk_producer_find() - the producer of the client @id, NULL if there is none. */
struct bk_producer *bk_producer_find(const struct bk_core *core, const uint8_t *id);

/** bk_producer_get() - the same, made if there is none; not connected. NULL without memory. */
struct bk_producer *bk_producer_get(struct bk_core *core, const uint8_t *id, uint64_t epoch);

/** bk_producer_raise() - begin a newer epoch; the log is to forget the older one. */
void bk_producer_raise(struct bk_core *core, struct bk_producer *producer, uint64_t epoch);

/** bk_producer_attach() - @client publishes for it. */
void bk_producer_attach(struct bk_core *core, struct bk_producer *producer, struct bk_client *client);

/** bk_producer_detach() - its connection ends. The longest unconnected one may be forgotten for it. */
void bk_producer_detach(struct bk_core *core, struct bk_client *client);

/** bk_producer_stage() - the log is to be told how far it has come. */
void bk_producer_stage(struct bk_core *core, struct bk_producer *producer);

/** bk_producers_unstage() - the log was told, or that has failed. */
void bk_producers_unstage(struct bk_core *core);

/** bk_producer_note() - what became of @number: 0 or an error. */
void bk_producer_note(struct bk_producer *producer, uint64_t number, int outcome);

/** bk_producer_outcome() - what is remembered of @number, at or below `last`: 0 or an error. */
int bk_producer_outcome(const struct bk_producer *producer, uint64_t number);

/** bk_producers_fini() - free all. */
void bk_producers_fini(struct bk_core *core);

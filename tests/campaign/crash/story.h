/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A story: tickets that are registered with the LMDB backend, all made from one seed, and what must be found afterwards. A ticket has
 * events for some of three channels, the number of a producer, which is that of the ticket, and a cursor with the same.
 */
#pragma once

#include "broker/core/backend.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORY_CHANNELS 3

struct story_block {
    uint64_t ticket;
    uint32_t channel; /* from 1 */
    struct bb_block head;
    struct bb_buf events;
};

struct story {
    uint64_t random;
    bool lags;                  /* the tables take nothing in before the journal is full */
    struct story_block *blocks; /* taken and not failed, oldest first */
    size_t n_blocks;
    uint64_t sequences[STORY_CHANNELS + 1];
    uint64_t session;
    uint64_t ticket;     /* the last one given */
    uint64_t registered; /* the last one that was taken */
    uint64_t durable;    /* the last one that is told to be on disk */
    uint64_t n_failed;
    uint64_t n_refused;
    enum bk_backend_state state;
    struct bk_backend *backend;
    struct bk_backend_listener listener;
    struct bk_meter meter;
    size_t n_done;
    /* What load() told. */
    uint64_t loaded_producer;
    uint64_t loaded_cursor;
    uint64_t loaded[STORY_CHANNELS + 1];
    char wrong[256]; /* the first thing that is not as it must be, "" for none */
};

/** story_begin() - an empty one. story_end() - close, free. */
void story_begin(struct story *story, uint64_t seed);
void story_end(struct story *story);

/** story_open() - open and load what is in @directory. Return: as bk_backend_open() and load(). */
int story_open(struct story *story, const char *directory);

/** story_close() - close, and be told what was not told yet. */
void story_close(struct story *story);

/** story_register() - one more ticket. Return: as register_(); it is not in the story unless that is 0. */
int story_register(struct story *story);

/** story_pump() - be told what there is to tell; waits up to @timeout_ms for it. Return: whether there was something. */
bool story_pump(struct story *story, int timeout_ms);

/** story_settle() - until all tickets are decided and the backend works. Return: false when that does not happen. */
bool story_settle(struct story *story);

/**
 * story_check() - hold what is in the open backend against the story
 * @acked:      tickets that must be there
 * @registered: tickets that may be there
 *
 * All of a ticket or nothing, in order, without holes, byte by byte; the tables agree with each other. Return: whether it is so.
 */
bool story_check(struct story *story, uint64_t acked, uint64_t registered);

/** story_check_loaded() - what load() told is that of @ticket; else `wrong`. */
void story_check_loaded(struct story *story, uint64_t ticket);

/** story_read() - the same, without the upper bound, as far as it can be read. Return: 0, or the error of a request. */
int story_read(struct story *story, uint64_t ticket);

/** story_verify() - BK_REQUEST_VERIFY. Return: the number of problems, or an error. */
int64_t story_verify(struct story *story);

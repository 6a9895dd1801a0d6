/* SPDX-License-Identifier: Apache-2.0 */
/* What the backend in memory keeps; nobody outside broker/backend/memory includes this. */
#pragma once

#include "proto/base/map.h"

#include "broker/core/backend.h"

enum bk_memory_option {
    OPTION_CHANNEL_SIZE,
    OPTION_TOTAL_SIZE,
    OPTIONS
};

struct bk_memory_channel;

/* In a channel that limits the events of a path a block has one event. */
struct bk_memory_block {
    struct bk_memory_block *next; /* of all, oldest first */
    struct bk_memory_block *prev;
    struct bk_memory_block *next_own; /* of its channel */
    struct bk_memory_block *prev_own;
    struct bk_memory_block *next_same; /* of its path, if that is counted */
    struct bk_memory_path *path;       /* NULL: it is not */
    struct bk_memory_channel *channel;
    uint64_t position; /* rises along `next` */
    struct bk_log_block log;
};

/* A path whose events are counted. */
struct bk_memory_path {
    struct bk_memory_block *oldest;
    struct bk_memory_block *newest;
    uint64_t events;
    size_t len;
    uint8_t text[];
};

struct bk_memory_channel {
    uint32_t id;
    struct bk_retention retention;
    uint64_t first;
    uint64_t last;
    uint64_t events;
    uint64_t bytes;
    struct bk_memory_block *oldest;
    struct bk_memory_block *newest;
    struct bb_map paths; /* struct bk_memory_path, with max_per_path */
    struct bk_memory_channel *next_trimmed;
    bool is_trimmed; /* it is in the list of those to tell of */
};

struct bk_memory_server {
    struct bk_event_id id;
    uint64_t time;
};

struct bk_memory {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_meter *meter;
    uint64_t values[OPTIONS];
    int wake;
    uint64_t ticket;
    uint64_t told;
    struct bb_map channels;
    struct bb_map servers;
    struct bk_memory_block *oldest;
    struct bk_memory_block *newest;
    uint64_t position; /* of the newest block */
    uint64_t bytes;
    struct bk_memory_channel *trimmed; /* what dispatch() tells */
    struct bk_request *requests;
    struct bk_request **requests_end;
};

struct bk_memory_channel *bk_memory_find(const struct bk_memory *memory, uint32_t id);

/** bk_memory_take_channel() - one entry of an append. Return: 0, BB_ENOMEM. */
int bk_memory_take_channel(struct bk_memory *memory, const struct bk_log_channel *entry);

/** bk_memory_take_block() - the same; log->error says whether it was taken. Return: 0, BB_ENOMEM. */
int bk_memory_take_block(struct bk_memory *memory, struct bk_log_block *log);

/** bk_memory_trim() - events of @channel before @sequence go. */
void bk_memory_trim(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t sequence);

/** bk_memory_tell_trimmed() - to the listener. */
void bk_memory_tell_trimmed(struct bk_memory *memory);

/** bk_memory_clear() - free all that is kept. */
void bk_memory_clear(struct bk_memory *memory);

/** bk_memory_read() - one BK_REQUEST_READ. Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_memory_read(const struct bk_memory *memory, struct bk_read *read);

/** bk_memory_answer() - work off a request. Return: its error. */
int bk_memory_answer(struct bk_memory *memory, struct bk_request *request);

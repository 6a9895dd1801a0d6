/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the backend in memory keeps; nobody outside broker/backend/memory includes this.
 *
 * Files, each of which calls only those before it: path.c, block.c, retain.c, keep.c, read.c, answer.c,
 * memory.c.
 */
#pragma once

#include "proto/base/cc.h"
#include "proto/base/map.h"

#include "broker/backend/numbers.h"
#include "broker/core/backend.h"

enum bk_memory_option {
    OPTION_CHANNEL_SIZE,
    OPTION_TOTAL_SIZE,
    OPTIONS
};

struct bk_memory_channel;
struct bk_memory_path;

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
    bool is_in_floor;  /* one of the newest of a channel that counts paths, which stay */
    struct bk_log_block log;
};

/* The newest event of a path, when it is not kept any more: as a value it stays. */
struct bk_memory_latest {
    struct bk_memory_latest *next; /* of all, the one that left first in front */
    struct bk_memory_latest *prev;
    struct bk_memory_latest *next_own; /* of its channel */
    struct bk_memory_latest *prev_own;
    struct bk_memory_path *path;
    uint64_t server;
    struct bb_block head; /* of this event alone */
    uint8_t event[];
};

struct bk_memory_path {
    struct bk_memory_channel *channel;
    struct bk_memory_block *oldest; /* counted */
    struct bk_memory_block *newest;
    uint64_t events;
    uint64_t pending; /* blocks that are about to be linked */
    struct bk_memory_latest *latest;
    /* While a block goes. */
    struct bk_memory_path *next_touched;
    struct bb_slice touched; /* its newest event there */
    uint64_t touched_at;
    size_t len;
    uint8_t text[];
};

struct bk_memory_channel {
    uint32_t id;
    bool is_known; /* it has been appended */
    /* The options took some of its oldest: its first is not where its own limits or a trim left it. */
    bool lacks_room;
    bool is_by_path; /* its blocks have one event each and are counted by path */
    struct bk_retention retention;
    uint64_t first;
    uint64_t last;
    uint64_t events;
    uint64_t bytes;
    struct bk_memory_block *oldest;
    struct bk_memory_block *newest;
    struct bk_memory_block *floor; /* is_by_path: the oldest that stays whatever the limit is */
    uint64_t n_floor;
    struct bb_map paths; /* struct bk_memory_path */
    struct bk_memory_latest *latest_oldest;
    struct bk_memory_latest *latest_newest;
    uint64_t latest_bytes;
    uint64_t due;  /* when the oldest event may have become too old; BK_NO_LIMIT: never */
    size_t due_at; /* in memory->dues */
    struct bk_memory_channel *next_trimmed;
    bool is_trimmed;     /* it is in the list of those to tell of */
    uint64_t trimmed_to; /* what it tells */
};

struct bk_memory {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_meter *meter;
    uint64_t (*now)(void *context);
    void *now_context;
    uint64_t values[OPTIONS];
    int fd;     /* readable when one of the next two is */
    int raised; /* eventfd: at once; setting a timer for each ticket would cost more than the ticket */
    int timer;  /* at `armed` */
    bool is_raised;
    uint64_t armed; /* wall clock; BK_NO_LIMIT: never */
    uint64_t ticket;
    uint64_t told;
    struct bb_map channels;
    struct bk_numbers *numbers;
    struct bk_memory_block *oldest;
    struct bk_memory_block *newest;
    uint64_t position; /* of the newest block */
    uint64_t bytes;
    struct bk_memory_latest *latest_oldest;
    struct bk_memory_latest *latest_newest;
    uint64_t latest_bytes;
    struct bk_memory_channel **dues; /* all channels, a heap: the one that is due first in front */
    size_t n_dues;
    size_t dues_cap;
    struct bk_memory_channel *trimmed; /* what dispatch() tells */
    struct bk_request *requests;
    struct bk_request **requests_end;
};

/* --- path.c --------------------------------------------------------------------------------------- */

/** bk_memory_path_get() - the path, made if need be. NULL: no memory. */
struct bk_memory_path *bk_memory_path_get(struct bk_memory_channel *channel, struct bb_slice text);

/** bk_memory_path_tidy() - forget @path if nothing is known of it any more. */
void bk_memory_path_tidy(struct bk_memory_path *path);

/**
 * bk_memory_remember() - the first @n events of @log are about to go: of each path the newest of them stays
 * as a value
 *
 * Without memory it does not.
 */
void bk_memory_remember(struct bk_memory *memory,
                        struct bk_memory_channel *channel,
                        const struct bk_log_block *log,
                        uint64_t n);

/** bk_memory_forget() - @latest is no value any more. */
void bk_memory_forget(struct bk_memory *memory, struct bk_memory_latest *latest);

/* --- block.c -------------------------------------------------------------------------------------- */

/** bk_memory_block_new() - a block that is not linked yet, of @log or of one event of it. NULL: no memory. */
struct bk_memory_block *bk_memory_block_new(const struct bk_memory *memory, const struct bk_log_block *log);
void bk_memory_block_free(struct bk_memory_block *block);

/** bk_memory_split() - blocks of one event each, which are of the channel's paths, linked by next_own. NULL:
 * no memory. */
struct bk_memory_block *bk_memory_split(const struct bk_memory *memory,
                                        struct bk_memory_channel *channel,
                                        const struct bk_log_block *log);

/** bk_memory_link() - @block is the newest of its channel. */
void bk_memory_link(struct bk_memory *memory,
                    struct bk_memory_channel *channel,
                    struct bk_memory_block *block);

/** bk_memory_drop() - @block goes; what is the newest of its path stays as a value. */
void bk_memory_drop(struct bk_memory *memory, struct bk_memory_block *block);

/** bk_memory_drop_oldest() - the oldest @n events of a channel go, of its oldest block. */
void bk_memory_drop_oldest(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t n);

/** bk_memory_empty() - all of a channel goes, and leaves no values. */
void bk_memory_empty(struct bk_memory *memory, struct bk_memory_channel *channel);

/** bk_memory_count_paths() - from now on the channel's blocks have one event each and are counted by path.
 * Return: 0; BB_ENOMEM, then those that come are not. */
BB_MUST_CHECK int bk_memory_count_paths(struct bk_memory *memory, struct bk_memory_channel *channel);

/** bk_memory_hold_paths() - hold all paths of a channel whose blocks are counted to its limits. */
void bk_memory_hold_paths(struct bk_memory *memory, struct bk_memory_channel *channel);

/* --- retain.c ------------------------------------------------------------------------------------- */

/** bk_memory_now() - wall clock, us. */
uint64_t bk_memory_now(const struct bk_memory *memory);

/** bk_memory_due_add() - a channel, which is not due. Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_memory_due_add(struct bk_memory *memory, struct bk_memory_channel *channel);

/** bk_memory_due_remove() - the channel goes. */
void bk_memory_due_remove(struct bk_memory *memory, struct bk_memory_channel *channel);

/** bk_memory_retain() - hold a channel to its limits and the options; @first: of it, before anything went
 * that is not told yet. */
void bk_memory_retain(struct bk_memory *memory,
                      struct bk_memory_channel *channel,
                      uint64_t first,
                      uint64_t now);

/** bk_memory_retain_due() - the same for all channels that are due. */
void bk_memory_retain_due(struct bk_memory *memory);

/** bk_memory_trim() - events of @channel before @sequence go. */
void bk_memory_trim(struct bk_memory *memory, struct bk_memory_channel *channel, uint64_t sequence);

/** bk_memory_tell_trimmed() - to the listener. */
void bk_memory_tell_trimmed(struct bk_memory *memory);

/** bk_memory_forget_trimmed() - the channel goes: nothing is told of it. */
void bk_memory_forget_trimmed(struct bk_memory *memory, struct bk_memory_channel *channel);

/* --- keep.c --------------------------------------------------------------------------------------- */

struct bk_memory_channel *bk_memory_find(const struct bk_memory *memory, uint32_t id);

/** bk_memory_take() - all of an append; block->error says what was taken. Return: 0; BB_ENOMEM, then nothing
 * was. */
BB_MUST_CHECK int bk_memory_take(struct bk_memory *memory, struct bk_append *append);

/** bk_memory_clear() - free all that is kept. */
void bk_memory_clear(struct bk_memory *memory);

/* --- read.c, answer.c ----------------------------------------------------------------------------- */

/** bk_memory_read() - one BK_REQUEST_READ. Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_memory_read(const struct bk_memory *memory, struct bk_read *read);

/** bk_memory_answer() - work off a request. Return: its error. */
BB_MUST_CHECK int bk_memory_answer(struct bk_memory *memory, struct bk_request *request);

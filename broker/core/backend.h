/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of a backend: what keeps events beyond the moment, and finds them again (HAT-F20 to F27). The
 * core numbers events; a backend stores what is numbered already, in the order in which it is registered.
 *
 * Threads. Calls come from the owner, one at a time, and return without waiting for a disk.
 * What takes time is a request or a ticket: the backend works on it on threads of its own and tells the
 * outcome inside dispatch(), so that notifications too come only when the owner asks for them. fd() becomes
 * readable when dispatch() has something to tell; or a thread of the backend that has nothing else to do
 * offers it to the owner, who may call dispatch() right there: that spares waking a thread.
 *
 * Order. Tickets become durable in the order in which they were registered, all of a ticket or nothing of it.
 * A ticket that failed fails all tickets registered after it; then the backend has gone back to what is
 * durable and goes on from there. A request sees at least what was durable when it was submitted.
 *
 * Another backend is a shared object that exports `const struct bk_backend_driver bk_backend_driver`; its
 * `abi` is the number below, which changes whenever a struct or the meaning of a call in this header does.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/level.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/query.h"

#include "broker/core/bytes.h"
#include "broker/core/filter.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BK_BACKEND_ABI 3

#define BK_NO_LIMIT UINT64_MAX

/* --- what is kept --------------------------------------------------------------------------------- */

/* HAT-F01. Ordered by server's session, then instance; of one server only. */
struct bk_event_id {
    uint64_t server;
    uint64_t session;
    uint64_t instance;
};

/* How long a channel keeps events. BK_NO_LIMIT: no such limit. */
struct bk_retention {
    uint64_t max_age_us;
    uint64_t max_bytes;
    uint64_t max_events;
    uint64_t max_per_path; /* events of each path */
    uint64_t min_events;   /* the floor: so many of the newest stay whatever the limits say; default 0 */
};

#define BK_RETENTION_INIT ((struct bk_retention){BK_NO_LIMIT, BK_NO_LIMIT, BK_NO_LIMIT, BK_NO_LIMIT, 0})

/* A channel as the backend knows it. */
struct bk_log_channel {
    uint32_t id;          /* given by the core, never reused, not by a channel of the same name either */
    struct bb_slice name; /* borrowed */
    /*
     * In an append: forget the channel and all its events. No request that is submitted once it is flushed
     * finds any of it. In load(): it is being removed, or was and had the highest id of all: its id is not to
     * be used again.
     */
    bool removed;
    struct bk_retention retention;
    struct bb_slice settings; /* the core's, kept as it is: one MessagePack map; borrowed */
    /* Filled in by load() only. */
    uint64_t first; /* the oldest sequence kept, last + 1 if none is */
    uint64_t last;  /* the newest sequence ever registered, 0 for none; a removed event does not lower it */
    uint64_t events;
    uint64_t bytes; /* of events kept */
};

enum bk_log_flags {
    BK_LOG_UNIFORM = 1,     /* all events of the block have the path of the first */
    BK_LOG_TTL = 2,         /* some event of it may have a time to live */
    BK_LOG_SOURCE_TIME = 4, /* some event of it may have a source time */
};

/* Consecutive events of one channel and one session. */
struct bk_log_block {
    uint32_t channel;
    uint32_t flags;
    uint64_t server;
    struct bb_block head;  /* session, time, source, sequence, instance, count, length */
    const uint8_t *events; /* head.length bytes, as in PROTOCOL 4; scanned, so well-formed */
    struct bk_bytes
        *owner; /* what they lie in: who keeps a reference need not copy; NULL: they must be copied */
    int error;  /* register_(): why this block was refused, 0 if it was taken */
};

/* How far a producer has come (PROTOCOL 6.2). Stored with the events that made it so: that is what refuses a
 * repetition after a restart. */
struct bk_log_producer {
    uint8_t key[BB_CLIENT_ID_LEN + 8];
    bool removed;
    uint64_t last;
    uint64_t time;         /* wall clock, us, when it last published */
    struct bb_slice notes; /* the core's: what became of refused numbers; borrowed, usually empty */
};

/* A durable cursor: a named place in channels. */
struct bk_log_cursor {
    struct bb_slice name; /* borrowed */
    bool removed;
    struct bb_slice value; /* the core's; borrowed */
};

/* What each channel, block, producer and cursor of an append counts for in max_ticket, beside its bytes: name
 * and settings, events, notes, name and value. */
#define BK_ENTRY_SIZE ((size_t)128)

/* What is registered under one ticket. */
struct bk_append {
    struct bk_log_channel *channels; /* to be made or changed, before the blocks */
    size_t n_channels;
    struct bk_log_block *blocks;
    size_t n_blocks;
    struct bk_log_producer *producers;
    size_t n_producers;
    struct bk_log_cursor *cursors;
    size_t n_cursors;
};

/* --- requests ------------------------------------------------------------------------------------- */

enum bk_request_kind {
    BK_REQUEST_READ,     /* struct bk_read */
    BK_REQUEST_LOCATE,   /* struct bk_locate */
    BK_REQUEST_QUERY,    /* struct bk_query */
    BK_REQUEST_FLUSH,    /* struct bk_request: done when all registered before is durable, or has failed */
    BK_REQUEST_TRIM,     /* struct bk_trim */
    BK_REQUEST_SNAPSHOT, /* struct bk_upkeep: a copy, while it runs */
    BK_REQUEST_COMPACT,  /* struct bk_upkeep: give free space back to the file system */
    BK_REQUEST_VERIFY,   /* struct bk_upkeep: read and check everything */
};

/* Something that takes time. The caller's; it must stay until done() is called, which happens exactly once,
 * inside dispatch() or close(). */
struct bk_request {
    enum bk_request_kind kind;
    void (*done)(void *context, struct bk_request *request);
    void *context;
    int error; /* out: 0, BB_ENOMEM, BB_ECLOSED (closed first), BB_EUNSUPPORTED, BB_ELOGFAILED, BB_ECORRUPT, ... */
    struct bk_request *next; /* the backend's */
    uint64_t barrier;        /* the backend's */
};

/* One channel of a read. */
struct bk_read_range {
    uint32_t channel;
    uint64_t after;     /* begin after this sequence */
    uint64_t stop;      /* the last sequence wanted, BK_NO_LIMIT for all */
    uint64_t stop_time; /* events after this time are not wanted; BK_NO_LIMIT for all */
    /* Out: of the sequences in (after, reached] the matching ones are in the body, but for those that the
     * losses name. Never beyond stop (but for an `after` that was), nor beyond the newest sequence of the
     * channel. A channel that does not exist is one whose events are all trimmed: with a stop it is reached. */
    uint64_t reached;
    uint64_t first;  /* the oldest sequence kept, last + 1 if none is */
    uint64_t events; /* in the body */
    uint64_t bytes;  /* of them, without heads */
    bool at_end;     /* stop, stop_time, or the end of what is kept was reached */
};

enum bk_loss_reason {
    BK_LOSS_TRIMMED, /* not kept any more: before the oldest, or taken out of the middle by max_per_path */
    BK_LOSS_EXPIRED, /* kept, and their time to live is over */
};

/*
 * What of a range's (after, reached] is not in the body although it may match. The losses of a range come in
 * the order of their sequences and never overlap; two that follow each other have different reasons. None
 * goes beyond `reached`, so none beyond `stop`; none of EXPIRED names an event after stop_time. Events that
 * are in the body may lie between `from` and `to`.
 */
struct bk_read_loss {
    uint32_t range; /* index */
    enum bk_loss_reason reason;
    uint64_t from; /* itself lost */
    uint64_t to;   /* the same */
    /* TRIMMED: sequences of from..to that are not kept, whatever their path. EXPIRED: events that match. */
    uint64_t count;
};

/* The losses of a range in one read; where another would be needed the read ends before it. */
#define BK_LOSSES_MAX 64

/* Read on: blocks in the order of their sessions, ready to be delivered (PROTOCOL 7.4). */
struct bk_read {
    struct bk_request request;
    struct bk_filter *filter; /* which paths; the request holds a reference of the caller's */
    struct bk_read_range *ranges;
    size_t n_ranges;
    size_t max_bytes; /* of the body; exceeded only by a first block that is larger */
    uint64_t now;     /* wall clock, us, for times to live */
    uint64_t
        hint; /* in: 0, or what the read before of the same ranges left; out: the same for the next one */
    struct bk_bytes *body; /* out: yours to let go; NULL if there is nothing */
    uint64_t n_events;     /* out */
    struct bb_buf losses;  /* out: struct bk_read_loss, of a range in order, ranges mixed; yours to free */
};

enum bk_locate_kind {
    BK_LOCATE_TIME, /* the first event at or after `time` */
    BK_LOCATE_ID,   /* behind the newest event whose id is not above `id` */
    BK_LOCATE_LAST, /* the newest event that `filter` matches */
    BK_LOCATE_PATH, /* the newest event of `path` (BK_LOCATE_LAST for one path, by the index of latest events) */
};

struct bk_locate_place {
    uint32_t channel;
    uint64_t
        sequence; /* out: of the event, 0 if there is none; of an id: 0 if none is above it, 1 if none that is
                        * kept is not */
    uint64_t
        last; /* out: the newest sequence of the channel that was looked at: what came later was not seen */
};

/* Where in channels something is. */
struct bk_locate {
    struct bk_request request;
    enum bk_locate_kind kind;
    uint64_t time; /* us */
    struct bk_event_id id;
    struct bk_filter *filter;
    struct bb_slice path;
    struct bk_locate_place *places;
    size_t n_places;
};

/* HAT-F70 to F74. */
struct bk_query {
    struct bk_request request;
    const struct bb_query *query; /* the caller's, until done */
    uint64_t now;                 /* wall clock, us: expired events are not found */
    size_t max_bytes;             /* of the body */
    uint32_t end;          /* channels with ids from here on came after the question: not found; 0: no end */
    struct bk_bytes *body; /* out: blocks, in the order asked for; yours to let go; NULL if there are none */
    uint64_t n_events;     /* out */
    bool more;             /* out: there is more after the last one */
};

/* Remove what is before a sequence. BB_ELOGFULL: there is no room to take in some of it that is durable;
 * the rest of it is gone. */
struct bk_trim {
    struct bk_request request;
    uint32_t channel;
    uint64_t before;
    uint64_t first; /* out: the oldest sequence kept now */
};

struct bk_upkeep {
    struct bk_request request;
    struct bb_slice name; /* SNAPSHOT: of the copy, a file name without a slash */
    struct bb_buf report; /* out: one MessagePack map for a person; yours to free */
};

/* --- the backend ---------------------------------------------------------------------------------- */

enum bk_backend_state {
    BK_BACKEND_OK,
    BK_BACKEND_FULL, /* register_() of events is refused with BB_ELOGFULL; everything else works */
    BK_BACKEND_FAILED, /* register_() is refused with BB_ELOGFAILED until it has been opened again and re-read */
};

/* What the backend tells, inside dispatch() and close() only; registered() inside register_(), state()
 * there too. */
struct bk_backend_listener {
    void *context;
    /* Taken in order; not durable yet (HAT-F21, registered events). */
    void (*registered)(void *context, uint64_t ticket);
    /* All tickets up to this one are durable, or (@error not 0) this one and every later one that was
     * registered has failed and has left no trace. */
    void (*flushed)(void *context, uint64_t ticket, int error);
    /* Events of @channel before @first are gone: retention, or BK_REQUEST_TRIM; not what did not fit into the store. */
    void (*trimmed)(void *context, uint32_t channel, uint64_t first);
    /*
     * @text: why, for a person. register_() that refuses events with BB_ELOGFULL or BB_ELOGFAILED has told
     * FULL or FAILED before it returns, if that was not the state already; whatever the reason, it refuses
     * all events until it has told OK. So what is taken in is registered first and acknowledged then, and
     * after FULL nothing is taken in.
     */
    void (*state)(void *context, enum bk_backend_state state, const char *text);
};

/* Told once what is there. Slices are valid during the call. A return other than 0 ends load() with it. */
struct bk_backend_loader {
    void *context;
    int (*channel)(void *context, const struct bk_log_channel *channel);
    int (*producer)(void *context, const struct bk_log_producer *producer);
    int (*cursor)(void *context, const struct bk_log_cursor *cursor);
};

struct bk_backend;

struct bk_backend_ops {
    /* Tell what is stored; once, before anything else. Return: 0, BB_ENOMEM, BB_ECORRUPT, BB_ESYSTEM, or
     * the loader's. */
    int (*load)(struct bk_backend *backend, const struct bk_backend_loader *loader);
    /*
     * Take events that are numbered already. @append and what it points to are borrowed for the call; owners
     * of blocks are referenced if need be. @ticket: above all earlier ones.
     *
     * A block is refused, alone and with a reason in its `error`, when its id is not above the last one of
     * its server (BB_EEXISTS), its time is before the last one's (BB_ETIME), its sequence is not the next of
     * its channel (BB_ESEQUENCE; a channel without events takes any) or its channel was never appended, or
     * removed (BB_ENOTFOUND): it is not stored and no notification speaks of it (HAT-W5).
     *
     * Return: 0, then registered() has been called and flushed() follows; BB_ELOGFULL, BB_ELOGFAILED,
     * BB_ENOMEM, BB_EFULL (too much waits to be written), BB_ETOOBIG (for what the backend writes at once):
     * then nothing was taken.
     */
    int (*register_)(struct bk_backend *backend, struct bk_append *append, uint64_t ticket);
    /* The newest id registered of @server and its time; all are 0 if there is none (HAT-F22). */
    void (*get_last_event_id)(struct bk_backend *backend,
                              uint64_t server,
                              struct bk_event_id *ret_id,
                              uint64_t *ret_time);
    /* Begin a request. */
    void (*submit)(struct bk_backend *backend, struct bk_request *request);
    /* Readable when dispatch() has something to tell; -1: never. */
    int (*fd)(struct bk_backend *backend);
    /* Tell what has happened. Returns without waiting. */
    void (*dispatch)(struct bk_backend *backend);
    /* Numbers for status: append one MessagePack map. */
    void (*status)(struct bk_backend *backend, struct bb_buf *out);
    /* Make what was registered durable, end all requests, free. Waits for the disk. */
    void (*close)(struct bk_backend *backend);
};

struct bk_backend {
    const struct bk_backend_ops *ops;
    bool is_durable; /* flushed() means on disk */
    /* An append of so many bytes, counted as BK_ENTRY_SIZE says, fits as long as there is room for events: it
     * is never BB_ETOOBIG, and not BB_EFULL when nothing waits. SIZE_MAX: no limit. */
    size_t max_ticket;
};

/* --- opening -------------------------------------------------------------------------------------- */

enum bk_option_kind {
    BK_OPTION_SIZE, /* bytes, with K, M, G, T */
    BK_OPTION_NUMBER,
    BK_OPTION_DURATION, /* us, written as 250ms, 2s, 1h */
    BK_OPTION_FLAG,     /* yes, no: 1, 0 */
    BK_OPTION_TEXT,
};

/* The schema of a backend's configuration: one row an option. */
struct bk_backend_option {
    const char *name; /* NULL ends the table */
    enum bk_option_kind kind;
    uint64_t min;
    uint64_t max;
    uint64_t number;  /* the default */
    const char *text; /* the default of BK_OPTION_TEXT */
    const char *help;
};

/* The values, in the order of the options. */
struct bk_backend_value {
    uint64_t number;
    const char *text;
};

struct bk_backend_env {
    const char *
        directory; /* where it may write, made by who opens it; NULL for a backend that keeps nothing on disk */
    uint64_t server; /* this broker's number */
    /* What max_ticket must be at least, since the largest batch is not divided; BB_EINVAL and a sentence when
     * the options do not let it. 0: anything will do. */
    size_t min_ticket;
    const struct bk_backend_value *values;
    const struct bk_backend_listener *listener; /* borrowed for the backend's life */
    struct bk_meter *meter;                     /* what bodies are charged to */
    /*
     * There is something to tell. From a thread of the backend, outside any call and without a lock. Return:
     * whether dispatch() has been called; else fd() is to become readable. NULL: nothing can be offered.
     */
    bool (*offer)(void *context);
    void *offer_context;
    /* A log entry, inside any call of the owner's thread: a stable id, then one sentence. */
    void (*log)(void *context, int level, const char *id, const char *text);
    void *log_context;
    /* Wall clock in us, for what is kept by age. Called on any thread. NULL: the system's. With one given
     * nobody wakes the owner when time has passed: dispatch() looks at this clock, so it is called when the
     * clock has moved. */
    uint64_t (*now)(void *context);
    void *now_context;
};

struct bk_backend_driver {
    uint32_t abi; /* BK_BACKEND_ABI */
    const char *name;
    bool needs_directory;
    const struct bk_backend_option *options;
    /* Return: 0; BB_EVERSION (written by another version: @err says which), BB_ECORRUPT, BB_EEXISTS (another
     * broker has it open), BB_EINVAL, BB_ESYSTEM, BB_ENOMEM; @err gets a sentence. */
    int (*open)(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err);
};

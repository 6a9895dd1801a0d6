/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libbusbar: publish to and subscribe from a busbar broker.
 *
 * A *bus* is a handle on one broker. It connects by itself, and again whenever the connection breaks: then it
 * repeats what the broker had not acknowledged and resumes every subscription after the last event it saw.
 * Publishing packs events into batches without timers: a lone event leaves at once, a flood leaves in full
 * batches.
 *
 * Threads. A bus has an I/O thread of its own, on which all callbacks run, one at a time and without a lock
 * held; or it is *embedded* and lives in the caller's loop (bb_bus_fd(), bb_bus_timeout(), bb_bus_step()),
 * where callbacks run inside bb_bus_step() and inside calls that wait. Every call may be made from any
 * thread, also from callbacks, unless it says otherwise. A call that would have to wait inside a callback
 * returns BB_EDEADLOCK.
 *
 * Callbacks must not block. While one runs nothing else of the bus does: no event, no acknowledgement, no
 * life sign. One that takes longer than three heartbeats makes the broker take the client for dead. Then,
 * when it returns, the bus reconnects, repeats and resumes as after any interruption: what the broker no
 * longer has comes as a gap. Two things are worse than otherwise: subscriptions did not count as live
 * meanwhile, and those that the broker had not answered yet begin where it answers them.
 *
 * Fork. A child must not touch a bus of its parent, except for bb_bus_close(), which then frees nothing.
 *
 * Errors. Functions return 0, or a number above it where they say so, or a negative BB_E...; bb_strerror()
 * has the sentence and bb_bus_last_error() the particulars. Output parameters (ret_...) come last and are
 * untouched on failure.
 *
 * Times called timeout_ms are milliseconds, -1 for no limit, 0 for not waiting at all.
 *
 * Structs with a `size` must be initialised with their ..._INIT, so that they can grow.
 */
#ifndef BUSBAR_H
#define BUSBAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The errors (BB_E..., bb_strerror(), bb_errcode()) and the levels (BB_LEVEL_...). */
#include "proto/base/error.h"
#include "proto/base/level.h"

typedef struct bb_bus bb_bus;
typedef struct bb_subscription bb_subscription;

/* A number that cannot be known. */
#define BB_UNKNOWN UINT64_MAX

/* --- the bus ------------------------------------------------------------------------------------ */

enum bb_bus_state {
    BB_STATE_CONNECTING, /* no answer from the broker yet */
    BB_STATE_READY,
    BB_STATE_WAITING, /* a pause before the next attempt */
    BB_STATE_CLOSED,  /* for good: closed, or the broker will never take this client */
};

/* What bb_publish() does when queue_bytes are not acknowledged yet. */
enum bb_when_full {
    BB_FULL_BLOCK,    /* wait; in a callback BB_EDEADLOCK; in an embedded bus run its steps meanwhile */
    BB_FULL_REFUSE,   /* BB_EFULL */
    BB_FULL_DROP_NEW, /* drop this event: returns 0 and counts */
    BB_FULL_DROP_OLD, /* drop the oldest batch that was never sent, else this event: returns 0 and counts */
};

/**
 * bb_state_fn - told of each change of state
 * @error: why, 0 for none
 * @text:  the same for a person; valid during the call
 * @arg:   from struct bb_options
 */
typedef void bb_state_fn(bb_bus *bus, enum bb_bus_state state, int error, const char *text, void *arg);

struct bb_options {
    size_t size;
    const char
        *url; /* broker, or several separated by commas, tried in turn; NULL: $BUSBAR_URL, or the local one */
    const char *name;          /* shown by the broker, up to 64 bytes of UTF-8; NULL for none */
    uint32_t heartbeat_ms;     /* life signs; default 10,000; 0 for none */
    uint32_t reconnect_min_ms; /* first pause before a new attempt; default 100 */
    uint32_t reconnect_max_ms; /* longest pause; default 5,000 */
    size_t batch_bytes;        /* a batch is full here; default 64 KiB */
    size_t queue_bytes;        /* bound of what is published and not acknowledged; default 16 MiB */
    enum bb_when_full when_full;
    bool embedded;  /* no I/O thread; the caller's loop runs the bus */
    bool unbatched; /* every event its own message, for measuring */
    bb_state_fn *on_state;
    void *arg;         /* of on_state */
    char *error_text;  /* bb_bus_open() writes here in a sentence why it failed; NULL for not wanted */
    size_t error_size; /* bytes there */
};

#define BB_OPTIONS_INIT                                                                                 \
    {                                                                                                   \
        sizeof(struct bb_options), NULL, NULL, 10000, 100, 5000, 65536, 16777216, BB_FULL_BLOCK, false, \
            false, NULL, NULL, NULL, 0                                                                  \
    }

/**
 * bb_bus_open() - make a bus; connecting starts and goes on by itself
 * @options: copied; NULL for the defaults
 * @ret_bus: to be closed with bb_bus_close()
 *
 * A url is tcp://HOST:PORT or ipc://PATH. The addresses of a HOST that is a name are tried in turn. Events
 * may be published at once; they leave when the broker is there.
 *
 * Return: 0; BB_EINVAL for options that cannot be, such as a malformed url; BB_ENOMEM, BB_ESYSTEM. There is
 * no bus to ask for the particulars then: they are in @options->error_text.
 */
BB_API int bb_bus_open(const struct bb_options *options, bb_bus **ret_bus);

/**
 * bb_bus_close() - say goodbye and free the bus and its subscriptions; NULL is ignored
 *
 * Sends what was published if that takes less than a second; bb_bus_flush() first to be sure. When it
 * returns, every on_ack was called and no callback runs any more.
 *
 * Calls of other threads that wait return BB_ECLOSED first. No other call may be under way, and none may
 * begin: a thread has to stop at BB_ECLOSED, and one that was not waiting has to be told by the application.
 *
 * Return: 0; BB_EDEADLOCK from a callback, where it does nothing.
 */
BB_API int bb_bus_close(bb_bus *bus);

/**
 * bb_bus_wait_ready() - wait for the connection
 *
 * Return: 0; BB_ECONNECT when the time is over first; BB_EVERSION and the like when it will never be ready;
 * BB_EDEADLOCK.
 */
BB_API int bb_bus_wait_ready(bb_bus *bus, int timeout_ms);

/**
 * bb_bus_flush() - wait until everything published before is acknowledged and its on_ack have returned
 *
 * So what they counted can be judged afterwards; all they wrote is visible. A flush under way does not wait
 * for what is published after it began. What a broker that shuts down does not take any more is not refused:
 * it waits for the next one.
 *
 * Return: 0; the first refusal since the last flush, if any event was refused; BB_ETIMEOUT; BB_ECLOSED;
 * BB_EDEADLOCK.
 */
BB_API int bb_bus_flush(bb_bus *bus, int timeout_ms);

/**
 * bb_bus_drain() - flush, end all subscriptions, and have what came for them delivered
 *
 * When it returns 0, all callbacks have returned that it caused. Subscriptions stay readable with
 * bb_receive() until what came is read, then it returns BB_ECLOSED. They are still to be freed by
 * bb_unsubscribe() or bb_bus_close().
 *
 * Return: as bb_bus_flush(); a subscription that the broker did not answer in time is ended all the same.
 */
BB_API int bb_bus_drain(bb_bus *bus, int timeout_ms);

/** bb_bus_state() - the state now. */
BB_API enum bb_bus_state bb_bus_state(bb_bus *bus);

/** bb_bus_last_error() - copy the sentence about the last error to @to, cut to @size bytes; returns @to. */
BB_API const char *bb_bus_last_error(bb_bus *bus, char *to, size_t size);

struct bb_bus_info {
    uint64_t server;        /* number of the broker in event ids */
    uint64_t run;           /* differs for each start of the broker */
    uint64_t client_number; /* the `source` of what this bus publishes */
    uint64_t max_message;   /* bytes */
    uint64_t heartbeat_ms;  /* in force */
    uint64_t connects;      /* times that the bus became ready */
    uint64_t repeated;      /* batches that were sent again */
    uint64_t refused;       /* events that the broker refused */
    uint64_t dropped;       /* events that BB_FULL_DROP_... dropped */
    uint64_t unacked_bytes; /* published, not acknowledged */
};

/** bb_bus_get_info() - numbers of the bus; those of the broker are 0 before it first was ready. */
BB_API void bb_bus_get_info(bb_bus *bus, struct bb_bus_info *ret_info);

/* --- inside the caller's loop ------------------------------------------------------------------------ */

/**
 * bb_bus_fd() - a descriptor that is readable (level-triggered) when bb_bus_step() has something to do
 *
 * Belongs to the bus: only poll it, for reading. Timers of the bus make it readable as well, so a loop that
 * cannot do timeouts may leave bb_bus_timeout() out. BB_ESTATE without `embedded`.
 */
BB_API int bb_bus_fd(bb_bus *bus);

/** bb_bus_timeout() - milliseconds until bb_bus_step() is due though nothing is readable; -1: never. */
BB_API int bb_bus_timeout(bb_bus *bus);

/**
 * bb_bus_step() - do what is to be done, run callbacks, never wait
 *
 * Does a bounded amount of work; the descriptor stays readable when more is left. From one thread at a time.
 *
 * Return: 0, BB_EDEADLOCK (from a callback), BB_ESTATE without `embedded`, BB_ECLOSED when the state is.
 */
BB_API int bb_bus_step(bb_bus *bus);

/* --- publishing --------------------------------------------------------------------------------- */

enum bb_payload_kind {
    BB_PAYLOAD_NIL,
    BB_PAYLOAD_TEXT, /* UTF-8 */
    BB_PAYLOAD_BINARY,
    BB_PAYLOAD_JSON,    /* the text of one JSON value, sent as MessagePack; never in received events */
    BB_PAYLOAD_MSGPACK, /* one MessagePack value; in received events any that is none of the first three */
};

/**
 * bb_publish() - publish one event
 * @path: zero-terminated
 * @kind: what @data is
 * @data: copied; may be NULL when @len is 0
 *
 * Returns when the event is in the open batch; see bb_bus_flush() for what became of it. The order of the
 * calls of a thread is the order of its events.
 *
 * Return: 0, BB_EPATH, BB_EUTF8, BB_EMALFORMED, BB_ETOODEEP, BB_ETOOBIG (larger than a message of the broker
 * may be), BB_EFULL, BB_ENOMEM, BB_ECLOSED, BB_EDEADLOCK.
 */
BB_API int bb_publish(bb_bus *bus, const char *path, enum bb_payload_kind kind, const void *data, size_t len);

/* A header: both are UTF-8. */
struct bb_header {
    const char *name;
    size_t name_len;
    const char *value;
    size_t value_len;
};

/** bb_header() - a header of zero-terminated texts, which are borrowed. */
static inline struct bb_header bb_header(const char *name, const char *value)
{
    struct bb_header header = {name, strlen(name), value, strlen(value)};
    return header;
}

enum bb_id_kind {
    BB_ID_NONE,
    BB_ID_INT,  /* `integer` */
    BB_ID_UINT, /* `integer` as uint64_t, for those above INT64_MAX */
    BB_ID_TEXT, /* `text`, `len` */
};

/* A publisher's own id of an event. */
struct bb_id {
    enum bb_id_kind kind;
    int64_t integer;
    const char *text; /* up to 64 bytes, not zero-terminated in received events */
    size_t len;
};

/* What became of one event. */
struct bb_ack {
    uint64_t ticket;     /* from bb_publish_event() */
    int error;           /* 0: taken; else why it was refused, and what follows means nothing */
    enum bb_level level; /* reached; BB_LEVEL_SYNCED: it is on disk and outlives the broker */
    /* Live subscriptions that matched, at least; BB_UNKNOWN below BB_LEVEL_ROUTED and if repeated. */
    uint64_t matches;
    uint64_t sequence; /* in its channel; BB_UNKNOWN if repeated */
    bool repeated;     /* the broker had taken it before a connection broke */
};

/** bb_ack_fn - told what became of an event; on the I/O thread; @ack is valid during the call. */
typedef void bb_ack_fn(bb_bus *bus, const struct bb_ack *ack, void *arg);

/* What must hold for an event to be taken: compare and append. */
enum bb_expect {
    BB_EXPECT_NONE,
    BB_EXPECT_CHANNEL, /* the newest sequence of the event's channel is expect_sequence; 0: it has none */
    BB_EXPECT_PATH,    /* the newest sequence of the event's path is expect_sequence; 0: there is none */
};

/* An event to be published, with everything that can be said of it. All is borrowed during the call. */
struct bb_draft {
    size_t size;
    const char *path;
    enum bb_payload_kind kind;
    const void *data;
    size_t len;
    struct bb_id id;
    int32_t priority; /* lower is more urgent */
    bool has_source_time;
    int64_t source_time_us;          /* microseconds since 1970-01-01 UTC */
    const struct bb_header *headers; /* up to 64 */
    size_t n_headers;
    const char *payload_type; /* up to 128 bytes; NULL for none */
    /*
     * BB_LEVEL_NONE: what the channel is set to, on disk for a channel that is kept in a log and not lazy;
     * _ACCEPTED: in the broker's memory; _ROUTED: `matches` is known; _SYNCED: on disk, which a channel that
     * has no log refuses with BB_EUNSUPPORTED. The acknowledgement says what was reached.
     */
    enum bb_level level;
    bb_ack_fn *on_ack; /* called exactly once if the call returns 0; NULL for none */
    void *arg;         /* of on_ack */
    uint64_t ttl_ms;   /* time to live: it is not given to anyone afterwards; 0 for no limit */
    /* Other than _NONE: the event is a batch of its own, refused with BB_ECONFLICT if it does not hold. */
    enum bb_expect expect;
    uint64_t expect_sequence;
};

#define BB_DRAFT_INIT                                                                                      \
    {                                                                                                      \
        sizeof(struct bb_draft), "", BB_PAYLOAD_NIL, NULL, 0, {BB_ID_NONE, 0, NULL, 0}, 0, false, 0, NULL, \
            0, NULL, BB_LEVEL_NONE, NULL, NULL, 0, BB_EXPECT_NONE, 0                                       \
    }

/**
 * bb_publish_event() - publish an event with attributes
 * @ret_ticket: a number that no other event of this bus has; may be NULL
 *
 * Return: as bb_publish(), and BB_EEVENT for attributes beyond their limits. An event with `on_ack` is never
 * dropped without it being called: with BB_EFULL; at close with BB_ECLOSED (it was never sent), BB_ESHUTDOWN
 * (the broker ended and gave it back, and no other took it) or BB_EUNKNOWNRESULT.
 */
BB_API int bb_publish_event(bb_bus *bus, const struct bb_draft *draft, uint64_t *ret_ticket);

/**
 * bb_publish_wait() - publish an event and wait for its acknowledgement
 * @draft:   its on_ack and arg are not used
 * @ret_ack: what became of it; may be NULL
 *
 * The on_ack of events published before have returned as well, unless the time is over first.
 *
 * Return: 0 when it was taken, the reason of the refusal, BB_ETIMEOUT (it may still be taken, unless there
 * was no room for it in the queue all the time), BB_EDEADLOCK, or as bb_publish_event().
 */
BB_API int bb_publish_wait(bb_bus *bus, const struct bb_draft *draft, int timeout_ms, struct bb_ack *ret_ack);

/* --- received events ----------------------------------------------------------------------------- */

/* A statement that events are lost to the subscription. */
struct bb_gap {
    const char *channel; /* zero-terminated */
    uint64_t from;       /* first and last sequence concerned, both included */
    uint64_t to;         /* BB_UNKNOWN of a restart */
    uint64_t count;      /* matching events among them; BB_UNKNOWN if it cannot be known */
    /*
     * Zero-terminated: overflow, dropped_oldest, dropped_newest, conflated, trimmed, expired, transport;
     * restart: the channel was removed, or the broker lost its memory, and the subscription begins at the
     * channel's beginning; retracted: events that were given to the caller do not exist any more (of an early
     * view, they never reached the disk; or an older copy of the log was restored), and their sequences will
     * be given to other events.
     */
    const char *reason;
};

/*
 * An event, a gap, or a mark. Everything it points to is borrowed, for as long as the function that gave it
 * says.
 */
struct bb_event {
    const struct bb_gap *gap; /* not NULL: a gap, and nothing else is set */
    const char *path;         /* not zero-terminated */
    size_t path_len;
    enum bb_payload_kind kind;
    bool is_retained; /* the newest event of its path when the subscription began, see `retained` there */
    /* Nothing else is set: all retained values were given. Only for subscriptions that asked for them. */
    bool is_retained_end;
    const void *data; /* BB_PAYLOAD_TEXT, _BINARY: the bytes; _MSGPACK: the same as payload */
    size_t len;
    const void *payload; /* the payload as one MessagePack value */
    size_t payload_len;
    const void *attributes; /* a MessagePack map, NULL for none; see bb_event_get_attributes() */
    size_t attributes_len;
    uint64_t server;   /* server, session and instance are the id of the event */
    uint64_t session;  /* events published in one batch share it */
    uint64_t instance; /* counts from 1 within the session */
    uint64_t sequence; /* counts from 1 within the channel, the first segment of the path */
    uint64_t time_us;  /* when the broker took it, microseconds since 1970-01-01 UTC */
    uint64_t source;   /* number of the client that published; 0 for an ingest window */
};

/* What the publisher said beside path and payload. Borrowed as the event is. */
struct bb_event_attributes {
    struct bb_id id;
    int32_t priority;
    bool has_source_time;
    int64_t source_time_us;
    const char *payload_type; /* not zero-terminated; NULL for none */
    size_t payload_type_len;
    const void *headers; /* for bb_event_next_header() */
    size_t headers_len;
    uint64_t ttl_ms; /* 0 for no limit */
};

/**
 * bb_event_get_attributes() - read the attributes of @event. Return: 0, BB_EINVAL for a gap or mark,
 * BB_EEVENT.
 */
BB_API int bb_event_get_attributes(const struct bb_event *event, struct bb_event_attributes *ret_attributes);

/**
 * bb_event_next_header() - iterate over the headers: start with *@at = 0 and call until it returns false
 * @ret_header: texts are not zero-terminated; borrowed as the event is
 */
BB_API bool
bb_event_next_header(const struct bb_event_attributes *attributes, size_t *at, struct bb_header *ret_header);

/**
 * bb_event_json() - the event object (PROTOCOL 10.1), {"gap":{channel,from,to,count,reason}} or
 * {"retained_end":true} on one line
 * @ret_len: bytes without the terminating zero; may be NULL
 *
 * Return: text for the caller to free(); NULL when out of memory.
 */
BB_API char *bb_event_json(const struct bb_event *event, size_t *ret_len);

/** bb_payload_json() - the payload alone as JSON on one line; "null" for a gap; else like bb_event_json(). */
BB_API char *bb_payload_json(const struct bb_event *event, size_t *ret_len);

/* --- subscribing -------------------------------------------------------------------------------- */

enum bb_from {
    BB_FROM_NEW,      /* with the next event */
    BB_FROM_LAST,     /* with the newest matching event of each channel */
    BB_FROM_SEQUENCE, /* from_value: with this sequence of each channel; a gap if it is not there any more */
    BB_FROM_TIME,     /* from_value: microseconds since 1970-01-01 UTC */
    BB_FROM_ID,       /* after the event from_id */
    BB_FROM_OLDEST,   /* with the oldest event there is of each channel: everything, without a gap */
};

/* Where a subscription ends by itself. */
enum bb_until {
    BB_UNTIL_NONE,
    BB_UNTIL_NOW,      /* with what there is when the broker answers for the first time */
    BB_UNTIL_SEQUENCE, /* until_value: with this sequence of each channel */
    BB_UNTIL_TIME, /* until_value: with the last event that is not after it, microseconds since 1970 UTC */
};

/* Which events of a channel that is kept on disk are seen. */
enum bb_view {
    BB_VIEW_DEFAULT, /* what the channel is set to */
    BB_VIEW_DURABLE, /* what is on disk */
    BB_VIEW_EARLY,   /* at once; what never reaches the disk comes as a gap with the reason retracted */
};

/* The id that the broker gave to an event. */
struct bb_event_id {
    uint64_t server;
    uint64_t session;
    uint64_t instance;
};

/* What the broker does when more than the budget waits for this subscription (PROTOCOL 7.3). */
enum bb_overflow {
    BB_OVERFLOW_DEFAULT, /* what the channels are set to; slide if nothing was */
    BB_OVERFLOW_SLIDE,   /* fall behind; lose only what the broker no longer has */
    BB_OVERFLOW_DROP_OLDEST,
    BB_OVERFLOW_DROP_NEWEST,
    BB_OVERFLOW_CONFLATE, /* keep the newest of each path */
    BB_OVERFLOW_REFUSE,   /* refuse what publishers send */
    BB_OVERFLOW_DISCONNECT,
};

/**
 * bb_events_fn - given what came, on the I/O thread
 * @events: events and gaps in their order; borrowed during the call
 * @n:      at least 1, at most 256
 *
 * More is asked of the broker only as these calls return: a slow callback slows this subscription down, and
 * with it the other callbacks of the bus, but nobody else.
 */
typedef void bb_events_fn(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg);

/**
 * bb_ended_fn - told that the broker refused or ended the subscription; nothing comes after it
 * @error: why; 0: it came to its `until`
 */
typedef void bb_ended_fn(bb_subscription *sub, int error, const char *text, void *arg);

struct bb_subscribe_options {
    size_t size;
    const char *const *patterns; /* one or more; an event that several match comes once */
    size_t n_patterns;
    enum bb_from from;
    uint64_t from_value;
    size_t window_bytes;    /* what may be on its way and unread here; default 4 MiB */
    uint64_t window_events; /* the same in events; default 262,144 */
    enum bb_overflow overflow;
    uint64_t budget;         /* bytes that may wait in the broker; 0: its default */
    bb_events_fn *on_events; /* NULL: use bb_receive() */
    bb_ended_fn *on_ended;   /* NULL for none */
    void *arg;               /* of both */
    struct bb_event_id from_id;
    enum bb_until until;
    uint64_t until_value;
    enum bb_view view;
    /*
     * First the newest event of each matching path (is_retained), then a mark (is_retained_end), then what
     * came after them, without a hole. Goes with BB_FROM_NEW. A connection that breaks before the mark begins
     * again with all of them.
     */
    bool retained;
    /*
     * Name of a cursor that the broker keeps, 1 to 64 bytes of UTF-8; NULL for none. If the broker knows it,
     * the subscription goes on there instead of at `from`, and channels that it does not name, which are new,
     * begin at their beginning. If not, the broker makes it where the subscription begins (BB_ELIMIT: it has
     * no room). It is saved by itself, at most a second or a MiB behind what the callback has returned from
     * (or bb_receive() has been called again after), and at the end of subscription and bus, but not before
     * something was worked off. So after a crash, however early, events and gaps can come again, none is left
     * out.
     */
    const char *durable;
};

#define BB_SUBSCRIBE_OPTIONS_INIT                                                                           \
    {                                                                                                       \
        sizeof(struct bb_subscribe_options), NULL, 0, BB_FROM_NEW, 0, 4194304, 262144, BB_OVERFLOW_DEFAULT, \
            0, NULL, NULL, NULL, {0, 0, 0}, BB_UNTIL_NONE, 0, BB_VIEW_DEFAULT, false, NULL                  \
    }

/**
 * bb_subscribe() - subscribe, and wait for the broker's answer
 * @options:    copied
 * @timeout_ms: 0: do not wait; a refusal is told to on_ended and by bb_receive(). The only value for
 *              callbacks.
 * @ret_sub:    to be given to bb_unsubscribe(); bb_bus_close() ends it as well
 *
 * Reconnections are hidden: the subscription resumes where it was, and what the broker no longer has is a
 * gap. Callbacks may come before this returns; if one of them ends the subscription, this returns 0 and NULL.
 *
 * Return: 0, BB_EPATTERN, BB_EINVAL, BB_ELIMIT and other refusals, BB_ETIMEOUT, BB_ENOMEM, BB_ECLOSED,
 * BB_EDEADLOCK.
 */
BB_API int bb_subscribe(bb_bus *bus,
                        const struct bb_subscribe_options *options,
                        int timeout_ms,
                        bb_subscription **ret_sub);

/**
 * bb_unsubscribe() - end and free the subscription
 * @timeout_ms: how long to wait for the broker's answer; the subscription is freed whatever comes. A callback
 *              of it that is running is waited for as long as it takes.
 *
 * Not while another thread is in bb_receive() with it. In its own
 * callback it waits for nothing: the subscription is freed when the callback has returned, no further one
 * comes, and @sub must not be used again. The cursor of a durable one is saved first.
 *
 * Return: 0, or why the answer did not come (BB_ETIMEOUT, BB_EUNKNOWNRESULT).
 */
BB_API int bb_unsubscribe(bb_subscription *sub, int timeout_ms);

/**
 * bb_receive() - take events of a subscription without on_events
 * @events: filled with up to @max events and gaps, borrowed until the next bb_receive() on @sub
 *
 * Waits until there is something, then takes all that is there. One thread at a time for each subscription.
 *
 * Return: how many (> 0), BB_ETIMEOUT (also with @timeout_ms 0 when there is nothing), the reason why the
 * broker ended it, BB_ECLOSED after bb_bus_drain() and after the last event of one with `until`, BB_ESTATE
 * (has on_events), BB_EDEADLOCK.
 */
BB_API int bb_receive(bb_subscription *sub, struct bb_event *events, size_t max, int timeout_ms);

struct bb_position {
    const char *channel; /* zero-terminated */
    uint64_t sequence;   /* of the last event that is before the subscription, or was given to the caller */
};

/**
 * bb_subscription_start() - where the subscription began: the positions that the broker answered first
 * @ret_positions: one block for the caller to free(), also when there are none
 *
 * Channels that are not named began at 0. Return: 0, BB_EAGAIN before the answer, BB_ENOMEM.
 */
BB_API int bb_subscription_start(bb_subscription *sub, struct bb_position **ret_positions, size_t *ret_n);

/** bb_subscription_positions() - where it is: the last sequences received; like bb_subscription_start(). */
BB_API int bb_subscription_positions(bb_subscription *sub, struct bb_position **ret_positions, size_t *ret_n);

/**
 * bb_subscription_save() - save the cursor of a durable subscription now
 * @timeout_ms: 0: send it and do not wait, the only value for callbacks
 *
 * Counts what callbacks have returned from. Without on_events it must be called by the thread that calls
 * bb_receive(), and counts what was received. As long as that is nothing the cursor is where the broker has it:
 * nothing is sent.
 *
 * Return: 0 when the broker has it, on disk if it keeps a log; BB_ESTATE (not durable), BB_EAGAIN (the broker
 * has not answered the subscription yet), otherwise as bb_request_status().
 */
BB_API int bb_subscription_save(bb_subscription *sub, int timeout_ms);

/**
 * bb_cursor_forget() - have the broker forget the cursor @name
 *
 * Return: 0, also if it does not know it; otherwise as bb_request_status().
 */
BB_API int bb_cursor_forget(bb_bus *bus, const char *name, int timeout_ms);

struct bb_subscription_counts {
    uint64_t events; /* received, retained ones included */
    uint64_t bytes;  /* of blocks */
    uint64_t gaps;   /* received or found */
    uint64_t lost;   /* events in those gaps whose number is known */
};

/** bb_subscription_get_counts() - what came so far. */
BB_API void bb_subscription_get_counts(bb_subscription *sub, struct bb_subscription_counts *ret_counts);

/** bb_subscription_bus() - the bus it belongs to. */
BB_API bb_bus *bb_subscription_bus(bb_subscription *sub);

/* --- requests ----------------------------------------------------------------------------------- */

/**
 * bb_request_status() - the state and the counters of the broker
 * @ret_json: one JSON object; the caller frees it with free()
 *
 * Return: 0, BB_ECONNECT (there was no connection in time), BB_ETIMEOUT, BB_EUNKNOWNRESULT (the connection
 * broke), the refusal, BB_ENOMEM, BB_EDEADLOCK.
 */
BB_API int bb_request_status(bb_bus *bus, int timeout_ms, char **ret_json);

/**
 * bb_request_matches() - how many live subscriptions match @path
 * @min: wait until there are so many
 *
 * Return: 0, BB_ETIMEOUT when there were fewer than @min all the time, otherwise as bb_request_status().
 */
BB_API int
bb_request_matches(bb_bus *bus, const char *path, uint64_t min, int timeout_ms, uint64_t *ret_matches);

/* --- queries ------------------------------------------------------------------------------------- */

enum bb_result {
    BB_RESULT_TIMESERIES, /* by time */
    BB_RESULT_LATEST,     /* the newest event of each path, in the order of the paths */
    BB_RESULT_SERVER,     /* events in the order of their ids */
};

/* Which events are asked for; all that is set must hold. Times: microseconds since 1970 UTC, inclusive. */
struct bb_query_options {
    size_t size;
    enum bb_result result;
    const char *const *patterns; /* NULL: every path */
    size_t n_patterns;
    bool ascending;      /* the oldest first, instead of the newest */
    bool by_source_time; /* in the order of source times; only events that have one */
    bool unique;         /* of each path only the first, in the order asked for */
    bool has_from;
    bool has_to;
    bool has_source_from;
    bool has_source_to;
    bool has_server;
    bool has_session;
    bool has_after;
    int64_t from_us;
    int64_t to_us;
    int64_t source_from_us;
    int64_t source_to_us;
    uint64_t server;
    uint64_t session;
    const struct bb_event_id *ids; /* one of these, up to 1024; NULL: any */
    size_t n_ids;
    const char *payload_json; /* the payload is this; NULL: any */
    const char *where;        /* a condition on the payload such as `.temp > 80`, see busbar(1); NULL: any */
    struct bb_event_id
        after;    /* go on behind this event of an earlier result of the same query; not for the latest */
    uint64_t max; /* events; 0: all */
    int64_t after_source_us; /* the source time of `after`; counts with by_source_time only */
    const char *after_path;  /* BB_RESULT_LATEST: go on behind this path; NULL: with the first one */
};

#define BB_QUERY_OPTIONS_INIT                                                                               \
    {                                                                                                       \
        sizeof(struct bb_query_options), BB_RESULT_TIMESERIES, NULL, 0, false, false, false, false, false,  \
            false, false, false, false, false, 0, 0, 0, 0, 0, 0, NULL, 0, NULL, NULL, {0, 0, 0}, 0, 0, NULL \
    }

/**
 * bb_found_fn - given events that were found, in the order asked for, on the thread that asks
 * @events: borrowed during the call; never gaps
 *
 * No lock is held: any call may be made. Return: 0 to go on, any other value to stop.
 */
typedef int bb_found_fn(const struct bb_event *events, size_t n, void *arg);

/**
 * bb_query() - ask for stored events, page after page
 * @timeout_ms: for each page
 * @on_found:   called as often as need be
 *
 * Return: 0 when all were given; 1 when there are more (the maximum was reached, or on_found stopped);
 * BB_EINVAL, BB_EPATTERN, and BB_EMALFORMED and the like for JSON that is none; otherwise as
 * bb_request_status(), so BB_EDEADLOCK at once from a callback. What was given before an error counts.
 *
 * All pages are of one start of one broker. BB_EUNKNOWNRESULT between two pages says that the connection
 * broke and led to another: what is kept in memory alone is not there any more, or the log is another one.
 * Whoever knows that it is all in the log of one broker may go on with `after`.
 */
BB_API int bb_query(bb_bus *bus,
                    const struct bb_query_options *options,
                    int timeout_ms,
                    bb_found_fn *on_found,
                    void *arg);

/* --- channels and the log ------------------------------------------------------------------------- */

enum bb_store {
    BB_STORE_KEEP,    /* as it is; for a new channel the broker's default */
    BB_STORE_DEFAULT, /* the broker's default */
    BB_STORE_LOG,     /* on disk; needs a broker with a log */
    BB_STORE_MEMORY,
};

enum bb_toggle {
    BB_TOGGLE_KEEP, /* as it is; for a new channel the broker's default */
    BB_TOGGLE_DEFAULT,
    BB_TOGGLE_ON,
    BB_TOGGLE_OFF,
};

/* How a channel keeps its events. Numbers: 0 leaves it as it is, BB_UNKNOWN sets the broker's default. */
struct bb_channel_settings {
    size_t size;
    enum bb_store store;
    enum bb_toggle sync;  /* BB_LEVEL_NONE means on disk; off: lazy */
    enum bb_toggle early; /* subscriptions that do not say see events before they are on disk */
    uint64_t max_age_ms;  /* events that are older are removed, */
    uint64_t max_bytes;   /* and the oldest, of the channel, */
    uint64_t max_events;
    uint64_t max_per_path;
    uint64_t min_events;       /* but so many of the newest are kept whatever their age */
    enum bb_overflow overflow; /* of subscriptions that do not say; BB_OVERFLOW_DEFAULT leaves it as it is */
    uint64_t ring_bytes;       /* of memory for what is recent */
};

#define BB_CHANNEL_SETTINGS_INIT                                                                          \
    {                                                                                                     \
        sizeof(struct bb_channel_settings), BB_STORE_KEEP, BB_TOGGLE_KEEP, BB_TOGGLE_KEEP, 0, 0, 0, 0, 0, \
            BB_OVERFLOW_DEFAULT, 0                                                                        \
    }

/**
 * bb_channel_add() - make a channel
 * @settings: NULL for the broker's defaults
 *
 * Return: 0, BB_EEXISTS, BB_EPATH, BB_EUNSUPPORTED; otherwise as bb_request_status().
 */
BB_API int
bb_channel_add(bb_bus *bus, const char *name, const struct bb_channel_settings *settings, int timeout_ms);

/**
 * bb_channel_set() - change settings
 *
 * Return: as bb_channel_add(), BB_ENOTFOUND; BB_EEXISTS: its events keep it where it is, in memory or in the
 * log.
 */
BB_API int
bb_channel_set(bb_bus *bus, const char *name, const struct bb_channel_settings *settings, int timeout_ms);

/**
 * bb_channel_remove() - remove a channel with all its events. It waits until the log has what was published
 * before. Return: 0, BB_ENOTFOUND; BB_EAGAIN: its events wait for a log that does not take them; otherwise as
 * bb_request_status().
 */
BB_API int bb_channel_remove(bb_bus *bus, const char *name, int timeout_ms);

/**
 * bb_channel_trim() - remove the events of a channel before a sequence
 *
 * More may be kept than asked for, never less. Return: 0, BB_ENOTFOUND; otherwise as bb_request_status().
 */
BB_API int bb_channel_trim(bb_bus *bus, const char *name, uint64_t before, int timeout_ms);

/** bb_request_channels() - a JSON array of what bb_request_channel() gives; like bb_request_status(). */
BB_API int bb_request_channels(bb_bus *bus, int timeout_ms, char **ret_json);

/** bb_request_channel() - a channel, its settings and its numbers: one JSON object; BB_ENOTFOUND. */
BB_API int bb_request_channel(bb_bus *bus, const char *name, int timeout_ms, char **ret_json);

/**
 * bb_request_log() - upkeep of the broker's log
 * @action: "backup", "compact", "verify" or "status"
 * @name:   of the backup, a file name without a slash; NULL otherwise
 *
 * The broker goes on meanwhile. Return: 0, BB_EUNSUPPORTED (it keeps no log), BB_ECORRUPT, BB_EEXISTS,
 * BB_ESYSTEM; otherwise as bb_request_status().
 */
BB_API int bb_request_log(bb_bus *bus, const char *action, const char *name, int timeout_ms, char **ret_json);

/** bb_ping() - the round trip to the broker in microseconds. Return: as bb_request_status(). */
BB_API int bb_ping(bb_bus *bus, int timeout_ms, uint64_t *ret_rtt_us);

#ifdef __cplusplus
}
#endif

#endif

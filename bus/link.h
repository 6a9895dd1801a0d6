/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection to a broker: a socket that speaks ZMTP as a DEALER. It never waits. An epoll says when there
 * is something to do (level-triggered), time is an argument, what has happened comes out one event at a time.
 * Has no lock.
 */
#pragma once

#include "proto/wire/message.h"
#include "proto/wire/zmtp.h"

#include "bus/chunk.h"
#include "bus/dial.h"
#include "bus/outlet.h"

/* Bytes around the events of a message: heads of the message, its ranges and blocks. */
#define BB_MESSAGE_SLACK 65536

/* A frame is no larger. */
#define BB_FRAME_MAX (BB_MESSAGE_MAX + BB_MESSAGE_SLACK)

#define BB_LINK_NEVER UINT64_MAX

enum bb_link_state {
    BB_LINK_CLOSED,
    BB_LINK_LOOKING, /* a name is being looked up */
    BB_LINK_CONNECTING,
    BB_LINK_GREETING, /* the transport is up, the peer is not ready */
    BB_LINK_OPEN,
};

enum bb_link_event {
    BB_LINK_NOTHING, /* for now */
    BB_LINK_OPENED,
    BB_LINK_MESSAGE,
    BB_LINK_LOST, /* error and text say why; the link is closed */
};

struct bb_link {
    enum bb_link_state state;
    int epoll_fd;
    int fd;            /* of the socket; while a name is being looked up the look-up's; -1 */
    uint32_t watched;  /* what epoll_fd tells of fd; 0: it is not in there */
    bool is_lent;      /* somebody else looks at its input */
    bool is_full;      /* the socket did not take everything */
    bool is_mute;      /* nothing can be written any more; what came before is still read */
    bool is_drained;   /* the socket had no more to read */
    uint64_t until;    /* all addresses have been tried by then */
    uint64_t deadline; /* of the one that is being tried: bb_link_next() is due; else BB_LINK_NEVER */
    struct bb_dial dial;
    struct bb_zmtp zmtp;
    struct bb_outlet out;
    struct bb_inlet in;
    struct bb_frame frames[BB_FRAMES_MAX]; /* of a message that is not whole */
    size_t n_frames;
    struct bb_buf scratch; /* READY and PONG */
    int error;
    char url[128];  /* as far as it goes; for people */
    char text[260]; /* why it was lost, with the url */
};

/** bb_link_init() - a closed link. @epoll_fd: where it is watched; its events carry no data. */
void bb_link_init(struct bb_link *link, int epoll_fd);

/** bb_link_fini() - close it, and free the rest. */
void bb_link_fini(struct bb_link *link);

/**
 * bb_link_open() - begin to connect a closed link to @url
 *
 * Each address has a share of @open_ms, in which it answers as a broker or is given up for the next. The
 * outcome is an event. Return: 0, or why it is closed still, as in error and text.
 */
BB_MUST_CHECK int bb_link_open(struct bb_link *link, const char *url, uint64_t now, uint32_t open_ms);

/** bb_link_begin() - the same with a socket that is connected, which becomes the link's. @url: for people. */
void bb_link_begin(struct bb_link *link, const char *url, int fd, uint64_t now, uint32_t open_ms);

/** bb_link_look() - before bb_link_next(): the socket may have input again; what waits is written. */
void bb_link_look(struct bb_link *link);

/**
 * bb_link_next() - what has happened
 * @frames:  for BB_LINK_MESSAGE: BB_FRAMES_MAX of them, from then on the caller's
 * @ret_n:   how many there are
 *
 * After BB_LINK_NOTHING there is nothing before the next bb_link_look().
 */
enum bb_link_event bb_link_next(struct bb_link *link, uint64_t now, struct bb_frame *frames, size_t *ret_n);

/** bb_link_has_input() - was something read that bb_link_next() has not given yet? */
static inline bool bb_link_has_input(const struct bb_link *link)
{
    return bb_inlet_bytes(&link->in).len > 0;
}

/**
 * bb_link_send() - send a message of one frame; @bytes are copied if they have to wait
 *
 * A connection that has broken takes it as well: the event follows. Return: 0, BB_ENOMEM, BB_ECONNECT (not
 * open).
 */
BB_MUST_CHECK int bb_link_send(struct bb_link *link, struct bb_slice bytes);

/** bb_link_add_batch() - the same for a batch; bb_link_flush() follows. */
BB_MUST_CHECK int bb_link_add_batch(struct bb_link *link, struct bb_batch *batch);

/** bb_link_flush() - write what was added. */
void bb_link_flush(struct bb_link *link);

/** bb_link_lend() - somebody else looks at the input from now on, or not any more. */
void bb_link_lend(struct bb_link *link, bool is_lent);

/** bb_link_finish() - write what waits, wait for the peer to take it, and close; all within @linger_ms. */
void bb_link_finish(struct bb_link *link, int linger_ms);

/** bb_link_close() - at once. */
void bb_link_close(struct bb_link *link);

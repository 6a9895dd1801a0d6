/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/link.h"

#include "proto/base/error.h"
#include "proto/base/time.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define NEVER BB_LINK_NEVER

/*
 * ZMTP's pongs wait for no more than this: only who does not read has so much unread, and it may ping without
 * end.
 */
#define PONG_UNWRITTEN_MAX ((size_t)64 << 10)

/* Of a sentence about an error, without the url. */
#define TEXT_MAX 128

/* What the broker still sends while the link is being finished is dropped in pieces of this size. */
#define DROP_SIZE 16384

void bb_link_init(struct bb_link *link, int epoll_fd)
{
    *link = (struct bb_link){.epoll_fd = epoll_fd, .fd = -1, .deadline = NEVER};
}

void bb_link_fini(struct bb_link *link)
{
    bb_link_close(link);
    bb_buf_fini(&link->scratch);
}

/* --- epoll -------------------------------------------------------------------------------------- */

static uint32_t wanted_events(const struct bb_link *link)
{
    switch (link->state) {
    case BB_LINK_CLOSED:
        break;
    case BB_LINK_LOOKING:
        return EPOLLIN;
    case BB_LINK_CONNECTING:
        return EPOLLOUT;
    case BB_LINK_GREETING:
    case BB_LINK_OPEN:
        return (link->is_lent ? 0u : EPOLLIN) | (link->is_full ? EPOLLOUT : 0u);
    }
    return 0;
}

static void watch(struct bb_link *link)
{
    uint32_t events = wanted_events(link);
    if (events != link->watched) {
        struct epoll_event event = {.events = events};
        (void)epoll_ctl(link->epoll_fd, EPOLL_CTL_MOD, link->fd, &event);
        link->watched = events;
    }
}

/* @fd takes the place of the one before, which is out. */
static int watch_new(struct bb_link *link, int fd)
{
    link->fd = fd;
    link->watched = wanted_events(link);
    struct epoll_event event = {.events = link->watched};
    return epoll_ctl(link->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

/* --- closing ------------------------------------------------------------------------------------ */

/* Nothing is left of the current address or look-up. */
static void drop_socket(struct bb_link *link)
{
    if (link->fd >= 0) {
        struct epoll_event ignored = {0};
        (void)epoll_ctl(link->epoll_fd, EPOLL_CTL_DEL, link->fd, &ignored);
        if (link->state != BB_LINK_LOOKING) { /* the look-up closes its own */
            (void)close(link->fd);
        }
        link->fd = -1;
    }
    for (size_t i = 0; i < link->n_frames; i++) {
        bb_frame_fini(&link->frames[i]);
    }
    link->n_frames = 0;
    link->watched = 0;
    link->is_lent = link->is_full = link->is_mute = false;
    bb_outlet_fini(&link->out);
    bb_inlet_fini(&link->in);
}

void bb_link_close(struct bb_link *link)
{
    drop_socket(link);
    bb_dial_fini(&link->dial);
    link->state = BB_LINK_CLOSED;
    link->deadline = NEVER;
}

static int time_left(uint64_t deadline)
{
    uint64_t now = (uint64_t)bb_clock_monotonic_us() / 1000;
    return deadline > now ? (int)(deadline - now) : 0;
}

/* Until the peer has closed as well: input that nobody reads would undo what was written. */
static void await_end(struct bb_link *link, uint64_t deadline)
{
    uint8_t dropped[DROP_SIZE];
    struct pollfd pollfd = {.fd = link->fd, .events = POLLIN};
    ssize_t n = 1;
    (void)shutdown(link->fd, SHUT_WR);
    while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) {
        int left = time_left(deadline);
        if (left == 0 || (poll(&pollfd, 1, left) < 0 && errno != EINTR)) {
            return;
        }
        n = recv(link->fd, dropped, sizeof(dropped), MSG_DONTWAIT);
    }
}

void bb_link_finish(struct bb_link *link, int linger_ms)
{
    uint64_t deadline = (uint64_t)bb_clock_monotonic_us() / 1000 + (uint64_t)linger_ms;
    struct pollfd pollfd = {.fd = link->fd, .events = POLLOUT};
    int r = link->state == BB_LINK_OPEN && !link->is_mute ? 1 : BB_ECLOSED;
    while (r == 1 && (r = bb_outlet_write(&link->out, link->fd)) == 1) {
        int left = time_left(deadline);
        r = left > 0 && (poll(&pollfd, 1, left) >= 0 || errno == EINTR) ? 1 : BB_ETIMEOUT;
    }
    if (r == 0) {
        await_end(link, deadline);
    }
    bb_link_close(link);
}

/* --- sending ------------------------------------------------------------------------------------ */

/* Writing is over; the end will be read, behind what had come before. */
static void mute(struct bb_link *link)
{
    link->is_mute = true;
    link->is_full = false;
    bb_outlet_fini(&link->out);
    (void)shutdown(link->fd, SHUT_RDWR);
}

static void write_out(struct bb_link *link)
{
    int r = bb_outlet_write(&link->out, link->fd);
    link->is_full = r == 1;
    if (r < 0) {
        mute(link);
    }
    watch(link);
}

void bb_link_flush(struct bb_link *link)
{
    if (!link->is_full && link->out.n_pieces > 0) {
        write_out(link);
    }
}

/* The bytes of what was put last go after this. */
static void send_now(struct bb_link *link)
{
    bb_link_flush(link);
    if (bb_outlet_settle(&link->out) < 0) {
        mute(link); /* a part may be out: no way back but the end */
        watch(link);
    }
}

int bb_link_send(struct bb_link *link, struct bb_slice bytes)
{
    if (link->state != BB_LINK_OPEN) {
        return BB_ECONNECT;
    }
    if (link->is_mute) {
        return 0;
    }
    int r = bb_outlet_put(&link->out, bytes, NULL);
    if (r == 0) {
        send_now(link);
    }
    return r;
}

int bb_link_add_batch(struct bb_link *link, struct bb_batch *batch)
{
    struct bb_slice bytes = bb_slice(batch->bytes + batch->start, bb_batch_message_len(batch));
    if (link->state != BB_LINK_OPEN) {
        return BB_ECONNECT;
    }
    return link->is_mute ? 0 : bb_outlet_put(&link->out, bytes, batch);
}

void bb_link_lend(struct bb_link *link, bool is_lent)
{
    if (link->state == BB_LINK_OPEN) {
        link->is_lent = is_lent;
        watch(link);
    }
}

/* --- connecting --------------------------------------------------------------------------------- */

static void note(struct bb_link *link, int error, const char *format, ...) BB_PRINTF(3, 4);

static void note(struct bb_link *link, int error, const char *format, ...)
{
    char what[TEXT_MAX];
    va_list args;
    va_start(args, format);
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized): clang 14 does not look into va_start() */
    (void)vsnprintf(what, sizeof(what), format, args);
    va_end(args);
    (void)snprintf(link->text, sizeof(link->text), "%s: %s", link->url, what);
    link->error = error;
}

static enum bb_link_event lose(struct bb_link *link)
{
    bb_link_close(link);
    return BB_LINK_LOST;
}

/* On to the next address that can be tried. If there is none, what the last one said counts. */
static enum bb_link_event try_next(struct bb_link *link, uint64_t now)
{
    drop_socket(link);
    link->state = BB_LINK_CONNECTING;
    while (bb_dial_left(&link->dial) > 0) {
        uint64_t left = link->until > now ? link->until - now : 0;
        link->deadline = now + left / bb_dial_left(&link->dial);
        int fd = bb_dial_next(&link->dial);
        if (fd >= 0 && watch_new(link, fd) == 0) {
            return BB_LINK_NOTHING;
        }
        note(link, BB_ECONNECT, "%m");
        drop_socket(link);
    }
    return lose(link);
}

/* An attempt is one of several, an open connection is not. */
static enum bb_link_event fail(struct bb_link *link, uint64_t now)
{
    return link->state == BB_LINK_OPEN ? lose(link) : try_next(link, now);
}

static void set_out(struct bb_link *link, const char *url, uint64_t now, uint32_t open_ms)
{
    (void)snprintf(link->url, sizeof(link->url), "%s", url);
    link->until = link->deadline = now + open_ms;
}

int bb_link_open(struct bb_link *link, const char *url, uint64_t now, uint32_t open_ms)
{
    set_out(link, url, now, open_ms);
    int r = bb_dial_start(&link->dial, url);
    if (r < 0) {
        note(link, r, "%s", bb_strerror(r));
        (void)lose(link);
    } else if (r == 0) {
        r = try_next(link, now) == BB_LINK_LOST ? link->error : 0;
    } else {
        link->state = BB_LINK_LOOKING;
        r = watch_new(link, bb_dial_fd(&link->dial));
        if (r < 0) {
            note(link, BB_ESYSTEM, "%m");
            (void)lose(link);
            r = BB_ESYSTEM;
        }
    }
    return r;
}

void bb_link_begin(struct bb_link *link, const char *url, int fd, uint64_t now, uint32_t open_ms)
{
    set_out(link, url, now, open_ms);
    link->state = BB_LINK_CONNECTING;
    (void)watch_new(link, fd);
}

static enum bb_link_event take_look_up(struct bb_link *link, uint64_t now)
{
    const char *text;
    int r = bb_dial_look(&link->dial, &text);
    if (r == 1) {
        return BB_LINK_NOTHING;
    }
    if (r < 0) {
        note(link, r, "%s", text);
    }
    return try_next(link, now);
}

/* Greeting and READY together; the peer says its own meanwhile. */
static int greet(struct bb_link *link)
{
    bb_buf_reset(&link->scratch);
    uint8_t *greeting = bb_buf_reserve(&link->scratch, BB_ZMTP_GREETING_LEN);
    if (greeting != NULL) {
        bb_zmtp_greeting(greeting);
        link->scratch.len += BB_ZMTP_GREETING_LEN;
    }
    bb_zmtp_ready(&link->scratch, BB_ZMTP_DEALER);
    int r = link->scratch.error;
    r = r < 0 ? r : bb_outlet_put_raw(&link->out, bb_buf_slice(&link->scratch));
    if (r == 0) {
        send_now(link);
    }
    return r;
}

static enum bb_link_event take_connection(struct bb_link *link, uint64_t now)
{
    int r = bb_dial_check(link->fd);
    if (r == 0) {
        return BB_LINK_NOTHING;
    }
    if (r < 0) {
        note(link, BB_ECONNECT, "%m");
        return try_next(link, now);
    }
    bb_zmtp_init(&link->zmtp, BB_ZMTP_DEALER, BB_FRAME_MAX);
    link->state = BB_LINK_GREETING;
    watch(link);
    r = greet(link);
    if (r < 0) {
        note(link, r, "%s", bb_strerror(r));
        return try_next(link, now);
    }
    return BB_LINK_NOTHING;
}

/* --- receiving ---------------------------------------------------------------------------------- */

static enum bb_link_event take_end(struct bb_link *link, int r, uint64_t now)
{
    if (r == BB_ENOMEM) {
        note(link, r, "%s", bb_strerror(r));
    } else if (errno != 0) {
        note(link, BB_ECONNECT, "%m");
    } else if (link->state == BB_LINK_OPEN) {
        note(link, BB_ECONNECT, "the broker closed the connection");
    } else {
        note(link, BB_ECONNECT, "closed before the handshake was done; is this a busbar broker?");
    }
    return fail(link, now);
}

static enum bb_link_event take_broken(struct bb_link *link, enum bb_zmtp_step step, uint64_t now)
{
    if (step == BB_ZMTP_TOO_BIG) {
        note(link, BB_ETOOBIG, "the broker announced a frame larger than %zu bytes", (size_t)BB_FRAME_MAX);
    } else if (link->state == BB_LINK_OPEN) {
        note(link, BB_EMALFORMED, "what the broker sent is not ZMTP");
    } else {
        note(link, BB_EMALFORMED, "this is no busbar broker, nor any other ZeroMQ ROUTER without encryption");
    }
    return fail(link, now);
}

static void send_pong(struct bb_link *link, struct bb_slice context)
{
    if (link->is_mute || link->out.copied > PONG_UNWRITTEN_MAX) {
        return;
    }
    bb_buf_reset(&link->scratch);
    bb_zmtp_pong(&link->scratch, context);
    if (link->scratch.error == 0 && bb_outlet_put_raw(&link->out, bb_buf_slice(&link->scratch)) == 0) {
        send_now(link);
    }
}

/* Return: the message is whole, or it ended the link, or nothing yet. */
static enum bb_link_event
take_frame(struct bb_link *link, const struct bb_zmtp_input *input, struct bb_frame *frames, size_t *ret_n)
{
    if (link->n_frames == BB_FRAMES_MAX) {
        note(link, BB_EMALFORMED, "a message of the broker has too many frames");
        return lose(link);
    }
    link->frames[link->n_frames++] = bb_inlet_frame(&link->in, input->data);
    if (input->more) {
        return BB_LINK_NOTHING;
    }
    memcpy(frames, link->frames, link->n_frames * sizeof(*frames));
    *ret_n = link->n_frames;
    link->n_frames = 0;
    return BB_LINK_MESSAGE;
}

/* One thing off the front of what was read. BB_LINK_NOTHING: go on, unless the link is closed. */
static enum bb_link_event take_step(struct bb_link *link,
                                    enum bb_zmtp_step step,
                                    const struct bb_zmtp_input *input,
                                    uint64_t now,
                                    struct bb_frame *frames,
                                    size_t *ret_n)
{
    switch (step) {
    case BB_ZMTP_READY_IN:
        link->state = BB_LINK_OPEN;
        link->deadline = NEVER;
        bb_dial_fini(&link->dial);
        return BB_LINK_OPENED;
    case BB_ZMTP_FRAME:
        return take_frame(link, input, frames, ret_n);
    case BB_ZMTP_PING:
        send_pong(link, input->data);
        return BB_LINK_NOTHING;
    case BB_ZMTP_TOO_BIG:
    case BB_ZMTP_BROKEN:
        return take_broken(link, step, now);
    case BB_ZMTP_MORE:
    case BB_ZMTP_SILENT:
    case BB_ZMTP_ROUTED:
        break;
    }
    return BB_LINK_NOTHING;
}

static bool is_up(const struct bb_link *link)
{
    return link->state == BB_LINK_GREETING || link->state == BB_LINK_OPEN;
}

static enum bb_link_event
take_bytes(struct bb_link *link, uint64_t now, struct bb_frame *frames, size_t *ret_n)
{
    enum bb_link_event event = BB_LINK_NOTHING;
    while (event == BB_LINK_NOTHING && is_up(link)) {
        struct bb_zmtp_input input;
        enum bb_zmtp_step step = bb_zmtp_step(&link->zmtp, bb_inlet_bytes(&link->in), &input);
        link->in.start += input.used;
        if (step != BB_ZMTP_MORE) {
            event = take_step(link, step, &input, now, frames, ret_n);
        } else if (link->is_drained) {
            break;
        } else {
            int r = bb_inlet_read(&link->in, link->fd, input.wanted, &link->is_drained);
            event = r < 0 ? take_end(link, r, now) : BB_LINK_NOTHING;
        }
    }
    return event;
}

static enum bb_link_event take_timeout(struct bb_link *link, uint64_t now)
{
    if (link->state == BB_LINK_LOOKING) {
        note(link, BB_ECONNECT, "the name could not be looked up in time");
    } else if (link->state == BB_LINK_CONNECTING) {
        note(link, BB_ECONNECT, "no answer in time");
    } else {
        note(link, BB_ECONNECT, "connected, but no handshake in time; is this a busbar broker?");
    }
    return try_next(link, now);
}

enum bb_link_event bb_link_next(struct bb_link *link, uint64_t now, struct bb_frame *frames, size_t *ret_n)
{
    enum bb_link_event event = BB_LINK_NOTHING;
    if (link->state == BB_LINK_LOOKING) {
        event = take_look_up(link, now);
    } else if (link->state == BB_LINK_CONNECTING) {
        event = take_connection(link, now);
    }
    if (event == BB_LINK_NOTHING && is_up(link)) {
        event = take_bytes(link, now, frames, ret_n);
    }
    if (event == BB_LINK_NOTHING && now >= link->deadline) {
        event = take_timeout(link, now);
    }
    return event;
}

void bb_link_look(struct bb_link *link)
{
    link->is_drained = false;
    if (link->is_full) {
        write_out(link);
    }
}

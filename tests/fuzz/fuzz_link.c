/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what a broker's socket sends, in any pieces: the link ends, takes the same messages however the bytes were
 * cut, and holds no more than what came.
 *
 * The first byte says how the others are cut, and whether a handshake goes before them.
 */
#include "bus/link.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define GREETING "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define READY    "\x04\x1c\x05READY\x0bSocket-Type\0\0\0\x06ROUTER"

/* Of the input: it must fit into the buffer of a socket. */
#define SIZE_MAX_HERE ((size_t)32 << 10)

#define CHUNK_MAX ((size_t)256 << 10)

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

struct run {
    struct bb_link link;
    int peer;
    size_t n_events;
    size_t n_bytes; /* of messages */
    uint64_t sum;   /* of all that was said */
};

static void note(struct run *run, uint64_t number)
{
    run->sum = (run->sum ^ number) * UINT64_C(0x100000001b3);
}

static void note_message(struct run *run, struct bb_frame *frames, size_t n)
{
    require(n > 0 && n <= BB_FRAMES_MAX);
    note(run, n);
    for (size_t i = 0; i < n; i++) {
        note(run, frames[i].len);
        run->n_bytes += frames[i].len;
        for (size_t k = 0; k < frames[i].len; k++) {
            note(run, frames[i].data[k]);
        }
        bb_frame_fini(&frames[i]);
    }
}

/* The peer's own receive buffer is kept empty, so that pongs never wait. */
static void drain(const struct run *run)
{
    uint8_t bytes[4096];
    while (recv(run->peer, bytes, sizeof(bytes), MSG_DONTWAIT) > 0) {
    }
}

static void look(struct run *run)
{
    struct bb_frame frames[BB_FRAMES_MAX];
    size_t n_frames = 0;
    enum bb_link_event event;
    bb_link_look(&run->link);
    do {
        event = bb_link_next(&run->link, 0, frames, &n_frames);
        if (event == BB_LINK_MESSAGE) {
            note_message(run, frames, n_frames);
        } else if (event == BB_LINK_LOST) {
            require(run->link.state == BB_LINK_CLOSED && run->link.error < 0);
            note(run, (uint64_t)-run->link.error);
        }
        run->n_events += event != BB_LINK_NOTHING;
    } while (event != BB_LINK_NOTHING);
    require(run->link.in.chunk == NULL || run->link.in.chunk->size <= CHUNK_MAX);
    drain(run);
}

static void say(struct run *run, const void *data, size_t len)
{
    (void)!send(run->peer, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    look(run);
}

static void run_cut(struct run *run, int epoll, bool is_open, const uint8_t *data, size_t size, size_t piece)
{
    uint8_t greeting[BB_ZMTP_GREETING_LEN] = GREETING;
    int fds[2];
    require(socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    *run = (struct run){.peer = fds[1]};
    bb_link_init(&run->link, epoll);
    bb_link_begin(&run->link, "ipc://fuzz", fds[0], 0, 1000);
    if (is_open) {
        say(run, greeting, sizeof(greeting));
        say(run, READY, sizeof(READY) - 1);
        require(run->link.state == BB_LINK_OPEN);
    }
    for (size_t at = 0; at < size; at += piece) {
        say(run, data + at, BB_MIN(piece, size - at));
    }
    (void)shutdown(run->peer, SHUT_WR);
    look(run);
    require(run->link.state == BB_LINK_CLOSED);
    require(run->n_bytes <= size);
    bb_link_fini(&run->link);
    (void)close(run->peer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct run whole;
    struct run cut;
    if (size == 0 || size > SIZE_MAX_HERE) {
        return 0;
    }
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    bool is_open = (data[0] & 1u) != 0;
    run_cut(&whole, epoll, is_open, data + 1, size - 1, SIZE_MAX_HERE);
    run_cut(&cut, epoll, is_open, data + 1, size - 1, 1 + (size_t)(data[0] >> 1) * 8);
    require(whole.n_events == cut.n_events && whole.sum == cut.sum && whole.n_bytes == cut.n_bytes);
    (void)close(epoll);
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to a broker, held against a peer that is nothing but a socket. */
#include "proto/base/error.h"

#include "bus/link.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define OPEN_MS 1000

struct fixture {
    struct bb_link link;
    int epoll_fd;
    int peer;
    struct bb_buf hello; /* greeting and READY of a ROUTER */
    struct bb_frame frames[BB_FRAMES_MAX];
    size_t n_frames;
};

static void setup(struct fixture *fixture)
{
    int fds[2];
    *fixture = (struct fixture){.epoll_fd = epoll_create1(EPOLL_CLOEXEC)};
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    bb_link_init(&fixture->link, fixture->epoll_fd);
    bb_link_begin(&fixture->link, "ipc://peer", fds[0], 0, OPEN_MS);
    fixture->peer = fds[1];
    uint8_t greeting[BB_ZMTP_GREETING_LEN];
    bb_zmtp_greeting(greeting);
    bb_buf_append(&fixture->hello, greeting, sizeof(greeting));
    bb_zmtp_ready(&fixture->hello, BB_ZMTP_ROUTER);
    cr_assert_eq(fixture->hello.error, 0);
}

static void teardown(struct fixture *fixture)
{
    for (size_t i = 0; i < fixture->n_frames; i++) {
        bb_frame_fini(&fixture->frames[i]);
    }
    bb_link_fini(&fixture->link);
    bb_buf_fini(&fixture->hello);
    if (fixture->peer >= 0) {
        (void)close(fixture->peer);
    }
    (void)close(fixture->epoll_fd);
}

static enum bb_link_event look_at(struct fixture *fixture, uint64_t now)
{
    bb_link_look(&fixture->link);
    return bb_link_next(&fixture->link, now, fixture->frames, &fixture->n_frames);
}

static enum bb_link_event look(struct fixture *fixture)
{
    return look_at(fixture, 1);
}

static void say(const struct fixture *fixture, const void *bytes, size_t len)
{
    cr_assert_eq(send(fixture->peer, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static void open_up(struct fixture *fixture)
{
    say(fixture, fixture->hello.data, fixture->hello.len);
    cr_assert_eq(look(fixture), BB_LINK_OPENED);
}

static void assert_lost(struct fixture *fixture, int error, const char *text)
{
    cr_assert_eq(look(fixture), BB_LINK_LOST);
    cr_assert_eq(fixture->link.error, error);
    cr_assert_not_null(strstr(fixture->link.text, text), "%s", fixture->link.text);
    cr_assert_eq(fixture->link.state, BB_LINK_CLOSED);
}

/* All bytes one by one but the last: nothing comes of them. */
static void say_slowly(struct fixture *fixture, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++) {
        say(fixture, bytes + i, 1);
        cr_assert_eq(look(fixture), BB_LINK_NOTHING, "byte %zu", i);
    }
    say(fixture, bytes + len - 1, 1);
}

Test(bus_link, handshake_and_messages_come_in_any_pieces)
{
    static const uint8_t message[] = {1, 2, 'a', 'b', 0, 1, 'c'};
    struct fixture fixture;
    setup(&fixture);
    say_slowly(&fixture, fixture.hello.data, fixture.hello.len);
    cr_assert_eq(look(&fixture), BB_LINK_OPENED);
    say_slowly(&fixture, message, sizeof(message));
    cr_assert_eq(look(&fixture), BB_LINK_MESSAGE);
    cr_assert_eq(fixture.n_frames, 2);
    cr_assert_eq(fixture.frames[0].len, 2);
    cr_assert_eq(memcmp(fixture.frames[0].data, "ab", 2), 0);
    cr_assert_eq(fixture.frames[1].len, 1);
    cr_assert_eq(fixture.frames[1].data[0], 'c');
    teardown(&fixture);
}

Test(bus_link, what_is_no_broker_is_said_to_be_none)
{
    struct fixture fixture;
    setup(&fixture);
    say(&fixture, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    assert_lost(&fixture, BB_EMALFORMED, "no busbar broker");
    teardown(&fixture);
}

Test(bus_link, an_end_before_the_handshake_and_after_it_are_told_apart)
{
    for (int is_open = 0; is_open < 2; is_open++) {
        struct fixture fixture;
        setup(&fixture);
        if (is_open) {
            open_up(&fixture);
        } else {
            cr_assert_eq(look(&fixture), BB_LINK_NOTHING);
        }
        (void)shutdown(fixture.peer, SHUT_WR);
        assert_lost(&fixture, BB_ECONNECT, is_open ? "closed the connection" : "before the handshake");
        teardown(&fixture);
    }
}

Test(bus_link, who_does_not_greet_is_given_up_in_time)
{
    struct fixture fixture;
    setup(&fixture);
    cr_assert_eq(look_at(&fixture, OPEN_MS - 1), BB_LINK_NOTHING);
    cr_assert_eq(look_at(&fixture, OPEN_MS), BB_LINK_LOST);
    cr_assert_not_null(strstr(fixture.link.text, "no handshake in time"), "%s", fixture.link.text);
    teardown(&fixture);
}

Test(bus_link, a_frame_that_is_too_large_ends_it_before_it_comes)
{
    uint8_t head[BB_ZMTP_HEAD_MAX];
    struct fixture fixture;
    setup(&fixture);
    open_up(&fixture);
    say(&fixture, head, bb_zmtp_head(head, BB_FRAME_MAX + 1, false));
    assert_lost(&fixture, BB_ETOOBIG, "larger than");
    teardown(&fixture);
}

Test(bus_link, too_many_frames_end_it)
{
    static const uint8_t frame[] = {1, 1, 'x'};
    struct fixture fixture;
    setup(&fixture);
    open_up(&fixture);
    for (size_t i = 0; i < BB_FRAMES_MAX; i++) {
        say(&fixture, frame, sizeof(frame));
        cr_assert_eq(look(&fixture), BB_LINK_NOTHING);
    }
    say(&fixture, frame, sizeof(frame));
    assert_lost(&fixture, BB_EMALFORMED, "too many frames");
    teardown(&fixture);
}

Test(bus_link, a_large_frame_is_whole)
{
    const size_t len = (size_t)3 << 20;
    uint8_t head[BB_ZMTP_HEAD_MAX];
    static uint8_t bytes[4096];
    struct fixture fixture;
    setup(&fixture);
    open_up(&fixture);
    say(&fixture, head, bb_zmtp_head(head, len, false));
    for (size_t i = 0; i < len / sizeof(bytes); i++) {
        memset(bytes, (int)(i % 251), sizeof(bytes));
        say(&fixture, bytes, sizeof(bytes));
        cr_assert_eq(look(&fixture), i + 1 < len / sizeof(bytes) ? BB_LINK_NOTHING : BB_LINK_MESSAGE);
    }
    cr_assert_eq(fixture.n_frames, 1);
    cr_assert_eq(fixture.frames[0].len, len);
    for (size_t i = 0; i < len; i++) {
        cr_assert_eq(fixture.frames[0].data[i], i / sizeof(bytes) % 251);
    }
    teardown(&fixture);
}

/* What the peer has read of messages of @len bytes, each of which begins with its number. */
static size_t take_messages(struct fixture *fixture, struct bb_zmtp *zmtp, struct bb_buf *in, size_t n)
{
    uint8_t bytes[65536];
    ssize_t got = 0;
    while ((got = recv(fixture->peer, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0) {
        bb_buf_append(in, bytes, (size_t)got);
    }
    size_t start = 0;
    for (;;) {
        struct bb_zmtp_input input;
        enum bb_zmtp_step step = bb_zmtp_step(zmtp, bb_slice(in->data + start, in->len - start), &input);
        if (step == BB_ZMTP_MORE) {
            break;
        }
        cr_assert(step == BB_ZMTP_FRAME || step == BB_ZMTP_SILENT || step == BB_ZMTP_READY_IN);
        if (step == BB_ZMTP_FRAME) {
            cr_assert_eq(input.data.data[0], (uint8_t)n);
            n++;
        }
        start += input.used;
    }
    memmove(in->data, in->data + start, in->len - start);
    in->len -= start;
    return n;
}

Test(bus_link, what_the_socket_does_not_take_waits_and_stays_in_order)
{
    static uint8_t bytes[30000];
    struct bb_buf in = BB_BUF_INIT;
    struct bb_zmtp zmtp;
    struct fixture fixture;
    size_t sent = 0;
    size_t taken = 0;
    setup(&fixture);
    open_up(&fixture);
    bb_zmtp_init(&zmtp, BB_ZMTP_ROUTER, sizeof(bytes));
    for (; !fixture.link.is_full || sent % 10 != 0; sent++) {
        bytes[0] = (uint8_t)sent;
        cr_assert_eq(bb_link_send(&fixture.link, bb_slice(bytes, sizeof(bytes))), 0);
    }
    while (fixture.link.is_full) {
        taken = take_messages(&fixture, &zmtp, &in, taken);
        cr_assert_eq(look(&fixture), BB_LINK_NOTHING);
    }
    taken = take_messages(&fixture, &zmtp, &in, taken);
    cr_assert_eq(taken, sent);
    bb_buf_fini(&in);
    teardown(&fixture);
}

Test(bus_link, where_nobody_listens_is_said)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    char url[64];
    struct fixture fixture;
    setup(&fixture);
    bb_link_close(&fixture.link);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC,
                    0); /* bound and not listening: nobody else gets the port */
    cr_assert_eq(bind(fd, (const struct sockaddr *)&address, len), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    (void)snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", ntohs(address.sin_port));
    enum bb_link_event event = BB_LINK_NOTHING;
    if (bb_link_open(&fixture.link, url, 0, OPEN_MS) == 0) {
        struct epoll_event ready;
        cr_assert_eq(epoll_wait(fixture.epoll_fd, &ready, 1, 10000), 1);
        event = look(&fixture);
    } else {
        event = BB_LINK_LOST;
    }
    cr_assert_eq(event, BB_LINK_LOST);
    cr_assert_eq(fixture.link.error, BB_ECONNECT);
    cr_assert_not_null(strstr(fixture.link.text, "refused"), "%s", fixture.link.text);
    (void)close(fd);
    teardown(&fixture);
}

Test(bus_link, a_name_that_is_none_is_said)
{
    struct fixture fixture;
    setup(&fixture);
    bb_link_close(&fixture.link);
    cr_assert_eq(bb_link_open(&fixture.link, "tcp://no..name:1", 0, OPEN_MS), 0);
    cr_assert_eq(fixture.link.state, BB_LINK_LOOKING);
    struct epoll_event ready;
    cr_assert_eq(epoll_wait(fixture.epoll_fd, &ready, 1, 60000), 1);
    cr_assert_eq(look(&fixture), BB_LINK_LOST);
    cr_assert_eq(fixture.link.error, BB_ECONNECT);
    cr_assert_not_null(strstr(fixture.link.text, "no..name"), "%s", fixture.link.text);
    teardown(&fixture);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A link against a plain socket: the test is the peer, byte by byte. Time stands still unless a test moves it. */
#include "proto/base/error.h"

#include "bus/link.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 10000
#define OPEN_MS     1000
#define CHUNK       ((size_t)256 << 10)

#define GREETING                   "\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define READY(len, type_len, type) "\x04" len "\x05READY\x0bSocket-Type\0\0\0" type_len type
#define READY_ROUTER               READY("\x1c", "\x06", "ROUTER")
#define TEXT(text)                 bb_slice(text, sizeof(text) - 1)

struct fixture {
    int epoll;
    int peer;
    uint64_t now;
    struct bb_link link;
    struct bb_frame frames[BB_FRAMES_MAX];
    size_t n_frames;
};

static void say(struct fixture *f, const void *data, size_t len)
{
    const uint8_t *at = data;
    while (len > 0) {
        ssize_t n = send(f->peer, at, len, MSG_NOSIGNAL);
        cr_assert_gt(n, 0);
        at += n;
        len -= (size_t)n;
    }
}

static void say_text(struct fixture *f, struct bb_slice text)
{
    say(f, text.data, text.len);
}

/* The greeting is padded with zeros. */
static void say_hello(struct fixture *f)
{
    uint8_t greeting[BB_ZMTP_GREETING_LEN] = {0};
    memcpy(greeting, GREETING, sizeof(GREETING) - 1);
    say(f, greeting, sizeof(greeting));
    say_text(f, TEXT(READY_ROUTER));
}

static void say_frame(struct fixture *f, const void *data, size_t len, bool more)
{
    uint8_t head[BB_ZMTP_HEAD_MAX];
    say(f, head, bb_zmtp_head(head, len, more));
    say(f, data, len);
}

/* What happens without waiting. */
static enum bb_link_event look(struct fixture *f)
{
    bb_link_look(&f->link);
    return bb_link_next(&f->link, f->now, f->frames, &f->n_frames);
}

static enum bb_link_event await(struct fixture *f)
{
    enum bb_link_event event = bb_link_next(&f->link, f->now, f->frames, &f->n_frames);
    while (event == BB_LINK_NOTHING) {
        struct epoll_event ignored;
        cr_assert_eq(epoll_wait(f->epoll, &ignored, 1, PATIENCE_MS), 1, "nothing happens any more");
        event = look(f);
    }
    return event;
}

static void start(struct fixture *f)
{
    *f = (struct fixture){.epoll = epoll_create1(EPOLL_CLOEXEC), .peer = -1};
    cr_assert_geq(f->epoll, 0);
    bb_link_init(&f->link, f->epoll);
}

static void begin(struct fixture *f)
{
    int fds[2];
    start(f);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    f->peer = fds[1];
    bb_link_begin(&f->link, "ipc://test", fds[0], f->now, OPEN_MS);
}

static void begin_open(struct fixture *f)
{
    begin(f);
    say_hello(f);
    cr_assert_eq(await(f), BB_LINK_OPENED);
}

static void end(struct fixture *f)
{
    bb_link_fini(&f->link);
    (void)close(f->peer);
    (void)close(f->epoll);
}

static void drop_message(struct fixture *f)
{
    for (size_t i = 0; i < f->n_frames; i++) {
        bb_frame_fini(&f->frames[i]);
    }
}

static void expect_message(struct fixture *f, const void *data, size_t len)
{
    cr_assert_eq(await(f), BB_LINK_MESSAGE);
    cr_assert_eq(f->n_frames, 1);
    cr_assert_eq(f->frames[0].len, len);
    cr_assert_eq(memcmp(f->frames[0].data, data, len), 0);
    drop_message(f);
}

static void expect_lost(struct fixture *f, int error, const char *text)
{
    cr_assert_eq(await(f), BB_LINK_LOST);
    cr_assert_eq(f->link.error, error, "%d: %s", f->link.error, f->link.text);
    cr_assert_not_null(strstr(f->link.text, text), "%s", f->link.text);
    cr_assert_eq(f->link.state, BB_LINK_CLOSED);
    cr_assert_eq(f->link.deadline, BB_LINK_NEVER);
}

static void hear(struct fixture *f, void *to, size_t len)
{
    cr_assert_eq(recv(f->peer, to, len, MSG_WAITALL), (ssize_t)len);
}

static void hear_hello(struct fixture *f)
{
    uint8_t greeting[BB_ZMTP_GREETING_LEN];
    uint8_t expected[BB_ZMTP_GREETING_LEN];
    uint8_t ready[sizeof(READY_ROUTER) - 1];
    bb_zmtp_greeting(expected);
    hear(f, greeting, sizeof(greeting));
    cr_assert_eq(memcmp(greeting, expected, sizeof(expected)), 0);
    hear(f, ready, sizeof(ready));
    cr_assert_eq(memcmp(ready, READY("\x1c", "\x06", "DEALER"), sizeof(ready)), 0);
}

static uint8_t *pattern(size_t len, unsigned seed)
{
    uint8_t *bytes = malloc(len);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 251 + seed);
    }
    return bytes;
}

/* --- the handshake ------------------------------------------------------------------------------ */

Test(bus_link, greets_at_once_and_is_open_when_the_peer_is_ready)
{
    struct fixture f;
    begin(&f);
    cr_assert_eq(look(&f), BB_LINK_NOTHING);
    hear_hello(&f);
    cr_assert_eq(bb_link_send(&f.link, TEXT("early")), BB_ECONNECT);
    cr_assert_eq(f.link.deadline, OPEN_MS);
    say_hello(&f);
    cr_assert_eq(await(&f), BB_LINK_OPENED);
    cr_assert_eq(f.link.deadline, BB_LINK_NEVER);
    cr_assert_eq(bb_link_send(&f.link, TEXT("hi")), 0);
    char heard[4];
    hear(&f, heard, sizeof(heard));
    cr_assert_eq(memcmp(heard, "\0\x02hi", 4), 0);
    end(&f);
}

Test(bus_link, every_cut_of_the_handshake_leads_to_the_same)
{
    uint8_t bytes[BB_ZMTP_GREETING_LEN + sizeof(READY_ROUTER) + 4] = {0};
    memcpy(bytes, GREETING, sizeof(GREETING) - 1);
    memcpy(bytes + BB_ZMTP_GREETING_LEN, READY_ROUTER "\0\x03one", sizeof(READY_ROUTER) + 4);
    for (size_t cut = 0; cut < sizeof(bytes); cut++) {
        struct fixture f;
        begin(&f);
        say(&f, bytes, cut);
        enum bb_link_event event = look(&f);
        cr_assert_eq(event, cut < sizeof(bytes) - 5 ? BB_LINK_NOTHING : BB_LINK_OPENED, "cut at %zu", cut);
        say(&f, bytes + cut, sizeof(bytes) - cut);
        if (event == BB_LINK_NOTHING) {
            cr_assert_eq(await(&f), BB_LINK_OPENED, "cut at %zu", cut);
        }
        expect_message(&f, "one", 3);
        end(&f);
    }
}

Test(bus_link, comes_byte_by_byte)
{
    struct fixture f;
    uint8_t bytes[BB_ZMTP_GREETING_LEN + sizeof(READY_ROUTER) - 1] = {0};
    memcpy(bytes, GREETING, sizeof(GREETING) - 1);
    memcpy(bytes + BB_ZMTP_GREETING_LEN, READY_ROUTER, sizeof(READY_ROUTER) - 1);
    begin(&f);
    for (size_t i = 0; i < sizeof(bytes); i++) {
        say(&f, bytes + i, 1);
        cr_assert_eq(look(&f), i + 1 < sizeof(bytes) ? BB_LINK_NOTHING : BB_LINK_OPENED);
    }
    end(&f);
}

Test(bus_link, what_is_no_broker_is_told_from_one)
{
    static const struct {
        struct bb_slice bytes;
        bool is_behind_greeting;
    } rows[] = {
        {{(const uint8_t *)"HTTP/1.1 400 Bad Request\r\n", 26}, false},
        {{(const uint8_t *)"\xff\0\0\0\0\0\0\0\x01\x7f\x01\0", 12}, false}, /* ZMTP 2 */
        {{(const uint8_t *)READY("\x19", "\x03", "PUB"), 27}, true},        /* another socket */
        {{(const uint8_t *)"\x04\x07\x05"
                           "ERROR\0",
          9},
         true},                                  /* refused */
        {{(const uint8_t *)"\0\x01x", 3}, true}, /* too early */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct fixture f;
        uint8_t greeting[BB_ZMTP_GREETING_LEN] = {0};
        memcpy(greeting, GREETING, sizeof(GREETING) - 1);
        begin(&f);
        if (rows[i].is_behind_greeting) {
            say(&f, greeting, sizeof(greeting));
        }
        say_text(&f, rows[i].bytes);
        expect_lost(&f, BB_EMALFORMED, "ipc://test: this is no busbar broker");
        end(&f);
    }
}

Test(bus_link, another_mechanism_is_not_taken)
{
    struct fixture f;
    uint8_t greeting[BB_ZMTP_GREETING_LEN] = {0};
    memcpy(greeting, GREETING, sizeof(GREETING) - 1);
    memcpy(greeting + 12, "CURVE", 5);
    begin(&f);
    say(&f, greeting, sizeof(greeting));
    expect_lost(&f, BB_EMALFORMED, "without encryption");
    end(&f);
}

Test(bus_link, a_peer_that_closes_or_says_nothing_during_the_handshake_is_lost)
{
    struct fixture f;
    begin(&f);
    say(&f, GREETING, 20);
    (void)shutdown(f.peer, SHUT_RDWR);
    expect_lost(&f, BB_ECONNECT, "closed before the handshake was done");
    end(&f);
    begin(&f);
    say(&f, GREETING, 20);
    f.now = OPEN_MS - 1;
    cr_assert_eq(look(&f), BB_LINK_NOTHING);
    f.now = OPEN_MS;
    expect_lost(&f, BB_ECONNECT, "no handshake in time");
    end(&f);
}

/* --- receiving ---------------------------------------------------------------------------------- */

Test(bus_link, a_message_may_have_as_many_frames_as_allowed_and_no_more)
{
    struct fixture f;
    begin_open(&f);
    for (size_t i = 0; i < BB_FRAMES_MAX; i++) {
        say_frame(&f, &"abcdefghijklmnop"[i], 1, i + 1 < BB_FRAMES_MAX);
    }
    cr_assert_eq(await(&f), BB_LINK_MESSAGE);
    cr_assert_eq(f.n_frames, BB_FRAMES_MAX);
    for (size_t i = 0; i < BB_FRAMES_MAX; i++) {
        cr_assert_eq(f.frames[i].len, 1);
        cr_assert_eq(f.frames[i].data[0], 'a' + i);
    }
    drop_message(&f);
    for (size_t i = 0; i < BB_FRAMES_MAX + 1; i++) {
        say_frame(&f, "x", 1, true);
    }
    expect_lost(&f, BB_EMALFORMED, "too many frames");
    end(&f);
}

Test(bus_link, a_frame_larger_than_the_limit_ends_it)
{
    struct fixture f;
    uint8_t head[BB_ZMTP_HEAD_MAX];
    begin_open(&f);
    say(&f, head, bb_zmtp_head(head, BB_FRAME_MAX + 1, false));
    expect_lost(&f, BB_ETOOBIG, "larger than");
    end(&f);
}

Test(bus_link, a_frame_that_is_announced_holds_little_before_it_comes)
{
    struct fixture f;
    uint8_t head[BB_ZMTP_HEAD_MAX];
    begin_open(&f);
    say(&f, head, bb_zmtp_head(head, BB_FRAME_MAX, false));
    say(&f, "some", 4);
    cr_assert_eq(look(&f), BB_LINK_NOTHING);
    cr_assert_leq(f.link.in.chunk->size, CHUNK);
    end(&f);
}

/* Reads while it says, since no buffer holds this much. */
static void say_large(struct fixture *f, const uint8_t *bytes, size_t len)
{
    uint8_t head[BB_ZMTP_HEAD_MAX];
    say(f, head, bb_zmtp_head(head, len, false));
    for (size_t at = 0; at < len;) {
        ssize_t n = send(f->peer, bytes + at, BB_MIN(len - at, (size_t)50000), MSG_NOSIGNAL | MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        if (at < len) {
            cr_assert_eq(look(f), BB_LINK_NOTHING, "at %zu", at);
        }
    }
}

Test(bus_link, large_frames_come_whole_and_leave_nothing_behind)
{
    static const size_t sizes[] = {CHUNK - 9, CHUNK - 8, CHUNK, CHUNK + 1, 3000000, BB_FRAME_MAX};
    struct fixture f;
    begin_open(&f);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint8_t *bytes = pattern(sizes[i], (unsigned)i);
        say_frame(&f, "small", 5, false);
        expect_message(&f, "small", 5);
        say_large(&f, bytes, sizes[i]);
        expect_message(&f, bytes, sizes[i]);
        free(bytes);
    }
    say_frame(&f, "small", 5, false);
    expect_message(&f, "small", 5);
    cr_assert_eq(f.link.in.chunk->size, CHUNK);
    end(&f);
}

/* Frames of all sizes, some of which are kept: what is read later is not written over them. */
Test(bus_link, what_is_kept_stays_as_it_was)
{
    enum {
        N = 400,
        KEPT = 40
    };
    struct fixture f;
    struct bb_frame kept[KEPT] = {0};
    unsigned seeds[KEPT] = {0};
    begin_open(&f);
    for (unsigned i = 0; i < N; i++) {
        size_t len = (size_t)i * i * 37 % 90000;
        uint8_t *bytes = pattern(len, i);
        say_large(&f, bytes, len);
        cr_assert_eq(await(&f), BB_LINK_MESSAGE);
        cr_assert_eq(f.frames[0].len, len);
        cr_assert_eq(memcmp(f.frames[0].data, bytes, len), 0, "message %u", i);
        free(bytes);
        if (i % 3 == 0) {
            bb_frame_fini(&kept[i % KEPT]);
            kept[i % KEPT] = f.frames[0];
            seeds[i % KEPT] = i;
        } else {
            bb_frame_fini(&f.frames[0]);
        }
    }
    for (size_t i = 0; i < KEPT; i++) {
        uint8_t *bytes = pattern(kept[i].len + 1, seeds[i]);
        cr_assert(kept[i].len == 0 || memcmp(kept[i].data, bytes, kept[i].len) == 0);
        free(bytes);
        bb_frame_fini(&kept[i]);
    }
    end(&f);
}

/* The frames of a message lie in chunks of their own time. */
Test(bus_link, a_message_of_many_reads_is_whole)
{
    struct fixture f;
    uint8_t *bytes = pattern(100000, 5);
    begin_open(&f);
    for (size_t i = 0; i < BB_FRAMES_MAX; i++) {
        say_frame(&f, bytes + i, 100000 - i, i + 1 < BB_FRAMES_MAX);
        if (i + 1 < BB_FRAMES_MAX) {
            cr_assert_eq(look(&f), BB_LINK_NOTHING);
        }
    }
    cr_assert_eq(await(&f), BB_LINK_MESSAGE);
    for (size_t i = 0; i < BB_FRAMES_MAX; i++) {
        cr_assert_eq(f.frames[i].len, 100000 - i);
        cr_assert_eq(memcmp(f.frames[i].data, bytes + i, 100000 - i), 0);
    }
    drop_message(&f);
    free(bytes);
    end(&f);
}

Test(bus_link, a_chunk_that_nobody_holds_is_used_from_its_front)
{
    struct fixture f;
    begin_open(&f);
    const struct bb_chunk *chunk = f.link.in.chunk;
    for (int i = 0; i < 100000; i++) {
        say_frame(&f, "0123456789", 10, false);
        expect_message(&f, "0123456789", 10);
    }
    cr_assert_eq(f.link.in.chunk, chunk);
    cr_assert_leq(chunk->len, 12);
    end(&f);
}

Test(bus_link, what_came_before_the_end_counts_before_it)
{
    struct fixture f;
    begin_open(&f);
    say_frame(&f, "last", 4, false);
    (void)shutdown(f.peer, SHUT_RDWR);
    cr_assert_eq(bb_link_send(&f.link, TEXT("nobody reads this")), 0);
    cr_assert(f.link.is_mute);
    cr_assert_eq(bb_link_send(&f.link, TEXT("nor this")), 0);
    expect_message(&f, "last", 4);
    expect_lost(&f, BB_ECONNECT, "ipc://test: the broker closed the connection");
    cr_assert_eq(bb_link_send(&f.link, TEXT("too late")), BB_ECONNECT);
    end(&f);
}

Test(bus_link, nonsense_ends_it_when_it_is_open)
{
    struct fixture f;
    begin_open(&f);
    say(&f, "\xff\xff", 2);
    expect_lost(&f, BB_EMALFORMED, "is not ZMTP");
    end(&f);
}

Test(bus_link, pings_are_answered_but_not_without_end)
{
    struct fixture f;
    char pong[12];
    begin_open(&f);
    hear_hello(&f);
    say_text(&f, TEXT("\x04\x0c\x04PING\0\x01later"));
    cr_assert_eq(look(&f), BB_LINK_NOTHING);
    hear(&f, pong, sizeof(pong));
    cr_assert_eq(memcmp(pong, "\x04\x0a\x04PONGlater", sizeof(pong)), 0);
    for (int i = 0; i < 200000; i++) {
        say_text(&f, TEXT("\x04\x0c\x04PING\0\x01later"));
        if (i % 64 == 0) {
            cr_assert_eq(look(&f), BB_LINK_NOTHING);
        }
    }
    cr_assert_leq(f.link.out.copied, (size_t)65 << 10);
    end(&f);
}

/* --- sending ------------------------------------------------------------------------------------ */

static struct bb_batch *batch_new(struct bb_pool *pool, size_t len, unsigned seed)
{
    struct bb_batch *batch = bb_batch_new(pool, len, (struct bb_slice){0});
    uint8_t *bytes = pattern(len, seed);
    cr_assert_not_null(batch);
    memcpy(bb_batch_events(batch), bytes, len);
    batch->len = len;
    free(bytes);
    bb_batch_number(batch, seed);
    return batch;
}

static bool is_told_writable(struct fixture *f)
{
    struct epoll_event event = {0};
    return epoll_wait(f->epoll, &event, 1, 0) == 1 && (event.events & EPOLLOUT) != 0;
}

/* The next frame, which must be @expected; the link writes on meanwhile. */
static void hear_frame(struct fixture *f, struct bb_slice expected)
{
    uint8_t head[BB_ZMTP_HEAD_MAX];
    uint8_t heard[BB_ZMTP_HEAD_MAX];
    uint8_t part[4096];
    size_t head_len = bb_zmtp_head(head, expected.len, false);
    hear(f, heard, head_len);
    cr_assert_eq(memcmp(heard, head, head_len), 0);
    for (size_t at = 0; at < expected.len;) {
        ssize_t n = recv(f->peer, part, BB_MIN(sizeof(part), expected.len - at), MSG_DONTWAIT);
        if (n > 0) {
            cr_assert_eq(memcmp(part, expected.data + at, (size_t)n), 0);
            at += (size_t)n;
        }
        bb_link_look(&f->link);
    }
}

Test(bus_link, what_a_full_socket_does_not_take_waits_in_its_order)
{
    enum {
        N = 60
    };
    struct fixture f;
    struct bb_pool pool = {.usual = 40000};
    struct bb_batch *batches[N];
    begin_open(&f);
    hear_hello(&f);
    cr_assert_not(is_told_writable(&f), "nobody asked for it");
    for (unsigned i = 0; i < N; i++) {
        char small[16];
        batches[i] = batch_new(&pool, 40000, i + 1);
        cr_assert_eq(bb_link_add_batch(&f.link, batches[i]), 0);
        bb_link_flush(&f.link);
        (void)snprintf(small, sizeof(small), "small %u", i);
        cr_assert_eq(bb_link_send(&f.link, bb_slice_str(small)), 0);
        memset(small, 'x', sizeof(small)); /* it is copied if it waits */
    }
    cr_assert(f.link.is_full);
    cr_assert_not(is_told_writable(&f));
    cr_assert_eq(batches[N - 1]->refs, 2);
    for (unsigned i = 0; i < N; i++) {
        char small[16];
        (void)snprintf(small, sizeof(small), "small %u", i);
        hear_frame(&f, bb_slice(batches[i]->bytes + batches[i]->start, bb_batch_message_len(batches[i])));
        hear_frame(&f, bb_slice_str(small));
    }
    cr_assert_eq(f.link.out.n_pieces, 0);
    cr_assert_eq(f.link.out.copied, 0);
    cr_assert_not(f.link.is_full);
    cr_assert_not(is_told_writable(&f), "nothing waits any more");
    for (unsigned i = 0; i < N; i++) {
        cr_assert_eq(batches[i]->refs, 1);
        bb_batch_unref(batches[i]);
    }
    end(&f);
    bb_pool_fini(&pool);
}

Test(bus_link, a_socket_that_has_room_again_is_told_of)
{
    struct fixture f;
    struct bb_pool pool = {.usual = 1};
    struct bb_batch *batch = batch_new(&pool, 1 << 20, 1);
    uint8_t *heard = malloc(2 << 20);
    begin_open(&f);
    hear_hello(&f);
    cr_assert_eq(bb_link_add_batch(&f.link, batch), 0);
    bb_link_flush(&f.link);
    cr_assert(f.link.is_full);
    size_t len = bb_batch_message_len(batch) + BB_ZMTP_HEAD_MAX;
    for (size_t at = 0; at < len;) {
        ssize_t n = recv(f.peer, heard + at, len - at, MSG_DONTWAIT);
        at += n > 0 ? (size_t)n : 0;
        if (n <= 0) {
            struct epoll_event event;
            cr_assert_eq(epoll_wait(f.epoll, &event, 1, PATIENCE_MS), 1);
            bb_link_look(&f.link);
        }
    }
    cr_assert_eq(memcmp(heard + BB_ZMTP_HEAD_MAX, batch->bytes + batch->start, len - BB_ZMTP_HEAD_MAX), 0);
    cr_assert_eq(batch->refs, 1);
    bb_batch_unref(batch);
    free(heard);
    end(&f);
}

Test(bus_link, closing_lets_go_of_what_waits)
{
    struct fixture f;
    struct bb_pool pool = {.usual = 1};
    struct bb_batch *batch = batch_new(&pool, 1 << 20, 1);
    begin_open(&f);
    cr_assert_eq(bb_link_add_batch(&f.link, batch), 0);
    bb_link_flush(&f.link);
    cr_assert_eq(bb_link_send(&f.link, TEXT("waits")), 0);
    cr_assert_eq(batch->refs, 2);
    bb_link_close(&f.link);
    cr_assert_eq(batch->refs, 1);
    cr_assert_eq(f.link.out.n_pieces, 0);
    bb_batch_unref(batch);
    end(&f);
}

Test(bus_link, input_that_is_lent_is_not_told_of)
{
    struct fixture f;
    struct epoll_event event;
    begin_open(&f);
    bb_link_lend(&f.link, true);
    say_frame(&f, "x", 1, false);
    cr_assert_eq(epoll_wait(f.epoll, &event, 1, 20), 0);
    bb_link_lend(&f.link, false);
    cr_assert_eq(epoll_wait(f.epoll, &event, 1, PATIENCE_MS), 1);
    expect_message(&f, "x", 1);
    end(&f);
}

/* --- the end ------------------------------------------------------------------------------------ */

struct reader {
    int fd;
    size_t n;
};

static void *read_to_the_end(void *arg)
{
    struct reader *reader = arg;
    uint8_t bytes[4096];
    ssize_t n;
    while ((n = recv(reader->fd, bytes, sizeof(bytes), 0)) > 0) {
        reader->n += (size_t)n;
    }
    (void)shutdown(reader->fd, SHUT_WR);
    return NULL;
}

Test(bus_link, finishing_writes_what_waits)
{
    struct fixture f;
    struct bb_pool pool = {.usual = 1};
    struct bb_batch *batch = batch_new(&pool, 4 << 20, 1);
    size_t len = bb_batch_message_len(batch) + BB_ZMTP_HEAD_MAX;
    pthread_t thread;
    begin_open(&f);
    hear_hello(&f);
    cr_assert_eq(bb_link_add_batch(&f.link, batch), 0);
    bb_link_flush(&f.link);
    say_frame(&f, "unread", 6, false);
    struct reader reader = {.fd = f.peer};
    cr_assert_eq(pthread_create(&thread, NULL, read_to_the_end, &reader), 0);
    bb_link_finish(&f.link, PATIENCE_MS);
    (void)pthread_join(thread, NULL);
    cr_assert_eq(reader.n, len);
    cr_assert_eq(batch->refs, 1);
    bb_batch_unref(batch);
    end(&f);
}

Test(bus_link, finishing_does_not_wait_for_who_does_not_read)
{
    struct fixture f;
    struct bb_pool pool = {.usual = 1};
    struct bb_batch *batch = batch_new(&pool, 4 << 20, 1);
    begin_open(&f);
    cr_assert_eq(bb_link_add_batch(&f.link, batch), 0);
    bb_link_flush(&f.link);
    bb_link_finish(&f.link, 20);
    cr_assert_eq(f.link.state, BB_LINK_CLOSED);
    cr_assert_eq(batch->refs, 1);
    bb_batch_unref(batch);
    end(&f);
}

Test(bus_link, a_link_is_opened_again_and_nothing_of_the_last_time_is_left)
{
    struct fixture f;
    int fds[2];
    begin_open(&f);
    say_frame(&f, "half", 4, true);
    say(&f, "\0\x7fx", 3);
    cr_assert_eq(look(&f), BB_LINK_NOTHING);
    bb_link_close(&f.link);
    cr_assert_eq(look(&f), BB_LINK_NOTHING);
    (void)close(f.peer);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    f.peer = fds[1];
    bb_link_begin(&f.link, "ipc://test", fds[0], f.now, OPEN_MS);
    say_hello(&f);
    cr_assert_eq(await(&f), BB_LINK_OPENED);
    say_frame(&f, "whole", 5, false);
    expect_message(&f, "whole", 5);
    end(&f);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A connection's bytes over a socket pair: what is copied, what is referenced, and that nothing stays behind. */
#include "proto/base/error.h"

#include "broker/plug/conn.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGE ((size_t)1 << 20)

struct fixture {
    int fds[2]; /* ours, the peer's */
    struct bk_meter meter;
    struct bk_conn_out out;
    struct bk_conn_in in;
    struct bk_bytes *spare;
};

static void setup(struct fixture *f)
{
    *f = (struct fixture){0};
    atomic_init(&f->meter.bytes, 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, f->fds), 0);
}

static size_t alive(struct fixture *f)
{
    return atomic_load(&f->meter.bytes);
}

static void teardown(struct fixture *f)
{
    bk_conn_out_fini(&f->out);
    bk_conn_in_fini(&f->in);
    bk_bytes_unref(f->spare);
    cr_assert_eq(alive(f), 0, "all bytes are let go");
    (void)close(f->fds[0]);
    (void)close(f->fds[1]);
}

static struct bk_bytes *bytes_of(struct fixture *f, size_t len)
{
    struct bk_bytes *bytes = bk_bytes_new(&f->meter, len);
    cr_assert_not_null(bytes);
    for (size_t i = 0; i < len; i++) {
        bytes->data[i] = (uint8_t)(i * 7 + i / 251);
    }
    bytes->len = len;
    return bytes;
}

static void peer_says(struct fixture *f, const void *data, size_t len)
{
    cr_assert_eq(send(f->fds[1], data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Read, take @taken bytes, keep the rest. */
static void turn(struct fixture *f, size_t taken, size_t wanted)
{
    cr_assert_gt(bk_conn_in_read(&f->in, &f->meter, &f->spare, f->fds[0]), 0);
    f->in.start += taken;
    cr_assert_eq(bk_conn_in_keep(&f->in, &f->meter, &f->spare, wanted), 0);
}

Test(conn, copies_are_collected_in_one_piece)
{
    struct fixture f;
    char got[16];
    setup(&f);
    cr_assert_eq(bk_conn_out_copy(&f.out, &f.meter, "ab", 2), 0);
    cr_assert_eq(bk_conn_out_copy(&f.out, &f.meter, NULL, 0), 0);
    cr_assert_eq(bk_conn_out_part(&f.out, &f.meter, &(struct bk_part){NULL, (const uint8_t *)"cd", 2}), 0);
    cr_assert_eq(f.out.n_pieces, 1);
    cr_assert_eq(f.out.bytes, 4);
    cr_assert_eq(bk_conn_out_write(&f.out, f.fds[0]), 0);
    cr_assert_eq(f.out.bytes, 0);
    cr_assert_eq(alive(&f), 0, "an idle connection keeps nothing");
    cr_assert_eq(recv(f.fds[1], got, sizeof(got), 0), 4);
    cr_assert_eq(memcmp(got, "abcd", 4), 0);
    teardown(&f);
}

Test(conn, large_parts_are_referenced_until_they_are_written)
{
    struct fixture f;
    uint8_t got[4096];
    setup(&f);
    struct bk_bytes *bytes = bytes_of(&f, 2048);
    cr_assert_eq(bk_conn_out_part(&f.out, &f.meter, &(struct bk_part){bytes, bytes->data, 1024}), 0);
    cr_assert_eq(bk_conn_out_part(&f.out, &f.meter, &(struct bk_part){bytes, bytes->data + 1024, 1024}), 0);
    cr_assert_eq(f.out.n_pieces, 1, "what lies side by side is one piece");
    cr_assert_eq(atomic_load(&bytes->refs), 2);
    cr_assert_eq(bk_conn_out_part(&f.out, &f.meter, &(struct bk_part){bytes, bytes->data, 100}), 0);
    cr_assert_eq(atomic_load(&bytes->refs), 2, "a small part is copied");
    cr_assert_eq(bk_conn_out_write(&f.out, f.fds[0]), 0);
    cr_assert_eq(atomic_load(&bytes->refs), 1);
    cr_assert_eq(recv(f.fds[1], got, sizeof(got), 0), 2148);
    cr_assert_eq(memcmp(got, bytes->data, 2048), 0);
    bk_bytes_unref(bytes);
    teardown(&f);
}

Test(conn, what_a_socket_does_not_take_at_once_goes_out_later_and_whole)
{
    struct fixture f;
    setup(&f);
    struct bk_bytes *bytes = bytes_of(&f, LARGE);
    uint8_t *got = calloc(3, LARGE);
    size_t wanted = 0;
    size_t n_got = 0;
    for (int i = 0; i < 200; i++) { /* more pieces than one write takes */
        struct bk_part part = {bytes, bytes->data + i, 10000};
        cr_assert_eq(bk_conn_out_part(&f.out, &f.meter, &part), 0);
        cr_assert_eq(bk_conn_out_copy(&f.out, &f.meter, "-", 1), 0);
        wanted += 10001;
    }
    cr_assert_eq(bk_conn_out_write(&f.out, f.fds[0]), 0);
    cr_assert_gt(f.out.bytes, 0);
    while (n_got < wanted) {
        ssize_t n = recv(f.fds[1], got + n_got, 3001, MSG_DONTWAIT);
        cr_assert_gt(n, 0);
        n_got += (size_t)n;
        cr_assert_eq(bk_conn_out_write(&f.out, f.fds[0]), 0);
        cr_assert_leq(n_got + f.out.bytes, wanted);
    }
    cr_assert_eq(f.out.bytes, 0);
    cr_assert_eq(f.out.n_slots, 0, "the long queue is gone");
    for (size_t i = 0; i < 200; i++) {
        cr_assert_eq(memcmp(got + i * 10001, bytes->data + i, 10000), 0);
        cr_assert_eq(got[i * 10001 + 10000], '-');
    }
    cr_assert_eq(atomic_load(&bytes->refs), 1);
    free(got);
    bk_bytes_unref(bytes);
    teardown(&f);
}

Test(conn, a_peer_that_is_gone_is_an_error_of_writing_and_of_reading)
{
    struct fixture f;
    setup(&f);
    peer_says(&f, "last words", 10);
    (void)shutdown(f.fds[1], SHUT_RDWR);
    cr_assert_eq(bk_conn_out_copy(&f.out, &f.meter, "x", 1), 0);
    cr_assert_eq(bk_conn_out_write(&f.out, f.fds[0]), BB_ECLOSED);
    turn(&f, 10, 0);
    cr_assert_eq(bk_conn_in_read(&f.in, &f.meter, &f.spare, f.fds[0]), BB_ECLOSED);
    teardown(&f);
}

Test(conn, nothing_to_read_is_no_error)
{
    struct fixture f;
    setup(&f);
    cr_assert_eq(bk_conn_in_read(&f.in, &f.meter, &f.spare, f.fds[0]), 0);
    cr_assert_eq(bk_conn_in_bytes(&f.in).len, 0);
    cr_assert_eq(bk_conn_in_keep(&f.in, &f.meter, &f.spare, 2), 0);
    cr_assert_null(f.in.chunk);
    teardown(&f);
}

Test(conn, whoever_has_nothing_waiting_shares_one_chunk)
{
    struct fixture f;
    setup(&f);
    peer_says(&f, "frame", 5);
    turn(&f, 5, 0);
    size_t one = alive(&f);
    struct bk_conn_in other = {0};
    peer_says(&f, "frame", 5);
    cr_assert_eq(bk_conn_in_read(&other, &f.meter, &f.spare, f.fds[0]), 5);
    other.start += 5;
    cr_assert_eq(bk_conn_in_keep(&other, &f.meter, &f.spare, 0), 0);
    cr_assert_null(other.chunk);
    cr_assert_eq(alive(&f), one);
    teardown(&f);
}

Test(conn, bytes_that_somebody_kept_are_never_written_again)
{
    struct fixture f;
    setup(&f);
    peer_says(&f, "kept", 4);
    cr_assert_eq(bk_conn_in_read(&f.in, &f.meter, &f.spare, f.fds[0]), 4);
    struct bk_bytes *owner = bk_bytes_ref(f.in.chunk);
    const uint8_t *kept = bk_conn_in_bytes(&f.in).data;
    f.in.start += 4;
    cr_assert_eq(bk_conn_in_keep(&f.in, &f.meter, &f.spare, 0), 0);
    peer_says(&f, "next", 4);
    turn(&f, 4, 0);
    cr_assert_eq(memcmp(kept, "kept", 4), 0);
    bk_bytes_unref(owner);
    teardown(&f);
}

Test(conn, a_giant_of_which_little_came_holds_little)
{
    struct fixture f;
    setup(&f);
    for (size_t i = 1; i <= 100; i++) { /* byte by byte */
        peer_says(&f, "x", 1);
        turn(&f, 0, LARGE);
        cr_assert_eq(bk_conn_in_bytes(&f.in).len, i);
        cr_assert_eq(f.in.chunk->size, i);
    }
    struct bk_bytes *bytes = bytes_of(&f, 20000);
    peer_says(&f, bytes->data, bytes->len);
    turn(&f, 0, LARGE);
    cr_assert_leq(f.in.chunk->size, 8 * bk_conn_in_bytes(&f.in).len);
    cr_assert_eq(memcmp(bk_conn_in_bytes(&f.in).data + 100, bytes->data, bytes->len), 0);
    bk_bytes_unref(bytes);
    teardown(&f);
}

Test(conn, a_large_frame_ends_in_bytes_of_its_own_size)
{
    struct fixture f;
    setup(&f);
    struct bk_bytes *bytes = bytes_of(&f, LARGE);
    size_t sent = 0;
    while (bk_conn_in_bytes(&f.in).len < LARGE) {
        if (sent < LARGE) {
            ssize_t n = send(f.fds[1], bytes->data + sent, BB_MIN(LARGE - sent, 50000), MSG_DONTWAIT);
            cr_assert_gt(n, 0);
            sent += (size_t)n;
        }
        cr_assert_gt(bk_conn_in_read(&f.in, &f.meter, &f.spare, f.fds[0]), 0);
        if (bk_conn_in_bytes(&f.in).len < LARGE) {
            cr_assert_eq(bk_conn_in_keep(&f.in, &f.meter, &f.spare, LARGE), 0);
        }
    }
    cr_assert_eq(f.in.chunk->size, LARGE);
    cr_assert_eq(memcmp(bk_conn_in_bytes(&f.in).data, bytes->data, LARGE), 0);
    f.in.start += LARGE;
    cr_assert_eq(bk_conn_in_keep(&f.in, &f.meter, &f.spare, 0), 0);
    cr_assert_null(f.in.chunk);
    bk_bytes_unref(bytes);
    teardown(&f);
}

Test(conn, frames_are_whole_however_they_are_cut)
{
    struct fixture f;
    setup(&f);
    struct bk_bytes *bytes = bytes_of(&f, 200000);
    size_t taken = 0;
    size_t sent = 0;
    for (size_t i = 0; taken < bytes->len; i++) { /* frames of 9000 bytes in pieces of other sizes */
        static const size_t pieces[] = {1, 8999, 3, 30000, 17000, 9000, 100};
        size_t n = BB_MIN(pieces[i % BB_COUNT(pieces)], bytes->len - sent);
        if (n > 0) {
            peer_says(&f, bytes->data + sent, n);
            sent += n;
        }
        cr_assert_gt(bk_conn_in_read(&f.in, &f.meter, &f.spare, f.fds[0]), 0);
        struct bb_slice waits = bk_conn_in_bytes(&f.in);
        cr_assert_eq(memcmp(waits.data, bytes->data + taken, waits.len), 0);
        size_t whole = taken + waits.len == bytes->len ? waits.len : waits.len - waits.len % 9000;
        f.in.start += whole;
        taken += whole;
        cr_assert_eq(bk_conn_in_keep(&f.in, &f.meter, &f.spare, 9000), 0);
    }
    cr_assert_null(f.in.chunk);
    bk_bytes_unref(bytes);
    teardown(&f);
}

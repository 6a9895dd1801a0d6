/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/outlet.h"

#include "proto/base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SLOTS_FIRST 8

/* Pieces in one write: each has a head and bytes. */
#define PIECES_AT_ONCE 32

static struct bb_out_piece *piece_at(const struct bb_outlet *out, size_t i)
{
    return &out->pieces[(out->first + i) & (out->n_slots - 1)];
}

static int grow(struct bb_outlet *out)
{
    size_t n = out->n_slots > 0 ? 2 * out->n_slots : SLOTS_FIRST;
    struct bb_out_piece *pieces = malloc(n * sizeof(*pieces));
    if (pieces == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < out->n_pieces; i++) {
        pieces[i] = *piece_at(out, i);
    }
    free(out->pieces);
    out->pieces = pieces;
    out->n_slots = n;
    out->first = 0;
    return 0;
}

static struct bb_out_piece *piece_add(struct bb_outlet *out, struct bb_slice bytes)
{
    if (out->n_pieces == out->n_slots && grow(out) < 0) {
        return NULL;
    }
    struct bb_out_piece *piece = piece_at(out, out->n_pieces);
    *piece = (struct bb_out_piece){.data = bytes.data, .len = bytes.len};
    out->n_pieces++;
    return piece;
}

int bb_outlet_put(struct bb_outlet *out, struct bb_slice bytes, struct bb_batch *batch)
{
    struct bb_out_piece *piece = piece_add(out, bytes);
    if (piece == NULL) {
        return BB_ENOMEM;
    }
    piece->head_len = bb_zmtp_head(piece->head, bytes.len, false);
    piece->batch = batch;
    if (batch != NULL) {
        bb_batch_ref(batch);
    }
    return 0;
}

int bb_outlet_put_raw(struct bb_outlet *out, struct bb_slice bytes)
{
    return piece_add(out, bytes) != NULL ? 0 : BB_ENOMEM;
}

int bb_outlet_settle(struct bb_outlet *out)
{
    struct bb_out_piece *last = out->n_pieces > 0 ? piece_at(out, out->n_pieces - 1) : NULL;
    if (last == NULL || last->batch != NULL || last->copy != NULL || last->len == 0) {
        return 0;
    }
    last->copy = malloc(last->len);
    if (last->copy == NULL) {
        return BB_ENOMEM;
    }
    memcpy(last->copy, last->data, last->len);
    last->data = last->copy;
    out->copied += last->len;
    return 0;
}

static void piece_fini(struct bb_outlet *out, struct bb_out_piece *piece)
{
    bb_batch_unref(piece->batch);
    if (piece->copy != NULL) {
        out->copied -= piece->len;
        free(piece->copy);
    }
}

/* The first @n bytes are out. */
static void written(struct bb_outlet *out, size_t n)
{
    while (out->n_pieces > 0) {
        struct bb_out_piece *piece = piece_at(out, 0);
        size_t left = piece->head_len + piece->len - piece->done;
        if (n < left) {
            piece->done += n;
            return;
        }
        n -= left;
        piece_fini(out, piece);
        out->first = (out->first + 1) & (out->n_slots - 1);
        out->n_pieces--;
    }
}

/* @ret_len: bytes in all. Return: how many of @iov are used. */
static size_t gather(const struct bb_outlet *out, struct iovec *iov, size_t *ret_len)
{
    size_t n = 0;
    *ret_len = 0;
    for (size_t i = 0; i < out->n_pieces && i < PIECES_AT_ONCE; i++) {
        struct bb_out_piece *piece = piece_at(out, i);
        size_t of_head = BB_MIN(piece->done, piece->head_len);
        size_t of_data = piece->done - of_head;
        if (of_head < piece->head_len) {
            iov[n++] = (struct iovec){piece->head + of_head, piece->head_len - of_head};
        }
        if (of_data < piece->len) {
            iov[n++] = (struct iovec){bb_unconst(piece->data + of_data), piece->len - of_data};
        }
        *ret_len += piece->head_len + piece->len - piece->done;
    }
    return n;
}

int bb_outlet_write(struct bb_outlet *out, int fd)
{
    while (out->n_pieces > 0) {
        struct iovec iov[2 * PIECES_AT_ONCE];
        size_t len;
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = gather(out, iov, &len)};
        ssize_t n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? 1 : BB_ECLOSED;
        }
        written(out, (size_t)n);
        if ((size_t)n < len) {
            return 1;
        }
    }
    return 0;
}

void bb_outlet_fini(struct bb_outlet *out)
{
    for (size_t i = 0; i < out->n_pieces; i++) {
        piece_fini(out, piece_at(out, i));
    }
    free(out->pieces);
    *out = (struct bb_outlet){0};
}

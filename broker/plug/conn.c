/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/conn.h"

#include "proto/base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* What one read may bring: several of the batches that clients send. */
#define IN_CHUNK ((size_t)256 << 10)

/* Less room than this is not worth a read. */
#define IN_ROOM_MIN ((size_t)16 << 10)

/* Less than this waits in bytes of its own size, and is read on together with what others read. More waits in
 * bytes for its frame, which nobody else fills: what the core keeps of it pins nothing beside it. They hold a
 * few times what has come at most: a peer that announces much and sends nothing holds nothing. */
#define IN_LITTLE ((size_t)8 << 10)
#define IN_GROWTH 8

/* The first is for one message to each of very many, the others for a queue. */
#define OUT_CHUNK_FIRST ((size_t)1 << 10)
#define OUT_CHUNK       ((size_t)16 << 10)

/* Smaller parts are copied: a reference costs a piece, and may pin much more than it is. */
#define REFERENCE_MIN ((size_t)1 << 10)

#define IOV_MAX_HERE 64

/* An idle connection keeps a queue of this size at most. */
#define SLOTS_KEPT 64

/* --- out ------------------------------------------------------------------------------------------ */

static struct bk_out_piece *piece_at(const struct bk_conn_out *out, size_t i)
{
    return &out->pieces[(out->first + i) & (out->n_slots - 1)];
}

static int pieces_grow(struct bk_conn_out *out)
{
    if (out->n_pieces < out->n_slots) {
        return 0;
    }
    size_t n = out->n_slots > 0 ? 2 * out->n_slots : 8;
    struct bk_out_piece *pieces = malloc(n * sizeof(*pieces));
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

static int piece_add(struct bk_conn_out *out, struct bk_bytes *owner, const uint8_t *data, size_t len)
{
    struct bk_out_piece *last = out->n_pieces > 0 ? piece_at(out, out->n_pieces - 1) : NULL;
    if (last != NULL && last->owner == owner && last->data + last->len == data) {
        last->len += len;
    } else {
        if (pieces_grow(out) < 0) {
            return BB_ENOMEM;
        }
        *piece_at(out, out->n_pieces) = (struct bk_out_piece){bk_bytes_ref(owner), data, len};
        out->n_pieces++;
    }
    out->bytes += len;
    return 0;
}

int bk_conn_out_copy(struct bk_conn_out *out, struct bk_meter *meter, const void *data, size_t len)
{
    struct bk_bytes *chunk = out->chunk;
    if (len == 0) {
        return 0; /* a piece without bytes would never be written */
    }
    if (chunk == NULL || chunk->size - chunk->len < len) {
        chunk = bk_bytes_new(meter, BB_MAX(out->n_pieces == 0 ? OUT_CHUNK_FIRST : OUT_CHUNK, len));
        if (chunk == NULL) {
            return BB_ENOMEM;
        }
        bk_bytes_unref(out->chunk);
        out->chunk = chunk;
    }
    uint8_t *to = chunk->data + chunk->len;
    memcpy(to, data, len);
    chunk->len += len;
    return piece_add(out, chunk, to, len);
}

int bk_conn_out_part(struct bk_conn_out *out, struct bk_meter *meter, const struct bk_part *part)
{
    if (part->owner == NULL || part->len < REFERENCE_MIN) {
        return bk_conn_out_copy(out, meter, part->data, part->len);
    }
    return piece_add(out, part->owner, part->data, part->len);
}

/* The first @n bytes are out. */
static void written(struct bk_conn_out *out, size_t n)
{
    out->bytes -= n;
    while (n > 0) {
        struct bk_out_piece *piece = piece_at(out, 0);
        if (n < piece->len) {
            piece->data += n;
            piece->len -= n;
            return;
        }
        n -= piece->len;
        bk_bytes_unref(piece->owner);
        out->first = (out->first + 1) & (out->n_slots - 1);
        out->n_pieces--;
    }
}

int bk_conn_out_write(struct bk_conn_out *out, int fd)
{
    struct iovec iov[IOV_MAX_HERE];
    while (out->n_pieces > 0) {
        struct msghdr message = {.msg_iov = iov};
        for (; message.msg_iovlen < out->n_pieces && message.msg_iovlen < IOV_MAX_HERE;
             message.msg_iovlen++) {
            const struct bk_out_piece *piece = piece_at(out, message.msg_iovlen);
            /* the kernel takes the bytes without const and never writes to them */
            iov[message.msg_iovlen] = (struct iovec){bb_unconst(piece->data), piece->len};
        }
        ssize_t n = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : BB_ECLOSED;
        }
        written(out, (size_t)n);
    }
    bk_bytes_unref(out->chunk); /* all is out: an idle connection keeps next to nothing */
    out->chunk = NULL;
    if (out->n_slots > SLOTS_KEPT) {
        bk_conn_out_fini(out);
    }
    return 0;
}

void bk_conn_out_fini(struct bk_conn_out *out)
{
    for (size_t i = 0; i < out->n_pieces; i++) {
        bk_bytes_unref(piece_at(out, i)->owner);
    }
    bk_bytes_unref(out->chunk);
    free(out->pieces);
    *out = (struct bk_conn_out){0};
}

/* --- in ------------------------------------------------------------------------------------------- */

/* The shared chunk with room for what waits and a read that is worth it, or a new one. */
static struct bk_bytes *shared_take(struct bk_meter *meter, struct bk_bytes **spare)
{
    struct bk_bytes *chunk = *spare;
    *spare = NULL;
    return chunk != NULL ? chunk : bk_bytes_new(meter, IN_CHUNK);
}

/* The frames in front of @end were taken, what is behind was copied away. */
static void shared_leave(struct bk_bytes **spare, struct bk_bytes *chunk, size_t end)
{
    bool kept = atomic_load_explicit(&chunk->refs, memory_order_acquire) > 1;
    chunk->len = kept ? end : 0;
    if (chunk->size - chunk->len >= IN_ROOM_MIN) {
        *spare = chunk;
    } else {
        bk_bytes_unref(chunk);
    }
}

/* Read into the shared chunk, behind a copy of the little that waits. */
static int share(struct bk_conn_in *in, struct bk_meter *meter, struct bk_bytes **spare)
{
    struct bb_slice rest = bk_conn_in_bytes(in);
    struct bk_bytes *chunk = shared_take(meter, spare);
    if (chunk == NULL) {
        return BB_ENOMEM;
    }
    size_t start = chunk->len;
    if (rest.len > 0) {
        memcpy(chunk->data + start, rest.data, rest.len);
        chunk->len += rest.len;
    }
    bk_bytes_unref(in->chunk);
    *in = (struct bk_conn_in){.chunk = chunk, .start = start, .shared = true};
    return 0;
}

ssize_t bk_conn_in_read(struct bk_conn_in *in, struct bk_meter *meter, struct bk_bytes **spare, int fd)
{
    if (bk_conn_in_bytes(in).len < IN_LITTLE && share(in, meter, spare) < 0) {
        return BB_ENOMEM;
    }
    ssize_t n = 0;
    do {
        n = recv(fd, in->chunk->data + in->chunk->len, in->chunk->size - in->chunk->len, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return 0;
    }
    if (n <= 0) {
        return BB_ECLOSED;
    }
    in->chunk->len += (size_t)n;
    return n;
}

struct bb_slice bk_conn_in_bytes(const struct bk_conn_in *in)
{
    return in->chunk == NULL ? (struct bb_slice){0}
                             : bb_slice(in->chunk->data + in->start, in->chunk->len - in->start);
}

int bk_conn_in_keep(struct bk_conn_in *in, struct bk_meter *meter, struct bk_bytes **spare, size_t wanted)
{
    struct bb_slice rest = bk_conn_in_bytes(in);
    struct bk_bytes *chunk = NULL;
    if (in->chunk == NULL || (rest.len > 0 && !in->shared && in->chunk->len < in->chunk->size)) {
        return 0;
    }
    if (rest.len > 0) {
        chunk = bk_bytes_new(meter, rest.len < IN_LITTLE ? rest.len : BB_MIN(wanted, IN_GROWTH * rest.len));
        if (chunk == NULL) {
            return BB_ENOMEM;
        }
        memcpy(chunk->data, rest.data, rest.len);
        chunk->len = rest.len;
    }
    if (in->shared) {
        shared_leave(spare, in->chunk, in->start);
    } else {
        bk_bytes_unref(in->chunk);
    }
    *in = (struct bk_conn_in){.chunk = chunk};
    return 0;
}

void bk_conn_in_fini(struct bk_conn_in *in)
{
    bk_bytes_unref(in->chunk);
    *in = (struct bk_conn_in){0};
}

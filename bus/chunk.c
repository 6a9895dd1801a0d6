/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/chunk.h"

#include "proto/base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

/* What one read may bring: several of the messages that a broker sends. */
#define CHUNK ((size_t)256 << 10)

/* Less room than this is not worth a read, as long as little has to be moved for more. */
#define ROOM_MIN ((size_t)16 << 10)

/* A chunk of one large frame has room for so many times what has come of it. */
#define GROWTH 8

static struct bb_chunk *chunk_new(size_t size)
{
    struct bb_chunk *chunk = malloc(sizeof(*chunk) + size);
    if (chunk != NULL) {
        atomic_init(&chunk->refs, 1);
        chunk->size = size;
        chunk->len = 0;
    }
    return chunk;
}

static void chunk_unref(struct bb_chunk *chunk)
{
    if (chunk != NULL && atomic_fetch_sub_explicit(&chunk->refs, 1, memory_order_acq_rel) == 1) {
        free(chunk);
    }
}

void bb_frame_fini(struct bb_frame *frame)
{
    chunk_unref(frame->chunk);
    *frame = (struct bb_frame){0};
}

struct bb_frame bb_inlet_frame(const struct bb_inlet *in, struct bb_slice data)
{
    (void)atomic_fetch_add_explicit(&in->chunk->refs, 1, memory_order_relaxed);
    return (struct bb_frame){in->chunk, data.data, data.len};
}

/* Whether reading goes on where it is. What is wanted never ends where the bytes do. */
static bool has_room(const struct bb_inlet *in, size_t wanted)
{
    const struct bb_chunk *chunk = in->chunk;
    if (chunk == NULL) {
        return false;
    }
    size_t room = chunk->size - chunk->len;
    if (wanted > CHUNK) {
        return in->start == 0 && room > 0;
    }
    return chunk->size - in->start >= wanted && (room >= ROOM_MIN || chunk->len - in->start >= ROOM_MIN);
}

/* What waits is moved to the front of the chunk if nobody else holds it, else to the front of a new one. */
static int make_room(struct bb_inlet *in, size_t wanted)
{
    struct bb_slice rest = bb_inlet_bytes(in);
    struct bb_chunk *chunk = in->chunk;
    bool is_usual = chunk != NULL && chunk->size == CHUNK;
    bool is_ours = is_usual && atomic_load_explicit(&chunk->refs, memory_order_acquire) == 1;
    if (!(is_ours && rest.len == 0) && has_room(in, wanted)) {
        return 0;
    }
    if (!is_ours || in->start == 0) {
        size_t size = wanted <= CHUNK ? CHUNK : BB_MAX(CHUNK, BB_MIN(wanted, GROWTH * rest.len));
        chunk = is_ours && rest.len == 0 ? chunk : chunk_new(size);
    }
    if (chunk == NULL) {
        return BB_ENOMEM;
    }
    if (rest.len > 0) {
        memmove(chunk->data, rest.data, rest.len);
    }
    chunk->len = rest.len;
    if (chunk != in->chunk) {
        chunk_unref(in->chunk);
    }
    *in = (struct bb_inlet){.chunk = chunk};
    return 0;
}

int bb_inlet_read(struct bb_inlet *in, int fd, size_t wanted, bool *ret_drained)
{
    if (make_room(in, wanted) < 0) {
        return BB_ENOMEM;
    }
    struct bb_chunk *chunk = in->chunk;
    size_t room = chunk->size - chunk->len;
    ssize_t n = 0;
    do {
        n = recv(fd, chunk->data + chunk->len, room, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    *ret_drained = n < (ssize_t)room;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        return 0;
    }
    if (n <= 0) {
        errno = n == 0 ? 0 : errno;
        return BB_ECLOSED;
    }
    chunk->len += (size_t)n;
    return (int)n;
}

void bb_inlet_fini(struct bb_inlet *in)
{
    chunk_unref(in->chunk);
    *in = (struct bb_inlet){0};
}

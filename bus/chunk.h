/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read from a socket: it lies in chunks that the messages in them share. Reading goes on behind what
 * is kept, so many small reads fill one chunk. A chunk is freed by who lets go of it last, on any thread.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct bb_chunk {
    atomic_uint refs;
    size_t size;
    size_t len;
    uint8_t data[];
};

/* One frame of a message. */
struct bb_frame {
    struct bb_chunk *chunk; /* which it holds; NULL: it is borrowed */
    const uint8_t *data;
    size_t len;
};

/** bb_frame_fini() - let go of its chunk. */
void bb_frame_fini(struct bb_frame *frame);

struct bb_inlet {
    struct bb_chunk *chunk; /* NULL before the first read */
    size_t start;           /* of what was not taken */
};

/**
 * bb_inlet_read() - read once, as much as there is room for
 * @wanted:      bytes that whoever takes them needs in all, as far as is known; more than there are
 * @ret_drained: the socket has no more for now
 *
 * A frame larger than a chunk gets one of its own, which grows with what has come: who announces much and
 * sends nothing makes it hold nothing.
 *
 * Return: bytes read; 0: nothing now; BB_ECLOSED: the peer is gone, errno says why or is 0; BB_ENOMEM.
 */
BB_MUST_CHECK int bb_inlet_read(struct bb_inlet *in, int fd, size_t wanted, bool *ret_drained);

/** bb_inlet_bytes() - what was read and not taken. */
static inline struct bb_slice bb_inlet_bytes(const struct bb_inlet *in)
{
    return in->chunk == NULL ? (struct bb_slice){0}
                             : bb_slice(in->chunk->data + in->start, in->chunk->len - in->start);
}

/** bb_inlet_frame() - hold @data, which lies in bb_inlet_bytes(), beyond its being taken. */
struct bb_frame bb_inlet_frame(const struct bb_inlet *in, struct bb_slice data);

void bb_inlet_fini(struct bb_inlet *in);

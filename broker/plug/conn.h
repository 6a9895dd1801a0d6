/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection's bytes: what has come and is not yet a whole frame, and what is on its way out. Large messages
 * are neither copied in nor out: they are read into shared bytes that the core may keep, and written from those it
 * gives. One thread.
 */
#pragma once

#include "broker/core/bytes.h"
#include "broker/core/core.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A piece on its way out. */
struct bk_out_piece {
    struct bk_bytes *owner;
    const uint8_t *data;
    size_t len;
};

struct bk_conn_out {
    struct bk_out_piece *pieces; /* a queue: from first to first + n_pieces */
    size_t first;
    size_t n_pieces;
    size_t n_slots;
    size_t bytes;           /* not yet written */
    struct bk_bytes *chunk; /* copies are collected here */
};

struct bk_conn_in {
    struct bk_bytes *chunk; /* what is read is behind start; NULL: nothing waits */
    size_t start;
    bool shared; /* between read and keep: the chunk is the one of all connections */
};

/** bk_conn_out_copy() - append a copy of @len bytes. Return: 0 or BB_ENOMEM. */
int bk_conn_out_copy(struct bk_conn_out *out, struct bk_meter *meter, const void *data, size_t len);

/** bk_conn_out_part() - append a part, by reference if it has an owner and is worth it. Return: 0 or BB_ENOMEM. */
int bk_conn_out_part(struct bk_conn_out *out, struct bk_meter *meter, const struct bk_part *part);

/** bk_conn_out_write() - write what the socket takes. Return: 0 (see out->bytes for what is left) or BB_ECLOSED. */
int bk_conn_out_write(struct bk_conn_out *out, int fd);

void bk_conn_out_fini(struct bk_conn_out *out);

/**
 * bk_conn_in_read() - read what the socket has, up to one chunk
 * @spare: a chunk shared by all connections of which little waits: taken here, left by bk_conn_in_keep()
 *
 * Return: bytes read; 0: nothing now; BB_ECLOSED: the peer is gone; BB_ENOMEM.
 */
ssize_t bk_conn_in_read(struct bk_conn_in *in, struct bk_meter *meter, struct bk_bytes **spare, int fd);

/** bk_conn_in_bytes() - what waits. */
struct bb_slice bk_conn_in_bytes(const struct bk_conn_in *in);

/**
 * bk_conn_in_keep() - after frames were taken: keep the rest, which is not a whole frame
 * @wanted: bytes of the frame that has begun, as far as is known; more than wait
 *
 * Return: 0 or BB_ENOMEM.
 */
int bk_conn_in_keep(struct bk_conn_in *in, struct bk_meter *meter, struct bk_bytes **spare, size_t wanted);

void bk_conn_in_fini(struct bk_conn_in *in);

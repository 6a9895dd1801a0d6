/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one message brought to a subscription: gaps, then events that are read straight out of its frames.
 * Has no lock: it belongs to whoever reads it.
 */
#pragma once

#include "proto/wire/event.h"
#include "proto/wire/message.h"

#include "bus/busbar.h"
#include "bus/chunk.h"

/* The reason of a gap that the library itself found. */
#define BB_REASON_TRANSPORT "transport"

struct bb_gap_node {
    struct bb_gap_node *next;
    struct bb_gap gap;
    char text[]; /* channel and reason */
};

/* What a message says of its own (PROTOCOL 7.4, retained). */
enum bb_retained {
    BB_RETAINED_NO,
    BB_RETAINED_VALUES,
    BB_RETAINED_LAST, /* and these were the last */
};

/* A sequence of a channel, and the life that it is of (PROTOCOL 7.5). */
struct bb_spot {
    uint64_t sequence;
    uint64_t life; /* 0: not known */
};

/* Where a channel is when a delivery has been worked off. */
struct bb_move {
    struct bb_place *place;
    struct bb_spot to;
};

struct bb_delivery {
    struct bb_delivery *next;
    struct bb_gap_node *gaps; /* those that are not read yet and those that are */
    struct bb_gap_node *gaps_last;
    struct bb_gap_node *gap_at; /* the next to be read */
    struct bb_frame *frames;
    size_t n_frames;
    size_t frame_at;        /* the next that `rest` does not cover */
    struct bb_buf flat;     /* bytes of frames that had to be joined */
    struct bb_slice rest;   /* what is left of the current frame */
    struct bb_slice ranges; /* as the message has them */
    struct bb_block block;  /* the current one, its sequence and instance those of the next event */
    uint64_t server;
    uint64_t connection; /* that it came by */
    uint64_t bytes;      /* of blocks */
    uint64_t n_events;   /* read so far */
    enum bb_retained retained;
    bool is_mark_read;     /* that the retained values were the last */
    bool is_broken;        /* its bytes could not be followed to the end */
    struct bb_move *moves; /* of a durable subscription, else NULL */
    size_t n_moves;
};

/** bb_delivery_add_gap() - one more gap behind the others. Return: 0 or BB_ENOMEM. */
int bb_delivery_add_gap(struct bb_delivery *delivery,
                        struct bb_slice channel,
                        uint64_t from,
                        uint64_t to,
                        uint64_t count,
                        struct bb_slice reason);

/**
 * bb_delivery_read() - the next gaps and events
 *
 * Bytes that cannot be followed become gaps with the reason `transport`. Return: how many, 0 at the end.
 */
size_t bb_delivery_read(struct bb_delivery *delivery, struct bb_event *events, size_t max);

/**
 * bb_delivery_keep() - move @delivery, of which nothing was read yet and whose frames lie with the caller, to
 * memory of its own
 *
 * A small one is copied, so that it does not hold on to a chunk that it is the least part of. Return: to be
 * freed with bb_deliveries_free(), @delivery is void then; NULL without memory.
 */
struct bb_delivery *bb_delivery_keep(struct bb_delivery *delivery);

/** bb_delivery_fini() - let go of the frames and free what hangs on it; not the struct. */
void bb_delivery_fini(struct bb_delivery *delivery);

/** bb_deliveries_free() - fini and free a list of them. */
void bb_deliveries_free(struct bb_delivery *delivery);

/** bb_frames_join() - append all bytes of frames @from to @n - 1. */
void bb_frames_join(const struct bb_frame *frames, size_t from, size_t n, struct bb_buf *out);

/** bb_frames_size() - bytes of frames @from to @n - 1. */
size_t bb_frames_size(const struct bb_frame *frames, size_t from, size_t n);

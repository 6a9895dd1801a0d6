/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Events as they lie in a batch (PROTOCOL 4) and the heads of blocks (PROTOCOL 7.4). Reading is the hot path of
 * broker and clients: no allocation, one pass, everything checked.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stdint.h>

#define BB_EVENT_ID_MAX     64
#define BB_HEADERS_MAX      64
#define BB_PAYLOAD_TYPE_MAX 128

/* One event of a batch; borrows from the batch. */
struct bb_event_view {
    struct bb_slice raw;        /* the whole event */
    struct bb_slice path;       /* text */
    struct bb_slice payload;    /* one MessagePack value */
    struct bb_slice attributes; /* a MessagePack map, or empty */
    bool has_ttl;               /* of its attributes */
    bool has_source_time;
    int error; /* why this event must be refused, 0 if it is good */
};

/* PROTOCOL 4, the attributes. Slices borrow from the event. */
struct bb_attributes {
    struct bb_slice id;      /* one MessagePack value, integer or text; empty if there is none */
    struct bb_slice headers; /* one MessagePack map of texts; empty if there is none */
    struct bb_slice payload_type;
    int64_t source_time; /* microseconds since the epoch */
    int32_t priority;
    bool has_source_time;
    bool has_ttl;
    uint64_t ttl_ms; /* time to live, 1 to BB_TTL_MAX_MS */
};

/* 2^53, so that every language can say it. */
#define BB_TTL_MAX_MS (UINT64_C(1) << 53)

/* PROTOCOL 7.4. */
struct bb_block {
    uint64_t session;
    uint64_t time; /* microseconds since the epoch */
    uint64_t source;
    uint64_t sequence; /* of the first event */
    uint64_t instance; /* of the first event */
    uint64_t count;
    uint64_t length;
};

/* Most bytes that the head of a block can have. */
#define BB_BLOCK_HEAD_MAX 64

/**
 * bb_event_read() - take the next event off the front of @rest
 * @rest:       distrusted bytes of concatenated events; advanced past the event on success
 * @ret_event:  the event; its @error is set when its bytes can be followed but it must be refused
 *              (BB_EPATH, BB_EEVENT, BB_EUTF8, BB_ETOOBIG)
 *
 * Return: 0; BB_EMALFORMED or BB_ETOODEEP when the bytes cannot be followed: nothing after them can be
 * either.
 */
int bb_event_read(struct bb_slice *rest, struct bb_event_view *ret_event);

/** bb_event_attributes() - read the attributes of an event; empty bytes are none. Return: 0 or BB_EEVENT. */
int bb_event_attributes(struct bb_slice attributes, struct bb_attributes *ret_attributes);

/** bb_event_has_expired() - whether the time to live of an event that was taken at @time is over @now, both in us. */
bool bb_event_has_expired(const struct bb_event_view *event, uint64_t time, uint64_t now);

/** bb_event_write() - append an event; @payload is one MessagePack value; @attributes NULL for none. */
void bb_event_write(struct bb_buf *out,
                    struct bb_slice path,
                    struct bb_slice payload,
                    const struct bb_attributes *attributes);

/** bb_block_write() - write the head of @block to @to, which has BB_BLOCK_HEAD_MAX bytes; returns its length. */
size_t bb_block_write(uint8_t *to, const struct bb_block *block);

/** bb_block_read_head() - take the head of a block off the front of @rest. Return: 0 or BB_EMALFORMED. */
int bb_block_read_head(struct bb_slice *rest, struct bb_block *ret_block);

/** bb_block_read() - the same, and its events must follow in @rest. Return: 0 or BB_EMALFORMED. */
int bb_block_read(struct bb_slice *rest, struct bb_block *ret_block);

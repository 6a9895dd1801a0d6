/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event object (PROTOCOL 10.1), read and written as JSON, and written as a MessagePack map for the
 * publish window. Pure; safe from any thread.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/wire/event.h"

#include <jansson.h>

/* What the broker says of an event. */
struct bb_event_meta {
    uint64_t server;
    uint64_t session;
    uint64_t instance;
    uint64_t sequence;
    uint64_t time;   /* microseconds since the epoch */
    uint64_t source; /* number of the client, 0 for a window */
};

enum bb_event_shape {
    BB_SHAPE_EVENT,
    BB_SHAPE_NEXUS, /* the four members of async_nexus: id, type, priority, payload */
};

/**
 * bb_event_json_write() - append the event object as compact JSON
 * @event: found good by bb_event_read()
 *
 * In the shape of an event the members id, path, seq, time, source_time, priority, source, headers and
 * payload are always there, in this order; client_id and payload_type only with a value.
 *
 * Return: 0; BB_EEVENT, what bb_mp_to_json() says of the payload, or BB_ENOMEM, and @out has its old content.
 */
int bb_event_json_write(struct bb_buf *out,
                        const struct bb_event_meta *meta,
                        const struct bb_event_view *event,
                        enum bb_event_shape shape);

/** bb_event_map_write() - the same object as a MessagePack map, the payload byte for byte; same errors. */
int bb_event_map_write(struct bb_buf *out,
                       const struct bb_event_meta *meta,
                       const struct bb_event_view *event);

/**
 * bb_events_json_read() - append the events for an event object or an array of them
 * @value: borrowed, not changed, distrusted; from bb_json_parse()
 *
 * Of the members, those of the broker are ignored; of the publisher's, null is as good as absent. What is no event, or cannot
 * be held, becomes an event that bb_event_read() finds bad, for the same reason: so the core refuses it alone, by its
 * index, as it refuses the bad one of any publisher (PROTOCOL 6.2).
 *
 * Return: 0; BB_ETOODEEP, BB_ETOOBIG, BB_ENOMEM, and @out has its old content.
 */
int bb_events_json_read(json_t *value, struct bb_buf *out);

/**
 * bb_events_json_read_pieces() - the same from a text of which bb_json_parse() says that something in it cannot be held
 * or is not UTF-8
 * @text: without space in front
 *
 * Return: as above, or BB_EMALFORMED.
 */
int bb_events_json_read_pieces(struct bb_slice text, struct bb_buf *out);

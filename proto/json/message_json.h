/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in JSON (PROTOCOL 10): converted at the edge, from and to the bytes that the middle works with. Pure; safe
 * from any thread. */
#pragma once

#include "proto/base/buf.h"
#include "proto/json/event_json.h"

/** bb_message_is_json() - whether the first byte says so (PROTOCOL 2). */
bool bb_message_is_json(struct bb_slice bytes);

/**
 * bb_message_json_read() - append the MessagePack form of a message in JSON: with `op` any message, without it
 * bare events
 * @err: gets a sentence for a person; may be NULL
 *
 * Return: 0; BB_EUNKNOWN for an unknown op, BB_EMALFORMED for fields that are not what they should be, or what
 * bb_json_parse() and bb_events_json_read() say; @out has its old content.
 */
int bb_message_json_read(struct bb_slice text, struct bb_buf *out, struct bb_buf *err);

/**
 * bb_message_json_write() - append the JSON form of a message of the broker
 * @bytes:  the message, head and what follows
 * @server: the broker's number, for event ids
 * @shape:  of the events it carries
 *
 * Return: 0; what bb_msg_decode(), bb_block_read() and bb_event_read() say, or BB_ENOMEM, and @out has its old
 * content.
 */
int bb_message_json_write(struct bb_slice bytes,
                          uint64_t server,
                          enum bb_event_shape shape,
                          struct bb_buf *out);

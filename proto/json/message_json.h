/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in JSON (PROTOCOL 10): converted at the edge, from and to the bytes that the middle works with. Pure; safe
 * from any thread. */
#pragma once

#include "proto/base/buf.h"
#include "proto/json/event_json.h"
#include "proto/wire/message.h"

/** bb_message_is_json() - whether the first byte says so (PROTOCOL 2). */
bool bb_message_is_json(struct bb_slice bytes);

/* What was recognised of a message, also of one that cannot be taken. */
struct bb_message_head {
    enum bb_msg_type type; /* BB_MSG_NONE: unknown, or bare events */
    uint64_t corr;         /* of a publish its number; 0: unknown */
};

/**
 * bb_message_json_read() - append the MessagePack form of a message in JSON: with `op` any message, without it
 * bare events
 * @ret_head: filled as far as it can be, whatever is returned
 * @err:      gets a sentence for a person if there is more to say than bb_strerror() does; may be NULL
 *
 * Events that must be refused do not fail the message: see bb_events_json_read().
 *
 * Return: 0; BB_EUNKNOWN for an unknown op; BB_EINVAL for members that the message does not have and values that cannot be
 * held; BB_EMALFORMED for members that are missing or of another kind, and for what is no JSON; BB_ETOODEEP,
 * BB_ETOOBIG, BB_EUTF8, BB_ENOMEM; @out has its old content.
 */
int bb_message_json_read(struct bb_slice text,
                         struct bb_buf *out,
                         struct bb_message_head *ret_head,
                         struct bb_buf *err);

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

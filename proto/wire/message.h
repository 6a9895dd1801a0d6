/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages (PROTOCOL 5): the head of each as a row of typed fields, one flat struct for all of them, and
 * encode and decode that walk the rows. The JSON form (proto/json) walks the same rows.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/level.h"

#include <stddef.h>
#include <stdint.h>

#define BB_PROTOCOL_VERSION 1

/* PROTOCOL 5.1: a client's secret across reconnections. */
#define BB_CLIENT_ID_LEN 16

/* PROTOCOL 12. */
#define BB_FRAMES_MAX      16
#define BB_MESSAGE_DEFAULT ((size_t)1 << 20)
#define BB_MESSAGE_MAX     ((size_t)16 << 20)
#define BB_EVENTS_MAX      65536

enum bb_msg_type {
    BB_MSG_NONE = 0,
    BB_MSG_HELLO = 1,
    BB_MSG_PUBLISH = 2,
    BB_MSG_SUBSCRIBE = 3,
    BB_MSG_UNSUBSCRIBE = 4,
    BB_MSG_CREDIT = 5,
    BB_MSG_PING = 6,
    BB_MSG_PONG = 7,
    BB_MSG_STATUS = 8,
    BB_MSG_MATCHES = 9,
    BB_MSG_GOODBYE = 10,
    BB_MSG_CURSOR = 11,
    BB_MSG_QUERY = 12,
    BB_MSG_CHANNEL = 13,
    BB_MSG_LOG = 14,
    BB_MSG_WELCOME = 16,
    BB_MSG_SUBSCRIBED = 17,
    BB_MSG_ACK = 18,
    BB_MSG_DELIVER = 19,
    BB_MSG_GAP = 20,
    BB_MSG_RESULT = 21,
    BB_MSG_ERROR = 22,
    BB_MSG_EVENTS = 23,
    BB_MSG_ENDED = 24,
};

enum bb_field_kind {
    BB_FIELD_UINT, /* uint64_t */
    BB_FIELD_TEXT, /* struct bb_slice, UTF-8 */
    BB_FIELD_BIN,  /* struct bb_slice; nil is the empty slice */
    BB_FIELD_RAW,  /* struct bb_slice of one MessagePack value; left out is the empty slice */
};

struct bb_field {
    const char *name;
    enum bb_field_kind kind;
    size_t offset; /* in struct bb_msg */
};

#define BB_FIELDS_MAX 8

struct bb_msg_row {
    enum bb_msg_type type;
    const char *name;
    size_t n_fields;
    size_t n_required; /* the rest may be left out */
    struct bb_field fields[BB_FIELDS_MAX];
};

/* Only the fields of the message's row mean anything. Slices borrow from the decoded bytes. */
struct bb_msg {
    enum bb_msg_type type;
    uint64_t corr;
    uint64_t version;
    uint64_t epoch;
    uint64_t server;
    uint64_t run;
    uint64_t client_number;
    uint64_t last;
    uint64_t number;
    uint64_t level;
    uint64_t sub;
    uint64_t bytes;
    uint64_t events;
    uint64_t token;
    uint64_t session;
    uint64_t min;
    uint64_t timeout;
    uint64_t about;
    uint64_t more;
    uint64_t retained;
    struct bb_slice client;
    struct bb_slice options;
    struct bb_slice patterns;
    struct bb_slice from;
    struct bb_slice positions;
    struct bb_slice ends;
    struct bb_slice limits;
    struct bb_slice features;
    struct bb_slice entries;
    struct bb_slice ranges;
    struct bb_slice gaps;
    struct bb_slice value;
    struct bb_slice detail;
    struct bb_slice what;
    struct bb_slice code;
    struct bb_slice text;
    struct bb_slice path;
    struct bb_slice name;
    struct bb_slice action;
    struct bb_slice query;
    struct bb_slice settings;
    struct bb_slice body; /* what follows the head: events or blocks */
};

/** bb_msg_row_find() - the row of @type, NULL if there is none. */
const struct bb_msg_row *bb_msg_row_find(uint64_t type);

/** bb_msg_row_find_name() - the row of the message called @name, NULL if there is none. */
const struct bb_msg_row *bb_msg_row_find_name(struct bb_slice name);

/** bb_msg_is_head() - whether @bytes begin with a head (array whose first element is an integer). */
bool bb_msg_is_head(struct bb_slice bytes);

/**
 * bb_msg_decode() - read the head at the beginning of @bytes
 * @bytes:      distrusted; borrowed by @ret_msg
 * @ret_msg:    the message; untouched on failure except @type and @corr, which hold what could be read
 *
 * Everything in the head is bounded and checked for well-formedness; what RAW fields mean is for the
 * caller to read. The body is not looked at.
 *
 * Return: 0, BB_EMALFORMED, BB_ETOODEEP, BB_ETOOBIG, BB_EUTF8, or BB_EUNKNOWN for a type without a row.
 */
int bb_msg_decode(struct bb_slice bytes, struct bb_msg *ret_msg);

/** bb_msg_count_fields() - the fields of @msg without those at the end that are left out. */
size_t bb_msg_count_fields(const struct bb_msg *msg, const struct bb_msg_row *row);

/** bb_msg_encode() - append the head of @msg to @out; errors stick to @out. Empty RAW fields at the end
 * are left out, others become nil. */
void bb_msg_encode(struct bb_buf *out, const struct bb_msg *msg);

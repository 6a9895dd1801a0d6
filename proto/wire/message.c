/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/message.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"
#include "proto/wire/scan.h"

#include <string.h>

/* clang-format off */
#define UINT(f) {#f, BB_FIELD_UINT, offsetof(struct bb_msg, f)}
#define TEXT(f) {#f, BB_FIELD_TEXT, offsetof(struct bb_msg, f)}
#define BIN(f)  {#f, BB_FIELD_BIN, offsetof(struct bb_msg, f)}
#define RAW(f)  {#f, BB_FIELD_RAW, offsetof(struct bb_msg, f)}

static const struct bb_msg_row rows[] = {
    {BB_MSG_HELLO, "hello", 5, 4, {UINT(corr), UINT(version), BIN(client), UINT(epoch), RAW(options)}},
    {BB_MSG_PUBLISH, "publish", 3, 1, {UINT(number), UINT(level), RAW(options)}},
    {BB_MSG_SUBSCRIBE, "subscribe", 5, 3, {UINT(corr), UINT(sub), RAW(patterns), RAW(from), RAW(options)}},
    {BB_MSG_UNSUBSCRIBE, "unsubscribe", 2, 2, {UINT(corr), UINT(sub)}},
    {BB_MSG_CREDIT, "credit", 3, 3, {UINT(sub), UINT(bytes), UINT(events)}},
    {BB_MSG_PING, "ping", 1, 1, {UINT(token)}},
    {BB_MSG_PONG, "pong", 1, 1, {UINT(token)}},
    {BB_MSG_STATUS, "status", 2, 1, {UINT(corr), RAW(what)}},
    {BB_MSG_MATCHES, "matches", 4, 2, {UINT(corr), TEXT(path), UINT(min), UINT(timeout)}},
    {BB_MSG_GOODBYE, "goodbye", 2, 1, {TEXT(code), TEXT(text)}},
    {BB_MSG_CURSOR, "cursor", 3, 2, {UINT(corr), TEXT(name), RAW(positions)}},
    {BB_MSG_QUERY, "query", 2, 2, {UINT(corr), RAW(query)}},
    {BB_MSG_CHANNEL, "channel", 4, 2, {UINT(corr), TEXT(action), TEXT(name), RAW(settings)}},
    {BB_MSG_LOG, "log", 3, 2, {UINT(corr), TEXT(action), RAW(options)}},
    {BB_MSG_WELCOME, "welcome", 8, 8, {UINT(corr), UINT(version), UINT(server), UINT(run), UINT(client_number), UINT(last), RAW(limits), RAW(features)}},
    {BB_MSG_SUBSCRIBED, "subscribed", 5, 4, {UINT(corr), UINT(sub), UINT(session), RAW(positions), RAW(ends)}},
    {BB_MSG_ACK, "ack", 1, 1, {RAW(entries)}},
    {BB_MSG_DELIVER, "deliver", 4, 2, {UINT(sub), RAW(ranges), RAW(gaps), UINT(retained)}},
    {BB_MSG_GAP, "gap", 2, 2, {UINT(sub), RAW(gaps)}},
    {BB_MSG_RESULT, "result", 2, 2, {UINT(corr), RAW(value)}},
    {BB_MSG_ERROR, "error", 5, 4, {UINT(about), UINT(corr), TEXT(code), TEXT(text), RAW(detail)}},
    {BB_MSG_EVENTS, "events", 2, 2, {UINT(corr), UINT(more)}},
    {BB_MSG_ENDED, "ended", 3, 2, {UINT(sub), TEXT(code), TEXT(text)}},
};
/* clang-format on */

/* Type to row without a search: message types are small numbers. */
static const uint8_t row_of_type[BB_MSG_ENDED + 1] = {
    [BB_MSG_HELLO] = 1,    [BB_MSG_PUBLISH] = 2,  [BB_MSG_SUBSCRIBE] = 3, [BB_MSG_UNSUBSCRIBE] = 4,
    [BB_MSG_CREDIT] = 5,   [BB_MSG_PING] = 6,     [BB_MSG_PONG] = 7,      [BB_MSG_STATUS] = 8,
    [BB_MSG_MATCHES] = 9,  [BB_MSG_GOODBYE] = 10, [BB_MSG_CURSOR] = 11,   [BB_MSG_QUERY] = 12,
    [BB_MSG_CHANNEL] = 13, [BB_MSG_LOG] = 14,     [BB_MSG_WELCOME] = 15,  [BB_MSG_SUBSCRIBED] = 16,
    [BB_MSG_ACK] = 17,     [BB_MSG_DELIVER] = 18, [BB_MSG_GAP] = 19,      [BB_MSG_RESULT] = 20,
    [BB_MSG_ERROR] = 21,   [BB_MSG_EVENTS] = 22,  [BB_MSG_ENDED] = 23,
};

const struct bb_msg_row *bb_msg_row_find(uint64_t type)
{
    if (type >= BB_COUNT(row_of_type) || row_of_type[type] == 0) {
        return NULL;
    }
    return &rows[row_of_type[type] - 1];
}

const struct bb_msg_row *bb_msg_row_find_name(struct bb_slice name)
{
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        if (bb_slice_equal(name, bb_slice_str(rows[i].name))) {
            return &rows[i];
        }
    }
    return NULL;
}

bool bb_msg_is_head(struct bb_slice bytes)
{
    struct bb_mp_reader reader = bb_mp_reader(bytes);
    return bb_mp_read_array(&reader) > 0 && reader.error == 0 && bb_mp_peek_type(&reader) == BB_MP_UINT;
}

/* One field that must be well-formed whatever is in it. */
static struct bb_slice read_raw(struct bb_mp_reader *reader)
{
    size_t len = 0;
    struct bb_slice none = {0};
    if (reader->error != 0) {
        return none;
    }
    int r = bb_scan_value(reader->p, (size_t)(reader->end - reader->p), NULL, &len);
    if (r < 0) {
        bb_mp_reader_fail(reader, r);
        return none;
    }
    struct bb_slice raw = bb_slice(reader->p, len);
    reader->p += len;
    return raw;
}

static void read_field(struct bb_mp_reader *reader, const struct bb_field *field, struct bb_msg *msg)
{
    char *at = (char *)msg + field->offset;
    struct bb_slice value = {0};
    if (field->kind == BB_FIELD_UINT) {
        uint64_t number = bb_mp_read_uint(reader);
        memcpy(at, &number, sizeof(number));
        return;
    }
    value = read_raw(reader);
    if (reader->error == 0 && field->kind != BB_FIELD_RAW) {
        struct bb_mp_reader inner = bb_mp_reader(value);
        if (field->kind == BB_FIELD_TEXT) {
            value = bb_mp_read_str(&inner);
        } else if (bb_mp_peek_type(&inner) == BB_MP_NIL) {
            value = (struct bb_slice){0};
        } else {
            value = bb_mp_read_bin(&inner);
        }
        if (inner.error != 0) {
            bb_mp_reader_fail(reader, inner.error);
        }
    }
    memcpy(at, &value, sizeof(value));
}

/* PROTOCOL 2: an optional field that is nil is as good as left out. */
static bool skip_nil(struct bb_mp_reader *reader)
{
    if (reader->error != 0 || bb_mp_peek_type(reader) != BB_MP_NIL) {
        return false;
    }
    bb_mp_skip(reader);
    return true;
}

int bb_msg_decode(struct bb_slice bytes, struct bb_msg *ret_msg)
{
    struct bb_mp_reader reader = bb_mp_reader(bytes);
    struct bb_msg msg = {0};
    ret_msg->type = BB_MSG_NONE;
    ret_msg->corr = 0;
    uint64_t n = bb_mp_read_array(&reader);
    uint64_t type = n > 0 ? bb_mp_read_uint(&reader) : 0;
    if (n == 0 || reader.error != 0) {
        return BB_EMALFORMED;
    }
    const struct bb_msg_row *row = bb_msg_row_find(type);
    if (row == NULL) {
        return BB_EUNKNOWN;
    }
    ret_msg->type = msg.type = row->type;
    if (n - 1 < row->n_required) {
        return BB_EMALFORMED;
    }
    for (uint64_t i = 0; i < n - 1 && reader.error == 0; i++) {
        if (i < row->n_fields) {
            if (i < row->n_required || !skip_nil(&reader)) {
                read_field(&reader, &row->fields[i], &msg);
            }
            ret_msg->corr = msg.corr != 0 ? msg.corr : msg.number;
        } else {
            (void)read_raw(&reader); /* PROTOCOL 2: elements after the last known one are ignored */
        }
    }
    if (reader.error != 0) {
        return reader.error;
    }
    msg.body = bb_slice(reader.p, (size_t)(reader.end - reader.p));
    *ret_msg = msg;
    return 0;
}

static uint64_t field_uint(const struct bb_msg *msg, const struct bb_field *field)
{
    uint64_t number = 0;
    memcpy(&number, (const char *)msg + field->offset, sizeof(number));
    return number;
}

static struct bb_slice field_slice(const struct bb_msg *msg, const struct bb_field *field)
{
    struct bb_slice value = {0};
    memcpy(&value, (const char *)msg + field->offset, sizeof(value));
    return value;
}

static bool field_is_absent(const struct bb_msg *msg, const struct bb_field *field)
{
    return field->kind == BB_FIELD_UINT ? field_uint(msg, field) == 0 : field_slice(msg, field).len == 0;
}

size_t bb_msg_count_fields(const struct bb_msg *msg, const struct bb_msg_row *row)
{
    size_t n = row->n_fields;
    while (n > row->n_required && field_is_absent(msg, &row->fields[n - 1])) {
        n--;
    }
    return n;
}

void bb_msg_encode(struct bb_buf *out, const struct bb_msg *msg)
{
    const struct bb_msg_row *row = bb_msg_row_find(msg->type);
    if (row == NULL) {
        out->error = out->error != 0 ? out->error : BB_EINVAL;
        return;
    }
    size_t n = bb_msg_count_fields(msg, row);
    bb_mp_write_array(out, (uint32_t)(n + 1));
    bb_mp_write_uint(out, (uint64_t)msg->type);
    for (size_t i = 0; i < n; i++) {
        const struct bb_field *field = &row->fields[i];
        struct bb_slice value = field->kind == BB_FIELD_UINT ? (struct bb_slice){0} : field_slice(msg, field);
        if (field->kind == BB_FIELD_UINT) {
            bb_mp_write_uint(out, field_uint(msg, field));
        } else if (field->kind == BB_FIELD_TEXT) {
            bb_mp_write_str(out, value);
        } else if (value.len == 0) {
            bb_mp_write_nil(out);
        } else if (field->kind == BB_FIELD_BIN) {
            bb_mp_write_bin(out, value);
        } else {
            bb_buf_append(out, value.data, value.len);
        }
    }
}

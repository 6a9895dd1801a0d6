/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/message_json.h"

#include "proto/base/error.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

bool bb_message_is_json(struct bb_slice bytes)
{
    return bytes.len > 0 && memchr("{[ \t\r\n", bytes.data[0], 6) != NULL;
}

static int fail(struct bb_buf *err, int error, const char *name, const char *what)
{
    if (err != NULL) {
        bb_buf_reset(err);
        bb_buf_printf(err, "\"%s\" %s", name, what);
    }
    return error;
}

/* --- reading -------------------------------------------------------------------------------------- */

static int read_field(const json_t *object, const struct bb_field *field, struct bb_buf *out, struct bb_buf *err)
{
    const json_t *value = json_object_get(object, field->name);
    bool absent = value == NULL || json_is_null(value);
    switch (field->kind) {
    case BB_FIELD_UINT:
        if (!absent && (!json_is_integer(value) || json_integer_value(value) < 0)) {
            return fail(err, BB_EMALFORMED, field->name, "must be an integer that is not negative");
        }
        bb_mp_write_uint(out, absent ? 0 : (uint64_t)json_integer_value(value));
        return 0;
    case BB_FIELD_TEXT:
        if (!absent && !json_is_string(value)) {
            return fail(err, BB_EMALFORMED, field->name, "must be a string");
        }
        bb_mp_write_str(out,
                        absent ? (struct bb_slice){0}
                               : bb_slice(json_string_value(value), json_string_length(value)));
        return 0;
    case BB_FIELD_BIN:
    case BB_FIELD_RAW:
        break;
    }
    if (absent) {
        bb_mp_write_nil(out);
        return 0;
    }
    return bb_json_to_mp(value, out, err);
}

static bool is_member(const struct bb_msg_row *row, const char *name)
{
    for (size_t i = 0; i < row->n_fields; i++) {
        if (strcmp(row->fields[i].name, name) == 0) {
            return true;
        }
    }
    return strcmp(name, "op") == 0 || (row->type == BB_MSG_PUBLISH && strcmp(name, "events") == 0);
}

static int read_message(json_t *object, const struct bb_msg_row *row, struct bb_buf *out, struct bb_buf *err)
{
    const char *name = NULL;
    json_t *value = NULL;
    size_t n_events = 0;
    json_object_foreach (object, name, value) {
        if (!is_member(row, name)) {
            return fail(err, BB_EMALFORMED, name, "is not a member of this message");
        }
    }
    for (size_t i = 0; i < row->n_required; i++) {
        if (json_object_get(object, row->fields[i].name) == NULL && row->fields[i].kind != BB_FIELD_BIN) {
            return fail(err, BB_EMALFORMED, row->fields[i].name, "is missing");
        }
    }
    bb_mp_write_array(out, (uint32_t)row->n_fields + 1);
    bb_mp_write_uint(out, (uint64_t)row->type);
    for (size_t i = 0; i < row->n_fields; i++) {
        int r = read_field(object, &row->fields[i], out, err);
        if (r < 0) {
            return r;
        }
    }
    json_t *events = json_object_get(object, "events");
    if (row->type == BB_MSG_PUBLISH && events != NULL) {
        return bb_events_json_read(events, out, &n_events, err);
    }
    return 0;
}

static int read_value(json_t *value, struct bb_buf *out, struct bb_buf *err)
{
    const json_t *op = json_object_get(value, "op"); /* NULL for what is no object */
    size_t n_events = 0;
    if (op == NULL) {
        return bb_events_json_read(value, out, &n_events, err);
    }
    const struct bb_msg_row *row = NULL;
    if (json_is_string(op)) {
        row = bb_msg_row_find_name(bb_slice(json_string_value(op), json_string_length(op)));
    }
    if (row == NULL) {
        return fail(err, BB_EUNKNOWN, "op", "does not name a message");
    }
    return read_message(value, row, out, err);
}

int bb_message_json_read(struct bb_slice text, struct bb_buf *out, struct bb_buf *err)
{
    json_t *value = NULL;
    size_t before = out->len;
    int r = bb_json_parse((const char *)text.data, text.len, err, &value);
    if (r < 0) {
        return r;
    }
    r = read_value(value, out, err);
    json_decref(value);
    if (r == 0) {
        r = out->error;
    }
    if (r < 0) {
        out->len = before;
    }
    return r;
}

/* --- writing -------------------------------------------------------------------------------------- */

static int write_field(const struct bb_msg *msg, const struct bb_field *field, struct bb_buf *out)
{
    const char *at = (const char *)msg + field->offset;
    uint64_t number = 0;
    struct bb_slice value = {0};
    bb_buf_append_byte(out, ',');
    bb_json_write_str(out, bb_slice_str(field->name));
    bb_buf_append_byte(out, ':');
    if (field->kind == BB_FIELD_UINT) {
        memcpy(&number, at, sizeof(number));
        bb_buf_printf(out, number > INT64_MAX ? "{\"$uint\":\"%llu\"}" : "%llu", (unsigned long long)number);
        return 0;
    }
    memcpy(&value, at, sizeof(value));
    if (field->kind == BB_FIELD_TEXT) {
        bb_json_write_str(out, value);
        return 0;
    }
    if (value.len == 0 || field->kind == BB_FIELD_BIN) { /* the one BIN field is never the broker's */
        bb_buf_append(out, "null", 4);
        return 0;
    }
    return bb_mp_to_json(value, out);
}

static int write_block(struct bb_slice *rest, uint64_t server, enum bb_event_shape shape, bool *first, struct bb_buf *out)
{
    struct bb_block block;
    struct bb_event_view event;
    int r = bb_block_read(rest, &block);
    for (uint64_t i = 0; r == 0 && i < block.count; i++) {
        r = bb_event_read(rest, &event);
        if (r < 0) {
            return r;
        }
        struct bb_event_meta meta = {
            .server = server,
            .session = block.session,
            .instance = block.instance + i,
            .sequence = block.sequence + i,
            .time = block.time,
            .source = block.source,
        };
        if (!*first) {
            bb_buf_append_byte(out, ',');
        }
        *first = false;
        r = bb_event_json_write(out, &meta, &event, shape);
    }
    return r;
}

int bb_message_json_write(struct bb_slice bytes, uint64_t server, enum bb_event_shape shape, struct bb_buf *out)
{
    struct bb_msg msg = {0};
    int r = bb_msg_decode(bytes, &msg);
    if (r < 0) {
        return r;
    }
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)msg.type);
    bb_buf_append(out, "{\"op\":", 6);
    bb_json_write_str(out, bb_slice_str(row->name));
    for (size_t i = 0; i < row->n_fields && r == 0; i++) {
        r = write_field(&msg, &row->fields[i], out);
    }
    if (r == 0 && msg.type == BB_MSG_DELIVER) {
        bool first = true;
        struct bb_slice rest = msg.body;
        bb_buf_append(out, ",\"events\":[", 11);
        while (r == 0 && rest.len > 0) {
            r = write_block(&rest, server, shape, &first, out);
        }
        bb_buf_append_byte(out, ']');
    }
    bb_buf_append_byte(out, '}');
    return r < 0 ? r : out->error;
}

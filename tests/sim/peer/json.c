/* SPDX-License-Identifier: Apache-2.0 */
/* What a JSON peer writes, and whether what it reads says the same as the broker's message (PROTOCOL 10). */
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"

#include "tests/sim/peer/peer.h"
#include "tests/sim/world.h"

#include <stdlib.h>

/* --- writing ---------------------------------------------------------------------------------- */

static void write_value(struct bb_slice value, struct bb_buf *out)
{
    if (bb_mp_to_json(value, out) < 0) {
        abort();
    }
}

static void write_event(const struct bb_event_view *view, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(view->attributes);
    bb_buf_printf(out, "{\"path\":");
    bb_json_write_str(out, view->path);
    bb_buf_printf(out, ",\"payload\":");
    write_value(view->payload, out);
    for (uint32_t n = view->attributes.len > 0 ? bb_mp_read_map(&reader) : 0; n > 0; n--) {
        struct bb_slice key = bb_mp_read_str(&reader);
        bb_buf_append_byte(out, ',');
        bb_json_write_str(out, bb_slice_equal(key, bb_slice_str("id")) ? bb_slice_str("client_id") : key);
        bb_buf_append_byte(out, ':');
        write_value(bb_mp_read_raw(&reader), out);
    }
    bb_buf_append_byte(out, '}');
}

static void write_events(struct bb_slice rest, struct bb_buf *out)
{
    struct bb_event_view view;
    bb_buf_append_byte(out, '[');
    for (bool is_first = true; rest.len > 0 && bb_event_read(&rest, &view) == 0; is_first = false) {
        if (!is_first) {
            bb_buf_append_byte(out, ',');
        }
        write_event(&view, out);
    }
    bb_buf_append_byte(out, ']');
}

static void write_bin(struct bb_slice bytes, struct bb_buf *out)
{
    struct bb_buf value = BB_BUF_INIT;
    if (bytes.len == 0) {
        bb_buf_printf(out, "null");
        return;
    }
    bb_mp_write_bin(&value, bytes);
    write_value(bb_buf_slice(&value), out);
    bb_buf_fini(&value);
}

static void write_field(const struct bb_msg *msg, const struct bb_field *field, struct bb_buf *out)
{
    const char *at = (const char *)msg + field->offset;
    struct bb_slice value = {0};
    uint64_t number = 0;
    bb_buf_printf(out, ",\"%s\":", field->name);
    if (field->kind == BB_FIELD_UINT) {
        memcpy(&number, at, sizeof(number));
        bb_buf_printf(out, "%llu", (unsigned long long)number);
        return;
    }
    memcpy(&value, at, sizeof(value));
    if (field->kind == BB_FIELD_TEXT) {
        bb_json_write_str(out, value);
    } else if (field->kind == BB_FIELD_BIN) {
        write_bin(value, out);
    } else if (value.len == 0) {
        bb_buf_printf(out, "null");
    } else {
        write_value(value, out);
    }
}

void json_of_message(struct bb_slice bytes, struct bb_buf *out)
{
    struct bb_msg msg = {0};
    if (!bb_msg_is_head(bytes)) {
        write_events(bytes, out);
        return;
    }
    if (bb_msg_decode(bytes, &msg) < 0) {
        abort();
    }
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)msg.type);
    size_t n = bb_msg_count_fields(&msg, row);
    bb_buf_printf(out, "{\"op\":\"%s\"", row->name);
    for (size_t i = 0; i < n; i++) {
        write_field(&msg, &row->fields[i], out);
    }
    if (msg.type == BB_MSG_PUBLISH) {
        bb_buf_printf(out, ",\"events\":");
        write_events(msg.body, out);
    }
    bb_buf_append_byte(out, '}');
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool is_value(const json_t *value, struct bb_slice expected)
{
    struct bb_buf coded = BB_BUF_INIT;
    bool is_same = value != NULL && bb_json_to_mp(value, &coded, NULL) == 0 &&
                   bb_mp_is_equal(bb_buf_slice(&coded), expected);
    bb_buf_fini(&coded);
    return is_same;
}

static bool is_field(const json_t *object, const struct bb_msg *msg, const struct bb_field *field)
{
    const json_t *value = json_object_get(object, field->name);
    const char *at = (const char *)msg + field->offset;
    struct bb_slice expected = {0};
    uint64_t number = 0;
    if (field->kind == BB_FIELD_UINT) {
        memcpy(&number, at, sizeof(number));
        return number > INT64_MAX ||
               (json_is_integer(value) && (uint64_t)json_integer_value(value) == number);
    }
    memcpy(&expected, at, sizeof(expected));
    if (field->kind == BB_FIELD_TEXT) {
        return json_is_string(value) &&
               bb_slice_equal(bb_slice(json_string_value(value), json_string_length(value)), expected);
    }
    return expected.len == 0 ? json_is_null(value) : is_value(value, expected);
}

static bool is_number(const json_t *object, const char *name, uint64_t expected)
{
    const json_t *value = json_object_get(object, name);
    return json_is_integer(value) && (uint64_t)json_integer_value(value) == expected;
}

static bool
is_event(const json_t *object, const struct bb_block *block, uint64_t i, const struct bb_event_view *view)
{
    const json_t *path = json_object_get(object, "path");
    return json_is_string(path) &&
           bb_slice_equal(bb_slice(json_string_value(path), json_string_length(path)), view->path) &&
           is_value(json_object_get(object, "payload"), view->payload) &&
           is_number(object, "seq", block->sequence + i) && is_number(object, "time", block->time) &&
           json_integer_value(json_array_get(json_object_get(object, "id"), 1)) ==
               (json_int_t)block->session &&
           json_integer_value(json_array_get(json_object_get(object, "id"), 2)) ==
               (json_int_t)(block->instance + i);
}

static const char *check_blocks(const json_t *events, struct bb_slice rest)
{
    struct bb_block block;
    struct bb_event_view view;
    size_t at = 0;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0) {
        struct bb_slice body = bb_slice(rest.data, (size_t)block.length);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
        for (uint64_t i = 0; i < block.count && bb_event_read(&body, &view) == 0; i++) {
            if (!is_event(json_array_get(events, at++), &block, i, &view)) {
                return "an event is another one in JSON";
            }
        }
    }
    return json_array_size(events) == at ? NULL : "there are more events in JSON";
}

const char *json_check(struct bb_slice text, struct bb_slice bytes)
{
    struct bb_msg msg = {0};
    json_t *object = NULL;
    const char *why = NULL;
    if (bb_msg_decode(bytes, &msg) < 0 ||
        bb_json_parse((const char *)text.data, text.len, NULL, &object) < 0) {
        return "the text is no JSON";
    }
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)msg.type);
    const json_t *op = json_object_get(object, "op");
    if (!json_is_string(op) || strcmp(json_string_value(op), row->name) != 0) {
        why = "the text is another message";
    }
    for (size_t i = 0; i < bb_msg_count_fields(&msg, row) && why == NULL; i++) {
        why = is_field(object, &msg, &row->fields[i]) ? NULL : row->fields[i].name;
    }
    if (why == NULL && (msg.type == BB_MSG_DELIVER || msg.type == BB_MSG_EVENTS)) {
        why = check_blocks(json_object_get(object, "events"), msg.body);
    }
    json_decref(object);
    return why;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/message_json.h"

#include "proto/base/error.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

bool bb_message_is_json(struct bb_slice bytes)
{
    static const char leads[] = {'{', '[', ' ', '\t', '\r', '\n'};
    return bytes.len > 0 && memchr(leads, bytes.data[0], sizeof(leads)) != NULL;
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

/* What a field of each kind must be in MessagePack; RAW may be anything. */
static const struct {
    enum bb_mp_type type;
    const char *sentence;
} kinds[] = {
    [BB_FIELD_UINT] = {BB_MP_UINT, "must be an integer that is not negative"},
    [BB_FIELD_TEXT] = {BB_MP_STR, "must be a string"},
    [BB_FIELD_BIN] = {BB_MP_BIN, "must be binary or null"},
    [BB_FIELD_RAW] = {BB_MP_NONE, NULL},
};

static bool is_absent(const json_t *object, const struct bb_field *field)
{
    const json_t *value = json_object_get(object, field->name);
    return value == NULL || json_is_null(value);
}

static bool is_missing(const json_t *object, const struct bb_field *field)
{
    if (field->kind == BB_FIELD_RAW) {
        return json_object_get(object, field->name) == NULL;
    }
    return field->kind != BB_FIELD_BIN && is_absent(object, field);
}

static void write_absent(const struct bb_field *field, struct bb_buf *out)
{
    if (field->kind == BB_FIELD_UINT) {
        bb_mp_write_uint(out, 0);
    } else if (field->kind == BB_FIELD_TEXT) {
        bb_mp_write_str(out, (struct bb_slice){0});
    } else {
        bb_mp_write_nil(out);
    }
}

static int
read_field(const json_t *object, const struct bb_field *field, struct bb_buf *out, struct bb_buf *err)
{
    size_t start = out->len;
    if (is_absent(object, field)) {
        write_absent(field, out);
        return 0;
    }
    int r = bb_json_to_mp(json_object_get(object, field->name), out, err);
    if (r < 0 || field->kind == BB_FIELD_RAW) {
        return r;
    }
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(out->data + start, out->len - start));
    if (bb_mp_peek_type(&reader) != kinds[field->kind].type) {
        return fail(err, BB_EMALFORMED, field->name, kinds[field->kind].sentence);
    }
    return 0;
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
    json_object_foreach(object, name, value)
    {
        if (!is_member(row, name)) {
            return fail(err, BB_EMALFORMED, name, "is not a member of this message");
        }
    }
    for (size_t i = 0; i < row->n_required; i++) {
        if (is_missing(object, &row->fields[i])) {
            return fail(err, BB_EMALFORMED, row->fields[i].name, "is missing");
        }
    }
    size_t n = row->n_fields;
    while (n > row->n_required && is_absent(object, &row->fields[n - 1])) {
        n--;
    }
    bb_mp_write_array(out, (uint32_t)n + 1);
    bb_mp_write_uint(out, (uint64_t)row->type);
    for (size_t i = 0; i < n; i++) {
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

/* The event object holds these numbers as they are, without a form for those beyond int64. */
static bool numbers_fit(const struct bb_block *block)
{
    uint64_t most = INT64_MAX - BB_MESSAGE_MAX; /* of a first event; the others count on from it */
    return block->session <= most && block->time <= most && block->source <= most &&
           block->sequence <= most && block->instance <= most && block->count <= BB_MESSAGE_MAX;
}

/* The events of @block, which fill @bytes. */
static int write_events(struct bb_slice bytes,
                        const struct bb_block *block,
                        uint64_t server,
                        enum bb_event_shape shape,
                        struct bb_buf *out)
{
    for (uint64_t i = 0; i < block->count; i++) {
        struct bb_event_view event;
        int r = bb_event_read(&bytes, &event);
        r = r < 0 ? r : event.error;
        if (r < 0) {
            return r;
        }
        struct bb_event_meta meta = {
            .server = server,
            .session = block->session,
            .instance = block->instance + i,
            .sequence = block->sequence + i,
            .time = block->time,
            .source = block->source,
        };
        if (out->len > 0 && out->data[out->len - 1] != '[') {
            bb_buf_append_byte(out, ',');
        }
        r = bb_event_json_write(out, &meta, &event, shape);
        if (r < 0) {
            return r;
        }
    }
    return bytes.len == 0 ? 0 : BB_EMALFORMED;
}

static int write_blocks(struct bb_slice rest, uint64_t server, enum bb_event_shape shape, struct bb_buf *out)
{
    struct bb_block block;
    int r = 0;
    bb_buf_append(out, ",\"events\":[", 11);
    while (r == 0 && rest.len > 0) {
        r = bb_block_read(&rest, &block);
        r = r == 0 && !numbers_fit(&block) ? BB_EMALFORMED : r;
        if (r == 0) {
            r = write_events(bb_slice(rest.data, block.length), &block, server, shape, out);
            rest = bb_slice(rest.data + block.length, rest.len - block.length);
        }
    }
    bb_buf_append_byte(out, ']');
    return r;
}

int bb_message_json_write(struct bb_slice bytes,
                          uint64_t server,
                          enum bb_event_shape shape,
                          struct bb_buf *out)
{
    struct bb_msg msg = {0};
    size_t before = out->len;
    int r = bb_msg_decode(bytes, &msg);
    if (r < 0) {
        return r;
    }
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)msg.type);
    bb_buf_append(out, "{\"op\":", 6);
    bb_json_write_str(out, bb_slice_str(row->name));
    size_t n = bb_msg_count_fields(&msg, row);
    for (size_t i = 0; i < n && r == 0; i++) {
        r = write_field(&msg, &row->fields[i], out);
    }
    if (r == 0 && (msg.type == BB_MSG_DELIVER || msg.type == BB_MSG_EVENTS)) {
        r = write_blocks(msg.body, server, shape, out);
    }
    bb_buf_append_byte(out, '}');
    r = r < 0 ? r : out->error;
    if (r < 0) {
        out->len = before;
    }
    return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/message_json.h"

#include "proto/base/error.h"
#include "proto/json/json_split.h"
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
    if (err != NULL) {
        bb_buf_reset(err);
    }
    int r = bb_json_to_mp(json_object_get(object, field->name), out, err);
    if (r < 0 || field->kind == BB_FIELD_RAW) {
        return r == BB_EMALFORMED ? BB_EINVAL : r; /* a form with a $ that stands for nothing */
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

static int read_head(json_t *object, const struct bb_msg_row *row, struct bb_buf *out, struct bb_buf *err)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(object, name, value)
    {
        if (!is_member(row, name)) {
            return fail(err, BB_EINVAL, name, "is not a member of this message");
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
    return 0;
}

/* The number that @value is, 0 if it is none. */
static uint64_t number_of(const json_t *value)
{
    struct bb_buf bytes = BB_BUF_INIT;
    uint64_t number = 0;
    if (value != NULL && bb_json_to_mp(value, &bytes, NULL) == 0) {
        struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&bytes));
        number = bb_mp_peek_type(&reader) == BB_MP_UINT ? bb_mp_read_uint(&reader) : 0;
    }
    bb_buf_fini(&bytes);
    return number;
}

/* NULL: there is no message of this `op`. */
static const struct bb_msg_row *recognise(const json_t *object, struct bb_message_head *ret_head)
{
    const json_t *op = json_object_get(object, "op");
    const struct bb_msg_row *row = NULL;
    if (json_is_string(op)) {
        row = bb_msg_row_find_name(bb_slice(json_string_value(op), json_string_length(op)));
    }
    if (row != NULL) {
        ret_head->type = row->type;
        ret_head->corr = number_of(json_object_get(object, row->type == BB_MSG_PUBLISH ? "number" : "corr"));
    }
    return row;
}

static int read_value(json_t *value, struct bb_buf *out, struct bb_message_head *ret_head, struct bb_buf *err)
{
    if (json_object_get(value, "op") == NULL) { /* also of what is no object */
        return bb_events_json_read(value, out);
    }
    const struct bb_msg_row *row = recognise(value, ret_head);
    if (row == NULL) {
        return fail(err, BB_EUNKNOWN, "op", "does not name a message");
    }
    int r = read_head(value, row, out, err);
    json_t *events = row->type == BB_MSG_PUBLISH ? json_object_get(value, "events") : NULL;
    return r < 0 || events == NULL ? r : bb_events_json_read(events, out);
}

/* --- reading piece by piece, when something in the text cannot be held ------------------------------ */

struct pieces {
    json_t *head;           /* the members that can be held, but for `events` */
    struct bb_slice events; /* the text of that one */
    int error;              /* why the head cannot be taken */
};

static int add_member(struct pieces *pieces, const char *name, struct bb_slice text)
{
    json_t *value = NULL;
    bool is_events = strcmp(name, "events") == 0;
    if (json_object_get(pieces->head, name) != NULL || (is_events && pieces->events.len > 0)) {
        return BB_EINVAL; /* equal names */
    }
    if (is_events) {
        pieces->events = text;
        return 0;
    }
    int r = bb_json_parse((const char *)text.data, text.len, NULL, &value);
    if (r == 0 && json_object_set(pieces->head, name, value) != 0) {
        r = BB_ENOMEM;
    }
    json_decref(value);
    return r;
}

static int add_piece(struct pieces *pieces, struct bb_slice name, struct bb_slice text)
{
    json_t *key = NULL;
    int r = bb_json_parse((const char *)name.data, name.len, NULL, &key);
    if (r == 0) {
        const char *string = json_string_value(key); /* NULL: it is no string */
        r = string == NULL                              ? BB_EMALFORMED
            : strlen(string) != json_string_length(key) ? BB_EINVAL /* U+0000 */
                                                        : add_member(pieces, string, text);
    }
    json_decref(key);
    return r;
}

/* As far as @text can be followed. Of several errors the one counts that leaves the least. */
static void split_message(struct bb_slice text, struct pieces *pieces)
{
    struct bb_json_split split = bb_json_split(text);
    struct bb_slice name;
    struct bb_slice value;
    while (split.close == '}' && pieces->error != BB_ENOMEM && bb_json_split_next(&split, &name, &value)) {
        int r = add_piece(pieces, name, value);
        if (r < 0 && pieces->error != BB_EMALFORMED) {
            pieces->error = r;
        }
    }
    pieces->error = split.error != 0 ? split.error : pieces->error; /* of an array it has none: bare events */
}

/* The message of which all members can be held, but maybe not all of its events. */
static int
read_held(struct pieces *pieces, const struct bb_msg_row *row, struct bb_buf *out, struct bb_buf *err)
{
    struct bb_slice events = pieces->events;
    if (row->type != BB_MSG_PUBLISH && events.len > 0) { /* a member like the others */
        json_t *value = NULL;
        int r = bb_json_parse((const char *)events.data, events.len, NULL, &value);
        r = r == 0 && json_object_set(pieces->head, "events", value) != 0 ? BB_ENOMEM : r;
        json_decref(value);
        return r < 0 ? r : read_head(pieces->head, row, out, err);
    }
    int r = read_head(pieces->head, row, out, err);
    return r < 0 || events.len == 0 ? r : bb_events_json_read_pieces(events, out);
}

/* @error: what bb_json_parse() says of the whole. */
static int read_pieces(struct bb_slice text,
                       int error,
                       struct bb_buf *out,
                       struct bb_message_head *ret_head,
                       struct bb_buf *err)
{
    struct pieces pieces = {.head = json_object()};
    if (pieces.head == NULL) {
        return BB_ENOMEM;
    }
    split_message(text, &pieces);
    const struct bb_msg_row *row = recognise(pieces.head, ret_head);
    int r = pieces.error;
    if (r == BB_ENOMEM) {
        *ret_head = (struct bb_message_head){0}; /* `op` or the number may be what could not be read */
    } else if (error != BB_EINVAL && error != BB_EUTF8) {
        r = error; /* and what was recognised is all that is asked for */
    } else if (r != BB_EMALFORMED && json_object_get(pieces.head, "op") == NULL) {
        r = bb_events_json_read_pieces(text, out);
    } else if (r != BB_EMALFORMED && row == NULL) {
        r = fail(err, BB_EUNKNOWN, "op", "does not name a message");
    } else if (r == 0) {
        r = read_held(&pieces, row, out, err);
    }
    json_decref(pieces.head);
    return r;
}

static struct bb_slice without_space(struct bb_slice text)
{
    static const char spaces[] = {' ', '\t', '\r', '\n'};
    while (text.len > 0 && memchr(spaces, text.data[0], sizeof(spaces)) != NULL) {
        text = bb_slice(text.data + 1, text.len - 1);
    }
    return text;
}

int bb_message_json_read(struct bb_slice text,
                         struct bb_buf *out,
                         struct bb_message_head *ret_head,
                         struct bb_buf *err)
{
    json_t *value = NULL;
    size_t before = out->len;
    *ret_head = (struct bb_message_head){0};
    int r = bb_json_parse((const char *)text.data, text.len, err, &value);
    r = r == 0 ? read_value(value, out, ret_head, err)
               : read_pieces(without_space(text), r, out, ret_head, err);
    json_decref(value);
    r = r == 0 ? out->error : r;
    out->len = r < 0 ? before : out->len;
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The vectors of tests/golden, which all languages share, against proto/wire and proto/json. */
#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/json/message_json.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include <criterion/criterion.h>

/* The broker of the vectors. */
#define SERVER 1

static json_t *load(const char *name)
{
    char path[4096];
    json_error_t error;
    int len = snprintf(path, sizeof(path), "%s/%s", GOLDEN_DIR, name);
    cr_assert(len > 0 && (size_t)len < sizeof(path));
    json_t *root = json_load_file(path, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    cr_assert(root != NULL, "%s: %s, line %d", path, error.text, error.line);
    return root;
}

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    cr_assert(text != NULL, "a vector without %s", name);
    return text;
}

static struct bb_slice slice_of(const json_t *object, const char *name)
{
    const json_t *text = json_object_get(object, name);
    cr_assert(json_is_string(text), "a vector without %s", name);
    return bb_slice(json_string_value(text), json_string_length(text));
}

static uint8_t nibble(char digit)
{
    const char *digits = "0123456789abcdef";
    const char *at = strchr(digits, digit);
    cr_assert(at != NULL && digit != '\0', "no hex digit: %c", digit);
    return (uint8_t)(at - digits);
}

static struct bb_buf unhex(const json_t *vector)
{
    struct bb_slice hex = slice_of(vector, "hex");
    struct bb_buf bytes = BB_BUF_INIT;
    for (size_t i = 0; i + 1 < hex.len; i += 2) {
        uint8_t high = nibble((char)hex.data[i]);
        bb_buf_append_byte(&bytes, (uint8_t)(high << 4 | nibble((char)hex.data[i + 1])));
    }
    cr_assert_eq(hex.len % 2, 0);
    cr_assert_eq(bytes.error, 0);
    return bytes;
}

static bool is_from_broker(const json_t *vector)
{
    return strcmp(text_of(vector, "from"), "broker") == 0;
}

/* --- messages ------------------------------------------------------------------------------------- */

/* The field as it must lie in the head, taken from the JSON of the vector. */
static struct bb_buf expected_field(const struct bb_field *field, const json_t *value)
{
    struct bb_buf bytes = BB_BUF_INIT;
    if (value == NULL && field->kind == BB_FIELD_UINT) {
        bb_mp_write_uint(&bytes, 0);
    } else if (value == NULL && field->kind == BB_FIELD_TEXT) {
        bb_mp_write_str(&bytes, (struct bb_slice){0});
    } else if (value != NULL) {
        cr_assert_eq(bb_json_to_mp(value, &bytes, NULL), 0);
    }
    return bytes;
}

/* The field of the decoded message in the same form. */
static struct bb_buf decoded_field(const struct bb_field *field, const struct bb_msg *msg)
{
    const char *at = (const char *)msg + field->offset;
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_slice value = {0};
    uint64_t number = 0;
    if (field->kind == BB_FIELD_UINT) {
        memcpy(&number, at, sizeof(number));
        bb_mp_write_uint(&bytes, number);
        return bytes;
    }
    memcpy(&value, at, sizeof(value));
    if (field->kind == BB_FIELD_TEXT) {
        bb_mp_write_str(&bytes, value);
    } else if (field->kind == BB_FIELD_BIN && value.len > 0) {
        bb_mp_write_bin(&bytes, value);
    } else if (field->kind == BB_FIELD_BIN) {
        bb_mp_write_nil(&bytes);
    } else {
        bb_buf_append(&bytes, value.data, value.len);
    }
    return bytes;
}

static void check_fields(const char *name, const struct bb_msg *msg, const json_t *json)
{
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)msg->type);
    cr_assert_str_eq(row->name, text_of(json, "op"), "%s", name);
    for (size_t i = 0; i < row->n_fields; i++) {
        const struct bb_field *field = &row->fields[i];
        const json_t *value = json_object_get(json, field->name);
        struct bb_buf expected = expected_field(field, value);
        struct bb_buf found = decoded_field(field, msg);
        bool is_left_out = found.len == 0 && (value == NULL || json_is_null(value));
        bool is_nil = value == NULL && found.len == 1 && found.data[0] == 0xc0;
        cr_assert(is_left_out || is_nil || bb_slice_equal(bb_buf_slice(&expected), bb_buf_slice(&found)),
                  "%s: %s", name, field->name);
        bb_buf_fini(&expected);
        bb_buf_fini(&found);
    }
}

static void check_events(const char *name, struct bb_slice rest, const json_t *json)
{
    const json_t *events = json_is_array(json) ? json : NULL;
    size_t n = events != NULL ? json_array_size(events) : (size_t)json_is_object(json);
    for (size_t i = 0; i < n; i++) {
        const json_t *object = events != NULL ? json_array_get(events, i) : json;
        const json_t *path = json_object_get(object, "path");
        struct bb_event_view event;
        cr_assert_eq(bb_event_read(&rest, &event), 0, "%s", name);
        cr_assert_eq(event.error, 0, "%s", name);
        cr_assert(path == NULL || bb_slice_equal(event.path, slice_of(object, "path")), "%s", name);
        struct bb_buf payload = BB_BUF_INIT;
        cr_assert_eq(bb_json_to_mp(json_object_get(object, "payload"), &payload, NULL), 0);
        cr_assert(bb_slice_equal(event.payload, bb_buf_slice(&payload)), "%s", name);
        bb_buf_fini(&payload);
    }
    cr_assert_eq(rest.len, 0, "%s", name);
}

static void check_decoded(const char *name, struct bb_slice bytes, const json_t *json)
{
    struct bb_buf again = BB_BUF_INIT;
    struct bb_msg msg = {0};
    if (!bb_msg_is_head(bytes)) {
        check_events(name, bytes, json);
        return;
    }
    cr_assert_eq(bb_msg_decode(bytes, &msg), 0, "%s", name);
    check_fields(name, &msg, json);
    if (msg.type == BB_MSG_PUBLISH) {
        check_events(name, msg.body, json_object_get(json, "events"));
    }
    bb_msg_encode(&again, &msg);
    bb_buf_append(&again, msg.body.data, msg.body.len);
    cr_assert(bb_slice_equal(bb_buf_slice(&again), bytes), "%s", name);
    bb_buf_fini(&again);
}

Test(golden, messages_decode_to_their_fields_and_encode_to_their_bytes)
{
    json_t *vectors = load("messages.json");
    json_t *vector = NULL;
    size_t i = 0;
    unsigned seen = 0;
    json_array_foreach(vectors, i, vector)
    {
        struct bb_buf bytes = unhex(vector);
        const json_t *json = json_object_get(vector, "json");
        check_decoded(text_of(vector, "name"), bb_buf_slice(&bytes), json);
        struct bb_msg msg = {0};
        (void)bb_msg_decode(bb_buf_slice(&bytes), &msg);
        seen |= 1u << (unsigned)msg.type;
        bb_buf_fini(&bytes);
    }
    json_decref(vectors);
    for (unsigned type = 0; type < 32; type++) {
        bool is_message = type == BB_MSG_NONE || bb_msg_row_find(type) != NULL; /* none: bare events */
        cr_assert_eq((seen >> type & 1u) != 0, is_message, "type %u", type);
    }
}

static void check_read(const char *name, const json_t *json, struct bb_slice bytes)
{
    char *text = json_dumps(json, JSON_COMPACT);
    struct bb_buf found = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_message_head head;
    int r = bb_message_json_read(bb_slice_str(text), &found, &head, &err);
    cr_assert_eq(r, 0, "%s: %s", name, bb_buf_string(&err));
    cr_assert(bb_slice_equal(bb_buf_slice(&found), bytes), "%s", name);
    struct bb_msg msg = {0}; /* of bare events: as nothing */
    (void)(bb_msg_is_head(bytes) && bb_msg_decode(bytes, &msg) == 0);
    cr_assert_eq(head.type, msg.type, "%s", name);
    cr_assert_eq(head.corr, msg.type == BB_MSG_PUBLISH ? msg.number : msg.corr, "%s", name);
    bb_buf_fini(&found);
    bb_buf_fini(&err);
    free(text);
}

static void check_written(const char *name, const json_t *vector, struct bb_slice bytes)
{
    bool is_nexus = json_object_get(vector, "shape") != NULL;
    struct bb_buf text = BB_BUF_INIT;
    json_t *found = NULL;
    int r = bb_message_json_write(bytes, SERVER, is_nexus ? BB_SHAPE_NEXUS : BB_SHAPE_EVENT, &text);
    cr_assert_eq(r, 0, "%s: %d", name, r);
    found = json_loadb((const char *)text.data, text.len, 0, NULL);
    cr_assert(found != NULL, "%s", name);
    cr_assert(json_equal(found, json_object_get(vector, "json")), "%s: %s", name, bb_buf_string(&text));
    json_decref(found);
    bb_buf_fini(&text);
}

Test(golden, json_of_clients_is_read_and_messages_of_brokers_are_written)
{
    json_t *vectors = load("messages.json");
    json_t *vector = NULL;
    size_t i = 0;
    json_array_foreach(vectors, i, vector)
    {
        struct bb_buf bytes = unhex(vector);
        if (is_from_broker(vector)) {
            check_written(text_of(vector, "name"), vector, bb_buf_slice(&bytes));
        } else {
            check_read(text_of(vector, "name"), json_object_get(vector, "json"), bb_buf_slice(&bytes));
        }
        bb_buf_fini(&bytes);
    }
    cr_assert_gt(i, 0);
    json_decref(vectors);
}

/* --- values --------------------------------------------------------------------------------------- */

static void check_value(const json_t *vector, bool both_ways)
{
    const char *name = text_of(vector, "name");
    struct bb_slice json = slice_of(vector, "json");
    struct bb_buf bytes = unhex(vector);
    struct bb_buf found = BB_BUF_INIT;
    cr_assert_eq(bb_mp_to_json(bb_buf_slice(&bytes), &found), 0, "%s", name);
    cr_assert(bb_slice_equal(bb_buf_slice(&found), json), "%s: %s", name, bb_buf_string(&found));
    bb_buf_reset(&found);
    if (both_ways) {
        cr_assert_eq(bb_json_value_to_mp((const char *)json.data, json.len, &found, NULL), 0, "%s", name);
        cr_assert(bb_slice_equal(bb_buf_slice(&found), bb_buf_slice(&bytes)), "%s", name);
    }
    bb_buf_fini(&found);
    bb_buf_fini(&bytes);
}

Test(golden, values_have_one_form_in_json)
{
    json_t *root = load("values.json");
    json_t *vector = NULL;
    size_t i = 0;
    json_array_foreach(json_object_get(root, "both_ways"), i, vector)
    {
        check_value(vector, true);
    }
    cr_assert_gt(i, 0);
    json_array_foreach(json_object_get(root, "to_json"), i, vector)
    {
        check_value(vector, false);
    }
    cr_assert_gt(i, 0);
    json_decref(root);
}

Test(golden, json_that_means_no_value_is_refused)
{
    json_t *root = load("values.json");
    json_t *vector = NULL;
    size_t i = 0;
    json_array_foreach(json_object_get(root, "refused"), i, vector)
    {
        struct bb_slice json = slice_of(vector, "json");
        struct bb_buf found = BB_BUF_INIT;
        int r = bb_json_value_to_mp((const char *)json.data, json.len, &found, NULL);
        cr_assert_lt(r, 0, "%s", text_of(vector, "name"));
        cr_assert_eq(found.len, 0);
        bb_buf_fini(&found);
    }
    cr_assert_gt(i, 0);
    json_decref(root);
}

/* --- paths and patterns --------------------------------------------------------------------------- */

Test(golden, paths_and_patterns_are_told_from_other_text)
{
    json_t *root = load("patterns.json");
    json_t *row = NULL;
    size_t i = 0;
    json_array_foreach(json_object_get(root, "paths"), i, row)
    {
        struct bb_slice path = slice_of(row, "path");
        bool is_valid = json_is_true(json_object_get(row, "valid"));
        cr_assert_eq(bb_path_check(path), is_valid ? 0 : BB_EPATH, "row %zu", i);
        cr_assert(!is_valid || bb_slice_equal(bb_path_channel(path), slice_of(row, "channel")), "row %zu", i);
    }
    cr_assert_gt(i, 0);
    json_array_foreach(json_object_get(root, "patterns"), i, row)
    {
        bool is_valid = json_is_true(json_object_get(row, "valid"));
        cr_assert_eq(bb_pattern_check(slice_of(row, "pattern")), is_valid ? 0 : BB_EPATTERN, "row %zu", i);
    }
    cr_assert_gt(i, 0);
    json_decref(root);
}

Test(golden, patterns_match_as_the_table_says)
{
    json_t *root = load("patterns.json");
    json_t *row = NULL;
    size_t i = 0;
    json_array_foreach(json_object_get(root, "matches"), i, row)
    {
        struct bb_slice pattern = slice_of(row, "pattern");
        struct bb_slice path = slice_of(row, "path");
        bool expected = json_is_true(json_object_get(row, "matches"));
        cr_assert_eq(bb_pattern_matches(pattern, path), expected, "row %zu", i);
    }
    cr_assert_gt(i, 0);
    json_decref(root);
}

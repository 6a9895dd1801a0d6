/* SPDX-License-Identifier: Apache-2.0 */
/* Both directions recurse, as deep as BB_MP_MAX_DEPTH lets them. */
#include "proto/json/json_value.h"

#include "proto/base/base64.h"
#include "proto/base/error.h"
#include "proto/json/json_text.h"
#include "proto/wire/scan.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* --- JSON to msgpack ----------------------------------------------------------------------------- */

struct encoder {
    struct bb_buf *out;
    struct bb_buf *err; /* may be NULL */
    uint32_t depth;     /* of open containers, in msgpack's terms */
};

struct form {
    const char *key;
    int (*encode)(struct encoder *encoder, const json_t *value);
    const char *takes;
};

/* What a form returns for a value it does not take; the caller turns it into the sentence. */
#define NOT_TAKEN 1

static int value_encode(struct encoder *encoder, const json_t *value);

static int encoder_fail(struct encoder *encoder, int error, const char *sentence)
{
    if (encoder->err != NULL) {
        bb_buf_append(encoder->err, sentence, strlen(sentence));
    }
    return error;
}

static int container_enter(struct encoder *encoder, size_t count)
{
    if (encoder->depth == BB_MP_MAX_DEPTH) {
        return encoder_fail(encoder, BB_ETOODEEP, "the value is nested too deeply");
    }
    if (count > UINT32_MAX) {
        return encoder_fail(encoder, BB_ETOOBIG, "the value has too many elements");
    }
    encoder->depth++;
    return 0;
}

static struct bb_slice string_slice(const json_t *value)
{
    return bb_slice(json_string_value(value), json_string_length(value));
}

/* Appends what the base64 stands for; NOT_TAKEN when @value is no such text. */
static int base64_decode(const json_t *value, struct bb_buf *ret_bytes)
{
    if (!json_is_string(value)) {
        return NOT_TAKEN;
    }
    int r = bb_base64_decode(ret_bytes, string_slice(value));
    return r == BB_EMALFORMED ? NOT_TAKEN : r;
}

static int form_binary(struct encoder *encoder, const json_t *value)
{
    struct bb_buf bytes = BB_BUF_INIT;
    int r = base64_decode(value, &bytes);
    if (r == 0) {
        bb_mp_write_bin(encoder->out, bb_buf_slice(&bytes));
    }
    bb_buf_fini(&bytes);
    return r;
}

static int form_ext(struct encoder *encoder, const json_t *value)
{
    const json_t *type = json_array_get(value, 0);
    json_int_t number = json_integer_value(type);
    if (json_array_size(value) != 2 || !json_is_integer(type) || number < INT8_MIN || number > INT8_MAX) {
        return NOT_TAKEN;
    }
    struct bb_buf bytes = BB_BUF_INIT;
    int r = base64_decode(json_array_get(value, 1), &bytes);
    if (r == 0) {
        bb_mp_write_ext(encoder->out, (int8_t)number, bb_buf_slice(&bytes));
    }
    bb_buf_fini(&bytes);
    return r;
}

static int form_float(struct encoder *encoder, const json_t *value)
{
    static const struct {
        const char *text;
        double value;
    } names[] = {{"nan", (double)NAN}, {"inf", (double)INFINITY}, {"-inf", -(double)INFINITY}};
    for (size_t i = 0; json_is_string(value) && i < BB_COUNT(names); i++) {
        if (bb_slice_equal(string_slice(value), bb_slice_str(names[i].text))) {
            bb_mp_write_double(encoder->out, names[i].value);
            return 0;
        }
    }
    return NOT_TAKEN;
}

static int form_map(struct encoder *encoder, const json_t *value)
{
    size_t count = json_array_size(value);
    if (!json_is_array(value)) {
        return NOT_TAKEN;
    }
    for (size_t i = 0; i < count; i++) {
        if (json_array_size(json_array_get(value, i)) != 2) {
            return NOT_TAKEN;
        }
    }
    int r = container_enter(encoder, count);
    if (r < 0) {
        return r;
    }
    bb_mp_write_map(encoder->out, (uint32_t)count);
    for (size_t i = 0; i < 2 * count && r == 0; i++) {
        r = value_encode(encoder, json_array_get(json_array_get(value, i / 2), i % 2));
    }
    encoder->depth--;
    return r;
}

static int form_uint(struct encoder *encoder, const json_t *value)
{
    struct bb_slice digits = json_is_string(value) ? string_slice(value) : (struct bb_slice){0};
    if (digits.len == 0 || (digits.data[0] == '0' && digits.len > 1)) {
        return NOT_TAKEN;
    }
    uint64_t number = 0;
    for (size_t i = 0; i < digits.len; i++) {
        uint64_t digit = (uint64_t)digits.data[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(number, UINT64_C(10), &number) ||
            __builtin_add_overflow(number, digit, &number)) {
            return NOT_TAKEN;
        }
    }
    bb_mp_write_uint(encoder->out, number);
    return 0;
}

static const struct form forms[] = {
    {"$binary", form_binary, "a text in base64"},
    {"$ext", form_ext, "[type from -128 to 127, a text in base64]"},
    {"$float", form_float, "\"nan\", \"inf\" or \"-inf\""},
    {"$map", form_map, "an array of [key, value] pairs"},
    {"$uint", form_uint, "a text of decimal digits, at most 18446744073709551615"},
};

static int form_encode(struct encoder *encoder, struct bb_slice key, const json_t *value)
{
    for (size_t i = 0; i < BB_COUNT(forms); i++) {
        if (!bb_slice_equal(key, bb_slice_str(forms[i].key))) {
            continue;
        }
        int r = forms[i].encode(encoder, value);
        if (r == NOT_TAKEN) {
            if (encoder->err != NULL) {
                bb_buf_printf(encoder->err, "%s takes %s", forms[i].key, forms[i].takes);
            }
            return BB_EMALFORMED;
        }
        return r;
    }
    return encoder_fail(
        encoder, BB_EMALFORMED,
        "the one key of an object begins with $ but is none of $binary, $ext, $float, $map, $uint; "
        "a key of one's own is written with one $ more");
}

static int object_encode(struct encoder *encoder, const json_t *value)
{
    /* jansson's iterators want the object writable, though they leave it alone. */
    json_t *object = bb_unconst(value);
    size_t count = json_object_size(object);
    void *iter = json_object_iter(object);
    size_t stripped = 0;
    if (count == 1) {
        struct bb_slice key = bb_slice(json_object_iter_key(iter), json_object_iter_key_len(iter));
        if (key.len >= 1 && key.data[0] == '$') {
            if (key.len == 1 || key.data[1] != '$') {
                return form_encode(encoder, key, json_object_iter_value(iter));
            }
            stripped = 1;
        }
    }
    int r = container_enter(encoder, count);
    if (r < 0) {
        return r;
    }
    bb_mp_write_map(encoder->out, (uint32_t)count);
    for (; iter != NULL && r == 0; iter = json_object_iter_next(object, iter)) {
        const char *key = json_object_iter_key(iter);
        bb_mp_write_str(encoder->out, bb_slice(key + stripped, json_object_iter_key_len(iter) - stripped));
        r = value_encode(encoder, json_object_iter_value(iter));
    }
    encoder->depth--;
    return r;
}

static int array_encode(struct encoder *encoder, const json_t *value)
{
    size_t count = json_array_size(value);
    int r = container_enter(encoder, count);
    if (r < 0) {
        return r;
    }
    bb_mp_write_array(encoder->out, (uint32_t)count);
    for (size_t i = 0; i < count && r == 0; i++) {
        r = value_encode(encoder, json_array_get(value, i));
    }
    encoder->depth--;
    return r;
}

static int value_encode(struct encoder *encoder, const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return object_encode(encoder, value);
    case JSON_ARRAY:
        return array_encode(encoder, value);
    case JSON_STRING:
        bb_mp_write_str(encoder->out, string_slice(value));
        return 0;
    case JSON_INTEGER:
        bb_mp_write_int(encoder->out, json_integer_value(value));
        return 0;
    case JSON_REAL:
        bb_mp_write_double(encoder->out, json_real_value(value));
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        bb_mp_write_bool(encoder->out, json_is_true(value));
        return 0;
    case JSON_NULL:
        bb_mp_write_nil(encoder->out);
        return 0;
    }
    return BB_EINVAL;
}

int bb_json_to_mp(const json_t *value, struct bb_buf *out, struct bb_buf *err)
{
    size_t start = out->len;
    struct encoder encoder = {.out = out, .err = err};
    int r = value_encode(&encoder, value);
    if (r == 0) {
        r = out->error;
    }
    if (r < 0) {
        out->len = start;
    }
    return r;
}

int bb_json_value_to_mp(const char *text, size_t len, struct bb_buf *out, struct bb_buf *err)
{
    json_t *value;
    int r = bb_json_parse(text, len, err, &value);
    if (r < 0) {
        return r == BB_EINVAL ? BB_EMALFORMED : r;
    }
    r = bb_json_to_mp(value, out, err);
    json_decref(value);
    return r;
}

/* --- msgpack to JSON ----------------------------------------------------------------------------- */

struct text_writer {
    struct bb_buf *out;
    struct bb_mp_reader reader;
    struct bb_buf keys; /* slices, while a map is looked through */
};

enum map_shape {
    MAP_OBJECT,
    MAP_ESCAPED, /* an object whose one key gets one more $ */
    MAP_PAIRS,
};

static void value_write(struct text_writer *writer);

static void text_write(struct text_writer *writer, const char *text)
{
    bb_buf_append(writer->out, text, strlen(text));
}

static struct bb_slice body_take(struct text_writer *writer, uint64_t len)
{
    struct bb_slice body = {writer->reader.p, (size_t)len};
    writer->reader.p += len;
    return body;
}

static void base64_write(struct text_writer *writer, struct bb_slice bytes)
{
    bb_buf_append_byte(writer->out, '"');
    bb_base64_encode(writer->out, bytes);
    bb_buf_append_byte(writer->out, '"');
}

static void double_write(struct text_writer *writer, uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof(value));
    if (isfinite(value)) {
        bb_json_write_double(writer->out, value);
    } else if (isnan(value)) {
        text_write(writer, "{\"$float\":\"nan\"}");
    } else {
        text_write(writer, value > 0 ? "{\"$float\":\"inf\"}" : "{\"$float\":\"-inf\"}");
    }
}

static void uint_write(struct text_writer *writer, uint64_t value)
{
    if (value <= INT64_MAX) {
        bb_buf_printf(writer->out, "%" PRIu64, value);
    } else {
        bb_buf_printf(writer->out, "{\"$uint\":\"%" PRIu64 "\"}", value);
    }
}

static int key_compare(const void *a, const void *b)
{
    const struct bb_slice *x = a;
    const struct bb_slice *y = b;
    size_t len = BB_MIN(x->len, y->len);
    int order = len > 0 ? memcmp(x->data, y->data, len) : 0;
    return order != 0 ? order : (x->len > y->len) - (x->len < y->len);
}

/* Sorts, so that a hostile map costs no more than n log n. */
static bool keys_are_distinct(struct bb_buf *buf)
{
    struct bb_slice *keys = (struct bb_slice *)(void *)buf->data;
    size_t count = buf->len / sizeof(*keys);
    if (count < 2) {
        return true;
    }
    qsort(keys, count, sizeof(*keys), key_compare);
    for (size_t i = 1; i < count; i++) {
        if (bb_slice_equal(keys[i - 1], keys[i])) {
            return false;
        }
    }
    return true;
}

/* Looks ahead through the @pairs of the map that comes next. */
static enum map_shape map_shape_find(struct text_writer *writer, uint64_t pairs)
{
    struct bb_mp_reader ahead = writer->reader;
    bb_buf_reset(&writer->keys);
    for (uint64_t i = 0; i < pairs; i++) {
        if (bb_mp_peek_type(&ahead) != BB_MP_STR) {
            return MAP_PAIRS;
        }
        struct bb_slice key = bb_mp_read_str(&ahead);
        if (memchr(key.data, 0, key.len) != NULL) {
            return MAP_PAIRS;
        }
        if (pairs == 1) {
            return key.len > 0 && key.data[0] == '$' ? MAP_ESCAPED : MAP_OBJECT;
        }
        bb_buf_append(&writer->keys, &key, sizeof(key));
        bb_mp_skip(&ahead);
    }
    if (writer->keys.error != 0) {
        writer->out->error = writer->keys.error;
        return MAP_OBJECT;
    }
    return keys_are_distinct(&writer->keys) ? MAP_OBJECT : MAP_PAIRS;
}

static void pairs_write(struct text_writer *writer, uint64_t pairs)
{
    text_write(writer, "{\"$map\":[");
    for (uint64_t i = 0; i < pairs; i++) {
        text_write(writer, i > 0 ? ",[" : "[");
        value_write(writer);
        bb_buf_append_byte(writer->out, ',');
        value_write(writer);
        bb_buf_append_byte(writer->out, ']');
    }
    text_write(writer, "]}");
}

static void key_write(struct text_writer *writer, bool is_escaped)
{
    text_write(writer, is_escaped ? "\"$" : "\"");
    bb_json_write_escaped(writer->out, bb_mp_read_str(&writer->reader));
    text_write(writer, "\":");
}

static void map_write(struct text_writer *writer, uint64_t pairs)
{
    enum map_shape shape = map_shape_find(writer, pairs);
    if (shape == MAP_PAIRS) {
        pairs_write(writer, pairs);
        return;
    }
    bb_buf_append_byte(writer->out, '{');
    for (uint64_t i = 0; i < pairs; i++) {
        if (i > 0) {
            bb_buf_append_byte(writer->out, ',');
        }
        key_write(writer, shape == MAP_ESCAPED);
        value_write(writer);
    }
    bb_buf_append_byte(writer->out, '}');
}

static void array_write(struct text_writer *writer, uint64_t count)
{
    bb_buf_append_byte(writer->out, '[');
    for (uint64_t i = 0; i < count; i++) {
        if (i > 0) {
            bb_buf_append_byte(writer->out, ',');
        }
        value_write(writer);
    }
    bb_buf_append_byte(writer->out, ']');
}

static void value_write(struct text_writer *writer)
{
    struct bb_mp_head head = bb_mp_read_head(&writer->reader);
    switch (head.type) {
    case BB_MP_NIL:
        text_write(writer, "null");
        break;
    case BB_MP_BOOL:
        text_write(writer, head.value != 0 ? "true" : "false");
        break;
    case BB_MP_UINT:
        uint_write(writer, head.value);
        break;
    case BB_MP_INT:
        bb_buf_printf(writer->out, "%" PRId64, (int64_t)head.value);
        break;
    case BB_MP_DOUBLE:
        double_write(writer, head.value);
        break;
    case BB_MP_STR:
        bb_json_write_str(writer->out, body_take(writer, head.value));
        break;
    case BB_MP_BIN:
        text_write(writer, "{\"$binary\":");
        base64_write(writer, body_take(writer, head.value));
        bb_buf_append_byte(writer->out, '}');
        break;
    case BB_MP_EXT:
        bb_buf_printf(writer->out, "{\"$ext\":[%d,", head.ext_type);
        base64_write(writer, body_take(writer, head.value));
        text_write(writer, "]}");
        break;
    case BB_MP_ARRAY:
        array_write(writer, head.value);
        break;
    case BB_MP_MAP:
        map_write(writer, head.value);
        break;
    case BB_MP_NONE:
        break;
    }
}

int bb_mp_to_json(struct bb_slice value, struct bb_buf *out_text)
{
    int r = bb_scan_whole(value.data, value.len, NULL);
    if (r < 0) {
        return r;
    }
    size_t start = out_text->len;
    struct text_writer writer = {.out = out_text, .reader = bb_mp_reader(value)};
    value_write(&writer);
    bb_buf_fini(&writer.keys);
    if (out_text->error != 0) {
        out_text->len = start;
    }
    return out_text->error;
}

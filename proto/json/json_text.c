/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/json_text.h"

#include "proto/base/error.h"
#include "proto/base/utf8.h"

#include <stdio.h>
#include <stdlib.h>

/* Say @what about the place at @offset, and hand back @error. */
static int fail_at(struct bb_buf *err, const char *text, size_t offset, const char *what, int error)
{
    if (err == NULL) {
        return error;
    }
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else if (((uint8_t)text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    bb_buf_printf(err, "line %zu, column %zu: %s", line, column, what);
    return error;
}

/* The position behind the string whose first quote is at @i, or @len. */
static size_t string_skip(const char *text, size_t len, size_t i)
{
    for (i++; i < len && text[i] != '"'; i++) {
        if (text[i] == '\\') {
            i++;
        }
    }
    return i;
}

/* Nesting and number of values; everything else about the grammar is jansson's to judge. */
static int structure_check(const char *text, size_t len, struct bb_buf *err)
{
    size_t depth = 0;
    size_t items = 1;
    for (size_t i = 0; i < len; i++) {
        switch (text[i]) {
        case '"':
            i = string_skip(text, len, i);
            continue;
        case '[':
        case '{':
            items++;
            if (++depth > BB_JSON_MAX_DEPTH) {
                return fail_at(err, text, i, "nested too deeply", BB_ETOODEEP);
            }
            break;
        case ']':
        case '}':
            if (depth > 0) {
                depth--;
            }
            continue;
        case ',':
        case ':':
            items++;
            break;
        default:
            continue;
        }
        if (items > BB_JSON_MAX_ITEMS) {
            return fail_at(err, text, i, "too many values", BB_ETOOBIG);
        }
    }
    return 0;
}

static int text_check(const char *text, size_t len, struct bb_buf *err)
{
    if (len > BB_JSON_MAX_BYTES) {
        if (err != NULL) {
            bb_buf_printf(err, "%zu bytes are more than the limit of %u", len, BB_JSON_MAX_BYTES);
        }
        return BB_ETOOBIG;
    }
    if (!bb_utf8_is_valid(text, len)) {
        if (err != NULL) {
            bb_buf_printf(err, "the text is not valid UTF-8");
        }
        return BB_EUTF8;
    }
    return structure_check(text, len, err);
}

/* Whether it is what the grammar allows, but nothing that can be held. */
static bool is_grammatical(json_error_t *error)
{
    enum json_error_code code = json_error_code(error);
    return code == json_error_numeric_overflow || code == json_error_duplicate_key ||
           code == json_error_null_byte_in_key ||
           strncmp(error->text, "invalid Unicode", 15) == 0; /* half a surrogate pair */
}

/* jansson quotes the text it stumbles over, line ends and half characters and all. */
static int fail_jansson(struct bb_buf *err, json_error_t *error)
{
    int r = is_grammatical(error) ? BB_EINVAL : BB_EMALFORMED;
    if (error->text[0] == '\0' || json_error_code(error) == json_error_out_of_memory) {
        return BB_ENOMEM; /* about which it mostly says nothing at all */
    }
    bool is_utf8 = bb_utf8_is_valid(error->text, strlen(error->text));
    for (char *c = error->text; *c != '\0'; c++) {
        uint8_t byte = (uint8_t)*c;
        *c = byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !is_utf8) ? '?' : *c;
    }
    if (err != NULL) {
        bb_buf_printf(err, "line %d, column %d: %s", error->line, error->column, error->text);
    }
    return r;
}

int bb_json_parse(const char *text, size_t len, struct bb_buf *err, json_t **ret_value)
{
    int r = text_check(text, len, err);
    if (r < 0) {
        return r;
    }
    json_error_t error;
    json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (value == NULL) {
        return fail_jansson(err, &error);
    }
    *ret_value = value;
    return 0;
}

static void escape_write(struct bb_buf *out, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    static const char letters[] = "btn_fr"; /* from 0x08 on; 0x0b has none */
    char text[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    if (c == '"' || c == '\\') {
        text[1] = (char)c;
        bb_buf_append(out, text, 2);
    } else if (c >= 0x08 && c <= 0x0d && c != 0x0b) {
        text[1] = letters[c - 0x08];
        bb_buf_append(out, text, 2);
    } else {
        bb_buf_append(out, text, sizeof(text));
    }
}

void bb_json_write_escaped(struct bb_buf *out, struct bb_slice text)
{
    size_t start = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c < 0x20 || c == '"' || c == '\\') {
            bb_buf_append(out, text.data + start, i - start);
            escape_write(out, c);
            start = i + 1;
        }
    }
    if (start < text.len) {
        bb_buf_append(out, text.data + start, text.len - start);
    }
}

void bb_json_write_str(struct bb_buf *out, struct bb_slice text)
{
    bb_buf_append_byte(out, '"');
    bb_json_write_escaped(out, text);
    bb_buf_append_byte(out, '"');
}

void bb_json_write_double(struct bb_buf *out, double v)
{
    char number[40];
    for (int digits = 15; digits <= 17; digits++) {
        (void)snprintf(number, sizeof(number), "%.*g", digits, v);
        if (strtod(number, NULL) == v) {
            break;
        }
    }
    bool is_real = false;
    for (const char *c = number; *c != '\0'; c++) {
        if ((*c >= '0' && *c <= '9') || *c == '-' || *c == '+' || *c == 'e') {
            is_real = is_real || *c == 'e';
            bb_buf_append(out, c, 1);
        } else if (!is_real) {
            /* Whatever the locale writes between the digits, maybe in several bytes. */
            is_real = true;
            bb_buf_append_byte(out, '.');
        }
    }
    if (!is_real) {
        bb_buf_append(out, ".0", 2);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/json/json_split.h"

#include "proto/base/error.h"

static bool is_one_of(uint8_t c, const char *set)
{
    return c != 0 && strchr(set, c) != NULL;
}

static void advance(struct bb_slice *rest, size_t n)
{
    *rest = bb_slice(rest->data + n, rest->len - n);
}

static void skip_space(struct bb_slice *rest)
{
    while (rest->len > 0 && is_one_of(rest->data[0], " \t\r\n")) {
        advance(rest, 1);
    }
}

/* Whether @c came next; it is skipped then, and the space around it. */
static bool skip_char(struct bb_slice *rest, char c)
{
    skip_space(rest);
    if (rest->len == 0 || rest->data[0] != (uint8_t)c) {
        return false;
    }
    advance(rest, 1);
    skip_space(rest);
    return true;
}

/* Bytes of the string that @text begins with, 0 if it has no end. */
static size_t string_len(struct bb_slice text)
{
    for (size_t i = 1; i < text.len; i++) {
        if (text.data[i] == '"') {
            return i + 1;
        }
        i += text.data[i] == '\\';
    }
    return 0;
}

/* The same of an array or object. */
static size_t container_len(struct bb_slice text)
{
    size_t depth = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '"') {
            size_t len = string_len(bb_slice(text.data + i, text.len - i));
            if (len == 0) {
                return 0;
            }
            i += len - 1;
        } else if (is_one_of(text.data[i], "[{")) {
            depth++;
        } else if (is_one_of(text.data[i], "]}") && --depth == 0) {
            return i + 1;
        }
    }
    return 0;
}

/* The same of any value. */
static size_t value_len(struct bb_slice text)
{
    size_t len = 0;
    if (text.len > 0 && text.data[0] == '"') {
        return string_len(text);
    }
    if (text.len > 0 && is_one_of(text.data[0], "[{")) {
        return container_len(text);
    }
    while (len < text.len && !is_one_of(text.data[len], ",:[]{}\" \t\r\n")) {
        len++;
    }
    return len;
}

static bool take_value(struct bb_json_split *split, struct bb_slice *ret_value)
{
    size_t len = value_len(split->rest);
    if (len == 0) {
        split->error = BB_EMALFORMED;
        return false;
    }
    *ret_value = bb_slice(split->rest.data, len);
    advance(&split->rest, len);
    return true;
}

struct bb_json_split bb_json_split(struct bb_slice text)
{
    struct bb_json_split split = {.rest = text};
    if (skip_char(&split.rest, '[')) {
        split.close = ']';
    } else if (skip_char(&split.rest, '{')) {
        split.close = '}';
    } else {
        split.error = BB_EMALFORMED;
    }
    return split;
}

bool bb_json_split_next(struct bb_json_split *split, struct bb_slice *ret_name, struct bb_slice *ret_value)
{
    if (split->error != 0) {
        return false;
    }
    if (skip_char(&split->rest, split->close)) {
        split->error = split->rest.len > 0 ? BB_EMALFORMED : 0;
        return false;
    }
    if (split->is_behind_first && !skip_char(&split->rest, ',')) {
        split->error = BB_EMALFORMED;
        return false;
    }
    split->is_behind_first = true;
    if (split->close == '}' && (!take_value(split, ret_name) || !skip_char(&split->rest, ':'))) {
        split->error = BB_EMALFORMED;
        return false;
    }
    return take_value(split, ret_value);
}

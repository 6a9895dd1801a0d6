/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A condition is compiled into a list of steps with one truth value between them: a term sets it, "!" turns it round, and
 * "&&" and "||" jump over their right side when it changes nothing. So asking needs no stack and no memory.
 */
#include "proto/wire/where.h"

#include "proto/base/error.h"
#include "proto/base/utf8.h"
#include "proto/wire/mp.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define DEPTH_MAX 32

enum step_kind {
    STEP_TERM,
    STEP_NOT,
    STEP_SKIP_IF_FALSE, /* to `target` */
    STEP_SKIP_IF_TRUE,
};

enum operator{
    OP_TRUTH, /* the field alone */
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_HAS,
    OP_IN, /* OP_HAS from the other side */
};

enum value_kind {
    VALUE_NULL,
    VALUE_BOOL,
    VALUE_NUMBER,
    VALUE_TEXT,
    VALUE_OTHER, /* binary, arrays, maps, extensions */
};

enum number_kind {
    NUMBER_NEGATIVE, /* -`magnitude` */
    NUMBER_POSITIVE,
    NUMBER_DOUBLE,
};

struct value {
    enum value_kind kind;
    bool truth;
    enum number_kind number;
    uint64_t magnitude;
    double real;
    struct bb_slice text;
};

/* A part of a field: a key, or an index. */
struct part {
    bool is_index;
    int64_t index;
    size_t text; /* offset in the texts */
    size_t len;
};

struct step {
    enum step_kind kind;
    size_t target;
    enum operator op;
    size_t first_part;
    size_t n_parts;
    struct value literal; /* of a text, `magnitude` is its offset until all texts are there */
};

struct bb_where {
    struct bb_buf steps;
    struct bb_buf parts;
    struct bb_buf texts;
};

struct parser {
    const char *at;
    const char *start;
    const char *end;
    struct bb_where *where;
    struct bb_buf *err;
    int error;
};

static struct step *step_at(const struct bb_where *where, size_t i)
{
    return (struct step *)(void *)where->steps.data + i;
}

static size_t n_steps(const struct bb_where *where)
{
    return where->steps.len / sizeof(struct step);
}

/* --- parsing -------------------------------------------------------------------------------------- */

static int fail(struct parser *parser, int error, const char *expected)
{
    if (parser->error == 0) {
        parser->error = error;
        if (parser->err != NULL) {
            size_t column = 1;
            for (const char *at = parser->start; at < parser->at; at++) {
                column += ((unsigned char)*at & 0xc0) != 0x80; /* characters, not bytes */
            }
            bb_buf_printf(parser->err, "at column %zu: %s", column, expected);
        }
    }
    return parser->error;
}

static void skip_space(struct parser *parser)
{
    while (parser->at < parser->end && strchr(" \t\r\n", *parser->at) != NULL && *parser->at != 0) {
        parser->at++;
    }
}

static bool take(struct parser *parser, const char *token)
{
    size_t len = strlen(token);
    skip_space(parser);
    if ((size_t)(parser->end - parser->at) < len || memcmp(parser->at, token, len) != 0) {
        return false;
    }
    parser->at += len;
    return true;
}

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-' || (unsigned char)c >= 0x80;
}

static void add_utf8(struct bb_buf *out, unsigned code)
{
    if (code < 0x80) {
        bb_buf_append_byte(out, (uint8_t)code);
    } else if (code < 0x800) {
        bb_buf_append_byte(out, (uint8_t)(0xc0 | code >> 6));
        bb_buf_append_byte(out, (uint8_t)(0x80 | (code & 0x3f)));
    } else {
        bb_buf_append_byte(out, (uint8_t)(0xe0 | code >> 12));
        bb_buf_append_byte(out, (uint8_t)(0x80 | (code >> 6 & 0x3f)));
        bb_buf_append_byte(out, (uint8_t)(0x80 | (code & 0x3f)));
    }
}

static int parse_hex(struct parser *parser, unsigned *ret_code)
{
    unsigned code = 0;
    for (int i = 0; i < 4; i++) {
        static const char digits[] = "0123456789abcdef";
        char c = parser->at < parser->end ? *parser->at : 0;
        c = c >= 'A' && c <= 'F' ? (char)(c - 'A' + 'a') : c;
        const char *digit = c != 0 ? strchr(digits, c) : NULL;
        if (digit == NULL) {
            return fail(parser, BB_EINVAL, "four hexadecimal digits are expected after \\u");
        }
        code = code << 4 | (unsigned)(digit - digits);
        parser->at++;
    }
    if (code >= 0xd800 && code <= 0xdfff) {
        return fail(parser, BB_EINVAL, "write the character itself instead of surrogates");
    }
    *ret_code = code;
    return 0;
}

static int parse_escape(struct parser *parser)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    char c = parser->at < parser->end ? *parser->at : 0;
    const char *found = c != 0 ? strchr(from, c) : NULL;
    unsigned code = 0;
    if (c == 'u') {
        parser->at++;
        int r = parse_hex(parser, &code);
        if (r == 0) {
            add_utf8(&parser->where->texts, code);
        }
        return r;
    }
    if (found == NULL) {
        return fail(parser, BB_EINVAL, "an escape is one of \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u");
    }
    bb_buf_append_byte(&parser->where->texts, (uint8_t)to[found - from]);
    parser->at++;
    return 0;
}

/* Behind the opening quote; the text is appended to the texts. */
static int parse_string(struct parser *parser, size_t *ret_offset, size_t *ret_len)
{
    struct bb_buf *texts = &parser->where->texts;
    *ret_offset = texts->len;
    while (parser->at < parser->end && *parser->at != '"') {
        if (*parser->at == '\\') {
            parser->at++;
            if (parse_escape(parser) < 0) {
                return parser->error;
            }
        } else {
            bb_buf_append_byte(texts, (uint8_t)*parser->at++);
        }
    }
    if (parser->at == parser->end) {
        return fail(parser, BB_EINVAL, "the closing \" is missing");
    }
    parser->at++;
    *ret_len = texts->len - *ret_offset;
    return 0;
}

static int add_part(struct parser *parser, const struct part *part, struct step *step)
{
    bb_buf_append(&parser->where->parts, part, sizeof(*part));
    step->n_parts++;
    return 0;
}

static int parse_index(struct parser *parser, struct step *step)
{
    struct part part = {.is_index = true};
    skip_space(parser);
    bool negative = take(parser, "-");
    const char *first = parser->at;
    while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9' && parser->at - first < 10) {
        part.index = part.index * 10 + (*parser->at++ - '0');
    }
    if (parser->at == first || !take(parser, "]")) {
        return fail(parser, BB_EINVAL, "an index and ] are expected");
    }
    part.index = negative ? -part.index : part.index;
    return add_part(parser, &part, step);
}

static int parse_name(struct parser *parser, struct step *step)
{
    struct part part = {.text = parser->where->texts.len};
    if (parser->at < parser->end && *parser->at == '"') {
        parser->at++;
        if (parse_string(parser, &part.text, &part.len) < 0) {
            return parser->error;
        }
        return add_part(parser, &part, step);
    }
    while (parser->at < parser->end && is_name_byte(*parser->at)) {
        bb_buf_append_byte(&parser->where->texts, (uint8_t)*parser->at++);
    }
    part.len = parser->where->texts.len - part.text;
    if (parser->where->texts.error != 0) {
        return fail(parser, BB_ENOMEM, "out of memory"); /* no name is not the mistake then */
    }
    return part.len > 0 ? add_part(parser, &part, step) : 0;
}

static bool is_field(struct parser *parser)
{
    skip_space(parser);
    return parser->at < parser->end && (*parser->at == '.' || *parser->at == '[');
}

static int parse_field(struct parser *parser, struct step *step)
{
    step->first_part = parser->where->parts.len / sizeof(struct part);
    size_t n = 0;
    int r = take(parser, ".") ? parse_name(parser, step) : 0; /* else it begins with an index */
    if (r == 0 && step->n_parts == 0 && parser->at < parser->end && *parser->at == '.') {
        return fail(parser, BB_EINVAL, "a name is expected after the point");
    }
    while (r == 0 && parser->at < parser->end && (*parser->at == '.' || *parser->at == '[')) {
        bool is_index = *parser->at++ == '[';
        n = step->n_parts;
        r = is_index ? parse_index(parser, step) : parse_name(parser, step);
        if (r == 0 && step->n_parts == n) {
            return fail(parser, BB_EINVAL, "a name is expected after the point");
        }
    }
    return r;
}

static int parse_number(struct parser *parser, struct value *value)
{
    char text[64];
    size_t len = 0;
    bool real = false;
    while (parser->at + len < parser->end && len < sizeof(text) - 1 && parser->at[len] != 0 &&
           strchr("0123456789+-.eE", parser->at[len]) != NULL) {
        text[len] = parser->at[len];
        real = real || strchr(".eE", text[len]) != NULL;
        len++;
    }
    text[len] = 0;
    char *end = NULL;
    errno = 0;
    value->kind = VALUE_NUMBER;
    bool negative = text[0] == '-';
    if (!real) {
        value->magnitude = strtoull(text + negative, &end, 10);
        value->number = negative && value->magnitude > 0 ? NUMBER_NEGATIVE : NUMBER_POSITIVE;
    }
    if (real || errno == ERANGE) {
        errno = 0;
        value->number = NUMBER_DOUBLE;
        value->real = strtod(text, &end);
    }
    const char *digits = text + negative;
    if (len == 0 || *digits == 0 || *digits == '+' || *digits == '-' || end != text + len ||
        !isfinite(value->real)) {
        return fail(parser, BB_EINVAL, "a number is expected");
    }
    parser->at += len;
    return 0;
}

static int parse_literal(struct parser *parser, struct step *step)
{
    struct value *value = &step->literal;
    size_t offset = 0;
    size_t len = 0;
    skip_space(parser);
    if (take(parser, "\"")) {
        value->kind = VALUE_TEXT;
        if (parse_string(parser, &offset, &len) < 0) {
            return parser->error;
        }
        value->magnitude = offset;
        value->text.len = len;
        return 0;
    }
    if (take(parser, "true") || take(parser, "false")) {
        value->kind = VALUE_BOOL;
        value->truth = parser->at[-2] == 'u';
        return 0;
    }
    if (take(parser, "null")) {
        value->kind = VALUE_NULL;
        return 0;
    }
    if (parser->at < parser->end && (*parser->at == '-' || (*parser->at >= '0' && *parser->at <= '9'))) {
        return parse_number(parser, value);
    }
    return fail(parser, BB_EINVAL, "a field (.name), a number, a text, true, false or null is expected");
}

static enum operator parse_operator(struct parser *parser)
{
    static const struct {
        const char *token;
        enum operator op;
    } tokens[] = {{"==", OP_EQ}, {"!=", OP_NE}, {"<=", OP_LE}, {">=", OP_GE},
                  {"<", OP_LT},  {">", OP_GT},  {"~", OP_HAS}};
    for (size_t i = 0; i < BB_COUNT(tokens); i++) {
        if (take(parser, tokens[i].token)) {
            return tokens[i].op;
        }
    }
    return OP_TRUTH;
}

/* The operator seen from the other side. */
static enum operator turn_round(enum operator op)
{
    switch (op) {
    case OP_LT:
        return OP_GT;
    case OP_LE:
        return OP_GE;
    case OP_GT:
        return OP_LT;
    case OP_GE:
        return OP_LE;
    case OP_HAS:
        return OP_IN;
    case OP_TRUTH:
    case OP_EQ:
    case OP_NE:
    case OP_IN:
        break;
    }
    return op;
}

static int add_step(struct parser *parser, const struct step *step)
{
    bb_buf_append(&parser->where->steps, step, sizeof(*step));
    return parser->where->steps.error != 0 ? fail(parser, BB_ENOMEM, "out of memory") : 0;
}

static int parse_comparison(struct parser *parser)
{
    struct step step = {.kind = STEP_TERM};
    if (is_field(parser)) {
        if (parse_field(parser, &step) < 0) {
            return parser->error;
        }
        step.op = parse_operator(parser);
        if (step.op != OP_TRUTH && parse_literal(parser, &step) < 0) {
            return parser->error;
        }
        return add_step(parser, &step);
    }
    if (parse_literal(parser, &step) < 0) {
        return parser->error;
    }
    step.op = turn_round(parse_operator(parser));
    if (step.op == OP_TRUTH) {
        return fail(parser, BB_EINVAL, "==, !=, <, <=, >, >= or ~ is expected");
    }
    if (!is_field(parser)) {
        return fail(parser, BB_EINVAL, "a field (.name) is expected");
    }
    return parse_field(parser, &step) < 0 ? parser->error : add_step(parser, &step);
}

static int parse_or(struct parser *parser, unsigned depth);

static int parse_not(struct parser *parser, unsigned depth)
{
    bool turned = false;
    while (take(parser, "!")) {
        turned = !turned;
    }
    int r = 0;
    if (take(parser, "(")) {
        r = depth < DEPTH_MAX ? parse_or(parser, depth + 1) : fail(parser, BB_ETOODEEP, "nested too deeply");
        if (r == 0 && !take(parser, ")")) {
            return fail(parser, BB_EINVAL, "&&, || or ) is expected");
        }
    } else {
        r = parse_comparison(parser);
    }
    return r == 0 && turned ? add_step(parser, &(struct step){.kind = STEP_NOT}) : r;
}

typedef int part_fn(struct parser *parser, unsigned depth);

/* Parts joined by @token, each but the last followed by a jump to the end of all. */
static int
parse_chain(struct parser *parser, unsigned depth, const char *token, enum step_kind kind, part_fn *part)
{
    size_t first = n_steps(parser->where);
    int r = part(parser, depth);
    while (r == 0 && take(parser, token)) {
        r = add_step(parser, &(struct step){.kind = kind, .target = 0});
        if (r == 0) {
            r = part(parser, depth);
        }
    }
    for (size_t i = first; r == 0 && i < n_steps(parser->where); i++) {
        struct step *step = step_at(parser->where, i);
        if (step->kind == kind && step->target == 0) {
            step->target = n_steps(parser->where);
        }
    }
    return r;
}

static int parse_and(struct parser *parser, unsigned depth)
{
    return parse_chain(parser, depth, "&&", STEP_SKIP_IF_FALSE, parse_not);
}

static int parse_or(struct parser *parser, unsigned depth)
{
    return parse_chain(parser, depth, "||", STEP_SKIP_IF_TRUE, parse_and);
}

void bb_where_free(struct bb_where *where)
{
    if (where != NULL) {
        bb_buf_fini(&where->steps);
        bb_buf_fini(&where->parts);
        bb_buf_fini(&where->texts);
        free(where);
    }
}

int bb_where_parse(struct bb_slice text, struct bb_where **ret_where, struct bb_buf *err)
{
    const char *start = text.data != NULL ? (const char *)text.data : "";
    struct parser parser = {.at = start, .start = start, .end = start + text.len, .err = err};
    if (text.len == 0 || text.len > BB_WHERE_MAX) {
        parser.at = parser.start;
        return fail(&parser, text.len == 0 ? BB_EINVAL : BB_ETOOBIG,
                    "a condition of 1 to 4096 bytes is expected");
    }
    if (!bb_utf8_is_valid(text.data, text.len)) {
        return fail(&parser, BB_EINVAL, "the text is not UTF-8");
    }
    parser.where = calloc(1, sizeof(*parser.where));
    if (parser.where == NULL) {
        return BB_ENOMEM;
    }
    /* So that the empty text, too, has an address to count from. */
    int r = bb_buf_reserve(&parser.where->texts, 1) != NULL ? parse_or(&parser, 0) : BB_ENOMEM;
    skip_space(&parser);
    if (r == 0 && parser.at != parser.end) {
        r = fail(&parser, BB_EINVAL, "&&, || or the end is expected");
    }
    if (r == 0 && (parser.where->parts.error != 0 || parser.where->texts.error != 0)) {
        r = BB_ENOMEM;
    }
    if (r < 0) {
        bb_where_free(parser.where);
        return r;
    }
    for (size_t i = 0; i < n_steps(parser.where); i++) {
        struct value *value = &step_at(parser.where, i)->literal;
        if (value->kind == VALUE_TEXT) {
            value->text.data = parser.where->texts.data + value->magnitude;
        }
    }
    *ret_where = parser.where;
    return 0;
}

/* --- asking --------------------------------------------------------------------------------------- */

/* The value of @key, or of the element @part->index; false if there is none. */
static bool enter(const struct bb_where *where, const struct part *part, struct bb_slice *value)
{
    struct bb_mp_reader reader = bb_mp_reader(*value);
    enum bb_mp_type type = bb_mp_peek_type(&reader);
    if (part->is_index) {
        int64_t n = type == BB_MP_ARRAY ? (int64_t)bb_mp_read_array(&reader) : 0;
        int64_t index = part->index < 0 ? n + part->index : part->index;
        if (index < 0 || index >= n) {
            return false;
        }
        for (int64_t i = 0; i < index; i++) {
            bb_mp_skip(&reader);
        }
        *value = bb_mp_read_raw(&reader);
        return reader.error == 0;
    }
    struct bb_slice key = bb_slice(where->texts.data + part->text, part->len);
    uint64_t n = type == BB_MP_MAP ? bb_mp_read_map(&reader) : 0;
    for (uint64_t i = 0; i < n && reader.error == 0; i++) {
        bool is_text = bb_mp_peek_type(&reader) == BB_MP_STR;
        struct bb_slice name = is_text ? bb_mp_read_str(&reader) : bb_mp_read_raw(&reader);
        struct bb_slice found = bb_mp_read_raw(&reader);
        if (is_text && reader.error == 0 && bb_slice_equal(name, key)) {
            *value = found;
            return true;
        }
    }
    return false;
}

static struct value read_value(struct bb_slice raw)
{
    struct bb_mp_reader reader = bb_mp_reader(raw);
    struct value value = {.kind = VALUE_OTHER};
    int64_t number = 0;
    switch (bb_mp_peek_type(&reader)) {
    case BB_MP_NIL:
        value.kind = VALUE_NULL;
        break;
    case BB_MP_BOOL:
        value.kind = VALUE_BOOL;
        value.truth = bb_mp_read_bool(&reader);
        break;
    case BB_MP_UINT:
        value.kind = VALUE_NUMBER;
        value.number = NUMBER_POSITIVE;
        value.magnitude = bb_mp_read_uint(&reader);
        break;
    case BB_MP_INT:
        value.kind = VALUE_NUMBER;
        value.number = NUMBER_NEGATIVE;
        number = bb_mp_read_int(&reader);
        value.magnitude = (uint64_t)0 - (uint64_t)number;
        break;
    case BB_MP_DOUBLE:
        value.kind = VALUE_NUMBER;
        value.number = NUMBER_DOUBLE;
        value.real = bb_mp_read_double(&reader);
        break;
    case BB_MP_STR:
        value.kind = VALUE_TEXT;
        value.text = bb_mp_read_str(&reader);
        break;
    case BB_MP_NONE:
    case BB_MP_BIN:
    case BB_MP_EXT:
    case BB_MP_ARRAY:
    case BB_MP_MAP:
        break;
    }
    return value;
}

static struct value find_value(const struct bb_where *where, const struct step *step, struct bb_slice payload)
{
    const struct part *parts = (const struct part *)(const void *)where->parts.data;
    for (size_t i = 0; i < step->n_parts; i++) {
        if (!enter(where, &parts[step->first_part + i], &payload)) {
            return (struct value){.kind = VALUE_NULL};
        }
    }
    return read_value(payload);
}

/* -1, 0, 1; a magnitude and a number that is not negative. */
static int compare_magnitude(uint64_t magnitude, double real)
{
    if (real >= 18446744073709551616.0) {
        return -1;
    }
    uint64_t whole = (uint64_t)real;
    if (magnitude != whole) {
        return magnitude < whole ? -1 : 1;
    }
    return real > (double)whole ? -1 : 0;
}

static int compare_mixed(const struct value *integer, double real)
{
    if (integer->number == NUMBER_NEGATIVE) {
        return real >= 0 ? -1 : -compare_magnitude(integer->magnitude, -real);
    }
    return real < 0 ? 1 : compare_magnitude(integer->magnitude, real);
}

static int compare_integers(const struct value *a, const struct value *b)
{
    if (a->number != b->number) {
        return a->number == NUMBER_NEGATIVE ? -1 : 1;
    }
    int r = a->magnitude < b->magnitude ? -1 : a->magnitude > b->magnitude;
    return a->number == NUMBER_NEGATIVE ? -r : r;
}

/* Whether they have an order. */
static bool compare(const struct value *a, const struct value *b, int *ret_order)
{
    if (a->kind == VALUE_TEXT) {
        size_t n = BB_MIN(a->text.len, b->text.len);
        int r = n > 0 ? memcmp(a->text.data, b->text.data, n) : 0;
        *ret_order = r != 0 ? r : a->text.len < b->text.len ? -1 : a->text.len > b->text.len;
        return true;
    }
    if (a->kind != VALUE_NUMBER) {
        return false;
    }
    bool a_real = a->number == NUMBER_DOUBLE;
    bool b_real = b->number == NUMBER_DOUBLE;
    if ((a_real && isnan(a->real)) || (b_real && isnan(b->real))) {
        return false;
    }
    if (a_real && b_real) {
        *ret_order = a->real < b->real ? -1 : a->real > b->real;
    } else if (a_real) {
        *ret_order = -compare_mixed(b, a->real);
    } else {
        *ret_order = b_real ? compare_mixed(a, b->real) : compare_integers(a, b);
    }
    return true;
}

static bool is_equal(const struct value *a, const struct value *b)
{
    int order = 0;
    if (a->kind != b->kind) {
        return false;
    }
    if (a->kind == VALUE_NULL) {
        return true;
    }
    return a->kind == VALUE_BOOL ? a->truth == b->truth : compare(a, b, &order) && order == 0;
}

static bool contains(struct bb_slice text, struct bb_slice part)
{
    for (size_t i = 0; i + part.len <= text.len; i++) {
        if (part.len == 0 || memcmp(text.data + i, part.data, part.len) == 0) {
            return true;
        }
    }
    return false;
}

static bool term_holds(const struct bb_where *where, const struct step *step, struct bb_slice payload)
{
    struct value value = find_value(where, step, payload);
    const struct value *literal = &step->literal;
    int order = 0;
    if (step->op == OP_TRUTH) {
        return value.kind != VALUE_NULL && (value.kind != VALUE_BOOL || value.truth);
    }
    if (step->op == OP_EQ || step->op == OP_NE) {
        return is_equal(&value, literal) == (step->op == OP_EQ);
    }
    if (value.kind != literal->kind) {
        return false;
    }
    if (step->op == OP_HAS) {
        return value.kind == VALUE_TEXT && contains(value.text, literal->text);
    }
    if (step->op == OP_IN) {
        return value.kind == VALUE_TEXT && contains(literal->text, value.text);
    }
    if (!compare(&value, literal, &order)) {
        return false;
    }
    return step->op == OP_LT   ? order < 0
           : step->op == OP_LE ? order <= 0
           : step->op == OP_GT ? order > 0
                               : order >= 0;
}

bool bb_where_holds(const struct bb_where *where, struct bb_slice payload)
{
    bool truth = false;
    for (size_t i = 0; i < n_steps(where); i++) {
        const struct step *step = step_at(where, i);
        if (step->kind == STEP_TERM) {
            truth = term_holds(where, step, payload);
        } else if (step->kind == STEP_NOT) {
            truth = !truth;
        } else if (truth == (step->kind == STEP_SKIP_IF_TRUE)) {
            i = step->target - 1;
        }
    }
    return truth;
}

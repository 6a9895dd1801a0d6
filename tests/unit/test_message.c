/* SPDX-License-Identifier: Apache-2.0 */
/* The heads of messages: what each refuses, field by field, and what it reads. Good ones of each: test_golden.c. */
#include "proto/base/error.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include <criterion/criterion.h>

static const uint64_t types[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,
                                 13, 14, 16, 17, 18, 19, 20, 21, 22, 23, 24};

static int decode(const struct bb_buf *bytes, struct bb_msg *ret_msg)
{
    /* exactly as large as the content, so that the address sanitizer sees one byte too far */
    uint8_t *copy = malloc(bytes->len > 0 ? bytes->len : 1);
    cr_assert(copy != NULL);
    memcpy(copy, bytes->data, bytes->len);
    int r = bb_msg_decode(bb_slice(copy, bytes->len), ret_msg);
    free(copy);
    return r;
}

static void write_good_field(struct bb_buf *out, const struct bb_field *field)
{
    if (field->kind == BB_FIELD_UINT) {
        bb_mp_write_uint(out, UINT64_MAX);
    } else if (field->kind == BB_FIELD_TEXT) {
        bb_mp_write_str(out, bb_slice_str("text"));
    } else if (field->kind == BB_FIELD_BIN) {
        bb_mp_write_bin(out, bb_slice_str("0123456789abcdef"));
    } else {
        bb_mp_write_array(out, 1);
        bb_mp_write_nil(out);
    }
}

/* A head with its first @n fields, of which field @odd is @bytes instead. */
static struct bb_buf head_with(const struct bb_msg_row *row, size_t n, size_t odd, struct bb_slice bytes)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_mp_write_array(&out, (uint32_t)(n + 1));
    bb_mp_write_uint(&out, (uint64_t)row->type);
    for (size_t i = 0; i < n; i++) {
        if (i == odd) {
            bb_buf_append(&out, bytes.data, bytes.len);
        } else {
            write_good_field(&out, &row->fields[i]);
        }
    }
    return out;
}

static struct bb_buf head(const struct bb_msg_row *row, size_t n)
{
    return head_with(row, n, SIZE_MAX, (struct bb_slice){0});
}

static int decode_with(const struct bb_msg_row *row, size_t odd, struct bb_slice bytes)
{
    struct bb_buf out = head_with(row, row->n_fields, odd, bytes);
    struct bb_msg msg = {0};
    int r = decode(&out, &msg);
    bb_buf_fini(&out);
    return r;
}

Test(message, each_type_has_a_row_that_its_name_finds)
{
    size_t n = 0;
    for (uint64_t type = 0; type < 300; type++) {
        const struct bb_msg_row *row = bb_msg_row_find(type);
        if (row != NULL) {
            cr_assert_eq((uint64_t)row->type, type);
            cr_assert_eq(types[n++], type);
            cr_assert_eq(bb_msg_row_find_name(bb_slice_str(row->name)), row);
            cr_assert(row->n_required <= row->n_fields && row->n_fields <= BB_FIELDS_MAX);
        }
    }
    cr_assert_eq(n, BB_COUNT(types));
    cr_assert_null(bb_msg_row_find(UINT64_MAX));
    cr_assert_null(bb_msg_row_find((UINT64_C(1) << 32) + BB_MSG_PING));
    cr_assert_null(bb_msg_row_find_name(bb_slice_str("pin")));
    cr_assert_null(bb_msg_row_find_name(bb_slice_str("pingx")));
    cr_assert_null(bb_msg_row_find_name((struct bb_slice){0}));
}

Test(message, only_fields_at_the_end_may_be_left_out)
{
    for (size_t t = 0; t < BB_COUNT(types); t++) {
        const struct bb_msg_row *row = bb_msg_row_find(types[t]);
        for (size_t n = 0; n <= row->n_fields; n++) {
            struct bb_buf bytes = head(row, n);
            struct bb_msg msg = {0};
            int expected = n >= row->n_required ? 0 : BB_EMALFORMED;
            cr_assert_eq(decode(&bytes, &msg), expected, "%s with %zu fields", row->name, n);
            cr_assert_eq(msg.type, row->type);
            bb_buf_fini(&bytes);
        }
    }
}

Test(message, fields_after_the_last_known_one_are_ignored_if_well_formed)
{
    for (size_t t = 0; t < BB_COUNT(types); t++) {
        const struct bb_msg_row *row = bb_msg_row_find(types[t]);
        struct bb_buf bytes = head(row, row->n_fields);
        struct bb_msg msg = {0};
        bytes.data[0] += 2; /* of a short array */
        cr_assert_eq(decode(&bytes, &msg), BB_EMALFORMED, "%s", row->name);
        bb_mp_write_map(&bytes, 1);
        bb_mp_write_nil(&bytes);
        bb_mp_write_nil(&bytes);
        bb_mp_write_uint(&bytes, 1);
        cr_assert_eq(decode(&bytes, &msg), 0, "%s", row->name);
        cr_assert_eq(msg.body.len, 0);
        bytes.data[bytes.len - 1] = 0xc1;
        cr_assert_eq(decode(&bytes, &msg), BB_EMALFORMED, "%s", row->name);
        bb_buf_fini(&bytes);
    }
}

Test(message, what_follows_the_head_is_the_body_and_is_not_looked_at)
{
    for (size_t t = 0; t < BB_COUNT(types); t++) {
        struct bb_buf bytes = head(bb_msg_row_find(types[t]), bb_msg_row_find(types[t])->n_fields);
        struct bb_msg msg = {0};
        size_t len = bytes.len;
        bb_buf_append(&bytes, "\xc1rest", 5);
        cr_assert_eq(bb_msg_decode(bb_buf_slice(&bytes), &msg), 0);
        cr_assert_eq(msg.body.len, 5);
        cr_assert_eq(msg.body.data, bytes.data + len);
        bb_buf_fini(&bytes);
    }
}

Test(message, a_head_cut_short_anywhere_is_malformed)
{
    for (size_t t = 0; t < BB_COUNT(types); t++) {
        const struct bb_msg_row *row = bb_msg_row_find(types[t]);
        struct bb_buf bytes = head(row, row->n_fields);
        while (bytes.len > 0) {
            struct bb_msg msg = {0};
            bytes.len--;
            cr_assert_eq(decode(&bytes, &msg), BB_EMALFORMED, "%s of %zu bytes", row->name, bytes.len);
        }
        bb_buf_fini(&bytes);
    }
}

/* What a field may be, over all MessagePack types. */
#define U 1u /* an integer field takes it, */
#define T 2u /* a text */
#define B 4u /* a binary */
#define R 8u /* one that may be anything */

static const struct {
    const char *name;
    const char *bytes;
    size_t len;
    unsigned taken;
    int error; /* for the others, 0 for BB_EMALFORMED */
} values[] = {
    {"nil", "\xc0", 1, B | R, 0},
    {"true", "\xc3", 1, R, 0},
    {"zero", "\x00", 1, U | R, 0},
    {"fixint", "\x7f", 1, U | R, 0},
    {"long form of one", "\xcf\0\0\0\0\0\0\0\1", 9, U | R, 0},
    {"positive int64", "\xd3\x7f\xff\xff\xff\xff\xff\xff\xff", 9, U | R, 0},
    {"largest uint64", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9, U | R, 0},
    {"minus one", "\xff", 1, R, 0},
    {"smallest int64", "\xd3\x80\0\0\0\0\0\0\0", 9, R, 0},
    {"float that is whole", "\xcb\x3f\xf0\0\0\0\0\0\0", 9, R, 0},
    {"empty text", "\xa0", 1, T | R, 0},
    {"text", "\xa2ok", 3, T | R, 0},
    {"long form of a text", "\xdb\0\0\0\1x", 6, T | R, 0},
    {"empty binary", "\xc4\x00", 2, B | R, 0},
    {"binary", "\xc4\x02\xff\xfe", 4, B | R, 0},
    {"array", "\x90", 1, R, 0},
    {"map", "\x81\xc0\xc0", 3, R, 0},
    {"extension", "\xd4\x05\x00", 3, R, 0},
    {"reserved byte", "\xc1", 1, 0, 0},
    {"length of 4 GiB", "\xdb\xff\xff\xff\xff", 5, 0, 0},
    {"array of 4 Gi", "\xdd\xff\xff\xff\xff", 5, 0, 0},
    {"map of 4 Gi", "\xdf\xff\xff\xff\xff", 5, 0, 0},
    {"text that is not UTF-8", "\xa2\xc3\x28", 3, 0, BB_EUTF8},
    {"text with half a character", "\xa1\xc3", 2, 0, BB_EUTF8},
    {"text inside that is not UTF-8", "\x91\xa1\xff", 3, 0, BB_EUTF8},
};

static const unsigned kind_bits[] = {
    [BB_FIELD_UINT] = U,
    [BB_FIELD_TEXT] = T,
    [BB_FIELD_BIN] = B,
    [BB_FIELD_RAW] = R,
};

Test(message, each_field_takes_what_it_must_and_nothing_else)
{
    for (size_t t = 0; t < BB_COUNT(types); t++) {
        const struct bb_msg_row *row = bb_msg_row_find(types[t]);
        for (size_t i = 0; i < row->n_fields; i++) {
            const struct bb_field *field = &row->fields[i];
            for (size_t v = 0; v < BB_COUNT(values); v++) {
                int error =
                    values[v].error != 0 && field->kind != BB_FIELD_UINT ? values[v].error : BB_EMALFORMED;
                bool is_left_out = i >= row->n_required && values[v].len == 1 && values[v].bytes[0] == '\xc0';
                bool is_taken = (values[v].taken & kind_bits[field->kind]) != 0 || is_left_out;
                int expected = is_taken ? 0 : error;
                int r = decode_with(row, i, bb_slice(values[v].bytes, values[v].len));
                cr_assert_eq(r, expected, "%s.%s: %s: %d", row->name, field->name, values[v].name, r);
            }
        }
    }
}

Test(message, a_field_is_nested_as_deep_as_a_payload_and_no_deeper)
{
    uint8_t deep[BB_MP_MAX_DEPTH + 1];
    memset(deep, 0x91, sizeof(deep));
    for (size_t t = 0; t < BB_COUNT(types); t++) {
        const struct bb_msg_row *row = bb_msg_row_find(types[t]);
        for (size_t i = 0; i < row->n_fields; i++) {
            if (row->fields[i].kind == BB_FIELD_RAW) {
                deep[BB_MP_MAX_DEPTH - 1] = 0x90;
                cr_assert_eq(decode_with(row, i, bb_slice(deep, BB_MP_MAX_DEPTH)), 0, "%s", row->name);
                deep[BB_MP_MAX_DEPTH - 1] = 0x91;
                deep[BB_MP_MAX_DEPTH] = 0x90;
                cr_assert_eq(decode_with(row, i, bb_slice(deep, sizeof(deep))), BB_ETOODEEP, "%s", row->name);
            }
        }
    }
}

Test(message, a_field_of_too_many_values_is_too_big)
{
    struct bb_buf many = BB_BUF_INIT;
    uint32_t n = 1u << 20; /* and the array itself */
    bb_mp_write_array(&many, n);
    uint8_t *to = bb_buf_reserve(&many, n);
    cr_assert(to != NULL);
    memset(to, 0, n);
    many.len += n;
    const struct bb_msg_row *row = bb_msg_row_find(BB_MSG_SUBSCRIBE);
    cr_assert_eq(decode_with(row, 2, bb_buf_slice(&many)), BB_ETOOBIG);
    bb_buf_fini(&many);
}

Test(message, bytes_that_begin_with_no_head_are_malformed)
{
    static const struct {
        const char *bytes;
        size_t len;
    } rows[] = {
        {"", 0},
        {"\x90", 1},
        {"\x91", 1},
        {"\x06", 1},
        {"\x91\xff", 2},
        {"\x91\xc0", 2},
        {"\x92\xa1x", 3},
        {"\x81\x06\x01", 3},
        {"\xdc\x00", 2},
        {"\xdd\xff\xff\xff\xff\x06", 6},
        {"\x92\xcb\x40\x18\0\0\0\0\0\0\1", 11},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        struct bb_msg msg = {.type = BB_MSG_ERROR, .corr = 9};
        cr_assert_eq(bb_msg_decode(bb_slice(rows[i].bytes, rows[i].len), &msg), BB_EMALFORMED, "row %zu", i);
        cr_assert_eq(msg.type, BB_MSG_NONE);
        cr_assert_eq(msg.corr, 0);
    }
    struct bb_msg msg = {0};
    cr_assert_eq(bb_msg_decode((struct bb_slice){0}, &msg), BB_EMALFORMED);
}

Test(message, unknown_types_are_told_from_malformed_bytes)
{
    static const uint64_t unknown[] = {0, 15, 25, 127, 128, 65536, UINT32_MAX, UINT64_MAX};
    for (size_t i = 0; i < BB_COUNT(unknown); i++) {
        struct bb_buf bytes = BB_BUF_INIT;
        struct bb_msg msg = {0};
        bb_mp_write_array(&bytes, 2);
        bb_mp_write_uint(&bytes, unknown[i]);
        bb_mp_write_uint(&bytes, 1);
        cr_assert_eq(decode(&bytes, &msg), BB_EUNKNOWN);
        cr_assert_eq(msg.type, BB_MSG_NONE);
        bb_buf_fini(&bytes);
    }
}

Test(message, long_forms_of_the_head_are_read)
{
    struct bb_msg msg = {0};
    cr_assert_eq(bb_msg_decode(bb_slice("\xdc\0\2\xcd\0\6\xcc\x05", 8), &msg), 0);
    cr_assert_eq(msg.type, BB_MSG_PING);
    cr_assert_eq(msg.token, 5);
    cr_assert_eq(bb_msg_decode(bb_slice("\xdd\0\0\0\2\xd0\6\x05", 8), &msg), 0);
    cr_assert_eq(msg.type, BB_MSG_PING);
}

Test(message, a_failure_tells_whom_to_answer_and_leaves_the_rest_alone)
{
    struct bb_msg msg = {.sub = 77, .body = {(const uint8_t *)"x", 1}};
    cr_assert_eq(bb_msg_decode(bb_slice("\x94\3\x09\xa1x\x90", 6), &msg), BB_EMALFORMED);
    cr_assert_eq(msg.type, BB_MSG_SUBSCRIBE);
    cr_assert_eq(msg.corr, 9);
    cr_assert_eq(msg.sub, 77);
    cr_assert_eq(msg.body.len, 1);
    cr_assert_eq(bb_msg_decode(bb_slice("\x93\2\x08\xc2", 4), &msg), BB_EMALFORMED);
    cr_assert_eq(msg.type, BB_MSG_PUBLISH);
    cr_assert_eq(msg.corr, 8, "the number of a publish is what its error names");
}

Test(message, heads_are_told_from_events_and_from_other_bytes)
{
    cr_assert(bb_msg_is_head(bb_slice("\x91\x06", 2)));
    cr_assert(bb_msg_is_head(bb_slice("\xdc\0\1\xcc\xff", 5)));
    cr_assert(!bb_msg_is_head(bb_slice("\x92\xa1x\x01", 4)));
    cr_assert(!bb_msg_is_head(bb_slice("\x90", 1)));
    cr_assert(!bb_msg_is_head(bb_slice("\x91", 1)));
    cr_assert(!bb_msg_is_head(bb_slice("\x91\xff", 2)));
    cr_assert(!bb_msg_is_head(bb_slice("\x91\xcd\x01", 3)));
    cr_assert(!bb_msg_is_head(bb_slice("\x81\x06\x01", 3)));
    cr_assert(!bb_msg_is_head((struct bb_slice){0}));
}

Test(message, what_is_empty_at_the_end_is_left_out_and_nil_before)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_MATCHES, .corr = 1, .path = bb_slice_str("a")});
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice("\x93\x09\x01\xa1"
                                                          "a",
                                                          5)));
    bb_buf_reset(&out);
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_MATCHES, .corr = 1, .timeout = 2});
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice("\x95\x09\x01\xa0\x00\x02", 6)));
    bb_buf_reset(&out);
    bb_msg_encode(&out,
                  &(struct bb_msg){.type = BB_MSG_SUBSCRIBE, .corr = 1, .options = bb_slice("\x80", 1)});
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice("\x96\x03\x01\x00\xc0\xc0\x80", 7)));
    bb_buf_reset(&out);
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_HELLO});
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice("\x95\x01\x00\x00\xc0\x00", 6)));
    bb_buf_fini(&out);
}

Test(message, encoding_no_message_is_an_error_that_sticks)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_NONE});
    cr_assert_eq(out.error, BB_EINVAL);
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_PING});
    cr_assert_eq(out.error, BB_EINVAL);
    cr_assert_eq(out.len, 0);
    out.error = BB_ENOMEM;
    bb_msg_encode(&out, &(struct bb_msg){.type = BB_MSG_NONE});
    cr_assert_eq(out.error, BB_ENOMEM, "the first error is the one that is kept");
    bb_buf_fini(&out);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/mp.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

/* The bytes in @buf start with @hex and number @len in all; empties the buffer. */
static void expect(struct bb_buf *buf, const char *hex, size_t len)
{
    char text[64] = "";
    size_t shown = strlen(hex) / 2;
    cr_assert_eq(buf->error, 0);
    cr_assert_eq(buf->len, len, "%zu bytes instead of %zu for %s", buf->len, len, hex);
    for (size_t i = 0; i < shown; i++) {
        (void)snprintf(text + 2 * i, 3, "%02x", buf->data[i]);
    }
    cr_assert_str_eq(text, hex);
    bb_buf_reset(buf);
}

Test(mp, unsigned_integers_take_the_shortest_form)
{
    static const struct {
        uint64_t value;
        const char *hex;
    } rows[] = {
        {0, "00"},
        {127, "7f"},
        {128, "cc80"},
        {255, "ccff"},
        {256, "cd0100"},
        {65535, "cdffff"},
        {65536, "ce00010000"},
        {UINT32_MAX, "ceffffffff"},
        {UINT64_C(4294967296), "cf0000000100000000"},
        {UINT64_MAX, "cfffffffffffffffff"},
    };
    struct bb_buf buf = BB_BUF_INIT;
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_uint(&buf, rows[i].value);
        struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&buf));
        cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_UINT);
        cr_assert_eq(bb_mp_read_uint(&reader), rows[i].value);
        cr_assert(reader.error == 0 && reader.p == reader.end);
        expect(&buf, rows[i].hex, strlen(rows[i].hex) / 2);
    }
    bb_buf_fini(&buf);
}

Test(mp, signed_integers_take_the_shortest_form)
{
    static const struct {
        int64_t value;
        const char *hex;
    } rows[] = {
        {1, "01"},
        {200, "ccc8"},
        {INT64_MAX, "cf7fffffffffffffff"},
        {-1, "ff"},
        {-32, "e0"},
        {-33, "d0df"},
        {-128, "d080"},
        {-129, "d1ff7f"},
        {-32768, "d18000"},
        {-32769, "d2ffff7fff"},
        {INT32_MIN, "d280000000"},
        {INT64_C(-2147483649), "d3ffffffff7fffffff"},
        {INT64_MIN, "d38000000000000000"},
    };
    struct bb_buf buf = BB_BUF_INIT;
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_int(&buf, rows[i].value);
        struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&buf));
        cr_assert_eq(bb_mp_peek_type(&reader), rows[i].value < 0 ? BB_MP_INT : BB_MP_UINT);
        cr_assert_eq(bb_mp_read_int(&reader), rows[i].value);
        cr_assert(reader.error == 0 && reader.p == reader.end);
        expect(&buf, rows[i].hex, strlen(rows[i].hex) / 2);
    }
    bb_buf_fini(&buf);
}

Test(mp, heads_take_the_shortest_form)
{
    static const struct {
        uint32_t count;
        const char *str, *bin, *array, *map, *ext;
    } rows[] = {
        {0, "a0", "c400", "90", "80", "c70007"},
        {1, "a1", "c401", "91", "81", "d407"},
        {2, "a2", "c402", "92", "82", "d507"},
        {3, "a3", "c403", "93", "83", "c70307"},
        {4, "a4", "c404", "94", "84", "d607"},
        {8, "a8", "c408", "98", "88", "d707"},
        {15, "af", "c40f", "9f", "8f", "c70f07"},
        {16, "b0", "c410", "dc0010", "de0010", "d807"},
        {31, "bf", "c41f", "dc001f", "de001f", "c71f07"},
        {32, "d920", "c420", "dc0020", "de0020", "c72007"},
        {255, "d9ff", "c4ff", "dc00ff", "de00ff", "c7ff07"},
        {256, "da0100", "c50100", "dc0100", "de0100", "c8010007"},
        {65535, "daffff", "c5ffff", "dcffff", "deffff", "c8ffff07"},
        {65536, "db00010000", "c600010000", "dd00010000", "df00010000", "c90001000007"},
    };
    struct bb_buf buf = BB_BUF_INIT;
    static const uint8_t zeros[65536];
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        uint32_t count = rows[i].count;
        struct bb_slice body = bb_slice(zeros, count);
        bb_mp_write_str(&buf, body);
        expect(&buf, rows[i].str, strlen(rows[i].str) / 2 + count);
        bb_mp_write_bin(&buf, body);
        expect(&buf, rows[i].bin, strlen(rows[i].bin) / 2 + count);
        bb_mp_write_ext(&buf, 7, body);
        expect(&buf, rows[i].ext, strlen(rows[i].ext) / 2 + count);
        bb_mp_write_array(&buf, count);
        expect(&buf, rows[i].array, strlen(rows[i].array) / 2);
        bb_mp_write_map(&buf, count);
        expect(&buf, rows[i].map, strlen(rows[i].map) / 2);
    }
    bb_buf_fini(&buf);
}

Test(mp, every_kind_of_value_is_read_back)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_mp_write_array(&buf, 8);
    bb_mp_write_nil(&buf);
    bb_mp_write_bool(&buf, true);
    bb_mp_write_bool(&buf, false);
    bb_mp_write_double(&buf, -0.1);
    bb_mp_write_str(&buf, bb_slice_str("path"));
    bb_mp_write_bin(&buf, bb_slice("\0\1", 2));
    bb_mp_write_ext(&buf, -1, bb_slice_str("time"));
    bb_mp_write_map(&buf, 1);
    bb_mp_write_int(&buf, -5);
    bb_mp_write_nil(&buf);

    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&buf));
    int8_t type;
    cr_assert_eq(bb_mp_read_array(&reader), 8);
    bb_mp_read_nil(&reader);
    cr_assert(bb_mp_read_bool(&reader));
    cr_assert_not(bb_mp_read_bool(&reader));
    cr_assert(bb_mp_read_double(&reader) == -0.1);
    cr_assert(bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("path")));
    cr_assert(bb_slice_equal(bb_mp_read_bin(&reader), bb_slice("\0\1", 2)));
    cr_assert(bb_slice_equal(bb_mp_read_ext(&reader, &type), bb_slice_str("time")));
    cr_assert_eq(type, -1);
    cr_assert_eq(bb_mp_read_map(&reader), 1);
    cr_assert_eq(bb_mp_read_int(&reader), -5);
    bb_mp_read_nil(&reader);
    cr_assert(reader.error == 0 && reader.p == reader.end);
    bb_buf_fini(&buf);
}

static double double_of(const char *bytes, size_t len, int *ret_error)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(bytes, len));
    double value = bb_mp_read_double(&reader);
    *ret_error = reader.error;
    return value;
}

Test(mp, a_double_may_come_as_float32_or_as_exact_integer)
{
    int error;
    cr_assert(double_of("\xca\x3f\xc0\x00\x00", 5, &error) == 1.5 && error == 0);
    cr_assert(isinf(double_of("\xca\xff\x80\x00\x00", 5, &error)) && error == 0);
    cr_assert(double_of("\xfe", 1, &error) == -2.0 && error == 0);
    cr_assert(double_of("\xcf\x00\x20\x00\x00\x00\x00\x00\x00", 9, &error) == 9007199254740992.0 &&
              error == 0);
    (void)double_of("\xcf\x00\x20\x00\x00\x00\x00\x00\x01", 9, &error);
    cr_assert_eq(error, BB_EMALFORMED);
    (void)double_of("\xd3\x80\x00\x00\x00\x00\x00\x00\x00", 9, &error);
    cr_assert_eq(error, BB_EMALFORMED);
    (void)double_of("\xa1x", 2, &error);
    cr_assert_eq(error, BB_EMALFORMED);
}

Test(mp, integers_are_read_from_longer_forms_than_needed)
{
    static const char bytes[] =
        "\xd3\x00\x00\x00\x00\x00\x00\x00\x05\xd0\x07\xce\x00\x00\x00\x01\xd1\xff\xff";
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(bytes, sizeof(bytes) - 1));
    cr_assert_eq(bb_mp_read_uint(&reader), 5);
    cr_assert_eq(bb_mp_read_uint(&reader), 7);
    cr_assert_eq(bb_mp_read_int(&reader), 1);
    cr_assert_eq(bb_mp_read_int(&reader), -1);
    cr_assert_eq(reader.error, 0);
}

Test(mp, integers_of_the_wrong_sign_or_size_are_refused)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_slice("\xff", 1));
    cr_assert_eq(bb_mp_read_uint(&reader), 0);
    cr_assert_eq(reader.error, BB_EMALFORMED);
    reader = bb_mp_reader(bb_slice("\xcf\x80\0\0\0\0\0\0\0", 9));
    cr_assert_eq(bb_mp_read_int(&reader), 0);
    cr_assert_eq(reader.error, BB_EMALFORMED);
}

Test(mp, the_first_error_stays_and_every_later_read_is_zero)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_slice("\x01\xa3"
                                                       "abc\x93\x01\x02\x03",
                                                       9));
    int8_t type = 1;
    bb_mp_reader_fail(&reader, BB_ETOODEEP);
    cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_NONE);
    cr_assert_eq(bb_mp_read_uint(&reader), 0);
    cr_assert_eq(bb_mp_read_int(&reader), 0);
    cr_assert(bb_mp_read_double(&reader) == 0);
    cr_assert_not(bb_mp_read_bool(&reader));
    cr_assert_eq(bb_mp_read_str(&reader).len, 0);
    cr_assert_eq(bb_mp_read_bin(&reader).len, 0);
    cr_assert_eq(bb_mp_read_ext(&reader, &type).len, 0);
    cr_assert_eq(type, 0);
    cr_assert_eq(bb_mp_read_array(&reader), 0);
    cr_assert_eq(bb_mp_read_map(&reader), 0);
    cr_assert_eq(bb_mp_read_raw(&reader).len, 0);
    cr_assert_eq(reader.error, BB_ETOODEEP);
}

Test(mp, a_value_cut_anywhere_is_malformed)
{
    struct bb_buf buf = BB_BUF_INIT;
    static const uint8_t body[300];
    bb_mp_write_array(&buf, 6);
    bb_mp_write_uint(&buf, UINT64_MAX);
    bb_mp_write_double(&buf, 1.5);
    bb_mp_write_bin(&buf, bb_slice(body, sizeof(body)));
    bb_mp_write_ext(&buf, 3, bb_slice(body, 40));
    bb_mp_write_map(&buf, 1);
    bb_mp_write_str(&buf, bb_slice_str("key"));
    bb_mp_write_int(&buf, -70000);
    bb_mp_write_bool(&buf, true);
    for (size_t len = 0; len < buf.len; len++) {
        struct bb_mp_reader reader = bb_mp_reader(bb_slice(buf.data, len));
        bb_mp_skip(&reader);
        cr_assert_eq(reader.error, BB_EMALFORMED, "cut at %zu", len);
    }
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&buf));
    cr_assert_eq(bb_mp_read_raw(&reader).len, buf.len);
    cr_assert_eq(reader.error, 0);
    bb_buf_fini(&buf);
}

Test(mp, counts_beyond_the_bytes_left_are_malformed_at_once)
{
    static const char *const heads[] = {"\xdd\xff\xff\xff\xff", "\xdf\xff\xff\xff\xff",
                                        "\xdb\xff\xff\xff\xff", "\xc6\xff\xff\xff\xff",
                                        "\xdf\x80\x00\x00\x00"};
    for (size_t i = 0; i < BB_COUNT(heads); i++) {
        struct bb_mp_head head;
        cr_assert_eq(bb_mp_head_read((const uint8_t *)heads[i], 5, &head), BB_EMALFORMED);
    }
    struct bb_mp_head head;
    cr_assert_eq(bb_mp_head_read((const uint8_t *)"\x92\x01\x01", 3, &head), 0);
    cr_assert_eq(bb_mp_head_read((const uint8_t *)"\x92\x01", 2, &head), BB_EMALFORMED);
    cr_assert_eq(bb_mp_head_read((const uint8_t *)"\x82\x01\x01\x01", 4, &head), BB_EMALFORMED);
}

Test(mp, the_reserved_byte_is_no_value)
{
    struct bb_mp_reader reader = bb_mp_reader(bb_slice("\xc1", 1));
    cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_NONE);
    bb_mp_skip(&reader);
    cr_assert_eq(reader.error, BB_EMALFORMED);
}

Test(mp, skip_goes_as_deep_as_the_limit_and_no_deeper)
{
    uint8_t nested[BB_MP_MAX_DEPTH + 2];
    memset(nested, 0x91, sizeof(nested));
    nested[BB_MP_MAX_DEPTH] = 0xc0;
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(nested, BB_MP_MAX_DEPTH + 1));
    bb_mp_skip(&reader);
    cr_assert(reader.error == 0 && reader.p == reader.end);

    nested[BB_MP_MAX_DEPTH] = 0x90;
    reader = bb_mp_reader(bb_slice(nested, BB_MP_MAX_DEPTH + 1));
    bb_mp_skip(&reader);
    cr_assert_eq(reader.error, BB_ETOODEEP);
}

Test(mp, values_one_after_another_are_skipped_one_by_one)
{
    static const char bytes[] = "\x90\x80\x92\xa1x\x81\x01\x90\xc0";
    static const size_t lens[] = {1, 1, 6, 1};
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(bytes, sizeof(bytes) - 1));
    for (size_t i = 0; i < BB_COUNT(lens); i++) {
        cr_assert_eq(bb_mp_read_raw(&reader).len, lens[i], "value %zu", i);
    }
    cr_assert(reader.error == 0 && reader.p == reader.end);
}

Test(mp, a_body_beyond_the_format_is_too_big)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_mp_write_bin(&buf, bb_slice("", (size_t)UINT32_MAX + 1));
    cr_assert_eq(buf.error, BB_ETOOBIG);
    bb_buf_fini(&buf);
}

Test(mp, nothing_at_all_can_be_read)
{
    struct bb_mp_reader reader = bb_mp_reader((struct bb_slice){0});
    cr_assert_eq(bb_mp_peek_type(&reader), BB_MP_NONE);
    cr_assert_eq(bb_mp_read_str(&reader).len, 0);
    cr_assert_eq(reader.error, BB_EMALFORMED);
}

Test(mp, equal_is_what_has_the_same_value_in_any_width)
{
    static const struct {
        struct bb_slice a, b;
        bool equal;
    } rows[] = {
#define ROW(a, b, equal) {{(const uint8_t *)(a), sizeof(a) - 1}, {(const uint8_t *)(b), sizeof(b) - 1}, equal}
        ROW("\x05", "\xcc\x05", true),
        ROW("\x05", "\xd3\0\0\0\0\0\0\0\x05", true),
        ROW("\xff", "\xd1\xff\xff", true),
        ROW("\xff", "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", false),
        ROW("\xca\x3f\x80\0\0", "\xcb\x3f\xf0\0\0\0\0\0\0", true),
        ROW("\x01", "\xca\x3f\x80\0\0", false),
        ROW("\xa1x", "\xd9\x01x", true),
        ROW("\xa1x", "\xc4\x01x", false),
        ROW("\xa1x", "\xa1y", false),
        ROW("\x91\x81\xa1x\x05", "\xdc\0\x01\xde\0\x01\xa1x\xcd\0\x05", true),
        ROW("\x92\x91\x01\x02", "\x92\x01\x91\x02", false),
        ROW("\x91\x01", "\x92\x01\x01", false),
        ROW("\xc7\x01\x07z", "\xd4\x07z", true),
        ROW("\xd4\x08z", "\xd4\x07z", false),
        ROW("\xc2", "\xc3", false),
        ROW("\xc0", "", false),
        ROW("\xc1", "\xc1", false),
        ROW("\xa5x", "\xa5x", false),
#undef ROW
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        cr_assert_eq(bb_mp_is_equal(rows[i].a, rows[i].b), rows[i].equal, "row %zu", i);
        cr_assert_eq(bb_mp_is_equal(rows[i].b, rows[i].a), rows[i].equal, "row %zu turned round", i);
    }
}

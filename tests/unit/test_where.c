/* SPDX-License-Identifier: Apache-2.0 */
/* Conditions on payloads: what they say about values, and what is said about mistakes in them. */
#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"
#include "proto/wire/where.h"

#include <criterion/criterion.h>
#include <math.h>

struct row {
    const char *text;
    bool holds;
};

static struct bb_where *parsed(struct bb_slice text)
{
    struct bb_where *where = NULL;
    struct bb_buf err = BB_BUF_INIT;
    int r = bb_where_parse(text, &where, &err);
    cr_assert_eq(r, 0, "%.*s: %s", (int)text.len, (const char *)text.data, bb_buf_string(&err));
    cr_assert_eq(err.len, 0);
    bb_buf_fini(&err);
    return where;
}

static bool holds(const char *text, struct bb_slice payload)
{
    struct bb_where *where = parsed(bb_slice_str(text));
    bool result = bb_where_holds(where, payload);
    cr_assert_eq(bb_where_holds(where, payload), result, "%s asked twice", text);
    bb_where_free(where);
    return result;
}

static void check_bytes(struct bb_slice payload, const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cr_assert_eq(holds(rows[i].text, payload), rows[i].holds, "%s", rows[i].text);
    }
}

static void check(const char *json, const struct row *rows, size_t n)
{
    struct bb_buf payload = BB_BUF_INIT;
    cr_assert_eq(bb_json_value_to_mp(json, strlen(json), &payload, NULL), 0, "%s", json);
    check_bytes(bb_buf_slice(&payload), rows, n);
    bb_buf_fini(&payload);
}

#define CHECK_ROWS(json, rows) check((json), (rows), BB_COUNT(rows))

Test(where, fields_are_found)
{
    static const struct row rows[] = {
        {".a == 1", true},
        {".b.c == \"x\"", true},
        {".list[0] == 10", true},
        {".list[2] == 30", true},
        {".list[3] == null", true},
        {".list[-1] == 30", true},
        {".list[ -3 ] == 10", true},
        {".list[-4] == null", true},
        {".list[9999999999] == null", true},
        {".list[0].deep == null", true},
        {".rows[1].v == 7", true},
        {".\"with space\" == 2", true},
        {".\"q\\\"\\u00e4\" == 3", true},
        {".\"\" == 4", true},
        {".\xc3\xa4-_9 == 5", true},
        {".a.b == null", true},
        {".a[0] == null", true},
        {".list.a == null", true},
        {".missing == null", true},
        {". == 1", false},
    };
    CHECK_ROWS("{\"a\":1,\"b\":{\"c\":\"x\"},\"list\":[10,20,30],\"rows\":[{\"v\":6},{\"v\":7}],"
               "\"with space\":2,\"q\\\"\xc3\xa4\":3,\"\":4,\"\xc3\xa4-_9\":5}",
               rows);
}

Test(where, an_index_may_come_first)
{
    static const struct row rows[] = {
        {"[0] > 3", true},        {"[0] > 5", false}, {"[-1] == \"x\"", true},    {"[1].a == 7", true},
        {"[1][0] == null", true}, {"5 == [0]", true}, {"! [0] < 5 && [2]", true}, {"([3] == null)", true},
    };
    CHECK_ROWS("[5,{\"a\":7},\"x\"]", rows);
}

Test(where, the_left_text_contains_the_right_one)
{
    static const struct row rows[] = {
        {"\"abcd\" ~ .x", true}, {"\"bc\" ~ .x", true},   {"\"b\" ~ .x", false}, {".x ~ \"b\"", true},
        {"\"abc\" ~ .n", false}, {"\"abc\" ~ .y", false}, {"5 ~ .n", false},
    };
    CHECK_ROWS("{\"x\":\"bc\",\"n\":5}", rows);
}

Test(where, the_point_is_the_payload)
{
    static const struct row number[] = {
        {". == 5", true}, {". > 4", true}, {".a == null", true}, {".[0]", false}};
    static const struct row list[] = {
        {".[1] == 6", true}, {".[-1] == 6", true}, {". == 5", false}, {".", true}};
    static const struct row text[] = {
        {". == \"\"", true}, {". ~ \"\"", true}, {". < \"a\"", true}, {".", true}};
    CHECK_ROWS("5", number);
    CHECK_ROWS("[5,6]", list);
    CHECK_ROWS("\"\"", text);
}

Test(where, operators_either_way_round)
{
    static const struct row rows[] = {
        {".n == 80", true},  {".n != 80", false}, {".n < 80", false},  {".n <= 80", true},
        {".n > 80", false},  {".n >= 80", true},  {".n<81", true},     {".n>-5", true},
        {"80 == .n", true},  {"80 != .n", false}, {"79 < .n", true},   {"80 <= .n", true},
        {"81 > .n", true},   {"80 >= .n", true},  {"81 < .n", false},  {"79 > .n", false},
        {".n >= 8e1", true}, {".n < 80.5", true}, {"80.5 > .n", true},
    };
    CHECK_ROWS("{\"n\":80}", rows);
}

Test(where, a_field_alone)
{
    static const struct row rows[] = {
        {".yes", true},   {".no", false},   {".nothing", false},  {".missing", false},
        {".zero", true},  {".text", true},  {".list", true},      {"!.no", true},
        {"!.yes", false}, {"!!.yes", true}, {"! ! !.yes", false},
    };
    CHECK_ROWS("{\"yes\":true,\"no\":false,\"nothing\":null,\"zero\":0,\"text\":\"\",\"list\":[]}", rows);
}

Test(where, kinds_do_not_mix)
{
    static const struct row rows[] = {
        {".t == 1", false},       {".t != 1", true},        {".t < 1", false},
        {".t >= 1", false},       {".n == \"1\"", false},   {".n < \"1\"", false},
        {".n > \"1\"", false},    {".b == 1", false},       {".b == true", true},
        {".b != false", true},    {".b <= true", false},    {".b >= true", false},
        {".z == null", true},     {".z <= null", false},    {".z == false", false},
        {".l == null", false},    {".l != null", true},     {".l == \"\"", false},
        {".missing < 1", false},  {".missing >= 1", false}, {".missing != 1", true},
        {".missing == 0", false}, {".n ~ \"1\"", false},    {".missing ~ \"\"", false},
    };
    CHECK_ROWS("{\"t\":\"1\",\"n\":1,\"b\":true,\"z\":null,\"l\":[]}", rows);
}

Test(where, texts)
{
    static const struct row rows[] = {
        {".t == \"on\"", true},
        {".t != \"off\"", true},
        {".t < \"one\"", true},
        {".t > \"o\"", true},
        {".t <= \"on\"", true},
        {".t >= \"oo\"", false},
        {".t ~ \"n\"", true},
        {".t ~ \"on\"", true},
        {".t ~ \"\"", true},
        {".t ~ \"one\"", false},
        {".t ~ \"x\"", false},
        {".t == \"\\u006fn\"", true},
        {".u == \"\xe2\x82\xac\"", true},
        {".u == \"\\u20AC\"", true},
        {".u > \"z\"", true},
        {".e == \"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", true},
    };
    CHECK_ROWS("{\"t\":\"on\",\"u\":\"\xe2\x82\xac\",\"e\":\"\\\"\\\\/\\b\\f\\n\\r\\t\"}", rows);
}

Test(where, how_strong_they_bind)
{
    static const struct row rows[] = {
        {".f && .f || .t", true},
        {".t || .f && .f", true},
        {"(.t || .f) && .f", false},
        {".t && .t && .t", true},
        {".t && .f && .t", false},
        {".f || .f || .t", true},
        {".f || .f || .f", false},
        {"!.t || .t", true},
        {"!(.t || .t)", false},
        {"!(.t && .f)", true},
        {"!(.f && .t) && .t", true},
        {"!.f && !.f", true},
        {"! .n == 2", true},
        {"!(.n == 1) || .f", false},
        {"((.t))", true},
        {".f && (.t || .t) || .t", true},
        {"(.f && .t || .t) && .f", false},
        {"!(!(.t && !(.f || .f)))", true},
        {"\t.t\n&&\r.t ", true},
        {".t&&.t||.f", true},
    };
    CHECK_ROWS("{\"t\":true,\"f\":false,\"n\":1}", rows);
}

/* Every condition of three fields and two operators against C's own. */
Test(where, all_small_conditions)
{
    for (unsigned form = 0; form < 8 * 4 * 3 * 8; form++) {
        unsigned not = form & 7;
        unsigned ops = form >> 3 & 3;
        unsigned parens = (form >> 5) % 3;
        unsigned bits = (form >> 5) / 3;
        bool v[3];
        char text[96];
        struct bb_buf payload = BB_BUF_INIT;
        bb_mp_write_array(&payload, 3);
        for (unsigned i = 0; i < 3; i++) {
            bb_mp_write_bool(&payload, (bits >> i & 1) != 0);
            v[i] = ((bits ^ not ) >> i & 1) != 0;
        }
        (void)snprintf(text, sizeof(text), "%s%s.[0] %s %s%s.[1]%s %s %s.[2]%s", parens == 1 ? "(" : "",
                       not &1 ? "!" : "", ops & 1 ? "&&" : "||", parens == 2 ? "(" : "", not &2 ? "!" : "",
                       parens == 1 ? ")" : "", ops & 2 ? "&&" : "||", not &4 ? "!" : "",
                       parens == 2 ? ")" : "");
        bool left = ops & 1 ? v[0] && v[1] : v[0] || v[1];
        bool right = ops & 2 ? v[1] && v[2] : v[1] || v[2];
        bool is_left = parens == 1 || (parens == 0 && (ops != 2));
        bool expected =
            is_left ? (ops & 2 ? left && v[2] : left || v[2]) : (ops & 1 ? v[0] && right : v[0] || right);
        cr_assert_eq(holds(text, bb_buf_slice(&payload)), expected, "%s with %u", text, bits);
        bb_buf_fini(&payload);
    }
}

static void check_int(int64_t payload, const struct row *rows, size_t n)
{
    struct bb_buf bytes = BB_BUF_INIT;
    bb_mp_write_int(&bytes, payload);
    check_bytes(bb_buf_slice(&bytes), rows, n);
    bb_buf_fini(&bytes);
}

static void check_double(double payload, const struct row *rows, size_t n)
{
    struct bb_buf bytes = BB_BUF_INIT;
    bb_mp_write_double(&bytes, payload);
    check_bytes(bb_buf_slice(&bytes), rows, n);
    bb_buf_fini(&bytes);
}

Test(where, integers_to_their_ends)
{
    static const struct row least[] = {
        {". == -9223372036854775808", true},   {". > -9223372036854775809", true},
        {". == -9223372036854775809", false},  {". < -9223372036854775807", true},
        {". < 18446744073709551615", true},    {". > -1e30", true},
        {". == -9223372036854775808.0", true},
    };
    static const struct row minus_one[] = {
        {". < 18446744073709551615", true},
        {". == 18446744073709551615", false},
        {". < 0", true},
        {". < -0.5", true},
        {". > -1.5", true},
        {". == -1.0", true},
        {". < -0", true},
    };
    static const struct row most[] = {
        {". == 18446744073709551615", true},
        {". > 18446744073709551614", true},
        {". == 18446744073709551616", false},
        {". < 18446744073709551616", true},
        {". > -1", true},
        {". < 1e30", true},
    };
    static const uint8_t most_bytes[] = {0xcf, 255, 255, 255, 255, 255, 255, 255, 255};
    static const struct row zero[] = {
        {". == -0", true}, {". == -0.0", true}, {". == 0e5", true}, {". != 0", false}};
    check_int(INT64_MIN, least, BB_COUNT(least));
    check_int(-1, minus_one, BB_COUNT(minus_one));
    check_int(0, zero, BB_COUNT(zero));
    check_bytes(bb_slice(most_bytes, sizeof(most_bytes)), most, BB_COUNT(most));
}

Test(where, integers_and_floats_compare_exactly)
{
    /* 2^53 + 1 is no double */
    static const struct row beyond[] = {
        {". == 9007199254740992.0", false},
        {". > 9007199254740992.0", true},
        {". < 9007199254740994.0", true},
    };
    static const struct row float_2_53[] = {
        {". == 9007199254740992", true},
        {". == 9007199254740993", false},
        {". < 9007199254740993", true},
        {". > 9007199254740991", true},
    };
    static const struct row two_64[] = {{". > 18446744073709551615", true},
                                        {". == 18446744073709551616", true}};
    static const struct row half[] = {
        {". > 0", true}, {". < 1", true}, {". == 0", false}, {". == 5e-1", true}};
    static const struct row minus_half[] = {{". < 0", true}, {". > -1", true}, {". == 0", false}};
    check_int((INT64_C(1) << 53) + 1, beyond, BB_COUNT(beyond));
    check_double(9007199254740992.0, float_2_53, BB_COUNT(float_2_53));
    check_double(18446744073709551616.0, two_64, BB_COUNT(two_64));
    check_double(0.5, half, BB_COUNT(half));
    check_double(-0.5, minus_half, BB_COUNT(minus_half));
}

Test(where, infinite_and_no_number)
{
    static const struct row nan_rows[] = {
        {". == 0", false},   {". != 0", true},      {". < 0", false}, {". >= 0", false},
        {". == 0.5", false}, {". <= 1e300", false}, {".", true},
    };
    static const struct row up[] = {
        {". > 18446744073709551615", true}, {". > 1e308", true}, {". < 0", false}};
    static const struct row down[] = {
        {". < -9223372036854775808", true}, {". < -1e308", true}, {". > 0", false}};
    check_double(NAN, nan_rows, BB_COUNT(nan_rows));
    check_double(INFINITY, up, BB_COUNT(up));
    check_double(-INFINITY, down, BB_COUNT(down));
}

Test(where, keys_twice_and_keys_that_are_no_text)
{
    static const uint8_t twice[] = {0x82, 0xa1, 'a', 1, 0xa1, 'a', 2};
    static const uint8_t others[] = {0x83, 0x01, 0xa1, 'x', 0x91, 0xa1, 'a', 2, 0xa1, 'a', 3};
    static const struct row first[] = {{".a == 1", true}, {".a == 2", false}};
    static const struct row third[] = {{".a == 3", true}, {".\"1\" == null", true}};
    check_bytes(bb_slice(twice, sizeof(twice)), first, BB_COUNT(first));
    check_bytes(bb_slice(others, sizeof(others)), third, BB_COUNT(third));
}

Test(where, values_of_no_kind)
{
    static const uint8_t bin[] = {0xc4, 2, 'o', 'n'};
    static const uint8_t ext[] = {0xd4, 1, 5};
    static const struct row rows[] = {
        {".", true},          {". == \"on\"", false}, {". != \"on\"", true},  {". ~ \"o\"", false},
        {". == null", false}, {".a == null", true},   {".[0] == null", true},
    };
    check_bytes(bb_slice(bin, sizeof(bin)), rows, BB_COUNT(rows));
    check_bytes(bb_slice(ext, sizeof(ext)), rows, BB_COUNT(rows));
}

/* The contract asks for well-formed payloads; others must still be read within their bytes. */
Test(where, a_payload_cut_short_is_survived)
{
    static const uint8_t bytes[] = {0x82, 0xa1, 'a', 0x92, 1, 0xa2, 'h', 'i', 0xa1, 'b',
                                    0xcb, 0,    0,   0,    0, 0,    0,   0,   1};
    for (size_t len = 0; len < sizeof(bytes); len++) {
        uint8_t *copy = malloc(len > 0 ? len : 1);
        cr_assert_not_null(copy);
        memcpy(copy, bytes, len);
        cr_assert_not(holds(".a[1] == \"hi\" && .b > 0 && .c", bb_slice(copy, len)));
        free(copy);
    }
}

Test(where, mistakes_are_placed)
{
    static const struct {
        const char *text;
        size_t column;
        const char *expected; /* part of the sentence */
    } mistakes[] = {
        {".a = 5", 4, "&&"},
        {".a <", 5, "number"},
        {"(.a", 4, ")"},
        {".a)", 3, "end"},
        {".a == \"x", 9, "\""},
        {".a == \"\\x\"", 9, "escape"},
        {".a == \"\\u12g4\"", 12, "hexadecimal"},
        {".a == \"\\ud800\"", 14, "surrogates"},
        {".a.", 4, "name"},
        {"..a", 2, "name"},
        {".a..b", 4, "name"},
        {".a[", 4, "index"},
        {".a[x]", 4, "index"},
        {".a[1", 5, "]"},
        {".a == 1e999", 7, "number"},
        {".a == --5", 7, "number"},
        {".a == 1-2", 7, "number"},
        {".a == 0x10", 8, "end"},
        {".a == +5", 7, "number"},
        {"5", 2, "=="},
        {"5 == 6", 6, "field"},
        {"5 == ", 6, "field"},
        {".a && ", 7, "field"},
        {".a && && .b", 7, "field"},
        {"|| .a", 1, "field"},
        {"()", 2, "field"},
        {"  ", 3, "field"},
        {".a .b", 4, "end"},
        {".a == true.b", 11, "end"},
        {"nothing", 1, "field"},
        {".a == 'x'", 7, "text"},
        {".\xc3\xa4\xe2\x82\xac = 5", 5, "&&"},
        {"[0", 3, "]"},
        {"[0].", 5, "name"},
        {"5 == x", 6, "field"},
        {"\xff", 1, "UTF-8"},
    };
    for (size_t i = 0; i < BB_COUNT(mistakes); i++) {
        struct bb_where *where = NULL;
        struct bb_buf err = BB_BUF_INIT;
        char column[32];
        (void)snprintf(column, sizeof(column), "column %zu:", mistakes[i].column);
        cr_assert_eq(bb_where_parse(bb_slice_str(mistakes[i].text), &where, &err), BB_EINVAL, "%s",
                     mistakes[i].text);
        const char *sentence = bb_buf_string(&err);
        cr_assert_not_null(strstr(sentence, column), "%s: %s", mistakes[i].text, sentence);
        cr_assert_not_null(strstr(sentence, mistakes[i].expected), "%s: %s", mistakes[i].text, sentence);
        cr_assert_null(where);
        bb_buf_fini(&err);
        cr_assert_eq(bb_where_parse(bb_slice_str(mistakes[i].text), &where, NULL), BB_EINVAL);
    }
}

/* @n parentheses round one field; returns the length. */
static size_t nested(char *text, size_t n)
{
    memset(text, '(', n);
    memcpy(text + n, ".a", 2);
    memset(text + n + 2, ')', n);
    return 2 * n + 2;
}

Test(where, depth_and_length_are_bounded)
{
    char text[BB_WHERE_MAX + 1];
    struct bb_where *where = NULL;
    bb_where_free(parsed(bb_slice(text, nested(text, 32))));
    cr_assert_eq(bb_where_parse(bb_slice(text, nested(text, 33)), &where, NULL), BB_ETOODEEP);
    cr_assert_eq(bb_where_parse(bb_slice(text, nested(text, 2000)), &where, NULL), BB_ETOODEEP);
    memset(text, '!', sizeof(text));
    memcpy(text + BB_WHERE_MAX - 2, ".a", 2);
    bb_where_free(parsed(bb_slice(text, BB_WHERE_MAX)));
    cr_assert_eq(bb_where_parse(bb_slice(text, BB_WHERE_MAX + 1), &where, NULL), BB_ETOOBIG);
    cr_assert_eq(bb_where_parse((struct bb_slice){0}, &where, NULL), BB_EINVAL);
    bb_where_free(NULL);
}

Test(where, the_text_may_go_away)
{
    char text[] = ".state == \"on\" && .\"x y\" == \"\"";
    struct bb_where *where = parsed(bb_slice(text, strlen(text)));
    memset(text, 0, sizeof(text));
    static const uint8_t payload[] = {0x82, 0xa5, 's',  't', 'a', 't', 'e', 0xa2,
                                      'o',  'n',  0xa3, 'x', ' ', 'y', 0xa0};
    cr_assert(bb_where_holds(where, bb_slice(payload, sizeof(payload))));
    bb_where_free(where);
}

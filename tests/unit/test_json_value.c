/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/error.h"
#include "proto/base/utf8.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/scan.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define BYTES(text) text, sizeof(text) - 1

/* Pairs that turn into each other both ways. */
static const struct {
    const char *mp;
    size_t len;
    const char *json;
} pairs[] = {
    {BYTES("\xc0"), "null"},
    {BYTES("\xc2"), "false"},
    {BYTES("\xc3"), "true"},
    {BYTES("\x00"), "0"},
    {BYTES("\xd3\x80\0\0\0\0\0\0\0"), "-9223372036854775808"},
    {BYTES("\xcf\x7f\xff\xff\xff\xff\xff\xff\xff"), "9223372036854775807"},
    {BYTES("\xcf\x80\0\0\0\0\0\0\0"), "{\"$uint\":\"9223372036854775808\"}"},
    {BYTES("\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), "{\"$uint\":\"18446744073709551615\"}"},
    {BYTES("\xcb\x3f\xf0\0\0\0\0\0\0"), "1.0"},
    {BYTES("\xcb\x80\0\0\0\0\0\0\0"), "-0.0"},
    {BYTES("\xcb\x3f\xb9\x99\x99\x99\x99\x99\x9a"), "0.1"},
    {BYTES("\xcb\x44\x15\xaf\x1d\x78\xb5\x8c\x40"), "1e+20"},
    {BYTES("\xcb\x00\x00\x00\x00\x00\x00\x00\x01"), "4.94065645841247e-324"},
    {BYTES("\xcb\x7f\xef\xff\xff\xff\xff\xff\xff"), "1.7976931348623157e+308"},
    {BYTES("\xcb\x7f\xf8\0\0\0\0\0\0"), "{\"$float\":\"nan\"}"},
    {BYTES("\xcb\x7f\xf0\0\0\0\0\0\0"), "{\"$float\":\"inf\"}"},
    {BYTES("\xcb\xff\xf0\0\0\0\0\0\0"), "{\"$float\":\"-inf\"}"},
    {BYTES("\xa0"), "\"\""},
    {BYTES("\xa3"
           "a\0b"),
     "\"a\\u0000b\""},
    {BYTES("\xa8\"\\/\b\f\n\r\t"), "\"\\\"\\\\/\\b\\f\\n\\r\\t\""},
    {BYTES("\xa3\x0b\x1f\x7f"), "\"\\u000b\\u001f\x7f\""},
    {BYTES("\xa4\xf0\x9f\x98\x80"), "\"\xf0\x9f\x98\x80\""},
    {BYTES("\xc4\x00"), "{\"$binary\":\"\"}"},
    {BYTES("\xc4\x02\x00\xff"), "{\"$binary\":\"AP8=\"}"},
    {BYTES("\xd6\xff\0\0\0\1"), "{\"$ext\":[-1,\"AAAAAQ==\"]}"},
    {BYTES("\xc7\x00\x80"), "{\"$ext\":[-128,\"\"]}"},
    {BYTES("\x90"), "[]"},
    {BYTES("\x80"), "{}"},
    {BYTES("\x93\x01\x91\x02\x80"), "[1,[2],{}]"},
    {BYTES("\x82\xa1"
           "b\x01\xa1"
           "a\x02"),
     "{\"b\":1,\"a\":2}"},
    {BYTES("\x81\xa0\xa0"), "{\"\":\"\"}"},
    {BYTES("\x81\x01\x02"), "{\"$map\":[[1,2]]}"},
    {BYTES("\x82\xa1"
           "a\x01\xc0\x02"),
     "{\"$map\":[[\"a\",1],[null,2]]}"},
    {BYTES("\x82\xa1"
           "a\x01\xa1"
           "a\x02"),
     "{\"$map\":[[\"a\",1],[\"a\",2]]}"},
    {BYTES("\x83\xa1"
           "a\x01\xa1"
           "b\x02\xa1"
           "a\x03"),
     "{\"$map\":[[\"a\",1],[\"b\",2],[\"a\",3]]}"},
    {BYTES("\x82\xa0\x01\xa0\x02"), "{\"$map\":[[\"\",1],[\"\",2]]}"},
    {BYTES("\x81\xa2"
           "a\0\x01"),
     "{\"$map\":[[\"a\\u0000\",1]]}"},
    {BYTES("\x81\x81\x01\xc4\x00\x90"), "{\"$map\":[[{\"$map\":[[1,{\"$binary\":\"\"}]]},[]]]}"},
    {BYTES("\x81\xa7$binary\x01"), "{\"$$binary\":1}"},
    {BYTES("\x81\xa2$x\xc0"), "{\"$$x\":null}"},
    {BYTES("\x81\xa3$$x\xc0"), "{\"$$$x\":null}"},
    {BYTES("\x81\xa1$\xc0"), "{\"$$\":null}"},
    {BYTES("\x81\xa2$\n\xc0"), "{\"$$\\n\":null}"},
    {BYTES("\x82\xa5$uint\xa1"
           "1\xa3$$x\xc0"),
     "{\"$uint\":\"1\",\"$$x\":null}"},
};

Test(json_value, every_pair_turns_into_each_other)
{
    for (size_t i = 0; i < BB_COUNT(pairs); i++) {
        struct bb_buf text = BB_BUF_INIT;
        struct bb_buf mp = BB_BUF_INIT;
        struct bb_buf err = BB_BUF_INIT;
        cr_assert_eq(bb_mp_to_json(bb_slice(pairs[i].mp, pairs[i].len), &text), 0, "%s", pairs[i].json);
        cr_assert_str_eq(bb_buf_string(&text), pairs[i].json);
        int r = bb_json_value_to_mp(pairs[i].json, strlen(pairs[i].json), &mp, &err);
        cr_assert_eq(r, 0, "%s: %s", pairs[i].json, bb_buf_string(&err));
        cr_assert(bb_slice_equal(bb_buf_slice(&mp), bb_slice(pairs[i].mp, pairs[i].len)), "%s",
                  pairs[i].json);
        bb_buf_fini(&text);
        bb_buf_fini(&mp);
        bb_buf_fini(&err);
    }
}

/* Text that is accepted, and how it would have been written. */
static const struct {
    const char *from, *to;
} spellings[] = {
    {" [ 1 , 2 ]\n", "[1,2]"},
    {"\"\\u0041\\ud83d\\ude00\\/\"", "\"A\xf0\x9f\x98\x80/\""},
    {"1E2", "100.0"},
    {"-0", "0"},
    {"{\"$uint\":\"5\"}", "5"},
    {"{\"$map\":[]}", "{}"},
    {"{\"$map\":[[\"a\",1],[\"b\",2]]}", "{\"a\":1,\"b\":2}"},
    {"{\"$map\":[[\"$binary\",\"\"]]}", "{\"$$binary\":\"\"}"},
    {"{\"a\":\"]]]]{{{{\\\"[[[\"}", "{\"a\":\"]]]]{{{{\\\"[[[\"}"},
};

Test(json_value, other_spellings_have_the_same_meaning)
{
    for (size_t i = 0; i < BB_COUNT(spellings); i++) {
        struct bb_buf text = BB_BUF_INIT;
        struct bb_buf mp = BB_BUF_INIT;
        int r = bb_json_value_to_mp(spellings[i].from, strlen(spellings[i].from), &mp, NULL);
        cr_assert_eq(r, 0, "%s", spellings[i].from);
        cr_assert_eq(bb_mp_to_json(bb_buf_slice(&mp), &text), 0);
        cr_assert_str_eq(bb_buf_string(&text), spellings[i].to);
        bb_buf_fini(&text);
        bb_buf_fini(&mp);
    }
}

static const struct {
    const char *text;
    int error;
    const char *sentence; /* a part of it */
} refused[] = {
    {"", BB_EMALFORMED, "line 1"},
    {"[1,2] x", BB_EMALFORMED, "end of file expected"},
    {"[1,\n 2,,]", BB_EMALFORMED, "line 2, column"},
    {"[1", BB_EMALFORMED, "line 1"},
    {"NaN", BB_EMALFORMED, "line 1"},
    {"\"\\ud800\"", BB_EMALFORMED, "line 1"},
    {"\"\\udc00\\ud800\"", BB_EMALFORMED, "line 1"},
    {"\"a\xff\"", BB_EUTF8, "UTF-8"},
    {"\"\xed\xa0\x80\"", BB_EUTF8, "UTF-8"},
    {"\"a\nb\"", BB_EMALFORMED, "unexpected newline"},
    {"\"a\001b\"", BB_EMALFORMED, "control character"},
    {"18446744073709551615", BB_EMALFORMED, "too big integer"},
    {"-9223372036854775809", BB_EMALFORMED, "too big negative integer"},
    {"1e400", BB_EMALFORMED, "real number overflow"},
    {"{\"a\":1,\"a\":2}", BB_EMALFORMED, "duplicate"},
    {"{\"a\\u0000\":1}", BB_EMALFORMED, "NUL"},
    {"{\"$x\":1}", BB_EMALFORMED, "one $ more"},
    {"{\"$\":1}", BB_EMALFORMED, "one $ more"},
    {"{\"$binary\":1}", BB_EMALFORMED, "$binary takes a text in base64"},
    {"{\"$binary\":\"A\"}", BB_EMALFORMED, "$binary takes"},
    {"{\"$binary\":\"AP9=\"}", BB_EMALFORMED, "$binary takes"},
    {"{\"$ext\":[1]}", BB_EMALFORMED, "$ext takes"},
    {"{\"$ext\":[128,\"\"]}", BB_EMALFORMED, "$ext takes"},
    {"{\"$ext\":[-129,\"\"]}", BB_EMALFORMED, "$ext takes"},
    {"{\"$ext\":[1.0,\"\"]}", BB_EMALFORMED, "$ext takes"},
    {"{\"$ext\":[1,\"\",0]}", BB_EMALFORMED, "$ext takes"},
    {"{\"$ext\":[1,2]}", BB_EMALFORMED, "$ext takes"},
    {"{\"$float\":\"NaN\"}", BB_EMALFORMED, "$float takes"},
    {"{\"$float\":1.5}", BB_EMALFORMED, "$float takes"},
    {"{\"$uint\":5}", BB_EMALFORMED, "$uint takes"},
    {"{\"$uint\":\"\"}", BB_EMALFORMED, "$uint takes"},
    {"{\"$uint\":\"05\"}", BB_EMALFORMED, "$uint takes"},
    {"{\"$uint\":\"-5\"}", BB_EMALFORMED, "$uint takes"},
    {"{\"$uint\":\"18446744073709551616\"}", BB_EMALFORMED, "$uint takes"},
    {"{\"$uint\":\"99999999999999999999999\"}", BB_EMALFORMED, "$uint takes"},
    {"{\"$map\":{}}", BB_EMALFORMED, "$map takes"},
    {"{\"$map\":[[1]]}", BB_EMALFORMED, "$map takes"},
    {"{\"$map\":[[1,2,3]]}", BB_EMALFORMED, "$map takes"},
    {"{\"$map\":[1]}", BB_EMALFORMED, "$map takes"},
    {"[1,{\"$map\":[[{\"$uint\":0},1]]}]", BB_EMALFORMED, "$uint takes"},
};

Test(json_value, what_cannot_be_meant_is_refused_with_a_sentence_and_leaves_nothing)
{
    for (size_t i = 0; i < BB_COUNT(refused); i++) {
        struct bb_buf mp = BB_BUF_INIT;
        struct bb_buf err = BB_BUF_INIT;
        bb_buf_append(&mp, "kept", 4);
        int r = bb_json_value_to_mp(refused[i].text, strlen(refused[i].text), &mp, &err);
        cr_assert_eq(r, refused[i].error, "%s: %d", refused[i].text, r);
        cr_assert_not_null(strstr(bb_buf_string(&err), refused[i].sentence), "%s: %s", refused[i].text,
                           bb_buf_string(&err));
        cr_assert_str_eq(bb_buf_string(&mp), "kept");
        bb_buf_fini(&mp);
        bb_buf_fini(&err);
    }
}

Test(json_value, a_sentence_is_one_line_of_valid_text_whatever_it_quotes)
{
    static const char *const texts[] = {"[\"\n\"]", "[\"0\\ud83d\\\xc3\xa9\"U"};
    for (size_t i = 0; i < BB_COUNT(texts); i++) {
        struct bb_buf err = BB_BUF_INIT;
        json_t *value;
        cr_assert_lt(bb_json_parse(texts[i], strlen(texts[i]), &err, &value), 0);
        cr_assert_null(strchr(bb_buf_string(&err), '\n'));
        cr_assert(bb_utf8_is_valid(err.data, err.len), "%s", bb_buf_string(&err));
        bb_buf_fini(&err);
    }
}

/* @count times @left, then @inner, then @count times @right. */
static void nest(struct bb_buf *text, int count, const char *left, const char *inner, const char *right)
{
    for (int i = 0; i < count; i++) {
        bb_buf_printf(text, "%s", left);
    }
    bb_buf_printf(text, "%s", inner);
    for (int i = 0; i < count; i++) {
        bb_buf_printf(text, "%s", right);
    }
}

Test(json_value, depth_is_that_of_the_value_not_that_of_its_spelling)
{
    static const char *const spelled[][2] = {{"[", "]"}, {"{\"a\":", "}"}, {"{\"$map\":[[0,", "]]}"}};
    for (size_t i = 0; i < BB_COUNT(spelled); i++) {
        for (int depth = BB_MP_MAX_DEPTH; depth <= BB_MP_MAX_DEPTH + 1; depth++) {
            struct bb_buf text = BB_BUF_INIT;
            struct bb_buf mp = BB_BUF_INIT;
            struct bb_buf back = BB_BUF_INIT;
            nest(&text, depth, spelled[i][0], "{\"$ext\":[1,\"\"]}", spelled[i][1]);
            int r = bb_json_value_to_mp((const char *)text.data, text.len, &mp, NULL);
            cr_assert_eq(r, depth == BB_MP_MAX_DEPTH ? 0 : BB_ETOODEEP, "%d of %s", depth, spelled[i][0]);
            if (r == 0) {
                cr_assert_eq(bb_mp_to_json(bb_buf_slice(&mp), &back), 0);
                cr_assert(bb_slice_equal(bb_buf_slice(&back), bb_buf_slice(&text)));
            }
            bb_buf_fini(&text);
            bb_buf_fini(&mp);
            bb_buf_fini(&back);
        }
    }
}

Test(json_value, text_beyond_a_limit_never_reaches_the_parser)
{
    struct bb_buf text = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    json_t *value;
    nest(&text, BB_JSON_MAX_DEPTH, "[", "", "]");
    cr_assert_eq(bb_json_parse((const char *)text.data, text.len, NULL, &value), 0);
    json_decref(value);
    bb_buf_reset(&text);
    nest(&text, 1000000, "[", "", "");
    cr_assert_eq(bb_json_parse((const char *)text.data, text.len, &err, &value), BB_ETOODEEP);
    cr_assert_str_eq(bb_buf_string(&err), "line 1, column 105: nested too deeply");
    bb_buf_reset(&text);
    nest(&text, BB_JSON_MAX_ITEMS, "1,", "1", "");
    cr_assert_eq(bb_json_parse((const char *)text.data, text.len, NULL, &value), BB_ETOOBIG);
    bb_buf_reset(&text);
    nest(&text, BB_JSON_MAX_BYTES / 16 + 1, "                ", "1", "");
    cr_assert_eq(bb_json_parse((const char *)text.data, text.len, NULL, &value), BB_ETOOBIG);
    bb_buf_fini(&text);
    bb_buf_fini(&err);
}

Test(json_value, msgpack_from_anywhere_is_scanned_first)
{
    struct bb_buf text = BB_BUF_INIT;
    bb_buf_append(&text, "kept", 4);
    cr_assert_eq(bb_mp_to_json(bb_slice(NULL, 0), &text), BB_EMALFORMED);
    cr_assert_eq(bb_mp_to_json(bb_slice("\x92\x01", 2), &text), BB_EMALFORMED);
    cr_assert_eq(bb_mp_to_json(bb_slice("\x01\x01", 2), &text), BB_EMALFORMED);
    cr_assert_eq(bb_mp_to_json(bb_slice("\xa1\xff", 2), &text), BB_EUTF8);
    cr_assert_str_eq(bb_buf_string(&text), "kept");
    bb_buf_fini(&text);
}

Test(json_value, a_float32_becomes_the_double_of_equal_value)
{
    struct bb_buf text = BB_BUF_INIT;
    cr_assert_eq(bb_mp_to_json(bb_slice("\xca\x3d\xcc\xcc\xcd", 5), &text), 0);
    cr_assert_str_eq(bb_buf_string(&text), "0.10000000149011612");
    bb_buf_fini(&text);
}

/* --- the property: any canonical value comes back byte for byte ----------------------------------- */

struct random {
    uint64_t state;
};

static uint64_t random_next(struct random *random)
{
    uint64_t x = (random->state += UINT64_C(0x9e3779b97f4a7c15));
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint32_t random_below(struct random *random, uint32_t n)
{
    return (uint32_t)(random_next(random) % n);
}

static void random_str(struct random *random, struct bb_buf *out)
{
    static const char *const pieces[] = {"$",
                                         "$",
                                         "$map",
                                         "a",
                                         "b",
                                         "\"",
                                         "\\",
                                         "\n",
                                         "\x01",
                                         "\xc3\xa9",
                                         "\xf0\x9f\x98\x80",
                                         "long enough to need a head"};
    struct bb_buf text = BB_BUF_INIT;
    for (uint32_t count = random_below(random, 5); count > 0; count--) {
        bb_buf_printf(&text, "%s", pieces[random_below(random, BB_COUNT(pieces))]);
    }
    const char *string = bb_buf_string(&text);
    /* One text in eight carries its terminating NUL along. */
    bb_mp_write_str(out, bb_slice(string, strlen(string) + (random_below(random, 8) == 0)));
    bb_buf_fini(&text);
}

static void random_double(struct random *random, struct bb_buf *out)
{
    uint64_t bits = random_next(random);
    double value;
    memcpy(&value, &bits, sizeof(value));
    value = random_below(random, 3) == 0 ? (double)(int64_t)bits / 1000 : value;
    bb_mp_write_double(out, isnan(value) ? (double)NAN : value);
}

static void random_value(struct random *random, struct bb_buf *out, uint32_t depth)
{
    uint8_t bytes[64] = {0};
    uint32_t count = random_below(random, 4);
    uint32_t kinds = depth < 6 ? 11 : 8;
    uint64_t number = random_next(random) >> random_below(random, 64);
    switch (random_below(random, kinds)) {
    case 0:
        bb_mp_write_nil(out);
        break;
    case 1:
        bb_mp_write_bool(out, count > 1);
        break;
    case 2:
        bb_mp_write_uint(out, number);
        break;
    case 3:
        bb_mp_write_int(out, -(int64_t)(number >> 1) - 1);
        break;
    case 4:
        random_double(random, out);
        break;
    case 5:
        random_str(random, out);
        break;
    case 6:
        memcpy(bytes, &number, sizeof(number));
        bb_mp_write_bin(out, bb_slice(bytes, random_below(random, sizeof(bytes))));
        break;
    case 7:
        memcpy(bytes, &number, sizeof(number));
        bb_mp_write_ext(out, (int8_t)number, bb_slice(bytes, random_below(random, sizeof(bytes))));
        break;
    case 8:
        bb_mp_write_array(out, count);
        for (; count > 0; count--) {
            random_value(random, out, depth + 1);
        }
        break;
    default:
        bb_mp_write_map(out, count);
        for (bool any_key = random_below(random, 4) == 0; count > 0; count--) {
            any_key ? random_value(random, out, depth + 1) : random_str(random, out);
            random_value(random, out, depth + 1);
        }
        break;
    }
}

Test(json_value, any_value_in_its_shortest_form_comes_back_byte_for_byte)
{
    struct random random = {7};
    struct bb_buf mp = BB_BUF_INIT;
    struct bb_buf text = BB_BUF_INIT;
    struct bb_buf back = BB_BUF_INIT;
    for (int i = 0; i < 20000; i++) {
        bb_buf_reset(&mp);
        bb_buf_reset(&text);
        bb_buf_reset(&back);
        random_value(&random, &mp, 0);
        cr_assert_eq(bb_scan_whole(mp.data, mp.len, NULL), 0);
        cr_assert_eq(bb_mp_to_json(bb_buf_slice(&mp), &text), 0);
        struct bb_buf err = BB_BUF_INIT;
        int r = bb_json_value_to_mp((const char *)text.data, text.len, &back, &err);
        cr_assert_eq(r, 0, "%s: %s", bb_buf_string(&text), bb_buf_string(&err));
        cr_assert(bb_slice_equal(bb_buf_slice(&mp), bb_buf_slice(&back)), "%s", bb_buf_string(&text));
    }
    bb_buf_fini(&mp);
    bb_buf_fini(&text);
    bb_buf_fini(&back);
}

Test(json_value, a_map_of_many_equal_keys_costs_no_square)
{
    struct bb_buf mp = BB_BUF_INIT;
    struct bb_buf text = BB_BUF_INIT;
    bb_mp_write_map(&mp, 400000);
    for (uint32_t i = 0; i < 400000; i++) {
        char key[16];
        (void)snprintf(key, sizeof(key), "%u", i == 399999 ? 0 : i);
        bb_mp_write_str(&mp, bb_slice_str(key));
        bb_mp_write_nil(&mp);
    }
    cr_assert_eq(bb_mp_to_json(bb_buf_slice(&mp), &text), 0);
    cr_assert_eq(strncmp(bb_buf_string(&text), "{\"$map\":[[\"0\",null],", 20), 0);
    bb_buf_fini(&mp);
    bb_buf_fini(&text);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Messages in JSON: what is read, what is refused and with which sentence, and what is written. */
#include "proto/base/error.h"
#include "proto/json/message_json.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include <criterion/criterion.h>

static int read_text(const char *json, struct bb_buf *out, struct bb_buf *err)
{
    struct bb_message_head head;
    return bb_message_json_read(bb_slice_str(json), out, &head, err);
}

static int judge(const char *json)
{
    struct bb_buf out = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    bb_buf_append(&out, "old", 3);
    int r = read_text(json, &out, &err);
    if (r < 0) {
        cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice_str("old")), "%s", json);
        cr_assert_gt(err.len, 0, "no sentence for %s", json);
        cr_assert_eq(read_text(json, &out, NULL), r, "a sentence is not needed: %s", json);
    } else {
        cr_assert_eq(err.len, 0, "%s", json);
    }
    bb_buf_fini(&out);
    bb_buf_fini(&err);
    return r;
}

static void check_read(const char *json, const char *bytes, size_t len)
{
    struct bb_buf out = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    int r = read_text(json, &out, &err);
    cr_assert_eq(r, 0, "%s: %s", json, bb_buf_string(&err));
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice(bytes, len)), "%s", json);
    bb_buf_fini(&out);
    bb_buf_fini(&err);
}

#define READS(json, bytes) check_read(json, bytes, sizeof(bytes) - 1)

static int write_text(const char *bytes, size_t len, struct bb_buf *out)
{
    return bb_message_json_write(bb_slice(bytes, len), 1, BB_SHAPE_EVENT, out);
}

static void check_written(const char *bytes, size_t len, const char *json)
{
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(write_text(bytes, len, &out), 0, "%s", json);
    cr_assert_str_eq(bb_buf_string(&out), json);
    bb_buf_fini(&out);
}

#define WRITES(bytes, json) check_written(bytes, sizeof(bytes) - 1, json)

static int judge_written(const char *bytes, size_t len)
{
    struct bb_buf out = BB_BUF_INIT;
    bb_buf_append(&out, "old", 3);
    int r = write_text(bytes, len, &out);
    cr_assert(r == 0 || bb_slice_equal(bb_buf_slice(&out), bb_slice_str("old")));
    bb_buf_fini(&out);
    return r;
}

#define JUDGE_WRITTEN(bytes) judge_written(bytes, sizeof(bytes) - 1)

/* PROTOCOL 7.5: 2^53 - 1, as large as a life may be. */
#define LIFE    "9007199254740991"
#define MP_LIFE "\xcf\x00\x1f\xff\xff\xff\xff\xff\xff"

Test(message_json, positions_carry_lives_both_ways)
{
    READS("{\"op\":\"subscribe\",\"corr\":1,\"sub\":2,\"patterns\":[],\"from\":{\"after\":{\"a\":[5," LIFE
          "],\"b\":6}}}",
          "\x95\x03\x01\x02\x90\x81\xa5"
          "after\x82\xa1"
          "a\x92\x05" MP_LIFE "\xa1"
          "b\x06");
    READS(
        "{\"op\":\"subscribe\",\"corr\":1,\"sub\":2,\"patterns\":[],\"from\":\"oldest\",\"options\":{\"until\":{\"last\":{"
        "\"a\":[5," LIFE "]}}}}",
        "\x96\x03\x01\x02\x90\xa6"
        "oldest\x81\xa5until\x81\xa4last\x81\xa1"
        "a\x92\x05" MP_LIFE);
    READS("{\"op\":\"cursor\",\"corr\":1,\"name\":\"c\",\"positions\":[[\"a\",5," LIFE "]]}",
          "\x94\x0b\x01\xa1"
          "c\x91\x93\xa1"
          "a\x05" MP_LIFE);
    WRITES("\x96\x11\x01\x02\x07\x91\x93\xa1"
           "a\x05" MP_LIFE "\x81\xa1"
           "a\x92\x09" MP_LIFE,
           "{\"op\":\"subscribed\",\"corr\":1,\"sub\":2,\"session\":7,\"positions\":[[\"a\",5," LIFE
           "]],\"ends\":{\"a\":[9," LIFE "]}}");
    WRITES("\x93\x14\x02\x92\x96\xa1"
           "a\x06\xc0\xc0\xa7restart" MP_LIFE "\x95\xa1"
           "b\x01\x02\x01\xa7"
           "expired",
           "{\"op\":\"gap\",\"sub\":2,\"gaps\":[[\"a\",6,null,null,\"restart\"," LIFE
           "],[\"b\",1,2,1,\"expired\"]]}");
    WRITES("\x93\x13\x02\x91\x94\xa1"
           "a\x00\x05" MP_LIFE,
           "{\"op\":\"deliver\",\"sub\":2,\"ranges\":[[\"a\",0,5," LIFE "]],\"events\":[]}");
}

/* What stands for an event that could not be converted. */
#define BAD_EVENT "\x93\xa0\xc0\xc0"

Test(message_json, the_first_byte_tells_json_from_messagepack)
{
    for (unsigned byte = 0; byte < 256; byte++) {
        uint8_t bytes[1] = {(uint8_t)byte};
        bool expected = byte != 0 && strchr("{[ \t\r\n", (int)byte) != NULL;
        cr_assert_eq(bb_message_is_json(bb_slice(bytes, 1)), expected, "byte %u", byte);
    }
    cr_assert(!bb_message_is_json((struct bb_slice){0}));
}

Test(message_json, what_is_left_out_at_the_end_is_left_out_of_the_bytes)
{
    READS("{\"op\":\"status\",\"corr\":1}", "\x92\x08\x01");
    READS("{\"op\":\"status\",\"corr\":1,\"what\":null}", "\x92\x08\x01");
    READS("{\"op\":\"matches\",\"corr\":1,\"path\":\"a\",\"timeout\":5}", "\x95\x09\x01\xa1"
                                                                          "a\x00\x05");
    READS("{\"op\":\"goodbye\",\"code\":\"closed\"}", "\x92\x0a\xa6"
                                                      "closed");
    READS("{\"op\":\"subscribe\",\"options\":{},\"patterns\":[],\"sub\":2,\"corr\":1}",
          "\x96\x03\x01\x02\x90\xc0\x80");
}

Test(message_json, a_level_of_zero_is_written_when_it_was_given)
{
    READS("{\"op\":\"publish\",\"number\":1}", "\x92\x02\x01");
    READS("{\"op\":\"publish\",\"number\":1,\"level\":0}", "\x93\x02\x01\x00");
    READS("{\"op\":\"publish\",\"number\":1,\"level\":null,\"events\":[]}", "\x92\x02\x01");
}

Test(message_json, numbers_are_exact_over_all_64_bits)
{
    READS("{\"op\":\"ping\",\"token\":9223372036854775807}", "\x92\x06\xcf\x7f\xff\xff\xff\xff\xff\xff\xff");
    READS("{\"op\":\"pong\",\"token\":{\"$uint\":\"18446744073709551615\"}}",
          "\x92\x07\xcf\xff\xff\xff\xff\xff\xff\xff\xff");
    WRITES("\x92\x06\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", "{\"op\":\"ping\",\"token\":9223372036854775807}");
    WRITES("\x92\x06\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
           "{\"op\":\"ping\",\"token\":{\"$uint\":\"18446744073709551615\"}}");
}

Test(message_json, the_client_of_a_hello_is_binary_or_null)
{
    READS("{\"op\":\"hello\",\"corr\":1,\"version\":1,\"epoch\":0}", "\x95\x01\x01\x01\xc0\x00");
    READS("{\"op\":\"hello\",\"corr\":1,\"version\":1,\"client\":{\"$binary\":\"AP8=\"},\"epoch\":0}",
          "\x95\x01\x01\x01\xc4\x02\x00\xff\x00");
    cr_assert_eq(judge("{\"op\":\"hello\",\"corr\":1,\"version\":1,\"client\":\"AP8=\",\"epoch\":0}"),
                 BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"hello\",\"corr\":1,\"version\":1,\"client\":7,\"epoch\":0}"),
                 BB_EMALFORMED);
}

Test(message_json, a_missing_field_is_malformed)
{
    cr_assert_eq(judge("{\"op\":\"ping\"}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"ping\",\"token\":null}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"goodbye\",\"code\":null}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"publish\",\"events\":[]}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"subscribe\",\"corr\":1,\"sub\":1}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"hello\",\"corr\":1,\"client\":null,\"epoch\":0}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"credit\",\"sub\":1,\"bytes\":1}"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"result\",\"corr\":1}"), BB_EMALFORMED);
    READS("{\"op\":\"result\",\"corr\":1,\"value\":null}", "\x93\x15\x01\xc0");
}

Test(message_json, a_field_of_another_kind_is_malformed)
{
    static const char *const wrong_numbers[] = {
        "-1", "1.0", "\"1\"", "true", "[]", "{}", "{\"$binary\":\"\"}"};
    static const char *const wrong_texts[] = {
        "1", "true", "[]", "{}", "{\"$binary\":\"\"}", "{\"$uint\":\"1\"}"};
    char json[128];
    for (size_t i = 0; i < BB_COUNT(wrong_numbers); i++) {
        (void)snprintf(json, sizeof(json), "{\"op\":\"ping\",\"token\":%s}", wrong_numbers[i]);
        cr_assert_eq(judge(json), BB_EMALFORMED, "%s", json);
        (void)snprintf(json, sizeof(json), "{\"op\":\"publish\",\"number\":1,\"level\":%s}",
                       wrong_numbers[i]);
        cr_assert_eq(judge(json), BB_EMALFORMED, "%s", json);
    }
    for (size_t i = 0; i < BB_COUNT(wrong_texts); i++) {
        (void)snprintf(json, sizeof(json), "{\"op\":\"goodbye\",\"code\":%s}", wrong_texts[i]);
        cr_assert_eq(judge(json), BB_EMALFORMED, "%s", json);
    }
}

Test(message_json, a_member_that_the_message_does_not_have_is_a_bad_argument)
{
    cr_assert_eq(judge("{\"op\":\"ping\",\"token\":1,\"corr\":1}"), BB_EINVAL);
    cr_assert_eq(judge("{\"op\":\"ping\",\"token\":1,\"events\":[]}"), BB_EINVAL);
    cr_assert_eq(judge("{\"op\":\"subscribe\",\"corr\":1,\"sub\":1,\"pattern\":[\"a\"],\"patterns\":[]}"),
                 BB_EINVAL);
    cr_assert_eq(judge("{\"op\":\"ping\",\"token\":1,\"token\":1}"), BB_EINVAL);
}

Test(message_json, the_sentence_names_the_field)
{
    struct bb_buf out = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    (void)read_text("{\"op\":\"matches\",\"corr\":1,\"path\":7}", &out, &err);
    cr_assert_str_eq(bb_buf_string(&err), "\"path\" must be a string");
    bb_buf_reset(&err);
    (void)read_text("{\"op\":\"ping\",\"tokem\":1}", &out, &err);
    cr_assert_str_eq(bb_buf_string(&err), "\"tokem\" is not a member of this message");
    bb_buf_reset(&err);
    (void)read_text("{\"op\":\"ping\"}", &out, &err);
    cr_assert_str_eq(bb_buf_string(&err), "\"token\" is missing");
    bb_buf_fini(&out);
    bb_buf_fini(&err);
}

Test(message_json, an_op_that_is_no_message_is_unknown)
{
    cr_assert_eq(judge("{\"op\":\"pin\"}"), BB_EUNKNOWN);
    cr_assert_eq(judge("{\"op\":\"\"}"), BB_EUNKNOWN);
    cr_assert_eq(judge("{\"op\":6,\"token\":1}"), BB_EUNKNOWN);
    cr_assert_eq(judge("{\"op\":null,\"path\":\"a\"}"), BB_EUNKNOWN);
    cr_assert_eq(judge("{\"op\":\"ping\\u0000\",\"token\":1}"), BB_EUNKNOWN);
}

Test(message_json, text_that_is_no_json_is_refused)
{
    cr_assert_eq(judge(""), BB_EMALFORMED);
    cr_assert_eq(judge("{"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"ping\",\"token\":1}x"), BB_EMALFORMED);
    cr_assert_eq(judge("{\"op\":\"ping\",\"token\":9223372036854775808}"), BB_EINVAL);
    cr_assert_eq(judge("{\"op\":\"goodbye\",\"code\":\"\xff\"}"), BB_EUTF8);
}

Test(message_json, a_field_nested_too_deeply_is_refused)
{
    struct bb_buf json = BB_BUF_INIT;
    bb_buf_printf(&json, "{\"op\":\"result\",\"corr\":1,\"value\":");
    for (int i = 0; i < BB_MP_MAX_DEPTH + 1; i++) {
        bb_buf_append_byte(&json, '[');
    }
    for (int i = 0; i < BB_MP_MAX_DEPTH + 1; i++) {
        bb_buf_append_byte(&json, ']');
    }
    bb_buf_append_byte(&json, '}');
    cr_assert_eq(judge(bb_buf_string(&json)), BB_ETOODEEP);
    bb_buf_fini(&json);
}

Test(message_json, what_has_no_op_is_bare_events)
{
    READS("{\"path\":\"a\"}", "\x92\xa1"
                              "a\xc0");
    READS(" [{\"path\":\"a\",\"payload\":1},{\"path\":\"b\",\"payload\":1.0}]", "\x92\xa1"
                                                                                "a\x01\x92\xa1"
                                                                                "b\xcb\x3f\xf0\0\0\0\0\0\0");
    READS("[]", "");
    READS("[{\"path\":\"a\"},{\"op\":\"ping\",\"token\":1}]", "\x92\xa1"
                                                              "a\xc0" BAD_EVENT);
    READS("[1]", BAD_EVENT);
    READS("7", BAD_EVENT);
    READS("{}", BAD_EVENT);
    READS("{\"path\":\"a/*\"}", "\x92\xa3"
                                "a/*\xc0");
    READS("{\"path\":\"a\",\"payloud\":1}", BAD_EVENT);
    READS("{\"path\":\"a\",\"payload\":1e400}", BAD_EVENT);
    cr_assert_eq(judge("{\"path\":1e400,}"), BB_EMALFORMED);
}

Test(message_json, the_event_of_async_nexus_is_an_event)
{
    READS("{\"id\":1,\"type\":\"line1\",\"priority\":0,\"payload\":\"x\"}",
          "\x93\xa5line1\xa1x\x81\xa2id\x01");
    READS("{\"op\":\"publish\",\"number\":0,\"events\":{\"id\":\"n\",\"type\":-7,\"payload\":null}}",
          "\x92\x02\x00\x93\xa2-7\xc0\x81\xa2id\xa1n");
}

Test(message_json, the_members_of_the_broker_are_ignored_in_what_is_published)
{
    READS(
        "{\"id\":[1,7,1],\"path\":\"a\",\"seq\":9,\"time\":1,\"source\":{\"type\":\"client\",\"id\":3},\"payload\":2}",
        "\x92\xa1"
        "a\x02");
}

Test(message_json, a_bad_event_is_bad_alone)
{
    READS(
        "{\"op\":\"publish\",\"number\":1,\"events\":[{\"path\":\"a\"},{\"path\":\"?\"},{\"path\":\"b\",\"x\":1}]}",
        "\x92\x02\x01\x92\xa1"
        "a\xc0\x92\xa1?\xc0" BAD_EVENT);
    READS("{\"op\":\"publish\",\"number\":1,\"events\":7}", "\x92\x02\x01" BAD_EVENT);
    READS(
        " {\"events\":[{\"path\":\"a\",\"payload\":-1e999}, {\"path\":\"a\"}] , \"number\": 1, \"op\":\"publish\"} ",
        "\x92\x02\x01" BAD_EVENT "\x92\xa1"
        "a\xc0");
    READS("{\"op\":\"publish\",\"number\":2,\"events\":[{\"path\":\"\xff\"}]}",
          "\x92\x02\x02\x92\xa0\xa1\xff");
}

/* What is said of @json, and that head is recognised in it. */
static void expect_head(const char *json, int error, enum bb_msg_type type, uint64_t corr)
{
    struct bb_buf out = BB_BUF_INIT;
    struct bb_message_head head = {.type = BB_MSG_LOG, .corr = 99};
    int r = bb_message_json_read(bb_slice_str(json), &out, &head, NULL);
    cr_expect_eq(r, error, "%s: %d", json, r);
    cr_expect_eq(head.type, type, "%s: %d", json, (int)head.type);
    cr_expect_eq(head.corr, corr, "%s: %llu", json, (unsigned long long)head.corr);
    bb_buf_fini(&out);
}

Test(message_json, the_head_is_recognised_in_what_cannot_be_taken)
{
    static const struct {
        const char *json;
        int error;
        enum bb_msg_type type;
        uint64_t corr;
    } rows[] = {
        {"{\"op\":\"publish\",\"number\":7,\"levle\":2}", BB_EINVAL, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"level\":{},\"number\":7}", BB_EMALFORMED, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"options\":{\"expect\":{\"a\":1e400}},\"number\":7}", BB_EINVAL,
         BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"number\":7,\"options\":{\"$x\":1}}", BB_EINVAL, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"number\":7,\"events\":[{\"path\":\"a\"", BB_EMALFORMED, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"number\":7,\"number\":8}", BB_EINVAL, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"number\":7,\"events\":[],\"events\":[]}", BB_EINVAL, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"number\":-7}", BB_EMALFORMED, BB_MSG_PUBLISH, 0},
        {"{\"op\":\"publish\",\"number\":1e400}", BB_EINVAL, BB_MSG_PUBLISH, 0},
        {"{\"op\":\"publish\",\"number\":{\"$uint\":\"18446744073709551615\"},\"x\":0}", BB_EINVAL,
         BB_MSG_PUBLISH, UINT64_MAX},
        {"{\"op\":\"publish\",\"number\":7}x", BB_EMALFORMED, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"publish\",\"x\\u0000\":1,\"number\":7}", BB_EINVAL, BB_MSG_PUBLISH, 7},
        {"{\"op\":\"subscribe\",\"corr\":3,\"sub\":1,\"patern\":[]}", BB_EINVAL, BB_MSG_SUBSCRIBE, 3},
        {"{\"op\":\"query\",\"corr\":4,\"query\":{\"where\":\"\xff\"}}", BB_EUTF8, BB_MSG_QUERY, 4},
        {"{\"op\":\"status\",\"corr\":5", BB_EMALFORMED, BB_MSG_STATUS, 5},
        {"{\"op\":\"credit\",\"sub\":5}", BB_EMALFORMED, BB_MSG_CREDIT, 0},
        {"{\"op\":\"nothing\",\"corr\":5,\"x\":1e400}", BB_EUNKNOWN, BB_MSG_NONE, 0},
        {"{\"corr\":5,\"op\"", BB_EMALFORMED, BB_MSG_NONE, 0},
        {"{\"corr\"5,\"op\":1}", BB_EMALFORMED, BB_MSG_NONE, 0},
        {"{\"op\":\"credit\",\"sub\":1,\"bytes\":1,\"events\":1e400}", BB_EINVAL, BB_MSG_CREDIT, 0},
        {"{7:5}", BB_EMALFORMED, BB_MSG_NONE, 0},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        expect_head(rows[i].json, rows[i].error, rows[i].type, rows[i].corr);
    }
}

/* --- writing -------------------------------------------------------------------------------------- */

/* A deliver of sub 1 without ranges, and a block of session 41 to 47 */
#define DELIVER "\x93\x13\x01\x90"
#define HEAD    "{\"op\":\"deliver\",\"sub\":1,\"ranges\":[],\"events\":["

Test(message_json, what_the_bytes_leave_out_is_left_out_and_nil_is_null)
{
    WRITES("\x95\x16\x03\x02\xa5limit\xa0",
           "{\"op\":\"error\",\"about\":3,\"corr\":2,\"code\":\"limit\",\"text\":\"\"}");
    WRITES("\x93\x15\x01\xc0", "{\"op\":\"result\",\"corr\":1,\"value\":null}");
}

Test(message_json, text_is_escaped)
{
    WRITES("\x93\x0a\xa1\"\xa2\\\n", "{\"op\":\"goodbye\",\"code\":\"\\\"\",\"text\":\"\\\\\\n\"}");
}

Test(message_json, events_of_all_blocks_are_one_array)
{
    struct bb_buf out = BB_BUF_INIT;
    const char bytes[] =
        DELIVER "\x97\x07\x0a\x00\x02\x01\x02\x08\x92\xa1"
                "a\x01\x92\xa1"
                "a\x02\x97\x08\x0b\x00\x04\x01\x00\x00\x97\x08\x0b\x00\x04\x01\x01\x04\x92\xa1"
                "b\x03";
    cr_assert_eq(bb_message_json_write(bb_slice(bytes, sizeof(bytes) - 1), 1, BB_SHAPE_NEXUS, &out), 0);
    cr_assert_str_eq(bb_buf_string(&out), HEAD "{\"id\":2,\"type\":\"a\",\"priority\":0,\"payload\":1},"
                                               "{\"id\":3,\"type\":\"a\",\"priority\":0,\"payload\":2},"
                                               "{\"id\":4,\"type\":\"b\",\"priority\":0,\"payload\":3}]}");
    bb_buf_fini(&out);
    WRITES(DELIVER, HEAD "]}");
}

Test(message_json, blocks_that_do_not_fit_their_events_are_malformed)
{
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\1\3\x92\xa0\1"), 0);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\1\4\x92\xa0\1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\1\2\x92\xa0\1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\2\3\x92\xa0\1\x92\xa0\1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\1\6\x92\xa0\1\x92\xa0\1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\xcf\xff\xff\xff\xff\xff\xff\xff\xff\3\x92\xa0\1"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\xc1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN(DELIVER "\x97\1\1\0\1\1\1\4\x92\xa1?\1"), BB_EPATH);
}

Test(message_json, numbers_of_a_block_beyond_int64_are_malformed)
{
    for (size_t i = 0; i < 5; i++) {
        struct bb_buf bytes = BB_BUF_INIT;
        uint8_t head[BB_BLOCK_HEAD_MAX];
        uint64_t values[5] = {1, 1, 1, 1, 1};
        values[i] = INT64_MAX;
        struct bb_block block = {values[0], values[1], values[2], values[3], values[4], 1, 3};
        bb_buf_append(&bytes, DELIVER, 4);
        bb_buf_append(&bytes, head, bb_block_write(head, &block));
        bb_buf_append(&bytes, "\x92\xa0\1", 3);
        cr_assert_eq(judge_written((const char *)bytes.data, bytes.len), BB_EMALFORMED, "number %zu", i);
        bb_buf_fini(&bytes);
    }
}

Test(message_json, what_is_no_message_is_not_written)
{
    cr_assert_eq(JUDGE_WRITTEN(""), BB_EMALFORMED);
    cr_assert_eq(JUDGE_WRITTEN("\x92\x63\x01"), BB_EUNKNOWN);
    cr_assert_eq(JUDGE_WRITTEN("\x92\x0a\xa1\xff"), BB_EUTF8);
    cr_assert_eq(JUDGE_WRITTEN("\x92\x06"), BB_EMALFORMED);
}

Test(message_json, an_error_in_the_buffer_is_returned)
{
    struct bb_buf out = {.error = BB_ENOMEM};
    cr_assert_eq(write_text("\x92\x06\x01", 3, &out), BB_ENOMEM);
    cr_assert_eq(read_text("{\"op\":\"ping\",\"token\":1}", &out, NULL), BB_ENOMEM);
    cr_assert_eq(out.len, 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a subscribe message asks for: read, checked, and with its defaults. */
#include "proto/base/error.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"

#include "broker/core/requests/wishes.h"

#include <criterion/criterion.h>
#include <string.h>

struct message {
    struct bb_buf patterns;
    struct bb_buf from;
    struct bb_buf options;
    struct bb_msg msg;
};

/* @json with ' for ". */
static void write(const char *json, struct bb_buf *out)
{
    char text[512];
    size_t len = strlen(json);
    cr_assert_lt(len, sizeof(text));
    for (size_t i = 0; i < len; i++) {
        text[i] = json[i] == '\'' ? '"' : json[i];
    }
    cr_assert_eq(bb_json_value_to_mp(text, len, out, NULL), 0, "%s", json);
}

static void message_init(struct message *message, const char *patterns, const char *from, const char *options)
{
    *message = (struct message){.msg = {.type = BB_MSG_SUBSCRIBE}};
    write(patterns, &message->patterns);
    if (from != NULL) {
        write(from, &message->from);
    }
    if (options != NULL) {
        write(options, &message->options);
    }
    message->msg.patterns = bb_buf_slice(&message->patterns);
    message->msg.from = bb_buf_slice(&message->from);
    message->msg.options = bb_buf_slice(&message->options);
}

static void message_fini(struct message *message)
{
    bb_buf_fini(&message->patterns);
    bb_buf_fini(&message->from);
    bb_buf_fini(&message->options);
}

/* What is read, slices left aside, since they borrow. */
static int
read_wishes(const char *patterns, const char *from, const char *options, struct bk_wishes *ret_wishes)
{
    struct message message;
    message_init(&message, patterns, from, options);
    int r = bk_wishes_read(&message.msg, ret_wishes);
    message_fini(&message);
    return r;
}

Test(core_requests_wishes, what_is_not_said_has_a_default)
{
    struct bk_wishes wishes;
    cr_assert_eq(read_wishes("['a/*','b']", NULL, NULL, &wishes), 0);
    cr_assert_eq(wishes.from.kind, BK_FROM_NEW);
    cr_assert_eq(wishes.until.kind, BK_UNTIL_NONE);
    cr_assert_eq(wishes.until.stop, UINT64_MAX);
    cr_assert_eq(wishes.credit_bytes, 1 << 20);
    cr_assert_eq(wishes.credit_events, 65536);
    cr_assert_eq(wishes.budget, 16 << 20);
    cr_assert_eq(wishes.n_patterns, 2);
    cr_assert(!wishes.wants_lives && !wishes.wants_retained && !wishes.has_overflow && !wishes.has_view);
    cr_assert_eq(wishes.durable.len, 0);
}

Test(core_requests_wishes, every_from_is_read)
{
    static const struct {
        const char *from;
        enum bk_from_kind kind;
        uint64_t number;
    } rows[] = {
        {"null", BK_FROM_NEW, 0},
        {"'new'", BK_FROM_NEW, 0},
        {"'last'", BK_FROM_LAST, 0},
        {"'oldest'", BK_FROM_OLDEST, 0},
        {"7", BK_FROM_SEQUENCE, 7},
        {"{'time':9}", BK_FROM_TIME, 9},
        {"{'id':[1,2,3]}", BK_FROM_ID, 0},
        {"{'after':{'a':[1,2]}}", BK_FROM_AFTER, 0},
        {"{'run':5,'after':{'a':1,'b':[1,2]}}", BK_FROM_AFTER, 0},
        {"{'after':{}}", BK_FROM_AFTER, 0},
        {"{'time':9,'later':true}", BK_FROM_TIME, 9},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        struct bk_wishes wishes;
        cr_assert_eq(read_wishes("['a']", rows[i].from, NULL, &wishes), 0, "%s", rows[i].from);
        cr_assert_eq(wishes.from.kind, rows[i].kind, "%s", rows[i].from);
        cr_assert_eq(wishes.from.number, rows[i].number, "%s", rows[i].from);
    }
}

Test(core_requests_wishes, what_is_no_from_is_refused)
{
    static const char *const bad[] = {
        "'all'",
        "-1",
        "1.5",
        "[]",
        "{}",
        "{'time':-1}",
        "{'time':'x'}",
        "{'id':[1,2]}",
        "{'id':7}",
        "{'after':{'a':1}}",
        "{'run':0,'after':{'a':1}}",
        "{'after':[]}",
        "{'after':{'a':'b'}}",
        "{'after':{'a':[1,2,3]}}",
        "{'after':{'a':[1,0]}}",
        "{'run':5}",
        "{'time':1,'after':{}}",
    };
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        struct bk_wishes wishes;
        cr_assert_eq(read_wishes("['a']", bad[i], NULL, &wishes), BB_EINVAL, "%s", bad[i]);
        cr_assert_not_null(strstr(wishes.wrong, "\"from\""), "%s", bad[i]);
    }
}

Test(core_requests_wishes, every_option_is_read)
{
    struct message message;
    struct bk_wishes wishes;
    message_init(
        &message, "['a']", NULL,
        "{'bytes':5,'events':6,'budget':7,'overflow':'refuse','until':8,'view':'early','retained':true,"
        "'lives':true,'durable':'here','shape':'nexus'}");
    cr_assert_eq(bk_wishes_read(&message.msg, &wishes), 0);
    cr_assert(wishes.credit_bytes == 5 && wishes.credit_events == 6 && wishes.budget == 7);
    cr_assert(wishes.has_overflow && wishes.overflow == BK_OVERFLOW_REFUSE);
    cr_assert(wishes.until.kind == BK_UNTIL_STOP && wishes.until.stop == 8);
    cr_assert(wishes.has_view && wishes.is_early && wishes.wants_retained && wishes.wants_lives);
    cr_assert(bb_slice_equal(wishes.durable, bb_slice_str("here")));
    message_fini(&message);
    cr_assert_eq(read_wishes("['a']", NULL, "{'view':'durable'}", &wishes), 0);
    cr_assert(wishes.has_view && !wishes.is_early);
}

Test(core_requests_wishes, what_is_no_option_is_refused)
{
    static const char *const bad[] = {
        "[]",
        "{'bytes':-1}",
        "{'events':'x'}",
        "{'overflow':'never'}",
        "{'until':0}",
        "{'until':'then'}",
        "{'view':'late'}",
        "{'retained':1}",
        "{'lives':'yes'}",
        "{'durable':''}",
        "{'durable':5}",
        "{'durable':'0123456789012345678901234567890123456789012345678901234567890123456789'}",
    };
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        struct bk_wishes wishes;
        cr_assert_eq(read_wishes("['a']", NULL, bad[i], &wishes), BB_EINVAL, "%s", bad[i]);
        char key[32];
        bool is_map = sscanf(bad[i], "{'%31[^']'", key) == 1; /* the text names the option */
        cr_assert_not_null(strstr(wishes.wrong, is_map ? key : "no map"), "%s: %s", bad[i], wishes.wrong);
    }
}

Test(core_requests_wishes, patterns_are_checked)
{
    struct bk_wishes wishes;
    cr_assert_eq(read_wishes("[]", NULL, NULL, &wishes), BB_EINVAL);
    cr_assert_not_null(strstr(wishes.wrong, "\"patterns\""));
    cr_assert_eq(read_wishes("'a'", NULL, NULL, &wishes), BB_EINVAL);
    cr_assert_eq(read_wishes("['a',5]", NULL, NULL, &wishes), BB_EPATTERN);
    cr_assert_eq(read_wishes("['a/*/b']", NULL, NULL, &wishes), BB_EPATTERN);
    cr_assert_eq(read_wishes("['a','b?']", NULL, NULL, &wishes), BB_EPATTERN);
}

static bool covers(const char *patterns, const char *channel)
{
    struct bb_buf out = BB_BUF_INIT;
    write(patterns, &out);
    bool r = bk_wishes_cover(bb_buf_slice(&out), bb_slice_str(channel));
    bb_buf_fini(&out);
    return r;
}

static bool can_match(const char *patterns, const char *channel)
{
    struct bb_buf out = BB_BUF_INIT;
    write(patterns, &out);
    bool r = bk_wishes_can_match(bb_buf_slice(&out), bb_slice_str(channel));
    bb_buf_fini(&out);
    return r;
}

Test(core_requests_wishes, only_who_wants_all_of_a_channel_can_count_its_sequences)
{
    cr_assert(covers("['*']", "a") && covers("['*']", "") && covers("['b','a/*']", "a"));
    cr_assert(!covers("['a']", "a") && !covers("['a/?']", "a") && !covers("['a/b/*']", "a"));
    cr_assert(!covers("['aa/*']", "a") && !covers("['?/*']", "a"));
}

Test(core_requests_wishes, a_pattern_can_match_in_the_channel_of_its_first_segment)
{
    cr_assert(can_match("['*']", "a") && can_match("['?/x']", "a") && can_match("['b','a/x']", "a"));
    cr_assert(can_match("['a']", "a") && can_match("['']", ""));
    cr_assert(!can_match("['b/*']", "a") && !can_match("['aa']", "a") && !can_match("['a/*']", ""));
}

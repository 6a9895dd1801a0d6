/* SPDX-License-Identifier: Apache-2.0 */
/* Events in a batch and the heads of blocks: each limit, and what is refused alone or takes the batch with it. */
#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include <criterion/criterion.h>
#include <stdlib.h>

/* Exactly as large as the content, so that the address sanitizer sees one byte too far. Slices of the result
 * are only good for their lengths. */
static int read_event(struct bb_slice bytes, struct bb_event_view *ret_event, size_t *ret_rest)
{
    uint8_t *copy = malloc(bytes.len > 0 ? bytes.len : 1);
    cr_assert(copy != NULL);
    if (bytes.len > 0) {
        memcpy(copy, bytes.data, bytes.len);
    }
    struct bb_slice rest = bb_slice(copy, bytes.len);
    int r = bb_event_read(&rest, ret_event);
    *ret_rest = rest.len;
    free(copy);
    return r;
}

/* What bb_event_read() returns, or else the error of the event. */
static int judge(struct bb_slice bytes)
{
    struct bb_event_view event = {0};
    size_t rest = 0;
    int r = read_event(bytes, &event, &rest);
    cr_assert_eq(rest, r < 0 ? bytes.len : 0);
    return r < 0 ? r : event.error;
}

#define JUDGE(text) judge(bb_slice(text, sizeof(text) - 1))

/* ["a", nil, @attributes] */
static int judge_attributes(struct bb_slice attributes)
{
    struct bb_buf bytes = BB_BUF_INIT;
    bb_buf_append(&bytes,
                  "\x93\xa1"
                  "a\xc0",
                  4);
    bb_buf_append(&bytes, attributes.data, attributes.len);
    int r = judge(bb_buf_slice(&bytes));
    bb_buf_fini(&bytes);
    return r;
}

/* The same with one attribute, of @value. */
static int judge_attribute(const char *name, struct bb_slice value)
{
    struct bb_buf bytes = BB_BUF_INIT;
    bb_mp_write_map(&bytes, 1);
    bb_mp_write_str(&bytes, bb_slice_str(name));
    bb_buf_append(&bytes, value.data, value.len);
    int r = judge_attributes(bb_buf_slice(&bytes));
    bb_buf_fini(&bytes);
    return r;
}

static int judge_text(const char *name, size_t len)
{
    struct bb_buf value = BB_BUF_INIT;
    uint8_t text[256];
    memset(text, 'x', sizeof(text));
    bb_mp_write_str(&value, bb_slice(text, len));
    int r = judge_attribute(name, bb_buf_slice(&value));
    bb_buf_fini(&value);
    return r;
}

static int judge_headers(uint32_t n)
{
    struct bb_buf value = BB_BUF_INIT;
    bb_mp_write_map(&value, n);
    for (uint32_t i = 0; i < 2 * n; i++) {
        bb_mp_write_str(&value, bb_slice(&(char){(char)('0' + i % 64)}, 1));
    }
    int r = judge_attribute("headers", bb_buf_slice(&value));
    bb_buf_fini(&value);
    return r;
}

static int judge_path(size_t len)
{
    struct bb_buf bytes = BB_BUF_INIT;
    uint8_t text[BB_PATH_MAX + 1];
    memset(text, 'x', sizeof(text));
    bb_mp_write_array(&bytes, 2);
    bb_mp_write_str(&bytes, bb_slice(text, len));
    bb_mp_write_nil(&bytes);
    int r = judge(bb_buf_slice(&bytes));
    bb_buf_fini(&bytes);
    return r;
}

Test(event, the_parts_of_an_event_are_its_bytes)
{
    const char *bytes = "\x93\xa3"
                        "a/b\x91\x05\x81\xa2id\x07\x92\xa0\xc0";
    struct bb_slice rest = bb_slice(bytes, 15);
    struct bb_event_view event = {.error = 1};
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    cr_assert_eq(event.error, 0);
    cr_assert(bb_slice_equal(event.raw, bb_slice(bytes, 12)));
    cr_assert(bb_slice_equal(event.path, bb_slice_str("a/b")));
    cr_assert(bb_slice_equal(event.payload, bb_slice("\x91\x05", 2)));
    cr_assert(bb_slice_equal(event.attributes, bb_slice("\x81\xa2id\x07", 5)));
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    cr_assert_eq(event.error, 0);
    cr_assert_eq(event.raw.len, 3);
    cr_assert_eq(event.path.len, 0);
    cr_assert_eq(event.attributes.len, 0);
    cr_assert_eq(rest.len, 0);
    cr_assert_eq(bb_event_read(&rest, &event), BB_EMALFORMED);
    rest = (struct bb_slice){0};
    cr_assert_eq(bb_event_read(&rest, &event), BB_EMALFORMED);
}

Test(event, an_event_is_a_short_array_of_two_or_three)
{
    cr_assert_eq(JUDGE("\x91\xa1"
                       "a"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x94\xa1"
                       "a\xc0\x80\xc0"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x90\xc0\xc0\xc0"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x82\xa1"
                       "a\xc0\xc0\xc0"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE("\xdc\x00\x02\xa1"
                       "a\xc0"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE("\xa3"
                       "abc"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE("\xc0\xc0\xc0"), BB_EMALFORMED);
}

Test(event, a_path_that_is_no_text_takes_the_batch_with_it)
{
    static const char *const paths[] = {"\xc0", "\x05", "\xff", "\xc3", "\x90", "\x80", "\xc4\x01"};
    for (size_t i = 0; i < BB_COUNT(paths); i++) {
        char bytes[] = "\x92 xxxxx";
        memcpy(bytes + 1, paths[i], strlen(paths[i]));
        cr_assert_eq(judge(bb_slice(bytes, sizeof(bytes) - 1)), BB_EMALFORMED, "path %zu", i);
    }
    cr_assert_eq(JUDGE("\x92\xdb\xff\xff\xff\xff"
                       "abc"),
                 BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x92\xd9\xff"
                       "abc"),
                 BB_EMALFORMED);
}

Test(event, a_text_that_is_no_path_is_refused_alone)
{
    cr_assert_eq(judge_path(BB_PATH_MAX), 0);
    cr_assert_eq(judge_path(BB_PATH_MAX + 1), BB_EPATH);
    cr_assert_eq(JUDGE("\x92\xa1?\xc0"), BB_EPATH);
    cr_assert_eq(JUDGE("\x92\xa3"
                       "a/*\xc0"),
                 BB_EPATH);
    cr_assert_eq(JUDGE("\x92\xa3"
                       "a\0b\xc0"),
                 BB_EPATH);
    cr_assert_eq(JUDGE("\x92\xa2\xc3\x28\xc0"), BB_EPATH);
    cr_assert_eq(JUDGE("\x92\xa2//\xc0"), 0);
}

Test(event, a_payload_may_be_any_value)
{
    cr_assert_eq(JUDGE("\x92\xa0\xc0"), 0);
    cr_assert_eq(JUDGE("\x92\xa0\xcb\x40\x35\x80\0\0\0\0\0"), 0);
    cr_assert_eq(JUDGE("\x92\xa0\xc4\x02\xff\xfe"), 0);
    cr_assert_eq(JUDGE("\x92\xa0\xc7\x00\x05"), 0);
    cr_assert_eq(JUDGE("\x92\xa0\x81\x90\x80"), 0);
    cr_assert_eq(JUDGE("\x92\xa0\xdc\x00\x01\xc0"), 0);
}

Test(event, bad_text_in_a_payload_is_refused_alone)
{
    cr_assert_eq(JUDGE("\x92\xa0\xa1\xff"), BB_EUTF8);
    cr_assert_eq(JUDGE("\x92\xa0\x82\x01\x91\xa1\xff\xc0\xc0"), BB_EUTF8);
    cr_assert_eq(JUDGE("\x93\xa0\xa1\xff\x80"), BB_EUTF8);
    cr_assert_eq(JUDGE("\x93\xa0\xc0\x81\xa2id\xa1\xff"), BB_EUTF8);
}

Test(event, too_many_values_in_a_payload_are_refused_alone)
{
    struct bb_buf bytes = BB_BUF_INIT;
    uint32_t n = 1u << 20; /* and the array itself */
    bb_buf_append(&bytes, "\x92\xa0", 2);
    bb_mp_write_array(&bytes, n);
    uint8_t *to = bb_buf_reserve(&bytes, n);
    cr_assert(to != NULL);
    memset(to, 0, n);
    bytes.len += n;
    cr_assert_eq(judge(bb_buf_slice(&bytes)), BB_ETOOBIG);
    bb_buf_fini(&bytes);
}

Test(event, bytes_that_cannot_be_followed_take_the_batch_with_them)
{
    cr_assert_eq(JUDGE("\x92\xa0\xc1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x92\xa0\xdd\xff\xff\xff\xff"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x92\xa0\xdf\xff\xff\xff\xff"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x92\xa0\xc6\xff\xff\xff\xff"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x92\xa0\xc9\xff\xff\xff\xff\x05"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x93\xa0\xc0"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x93\xa0\xc0\xc1"), BB_EMALFORMED);
    cr_assert_eq(JUDGE("\x92\xa0\x92\xa1\xff\xc1"), BB_EMALFORMED);
}

Test(event, payloads_are_nested_up_to_the_limit)
{
    uint8_t bytes[2 + BB_MP_MAX_DEPTH + 1];
    memset(bytes, 0x91, sizeof(bytes));
    memcpy(bytes, "\x92\xa0", 2);
    bytes[2 + BB_MP_MAX_DEPTH] = 0xc0;
    cr_assert_eq(judge(bb_slice(bytes, sizeof(bytes))), 0);
    bytes[2 + BB_MP_MAX_DEPTH] = 0x90;
    cr_assert_eq(judge(bb_slice(bytes, sizeof(bytes))), BB_ETOODEEP);
}

Test(event, an_event_cut_short_anywhere_is_malformed)
{
    static const char whole[] =
        "\x93\xa3"
        "a/b\x82\xa1k\x91\x05\xa1l\xc4\x01\xff\x85\xa2id\xa1x\xa8priority\xfb\xabsource_time\x01"
        "\xa7headers\x81\xa1"
        "a\xa1"
        "b\xacpayload_type\xa1t";
    cr_assert_eq(judge(bb_slice(whole, sizeof(whole) - 1)), 0);
    for (size_t len = 0; len < sizeof(whole) - 1; len++) {
        cr_assert_eq(judge(bb_slice(whole, len)), BB_EMALFORMED, "%zu bytes", len);
    }
}

Test(event, attributes_are_a_map_of_known_names_each_once)
{
    cr_assert_eq(judge_attributes(bb_slice("\x80", 1)), 0);
    cr_assert_eq(judge_attributes(bb_slice("\xc0", 1)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x05", 1)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x90", 1)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x92\xa2id\x01", 5)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x81\x01\x01", 3)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x81\xa0\x01", 3)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x81\xa2ix\x01", 5)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x81\xa3ids\x01", 6)), BB_EEVENT);
    cr_assert_eq(judge_attributes(bb_slice("\x82\xa2id\x01\xa2id\x01", 9)), BB_EEVENT);
}

/* Each attribute and each kind of value. */
static const struct {
    const char *name;
    const char *taken; /* as in the list below */
} attribute_rows[] = {
    {"id", "uUit"}, {"priority", "ui"}, {"source_time", "uiI"}, {"headers", "m"}, {"payload_type", "t"},
};

static const struct {
    char kind;
    const char *bytes;
    size_t len;
} value_rows[] = {
    {'u', "\x05", 1},
    {'U', "\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9},
    {'i', "\xfb", 1},
    {'I', "\xd3\x80\0\0\0\0\0\0\0", 9},
    {'t', "\xa1x", 2},
    {'m', "\x81\xa1k\xa1v", 5},
    {'n', "\xc0", 1},
    {'b', "\xc3", 1},
    {'d', "\xcb\x3f\xf0\0\0\0\0\0\0", 9},
    {'B', "\xc4\x01x", 3},
    {'e', "\xd4\x05\x00", 3},
    {'a', "\x90", 1},
};

Test(event, each_attribute_takes_what_it_must_and_nothing_else)
{
    for (size_t a = 0; a < BB_COUNT(attribute_rows); a++) {
        for (size_t v = 0; v < BB_COUNT(value_rows); v++) {
            bool is_taken = strchr(attribute_rows[a].taken, value_rows[v].kind) != NULL;
            bool is_int64_id = a == 0 && value_rows[v].kind == 'I'; /* any integer */
            int r = judge_attribute(attribute_rows[a].name, bb_slice(value_rows[v].bytes, value_rows[v].len));
            cr_assert_eq(r, is_taken || is_int64_id ? 0 : BB_EEVENT, "%s: %c: %d", attribute_rows[a].name,
                         value_rows[v].kind, r);
        }
    }
}

Test(event, attributes_have_their_limits)
{
    cr_assert_eq(judge_text("id", BB_EVENT_ID_MAX), 0);
    cr_assert_eq(judge_text("id", BB_EVENT_ID_MAX + 1), BB_EEVENT);
    cr_assert_eq(judge_text("payload_type", BB_PAYLOAD_TYPE_MAX), 0);
    cr_assert_eq(judge_text("payload_type", BB_PAYLOAD_TYPE_MAX + 1), BB_EEVENT);
    cr_assert_eq(judge_headers(0), 0);
    cr_assert_eq(judge_headers(BB_HEADERS_MAX), 0);
    cr_assert_eq(judge_headers(BB_HEADERS_MAX + 1), BB_EEVENT);
    cr_assert_eq(judge_attribute("headers", bb_slice("\x81\xa1k\x05", 4)), BB_EEVENT);
    cr_assert_eq(judge_attribute("headers", bb_slice("\x81\x05\xa1v", 4)), BB_EEVENT);
    cr_assert_eq(judge_attribute("headers", bb_slice("\x81\xa1k\xc0", 4)), BB_EEVENT);
}

Test(event, priorities_fill_32_bits)
{
    cr_assert_eq(judge_attribute("priority", bb_slice("\xce\x7f\xff\xff\xff", 5)), 0);
    cr_assert_eq(judge_attribute("priority", bb_slice("\xce\x80\0\0\0", 5)), BB_EEVENT);
    cr_assert_eq(judge_attribute("priority", bb_slice("\xd2\x80\0\0\0", 5)), 0);
    cr_assert_eq(judge_attribute("priority", bb_slice("\xd3\xff\xff\xff\xff\x7f\xff\xff\xff", 9)), BB_EEVENT);
    cr_assert_eq(judge_attribute("priority", bb_slice("\xcf\xff\xff\xff\xff\xff\xff\xff\xff", 9)), BB_EEVENT);
}

Test(event, what_is_written_is_read)
{
    struct bb_attributes wanted = {
        .id = bb_slice("\xcc\xff", 2),
        .headers = bb_slice("\x81\xa1k\xa1v", 5),
        .payload_type = bb_slice_str("image/png"),
        .source_time = INT64_MIN,
        .has_source_time = true,
        .priority = INT32_MIN,
    };
    struct bb_attributes found;
    struct bb_event_view event;
    struct bb_buf out = BB_BUF_INIT;
    bb_event_write(&out, bb_slice_str("a/b"), bb_slice("\xc3", 1), &wanted);
    struct bb_slice rest = bb_buf_slice(&out);
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    cr_assert_eq(event.error, 0);
    cr_assert_eq(rest.len, 0);
    cr_assert_eq(bb_event_attributes(event.attributes, &found), 0);
    cr_assert(bb_slice_equal(found.id, wanted.id));
    cr_assert(bb_slice_equal(found.headers, wanted.headers));
    cr_assert(bb_slice_equal(found.payload_type, wanted.payload_type));
    cr_assert_eq(found.source_time, INT64_MIN);
    cr_assert(found.has_source_time);
    cr_assert_eq(found.priority, INT32_MIN);
    bb_buf_fini(&out);
}

Test(event, an_event_without_attributes_is_an_array_of_two)
{
    static const struct bb_attributes none;
    struct bb_buf out = BB_BUF_INIT;
    bb_event_write(&out, bb_slice_str("a"), bb_slice("\xc0", 1), NULL);
    bb_event_write(&out, bb_slice_str("a"), bb_slice("\xc0", 1), &none);
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice("\x92\xa1"
                                                          "a\xc0\x92\xa1"
                                                          "a\xc0",
                                                          8)));
    bb_buf_fini(&out);
    struct bb_attributes found = {.priority = 3};
    cr_assert_eq(bb_event_attributes((struct bb_slice){0}, &found), 0);
    cr_assert_eq(found.priority, 0);
}

Test(event, a_time_of_zero_is_a_time)
{
    struct bb_attributes wanted = {.has_source_time = true};
    struct bb_attributes found = {0};
    struct bb_event_view event;
    struct bb_buf out = BB_BUF_INIT;
    bb_event_write(&out, bb_slice_str("a"), bb_slice("\xc0", 1), &wanted);
    struct bb_slice rest = bb_buf_slice(&out);
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    cr_assert_eq(bb_event_attributes(event.attributes, &found), 0);
    cr_assert(found.has_source_time);
    bb_buf_fini(&out);
}

/* --- blocks --------------------------------------------------------------------------------------- */

Test(event, the_largest_head_of_a_block_has_room)
{
    uint8_t head[BB_BLOCK_HEAD_MAX + 1];
    struct bb_block most = {UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX,
                            UINT64_MAX, UINT64_MAX, UINT64_MAX};
    head[BB_BLOCK_HEAD_MAX] = 0x5a;
    cr_assert_leq(bb_block_write(head, &most), (size_t)BB_BLOCK_HEAD_MAX);
    cr_assert_eq(head[BB_BLOCK_HEAD_MAX], 0x5a);
}

Test(event, the_head_of_a_block_is_read_as_written)
{
    uint8_t bytes[BB_BLOCK_HEAD_MAX + 300] = {0};
    struct bb_block wanted = {1, UINT64_MAX, 0, 128, 65536, 7, 300};
    struct bb_block found = {0};
    size_t len = bb_block_write(bytes, &wanted);
    struct bb_slice rest = bb_slice(bytes, len + 300);
    cr_assert_eq(bb_block_read(&rest, &found), 0);
    cr_assert_eq(memcmp(&wanted, &found, sizeof(found)), 0);
    cr_assert_eq(rest.len, 300);
    cr_assert_eq(rest.data, bytes + len);
}

Test(event, a_block_longer_than_what_is_there_is_malformed)
{
    uint8_t bytes[BB_BLOCK_HEAD_MAX + 9] = {0};
    struct bb_block block = {1, 2, 3, 4, 5, 6, 10};
    size_t len = bb_block_write(bytes, &block);
    struct bb_slice rest = bb_slice(bytes, len + 9);
    cr_assert_eq(bb_block_read(&rest, &block), BB_EMALFORMED);
    cr_assert_eq(rest.len, len + 9, "untouched by a failure");
    block.length = UINT64_MAX;
    rest.len = bb_block_write(bytes, &block);
    cr_assert_eq(bb_block_read(&rest, &block), BB_EMALFORMED);
}

Test(event, bytes_that_are_no_head_of_a_block_are_malformed)
{
    static const struct {
        const char *bytes;
        size_t len;
        int expected;
    } rows[] = {
        {"", 0, BB_EMALFORMED},
        {"\x05", 1, BB_EMALFORMED},
        {"\x96\1\1\1\1\1\0", 7, BB_EMALFORMED},
        {"\x97\1\1\1\1\1\0", 7, BB_EMALFORMED},
        {"\x97\1\1\1\1\1\1\xff", 8, BB_EMALFORMED},
        {"\x97\1\1\1\xc0\1\1\0", 8, BB_EMALFORMED},
        {"\x97\1\1\1\xa1x\1\1\0", 9, BB_EMALFORMED},
        {"\xdd\xff\xff\xff\xff\1\1\1\1\1\1\0", 12, BB_EMALFORMED},
        {"\x97\1\1\1\1\1\1\0", 8, 0},
        {"\x98\1\1\1\1\1\1\0\xa1x", 10, 0}, /* PROTOCOL 2: what comes after the last known element */
        {"\x98\1\1\1\1\1\1\0\xc1", 9, BB_EMALFORMED},
        {"\xdc\0\7\1\1\1\1\1\1\0", 10, 0},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        struct bb_slice rest = bb_slice(rows[i].bytes, rows[i].len);
        struct bb_block block;
        cr_assert_eq(bb_block_read(&rest, &block), rows[i].expected, "row %zu", i);
        cr_assert_eq(rest.len, rows[i].expected == 0 ? 0 : rows[i].len, "row %zu", i);
    }
}

static int judge_ttl(struct bb_buf *value)
{
    int r = judge_attribute("ttl", bb_buf_slice(value));
    bb_buf_fini(value);
    return r;
}

Test(event, a_time_to_live_is_positive_and_exact_in_every_language)
{
    struct bb_buf value = BB_BUF_INIT;
    static const uint64_t good[] = {1, 5000, UINT32_MAX, BB_TTL_MAX_MS};
    static const uint64_t bad[] = {0, BB_TTL_MAX_MS + 1, UINT64_MAX};
    for (size_t i = 0; i < BB_COUNT(good); i++) {
        bb_mp_write_uint(&value, good[i]);
        cr_assert_eq(judge_ttl(&value), 0, "%zu", i);
    }
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        bb_mp_write_uint(&value, bad[i]);
        cr_assert_eq(judge_ttl(&value), BB_EEVENT, "%zu", i);
    }
    bb_mp_write_int(&value, -1);
    cr_assert_eq(judge_ttl(&value), BB_EEVENT);
    bb_mp_write_double(&value, 5000);
    cr_assert_eq(judge_ttl(&value), BB_EEVENT);
    bb_mp_write_str(&value, bb_slice_str("5s"));
    cr_assert_eq(judge_ttl(&value), BB_EEVENT);
    bb_mp_write_nil(&value);
    cr_assert_eq(judge_ttl(&value), BB_EEVENT);
}

Test(event, a_view_says_which_times_there_are)
{
    for (unsigned which = 0; which < 4; which++) {
        struct bb_attributes attributes = {.has_ttl = (which & 1) != 0, .has_source_time = (which & 2) != 0};
        attributes.ttl_ms = attributes.has_ttl ? 7 : 0;
        struct bb_buf bytes = BB_BUF_INIT;
        bb_event_write(&bytes, bb_slice_str("a"), bb_slice("\xc0", 1), &attributes);
        struct bb_slice rest = bb_buf_slice(&bytes);
        struct bb_event_view event = {.has_ttl = true, .has_source_time = true};
        struct bb_attributes again = {0};
        cr_assert_eq(bb_event_read(&rest, &event), 0);
        cr_assert_eq(event.error, 0);
        cr_assert_eq(event.has_ttl, attributes.has_ttl);
        cr_assert_eq(event.has_source_time, attributes.has_source_time);
        cr_assert_eq(bb_event_attributes(event.attributes, &again), 0);
        cr_assert_eq(again.ttl_ms, attributes.ttl_ms);
        bb_buf_fini(&bytes);
    }
}

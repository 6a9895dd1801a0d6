/* SPDX-License-Identifier: Apache-2.0 */
/* The event object in JSON and as a MessagePack map. */
#include "proto/base/error.h"
#include "proto/json/event_json.h"
#include "proto/json/json_text.h"
#include "proto/json/json_value.h"
#include "proto/wire/mp.h"

#include <criterion/criterion.h>

static const struct bb_event_meta meta = {
    .server = 1,
    .session = 7,
    .instance = 2,
    .sequence = 99,
    .time = 1000000,
    .source = 4,
};

static int read_text(const char *text, struct bb_buf *out)
{
    json_t *value = NULL;
    cr_assert_eq(bb_json_parse(text, strlen(text), NULL, &value), 0, "%s", text);
    int r = bb_events_json_read(value, out);
    json_decref(value);
    return r;
}

/* What bb_event_read() says of event @index of @bytes; BB_ENOTFOUND if there are fewer. */
static int error_at(const struct bb_buf *bytes, size_t index)
{
    struct bb_slice rest = bb_buf_slice(bytes);
    struct bb_event_view event = {.error = BB_ENOTFOUND};
    for (size_t i = 0; i <= index; i++) {
        event.error = BB_ENOTFOUND;
        if (rest.len > 0) {
            cr_assert_eq(bb_event_read(&rest, &event), 0);
        }
    }
    return event.error;
}

/* What is found wrong with the one event that @text is. */
static int result_of(const char *text)
{
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(read_text(text, &out), 0, "%s", text);
    int r = error_at(&out, 0);
    cr_assert_eq(error_at(&out, 1), BB_ENOTFOUND);
    bb_buf_fini(&out);
    return r;
}

/* Reads @text as an event and writes it in @shape. */
static void expect_text(const char *text, enum bb_event_shape shape, const char *expected)
{
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_buf out = BB_BUF_INIT;
    struct bb_event_view event;
    cr_assert_eq(read_text(text, &bytes), 0, "%s", text);
    struct bb_slice rest = bb_buf_slice(&bytes);
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    cr_assert_eq(bb_event_json_write(&out, &meta, &event, shape), 0);
    cr_assert_str_eq(bb_buf_string(&out), expected);
    bb_buf_fini(&bytes);
    bb_buf_fini(&out);
}

Test(event_json, a_path_alone_is_an_event_without_payload)
{
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(read_text("{\"path\":\"a\"}", &out), 0);
    cr_assert(bb_slice_equal(bb_buf_slice(&out), bb_slice("\x92\xa1"
                                                          "a\xc0",
                                                          4)));
    bb_buf_fini(&out);
}

Test(event_json, all_members_come_back)
{
    expect_text("{\"payload\":{\"x\":[1,2.5]},\"path\":\"plant/temp\",\"priority\":-3,\"source_time\":12,"
                "\"headers\":{\"k\":\"v\"},\"client_id\":\"me\",\"payload_type\":\"t\"}",
                BB_SHAPE_EVENT,
                "{\"id\":[1,7,2],\"path\":\"plant/temp\",\"seq\":99,\"time\":1000000,\"source_time\":12,"
                "\"priority\":-3,\"source\":{\"type\":\"client\",\"id\":4},\"headers\":{\"k\":\"v\"},"
                "\"client_id\":\"me\",\"payload_type\":\"t\",\"payload\":{\"x\":[1,2.5]}}");
}

Test(event_json, what_was_received_can_be_published_again)
{
    expect_text(
        "{\"id\":[9,9,9],\"path\":\"a\",\"seq\":3,\"time\":5,\"source_time\":null,\"priority\":0,"
        "\"source\":{\"type\":\"window\",\"id\":0},\"headers\":{},\"payload\":\"x\"}",
        BB_SHAPE_EVENT,
        "{\"id\":[1,7,2],\"path\":\"a\",\"seq\":99,\"time\":1000000,\"source_time\":null,\"priority\":0,"
        "\"source\":{\"type\":\"client\",\"id\":4},\"headers\":{},\"payload\":\"x\"}");
}

Test(event_json, members_that_say_nothing_leave_no_bytes)
{
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(read_text("{\"path\":\"a\",\"priority\":0,\"headers\":{},\"client_id\":null}", &out), 0);
    cr_assert_eq(out.len, 4);
    bb_buf_fini(&out);
}

Test(event_json, the_event_of_async_nexus_is_accepted_and_produced)
{
    expect_text("{\"id\":1,\"type\":\"line1\",\"priority\":0,\"payload\":\"x\"}", BB_SHAPE_NEXUS,
                "{\"id\":1,\"type\":\"line1\",\"priority\":0,\"payload\":\"x\"}");
    expect_text("{\"id\":\"u\",\"type\":5,\"priority\":-1}", BB_SHAPE_NEXUS,
                "{\"id\":\"u\",\"type\":\"5\",\"priority\":-1,\"payload\":null}");
    expect_text("{\"path\":\"a\"}", BB_SHAPE_NEXUS,
                "{\"id\":99,\"type\":\"a\",\"priority\":0,\"payload\":null}");
}

Test(event_json, ids_beyond_int64_are_exact)
{
    expect_text(
        "{\"type\":\"a\",\"id\":{\"$uint\":\"18446744073709551615\"}}", BB_SHAPE_NEXUS,
        "{\"id\":{\"$uint\":\"18446744073709551615\"},\"type\":\"a\",\"priority\":0,\"payload\":null}");
}

static void expect_errors(const struct bb_buf *bytes, const int *errors, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        cr_expect_eq(error_at(bytes, i), errors[i], "event %zu: %d", i, error_at(bytes, i));
    }
    cr_expect_eq(error_at(bytes, n), BB_ENOTFOUND);
}

Test(event_json, bad_events_of_an_array_are_bad_alone)
{
    static const int errors[] = {0, BB_EPATH, BB_EEVENT, BB_EEVENT, BB_EEVENT, 0};
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(read_text("[]", &out), 0);
    cr_assert_eq(out.len, 0);
    cr_assert_eq(
        read_text("[{\"path\":\"a\"},{\"path\":\"b/*/c\"},[{\"path\":\"a\"}],{\"path\":\"a\",\"x\":1},"
                  "{\"path\":\"a\",\"payload\":{\"$ref\":1}},{\"path\":\"b\"}]",
                  &out),
        0);
    expect_errors(&out, errors, BB_COUNT(errors));
    bb_buf_fini(&out);
}

Test(event_json, what_cannot_be_held_is_bad_alone)
{
    static const char text[] =
        "[{\"path\":\"a\",\"payload\":1e400} , {\"path\":\"a\",\"payload\":[\"]}\\\"\"]},"
        "{\"path\":\"a\",\"payload\":18446744073709551616},{\"path\":\"a\",\"path\":\"b\"},"
        "{\"path\":\"a\",\"payload\":\"\\ud800\"},{\"path\":\"\xff\"},7,{\"path\":\"z\"}]\n";
    static const int errors[] = {BB_EEVENT, 0, BB_EEVENT, BB_EEVENT, BB_EEVENT, BB_EUTF8, BB_EEVENT, 0};
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(bb_events_json_read_pieces(bb_slice_str(text), &out), 0);
    expect_errors(&out, errors, BB_COUNT(errors));
    bb_buf_reset(&out);
    cr_assert_eq(bb_events_json_read_pieces(bb_slice_str("{\"path\":\"a\",\"payload\":-1e999}"), &out), 0);
    expect_errors(&out, errors, 1);
    bb_buf_fini(&out);
}

Test(event_json, pieces_that_are_no_json_are_malformed)
{
    static const char *const texts[] = {
        "[{\"path\":1e400},]", "[1e400",  "[1e400]]", "[1e400 1]", "[,1e400]",   "[{\"path\":nope}]",
        "[{\"path\":\"a]",     "[1e400}", "[1e400,",  "[[1,]]",    "[{\"a\":]}]"};
    for (size_t i = 0; i < BB_COUNT(texts); i++) {
        struct bb_buf out = BB_BUF_INIT;
        cr_expect_eq(bb_events_json_read_pieces(bb_slice_str(texts[i]), &out), BB_EMALFORMED, "%s", texts[i]);
        cr_expect_eq(out.len, 0);
        bb_buf_fini(&out);
    }
}

Test(event_json, what_is_not_an_event_is_refused)
{
    static const struct {
        const char *text;
        int error;
    } rows[] = {
        {"5", BB_EEVENT},
        {"{}", BB_EEVENT},
        {"{\"path\":5}", BB_EEVENT},
        {"{\"path\":\"a\",\"type\":\"b\"}", BB_EEVENT},
        {"{\"path\":\"a\",\"extra\":1}", BB_EEVENT},
        {"{\"type\":\"a\",\"seq\":1}", BB_EEVENT},
        {"{\"type\":1.5}", BB_EEVENT},
        {"{\"path\":\"a?\"}", BB_EPATH},
        {"{\"path\":\"a\",\"priority\":2147483648}", BB_EEVENT},
        {"{\"path\":\"a\",\"priority\":1.0}", BB_EEVENT},
        {"{\"path\":\"a\",\"client_id\":true}", BB_EEVENT},
        {"{\"path\":\"a\",\"headers\":{\"k\":1}}", BB_EEVENT},
        {"{\"path\":\"a\",\"headers\":[]}", BB_EEVENT},
        {"{\"path\":\"a\",\"source_time\":\"now\"}", BB_EEVENT},
        {"{\"path\":\"a\",\"payload\":{\"$binary\":\"?\"}}", BB_EEVENT},
    };
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        cr_expect_eq(result_of(rows[i].text), rows[i].error, "%s gives %d", rows[i].text,
                     result_of(rows[i].text));
    }
}

Test(event_json, the_map_is_the_same_object)
{
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_buf map = BB_BUF_INIT;
    struct bb_buf text = BB_BUF_INIT;
    struct bb_event_view event;
    cr_assert_eq(
        read_text("{\"path\":\"a\",\"client_id\":5,\"payload_type\":\"t\",\"payload\":[true]}", &bytes), 0);
    struct bb_slice rest = bb_buf_slice(&bytes);
    cr_assert_eq(bb_event_read(&rest, &event), 0);
    cr_assert_eq(bb_event_map_write(&map, &meta, &event), 0);
    cr_assert_eq(bb_mp_to_json(bb_buf_slice(&map), &text), 0);
    cr_assert_str_eq(bb_buf_string(&text),
                     "{\"id\":[1,7,2],\"path\":\"a\",\"seq\":99,\"time\":1000000,"
                     "\"source\":{\"type\":\"client\",\"id\":4},\"source_time\":null,\"priority\":0,"
                     "\"headers\":{},\"client_id\":5,\"payload_type\":\"t\",\"payload\":[true]}");
    bb_buf_fini(&bytes);
    bb_buf_fini(&map);
    bb_buf_fini(&text);
}

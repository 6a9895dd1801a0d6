/* SPDX-License-Identifier: Apache-2.0 */
/* What bytes from a command line or a pipe are published as. */
#include "proto/base/error.h"

#include "tools/body.h"

#include <criterion/criterion.h>
#include <stdio.h>

static void
assert_body(enum body_form form, struct bb_slice bytes, enum bb_payload_kind kind, struct bb_slice data)
{
    struct bb_buf memory = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct body body;
    cr_assert_eq(body_parse(form, bytes, &memory, &err, &body), 0);
    cr_assert_eq(body.kind, kind);
    cr_assert(bb_slice_equal(body.data, data));
    bb_buf_fini(&memory);
    bb_buf_fini(&err);
}

static void assert_refused(enum body_form form, struct bb_slice bytes, int error)
{
    struct bb_buf memory = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct body body;
    cr_assert_eq(body_parse(form, bytes, &memory, &err, &body), error);
    bb_buf_fini(&memory);
    bb_buf_fini(&err);
}

Test(body, guessed_json_is_converted)
{
    static const uint8_t one_two[] = {0x92, 1, 2};
    assert_body(BODY_GUESS, bb_slice_str("[1, 2]"), BB_PAYLOAD_MSGPACK, bb_slice(one_two, sizeof(one_two)));
    assert_body(BODY_JSON, bb_slice_str("[1,2]"), BB_PAYLOAD_MSGPACK, bb_slice(one_two, sizeof(one_two)));
}

Test(body, what_is_not_json_is_guessed_to_be_text_and_else_binary)
{
    struct bb_slice text = bb_slice_str("na\xc3\xafve [1,");
    struct bb_slice binary = bb_slice("\xff\x00\x01", 3);
    assert_body(BODY_GUESS, text, BB_PAYLOAD_TEXT, text);
    assert_body(BODY_GUESS, binary, BB_PAYLOAD_BINARY, binary);
    assert_body(BODY_GUESS, bb_slice("", 0), BB_PAYLOAD_TEXT, bb_slice("", 0));
}

Test(body, the_form_that_was_asked_for_is_taken_or_refused)
{
    struct bb_slice json = bb_slice_str("[1,2]");
    assert_body(BODY_TEXT, json, BB_PAYLOAD_TEXT, json);
    assert_body(BODY_BINARY, json, BB_PAYLOAD_BINARY, json);
    assert_refused(BODY_JSON, bb_slice_str("[1,"), BB_EMALFORMED);
    assert_refused(BODY_JSON, bb_slice("\"\xff\"", 3), BB_EUTF8);
    assert_refused(BODY_TEXT, bb_slice("\xff", 1), BB_EUTF8);
}

Test(body, json_that_is_too_deep_is_an_error_and_not_text)
{
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    assert_refused(BODY_GUESS, bb_slice(deep, sizeof(deep)), BB_ETOODEEP);
}

static int read_zeros(size_t n, struct bb_buf *out)
{
    static const uint8_t zeros[65536];
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    for (size_t left = n; left > 0;) {
        size_t some = BB_MIN(left, sizeof(zeros));
        cr_assert_eq(fwrite(zeros, 1, some, file), some);
        left -= some;
    }
    rewind(file);
    int r = body_read(file, out);
    (void)fclose(file);
    return r;
}

Test(body, reading_takes_all_up_to_the_largest_message)
{
    static const size_t sizes[] = {0, 1, 65535, 65536, 65537, (size_t)16 << 20};
    for (size_t i = 0; i < BB_COUNT(sizes); i++) {
        struct bb_buf out = BB_BUF_INIT;
        cr_assert_eq(read_zeros(sizes[i], &out), 0);
        cr_assert_eq(out.len, sizes[i]);
        bb_buf_fini(&out);
    }
    struct bb_buf out = BB_BUF_INIT;
    cr_assert_eq(read_zeros(((size_t)16 << 20) + 1, &out), BB_ETOOBIG);
    bb_buf_fini(&out);
}

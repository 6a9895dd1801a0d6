/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/base64.h"
#include "proto/base/error.h"

#include <criterion/criterion.h>

/* The vectors of RFC 4648 section 10, and the two characters that other alphabets have not. */
static const struct {
    const char *bytes, *text;
} vectors[] = {
    {"", ""},
    {"f", "Zg=="},
    {"fo", "Zm8="},
    {"foo", "Zm9v"},
    {"foob", "Zm9vYg=="},
    {"fooba", "Zm9vYmE="},
    {"foobar", "Zm9vYmFy"},
    {"\xff\xef\xbe", "/+++"},
};

Test(base64, vectors_encode_and_decode)
{
    for (size_t i = 0; i < BB_COUNT(vectors); i++) {
        struct bb_buf out = BB_BUF_INIT;
        bb_base64_encode(&out, bb_slice_str(vectors[i].bytes));
        cr_assert_str_eq(bb_buf_string(&out), vectors[i].text);
        bb_buf_reset(&out);
        cr_assert_eq(bb_base64_decode(&out, bb_slice_str(vectors[i].text)), 0);
        cr_assert_str_eq(bb_buf_string(&out), vectors[i].bytes);
        bb_buf_fini(&out);
    }
}

Test(base64, all_bytes_of_all_lengths_come_back)
{
    uint8_t bytes[256];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(255 - i);
    }
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        struct bb_buf text = BB_BUF_INIT;
        struct bb_buf back = BB_BUF_INIT;
        bb_base64_encode(&text, bb_slice(bytes, len));
        cr_assert_eq(text.len, (len + 2) / 3 * 4);
        cr_assert_eq(bb_base64_decode(&back, bb_buf_slice(&text)), 0);
        cr_assert(bb_slice_equal(bb_buf_slice(&back), bb_slice(bytes, len)));
        bb_buf_fini(&text);
        bb_buf_fini(&back);
    }
}

Test(base64, what_is_not_the_one_spelling_is_refused_and_leaves_nothing)
{
    static const char *const bad[] = {
        "Z",    "Zg",   "Zg=",      "Zg==Zg==", "Z===",  "====", "=Zg=", "Zm9v=",   "Zm9v====", "Zg=v",
        "Zh==", "Zm9=", "Zm8=Zm8=", "Zm9v\n",   " Zm9v", "Zm 9", "Zm-_", "Zm9\xff", "Zm9vZg=A", "Z=8=",
    };
    struct bb_buf out = BB_BUF_INIT;
    bb_buf_append(&out, "kept", 4);
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        cr_assert_eq(bb_base64_decode(&out, bb_slice_str(bad[i])), BB_EMALFORMED, "%s", bad[i]);
        cr_assert_str_eq(bb_buf_string(&out), "kept");
    }
    bb_buf_fini(&out);
}

Test(base64, a_buffer_in_error_stays_so)
{
    struct bb_buf out = {.error = BB_ENOMEM};
    bb_base64_encode(&out, bb_slice_str("x"));
    cr_assert_eq(bb_base64_decode(&out, bb_slice_str("Zg==")), BB_ENOMEM);
    cr_assert_eq(out.len, 0);
}

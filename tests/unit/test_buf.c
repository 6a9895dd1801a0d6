/* SPDX-License-Identifier: Apache-2.0 */
/* Slices and the growable buffer: content, growth, sticky errors. */
#include "proto/base/buf.h"
#include "proto/base/error.h"

#include <criterion/criterion.h>

Test(buf, slices_are_equal_when_their_bytes_are)
{
    const char other[] = {'a', '\0', 'b'};
    cr_assert(bb_slice_equal(bb_slice("a\0b", 3), bb_slice(other, 3)));
    cr_assert_not(bb_slice_equal(bb_slice("a\0b", 3), bb_slice("a\0c", 3)));
    cr_assert_not(bb_slice_equal(bb_slice_str("ab"), bb_slice_str("abc")));
    cr_assert(bb_slice_equal(bb_slice(NULL, 0), bb_slice_str("")));
}

Test(buf, appended_bytes_stand_in_order)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_append(&buf, "ab", 2);
    bb_buf_append(&buf, NULL, 0);
    bb_buf_append_byte(&buf, 0);
    bb_buf_append(&buf, "c", 1);
    cr_assert(bb_slice_equal(bb_buf_slice(&buf), bb_slice("ab\0c", 4)));
    bb_buf_fini(&buf);
}

Test(buf, growth_keeps_the_content)
{
    struct bb_buf buf = BB_BUF_INIT;
    for (size_t i = 0; i < 100000; i++) {
        bb_buf_append_byte(&buf, (uint8_t)(i % 251));
    }
    cr_assert_eq(buf.error, 0);
    cr_assert_eq(buf.len, 100000);
    cr_assert_leq(buf.len, buf.cap);
    for (size_t i = 0; i < buf.len; i++) {
        cr_assert_eq(buf.data[i], i % 251);
    }
    bb_buf_fini(&buf);
}

Test(buf, reserve_gives_room_without_changing_the_length)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_append(&buf, "x", 1);
    uint8_t *room = bb_buf_reserve(&buf, 1000);
    cr_assert_not_null(room);
    cr_assert_eq(buf.len, 1);
    cr_assert_eq(room, buf.data + 1);
    memset(room, 'y', 1000);
    cr_assert_eq(buf.data[0], 'x');
    bb_buf_fini(&buf);
}

Test(buf, printf_appends_without_the_terminator)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_printf(&buf, "%d", 12);
    bb_buf_printf(&buf, "-%s", "three");
    cr_assert(bb_slice_equal(bb_buf_slice(&buf), bb_slice_str("12-three")));
    bb_buf_fini(&buf);
}

Test(buf, printf_longer_than_the_first_allocation)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_printf(&buf, "%0500d", 7);
    cr_assert_eq(buf.len, 500);
    cr_assert_eq(buf.data[0], '0');
    cr_assert_eq(buf.data[499], '7');
    bb_buf_fini(&buf);
}

Test(buf, string_is_terminated_and_does_not_change_the_content)
{
    struct bb_buf buf = BB_BUF_INIT;
    cr_assert_str_eq(bb_buf_string(&buf), "");
    bb_buf_append(&buf, "abc", 3);
    cr_assert_str_eq(bb_buf_string(&buf), "abc");
    cr_assert_eq(buf.len, 3);
    bb_buf_fini(&buf);
}

Test(buf, an_impossible_size_is_an_error_that_sticks)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_append(&buf, "abc", 3);
    cr_assert_null(bb_buf_reserve(&buf, SIZE_MAX));
    cr_assert_eq(buf.error, BB_ENOMEM);
    bb_buf_append(&buf, "d", 1);
    bb_buf_printf(&buf, "%d", 1);
    cr_assert_eq(buf.error, BB_ENOMEM);
    cr_assert_eq(buf.len, 3);
    cr_assert_str_eq(bb_buf_string(&buf), "");
    bb_buf_fini(&buf);
}

Test(buf, reset_forgets_content_and_error_but_keeps_the_memory)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_append(&buf, "abc", 3);
    const uint8_t *memory = buf.data;
    buf.error = BB_EINVAL;
    bb_buf_reset(&buf);
    bb_buf_append(&buf, "z", 1);
    cr_assert_eq(buf.error, 0);
    cr_assert_eq(buf.data, memory);
    cr_assert_str_eq(bb_buf_string(&buf), "z");
    bb_buf_fini(&buf);
}

Test(buf, fini_leaves_an_empty_usable_buffer)
{
    struct bb_buf buf = BB_BUF_INIT;
    bb_buf_fini(&buf);
    bb_buf_append(&buf, "a", 1);
    bb_buf_fini(&buf);
    cr_assert_null(buf.data);
    cr_assert_eq(buf.len, 0);
    cr_assert_eq(buf.cap, 0);
    bb_buf_append(&buf, "b", 1);
    cr_assert_str_eq(bb_buf_string(&buf), "b");
    bb_buf_fini(&buf);
}

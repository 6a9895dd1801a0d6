/* SPDX-License-Identifier: Apache-2.0 */
/* Every single code point, and each way in which a sequence can be wrong, at every offset from a word. */
#include "proto/base/utf8.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>

/* The plain encoder, without any judgement: also of surrogates. */
static size_t encode(uint32_t c, uint8_t *p)
{
    if (c < 0x80) {
        p[0] = (uint8_t)c;
        return 1;
    }
    size_t len = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = len - 1; i > 0; i--) {
        p[i] = (uint8_t)(0x80 | (c & 0x3f));
        c >>= 6;
    }
    p[0] = (uint8_t)((0xf00u >> len) | c);
    return len;
}

Test(utf8, every_code_point_but_surrogates_is_valid)
{
    for (uint32_t c = 0; c <= 0x110000; c++) {
        uint8_t text[4];
        bool expected = c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff);
        cr_assert_eq(bb_utf8_is_valid(text, encode(c, text)), expected, "U+%04X", c);
    }
}

Test(utf8, a_character_cut_short_is_refused)
{
    static const uint32_t points[] = {0xe9, 0x20ac, 0x1f600};
    for (size_t i = 0; i < BB_COUNT(points); i++) {
        uint8_t text[4];
        size_t len = encode(points[i], text);
        for (size_t cut = 1; cut < len; cut++) {
            cr_assert_not(bb_utf8_is_valid(text, cut));
        }
    }
}

Test(utf8, malformed_sequences_are_refused)
{
    static const char *const bad[] = {
        "\x80",
        "\xbf",
        "\xc0\x80",
        "\xc1\xbf",
        "\xe0\x80\x80",
        "\xe0\x9f\xbf",
        "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf",
        "\xed\xa0\x80",
        "\xed\xbf\xbf",
        "\xf4\x90\x80\x80",
        "\xf5\x80\x80\x80",
        "\xfe",
        "\xff",
        "\xc3\x28",
        "\xe2\x28\xa1",
        "\xe2\x82\x28",
        "\xf0\x90\x28\xbc",
        "\xf0\x90\x8c\x28",
        "\xc3\xc3\xa9",
    };
    for (size_t i = 0; i < BB_COUNT(bad); i++) {
        cr_assert_not(bb_utf8_is_valid(bad[i], strlen(bad[i])), "row %zu", i);
    }
}

Test(utf8, one_bad_byte_is_found_at_every_place_of_every_length)
{
    for (size_t len = 1; len <= 40; len++) {
        uint8_t text[40];
        memset(text, 'a', sizeof(text));
        cr_assert(bb_utf8_is_valid(text, len));
        for (size_t i = 0; i < len; i++) {
            text[i] = 0xff;
            cr_assert_not(bb_utf8_is_valid(text, len), "byte %zu of %zu", i, len);
            text[i] = 'a';
        }
    }
}

Test(utf8, a_character_may_stand_at_any_offset)
{
    for (size_t before = 0; before < 20; before++) {
        for (size_t after = 0; after < 20; after++) {
            char text[48];
            memset(text, 'x', sizeof(text));
            memcpy(text + before, "\xe2\x82\xac", 3);
            cr_assert(bb_utf8_is_valid(text, before + 3 + after), "%zu, %zu", before, after);
            cr_assert_not(bb_utf8_is_valid(text, before + 2));
        }
    }
}

Test(utf8, no_text_and_nul_are_valid)
{
    cr_assert(bb_utf8_is_valid(NULL, 0));
    cr_assert(bb_utf8_is_valid("a\0b", 3));
}

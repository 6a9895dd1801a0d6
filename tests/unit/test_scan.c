/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/scan.h"

#include <criterion/criterion.h>

static int scan(const char *bytes, size_t len)
{
    return bb_scan_whole((const uint8_t *)bytes, len, NULL);
}

#define SCAN(text) scan(text, sizeof(text) - 1)

Test(scan, well_formed_values_pass)
{
    cr_assert_eq(SCAN("\xc0"), 0);
    cr_assert_eq(SCAN("\x90"), 0);
    cr_assert_eq(SCAN("\x92\xa3"
                      "a/b\xc4\x02\xff\xfe"),
                 0);
    cr_assert_eq(SCAN("\x83\x01\x02\xc0\xa1k\x91\x01\xcb\0\0\0\0\0\0\0\0"), 0);
    cr_assert_eq(SCAN("\xd9\x03\xe2\x82\xac"), 0);
    cr_assert_eq(SCAN("\xd6\xff\x00\x00\x00\x00"), 0);
}

Test(scan, malformed_values_are_refused)
{
    cr_assert_eq(scan(NULL, 0), BB_EMALFORMED);
    cr_assert_eq(SCAN("\xc1"), BB_EMALFORMED);
    cr_assert_eq(SCAN("\x92\x01"), BB_EMALFORMED);
    cr_assert_eq(SCAN("\x92\x91\x01"), BB_EMALFORMED);
    cr_assert_eq(SCAN("\x81\x01"), BB_EMALFORMED);
    cr_assert_eq(SCAN("\xc4\x05"
                      "abcd"),
                 BB_EMALFORMED);
    cr_assert_eq(SCAN("\xdd\xff\xff\xff\xff"), BB_EMALFORMED);
    cr_assert_eq(SCAN("\x91\xc1"), BB_EMALFORMED);
}

Test(scan, bytes_after_the_value_are_refused_only_where_it_must_fill_them)
{
    size_t len = 0;
    cr_assert_eq(SCAN("\x91\x01\xc0"), BB_EMALFORMED);
    cr_assert_eq(bb_scan_value((const uint8_t *)"\x91\x01\xc1", 3, NULL, &len), 0);
    cr_assert_eq(len, 2);
}

Test(scan, text_must_be_utf8_and_bytes_need_not)
{
    cr_assert_eq(SCAN("\xa2\xc3\x28"), BB_EUTF8);
    cr_assert_eq(SCAN("\x81\xa1\xff\xc0"), BB_EUTF8);
    cr_assert_eq(SCAN("\x91\xa3\xed\xa0\x80"), BB_EUTF8);
    cr_assert_eq(SCAN("\xc4\x02\xc3\x28"), 0);
    cr_assert_eq(SCAN("\xd5\x01\xc3\x28"), 0);
}

Test(scan, depth_is_limited_on_arrays_and_maps_also_in_keys)
{
    struct bb_scan_limits limits = BB_SCAN_LIMITS_INIT;
    limits.max_depth = 2;
    cr_assert_eq(bb_scan_whole((const uint8_t *)"\x91\x91\x01", 3, &limits), 0);
    cr_assert_eq(bb_scan_whole((const uint8_t *)"\x91\x91\x90", 3, &limits), BB_ETOODEEP);
    cr_assert_eq(bb_scan_whole((const uint8_t *)"\x81\x81\x90\x01\x01", 5, &limits), BB_ETOODEEP);
    limits.max_depth = 0;
    cr_assert_eq(bb_scan_whole((const uint8_t *)"\x01", 1, &limits), 0);
    cr_assert_eq(bb_scan_whole((const uint8_t *)"\x90", 1, &limits), BB_ETOODEEP);
}

Test(scan, a_depth_bomb_is_refused_whatever_the_limit_says)
{
    static uint8_t bomb[1 << 20];
    struct bb_scan_limits limits = {UINT32_MAX, UINT32_MAX, SIZE_MAX};
    memset(bomb, 0x91, sizeof(bomb));
    cr_assert_eq(bb_scan_whole(bomb, sizeof(bomb), &limits), BB_ETOODEEP);
    bomb[BB_MP_MAX_DEPTH] = 0xc0;
    cr_assert_eq(bb_scan_whole(bomb, BB_MP_MAX_DEPTH + 1, &limits), 0);
}

Test(scan, every_value_counts_as_an_item)
{
    struct bb_scan_limits limits = BB_SCAN_LIMITS_INIT;
    const uint8_t *map_of_one_in_an_array = (const uint8_t *)"\x91\x81\x01\x02";
    limits.max_items = 4;
    cr_assert_eq(bb_scan_whole(map_of_one_in_an_array, 4, &limits), 0);
    limits.max_items = 3;
    cr_assert_eq(bb_scan_whole(map_of_one_in_an_array, 4, &limits), BB_ETOOBIG);
}

Test(scan, bytes_are_limited_to_the_byte)
{
    struct bb_scan_limits limits = BB_SCAN_LIMITS_INIT;
    const uint8_t *value = (const uint8_t *)"\x92\xa3"
                                            "abc\x01\x02";
    size_t len = 0;
    limits.max_bytes = 6;
    cr_assert_eq(bb_scan_value(value, 7, &limits, &len), 0);
    cr_assert_eq(len, 6);
    limits.max_bytes = 5;
    cr_assert_eq(bb_scan_value(value, 7, &limits, &len), BB_ETOOBIG);
    limits.max_bytes = 3;
    cr_assert_eq(bb_scan_value(value, 7, &limits, &len), BB_ETOOBIG);
    cr_assert_eq(len, 6, "an output must be left alone by a failure");
}

Test(scan, values_in_a_row_are_counted_and_share_the_limits)
{
    struct bb_scan_limits limits = BB_SCAN_LIMITS_INIT;
    const uint8_t *values = (const uint8_t *)"\x91\x01\xa1x\xc0";
    size_t count = 9;
    cr_assert_eq(bb_scan_values(values, 5, &limits, &count), 0);
    cr_assert_eq(count, 3);
    limits.max_items = 3;
    cr_assert_eq(bb_scan_values(values, 5, &limits, &count), BB_ETOOBIG);
    limits.max_items = 4;
    limits.max_bytes = 4;
    cr_assert_eq(bb_scan_values(values, 5, &limits, &count), BB_ETOOBIG);
    cr_assert_eq(bb_scan_values(values, 3, NULL, &count), BB_EMALFORMED);
    cr_assert_eq(count, 3, "an output must be left alone by a failure");
    cr_assert_eq(bb_scan_values(NULL, 0, NULL, &count), 0);
    cr_assert_eq(count, 0);
}

/* What passes the scanner is read by bb_mp_skip() without error, to the same length, and only that. */
Test(scan, the_reader_agrees_on_random_bytes)
{
    uint64_t seed = 1;
    size_t passed = 0;
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[24];
        for (size_t i = 0; i < sizeof(bytes); i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            bytes[i] = (uint8_t)(seed >> 56);
        }
        size_t len = 0;
        int r = bb_scan_value(bytes, sizeof(bytes), NULL, &len);
        struct bb_mp_reader reader = bb_mp_reader(bb_slice(bytes, sizeof(bytes)));
        bb_mp_skip(&reader);
        if (r == 0) {
            cr_assert_eq((size_t)(reader.p - bytes), len);
            passed++;
        }
        if (r != BB_EUTF8) {
            cr_assert_eq(reader.error, r);
        }
    }
    cr_assert_gt(passed, 1000);
}

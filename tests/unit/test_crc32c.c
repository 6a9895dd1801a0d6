/* SPDX-License-Identifier: Apache-2.0 */
/* CRC32C: known values, both ways, in pieces. */
#include "proto/base/crc32c.h"

#include <criterion/criterion.h>
#include <string.h>

Test(crc32c, known_values)
{
    uint8_t zeros[32] = {0};
    cr_assert_eq(bb_crc32c(0, "", 0), 0);
    cr_assert_eq(bb_crc32c(0, "123456789", 9), 0xe3069283);
    cr_assert_eq(bb_crc32c_table(0, "123456789", 9), 0xe3069283);
    cr_assert_eq(bb_crc32c(0, zeros, sizeof(zeros)), 0x8a9136aa);
}

Test(crc32c, instruction_and_table_agree_at_every_length_and_split)
{
    uint8_t bytes[300];
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 3);
    }
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        uint32_t whole = bb_crc32c(0, bytes, len);
        size_t split = len / 3;
        cr_assert_eq(bb_crc32c_table(0, bytes, len), whole);
        cr_assert_eq(bb_crc32c(bb_crc32c(0, bytes, split), bytes + split, len - split), whole);
    }
}

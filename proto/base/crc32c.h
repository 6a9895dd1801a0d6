/* SPDX-License-Identifier: Apache-2.0 */
/* CRC32C (Castagnoli), with the instruction of the processor where there is one. Any thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/**
 * bb_crc32c() - the checksum of what @crc is the checksum of, followed by @len bytes
 * @crc: 0 to begin with
 */
uint32_t bb_crc32c(uint32_t crc, const void *data, size_t len);

/** bb_crc32c_table() - the same by table, on any processor; for tests. */
uint32_t bb_crc32c_table(uint32_t crc, const void *data, size_t len);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fast 64-bit hash of bytes by multiplying and folding. Keyed: whoever does not know the seed cannot
 * find colliding keys in advance, because the seed goes into both operands of every multiplication (no
 * fixed input makes a product zero). Not cryptographic. The value depends on the byte order of the
 * machine, so it is never written to disk or wire.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef unsigned __int128 bb_uint128;

static inline uint64_t bb_hash_fold(uint64_t a, uint64_t b)
{
    bb_uint128 product = (bb_uint128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t bb_hash_read64(const uint8_t *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

static inline uint32_t bb_hash_read32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return value;
}

/** bb_hash() - the hash of @len bytes under @seed; @data may be NULL when @len is 0. */
static inline uint64_t bb_hash(const void *data, size_t len, uint64_t seed)
{
    const uint8_t *at = (const uint8_t *)data;
    uint64_t key = bb_hash_fold(seed ^ UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xd6e8feb86659fd93));
    uint64_t state = seed ^ UINT64_C(0x8ebc6af09c88c6e3) ^ len;
    uint64_t a = 0;
    uint64_t b = 0;
    if (len > 16) {
        const uint8_t *last = at + len - 16;
        for (; at < last; at += 16) {
            state = bb_hash_fold(bb_hash_read64(at) ^ key, bb_hash_read64(at + 8) ^ state);
        }
        a = bb_hash_read64(last);
        b = bb_hash_read64(last + 8);
    } else if (len >= 8) {
        a = bb_hash_read64(at);
        b = bb_hash_read64(at + len - 8);
    } else if (len >= 4) {
        a = bb_hash_read32(at);
        b = bb_hash_read32(at + len - 4);
    } else if (len > 0) {
        a = (uint64_t)at[0] << 16 | (uint64_t)at[len / 2] << 8 | at[len - 1];
    }
    return bb_hash_fold(bb_hash_fold(a ^ key, b ^ state) ^ key, UINT64_C(0xa0761d6478bd642f) ^ len);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers in keys and values of the store: big-endian, so that the order of bytes is the order of numbers. */
#pragma once

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint8_t *bk_put_u32(uint8_t *to, uint32_t value)
{
    value = htobe32(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static inline uint8_t *bk_put_u64(uint8_t *to, uint64_t value)
{
    value = htobe64(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static inline uint32_t bk_get_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return be32toh(value);
}

static inline uint64_t bk_get_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return be64toh(value);
}

/* Lengths of keys. */
#define BK_KEY_CHANNEL     4         /* channel */
#define BK_KEY_RECORD      12        /* position, channel */
#define BK_KEY_SEQUENCE    12        /* channel, first sequence */
#define BK_KEY_TIME        16        /* newest time of the group, position */
#define BK_KEY_SESSION     24        /* server, first session of the group, position */
#define BK_KEY_PATH_MAX    (4 + 200) /* channel, path */
#define BK_KEY_BY_PATH     16        /* path id, first sequence of the record */
#define BK_KEY_SOURCE_TIME 20        /* channel, bucket, position */
#define BK_KEY_MAX         204

static inline void bk_key_record(uint8_t *to, uint64_t position, uint32_t channel)
{
    bk_put_u32(bk_put_u64(to, position), channel);
}

static inline void bk_key_sequence(uint8_t *to, uint32_t channel, uint64_t sequence)
{
    bk_put_u64(bk_put_u32(to, channel), sequence);
}

/* by_time and by_path. */
static inline void bk_key_pair(uint8_t *to, uint64_t first, uint64_t second)
{
    bk_put_u64(bk_put_u64(to, first), second);
}

static inline void bk_key_session(uint8_t *to, uint64_t server, uint64_t session, uint64_t position)
{
    bk_put_u64(bk_put_u64(bk_put_u64(to, server), session), position);
}

static inline void bk_key_source_time(uint8_t *to, uint32_t channel, uint64_t bucket, uint64_t position)
{
    bk_put_u64(bk_put_u64(bk_put_u32(to, channel), bucket), position);
}

/* Source times are signed: the bucket is of one second and biased, so that it sorts. */
static inline uint64_t bk_source_bucket(int64_t source_time)
{
    int64_t second = source_time / 1000000 - (source_time % 1000000 < 0 ? 1 : 0);
    return (uint64_t)second ^ (UINT64_C(1) << 63);
}

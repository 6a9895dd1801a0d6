/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msgpack, written and read.
 *
 * Writing: bb_mp_put_*() write where the caller has made room and return the end, for the hot path;
 * bb_mp_write_*() append to a buffer. Both always choose the shortest form, so equal values have equal bytes
 * (a double is always float64).
 *
 * Reading: every function is total on any bytes and never reads past the end. The reader's error is
 * sticky: after the first failure each read returns zero, and the caller tests `error` once at the end. Text
 * is not judged here: bytes from a peer go through bb_scan_*() first.
 *
 * Slices that a read returns point into the bytes read. Not thread-safe.
 */
#pragma once

#include "proto/base/buf.h"
#include "proto/base/error.h"

#include <endian.h>

enum bb_mp_type {
    BB_MP_NONE, /* nothing readable */
    BB_MP_NIL,
    BB_MP_BOOL,
    BB_MP_UINT, /* an integer >= 0, whichever format carries it */
    BB_MP_INT,  /* an integer < 0 */
    BB_MP_DOUBLE,
    BB_MP_STR,
    BB_MP_BIN,
    BB_MP_EXT,
    BB_MP_ARRAY,
    BB_MP_MAP,
};

/* Containers may be nested this deep, a lone [] being one deep. */
#define BB_MP_MAX_DEPTH 32

/* Room that covers any number, bool or nil, and any head without its body. */
#define BB_MP_MAX_HEAD 9

/* --- put: into room of at least BB_MP_MAX_HEAD bytes ---------------------------------------------- */

static inline uint8_t *bb_mp_put_byte(uint8_t *p, unsigned int byte)
{
    *p = (uint8_t)byte;
    return p + 1;
}

static inline uint8_t *bb_mp_put_be16(uint8_t *p, unsigned int lead, uint16_t v)
{
    v = htobe16(v);
    memcpy(p + 1, &v, sizeof(v));
    return bb_mp_put_byte(p, lead) + sizeof(v);
}

static inline uint8_t *bb_mp_put_be32(uint8_t *p, unsigned int lead, uint32_t v)
{
    v = htobe32(v);
    memcpy(p + 1, &v, sizeof(v));
    return bb_mp_put_byte(p, lead) + sizeof(v);
}

static inline uint8_t *bb_mp_put_be64(uint8_t *p, unsigned int lead, uint64_t v)
{
    v = htobe64(v);
    memcpy(p + 1, &v, sizeof(v));
    return bb_mp_put_byte(p, lead) + sizeof(v);
}

/* A lead byte and a length or count that needs 1, 2 or 4 bytes: str, bin, ext. */
static inline uint8_t *bb_mp_put_len(uint8_t *p, unsigned int lead, uint32_t len)
{
    if (len <= UINT8_MAX) {
        p[0] = (uint8_t)lead;
        p[1] = (uint8_t)len;
        return p + 2;
    }
    return len <= UINT16_MAX ? bb_mp_put_be16(p, lead + 1, (uint16_t)len) : bb_mp_put_be32(p, lead + 2, len);
}

static inline uint8_t *bb_mp_put_nil(uint8_t *p)
{
    return bb_mp_put_byte(p, 0xc0);
}

static inline uint8_t *bb_mp_put_bool(uint8_t *p, bool v)
{
    return bb_mp_put_byte(p, v ? 0xc3 : 0xc2);
}

static inline uint8_t *bb_mp_put_uint(uint8_t *p, uint64_t v)
{
    if (v <= 0x7f) {
        return bb_mp_put_byte(p, (unsigned int)v);
    }
    if (v <= UINT32_MAX) {
        return bb_mp_put_len(p, 0xcc, (uint32_t)v);
    }
    return bb_mp_put_be64(p, 0xcf, v);
}

static inline uint8_t *bb_mp_put_int(uint8_t *p, int64_t v)
{
    if (v >= 0) {
        return bb_mp_put_uint(p, (uint64_t)v);
    }
    if (v >= -32) {
        return bb_mp_put_byte(p, (uint8_t)v);
    }
    if (v >= INT8_MIN) {
        return bb_mp_put_byte(bb_mp_put_byte(p, 0xd0), (uint8_t)v);
    }
    if (v >= INT16_MIN) {
        return bb_mp_put_be16(p, 0xd1, (uint16_t)v);
    }
    if (v >= INT32_MIN) {
        return bb_mp_put_be32(p, 0xd2, (uint32_t)v);
    }
    return bb_mp_put_be64(p, 0xd3, (uint64_t)v);
}

static inline uint8_t *bb_mp_put_double(uint8_t *p, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return bb_mp_put_be64(p, 0xcb, bits);
}

static inline uint8_t *bb_mp_put_str_head(uint8_t *p, uint32_t len)
{
    return len < 32 ? bb_mp_put_byte(p, 0xa0 | len) : bb_mp_put_len(p, 0xd9, len);
}

static inline uint8_t *bb_mp_put_bin_head(uint8_t *p, uint32_t len)
{
    return bb_mp_put_len(p, 0xc4, len);
}

static inline uint8_t *bb_mp_put_array_head(uint8_t *p, uint32_t count)
{
    if (count < 16) {
        return bb_mp_put_byte(p, 0x90 | count);
    }
    return count <= UINT16_MAX ? bb_mp_put_be16(p, 0xdc, (uint16_t)count) : bb_mp_put_be32(p, 0xdd, count);
}

static inline uint8_t *bb_mp_put_map_head(uint8_t *p, uint32_t count)
{
    if (count < 16) {
        return bb_mp_put_byte(p, 0x80 | count);
    }
    return count <= UINT16_MAX ? bb_mp_put_be16(p, 0xde, (uint16_t)count) : bb_mp_put_be32(p, 0xdf, count);
}

/** bb_mp_put_ext_head() - the head of an extension of application type @type. */
uint8_t *bb_mp_put_ext_head(uint8_t *p, int8_t type, uint32_t len);

/* --- write: appended to a buffer, with its sticky error ---------------------------------------------- */

/* What bb_mp_write_*() of a fixed-size value share: make room, put, take the new end. */
#define BB_MP_WRITE(buf, put, ...)                                   \
    do {                                                             \
        uint8_t *room_ = bb_buf_reserve((buf), BB_MP_MAX_HEAD);      \
        if (room_ != NULL) {                                         \
            (buf)->len += (size_t)(put(room_, __VA_ARGS__) - room_); \
        }                                                            \
    } while (0)

static inline void bb_mp_write_nil(struct bb_buf *buf)
{
    bb_buf_append_byte(buf, 0xc0);
}

static inline void bb_mp_write_bool(struct bb_buf *buf, bool v)
{
    BB_MP_WRITE(buf, bb_mp_put_bool, v);
}

static inline void bb_mp_write_uint(struct bb_buf *buf, uint64_t v)
{
    BB_MP_WRITE(buf, bb_mp_put_uint, v);
}

static inline void bb_mp_write_int(struct bb_buf *buf, int64_t v)
{
    BB_MP_WRITE(buf, bb_mp_put_int, v);
}

static inline void bb_mp_write_double(struct bb_buf *buf, double v)
{
    BB_MP_WRITE(buf, bb_mp_put_double, v);
}

static inline void bb_mp_write_array(struct bb_buf *buf, uint32_t count)
{
    BB_MP_WRITE(buf, bb_mp_put_array_head, count);
}

static inline void bb_mp_write_map(struct bb_buf *buf, uint32_t pairs)
{
    BB_MP_WRITE(buf, bb_mp_put_map_head, pairs);
}

/** bb_mp_write_str() - text, which the caller knows to be UTF-8; more than 4 GiB is BB_ETOOBIG (sticky). */
void bb_mp_write_str(struct bb_buf *buf, struct bb_slice text);

/** bb_mp_write_bin() - bytes; more than 4 GiB is BB_ETOOBIG (sticky). */
void bb_mp_write_bin(struct bb_buf *buf, struct bb_slice bytes);

/** bb_mp_write_ext() - an extension; more than 4 GiB is BB_ETOOBIG (sticky). */
void bb_mp_write_ext(struct bb_buf *buf, int8_t type, struct bb_slice bytes);

/* --- read ---------------------------------------------------------------------------------------- */

/* One value without its body or children. */
struct bb_mp_head {
    enum bb_mp_type type;
    int8_t ext_type;
    uint8_t len;    /* bytes of the head; a scalar is all head */
    uint64_t value; /* bool, integer, bits of a double; bytes of a body; elements; pairs */
};

/** bb_mp_head_read_long() - bb_mp_head_read() for the lead bytes 0xc0 to 0xdf. */
int bb_mp_head_read_long(const uint8_t *p, size_t avail, struct bb_mp_head *ret_head);

/**
 * bb_mp_head_read() - the head of the value at @p, with @avail bytes readable.
 *
 * Return: 0; BB_EMALFORMED when the value cannot be there: cut short, 0xc1, a body longer than what is left,
 * more elements than bytes left.
 */
static inline int bb_mp_head_read(const uint8_t *p, size_t avail, struct bb_mp_head *ret_head)
{
    if (BB_UNLIKELY(avail == 0)) {
        return BB_EMALFORMED;
    }
    uint8_t lead = p[0];
    struct bb_mp_head head = {.type = BB_MP_UINT, .len = 1, .value = lead};
    size_t body = 0;
    if (lead >= 0xc0 && lead <= 0xdf) {
        return bb_mp_head_read_long(p, avail, ret_head);
    }
    if (lead >= 0xe0) {
        head.type = BB_MP_INT;
        head.value = (uint64_t)(int64_t)(int8_t)lead;
    } else if (lead >= 0xa0) {
        head.type = BB_MP_STR;
        body = head.value = lead & 0x1f;
    } else if (lead >= 0x90) {
        head.type = BB_MP_ARRAY;
        body = head.value = lead & 0x0f;
    } else if (lead >= 0x80) {
        head.type = BB_MP_MAP;
        head.value = lead & 0x0f;
        body = 2 * head.value;
    }
    if (BB_UNLIKELY(body > avail - 1)) {
        return BB_EMALFORMED;
    }
    *ret_head = head;
    return 0;
}

struct bb_mp_reader {
    const uint8_t *p, *end;
    int error; /* sticky: 0 or a BB_E...; once set, p is end */
};

static inline struct bb_mp_reader bb_mp_reader(struct bb_slice bytes)
{
    /* NULL has no address to count from, not even by 0. */
    const uint8_t *p = bytes.data != NULL ? bytes.data : (const uint8_t *)"";
    return (struct bb_mp_reader){p, p + bytes.len, 0};
}

/** bb_mp_reader_fail() - end all reading with @error, unless an earlier error did. */
static inline void bb_mp_reader_fail(struct bb_mp_reader *reader, int error)
{
    reader->error = reader->error != 0 ? reader->error : error;
    reader->p = reader->end;
}

/** bb_mp_peek_type() - the type of what comes next, BB_MP_NONE at the end, after an error and for bad bytes. */
static inline enum bb_mp_type bb_mp_peek_type(const struct bb_mp_reader *reader)
{
    struct bb_mp_head head = {0};
    (void)bb_mp_head_read(reader->p, (size_t)(reader->end - reader->p), &head);
    return head.type;
}

/** bb_mp_read_head() - step over the head of any value; type BB_MP_NONE on error. */
static inline struct bb_mp_head bb_mp_read_head(struct bb_mp_reader *reader)
{
    struct bb_mp_head head = {0};
    int r = bb_mp_head_read(reader->p, (size_t)(reader->end - reader->p), &head);
    if (BB_UNLIKELY(r < 0)) {
        bb_mp_reader_fail(reader, r);
        return (struct bb_mp_head){0};
    }
    reader->p += head.len;
    return head;
}

/* Step over the head of a value that must be of @type; returns its value, 0 on error. */
static inline uint64_t bb_mp_read_typed(struct bb_mp_reader *reader, enum bb_mp_type type)
{
    struct bb_mp_head head = bb_mp_read_head(reader);
    if (BB_UNLIKELY(head.type != type)) {
        bb_mp_reader_fail(reader, BB_EMALFORMED);
        return 0;
    }
    return head.value;
}

static inline struct bb_slice bb_mp_read_body(struct bb_mp_reader *reader, enum bb_mp_type type)
{
    size_t len = (size_t)bb_mp_read_typed(reader, type);
    struct bb_slice body = {reader->p, len};
    reader->p += len;
    return body;
}

/** bb_mp_read_str() - a str, empty on error. */
static inline struct bb_slice bb_mp_read_str(struct bb_mp_reader *reader)
{
    return bb_mp_read_body(reader, BB_MP_STR);
}

/** bb_mp_read_bin() - a bin, empty on error. */
static inline struct bb_slice bb_mp_read_bin(struct bb_mp_reader *reader)
{
    return bb_mp_read_body(reader, BB_MP_BIN);
}

/** bb_mp_read_array() - the number of elements of an array; they follow. */
static inline uint32_t bb_mp_read_array(struct bb_mp_reader *reader)
{
    return (uint32_t)bb_mp_read_typed(reader, BB_MP_ARRAY);
}

/** bb_mp_read_map() - the number of pairs of a map; keys and values follow in turn. */
static inline uint32_t bb_mp_read_map(struct bb_mp_reader *reader)
{
    return (uint32_t)bb_mp_read_typed(reader, BB_MP_MAP);
}

/** bb_mp_read_uint() - an integer >= 0 in any format. */
static inline uint64_t bb_mp_read_uint(struct bb_mp_reader *reader)
{
    return bb_mp_read_typed(reader, BB_MP_UINT);
}

static inline bool bb_mp_read_bool(struct bb_mp_reader *reader)
{
    return bb_mp_read_typed(reader, BB_MP_BOOL) != 0;
}

static inline void bb_mp_read_nil(struct bb_mp_reader *reader)
{
    (void)bb_mp_read_typed(reader, BB_MP_NIL);
}

/** bb_mp_read_int() - an integer that fits int64, in any format. */
int64_t bb_mp_read_int(struct bb_mp_reader *reader);

/** bb_mp_read_double() - a float of either width, or an integer that a double holds exactly (up to 2^53). */
double bb_mp_read_double(struct bb_mp_reader *reader);

/** bb_mp_read_ext() - an extension: its bytes, empty on error; @ret_type gets its type, 0 on error. */
struct bb_slice bb_mp_read_ext(struct bb_mp_reader *reader, int8_t *ret_type);

/**
 * bb_mp_skip() - step over one whole value, whatever it holds.
 *
 * Takes time linear in its bytes and no recursion. Nested deeper than BB_MP_MAX_DEPTH fails with BB_ETOODEEP.
 */
void bb_mp_skip(struct bb_mp_reader *reader);

/** bb_mp_read_raw() - bb_mp_skip(), and return the bytes of that value; empty on error. */
struct bb_slice bb_mp_read_raw(struct bb_mp_reader *reader);

/** bb_mp_is_equal() - whether two well-formed values are the same, in whatever width their integers, floats and lengths are written. An
 * integer is no float; maps have an order; NaN is equal to itself. False if one of them is not well-formed. */
bool bb_mp_is_equal(struct bb_slice a, struct bb_slice b);

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/wire/mp.h"

/* 2^53: up to this every integer is a double. */
#define EXACT_DOUBLE (UINT64_C(1) << 53)

/* The formats whose lead byte says nothing about the value, 0xc0 to 0xdf. */
static const struct format {
    uint8_t type;    /* enum bb_mp_type */
    uint8_t width;   /* bytes of the number that follows the lead byte */
    uint8_t fixed;   /* the number, where none follows */
    uint8_t is_wide; /* a signed integer, or a float32: needs widening to 64 bits */
} formats[32] = {
    [0xc0 - 0xc0] = {BB_MP_NIL, 0, 0, 0},    [0xc1 - 0xc0] = {BB_MP_NONE, 0, 0, 0},
    [0xc2 - 0xc0] = {BB_MP_BOOL, 0, 0, 0},   [0xc3 - 0xc0] = {BB_MP_BOOL, 0, 1, 0},
    [0xc4 - 0xc0] = {BB_MP_BIN, 1, 0, 0},    [0xc5 - 0xc0] = {BB_MP_BIN, 2, 0, 0},
    [0xc6 - 0xc0] = {BB_MP_BIN, 4, 0, 0},    [0xc7 - 0xc0] = {BB_MP_EXT, 1, 0, 0},
    [0xc8 - 0xc0] = {BB_MP_EXT, 2, 0, 0},    [0xc9 - 0xc0] = {BB_MP_EXT, 4, 0, 0},
    [0xca - 0xc0] = {BB_MP_DOUBLE, 4, 0, 1}, [0xcb - 0xc0] = {BB_MP_DOUBLE, 8, 0, 0},
    [0xcc - 0xc0] = {BB_MP_UINT, 1, 0, 0},   [0xcd - 0xc0] = {BB_MP_UINT, 2, 0, 0},
    [0xce - 0xc0] = {BB_MP_UINT, 4, 0, 0},   [0xcf - 0xc0] = {BB_MP_UINT, 8, 0, 0},
    [0xd0 - 0xc0] = {BB_MP_INT, 1, 0, 1},    [0xd1 - 0xc0] = {BB_MP_INT, 2, 0, 1},
    [0xd2 - 0xc0] = {BB_MP_INT, 4, 0, 1},    [0xd3 - 0xc0] = {BB_MP_INT, 8, 0, 1},
    [0xd4 - 0xc0] = {BB_MP_EXT, 0, 1, 0},    [0xd5 - 0xc0] = {BB_MP_EXT, 0, 2, 0},
    [0xd6 - 0xc0] = {BB_MP_EXT, 0, 4, 0},    [0xd7 - 0xc0] = {BB_MP_EXT, 0, 8, 0},
    [0xd8 - 0xc0] = {BB_MP_EXT, 0, 16, 0},   [0xd9 - 0xc0] = {BB_MP_STR, 1, 0, 0},
    [0xda - 0xc0] = {BB_MP_STR, 2, 0, 0},    [0xdb - 0xc0] = {BB_MP_STR, 4, 0, 0},
    [0xdc - 0xc0] = {BB_MP_ARRAY, 2, 0, 0},  [0xdd - 0xc0] = {BB_MP_ARRAY, 4, 0, 0},
    [0xde - 0xc0] = {BB_MP_MAP, 2, 0, 0},    [0xdf - 0xc0] = {BB_MP_MAP, 4, 0, 0},
};

/* Fewest bytes that each unit of a head's value stands for. */
static const uint8_t unit_bytes[] = {
    [BB_MP_STR] = 1, [BB_MP_BIN] = 1, [BB_MP_EXT] = 1, [BB_MP_ARRAY] = 1, [BB_MP_MAP] = 2,
};

static uint64_t number_read(const uint8_t *p, uint8_t width)
{
    uint64_t value = 0;
    for (uint8_t i = 0; i < width; i++) {
        value = value << 8 | p[i];
    }
    return value;
}

static void head_widen(struct bb_mp_head *head, uint8_t width)
{
    if (head->type == BB_MP_DOUBLE) {
        uint32_t bits = (uint32_t)head->value;
        float narrow;
        memcpy(&narrow, &bits, sizeof(narrow));
        double wide = (double)narrow;
        memcpy(&head->value, &wide, sizeof(wide));
        return;
    }
    uint64_t sign = UINT64_C(1) << ((8 * width - 1) & 63);
    if ((head->value & sign) == 0) {
        head->type = BB_MP_UINT;
        return;
    }
    head->value |= ~(sign - 1);
}

int bb_mp_head_read_long(const uint8_t *p, size_t avail, struct bb_mp_head *ret_head)
{
    const struct format *format = &formats[p[0] & 0x1f];
    struct bb_mp_head head = {.type = format->type, .value = format->fixed};
    head.len = (uint8_t)(1 + format->width + (head.type == BB_MP_EXT));
    if (head.type == BB_MP_NONE || avail < head.len) {
        return BB_EMALFORMED;
    }
    if (format->width == 1) {
        head.value = p[1];
    } else if (format->width > 0) {
        head.value = number_read(p + 1, format->width);
    }
    if (head.type == BB_MP_EXT) {
        head.ext_type = (int8_t)p[head.len - 1];
    }
    if (head.type >= BB_MP_STR) {
        if (head.value * unit_bytes[head.type] > avail - head.len) {
            return BB_EMALFORMED;
        }
    } else if (format->is_wide != 0) {
        head_widen(&head, format->width);
    }
    *ret_head = head;
    return 0;
}

uint8_t *bb_mp_put_ext_head(uint8_t *p, int8_t type, uint32_t len)
{
    switch (len) {
    case 1:
        p = bb_mp_put_byte(p, 0xd4);
        break;
    case 2:
        p = bb_mp_put_byte(p, 0xd5);
        break;
    case 4:
        p = bb_mp_put_byte(p, 0xd6);
        break;
    case 8:
        p = bb_mp_put_byte(p, 0xd7);
        break;
    case 16:
        p = bb_mp_put_byte(p, 0xd8);
        break;
    default:
        p = bb_mp_put_len(p, 0xc7, len);
        break;
    }
    return bb_mp_put_byte(p, (uint8_t)type);
}

/* Room for the head and @len bytes of a body; NULL with the buffer's error set. */
static uint8_t *body_reserve(struct bb_buf *buf, size_t len)
{
    if (len > UINT32_MAX) {
        buf->error = buf->error != 0 ? buf->error : BB_ETOOBIG;
        return NULL;
    }
    return bb_buf_reserve(buf, BB_MP_MAX_HEAD + len);
}

/* Copy the body behind its head, which ends at @p. */
static void body_write(struct bb_buf *buf, uint8_t *p, struct bb_slice body)
{
    if (body.len > 0) {
        memcpy(p, body.data, body.len);
    }
    buf->len = (size_t)(p - buf->data) + body.len;
}

void bb_mp_write_str(struct bb_buf *buf, struct bb_slice text)
{
    uint8_t *p = body_reserve(buf, text.len);
    if (p != NULL) {
        body_write(buf, bb_mp_put_str_head(p, (uint32_t)text.len), text);
    }
}

void bb_mp_write_bin(struct bb_buf *buf, struct bb_slice bytes)
{
    uint8_t *p = body_reserve(buf, bytes.len);
    if (p != NULL) {
        body_write(buf, bb_mp_put_bin_head(p, (uint32_t)bytes.len), bytes);
    }
}

void bb_mp_write_ext(struct bb_buf *buf, int8_t type, struct bb_slice bytes)
{
    uint8_t *p = body_reserve(buf, bytes.len);
    if (p != NULL) {
        body_write(buf, bb_mp_put_ext_head(p, type, (uint32_t)bytes.len), bytes);
    }
}

int64_t bb_mp_read_int(struct bb_mp_reader *reader)
{
    struct bb_mp_head head = bb_mp_read_head(reader);
    if (head.type == BB_MP_INT || (head.type == BB_MP_UINT && head.value <= INT64_MAX)) {
        return (int64_t)head.value;
    }
    bb_mp_reader_fail(reader, BB_EMALFORMED);
    return 0;
}

double bb_mp_read_double(struct bb_mp_reader *reader)
{
    struct bb_mp_head head = bb_mp_read_head(reader);
    if (head.type == BB_MP_DOUBLE) {
        double value;
        memcpy(&value, &head.value, sizeof(value));
        return value;
    }
    if (head.type == BB_MP_UINT && head.value <= EXACT_DOUBLE) {
        return (double)head.value;
    }
    if (head.type == BB_MP_INT && (int64_t)head.value >= -(int64_t)EXACT_DOUBLE) {
        return (double)(int64_t)head.value;
    }
    bb_mp_reader_fail(reader, BB_EMALFORMED);
    return 0;
}

struct bb_slice bb_mp_read_ext(struct bb_mp_reader *reader, int8_t *ret_type)
{
    struct bb_mp_head head = bb_mp_read_head(reader);
    *ret_type = 0;
    if (head.type != BB_MP_EXT) {
        bb_mp_reader_fail(reader, BB_EMALFORMED);
        return (struct bb_slice){0};
    }
    struct bb_slice body = {reader->p, (size_t)head.value};
    reader->p += body.len;
    *ret_type = head.ext_type;
    return body;
}

void bb_mp_skip(struct bb_mp_reader *reader)
{
    uint64_t left[BB_MP_MAX_DEPTH]; /* values still to come in each open container */
    size_t depth = 0;
    do {
        struct bb_mp_head head = bb_mp_read_head(reader);
        if (head.type == BB_MP_NONE) {
            return;
        }
        if (head.type >= BB_MP_ARRAY) {
            if (depth == BB_MP_MAX_DEPTH) {
                bb_mp_reader_fail(reader, BB_ETOODEEP);
                return;
            }
            left[depth++] = 1 + head.value * unit_bytes[head.type];
        } else if (head.type >= BB_MP_STR) {
            reader->p += head.value;
        }
        while (depth > 0 && --left[depth - 1] == 0) {
            depth--;
        }
    } while (depth > 0);
}

struct bb_slice bb_mp_read_raw(struct bb_mp_reader *reader)
{
    const uint8_t *start = reader->p;
    bb_mp_skip(reader);
    return reader->error != 0 ? (struct bb_slice){0} : (struct bb_slice){start, (size_t)(reader->p - start)};
}

/* Children follow their heads, so values that are equal are so head by head. */
bool bb_mp_is_equal(struct bb_slice a, struct bb_slice b)
{
    struct bb_mp_reader left = bb_mp_reader(a);
    struct bb_mp_reader right = bb_mp_reader(b);
    while (left.p < left.end && right.p < right.end) {
        struct bb_mp_head one = bb_mp_read_head(&left);
        struct bb_mp_head other = bb_mp_read_head(&right);
        bool has_body = one.type == BB_MP_STR || one.type == BB_MP_BIN || one.type == BB_MP_EXT;
        if (one.type == BB_MP_NONE || one.type != other.type || one.value != other.value ||
            one.ext_type != other.ext_type || (has_body && memcmp(left.p, right.p, one.value) != 0)) {
            return false;
        }
        left.p += has_body ? one.value : 0;
        right.p += has_body ? one.value : 0;
    }
    return left.error == 0 && right.error == 0 && left.p == left.end && right.p == right.end;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/base64.h"

#include "proto/base/error.h"

#define NOT_A_DIGIT 64u

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char digit_char(uint32_t bits)
{
    return alphabet[bits & 63];
}

static uint32_t digit_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return (uint32_t)(c - 'A');
    }
    if (c >= 'a' && c <= 'z') {
        return (uint32_t)(c - 'a') + 26;
    }
    if (c >= '0' && c <= '9') {
        return (uint32_t)(c - '0') + 52;
    }
    if (c == '+') {
        return 62;
    }
    return c == '/' ? 63 : NOT_A_DIGIT;
}

void bb_base64_encode(struct bb_buf *out, struct bb_slice bytes)
{
    if (bytes.len / 3 > (SIZE_MAX - 4) / 4) {
        out->error = out->error != 0 ? out->error : BB_ETOOBIG;
        return;
    }
    char *to = (char *)bb_buf_reserve(out, (bytes.len + 2) / 3 * 4);
    if (to == NULL) {
        return;
    }
    const uint8_t *from = bytes.data;
    size_t left = bytes.len;
    for (; left >= 3; left -= 3, from += 3) {
        uint32_t bits = (uint32_t)from[0] << 16 | (uint32_t)from[1] << 8 | from[2];
        *to++ = digit_char(bits >> 18);
        *to++ = digit_char(bits >> 12);
        *to++ = digit_char(bits >> 6);
        *to++ = digit_char(bits);
    }
    if (left > 0) {
        uint32_t bits = (uint32_t)from[0] << 16 | (left == 2 ? (uint32_t)from[1] << 8 : 0);
        *to++ = digit_char(bits >> 18);
        *to++ = digit_char(bits >> 12);
        *to++ = left == 2 ? digit_char(bits >> 6) : '=';
        *to++ = '=';
    }
    out->len = (size_t)((uint8_t *)to - out->data);
}

/* Four characters to @bytes_len bytes at @to; false when they are not the one spelling of such bytes. */
static bool group_decode(const uint8_t *text, size_t bytes_len, uint8_t *to)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < 4; i++) {
        uint32_t value = i <= bytes_len ? digit_value(text[i]) : 0;
        if (value == NOT_A_DIGIT) {
            return false;
        }
        bits = bits << 6 | value;
    }
    for (size_t i = 0; i < bytes_len; i++) {
        to[i] = (uint8_t)(bits >> (16 - 8 * i));
    }
    return bytes_len == 3 || (bits & (0xffffu >> (8 * (bytes_len - 1)))) == 0;
}

int bb_base64_decode(struct bb_buf *out, struct bb_slice text)
{
    if (text.len % 4 != 0) {
        return BB_EMALFORMED;
    }
    uint8_t *to = bb_buf_reserve(out, text.len / 4 * 3);
    if (to == NULL) {
        return out->error;
    }
    for (size_t i = 0; i < text.len; i += 4) {
        const uint8_t *group = text.data + i;
        size_t bytes_len = 3;
        if (i + 4 == text.len && group[3] == '=') {
            bytes_len = group[2] == '=' ? 1 : 2;
        }
        if (!group_decode(group, bytes_len, to)) {
            return BB_EMALFORMED;
        }
        to += bytes_len;
    }
    out->len = (size_t)(to - out->data);
    return 0;
}

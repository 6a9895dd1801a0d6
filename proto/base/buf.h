/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices (borrowed bytes) and a growable buffer with a sticky error: write in straight lines, test
 * `error` once at the end. Not thread-safe.
 */
#pragma once

#include "proto/base/cc.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Borrowed bytes; valid as long as what they point into. */
struct bb_slice {
    const uint8_t *data;
    size_t len;
};

static inline struct bb_slice bb_slice(const void *data, size_t len)
{
    return (struct bb_slice){data, len};
}

static inline struct bb_slice bb_slice_str(const char *text)
{
    return (struct bb_slice){(const uint8_t *)text, strlen(text)};
}

static inline bool bb_slice_equal(struct bb_slice a, struct bb_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

struct bb_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
    int error; /* sticky: 0 or a BB_E...; once set, writes do nothing */
};

#define BB_BUF_INIT ((struct bb_buf){0})

/** bb_buf_fini() - free the bytes; the buffer is empty and usable again. */
void bb_buf_fini(struct bb_buf *buf);

/** bb_buf_reset() - forget content and error, keep the memory. */
static inline void bb_buf_reset(struct bb_buf *buf)
{
    buf->len = 0;
    buf->error = 0;
}

/** bb_buf_reserve() - room for @extra more bytes; returns where to write them, NULL on a (sticky) error. */
uint8_t *bb_buf_reserve(struct bb_buf *buf, size_t extra);

/** bb_buf_append() - copy @len bytes to the end. */
static inline void bb_buf_append(struct bb_buf *buf, const void *data, size_t len)
{
    uint8_t *to = bb_buf_reserve(buf, len);
    if (to != NULL && len > 0) {
        memcpy(to, data, len);
        buf->len += len;
    }
}

static inline void bb_buf_append_byte(struct bb_buf *buf, uint8_t byte)
{
    bb_buf_append(buf, &byte, 1);
}

/** bb_buf_printf() - append formatted text, without a terminating zero. */
void bb_buf_printf(struct bb_buf *buf, const char *format, ...) BB_PRINTF(2, 3);

/** bb_buf_string() - the content as a zero-terminated string, "" after an error; owned by @buf. */
const char *bb_buf_string(struct bb_buf *buf);

/** bb_buf_slice() - the content, borrowed until the next write. */
static inline struct bb_slice bb_buf_slice(const struct bb_buf *buf)
{
    return (struct bb_slice){buf->data, buf->len};
}

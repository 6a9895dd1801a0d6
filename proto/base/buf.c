/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/buf.h"

#include "proto/base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void bb_buf_fini(struct bb_buf *buf)
{
    free(buf->data);
    *buf = BB_BUF_INIT;
}

uint8_t *bb_buf_reserve(struct bb_buf *buf, size_t extra)
{
    if (buf->error != 0) {
        return NULL;
    }
    if (BB_LIKELY(extra <= buf->cap - buf->len && buf->cap > 0)) {
        return buf->data + buf->len;
    }
    size_t need = buf->len + extra;
    size_t cap = buf->cap < 64 ? 64 : buf->cap + buf->cap / 2;
    if (need < extra) {
        buf->error = BB_ENOMEM;
        return NULL;
    }
    if (cap < need) {
        cap = need;
    }
    uint8_t *data = realloc(buf->data, cap);
    if (data == NULL) {
        buf->error = BB_ENOMEM;
        return NULL;
    }
    buf->data = data;
    buf->cap = cap;
    return data + buf->len;
}

void bb_buf_printf(struct bb_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0) {
        buf->error = BB_EINVAL;
        return;
    }
    uint8_t *to = bb_buf_reserve(buf, (size_t)len + 1);
    if (to == NULL) {
        return;
    }
    va_start(args, format);
    (void)vsnprintf((char *)to, (size_t)len + 1, format, args);
    va_end(args);
    buf->len += (size_t)len;
}

const char *bb_buf_string(struct bb_buf *buf)
{
    uint8_t *end = bb_buf_reserve(buf, 1);
    if (end == NULL) {
        return "";
    }
    *end = 0;
    return (const char *)buf->data;
}

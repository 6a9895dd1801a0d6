/* SPDX-License-Identifier: Apache-2.0 */
/* Compiler attributes and the few macros that every file may use. */
#pragma once

#include <stddef.h>

/* Exported from libbusbar; everything else has hidden visibility. */
#define BB_API __attribute__((visibility("default")))

#define BB_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define BB_MUST_CHECK        __attribute__((warn_unused_result))
#define BB_LIKELY(x)         __builtin_expect(!!(x), 1)
#define BB_UNLIKELY(x)       __builtin_expect(!!(x), 0)

#define BB_COUNT(a) (sizeof(a) / sizeof((a)[0]))
/* Arguments are evaluated twice. */
#define BB_MIN(a, b) ((a) < (b) ? (a) : (b))
#define BB_MAX(a, b) ((a) > (b) ? (a) : (b))

/* @ptr for an interface that wants it writable though it only reads. */
static inline void *bb_unconst(const void *ptr)
{
    union {
        const void *given;
        void *wanted;
    } both = {ptr};
    return both.wanted;
}

/* The struct that embeds @member at @ptr. */
#define BB_CONTAINER(ptr, type, member) ((type *)(void *)(((char *)(ptr)) - offsetof(type, member)))

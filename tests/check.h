/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks for test programs with a plain main(): those that Criterion cannot run, such as the programs for
 * the thread sanitizer. A failed check says where and aborts; it may be used from any thread.
 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))
#define CHECK_INT(a, b)  check_int(__FILE__, __LINE__, #a " == " #b, (long long)(a), (long long)(b))
#define CHECK_STR(a, b)  check_str(__FILE__, __LINE__, #a " == " #b, (a), (b))

_Noreturn static inline void check_failed(const char *file, int line, const char *text)
{
    (void)fprintf(stderr, "%s:%d: check failed: %s\n", file, line, text);
    abort();
}

static inline void check_int(const char *file, int line, const char *text, long long a, long long b)
{
    if (a != b) {
        (void)fprintf(stderr, "%lld, expected %lld\n", a, b);
        check_failed(file, line, text);
    }
}

static inline void check_str(const char *file, int line, const char *text, const char *a, const char *b)
{
    if (strcmp(a, b) != 0) {
        (void)fprintf(stderr, "\"%s\", expected \"%s\"\n", a, b);
        check_failed(file, line, text);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/base/error.h"

#include <string.h>

/* clang-format off */
static const struct {
    int number;
    const char *code;
    const char *text;
} errors[] = {
    {0, "ok", "ok"},
#define X(name, number, code, text) {number, code, text},
    BB_ERRORS(X)
#undef X
};
/* clang-format on */

/* Numbers are dense from 0 downwards, so the number is the index; a unit test holds the table to that. */
static size_t error_index(int error)
{
    return error <= 0 && (size_t)-error < BB_COUNT(errors) ? (size_t)-error : (size_t)-BB_EREFUSED;
}

const char *bb_strerror(int error)
{
    return errors[error_index(error)].text;
}

const char *bb_errcode(int error)
{
    return errors[error_index(error)].code;
}

int bb_error_from_code(const char *code, size_t len)
{
    for (size_t i = 0; i < BB_COUNT(errors); i++) {
        if (strlen(errors[i].code) == len && memcmp(errors[i].code, code, len) == 0) {
            return errors[i].number;
        }
    }
    return BB_EREFUSED;
}

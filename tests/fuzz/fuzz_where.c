/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: a condition, a newline, a payload. What parses must agree with itself: twice asked, in parentheses, turned
 * round, joined with itself. What does not must say where, within the text.
 */
#include "proto/base/error.h"
#include "proto/wire/scan.h"
#include "proto/wire/where.h"

#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int parse(const char *before,
                 struct bb_slice text,
                 const char *between,
                 const char *after,
                 struct bb_where **ret_where)
{
    struct bb_buf whole = BB_BUF_INIT;
    bb_buf_append(&whole, before, strlen(before));
    bb_buf_append(&whole, text.data, text.len);
    if (between != NULL) {
        bb_buf_append(&whole, between, strlen(between));
        bb_buf_append(&whole, text.data, text.len);
    }
    bb_buf_append(&whole, after, strlen(after));
    CHECK(whole.error == 0);
    int r = bb_where_parse(bb_buf_slice(&whole), ret_where, NULL);
    bb_buf_fini(&whole);
    return r;
}

static void
check_form(struct bb_slice text, struct bb_slice payload, const char *const form[3], bool expected)
{
    struct bb_where *where = NULL;
    int r = parse(form[0], text, form[1], form[2], &where);
    CHECK(r == 0 || r == BB_ETOODEEP || r == BB_ETOOBIG);
    CHECK(r < 0 || bb_where_holds(where, payload) == expected);
    bb_where_free(where);
}

static void check_refusal(struct bb_slice text, int error, struct bb_buf *err)
{
    static const char lead[] = "at column ";
    char *end = NULL;
    CHECK(error == BB_EINVAL || error == BB_ETOODEEP || error == BB_ETOOBIG);
    CHECK(strncmp(bb_buf_string(err), lead, strlen(lead)) == 0);
    unsigned long long column = strtoull(bb_buf_string(err) + strlen(lead), &end, 10);
    CHECK(strncmp(end, ": ", 2) == 0);
    CHECK(column >= 1 && column <= text.len + 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const same[] = {"(", NULL, ")"};
    static const char *const turned[] = {"!(", NULL, ")"};
    static const char *const twice[] = {"(", ")&&(", ")"};
    static const char *const either[] = {"(", ")||!(", ")"};
    const uint8_t *newline = size > 0 ? memchr(data, '\n', size) : NULL;
    size_t len = newline != NULL ? (size_t)(newline - data) : size;
    struct bb_slice text = bb_slice(data, len);
    struct bb_slice payload = newline != NULL ? bb_slice(newline + 1, size - len - 1) : bb_slice(NULL, 0);
    struct bb_where *where = NULL;
    struct bb_buf err = BB_BUF_INIT;
    int r = bb_where_parse(text, &where, &err);
    if (r < 0) {
        check_refusal(text, r, &err);
    } else {
        bool holds = bb_where_holds(where, payload); /* whatever the bytes are: read within them */
        CHECK(err.len == 0);
        if (bb_scan_whole(payload.data, payload.len, NULL) == 0) {
            check_form(text, payload, same, holds);
            check_form(text, payload, turned, !holds);
            check_form(text, payload, twice, holds);
            check_form(text, payload, either, true);
        }
    }
    bb_where_free(where);
    bb_buf_fini(&err);
    return 0;
}

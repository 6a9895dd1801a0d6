/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/operands.h"

#include "proto/base/time.h"
#include "proto/wire/path.h"

#include "tools/options.h"
#include "tools/print.h"

#include <stdlib.h>
#include <string.h>

const char **patterns_parse(char **operands, size_t *ret_n)
{
    size_t n = 0;
    while (operands[n] != NULL) {
        n++;
    }
    const size_t stride = BB_PATH_MAX + 1;
    const char **patterns = calloc(n + 1, sizeof(*patterns) + stride);
    if (patterns == NULL) {
        say("out of memory");
        return NULL;
    }
    char *text = (char *)(patterns + n);
    for (size_t i = 0; i < n; i++, text += stride) {
        if (bb_pattern_translate(bb_slice_str(operands[i]), text) != 0) {
            say("'%s' is no pattern: '?' stands for one segment, a last '*' for zero or more, both only as a whole "
                "segment; at most 200 bytes",
                operands[i]);
            free(patterns);
            return NULL;
        }
        patterns[i] = text;
    }
    *ret_n = n;
    return patterns;
}

bool when_parse(const char *text, int64_t *ret_us)
{
    static const char ago[] = " ago";
    size_t len = strlen(text);
    int64_t us;
    if (len >= sizeof(ago) && strcmp(text + len - (sizeof(ago) - 1), ago) == 0) {
        len -= sizeof(ago) - 1;
    }
    if (bb_duration_parse(bb_slice(text, len), &us) == 0) {
        int64_t now = bb_clock_wall_us();
        *ret_us = us < now ? now - us : 0;
        return true;
    }
    return bb_time_parse(bb_slice_str(text), ret_us) == 0;
}

bool event_id_parse(const char *text, struct bb_event_id *ret_id)
{
    uint64_t numbers[3];
    const char *at = text;
    for (size_t i = 0; i < 3; i++) {
        char digits[24];
        size_t len = strcspn(at, "/");
        if (len >= sizeof(digits) || (at[len] == '/') != (i < 2)) {
            return false;
        }
        memcpy(digits, at, len);
        digits[len] = '\0';
        if (!option_parse_count(digits, &numbers[i])) {
            return false;
        }
        at += len + 1;
    }
    *ret_id = (struct bb_event_id){numbers[0], numbers[1], numbers[2]};
    return true;
}

bool where_parse(const char *text, struct bb_where **ret_where)
{
    struct bb_buf err = BB_BUF_INIT;
    *ret_where = NULL;
    int r = text != NULL ? bb_where_parse(bb_slice_str(text), ret_where, &err) : 0;
    if (r != 0) {
        say("--where cannot be '%s': %s", text, err.len > 0 ? bb_buf_string(&err) : bb_strerror(r));
    }
    bb_buf_fini(&err);
    return r == 0;
}

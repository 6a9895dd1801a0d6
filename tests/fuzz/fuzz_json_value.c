/* SPDX-License-Identifier: Apache-2.0 */
/* Any text and any bytes: what converts passes the scanner, and from then on comes back byte for byte. */
#include "proto/base/utf8.h"
#include "proto/json/json_value.h"
#include "proto/wire/scan.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

/* @mp to text and back to the same @mp. */
static void require_round_trip(struct bb_slice mp)
{
    struct bb_buf text = BB_BUF_INIT;
    struct bb_buf back = BB_BUF_INIT;
    require(bb_mp_to_json(mp, &text) == 0);
    require(bb_utf8_is_valid(text.data, text.len));
    require(bb_json_value_to_mp((const char *)text.data, text.len, &back, NULL) == 0);
    require(bb_slice_equal(mp, bb_buf_slice(&back)));
    bb_buf_fini(&text);
    bb_buf_fini(&back);
}

static void try_text(const char *text, size_t len)
{
    struct bb_buf mp = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    int r = bb_json_value_to_mp(text, len, &mp, &err);
    if (r == 0) {
        require(err.len == 0);
        require(bb_scan_whole(mp.data, mp.len, NULL) == 0);
        require_round_trip(bb_buf_slice(&mp));
    } else {
        require(mp.len == 0 && err.len > 0);
        require(bb_utf8_is_valid(err.data, err.len));
    }
    bb_buf_fini(&mp);
    bb_buf_fini(&err);
}

/* Bytes in a longer form than needed change once, then no more. */
static void try_mp(struct bb_slice bytes)
{
    struct bb_buf text = BB_BUF_INIT;
    if (bb_mp_to_json(bytes, &text) == 0) {
        try_text((const char *)text.data, text.len);
    }
    bb_buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_text((const char *)data, size);
    try_mp(bb_slice(data, size));
    return 0;
}

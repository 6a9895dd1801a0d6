/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a query: refused with a sentence, or written, read and written again to the same bytes. */
#include "proto/base/error.h"
#include "proto/wire/query.h"

#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bb_buf err = BB_BUF_INIT;
    struct bb_buf first = BB_BUF_INIT;
    struct bb_buf second = BB_BUF_INIT;
    struct bb_query query;
    int r = bb_query_read(bb_slice(data, size), &query, &err);
    if (r < 0) {
        CHECK(r == BB_EINVAL || r == BB_EPATTERN);
        CHECK(err.len > 0);
    } else {
        CHECK(err.len == 0);
        CHECK(query.max_results > 0 && query.max_results <= BB_QUERY_RESULTS_MAX);
        bb_query_write(&first, &query);
        CHECK(first.error == 0);
        CHECK(bb_query_read(bb_buf_slice(&first), &query, NULL) == 0);
        bb_query_write(&second, &query);
        CHECK(bb_slice_equal(bb_buf_slice(&first), bb_buf_slice(&second)));
    }
    bb_buf_fini(&err);
    bb_buf_fini(&first);
    bb_buf_fini(&second);
    return 0;
}

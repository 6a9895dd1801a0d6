/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes: the scanner ends, agrees with the reader, and what passes can be read value by value. */
#include "proto/wire/scan.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t len = 0;
    size_t count = 0;
    int r = bb_scan_value(data, size, NULL, &len);
    struct bb_mp_reader reader = bb_mp_reader(bb_slice(data, size));
    struct bb_slice raw = bb_mp_read_raw(&reader);
    if (r == 0) {
        require(reader.error == 0 && raw.len == len && len <= size);
        require(bb_scan_whole(data, len, NULL) == 0);
    } else {
        require(r == BB_EUTF8 || r == BB_ETOOBIG || reader.error == r);
    }
    if (bb_scan_values(data, size, NULL, &count) == 0) {
        reader = bb_mp_reader(bb_slice(data, size));
        for (size_t i = 0; i < count; i++) {
            bb_mp_skip(&reader);
        }
        require(reader.error == 0 && reader.p == reader.end);
    }
    struct bb_scan_limits tight = {.max_depth = 2, .max_items = 8, .max_bytes = 32};
    if (bb_scan_value(data, size, &tight, &len) == 0) {
        require(r == 0 && len <= 32);
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes: what decodes as a message encodes to one that decodes to the same. */
#include "proto/base/error.h"
#include "proto/wire/message.h"

#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_inside(struct bb_slice part, struct bb_slice whole)
{
    CHECK(part.len == 0 || (part.data >= whole.data && part.data + part.len <= whole.data + whole.len));
}

static void check_field(const struct bb_field *field, const struct bb_msg *a, const struct bb_msg *b)
{
    uint64_t x = 0;
    uint64_t y = 0;
    struct bb_slice s = {0};
    struct bb_slice t = {0};
    if (field->kind == BB_FIELD_UINT) {
        memcpy(&x, (const char *)a + field->offset, sizeof(x));
        memcpy(&y, (const char *)b + field->offset, sizeof(y));
        CHECK(x == y);
        return;
    }
    memcpy(&s, (const char *)a + field->offset, sizeof(s));
    memcpy(&t, (const char *)b + field->offset, sizeof(t));
    bool is_nil = s.len == 0 && t.len == 1 && t.data[0] == 0xc0; /* left out before another field */
    CHECK(bb_slice_equal(s, t) || (field->kind == BB_FIELD_RAW && is_nil));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bb_slice bytes = bb_slice(data, size);
    struct bb_msg msg = {0};
    struct bb_msg again = {0};
    struct bb_buf out = BB_BUF_INIT;
    int r = bb_msg_decode(bytes, &msg);
    if (r < 0) {
        CHECK(r == BB_EMALFORMED || r == BB_ETOODEEP || r == BB_ETOOBIG || r == BB_EUTF8 || r == BB_EUNKNOWN);
        CHECK(r != BB_EUNKNOWN || msg.type == BB_MSG_NONE);
        return 0;
    }
    CHECK(bb_msg_is_head(bytes));
    check_inside(msg.body, bytes);
    CHECK(msg.body.data + msg.body.len == data + size);
    bb_msg_encode(&out, &msg);
    CHECK(out.error == 0);
    CHECK(bb_msg_decode(bb_buf_slice(&out), &again) == 0);
    CHECK(again.type == msg.type && again.body.len == 0);
    const struct bb_msg_row *row = bb_msg_row_find((uint64_t)msg.type);
    for (size_t i = 0; i < row->n_fields; i++) {
        check_field(&row->fields[i], &msg, &again);
    }
    bb_buf_fini(&out);
    return 0;
}

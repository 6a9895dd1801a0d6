/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes become payloads. */
#include "tools/body.h"

#include "proto/base/utf8.h"
#include "proto/json/json_value.h"

#define READ_BYTES 65536u
#define BODY_MAX   (16u << 20)

static int json_parse(struct bb_slice bytes, struct bb_buf *memory, struct bb_buf *err, struct body *ret_body)
{
    int r = bb_json_value_to_mp((const char *)bytes.data, bytes.len, memory, err);
    if (r == 0) {
        *ret_body = (struct body){BB_PAYLOAD_MSGPACK, bb_buf_slice(memory)};
    }
    return r;
}

int body_parse(enum body_form form,
               struct bb_slice bytes,
               struct bb_buf *memory,
               struct bb_buf *err,
               struct body *ret_body)
{
    bb_buf_reset(memory);
    bb_buf_reset(err);
    if (form == BODY_JSON || form == BODY_GUESS) {
        int r = json_parse(bytes, memory, err, ret_body);
        if (form == BODY_JSON || (r != BB_EMALFORMED && r != BB_EUTF8)) {
            return r;
        }
    }
    bool text = form != BODY_BINARY && bb_utf8_is_valid(bytes.data, bytes.len);
    if (form == BODY_TEXT && !text) {
        return BB_EUTF8;
    }
    *ret_body = (struct body){text ? BB_PAYLOAD_TEXT : BB_PAYLOAD_BINARY, bytes};
    return 0;
}

int body_read(FILE *from, struct bb_buf *out)
{
    for (;;) {
        uint8_t *to = bb_buf_reserve(out, READ_BYTES);
        if (to == NULL) {
            return out->error;
        }
        size_t n = fread(to, 1, READ_BYTES, from);
        out->len += n;
        if (out->len > BODY_MAX) {
            return BB_ETOOBIG;
        }
        if (n < READ_BYTES) {
            return ferror(from) ? BB_ESYSTEM : 0;
        }
    }
}

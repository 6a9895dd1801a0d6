/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/ingest.h"

#include "proto/base/error.h"
#include "proto/base/utf8.h"
#include "proto/json/json_value.h"
#include "proto/json/message_json.h"
#include "proto/wire/mp.h"
#include "proto/wire/path.h"

#include "broker/plug/input.h"

static int convert_json(struct bb_slice text, struct bb_buf *out)
{
    struct bb_message_head head;
    int r = bb_message_json_read(text, out, &head, NULL);
    return r == 0 && head.type != BB_MSG_NONE ? BB_EMALFORMED : r; /* events are all that a window takes */
}

/* PROTOCOL 11: the JSON value if it is valid JSON, else the text if it is UTF-8, else binary. */
static int convert_pair(struct bb_slice path, struct bb_slice body, struct bb_buf *out)
{
    if (bb_path_check(path) < 0) {
        return BB_EPATH;
    }
    bb_mp_write_array(out, 2);
    bb_mp_write_str(out, path);
    if (bb_json_value_to_mp((const char *)body.data, body.len, out, NULL) == 0) {
        return out->error;
    }
    if (bb_utf8_is_valid(body.data, body.len)) {
        bb_mp_write_str(out, body);
    } else {
        bb_mp_write_bin(out, body);
    }
    return out->error;
}

/* What was converted, if it could be. */
static int ingest(struct bk_core *core, int error, struct bb_buf *converted)
{
    struct bk_bytes *input = error < 0 ? NULL : bk_input_own(bk_core_meter(core), converted);
    bb_buf_fini(converted);
    if (input == NULL) {
        return error < 0 ? error : BB_ENOMEM;
    }
    int r = bk_core_ingest(core, bk_input_slice(input), input);
    bk_bytes_unref(input);
    return r;
}

int bk_ingest_frame(struct bk_core *core, struct bb_slice bytes, struct bk_bytes *owner)
{
    if (bb_message_is_json(bytes)) {
        struct bb_buf converted = BB_BUF_INIT;
        int r = convert_json(bytes, &converted);
        return ingest(core, r, &converted);
    }
    return bk_core_ingest(core, bytes, owner);
}

int bk_ingest_pair(struct bk_core *core, struct bb_slice path, struct bb_slice payload)
{
    struct bb_buf converted = BB_BUF_INIT;
    int r = convert_pair(path, payload, &converted);
    return ingest(core, r, &converted);
}

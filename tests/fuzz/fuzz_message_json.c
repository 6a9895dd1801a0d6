/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as JSON of a client: what is read is a message and its events are good. Any bytes as a message of a
 * broker: what is written is JSON, and read and written once more it is the same.
 */
#include "proto/base/error.h"
#include "proto/json/json_text.h"
#include "proto/json/message_json.h"
#include "proto/wire/message.h"

#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_events(struct bb_slice rest)
{
    struct bb_event_view event;
    while (rest.len > 0) {
        CHECK(bb_event_read(&rest, &event) == 0); /* it may be one that is refused alone */
    }
}

static void check_read(struct bb_slice text)
{
    struct bb_buf out = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_msg msg = {0};
    struct bb_message_head head;
    int r = bb_message_json_read(text, &out, &head, &err);
    if (r < 0) {
        CHECK(out.len == 0 && r != BB_ENOMEM);
    } else if (bb_msg_is_head(bb_buf_slice(&out))) {
        CHECK(bb_msg_decode(bb_buf_slice(&out), &msg) == 0);
        CHECK(head.type == msg.type && head.corr == (msg.type == BB_MSG_PUBLISH ? msg.number : msg.corr));
        check_events(msg.body);
    } else {
        check_events(bb_buf_slice(&out));
    }
    bb_buf_fini(&out);
    bb_buf_fini(&err);
}

static void check_again(const struct bb_buf *text)
{
    struct bb_buf bytes = BB_BUF_INIT;
    struct bb_buf again = BB_BUF_INIT;
    struct bb_message_head head;
    CHECK(bb_message_json_read(bb_buf_slice(text), &bytes, &head, NULL) == 0);
    CHECK(bb_message_json_write(bb_buf_slice(&bytes), 1, BB_SHAPE_EVENT, &again) == 0);
    CHECK(bb_slice_equal(bb_buf_slice(text), bb_buf_slice(&again)));
    bb_buf_fini(&bytes);
    bb_buf_fini(&again);
}

static void check_written(struct bb_slice bytes, enum bb_event_shape shape)
{
    struct bb_buf text = BB_BUF_INIT;
    struct bb_msg msg = {0};
    json_t *value = NULL;
    int r = bb_message_json_write(bytes, 1, shape, &text);
    if (r < 0) {
        CHECK(text.len == 0 && r != BB_ENOMEM);
    } else {
        CHECK(bb_json_parse((const char *)text.data, text.len, NULL, &value) == 0);
        json_decref(value);
        CHECK(bb_msg_decode(bytes, &msg) == 0);
        if (msg.type != BB_MSG_DELIVER && msg.type != BB_MSG_EVENTS) { /* which nobody sends to a broker */
            check_again(&text);
        }
    }
    bb_buf_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bb_slice bytes = bb_slice(data, size);
    if (bb_message_is_json(bytes)) {
        check_read(bytes);
    } else {
        check_written(bytes, BB_SHAPE_EVENT);
        check_written(bytes, BB_SHAPE_NEXUS);
    }
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a batch and as blocks: reading ends, stays inside, and a good event is written as it was read. */
#include "proto/base/error.h"
#include "proto/wire/event.h"
#include "proto/wire/path.h"
#include "proto/wire/scan.h"

#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_equal(const struct bb_attributes *a, const struct bb_attributes *b)
{
    CHECK(bb_slice_equal(a->id, b->id));
    CHECK(bb_slice_equal(a->headers, b->headers));
    CHECK(bb_slice_equal(a->payload_type, b->payload_type));
    CHECK(a->source_time == b->source_time && a->priority == b->priority);
    CHECK(a->has_source_time == b->has_source_time);
}

/* What passed can be read, and written again. */
static void check_good(const struct bb_event_view *event)
{
    struct bb_attributes attributes;
    struct bb_attributes attributes_again;
    struct bb_event_view again;
    struct bb_buf out = BB_BUF_INIT;
    CHECK(bb_path_check(event->path) == 0);
    CHECK(bb_scan_whole(event->payload.data, event->payload.len, NULL) == 0);
    CHECK(bb_event_attributes(event->attributes, &attributes) == 0);
    bb_event_write(&out, event->path, event->payload, &attributes);
    CHECK(out.error == 0);
    struct bb_slice rest = bb_buf_slice(&out);
    CHECK(bb_event_read(&rest, &again) == 0);
    CHECK(again.error == 0 && rest.len == 0);
    CHECK(bb_slice_equal(again.path, event->path) && bb_slice_equal(again.payload, event->payload));
    CHECK(bb_event_attributes(again.attributes, &attributes_again) == 0);
    check_equal(&attributes, &attributes_again);
    bb_buf_fini(&out);
}

/* @event was taken off the front of @before, @rest is what remains. */
static void check_event(const struct bb_event_view *event, struct bb_slice before, struct bb_slice rest)
{
    CHECK(event->raw.data == before.data && event->raw.len >= 3);
    CHECK(rest.data == event->raw.data + event->raw.len && rest.data + rest.len == before.data + before.len);
    CHECK(event->payload.data + event->payload.len + event->attributes.len == rest.data);
    if (event->error == 0) {
        check_good(event);
    } else {
        int error = event->error;
        CHECK(error == BB_EPATH || error == BB_EEVENT || error == BB_EUTF8 || error == BB_ETOOBIG);
    }
}

static void check_batch(struct bb_slice rest)
{
    struct bb_slice before = rest;
    struct bb_event_view event;
    int r = 0;
    while (rest.len > 0 && (r = bb_event_read(&rest, &event)) == 0) {
        check_event(&event, before, rest);
        before = rest;
    }
    CHECK(r == 0 || r == BB_EMALFORMED || r == BB_ETOODEEP);
    CHECK(rest.data == before.data && rest.len == before.len);
}

static void check_blocks(struct bb_slice rest)
{
    struct bb_block block;
    struct bb_block again;
    uint8_t head[BB_BLOCK_HEAD_MAX];
    while (bb_block_read(&rest, &block) == 0) {
        CHECK(block.length <= rest.len);
        struct bb_slice written = bb_slice(head, bb_block_write(head, &block));
        CHECK(written.len <= sizeof(head));
        block.length = 0; /* the events do not follow this head */
        written.len = bb_block_write(head, &block);
        CHECK(bb_block_read(&written, &again) == 0 && memcmp(&block, &again, sizeof(block)) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check_batch(bb_slice(data, size));
    check_blocks(bb_slice(data, size));
    return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/story.h"

#include "proto/json/json_value.h"
#include "proto/json/message_json.h"
#include "proto/wire/event.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

void story_tell(struct world *world, const char *format, ...)
{
    if (!world->tells) {
        return;
    }
    va_list args;
    (void)printf("%9" PRIu64 "  ", world->now);
    va_start(args, format);
    (void)vprintf(format, args);
    va_end(args);
    (void)printf("\n");
}

/* Events: path and payload's beginning. */
static void tell_events(struct bb_slice rest, uint64_t count, struct bb_buf *out)
{
    struct bb_event_view view;
    for (uint64_t i = 0; i < count && rest.len > 0 && bb_event_read(&rest, &view) == 0; i++) {
        struct bb_mp_reader reader = bb_mp_reader(view.payload);
        (void)bb_mp_read_array(&reader);
        uint64_t writer = bb_mp_read_uint(&reader);
        bb_buf_printf(out, " %.*s(%" PRIu64 ".%" PRIu64 ")", (int)view.path.len, (const char *)view.path.data,
                      writer, bb_mp_read_uint(&reader));
        if (view.attributes.len > 0) {
            (void)bb_mp_to_json(view.attributes, out);
        }
    }
}

static void tell_blocks(struct bb_slice rest, struct bb_buf *out)
{
    struct bb_block block;
    while (rest.len > 0 && bb_block_read(&rest, &block) == 0) {
        bb_buf_printf(out, " [%" PRIu64 "..%" PRIu64 "]", block.sequence, block.sequence + block.count - 1);
        tell_events(rest, block.count, out);
        rest = bb_slice(rest.data + block.length, rest.len - (size_t)block.length);
    }
}

void story_message(struct world *world, const struct sim_link *link, struct bb_slice bytes, bool is_in)
{
    struct bb_msg msg = {0};
    struct bb_buf out = BB_BUF_INIT;
    if (!world->tells) {
        return;
    }
    if (!bb_msg_is_head(bytes)) {
        tell_events(bytes, UINT64_MAX, &out);
    } else if (bb_msg_decode(bytes, &msg) < 0) {
        bb_buf_printf(&out, " something malformed");
    } else {
        struct bb_msg head = msg;
        struct bb_buf coded = BB_BUF_INIT;
        head.body = (struct bb_slice){0};
        bb_msg_encode(&coded, &head);
        bb_buf_append_byte(&out, ' ');
        if (msg.type == BB_MSG_PING || msg.type == BB_MSG_PONG ||
            bb_message_json_write(bb_buf_slice(&coded), 1, BB_SHAPE_EVENT, &out) < 0) {
            bb_buf_printf(&out, "%s", bb_msg_row_find((uint64_t)msg.type)->name);
        }
        bb_buf_fini(&coded);
        if (msg.type == BB_MSG_PUBLISH) {
            tell_events(msg.body, UINT64_MAX, &out);
        } else {
            tell_blocks(msg.body, &out);
        }
    }
    story_tell(world, "peer %" PRIu64 "/%" PRIu64 " %s%s", link->peer->index, link->number,
               is_in ? "->" : "<-", bb_buf_string(&out));
    bb_buf_fini(&out);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/edge.h"

#include "proto/base/error.h"
#include "proto/json/message_json.h"
#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "broker/plug/input.h"

#include <stdlib.h>

/* Subscriptions of one client that ask for another shape of events. */
#define SHAPED_MAX 1024

void bk_edge_fini(struct bk_edge *edge)
{
    free(edge->nexus_subs);
    *edge = (struct bk_edge){0};
}

void bk_edge_scratch_fini(struct bk_edge_scratch *scratch)
{
    bb_buf_fini(&scratch->joined);
    bb_buf_fini(&scratch->text);
}

static enum bb_event_shape shape_of(const struct bk_edge *edge, uint64_t sub)
{
    for (size_t i = 0; i < edge->n_nexus_subs; i++) {
        if (edge->nexus_subs[i] == sub) {
            return BB_SHAPE_NEXUS;
        }
    }
    return BB_SHAPE_EVENT;
}

static bool asks_for_nexus(const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->options);
    uint32_t n = bb_mp_peek_type(&reader) == BB_MP_MAP ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        bool is_shape = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("shape"));
        struct bb_slice value = bb_mp_read_raw(&reader);
        struct bb_mp_reader inner = bb_mp_reader(value);
        if (is_shape && bb_slice_equal(bb_mp_read_str(&inner), bb_slice_str("nexus"))) {
            return true;
        }
    }
    return false;
}

/* The shape is a matter of this edge: note it on the way in. */
static int note_shape(struct bk_edge *edge, struct bb_slice message)
{
    struct bb_msg msg;
    if (!bb_msg_is_head(message) || bb_msg_decode(message, &msg) < 0 || msg.type != BB_MSG_SUBSCRIBE) {
        return 0;
    }
    for (size_t i = 0; i < edge->n_nexus_subs; i++) {
        if (edge->nexus_subs[i] == msg.sub) {
            edge->nexus_subs[i] = edge->nexus_subs[--edge->n_nexus_subs];
            break;
        }
    }
    if (!asks_for_nexus(&msg)) {
        return 0;
    }
    if (edge->n_nexus_subs >= SHAPED_MAX) {
        return BB_ELIMIT;
    }
    uint64_t *subs = realloc(edge->nexus_subs, (edge->n_nexus_subs + 1) * sizeof(uint64_t));
    if (subs == NULL) {
        return BB_ENOMEM;
    }
    edge->nexus_subs = subs;
    edge->nexus_subs[edge->n_nexus_subs++] = msg.sub;
    return 0;
}

static void
refuse(const struct bk_plug_context *context, struct bk_client *client, int error, struct bb_buf *err)
{
    struct bk_bad_message bad = {
        .error = error,
        .text = err != NULL && err->len > 0 ? bb_buf_string(err) : NULL,
        .is_strike = error != BB_ENOMEM,
    };
    bk_core_bad_message(context->core, client, &bad);
}

static void take_json(const struct bk_plug_context *context,
                      struct bk_edge *edge,
                      struct bk_client *client,
                      struct bb_slice text)
{
    struct bb_buf converted = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bk_bytes *input = NULL;
    int r = BB_ETOOBIG;
    if (text.len <= context->max_message) {
        (void)bb_buf_reserve(&converted, text.len); /* mostly enough; an error sticks */
        r = bb_message_json_read(text, &converted, &err);
    }
    if (r == 0) {
        r = note_shape(edge, bb_buf_slice(&converted));
    }
    if (r == 0) {
        input = bk_input_own(bk_core_meter(context->core), &converted);
        r = input == NULL ? BB_ENOMEM : 0;
    }
    if (r == 0) {
        bk_core_message(context->core, client, bk_input_slice(input), input);
    } else {
        refuse(context, client, r, &err);
    }
    bk_bytes_unref(input);
    bb_buf_fini(&converted);
    bb_buf_fini(&err);
}

void bk_edge_take(const struct bk_plug_context *context,
                  struct bk_edge *edge,
                  struct bk_client *client,
                  struct bb_slice bytes,
                  struct bk_bytes *owner)
{
    edge->json = bb_message_is_json(bytes);
    if (edge->json) {
        take_json(context, edge, client, bytes);
    } else {
        bk_core_message(context->core, client, bytes, owner);
    }
}

void bk_edge_take_joined(const struct bk_plug_context *context,
                         struct bk_edge *edge,
                         struct bk_client *client,
                         struct bb_buf *joined)
{
    struct bk_bytes *input = bk_input_own(bk_core_meter(context->core), joined);
    if (input == NULL) {
        refuse(context, client, BB_ENOMEM, NULL);
        return;
    }
    bk_edge_take(context, edge, client, bk_input_slice(input), input);
    bk_bytes_unref(input);
}

int bk_edge_to_json(const struct bk_plug_context *context,
                    const struct bk_edge *edge,
                    struct bk_edge_scratch *scratch,
                    const struct bk_part *parts,
                    size_t n_parts,
                    struct bb_slice *ret_text)
{
    struct bb_msg msg;
    bb_buf_reset(&scratch->joined);
    bb_buf_reset(&scratch->text);
    for (size_t i = 0; i < n_parts; i++) {
        bb_buf_append(&scratch->joined, parts[i].data, parts[i].len);
    }
    struct bb_slice message = bb_buf_slice(&scratch->joined);
    int r = scratch->joined.error != 0 ? BB_ENOMEM : bb_msg_decode(message, &msg);
    if (r == 0) {
        enum bb_event_shape shape = msg.type == BB_MSG_DELIVER ? shape_of(edge, msg.sub) : BB_SHAPE_EVENT;
        r = bb_message_json_write(message, context->server, shape, &scratch->text);
    }
    if (r < 0) {
        return BB_ENOMEM; /* the broker's own messages are well-formed */
    }
    *ret_text = bb_buf_slice(&scratch->text);
    return 0;
}

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

/* PROTOCOL 9: bytes that cannot be followed. A message that can be, but says what is not acceptable, is none. */
static bool is_strike(int error)
{
    return error == BB_EMALFORMED || error == BB_ETOOBIG || error == BB_ETOODEEP || error == BB_EUTF8 ||
           error == BB_EUNKNOWN;
}

static void refuse(const struct bk_plug_context *context,
                   struct bk_client *client,
                   struct bb_message_head head,
                   int error,
                   struct bb_buf *err)
{
    struct bk_bad_message bad = {
        .about = head.type,
        .corr = head.corr,
        .error = error,
        .text = err->len > 0 ? bb_buf_string(err) : NULL,
        .is_strike = is_strike(error),
    };
    bk_core_bad_message(context->core, client, &bad);
}

static int convert(const struct bk_plug_context *context,
                   struct bk_edge *edge,
                   struct bb_slice text,
                   struct bb_buf *converted,
                   struct bb_message_head *ret_head,
                   struct bb_buf *err)
{
    if (text.len > context->max_message) {
        return BB_ETOOBIG;
    }
    (void)bb_buf_reserve(converted, text.len); /* mostly enough; an error sticks */
    int r = bb_message_json_read(text, converted, ret_head, err);
    if (r == 0 && converted->len > context->max_message) {
        r = BB_ETOOBIG; /* a short number may take nine bytes */
    }
    return r < 0 ? r : note_shape(edge, bb_buf_slice(converted));
}

/* PROTOCOL 2: the broker answers in the form of the client's hello. */
static void note_form(struct bk_edge *edge, bool is_json, bool is_hello)
{
    if (is_hello || !edge->has_said_hello) {
        edge->json = is_json;
    }
    edge->has_said_hello = edge->has_said_hello || is_hello;
}

static bool is_hello(struct bb_slice message)
{
    struct bb_mp_reader reader = bb_mp_reader(message);
    return bb_mp_read_array(&reader) > 0 && bb_mp_peek_type(&reader) == BB_MP_UINT &&
           bb_mp_read_uint(&reader) == BB_MSG_HELLO && reader.error == 0;
}

static void take_json(const struct bk_plug_context *context,
                      struct bk_edge *edge,
                      struct bk_client *client,
                      struct bb_slice text)
{
    struct bb_buf converted = BB_BUF_INIT;
    struct bb_buf err = BB_BUF_INIT;
    struct bb_message_head head = {0};
    struct bk_bytes *input = NULL;
    int r = convert(context, edge, text, &converted, &head, &err);
    note_form(edge, true, head.type == BB_MSG_HELLO);
    if (r == 0 && converted.len > 0) { /* an array of no bare events is nothing to do */
        input = bk_input_own(bk_core_meter(context->core), &converted);
        r = input == NULL ? BB_ENOMEM : 0;
    }
    if (r < 0) {
        refuse(context, client, head, r, &err);
    } else if (input != NULL) {
        bk_core_message(context->core, client, bk_input_slice(input), input);
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
    if (bb_message_is_json(bytes)) {
        take_json(context, edge, client, bytes);
    } else {
        note_form(edge, false, is_hello(bytes));
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
        bk_core_bad_message(context->core, client, &(struct bk_bad_message){.error = BB_ENOMEM});
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

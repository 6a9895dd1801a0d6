/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sabotage.h"

#include "proto/wire/message.h"
#include "proto/wire/mp.h"

#include "tests/sim/world.h"

static const char *const texts[] = {
#define SABOTAGE(name, text) text,
#include "tests/sim/sabotage.def"
#undef SABOTAGE
};

const char *sabotage_text(enum sabotage_kind kind)
{
    return texts[kind];
}

int sabotage_lie(enum sabotage_kind kind)
{
    return kind < SABOTAGE_lie_flushed ? LIE_NONE : LIE_FLUSHED + (int)(kind - SABOTAGE_lie_flushed);
}

/* The first gap of the message is changed. */
static void change_gap(struct sabotage *sabotage, struct bb_msg *msg, struct bb_buf *gaps)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->gaps);
    uint32_t n = bb_mp_read_array(&reader);
    bb_mp_write_array(gaps, n);
    uint32_t fields = bb_mp_read_array(&reader);
    bb_mp_write_array(gaps, fields);
    bb_mp_write_str(gaps, bb_mp_read_str(&reader));
    bb_mp_write_uint(gaps, bb_mp_read_uint(&reader));
    for (int i = 0; i < 2; i++) { /* to, count */
        bool is_it = sabotage->kind == (i == 0 ? SABOTAGE_long_gap : SABOTAGE_wrong_count);
        if (bb_mp_peek_type(&reader) == BB_MP_UINT) {
            bb_mp_write_uint(gaps, bb_mp_read_uint(&reader) + is_it);
        } else {
            bb_mp_skip(&reader);
            bb_mp_write_nil(gaps);
        }
    }
    struct bb_slice reason = bb_mp_read_str(&reader);
    bool is_expired = bb_slice_equal(reason, bb_slice_str("expired"));
    bb_mp_write_str(gaps, sabotage->kind == SABOTAGE_wrong_reason
                              ? bb_slice_str(is_expired ? "conflated" : "expired")
                              : reason);
    bb_buf_append(gaps, reader.p, (size_t)(reader.end - reader.p));
    msg->gaps = bb_buf_slice(gaps);
}

static void change_positions(struct bb_msg *msg, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    bb_mp_write_array(out, bb_mp_read_array(&reader));
    bb_mp_write_array(out, bb_mp_read_array(&reader));
    bb_mp_write_str(out, bb_mp_read_str(&reader));
    bb_mp_write_uint(out, bb_mp_read_uint(&reader) + 1);
    bb_buf_append(out, reader.p, (size_t)(reader.end - reader.p));
    msg->positions = bb_buf_slice(out);
}

static void change_level(struct bb_msg *msg, struct bb_buf *out)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->entries);
    bb_mp_write_array(out, bb_mp_read_array(&reader));
    bb_mp_write_array(out, bb_mp_read_array(&reader));
    bb_mp_write_uint(out, bb_mp_read_uint(&reader));
    (void)bb_mp_read_uint(&reader);
    bb_mp_write_uint(out, BB_LEVEL_SYNCED);
    bb_buf_append(out, reader.p, (size_t)(reader.end - reader.p));
    msg->entries = bb_buf_slice(out);
}

static bool has_gaps(const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->gaps);
    return msg->gaps.len > 0 && bb_mp_peek_type(&reader) == BB_MP_ARRAY && bb_mp_read_array(&reader) > 0;
}

/* The first gap has a count, and more than one reason would do for nobody. */
static bool has_counted_gap(const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->gaps);
    if (!has_gaps(msg)) {
        return false;
    }
    (void)bb_mp_read_array(&reader);
    (void)bb_mp_read_array(&reader);
    (void)bb_mp_read_str(&reader);
    (void)bb_mp_read_uint(&reader);
    bb_mp_skip(&reader);
    return bb_mp_peek_type(&reader) == BB_MP_UINT;
}

static bool has_positions(const struct bb_msg *msg)
{
    struct bb_mp_reader reader = bb_mp_reader(msg->positions);
    return msg->type == BB_MSG_SUBSCRIBED && bb_mp_read_array(&reader) > 0;
}

/* Whether this is an occasion. */
static bool suits(const struct sabotage *sabotage, const struct bb_msg *msg)
{
    bool is_flow = msg->type == BB_MSG_DELIVER && msg->retained == 0 && msg->body.len > 0;
    struct bb_mp_reader reader = bb_mp_reader(msg->entries);
    switch ((int)sabotage->kind) {
    case SABOTAGE_drop_deliver:
    case SABOTAGE_repeat_deliver:
    case SABOTAGE_swap_delivers:
    case SABOTAGE_flip_byte:
    case SABOTAGE_early_end:
        return is_flow;
    case SABOTAGE_drop_gap:
        return msg->type == BB_MSG_GAP;
    case SABOTAGE_wrong_reason:
    case SABOTAGE_wrong_count:
    case SABOTAGE_long_gap:
        return (msg->type == BB_MSG_GAP || msg->type == BB_MSG_DELIVER) && has_counted_gap(msg);
    case SABOTAGE_drop_ack:
        return msg->type == BB_MSG_ACK;
    case SABOTAGE_wrong_level:
        if (msg->type != BB_MSG_ACK || bb_mp_read_array(&reader) == 0) {
            return false;
        }
        (void)bb_mp_read_array(&reader);
        (void)bb_mp_read_uint(&reader);
        return bb_mp_read_uint(&reader) == BB_LEVEL_ROUTED;
    case SABOTAGE_wrong_position:
        return has_positions(msg);
    case SABOTAGE_drop_end:
        return msg->type == BB_MSG_ENDED;
    case SABOTAGE_drop_retained:
        return msg->type == BB_MSG_DELIVER && msg->retained != 0 && msg->body.len > 0;
    case SABOTAGE_drop_answer:
        return msg->type == BB_MSG_RESULT || msg->type == BB_MSG_EVENTS;
    default:
        return false;
    }
}

static int change(struct sabotage *sabotage, struct bb_msg *msg, struct bb_slice *bytes)
{
    struct bb_buf part = BB_BUF_INIT;
    struct bb_slice body = msg->body;
    bb_buf_reset(&sabotage->changed);
    if (sabotage->kind == SABOTAGE_flip_byte) {
        bb_buf_append(&sabotage->changed, bytes->data, bytes->len);
        sabotage->changed.data[bytes->len - 1] ^= 1;
        *bytes = bb_buf_slice(&sabotage->changed);
        return 1;
    }
    if (sabotage->kind == SABOTAGE_early_end) {
        *msg = (struct bb_msg){.type = BB_MSG_ENDED, .sub = msg->sub, .code = bb_slice_str("done")};
        body = (struct bb_slice){0};
    } else if (sabotage->kind == SABOTAGE_wrong_position) {
        change_positions(msg, &part);
    } else if (sabotage->kind == SABOTAGE_wrong_level) {
        change_level(msg, &part);
    } else {
        change_gap(sabotage, msg, &part);
    }
    bb_msg_encode(&sabotage->changed, msg);
    bb_buf_append(&sabotage->changed, body.data, body.len);
    bb_buf_fini(&part);
    *bytes = bb_buf_slice(&sabotage->changed);
    return 1;
}

/* The first one waits for the second one of its link. */
static int swap(struct world *world, struct sim_link *link, struct bb_slice bytes)
{
    struct sabotage *sabotage = &world->sabotage;
    if (sabotage->held_link == NULL) {
        bb_buf_append(&sabotage->held, bytes.data, bytes.len);
        sabotage->held_link = link;
        return 0;
    }
    if (sabotage->held_link != link) {
        return 1;
    }
    sabotage->is_done = true;
    judge_output(world, link, bytes);
    judge_output(world, link, bb_buf_slice(&sabotage->held));
    return 0;
}

int sabotage_output(struct world *world, struct sim_link *link, struct bb_slice *bytes)
{
    struct sabotage *sabotage = &world->sabotage;
    struct bb_msg msg = {0};
    if (sabotage->kind == SABOTAGE_none || sabotage->is_done || bb_msg_decode(*bytes, &msg) < 0 ||
        !suits(sabotage, &msg)) {
        return 1;
    }
    if (sabotage->n_left > 0) {
        sabotage->n_left--;
        return 1;
    }
    if (sabotage->kind == SABOTAGE_swap_delivers) {
        return swap(world, link, *bytes);
    }
    sabotage->is_done = true;
    switch ((int)sabotage->kind) {
    case SABOTAGE_drop_deliver:
    case SABOTAGE_drop_gap:
    case SABOTAGE_drop_ack:
    case SABOTAGE_drop_end:
    case SABOTAGE_drop_retained:
    case SABOTAGE_drop_answer:
        return 0;
    case SABOTAGE_repeat_deliver:
        return 2;
    default:
        return change(sabotage, &msg, bytes);
    }
}

int sabotage_input(struct world *world, struct sim_link *link, struct bb_slice *bytes)
{
    struct sabotage *sabotage = &world->sabotage;
    struct bb_msg msg = {0};
    (void)link;
    if (sabotage->kind == SABOTAGE_none || sabotage->is_done || bb_msg_decode(*bytes, &msg) < 0) {
        return 1;
    }
    if (sabotage->kind == SABOTAGE_repeat_publish && msg.type == BB_MSG_PUBLISH && msg.number == 0 &&
        sabotage->n_left-- == 0) {
        sabotage->is_done = true;
        return 2;
    }
    if (sabotage->kind == SABOTAGE_forge_credit && msg.type == BB_MSG_CREDIT && sabotage->n_left-- == 0) {
        sabotage->is_done = true;
        msg.bytes += 1 << 20;
        msg.events += 1 << 16;
        bb_buf_reset(&sabotage->changed);
        bb_msg_encode(&sabotage->changed, &msg);
        *bytes = bb_buf_slice(&sabotage->changed);
    }
    return 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/delivery.h"

#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include <stdlib.h>

/* One that is kept and smaller is copied. */
#define COPY_MAX ((size_t)16 << 10)

/* --- gaps --------------------------------------------------------------------------------------- */

int bb_delivery_add_gap(struct bb_delivery *delivery,
                        struct bb_slice channel,
                        uint64_t from,
                        uint64_t to,
                        uint64_t count,
                        struct bb_slice reason)
{
    struct bb_gap_node *node = calloc(1, sizeof(*node) + channel.len + reason.len + 2);
    if (node == NULL) {
        return BB_ENOMEM;
    }
    char *reason_text = node->text + channel.len + 1;
    if (channel.len > 0) {
        memcpy(node->text, channel.data, channel.len);
    }
    if (reason.len > 0) {
        memcpy(reason_text, reason.data, reason.len);
    }
    node->gap = (struct bb_gap){node->text, from, to, count, reason_text};
    if (delivery->gaps_last != NULL) {
        delivery->gaps_last->next = node;
    } else {
        delivery->gaps = node;
    }
    delivery->gaps_last = node;
    if (delivery->gap_at == NULL) {
        delivery->gap_at = node;
    }
    return 0;
}

/* Events of the message may lie inside its gaps: one more for each, of unknown count. A hole has none. */
static void lose_gaps(struct bb_delivery *delivery)
{
    const struct bb_gap_node *last = delivery->gaps_last;
    for (const struct bb_gap_node *node = delivery->gaps; node != NULL;
         node = node != last ? node->next : NULL) {
        const struct bb_gap *gap = &node->gap;
        if (gap->to != BB_UNKNOWN && strcmp(gap->reason, BB_REASON_TRANSPORT) != 0) {
            (void)bb_delivery_add_gap(delivery, bb_slice_str(gap->channel), gap->from, gap->to, BB_UNKNOWN,
                                      bb_slice_str(BB_REASON_TRANSPORT));
        }
    }
}

/* The rest of the message is unreadable: what its ranges promised is lost. */
static void give_up(struct bb_delivery *delivery)
{
    struct bb_mp_reader reader = bb_mp_reader(delivery->ranges);
    uint32_t n = bb_mp_read_array(&reader);
    delivery->is_broken = true;
    delivery->rest.len = 0;
    delivery->frame_at = delivery->n_frames;
    delivery->block.count = 0;
    lose_gaps(delivery);
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        uint32_t fields = bb_mp_read_array(&reader);
        struct bb_slice channel = bb_mp_read_str(&reader);
        uint64_t from = bb_mp_read_uint(&reader);
        uint64_t to = bb_mp_read_uint(&reader);
        for (uint32_t k = 3; k < fields; k++) {
            bb_mp_skip(&reader);
        }
        if (reader.error == 0) {
            (void)bb_delivery_add_gap(delivery, channel, from + 1, to, BB_UNKNOWN,
                                      bb_slice_str(BB_REASON_TRANSPORT));
        }
    }
}

/* --- events ------------------------------------------------------------------------------------- */

void bb_frames_join(const struct bb_frame *frames, size_t from, size_t n, struct bb_buf *out)
{
    for (size_t i = from; i < n; i++) {
        bb_buf_append(out, frames[i].data, frames[i].len);
    }
}

size_t bb_frames_size(const struct bb_frame *frames, size_t from, size_t n)
{
    size_t size = 0;
    for (size_t i = from; i < n; i++) {
        size += frames[i].len;
    }
    return size;
}

/* Where frames end has no meaning: a value that runs over the end of one is read from a copy. */
static bool join_rest(struct bb_delivery *delivery)
{
    if (delivery->frame_at == delivery->n_frames || delivery->flat.data != NULL) {
        return false;
    }
    bb_buf_append(&delivery->flat, delivery->rest.data, delivery->rest.len);
    bb_frames_join(delivery->frames, delivery->frame_at, delivery->n_frames, &delivery->flat);
    delivery->frame_at = delivery->n_frames;
    delivery->rest = bb_buf_slice(&delivery->flat);
    return delivery->flat.error == 0;
}

static bool has_bytes(struct bb_delivery *delivery)
{
    while (delivery->rest.len == 0 && delivery->frame_at < delivery->n_frames) {
        const struct bb_frame *frame = &delivery->frames[delivery->frame_at++];
        delivery->rest = bb_slice(frame->data, frame->len);
    }
    return delivery->rest.len > 0;
}

/* On to the next block that has events; false at the end. */
static bool next_block(struct bb_delivery *delivery)
{
    while (delivery->block.count == 0) {
        if (!has_bytes(delivery)) {
            return false;
        }
        /* The events may be in the next frame. */
        int r = bb_block_read_head(&delivery->rest, &delivery->block);
        if (r < 0 && join_rest(delivery)) {
            r = bb_block_read_head(&delivery->rest, &delivery->block);
        }
        if (r < 0) {
            give_up(delivery);
            return false;
        }
    }
    return true;
}

static inline void set_payload(struct bb_event *event, struct bb_slice payload)
{
    struct bb_mp_head head = {0};
    (void)bb_mp_head_read(payload.data, payload.len, &head);
    event->payload = payload.data;
    event->payload_len = payload.len;
    event->data = payload.data + head.len;
    event->len = payload.len - head.len;
    if (head.type == BB_MP_STR) {
        event->kind = BB_PAYLOAD_TEXT;
    } else if (head.type == BB_MP_BIN) {
        event->kind = BB_PAYLOAD_BINARY;
    } else if (head.type == BB_MP_NIL) {
        event->kind = BB_PAYLOAD_NIL;
    } else {
        event->kind = BB_PAYLOAD_MSGPACK;
        event->data = payload.data;
        event->len = payload.len;
    }
}

static int read_event(struct bb_delivery *delivery, struct bb_event *event)
{
    struct bb_event_view view;
    struct bb_block *block = &delivery->block;
    int r = has_bytes(delivery) ? bb_event_read(&delivery->rest, &view) : BB_EMALFORMED;
    if (BB_UNLIKELY(r < 0) && join_rest(delivery)) {
        r = bb_event_read(&delivery->rest, &view);
    }
    if (BB_UNLIKELY(r < 0 || view.error < 0)) {
        return BB_EMALFORMED;
    }
    event->gap = NULL;
    event->path = (const char *)view.path.data;
    event->path_len = view.path.len;
    set_payload(event, view.payload);
    event->attributes = view.attributes.len > 0 ? view.attributes.data : NULL;
    event->attributes_len = view.attributes.len;
    event->server = delivery->server;
    event->session = block->session;
    event->instance = block->instance++;
    event->sequence = block->sequence++;
    event->time_us = block->time;
    event->source = block->source;
    event->is_retained = delivery->retained != BB_RETAINED_NO;
    event->is_retained_end = false;
    block->count--;
    return 0;
}

static size_t read_gaps(struct bb_delivery *delivery, struct bb_event *events, size_t max)
{
    size_t n = 0;
    while (n < max && delivery->gap_at != NULL) {
        events[n++] = (struct bb_event){.gap = &delivery->gap_at->gap};
        delivery->gap_at = delivery->gap_at->next;
    }
    return n;
}

size_t bb_delivery_read(struct bb_delivery *delivery, struct bb_event *events, size_t max)
{
    size_t n = read_gaps(delivery, events, max);
    size_t n_gaps = n;
    while (n < max && next_block(delivery)) {
        if (BB_UNLIKELY(read_event(delivery, &events[n]) < 0)) {
            give_up(delivery);
            break;
        }
        n++;
    }
    delivery->n_events += n - n_gaps;
    n += n < max ? read_gaps(delivery, events + n, max - n) : 0;
    if (n < max && delivery->retained == BB_RETAINED_LAST && !delivery->is_mark_read) {
        delivery->is_mark_read = true;
        events[n++] = (struct bb_event){.is_retained_end = true};
    }
    return n;
}

/* --- keeping ------------------------------------------------------------------------------------ */

static struct bb_slice rebase(struct bb_slice slice, const uint8_t *from, const uint8_t *to)
{
    return slice.len > 0 ? bb_slice(to + (slice.data - from), slice.len) : slice;
}

/* The bytes of all frames go to @to. What points into a frame points into the first. */
static void copy_frames(struct bb_delivery *kept, uint8_t *to)
{
    kept->rest = rebase(kept->rest, kept->frames[0].data, to);
    kept->ranges = rebase(kept->ranges, kept->frames[0].data, to);
    for (size_t i = 0; i < kept->n_frames; i++) {
        struct bb_frame copy = {.data = to, .len = kept->frames[i].len};
        if (copy.len > 0) {
            memcpy(to, kept->frames[i].data, copy.len);
        }
        bb_frame_fini(&kept->frames[i]);
        kept->frames[i] = copy;
        to += copy.len;
    }
}

static void drop_frames(struct bb_delivery *delivery)
{
    for (size_t i = 0; i < delivery->n_frames; i++) {
        bb_frame_fini(&delivery->frames[i]);
    }
    delivery->n_frames = 0;
}

struct bb_delivery *bb_delivery_keep(struct bb_delivery *delivery)
{
    size_t heads = delivery->n_frames * sizeof(struct bb_frame);
    size_t size = bb_frames_size(delivery->frames, 0, delivery->n_frames);
    bool is_flat = delivery->flat.data != NULL; /* and then it is all that is needed */
    bool is_small = size < COPY_MAX;
    struct bb_delivery *kept = malloc(sizeof(*kept) + heads + (is_small && !is_flat ? size : 0));
    if (kept == NULL) {
        return NULL;
    }
    *kept = *delivery;
    kept->next = NULL;
    kept->frames = (struct bb_frame *)(void *)(kept + 1);
    memcpy(kept->frames, delivery->frames, heads);
    if (is_flat) {
        drop_frames(kept);
        kept->frame_at = 0;
    } else if (is_small) {
        copy_frames(kept, (uint8_t *)(kept->frames + kept->n_frames));
    }
    return kept;
}

void bb_delivery_fini(struct bb_delivery *delivery)
{
    drop_frames(delivery);
    while (delivery->gaps != NULL) {
        struct bb_gap_node *next = delivery->gaps->next;
        free(delivery->gaps);
        delivery->gaps = next;
    }
    bb_buf_fini(&delivery->flat);
    free(delivery->moves);
    delivery->moves = NULL;
}

void bb_deliveries_free(struct bb_delivery *delivery)
{
    while (delivery != NULL) {
        struct bb_delivery *next = delivery->next;
        bb_delivery_fini(delivery);
        free(delivery);
        delivery = next;
    }
}

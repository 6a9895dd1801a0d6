/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/net.h"

#include <stdlib.h>

struct link_msg *link_msg_new(const struct bk_part *parts, size_t n_parts)
{
    size_t copied = 0;
    for (size_t i = 0; i < n_parts; i++) {
        copied += parts[i].owner == NULL ? parts[i].len : 0;
    }
    struct link_msg *msg = calloc(1, sizeof(*msg) + copied);
    if (msg == NULL) {
        abort();
    }
    uint8_t *to = msg->copy;
    for (size_t i = 0; i < n_parts; i++) {
        msg->parts[i] = parts[i];
        msg->len += parts[i].len;
        if (parts[i].owner != NULL) {
            (void)bk_bytes_ref(parts[i].owner);
            continue;
        }
        if (parts[i].len > 0) {
            memcpy(to, parts[i].data, parts[i].len);
        }
        msg->parts[i].data = to;
        to += parts[i].len;
    }
    msg->n_parts = n_parts;
    return msg;
}

void link_msg_free(struct link_msg *msg)
{
    for (size_t i = 0; i < msg->n_parts; i++) {
        bk_bytes_unref(msg->parts[i].owner);
    }
    free(msg);
}

void link_msg_flatten(const struct link_msg *msg, struct bb_buf *out)
{
    bb_buf_reset(out);
    for (size_t i = 0; i < msg->n_parts; i++) {
        bb_buf_append(out, msg->parts[i].data, msg->parts[i].len);
    }
}

void link_queue_push(struct link_queue *queue, struct link_msg *msg, uint64_t arrival)
{
    queue->last_arrival = BB_MAX(queue->last_arrival, arrival);
    msg->arrival = queue->last_arrival;
    msg->next = NULL;
    *(queue->last != NULL ? &queue->last->next : &queue->first) = msg;
    queue->last = msg;
    queue->bytes += msg->len;
}

struct link_msg *link_queue_pop(struct link_queue *queue)
{
    struct link_msg *msg = queue->first;
    if (msg != NULL) {
        queue->first = msg->next;
        queue->last = queue->first != NULL ? queue->last : NULL;
        queue->bytes -= msg->len;
    }
    return msg;
}

void link_queue_clear(struct link_queue *queue)
{
    struct link_msg *msg = NULL;
    while ((msg = link_queue_pop(queue)) != NULL) {
        link_msg_free(msg);
    }
}

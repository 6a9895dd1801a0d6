/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as what the broker sends: the whole receiving side of a bus without sockets. Nothing is read beyond
 * its end, whatever an event points to is inside the message, and events and gaps are no more than bytes.
 *
 * The input is a sequence of messages: a byte with the number of frames, two with the length (little endian),
 * then that many bytes, cut evenly into the frames.
 */
#include "proto/base/error.h"
#include "proto/wire/scan.h"

#include "bus/deliver.h"
#include "bus/handle.h"
#include "bus/places.h"
#include "bus/step.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define N_SUBS 2

static void require(bool condition)
{
    if (!condition) {
        abort();
    }
}

struct seen {
    size_t n;
    unsigned sum;
};

static unsigned sum_of(const void *bytes, size_t len)
{
    const uint8_t *p = bytes;
    unsigned sum = 0;
    for (size_t i = 0; i < len; i++) {
        sum += p[i];
    }
    return sum;
}

static void look(const struct bb_event *event, struct seen *seen)
{
    seen->n++;
    if (event->gap != NULL) {
        seen->sum += sum_of(event->gap->channel, strlen(event->gap->channel));
        seen->sum += sum_of(event->gap->reason, strlen(event->gap->reason));
        return;
    }
    seen->sum += sum_of(event->path, event->path_len) + sum_of(event->payload, event->payload_len);
    seen->sum += sum_of(event->data, event->len);
    struct bb_event_attributes attributes;
    struct bb_header header;
    size_t at = 0;
    if (bb_event_get_attributes(event, &attributes) == 0) {
        while (bb_event_next_header(&attributes, &at, &header)) {
            seen->sum += sum_of(header.name, header.name_len) + sum_of(header.value, header.value_len);
        }
    }
    free(bb_event_json(event, NULL));
}

static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    (void)sub;
    for (size_t i = 0; i < n; i++) {
        look(&events[i], arg);
    }
}

static void on_ack(bb_bus *bus, const struct bb_ack *ack, void *arg)
{
    (void)bus;
    (void)ack;
    (void)arg;
}

/* A bus that is ready, with two subscriptions and a batch on its way. */
static void bus_start(struct bb_bus *bus, struct bb_subscription **subs, struct seen *seen)
{
    static const char *const all[] = {"*"};
    struct bb_conn_config config = {.open_ms = 1000, .pause_min_ms = 1, .pause_max_ms = 1, .seed = 1};
    *bus = (struct bb_bus){.options = BB_OPTIONS_INIT,
                           .epoll_fd = -1,
                           .timer_fd = -1,
                           .run = BB_RUN_STEP,
                           .wake = {.fd = -1},
                           .call = {.fd = -1}};
    bb_link_init(&bus->link, -1);
    require(pthread_mutex_init(&bus->lock, NULL) == 0 && pthread_cond_init(&bus->changed, NULL) == 0);
    bb_conn_init(&bus->conn, &config);
    bus->conn.state = BB_CONN_READY;
    bus->max_message = BB_MESSAGE_DEFAULT;
    bb_map_init(&bus->subs, 1, N_SUBS);
    bb_outbox_init(&bus->outbox, 1024, 65536, false);
    for (size_t i = 0; i < N_SUBS; i++) {
        struct bb_subscribe_options options = BB_SUBSCRIBE_OPTIONS_INIT;
        options.patterns = all;
        options.n_patterns = 1;
        options.on_events = i == 0 ? on_events : NULL;
        options.arg = seen;
        require(bb_subscribe(bus, &options, 0, &subs[i]) == 0);
        subs[i]->state = BB_SUB_ASKED;
        subs[i]->corr = i + 1;
    }
    struct bb_draft draft = BB_DRAFT_INIT;
    draft.path = "a";
    draft.on_ack = on_ack;
    for (size_t i = 0; i < 2; i++) {
        require(bb_publish_event(bus, &draft, NULL) == 0);
    }
    if (bb_outbox_next(&bus->outbox) != NULL) {
        bb_outbox_sent(&bus->outbox);
    }
}

static void bus_stop(struct bb_bus *bus)
{
    bb_bus_lock(bus);
    bb_subscriptions_free(bus);
    bb_outbox_fail(&bus->outbox, BB_ECLOSED);
    bb_deliver_acks(bus);
    bb_bus_unlock(bus);
    bb_link_fini(&bus->link);
    bb_outbox_fini(&bus->outbox);
    bb_buf_fini(&bus->scratch);
    (void)pthread_cond_destroy(&bus->changed);
    (void)pthread_mutex_destroy(&bus->lock);
}

static void message(struct bb_bus *bus, const uint8_t *data, size_t size, size_t n_frames)
{
    for (size_t i = 0; i < n_frames; i++) {
        size_t from = size * i / n_frames;
        size_t to = size * (i + 1) / n_frames;
        struct bb_chunk *chunk = malloc(sizeof(*chunk) + to - from);
        require(chunk != NULL);
        atomic_init(&chunk->refs, 1);
        if (to > from) {
            memcpy(chunk->data, data + from, to - from);
        }
        bus->frames[i] = (struct bb_frame){chunk, chunk->data, to - from};
    }
    bb_bus_lock(bus);
    bb_handle_message(bus, n_frames);
    bb_step_perform(bus);
    bb_deliver_acks(bus);
    bb_bus_unlock(bus);
    bus->conn.state = bus->error == 0 ? BB_CONN_READY : BB_CONN_CLOSED;
}

/* What the next connection would be asked for is well-formed, whatever came. */
static void check_places(const struct bb_subscription *sub)
{
    for (int with_lives = 0; with_lives < 2; with_lives++) {
        struct bb_buf from = BB_BUF_INIT;
        bb_places_write(sub, with_lives != 0, &from);
        require(from.error == 0 && bb_scan_whole(from.data, from.len, NULL) == 0);
        bb_buf_fini(&from);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bb_bus bus;
    struct bb_subscription *subs[N_SUBS];
    struct seen seen = {0};
    size_t limit = size;
    bus_start(&bus, subs, &seen);
    while (size >= 3) {
        size_t n_frames = 1 + data[0] % BB_FRAMES_MAX;
        size_t len = data[1] | (size_t)data[2] << 8;
        data += 3;
        size -= 3;
        len = len < size ? len : size;
        message(&bus, data, len, n_frames);
        data += len;
        size -= len;
        check_places(subs[0]);
        struct bb_event events[3];
        for (int n = 1; n > 0;) {
            n = subs[1]->queue != NULL || subs[1]->reading != NULL ? bb_receive(subs[1], events, 3, 0) : 0;
            for (int i = 0; i < n; i++) {
                look(&events[i], &seen);
            }
        }
    }
    require(seen.n <= limit);
    bus_stop(&bus);
    return 0;
}

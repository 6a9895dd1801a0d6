/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/disk/store.h"

#include "tests/sim/model/truth.h"

#include <stdlib.h>

static void set(struct bb_buf *buf, struct bb_slice bytes)
{
    bb_buf_reset(buf);
    bb_buf_append(buf, bytes.data, bytes.len);
    if (buf->error != 0) {
        abort();
    }
}

static void *one_more(void *array, size_t n, size_t size)
{
    void *bigger = realloc(array, (n + 1) * size);
    if (bigger == NULL) {
        abort();
    }
    return bigger;
}

static void rows_fini(struct store_row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        bb_buf_fini(&rows[i].key);
        bb_buf_fini(&rows[i].value);
    }
    free(rows);
}

void store_fini(struct store *store)
{
    for (size_t i = 0; i < store->n_channels; i++) {
        bb_buf_fini(&store->channels[i].name);
        bb_buf_fini(&store->channels[i].settings);
    }
    for (size_t i = 0; i < store->n_events; i++) {
        free(store->events[i].owned);
    }
    rows_fini(store->producers, store->n_producers);
    rows_fini(store->cursors, store->n_cursors);
    free(store->channels);
    free(store->events);
    *store = (struct store){0};
}

static struct store_row *rows_copy(const struct store_row *rows, size_t n)
{
    struct store_row *copy = NULL;
    for (size_t i = 0; i < n; i++) {
        copy = one_more(copy, i, sizeof(*copy));
        copy[i] = rows[i];
        copy[i].key = copy[i].value = BB_BUF_INIT;
        set(&copy[i].key, bb_buf_slice(&rows[i].key));
        set(&copy[i].value, bb_buf_slice(&rows[i].value));
    }
    return copy;
}

static void add_event(struct store *store, const struct store_event *event)
{
    store->events =
        sim_grown(store->events, store->n_events, &store->n_event_slots, sizeof(store->events[0]));
    struct store_event *added = &store->events[store->n_events++];
    *added = *event;
    uint8_t *raw = malloc((size_t)event->head.length + 1);
    if (raw == NULL) {
        abort();
    }
    memcpy(raw, event->raw, (size_t)event->head.length);
    added->raw = added->owned = raw;
    added->path.data = added->raw + (event->path.data - event->raw);
}

void store_copy(struct store *to, const struct store *from)
{
    store_fini(to);
    for (size_t i = 0; i < from->n_channels; i++) {
        to->channels = one_more(to->channels, i, sizeof(to->channels[0]));
        to->channels[i] = from->channels[i];
        to->channels[i].name = to->channels[i].settings = BB_BUF_INIT;
        set(&to->channels[i].name, bb_buf_slice(&from->channels[i].name));
        set(&to->channels[i].settings, bb_buf_slice(&from->channels[i].settings));
    }
    to->n_channels = from->n_channels;
    to->producers = rows_copy(from->producers, from->n_producers);
    to->n_producers = from->n_producers;
    to->cursors = rows_copy(from->cursors, from->n_cursors);
    to->n_cursors = from->n_cursors;
    for (size_t i = 0; i < from->n_events; i++) {
        add_event(to, &from->events[i]);
    }
}

struct store_channel *store_channel_of(const struct store *store, uint32_t id)
{
    for (size_t i = 0; i < store->n_channels; i++) {
        if (store->channels[i].id == id) {
            return &store->channels[i];
        }
    }
    return NULL;
}

void store_channel(struct store *store, const struct bk_log_channel *entry)
{
    struct store_channel *channel = store_channel_of(store, entry->id);
    if (channel == NULL) {
        store->channels = one_more(store->channels, store->n_channels, sizeof(*channel));
        channel = &store->channels[store->n_channels++];
        *channel = (struct store_channel){.id = entry->id};
    }
    if (entry->removed) {
        channel->removed = true;
        for (size_t i = 0; i < store->n_events; i++) {
            if (store->events[i].channel == entry->id) {
                store->events[i].is_gone = true;
                store->events[i].is_latest = false;
            }
        }
        return;
    }
    channel->retention = entry->retention;
    set(&channel->name, entry->name);
    set(&channel->settings, entry->settings);
}

static struct store_row *row_of(struct store_row **rows, size_t *n, struct bb_slice key)
{
    for (size_t i = 0; i < *n; i++) {
        if (bb_slice_equal(bb_buf_slice(&(*rows)[i].key), key)) {
            return &(*rows)[i];
        }
    }
    *rows = one_more(*rows, *n, sizeof(**rows));
    struct store_row *row = &(*rows)[(*n)++];
    *row = (struct store_row){0};
    set(&row->key, key);
    return row;
}

void store_producer(struct store *store, const struct bk_log_producer *entry)
{
    struct store_row *row =
        row_of(&store->producers, &store->n_producers, bb_slice(entry->key, sizeof(entry->key)));
    row->removed = entry->removed;
    row->last = entry->last;
    row->time = entry->time;
    set(&row->value, entry->notes);
}

void store_cursor(struct store *store, const struct bk_log_cursor *entry)
{
    struct store_row *row = row_of(&store->cursors, &store->n_cursors, entry->name);
    row->removed = entry->removed;
    set(&row->value, entry->value);
}

static void replace_latest(struct store *store, uint32_t channel, struct bb_slice path)
{
    for (size_t i = store->n_events; i > 0; i--) {
        struct store_event *event = &store->events[i - 1];
        if (event->is_latest && event->channel == channel && bb_slice_equal(event->path, path)) {
            event->is_latest = false;
            return;
        }
    }
}

void store_block(struct store *store, const struct bk_log_block *block)
{
    struct store_channel *channel = store_channel_of(store, block->channel);
    struct bb_slice rest = bb_slice(block->events, (size_t)block->head.length);
    struct bb_event_view view;
    for (uint64_t i = 0; i < block->head.count && bb_event_read(&rest, &view) == 0; i++) {
        struct store_event event = {.channel = block->channel,
                                    .server = block->server,
                                    .head = block->head,
                                    .path = view.path,
                                    .is_latest = true};
        event.raw = view.raw.data;
        event.head.sequence += i;
        event.head.instance += i;
        event.head.count = 1;
        event.head.length = view.raw.len;
        replace_latest(store, block->channel, view.path);
        add_event(store, &event);
    }
    channel->last = block->head.sequence + block->head.count - 1;
}

uint64_t store_first(const struct store *store, const struct store_channel *channel)
{
    for (size_t i = 0; i < store->n_events; i++) {
        if (store->events[i].channel == channel->id && !store->events[i].is_gone) {
            return store->events[i].head.sequence;
        }
    }
    return channel->last + 1;
}

void store_trim(struct store *store, uint32_t channel, uint64_t before)
{
    for (size_t i = 0; i < store->n_events; i++) {
        struct store_event *event = &store->events[i];
        event->is_gone = event->is_gone || (event->channel == channel && event->head.sequence < before);
    }
}

/* What is newer than an event, among those kept. */
struct newer {
    uint64_t n;
    uint64_t bytes;
};

static uint64_t n_newer_of_path(const struct store *store, size_t at)
{
    uint64_t n = 0;
    for (size_t i = at + 1; i < store->n_events; i++) {
        const struct store_event *event = &store->events[i];
        n += event->channel == store->events[at].channel && !event->is_gone &&
             bb_slice_equal(event->path, store->events[at].path);
    }
    return n;
}

void store_retain(struct store *store, const struct store_channel *channel, uint64_t wall)
{
    const struct bk_retention *limits = &channel->retention;
    struct newer newer = {0};
    bool is_over = false; /* all older ones go, too */
    for (size_t i = store->n_events; i > 0; i--) {
        struct store_event *event = &store->events[i - 1];
        if (event->channel != channel->id || event->is_gone) {
            continue;
        }
        bool is_below_floor = channel->last - event->head.sequence < limits->min_events;
        uint64_t age = wall > event->head.time ? wall - event->head.time : 0;
        is_over =
            !is_below_floor &&
            (is_over || newer.n >= limits->max_events || age > limits->max_age_us ||
             (limits->max_bytes != BK_NO_LIMIT && newer.bytes + event->head.length > limits->max_bytes));
        bool is_surplus = limits->max_per_path != BK_NO_LIMIT && !is_below_floor &&
                          n_newer_of_path(store, i - 1) >= limits->max_per_path;
        if (is_over || is_surplus) {
            event->is_gone = true;
            continue;
        }
        newer.n++;
        newer.bytes += event->head.length;
    }
}

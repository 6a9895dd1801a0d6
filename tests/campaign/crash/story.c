/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/campaign/crash/story.h"

#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/wire/mp.h"

#include "broker/backend/registry.h"
#include "tests/campaign/crash/disk.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERVER      7
#define TIME0       UINT64_C(1700000000000000)
#define DEADLINE_MS 20000
#define READ_BYTES  65536
#define LARGE_BYTES \
    120000 /* of an event, now and then: a journal record of many pages, and the files are soon full */

static uint64_t pick(struct story *story, uint64_t n)
{
    story->random = story->random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (story->random >> 33) % n;
}

static void wrong(struct story *story, const char *what, uint64_t a, uint64_t b)
{
    if (story->wrong[0] == 0) {
        (void)snprintf(story->wrong, sizeof(story->wrong), "%s (%llu, %llu)", what, (unsigned long long)a,
                       (unsigned long long)b);
    }
}

/* --- what is told ------------------------------------------------------------------------------------ */

/* A ticket that failed takes all behind it along, and its sequences are given again. */
static void forget_from(struct story *story, uint64_t ticket)
{
    while (story->n_blocks > 0 && story->blocks[story->n_blocks - 1].ticket >= ticket) {
        struct story_block *block = &story->blocks[--story->n_blocks];
        story->sequences[block->channel] = block->head.sequence - 1;
        bb_buf_fini(&block->events);
    }
}

static void on_registered(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    struct story *story = context;
    if (error == 0) {
        if (ticket <= story->durable || ticket > story->registered) {
            wrong(story, "flushed() of a ticket that is not due", ticket, story->durable);
        }
        story->durable = ticket;
        return;
    }
    if (ticket <= story->durable) {
        wrong(story, "a durable ticket has failed", ticket, story->durable);
    }
    story->n_failed += story->registered - ticket + 1;
    forget_from(story, ticket);
    story->registered = story->durable;
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    wrong(context, "trimmed() without a limit", channel, first);
}

static void on_state(void *context, enum bk_backend_state state, const char *text)
{
    struct story *story = context;
    (void)text;
    story->state = state;
}

static void on_log(void *context, int level, const char *id, const char *text)
{
    (void)context;
    (void)level;
    (void)id;
    (void)text;
}

/* --- opening ------------------------------------------------------------------------------------------ */

static int load_channel(void *context, const struct bk_log_channel *channel)
{
    struct story *story = context;
    if (channel->id == 0 || channel->id > STORY_CHANNELS || channel->first != 1) {
        wrong(story, "a channel that was never made", channel->id, channel->first);
        return 0;
    }
    story->loaded[channel->id] = channel->last;
    return 0;
}

static int load_producer(void *context, const struct bk_log_producer *producer)
{
    struct story *story = context;
    story->loaded_producer = producer->last;
    return 0;
}

static int load_cursor(void *context, const struct bk_log_cursor *cursor)
{
    struct story *story = context;
    struct bb_mp_reader reader = bb_mp_reader(cursor->value);
    story->loaded_cursor = bb_mp_read_uint(&reader);
    return 0;
}

void story_begin(struct story *story, uint64_t seed)
{
    *story = (struct story){.random = seed};
    story->listener = (struct bk_backend_listener){story, on_registered, on_flushed, on_trimmed, on_state};
}

int story_open(struct story *story, const char *directory)
{
    const char *const options[] = {"map-size=64M", "journal-size=1M", "reserve=0",
                                   story->lags ? "apply-interval=60s" : "apply-interval=2ms"};
    const struct bk_backend_loader loader = {story, load_channel, load_producer, load_cursor};
    struct bb_buf err = BB_BUF_INIT;
    struct bk_backend_env env = {
        .directory = directory,
        .server = SERVER,
        .listener = &story->listener,
        .meter = &story->meter,
        .log = on_log,
    };
    story->loaded_producer = story->loaded_cursor = 0;
    memset(story->loaded, 0, sizeof(story->loaded));
    story->state = BK_BACKEND_OK;
    int r = bk_backend_open("lmdb", options, BB_COUNT(options), &env, &story->backend, &err);
    if (r < 0 && err.len == 0 && r != BB_ENOMEM) {
        wrong(story, "an error without a sentence", (uint64_t)-r, 0);
    }
    bb_buf_fini(&err);
    r = r < 0 ? r : story->backend->ops->load(story->backend, &loader);
    if (r < 0) {
        story_close(story);
    }
    return r;
}

void story_close(struct story *story)
{
    if (story->backend != NULL) {
        story->backend->ops->close(story->backend);
        story->backend = NULL;
        if (story->durable != story->registered) {
            wrong(story, "close() leaves tickets undecided", story->durable, story->registered);
        }
    }
}

void story_end(struct story *story)
{
    story_close(story);
    forget_from(story, 0);
    free(story->blocks);
}

/* --- writing ------------------------------------------------------------------------------------------ */

static void write_events(struct story *story, uint64_t n, struct bb_buf *out)
{
    static const char *const paths[] = {"a", "a/b", "a/c", "a/long/path/with/segments"};
    for (uint64_t i = 0; i < n; i++) {
        struct bb_buf payload = BB_BUF_INIT;
        static uint8_t bytes[LARGE_BYTES];
        uint64_t size = pick(story, 64);
        size_t len = (size_t)pick(story, size == 0 ? LARGE_BYTES : size < 8 ? 600 : 40);
        for (size_t j = 0; j < len; j++) {
            bytes[j] = (uint8_t)(story->random >> (j % 56));
        }
        bb_mp_write_bin(&payload, bb_slice(bytes, len));
        bb_event_write(out, bb_slice_str(paths[pick(story, BB_COUNT(paths))]), bb_buf_slice(&payload), NULL);
        bb_buf_fini(&payload);
    }
}

static struct story_block *add_block(struct story *story, uint32_t channel)
{
    struct story_block *blocks = realloc(story->blocks, (story->n_blocks + 1) * sizeof(*blocks));
    if (blocks == NULL) {
        return NULL;
    }
    story->blocks = blocks;
    struct story_block *block = &blocks[story->n_blocks];
    *block = (struct story_block){.ticket = story->ticket, .channel = channel};
    uint64_t n = 1 + pick(story, 12);
    write_events(story, n, &block->events);
    if (block->events.error != 0) {
        bb_buf_fini(&block->events);
        return NULL;
    }
    story->session++;
    block->head = (struct bb_block){
        .session = story->session,
        .time = TIME0 + 1000 * story->session,
        .source = 3,
        .sequence = story->sequences[channel] + 1,
        .instance = 1,
        .count = n,
        .length = block->events.len,
    };
    story->sequences[channel] += n;
    story->n_blocks++;
    return block;
}

int story_register(struct story *story)
{
    static struct bk_log_channel channels[STORY_CHANNELS];
    static const char *const names[STORY_CHANNELS] = {"one", "two", "three"};
    struct bk_log_block blocks[4];
    struct bb_buf number = BB_BUF_INIT;
    story->ticket++;
    size_t n = 1 + (size_t)pick(story, BB_COUNT(blocks));
    int r = 0;
    disk_spare(true);
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct story_block *block = add_block(story, 1 + (uint32_t)pick(story, STORY_CHANNELS));
        r = block == NULL ? BB_ENOMEM : 0;
        if (r == 0) {
            blocks[i] = (struct bk_log_block){
                .channel = block->channel,
                .flags = BK_LOG_TTL | BK_LOG_SOURCE_TIME,
                .server = SERVER,
                .head = block->head,
                .events = block->events.data,
            };
        }
    }
    for (size_t i = 0; i < STORY_CHANNELS; i++) {
        channels[i] = (struct bk_log_channel){
            .id = (uint32_t)i + 1,
            .name = bb_slice_str(names[i]),
            .retention = BK_RETENTION_INIT,
            .settings = bb_slice("\x80", 1),
        };
    }
    bb_mp_write_uint(&number, story->ticket);
    struct bk_log_producer producer = {.last = story->ticket, .time = TIME0};
    struct bk_log_cursor cursor = {.name = bb_slice_str("c"), .value = bb_buf_slice(&number)};
    struct bk_append append = {channels, STORY_CHANNELS, blocks, n, &producer, 1, &cursor, 1};
    r = r == 0 ? number.error : r;
    disk_spare(false);
    r = r == 0 ? story->backend->ops->register_(story->backend, &append, story->ticket) : r;
    bb_buf_fini(&number);
    for (size_t i = 0; i < n && r == 0; i++) {
        if (blocks[i].error != 0) {
            wrong(story, "a block was refused", story->ticket, (uint64_t)-blocks[i].error);
        }
    }
    if (r == 0) {
        story->registered = story->ticket;
    } else {
        forget_from(story, story->ticket);
        story->n_refused++;
    }
    return r;
}

bool story_pump(struct story *story, int timeout_ms)
{
    struct pollfd fd = {.fd = story->backend->ops->fd(story->backend), .events = POLLIN};
    bool is_ready = poll(&fd, 1, timeout_ms) == 1;
    if (is_ready) {
        story->backend->ops->dispatch(story->backend);
    }
    return is_ready;
}

static int64_t deadline(void)
{
    return bb_clock_monotonic_us() / 1000 + DEADLINE_MS;
}

bool story_settle(struct story *story)
{
    int64_t end = deadline();
    while (story->durable != story->registered || story->state != BK_BACKEND_OK) {
        int64_t left = end - bb_clock_monotonic_us() / 1000;
        if (left <= 0) {
            wrong(story, "nothing more is told", story->durable, story->registered);
            return false;
        }
        (void)story_pump(story, (int)left);
    }
    return true;
}

/* --- reading ------------------------------------------------------------------------------------------ */

static void on_done(void *context, struct bk_request *request)
{
    struct story *story = context;
    (void)request;
    story->n_done++;
}

static int run(struct story *story, struct bk_request *request)
{
    int64_t end = deadline();
    story->n_done = 0;
    request->done = on_done;
    request->context = story;
    story->backend->ops->submit(story->backend, request);
    while (story->n_done == 0) {
        int64_t left = end - bb_clock_monotonic_us() / 1000;
        if (left <= 0) {
            wrong(story, "a request is not answered", (uint64_t)request->kind, 0);
            abort(); /* it is on this stack */
        }
        (void)story_pump(story, (int)left);
    }
    return request->error;
}

/* The events of a channel in their order, as the story has them. */
struct expected {
    const struct story *story;
    uint32_t channel;
    size_t block;
    uint64_t index; /* of the event in its block */
    struct bb_slice rest;
};

static bool next_expected(struct expected *expected, struct bb_event_view *ret_event, uint64_t *ret_sequence)
{
    const struct story *story = expected->story;
    const struct story_block *block = &story->blocks[expected->block];
    while (expected->block < story->n_blocks &&
           (block->channel != expected->channel || expected->index == block->head.count)) {
        block = &story->blocks[++expected->block];
        expected->index = 0;
    }
    if (expected->block >= story->n_blocks) {
        return false;
    }
    if (expected->index == 0) {
        expected->rest = bb_buf_slice(&block->events);
    }
    *ret_sequence = block->head.sequence + expected->index++;
    return bb_event_read(&expected->rest, ret_event) == 0;
}

static void check_block(struct story *story,
                        struct expected *expected,
                        const struct bb_block *head,
                        struct bb_slice events)
{
    for (uint64_t i = 0; i < head->count; i++) {
        struct bb_event_view event;
        struct bb_event_view wanted;
        uint64_t sequence = 0;
        if (bb_event_read(&events, &event) < 0) {
            wrong(story, "what was read is no event", head->sequence, i);
            return;
        }
        if (!next_expected(expected, &wanted, &sequence)) {
            wrong(story, "an event that was never registered", head->sequence + i, expected->channel);
            return;
        }
        if (sequence != head->sequence + i || !bb_slice_equal(event.raw, wanted.raw)) {
            wrong(story, "another event than was registered", head->sequence + i, sequence);
            return;
        }
    }
}

/* Return: 0 or the error of a request; *@ret_last: up to where there was something. */
static int read_channel(struct story *story, uint32_t channel, uint64_t *ret_last)
{
    struct expected expected = {.story = story, .channel = channel};
    *ret_last = 0;
    for (bool at_end = false; !at_end && story->wrong[0] == 0;) {
        struct bk_read_range range = {
            .channel = channel, .after = *ret_last, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
        struct bk_read read = {
            .request = {.kind = BK_REQUEST_READ}, .ranges = &range, .n_ranges = 1, .max_bytes = READ_BYTES};
        int r = run(story, &read.request);
        if (r < 0) {
            return r;
        }
        struct bb_slice rest =
            read.body != NULL ? bb_slice(read.body->data, read.body->len) : (struct bb_slice){0};
        struct bb_block head;
        while (rest.len > 0 && bb_block_read_head(&rest, &head) == 0 && head.length <= rest.len) {
            check_block(story, &expected, &head, bb_slice(rest.data, (size_t)head.length));
            rest = bb_slice(rest.data + head.length, rest.len - (size_t)head.length);
        }
        if (rest.len > 0) {
            wrong(story, "what was read are no blocks", channel, rest.len);
        }
        if (range.reached == *ret_last && !range.at_end) {
            wrong(story, "reading does not go on", channel, range.reached);
        }
        *ret_last = range.reached;
        at_end = range.at_end;
        bk_bytes_unref(read.body);
        bb_buf_fini(&read.losses);
    }
    return 0;
}

/* The last sequence of @channel that tickets up to @ticket made. */
static uint64_t last_of(const struct story *story, uint32_t channel, uint64_t ticket)
{
    uint64_t last = 0;
    for (size_t i = 0; i < story->n_blocks && story->blocks[i].ticket <= ticket; i++) {
        const struct story_block *block = &story->blocks[i];
        last = block->channel == channel ? block->head.sequence + block->head.count - 1 : last;
    }
    return last;
}

int story_read(struct story *story, uint64_t ticket)
{
    for (uint32_t channel = 1; channel <= STORY_CHANNELS; channel++) {
        uint64_t last = 0;
        int r = read_channel(story, channel, &last);
        if (r < 0) {
            return r;
        }
        if (story->wrong[0] == 0 && last != last_of(story, channel, ticket)) {
            wrong(story, "a channel does not end with the ticket", last, last_of(story, channel, ticket));
        }
    }
    return 0;
}

int64_t story_verify(struct story *story)
{
    struct bk_upkeep verify = {.request = {.kind = BK_REQUEST_VERIFY}, .report = BB_BUF_INIT};
    int64_t problems = run(story, &verify.request);
    struct bb_mp_reader reader = bb_mp_reader(bb_buf_slice(&verify.report));
    uint32_t n = problems == 0 ? bb_mp_read_map(&reader) : 0;
    for (uint32_t i = 0; i < n && reader.error == 0; i++) {
        bool is_it = bb_slice_equal(bb_mp_read_str(&reader), bb_slice_str("problems"));
        if (is_it) {
            problems = (int64_t)bb_mp_read_uint(&reader);
        } else {
            bb_mp_skip(&reader);
        }
    }
    bb_buf_fini(&verify.report);
    return problems;
}

void story_check_loaded(struct story *story, uint64_t ticket)
{
    if (story->loaded_producer != ticket) {
        wrong(story, "the producer's number is not of the last ticket", story->loaded_producer, ticket);
    }
    if (story->loaded_cursor != ticket) {
        wrong(story, "the cursor is not of the last ticket", story->loaded_cursor, ticket);
    }
    for (uint32_t channel = 1; channel <= STORY_CHANNELS; channel++) {
        if (story->loaded[channel] != last_of(story, channel, ticket)) {
            wrong(story, "a channel was loaded with another end", story->loaded[channel], channel);
        }
    }
}

bool story_check(struct story *story, uint64_t acked, uint64_t registered)
{
    uint64_t ticket = story->loaded_producer;
    if (ticket < acked || ticket > registered) {
        wrong(story, ticket < acked ? "acknowledged tickets are lost" : "a ticket from the future", ticket,
              acked);
    }
    story_check_loaded(story, ticket);
    int r = story->wrong[0] == 0 ? story_read(story, ticket) : 0;
    int64_t problems = story->wrong[0] == 0 ? story_verify(story) : 0;
    if (r < 0 || problems != 0) {
        wrong(story, "it cannot be read, or does not verify", (uint64_t)-r, (uint64_t)problems);
    }
    return story->wrong[0] == 0;
}

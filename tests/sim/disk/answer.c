/* SPDX-License-Identifier: Apache-2.0 */
/* The requests to the simulated log, answered by looking through everything. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/find.h"
#include "broker/backend/loss.h"
#include "tests/sim/disk/disk.h"
#include "tests/sim/world.h"

#include <stdlib.h>

static void append(struct bb_buf *body, const struct store_event *event)
{
    uint8_t *to = bb_buf_reserve(body, BB_BLOCK_HEAD_MAX);
    if (to == NULL) {
        abort();
    }
    body->len += bb_block_write(to, &event->head);
    bb_buf_append(body, event->raw, (size_t)event->head.length);
}

static bool has_expired(const struct store_event *event, uint64_t now)
{
    struct bb_slice rest = bb_slice(event->raw, (size_t)event->head.length);
    struct bb_event_view view;
    return bb_event_read(&rest, &view) == 0 && bb_event_has_expired(&view, event->head.time, now);
}

static struct bk_bytes *bytes_of(struct sim_disk *disk, struct bb_buf *body)
{
    struct bk_bytes *bytes = NULL;
    if (body->len > 0) {
        bytes = bk_bytes_new(&disk->meter, body->len);
        if (bytes == NULL) {
            abort();
        }
        memcpy(bytes->data, body->data, body->len);
        bytes->len = body->len;
    }
    bb_buf_fini(body);
    return bytes;
}

static bool may_lie(struct sim_disk *disk, enum disk_lie lie)
{
    return disk->lie == lie && !disk->has_lied && disk->n_commits > 5;
}

/* --- read ------------------------------------------------------------------------------------- */

/* A read while it is made. */
struct reading {
    struct bk_read *read;
    struct bk_losses losses;
    struct bb_buf body;
    size_t most;
};

static size_t range_of(const struct bk_read *read, uint32_t channel)
{
    size_t i = 0;
    while (i < read->n_ranges && read->ranges[i].channel != channel) {
        i++;
    }
    return i;
}

static void begin_ranges(struct sim_disk *disk, struct bk_read *read)
{
    for (size_t i = 0; i < read->n_ranges; i++) {
        struct bk_read_range *range = &read->ranges[i];
        const struct store_channel *channel = store_channel_of(&disk->store, range->channel);
        range->first =
            channel != NULL && !channel->removed ? store_first(&disk->store, channel) : range->after + 1;
        range->reached = range->after;
        range->events = range->bytes = 0;
        range->at_end = range->after >= range->stop;
    }
}

static bool lies_about_expiry(struct sim_disk *disk, bool is_over)
{
    bool lies = is_over && may_lie(disk, LIE_EXPIRED);
    disk->has_lied = disk->has_lied || lies;
    return lies;
}

/* Return: whether there is no room for it. */
static bool
read_event(struct sim_disk *disk, struct reading *reading, size_t index, const struct store_event *event)
{
    struct bk_read *read = reading->read;
    struct bk_read_range *range = &read->ranges[index];
    uint64_t sequence = event->head.sequence;
    bool matches = bk_filter_matches(read->filter, event->path);
    bool is_over = matches && has_expired(event, read->now);
    is_over = is_over && !lies_about_expiry(disk, is_over);
    size_t len = matches && !is_over ? (size_t)event->head.length : 0;
    if ((reading->body.len > 0 && reading->body.len + len > reading->most) ||
        !bk_losses_have_room(&reading->losses, index)) {
        return true;
    }
    bk_losses_trimmed(&reading->losses, index, range->reached + 1, sequence - 1);
    bk_losses_expired(&reading->losses, index, sequence, sequence, is_over);
    range->reached = sequence;
    range->at_end = sequence == range->stop;
    if (matches && !is_over && may_lie(disk, LIE_READ)) {
        disk->has_lied = true;
    } else if (matches && !is_over) {
        append(&reading->body, event);
        range->events++;
        range->bytes += event->head.length;
        read->n_events++;
    }
    return false;
}

static void end_ranges(struct sim_disk *disk, struct reading *reading)
{
    struct bk_read *read = reading->read;
    for (size_t i = 0; i < read->n_ranges; i++) {
        struct bk_read_range *range = &read->ranges[i];
        const struct store_channel *channel = store_channel_of(&disk->store, range->channel);
        bool exists = channel != NULL && !channel->removed;
        uint64_t last = exists ? channel->last : range->stop == BK_NO_LIMIT ? range->after : range->stop;
        uint64_t to = BB_MIN(last, range->stop);
        if (!range->at_end) {
            bk_losses_trimmed(&reading->losses, i, range->reached + 1, to);
            range->reached = BB_MAX(range->reached, to);
            range->at_end = true;
        }
    }
}

static int answer_read(struct sim_disk *disk, struct bk_read *read)
{
    struct reading reading = {.read = read,
                              .most = disk->temper.is_short ? BB_MIN(read->max_bytes, 400) : read->max_bytes};
    bool is_full = false;
    read->n_events = 0;
    read->body = NULL;
    begin_ranges(disk, read);
    int r = bk_losses_begin(&reading.losses, read);
    for (size_t i = 0; i < disk->store.n_events && !is_full && r == 0; i++) {
        const struct store_event *event = &disk->store.events[i];
        size_t index = event->is_gone ? read->n_ranges : range_of(read, event->channel);
        struct bk_read_range *range = &read->ranges[index];
        if (index == read->n_ranges || range->at_end || event->head.sequence <= range->reached) {
            continue;
        }
        if (event->head.sequence > range->stop || event->head.time > range->stop_time) {
            /* What is missing before it was before it. */
            uint64_t to = BB_MIN(event->head.sequence - 1, range->stop);
            bk_losses_trimmed(&reading.losses, index, range->reached + 1, to);
            range->reached = BB_MAX(range->reached, to);
            range->at_end = true;
        } else {
            is_full = read_event(disk, &reading, index, event);
        }
    }
    if (!is_full && r == 0) {
        end_ranges(disk, &reading);
    }
    bk_losses_end(&reading.losses);
    read->body = bytes_of(disk, &reading.body);
    judge_meets(disk->world, SIZE_MAX, F(from_log));
    return r;
}

/* --- locate ----------------------------------------------------------------------------------- */

static bool is_place(const struct bk_locate *locate, const struct store_event *event)
{
    switch (locate->kind) {
    case BK_LOCATE_TIME:
        return !event->is_gone && event->head.time >= locate->time;
    case BK_LOCATE_ID:
        return !event->is_gone && event->server == locate->id.server &&
               (event->head.session > locate->id.session ||
                (event->head.session == locate->id.session && event->head.instance > locate->id.instance));
    case BK_LOCATE_LAST:
        return !event->is_gone && bk_filter_matches(locate->filter, event->path);
    case BK_LOCATE_PATH:
        return event->is_latest && bb_slice_equal(event->path, locate->path);
    }
    return false;
}

static void answer_locate(struct sim_disk *disk, struct bk_locate *locate)
{
    bool wants_newest = locate->kind == BK_LOCATE_LAST || locate->kind == BK_LOCATE_PATH;
    for (size_t i = 0; i < locate->n_places; i++) {
        struct bk_locate_place *place = &locate->places[i];
        const struct store_channel *channel = store_channel_of(&disk->store, place->channel);
        place->sequence = 0;
        place->last = channel != NULL ? channel->last : 0;
        uint64_t before = 0; /* the newest that is kept */
        for (size_t j = 0; j < disk->store.n_events && (wants_newest || place->sequence == 0); j++) {
            const struct store_event *event = &disk->store.events[j];
            if (event->channel == place->channel && is_place(locate, event)) {
                bool is_id = locate->kind == BK_LOCATE_ID;
                place->sequence = is_id ? before + 1 : event->head.sequence;
            } else if (event->channel == place->channel && !event->is_gone) {
                before = event->head.sequence;
            }
        }
        if (locate->kind == BK_LOCATE_ID && place->sequence == 0 && before == 0 && place->last > 0) {
            place->sequence = 1;
        }
        if (may_lie(disk, LIE_LOCATE) && place->sequence != 0 && place->sequence < place->last) {
            place->sequence = place->last;
            disk->has_lied = true;
        }
    }
}

/* --- query ------------------------------------------------------------------------------------ */

static int compare_paths(const void *left, const void *right)
{
    const struct store_event *a = *(const struct store_event *const *)left;
    const struct store_event *b = *(const struct store_event *const *)right;
    int r = memcmp(a->path.data, b->path.data, BB_MIN(a->path.len, b->path.len));
    return r != 0 ? r : a->path.len < b->path.len ? -1 : a->path.len > b->path.len;
}

/* The event before the latest of its path, NULL if there is none: a lie. */
static const struct store_event *older_of(const struct store *store, const struct store_event *latest)
{
    const struct store_event *older = NULL;
    for (size_t i = 0; i < store->n_events && &store->events[i] != latest; i++) {
        const struct store_event *event = &store->events[i];
        older =
            event->channel == latest->channel && !event->is_gone && bb_slice_equal(event->path, latest->path)
                ? event
                : older;
    }
    return older;
}

static int find_latest(struct sim_disk *disk, struct bk_find *find)
{
    const struct store_event **list = calloc(disk->store.n_events + 1, sizeof(*list));
    size_t n = 0;
    int r = 0;
    for (size_t i = 0; i < disk->store.n_events && list != NULL; i++) {
        const struct store_event *event = &disk->store.events[i];
        if (event->is_latest && bk_find_wants_channel(find, event->channel) &&
            bk_find_wants_path(find, event->path)) {
            list[n++] = event;
        }
    }
    qsort(list, n, sizeof(*list), compare_paths);
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct store_event *older = may_lie(disk, LIE_LATEST) ? older_of(&disk->store, list[i]) : NULL;
        const struct store_event *event = older != NULL ? older : list[i];
        disk->has_lied = disk->has_lied || older != NULL;
        r = bk_find_latest(find, event->server, &event->head,
                           bb_slice(event->raw, (size_t)event->head.length));
    }
    free(list);
    return r;
}

static int find_events(struct sim_disk *disk, struct bk_find *find)
{
    bool descends = bk_find_is_descending(find);
    size_t n = disk->store.n_events;
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        const struct store_event *event = &disk->store.events[descends ? n - 1 - i : i];
        if (event->is_gone || !bk_find_wants_channel(find, event->channel)) {
            continue;
        }
        r = bk_find_block(find, event->server, &event->head,
                          bb_slice(event->raw, (size_t)event->head.length));
    }
    return r;
}

/* Without its first block. */
static void spoil_answer(struct sim_disk *disk, struct bk_query *query)
{
    struct bb_slice rest =
        query->body != NULL ? bb_slice(query->body->data, query->body->len) : (struct bb_slice){0};
    struct bb_block head;
    if (!may_lie(disk, LIE_QUERY) || rest.len == 0 || bb_block_read(&rest, &head) < 0 ||
        rest.len == head.length) {
        return;
    }
    disk->has_lied = true;
    query->n_events -= head.count;
    query->body->data += rest.data + head.length - query->body->data;
    query->body->len = rest.len - (size_t)head.length;
}

static int answer_query(struct sim_disk *disk, struct bk_query *query)
{
    struct bk_find *find = NULL;
    query->body = NULL;
    query->n_events = 0;
    query->more = false;
    int r = bk_find_new(query, &find);
    if (r < 0) {
        return r;
    }
    r = query->query->kind == BB_QUERY_LATEST ? find_latest(disk, find) : find_events(disk, find);
    if (r >= 0) {
        r = bk_find_end(find, query, &disk->meter);
        spoil_answer(disk, query);
    }
    bk_find_free(find);
    return r;
}

/* --- the rest --------------------------------------------------------------------------------- */

static int answer_trim(struct sim_disk *disk, struct bk_trim *trim)
{
    struct store_channel *channel = store_channel_of(&disk->store, trim->channel);
    if (channel == NULL || channel->removed) {
        return BB_ENOTFOUND;
    }
    uint64_t first = store_first(&disk->store, channel);
    if (may_lie(disk, LIE_TRIM) && trim->before <= channel->last) {
        disk->has_lied = true;
        store_trim(&disk->store, trim->channel, trim->before + 1);
    }
    store_trim(&disk->store, trim->channel, trim->before);
    trim->first = store_first(&disk->store, channel);
    if (trim->first != first) {
        disk->listener->trimmed(disk->listener->context, channel->id, trim->first);
    }
    return 0;
}

static int answer_upkeep(struct sim_disk *disk, struct bk_upkeep *upkeep)
{
    if (upkeep->request.kind == BK_REQUEST_SNAPSHOT) {
        store_copy(&disk->copy, &disk->store);
        disk->has_copy = true;
        disk->copy_generation = disk->generation;
        disk->copied_at = disk->now;
    }
    bb_mp_write_map(&upkeep->report, 0);
    return 0;
}

static int work(struct sim_disk *disk, struct bk_request *request)
{
    bool is_damaged = disk->temper.is_corrupt && !disk->is_calm && sim_chance(&disk->rng, 100);
    switch (request->kind) {
    case BK_REQUEST_READ:
        disk->n_corrupt += is_damaged;
        if (is_damaged) {
            return BB_ECORRUPT;
        }
        return answer_read(disk, BB_CONTAINER(request, struct bk_read, request));
    case BK_REQUEST_LOCATE:
        answer_locate(disk, BB_CONTAINER(request, struct bk_locate, request));
        return 0;
    case BK_REQUEST_QUERY:
        disk->n_corrupt += is_damaged;
        return is_damaged ? BB_ECORRUPT : answer_query(disk, BB_CONTAINER(request, struct bk_query, request));
    case BK_REQUEST_TRIM:
        return answer_trim(disk, BB_CONTAINER(request, struct bk_trim, request));
    case BK_REQUEST_SNAPSHOT:
    case BK_REQUEST_COMPACT:
    case BK_REQUEST_VERIFY:
        return answer_upkeep(disk, BB_CONTAINER(request, struct bk_upkeep, request));
    case BK_REQUEST_FLUSH:
        return 0;
    }
    return BB_EUNSUPPORTED;
}

void disk_answer(struct sim_disk *disk, struct bk_request *request)
{
    request->error = work(disk, request);
    request->done(request->context, request);
}

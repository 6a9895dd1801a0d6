/* SPDX-License-Identifier: Apache-2.0 */
/* The apply thread: journal records into the tables, retention, trimming, compaction, and the watch over room. */
#include "broker/backend/lmdb/state.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <time.h>

/* What may wait is what is taken in in this time, but at least some transactions: with paths that are all different it is far
 * less than the journal holds, and opening after a crash would take as long as all of it. */
#define BACKLOG_US  300000
#define BACKLOG_MIN (2 * BK_APPLY_BYTES)

#define RETAIN_BUDGET ((size_t)256)

/* Percent of the map: where it is full, and how much of it must be free until it is not any more. */
#define FULL_PERCENT  90
#define AGAIN_PERCENT 5

/* What is registered takes so much with its indexes and the pages that are written anew. */
#define ROOM_FACTOR 2

/* --- the apply thread ----------------------------------------------------------------------------------- */

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct lmdb *lmdb = context;
    (void)pthread_mutex_lock(&lmdb->mutex);
    struct news *news = bk_lmdb_news(lmdb, NEWS_TRIMMED);
    news->channel = channel;
    news->first = first;
    (void)pthread_mutex_unlock(&lmdb->mutex);
}

/* Bytes that may come until @limit is reached, none if there is not more than @slack of it. */
static uint64_t room_below(uint64_t limit, uint64_t used, uint64_t slack)
{
    return used + slack < limit ? limit - used : 0;
}

void bk_lmdb_look(struct lmdb *lmdb, struct room *room)
{
    struct bk_store_sizes sizes = {0};
    struct statvfs disk;
    bool was_full = room->is_full;
    *room = (struct room){.bytes = UINT64_MAX, .text = "there is room again"};
    if (bk_store_sizes(lmdb->store, &sizes) == 0) {
        uint64_t limit = sizes.map / 100 * FULL_PERCENT;
        room->bytes = room_below(limit, sizes.used, was_full ? sizes.map / 100 * AGAIN_PERCENT : 0);
        if (room->bytes == 0) {
            (void)snprintf(room->text, sizeof(room->text),
                           "%" PRIu64 " of %" PRIu64 " bytes are used; trim channels or raise map-size",
                           sizes.used, sizes.map);
        }
    }
    if (statvfs(lmdb->directory, &disk) == 0) { /* what the file has free already is not asked of the disk */
        uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
        uint64_t all = (uint64_t)disk.f_blocks * disk.f_frsize;
        uint64_t reserve = BB_MIN(lmdb->values[OPTION_RESERVE], all / 16);
        uint64_t left = room_below(free_bytes + sizes.free, reserve, was_full ? reserve / 4 : 0);
        if (left == 0 && room->bytes > 0) {
            (void)snprintf(room->text, sizeof(room->text),
                           "the disk has %" PRIu64 " bytes left; trim channels, make room or lower reserve",
                           free_bytes);
        }
        room->bytes = BB_MIN(room->bytes, left);
    }
    room->is_full = room->bytes == 0;
    room->bytes /= ROOM_FACTOR;
}

/* With the mutex, as a user of the store. */
static void watch(struct lmdb *lmdb)
{
    struct room room = lmdb->room;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    bk_lmdb_look(lmdb, &room);
    (void)pthread_mutex_lock(&lmdb->mutex);
    bool was_full = lmdb->room.is_full;
    lmdb->room = room;
    if (room.is_full != was_full) {
        bk_lmdb_tell_state(lmdb, room.is_full ? BK_BACKEND_FULL : BK_BACKEND_OK, room.text);
    }
}

/* Up to BK_APPLY_BYTES of what waits, in one transaction. */
static int apply_some(struct lmdb *lmdb)
{
    size_t n = 0;
    size_t bytes = 0;
    for (const struct record *record = lmdb->records; record != NULL && (n == 0 || bytes < BK_APPLY_BYTES);
         record = record->next) {
        bytes += record->payload.len;
        n++;
    }
    struct bk_store_input *inputs = n > 0 ? calloc(n, sizeof(*inputs)) : NULL;
    if (inputs == NULL) {
        return n > 0 ? BB_ENOMEM : 0;
    }
    const struct record *record = lmdb->records;
    for (size_t i = 0; i < n; i++, record = record->next) {
        inputs[i] = (struct bk_store_input){record->number, bb_buf_slice(&record->payload)};
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    uint64_t begun = bk_lmdb_now();
    int r = bk_store_apply(lmdb->store, inputs, n); /* only this thread takes records off the list */
    uint64_t taken = BB_MAX(bk_lmdb_now() - begun, 1);
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (r == 0) {
        if (bytes >= BK_APPLY_BYTES) { /* smaller ones say little */
            uint64_t soon = bytes * BACKLOG_US / taken;
            lmdb->backlog_max = (size_t)BB_MAX((lmdb->backlog_max * 7 + soon) / 8, BACKLOG_MIN);
        }
        lmdb->applied = inputs[n - 1].number;
        bk_lmdb_records_drop(lmdb, lmdb->applied);
        (void)pthread_cond_broadcast(&lmdb->moved);
    }
    free(inputs);
    return r;
}

/* Once: it is tried again and again. Lack of room is told as a state. */
static void tell_retain(struct lmdb *lmdb, int error)
{
    if (error != 0 && error != lmdb->retain_error && error != BB_ELOGFULL) {
        struct news *news = bk_lmdb_news(lmdb, NEWS_LOG);
        (void)snprintf(news->text, sizeof(news->text),
                       "nothing is removed from the log: %s; \"busbar log verify\" may know more",
                       bb_strerror(error));
    }
    lmdb->retain_error = error;
}

static int retain(struct lmdb *lmdb)
{
    size_t done = 0;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    int r =
        bk_store_retain(lmdb->store, (uint64_t)bb_clock_wall_us(), RETAIN_BUDGET, on_trimmed, lmdb, &done);
    (void)pthread_mutex_lock(&lmdb->mutex);
    tell_retain(lmdb, r);
    return r < 0 ? r : (int)(done >= RETAIN_BUDGET);
}

static int trim(struct lmdb *lmdb, struct bk_trim *request)
{
    bool more = true;
    int r = 0;
    while (more && r == 0) {
        r = bk_store_trim(lmdb->store, request->channel, request->before, RETAIN_BUDGET, &request->first,
                          &more);
    }
    if (r == 0) {
        on_trimmed(lmdb, request->channel, request->first);
    }
    return r;
}

static void run_upkeep(struct lmdb *lmdb)
{
    struct bk_request *request = lmdb->upkeep;
    struct bb_buf err = BB_BUF_INIT;
    int r = 0;
    lmdb->upkeep = request->next;
    if (lmdb->upkeep == NULL) {
        lmdb->upkeep_end = &lmdb->upkeep;
    }
    if (request->kind == BK_REQUEST_TRIM) {
        (void)pthread_mutex_unlock(&lmdb->mutex);
        r = trim(lmdb, BB_CONTAINER(request, struct bk_trim, request));
        (void)pthread_mutex_lock(&lmdb->mutex);
    } else {
        bk_lmdb_be_alone(lmdb, 1);
        (void)pthread_mutex_unlock(&lmdb->mutex);
        r = bk_store_compact(lmdb->store, &err);
        (void)pthread_mutex_lock(&lmdb->mutex);
        bk_lmdb_be_together(lmdb);
    }
    bb_buf_fini(&err);
    bk_lmdb_tell_done(lmdb, request, r);
    if (r < 0 && lmdb->store->env == NULL) {
        bk_lmdb_fail(lmdb, r);
    }
}

/* When something is to be done at the latest. */
static uint64_t apply_due(const struct lmdb *lmdb, uint64_t retain_at)
{
    if (lmdb->records == NULL) {
        return retain_at;
    }
    bool soon = lmdb->apply_now || lmdb->record_bytes >= BK_APPLY_SOON_BYTES || lmdb->is_ending;
    uint64_t at = soon ? 0 : lmdb->records->at + lmdb->values[OPTION_APPLY_INTERVAL];
    return BB_MIN(at, retain_at);
}

static void wait_until(struct lmdb *lmdb, uint64_t at)
{
    uint64_t now = bk_lmdb_now();
    if (at <= now) {
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(at / 1000000), .tv_nsec = (long)(at % 1000000) * 1000};
    (void)pthread_cond_timedwait(&lmdb->to_apply, &lmdb->mutex, &until); /* its clock is the monotonic one */
}

/* One turn as a user of the store. Returns when to have the next one at the latest. */
static uint64_t apply_turn(struct lmdb *lmdb, uint64_t retain_at)
{
    uint64_t now = bk_lmdb_now();
    int r = 0;
    bool is_due = lmdb->records != NULL && apply_due(lmdb, UINT64_MAX) <= now;
    if (is_due) {
        r = apply_some(lmdb);
        if (r == 0) {
            watch(lmdb);
        }
        lmdb->apply_now = lmdb->apply_now && lmdb->records != NULL;
    }
    if (r == 0 && lmdb->upkeep != NULL && lmdb->records == NULL) {
        run_upkeep(lmdb);
    }
    if (r == BB_ELOGFULL || now >= retain_at) {
        int more = retain(lmdb);
        if (r != BB_ELOGFULL) {
            watch(lmdb);
        } else if (!lmdb->room.is_full) { /* until it takes something again */
            lmdb->room.is_full = true;
            bk_lmdb_tell_state(lmdb, BK_BACKEND_FULL, "the tables cannot take more");
        }
        bool again = more > 0 || r == BB_ELOGFULL;
        retain_at = bk_lmdb_now() + (again ? 10000 : lmdb->values[OPTION_RETAIN_INTERVAL]);
        if (r == BB_ELOGFULL && !lmdb->is_ending) {
            wait_until(lmdb, retain_at);
        }
    }
    if (r < 0 && r != BB_ELOGFULL) {
        bk_lmdb_fail(lmdb, r);
    }
    return retain_at;
}

void *bk_lmdb_apply_run(void *arg)
{
    struct lmdb *lmdb = arg;
    uint64_t retain_at = bk_lmdb_now() + lmdb->values[OPTION_RETAIN_INTERVAL];
    bk_lmdb_give_way();
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!lmdb->is_ending || (lmdb->records != NULL && !lmdb->has_failed)) {
        if (!bk_lmdb_enter(lmdb)) {
            break;
        }
        uint64_t full_before = lmdb->room.is_full;
        retain_at = apply_turn(lmdb, retain_at);
        bk_lmdb_leave(lmdb);
        if (lmdb->is_ending && full_before && lmdb->records != NULL) {
            break; /* it stays in the journal */
        }
        if (!lmdb->is_ending && (lmdb->upkeep == NULL || lmdb->records != NULL)) {
            wait_until(lmdb, lmdb->upkeep != NULL ? 0 : apply_due(lmdb, retain_at));
        }
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

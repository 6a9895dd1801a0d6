/* SPDX-License-Identifier: Apache-2.0 */
/* The apply thread: journal records into the tables, retention, trimming, compaction, and the watch over
 * room. */
#include "broker/backend/lmdb/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* What may wait is what is taken in in this time, but at least some transactions: with paths that are all
 * different it is far less than the journal holds, and opening after a crash would take as long as all of it. */
#define BACKLOG_US  300000
#define BACKLOG_MIN (2 * BK_APPLY_BYTES)

/* Records removed in one transaction; it begins anew with fewer where there is no room for what that
 * writes. */
#define RETAIN_BUDGET ((size_t)256)

/* Tables that cannot take more are tried again so often. */
#define STUCK_US 10000

/* Where the size of a transaction begins to grow again, after there was no room for a larger one. */
#define PIECE_MIN ((size_t)4096)

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

/* Up to @max bytes of what waits, at least one record, in one transaction. */
static int take_in(struct lmdb *lmdb, size_t max, size_t *ret_n)
{
    size_t n = 0;
    size_t bytes = 0;
    for (const struct record *record = lmdb->records; record != NULL && (n == 0 || bytes < max);
         record = record->next) {
        bytes += bk_lmdb_payload(record).len;
        n++;
    }
    *ret_n = n;
    struct bk_store_input *inputs = n > 0 ? calloc(n, sizeof(*inputs)) : NULL;
    if (inputs == NULL) {
        return n > 0 ? BB_ENOMEM : 0;
    }
    const struct record *record = lmdb->records;
    for (size_t i = 0; i < n; i++, record = record->next) {
        inputs[i] = (struct bk_store_input){record->number, bk_lmdb_payload(record)};
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
        lmdb->room.bytes -= BB_MIN(lmdb->room.bytes, bytes); /* until bk_lmdb_watch() has looked */
        (void)pthread_cond_broadcast(&lmdb->moved);
    }
    free(inputs);
    return r;
}

/* Some of what waits. What is too much for the room there is is tried in smaller pieces, down to a record. */
static int apply_some(struct lmdb *lmdb, size_t *max)
{
    size_t n = 0;
    int r = 0;
    while ((r = take_in(lmdb, *max, &n)) == BB_ELOGFULL && n > 1) {
        *max /= 4;
    }
    if (r == 0) {
        *max = BB_MIN(BB_MAX(2 * *max, PIECE_MIN), BK_APPLY_BYTES);
        bk_lmdb_watch(lmdb);
    }
    bool is_stuck = r == BB_ELOGFULL;
    if (is_stuck) { /* until it takes something again */
        bk_lmdb_be_full(lmdb, 0, "the tables cannot take more; trim channels, make room or raise map-size");
    }
    lmdb->is_stuck = is_stuck;
    return r;
}

/* Whether there is a smaller budget to try when there was no room for what @budget removes. */
static bool try_less(int r, size_t *budget)
{
    bool has_less = r == BB_ELOGFULL && *budget > 1;
    *budget = has_less ? *budget / 4 : *budget;
    return has_less;
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

/* Return: 1: there is more to remove; 0; or an error. */
static int retain(struct lmdb *lmdb)
{
    size_t budget = RETAIN_BUDGET;
    size_t done = 0;
    int r = 0;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    do {
        r = bk_store_retain(lmdb->store, bk_lmdb_wall(lmdb), budget, on_trimmed, lmdb, &done);
    } while (try_less(r, &budget));
    (void)pthread_mutex_lock(&lmdb->mutex);
    tell_retain(lmdb, r);
    return r < 0 ? r : (int)(done >= budget);
}

/* Without the mutex. */
static int trim(struct lmdb *lmdb, struct bk_trim *request)
{
    size_t budget = RETAIN_BUDGET;
    uint64_t told = request->first;
    bool more = true;
    int r = 0;
    while (r == 0 && more) {
        uint64_t first = 0;
        r = bk_store_trim(lmdb->store, request->channel, request->before, budget, &first, &more);
        if (r == 0) {
            request->first = first;
        } else if (try_less(r, &budget)) {
            more = true;
            r = 0;
        }
    }
    if (request->first > told) {
        on_trimmed(lmdb, request->channel, request->first);
    }
    return r;
}

/*
 * A request sees what was durable when it came. Tables that are stuck may not have all of that; but waiting
 * for it would be for ever, since it is trimming that makes the room. Return: 1: try again to take in the
 * rest; 0; or an error.
 */
static int run_trim(struct lmdb *lmdb, struct bk_trim *request)
{
    uint64_t first = request->first;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    int r = trim(lmdb, request);
    (void)pthread_mutex_lock(&lmdb->mutex);
    bool has_all = lmdb->applied >= request->request.barrier || (r == 0 && request->first >= request->before);
    if (has_all || (r != 0 && r != BB_ENOTFOUND)) {
        return r;
    }
    return request->first > first ? 1 : BB_ELOGFULL; /* the journal has more of it */
}

static int run_compact(struct lmdb *lmdb)
{
    struct bb_buf err = BB_BUF_INIT;
    bk_lmdb_be_alone(lmdb, 1);
    (void)pthread_mutex_unlock(&lmdb->mutex);
    int r = bk_store_compact(lmdb->store, &err);
    (void)pthread_mutex_lock(&lmdb->mutex);
    bk_lmdb_be_together(lmdb);
    bb_buf_fini(&err);
    return r;
}

/* The first request, if it is its turn. Return: whether the tables are to be tried again at once. */
static bool run_upkeep(struct lmdb *lmdb)
{
    struct bk_request *request = lmdb->upkeep;
    if (request == NULL || (lmdb->applied < request->barrier && !lmdb->is_stuck)) {
        return false;
    }
    int r = request->kind == BK_REQUEST_TRIM ? run_trim(lmdb, BB_CONTAINER(request, struct bk_trim, request))
                                             : run_compact(lmdb);
    if (r > 0) {
        return true;
    }
    lmdb->upkeep = request->next;
    if (lmdb->upkeep == NULL) {
        lmdb->upkeep_end = &lmdb->upkeep;
    }
    if (r == 0 && !lmdb->is_stuck) {
        bk_lmdb_watch(lmdb); /* there is room when it is answered */
    }
    bk_lmdb_tell_done(lmdb, request, r);
    if (r < 0 && lmdb->store->env == NULL) {
        bk_lmdb_fail(lmdb, r);
    }
    return false;
}

/* What the apply thread keeps from turn to turn. */
struct pace {
    uint64_t retain_at;
    uint64_t again_at; /* tables that are stuck are not tried before */
    size_t max;        /* bytes of records for one transaction */
};

/* When records are to be taken in at the latest. */
static uint64_t apply_due(const struct lmdb *lmdb, const struct pace *pace)
{
    if (lmdb->records == NULL) {
        return UINT64_MAX;
    }
    bool soon = lmdb->apply_now || lmdb->record_bytes >= BK_APPLY_SOON_BYTES || lmdb->is_ending;
    uint64_t at = soon ? 0 : lmdb->records->at + lmdb->values[OPTION_APPLY_INTERVAL];
    return BB_MAX(at, pace->again_at);
}

/* Until there is something to do. */
static void wait_for_work(struct lmdb *lmdb, const struct pace *pace)
{
    uint64_t at = lmdb->upkeep != NULL ? 0 : BB_MIN(apply_due(lmdb, pace), pace->retain_at);
    if (at > bk_lmdb_now()) {
        struct timespec until = {.tv_sec = (time_t)(at / 1000000), .tv_nsec = (long)(at % 1000000) * 1000};
        (void)pthread_cond_timedwait(&lmdb->to_apply, &lmdb->mutex,
                                     &until); /* its clock is the monotonic one */
    }
}

/* One turn as a user of the store. */
static void apply_turn(struct lmdb *lmdb, struct pace *pace)
{
    uint64_t now = bk_lmdb_now();
    if (apply_due(lmdb, pace) <= now) {
        int r = apply_some(lmdb, &pace->max);
        if (r < 0 && !lmdb->is_stuck) {
            bk_lmdb_fail(lmdb, r);
            return;
        }
        pace->again_at = lmdb->is_stuck ? now + STUCK_US : 0;
    }
    lmdb->apply_now = lmdb->apply_now && lmdb->records != NULL; /* not for what comes later */
    if (run_upkeep(lmdb)) {
        pace->again_at = 0;
    }
    if (now >= pace->retain_at && lmdb->applied < lmdb->channels_at && !lmdb->is_stuck) {
        lmdb->apply_now = true; /* what is acknowledged of channels says what they keep */
    } else if (lmdb->is_stuck || now >= pace->retain_at) {
        bool again = retain(lmdb) > 0 || lmdb->is_stuck;
        if (!lmdb->is_stuck) {
            bk_lmdb_watch(lmdb);
        }
        pace->retain_at = bk_lmdb_now() + (again ? STUCK_US : lmdb->values[OPTION_RETAIN_INTERVAL]);
    }
}

/* Nothing more comes, and nothing is left that could be taken in. */
static bool is_over(const struct lmdb *lmdb)
{
    return lmdb->has_committed && (lmdb->records == NULL || lmdb->has_failed);
}

void *bk_lmdb_apply_run(void *arg)
{
    struct lmdb *lmdb = arg;
    struct pace pace = {.max = BK_APPLY_BYTES,
                        .retain_at = bk_lmdb_now() + lmdb->values[OPTION_RETAIN_INTERVAL]};
    bk_lmdb_give_way();
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!is_over(lmdb)) {
        if (!bk_lmdb_enter(lmdb)) {
            break;
        }
        apply_turn(lmdb, &pace);
        bk_lmdb_leave(lmdb);
        if (lmdb->is_ending && lmdb->is_stuck) {
            break; /* it stays in the journal */
        }
        if (!is_over(lmdb)) {
            wait_for_work(lmdb, &pace);
        }
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

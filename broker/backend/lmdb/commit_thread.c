/* SPDX-License-Identifier: Apache-2.0 */
/* The commit thread: group commit into the journal, and opening again what has failed. */
#include "broker/backend/lmdb/state.h"

#include <stdlib.h>
#include <time.h>

/* One journal record: enough to fill the disk's pipe, small enough to be on its way soon. */
#define COMMIT_BYTES ((size_t)1 << 20)

/* Behind a larger commit the next one is not far: then the owner's own thread acknowledges, and this one
 * is ready for the disk. */
#define OFFER_BYTES ((size_t)16 << 10)

#define REOPEN_MIN_US 100000
#define REOPEN_MAX_US 5000000

/* --- opening and recovering ------------------------------------------------------------------------ */

static void commits_fail(struct lmdb *lmdb, int error)
{
    if (lmdb->commits == NULL) {
        return;
    }
    struct news *news = bk_lmdb_news(lmdb, NEWS_FLUSHED);
    news->ticket = lmdb->commits->ticket;
    news->error = error;
    while (lmdb->commits != NULL) {
        struct commit *commit = lmdb->commits;
        lmdb->commits = commit->next;
        bb_buf_fini(&commit->bytes);
        free(commit);
    }
    lmdb->commits_end = &lmdb->commits;
    lmdb->commit_bytes = 0;
}

/* Without the mutex. All of it, or nothing and a sentence. */
static int open_again(struct lmdb *lmdb,
                      struct bk_store **ret_store,
                      struct bk_journal **ret_journal,
                      struct bk_numbers **ret_numbers,
                      struct bb_buf *err)
{
    int r = bk_lmdb_open_files(lmdb, ret_store, ret_journal, err);
    if (r < 0) {
        return r;
    }
    r = bk_lmdb_load_numbers(*ret_store, ret_numbers);
    if (r < 0) {
        bb_buf_printf(err, "%s: what is stored cannot be read: %s", lmdb->directory, bb_strerror(r));
        bk_journal_close(*ret_journal);
        bk_store_close(*ret_store);
        *ret_journal = NULL;
        *ret_store = NULL;
    }
    return r;
}

/* Why it cannot be opened again, if that is something new. */
static void tell_why(struct lmdb *lmdb, int error, struct bb_buf *err)
{
    const char *text = err->len > 0 && err->error == 0 ? bb_buf_string(err) : bb_strerror(error);
    if (strncmp(lmdb->why, text, sizeof(lmdb->why) - 1) != 0) {
        bk_lmdb_tell_state(lmdb, BK_BACKEND_FAILED, text);
    }
    bb_buf_fini(err);
}

/* With the mutex, which is given up. */
static void pause_for(struct lmdb *lmdb, uint64_t us)
{
    uint64_t at = bk_lmdb_now() + us;
    struct timespec until = {.tv_sec = (time_t)(at / 1000000), .tv_nsec = (long)(at % 1000000) * 1000};
    if (!lmdb->is_ending) {
        (void)pthread_cond_timedwait(&lmdb->to_commit, &lmdb->mutex,
                                     &until); /* its clock is the monotonic one */
    }
}

static void commits_take(struct lmdb *lmdb, uint64_t last)
{
    while (lmdb->commits != NULL && lmdb->commits->ticket <= last) {
        struct commit *commit = lmdb->commits;
        lmdb->commits = commit->next;
        lmdb->commit_bytes -= commit->size;
        bb_buf_fini(&commit->bytes);
        free(commit);
    }
    if (lmdb->commits == NULL) {
        lmdb->commits_end = &lmdb->commits;
    }
}

/* Close what has failed and read again what is on the disk. The commits that were being written, up to @last
 * with the number
 * @number, are decided by what is found. */
static void reopen(struct lmdb *lmdb, uint64_t number, uint64_t last)
{
    uint64_t pause = REOPEN_MIN_US;
    struct bk_store *store = NULL;
    struct bk_journal *journal = NULL;
    struct bk_numbers *numbers = NULL;
    struct room room = lmdb->room;
    bk_lmdb_be_alone(lmdb, 0);
    bk_journal_close(lmdb->journal);
    bk_store_close(lmdb->store);
    lmdb->journal = NULL;
    lmdb->store = NULL;
    while (!lmdb->is_ending) {
        struct bb_buf err = BB_BUF_INIT;
        (void)pthread_mutex_unlock(&lmdb->mutex);
        int r = open_again(lmdb, &store, &journal, &numbers, &err);
        (void)pthread_mutex_lock(&lmdb->mutex);
        if (r == 0) {
            bb_buf_fini(&err);
            break;
        }
        tell_why(lmdb, r, &err);
        pause_for(lmdb, pause);
        pause = BB_MIN(2 * pause, REOPEN_MAX_US);
    }
    lmdb->store = store;
    lmdb->journal = journal;
    if (store != NULL) {
        lmdb->applied = lmdb->durable = bk_store_applied(store);
        bk_lmdb_records_drop(lmdb, lmdb->applied);
        (void)pthread_mutex_unlock(&lmdb->mutex);
        bk_lmdb_look(lmdb, &room);
        (void)pthread_mutex_lock(&lmdb->mutex);
        room.needed = 0;
        lmdb->room = room;
        lmdb->is_stuck = false;
        lmdb->channels_at = 0;
    }
    if (last != 0 && store != NULL && lmdb->applied >= number) { /* it was durable after all */
        commits_take(lmdb, last);
        bk_lmdb_news(lmdb, NEWS_FLUSHED)->ticket = last;
    }
    commits_fail(lmdb, BB_ELOGFAILED);
    lmdb->has_failed = false;
    bk_lmdb_be_together(lmdb);
    if (store != NULL) {
        bk_lmdb_news(lmdb, NEWS_RELOAD)->numbers = numbers;
        bk_lmdb_tell_state(lmdb, room.is_full ? BK_BACKEND_FULL : BK_BACKEND_OK,
                           room.is_full ? room.text : "it was opened again and read");
    }
}

/* --- the commit thread ---------------------------------------------------------------------------------- */

static struct bb_slice payload_of(const struct commit *commit)
{
    return commit->is_record ? bk_journal_payload(&commit->bytes) : bb_buf_slice(&commit->bytes);
}

/*
 * What is queued, up to COMMIT_BYTES, as one record; the ticket that it goes up to. What it is taken from is
 * not written again, whatever becomes of it.
 */
static uint64_t gather(struct lmdb *lmdb, struct bb_buf *bytes, bool *ret_has_channels)
{
    size_t max = BB_MIN(COMMIT_BYTES, lmdb->payload_max);
    struct commit *first = lmdb->commits;
    size_t size = first->size;
    struct commit *end = first->next;
    uint64_t last = first->ticket;
    *ret_has_channels = first->has_channels;
    for (; end != NULL && size + end->size <= max; end = end->next) {
        *ret_has_channels = *ret_has_channels || end->has_channels;
        size += end->size;
        last = end->ticket;
    }
    if (end == first->next && first->is_record) {
        *bytes = first->bytes;
        first->bytes = BB_BUF_INIT;
        return last;
    }
    bk_journal_buffer(bytes, size);
    for (const struct commit *commit = first; commit != end; commit = commit->next) {
        bb_buf_append(bytes, payload_of(commit).data, payload_of(commit).len);
    }
    return last;
}

static void hand_on(struct lmdb *lmdb, struct record *record)
{
    *lmdb->records_end = record;
    lmdb->records_end = &record->next;
    bool was_soon = lmdb->record_bytes >= BK_APPLY_SOON_BYTES;
    bool was_empty = lmdb->record_bytes == 0;
    lmdb->record_bytes += bk_lmdb_payload(record).len;
    lmdb->durable = record->number;
    if (was_empty || (!was_soon && lmdb->record_bytes >= BK_APPLY_SOON_BYTES)) {
        (void)pthread_cond_signal(&lmdb->to_apply);
    }
}

/* As long as the tables have more than they can take in soon: opening again after a crash has all of it to
 * take in. */
static void let_tables_follow(struct lmdb *lmdb)
{
    while (lmdb->record_bytes > lmdb->backlog_max && !lmdb->has_failed &&
           !(lmdb->is_ending && lmdb->is_stuck)) { /* then they will not have more of it */
        lmdb->apply_now = true;
        (void)pthread_cond_signal(&lmdb->to_apply);
        (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
    }
}

/* Write one record; without the mutex while the disk is at work. Return: 0, or why the log must be opened
 * again. */
static int commit_one(struct lmdb *lmdb, uint64_t *ret_number, uint64_t *ret_last)
{
    struct record *record = calloc(1, sizeof(*record));
    if (record == NULL) {
        return BB_ENOMEM;
    }
    bool has_channels = false;
    uint64_t last = gather(lmdb, &record->bytes, &has_channels);
    int r = record->bytes.error;
    uint64_t begun = bk_lmdb_now();
    *ret_last = last;
    *ret_number = bk_journal_next(lmdb->journal);
    while (r == 0) {
        uint64_t applied = lmdb->applied;
        (void)pthread_mutex_unlock(&lmdb->mutex);
        r = bk_journal_append(lmdb->journal, &record->bytes, applied, &record->number);
        (void)pthread_mutex_lock(&lmdb->mutex);
        if (r != BB_EAGAIN || lmdb->has_failed) {
            break;
        }
        lmdb->apply_now = true; /* the journal is full until the store has more of it */
        (void)pthread_cond_signal(&lmdb->to_apply);
        while (lmdb->applied == applied && !lmdb->has_failed && !(lmdb->is_ending && lmdb->is_stuck)) {
            (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
        }
        r = lmdb->applied == applied && !lmdb->has_failed ? BB_ELOGFULL : 0; /* it will not have more of it */
    }
    if (r < 0) {
        bb_buf_fini(&record->bytes);
        free(record);
        return r;
    }
    record->at = bk_lmdb_now();
    lmdb->n_commits++;
    lmdb->commit_us += record->at - begun;
    lmdb->commit_max_us = BB_MAX(lmdb->commit_max_us, record->at - begun);
    bool is_small = bk_lmdb_payload(record).len < OFFER_BYTES;
    commits_take(lmdb, last);
    bk_lmdb_news_quietly(lmdb, NEWS_FLUSHED)->ticket = last;
    hand_on(lmdb, record);
    lmdb->channels_at = has_channels ? record->number : lmdb->channels_at;
    bk_lmdb_announce(lmdb, is_small && lmdb->commits == NULL);
    return 0;
}

void *bk_lmdb_commit_run(void *arg)
{
    struct lmdb *lmdb = arg;
    (void)pthread_mutex_lock(&lmdb->mutex);
    for (;;) {
        uint64_t number = 0;
        uint64_t last = 0;
        if (lmdb->has_failed) {
            reopen(lmdb, 0, 0);
            continue;
        }
        if (lmdb->commits == NULL) {
            if (lmdb->is_ending) {
                break;
            }
            (void)pthread_cond_wait(&lmdb->to_commit, &lmdb->mutex);
            continue;
        }
        if (lmdb->journal == NULL) {
            commits_fail(lmdb, BB_ELOGFAILED);
            continue;
        }
        let_tables_follow(lmdb);
        if (lmdb->has_failed) {
            continue;
        }
        int r = commit_one(lmdb, &number, &last);
        if (r == BB_ELOGFULL) {
            commits_fail(lmdb, r);
        } else if (r < 0) {
            bk_lmdb_fail(lmdb, r);
            reopen(lmdb, number, last);
        }
    }
    lmdb->has_committed = true;
    (void)pthread_cond_signal(&lmdb->to_apply);
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/lmdb.h"

#include "proto/base/error.h"
#include "proto/base/time.h"
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/lmdb/journal.h"
#include "broker/backend/lmdb/numbers.h"
#include "broker/backend/lmdb/query.h"
#include "broker/backend/lmdb/read.h"
#include "broker/backend/lmdb/store.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

/* One journal record: enough to fill the disk's pipe, small enough to be on its way soon. */
#define COMMIT_BYTES ((size_t)1 << 20)

/* One transaction of the store. */
#define APPLY_BYTES ((size_t)8 << 20)

/* So much waiting for the store is taken in at once. */
#define APPLY_SOON_BYTES ((size_t)4 << 20)

#define RETAIN_BUDGET ((size_t)256)

/* Percent of the map. */
#define FULL_PERCENT  90
#define AGAIN_PERCENT 85

#define REOPEN_MIN_US 100000
#define REOPEN_MAX_US 5000000

enum option {
    OPTION_MAP_SIZE,
    OPTION_RESERVE,
    OPTION_JOURNAL_SIZE,
    OPTION_APPLY_INTERVAL,
    OPTION_RETAIN_INTERVAL,
    OPTION_QUEUE_SIZE,
    OPTIONS
};

#define MIB ((uint64_t)1 << 20)

/* clang-format off */
static const struct bk_backend_option options[] = {
    [OPTION_MAP_SIZE] = {"map-size", BK_OPTION_SIZE, MIB, (uint64_t)1 << 46, (uint64_t)64 << 30, NULL, "most that the log may grow to (64G); costs nothing until it is used"},
    [OPTION_RESERVE] = {"reserve", BK_OPTION_SIZE, 0, (uint64_t)1 << 46, 256 * MIB, NULL, "free space of the file system that is left alone (256M)"},
    [OPTION_JOURNAL_SIZE] = {"journal-size", BK_OPTION_SIZE, MIB, (uint64_t)1 << 34, 64 * MIB, NULL, "each of the two journal files (64M)"},
    [OPTION_APPLY_INTERVAL] = {"apply-interval", BK_OPTION_DURATION, 1000, 60000000, 200000, NULL, "longest time until the tables have what is in the journal (200ms)"},
    [OPTION_RETAIN_INTERVAL] = {"retain-interval", BK_OPTION_DURATION, 1000, 3600000000, 1000000, NULL, "how often retention looks (1s)"},
    [OPTION_QUEUE_SIZE] = {"queue-size", BK_OPTION_SIZE, MIB, (uint64_t)1 << 34, 64 * MIB, NULL, "most that waits to be written (64M)"},
    [OPTIONS] = {0},
};
/* clang-format on */

/* A ticket on its way into the journal. */
struct commit {
    struct commit *next;
    uint64_t ticket;
    struct bb_buf payload;
};

/* A journal record on its way into the store. */
struct record {
    struct record *next;
    uint64_t number;
    uint64_t at; /* monotonic us */
    struct bb_buf payload;
};

enum news_kind {
    NEWS_FLUSHED,
    NEWS_TRIMMED,
    NEWS_STATE,
    NEWS_DONE,   /* a request */
    NEWS_RELOAD, /* what register_() holds events against is to be read again */
};

struct news {
    struct news *next;
    enum news_kind kind;
    uint64_t ticket;
    int error;
    uint32_t channel;
    uint64_t first;
    enum bk_backend_state state;
    struct bk_request *request;
    struct bk_numbers *numbers;
    char text[160];
};

struct lmdb {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_meter *meter;
    void (*log)(void *context, int level, const char *id, const char *text);
    void *log_context;
    char *directory;
    uint64_t values[OPTIONS];
    struct bk_numbers *numbers; /* the owner's thread: what was registered last */
    int wake;                   /* eventfd: there are news */
    pthread_mutex_t mutex;      /* of all that follows */
    pthread_cond_t to_commit;
    pthread_cond_t to_apply;
    pthread_cond_t to_read;
    pthread_cond_t moved; /* applied, users or what waits has changed */
    struct bk_store *store;
    struct bk_journal *journal; /* the commit thread's */
    struct commit *commits;
    struct commit **commits_end;
    size_t commit_bytes;
    struct record *records;
    struct record **records_end;
    size_t record_bytes;
    uint64_t durable; /* number of the last journal record */
    uint64_t applied;
    struct bk_request *requests;
    struct bk_request **requests_end;
    struct bk_request *upkeep; /* TRIM and COMPACT: the apply thread's */
    struct bk_request **upkeep_end;
    struct news *news;
    struct news **news_end;
    bool has_failed; /* to be opened again */
    bool is_full;
    bool is_ending;
    bool apply_now;
    bool is_exclusive; /* nobody else may use the store */
    unsigned users;    /* threads that do */
    uint64_t n_commits;
    uint64_t commit_us;
    uint64_t commit_max_us;
    pthread_t threads[3];
    unsigned n_threads;
};

static struct lmdb *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct lmdb, backend);
}

static uint64_t now_us(void)
{
    return (uint64_t)bb_clock_monotonic_us();
}

/* --- news ------------------------------------------------------------------------------------------- */

/* With the mutex. Without memory a flush or an answer would be lost for ever: wait for it. */
static struct news *news_add(struct lmdb *lmdb, enum news_kind kind)
{
    struct news *news = calloc(1, sizeof(*news));
    while (news == NULL) {
        (void)pthread_mutex_unlock(&lmdb->mutex);
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        (void)pthread_mutex_lock(&lmdb->mutex);
        news = calloc(1, sizeof(*news));
    }
    news->kind = kind;
    *lmdb->news_end = news;
    lmdb->news_end = &news->next;
    (void)eventfd_write(lmdb->wake, 1);
    return news;
}

static void tell_state(struct lmdb *lmdb, enum bk_backend_state state, const char *text)
{
    struct news *news = news_add(lmdb, NEWS_STATE);
    news->state = state;
    (void)snprintf(news->text, sizeof(news->text), "%s", text);
}

static void tell_done(struct lmdb *lmdb, struct bk_request *request, int error)
{
    request->error = error;
    news_add(lmdb, NEWS_DONE)->request = request;
}

/* --- the store, shared ---------------------------------------------------------------------------------- */

/* With the mutex: use the store; false when it is not to be used any more. */
static bool enter(struct lmdb *lmdb)
{
    while (lmdb->is_exclusive || (lmdb->has_failed && !lmdb->is_ending)) {
        (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
    }
    if (lmdb->store == NULL) {
        return false;
    }
    lmdb->users++;
    return true;
}

static void leave(struct lmdb *lmdb)
{
    lmdb->users--;
    (void)pthread_cond_broadcast(&lmdb->moved);
}

/* With the mutex: wait until nobody else uses the store; @own: who asks is a user. */
static void be_alone(struct lmdb *lmdb, unsigned own)
{
    lmdb->is_exclusive = true;
    while (lmdb->users > own) {
        (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
    }
}

static void be_together(struct lmdb *lmdb)
{
    lmdb->is_exclusive = false;
    (void)pthread_cond_broadcast(&lmdb->moved);
}

static void fail(struct lmdb *lmdb, int error)
{
    if (!lmdb->has_failed) {
        lmdb->has_failed = true;
        tell_state(lmdb, BK_BACKEND_FAILED, bb_strerror(error));
        (void)pthread_cond_broadcast(&lmdb->to_commit);
        (void)pthread_cond_broadcast(&lmdb->to_apply);
        (void)pthread_cond_broadcast(&lmdb->moved);
    }
}

/* --- opening and recovering ------------------------------------------------------------------------------- */

static int apply_found(void *context, uint64_t number, struct bb_slice payload)
{
    struct bk_store_input input = {number, payload};
    return bk_store_apply(context, &input, 1);
}

/* Everything that is durable is in the store when this returns, and synced there. */
static int open_files(struct lmdb *lmdb,
                      struct bk_store **ret_store,
                      struct bk_journal **ret_journal,
                      struct bb_buf *err)
{
    struct bk_store *store = NULL;
    int r = bk_store_open(lmdb->directory, (size_t)lmdb->values[OPTION_MAP_SIZE], &store, err);
    if (r < 0) {
        return r;
    }
    r = bk_journal_open(lmdb->directory, (size_t)lmdb->values[OPTION_JOURNAL_SIZE], bk_store_applied(store),
                        apply_found, store, ret_journal, err);
    if (r < 0) {
        if (err->len == 0) {
            bb_buf_printf(err, "what the journal has could not be taken into the tables");
        }
        bk_store_close(store);
        return r;
    }
    *ret_store = store;
    return 0;
}

static void records_drop(struct lmdb *lmdb, uint64_t applied)
{
    while (lmdb->records != NULL && lmdb->records->number <= applied) {
        struct record *record = lmdb->records;
        lmdb->records = record->next;
        lmdb->record_bytes -= record->payload.len;
        if (lmdb->records == NULL) {
            lmdb->records_end = &lmdb->records;
        }
        bb_buf_fini(&record->payload);
        free(record);
    }
}

static void commits_fail(struct lmdb *lmdb, int error)
{
    if (lmdb->commits == NULL) {
        return;
    }
    struct news *news = news_add(lmdb, NEWS_FLUSHED);
    news->ticket = lmdb->commits->ticket;
    news->error = error;
    while (lmdb->commits != NULL) {
        struct commit *commit = lmdb->commits;
        lmdb->commits = commit->next;
        bb_buf_fini(&commit->payload);
        free(commit);
    }
    lmdb->commits_end = &lmdb->commits;
    lmdb->commit_bytes = 0;
}

/* Close what has failed and read again what is on the disk. The commits that were being written, up to @last with the number
 * @number, are decided by what is found. */
static void reopen(struct lmdb *lmdb, uint64_t number, uint64_t last)
{
    uint64_t pause = REOPEN_MIN_US;
    struct bb_buf err = BB_BUF_INIT;
    struct bk_store *store = NULL;
    struct bk_journal *journal = NULL;
    be_alone(lmdb, 0);
    bk_journal_close(lmdb->journal);
    bk_store_close(lmdb->store);
    lmdb->journal = NULL;
    lmdb->store = NULL;
    while (!lmdb->is_ending) {
        (void)pthread_mutex_unlock(&lmdb->mutex);
        bb_buf_reset(&err);
        int r = open_files(lmdb, &store, &journal, &err);
        (void)pthread_mutex_lock(&lmdb->mutex);
        if (r == 0) {
            break;
        }
        struct timespec until;
        (void)clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += (time_t)(pause / 1000000);
        until.tv_nsec += (long)(pause % 1000000) * 1000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        if (!lmdb->is_ending) {
            (void)pthread_cond_timedwait(&lmdb->to_commit, &lmdb->mutex, &until);
        }
        pause = BB_MIN(2 * pause, REOPEN_MAX_US);
    }
    bb_buf_fini(&err);
    lmdb->store = store;
    lmdb->journal = journal;
    if (store != NULL) {
        lmdb->applied = lmdb->durable = bk_store_applied(store);
        records_drop(lmdb, lmdb->applied);
        struct bk_numbers *numbers = NULL;
        if (bk_numbers_load(store, &numbers) == 0) {
            news_add(lmdb, NEWS_RELOAD)->numbers = numbers;
        }
    }
    if (last != 0 && store != NULL && lmdb->applied >= number) {
        while (lmdb->commits != NULL && lmdb->commits->ticket <= last) { /* it was durable after all */
            struct commit *commit = lmdb->commits;
            lmdb->commits = commit->next;
            lmdb->commit_bytes -= commit->payload.len;
            bb_buf_fini(&commit->payload);
            free(commit);
        }
        lmdb->commits_end = lmdb->commits == NULL ? &lmdb->commits : lmdb->commits_end;
        news_add(lmdb, NEWS_FLUSHED)->ticket = last;
    }
    commits_fail(lmdb, BB_ELOGFAILED);
    lmdb->has_failed = false;
    be_together(lmdb);
    if (store != NULL) {
        tell_state(lmdb, BK_BACKEND_OK, "it was opened again and read");
    }
}

/* --- the commit thread ---------------------------------------------------------------------------------- */

/* What is queued, up to COMMIT_BYTES, as one payload; the ticket that it goes up to. */
static uint64_t gather(struct lmdb *lmdb, struct bb_buf *payload)
{
    uint64_t last = 0;
    for (const struct commit *commit = lmdb->commits; commit != NULL; commit = commit->next) {
        if (payload->len > 0 && payload->len + commit->payload.len > COMMIT_BYTES) {
            break;
        }
        bb_buf_append(payload, commit->payload.data, commit->payload.len);
        last = commit->ticket;
    }
    return last;
}

static void commits_done(struct lmdb *lmdb, uint64_t last)
{
    while (lmdb->commits != NULL && lmdb->commits->ticket <= last) {
        struct commit *commit = lmdb->commits;
        lmdb->commits = commit->next;
        lmdb->commit_bytes -= commit->payload.len;
        bb_buf_fini(&commit->payload);
        free(commit);
    }
    if (lmdb->commits == NULL) {
        lmdb->commits_end = &lmdb->commits;
    }
    news_add(lmdb, NEWS_FLUSHED)->ticket = last;
}

static void hand_on(struct lmdb *lmdb, struct record *record)
{
    *lmdb->records_end = record;
    lmdb->records_end = &record->next;
    bool was_soon = lmdb->record_bytes >= APPLY_SOON_BYTES;
    bool was_empty = lmdb->record_bytes == 0;
    lmdb->record_bytes += record->payload.len;
    lmdb->durable = record->number;
    if (was_empty || (!was_soon && lmdb->record_bytes >= APPLY_SOON_BYTES)) {
        (void)pthread_cond_signal(&lmdb->to_apply);
    }
}

/* Write one record; without the mutex while the disk is at work. Return: 0, or why the log must be opened again. */
static int commit_one(struct lmdb *lmdb, uint64_t *ret_number, uint64_t *ret_last)
{
    struct record *record = calloc(1, sizeof(*record));
    if (record == NULL) {
        return BB_ENOMEM;
    }
    uint64_t last = gather(lmdb, &record->payload);
    int r = record->payload.error;
    uint64_t begun = now_us();
    *ret_last = last;
    *ret_number = bk_journal_next(lmdb->journal);
    while (r == 0) {
        uint64_t applied = lmdb->applied;
        (void)pthread_mutex_unlock(&lmdb->mutex);
        r = bk_journal_append(lmdb->journal, bb_buf_slice(&record->payload), applied, &record->number);
        (void)pthread_mutex_lock(&lmdb->mutex);
        if (r != BB_EAGAIN || lmdb->has_failed) {
            break;
        }
        lmdb->apply_now = true; /* the journal is full until the store has more of it */
        (void)pthread_cond_signal(&lmdb->to_apply);
        while (lmdb->applied == applied && !lmdb->has_failed) {
            (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
        }
        r = 0;
    }
    if (r < 0) {
        bb_buf_fini(&record->payload);
        free(record);
        return r;
    }
    record->at = now_us();
    lmdb->n_commits++;
    lmdb->commit_us += record->at - begun;
    lmdb->commit_max_us = BB_MAX(lmdb->commit_max_us, record->at - begun);
    commits_done(lmdb, last);
    hand_on(lmdb, record);
    return 0;
}

static void *commit_run(void *arg)
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
        int r = commit_one(lmdb, &number, &last);
        if (r == BB_ETOOBIG || r == BB_ENOMEM) {
            commits_fail(lmdb, r); /* nothing was written */
        } else if (r < 0) {
            fail(lmdb, r);
            reopen(lmdb, number, last);
        }
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

/* --- the apply thread ----------------------------------------------------------------------------------- */

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct lmdb *lmdb = context;
    (void)pthread_mutex_lock(&lmdb->mutex);
    struct news *news = news_add(lmdb, NEWS_TRIMMED);
    news->channel = channel;
    news->first = first;
    (void)pthread_mutex_unlock(&lmdb->mutex);
}

/* Whether the map or the disk is too full for more. */
static bool look_full(struct lmdb *lmdb, char *text, size_t size)
{
    struct bk_store_sizes sizes;
    struct statvfs disk;
    if (bk_store_sizes(lmdb->store, &sizes) == 0) {
        uint64_t percent = lmdb->is_full ? AGAIN_PERCENT : FULL_PERCENT;
        uint64_t used = sizes.used - BB_MIN(sizes.used, sizes.free);
        if (used / 100 * 100 > sizes.map / 100 * percent) {
            (void)snprintf(text, size,
                           "%" PRIu64 " of %" PRIu64 " bytes are used; trim channels or raise map-size", used,
                           sizes.map);
            return true;
        }
    }
    if (statvfs(lmdb->directory, &disk) == 0) {
        uint64_t free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
        uint64_t all = (uint64_t)disk.f_blocks * disk.f_frsize;
        uint64_t reserve = BB_MIN(lmdb->values[OPTION_RESERVE], all / 16);
        if (free_bytes < (lmdb->is_full ? reserve + reserve / 4 : reserve)) {
            (void)snprintf(text, size, "the disk has %" PRIu64 " bytes left; make room or lower reserve",
                           free_bytes);
            return true;
        }
    }
    (void)snprintf(text, size, "there is room again");
    return false;
}

/* With the mutex, as a user of the store. */
static void watch(struct lmdb *lmdb)
{
    char text[160];
    (void)pthread_mutex_unlock(&lmdb->mutex);
    bool is_full = look_full(lmdb, text, sizeof(text));
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (is_full != lmdb->is_full) {
        lmdb->is_full = is_full;
        tell_state(lmdb, is_full ? BK_BACKEND_FULL : BK_BACKEND_OK, text);
    }
}

/* Up to APPLY_BYTES of what waits, in one transaction. */
static int apply_some(struct lmdb *lmdb)
{
    size_t n = 0;
    size_t bytes = 0;
    for (const struct record *record = lmdb->records; record != NULL && (n == 0 || bytes < APPLY_BYTES);
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
    int r = bk_store_apply(lmdb->store, inputs, n); /* only this thread takes records off the list */
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (r == 0) {
        lmdb->applied = inputs[n - 1].number;
        records_drop(lmdb, lmdb->applied);
        (void)pthread_cond_broadcast(&lmdb->moved);
        (void)pthread_cond_signal(&lmdb->to_read);
    }
    free(inputs);
    return r;
}

static int retain(struct lmdb *lmdb)
{
    size_t done = 0;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    int r =
        bk_store_retain(lmdb->store, (uint64_t)bb_clock_wall_us(), RETAIN_BUDGET, on_trimmed, lmdb, &done);
    (void)pthread_mutex_lock(&lmdb->mutex);
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
        be_alone(lmdb, 1);
        (void)pthread_mutex_unlock(&lmdb->mutex);
        r = bk_store_compact(lmdb->store, &err);
        (void)pthread_mutex_lock(&lmdb->mutex);
        be_together(lmdb);
    }
    bb_buf_fini(&err);
    tell_done(lmdb, request, r);
    if (r < 0 && lmdb->store->env == NULL) {
        fail(lmdb, r);
    }
}

/* When something is to be done at the latest. */
static uint64_t apply_due(const struct lmdb *lmdb, uint64_t retain_at)
{
    if (lmdb->records == NULL) {
        return retain_at;
    }
    bool soon = lmdb->apply_now || lmdb->record_bytes >= APPLY_SOON_BYTES || lmdb->is_ending;
    uint64_t at = soon ? 0 : lmdb->records->at + lmdb->values[OPTION_APPLY_INTERVAL];
    return BB_MIN(at, retain_at);
}

static void wait_until(struct lmdb *lmdb, uint64_t at)
{
    uint64_t now = now_us();
    if (at <= now) {
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(at / 1000000), .tv_nsec = (long)(at % 1000000) * 1000};
    (void)pthread_cond_timedwait(&lmdb->to_apply, &lmdb->mutex, &until); /* its clock is the monotonic one */
}

/* One turn as a user of the store. Returns when to have the next one at the latest. */
static uint64_t apply_turn(struct lmdb *lmdb, uint64_t retain_at)
{
    uint64_t now = now_us();
    int r = 0;
    bool is_due = lmdb->records != NULL && apply_due(lmdb, UINT64_MAX) <= now;
    if (is_due) {
        r = apply_some(lmdb);
        lmdb->apply_now = lmdb->apply_now && lmdb->records != NULL;
    }
    if (r == 0 && lmdb->upkeep != NULL && lmdb->records == NULL) {
        run_upkeep(lmdb);
    }
    if (r == BB_ELOGFULL || now >= retain_at) {
        int more = retain(lmdb);
        watch(lmdb);
        if (r == BB_ELOGFULL && !lmdb->is_full) {
            lmdb->is_full = true;
            tell_state(lmdb, BK_BACKEND_FULL, "the tables cannot take more");
        }
        bool again = more > 0 || r == BB_ELOGFULL;
        retain_at = now_us() + (again ? 10000 : lmdb->values[OPTION_RETAIN_INTERVAL]);
        if (r == BB_ELOGFULL && !lmdb->is_ending) {
            wait_until(lmdb, retain_at);
        }
    }
    if (r < 0 && r != BB_ELOGFULL) {
        fail(lmdb, r);
    }
    return retain_at;
}

static void *apply_run(void *arg)
{
    struct lmdb *lmdb = arg;
    uint64_t retain_at = now_us() + lmdb->values[OPTION_RETAIN_INTERVAL];
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!lmdb->is_ending || (lmdb->records != NULL && !lmdb->has_failed)) {
        if (!enter(lmdb)) {
            break;
        }
        uint64_t full_before = lmdb->is_full;
        retain_at = apply_turn(lmdb, retain_at);
        leave(lmdb);
        if (lmdb->is_ending && full_before && lmdb->records != NULL) {
            break; /* it stays in the journal */
        }
        if (lmdb->upkeep == NULL || lmdb->records != NULL) {
            wait_until(lmdb, lmdb->upkeep != NULL ? 0 : apply_due(lmdb, retain_at));
        }
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

/* --- the read thread ------------------------------------------------------------------------------------ */

static void write_report(struct bb_buf *out, const struct bk_store_report *report)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"records", report->records},   {"events", report->events},
        {"paths", report->paths},       {"index_entries", report->index_entries},
        {"problems", report->problems},
    };
    bb_mp_write_map(out, (uint32_t)BB_COUNT(rows) + 1);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_str(out, bb_slice_str(rows[i].name));
        bb_mp_write_uint(out, rows[i].value);
    }
    bb_mp_write_str(out, bb_slice_str("first"));
    bb_mp_write_str(out, bb_slice_str(report->first));
}

static int verify(struct lmdb *lmdb, struct bk_upkeep *request)
{
    struct bk_store_report report = {0};
    int r = bk_store_verify(lmdb->store, &report);
    if (r == 0) {
        write_report(&request->report, &report);
        r = request->report.error;
    }
    return r;
}

static bool is_file_name(struct bb_slice name)
{
    return name.len > 0 && name.len < 200 && memchr(name.data, '/', name.len) == NULL &&
           memchr(name.data, 0, name.len) == NULL && name.data[0] != '.';
}

static int snapshot(struct lmdb *lmdb, struct bk_upkeep *request)
{
    struct bb_buf path = BB_BUF_INIT;
    if (!is_file_name(request->name)) {
        return BB_EINVAL;
    }
    bb_buf_printf(&path, "%s/backups", lmdb->directory);
    if (path.error == 0) {
        (void)mkdir(bb_buf_string(&path), 0700);
    }
    bb_buf_printf(&path, "/%.*s", (int)request->name.len, (const char *)request->name.data);
    int r = path.error;
    if (r == 0) {
        r = bk_store_snapshot(lmdb->store, bb_buf_string(&path));
    }
    if (r == 0) {
        bb_mp_write_map(&request->report, 1);
        bb_mp_write_str(&request->report, bb_slice_str("directory"));
        bb_mp_write_str(&request->report, bb_buf_slice(&path));
        r = request->report.error;
    }
    bb_buf_fini(&path);
    return r;
}

static int answer(struct lmdb *lmdb, struct bk_request *request)
{
    switch (request->kind) {
    case BK_REQUEST_READ:
        return bk_lmdb_read(lmdb->store, BB_CONTAINER(request, struct bk_read, request), lmdb->meter);
    case BK_REQUEST_LOCATE:
        return bk_lmdb_locate(lmdb->store, BB_CONTAINER(request, struct bk_locate, request));
    case BK_REQUEST_QUERY:
        return bk_lmdb_query(lmdb->store, BB_CONTAINER(request, struct bk_query, request), lmdb->meter);
    case BK_REQUEST_SNAPSHOT:
        return snapshot(lmdb, BB_CONTAINER(request, struct bk_upkeep, request));
    case BK_REQUEST_VERIFY:
        return verify(lmdb, BB_CONTAINER(request, struct bk_upkeep, request));
    case BK_REQUEST_FLUSH:
        return 0;
    case BK_REQUEST_TRIM:
    case BK_REQUEST_COMPACT:
        break;
    }
    return BB_EUNSUPPORTED;
}

static void *read_run(void *arg)
{
    struct lmdb *lmdb = arg;
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!lmdb->is_ending) {
        struct bk_request *request = lmdb->requests;
        if (request == NULL) {
            (void)pthread_cond_wait(&lmdb->to_read, &lmdb->mutex);
            continue;
        }
        bool waits = request->kind == BK_REQUEST_FLUSH
                         ? lmdb->commits != NULL && lmdb->commits->ticket <= request->barrier
                         : lmdb->applied < request->barrier;
        if (waits && !lmdb->has_failed) {
            lmdb->apply_now = true;
            (void)pthread_cond_signal(&lmdb->to_apply);
            (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
            continue;
        }
        if (!enter(lmdb)) {
            break;
        }
        lmdb->requests = request->next;
        lmdb->requests_end = lmdb->requests == NULL ? &lmdb->requests : lmdb->requests_end;
        (void)pthread_mutex_unlock(&lmdb->mutex);
        int r = answer(lmdb, request);
        (void)pthread_mutex_lock(&lmdb->mutex);
        leave(lmdb);
        tell_done(lmdb, request, r);
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

/* --- the owner's side ------------------------------------------------------------------------------------- */

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    return bk_store_load(of(backend)->store, loader, NULL, NULL);
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct lmdb *lmdb = of(backend);
    (void)pthread_mutex_lock(&lmdb->mutex);
    int r = lmdb->has_failed ? BB_ELOGFAILED : 0;
    if (r == 0 && lmdb->is_full && append->n_blocks > 0) {
        r = BB_ELOGFULL;
    }
    if (r == 0 && lmdb->commit_bytes > lmdb->values[OPTION_QUEUE_SIZE]) {
        r = BB_EFULL;
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    struct commit *commit = r == 0 ? calloc(1, sizeof(*commit)) : NULL;
    if (commit == NULL) {
        return r < 0 ? r : BB_ENOMEM;
    }
    r = bk_numbers_judge(lmdb->numbers, append);
    if (r == 0) {
        r = bk_batch_encode(&commit->payload, append);
    }
    if (r < 0) {
        bb_buf_fini(&commit->payload);
        free(commit);
        return r;
    }
    bk_numbers_take(lmdb->numbers, append);
    commit->ticket = ticket;
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (lmdb->commits == NULL) {
        (void)pthread_cond_signal(&lmdb->to_commit);
    }
    *lmdb->commits_end = commit;
    lmdb->commits_end = &commit->next;
    lmdb->commit_bytes += commit->payload.len;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    lmdb->listener->registered(lmdb->listener->context, ticket);
    return 0;
}

static void
op_get_last(struct bk_backend *backend, uint64_t server, struct bk_event_id *ret_id, uint64_t *ret_time)
{
    bk_numbers_last(of(backend)->numbers, server, ret_id, ret_time);
}

static void op_submit(struct bk_backend *backend, struct bk_request *request)
{
    struct lmdb *lmdb = of(backend);
    request->next = NULL;
    request->error = 0;
    (void)pthread_mutex_lock(&lmdb->mutex);
    request->barrier = request->kind == BK_REQUEST_FLUSH ? UINT64_MAX : lmdb->durable;
    if (request->kind == BK_REQUEST_FLUSH) { /* all that is queued now */
        for (const struct commit *commit = lmdb->commits; commit != NULL; commit = commit->next) {
            request->barrier = commit->ticket;
        }
        request->barrier = lmdb->commits == NULL ? 0 : request->barrier;
    }
    if (request->kind == BK_REQUEST_TRIM || request->kind == BK_REQUEST_COMPACT) {
        *lmdb->upkeep_end = request;
        lmdb->upkeep_end = &request->next;
        lmdb->apply_now = true;
        (void)pthread_cond_signal(&lmdb->to_apply);
    } else {
        *lmdb->requests_end = request;
        lmdb->requests_end = &request->next;
        (void)pthread_cond_signal(&lmdb->to_read);
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->wake;
}

static void tell(struct lmdb *lmdb, const struct news *news)
{
    const struct bk_backend_listener *listener = lmdb->listener;
    switch (news->kind) {
    case NEWS_FLUSHED:
        listener->flushed(listener->context, news->ticket, news->error);
        break;
    case NEWS_TRIMMED:
        listener->trimmed(listener->context, news->channel, news->first);
        break;
    case NEWS_STATE:
        listener->state(listener->context, news->state, news->text);
        break;
    case NEWS_DONE:
        news->request->done(news->request->context, news->request);
        break;
    case NEWS_RELOAD:
        bk_numbers_free(lmdb->numbers);
        lmdb->numbers = news->numbers;
        break;
    }
}

static void op_dispatch(struct bk_backend *backend)
{
    struct lmdb *lmdb = of(backend);
    eventfd_t count = 0;
    (void)eventfd_read(lmdb->wake, &count);
    (void)pthread_mutex_lock(&lmdb->mutex);
    struct news *all = lmdb->news;
    lmdb->news = NULL;
    lmdb->news_end = &lmdb->news;
    (void)pthread_mutex_unlock(&lmdb->mutex);
    while (all != NULL) {
        struct news *news = all;
        all = news->next;
        tell(lmdb, news);
        free(news);
    }
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    struct lmdb *lmdb = of(backend);
    struct bk_store_sizes sizes = {0};
    struct statvfs disk = {0};
    (void)statvfs(lmdb->directory, &disk);
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (lmdb->store != NULL && !lmdb->is_exclusive) {
        (void)bk_store_sizes(lmdb->store, &sizes);
    }
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"failed", lmdb->has_failed},
        {"full", lmdb->is_full},
        {"queued_bytes", lmdb->commit_bytes},
        {"journal_bytes", lmdb->record_bytes},
        {"durable", lmdb->durable},
        {"applied", lmdb->applied},
        {"commits", lmdb->n_commits},
        {"commit_us", lmdb->commit_us},
        {"commit_max_us", lmdb->commit_max_us},
        {"map_bytes", sizes.map},
        {"used_bytes", sizes.used},
        {"free_bytes", sizes.free},
        {"file_bytes", sizes.file},
        {"disk_free_bytes", (uint64_t)disk.f_bavail * disk.f_frsize},
    };
    (void)pthread_mutex_unlock(&lmdb->mutex);
    bb_mp_write_map(out, BB_COUNT(rows));
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_str(out, bb_slice_str(rows[i].name));
        bb_mp_write_uint(out, rows[i].value);
    }
}

static void close_requests(struct bk_request *request)
{
    while (request != NULL) {
        struct bk_request *next = request->next;
        request->error = BB_ECLOSED;
        request->done(request->context, request);
        request = next;
    }
}

static void lmdb_free(struct lmdb *lmdb)
{
    bk_journal_close(lmdb->journal);
    bk_store_close(lmdb->store);
    bk_numbers_free(lmdb->numbers);
    (void)pthread_cond_destroy(&lmdb->to_commit);
    (void)pthread_cond_destroy(&lmdb->to_apply);
    (void)pthread_cond_destroy(&lmdb->to_read);
    (void)pthread_cond_destroy(&lmdb->moved);
    (void)pthread_mutex_destroy(&lmdb->mutex);
    if (lmdb->wake >= 0) {
        (void)close(lmdb->wake);
    }
    free(lmdb->directory);
    free(lmdb);
}

static void stop_threads(struct lmdb *lmdb)
{
    (void)pthread_mutex_lock(&lmdb->mutex);
    lmdb->is_ending = true;
    (void)pthread_cond_broadcast(&lmdb->to_commit);
    (void)pthread_cond_broadcast(&lmdb->to_read);
    (void)pthread_cond_broadcast(&lmdb->moved);
    (void)pthread_mutex_unlock(&lmdb->mutex);
    for (unsigned i = 0; i < lmdb->n_threads;
         i++) { /* commits first: the apply thread takes what they leave */
        (void)pthread_join(lmdb->threads[i], NULL);
        (void)pthread_mutex_lock(&lmdb->mutex);
        (void)pthread_cond_broadcast(&lmdb->to_apply);
        (void)pthread_cond_broadcast(&lmdb->moved);
        (void)pthread_mutex_unlock(&lmdb->mutex);
    }
}

static void op_close(struct bk_backend *backend)
{
    struct lmdb *lmdb = of(backend);
    stop_threads(lmdb);
    op_dispatch(backend);
    close_requests(lmdb->requests);
    close_requests(lmdb->upkeep);
    records_drop(lmdb, UINT64_MAX);
    lmdb_free(lmdb);
}

static const struct bk_backend_ops ops = {
    .load = op_load,
    .register_ = op_register,
    .get_last_event_id = op_get_last,
    .submit = op_submit,
    .fd = op_fd,
    .dispatch = op_dispatch,
    .status = op_status,
    .close = op_close,
};

/* --- opening ---------------------------------------------------------------------------------------------- */

static int init(struct lmdb *lmdb, const struct bk_backend_env *env)
{
    pthread_condattr_t monotonic;
    lmdb->backend = (struct bk_backend){&ops, true};
    lmdb->listener = env->listener;
    lmdb->meter = env->meter;
    lmdb->log = env->log;
    lmdb->log_context = env->log_context;
    lmdb->commits_end = &lmdb->commits;
    lmdb->records_end = &lmdb->records;
    lmdb->requests_end = &lmdb->requests;
    lmdb->upkeep_end = &lmdb->upkeep;
    lmdb->news_end = &lmdb->news;
    for (size_t i = 0; i < OPTIONS; i++) {
        lmdb->values[i] = env->values[i].number;
    }
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&lmdb->mutex, NULL);
    (void)pthread_cond_init(&lmdb->to_commit, NULL);
    (void)pthread_cond_init(&lmdb->to_apply, &monotonic);
    (void)pthread_cond_init(&lmdb->to_read, NULL);
    (void)pthread_cond_init(&lmdb->moved, NULL);
    (void)pthread_condattr_destroy(&monotonic);
    lmdb->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    lmdb->directory = strdup(env->directory);
    return lmdb->wake < 0 ? BB_ESYSTEM : lmdb->directory == NULL ? BB_ENOMEM : 0;
}

static int start_threads(struct lmdb *lmdb)
{
    static void *(*const runs[])(void *) = {commit_run, apply_run, read_run};
    for (size_t i = 0; i < BB_COUNT(runs); i++) {
        if (pthread_create(&lmdb->threads[i], NULL, runs[i], lmdb) != 0) {
            return BB_ESYSTEM;
        }
        lmdb->n_threads++;
    }
    return 0;
}

static int open_lmdb(const struct bk_backend_env *env, struct bk_backend **ret_backend, struct bb_buf *err)
{
    struct lmdb *lmdb = calloc(1, sizeof(*lmdb));
    if (lmdb == NULL) {
        return BB_ENOMEM;
    }
    int r = init(lmdb, env);
    if (r == 0) {
        r = open_files(lmdb, &lmdb->store, &lmdb->journal, err);
    }
    if (r == 0) {
        lmdb->applied = lmdb->durable = bk_store_applied(lmdb->store);
        r = bk_numbers_load(lmdb->store, &lmdb->numbers);
    }
    if (r == 0) {
        char text[160];
        lmdb->is_full = look_full(lmdb, text, sizeof(text));
        if (lmdb->is_full) {
            tell_state(lmdb, BK_BACKEND_FULL, text);
        }
        r = start_threads(lmdb);
    }
    if (r < 0) {
        stop_threads(lmdb);
        lmdb_free(lmdb);
        return r;
    }
    *ret_backend = &lmdb->backend;
    return 0;
}

const struct bk_backend_driver bk_lmdb_driver = {BK_BACKEND_ABI, "lmdb", true, options, open_lmdb};

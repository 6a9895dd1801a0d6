/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/lmdb.h"

#include "proto/wire/mp.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/lmdb/state.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)

/* From so many bytes on a ticket is laid out as the record that it may become. */
#define RECORD_BYTES ((size_t)16 << 10)

/* BK_LOG_ERROR of broker/core/core.h, where bk_store is another thing. */
#define LEVEL_ERROR 0

/* clang-format off */
static const struct bk_backend_option options[] = {
    [OPTION_MAP_SIZE] = {"map-size", BK_OPTION_SIZE, MIB, (uint64_t)1 << 46, (uint64_t)64 << 30, NULL, "most that the log may grow to (64G); costs nothing until it is used"},
    [OPTION_RESERVE] = {"reserve", BK_OPTION_SIZE, 0, (uint64_t)1 << 46, 256 * MIB, NULL, "free space of the file system that is left alone (256M)"},
    [OPTION_JOURNAL_SIZE] = {"journal-size", BK_OPTION_SIZE, MIB, (uint64_t)1 << 34, 64 * MIB, NULL, "each of the two journal files (64M)"},
    [OPTION_APPLY_INTERVAL] = {"apply-interval", BK_OPTION_DURATION, 1000, 60000000, 200000, NULL, "longest time until the tables have what is in the journal (200ms)"},
    [OPTION_RETAIN_INTERVAL] = {"retain-interval", BK_OPTION_DURATION, 1000, 3600000000, 1000000, NULL, "how often retention looks (1s)"},
    [OPTION_QUEUE_SIZE] = {"queue-size", BK_OPTION_SIZE, MIB, (uint64_t)1 << 34, 64 * MIB, NULL, "most that waits to be written (64M)"},
    [OPTION_QUERY_TURN] = {"query-turn", BK_OPTION_DURATION, 0, 1000000, 20000, NULL, "how long a query works until it lets others, and the pages that it reads, go (20ms)"},
    [OPTIONS] = {0},
};
/* clang-format on */

static struct lmdb *of(struct bk_backend *backend)
{
    return BB_CONTAINER(backend, struct lmdb, backend);
}

/* --- the owner's side ------------------------------------------------------------------------------ */

static int op_load(struct bk_backend *backend, const struct bk_backend_loader *loader)
{
    return bk_store_load(of(backend)->store, loader, NULL, NULL);
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
    case NEWS_LOG:
        lmdb->log(lmdb->log_context, LEVEL_ERROR, "BB-LOG-RETAIN", news->text);
        break;
    case NEWS_RELOAD:
        bk_numbers_free(lmdb->numbers);
        lmdb->numbers = news->numbers;
        (void)pthread_mutex_lock(&lmdb->mutex);
        lmdb->is_stale = lmdb->has_failed;
        (void)pthread_mutex_unlock(&lmdb->mutex);
        break;
    }
}

static void tell_all(struct lmdb *lmdb, struct news *all)
{
    while (all != NULL) {
        struct news *news = all;
        all = news->next;
        tell(lmdb, news);
        free(news);
    }
}

/* With the mutex: whether @append, which is @len bytes as far as that is known, can be taken now. */
static int admit(const struct lmdb *lmdb, const struct bk_append *append, size_t len)
{
    int r = lmdb->has_failed || lmdb->is_stale ? BB_ELOGFAILED : 0;
    if (r == 0 && append->n_blocks > 0 &&
        (lmdb->room.is_full || lmdb->commit_bytes + lmdb->record_bytes + len > lmdb->room.bytes)) {
        r = BB_ELOGFULL;
    }
    if (r == 0 && lmdb->commit_bytes > lmdb->values[OPTION_QUEUE_SIZE]) {
        r = BB_EFULL;
    }
    return r;
}

/* A large one where it can stay until the tables have it. A small one would waste most of a page, and many
 * may wait. */
static int encode(struct commit *commit, const struct bk_append *append)
{
    size_t size = bk_batch_size(append);
    commit->is_record = size >= RECORD_BYTES;
    if (commit->is_record) {
        bk_journal_buffer(&commit->bytes, size);
    }
    int r = bk_batch_encode(&commit->bytes, append);
    commit->size = commit->bytes.len - (r == 0 && commit->is_record ? BK_JOURNAL_HEADER : 0);
    return r;
}

/* Queue @commit, or say why not. */
static int enqueue(struct lmdb *lmdb, const struct bk_append *append, struct commit *commit)
{
    (void)pthread_mutex_lock(&lmdb->mutex);
    int r = admit(lmdb, append, commit->size);
    bool was_empty = lmdb->commits == NULL;
    if (r == 0) {
        *lmdb->commits_end = commit;
        lmdb->commits_end = &commit->next;
        lmdb->commit_bytes += commit->size;
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    if (r == 0 && was_empty) {
        (void)pthread_cond_signal(&lmdb->to_commit);
    }
    return r;
}

/* With the mutex: take what is told of states off the news, up to where what is registered is judged by
 * other numbers. */
static struct news *take_states(struct lmdb *lmdb)
{
    struct news *states = NULL;
    struct news **end = &states;
    struct news **at = &lmdb->news;
    while (*at != NULL && (*at)->kind != NEWS_RELOAD) {
        struct news *news = *at;
        if (news->kind != NEWS_STATE) {
            at = &news->next;
            continue;
        }
        *at = news->next;
        lmdb->news_end = lmdb->news_end == &news->next ? at : lmdb->news_end;
        news->next = NULL;
        *end = news;
        end = &news->next;
    }
    return states;
}

/* @append is refused: the owner knows the state that says so before it hears of it. */
static void tell_refusal(struct lmdb *lmdb, int error, const struct bk_append *append)
{
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (error == BB_ELOGFULL) {
        bk_lmdb_be_full(
            lmdb, bk_batch_size(append),
            "there is no room for what was to be written; trim channels, make room or raise map-size");
    }
    struct news *states = take_states(lmdb);
    (void)pthread_mutex_unlock(&lmdb->mutex);
    tell_all(lmdb, states);
}

static int take(struct lmdb *lmdb, struct bk_append *append, uint64_t ticket)
{
    (void)pthread_mutex_lock(&lmdb->mutex);
    int r = admit(lmdb, append, 0);
    (void)pthread_mutex_unlock(&lmdb->mutex);
    struct commit *commit = r == 0 ? calloc(1, sizeof(*commit)) : NULL;
    if (commit == NULL) {
        return r < 0 ? r : BB_ENOMEM;
    }
    commit->ticket = ticket;
    commit->has_channels = append->n_channels > 0;
    r = bk_numbers_judge(lmdb->numbers, append);
    if (r == 0) {
        r = encode(commit, append);
    }
    if (r == 0 && commit->size > lmdb->payload_max) {
        r = BB_ETOOBIG;
    }
    if (r == 0) {
        r = enqueue(lmdb, append, commit);
    }
    if (r != 0) {
        bb_buf_fini(&commit->bytes);
        free(commit);
    }
    return r;
}

static int op_register(struct bk_backend *backend, struct bk_append *append, uint64_t ticket)
{
    struct lmdb *lmdb = of(backend);
    int r = take(lmdb, append, ticket);
    if (r == BB_ELOGFULL || r == BB_ELOGFAILED) {
        tell_refusal(lmdb, r, append);
    }
    if (r == 0) {
        bk_numbers_take(lmdb->numbers, append); /* this thread's alone: the commit may be on disk by now */
        lmdb->listener->registered(lmdb->listener->context, ticket);
    }
    return r;
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
    if (request->kind == BK_REQUEST_TRIM) {
        BB_CONTAINER(request, struct bk_trim, request)->first = 0; /* of what is gone already */
    }
    if (request->kind == BK_REQUEST_TRIM || request->kind == BK_REQUEST_COMPACT) {
        *lmdb->upkeep_end = request;
        lmdb->upkeep_end = &request->next;
        lmdb->apply_now = true;
        (void)pthread_cond_signal(&lmdb->to_apply);
    } else {
        *lmdb->requests_end = request;
        lmdb->requests_end = &request->next;
        (void)pthread_cond_signal(request->kind == BK_REQUEST_SNAPSHOT ? &lmdb->to_copy
                                  : request->kind == BK_REQUEST_QUERY || request->kind == BK_REQUEST_VERIFY
                                      ? &lmdb->to_search
                                      : &lmdb->to_read);
        if (lmdb->n_held > 0) { /* by an earlier one, perhaps */
            (void)pthread_cond_broadcast(&lmdb->moved);
        }
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
}

static int op_fd(struct bk_backend *backend)
{
    return of(backend)->wake;
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
    tell_all(lmdb, all);
}

static void op_status(struct bk_backend *backend, struct bb_buf *out)
{
    struct lmdb *lmdb = of(backend);
    struct bk_store_sizes sizes = {0};
    struct statvfs disk = {0};
    (void)statvfs(lmdb->directory, &disk);
    (void)pthread_mutex_lock(&lmdb->mutex);
    if (lmdb->store != NULL && !lmdb->is_exclusive && bk_store_sizes(lmdb->store, &sizes) < 0) {
        sizes = (struct bk_store_sizes){0}; /* they are not known now */
    }
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"failed", lmdb->has_failed},
        {"full", lmdb->room.is_full},
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
    char why[BK_STATE_TEXT];
    memcpy(why, lmdb->why, sizeof(why));
    (void)pthread_mutex_unlock(&lmdb->mutex);
    bb_mp_write_map(out, BB_COUNT(rows) + 1);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        bb_mp_write_str(out, bb_slice_str(rows[i].name));
        bb_mp_write_uint(out, rows[i].value);
    }
    bb_mp_write_str(out, bb_slice_str("why"));
    bb_mp_write_str(out, bb_slice_str(why));
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
    (void)pthread_cond_destroy(&lmdb->to_search);
    (void)pthread_cond_destroy(&lmdb->to_copy);
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
    (void)pthread_cond_broadcast(&lmdb->to_apply);
    (void)pthread_cond_broadcast(&lmdb->to_read);
    (void)pthread_cond_broadcast(&lmdb->to_search);
    (void)pthread_cond_broadcast(&lmdb->to_copy);
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
    bk_lmdb_records_drop(lmdb, UINT64_MAX);
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

/* --- opening --------------------------------------------------------------------------------------- */

static int init(struct lmdb *lmdb, const struct bk_backend_env *env)
{
    pthread_condattr_t monotonic;
    lmdb->backend = (struct bk_backend){&ops, true, 0};
    lmdb->listener = env->listener;
    lmdb->meter = env->meter;
    lmdb->log = env->log;
    lmdb->log_context = env->log_context;
    lmdb->offer = env->offer;
    lmdb->offer_context = env->offer_context;
    lmdb->now = env->now;
    lmdb->now_context = env->now_context;
    lmdb->commits_end = &lmdb->commits;
    lmdb->records_end = &lmdb->records;
    lmdb->requests_end = &lmdb->requests;
    lmdb->upkeep_end = &lmdb->upkeep;
    lmdb->news_end = &lmdb->news;
    for (size_t i = 0; i < OPTIONS; i++) {
        lmdb->values[i] = env->values[i].number;
    }
    lmdb->backlog_max = 2 * (size_t)lmdb->values[OPTION_JOURNAL_SIZE];
    lmdb->payload_max = bk_journal_payload_max((size_t)lmdb->values[OPTION_JOURNAL_SIZE]);
    lmdb->backend.max_ticket = BB_MIN(lmdb->payload_max, bk_lmdb_room_max(lmdb->values[OPTION_MAP_SIZE]));
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&lmdb->mutex, NULL);
    (void)pthread_cond_init(&lmdb->to_commit, &monotonic);
    (void)pthread_cond_init(&lmdb->to_apply, &monotonic);
    (void)pthread_cond_init(&lmdb->to_read, NULL);
    (void)pthread_cond_init(&lmdb->to_search, NULL);
    (void)pthread_cond_init(&lmdb->to_copy, NULL);
    (void)pthread_cond_init(&lmdb->moved, NULL);
    (void)pthread_condattr_destroy(&monotonic);
    lmdb->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    lmdb->directory = strdup(env->directory);
    return lmdb->wake < 0 ? BB_ESYSTEM : lmdb->directory == NULL ? BB_ENOMEM : 0;
}

/* The largest batch must fit into a file of the journal, and into the map. */
static int check_sizes(const struct lmdb *lmdb, size_t min, struct bb_buf *err)
{
    const char *name = lmdb->payload_max < min ? "journal-size" : "map-size";
    enum option option = lmdb->payload_max < min ? OPTION_JOURNAL_SIZE : OPTION_MAP_SIZE;
    if (lmdb->backend.max_ticket >= min) {
        return 0;
    }
    bb_buf_printf(err, "%s=%" PRIu64 " is too small: %zu bytes must be written at once, and it leaves %zu",
                  name, lmdb->values[option], min, lmdb->backend.max_ticket);
    return BB_EINVAL;
}

static int start_threads(struct lmdb *lmdb)
{
    static void *(*const runs[])(void *) = {
        bk_lmdb_commit_run, bk_lmdb_apply_run, bk_lmdb_read_run, bk_lmdb_search_run, bk_lmdb_copy_run,
    };
    _Static_assert(BB_COUNT(runs) == sizeof(((struct lmdb *)0)->threads) / sizeof(pthread_t), "one each");
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
        r = check_sizes(lmdb, env->min_ticket, err);
    }
    if (r == 0) {
        r = bk_lmdb_open_files(lmdb, &lmdb->store, &lmdb->journal, err);
    }
    if (r == 0) {
        lmdb->applied = lmdb->durable = bk_store_applied(lmdb->store);
        r = bk_lmdb_load_numbers(lmdb->store, &lmdb->numbers);
    }
    if (r == 0) {
        bk_lmdb_look(lmdb, &lmdb->room);
        if (lmdb->room.is_full) {
            bk_lmdb_tell_state(lmdb, BK_BACKEND_FULL, lmdb->room.text);
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

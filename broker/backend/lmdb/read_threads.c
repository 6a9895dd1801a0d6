/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The threads that answer requests: one for what subscriptions wait for, request by request; one for queries
 * and the verification, which take turns so that a long one does not keep the others waiting; one for copies.
 */
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/query.h"
#include "broker/backend/lmdb/read.h"
#include "broker/backend/lmdb/state.h"

#include <stdlib.h>
#include <sys/stat.h>

/* Searches at work together, each of which may hold a whole answer; more wait. */
#define SEARCHES_MAX 8

#define KIND(kind) (1U << (kind))

/* --- one request ----------------------------------------------------------------------------------- */

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
    case BK_REQUEST_SNAPSHOT:
        return snapshot(lmdb, BB_CONTAINER(request, struct bk_upkeep, request));
    case BK_REQUEST_FLUSH:
        return 0;
    case BK_REQUEST_QUERY:
    case BK_REQUEST_VERIFY:
    case BK_REQUEST_TRIM:
    case BK_REQUEST_COMPACT:
        break;
    }
    return BB_EUNSUPPORTED;
}

static bool has_to_wait(const struct lmdb *lmdb, const struct bk_request *request)
{
    bool waits = request->kind == BK_REQUEST_FLUSH
                     ? lmdb->commits != NULL && lmdb->commits->ticket <= request->barrier
                     : lmdb->applied < request->barrier;
    return waits && !lmdb->has_failed;
}

/* Take the first request of one of @kinds that can be answered now. NULL: there is none; @ret_waits: but
 * one that waits. */
static struct bk_request *take_request(struct lmdb *lmdb, unsigned kinds, bool *ret_waits)
{
    *ret_waits = false;
    for (struct bk_request **at = &lmdb->requests; *at != NULL; at = &(*at)->next) {
        struct bk_request *request = *at;
        if ((kinds & KIND(request->kind)) == 0) {
            continue;
        }
        if (has_to_wait(lmdb, request)) {
            *ret_waits = true;
            continue;
        }
        *at = request->next;
        if (lmdb->requests_end == &request->next) {
            lmdb->requests_end = at;
        }
        request->next = NULL;
        return request;
    }
    return NULL;
}

/* Until there may be a request to take: one comes, or (@one_waits) what one waits for has happened. */
static void wait_for_request(struct lmdb *lmdb, pthread_cond_t *comes, bool one_waits)
{
    if (!one_waits) {
        (void)pthread_cond_wait(comes, &lmdb->mutex);
        return;
    }
    lmdb->apply_now = true;
    (void)pthread_cond_signal(&lmdb->to_apply);
    lmdb->n_held++;
    (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
    lmdb->n_held--;
}

static void give_back(struct lmdb *lmdb, struct bk_request *request)
{
    *lmdb->requests_end = request;
    lmdb->requests_end = &request->next;
}

/* --- request by request ---------------------------------------------------------------------------- */

static void answer_all(struct lmdb *lmdb, unsigned kinds, pthread_cond_t *comes)
{
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!lmdb->is_ending) {
        bool one_waits = false;
        struct bk_request *request = take_request(lmdb, kinds, &one_waits);
        if (request == NULL) {
            wait_for_request(lmdb, comes, one_waits);
            continue;
        }
        if (!bk_lmdb_enter(lmdb)) {
            give_back(lmdb, request);
            break;
        }
        (void)pthread_mutex_unlock(&lmdb->mutex);
        int r = answer(lmdb, request);
        (void)pthread_mutex_lock(&lmdb->mutex);
        bk_lmdb_leave(lmdb);
        bk_lmdb_tell_done(lmdb, request, r);
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
}

void *bk_lmdb_read_run(void *arg)
{
    struct lmdb *lmdb = arg;
    answer_all(lmdb, KIND(BK_REQUEST_READ) | KIND(BK_REQUEST_LOCATE) | KIND(BK_REQUEST_FLUSH),
               &lmdb->to_read);
    return NULL;
}

void *bk_lmdb_copy_run(void *arg)
{
    struct lmdb *lmdb = arg;
    bk_lmdb_give_way();
    answer_all(lmdb, KIND(BK_REQUEST_SNAPSHOT), &lmdb->to_copy);
    return NULL;
}

/* --- in turns -------------------------------------------------------------------------------------- */

/* A request that takes many steps: one of the two. */
struct turns {
    struct turns *next;
    struct bk_request *request;
    struct bk_search *search;
    struct bk_verify *verify;
    struct bk_store_report report;
};

static int turns_begin(struct turns *turns, struct bk_request *request)
{
    *turns = (struct turns){.request = request};
    return request->kind == BK_REQUEST_QUERY
               ? bk_search_new(BB_CONTAINER(request, struct bk_query, request), &turns->search)
               : bk_verify_new(&turns->report, &turns->verify);
}

/* In one read transaction, which must not last. */
static int turns_step(struct turns *turns, const struct lmdb *lmdb)
{
    struct bk_store *store = lmdb->store; /* the same as long as there is a user */
    uint64_t deadline = bk_lmdb_now() + lmdb->values[OPTION_QUERY_TURN];
    if (turns->search != NULL) {
        int r = bk_search_step(turns->search, store, deadline);
        return r == 0 ? bk_search_end(turns->search, lmdb->meter) : r;
    }
    int r = bk_verify_step(turns->verify, store, deadline);
    if (r == 0) {
        struct bk_upkeep *upkeep = BB_CONTAINER(turns->request, struct bk_upkeep, request);
        write_report(&upkeep->report, &turns->report);
        r = upkeep->report.error;
    }
    return r;
}

static void turns_end(struct turns *turns)
{
    bk_search_free(turns->search);
    bk_verify_free(turns->verify);
    free(turns);
}

/* Who is at work, in the order of their turns. */
struct searches {
    struct turns *first;
    struct turns **end;
    size_t n;
};

static void searches_append(struct searches *searches, struct turns *turns)
{
    turns->next = NULL;
    *searches->end = turns;
    searches->end = &turns->next;
    searches->n++;
}

static struct turns *searches_take(struct searches *searches)
{
    struct turns *turns = searches->first;
    if (turns != NULL) {
        searches->first = turns->next;
        searches->end = searches->first == NULL ? &searches->first : searches->end;
        searches->n--;
    }
    return turns;
}

/* Take in what has come, as far as there is room; with the mutex. */
static void searches_take_in(struct searches *searches, struct lmdb *lmdb, bool *ret_waits)
{
    const unsigned kinds = KIND(BK_REQUEST_QUERY) | KIND(BK_REQUEST_VERIFY);
    while (searches->n < SEARCHES_MAX) {
        struct bk_request *request = take_request(lmdb, kinds, ret_waits);
        if (request == NULL) {
            return;
        }
        struct turns *turns = malloc(sizeof(*turns));
        int r = turns == NULL ? BB_ENOMEM : turns_begin(turns, request);
        if (r < 0) {
            free(turns);
            bk_lmdb_tell_done(lmdb, request, r);
        } else {
            searches_append(searches, turns);
        }
    }
}

/* With the mutex, which is given up meanwhile, as a user of the store. */
static void searches_turn(struct searches *searches, struct lmdb *lmdb)
{
    struct turns *turns = searches_take(searches);
    (void)pthread_mutex_unlock(&lmdb->mutex);
    int r = turns_step(turns, lmdb);
    (void)pthread_mutex_lock(&lmdb->mutex);
    bk_lmdb_leave(lmdb);
    if (r > 0) {
        searches_append(searches, turns);
        return;
    }
    struct bk_request *request = turns->request;
    turns_end(turns);
    bk_lmdb_tell_done(lmdb, request, r);
}

void *bk_lmdb_search_run(void *arg)
{
    struct lmdb *lmdb = arg;
    struct searches searches = {.end = &searches.first};
    bk_lmdb_give_way();
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!lmdb->is_ending) {
        bool one_waits = false;
        searches_take_in(&searches, lmdb, &one_waits);
        if (searches.n == 0 && !lmdb->is_ending) {
            wait_for_request(lmdb, &lmdb->to_search, one_waits);
        } else if (searches.n > 0 && bk_lmdb_enter(lmdb)) {
            searches_turn(&searches, lmdb);
        }
    }
    struct turns *turns = NULL;
    while ((turns = searches_take(&searches)) != NULL) { /* close() ends the requests */
        give_back(lmdb, turns->request);
        turns_end(turns);
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

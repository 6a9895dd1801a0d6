/* SPDX-License-Identifier: Apache-2.0 */
/* What the threads of the backend tell the owner, and how they share the store. */
#include "broker/backend/lmdb/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Of threads that nobody waits for from one moment to the next. */
#define NICENESS 5

/* --- news ------------------------------------------------------------------------------------------- */

/* With the mutex. Without memory a flush or an answer would be lost for ever: wait for it. */
struct news *bk_lmdb_news_quietly(struct lmdb *lmdb, enum news_kind kind)
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
    return news;
}

struct news *bk_lmdb_news(struct lmdb *lmdb, enum news_kind kind)
{
    (void)eventfd_write(lmdb->wake, 1);
    return bk_lmdb_news_quietly(lmdb, kind);
}

void bk_lmdb_announce(struct lmdb *lmdb, bool is_idle)
{
    (void)pthread_mutex_unlock(&lmdb->mutex); /* whom it wakes takes it at once */
    if (!is_idle || lmdb->offer == NULL || !lmdb->offer(lmdb->offer_context)) {
        (void)eventfd_write(lmdb->wake, 1);
    }
    (void)pthread_mutex_lock(&lmdb->mutex);
}

void bk_lmdb_tell_state(struct lmdb *lmdb, enum bk_backend_state state, const char *text)
{
    struct news *news = bk_lmdb_news(lmdb, NEWS_STATE);
    news->state = state;
    (void)snprintf(news->text, sizeof(news->text), "%s", text);
    (void)snprintf(lmdb->why, sizeof(lmdb->why), "%s", state == BK_BACKEND_OK ? "" : text);
}

void bk_lmdb_tell_done(struct lmdb *lmdb, struct bk_request *request, int error)
{
    request->error = error;
    bk_lmdb_news_quietly(lmdb, NEWS_DONE)->request = request;
    bk_lmdb_announce(lmdb, lmdb->requests == NULL);
}

/* --- threads ---------------------------------------------------------------------------------------- */

void bk_lmdb_give_way(void)
{
    /* Linux has a niceness for each thread. Without it things are slower, not wrong. */
    (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICENESS);
}

/* --- the store, shared ---------------------------------------------------------------------------------- */

/* With the mutex: use the store; false when it is not to be used any more. */
bool bk_lmdb_enter(struct lmdb *lmdb)
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

void bk_lmdb_leave(struct lmdb *lmdb)
{
    lmdb->users--;
    (void)pthread_cond_broadcast(&lmdb->moved);
}

/* With the mutex: wait until nobody else uses the store; @own: who asks is a user. */
void bk_lmdb_be_alone(struct lmdb *lmdb, unsigned own)
{
    lmdb->is_exclusive = true;
    while (lmdb->users > own) {
        (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
    }
    lmdb->is_exclusive = true; /* a user may have been alone meanwhile, and together with the others again */
}

void bk_lmdb_be_together(struct lmdb *lmdb)
{
    lmdb->is_exclusive = false;
    (void)pthread_cond_broadcast(&lmdb->moved);
}

void bk_lmdb_fail(struct lmdb *lmdb, int error)
{
    if (!lmdb->has_failed) {
        lmdb->has_failed = lmdb->is_stale = true;
        bk_lmdb_tell_state(lmdb, BK_BACKEND_FAILED, bb_strerror(error));
        (void)pthread_cond_broadcast(&lmdb->to_commit);
        (void)pthread_cond_broadcast(&lmdb->to_apply);
        (void)pthread_cond_broadcast(&lmdb->moved);
    }
}

/* --- records ------------------------------------------------------------------------------------------ */

void bk_lmdb_records_drop(struct lmdb *lmdb, uint64_t applied)
{
    while (lmdb->records != NULL && lmdb->records->number <= applied) {
        struct record *record = lmdb->records;
        lmdb->records = record->next;
        lmdb->record_bytes -= bk_lmdb_payload(record).len;
        if (lmdb->records == NULL) {
            lmdb->records_end = &lmdb->records;
        }
        bb_buf_fini(&record->bytes);
        free(record);
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The state of the LMDB backend, shared by its threads; nobody outside broker/backend/lmdb includes this. */
#pragma once

#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/backend/lmdb/journal.h"
#include "broker/backend/lmdb/store.h"
#include "broker/backend/numbers.h"

#include <pthread.h>
#include <stdbool.h>

enum option {
    OPTION_MAP_SIZE,
    OPTION_RESERVE,
    OPTION_JOURNAL_SIZE,
    OPTION_APPLY_INTERVAL,
    OPTION_RETAIN_INTERVAL,
    OPTION_QUEUE_SIZE,
    OPTION_QUERY_TURN,
    OPTIONS
};

/* A ticket on its way into the journal. */
struct commit {
    struct commit *next;
    uint64_t ticket;
    size_t size;         /* of the payload */
    struct bb_buf bytes; /* the payload */
    bool has_channels;   /* something is said of channels */
    bool is_record;      /* the bytes can be written as they lie: they are from bk_journal_buffer() */
};

/* A journal record on its way into the store. */
struct record {
    struct record *next;
    uint64_t number;
    uint64_t at;         /* monotonic us */
    struct bb_buf bytes; /* from bk_journal_buffer() */
};

static inline struct bb_slice bk_lmdb_payload(const struct record *record)
{
    return bk_journal_payload(&record->bytes);
}

/* What a state is told with. */
#define BK_STATE_TEXT 400

enum news_kind {
    NEWS_FLUSHED,
    NEWS_TRIMMED,
    NEWS_STATE,
    NEWS_DONE,   /* a request */
    NEWS_LOG,    /* an error for the broker's own log */
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
    char text[BK_STATE_TEXT];
};

/* So much waiting for the store is taken in at once; so much in one transaction. */
#define BK_APPLY_SOON_BYTES ((size_t)4 << 20)
#define BK_APPLY_BYTES      ((size_t)8 << 20)

struct room {
    bool is_full;
    uint64_t bytes;  /* that may be on their way into the store */
    uint64_t needed; /* so many were refused: it is full until there is room for them */
    char text[160];  /* why, for a person */
};

struct lmdb {
    struct bk_backend backend;
    const struct bk_backend_listener *listener;
    struct bk_meter *meter;
    void (*log)(void *context, int level, const char *id, const char *text);
    void *log_context;
    bool (*offer)(void *context);
    void *offer_context;
    uint64_t (*now)(void *context);
    void *now_context;
    char *directory;
    uint64_t values[OPTIONS];
    size_t payload_max;         /* of a ticket: it must fit into a file of the journal */
    struct bk_numbers *numbers; /* the owner's thread: what was registered last */
    int wake;                   /* eventfd: there are news */
    pthread_mutex_t mutex;      /* of all that follows */
    pthread_cond_t to_commit;
    pthread_cond_t to_apply;
    pthread_cond_t to_read;
    pthread_cond_t to_search;
    pthread_cond_t to_copy;
    pthread_cond_t moved; /* applied, users or what waits has changed */
    struct bk_store *store;
    struct bk_journal *journal; /* the commit thread's */
    struct commit *commits;
    struct commit **commits_end;
    size_t commit_bytes;
    struct record *records;
    struct record **records_end;
    size_t record_bytes;
    size_t backlog_max; /* of record_bytes: what the tables took in in a while, of late */
    uint64_t durable;   /* number of the last journal record */
    uint64_t applied;
    uint64_t channels_at; /* number of the last one that says something of channels */
    struct bk_request *requests;
    struct bk_request **requests_end;
    struct bk_request *upkeep; /* TRIM and COMPACT: the apply thread's */
    struct bk_request **upkeep_end;
    struct news *news;
    struct news **news_end;
    bool has_failed; /* to be opened again */
    bool is_stuck;   /* the tables cannot take in what waits: there is no room */
    bool is_stale;   /* until the owner has been told, what it numbers does not follow what is kept */
    struct room room;
    int retain_error;        /* told already; the apply thread's */
    char why[BK_STATE_TEXT]; /* the state that was told last is not BK_BACKEND_OK */
    bool is_ending;
    bool has_committed; /* the commit thread has ended */
    bool apply_now;
    bool is_exclusive; /* nobody else may use the store */
    unsigned users;    /* threads that do */
    unsigned n_held;   /* threads that wait for `moved`, since a request cannot be answered yet */
    uint64_t n_commits;
    uint64_t commit_us;
    uint64_t commit_max_us;
    pthread_t threads[5];
    unsigned n_threads;
};

static inline uint64_t bk_lmdb_now(void)
{
    return (uint64_t)bb_clock_monotonic_us();
}

/* For what is kept by age. */
static inline uint64_t bk_lmdb_wall(const struct lmdb *lmdb)
{
    return lmdb->now != NULL ? lmdb->now(lmdb->now_context) : (uint64_t)bb_clock_wall_us();
}

/* All but the threads and bk_lmdb_open_files() are called with the mutex. */

/** bk_lmdb_news() - something to be told in dispatch(); to be filled in. Never NULL. */
struct news *bk_lmdb_news(struct lmdb *lmdb, enum news_kind kind);

/** bk_lmdb_news_quietly() - the same, and bk_lmdb_announce() follows. */
struct news *bk_lmdb_news_quietly(struct lmdb *lmdb, enum news_kind kind);

/** bk_lmdb_announce() - there are news; @is_idle: the calling thread has time to run the owner. The mutex is
 * given up. */
void bk_lmdb_announce(struct lmdb *lmdb, bool is_idle);

void bk_lmdb_tell_state(struct lmdb *lmdb, enum bk_backend_state state, const char *text);
void bk_lmdb_tell_done(struct lmdb *lmdb, struct bk_request *request, int error);

/** bk_lmdb_enter(), bk_lmdb_leave() - use the store; false when it is not to be used any more. Waits. */
bool bk_lmdb_enter(struct lmdb *lmdb);
void bk_lmdb_leave(struct lmdb *lmdb);

/** bk_lmdb_be_alone() - wait until nobody else uses the store; @own: 1 if who asks does. */
void bk_lmdb_be_alone(struct lmdb *lmdb, unsigned own);
void bk_lmdb_be_together(struct lmdb *lmdb);

/** bk_lmdb_fail() - nothing is acknowledged until everything has been opened and read again. */
void bk_lmdb_fail(struct lmdb *lmdb, int error);

/** bk_lmdb_open_files() - store and journal; everything that is durable is in the store, and synced there,
 * when this returns. */
BB_MUST_CHECK int bk_lmdb_open_files(struct lmdb *lmdb,
                                     struct bk_store **ret_store,
                                     struct bk_journal **ret_journal,
                                     struct bb_buf *err);

/** bk_lmdb_load_numbers() - what is stored was registered last. Return: 0 or an error of bk_store_load(). */
BB_MUST_CHECK int bk_lmdb_load_numbers(struct bk_store *store, struct bk_numbers **ret_numbers);

/** bk_lmdb_records_drop() - forget journal records that the store has. */
void bk_lmdb_records_drop(struct lmdb *lmdb, uint64_t applied);

/** bk_lmdb_look() - what room there is in the map and on the disk; in: whether it was full. Without the
 * mutex, as a user. */
void bk_lmdb_look(struct lmdb *lmdb, struct room *room);

/** bk_lmdb_watch() - look, and tell the state if it is another one. As a user; the mutex is given up
 * meanwhile. */
void bk_lmdb_watch(struct lmdb *lmdb);

/** bk_lmdb_be_full() - no events are taken until there is room for @needed bytes; @text: why. */
void bk_lmdb_be_full(struct lmdb *lmdb, uint64_t needed, const char *text);

/** bk_lmdb_room_max() - bytes that can be registered at once with an empty log of this size. */
size_t bk_lmdb_room_max(uint64_t map_size);

/** bk_lmdb_give_way() - the calling thread leaves the processor to those that answer publishers and
 * subscribers. */
void bk_lmdb_give_way(void);

/* The threads. */
void *bk_lmdb_commit_run(void *arg);
void *bk_lmdb_apply_run(void *arg);
void *bk_lmdb_read_run(void *arg);
void *bk_lmdb_search_run(void *arg);
void *bk_lmdb_copy_run(void *arg);

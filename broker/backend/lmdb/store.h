/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables on disk (schema.h): an LMDB environment in a directory, used by one process.
 *
 * A *position* is a group of up to 60 KiB of events in the order in which they were registered; a group has
 * one record for each of its channels. Positions, times and (for one server) sessions rise together. A path
 * id belongs to one channel.
 *
 * Checksums: rows of meta, channels, producers, cursors and by_sequence end with a CRC32C (row.h), records
 * and paths have their own (record.h). Of the first four all rows are read when the store is opened, before
 * anything is done on top of them; one that is damaged, missing or old keeps it from being opened. The other
 * indexes have none. Three of them have no values; by_path has a row for each path of each record, so that it
 * would cost 2 % of the instructions of apply and up to 2 % more room. A turned bit there can keep a record
 * from being found until verify, which compares both ways, tells it; but nothing wrong is served, since what
 * an entry leads to guards itself.
 *
 * Threads: one thread writes (apply, retain, trim, compact, close); any thread may read in read transactions
 * of its own and may call snapshot, verify and sizes. A read transaction sees what was committed when it
 * began; an open one pins pages, so keep it short. compact() and close() want that there is none.
 *
 * Retention is exact to the event: a record is rewritten without those that go. With max_per_path the budget
 * of a call bounds how many records are rewritten, so a path may keep more for a while: the longer it waits,
 * the more goes at once. A path's latest event stays in `paths` until another takes its place or the channel
 * goes.
 */
#pragma once

#include "broker/backend/lmdb/keys.h"
#include "broker/backend/lmdb/record.h"
#include "broker/backend/lmdb/schema.h"

/* Groups are closed at this size: what fits a whole number of pages behind LMDB's own header, with the
 * record's. */
#define BK_GROUP_BYTES ((size_t)60 * 1024 - 16)

struct bk_store {
    MDB_env *env; /* for readers: mdb_txn_* through the functions below */
    struct bk_store_tables tables;
    char *directory;
    size_t map_size;
    int lock;         /* descriptor of LOCK */
    uint64_t applied; /* writer thread only */
    /* Where retention goes on; writer thread only. */
    size_t retain_at;
    size_t surplus_len;
    uint8_t surplus_at[BK_KEY_MAX + 1];
};

/* Numbers of the newest event of a server, as in backend.h. */
typedef int bk_store_last_fn(void *context, const struct bk_event_id *id, uint64_t time);

struct bk_store_input {
    uint64_t number; /* of the journal record, rising by 1 */
    struct bb_slice payload;
};

/* Events of @channel before @first are gone. Called after the commit. */
typedef void bk_store_trimmed_fn(void *context, uint32_t channel, uint64_t first);

struct bk_store_sizes {
    uint64_t map;  /* bytes: the limit */
    uint64_t used; /* of pages that hold something, those behind a reader counted too */
    uint64_t file; /* bytes of the data file */
    uint64_t page;
    uint64_t free; /* of pages in the file that can be used again */
};

struct bk_store_report {
    uint64_t records;
    uint64_t events;
    uint64_t paths;
    uint64_t index_entries;
    uint64_t problems;
    char first[256]; /* the first problem, "" for none */
};

/**
 * bk_store_open() - make or open the store in @directory, which exists
 * @map_size: the most that it may grow to, at least 1 MiB; a larger one that is there already counts instead
 * @err: gets a sentence on failure
 *
 * Return: 0; BB_EEXISTS (another broker has it open), BB_EVERSION (@err says which one was found),
 * BB_ECORRUPT (@err says where, and what to do), BB_ESYSTEM, BB_ENOMEM, BB_EINVAL.
 */
BB_MUST_CHECK int
bk_store_open(const char *directory, size_t map_size, struct bk_store **ret_store, struct bb_buf *err);

/** bk_store_stretch() - let it grow beyond its limit by @bytes. No transaction may be open. Return: 0,
 * BB_ESYSTEM, BB_ENOMEM. */
BB_MUST_CHECK int bk_store_stretch(struct bk_store *store, size_t bytes);

/** bk_store_close() - NULL is fine. No transaction may be open. */
void bk_store_close(struct bk_store *store);

/** bk_store_applied() - the number of the last journal record in the tables, 0 for none; the writer's thread. */
static inline uint64_t bk_store_applied(const struct bk_store *store)
{
    return store->applied;
}

/**
 * bk_store_load() - tell channels (those being removed too, with `removed` set), producers, cursors and, to
 * @last, the newest id of each server
 *
 * Each of the functions may be NULL. Return: 0, BB_ENOMEM, BB_ECORRUPT, BB_ESYSTEM, or what a function
 * returned.
 */
BB_MUST_CHECK int bk_store_load(struct bk_store *store,
                                const struct bk_backend_loader *loader,
                                bk_store_last_fn *last,
                                void *last_context);

/**
 * bk_store_apply() - take journal records into the tables, all of them in one transaction or none
 * @inputs: in order; numbers up to `applied` are skipped, the others must go on from it without a hole
 *
 * Blocks of a channel that is not there, or is being removed, are dropped. On error the store is as it was.
 *
 * Return: 0; BB_ELOGFULL (map or disk full: make room with retain or trim, then try again), BB_EINVAL (a
 * hole), BB_ECORRUPT (a payload cannot be followed, or a table is damaged), BB_ESYSTEM, BB_ENOMEM.
 */
BB_MUST_CHECK int
bk_store_apply(struct bk_store *store, const struct bk_store_input *inputs, size_t n_inputs);

/**
 * bk_store_retain() - remove what channels need not keep, in one transaction
 * @now:        wall clock, us
 * @budget:     how many records to remove or rewrite at most
 * @on_trimmed: called for each channel whose first sequence rose; may be NULL
 * @ret_done:   how many were; less than @budget: nothing is left to do now
 *
 * Removals of channels go on here. A damaged record is removed with what can be known of it; index entries of
 * it may stay, which is why an index entry whose record is not there is nothing to a reader. A damaged row of
 * a channel or of by_sequence changes nothing: what could be removed for it is not known.
 *
 * Return: 0, BB_ELOGFULL (no room even for that: try a smaller budget), BB_ESYSTEM, BB_ECORRUPT, BB_ENOMEM.
 */
BB_MUST_CHECK int bk_store_retain(struct bk_store *store,
                                  uint64_t now,
                                  size_t budget,
                                  bk_store_trimmed_fn *on_trimmed,
                                  void *context,
                                  size_t *ret_done);

/**
 * bk_store_trim() - remove events of @channel before sequence @before, whatever the floor says
 * @budget:    how many records to remove at most; call again while *@ret_first is below @before and the
 * channel is not empty
 * @ret_first: the oldest sequence kept now, last + 1 if there is none
 * @ret_more:  the budget ended it
 *
 * Return: as bk_store_retain(), BB_ENOTFOUND (no such channel).
 */
BB_MUST_CHECK int bk_store_trim(struct bk_store *store,
                                uint32_t channel,
                                uint64_t before,
                                size_t budget,
                                uint64_t *ret_first,
                                bool *ret_more);

/** bk_store_sizes() - Return: 0, BB_ESYSTEM, BB_ENOMEM. */
BB_MUST_CHECK int bk_store_sizes(struct bk_store *store, struct bk_store_sizes *ret_sizes);

/**
 * bk_store_snapshot() - copy the store as it is now to @directory, which is made and must not exist
 *
 * The copy is compact and on disk when this returns. Return: 0, BB_EEXISTS, BB_ESYSTEM, BB_ENOMEM.
 */
BB_MUST_CHECK int bk_store_snapshot(struct bk_store *store, const char *directory);

/**
 * bk_store_compact() - copy the data beside itself without its free pages, put it in its place and open it
 * again
 *
 * The writer's thread; no read transaction may be open, and readers end theirs with mdb_txn_abort, not with
 * reset. With a damaged row of the small tables BB_ECORRUPT: it could not be opened again, and nothing is
 * done. On failure after the rename the store is unusable but for close (env is NULL): BB_ESYSTEM.
 */
BB_MUST_CHECK int bk_store_compact(struct bk_store *store, struct bb_buf *err);

/**
 * bk_store_verify() - walk all tables in one read transaction: every CRC, and that records and indexes agree
 * both ways
 *
 * Return: 0, also when problems were found; BB_ESYSTEM, BB_ENOMEM.
 */
BB_MUST_CHECK int bk_store_verify(struct bk_store *store, struct bk_store_report *ret_report);

struct bk_verify;

/** bk_verify_new() - the same a piece at a time, each in a read transaction of its own; borrows @report.
 * Return: 0, BB_ENOMEM. */
BB_MUST_CHECK int bk_verify_new(struct bk_store_report *report, struct bk_verify **ret_verify);

/**
 * bk_verify_step() - go on, until it is done or @deadline (monotonic us) is reached, but at least some rows
 *
 * Return: 1: not done yet; 0: done; BB_ESYSTEM, BB_ENOMEM.
 */
BB_MUST_CHECK int bk_verify_step(struct bk_verify *verify, struct bk_store *store, uint64_t deadline);

/** bk_verify_free() - NULL is fine. */
void bk_verify_free(struct bk_verify *verify);

/* --- for readers ---------------------------------------------------------------------------------- */

/** bk_store_begin() - a read transaction; not tied to a thread, used by one at a time. Return: 0, BB_ESYSTEM,
 * BB_ENOMEM. */
BB_MUST_CHECK int bk_store_begin(struct bk_store *store, MDB_txn **ret_txn);

/** bk_store_end() - NULL is fine. */
static inline void bk_store_end(MDB_txn *txn)
{
    if (txn != NULL) {
        mdb_txn_abort(txn);
    }
}

/**
 * bk_store_record() - the record of @channel at @position, checked
 *
 * Borrows from the map until @txn ends. Return: 0, BB_ENOTFOUND, BB_ECORRUPT, BB_EVERSION, BB_ESYSTEM.
 */
BB_MUST_CHECK int bk_store_record(const struct bk_store *store,
                                  MDB_txn *txn,
                                  uint64_t position,
                                  uint32_t channel,
                                  struct bk_record *ret_record);

/** bk_store_channel() - settings and counters; slices borrow. Return: 0, BB_ENOTFOUND, BB_ECORRUPT,
 * BB_ESYSTEM. */
BB_MUST_CHECK int bk_store_channel(const struct bk_store *store,
                                   MDB_txn *txn,
                                   uint32_t channel,
                                   struct bk_log_channel *ret_channel);

/**
 * bk_store_latest() - the latest event of @path in @channel
 *
 * Return: 0, BB_ENOTFOUND, BB_ECORRUPT, BB_ESYSTEM.
 */
BB_MUST_CHECK int bk_store_latest(const struct bk_store *store,
                                  MDB_txn *txn,
                                  uint32_t channel,
                                  struct bb_slice path,
                                  struct bk_latest *ret_latest);

/** bk_place_read() - a row of by_sequence. Return: 0, BB_ECORRUPT. */
BB_MUST_CHECK int bk_place_read(struct bb_slice key, struct bb_slice value, struct bk_place *ret_place);

/**
 * bk_store_find() - the record that holds @sequence of @channel or, if none does, the first one after it
 * @ret_first: its first sequence
 *
 * Return: 0, BB_ENOTFOUND, BB_ECORRUPT, BB_ESYSTEM.
 */
BB_MUST_CHECK int bk_store_find(const struct bk_store *store,
                                MDB_txn *txn,
                                uint32_t channel,
                                uint64_t sequence,
                                uint64_t *ret_first,
                                struct bk_place *ret_place);

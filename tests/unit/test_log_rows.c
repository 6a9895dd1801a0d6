/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that guard themselves: whatever bit of one is turned over is noticed, and nothing is done on top of
 * it. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/lmdb/row.h"
#include "broker/backend/lmdb/store.h"
#include "broker/backend/lmdb/write.h"
#include "broker/backend/registry.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SERVER 5
#define MAP    ((size_t)16 << 20)

static const enum bk_row_table tables[] = {BK_ROW_META, BK_ROW_CHANNELS, BK_ROW_PRODUCERS, BK_ROW_CURSORS,
                                           BK_ROW_BY_SEQUENCE};

struct fixture {
    char directory[64];
    struct bk_store *store;
    uint64_t number;
    uint64_t session;
};

/* A row out of the map, to be put again. */
struct row {
    enum bk_row_table table;
    size_t key_len;
    size_t value_len;
    uint8_t key[BK_KEY_MAX];
    uint8_t value[512];
};

static void open_store(struct fixture *fixture)
{
    cr_assert_eq(bk_store_open(fixture->directory, MAP, &fixture->store, NULL), 0);
    cr_assert_eq(mdb_env_set_flags(fixture->store->env, MDB_NOSYNC, 1), 0);
}

static int apply(struct fixture *fixture, const struct bk_append *append)
{
    struct bb_buf payload = BB_BUF_INIT;
    cr_assert_eq(bk_batch_encode(&payload, append), 0);
    const struct bk_store_input input = {fixture->number + 1, bb_buf_slice(&payload)};
    int error = bk_store_apply(fixture->store, &input, 1);
    fixture->number += error == 0 ? 1 : 0;
    bb_buf_fini(&payload);
    return error;
}

/* Three events of one path on channel 1, so that no two sequences of records are one bit apart, with the
 * number of a producer and a cursor. */
static int put(struct fixture *fixture)
{
    struct bb_buf events = BB_BUF_INIT;
    for (size_t i = 0; i < 3; i++) {
        bb_event_write(&events, bb_slice_str("p"), bb_slice("\x01", 1), NULL);
    }
    uint64_t session = fixture->session + 1;
    struct bk_log_block block = {
        .channel = 1,
        .server = SERVER,
        .head = {session, 1000 * session, 77, 3 * fixture->session + 1, 1, 3, events.len},
        .events = events.data,
    };
    struct bk_log_producer producer = {.key = "a client", .last = session, .notes = bb_slice_str("notes")};
    const char *text = session % 2 == 0 ? "here" : "there";
    struct bk_log_cursor cursor = {.name = bb_slice_str("a cursor"), .value = bb_slice_str(text)};
    const struct bk_append append = {.blocks = &block,
                                     .n_blocks = 1,
                                     .producers = &producer,
                                     .n_producers = 1,
                                     .cursors = &cursor,
                                     .n_cursors = 1};
    int error = apply(fixture, &append);
    fixture->session += error == 0 ? 1 : 0;
    bb_buf_fini(&events);
    return error;
}

static void fixture_init(struct fixture *fixture)
{
    *fixture = (struct fixture){0};
    (void)snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/busbar-rows-XXXXXX");
    cr_assert_not_null(mkdtemp(fixture->directory));
    open_store(fixture);
    struct bk_log_channel channel = {.id = 1,
                                     .name = bb_slice_str("one"),
                                     .retention = BK_RETENTION_INIT,
                                     .settings = bb_slice_str("\x80")};
    channel.retention.max_events = 5;
    channel.retention.max_per_path = 1;
    const struct bk_append append = {.channels = &channel, .n_channels = 1};
    cr_assert_eq(apply(fixture, &append), 0);
    cr_assert_eq(put(fixture), 0);
    cr_assert_eq(put(fixture), 0);
}

static uint64_t problems(struct fixture *fixture, char *ret_first, size_t size)
{
    struct bk_store_report report;
    cr_assert_eq(bk_store_verify(fixture->store, &report), 0);
    (void)snprintf(ret_first, size, "%s", report.first);
    return report.problems;
}

static void check(struct fixture *fixture)
{
    char first[256];
    cr_assert_eq(problems(fixture, first, sizeof(first)), 0, "%s", first);
}

static void fixture_fini(struct fixture *fixture)
{
    static const char *const names[] = {"data.mdb", "lock.mdb", "LOCK"};
    bk_store_close(fixture->store);
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        char path[160];
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->directory, names[i]);
        (void)unlink(path);
    }
    cr_assert_eq(rmdir(fixture->directory), 0, "nothing else was made");
}

/* Row number @n of a table. Return: whether there is one. */
static bool row_read(struct fixture *fixture, enum bk_row_table table, size_t n, struct row *row)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    int rc = 0;
    cr_assert_eq(bk_store_begin(fixture->store, &txn), 0);
    cr_assert_eq(mdb_cursor_open(txn, bk_row_dbi(&fixture->store->tables, table), &cursor), 0);
    for (size_t i = 0; i <= n && rc == 0; i++) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    if (rc == 0) {
        *row = (struct row){.table = table, .key_len = key.mv_size, .value_len = value.mv_size};
        cr_assert(key.mv_size <= sizeof(row->key) && value.mv_size <= sizeof(row->value));
        memcpy(row->key, key.mv_data, key.mv_size);
        memcpy(row->value, value.mv_data, value.mv_size);
    }
    mdb_cursor_close(cursor);
    bk_store_end(txn);
    return rc == 0;
}

/* What no checksum of the store sees: LMDB's own put, after @instead was deleted. */
static void row_put(struct fixture *fixture, const struct row *row, const struct row *instead)
{
    MDB_txn *txn = NULL;
    MDB_dbi dbi = bk_row_dbi(&fixture->store->tables, row->table);
    MDB_val old = {instead->key_len, bb_unconst(instead->key)};
    MDB_val key = {row->key_len, bb_unconst(row->key)};
    MDB_val value = {row->value_len, bb_unconst(row->value)};
    cr_assert_eq(mdb_txn_begin(fixture->store->env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_del(txn, dbi, &old, NULL), 0);
    cr_assert_eq(mdb_put(txn, dbi, &key, &value, MDB_NOOVERWRITE), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
}

static struct row turned(const struct row *row, size_t bit)
{
    struct row other = *row;
    uint8_t *bytes = bit < row->key_len * 8 ? other.key : other.value;
    size_t at = bit < row->key_len * 8 ? bit : bit - row->key_len * 8;
    bytes[at / 8] ^= (uint8_t)(1U << at % 8);
    return other;
}

static int see_channel(void *context, const struct bk_log_channel *channel)
{
    (void)context;
    (void)channel;
    return 0;
}

static int see_producer(void *context, const struct bk_log_producer *producer)
{
    (void)context;
    (void)producer;
    return 0;
}

static int see_cursor(void *context, const struct bk_log_cursor *cursor)
{
    (void)context;
    (void)cursor;
    return 0;
}

static int see_last(void *context, const struct bk_event_id *id, uint64_t time)
{
    (void)context;
    (void)id;
    (void)time;
    return 0;
}

static int load(struct fixture *fixture)
{
    const struct bk_backend_loader loader = {NULL, see_channel, see_producer, see_cursor};
    return bk_store_load(fixture->store, &loader, see_last, NULL);
}

typedef void row_fn(struct fixture *fixture, const struct row *row, const struct row *other, size_t bit);

/* @fn for each bit of each row of each table, the row being turned over meanwhile. */
static void for_each_bit(struct fixture *fixture, row_fn *fn)
{
    for (size_t i = 0; i < BB_COUNT(tables); i++) {
        struct row row;
        size_t n = 0;
        for (; row_read(fixture, tables[i], n, &row); n++) {
            for (size_t bit = 0; bit < (row.key_len + row.value_len) * 8; bit++) {
                struct row other = turned(&row, bit);
                row_put(fixture, &other, &row);
                fn(fixture, &row, &other, bit);
                row_put(fixture, &row, &other);
            }
        }
        cr_assert_gt(n, 0);
    }
}

/* The rows that load() tells, but those of "last" whose key does not begin so any more. */
static bool is_loaded(const struct row *row)
{
    return row->table == BK_ROW_CHANNELS || row->table == BK_ROW_PRODUCERS || row->table == BK_ROW_CURSORS ||
           (row->table == BK_ROW_META && row->key_len == 12 && memcmp(row->key, "last", 4) == 0);
}

static void is_noticed(struct fixture *fixture, const struct row *row, const struct row *other, size_t bit)
{
    char first[256];
    (void)row;
    cr_assert_gt(problems(fixture, first, sizeof(first)), 0, "table %d, bit %zu", (int)row->table, bit);
    cr_assert_eq(load(fixture), is_loaded(other) ? BB_ECORRUPT : 0, "table %d, bit %zu", (int)row->table,
                 bit);
}

Test(log_rows, each_bit_is_noticed_by_verification_and_loading)
{
    struct fixture fixture;
    fixture_init(&fixture);
    for_each_bit(&fixture, is_noticed);
    check(&fixture);
    cr_assert_eq(load(&fixture), 0);
    fixture_fini(&fixture);
}

static void is_refused(struct fixture *fixture, const struct row *row, const struct row *other, size_t bit)
{
    static const char *const names[] = {
        [BK_ROW_META] = "table meta",
        [BK_ROW_CHANNELS] = "table channels",
        [BK_ROW_PRODUCERS] = "table producers",
        [BK_ROW_CURSORS] = "table cursors",
    };
    struct bb_buf err = BB_BUF_INIT;
    struct bk_store *opened = NULL;
    if (row->table == BK_ROW_BY_SEQUENCE) { /* too many to be read at every start */
        return;
    }
    (void)other;
    bk_store_close(fixture->store);
    int error = bk_store_open(fixture->directory, MAP, &opened, &err);
    bool is_format = row->key_len == 6 && memcmp(row->key, BK_META_FORMAT, 6) == 0;
    cr_assert_eq(error, is_format ? BB_EVERSION : BB_ECORRUPT, "table %d, bit %zu", (int)row->table, bit);
    if (!is_format) {
        cr_assert_not_null(strstr(bb_buf_string(&err), names[row->table]), "%s", bb_buf_string(&err));
        cr_assert_not_null(strstr(bb_buf_string(&err), "busbar log verify"), "%s", bb_buf_string(&err));
    }
    cr_assert_gt(err.len, 0);
    bb_buf_fini(&err);
    /* To turn the bit back: as the store would be, were it not for the row. */
    fixture->store = calloc(1, sizeof(*fixture->store));
    cr_assert_not_null(fixture->store);
    fixture->store->lock = -1;
    cr_assert_eq(mdb_env_create(&fixture->store->env), 0);
    cr_assert_eq(mdb_env_set_maxdbs(fixture->store->env, 16), 0);
    cr_assert_eq(mdb_env_set_mapsize(fixture->store->env, MAP), 0);
    cr_assert_eq(mdb_env_open(fixture->store->env, fixture->directory, MDB_NOTLS | MDB_NOSYNC, 0600), 0);
    MDB_txn *txn = NULL;
    struct bk_store_tables *all = &fixture->store->tables;
    cr_assert_eq(mdb_txn_begin(fixture->store->env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &all->meta), 0);
    cr_assert_eq(mdb_dbi_open(txn, "channels", 0, &all->channels), 0);
    cr_assert_eq(mdb_dbi_open(txn, "producers", 0, &all->producers), 0);
    cr_assert_eq(mdb_dbi_open(txn, "cursors", 0, &all->cursors), 0);
    cr_assert_eq(mdb_dbi_open(txn, "by_sequence", 0, &all->by_sequence), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
}

Test(log_rows, each_bit_keeps_the_log_from_being_opened)
{
    struct fixture fixture;
    fixture_init(&fixture);
    for_each_bit(&fixture, is_refused);
    bk_store_close(fixture.store);
    open_store(&fixture);
    check(&fixture);
    cr_assert_eq(put(&fixture), 0, "nothing of it was put aside");
    check(&fixture);
    fixture_fini(&fixture);
}

static size_t n_rows(struct fixture *fixture, MDB_dbi dbi)
{
    MDB_txn *txn = NULL;
    MDB_stat stat;
    cr_assert_eq(bk_store_begin(fixture->store, &txn), 0);
    cr_assert_eq(mdb_stat(txn, dbi, &stat), 0);
    bk_store_end(txn);
    return stat.ms_entries;
}

/* What is below a damaged row's channel is left alone, and so is the row. */
Test(log_rows, nothing_is_done_on_top_of_a_damaged_channel)
{
    struct fixture fixture;
    struct row row;
    uint64_t first = 0;
    bool more = false;
    size_t done = 0;
    MDB_envinfo before;
    MDB_envinfo after;
    fixture_init(&fixture);
    cr_assert(row_read(&fixture, BK_ROW_CHANNELS, 0, &row));
    for (size_t bit = row.key_len * 8; bit < (row.key_len + row.value_len) * 8; bit++) {
        struct row other = turned(&row, bit);
        row_put(&fixture, &other, &row);
        cr_assert_eq(mdb_env_info(fixture.store->env, &before), 0);
        cr_assert_eq(put(&fixture), BB_ECORRUPT);
        cr_assert_eq(bk_store_retain(fixture.store, 1, 100, NULL, NULL, &done), BB_ECORRUPT);
        cr_assert_eq(bk_store_trim(fixture.store, 1, 4, 100, &first, &more), BB_ECORRUPT);
        cr_assert_eq(bk_store_compact(fixture.store, NULL), BB_ECORRUPT);
        cr_assert_eq(mdb_env_info(fixture.store->env, &after), 0);
        cr_assert_eq(before.me_last_txnid, after.me_last_txnid);
        row_put(&fixture, &row, &other);
    }
    check(&fixture);
    cr_assert_eq(n_rows(&fixture, fixture.store->tables.records), 2);
    cr_assert_eq(n_rows(&fixture, fixture.store->tables.surplus), 1);
    cr_assert_eq(put(&fixture), 0);
    cr_assert_eq(bk_store_retain(fixture.store, 1, 100, NULL, NULL, &done), 0);
    cr_assert_eq(n_rows(&fixture, fixture.store->tables.records), 1);
    check(&fixture);
    fixture_fini(&fixture);
}

/* An entry of by_sequence leads to a record only when it is whole. */
Test(log_rows, readers_and_retention_do_not_follow_a_damaged_place)
{
    struct fixture fixture;
    struct row row;
    size_t done = 0;
    fixture_init(&fixture);
    cr_assert(row_read(&fixture, BK_ROW_BY_SEQUENCE, 0, &row));
    for (size_t bit = row.key_len * 8; bit < (row.key_len + row.value_len) * 8; bit++) {
        struct row other = turned(&row, bit);
        struct bk_place place;
        MDB_txn *txn = NULL;
        uint64_t first = 0;
        row_put(&fixture, &other, &row);
        cr_assert_eq(bk_store_begin(fixture.store, &txn), 0);
        cr_assert_eq(bk_store_find(fixture.store, txn, 1, 1, &first, &place), BB_ECORRUPT);
        cr_assert_eq(bk_store_find(fixture.store, txn, 1, 2, &first, &place), BB_ECORRUPT);
        cr_assert_eq(bk_store_find(fixture.store, txn, 1, 4, &first, &place), 0);
        bk_store_end(txn);
        cr_assert_eq(bk_store_retain(fixture.store, 1, 100, NULL, NULL, &done), BB_ECORRUPT);
        row_put(&fixture, &row, &other);
    }
    check(&fixture);
    fixture_fini(&fixture);
}

Test(log_rows, a_row_of_another_table_is_not_taken)
{
    struct fixture fixture;
    struct row row;
    struct row other;
    char first[256];
    fixture_init(&fixture);
    cr_assert(row_read(&fixture, BK_ROW_CURSORS, 0, &row));
    cr_assert(row_read(&fixture, BK_ROW_META, 1, &other));
    other.table = BK_ROW_CURSORS; /* where any key and any value will do */
    row_put(&fixture, &other, &row);
    cr_assert_eq(load(&fixture), BB_ECORRUPT);
    cr_assert_gt(problems(&fixture, first, sizeof(first)), 0);
    cr_assert_not_null(strstr(first, "\"head\" of the table cursors is damaged"), "%s", first);
    fixture_fini(&fixture);
}

/* Opens what was left, or says why not. */
static int open_again(struct fixture *fixture)
{
    struct bb_buf err = BB_BUF_INIT;
    bk_store_close(fixture->store);
    int error = bk_store_open(fixture->directory, MAP, &fixture->store, &err);
    cr_assert_eq(error == 0, err.len == 0, "%s", bb_buf_string(&err));
    bb_buf_fini(&err);
    return error;
}

/* A row as it was some transactions ago is whole. */
Test(log_rows, old_rows_are_noticed)
{
    for (size_t i = 0; i < BB_COUNT(tables); i++) {
        for (size_t n = 0; n < 3; n++) {
            struct fixture fixture;
            struct row old = {0};
            struct row row = {0};
            char first[256];
            fixture_init(&fixture);
            bool has_row = row_read(&fixture, tables[i], n, &old);
            cr_assert_eq(put(&fixture), 0);
            if (has_row && row_read(&fixture, tables[i], n, &row) &&
                memcmp(row.value, old.value, row.value_len) != 0) {
                row_put(&fixture, &old, &row);
                cr_assert_gt(problems(&fixture, first, sizeof(first)), 0, "table %zu, row %zu", i, n);
                cr_assert_eq(open_again(&fixture), BB_ECORRUPT, "table %zu, row %zu", i, n);
            } else {
                cr_assert(!has_row || tables[i] == BK_ROW_BY_SEQUENCE ||
                          (tables[i] == BK_ROW_META && n == 0));
            }
            fixture_fini(&fixture);
        }
    }
}

static void delete_row(struct fixture *fixture, const struct row *row)
{
    MDB_txn *txn = NULL;
    MDB_val key = {row->key_len, bb_unconst(row->key)};
    cr_assert_eq(mdb_txn_begin(fixture->store->env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_del(txn, bk_row_dbi(&fixture->store->tables, row->table), &key, NULL), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
}

Test(log_rows, missing_rows_are_noticed)
{
    for (size_t i = 0; i < BB_COUNT(tables); i++) {
        struct row row;
        bool has_row = true;
        for (size_t n = 0; has_row; n++) {
            struct fixture fixture;
            char first[256];
            fixture_init(&fixture);
            has_row = row_read(&fixture, tables[i], n, &row);
            if (has_row) {
                bool is_format = tables[i] == BK_ROW_META && n == 0;
                int wanted = tables[i] == BK_ROW_BY_SEQUENCE ? 0 : is_format ? BB_EVERSION : BB_ECORRUPT;
                delete_row(&fixture, &row);
                cr_assert(is_format || problems(&fixture, first, sizeof(first)) > 0, "table %zu, row %zu", i,
                          n);
                cr_assert_eq(open_again(&fixture), wanted, "table %zu, row %zu", i, n);
            }
            fixture_fini(&fixture);
        }
    }
}

static void drop_table(struct fixture *fixture, const char *name)
{
    MDB_txn *txn = NULL;
    MDB_dbi dbi = 0;
    cr_assert_eq(mdb_txn_begin(fixture->store->env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_dbi_open(txn, name, 0, &dbi), 0);
    cr_assert_eq(mdb_drop(txn, dbi, 1), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
}

Test(log_rows, a_table_that_is_not_there_is_not_made_again)
{
    static const char *const names[] = {"meta", "channels", "producers", "surplus"};
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        struct fixture fixture;
        struct bb_buf err = BB_BUF_INIT;
        fixture_init(&fixture);
        drop_table(&fixture, names[i]);
        bk_store_close(fixture.store);
        for (size_t n = 0; n < 2; n++) {
            bb_buf_reset(&err);
            cr_assert_eq(bk_store_open(fixture.directory, MAP, &fixture.store, &err), BB_ECORRUPT);
            cr_assert_not_null(strstr(bb_buf_string(&err), names[i]), "%s", bb_buf_string(&err));
        }
        bb_buf_fini(&err);
        fixture_fini(&fixture);
    }
}

/* --- a broker's backend at work ------------------------------------------------------------------- */

struct watcher {
    char told[256];
    size_t n_told;
};

static void on_number(void *context, uint64_t ticket)
{
    (void)context;
    (void)ticket;
}

static void on_flushed(void *context, uint64_t ticket, int error)
{
    (void)context;
    (void)ticket;
    (void)error;
}

static void on_trimmed(void *context, uint32_t channel, uint64_t first)
{
    (void)context;
    (void)channel;
    (void)first;
}

static void on_state(void *context, enum bk_backend_state state, const char *text)
{
    (void)context;
    (void)state;
    (void)text;
}

static void on_log(void *context, int level, const char *id, const char *text)
{
    struct watcher *watcher = context;
    (void)level;
    (void)snprintf(watcher->told, sizeof(watcher->told), "%s %s", id, text);
    watcher->n_told++;
}

/* In a process of its own, which is how LMDB lets two have it open. */
static void damage_channel(const char *directory)
{
    pid_t pid = fork();
    if (pid == 0) {
        MDB_env *env = NULL;
        MDB_txn *txn = NULL;
        MDB_dbi dbi = 0;
        uint8_t number[] = {0, 0, 0, 1};
        MDB_val key = {sizeof(number), number};
        MDB_val value = {3, bb_unconst("bad")};
        bool ok = mdb_env_create(&env) == 0 && mdb_env_set_maxdbs(env, 16) == 0 &&
                  mdb_env_open(env, directory, MDB_NOTLS, 0600) == 0 &&
                  mdb_txn_begin(env, NULL, 0, &txn) == 0 && mdb_dbi_open(txn, "channels", 0, &dbi) == 0 &&
                  mdb_put(txn, dbi, &key, &value, 0) == 0 && mdb_txn_commit(txn) == 0;
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert_eq(status, 0);
}

Test(log_rows, retention_that_cannot_go_on_is_told_once)
{
    static const char *const options[] = {"retain-interval=1ms", "journal-size=1M", "map-size=16M",
                                          "reserve=0"};
    static const char *const more[] = {"journal-0", "journal-1"};
    struct fixture fixture;
    struct watcher watcher = {.n_told = 0};
    struct bk_backend_listener listener = {&watcher, on_number, on_flushed, on_trimmed, on_state};
    struct bk_meter meter = {0};
    struct bk_backend *backend = NULL;
    struct bb_buf err = BB_BUF_INIT;
    fixture_init(&fixture);
    bk_store_close(fixture.store);
    struct bk_backend_env env = {
        .directory = fixture.directory,
        .server = SERVER,
        .listener = &listener,
        .meter = &meter,
        .log = on_log,
        .log_context = &watcher,
    };
    cr_assert_eq(bk_backend_open("lmdb", options, BB_COUNT(options), &env, &backend, &err), 0);
    damage_channel(fixture.directory);
    for (size_t i = 0; i < 2000 && (watcher.n_told == 0 || i < 50); i++) {
        struct pollfd fd = {.fd = backend->ops->fd(backend), .events = POLLIN};
        (void)poll(&fd, 1, 1);
        backend->ops->dispatch(backend);
    }
    cr_assert_eq(watcher.n_told, 1);
    cr_assert_not_null(strstr(watcher.told, "BB-LOG-RETAIN"), "%s", watcher.told);
    backend->ops->close(backend);
    bb_buf_reset(&err);
    cr_assert_eq(bk_backend_open("lmdb", options, BB_COUNT(options), &env, &backend, &err), BB_ECORRUPT);
    cr_assert_not_null(strstr(bb_buf_string(&err), "the row 1 of the table channels is damaged"), "%s",
                       bb_buf_string(&err));
    bb_buf_fini(&err);
    for (size_t i = 0; i < BB_COUNT(more); i++) {
        char path[160];
        (void)snprintf(path, sizeof(path), "%s/%s", fixture.directory, more[i]);
        (void)unlink(path);
    }
    fixture.store = NULL;
    fixture_fini(&fixture);
}

Test(log_rows, sealing_covers_table_key_and_value)
{
    uint8_t value[8 + BK_ROW_CRC] = "a value";
    struct bb_slice key = bb_slice_str("key");
    bk_row_seal(BK_ROW_CURSORS, key, value, 8);
    struct bb_slice opened = bb_slice(value, sizeof(value));
    cr_assert_eq(bk_row_open(BK_ROW_CURSORS, key, &opened), 0);
    cr_assert(bb_slice_equal(opened, bb_slice(value, 8)));
    for (size_t i = 0; i < BB_COUNT(tables); i++) {
        opened = bb_slice(value, sizeof(value));
        cr_assert_eq(bk_row_open(tables[i], key, &opened), tables[i] == BK_ROW_CURSORS ? 0 : BB_ECORRUPT);
    }
    for (size_t len = 0; len < sizeof(value); len++) {
        opened = bb_slice(value, len);
        cr_assert_eq(bk_row_open(BK_ROW_CURSORS, key, &opened), BB_ECORRUPT);
    }
    /* A byte that moved from the value to the key. */
    opened = bb_slice(value + 1, sizeof(value) - 1);
    cr_assert_eq(bk_row_open(BK_ROW_CURSORS, bb_slice_str("keya"), &opened), BB_ECORRUPT);
    uint8_t empty[BK_ROW_CRC];
    bk_row_seal(BK_ROW_CURSORS, key, empty, 0);
    opened = bb_slice(empty, sizeof(empty));
    cr_assert_eq(bk_row_open(BK_ROW_CURSORS, key, &opened), 0);
    cr_assert_eq(opened.len, 0);
}

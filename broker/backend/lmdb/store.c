/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/store.h"

#include "proto/base/error.h"

#include "broker/backend/lmdb/journal.h"
#include "broker/backend/lmdb/row.h"
#include "broker/backend/lmdb/txn.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_MIN     ((size_t)1 << 20)
#define TABLES_MAX  16
#define FILE_MODE   0640
#define FOLDER_MODE 0750
#define FREE_DBI    0
#define COMPACT_DIR "compact.tmp"
#define DATA_FILE   "data.mdb"

/* A data file that was never finished is smaller. */
#define UNFINISHED_MAX 65536

static void say(struct bb_buf *err, const char *what, const char *why)
{
    if (err != NULL) {
        bb_buf_printf(err, "%s: %s", what, why);
    }
}

static void say_errno(struct bb_buf *err, const char *what)
{
    if (err != NULL) {
        bb_buf_printf(err, "%s: %m", what);
    }
}

static int path_join(char *to, const char *directory, const char *name)
{
    int len = snprintf(to, PATH_MAX, "%s/%s", directory, name);
    return len < 0 || len >= PATH_MAX ? BB_EINVAL : 0;
}

static int sync_path(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC);
    if (fd < 0) {
        return BB_ESYSTEM;
    }
    int error = fsync(fd) < 0 ? BB_ESYSTEM : 0;
    close(fd);
    return error;
}

/* --- opening -------------------------------------------------------------------------------------- */

/* One process at a time: LMDB itself would let several in. */
static int lock_take(struct bk_store *store, struct bb_buf *err)
{
    char path[PATH_MAX];
    if (path_join(path, store->directory, "LOCK") < 0) {
        say(err, store->directory, "the name is too long");
        return BB_EINVAL;
    }
    store->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
    if (store->lock < 0) {
        say_errno(err, path);
        return BB_ESYSTEM;
    }
    if (flock(store->lock, LOCK_EX | LOCK_NB) < 0) {
        int error = errno == EWOULDBLOCK ? BB_EEXISTS : BB_ESYSTEM;
        if (error == BB_EEXISTS) {
            say(err, store->directory, "another broker has it open");
        } else {
            say_errno(err, store->directory);
        }
        return error;
    }
    return 0;
}

/* Sees whether the rest may be touched. */
static int check_format(const struct bk_store *store, MDB_txn *txn, struct bb_buf *err)
{
    struct bb_slice format;
    int error = bk_get(txn, store->tables.meta, bb_slice_str(BK_META_FORMAT), &format);
    if (error == BB_ENOTFOUND) {
        format = bb_slice_str("of no known version");
        error = 0;
    }
    if (error == 0 && !bb_slice_equal(format, bb_slice_str(BK_STORE_FORMAT))) {
        if (err != NULL) {
            bb_buf_printf(err, "%s: the log there is \"%.*s\", this broker reads and writes \"%s\"",
                          store->directory, (int)BB_MIN(format.len, (size_t)64), (const char *)format.data,
                          BK_STORE_FORMAT);
        }
        return BB_EVERSION;
    }
    return error;
}

/* A table that is not there is an error, but in a new store: an empty one in its place would be a loss
 * that nobody is told of. */
static int open_table(MDB_txn *txn, const char *name, bool is_new, MDB_dbi *dbi, struct bb_buf *err)
{
    int rc = mdb_dbi_open(txn, name, is_new ? MDB_CREATE : 0, dbi);
    if (rc == MDB_NOTFOUND) {
        say(err, name, "the table is not there; put a backup in the place of the log's directory");
        return BB_ECORRUPT;
    }
    if (rc != 0) {
        say(err, name, mdb_strerror(rc));
    }
    return bk_mdb_error(rc);
}

static int open_tables(struct bk_store *store, MDB_txn *txn, bool is_new, struct bb_buf *err)
{
    struct bk_store_tables *tables = &store->tables;
    const struct {
        const char *name;
        MDB_dbi *dbi;
    } all[] = {
        {"channels", &tables->channels},       {"records", &tables->records},
        {"by_sequence", &tables->by_sequence}, {"by_time", &tables->by_time},
        {"by_session", &tables->by_session},   {"paths", &tables->paths},
        {"by_path", &tables->by_path},         {"by_source_time", &tables->by_source_time},
        {"surplus", &tables->surplus},         {"producers", &tables->producers},
        {"cursors", &tables->cursors},
    };
    int error = 0;
    for (size_t i = 0; i < BB_COUNT(all) && error == 0; i++) {
        error = open_table(txn, all[i].name, is_new, all[i].dbi, err);
    }
    return error;
}

static int make_meta(const struct bk_store *store, MDB_txn *txn)
{
    const struct bk_head head = {0};
    MDB_val key = bk_val(bb_slice_str(BK_META_FORMAT));
    MDB_val value = bk_val(bb_slice_str(BK_STORE_FORMAT));
    int error = bk_mdb_error(mdb_put(txn, store->tables.meta, &key, &value, 0));
    return error != 0 ? error : bk_head_put(txn, store->tables.meta, &head);
}

static int prepare_in(struct bk_store *store, MDB_txn *txn, struct bb_buf *err)
{
    MDB_stat stat;
    MDB_dbi all = 0;
    int rc = mdb_dbi_open(txn, NULL, 0, &all);
    rc = rc != 0 ? rc : mdb_stat(txn, all, &stat);
    if (rc != 0) {
        say(err, store->directory, mdb_strerror(rc));
        return bk_mdb_error(rc);
    }
    bool is_new = stat.ms_entries == 0;
    int error = open_table(txn, "meta", is_new, &store->tables.meta, err);
    if (error == 0) {
        error = is_new ? make_meta(store, txn) : check_format(store, txn, err);
    }
    return error != 0 ? error : open_tables(store, txn, is_new, err);
}

/* The rows that are believed without anything that could contradict them. */
static int check_rows(struct bk_store *store, struct bb_buf *err)
{
    struct bb_buf what = BB_BUF_INIT;
    struct bk_head head = {0};
    MDB_txn *txn = NULL;
    int error = bk_store_begin(store, &txn);
    if (error == 0) {
        error = bk_rows_check(&store->tables, txn, &what);
    }
    if (error == 0) {
        error = bk_head_read(txn, store->tables.meta, &head);
    }
    store->applied = error == 0 ? head.applied : store->applied;
    if (error == BB_ECORRUPT && err != NULL) {
        bb_buf_printf(err,
                      "%s: %s; nothing was changed; put a backup in the directory's place, start with it and "
                      "let \"busbar log verify\" read all of it",
                      store->directory, bb_buf_string(&what));
    }
    bk_store_end(txn);
    bb_buf_fini(&what);
    return error;
}

/* The tables as they must be, before anything is done to them. */
static int prepare(struct bk_store *store, struct bb_buf *err)
{
    MDB_txn *txn = NULL;
    int rc = mdb_txn_begin(store->env, NULL, 0, &txn);
    if (rc != 0) {
        say(err, store->directory, mdb_strerror(rc));
        return bk_mdb_error(rc);
    }
    int error = prepare_in(store, txn, err);
    if (error != 0) {
        mdb_txn_abort(txn);
        return error;
    }
    rc = mdb_txn_commit(txn);
    if (rc != 0) {
        say(err, store->directory, mdb_strerror(rc));
        return bk_mdb_error(rc);
    }
    return check_rows(store, err);
}

/* Beyond the limit there is room for removing: in a copy-on-write tree that takes pages first. */
static size_t map_with_reserve(size_t map_size)
{
    return map_size + BB_MAX(map_size / 16, (size_t)4 << 20);
}

static int env_open(struct bk_store *store, struct bb_buf *err)
{
    MDB_envinfo info;
    int dead = 0;
    int error = 0;
    int rc = mdb_env_create(&store->env);
    rc = rc != 0 ? rc : mdb_env_set_maxdbs(store->env, TABLES_MAX);
    rc = rc != 0 ? rc : mdb_env_set_mapsize(store->env, map_with_reserve(store->map_size));
    rc = rc != 0 ? rc : mdb_env_open(store->env, store->directory, MDB_NOTLS, FILE_MODE);
    rc = rc != 0 ? rc : mdb_reader_check(store->env, &dead);
    rc = rc != 0 ? rc : mdb_env_info(store->env, &info);
    if (rc != 0) {
        say(err, store->directory, mdb_strerror(rc));
        return bk_mdb_error(rc);
    }
    if (info.me_mapsize > map_with_reserve(store->map_size)) {
        error = bk_store_stretch(store, info.me_mapsize - store->map_size);
    }
    return error;
}

int bk_store_stretch(struct bk_store *store, size_t bytes)
{
    int rc = mdb_env_set_mapsize(store->env, map_with_reserve(store->map_size + bytes));
    store->map_size += rc == 0 ? bytes : 0;
    return bk_mdb_error(rc);
}

/* What a compact() that was interrupted left behind. */
static void clear_compact(const struct bk_store *store)
{
    char path[PATH_MAX];
    if (path_join(path, store->directory, COMPACT_DIR "/" DATA_FILE) == 0) {
        (void)unlink(path);
    }
    if (path_join(path, store->directory, COMPACT_DIR) == 0) {
        (void)rmdir(path);
    }
}

/* A crash while the store was being made may leave a data file that is none. The journal is made after it, so
 * nothing was ever acknowledged from such a directory; the file is kept all the same, under another name. */
static bool put_aside_unfinished(struct bk_store *store)
{
    char path[PATH_MAX];
    char aside[PATH_MAX];
    struct stat st;
    bool is_unfinished = path_join(path, store->directory, BK_JOURNAL_FIRST) == 0 && stat(path, &st) < 0 &&
                         errno == ENOENT && path_join(path, store->directory, DATA_FILE) == 0 &&
                         stat(path, &st) == 0 && st.st_size <= UNFINISHED_MAX &&
                         path_join(aside, store->directory, DATA_FILE ".unfinished") == 0;
    if (is_unfinished) {
        mdb_env_close(store->env);
        store->env = NULL;
    }
    return is_unfinished && rename(path, aside) == 0;
}

int bk_store_open(const char *directory, size_t map_size, struct bk_store **ret_store, struct bb_buf *err)
{
    *ret_store = NULL;
    struct stat st;
    if (stat(directory, &st) < 0 || !S_ISDIR(st.st_mode)) {
        say(err, directory, "not a directory");
        return BB_ESYSTEM;
    }
    struct bk_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        return BB_ENOMEM;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    store->lock = -1;
    store->map_size = BB_MAX(map_size, MAP_MIN) / page * page;
    store->directory = strdup(directory);
    int error = store->directory == NULL ? BB_ENOMEM : lock_take(store, err);
    if (error == 0) {
        clear_compact(store);
        error = env_open(store, err);
    }
    if (error == BB_ECORRUPT && put_aside_unfinished(store)) {
        if (err != NULL) {
            bb_buf_reset(err);
        }
        error = env_open(store, err);
    }
    error = error == 0 ? prepare(store, err) : error;
    if (error != 0) {
        bk_store_close(store);
        return error;
    }
    *ret_store = store;
    return 0;
}

void bk_store_close(struct bk_store *store)
{
    if (store == NULL) {
        return;
    }
    if (store->env != NULL) {
        mdb_env_close(store->env);
    }
    if (store->lock >= 0) {
        close(store->lock);
    }
    free(store->directory);
    free(store);
}

/* --- loading -------------------------------------------------------------------------------------- */

struct load {
    const struct bk_backend_loader *loader;
    bk_store_last_fn *last;
    void *last_context;
};

static int load_channel(void *to, struct bb_slice key, struct bb_slice value)
{
    const struct load *load = to;
    struct bk_log_channel channel;
    int error = bk_channel_decode(key, value, &channel);
    return error != 0 ? error : load->loader->channel(load->loader->context, &channel);
}

static int load_producer(void *to, struct bb_slice key, struct bb_slice value)
{
    const struct load *load = to;
    struct bk_log_producer producer = {0};
    if (bk_row_open(BK_ROW_PRODUCERS, key, &value) < 0 || key.len != sizeof(producer.key) || value.len < 16) {
        return BB_ECORRUPT;
    }
    memcpy(producer.key, key.data, key.len);
    producer.last = bk_get_u64(value.data);
    producer.time = bk_get_u64(value.data + 8);
    producer.notes = bb_slice(value.data + 16, value.len - 16);
    return load->loader->producer(load->loader->context, &producer);
}

static int load_cursor(void *to, struct bb_slice key, struct bb_slice value)
{
    const struct load *load = to;
    if (bk_row_open(BK_ROW_CURSORS, key, &value) < 0) {
        return BB_ECORRUPT;
    }
    struct bk_log_cursor cursor = {.name = key, .value = value};
    return load->loader->cursor(load->loader->context, &cursor);
}

/* "last" + server -> session, instance, time */
static int load_last(void *to, struct bb_slice key, struct bb_slice value)
{
    const struct load *load = to;
    if (bk_row_open(BK_ROW_META, key, &value) < 0 || key.len != 12 || value.len != 24) {
        return BB_ECORRUPT;
    }
    struct bk_event_id id = {bk_get_u64(key.data + 4), bk_get_u64(value.data), bk_get_u64(value.data + 8)};
    return load->last(load->last_context, &id, bk_get_u64(value.data + 16));
}

int bk_store_load(struct bk_store *store,
                  const struct bk_backend_loader *loader,
                  bk_store_last_fn *last,
                  void *last_context)
{
    struct load load = {loader, last, last_context};
    const struct bk_store_tables *tables = &store->tables;
    const struct bb_slice all = {NULL, 0};
    MDB_txn *txn = NULL;
    int error = bk_store_begin(store, &txn);
    if (error == 0 && loader != NULL && loader->channel != NULL) {
        error = bk_each_row(txn, tables->channels, all, load_channel, &load);
    }
    if (error == 0 && loader != NULL && loader->producer != NULL) {
        error = bk_each_row(txn, tables->producers, all, load_producer, &load);
    }
    if (error == 0 && loader != NULL && loader->cursor != NULL) {
        error = bk_each_row(txn, tables->cursors, all, load_cursor, &load);
    }
    if (error == 0 && last != NULL) {
        error = bk_each_row(txn, tables->meta, bb_slice_str("last"), load_last, &load);
    }
    bk_store_end(txn);
    return error;
}

/* --- sizes ---------------------------------------------------------------------------------------- */

/* Pages of the file that can be used again, or will be when readers let go. */
static int free_pages(MDB_txn *txn, uint64_t *ret_pages)
{
    MDB_cursor *cursor = NULL;
    MDB_val key;
    MDB_val value;
    int rc = mdb_cursor_open(txn, FREE_DBI, &cursor);
    if (rc != 0) {
        return bk_mdb_error(rc);
    }
    *ret_pages = 0;
    while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
        size_t pages = 0;
        memcpy(&pages, value.mv_data, BB_MIN(sizeof(pages), value.mv_size));
        *ret_pages += pages;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

int bk_store_sizes(struct bk_store *store, struct bk_store_sizes *ret_sizes)
{
    MDB_envinfo info;
    MDB_stat stat;
    MDB_txn *txn = NULL;
    uint64_t unused = 0;
    int error = bk_store_begin(store, &txn);
    if (error != 0) {
        return error;
    }
    error = free_pages(txn, &unused);
    bk_store_end(txn);
    if (error != 0 || mdb_env_info(store->env, &info) != 0 || mdb_env_stat(store->env, &stat) != 0) {
        return error != 0 ? error : BB_ESYSTEM;
    }
    uint64_t pages = (uint64_t)info.me_last_pgno + 1;
    *ret_sizes = (struct bk_store_sizes){
        .map = store->map_size,
        .used = (pages - BB_MIN(unused, pages)) * stat.ms_psize,
        .file = pages * stat.ms_psize,
        .page = stat.ms_psize,
        .free = unused * stat.ms_psize,
    };
    return 0;
}

/* --- copies --------------------------------------------------------------------------------------- */

/* A compact copy in a new @directory, on disk. */
static int copy_to(struct bk_store *store, const char *directory, struct bb_buf *err)
{
    char file[PATH_MAX];
    if (path_join(file, directory, DATA_FILE) < 0) {
        return BB_EINVAL;
    }
    if (mkdir(directory, FOLDER_MODE) < 0) {
        int error = errno == EEXIST ? BB_EEXISTS : BB_ESYSTEM;
        say_errno(err, directory);
        return error;
    }
    int rc = mdb_env_copy2(store->env, directory, MDB_CP_COMPACT);
    int error = bk_mdb_error(rc);
    /* LMDB lets everybody read a copy; the folder does not, as long as it is there. */
    if (error == 0 && (chmod(file, FILE_MODE) < 0 || sync_path(file, O_RDONLY) < 0 ||
                       sync_path(directory, O_RDONLY | O_DIRECTORY) < 0)) {
        rc = errno;
        error = BB_ESYSTEM;
    }
    if (error != 0) {
        say(err, directory, mdb_strerror(rc));
        (void)unlink(file);
        (void)rmdir(directory);
    }
    return error;
}

int bk_store_snapshot(struct bk_store *store, const char *directory)
{
    return copy_to(store, directory, NULL);
}

int bk_store_compact(struct bk_store *store, struct bb_buf *err)
{
    char folder[PATH_MAX];
    char from[PATH_MAX];
    char to[PATH_MAX];
    if (path_join(folder, store->directory, COMPACT_DIR) < 0 ||
        path_join(from, store->directory, COMPACT_DIR "/" DATA_FILE) < 0 ||
        path_join(to, store->directory, DATA_FILE) < 0) {
        return BB_EINVAL;
    }
    clear_compact(store);
    int error = check_rows(store, err); /* while it can be left as it is: it could not be opened again */
    error = error == 0 ? copy_to(store, folder, err) : error;
    if (error != 0) {
        return error;
    }
    mdb_env_close(store->env);
    store->env = NULL;
    if (rename(from, to) < 0) {
        say_errno(err, to);
        error = BB_ESYSTEM;
    }
    clear_compact(store);
    if (sync_path(store->directory, O_RDONLY | O_DIRECTORY) < 0) {
        error = error != 0 ? error : BB_ESYSTEM;
    }
    int reopened = env_open(store, err);
    reopened = reopened == 0 ? prepare(store, err) : reopened;
    if (reopened != 0 && store->env != NULL) {
        mdb_env_close(store->env);
        store->env = NULL;
    }
    return reopened != 0 ? BB_ESYSTEM : error;
}

/* --- for readers ---------------------------------------------------------------------------------- */

int bk_store_begin(struct bk_store *store, MDB_txn **ret_txn)
{
    *ret_txn = NULL;
    return bk_mdb_error(mdb_txn_begin(store->env, NULL, MDB_RDONLY, ret_txn));
}

int bk_store_record(const struct bk_store *store,
                    MDB_txn *txn,
                    uint64_t position,
                    uint32_t channel,
                    struct bk_record *ret_record)
{
    uint8_t key[BK_KEY_RECORD];
    struct bb_slice value;
    bk_key_record(key, position, channel);
    int error = bk_get(txn, store->tables.records, bb_slice(key, sizeof(key)), &value);
    if (error == 0 && !bk_is_whole(bk_val(value))) {
        return BB_ECORRUPT;
    }
    return error != 0 ? error : bk_record_decode(bb_slice(key, sizeof(key)), value, ret_record);
}

int bk_store_channel(const struct bk_store *store,
                     MDB_txn *txn,
                     uint32_t channel,
                     struct bk_log_channel *ret_channel)
{
    uint8_t key[BK_KEY_CHANNEL];
    struct bb_slice value;
    bk_put_u32(key, channel);
    int error = bk_get(txn, store->tables.channels, bb_slice(key, sizeof(key)), &value);
    if (error == 0 && !bk_is_whole(bk_val(value))) {
        return BB_ECORRUPT;
    }
    return error != 0 ? error : bk_channel_decode(bb_slice(key, sizeof(key)), value, ret_channel);
}

int bk_store_latest(const struct bk_store *store,
                    MDB_txn *txn,
                    uint32_t channel,
                    struct bb_slice path,
                    struct bk_latest *ret_latest)
{
    uint8_t key[BK_KEY_PATH_MAX];
    struct bb_slice value;
    if (path.len > sizeof(key) - BK_KEY_CHANNEL) {
        return BB_ENOTFOUND;
    }
    bk_put_u32(key, channel);
    memcpy(key + BK_KEY_CHANNEL, path.data, path.len);
    struct bb_slice all = bb_slice(key, BK_KEY_CHANNEL + path.len);
    int error = bk_get(txn, store->tables.paths, all, &value);
    if (error == 0 && !bk_is_whole(bk_val(value))) {
        return BB_ECORRUPT;
    }
    return error != 0 ? error : bk_latest_decode(all, value, ret_latest);
}

int bk_place_read(struct bb_slice key, struct bb_slice value, struct bk_place *ret_place)
{
    if (key.len != BK_KEY_SEQUENCE || value.len != BK_PLACE_LEN + BK_ROW_CRC ||
        bk_row_open(BK_ROW_BY_SEQUENCE, key, &value) < 0) {
        return BB_ECORRUPT;
    }
    *ret_place = (struct bk_place){
        .position = bk_get_u64(value.data),
        .last = bk_get_u64(value.data + 8),
        .count = bk_get_u32(value.data + 16),
        .bytes = bk_get_u64(value.data + 20),
    };
    return 0;
}

/* An entry of by_sequence of @channel that a cursor is on. */
static int place_at(int rc,
                    MDB_val key,
                    MDB_val value,
                    uint32_t channel,
                    uint64_t *ret_first,
                    struct bk_place *ret_place)
{
    if (rc != 0) {
        return bk_mdb_error(rc);
    }
    const uint8_t *bytes = key.mv_data;
    if (key.mv_size != BK_KEY_SEQUENCE) {
        return BB_ECORRUPT;
    }
    *ret_first = bk_get_u64(bytes + 4);
    return bk_get_u32(bytes) != channel ? BB_ENOTFOUND
                                        : bk_place_read(bk_slice(key), bk_slice(value), ret_place);
}

static int find_by(MDB_cursor *cursor,
                   uint32_t channel,
                   uint64_t sequence,
                   uint64_t *ret_first,
                   struct bk_place *ret_place)
{
    uint8_t bytes[BK_KEY_SEQUENCE];
    bk_key_sequence(bytes, channel, sequence);
    MDB_val key = bk_val(bb_slice(bytes, sizeof(bytes)));
    MDB_val value;
    int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
    int after = place_at(rc, key, value, channel, ret_first, ret_place);
    if (after == 0 && *ret_first == sequence) {
        return 0;
    }
    if (after != 0 && after != BB_ENOTFOUND) {
        return after;
    }
    uint64_t first = 0;
    struct bk_place place = {0};
    rc = mdb_cursor_get(cursor, &key, &value, rc == MDB_NOTFOUND ? MDB_LAST : MDB_PREV);
    int before = place_at(rc, key, value, channel, &first, &place);
    if (before == 0 && place.last >= sequence) {
        *ret_first = first;
        *ret_place = place;
        return 0;
    }
    return before == 0 || before == BB_ENOTFOUND ? after : before;
}

int bk_store_find(const struct bk_store *store,
                  MDB_txn *txn,
                  uint32_t channel,
                  uint64_t sequence,
                  uint64_t *ret_first,
                  struct bk_place *ret_place)
{
    MDB_cursor *cursor = NULL;
    int error = bk_mdb_error(mdb_cursor_open(txn, store->tables.by_sequence, &cursor));
    if (error == 0) {
        error = find_by(cursor, channel, sequence, ret_first, ret_place);
        mdb_cursor_close(cursor);
    }
    return error;
}

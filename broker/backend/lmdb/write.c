/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/backend/lmdb/write.h"

#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Paths remembered at most before they are put into their table. */
#define PATHS_MAX    ((size_t)16384)
#define CHANNELS_MAX ((size_t)1 << 20)

/* Keys are the broker's own numbers and paths of limited number: no secret is needed against collisions. */
#define SEED UINT64_C(0x6275736261723031)

int bk_put(struct bk_write *write,
           MDB_dbi dbi,
           struct bb_slice key,
           struct bb_slice value,
           unsigned int flags)
{
    MDB_val k = bk_val(key);
    MDB_val v = bk_val(value);
    write->changed = true;
    return bk_mdb_error(mdb_put(write->txn, dbi, &k, &v, flags));
}

int bk_delete(struct bk_write *write, MDB_dbi dbi, struct bb_slice key)
{
    MDB_val k = bk_val(key);
    int rc = mdb_del(write->txn, dbi, &k, NULL);
    write->changed = write->changed || rc == 0;
    return rc == MDB_NOTFOUND ? 0 : bk_mdb_error(rc);
}

/* Take the checksum of the row that is there, if one is, out of the sum of its table. */
static int row_leaves(struct bk_write *write, enum bk_row_table table, struct bb_slice key)
{
    struct bb_slice old = {0};
    int error = bk_get(write->txn, bk_row_dbi(&write->store->tables, table), key, &old);
    if (error == BB_ENOTFOUND) {
        return 0;
    }
    error = error == 0 ? bk_row_open(table, key, &old) : error;
    write->head.sums[table] -= error == 0 ? bk_row_crc(old) : 0;
    return error;
}

int bk_put_row(struct bk_write *write, enum bk_row_table table, struct bb_slice key)
{
    struct bb_buf *value = &write->scratch;
    if (bb_buf_reserve(value, BK_ROW_CRC) == NULL) {
        return value->error;
    }
    int error = row_leaves(write, table, key);
    if (error != 0) {
        return error;
    }
    bk_row_seal(table, key, value->data, value->len);
    write->head.sums[table] += bk_row_crc(bb_buf_slice(value));
    value->len += BK_ROW_CRC;
    return bk_put(write, bk_row_dbi(&write->store->tables, table), key, bb_buf_slice(value), 0);
}

int bk_delete_row(struct bk_write *write, enum bk_row_table table, struct bb_slice key)
{
    int error = row_leaves(write, table, key);
    return error != 0 ? error : bk_delete(write, bk_row_dbi(&write->store->tables, table), key);
}

int bk_write_place(struct bk_write *write, uint32_t channel, uint64_t first, const struct bk_place *place)
{
    uint8_t key[BK_KEY_SEQUENCE];
    uint8_t value[BK_PLACE_LEN + BK_ROW_CRC];
    bk_key_sequence(key, channel, first);
    bk_put_u64(bk_put_u32(bk_put_u64(bk_put_u64(value, place->position), place->last), place->count),
               place->bytes);
    bk_row_seal(BK_ROW_BY_SEQUENCE, bb_slice(key, sizeof(key)), value, BK_PLACE_LEN);
    return bk_put(write, write->store->tables.by_sequence, bb_slice(key, sizeof(key)),
                  bb_slice(value, sizeof(value)), 0);
}

int bk_write_by_path(struct bk_write *write, uint64_t path_id, uint64_t first, uint64_t position, uint64_t n)
{
    uint8_t key[BK_KEY_BY_PATH];
    uint8_t value[BK_BY_PATH_LEN];
    bk_key_pair(key, path_id, first);
    bk_put_u32(bk_put_u64(value, position), (uint32_t)n);
    return bk_put(write, write->store->tables.by_path, bb_slice(key, sizeof(key)),
                  bb_slice(value, sizeof(value)), 0);
}

/* --- channels ------------------------------------------------------------------------------------- */

/* Read the channel into memory of its own: the map's moves as the transaction writes. */
static int channel_read(struct bk_write *write, struct bk_write_channel *channel)
{
    struct bb_slice key = bb_slice(channel->key, sizeof(channel->key));
    struct bb_slice value = {0};
    int error = bk_get(write->txn, write->store->tables.channels, key, &value);
    if (error == BB_ENOTFOUND) {
        return 0;
    }
    if (error == 0) {
        bb_buf_append(&channel->text, value.data, value.len);
        error = channel->text.error != 0
                    ? channel->text.error
                    : bk_channel_decode(key, bb_buf_slice(&channel->text), &channel->info);
    }
    channel->exists = error == 0;
    channel->first_before = channel->info.first;
    return error;
}

static int channel_put(struct bk_write *write, const struct bk_write_channel *channel)
{
    bb_buf_reset(&write->scratch);
    bk_channel_encode(&write->scratch, &channel->info);
    return bk_put_row(write, BK_ROW_CHANNELS, bb_slice(channel->key, sizeof(channel->key)));
}

static void channel_free(struct bk_write_channel *channel)
{
    bb_buf_fini(&channel->text);
    free(channel);
}

int bk_write_channel(struct bk_write *write, uint32_t id, struct bk_write_channel **ret_channel)
{
    uint8_t key[BK_KEY_CHANNEL];
    bk_put_u32(key, id);
    *ret_channel = bb_map_find(&write->channels, bb_slice(key, sizeof(key)));
    if (*ret_channel != NULL) {
        return 0;
    }
    struct bk_write_channel *channel = calloc(1, sizeof(*channel));
    if (channel == NULL) {
        return BB_ENOMEM;
    }
    memcpy(channel->key, key, sizeof(key));
    channel->info.id = id;
    int error = channel_read(write, channel);
    if (error == 0) {
        error = bb_map_add(&write->channels, bb_slice(channel->key, sizeof(channel->key)), channel);
    }
    if (error != 0) {
        channel_free(channel);
        return error;
    }
    *ret_channel = channel;
    return 0;
}

/* --- paths ---------------------------------------------------------------------------------------- */

static struct bk_write_path *path_new(struct bk_write_channel *channel, struct bb_slice key)
{
    struct bk_write_path *path = calloc(1, sizeof(*path) + key.len);
    if (path != NULL) {
        path->channel = channel;
        path->key_len = (uint8_t)key.len;
        memcpy(path->key, key.data, key.len);
    }
    return path;
}

static struct bb_slice path_key(const struct bk_write_path *path)
{
    return bb_slice(path->key, path->key_len);
}

static int path_read(struct bk_write *write, struct bk_write_path *path, bool make)
{
    struct bb_slice value = {0};
    int error = bk_get(write->txn, write->store->tables.paths, path_key(path), &value);
    if (error == 0) {
        error = bk_latest_decode(path_key(path), value, &path->latest);
        path->latest.event = bb_slice(NULL, 0);
    } else if (error == BB_ENOTFOUND && make) {
        path->latest.path_id = ++write->head.path;
        error = 0;
    }
    return error;
}

int bk_write_path(struct bk_write *write,
                  struct bk_write_channel *channel,
                  struct bb_slice path,
                  bool make,
                  struct bk_write_path **ret_path)
{
    uint8_t key[BK_KEY_PATH_MAX];
    if (path.len > sizeof(key) - BK_KEY_CHANNEL) {
        return BB_ECORRUPT;
    }
    bk_put_u32(key, channel->info.id);
    memcpy(key + BK_KEY_CHANNEL, path.data, path.len);
    struct bb_slice all = bb_slice(key, BK_KEY_CHANNEL + path.len);
    *ret_path = bb_map_find(&write->paths, all);
    if (*ret_path != NULL) {
        return 0;
    }
    struct bk_write_path *made = path_new(channel, all);
    if (made == NULL) {
        return BB_ENOMEM;
    }
    int error = path_read(write, made, make);
    if (error == 0) {
        error = bb_map_add(&write->paths, path_key(made), made);
    }
    if (error != 0) {
        free(made);
        return error;
    }
    *ret_path = made;
    return 0;
}

int bk_write_here(struct bk_write *write, struct bk_write_path *path)
{
    if (write->n_here == write->here_cap) {
        size_t cap = write->here_cap == 0 ? 256 : 2 * write->here_cap;
        struct bk_write_path **here = realloc(write->here, cap * sizeof(struct bk_write_path *));
        if (here == NULL) {
            return BB_ENOMEM;
        }
        write->here = here;
        write->here_cap = cap;
    }
    write->here[write->n_here++] = path;
    return 0;
}

/* Only a counter has changed: the latest event is taken from the table. */
static int path_fill(struct bk_write *write, struct bk_write_path *path, struct bk_latest *ret_latest)
{
    struct bb_slice value = {0};
    *ret_latest = path->latest;
    if (path->fresh) {
        return 0;
    }
    int error = bk_get(write->txn, write->store->tables.paths, path_key(path), &value);
    if (error == 0) {
        error = bk_latest_decode(path_key(path), value, ret_latest);
        ret_latest->kept = path->latest.kept;
    }
    return error;
}

static int path_put(struct bk_write *write, struct bk_write_path *path)
{
    struct bk_latest latest;
    int error = path_fill(write, path, &latest);
    if (error != 0) {
        return error;
    }
    bb_buf_reset(&write->scratch);
    bk_latest_encode(&write->scratch, path_key(path), &latest);
    error = write->scratch.error;
    if (error == 0) {
        error = bk_put(write, write->store->tables.paths, path_key(path), bb_buf_slice(&write->scratch), 0);
    }
    if (error == 0 && latest.kept > path->channel->info.retention.max_per_path) {
        error = bk_put(write, write->store->tables.surplus, path_key(path), bb_slice("", 0), 0);
    }
    return error;
}

static void paths_free(struct bk_write *write)
{
    size_t at = 0;
    struct bk_write_path *path = NULL;
    while ((path = bb_map_next(&write->paths, &at, NULL)) != NULL) {
        free(path);
    }
    bb_map_fini(&write->paths);
}

int bk_write_paths(struct bk_write *write)
{
    int error = 0;
    size_t at = 0;
    struct bk_write_path *path = NULL;
    while (error == 0 && (path = bb_map_next(&write->paths, &at, NULL)) != NULL) {
        error = path->dirty ? path_put(write, path) : 0;
    }
    paths_free(write);
    write->n_here = 0;
    return error;
}

int bk_write_paths_if_many(struct bk_write *write)
{
    return bb_map_count(&write->paths) > PATHS_MAX ? bk_write_paths(write) : 0;
}

/* --- the transaction ------------------------------------------------------------------------------ */

static void write_free(struct bk_write *write)
{
    size_t at = 0;
    struct bk_write_channel *channel = NULL;
    while ((channel = bb_map_next(&write->channels, &at, NULL)) != NULL) {
        channel_free(channel);
    }
    bb_map_fini(&write->channels);
    paths_free(write);
    free(write->here);
    bb_buf_fini(&write->scratch);
}

int bk_write_begin(struct bk_write *write, struct bk_store *store)
{
    *write = (struct bk_write){.store = store};
    int error = bk_mdb_error(mdb_txn_begin(store->env, NULL, 0, &write->txn));
    if (error != 0) {
        return error;
    }
    bb_map_init(&write->channels, SEED, CHANNELS_MAX);
    bb_map_init(&write->paths, SEED, SIZE_MAX / 4);
    error = bk_head_read(write->txn, store->tables.meta, &write->head);
    if (error != 0) {
        mdb_txn_abort(write->txn);
    }
    return error;
}

static int write_channels(struct bk_write *write)
{
    int error = 0;
    size_t at = 0;
    struct bk_write_channel *channel = NULL;
    while (error == 0 && (channel = bb_map_next(&write->channels, &at, NULL)) != NULL) {
        error = channel->dirty && channel->exists ? channel_put(write, channel) : 0;
    }
    return error;
}

/*
 * A full disk, a quota or a limit of files shows first as a write that ends in the middle, and LMDB calls
 * that an I/O error. The file system says which it was when it is asked for the next page.
 */
static bool can_grow(const struct bk_store *store)
{
    static const uint8_t page[4096];
    struct stat status;
    int fd = -1;
    if (mdb_env_get_fd(store->env, &fd) != 0 || fstat(fd, &status) < 0) {
        return true;
    }
    ssize_t n = pwrite(fd, page, sizeof(page), status.st_size);
    if (n > 0 && ftruncate(fd, status.st_size) < 0) {
        return true; /* the page stays, and is there */
    }
    return n < 0 ? bk_mdb_error(errno) != BB_ELOGFULL : n == (ssize_t)sizeof(page);
}

int bk_write_finish(struct bk_write *write, int error)
{
    if (error == 0) {
        error = bk_write_paths(write);
    }
    if (error == 0) {
        error = write_channels(write);
    }
    if (error == 0 && write->changed) {
        error = bk_head_put(write->txn, write->store->tables.meta, &write->head);
    }
    if (error == 0 && write->changed) {
        error = bk_mdb_error(mdb_txn_commit(write->txn));
    } else {
        mdb_txn_abort(write->txn);
    }
    error = error == BB_ESYSTEM && !can_grow(write->store) ? BB_ELOGFULL : error;
    write_free(write);
    return error;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Everything read and compared, some rows at a time. The log goes on meanwhile, so whatever is compared is
 * read in one transaction: a row and what it refers to, or the sums of one channel or path.
 */
#include "proto/base/error.h"
#include "proto/base/time.h"

#include "broker/backend/lmdb/row.h"
#include "broker/backend/lmdb/store.h"
#include "broker/backend/lmdb/txn.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Rows between two looks at the clock. */
#define ROWS_PER_LOOK 16

struct bk_verify {
    struct bk_store_report *report;
    size_t table; /* of the walks */
    size_t after_len;
    uint8_t after[BK_KEY_MAX + 1]; /* the row that was looked at last */
    uint64_t by_path_events;
    size_t first_txn;
    bool has_changed; /* between two steps */
    bool is_damaged;
    /* Of a step. */
    struct bk_store *store;
    MDB_txn *txn;
    uint64_t deadline;
};

static BB_PRINTF(2, 3) void problem(struct bk_verify *verify, const char *format, ...)
{
    struct bk_store_report *report = verify->report;
    if (report->problems++ == 0) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(report->first, sizeof(report->first), format, args);
        va_end(args);
    }
}

static void row_is_damaged(struct bk_verify *verify, enum bk_row_table table, struct bb_slice key)
{
    struct bb_buf text = BB_BUF_INIT;
    bk_row_print(&text, table, key);
    problem(verify, "%s is damaged", bb_buf_string(&text));
    bb_buf_fini(&text);
}

/* Errors that are found in the data are problems; others end the walk. */
static bool is_finding(int error)
{
    return error == BB_ENOTFOUND || error == BB_ECORRUPT || error == BB_EVERSION;
}

static int expect_row(struct bk_verify *verify,
                      MDB_dbi dbi,
                      struct bb_slice key,
                      const struct bk_record *record,
                      const char *table,
                      struct bb_slice *ret_value)
{
    int error = bk_get(verify->txn, dbi, key, ret_value);
    if (!is_finding(error)) {
        return error;
    }
    problem(verify, "position %llu, channel %u: no entry in %s", (unsigned long long)record->position,
            record->channel, table);
    *ret_value = bb_slice(NULL, 0);
    return 0;
}

/* --- records -------------------------------------------------------------------------------------- */

static int check_path(struct bk_verify *verify, const struct bk_record *record, struct bb_slice path)
{
    struct bk_latest latest;
    struct bb_slice value;
    int error = bk_store_latest(verify->store, verify->txn, record->channel, path, &latest);
    if (is_finding(error)) {
        problem(verify, "channel %u: the latest of %.*s cannot be read", record->channel, (int)path.len,
                (const char *)path.data);
        return 0;
    }
    uint8_t key[BK_KEY_BY_PATH];
    bk_key_pair(key, latest.path_id, record->first_sequence);
    if (error == 0) {
        error = expect_row(verify, verify->store->tables.by_path, bb_slice(key, sizeof(key)), record,
                           "by_path", &value);
    }
    if (error == 0 && value.len == BK_BY_PATH_LEN && bk_get_u64(value.data) != record->position) {
        problem(verify, "channel %u: by_path names another position", record->channel);
    }
    return error;
}

static int
check_source_time(struct bk_verify *verify, const struct bk_record *record, struct bb_slice attributes)
{
    struct bb_attributes read;
    struct bb_slice value;
    if ((record->flags & BK_LOG_SOURCE_TIME) == 0 || attributes.len == 0 ||
        bb_event_attributes(attributes, &read) < 0 || !read.has_source_time) {
        return 0;
    }
    uint8_t key[BK_KEY_SOURCE_TIME];
    bk_key_source_time(key, record->channel, bk_source_bucket(read.source_time), record->position);
    return expect_row(verify, verify->store->tables.by_source_time, bb_slice(key, sizeof(key)), record,
                      "by_source_time", &value);
}

/* Events of one block. */
static int check_events(struct bk_verify *verify,
                        const struct bk_record *record,
                        struct bb_slice events,
                        uint64_t *ret_count)
{
    struct bb_slice path = {NULL, 0};
    int error = 0;
    *ret_count = 0;
    while (events.len > 0 && error == 0) {
        struct bb_event_view event;
        if (bb_event_read(&events, &event) < 0) {
            problem(verify, "position %llu: an event cannot be read", (unsigned long long)record->position);
            return 0;
        }
        ++*ret_count;
        if (path.data == NULL || !bb_slice_equal(path, event.path)) {
            path = event.path;
            error = check_path(verify, record, path);
        }
        error = error != 0 ? error : check_source_time(verify, record, event.attributes);
    }
    return error;
}

static int check_blocks(struct bk_verify *verify, const struct bk_record *record)
{
    struct bb_slice rest = record->blocks;
    struct bb_slice events;
    struct bb_block block;
    uint64_t count = 0;
    uint64_t bytes = 0;
    uint64_t next = record->first_sequence;
    int more = 0;
    while ((more = bk_record_next_block(&rest, &block, &events, NULL)) > 0) {
        uint64_t n = 0;
        int error = check_events(verify, record, events, &n);
        if (error != 0) {
            return error;
        }
        if (n != block.count || block.sequence < next) {
            problem(verify, "position %llu: a block does not fit", (unsigned long long)record->position);
        }
        next = block.sequence + block.count;
        count += n;
        bytes += block.length;
    }
    if (more < 0 || count != record->count || bytes != record->bytes || next != record->last_sequence + 1) {
        problem(verify, "position %llu: the record's counts are wrong", (unsigned long long)record->position);
    }
    return 0;
}

static int check_indexes(struct bk_verify *verify, const struct bk_record *record)
{
    const struct bk_store_tables *tables = &verify->store->tables;
    uint8_t key[BK_KEY_SESSION];
    struct bb_slice value;
    bk_key_pair(key, record->group_time, record->position);
    int error = expect_row(verify, tables->by_time, bb_slice(key, BK_KEY_TIME), record, "by_time", &value);
    if (error == 0) {
        bk_key_session(key, record->server, record->group_session, record->position);
        error =
            expect_row(verify, tables->by_session, bb_slice(key, sizeof(key)), record, "by_session", &value);
    }
    if (error == 0) {
        bk_key_sequence(key, record->channel, record->first_sequence);
        error = expect_row(verify, tables->by_sequence, bb_slice(key, BK_KEY_SEQUENCE), record, "by_sequence",
                           &value);
    }
    struct bk_place place;
    if (error == 0 && value.len > 0 &&
        (bk_place_read(bb_slice(key, BK_KEY_SEQUENCE), value, &place) < 0 ||
         place.position != record->position || place.count != record->count || place.bytes != record->bytes ||
         place.last != record->last_sequence)) {
        problem(verify, "position %llu: by_sequence differs", (unsigned long long)record->position);
    }
    return error;
}

static int check_record(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    struct bk_record record;
    verify->report->records++;
    if (bk_record_decode(key, value, &record) < 0) {
        problem(verify, "position %llu: the record is damaged",
                (unsigned long long)(key.len >= 8 ? bk_get_u64(key.data) : 0));
        return 0;
    }
    verify->report->events += record.count;
    struct bk_log_channel channel;
    int error = bk_store_channel(verify->store, verify->txn, record.channel, &channel);
    if (is_finding(error)) {
        problem(verify, "position %llu: the channel %u %s", (unsigned long long)record.position,
                record.channel, error == BB_ENOTFOUND ? "is not there" : "has a damaged row");
        error = 0;
    }
    error = error == 0 ? check_indexes(verify, &record) : error;
    return error != 0 ? error : check_blocks(verify, &record);
}

/* --- indexes -------------------------------------------------------------------------------------- */

static int has_record(struct bk_verify *verify, uint64_t position, uint32_t channel, bool *ret_has)
{
    uint8_t key[BK_KEY_RECORD];
    struct bb_slice value;
    bk_key_record(key, position, channel);
    int error = bk_get(verify->txn, verify->store->tables.records, bb_slice(key, sizeof(key)), &value);
    *ret_has = error == 0;
    return error == BB_ENOTFOUND ? 0 : error;
}

static int note_row(void *to, struct bb_slice key, struct bb_slice value)
{
    (void)key;
    (void)value;
    *(bool *)to = true;
    return 1;
}

static int has_position(struct bk_verify *verify, uint64_t position, bool *ret_has)
{
    uint8_t key[8];
    bk_put_u64(key, position);
    *ret_has = false;
    int error = bk_each_row(verify->txn, verify->store->tables.records, bb_slice(key, sizeof(key)), note_row,
                            ret_has);
    return error > 0 ? 0 : error;
}

static int check_place(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    struct bk_place place;
    bool has = false;
    verify->report->index_entries++;
    if (bk_place_read(key, value, &place) < 0) {
        row_is_damaged(verify, BK_ROW_BY_SEQUENCE, key);
        return 0;
    }
    int error = has_record(verify, place.position, bk_get_u32(key.data), &has);
    if (error == 0 && !has) {
        problem(verify, "by_sequence: an entry without its record");
    }
    return error;
}

/* by_time and by_session: the position ends the key. */
static int check_group(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    bool has = false;
    (void)value;
    verify->report->index_entries++;
    int error = key.len < 8 ? 0 : has_position(verify, bk_get_u64(key.data + key.len - 8), &has);
    if (error == 0 && !has) {
        problem(verify, "by_time or by_session: an entry without a record");
    }
    return error;
}

static int check_by_path(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    bool has = false;
    int error = 0;
    verify->report->index_entries++;
    if (key.len == BK_KEY_BY_PATH && value.len == BK_BY_PATH_LEN) {
        verify->by_path_events += bk_get_u32(value.data + 8);
        error = has_position(verify, bk_get_u64(value.data), &has);
    }
    if (error == 0 && !has) {
        problem(verify, "by_path: an entry without a record");
    }
    return error;
}

static int check_bucket(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    bool has = false;
    (void)value;
    verify->report->index_entries++;
    int error = key.len != BK_KEY_SOURCE_TIME
                    ? 0
                    : has_record(verify, bk_get_u64(key.data + 12), bk_get_u32(key.data), &has);
    if (error == 0 && !has) {
        problem(verify, "by_source_time: an entry without its record");
    }
    return error;
}

static int sum_by_path(void *to, struct bb_slice key, struct bb_slice value)
{
    (void)key;
    *(uint64_t *)to += value.len == BK_BY_PATH_LEN ? bk_get_u32(value.data + 8) : 0;
    return 0;
}

static int check_latest(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    struct bk_latest latest;
    uint64_t sum = 0;
    verify->report->paths++;
    if (bk_latest_decode(key, value, &latest) < 0) {
        problem(verify, "paths: a latest event is damaged");
        return 0;
    }
    uint8_t id[8];
    bk_put_u64(id, latest.path_id);
    int error =
        bk_each_row(verify->txn, verify->store->tables.by_path, bb_slice(id, sizeof(id)), sum_by_path, &sum);
    if (error == 0 && sum != latest.kept) {
        problem(verify, "paths: %.*s counts %llu events, by_path %llu", (int)(key.len - BK_KEY_CHANNEL),
                (const char *)key.data + BK_KEY_CHANNEL, (unsigned long long)latest.kept,
                (unsigned long long)sum);
    }
    return error;
}

/* Sums of the rows of one channel. */
struct counted {
    uint64_t events;
    uint64_t bytes;
    uint64_t first;
};

static int count_place(void *to, struct bb_slice key, struct bb_slice value)
{
    struct counted *counted = to;
    struct bk_place place;
    if (bk_place_read(key, value, &place) < 0) {
        return 0; /* it has been a problem already */
    }
    counted->first = BB_MIN(counted->first, bk_get_u64(key.data + 4));
    counted->events += place.count;
    counted->bytes += place.bytes;
    return 0;
}

static int check_channel(void *to, struct bb_slice key, struct bb_slice value)
{
    struct bk_verify *verify = to;
    struct bk_log_channel info;
    struct counted counted = {.first = UINT64_MAX};
    if (bk_channel_decode(key, value, &info) < 0) {
        row_is_damaged(verify, BK_ROW_CHANNELS, key);
        return 0;
    }
    int error = bk_each_row(verify->txn, verify->store->tables.by_sequence, key, count_place, &counted);
    if (error != 0) {
        return error;
    }
    bool first_fits = counted.events == 0 || counted.first == info.first || info.removed;
    if (counted.events != info.events || counted.bytes != info.bytes || !first_fits) {
        problem(verify, "channel %u: %llu events and %llu bytes counted, %llu and %llu found", info.id,
                (unsigned long long)info.events, (unsigned long long)info.bytes,
                (unsigned long long)counted.events, (unsigned long long)counted.bytes);
    }
    return 0;
}

/* --- the walk ------------------------------------------------------------------------------------------- */

/* Whether @key follows the row that was looked at last. */
static bool is_behind_last(const struct bk_verify *verify, const MDB_val *key)
{
    size_t n = BB_MIN(verify->after_len, key->mv_size);
    int r = n > 0 ? memcmp(key->mv_data, verify->after, n) : 0;
    return verify->after_len == 0 || r > 0 || (r == 0 && key->mv_size > verify->after_len);
}

/* Rows of a table from where it was left. Return: 0 all are done, 1 it is late, or an error. */
static int walk(struct bk_verify *verify, MDB_dbi dbi, bk_row_fn *fn)
{
    MDB_cursor *cursor = NULL;
    MDB_val key = {verify->after_len, verify->after};
    MDB_val value;
    int error = bk_mdb_error(mdb_cursor_open(verify->txn, dbi, &cursor));
    if (error != 0) {
        return error;
    }
    int rc = mdb_cursor_get(cursor, &key, &value, verify->after_len > 0 ? MDB_SET_RANGE : MDB_FIRST);
    if (rc == 0 && verify->after_len > 0 && key.mv_size == verify->after_len &&
        memcmp(key.mv_data, verify->after, verify->after_len) == 0) {
        rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    for (size_t n = 1; rc == 0 && error == 0; n++) {
        error = bk_is_whole(key) && bk_is_whole(value) && key.mv_size <= BK_KEY_MAX ? 0 : BB_ECORRUPT;
        if (error == 0 &&
            !is_behind_last(verify, &key)) { /* a page that leads to a row twice hides another */
            problem(verify, "the rows of a table are not in order");
        }
        error = error == 0 ? fn(verify, bk_slice(key), bk_slice(value)) : error;
        if (error == 0) {
            memcpy(verify->after, key.mv_data, key.mv_size);
            verify->after_len = key.mv_size;
        }
        if (error == 0 && n % ROWS_PER_LOOK == 0 && (uint64_t)bb_clock_monotonic_us() >= verify->deadline) {
            error = 1;
        }
        if (error == 0) {
            rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
        }
    }
    mdb_cursor_close(cursor);
    return error != 0 || rc == 0 || rc == MDB_NOTFOUND ? error : bk_mdb_error(rc);
}

/* The small tables, in one piece: the sums are of one transaction. */
static int check_rows(struct bk_verify *verify)
{
    struct bb_buf what = BB_BUF_INIT;
    int error = bk_rows_check(&verify->store->tables, verify->txn, &what);
    if (error == BB_ECORRUPT) {
        problem(verify, "%s", bb_buf_string(&what));
        error = 0;
    }
    bb_buf_fini(&what);
    return error;
}

static int verify_on(struct bk_verify *verify)
{
    const struct bk_store_tables *tables = &verify->store->tables;
    const struct {
        MDB_dbi dbi;
        bk_row_fn *fn;
    } walks[] = {
        {tables->records, check_record},  {tables->by_sequence, check_place},
        {tables->by_time, check_group},   {tables->by_session, check_group},
        {tables->by_path, check_by_path}, {tables->by_source_time, check_bucket},
        {tables->paths, check_latest},    {tables->channels, check_channel},
    };
    while (verify->table < BB_COUNT(walks)) {
        int error = walk(verify, walks[verify->table].dbi, walks[verify->table].fn);
        if (error == BB_ECORRUPT) { /* what lies behind cannot be reached */
            problem(verify, "a page of the tables is damaged");
            verify->is_damaged = true;
            error = 0;
        }
        if (error != 0) {
            return error;
        }
        verify->table++;
        verify->after_len = 0;
    }
    int error = check_rows(verify);
    if (error != 0) {
        return error;
    }
    if (!verify->has_changed && !verify->is_damaged && verify->by_path_events != verify->report->events) {
        problem(verify, "by_path counts another number of events than there are");
    }
    return 0;
}

int bk_verify_new(struct bk_store_report *report, struct bk_verify **ret_verify)
{
    struct bk_verify *verify = calloc(1, sizeof(*verify));
    if (verify == NULL) {
        return BB_ENOMEM;
    }
    *report = (struct bk_store_report){0};
    verify->report = report;
    *ret_verify = verify;
    return 0;
}

int bk_verify_step(struct bk_verify *verify, struct bk_store *store, uint64_t deadline)
{
    verify->store = store;
    verify->deadline = deadline;
    int error = bk_store_begin(store, &verify->txn);
    if (error != 0) {
        return error;
    }
    size_t id = mdb_txn_id(verify->txn);
    verify->has_changed = verify->has_changed || (verify->first_txn != 0 && verify->first_txn != id);
    verify->first_txn = id;
    error = verify_on(verify);
    bk_store_end(verify->txn);
    verify->txn = NULL;
    return error;
}

void bk_verify_free(struct bk_verify *verify)
{
    free(verify);
}

int bk_store_verify(struct bk_store *store, struct bk_store_report *ret_report)
{
    struct bk_verify *verify = NULL;
    int error = bk_verify_new(ret_report, &verify);
    error = error == 0 ? bk_verify_step(verify, store, UINT64_MAX) : error;
    bk_verify_free(verify);
    return error;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The tables: what goes in is found again by every index, what must go leaves no trace. */
#include "proto/base/error.h"
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/batch.h"
#include "broker/backend/lmdb/store.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SERVER 5
#define MAP    ((size_t)64 << 20)

struct fixture {
    char directory[64];
    struct bk_store *store;
    uint64_t number;
    uint64_t session;
    uint64_t sequences[16];
    uint64_t trimmed[16];
    bool hold; /* what is put waits in `held` for release() */
    struct bb_buf held;
};

static void fixture_init(struct fixture *fixture, size_t map)
{
    *fixture = (struct fixture){0};
    (void)snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/busbar-store-XXXXXX");
    cr_assert_not_null(mkdtemp(fixture->directory));
    cr_assert_eq(bk_store_open(fixture->directory, map, &fixture->store, NULL), 0);
}

static void remove_files(const char *directory)
{
    const char *const names[] = {"data.mdb", "lock.mdb", "LOCK"};
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        char path[160];
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
    cr_assert_eq(rmdir(directory), 0);
}

static void check(struct fixture *fixture)
{
    struct bk_store_report report;
    cr_assert_eq(bk_store_verify(fixture->store, &report), 0);
    cr_assert_eq(report.problems, 0, "%s", report.first);
}

static void fixture_fini(struct fixture *fixture)
{
    bk_store_close(fixture->store);
    remove_files(fixture->directory);
}

static void reopen(struct fixture *fixture)
{
    bk_store_close(fixture->store);
    cr_assert_eq(bk_store_open(fixture->directory, MAP, &fixture->store, NULL), 0);
}

static int apply(struct fixture *fixture, const struct bk_append *append)
{
    struct bb_buf payload = BB_BUF_INIT;
    if (fixture->hold) {
        return bk_batch_encode(&fixture->held, append);
    }
    cr_assert_eq(bk_batch_encode(&payload, append), 0);
    const struct bk_store_input input = {fixture->number + 1, bb_buf_slice(&payload)};
    int error = bk_store_apply(fixture->store, &input, 1);
    fixture->number += error == 0 ? 1 : 0;
    bb_buf_fini(&payload);
    return error;
}

static void
set_channel(struct fixture *fixture, uint32_t id, const struct bk_retention *retention, bool removed)
{
    struct bk_log_channel channel = {
        .id = id, .name = bb_slice_str("name"), .removed = removed, .retention = BK_RETENTION_INIT};
    if (retention != NULL) {
        channel.retention = *retention;
    }
    const struct bk_append append = {.channels = &channel, .n_channels = 1};
    cr_assert_eq(apply(fixture, &append), 0);
}

/* A block of @n events on channel @id, of the paths p/0 .. p/(n_paths-1) in turn, at time 1000 * session. */
static int put(struct fixture *fixture, uint32_t id, size_t n, size_t n_paths, size_t payload_len)
{
    struct bb_buf events = BB_BUF_INIT;
    struct bb_buf payload = BB_BUF_INIT;
    uint8_t *zeros = calloc(1, payload_len + 1);
    BB_MP_WRITE(&payload, bb_mp_put_bin_head, (uint32_t)payload_len);
    bb_buf_append(&payload, zeros, payload_len);
    free(zeros);
    for (size_t i = 0; i < n; i++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "p/%zu", i % n_paths);
        struct bb_attributes attributes = {.has_source_time = true,
                                           .source_time = (int64_t)(fixture->session * 1000000)};
        bb_event_write(&events, bb_slice_str(path), bb_buf_slice(&payload), i % 2 == 0 ? &attributes : NULL);
    }
    fixture->session++;
    struct bk_log_block block = {
        .channel = id,
        .flags = BK_LOG_SOURCE_TIME,
        .server = SERVER,
        .head = {fixture->session, 1000 * fixture->session, 77, fixture->sequences[id] + 1, 1, n, events.len},
        .events = events.data,
    };
    const struct bk_append append = {.blocks = &block, .n_blocks = 1};
    int error = apply(fixture, &append);
    if (error == 0) {
        fixture->sequences[id] += n;
    } else {
        fixture->session--;
    }
    bb_buf_fini(&events);
    bb_buf_fini(&payload);
    return error;
}

static struct bk_log_channel info(struct fixture *fixture, uint32_t id)
{
    MDB_txn *txn = NULL;
    struct bk_log_channel channel;
    cr_assert_eq(bk_store_begin(fixture->store, &txn), 0);
    cr_assert_eq(bk_store_channel(fixture->store, txn, id, &channel), 0);
    bk_store_end(txn);
    channel.name = channel.settings = bb_slice(NULL, 0);
    return channel;
}

static uint64_t kept(struct fixture *fixture, uint32_t id, const char *path, uint64_t *ret_sequence)
{
    MDB_txn *txn = NULL;
    struct bk_latest latest;
    cr_assert_eq(bk_store_begin(fixture->store, &txn), 0);
    cr_assert_eq(bk_store_latest(fixture->store, txn, id, bb_slice_str(path), &latest), 0);
    struct bb_slice raw = latest.event;
    struct bb_event_view event;
    cr_assert_eq(bb_event_read(&raw, &event), 0);
    cr_assert(bb_slice_equal(event.path, bb_slice_str(path)));
    bk_store_end(txn);
    *ret_sequence = latest.sequence;
    return latest.kept;
}

static void note_trimmed(void *context, uint32_t channel, uint64_t first)
{
    struct fixture *fixture = context;
    fixture->trimmed[channel] = first;
}

static size_t retain(struct fixture *fixture, uint64_t now, size_t budget)
{
    size_t done = 0;
    cr_assert_eq(bk_store_retain(fixture->store, now, budget, note_trimmed, fixture, &done), 0);
    check(fixture);
    return done;
}

static size_t rows(struct fixture *fixture, MDB_dbi dbi)
{
    MDB_txn *txn = NULL;
    MDB_stat stat;
    cr_assert_eq(bk_store_begin(fixture->store, &txn), 0);
    cr_assert_eq(mdb_stat(txn, dbi, &stat), 0);
    bk_store_end(txn);
    return stat.ms_entries;
}

Test(log_store, everything_is_found_after_reopening)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    set_channel(&fixture, 2, NULL, false);
    cr_assert_eq(put(&fixture, 1, 10, 3, 20), 0);
    cr_assert_eq(put(&fixture, 2, 4, 1, 20), 0);
    cr_assert_eq(put(&fixture, 1, 5, 5, 70000), 0);
    check(&fixture);
    reopen(&fixture);
    check(&fixture);
    cr_assert_eq(bk_store_applied(fixture.store), 5);
    struct bk_log_channel channel = info(&fixture, 1);
    cr_assert_eq(channel.first, 1);
    cr_assert_eq(channel.last, 15);
    cr_assert_eq(channel.events, 15);
    uint64_t sequence = 0;
    cr_assert_eq(kept(&fixture, 1, "p/0", &sequence), 5);
    cr_assert_eq(sequence, 11);
    MDB_txn *txn = NULL;
    struct bk_place place;
    struct bk_record record;
    uint64_t first = 0;
    cr_assert_eq(bk_store_begin(fixture.store, &txn), 0);
    cr_assert_eq(bk_store_find(fixture.store, txn, 1, 12, &first, &place), 0);
    cr_assert_eq(first, 11);
    cr_assert_eq(bk_store_record(fixture.store, txn, place.position, 1, &record), 0);
    cr_assert_eq(record.count, 5);
    cr_assert_eq(record.newest_time, 3000);
    cr_assert_eq(bk_store_find(fixture.store, txn, 1, 16, &first, &place), BB_ENOTFOUND);
    cr_assert_eq(bk_store_find(fixture.store, txn, 1, 0, &first, &place), 0);
    cr_assert_eq(first, 1);
    bk_store_end(txn);
    fixture_fini(&fixture);
}

static int see_producer(void *context, const struct bk_log_producer *producer)
{
    *(uint64_t *)context += producer->last;
    return 0;
}

static int see_cursor(void *context, const struct bk_log_cursor *cursor)
{
    *(uint64_t *)context += 1000 * cursor->value.len;
    return 0;
}

static int see_last(void *context, const struct bk_event_id *id, uint64_t time)
{
    *(uint64_t *)context += id->server == SERVER ? 1000000 * id->instance + 100000000 * time : 0;
    return 0;
}

Test(log_store, producers_cursors_and_last_ids_are_told)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    cr_assert_eq(put(&fixture, 1, 3, 1, 1), 0);
    struct bk_log_producer producer = {.last = 8};
    struct bk_log_cursor cursor = {.name = bb_slice_str("c"), .value = bb_slice_str("xy")};
    struct bk_append append = {.producers = &producer, .n_producers = 1, .cursors = &cursor, .n_cursors = 1};
    cr_assert_eq(apply(&fixture, &append), 0);
    uint64_t seen = 0;
    const struct bk_backend_loader loader = {&seen, NULL, see_producer, see_cursor};
    cr_assert_eq(bk_store_load(fixture.store, &loader, see_last, &seen), 0);
    cr_assert_eq(seen, 8 + 2000 + 3000000 + UINT64_C(100000000) * 1000);
    producer.removed = true;
    cursor.removed = true;
    cr_assert_eq(apply(&fixture, &append), 0);
    seen = 0;
    cr_assert_eq(bk_store_load(fixture.store, &loader, NULL, NULL), 0);
    cr_assert_eq(seen, 0);
    fixture_fini(&fixture);
}

Test(log_store, numbers_applied_already_are_skipped_and_holes_refused)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    cr_assert_eq(put(&fixture, 1, 3, 1, 1), 0);
    struct bk_store_input input = {2, bb_slice_str("not even read")};
    cr_assert_eq(bk_store_apply(fixture.store, &input, 1), 0);
    input.number = 4;
    cr_assert_eq(bk_store_apply(fixture.store, &input, 1), BB_EINVAL);
    input.number = 3;
    cr_assert_eq(bk_store_apply(fixture.store, &input, 1), BB_ECORRUPT);
    cr_assert_eq(bk_store_applied(fixture.store), 2);
    check(&fixture);
    cr_assert_eq(put(&fixture, 1, 3, 1, 1), 0);
    cr_assert_eq(info(&fixture, 1).events, 6);
    fixture_fini(&fixture);
}

Test(log_store, opened_once_and_by_its_own_version)
{
    struct fixture fixture;
    struct bk_store *other = NULL;
    struct bb_buf err = BB_BUF_INIT;
    fixture_init(&fixture, MAP);
    cr_assert_eq(bk_store_open(fixture.directory, MAP, &other, &err), BB_EEXISTS);
    MDB_txn *txn = NULL;
    MDB_val key = {6, bb_unconst("format")};
    MDB_val value = {12, bb_unconst("busbar-log 1")};
    cr_assert_eq(mdb_txn_begin(fixture.store->env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_put(txn, fixture.store->tables.meta, &key, &value, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    bk_store_close(fixture.store);
    bb_buf_reset(&err);
    cr_assert_eq(bk_store_open(fixture.directory, MAP, &fixture.store, &err), BB_EVERSION);
    cr_assert_not_null(strstr(bb_buf_string(&err), "\"busbar-log 1\""));
    bb_buf_fini(&err);
    fixture_fini(&fixture);
}

Test(log_store, age_bytes_and_events_are_kept_to_the_event)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    struct bk_retention retention = BK_RETENTION_INIT;
    set_channel(&fixture, 1, NULL, false);
    for (size_t i = 0; i < 20; i++) {
        cr_assert_eq(put(&fixture, 1, 10, 4, 10), 0);
    }
    retention.max_events = 95;
    set_channel(&fixture, 1, &retention, false);
    cr_assert_eq(retain(&fixture, 0, 3), 3);
    cr_assert_eq(info(&fixture, 1).events, 170);
    retain(&fixture, 0, 1000);
    cr_assert_eq(info(&fixture, 1).events, 95);
    cr_assert_eq(info(&fixture, 1).first, 106);
    cr_assert_eq(fixture.trimmed[1], 106);
    retention.max_age_us = 1000;
    retention.min_events = 25;
    set_channel(&fixture, 1, &retention, false);
    retain(&fixture, 20000, 1000);
    cr_assert_eq(info(&fixture, 1).events, 25, "20 would be young enough: the floor");
    retention.min_events = 0;
    set_channel(&fixture, 1, &retention, false);
    retain(&fixture, 20000, 1000);
    cr_assert_eq(info(&fixture, 1).events, 20);
    retention.max_bytes = info(&fixture, 1).bytes / 2;
    set_channel(&fixture, 1, &retention, false);
    retain(&fixture, 20000, 1000);
    cr_assert_leq(info(&fixture, 1).bytes, retention.max_bytes);
    cr_assert_eq(info(&fixture, 1).events, 10);
    retain(&fixture, 1000000, 1000);
    cr_assert_eq(info(&fixture, 1).events, 0);
    cr_assert_eq(info(&fixture, 1).first, 201);
    cr_assert_eq(rows(&fixture, fixture.store->tables.records), 0);
    cr_assert_eq(rows(&fixture, fixture.store->tables.by_source_time), 0);
    uint64_t sequence = 0;
    cr_assert_eq(kept(&fixture, 1, "p/1", &sequence), 0);
    cr_assert_eq(sequence, 200 - 10 + 10);
    fixture_fini(&fixture);
}

Test(log_store, surplus_of_paths_goes_and_the_floor_stays)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = 2;
    set_channel(&fixture, 1, &retention, false);
    cr_assert_eq(put(&fixture, 1, 7, 7, 5), 0);
    for (size_t i = 0; i < 10; i++) {
        cr_assert_eq(put(&fixture, 1, 6, 3, 5), 0);
    }
    uint64_t sequence = 0;
    cr_assert_eq(kept(&fixture, 1, "p/0", &sequence), 21);
    retain(&fixture, 0, 1000);
    cr_assert_eq(kept(&fixture, 1, "p/0", &sequence), 2);
    cr_assert_eq(sequence, 65);
    cr_assert_eq(kept(&fixture, 1, "p/5", &sequence), 1);
    cr_assert_eq(info(&fixture, 1).events, 6 + 4);
    cr_assert_eq(info(&fixture, 1).first, 4);
    cr_assert_eq(rows(&fixture, fixture.store->tables.surplus), 0);
    retention.max_per_path = 1;
    retention.min_events = 5;
    set_channel(&fixture, 1, &retention, false);
    retain(&fixture, 0, 1000);
    cr_assert_eq(info(&fixture, 1).events, 4 + 5);
    fixture_fini(&fixture);
}

/* What the floor holds of a path goes when newer events are in the floor, and the floor ends inside a
 * record. */
Test(log_store, surplus_that_the_floor_held_goes_later)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = 2;
    retention.min_events = 10;
    set_channel(&fixture, 1, &retention, false);
    cr_assert_eq(put(&fixture, 1, 8, 1, 5), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(retain(&fixture, 0, 1000), 0);
    }
    cr_assert_eq(info(&fixture, 1).events, 8);
    cr_assert_eq(put(&fixture, 1, 12, 12, 5), 0); /* one of them of the same path */
    (void)retain(&fixture, 0, 1000);
    cr_assert_eq(info(&fixture, 1).events, 1 + 12);
    cr_assert_eq(info(&fixture, 1).first, 8);
    cr_assert_eq(put(&fixture, 1, 4, 1, 5), 0); /* the floor is the last six of those twelve, and these */
    (void)retain(&fixture, 0, 1000);
    cr_assert_eq(info(&fixture, 1).events, 11 + 4);
    cr_assert_eq(info(&fixture, 1).first, 10);
    retention.min_events = 3; /* another channel has a floor of its own */
    set_channel(&fixture, 2, &retention, false);
    cr_assert_eq(put(&fixture, 2, 30, 1, 5), 0);
    (void)retain(&fixture, 0, 1000);
    cr_assert_eq(info(&fixture, 2).events, 3);
    check(&fixture);
    fixture_fini(&fixture);
}

Test(log_store, trimming_and_removal_leave_nothing)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    set_channel(&fixture, 2, NULL, false);
    for (size_t i = 0; i < 10; i++) {
        cr_assert_eq(put(&fixture, 1, 10, 4, 10), 0);
        cr_assert_eq(put(&fixture, 2, 10, 4, 10), 0);
    }
    uint64_t first = 0;
    bool more = false;
    cr_assert_eq(bk_store_trim(fixture.store, 1, 34, 2, &first, &more), 0);
    cr_assert_eq(first, 21);
    cr_assert(more);
    cr_assert_eq(bk_store_trim(fixture.store, 1, 34, 100, &first, &more), 0);
    cr_assert_eq(first, 34);
    cr_assert(!more);
    check(&fixture);
    set_channel(&fixture, 1, NULL, true);
    cr_assert_eq(bk_store_trim(fixture.store, 1, 50, 100, &first, &more), BB_ENOTFOUND);
    cr_assert_eq(put(&fixture, 1, 10, 4, 10), 0, "dropped");
    cr_assert_eq(retain(&fixture, 0, 2), 2);
    cr_assert(info(&fixture, 1).removed);
    while (retain(&fixture, 0, 3) == 3) {
    }
    cr_assert_eq(rows(&fixture, fixture.store->tables.channels), 1);
    cr_assert_eq(rows(&fixture, fixture.store->tables.paths), 4);
    cr_assert_eq(rows(&fixture, fixture.store->tables.records), 10);
    set_channel(&fixture, 2, NULL, true);
    set_channel(&fixture, 2, NULL, false);
    check(&fixture);
    cr_assert_eq(rows(&fixture, fixture.store->tables.records), 0);
    cr_assert_eq(rows(&fixture, fixture.store->tables.paths), 0);
    cr_assert_eq(info(&fixture, 2).last, 0);
    fixture_fini(&fixture);
}

/* Ids are not used again: the highest is known when its channel has gone. */
Test(log_store, the_row_of_the_highest_id_stays)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    set_channel(&fixture, 7, NULL, false);
    cr_assert_eq(put(&fixture, 7, 10, 4, 10), 0);
    set_channel(&fixture, 7, NULL, true);
    for (int i = 0; i < 3; i++) {
        (void)retain(&fixture, 0, 100);
    }
    cr_assert(info(&fixture, 7).removed);
    cr_assert_eq(rows(&fixture, fixture.store->tables.records), 0);
    cr_assert_eq(rows(&fixture, fixture.store->tables.paths), 0);
    cr_assert_eq(retain(&fixture, 0, 100), 0, "nothing is left to be done");
    check(&fixture);
    set_channel(&fixture, 8, NULL, false);
    (void)retain(&fixture, 0, 100);
    cr_assert_eq(rows(&fixture, fixture.store->tables.channels), 2);
    set_channel(&fixture, 8, NULL, true);
    set_channel(&fixture, 1, NULL, true);
    (void)retain(&fixture, 0, 100);
    cr_assert_eq(rows(&fixture, fixture.store->tables.channels), 1);
    cr_assert(info(&fixture, 8).removed);
    check(&fixture);
    fixture_fini(&fixture);
}

Test(log_store, damage_is_found_and_not_served)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_events = 2;
    set_channel(&fixture, 1, &retention, false);
    cr_assert_eq(put(&fixture, 1, 3, 1, 100), 0);
    cr_assert_eq(put(&fixture, 1, 3, 1, 100), 0);
    MDB_txn *txn = NULL;
    uint8_t bytes[BK_KEY_RECORD];
    bk_key_record(bytes, 1, 1);
    MDB_val key = {sizeof(bytes), bytes};
    MDB_val value;
    cr_assert_eq(mdb_txn_begin(fixture.store->env, NULL, 0, &txn), 0);
    cr_assert_eq(mdb_get(txn, fixture.store->tables.records, &key, &value), 0);
    uint8_t *copy = malloc(value.mv_size);
    memcpy(copy, value.mv_data, value.mv_size);
    copy[value.mv_size / 2] ^= 4;
    value.mv_data = copy;
    cr_assert_eq(mdb_put(txn, fixture.store->tables.records, &key, &value, 0), 0);
    cr_assert_eq(mdb_txn_commit(txn), 0);
    free(copy);
    struct bk_record record;
    struct bk_store_report report;
    cr_assert_eq(bk_store_begin(fixture.store, &txn), 0);
    cr_assert_eq(bk_store_record(fixture.store, txn, 1, 1, &record), BB_ECORRUPT);
    bk_store_end(txn);
    cr_assert_eq(bk_store_verify(fixture.store, &report), 0);
    cr_assert_gt(report.problems, 0);
    cr_assert_not_null(strstr(report.first, "damaged"), "%s", report.first);
    size_t done = 0;
    cr_assert_eq(bk_store_retain(fixture.store, 0, 100, NULL, NULL, &done), 0);
    cr_assert_eq(info(&fixture, 1).events, 2);
    cr_assert_eq(info(&fixture, 1).first, 5);
    fixture_fini(&fixture);
}

Test(log_store, a_full_map_changes_nothing_and_can_be_trimmed)
{
    struct fixture fixture;
    fixture_init(&fixture, (size_t)4 << 20);
    set_channel(&fixture, 1, NULL, false);
    int error = 0;
    while ((error = put(&fixture, 1, 50, 50, 1000)) == 0) {
        cr_assert_lt(fixture.sequences[1], 100000);
    }
    cr_assert_eq(error, BB_ELOGFULL);
    check(&fixture);
    cr_assert_eq(info(&fixture, 1).last, fixture.sequences[1]);
    struct bk_store_sizes sizes;
    cr_assert_eq(bk_store_sizes(fixture.store, &sizes), 0);
    cr_assert_gt(sizes.used, sizes.map / 2);
    uint64_t first = 0;
    bool more = true;
    while (more) {
        cr_assert_eq(bk_store_trim(fixture.store, 1, fixture.sequences[1] / 2, 5, &first, &more), 0);
    }
    cr_assert_eq(first, fixture.sequences[1] / 2);
    check(&fixture);
    cr_assert_eq(put(&fixture, 1, 50, 50, 1000), 0);
    cr_assert_eq(put(&fixture, 1, 50, 50, 1000), 0);
    check(&fixture);
    fixture_fini(&fixture);
}

/* Events are not for everybody, also where the folder is open to all. */
static void assert_private(const char *directory)
{
    char path[256];
    struct stat status;
    (void)snprintf(path, sizeof(path), "%s/data.mdb", directory);
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 07, 0, "mode %o", status.st_mode);
}

Test(log_store, copies_and_compaction)
{
    struct fixture fixture;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    for (size_t i = 0; i < 50; i++) {
        cr_assert_eq(put(&fixture, 1, 50, 10, 500), 0);
    }
    char copy[128];
    (void)snprintf(copy, sizeof(copy), "%s.copy", fixture.directory);
    cr_assert_eq(bk_store_snapshot(fixture.store, copy), 0);
    cr_assert_eq(bk_store_snapshot(fixture.store, copy), BB_EEXISTS);
    assert_private(copy);
    uint64_t first = 0;
    bool more = false;
    cr_assert_eq(bk_store_trim(fixture.store, 1, 2400, 1000, &first, &more), 0);
    struct bk_store_sizes before;
    struct bk_store_sizes after;
    cr_assert_eq(bk_store_sizes(fixture.store, &before), 0);
    cr_assert_eq(bk_store_compact(fixture.store, NULL), 0);
    cr_assert_eq(bk_store_sizes(fixture.store, &after), 0);
    cr_assert_lt(after.file, before.file / 4);
    assert_private(fixture.directory);
    check(&fixture);
    cr_assert_eq(info(&fixture, 1).first, 2400);
    cr_assert_eq(put(&fixture, 1, 50, 10, 500), 0);
    check(&fixture);
    bk_store_close(fixture.store);
    char directory[64];
    memcpy(directory, fixture.directory, sizeof(directory));
    cr_assert_eq(bk_store_open(copy, MAP, &fixture.store, NULL), 0);
    check(&fixture);
    cr_assert_eq(info(&fixture, 1).events, 2500);
    bk_store_close(fixture.store);
    remove_files(copy);
    cr_assert_eq(bk_store_open(directory, MAP, &fixture.store, NULL), 0);
    fixture_fini(&fixture);
}

/* A small generator: the same numbers every time. */
static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

static void random_limits(struct fixture *fixture, uint32_t id, uint32_t *state)
{
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_per_path = next_random(state) % 3 == 0 ? 1 + next_random(state) % 4 : BK_NO_LIMIT;
    retention.max_events = next_random(state) % 3 == 0 ? next_random(state) % 200 : BK_NO_LIMIT;
    retention.max_age_us = next_random(state) % 3 == 0 ? 20000 : BK_NO_LIMIT;
    retention.min_events = next_random(state) % 2 == 0 ? next_random(state) % 50 : 0;
    set_channel(fixture, id, &retention, false);
}

Test(log_store, records_and_indexes_agree_after_random_work)
{
    struct fixture fixture;
    uint32_t state = 1;
    fixture_init(&fixture, MAP);
    for (uint32_t id = 1; id <= 4; id++) {
        random_limits(&fixture, id, &state);
    }
    for (size_t i = 0; i < 300; i++) {
        uint32_t id = 1 + next_random(&state) % 4;
        uint64_t first = 0;
        bool more = false;
        switch (next_random(&state) % 8) {
        case 0:
            random_limits(&fixture, id, &state);
            break;
        case 1:
            retain(&fixture, 1000 * fixture.session, 1 + next_random(&state) % 30);
            break;
        case 2:
            first = info(&fixture, id).first + next_random(&state) % 20;
            cr_assert_eq(bk_store_trim(fixture.store, id, first, 4, &first, &more), 0);
            break;
        default:
            cr_assert_eq(put(&fixture, id, 1 + next_random(&state) % 40, 1 + next_random(&state) % 20, 30),
                         0);
        }
        check(&fixture);
    }
    fixture_fini(&fixture);
}

Test(log_store, nothing_to_retain_writes_nothing)
{
    struct fixture fixture;
    MDB_envinfo before;
    MDB_envinfo after;
    struct bk_retention retention = BK_RETENTION_INIT;
    retention.max_age_us = 1000000;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, &retention, false);
    cr_assert_eq(put(&fixture, 1, 5, 5, 5), 0);
    cr_assert_eq(mdb_env_info(fixture.store->env, &before), 0);
    cr_assert_eq(retain(&fixture, 2000, 100), 0);
    cr_assert_eq(mdb_env_info(fixture.store->env, &after), 0);
    cr_assert_eq(before.me_last_txnid, after.me_last_txnid);
    fixture_fini(&fixture);
}

Test(log_store, verify_misses_every_kind_of_index_row)
{
    for (size_t i = 0; i < 6; i++) {
        struct fixture fixture;
        fixture_init(&fixture, MAP);
        set_channel(&fixture, 1, NULL, false);
        cr_assert_eq(put(&fixture, 1, 5, 2, 5), 0);
        const struct bk_store_tables *tables = &fixture.store->tables;
        const MDB_dbi dbis[] = {tables->records,    tables->by_sequence, tables->by_time,
                                tables->by_session, tables->by_path,     tables->by_source_time};
        MDB_txn *txn = NULL;
        MDB_cursor *cursor = NULL;
        MDB_val key;
        MDB_val value;
        cr_assert_eq(mdb_txn_begin(fixture.store->env, NULL, 0, &txn), 0);
        cr_assert_eq(mdb_cursor_open(txn, dbis[i], &cursor), 0);
        cr_assert_eq(mdb_cursor_get(cursor, &key, &value, MDB_FIRST), 0);
        cr_assert_eq(mdb_cursor_del(cursor, 0), 0);
        mdb_cursor_close(cursor);
        cr_assert_eq(mdb_txn_commit(txn), 0);
        struct bk_store_report report;
        cr_assert_eq(bk_store_verify(fixture.store, &report), 0);
        cr_assert_gt(report.problems, 0, "table %zu", i);
        fixture_fini(&fixture);
    }
}

/* Apply what was held as two journal records in one transaction. */
static void release(struct fixture *fixture)
{
    const struct bk_store_input inputs[] = {{fixture->number + 1, bb_buf_slice(&fixture->held)},
                                            {fixture->number + 2, {NULL, 0}}};
    cr_assert_eq(bk_store_apply(fixture->store, inputs, 2), 0);
    fixture->number += 2;
    fixture->hold = false;
    bb_buf_fini(&fixture->held);
    check(fixture);
}

Test(log_store, channels_share_groups_until_the_last_record_goes)
{
    struct fixture fixture;
    uint64_t first = 0;
    bool more = false;
    fixture_init(&fixture, MAP);
    set_channel(&fixture, 1, NULL, false);
    set_channel(&fixture, 2, NULL, false);
    fixture.hold = true;
    for (size_t i = 0; i < 200; i++) {
        cr_assert_eq(put(&fixture, i % 3 == 0 ? 2 : 1, 10, 7, 60), 0);
    }
    release(&fixture);
    size_t groups = rows(&fixture, fixture.store->tables.by_time);
    cr_assert_gt(groups, 1);
    cr_assert_eq(rows(&fixture, fixture.store->tables.records), 2 * groups);
    cr_assert_eq(bk_store_trim(fixture.store, 1, 100000, 1000, &first, &more), 0);
    check(&fixture);
    cr_assert_eq(rows(&fixture, fixture.store->tables.by_time), groups);
    cr_assert_eq(bk_store_trim(fixture.store, 2, 100000, 1000, &first, &more), 0);
    check(&fixture);
    cr_assert_eq(rows(&fixture, fixture.store->tables.by_time), 0);
    cr_assert_eq(rows(&fixture, fixture.store->tables.by_session), 0);
    fixture_fini(&fixture);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The read thread: requests, one after the other. */
#include "proto/wire/mp.h"

#include "broker/backend/lmdb/query.h"
#include "broker/backend/lmdb/read.h"
#include "broker/backend/lmdb/state.h"

#include <stdlib.h>
#include <sys/stat.h>

/* --- the read thread ------------------------------------------------------------------------------------ */

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

static int verify(struct lmdb *lmdb, struct bk_upkeep *request)
{
    struct bk_store_report report = {0};
    int r = bk_store_verify(lmdb->store, &report);
    if (r == 0) {
        write_report(&request->report, &report);
        r = request->report.error;
    }
    return r;
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
    case BK_REQUEST_QUERY:
        return bk_lmdb_query(lmdb->store, BB_CONTAINER(request, struct bk_query, request), lmdb->meter);
    case BK_REQUEST_SNAPSHOT:
        return snapshot(lmdb, BB_CONTAINER(request, struct bk_upkeep, request));
    case BK_REQUEST_VERIFY:
        return verify(lmdb, BB_CONTAINER(request, struct bk_upkeep, request));
    case BK_REQUEST_FLUSH:
        return 0;
    case BK_REQUEST_TRIM:
    case BK_REQUEST_COMPACT:
        break;
    }
    return BB_EUNSUPPORTED;
}

void *bk_lmdb_read_run(void *arg)
{
    struct lmdb *lmdb = arg;
    (void)pthread_mutex_lock(&lmdb->mutex);
    while (!lmdb->is_ending) {
        struct bk_request *request = lmdb->requests;
        if (request == NULL) {
            (void)pthread_cond_wait(&lmdb->to_read, &lmdb->mutex);
            continue;
        }
        bool waits = request->kind == BK_REQUEST_FLUSH
                         ? lmdb->commits != NULL && lmdb->commits->ticket <= request->barrier
                         : lmdb->applied < request->barrier;
        if (waits && !lmdb->has_failed) {
            lmdb->apply_now = true;
            (void)pthread_cond_signal(&lmdb->to_apply);
            (void)pthread_cond_wait(&lmdb->moved, &lmdb->mutex);
            continue;
        }
        if (!bk_lmdb_enter(lmdb)) {
            break;
        }
        lmdb->requests = request->next;
        lmdb->requests_end = lmdb->requests == NULL ? &lmdb->requests : lmdb->requests_end;
        (void)pthread_mutex_unlock(&lmdb->mutex);
        int r = answer(lmdb, request);
        (void)pthread_mutex_lock(&lmdb->mutex);
        bk_lmdb_leave(lmdb);
        bk_lmdb_tell_done(lmdb, request, r);
    }
    (void)pthread_mutex_unlock(&lmdb->mutex);
    return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* A log on LMDB whose disk fails: what becomes of what was on its way, what it tells, and how it goes on. */
#include "tests/unit/log_owner.h"

#include <stdio.h>
#include <unistd.h>

static const char *const options[] = {"map-size=64M",       "journal-size=1M",    "reserve=0",
                                      "apply-interval=60s", "retain-interval=1h", NULL};

static bool has_failed(const struct owner *owner)
{
    return owner->n_failures > 0;
}

static bool is_well(const struct owner *owner)
{
    return owner->state == BK_BACKEND_OK && owner->n_failures > 0;
}

/* FAILED, and why it cannot be opened again. */
static bool has_said_why(const struct owner *owner)
{
    return owner->n_failures >= 2;
}

static void rename_in(const struct owner *owner, const char *from, const char *to)
{
    char old[128];
    char new[128];
    (void)snprintf(old, sizeof(old), "%s/%s", owner->directory, from);
    (void)snprintf(new, sizeof(new), "%s/%s", owner->directory, to);
    cr_assert_eq(rename(old, new), 0, "%s: %m", from);
}

/* In place of the data file there is something else. */
static void spoil(void *context)
{
    const struct owner *owner = context;
    char path[128];
    rename_in(owner, "data.mdb", "data.aside");
    (void)snprintf(path, sizeof(path), "%s/data.mdb", owner->directory);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    for (int i = 0; i < 10000; i++) {
        (void)fprintf(file, "no database\n");
    }
    cr_assert_eq(fclose(file), 0);
}

static void repair(const struct owner *owner)
{
    rename_in(owner, "data.aside", "data.mdb");
}

static void open_with(struct owner *owner, int n)
{
    owner_open(owner, options);
    for (int i = 0; i < n; i++) {
        cr_assert_eq(owner_put(owner, 1, 2, 100), 0);
    }
    owner_settle(owner);
    cr_assert_eq(owner->n_failed, 0);
}

/* @n tickets, the first of them alone in the write that fails. */
static void put_while_held(struct owner *owner, int n, enum disk disk, void (*when)(void *))
{
    disk_be(DISK_HOLDS, NULL, NULL);
    cr_assert_eq(owner_put(owner, 1, 2, 100), 0);
    disk_wait_held();
    for (int i = 1; i < n; i++) {
        cr_assert_eq(owner_put(owner, 1, 2, 100), 0);
    }
    disk_be(disk, when, owner);
}

Test(log_failed, a_write_that_was_lost_fails_it_and_all_behind_it)
{
    struct owner owner;
    open_with(&owner, 5);
    put_while_held(&owner, 3, DISK_LOSES, NULL);
    owner_pump(&owner, has_failed);
    owner_pump(&owner, is_well);
    owner_settle(&owner);
    cr_assert_eq(owner.n_failed, 3);
    cr_assert_eq(owner.error, BB_ELOGFAILED);
    cr_assert_eq(owner_put(&owner, 1, 2, 100), 0, "it goes on from there");
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), 12);
    owner_verify(&owner);
    owner_leave(&owner);
    owner_enter(&owner);
    cr_assert_eq(owner_count(&owner, 1), 12);
    owner_close(&owner);
}

Test(log_failed, a_write_that_was_durable_after_all_is_told_as_that)
{
    struct owner owner;
    open_with(&owner, 5);
    put_while_held(&owner, 3, DISK_LIES, NULL);
    owner_pump(&owner, has_failed);
    owner_pump(&owner, is_well);
    owner_settle(&owner);
    cr_assert_eq(owner.n_failed, 2, "but not those that waited behind it");
    cr_assert_eq(owner_put(&owner, 1, 2, 100), 0);
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), 14);
    owner_verify(&owner);
    owner_close(&owner);
}

Test(log_failed, why_it_cannot_be_opened_again_is_told_once_and_when_it_can)
{
    struct owner owner;
    char why[400];
    open_with(&owner, 5);
    put_while_held(&owner, 1, DISK_LOSES, spoil);
    owner_pump(&owner, has_said_why);
    cr_assert_not_null(strstr(owner.text, owner.directory), "%s", owner.text);
    cr_assert_not_null(strstr(owner.text, "MDB_INVALID"), "%s", owner.text);
    cr_assert_eq(owner_status(&owner, "failed", NULL), 1);
    cr_assert_gt(owner_status(&owner, "why", why), 0);
    cr_assert_str_eq(why, owner.text);
    cr_assert_eq(owner_put(&owner, 1, 1, 0), BB_ELOGFAILED);
    repair(&owner);
    owner_pump(&owner, is_well);
    cr_assert_eq(owner.n_states, 3, "each try has told something");
    cr_assert_eq(owner_status(&owner, "failed", NULL), 0);
    cr_assert_eq(owner_status(&owner, "why", NULL), 0);
    owner_settle(&owner);
    cr_assert_eq(owner.n_failed, 1);
    cr_assert_eq(owner_put(&owner, 1, 1, 0), 0);
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), 11);
    owner_close(&owner);
}

/* One of each kind. */
struct requests {
    struct bk_read_range range;
    struct bk_read read;
    struct bk_locate_place place;
    struct bk_locate locate;
    struct bb_query asked;
    struct bk_query query;
    struct bk_request flush;
    struct bk_trim trim;
    struct bk_upkeep snapshot;
    struct bk_upkeep compact;
    struct bk_upkeep verify;
};

#define N_REQUESTS 8

static void submit_all(struct owner *owner, struct requests *all)
{
    *all = (struct requests){
        .range = {1, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT},
        .read = {.request = {.kind = BK_REQUEST_READ},
                 .ranges = &all->range,
                 .n_ranges = 1,
                 .max_bytes = SIZE_MAX},
        .place = {.channel = 1},
        .locate = {.request = {.kind = BK_REQUEST_LOCATE},
                   .kind = BK_LOCATE_LAST,
                   .places = &all->place,
                   .n_places = 1},
        .asked = BB_QUERY_INIT,
        .query = {.request = {.kind = BK_REQUEST_QUERY}, .query = &all->asked, .max_bytes = SIZE_MAX},
        .flush = {.kind = BK_REQUEST_FLUSH},
        .trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = 3},
        .snapshot = {.request = {.kind = BK_REQUEST_SNAPSHOT}, .name = bb_slice_str("copy")},
        .compact = {.request = {.kind = BK_REQUEST_COMPACT}},
        .verify = {.request = {.kind = BK_REQUEST_VERIFY}},
    };
    struct bk_request *const requests[N_REQUESTS] = {
        &all->read.request, &all->locate.request,   &all->query.request,   &all->flush,
        &all->trim.request, &all->snapshot.request, &all->compact.request, &all->verify.request,
    };
    for (size_t i = 0; i < N_REQUESTS; i++) {
        owner_submit(owner, requests[i]);
    }
}

static void expect_all(struct requests *all, int error)
{
    cr_expect_eq(all->read.request.error, error, "read: %s", bb_strerror(all->read.request.error));
    cr_expect_eq(all->locate.request.error, error, "locate: %s", bb_strerror(all->locate.request.error));
    cr_expect_eq(all->query.request.error, error, "query: %s", bb_strerror(all->query.request.error));
    cr_expect_eq(all->flush.error, error, "flush: %s", bb_strerror(all->flush.error));
    cr_expect_eq(all->trim.request.error, error, "trim: %s", bb_strerror(all->trim.request.error));
    cr_expect_eq(all->snapshot.request.error, error, "snapshot: %s",
                 bb_strerror(all->snapshot.request.error));
    cr_expect_eq(all->compact.request.error, error, "compact: %s", bb_strerror(all->compact.request.error));
    cr_expect_eq(all->verify.request.error, error, "verify: %s", bb_strerror(all->verify.request.error));
    bk_bytes_unref(all->read.body);
    bb_buf_fini(&all->read.losses);
    bk_bytes_unref(all->query.body);
    bb_buf_fini(&all->snapshot.report);
    bb_buf_fini(&all->compact.report);
    bb_buf_fini(&all->verify.report);
}

Test(log_failed, requests_of_each_kind_wait_for_it_to_be_opened_again)
{
    struct owner owner;
    struct requests all;
    open_with(&owner, 5);
    put_while_held(&owner, 1, DISK_LOSES, spoil);
    owner_pump(&owner, has_said_why);
    submit_all(&owner, &all);
    cr_assert_eq(owner.n_waiting, N_REQUESTS);
    repair(&owner);
    owner_wait(&owner);
    expect_all(&all, 0);
    cr_assert_eq(all.range.reached, 10);
    cr_assert_eq(all.place.sequence, 10);
    cr_assert_gt(all.query.n_events, 0);
    cr_assert_eq(all.trim.first, 3);
    owner_close(&owner);
}

Test(log_failed, closing_it_ends_requests_and_tickets)
{
    struct owner owner;
    struct requests all;
    open_with(&owner, 5);
    put_while_held(&owner, 2, DISK_LOSES, spoil);
    owner_pump(&owner, has_said_why);
    submit_all(&owner, &all);
    owner_leave(&owner);
    expect_all(&all, BB_ECLOSED);
    cr_assert_eq(owner.n_failed, 2);
    struct bk_backend *none = NULL;
    cr_assert_neq(owner_try_open(&owner, &none), 0);
    cr_assert_not_null(strstr(bb_buf_string(&owner.err), "MDB_INVALID"), "%s", bb_buf_string(&owner.err));
    repair(&owner);
    owner_enter(&owner);
    cr_assert_eq(owner_count(&owner, 1), 10);
    owner_close(&owner);
}

Test(log_failed, what_was_in_the_journal_alone_is_taken_in_when_it_is_opened_again)
{
    struct owner owner;
    open_with(&owner, 50);
    put_while_held(&owner, 1, DISK_LOSES, NULL);
    owner_pump(&owner, has_failed);
    owner_pump(&owner, is_well);
    cr_assert_eq(owner_status(&owner, "journal_bytes", NULL), 0);
    cr_assert_eq(owner_count(&owner, 1), 100);
    owner_close(&owner);
}

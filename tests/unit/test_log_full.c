/* SPDX-License-Identifier: Apache-2.0 */
/* A log on LMDB without room: what it refuses, and that removing makes room whatever waits. */
#include "tests/unit/log_owner.h"

#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* What is registered stays in the journal until a request asks for it. */
static const char *const small[] = {"map-size=4M",        "journal-size=1M",    "reserve=0",
                                    "apply-interval=60s", "retain-interval=1h", NULL};

/* Large events, which take about as much in the tables as in the journal, until they are refused. Returns
 * how many tickets. */
static uint64_t fill(struct owner *owner, uint32_t channel)
{
    uint64_t n = 0;
    int r = 0;
    while ((r = owner_put(owner, channel, 4, 8000)) == 0) {
        owner_settle(owner);
        n++;
    }
    cr_assert_eq(r, BB_ELOGFULL, "%s", bb_strerror(r));
    return n;
}

static int trim(struct owner *owner, uint32_t channel, uint64_t before, uint64_t *ret_first)
{
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = channel, .before = before};
    int r = owner_run(owner, &trim.request);
    *ret_first = trim.first;
    return r;
}

static uint64_t trim_to(struct owner *owner, uint32_t channel, uint64_t before)
{
    uint64_t first = 0;
    cr_assert_eq(trim(owner, channel, before, &first), 0);
    return first;
}

/* Until all is in the tables. */
static void take_in(struct owner *owner)
{
    (void)owner_count(owner, 1);
}

static bool is_full(const struct owner *owner)
{
    return owner->state == BK_BACKEND_FULL;
}

static bool is_settled_or_full(const struct owner *owner)
{
    return owner->decided == owner->ticket || is_full(owner);
}

static bool is_well(const struct owner *owner)
{
    return owner->state == BK_BACKEND_OK;
}

/*
 * Tables that are stuck: small events on paths of their own (channel 2) need many times what they are in the
 * journal, and while they are taken in others wait for the disk (channel 3).
 */
static void get_stuck(struct owner *owner)
{
    do {
        take_in(owner);
    } while (fill(owner, 1) > 0);
    (void)trim_to(owner, 1, owner->at.last[1] / 4);
    owner_pump(owner, is_well);
    for (int i = 0; i < 24; i++) {
        cr_assert_eq(owner_put(owner, 2, 500, 0), 0);
    }
    owner_settle(owner);
    disk_be(DISK_HOLDS, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(owner_put(owner, 3, 500, 0), 0);
    }
    (void)trim_to(owner, 1, 1); /* answered when the tables have what is durable, or are stuck */
    owner_pump(owner, is_full);
    disk_be(DISK_WELL, NULL, NULL);
    owner_settle(owner);
    cr_assert_eq(owner->n_failed, 0);
    cr_assert_eq(owner_put(owner, 3, 1, 0), BB_ELOGFULL);
}

Test(log_full, trimming_makes_room_for_tables_that_are_stuck)
{
    struct owner owner;
    owner_open(&owner, small);
    get_stuck(&owner);
    uint64_t before = owner.at.last[1] + 1;
    cr_assert_eq(trim_to(&owner, 1, before), before);
    cr_assert_eq(owner.trimmed[1], before);
    cr_assert_eq(owner_count(&owner, 2), owner.at.last[2]);
    cr_assert_eq(owner_count(&owner, 3), owner.at.last[3], "what waited is there");
    cr_assert_eq(owner_count(&owner, 1), 0);
    cr_assert_eq(owner.n_failed, 0);
    owner_verify(&owner);
    owner_close(&owner);
}

Test(log_full, what_waits_is_read_when_there_is_room)
{
    struct owner owner;
    owner_open(&owner, small);
    get_stuck(&owner);
    struct bk_read_range range = {3, .stop = BK_NO_LIMIT, .stop_time = BK_NO_LIMIT};
    struct bk_read read = {
        .request = {.kind = BK_REQUEST_READ}, .ranges = &range, .n_ranges = 1, .max_bytes = SIZE_MAX};
    struct bk_request flush = {.kind = BK_REQUEST_FLUSH};
    owner_submit(&owner, &read.request);
    owner_submit(&owner, &flush);
    struct bk_trim trim = {.request = {.kind = BK_REQUEST_TRIM}, .channel = 1, .before = UINT64_MAX};
    owner_submit(&owner, &trim.request);
    owner_wait(&owner);
    cr_assert_eq(read.request.error, 0);
    cr_assert_eq(range.events, owner.at.last[3]);
    bk_bytes_unref(read.body);
    bb_buf_fini(&read.losses);
    cr_assert_eq(flush.error, 0);
    cr_assert_eq(trim.request.error, 0);
    cr_assert_eq(trim.first, owner.at.last[1] + 1);
    uint64_t first = owner.at.last[1] + 1;
    cr_assert_eq(owner_put(&owner, 1, 5, 100), 0, "it goes on");
    owner_settle(&owner);
    cr_assert_eq(trim_to(&owner, 1, first), first);
    cr_assert_eq(owner_count(&owner, 1), 5);
    owner_close(&owner);
}

/* The tables have nothing of the channel, and stay stuck. */
Test(log_full, a_trim_that_cannot_reach_what_waits_says_so)
{
    struct owner owner;
    uint64_t first = 0;
    owner_open(&owner, small);
    get_stuck(&owner);
    cr_assert_eq(trim(&owner, 3, UINT64_MAX, &first), BB_ELOGFULL);
    cr_assert_eq(trim(&owner, 9, UINT64_MAX, &first), BB_ELOGFULL, "it may be made by what waits");
    cr_assert_eq(owner.state, BK_BACKEND_FULL);
    cr_assert_eq(trim_to(&owner, 1, UINT64_MAX), owner.at.last[1] + 1);
    cr_assert_eq(trim(&owner, 9, UINT64_MAX, &first), BB_ENOTFOUND);
    cr_assert_eq(trim_to(&owner, 3, UINT64_MAX), owner.at.last[3] + 1);
    owner_close(&owner);
}

Test(log_full, tables_that_are_stuck_are_compacted)
{
    struct owner owner;
    owner_open(&owner, small);
    get_stuck(&owner);
    struct bk_upkeep compact = {.request = {.kind = BK_REQUEST_COMPACT}};
    cr_assert_eq(owner_run(&owner, &compact.request), 0);
    (void)trim_to(&owner, 1, UINT64_MAX);
    cr_assert_eq(owner_count(&owner, 3), owner.at.last[3]);
    owner_verify(&owner);
    owner_close(&owner);
}

Test(log_full, closed_while_it_is_stuck_it_is_opened_full_with_all_that_was_acknowledged)
{
    struct owner owner;
    owner_open(&owner, small);
    get_stuck(&owner);
    struct owner_mark at = owner.at;
    owner_leave(&owner);
    cr_assert_eq(owner.n_failed, 0);
    owner_enter(&owner);
    cr_assert_eq(owner.at.last[1], at.last[1]);
    cr_assert_eq(owner.at.last[3], at.last[3]);
    cr_assert_eq(owner_count(&owner, 3), at.last[3]);
    cr_assert_eq(owner.state, BK_BACKEND_FULL, "%s", owner.text);
    cr_assert_eq(owner_put(&owner, 1, 1, 0), BB_ELOGFULL);
    owner_verify(&owner);
    (void)trim_to(&owner, 1, UINT64_MAX);
    cr_assert_eq(owner.state, BK_BACKEND_OK, "%s", owner.text);
    cr_assert_eq(owner_put(&owner, 1, 1, 0), 0);
    owner_settle(&owner);
    cr_assert_eq(owner.n_failed, 0);
    owner_close(&owner);
}

Test(log_full, what_is_registered_counts_before_it_is_in_the_tables)
{
    static const char *const options[] = {"map-size=4M",        "journal-size=4M",    "reserve=0",
                                          "apply-interval=60s", "retain-interval=1h", NULL};
    struct owner owner;
    owner_open(&owner, options);
    int r = 0;
    for (int i = 0; i < 100 && (r = owner_put(&owner, 1, 1, 300000)) == 0; i++) {
    }
    cr_assert_eq(r, BB_ELOGFULL);
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), owner.at.last[1]);
    owner_pump(&owner, is_well); /* it fits */
    cr_assert_eq(owner.n_failed, 0);
    owner_close(&owner);
}

/* Until it is full and says so still when it has looked again. Where it says that there is room, there is
 * enough. */
static void fill_with_large(struct owner *owner, size_t size)
{
    bool was_refused = false;
    for (int i = 0; i < 200; i++) {
        int r = owner_put(owner, 1, 1, size);
        cr_assert(r == 0 || (r == BB_ELOGFULL && !was_refused), "%s", bb_strerror(r));
        if (r == 0) {
            owner_settle(owner);
            take_in(owner);
        } else {
            (void)trim_to(owner, 1, 1); /* looks how much room there is */
        }
        was_refused = r != 0;
        if (was_refused && owner->state == BK_BACKEND_FULL) {
            return;
        }
    }
    cr_assert_fail("it is never full");
}

/* Room for small tickets is no room for large ones: who is refused has been told, and is told of room when
 * there is enough. */
Test(log_full, it_is_full_for_who_was_refused_until_that_would_fit)
{
    static const char *const options[] = {"map-size=8M",        "journal-size=4M",    "reserve=0",
                                          "apply-interval=60s", "retain-interval=1h", NULL};
    const size_t large = 700000;
    struct owner owner;
    owner_open(&owner, options);
    for (int round = 0; round < 3; round++) {
        fill_with_large(&owner, large);
        cr_assert_gt(strlen(owner.text), 20, "%s", owner.text);
        cr_assert_eq(owner_put(&owner, 2, 1, 10), BB_ELOGFULL, "the state is for all");
        (void)trim_to(&owner, 1, owner.at.last[1] + 1);
        owner_pump(&owner, is_well);
        cr_assert_eq(owner_put(&owner, 1, 1, large), 0);
        owner_settle(&owner);
    }
    cr_assert_eq(owner.n_failed, 0);
    owner_close(&owner);
}

/* A file may not grow any more: a write ends in the middle, which LMDB calls an I/O error, and the next
 * one says EFBIG. */
Test(log_full, a_file_that_may_not_grow_is_full_and_has_not_failed)
{
    static const char *const options[] = {"map-size=64M",       "journal-size=1M",     "reserve=0",
                                          "apply-interval=1ms", "retain-interval=5ms", NULL};
    struct owner owner;
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    struct rlimit low = {(rlim_t)3 << 20, limit.rlim_max};
    owner_open(&owner, options);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &low), 0);
    int r = 0;
    for (int i = 0; i < 10000 && (r = owner_put(&owner, 1, 4, 8000)) == 0; i++) {
        owner_pump(&owner, is_settled_or_full); /* what is on its way may have to wait then */
    }
    cr_assert_eq(r, BB_ELOGFULL, "%s: %s", bb_strerror(r), owner.text);
    owner_pump(&owner, is_full);
    uint64_t n = owner.at.last[1];
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    owner_pump(&owner, is_well);
    owner_settle(&owner);
    cr_assert_eq(owner.n_failed, 0);
    cr_assert_eq(owner_count(&owner, 1), n);
    owner_verify(&owner);
    owner_close(&owner);
}

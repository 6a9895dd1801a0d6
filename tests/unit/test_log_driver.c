/* SPDX-License-Identifier: Apache-2.0 */
/* The driver of the log on LMDB: opening, its options, its queue, closing. */
#include "tests/unit/log_owner.h"

#include <poll.h>
#include <stdio.h>

static const char *const options[] = {"map-size=64M",
                                      "journal-size=1M",
                                      "queue-size=1M",
                                      "reserve=0",
                                      "apply-interval=60s",
                                      "retain-interval=1h",
                                      NULL};

static bool has_failed(const struct owner *owner)
{
    return owner->n_failures > 0;
}

/* Many times what the journal holds. */
Test(log_driver, close_makes_durable_what_is_queued)
{
    static const char *const large[] = {"map-size=256M",
                                        "journal-size=1M",
                                        "queue-size=64M",
                                        "reserve=0",
                                        "apply-interval=60s",
                                        "retain-interval=1h",
                                        NULL};
    struct owner owner;
    owner_open(&owner, large);
    owner_settle(&owner);
    disk_be(DISK_HOLDS, NULL, NULL);
    for (int i = 0; i < 400; i++) {
        cr_assert_eq(owner_put(&owner, 1, 1, 50000), 0);
    }
    disk_wait_held();
    cr_assert_eq(owner.decided, 1);
    disk_be(DISK_WELL, NULL, NULL);
    owner_leave(&owner);
    cr_assert_eq(owner.n_failed, 0);
    owner_enter(&owner);
    cr_assert_eq(owner.at.last[1], 400);
    cr_assert_eq(owner_count(&owner, 1), 400);
    owner_verify(&owner);
    owner_close(&owner);
}

Test(log_driver, close_decides_what_is_queued_when_a_write_fails)
{
    struct owner owner;
    owner_open(&owner, options);
    owner_settle(&owner);
    disk_be(DISK_HOLDS, NULL, NULL);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(owner_put(&owner, 1, 1, 1000), 0);
    }
    disk_wait_held();
    disk_be(DISK_LOSES, NULL, NULL);
    owner_leave(&owner);
    uint64_t kept = 10 - owner.n_failed;
    owner_enter(&owner);
    cr_assert_eq(owner.at.last[1], kept, "what failed has left no trace");
    cr_assert_eq(owner_count(&owner, 1), kept);
    owner_close(&owner);
}

Test(log_driver, a_queue_that_is_full_says_so_and_nothing_was_taken)
{
    struct owner owner;
    owner_open(&owner, options);
    owner_settle(&owner);
    disk_be(DISK_HOLDS, NULL, NULL);
    int r = 0;
    int n = 0;
    while (n < 1000 && (r = owner_put(&owner, 1, 1, 50000)) == 0) {
        n++;
    }
    cr_assert_eq(r, BB_EFULL, "%s", bb_strerror(r));
    cr_assert_gt((size_t)n * 50000, (size_t)1 << 20);
    cr_assert_lt((size_t)n * 50000, (size_t)1 << 21);
    cr_assert_gt(owner_status(&owner, "queued_bytes", NULL), 1 << 20);
    disk_be(DISK_WELL, NULL, NULL);
    owner_settle(&owner);
    cr_assert_eq(owner.n_failed, 0);
    cr_assert_eq(owner_put(&owner, 1, 1, 50000), 0, "with the same numbers");
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), (uint64_t)n + 1);
    owner_close(&owner);
}

Test(log_driver, what_the_journal_never_holds_is_too_big)
{
    struct owner owner;
    owner_open(&owner, options);
    owner_settle(&owner);
    cr_assert_eq(owner_put(&owner, 1, 1, (size_t)1 << 20), BB_ETOOBIG);
    cr_assert_eq(owner_put(&owner, 1, 1, 1000000), 0);
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), 1);
    owner_close(&owner);
}

Test(log_driver, a_ticket_of_the_size_that_is_said_fits)
{
    static const char *const small[] = {"map-size=4M", "journal-size=1M", "queue-size=1M", "reserve=0", NULL};
    static const char *const smaller[] = {"map-size=2M", "journal-size=1M", "queue-size=1M", "reserve=0",
                                          NULL};
    const char *const *const both[] = {small, smaller};
    for (size_t i = 0; i < BB_COUNT(both); i++) {
        struct owner owner;
        owner_open(&owner, both[i]);
        size_t max = owner.backend->max_ticket;
        cr_assert_geq(max, (size_t)512 << 10, "%zu", max);
        cr_assert_leq(max, (size_t)1 << 20, "%zu", max);
        cr_assert_eq(owner_put(&owner, 1, 1, max - BK_ENTRY_SIZE - 16), 0);
        owner_settle(&owner);
        cr_assert_eq(owner.n_failed, 0);
        cr_assert_eq(owner_count(&owner, 1), 1);
        owner_close(&owner);
    }
}

Test(log_driver, sizes_that_leave_too_little_for_a_ticket_are_refused)
{
    static const char *const journal[] = {"map-size=64M", "journal-size=1M", NULL};
    static const char *const map[] = {"map-size=2M", "journal-size=64M", NULL};
    struct owner owner;
    struct bk_backend *none = NULL;
    owner_open(&owner, options);
    owner_leave(&owner);
    owner.min_ticket = (size_t)1 << 20;
    owner.options = journal;
    cr_assert_eq(owner_try_open(&owner, &none), BB_EINVAL);
    cr_assert_not_null(strstr(bb_buf_string(&owner.err), "journal-size=1048576 is too small"));
    owner.options = map;
    cr_assert_eq(owner_try_open(&owner, &none), BB_EINVAL);
    cr_assert_not_null(strstr(bb_buf_string(&owner.err), "map-size=2097152 is too small"));
    owner.options = options;
    owner.min_ticket = (size_t)500 << 10;
    owner_enter(&owner);
    owner_close(&owner);
}

static bool has_trimmed_2(const struct owner *owner)
{
    return owner->trimmed[2] > 0;
}

/* A limit that was acknowledged counts, though the tables do not know it yet. */
Test(log_driver, what_is_kept_goes_by_the_newest_limits)
{
    static const char *const slow[] = {"map-size=64M", "apply-interval=60s", "retain-interval=1ms",
                                       "reserve=0", NULL};
    struct owner owner;
    owner_open(&owner, slow);
    for (uint32_t channel = 1; channel <= 2; channel++) {
        owner_set_age(&owner, channel, 1000000);
        cr_assert_eq(owner_put(&owner, channel, 10, 100), 0);
    }
    owner_settle(&owner);
    cr_assert_eq(owner_count(&owner, 1), 10);
    disk_be(DISK_HOLDS, NULL, NULL);
    cr_assert_eq(owner_put(&owner, 3, 1, 100), 0);
    disk_wait_held();
    cr_assert_eq(owner_put(&owner, 3, 1, 100), 0);
    owner_set_age(&owner, 1, BK_NO_LIMIT); /* behind another one in the same record */
    disk_be(DISK_WELL, NULL, NULL);
    owner_settle(&owner);
    atomic_store(&owner.aged, 3600000000);
    owner_pump(&owner, has_trimmed_2);
    cr_assert_eq(owner.trimmed[1], 0);
    cr_assert_eq(owner_count(&owner, 1), 10);
    cr_assert_eq(owner_count(&owner, 2), 0);
    owner_close(&owner);
}

Test(log_driver, a_log_that_has_failed_refuses_until_the_owner_was_told)
{
    struct owner owner;
    owner_open(&owner, options);
    owner_settle(&owner);
    disk_be(DISK_LOSES, NULL, NULL);
    cr_assert_eq(owner_put(&owner, 1, 1, 100), 0);
    struct pollfd fd = {.fd = owner.backend->ops->fd(owner.backend), .events = POLLIN};
    cr_assert_eq(poll(&fd, 1, 30000), 1); /* there is something to tell, and it is not told yet */
    cr_assert_eq(owner_put(&owner, 1, 1, 100), BB_ELOGFAILED);
    owner_pump(&owner, has_failed);
    owner_settle(&owner);
    cr_assert_eq(owner.error, BB_ELOGFAILED);
    owner_close(&owner);
}

Test(log_driver, a_directory_is_opened_once)
{
    struct owner owner;
    struct bk_backend *other = NULL;
    owner_open(&owner, options);
    cr_assert_eq(owner_try_open(&owner, &other), BB_EEXISTS);
    cr_assert_null(other);
    cr_assert_not_null(strstr(bb_buf_string(&owner.err), owner.directory));
    cr_assert_not_null(strstr(bb_buf_string(&owner.err), "another broker has it open"));
    cr_assert_eq(owner_put(&owner, 1, 1, 100), 0, "the first one does not notice");
    owner_settle(&owner);
    owner_leave(&owner);
    owner_enter(&owner);
    cr_assert_eq(owner_count(&owner, 1), 1);
    owner_close(&owner);
}

Test(log_driver, each_bad_value_of_an_option_has_its_sentence)
{
    static const char *const rows[] = {
        "map-size=1023K",       "map-size=65T",     "map-size=",
        "map-size=-1",          "map-size=4X",      "reserve=65T",
        "reserve=much",         "journal-size=1M1", "journal-size=1023K",
        "journal-size=17G",     "apply-interval=0", "apply-interval=999us",
        "apply-interval=61s",   "apply-interval=5", "retain-interval=2h",
        "retain-interval=soon", "queue-size=1023K", "queue-size=17G",
        "queue-size=0",         "query-turn=2s",    "query-turn=-1ms",
        "query-turn",           "sync=no",          "mapsize=4M",
    };
    struct owner owner;
    owner_open(&owner, options);
    owner_leave(&owner);
    for (size_t i = 0; i < BB_COUNT(rows); i++) {
        const char *const one[] = {rows[i], NULL};
        char name[32];
        struct bk_backend *none = NULL;
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(rows[i], "="), rows[i]);
        owner.options = one;
        cr_expect_eq(owner_try_open(&owner, &none), BB_EINVAL, "%s", rows[i]);
        const char *text = bb_buf_string(&owner.err);
        cr_expect_not_null(strstr(text, name), "\"%s\" is not in: %s", name, text);
        cr_expect_gt(strlen(text), strlen(name) + 10, "a sentence: %s", text);
    }
    owner_close(&owner);
}

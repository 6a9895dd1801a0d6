/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: what was durable is found again, what was on its way may be, and what is damaged is not
 * passed over. */
#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/journal.h"
#include "broker/backend/lmdb/keys.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE   ((size_t)4096)
#define SECTOR ((size_t)512)
#define PAGES  ((size_t)8) /* of a file, of which the first is its header */
#define SIZE   (PAGES * PAGE)
#define HEADER ((size_t)32) /* of a record: key, number, length, checksum, zeros */
#define SMALL  ((size_t)100)

static const char *const names[] = {"journal-0", "journal-1"};

/* --- calls that fail ------------------------------------------------------------------------------------ */

/* ld --wrap calls what it wraps __wrap_NAME and the original __real_NAME. */
#define LINKER_NAME(name) __asm__("__" #name)

ssize_t real_pwrite(int fd, const void *data, size_t len, off_t offset) LINKER_NAME(real_pwrite);
int real_fsync(int fd) LINKER_NAME(real_fsync);
ssize_t wrap_pwrite(int fd, const void *data, size_t len, off_t offset) LINKER_NAME(wrap_pwrite);
int wrap_fsync(int fd) LINKER_NAME(wrap_fsync);

static struct {
    int n_left; /* calls that succeed before one fails */
    int error;  /* 0: none fails */
} fault;

static bool must_fail(void)
{
    if (fault.error == 0 || fault.n_left-- > 0) {
        return false;
    }
    errno = fault.error;
    fault.error = 0;
    return true;
}

ssize_t wrap_pwrite(int fd, const void *data, size_t len, off_t offset)
{
    return must_fail() ? -1 : real_pwrite(fd, data, len, offset);
}

int wrap_fsync(int fd)
{
    return must_fail() ? -1 : real_fsync(fd);
}

/* --- what is there -------------------------------------------------------------------------------------- */

struct fixture {
    char directory[64];
    struct bk_journal *journal;
    uint64_t applied; /* what the store would have */
    uint64_t n_told;
    struct bb_buf err;
};

static void make(struct fixture *fixture)
{
    *fixture = (struct fixture){.err = BB_BUF_INIT};
    (void)snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/busbar-journal-XXXXXX");
    cr_assert_not_null(mkdtemp(fixture->directory));
}

static void drop(struct fixture *fixture)
{
    bk_journal_close(fixture->journal);
    for (size_t i = 0; i < BB_COUNT(names); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", fixture->directory, names[i]);
        (void)unlink(path);
    }
    cr_assert_eq(rmdir(fixture->directory), 0);
    bb_buf_fini(&fixture->err);
}

/* Every byte follows from the number and its place. */
static void payload_fill(uint8_t *payload, size_t len, uint64_t number)
{
    for (size_t i = 0; i < len; i++) {
        payload[i] = (uint8_t)(number * 31 + i / 7);
    }
}

static int on_found(void *context, uint64_t number, struct bb_slice payload)
{
    struct fixture *fixture = context;
    static uint8_t wanted[4 * SIZE];
    cr_assert_eq(number, fixture->applied + 1);
    payload_fill(wanted, payload.len, number);
    cr_assert(bb_slice_equal(payload, bb_slice(wanted, payload.len)));
    fixture->applied = number;
    fixture->n_told++;
    return 0;
}

static int try_open(struct fixture *fixture, size_t size, uint64_t applied)
{
    bk_journal_close(fixture->journal);
    fixture->journal = NULL;
    fixture->applied = applied;
    fixture->n_told = 0;
    bb_buf_reset(&fixture->err);
    int r = bk_journal_open(fixture->directory, size, applied, on_found, fixture, &fixture->journal,
                            &fixture->err);
    cr_assert(r == 0 || fixture->err.len > 0);
    cr_assert(r < 0 || bk_journal_next(fixture->journal) == fixture->applied + 1);
    return r;
}

/* It has records up to @last. */
static void reopen(struct fixture *fixture, uint64_t applied, uint64_t last)
{
    cr_assert_eq(try_open(fixture, SIZE, applied), 0, "%s", bb_buf_string(&fixture->err));
    cr_assert_eq(fixture->applied, last);
    cr_assert_eq(fixture->n_told, last - applied);
}

static void refused(struct fixture *fixture, uint64_t applied, int error, const char *because)
{
    cr_assert_eq(try_open(fixture, SIZE, applied), error);
    cr_assert_not_null(strstr(bb_buf_string(&fixture->err), because), "%s", bb_buf_string(&fixture->err));
}

static int append_bytes(struct fixture *fixture, const uint8_t *payload, size_t len, uint64_t applied)
{
    struct bb_buf record = BB_BUF_INIT;
    uint64_t number = 0;
    bk_journal_buffer(&record, len);
    bb_buf_append(&record, payload, len);
    cr_assert_eq(record.error, 0);
    int r = bk_journal_append(fixture->journal, &record, applied, &number);
    cr_assert(r < 0 || number + 1 == bk_journal_next(fixture->journal));
    bb_buf_fini(&record);
    return r;
}

/* @len bytes of payload; the store has records up to @applied. */
static int append(struct fixture *fixture, size_t len, uint64_t applied)
{
    static uint8_t payload[4 * SIZE];
    payload_fill(payload, len, bk_journal_next(fixture->journal));
    return append_bytes(fixture, payload, len, applied);
}

/* Small records, up to @last. */
static void append_to(struct fixture *fixture, uint64_t last, uint64_t applied)
{
    while (bk_journal_next(fixture->journal) <= last) {
        cr_assert_eq(append(fixture, SMALL, applied), 0);
    }
}

/* --- files ---------------------------------------------------------------------------------------------- */

static int open_file(const struct fixture *fixture, size_t file)
{
    char path[128];
    (void)snprintf(path, sizeof(path), "%s/%s", fixture->directory, names[file]);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    return fd;
}

static void peek(const struct fixture *fixture, size_t file, size_t offset, void *to, size_t len)
{
    int fd = open_file(fixture, file);
    cr_assert_eq(pread(fd, to, len, (off_t)offset), (ssize_t)len);
    (void)close(fd);
}

static void poke(const struct fixture *fixture, size_t file, size_t offset, const void *from, size_t len)
{
    int fd = open_file(fixture, file);
    cr_assert_eq(pwrite(fd, from, len, (off_t)offset), (ssize_t)len);
    (void)close(fd);
}

static void resize(const struct fixture *fixture, size_t file, size_t size)
{
    int fd = open_file(fixture, file);
    cr_assert_eq(ftruncate(fd, (off_t)size), 0);
    (void)close(fd);
}

static size_t size_of(const struct fixture *fixture, size_t file)
{
    struct stat status;
    int fd = open_file(fixture, file);
    cr_assert_eq(fstat(fd, &status), 0);
    (void)close(fd);
    return (size_t)status.st_size;
}

static void flip(const struct fixture *fixture, size_t file, size_t offset, unsigned bit)
{
    uint8_t byte = 0;
    peek(fixture, file, offset, &byte, 1);
    byte ^= (uint8_t)(1U << bit);
    poke(fixture, file, offset, &byte, 1);
}

static uint64_t key_of(const struct fixture *fixture, size_t file)
{
    uint8_t key[8];
    peek(fixture, file, 8, key, sizeof(key));
    return bk_get_u64(key);
}

/* A record as who has the key would write it. */
static void put_record(uint8_t *to, uint64_t key, uint64_t number, size_t len)
{
    memset(to, 0, HEADER);
    bk_put_u64(to, key);
    bk_put_u64(to + 8, number);
    bk_put_u64(to + 16, len);
    payload_fill(to + HEADER, len, number);
    bk_put_u32(to + HEADER - 8, bb_crc32c(bb_crc32c(0, to, HEADER - 8), to + HEADER, len));
}

/* --- as it should be ------------------------------------------------------------------------------- */

Test(log_journal, has_what_was_written_when_it_is_opened_again)
{
    struct fixture fixture;
    const size_t lens[] = {0, 1, PAGE - HEADER, PAGE - HEADER + 1, 2 * PAGE};
    make(&fixture);
    reopen(&fixture, 0, 0);
    for (size_t i = 0; i < BB_COUNT(lens); i++) {
        cr_assert_eq(append(&fixture, lens[i], 0), 0);
    }
    reopen(&fixture, 0, 5);
    reopen(&fixture, 2, 5); /* some of it was in the store already */
    reopen(&fixture, 5, 5);
    append_to(&fixture, 7, 5);
    reopen(&fixture, 5, 7);
    reopen(&fixture, 7, 7);
    drop(&fixture);
}

Test(log_journal, goes_on_when_the_store_has_more)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 4, 0);
    reopen(&fixture, 100, 100); /* the journal is from an older copy, or was made anew */
    append_to(&fixture, 102, 100);
    reopen(&fixture, 100, 102);
    drop(&fixture);
}

/* Records up to @last, the store @behind of them. Return: what the store has. */
static uint64_t run(struct fixture *fixture, uint64_t last, uint64_t behind)
{
    uint64_t applied = 0;
    reopen(fixture, 0, 0);
    for (uint64_t number = 1; number <= last; number++) {
        applied = BB_MAX(applied, number > behind + 1 ? number - behind - 1 : 0);
        int r = append(fixture, SMALL, applied);
        if (r == BB_EAGAIN) { /* a file is used again only when all in it is in the store */
            cr_assert_gt(behind, PAGES - 2);
            applied = number - 1;
            r = append(fixture, SMALL, applied);
        }
        cr_assert_eq(r, 0);
    }
    return applied;
}

Test(log_journal, goes_from_one_file_to_the_other_and_round)
{
    for (uint64_t behind = 0; behind <= 2 * (PAGES - 1); behind++) {
        for (uint64_t last = 1; last < 40; last += 1 + behind % 3) {
            struct fixture fixture;
            make(&fixture);
            uint64_t applied = run(&fixture, last, behind);
            reopen(&fixture, applied, last);
            append_to(&fixture, last + 3, last);
            reopen(&fixture, last, last + 3);
            drop(&fixture);
        }
    }
}

Test(log_journal, says_when_there_is_no_room)
{
    struct fixture fixture;
    size_t max = bk_journal_payload_max(SIZE);
    make(&fixture);
    reopen(&fixture, 0, 0);
    cr_assert_eq(max, SIZE - PAGE - HEADER);
    cr_assert_eq(append(&fixture, max + 1, 0), BB_ETOOBIG);
    cr_assert_eq(append(&fixture, max, 0), 0);
    cr_assert_eq(append(&fixture, max, 0), 0);
    cr_assert_eq(append(&fixture, SMALL, 0), BB_EAGAIN);
    cr_assert_eq(append(&fixture, SMALL, 1), 0);
    cr_assert_eq(append(&fixture, max, 2), 0); /* the other one is free; this one has been begun */
    cr_assert_eq(append(&fixture, max, 3), 0);
    reopen(&fixture, 3, 5);
    drop(&fixture);
}

Test(log_journal, keeps_larger_files_and_makes_smaller_ones_larger)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 10, 0);
    uint64_t key = key_of(&fixture, 0);
    cr_assert_eq(try_open(&fixture, 4 * SIZE, 0), 0);
    cr_assert_eq(fixture.applied, 10);
    cr_assert_eq(key_of(&fixture, 0), key);
    cr_assert_eq(append(&fixture, 2 * SIZE, 10), 0);
    reopen(&fixture, 10, 11); /* asked for with less it stays as it is */
    cr_assert_eq(append(&fixture, 3 * SIZE, 11), 0);
    reopen(&fixture, 11, 12);
    drop(&fixture);
}

Test(log_journal, does_not_mind_that_making_a_file_larger_was_interrupted)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 10, 0);
    bk_journal_close(fixture.journal);
    fixture.journal = NULL;
    resize(&fixture, 0, SIZE + PAGE + SECTOR);
    reopen(&fixture, 0, 10);
    cr_assert_eq(append(&fixture, SIZE - PAGE, 10), BB_ETOOBIG);
    cr_assert_eq(try_open(&fixture, 2 * SIZE, 10), 0);
    cr_assert_eq(append(&fixture, SIZE, 10), 0);
    cr_assert_eq(size_of(&fixture, 0), 2 * SIZE);
    drop(&fixture);
}

/* --- what a crash may leave ------------------------------------------------------------------------ */

/* Lets only the sectors of the last record through that @persisted says; the others are as they were
 * before it. */
static void tear(const struct fixture *fixture,
                 size_t offset,
                 const uint8_t *before,
                 const uint8_t *after,
                 size_t len,
                 uint64_t persisted)
{
    for (size_t i = 0; i < len / SECTOR; i++) {
        const uint8_t *from = ((persisted >> i) & 1) != 0 ? after : before;
        poke(fixture, 0, offset + i * SECTOR, from + i * SECTOR, SECTOR);
    }
}

/* The last of some records is torn in many ways. @with_rounds: what was there before is from earlier
 * rounds. */
static void torn(bool with_rounds)
{
    static uint8_t before[3 * PAGE];
    static uint8_t after[3 * PAGE];
    const size_t n_sectors = sizeof(after) / SECTOR;
    const uint64_t whole = (UINT64_C(1) << n_sectors) - 1;
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, with_rounds ? 20 : 0, 20);
    uint64_t applied = bk_journal_next(fixture.journal) - 1;
    reopen(&fixture, applied, applied);
    append_to(&fixture, applied + 2, applied); /* at the beginning of the first file */
    peek(&fixture, 0, 3 * PAGE, before, sizeof(before));
    cr_assert_eq(append(&fixture, 3 * PAGE - HEADER, applied), 0);
    bk_journal_close(fixture.journal);
    fixture.journal = NULL;
    peek(&fixture, 0, 3 * PAGE, after, sizeof(after));
    for (size_t i = 0; i < 3 * n_sectors; i++) {
        uint64_t one = UINT64_C(1) << (i % n_sectors);
        uint64_t persisted = i < n_sectors ? one - 1 : i < 2 * n_sectors ? one : whole & ~one;
        tear(&fixture, 3 * PAGE, before, after, sizeof(after), persisted);
        reopen(&fixture, applied, applied + 2);
    }
    tear(&fixture, 3 * PAGE, before, after, sizeof(after), whole);
    reopen(&fixture, applied, applied + 3);
    tear(&fixture, 3 * PAGE, before, after, sizeof(after), whole / 2);
    reopen(&fixture, applied, applied + 2);
    append_to(&fixture, applied + 8, applied + 2);
    reopen(&fixture, applied + 2, applied + 8);
    drop(&fixture);
}

Test(log_journal, takes_a_torn_last_record_for_none)
{
    torn(false);
    torn(true);
}

Test(log_journal, takes_a_torn_record_at_the_beginning_of_a_file_for_none)
{
    struct fixture fixture;
    for (uint64_t last = 15; last <= 22;
         last += 7) { /* the last one begins the first file, then the second */
        make(&fixture);
        uint64_t applied = run(&fixture, last, 3);
        flip(&fixture, last == 15 ? 0 : 1, PAGE + HEADER, 3);
        reopen(&fixture, applied, last - 1);
        append_to(&fixture, last + 2, last - 1);
        reopen(&fixture, last - 1, last + 2);
        drop(&fixture);
    }
}

Test(log_journal, makes_files_that_were_never_finished)
{
    const size_t sizes[] = {0, 1, SECTOR, PAGE, PAGE + 1, SIZE - 1, SIZE, 2 * SIZE};
    for (size_t i = 0; i < BB_COUNT(sizes); i++) {
        struct fixture fixture;
        make(&fixture);
        resize(&fixture, i % 2, sizes[i]);
        reopen(&fixture, 3, 3);
        append_to(&fixture, 15, 3);
        reopen(&fixture, 3, 15);
        drop(&fixture);
    }
}

Test(log_journal, makes_a_file_that_is_missing)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 10, 0);
    uint64_t keys[] = {key_of(&fixture, 0), key_of(&fixture, 1)};
    resize(&fixture, 0, 0);
    resize(&fixture, 1, 0);
    reopen(&fixture, 10, 10);
    append_to(&fixture, 20, 10);
    reopen(&fixture, 10, 20);
    uint64_t again[] = {key_of(&fixture, 0), key_of(&fixture, 1)};
    cr_assert(keys[0] != keys[1] && again[0] != again[1] && keys[0] != again[0] && keys[1] != again[1]);
    drop(&fixture);
}

/* --- what is damaged ------------------------------------------------------------------------------- */

Test(log_journal, refuses_a_damaged_record_that_is_not_the_last)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 10, 0); /* seven in the first file, three in the second */
    for (uint64_t number = 1; number <= 10; number++) {
        size_t file = number > 7;
        size_t record = (file == 0 ? number : number - 7) * PAGE;
        for (size_t bit = 0; bit < 8 * (HEADER - 4 + SMALL); bit += 43) {
            size_t at = bit / 8 < HEADER - 4 ? bit / 8 : bit / 8 + 4;
            char because[64];
            (void)snprintf(because, sizeof(because), "is %llu (%s", (unsigned long long)number + 1,
                           names[number + 1 > 7]);
            flip(&fixture, file, record + at, (unsigned)(bit % 8));
            if (number < 10) {
                refused(&fixture, 0, BB_ECORRUPT, because);
                cr_assert_eq(fixture.n_told, number - 1); /* these are whole */
                refused(&fixture, number - 1, BB_ECORRUPT, because);
            } else {
                reopen(&fixture, 0, 9);
            }
            reopen(&fixture, number, BB_MAX(number, 10)); /* the store has it */
            flip(&fixture, file, record + at, (unsigned)(bit % 8));
        }
    }
    refused(&fixture, 10, 0, "");
    reopen(&fixture, 0, 10);
    drop(&fixture);
}

Test(log_journal, refuses_a_hole)
{
    static uint8_t record[PAGE];
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 2, 0);
    put_record(record, key_of(&fixture, 0), 4, SMALL);
    poke(&fixture, 0, 3 * PAGE, record, PAGE);
    refused(&fixture, 0, BB_ECORRUPT,
            "behind record 2 (journal-0, offset 8192) record 3 is expected and the next that is whole is 4 "
            "(journal-0, offset 12288)");
    cr_assert_not_null(strstr(bb_buf_string(&fixture.err), "lose the records from 3 on"));
    cr_assert_eq(fixture.n_told, 2);
    refused(&fixture, 2, BB_ECORRUPT, "record 3 is expected");
    reopen(&fixture, 3, 4);
    put_record(record, key_of(&fixture, 0), 3, SMALL);
    poke(&fixture, 0, 3 * PAGE, record, PAGE);
    reopen(&fixture, 0, 3);
    drop(&fixture);
}

Test(log_journal, refuses_tables_that_are_older)
{
    struct fixture fixture;
    make(&fixture);
    uint64_t applied = run(&fixture, 40, 3);
    for (uint64_t older = 0; older < 40; older++) {
        int r = try_open(&fixture, SIZE, older);
        cr_assert(r == 0 || r == BB_ECORRUPT);
        cr_assert(r == 0 || strstr(bb_buf_string(&fixture.err), "older copy") != NULL);
        cr_assert(r < 0 || fixture.applied == 40); /* all that is needed is there still */
        cr_assert(r == 0 || older < applied);
        cr_assert(r < 0 || older > 40 - 2 * PAGES);
    }
    refused(&fixture, 9, BB_ECORRUPT, "the tables end with record 9, so 10 is expected");
    reopen(&fixture, applied, 40);
    drop(&fixture);
}

Test(log_journal, refuses_a_damaged_header)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 10, 0);
    for (unsigned bit = 0; bit < 8 * 28; bit++) { /* magic, key, size, checksum */
        flip(&fixture, bit % 2, bit / 8, bit % 8);
        int r = try_open(&fixture, SIZE, 0);
        cr_assert(r == BB_ECORRUPT || (r == BB_EVERSION && bit / 8 < 8), "bit %u: %d", bit, r);
        cr_assert_eq(fixture.n_told, 0);
        flip(&fixture, bit % 2, bit / 8, bit % 8);
    }
    reopen(&fixture, 0, 10);
    static const uint8_t zeros[PAGE];
    poke(&fixture, 0, 0, zeros, PAGE); /* something is behind it: it was finished once */
    refused(&fixture, 0, BB_ECORRUPT, "the header of journal-0 is damaged");
    drop(&fixture);
}

Test(log_journal, refuses_a_file_that_was_cut_off)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 10, 0);
    resize(&fixture, 0, SIZE - 1);
    refused(&fixture, 0, BB_ECORRUPT, "journal-0 has 32767 bytes and had 32768");
    drop(&fixture);
}

Test(log_journal, refuses_another_form_and_leaves_it_as_it_is)
{
    static uint8_t old[SIZE];
    static uint8_t now[SIZE];
    struct fixture fixture;
    make(&fixture);
    put_record(old, UINT64_C(0x62627573206a3031), 1, SMALL);
    poke(&fixture, 1, 0, old, SIZE);
    refused(&fixture, 0, BB_EVERSION, "journal-1 is \"bbus j01\", this broker reads and writes \"bbus j02\"");
    peek(&fixture, 1, 0, now, SIZE);
    cr_assert_arr_eq(now, old, SIZE);
    cr_assert_eq(size_of(&fixture, 0), 0);
    drop(&fixture);
}

Test(log_journal, takes_no_buffer_that_was_made_elsewhere_and_has_none_without_bounds)
{
    struct fixture fixture;
    struct bb_buf record = BB_BUF_INIT;
    uint64_t number = 0;
    make(&fixture);
    reopen(&fixture, 0, 0);
    cr_assert_eq(bk_journal_append(fixture.journal, &record, 0, &number), BB_EINVAL);
    bb_buf_append(&record, "short", 5);
    cr_assert_eq(bk_journal_append(fixture.journal, &record, 0, &number), BB_EINVAL);
    bb_buf_fini(&record);
    bk_journal_buffer(&record, SIZE_MAX - 10);
    cr_assert_eq(record.error, BB_ETOOBIG);
    cr_assert_null(record.data);
    cr_assert_eq(bk_journal_append(fixture.journal, &record, 0, &number), BB_EINVAL);
    cr_assert_eq(bk_journal_next(fixture.journal), 1);
    drop(&fixture);
}

/* --- what poses as a record ------------------------------------------------------------------------ */

/* A record whose payload has records at every page boundary, number @number and so on, made with @key. */
static void append_forged(struct fixture *fixture, uint64_t key, uint64_t number)
{
    static uint8_t payload[5 * PAGE - HEADER];
    memset(payload, 0, sizeof(payload));
    for (size_t i = 1; i < 5; i++) {
        put_record(payload + i * PAGE - HEADER, key, number + i - 1, SMALL);
    }
    cr_assert_eq(append_bytes(fixture, payload, sizeof(payload), 0), 0);
}

static int on_any(void *context, uint64_t number, struct bb_slice payload)
{
    struct fixture *fixture = context;
    (void)payload;
    cr_assert_eq(number, fixture->applied + 1);
    fixture->applied = number;
    return 0;
}

static int open_any(struct fixture *fixture)
{
    bk_journal_close(fixture->journal);
    fixture->journal = NULL;
    fixture->applied = 0;
    bb_buf_reset(&fixture->err);
    return bk_journal_open(fixture->directory, SIZE, 0, on_any, fixture, &fixture->journal, &fixture->err);
}

/* Records within the second of two, which may be torn. Return: what opening says. */
static int forged(bool with_key, bool is_torn, uint64_t number, uint64_t *ret_last)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 1, 0);
    append_forged(&fixture, with_key ? key_of(&fixture, 0) : UINT64_C(0x62627573206a3032), number);
    if (is_torn) {
        flip(&fixture, 0, 2 * PAGE + SECTOR, 0);
    }
    int r = open_any(&fixture);
    *ret_last = fixture.applied;
    drop(&fixture);
    return r;
}

Test(log_journal, does_not_take_payload_for_records)
{
    for (uint64_t number = 1; number < 6; number++) {
        uint64_t last = 0;
        cr_assert_eq(forged(false, false, number, &last), 0);
        cr_assert_eq(last, 2);
        cr_assert_eq(forged(false, true, number, &last), 0);
        cr_assert_eq(last, 1);
    }
}

/* That the test above can fail: only the key is what keeps them out, and only where a record is torn. */
Test(log_journal, would_take_payload_for_records_if_it_had_the_key)
{
    uint64_t last = 0;
    cr_assert_eq(forged(true, false, 3, &last), 0);
    cr_assert_eq(last, 2);
    cr_assert_eq(forged(true, true, 3, &last), BB_ECORRUPT);
    cr_assert_eq(last, 1);
}

Test(log_journal, does_not_take_records_of_another_file)
{
    static uint8_t page[PAGE];
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 2, 0);
    put_record(page, key_of(&fixture, 1), 5, SMALL);
    poke(&fixture, 0, 4 * PAGE, page, PAGE);
    reopen(&fixture, 0, 2);
    drop(&fixture);
}

/* A write that failed comes to the disk after all, when its number has been given again. */
Test(log_journal, prefers_the_record_that_was_written_later)
{
    static uint8_t late[PAGE];
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 9, 0);
    uint64_t key = key_of(&fixture, 1);
    reopen(&fixture, 0, 9);
    append_to(&fixture, 12, 9);
    put_record(late, key, 10, 2 * SMALL);
    late[HEADER + SMALL] ^= 1; /* on_found() would not have it */
    bk_put_u32(late + HEADER - 8, bb_crc32c(bb_crc32c(0, late, HEADER - 8), late + HEADER, 2 * SMALL));
    poke(&fixture, 1, 3 * PAGE, late, PAGE);
    reopen(&fixture, 8, 12);
    drop(&fixture);
}

/* --- calls that fail ------------------------------------------------------------------------------- */

Test(log_journal, is_made_by_the_next_attempt_when_a_call_fails)
{
    const int errors[] = {EIO, ENOSPC};
    int n_failed = 0;
    for (int n = 0; n < 20; n++) {
        struct fixture fixture;
        make(&fixture);
        fault.n_left = n;
        fault.error = errors[n % 2];
        int r = try_open(&fixture, SIZE, 0);
        n_failed += r < 0;
        cr_assert(r == 0 || (r == BB_ESYSTEM && fault.error == 0));
        cr_assert(r == 0 || strstr(bb_buf_string(&fixture.err),
                                   n % 2 == 0 ? "Input/output error" : "No space left") != NULL);
        fault.error = 0;
        reopen(&fixture, 0, 0);
        append_to(&fixture, 10, 0);
        reopen(&fixture, 0, 10);
        drop(&fixture);
    }
    cr_assert_geq(n_failed, 7); /* zeros, flush and header of each file, and the directory */
}

Test(log_journal, keeps_what_was_durable_when_a_call_fails)
{
    struct fixture fixture;
    make(&fixture);
    reopen(&fixture, 0, 0);
    append_to(&fixture, 5, 0);
    fault.n_left = 0;
    fault.error = EIO;
    cr_assert_eq(append(&fixture, SMALL, 0), BB_ESYSTEM);
    reopen(&fixture, 0, 5);
    append_to(&fixture, 8, 5);
    for (int n = 0; n < 5; n++) { /* making it larger */
        fault.n_left = n;
        fault.error = ENOSPC;
        int r = try_open(&fixture, 2 * SIZE, 5);
        cr_assert(r == BB_ESYSTEM || (r == 0 && fixture.applied == 8));
        fault.error = 0;
    }
    reopen(&fixture, 5, 8);
    drop(&fixture);
}

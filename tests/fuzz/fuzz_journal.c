/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the files of a journal. Each page may be made a record whose key and checksum fit. If the headers are right, what is told
 * is all whole records that the store does not have, without a hole, or the journal is refused. After recovery it takes a record
 * and has it when it is opened again.
 */
#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/journal.h"
#include "broker/backend/lmdb/keys.h"
#include "tests/check.h"

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>

#define FILES   2
#define PAGE    ((size_t)4096)
#define PAGES   4 /* of a file */
#define SIZE    (PAGES * PAGE)
#define HEAD    28                           /* of a file: magic, key, size, checksum: journal.c */
#define HEADER  32                           /* of a record: key, number, length, checksum, zeros */
#define MAGIC   UINT64_C(0x62627573206a3032) /* "bbus j02" */
#define KEY     UINT64_C(0x1122334455667788)
#define PIECE   64 /* bytes of the input for each page */
#define NUMBERS 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the input says of a file, in two bits. */
enum kind {
    GOOD,
    RAW,     /* the header is bytes of the input */
    FLIPPED, /* a bit of the header is */
    MISSING,
};

static const char *const names[FILES] = {BK_JOURNAL_FIRST, "journal-1"};
static uint8_t files[FILES][SIZE];

struct told {
    uint64_t last;
    uint64_t n;
};

static int on_found(void *context, uint64_t number, struct bb_slice payload)
{
    struct told *told = context;
    CHECK(number == told->last + 1);
    CHECK(payload.len <= SIZE);
    told->last = number;
    told->n++;
    return 0;
}

/* --- what is there -------------------------------------------------------------------------------------- */

/* A page of the input: what kind it is, then the length and the number, then bytes. */
static void make_page(uint8_t *page, uint64_t key, const uint8_t *from, size_t len)
{
    memcpy(page, from, len);
    if (len < 3 || from[0] % 2 == 0) {
        return;
    }
    size_t payload = from[1] * (size_t)16 % (PAGE - HEADER);
    memset(page, 0, HEADER);
    bk_put_u64(page, key);
    bk_put_u64(page + 8, from[2]);
    bk_put_u64(page + 16, payload);
    bk_put_u32(page + HEADER - 8, bb_crc32c(bb_crc32c(0, page, HEADER - 8), page + HEADER, payload));
}

static void make_head(uint8_t *page, uint64_t key, enum kind kind, uint8_t bit)
{
    if (kind == RAW) {
        return;
    }
    memset(page, 0, PAGE);
    bk_put_u64(page, MAGIC);
    bk_put_u64(page + 8, key);
    bk_put_u64(page + 16, SIZE);
    bk_put_u32(page + HEAD - 4, bb_crc32c(0, page, HEAD - 4));
    if (kind == FLIPPED) {
        page[bit % (HEAD * 8) / 8] ^= (uint8_t)(1U << (bit % 8));
    }
}

static enum kind kind_of(uint8_t byte, size_t file)
{
    return (enum kind)((byte >> (2 * file)) % 4);
}

static void make_files(const char *directory, const uint8_t *data, size_t size)
{
    size_t at = 3;
    memset(files, 0, sizeof(files));
    for (size_t i = 0; i < FILES; i++) {
        char path[128];
        uint64_t key = KEY + i;
        enum kind kind = kind_of(data[1], i);
        for (size_t j = kind == RAW ? 0 : 1; j < PAGES && at < size && kind != MISSING; j++, at += PIECE) {
            make_page(files[i] + j * PAGE, key, data + at, size - at < PIECE ? size - at : PIECE);
        }
        make_head(files[i], key, kind, data[2]);
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        int fd = kind == MISSING ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        CHECK(kind == MISSING || (fd >= 0 && write(fd, files[i], SIZE) == (ssize_t)SIZE && close(fd) == 0));
    }
}

static void clean(const char *directory)
{
    for (size_t i = 0; i < FILES; i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
}

/* --- what is to be expected ----------------------------------------------------------------------------- */

/* The length of a whole record with its header, 0: there is none. */
static size_t record_at(const uint8_t *file, size_t offset, uint64_t key, uint64_t *ret_number)
{
    const uint8_t *record = file + offset;
    uint64_t len = bk_get_u64(record + 16);
    if (bk_get_u64(record) != key || len > SIZE - offset - HEADER ||
        bk_get_u32(record + HEADER - 8) !=
            bb_crc32c(bb_crc32c(0, record, HEADER - 8), record + HEADER, (size_t)len)) {
        return 0;
    }
    *ret_number = bk_get_u64(record + 8);
    return HEADER + (size_t)len;
}

/* Whether what is there goes on from @applied without a hole; up to where. */
static bool expected(uint64_t applied, uint8_t kinds, uint64_t *ret_last)
{
    bool is_there[NUMBERS] = {false};
    uint64_t highest = applied;
    for (size_t i = 0; i < FILES; i++) {
        size_t len = 0;
        for (size_t at = PAGE; at < SIZE && kind_of(kinds, i) == GOOD;
             at += len == 0 ? PAGE : (len + PAGE - 1) / PAGE * PAGE) {
            uint64_t number = 0;
            len = record_at(files[i], at, KEY + i, &number);
            if (len > 0) {
                is_there[number < NUMBERS ? number : NUMBERS - 1] = true;
                highest = number > highest ? number : highest;
            }
        }
    }
    for (*ret_last = applied; *ret_last + 1 < NUMBERS && is_there[*ret_last + 1]; (*ret_last)++) {
    }
    return *ret_last == highest;
}

static bool is_known(uint8_t kinds)
{
    for (size_t i = 0; i < FILES; i++) {
        if (kind_of(kinds, i) != GOOD && kind_of(kinds, i) != MISSING) {
            return false;
        }
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char directory[64] = "/tmp/busbar-fuzz-XXXXXX";
    struct bb_buf err = BB_BUF_INIT;
    struct bk_journal *journal = NULL;
    uint64_t number = 0;
    uint64_t last = 0;
    if (size < 3) {
        return 0;
    }
    struct told told = {.last = data[0] % 8};
    CHECK(mkdtemp(directory) != NULL);
    make_files(directory, data, size);
    int r = bk_journal_open(directory, SIZE, data[0] % 8, on_found, &told, &journal, &err);
    CHECK(r == 0 || ((r == BB_ECORRUPT || r == BB_EVERSION) && err.len > 0));
    if (is_known(data[1])) {
        CHECK(r == (expected(data[0] % 8, data[1], &last) ? 0 : BB_ECORRUPT));
        CHECK(told.last == last);
    }
    struct told again = {.last = r == 0 ? told.last : data[0] % 8};
    if (r == 0) {
        CHECK(bk_journal_next(journal) == told.last + 1);
        struct bb_buf record = BB_BUF_INIT;
        bk_journal_buffer(&record, 6);
        bb_buf_append(&record, "behind", 6);
        CHECK(bk_journal_append(journal, &record, told.last, &number) == 0 && number == told.last + 1);
        bb_buf_fini(&record);
        bk_journal_close(journal);
        told.last = number;
    }
    CHECK(bk_journal_open(directory, SIZE, again.last, on_found, &again, &journal, &err) == r);
    CHECK(again.last == told.last && (r < 0 || again.n == 1));
    if (r == 0) {
        bk_journal_close(journal);
    }
    bb_buf_fini(&err);
    clean(directory);
    CHECK(rmdir(directory) == 0);
    return 0;
}

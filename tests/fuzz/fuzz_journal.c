/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as the first file of a journal. Each page may be made a record whose checksum fits: then it must be found exactly as long as
 * those before it were. After recovery the journal takes a record and has it when it is opened again.
 */
#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/journal.h"
#include "broker/backend/lmdb/keys.h"
#include "tests/check.h"

#include <fcntl.h>
#include <unistd.h>

#define PAGE   ((size_t)4096)
#define PAGES  4
#define HEADER 32 /* magic, number, length, checksum, zeros: journal.c */
#define MAGIC  UINT64_C(0x62627573206a3031)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct told {
    uint64_t last;
    uint64_t n;
};

static int on_found(void *context, uint64_t number, struct bb_slice payload)
{
    struct told *told = context;
    CHECK(number == told->last + 1);
    CHECK(payload.len <= PAGES * PAGE);
    told->last = number;
    told->n++;
    return 0;
}

/* A page of the input: what kind it is, then the number and the length, then bytes. */
static void make_page(uint8_t *page, const uint8_t *from, size_t len)
{
    memcpy(page, from, len < PAGE ? len : PAGE);
    if (len < 20 || from[0] % 2 == 0) {
        return;
    }
    size_t payload = from[1] * (size_t)16 % (PAGE - HEADER);
    memset(page, 0, HEADER);
    bk_put_u64(page, MAGIC);
    bk_put_u64(page + 8, from[2]);
    bk_put_u64(page + 16, payload);
    bk_put_u32(page + HEADER - 8, bb_crc32c(bb_crc32c(0, page, HEADER - 8), page + HEADER, payload));
}

static void write_file(const char *directory, const uint8_t *data, size_t size)
{
    char path[128];
    static uint8_t pages[PAGES * PAGE];
    memset(pages, 0, sizeof(pages));
    for (size_t i = 0; i < PAGES && size > i * 64; i++) { /* 64 bytes of the input for each */
        make_page(pages + i * PAGE, data + i * 64, size - i * 64 < 64 ? size - i * 64 : 64);
    }
    (void)snprintf(path, sizeof(path), "%s/%s", directory, BK_JOURNAL_FIRST);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, pages, sizeof(pages)) == (ssize_t)sizeof(pages) && close(fd) == 0);
}

static void clean(const char *directory)
{
    static const char *const names[] = {"journal-0", "journal-1"};
    for (size_t i = 0; i < 2; i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char directory[64] = "/tmp/busbar-fuzz-XXXXXX";
    struct bb_buf err = BB_BUF_INIT;
    struct bk_journal *journal = NULL;
    struct told told = {.last = size > 0 ? data[0] / 64U : 0};
    uint64_t number = 0;
    CHECK(mkdtemp(directory) != NULL);
    write_file(directory, data, size);
    CHECK(bk_journal_open(directory, PAGES * PAGE, told.last, on_found, &told, &journal, &err) == 0);
    CHECK(bk_journal_next(journal) == told.last + 1);
    CHECK(bk_journal_append(journal, bb_slice_str("behind"), told.last, &number) == 0 &&
          number == told.last + 1);
    bk_journal_close(journal);
    struct told again = {.last = told.last};
    CHECK(bk_journal_open(directory, PAGES * PAGE, told.last, on_found, &again, &journal, &err) == 0);
    CHECK(again.n >= 1 && again.last >= number);
    bk_journal_close(journal);
    bb_buf_fini(&err);
    clean(directory);
    CHECK(rmdir(directory) == 0);
    return 0;
}

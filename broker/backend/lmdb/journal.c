/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* O_DIRECT */
#include "broker/backend/lmdb/journal.h"

#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES  2
#define PAGE   ((size_t)4096)
#define MAGIC  UINT64_C(0x62627573206a3032) /* "bbus j02" */
#define FAMILY "bbus j"                     /* what the magic of every version begins with */

/* A file begins with a page of its own: magic, key, size, CRC32C of these, zeros. All of it is in one
 * sector. */
#define HEAD      ((size_t)28)
#define FIRST     PAGE /* where its records begin */
#define FILE_SIZE (2 * PAGE)

/* A record begins with the key of its file, number, length, CRC32C of these and the payload, zeros. */
#define HEADER BK_JOURNAL_HEADER

/* Zeros are written in pieces of this size. */
#define FILL_BYTES ((size_t)1 << 20)

struct file {
    char name[16];
    int fd;        /* for reading and making */
    int direct_fd; /* O_DIRECT | O_DSYNC: a write is durable when it returns; -1 where the file system cannot */
    size_t size;   /* 0: it was never finished */
    uint64_t key;
    uint64_t last; /* number of its last record, 0: none since it was opened */
};

struct bk_journal {
    struct file files[FILES];
    size_t current;
    size_t offset; /* in the current file, of the next record */
    uint64_t next;
    uint8_t *buffer; /* page-aligned: a record that was read, or the page that a file begins with */
    size_t buffer_size;
};

static size_t round_up(size_t n)
{
    return (n + PAGE - 1) / PAGE * PAGE;
}

/* Of a file that is asked for with @size bytes. */
static size_t file_size(size_t size)
{
    return size > FILE_SIZE ? round_up(size) : FILE_SIZE;
}

/* --- records -------------------------------------------------------------------------------------- */

static uint32_t record_crc(const uint8_t *header, const uint8_t *payload, size_t len)
{
    uint32_t crc = bb_crc32c(0, header, HEADER - 8);
    return bb_crc32c(crc, payload, len);
}

static void header_write(uint8_t *header, uint64_t key, uint64_t number, const uint8_t *payload, size_t len)
{
    memset(header, 0, HEADER);
    bk_put_u64(header, key);
    bk_put_u64(header + 8, number);
    bk_put_u64(header + 16, len);
    bk_put_u32(header + HEADER - 8, record_crc(header, payload, len));
}

static int buffer_reserve(struct bk_journal *journal, size_t size)
{
    if (size <= journal->buffer_size) {
        return 0;
    }
    size = round_up(size);
    uint8_t *buffer = aligned_alloc(PAGE, size);
    if (buffer == NULL) {
        return BB_ENOMEM;
    }
    free(journal->buffer);
    journal->buffer = buffer;
    journal->buffer_size = size;
    return 0;
}

/* --- reading -------------------------------------------------------------------------------------- */

/* All of @len bytes. Return: 0, BB_ENOTFOUND (the file ends first), BB_ESYSTEM. */
static int read_all(int fd, uint8_t *to, size_t len, size_t offset)
{
    while (len > 0) {
        ssize_t n = pread(fd, to, len, (off_t)offset);
        if (n == 0) {
            return BB_ENOTFOUND;
        }
        if (n < 0 && errno != EINTR) {
            return BB_ESYSTEM;
        }
        if (n > 0) {
            to += n;
            offset += (size_t)n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/* The record at @offset, if its number is not below @least, into the buffer. Return: 0, BB_ENOTFOUND (there
 * is none), BB_ESYSTEM, BB_ENOMEM. */
static int read_record(struct bk_journal *journal,
                       const struct file *file,
                       size_t offset,
                       uint64_t least,
                       uint64_t *ret_number,
                       size_t *ret_len)
{
    int r = buffer_reserve(journal, PAGE);
    if (r == 0) {
        r = offset + PAGE <= file->size ? read_all(file->fd, journal->buffer, HEADER, offset) : BB_ENOTFOUND;
    }
    if (r < 0) {
        return r;
    }
    uint64_t len = bk_get_u64(journal->buffer + 16);
    if (bk_get_u64(journal->buffer) != file->key || bk_get_u64(journal->buffer + 8) < least ||
        len > file->size - offset - HEADER) {
        return BB_ENOTFOUND;
    }
    r = buffer_reserve(journal, HEADER + (size_t)len);
    if (r == 0) {
        r = read_all(file->fd, journal->buffer, HEADER + (size_t)len, offset);
    }
    if (r < 0) {
        return r;
    }
    uint32_t crc = record_crc(journal->buffer, journal->buffer + HEADER, (size_t)len);
    if (bk_get_u64(journal->buffer) != file->key || bk_get_u64(journal->buffer + 16) != len ||
        crc != bk_get_u32(journal->buffer + HEADER - 8)) {
        return BB_ENOTFOUND;
    }
    *ret_number = bk_get_u64(journal->buffer + 8);
    *ret_len = (size_t)len;
    return 0;
}

/* --- recovery ------------------------------------------------------------------------------------- */

struct seen {
    uint64_t number; /* 0: none */
    size_t file;
    size_t offset;
};

/* What whole records there are. */
struct survey {
    struct seen applied; /* the last one that the store has */
    struct seen lowest;  /* of those that it does not have */
    struct seen highest;
    uint64_t begins[FILES]; /* the number of the one that a file begins with, 0: none */
};

static void note(struct survey *survey, uint64_t applied, struct seen seen)
{
    if (seen.offset == FIRST) {
        survey->begins[seen.file] = seen.number;
    }
    if (seen.number == applied) {
        survey->applied = seen;
    }
    if (seen.number <= applied) {
        return; /* of an earlier round */
    }
    if (survey->lowest.number == 0 || seen.number < survey->lowest.number) {
        survey->lowest = seen;
    }
    if (seen.number > survey->highest.number) {
        survey->highest = seen;
    }
}

static int fail_read(const struct file *file, int error, struct bb_buf *why)
{
    if (error == BB_ESYSTEM) {
        bb_buf_printf(why, "%s cannot be read: %m", file->name);
    }
    return error;
}

/* Looks at each page that a record can begin at. What is within a whole record is none. */
static int look(struct bk_journal *journal, uint64_t applied, struct survey *ret_survey, struct bb_buf *why)
{
    *ret_survey = (struct survey){0};
    for (size_t i = 0; i < FILES; i++) {
        const struct file *file = &journal->files[i];
        (void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_WILLNEED);
        for (size_t offset = FIRST; offset < file->size;) {
            struct seen seen = {0, i, offset};
            size_t len = 0;
            int r = read_record(journal, file, offset, applied, &seen.number, &len);
            if (r == 0) {
                note(ret_survey, applied, seen);
            } else if (r != BB_ENOTFOUND) {
                return fail_read(file, r, why);
            }
            offset += r == 0 ? round_up(HEADER + len) : PAGE;
        }
    }
    return 0;
}

/*
 * Tell what goes on from *@applied, as far as it does. A record is behind the one before it, or at the
 * beginning of a file. The latter is preferred: should a write that failed reach the disk after all, later
 * than the journal was opened again, the number is there twice, and the one that counts begins a file.
 */
static int follow(struct bk_journal *journal,
                  const struct survey *survey,
                  uint64_t *applied,
                  bk_journal_found_fn *found,
                  void *context,
                  struct bb_buf *why)
{
    struct seen at = survey->lowest;
    for (;;) {
        size_t len = 0;
        for (size_t i = 0; i < FILES; i++) {
            at = survey->begins[i] == *applied + 1 ? (struct seen){0, i, FIRST} : at;
        }
        const struct file *file = &journal->files[at.file];
        int r = read_record(journal, file, at.offset, *applied + 1, &at.number, &len);
        if (r < 0 && r != BB_ENOTFOUND) {
            return fail_read(file, r, why);
        }
        if (r < 0 || at.number != *applied + 1) {
            return 0;
        }
        r = found(context, at.number, bb_slice(journal->buffer + HEADER, len));
        if (r != 0) {
            return r;
        }
        *applied = at.number;
        at.offset += round_up(HEADER + len);
    }
}

/* Record @applied + 1 is not there, and one behind it is: more than one is never on its way to the disk. */
static int
refuse(const struct bk_journal *journal, const struct survey *survey, uint64_t applied, struct bb_buf *why)
{
    const struct seen *before = &survey->applied;
    const struct seen *next = &survey->lowest;
    const char *in = journal->files[next->file].name;
    if (before->number != 0) {
        bb_buf_printf(why,
                      "behind record %" PRIu64 " (%s, offset %zu) record %" PRIu64
                      " is expected and the next that is whole is %" PRIu64 " (%s, offset %zu)",
                      applied, journal->files[before->file].name, before->offset, applied + 1, next->number,
                      in, next->offset);
    } else {
        bb_buf_printf(why,
                      "the tables end with record %" PRIu64 ", so %" PRIu64
                      " is expected, and the first that is whole is %" PRIu64 " (%s, offset %zu)",
                      applied, applied + 1, next->number, in, next->offset);
    }
    bb_buf_printf(
        why,
        ": either a record is damaged or the tables are from an older copy; restore a backup, or move %s and %s "
        "away and lose the records from %" PRIu64 " on",
        journal->files[0].name, journal->files[1].name, applied + 1);
    return BB_ECORRUPT;
}

static int recover(struct bk_journal *journal,
                   uint64_t applied,
                   bk_journal_found_fn *found,
                   void *context,
                   struct bb_buf *why)
{
    struct survey survey;
    int r = look(journal, applied, &survey, why);
    while (r == 0 && survey.highest.number > applied) {
        uint64_t before = applied;
        if (survey.lowest.number == applied + 1) {
            r = follow(journal, &survey, &applied, found, context, why);
        }
        if (r == 0 && applied == before) {
            return refuse(journal, &survey, applied, why);
        }
        if (r == 0 && applied < survey.highest.number) {
            r = look(journal, applied, &survey, why);
        }
    }
    /* All of it is in the store now: begin anew. */
    journal->next = applied + 1;
    journal->current = 0;
    journal->offset = FIRST;
    for (size_t i = 0; i < FILES; i++) {
        (void)posix_fadvise(journal->files[i].fd, 0, 0, POSIX_FADV_DONTNEED); /* not read again */
    }
    return r;
}

/* --- files ---------------------------------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *from, size_t len, size_t offset)
{
    while (len > 0) {
        ssize_t n = pwrite(fd, from, len, (off_t)offset);
        if (n < 0 && errno != EINTR) {
            return BB_ESYSTEM;
        }
        if (n > 0) {
            from += n;
            offset += (size_t)n;
            len -= (size_t)n;
        }
    }
    return 0;
}

/*
 * Past the page cache where that can be: one call, and two thirds of the time of a write and its fdatasync()
 * (98 us against 139 at 4 KiB, 123 against 182 at 128 KiB, measured). A file system that takes such a
 * descriptor and then not the write says EINVAL, and nothing was written.
 */
static int write_durably(struct file *file, const uint8_t *from, size_t len, size_t offset)
{
    if (file->direct_fd >= 0) {
        int r = write_all(file->direct_fd, from, len, offset);
        if (r == 0 || errno != EINVAL) {
            return r;
        }
        (void)close(file->direct_fd);
        file->direct_fd = -1;
    }
    int r = write_all(file->fd, from, len, offset);
    return r < 0 ? r : fdatasync(file->fd) == 0 ? 0 : BB_ESYSTEM;
}

/* Space that is there already spares the flush the bookkeeping of the file system. */
static int fill(int fd, size_t from, size_t size)
{
    uint8_t *zeros = calloc(1, FILL_BYTES);
    int r = zeros == NULL ? BB_ENOMEM : 0;
    for (; from < size && r == 0; from += FILL_BYTES) {
        r = write_all(fd, zeros, size - from < FILL_BYTES ? size - from : FILL_BYTES, from);
    }
    free(zeros);
    return r < 0 ? r : fsync(fd) == 0 ? 0 : BB_ESYSTEM;
}

/* Whether there are only zeros, as in a file that was not finished. Return: 1, 0, BB_ESYSTEM. */
static int is_blank(const struct file *file, size_t size)
{
    uint8_t page[PAGE];
    for (size_t offset = 0; offset + PAGE <= size; offset += PAGE) {
        int r = read_all(file->fd, page, PAGE, offset);
        if (r < 0) {
            return r == BB_ENOTFOUND ? 1 : r;
        }
        if (page[0] != 0 || memcmp(page, page + 1, PAGE - 1) != 0) {
            return 0;
        }
    }
    return 1;
}

/* What is wrong with a file whose header is not ours. */
static int refuse_file(const struct file *file, const uint8_t *head, struct bb_buf *why)
{
    const uint8_t *version = head + sizeof(FAMILY) - 1;
    uint8_t magic[8];
    bk_put_u64(magic, MAGIC);
    if (memcmp(head, FAMILY, sizeof(FAMILY) - 1) != 0 || version[0] < '0' || version[0] > '9' ||
        version[1] < '0' || version[1] > '9' || memcmp(head, magic, sizeof(magic)) == 0) {
        bb_buf_printf(
            why,
            "the header of %s is damaged; restore a backup, or move the file away and lose what is in it",
            file->name);
        return BB_ECORRUPT;
    }
    bb_buf_printf(why, "%s is \"%.8s\", this broker reads and writes \"%.8s\"", file->name,
                  (const char *)head, (const char *)magic);
    return BB_EVERSION;
}

/* Open a file, and learn its size and key if it has ever been finished. Nothing is written. */
static int open_file(int directory, size_t index, struct file *file, struct bb_buf *why)
{
    uint8_t head[HEAD];
    struct stat status;
    (void)snprintf(file->name, sizeof(file->name), "journal-%zu", index);
    file->fd = openat(directory, file->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->fd < 0 || fstat(file->fd, &status) != 0) {
        return BB_ESYSTEM;
    }
    file->direct_fd = openat(directory, file->name, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    size_t there = (size_t)status.st_size;
    int r = is_blank(file, there);
    if (r == 0) {
        r = read_all(file->fd, head, HEAD, 0);
    }
    if (r != 0) {
        return r > 0 ? 0 : r;
    }
    uint64_t size = bk_get_u64(head + 16);
    if (bk_get_u64(head) != MAGIC || bk_get_u32(head + HEAD - 4) != bb_crc32c(0, head, HEAD - 4) ||
        size < FILE_SIZE || size % PAGE != 0) {
        return refuse_file(file, head, why);
    }
    if (size > there) {
        bb_buf_printf(why,
                      "%s has %zu bytes and had %" PRIu64
                      "; restore a backup, or move it away and lose what is in it",
                      file->name, there, size);
        return BB_ECORRUPT;
    }
    file->key = bk_get_u64(head + 8);
    file->size = (size_t)size;
    return 0;
}

/*
 * Make a file, or make it larger. The header comes when the rest is durable. It is written each time, since
 * one that is read may be that of a flush that failed, and be nowhere but in memory.
 */
static int finish_file(struct bk_journal *journal, struct file *file, size_t size)
{
    int r = buffer_reserve(journal, PAGE);
    if (r == 0 && file->size == 0 && getrandom(&file->key, sizeof(file->key), 0) != sizeof(file->key)) {
        r = BB_ESYSTEM;
    }
    if (r == 0 && file->size == 0 &&
        ftruncate(file->fd, 0) < 0) { /* an attempt may have taken what now lacks */
        r = BB_ESYSTEM;
    }
    if (r == 0 && file->size < size) {
        r = fill(file->fd, file->size, size);
    }
    if (r < 0) {
        return r;
    }
    file->size = BB_MAX(file->size, size);
    uint8_t *head = journal->buffer;
    memset(head, 0, PAGE);
    bk_put_u64(head, MAGIC);
    bk_put_u64(head + 8, file->key);
    bk_put_u64(head + 16, file->size);
    bk_put_u32(head + HEAD - 4, bb_crc32c(0, head, HEAD - 4));
    return write_durably(file, head, PAGE, 0);
}

/* Nothing is written before all that is there is known to be ours. */
static int open_files(struct bk_journal *journal, int directory, size_t size, struct bb_buf *why)
{
    int r = 0;
    for (size_t i = 0; i < 2 * (size_t)FILES && r == 0; i++) {
        struct file *file = &journal->files[i % FILES];
        r = i < FILES ? open_file(directory, i, file, why) : finish_file(journal, file, size);
        if (r == BB_ESYSTEM) {
            bb_buf_printf(why, "%s: %m", file->name);
        }
    }
    return r;
}

int bk_journal_open(const char *directory,
                    size_t size,
                    uint64_t applied,
                    bk_journal_found_fn *found,
                    void *context,
                    struct bk_journal **ret_journal,
                    struct bb_buf *err)
{
    struct bb_buf why = BB_BUF_INIT;
    struct bk_journal *journal = calloc(1, sizeof(*journal));
    if (journal == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < FILES; i++) {
        journal->files[i].fd = journal->files[i].direct_fd = -1;
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd >= 0 ? open_files(journal, fd, file_size(size), &why) : BB_ESYSTEM;
    if (r == 0 && fsync(fd) != 0) {
        r = BB_ESYSTEM;
    }
    if (r == BB_ESYSTEM && why.len == 0) {
        bb_buf_printf(&why, "%m");
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (r == 0) {
        r = recover(journal, applied, found, context, &why);
    }
    if (why.len > 0) {
        bb_buf_printf(err, "the journal in %s: %s", directory, bb_buf_string(&why));
    }
    bb_buf_fini(&why);
    if (r < 0) {
        bk_journal_close(journal);
        return r;
    }
    *ret_journal = journal;
    return 0;
}

void bk_journal_close(struct bk_journal *journal)
{
    if (journal == NULL) {
        return;
    }
    for (size_t i = 0; i < FILES; i++) {
        if (journal->files[i].fd >= 0) {
            (void)close(journal->files[i].fd);
        }
        if (journal->files[i].direct_fd >= 0) {
            (void)close(journal->files[i].direct_fd);
        }
    }
    free(journal->buffer);
    free(journal);
}

/* --- appending ------------------------------------------------------------------------------------ */

/* A file with room for @size bytes at the offset. Return: 0, BB_EAGAIN, BB_ETOOBIG. */
static int make_room(struct bk_journal *journal, size_t size, uint64_t applied)
{
    struct file *file = &journal->files[journal->current];
    if (journal->offset + size <= file->size) {
        return 0;
    }
    if (file->last <= applied && FIRST + size <= file->size) {
        journal->offset = FIRST;
        file->last = 0;
        return 0;
    }
    struct file *other = &journal->files[1 - journal->current];
    if (FIRST + size > other->size) {
        return FIRST + size > file->size ? BB_ETOOBIG : BB_EAGAIN;
    }
    if (other->last > applied) {
        return BB_EAGAIN;
    }
    journal->current = 1 - journal->current;
    journal->offset = FIRST;
    other->last = 0;
    return 0;
}

void bk_journal_buffer(struct bb_buf *record, size_t size)
{
    if (size > SIZE_MAX - HEADER - PAGE) {
        record->error = BB_ETOOBIG;
        return;
    }
    size_t cap = round_up(HEADER + size);
    uint8_t *data = aligned_alloc(PAGE, cap); /* as a write past the page cache wants it */
    if (data == NULL) {
        record->error = BB_ENOMEM;
        return;
    }
    *record = (struct bb_buf){.data = data, .len = HEADER, .cap = cap};
}

int bk_journal_append(struct bk_journal *journal,
                      const struct bb_buf *record,
                      uint64_t applied,
                      uint64_t *ret_number)
{
    if (record->error != 0 || record->len < HEADER || (uintptr_t)record->data % PAGE != 0 ||
        record->cap % PAGE != 0) {
        return BB_EINVAL;
    }
    struct bb_slice payload = bk_journal_payload(record);
    size_t size = round_up(record->len);
    int r = make_room(journal, size, applied);
    if (r < 0) {
        return r;
    }
    struct file *file = &journal->files[journal->current];
    memset(record->data + record->len, 0, size - record->len);
    header_write(record->data, file->key, journal->next, payload.data, payload.len);
    r = write_durably(file, record->data, size, journal->offset);
    if (r < 0) {
        return r; /* never tried again on this descriptor: the kernel may say that all is well */
    }
    journal->offset += size;
    file->last = journal->next;
    *ret_number = journal->next++;
    return 0;
}

size_t bk_journal_payload_max(size_t size)
{
    return file_size(size) - FIRST - HEADER;
}

uint64_t bk_journal_next(const struct bk_journal *journal)
{
    return journal->next;
}

/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* O_DIRECT */
#include "broker/backend/lmdb/journal.h"

#include "proto/base/crc32c.h"
#include "proto/base/error.h"

#include "broker/backend/lmdb/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES  2
#define PAGE   ((size_t)4096)
#define MAGIC  UINT64_C(0x62627573206a3031) /* "bbus j01" */
#define HEADER ((size_t)32)

/* Zeros are written in pieces of this size. */
#define FILL_BYTES ((size_t)1 << 20)

struct file {
    int fd;        /* for reading and making */
    int direct_fd; /* O_DIRECT | O_DSYNC: a write is durable when it returns; -1 where the file system cannot */
    size_t size;
    uint64_t first; /* number of its first record, 0: none */
    uint64_t last;
};

struct bk_journal {
    struct file files[FILES];
    size_t current;
    size_t offset; /* in the current file, of the next record */
    uint64_t next;
    uint8_t *buffer; /* page-aligned: header, payload, zeros */
    size_t buffer_size;
};

static size_t round_up(size_t n)
{
    return (n + PAGE - 1) / PAGE * PAGE;
}

/* --- records -------------------------------------------------------------------------------------- */

static uint32_t record_crc(const uint8_t *header, const uint8_t *payload, size_t len)
{
    uint32_t crc = bb_crc32c(0, header, HEADER - 8);
    return bb_crc32c(crc, payload, len);
}

static void header_write(uint8_t *header, uint64_t number, const uint8_t *payload, size_t len)
{
    memset(header, 0, HEADER);
    bk_put_u64(header, MAGIC);
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

/* The record at @offset into the buffer. Return: 0, BB_ENOTFOUND (there is none), BB_ESYSTEM, BB_ENOMEM. */
static int read_record(struct bk_journal *journal,
                       const struct file *file,
                       size_t offset,
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
    if (bk_get_u64(journal->buffer) != MAGIC || len > file->size - offset - HEADER) {
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
    if (bk_get_u64(journal->buffer) != MAGIC || bk_get_u64(journal->buffer + 16) != len ||
        crc != bk_get_u32(journal->buffer + HEADER - 8)) {
        return BB_ENOTFOUND;
    }
    *ret_number = bk_get_u64(journal->buffer + 8);
    *ret_len = (size_t)len;
    return 0;
}

/* Walk the records of a file that go on from each other. With @found, tell those after *@applied. */
static int walk(struct bk_journal *journal,
                struct file *file,
                uint64_t *applied,
                bk_journal_found_fn *found,
                void *context)
{
    size_t offset = 0;
    uint64_t number = 0;
    size_t len = 0;
    int r = 0;
    file->first = file->last = 0;
    while ((r = read_record(journal, file, offset, &number, &len)) == 0) {
        if (file->first != 0 && number != file->last + 1) {
            break; /* of an earlier round */
        }
        file->first = file->first == 0 ? number : file->first;
        file->last = number;
        if (found != NULL && number > *applied) {
            if (number != *applied + 1) {
                break;
            }
            r = found(context, number, bb_slice(journal->buffer + HEADER, len));
            if (r < 0) {
                return r;
            }
            *applied = number;
        }
        offset += round_up(HEADER + len);
    }
    return r == BB_ENOTFOUND ? 0 : r;
}

static int recover(struct bk_journal *journal, uint64_t applied, bk_journal_found_fn *found, void *context)
{
    int r = 0;
    for (size_t i = 0; i < FILES && r == 0; i++) {
        r = walk(journal, &journal->files[i], &applied, NULL, NULL);
    }
    if (r < 0) {
        return r;
    }
    size_t older = journal->files[0].first <= journal->files[1].first ? 0 : 1;
    r = walk(journal, &journal->files[older], &applied, found, context);
    if (r == 0) {
        r = walk(journal, &journal->files[1 - older], &applied, found, context);
    }
    /* All of it is in the store now: begin anew. */
    journal->next = applied + 1;
    journal->current = journal->offset = 0;
    for (size_t i = 0; i < FILES; i++) {
        journal->files[i].first = journal->files[i].last = 0;
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

static int open_file(int directory, size_t index, size_t size, struct file *file)
{
    char name[32];
    struct stat status;
    (void)snprintf(name, sizeof(name), "journal-%zu", index);
    file->fd = openat(directory, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->fd < 0 || fstat(file->fd, &status) != 0) {
        return BB_ESYSTEM;
    }
    size_t there = (size_t)status.st_size / PAGE * PAGE;
    file->size = there > size ? there : size;
    int r = there < size ? fill(file->fd, there, size) : 0;
    file->direct_fd = openat(directory, name, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
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
    struct bk_journal *journal = calloc(1, sizeof(*journal));
    if (journal == NULL) {
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < FILES; i++) {
        journal->files[i].fd = journal->files[i].direct_fd = -1;
    }
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = fd >= 0 ? 0 : BB_ESYSTEM;
    for (size_t i = 0; i < FILES && r == 0; i++) {
        r = open_file(fd, i, round_up(size), &journal->files[i]);
    }
    if (r == 0 && fsync(fd) != 0) {
        r = BB_ESYSTEM;
    }
    if (r < 0) {
        bb_buf_printf(err, "the journal in %s: %m", directory);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    if (r == 0) {
        r = recover(journal, applied, found, context);
    }
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

/*
 * Past the page cache where that can be: one call, and two thirds of the time of a write and its fdatasync() (98 us against 139 at 4
 * KiB, 123 against 182 at 128 KiB, measured). A file system that takes such a descriptor and then not the write says EINVAL,
 * and nothing was written.
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

/* A file with room for @size bytes at the offset. Return: 0, BB_EAGAIN, BB_ETOOBIG. */
static int make_room(struct bk_journal *journal, size_t size, uint64_t applied)
{
    struct file *file = &journal->files[journal->current];
    if (journal->offset + size <= file->size) {
        return 0;
    }
    if (file->last <= applied && size <= file->size) {
        journal->offset = 0;
        file->first = file->last = 0;
        return 0;
    }
    struct file *other = &journal->files[1 - journal->current];
    if (size > other->size) {
        return size > file->size ? BB_ETOOBIG : BB_EAGAIN;
    }
    if (other->last > applied) {
        return BB_EAGAIN;
    }
    journal->current = 1 - journal->current;
    journal->offset = 0;
    other->first = other->last = 0;
    return 0;
}

int bk_journal_append(struct bk_journal *journal,
                      struct bb_slice payload,
                      uint64_t applied,
                      uint64_t *ret_number)
{
    size_t size = round_up(HEADER + payload.len);
    int r = buffer_reserve(journal, size);
    if (r == 0) {
        r = make_room(journal, size, applied);
    }
    if (r < 0) {
        return r;
    }
    struct file *file = &journal->files[journal->current];
    uint8_t *buffer = journal->buffer;
    memcpy(buffer + HEADER, payload.data, payload.len);
    memset(buffer + HEADER + payload.len, 0, size - HEADER - payload.len);
    header_write(buffer, journal->next, buffer + HEADER, payload.len);
    r = write_durably(file, buffer, size, journal->offset);
    if (r < 0) {
        return r; /* never tried again on this descriptor: the kernel may say that all is well */
    }
    journal->offset += size;
    file->first = file->first == 0 ? journal->next : file->first;
    file->last = journal->next;
    *ret_number = journal->next++;
    return 0;
}

size_t bk_journal_payload_max(size_t size)
{
    return round_up(size) - HEADER;
}

uint64_t bk_journal_next(const struct bk_journal *journal)
{
    return journal->next;
}

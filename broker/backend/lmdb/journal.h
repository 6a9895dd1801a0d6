/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: where what is registered becomes durable, before the store takes it into its tables in larger
 * pieces. A commit of LMDB costs two flushes and rewrites a path of pages; here it is one write and one flush
 * into space that is there already.
 *
 * Two files of one size, written with zeros when they are made. Each begins with a page of its own, which is
 * written when the zeros are durable and has a random key. A file whose first page was never written has
 * never held a record, and is made again. A record is a header and a payload, begins at a multiple of 4,096
 * bytes, so that writing it never touches an older one, begins with the key of its file, which nobody who
 * publishes knows, so that no payload can pose as one, and has the next number; numbers are never used again
 * once the store has them. Only one record is ever on its way to the disk. A file is used again, from its
 * beginning, when the store has everything that is in it.
 *
 * Recovery looks at every page for records whose CRC32C is right, and takes those whose numbers go on from
 * what the store has. Behind the last there may be the one that was on its way, in whatever state. A whole
 * one with a greater number cannot be: then a record in between is damaged, or the store is from an older
 * copy, and the journal is not opened. What lies in the files from earlier rounds has lower numbers, whatever
 * their key is, and the store has it.
 *
 * One thread at a time.
 */
#pragma once

#include "proto/base/buf.h"

#include <stddef.h>
#include <stdint.h>

/* The name of the file that is made first. */
#define BK_JOURNAL_FIRST "journal-0"

/* Where the payload begins in the buffer of a record; what is in front of it is bk_journal_append()'s. */
#define BK_JOURNAL_HEADER ((size_t)32)

struct bk_journal;

/* Told of a record that the store does not have; a return other than 0 ends recovery with it. */
typedef int bk_journal_found_fn(void *context, uint64_t number, struct bb_slice payload);

/**
 * bk_journal_open() - make or open the journal in @directory, and recover
 * @size:    bytes of each file; files that are there keep theirs if they are larger
 * @applied: the number of the last record that the store has
 * @found:   given what comes after it, in order; must make it durable before anything is appended
 *
 * Return: 0; BB_ECORRUPT, after @found has been given what is before the damage; BB_EVERSION (another form);
 * BB_ESYSTEM; BB_ENOMEM; or what @found returned. @err gets a sentence, unless it is one of the last two.
 */
BB_MUST_CHECK int bk_journal_open(const char *directory,
                                  size_t size,
                                  uint64_t applied,
                                  bk_journal_found_fn *found,
                                  void *context,
                                  struct bk_journal **ret_journal,
                                  struct bb_buf *err);

/** bk_journal_close() - NULL is fine. */
void bk_journal_close(struct bk_journal *journal);

/**
 * bk_journal_buffer() - make @record, which is empty, what a record with at most @size bytes of payload is
 * written from as it lies
 *
 * The payload is appended to it. Without memory it has its sticky error.
 */
void bk_journal_buffer(struct bb_buf *record, size_t size);

/** bk_journal_payload() - what was appended to @record. */
static inline struct bb_slice bk_journal_payload(const struct bb_buf *record)
{
    return bb_slice(record->data + BK_JOURNAL_HEADER, record->len - BK_JOURNAL_HEADER);
}

/**
 * bk_journal_append() - make the payload of @record durable as the next record
 * @record:     from bk_journal_buffer(), with no more than that was made for
 * @applied:    what the store has by now
 * @ret_number: its number
 *
 * Return: 0; BB_EAGAIN: there is no room until the store has more; BB_ETOOBIG: larger than a file;
 * BB_ESYSTEM: whether it is durable is not known, and only opening the journal again can tell; BB_EINVAL:
 * another buffer.
 */
BB_MUST_CHECK int bk_journal_append(struct bk_journal *journal,
                                    const struct bb_buf *record,
                                    uint64_t applied,
                                    uint64_t *ret_number);

/** bk_journal_payload_max() - the longest payload that files of @size bytes take. */
size_t bk_journal_payload_max(size_t size);

/** bk_journal_next() - the number of the next record. */
uint64_t bk_journal_next(const struct bk_journal *journal);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A disk between the backend and the file system: the calls that write are the program's own, which take those of the shared
 * library LMDB as well. It keeps what is written to the files of one directory, and when it was made durable, so that the
 * directory can be built as a crash at any moment might have left it; or it lets a call fail.
 *
 * Any thread. Memory is not checked here: the program ends without it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum disk_call {
    DISK_WRITE, /* write, pwrite, writev */
    DISK_SYNC,  /* fsync, fdatasync, msync */
    DISK_ALLOC, /* malloc, calloc, realloc of our own code */
    DISK_CALLS
};

enum disk_fault {
    DISK_EIO,
    DISK_ENOSPC,
    DISK_EINTR,
    DISK_SHORT, /* half of it is written */
    DISK_ENOMEM,
    DISK_FAULTS
};

/* What of the writes that nobody waited for is on the disk. */
enum disk_luck {
    DISK_NONE,
    DISK_ALL,
    DISK_HALF,  /* of the sectors, whichever */
    DISK_TENTH, /* the same */
    DISK_TORN,  /* a number of writes in their order, and some sectors of the next */
    DISK_LUCKS
};

/* A disk that lies, which a campaign must find out. */
enum disk_lie {
    DISK_HONEST,
    DISK_NO_JOURNAL_SYNC,
    DISK_NO_TABLE_SYNC,
};

/** disk_watch() - keep from now on what is written to files in @directory, which is empty; NULL: no more. */
void disk_watch(const char *directory);

/** disk_mark() - a moment at which @acked tickets of @registered are known to be durable. */
void disk_mark(uint64_t acked, uint64_t registered);

/** disk_moments() - moments are numbered from 0; a call that writes has two, its beginning and its end. */
size_t disk_moments(void);

/** disk_marked() - what was marked last before a moment. */
void disk_marked(size_t moment, uint64_t *ret_acked, uint64_t *ret_registered);

/** disk_image() - what may be in the directory after a crash at @moment, into the empty directory @to. */
void disk_image(size_t moment,
                uint64_t seed,
                enum disk_luck luck,
                size_t sector,
                enum disk_lie lie,
                const char *to);

/** disk_forget() - what was kept. */
void disk_forget(void);

/** disk_fail() - the @nth call of a kind from now on fails, counted from 1. */
void disk_fail(enum disk_call call, uint64_t nth, enum disk_fault fault);

/** disk_spare() - the allocations of this thread do not count and do not fail, because they are the test's. */
void disk_spare(bool is_spared);

/** disk_heal() - no call fails any more. Return: whether one has. */
bool disk_heal(void);

/** disk_calls() - how many there were since disk_fail() or disk_heal(). */
uint64_t disk_calls(enum disk_call call);

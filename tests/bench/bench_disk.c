/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No broker at all: what one durable write costs here. A page of a file that is written already, then fdatasync(); the same file
 * system as that of the brokers.
 */
#include "tests/bench/bench.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE  4096
#define PAGES 256

/* A broker that does nothing. */
static pid_t broker_start(void)
{
    const char *const argv[] = {"sleep", "infinity", NULL};
    return bench_exec(argv);
}

static void write_page(int fd, uint64_t i)
{
    static uint8_t page[PAGE];
    memset(page, (int)i, sizeof(page));
    if (pwrite(fd, page, sizeof(page), (off_t)(i % PAGES) * PAGE) != PAGE) {
        bench_fail("pwrite: %m");
    }
}

static void synced(uint32_t index)
{
    int fd = open(bench_file("page"), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    for (uint64_t i = 0; i < PAGES; i++) {
        write_page(fd, i);
    }
    if (fd < 0 || fsync(fd) != 0) {
        bench_fail("a file to write: %m");
    }
    bench_synced_ready(index);
    for (uint64_t i = 0;; i++) {
        uint64_t begin = bench_now_ns();
        write_page(fd, i);
        if (fdatasync(fd) != 0) {
            bench_fail("fdatasync: %m");
        }
        bench_histogram_add(bench_now_ns() - begin);
        bench_acked(index, 1);
    }
}

extern const struct bench_contestant bench_disk;
const struct bench_contestant bench_disk = {
    .name = "disk",
    .broker_start = broker_start,
    .synced = synced,
};

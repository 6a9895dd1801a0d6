/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel counted, and the histogram of durations. */
#include "tests/bench/bench.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_PER_S        UINT64_C(1000000000)
#define FINE_BITS       5 /* buckets for each power of two, as a power of two */
#define FINE            (1U << FINE_BITS)
#define STAT_FIELDS     8
#define STAT_FIELD_IDLE 3
#define STAT_FIELD_WAIT 4

/* The first number of the line of @path that begins with @key; 0 if there is none. */
static uint64_t read_number(const char *path, const char *key)
{
    char line[256];
    uint64_t number = 0;
    size_t len = strlen(key);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return 0;
    }
    while (number == 0 && fgets(line, sizeof(line), file) != NULL) {
        number = strncmp(line, key, len) == 0 ? strtoull(line + len, NULL, 10) : 0;
    }
    (void)fclose(file);
    return number;
}

uint64_t bench_cpu_ns(pid_t pid)
{
    char path[64];
    uint64_t sum = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return 0;
    }
    for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char file[352];
        (void)snprintf(file, sizeof(file), "%s/%s/schedstat", path, entry->d_name);
        sum += entry->d_name[0] == '.' ? 0 : read_number(file, "");
    }
    (void)closedir(dir);
    return sum;
}

uint64_t bench_machine_ns(void)
{
    static const char key[] = "cpu ";
    char line[256] = "";
    uint64_t sum = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (file == NULL || fgets(line, sizeof(line), file) == NULL || strncmp(line, key, sizeof(key) - 1) != 0) {
        bench_fail("/proc/stat is not as expected");
    }
    (void)fclose(file);
    char *at = line + sizeof(key) - 1;
    for (size_t i = 0; i < STAT_FIELDS; i++) {
        uint64_t ticks = strtoull(at, &at, 10);
        sum += i == STAT_FIELD_IDLE || i == STAT_FIELD_WAIT ? 0 : ticks;
    }
    return sum * (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

uint64_t bench_rss_kib(pid_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    return read_number(path, "VmRSS:");
}

void bench_histogram_add(uint64_t ns)
{
    size_t bucket = (size_t)ns;
    if (ns >= FINE) {
        unsigned exponent = 63U - (unsigned)__builtin_clzll(ns);
        bucket = (size_t)(exponent - FINE_BITS + 1) * FINE + ((ns >> (exponent - FINE_BITS)) & (FINE - 1));
    }
    atomic_fetch_add_explicit(&bench_board->histogram[bucket], 1, memory_order_relaxed);
}

static uint64_t bucket_middle(size_t bucket)
{
    if (bucket < FINE) {
        return bucket;
    }
    unsigned shift = (unsigned)(bucket / FINE) - 1;
    return ((FINE + bucket % FINE) << shift) + ((UINT64_C(1) << shift) / 2);
}

uint64_t bench_histogram_quantile(const uint64_t histogram[BENCH_BUCKETS], double q)
{
    uint64_t all = 0;
    uint64_t below = 0;
    for (size_t i = 0; i < BENCH_BUCKETS; i++) {
        all += histogram[i];
    }
    for (size_t i = 0; i < BENCH_BUCKETS && all > 0; i++) {
        below += histogram[i];
        if ((double)below >= q * (double)all) {
            return bucket_middle(i);
        }
    }
    return 0;
}

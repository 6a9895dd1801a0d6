/* SPDX-License-Identifier: Apache-2.0 */
/* bench_peers: the command line of one run. peers.sh calls it for every row and repetition. */
#include "tests/bench/bench.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WINDOW_BYTES  (UINT64_C(8) << 20)
#define WINDOW_EVENTS 32768
#define SIZE_MIN      16

extern const struct bench_contestant bench_busbar, bench_nats, bench_redis, bench_mosquitto, bench_raw,
    bench_zmq_proxy, bench_zmq_round, bench_disk;

const struct bench_contestant *const bench_contestants[] = {
    &bench_busbar,    &bench_nats, &bench_redis, &bench_mosquitto, &bench_raw, &bench_zmq_proxy,
    &bench_zmq_round, &bench_disk, NULL,
};

struct bench_config bench_config = {
    .contestant = "busbar",
    .transport = "tcp",
    .busbard = "busbard",
    .size = 128,
    .publishers = 1,
    .subscribers = 1,
    .clients = 1000,
    .inflight = 1,
    .events = 4000000,
    .warm_ms = 300,
    .sample_ms = 500,
    .tries = 12,
};
struct bench_board *bench_board;
uint32_t bench_subscriber_index;

struct number_row {
    const char *name;
    uint64_t *value;
    uint64_t max;
};

struct text_row {
    const char *name;
    const char **value;
};

#define NUMBER(field, max)               \
    {                                    \
#        field, &bench_config.field, max \
    }

static const struct number_row number_rows[] = {
    NUMBER(size, 1 << 20),
    NUMBER(publishers, BENCH_ROLES_MAX),
    NUMBER(subscribers, BENCH_ROLES_MAX),
    NUMBER(pairs, 1),
    NUMBER(batch, 1 << 20),
    NUMBER(unbatched, 1),
    NUMBER(embedded, 1),
    NUMBER(plain, 1),
    NUMBER(window, UINT32_MAX),
    NUMBER(inflight, 1 << 20),
    NUMBER(events, UINT32_MAX),
    NUMBER(rate, 1000000),
    NUMBER(clients, 10000),
    NUMBER(warm_ms, 60000),
    NUMBER(sample_ms, 60000),
    NUMBER(tries, 100),
};

static const struct text_row text_rows[] = {
    {"busbard", &bench_config.busbard},
    {"option", &bench_config.option},
    {"perf", &bench_config.perf},
    {"transport", &bench_config.transport},
};

static const char *const mode_names[] = {
    [BENCH_FLOW] = "flow",     [BENCH_ROUND] = "round", [BENCH_CLIENTS] = "clients",
    [BENCH_SYNCED] = "synced", [BENCH_READ] = "read",
};

static bool set_option(const char *name, size_t len, const char *value)
{
    for (size_t i = 0; i < BB_COUNT(text_rows); i++) {
        if (strlen(text_rows[i].name) == len && memcmp(text_rows[i].name, name, len) == 0) {
            *text_rows[i].value = value;
            return true;
        }
    }
    for (size_t i = 0; i < BB_COUNT(number_rows); i++) {
        if (strlen(number_rows[i].name) == len && memcmp(number_rows[i].name, name, len) == 0) {
            char *end = NULL;
            errno = 0;
            unsigned long long number = strtoull(value, &end, 10);
            *number_rows[i].value = number;
            return errno == 0 && end != value && *end == 0 && number <= number_rows[i].max;
        }
    }
    return false;
}

static const struct bench_contestant *find_contestant(const char *name)
{
    for (size_t i = 0; bench_contestants[i] != NULL; i++) {
        if (strcmp(bench_contestants[i]->name, name) == 0) {
            return bench_contestants[i];
        }
    }
    return NULL;
}

static int usage(void)
{
    (void)fprintf(
        stderr, "usage: bench_peers flow|round|clients|synced|read CONTESTANT [NAME=VALUE]...\ncontestants:");
    for (size_t i = 0; bench_contestants[i] != NULL; i++) {
        (void)fprintf(stderr, " %s", bench_contestants[i]->name);
    }
    (void)fprintf(stderr, "\nnames:");
    for (size_t i = 0; i < BB_COUNT(text_rows); i++) {
        (void)fprintf(stderr, " %s", text_rows[i].name);
    }
    for (size_t i = 0; i < BB_COUNT(number_rows); i++) {
        (void)fprintf(stderr, " %s", number_rows[i].name);
    }
    (void)fprintf(
        stderr, "\nprints: published/s received/s broker-us publisher-us subscriber-us p50-us p99-us rss-KiB "
                "client-KiB connect-ms idle-ms/s foreign-cores lost\n");
    return 2;
}

static bool parse(int argc, char **argv, const struct bench_contestant **ret_contestant)
{
    size_t mode = 0;
    while (argc > 2 && mode < BB_COUNT(mode_names) && strcmp(mode_names[mode], argv[1]) != 0) {
        mode++;
    }
    const struct bench_contestant *contestant = argc > 2 ? find_contestant(argv[2]) : NULL;
    if (contestant == NULL || mode == BB_COUNT(mode_names)) {
        return false;
    }
    bench_config.mode = (enum bench_mode)mode;
    bench_config.contestant = contestant->name;
    for (int i = 3; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        if (equals == NULL || !set_option(argv[i], (size_t)(equals - argv[i]), equals + 1)) {
            (void)fprintf(stderr, "bench_peers: %s is not acceptable\n", argv[i]);
            return false;
        }
    }
    *ret_contestant = contestant;
    return bench_config.size >= SIZE_MIN;
}

static bool can_run(const struct bench_contestant *contestant)
{
    switch (bench_config.mode) {
    case BENCH_FLOW:
        return contestant->publish != NULL;
    case BENCH_ROUND:
        return contestant->request != NULL;
    case BENCH_CLIENTS:
        return contestant->clients_open != NULL;
    case BENCH_SYNCED:
        return contestant->synced != NULL && bench_config.inflight > 0;
    case BENCH_READ:
        return contestant->fill != NULL && bench_config.events > 0;
    }
    return false;
}

int main(int argc, char **argv)
{
    const struct bench_contestant *contestant = NULL;
    if (!parse(argc, argv, &contestant) || !can_run(contestant)) {
        return usage();
    }
    if (bench_config.window == 0) {
        uint64_t fits = WINDOW_BYTES / bench_config.size;
        bench_config.window = fits < WINDOW_EVENTS ? fits : WINDOW_EVENTS;
    }
    bench_board = mmap(NULL, sizeof(*bench_board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (bench_board == MAP_FAILED) {
        return EXIT_FAILURE;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    return bench_run(contestant);
}

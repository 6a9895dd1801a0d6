/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The benchmark beside other systems: what its files share.
 *
 * One run measures one contestant. The driver forks the broker, the publishers and the subscribers; they share
 * one struct bench_board, which carries the flags, the counters and with these the flow window: a publisher
 * has at most `window` events outstanding against its slowest subscriber. So a figure is what was delivered,
 * for every contestant in the same way, and never the rate at which a queue fills.
 *
 * Errors end the process: there is nobody to tell, and the driver notices.
 */
#pragma once

#include "proto/base/cc.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BENCH_ROLES_MAX 16   /* publishers, and subscribers, of a run */
#define BENCH_BUCKETS   2048 /* of the histogram: 32 for each power of two */
#define BENCH_PORTS     2
#define BENCH_PATH_LEN  20

enum bench_mode {
    BENCH_FLOW,    /* publishers to subscribers through the broker, flooded or at a rate */
    BENCH_ROUND,   /* one request and its reply at a time */
    BENCH_CLIENTS, /* many clients that do nothing */
    BENCH_SYNCED,  /* publishers that want every event acknowledged when it is on disk; nobody subscribes */
    BENCH_READ,    /* a subscriber reads what is kept, from the beginning to the end */
};

struct bench_config {
    enum bench_mode mode;
    const char *contestant;
    const char *transport; /* tcp or ipc */
    const char *busbard;   /* its file */
    const char *option;    /* one more argument of busbard, or NULL */
    const char *perf;      /* file for perf record of the broker, or NULL */
    uint64_t size;         /* bytes of a payload, at least 16 */
    uint64_t publishers;
    uint64_t subscribers;
    uint64_t pairs;     /* 1: publisher i is heard by subscriber i only */
    uint64_t batch;     /* bytes of a batch, where the contestant lets the client choose; 0: none */
    uint64_t unbatched; /* busbar: every event its own message */
    uint64_t embedded;  /* busbar: no I/O thread, the caller's loop */
    uint64_t plain;     /* busbar: the publisher is a DEALER without our library, one bare event a message */
    uint64_t window;    /* events outstanding for each publisher; 0: 8 MiB, at most 32,768 */
    uint64_t inflight;  /* synced: events of each publisher that are not acknowledged */
    uint64_t events;    /* read: how many are kept */
    uint64_t rate;      /* events a second of each publisher, or requests; 0: as fast as it goes */
    uint64_t clients;
    uint64_t warm_ms;
    uint64_t sample_ms;
    uint64_t tries; /* samples taken at most while others use the machine */
};

struct bench_subscriber {
    _Alignas(128) _Atomic uint64_t received[BENCH_ROLES_MAX]; /* by publisher */
    _Atomic bool ready;
};

struct bench_publisher {
    _Alignas(128) _Atomic uint64_t sent;
    _Atomic bool ready;
};

struct bench_board {
    _Atomic bool start;
    _Atomic bool lost; /* an event was lost or changed */
    _Atomic uint64_t connect_ns;
    struct bench_subscriber subscribers[BENCH_ROLES_MAX];
    struct bench_publisher publishers[BENCH_ROLES_MAX];
    _Atomic uint64_t histogram[BENCH_BUCKETS]; /* nanoseconds */
};

/* A contestant. All but the broker's start runs in the process of a role, on its only thread. */
struct bench_contestant {
    const char *name;
    char separator; /* of the segments of a path */
    pid_t (*broker_start)(void);
    void *(*publisher_open)(uint32_t index);
    void (*publish)(void *publisher, const char *path, const void *data, size_t len);
    void (*flush)(void *publisher); /* NULL where the client sends by itself */
    void *(*subscriber_open)(const char *path);
    void (*receive)(void *subscriber); /* waits 100 ms at most, gives every event to bench_received() */
    void (*reply)(void);               /* calls bench_replier_ready(), answers requests, never returns */
    void *(*requester_open)(void);
    void (*request)(void *requester, void *data, size_t len); /* returns with the reply */
    void (*clients_open)(uint64_t n);
    void (*synced)(uint32_t index); /* bench_synced_ready(), then publishes for ever, bench_acked() */
    void (*fill)(const char *path, uint64_t n); /* publishes events that are kept; returns when all are */
    void *(*reader_open)(const char *path);     /* as subscriber_open, from the beginning of what is kept */
};

extern const struct bench_contestant *const bench_contestants[];

/* Set before the first fork, then constant; the exception to the rule about globals that a harness may have. */
extern struct bench_config bench_config;
extern struct bench_board *bench_board;
extern uint32_t bench_subscriber_index; /* in the process of a subscriber */

/* --- driver.c, roles.c -------------------------------------------------------------------------- */

/** bench_run() - measure as bench_config says and print one line; an exit code. */
int bench_run(const struct bench_contestant *contestant);

/** bench_received() - count one event of this subscriber; payload[0] is its publisher. */
void bench_received(const void *payload, size_t len);

/** bench_replier_ready() - requests may come. */
void bench_replier_ready(void);

/** bench_synced_ready() - wait for the start. bench_acked() - @n more events of publisher @index are on disk. */
void bench_synced_ready(uint32_t index);
void bench_acked(uint32_t index, uint64_t n);

/** bench_is_kept() - whether the broker of this run keeps events on disk. */
bool bench_is_kept(void);

/** bench_payload_new() - a payload of publisher @index; never NULL. */
uint8_t *bench_payload_new(uint32_t index);

/** bench_publisher_run(), bench_subscriber_run(), ... - the processes; they never return. */
void bench_publisher_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));
void bench_subscriber_run(const struct bench_contestant *contestant, uint32_t index)
    __attribute__((noreturn));
void bench_requester_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));
void bench_replier_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));
void bench_clients_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));
void bench_synced_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));
void bench_filler_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));
void bench_reader_run(const struct bench_contestant *contestant, uint32_t index) __attribute__((noreturn));

/* --- sample.c ----------------------------------------------------------------------------------- */

/** bench_cpu_ns() - CPU time of all threads of a process. */
uint64_t bench_cpu_ns(pid_t pid);

/** bench_machine_ns() - CPU time that the whole machine spent, whoever spent it. */
uint64_t bench_machine_ns(void);

/** bench_rss_kib() - resident memory of a process. */
uint64_t bench_rss_kib(pid_t pid);

/** bench_histogram_add() - count one duration. */
void bench_histogram_add(uint64_t ns);

/** bench_histogram_quantile() - the duration that the part @q of all does not exceed, 3 % at most off. */
uint64_t bench_histogram_quantile(const uint64_t histogram[BENCH_BUCKETS], double q);

/* --- process.c ---------------------------------------------------------------------------------- */

/** bench_fail() - say why and end the process. */
void bench_fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

uint64_t bench_now_ns(void);
void bench_sleep_us(uint64_t us);
void bench_sleep_until_ns(uint64_t ns);

/** bench_setup() - the directory and the ports of this run; bench_cleanup() - remove the directory. */
void bench_setup(void);
void bench_cleanup(void);

/** bench_file() - the path of a file in the directory of the run; valid for the next 7 calls. */
const char *bench_file(const char *name);

/** bench_port() - a port that was free when the run began. */
uint16_t bench_port(size_t i);

/** bench_endpoint() - the same as ZeroMQ writes it, for the transport of the run; valid as bench_file(). */
const char *bench_endpoint(size_t i);

/** bench_is_ipc() - whether the run goes over sockets in the file system. */
bool bench_is_ipc(void);

/** bench_fork() - fork() a process that ends with its parent. */
pid_t bench_fork(void);

/** bench_exec() - run a program in such a process, its output in the directory of the run. */
pid_t bench_exec(const char *const argv[]);

/** bench_connect() - connect to bench_endpoint() @i, tried for five seconds. */
int bench_connect(size_t i);

/** bench_listen() - listen there. */
int bench_listen(size_t i);

/** bench_write() - write all of it. */
void bench_write(int fd, const void *data, size_t len);

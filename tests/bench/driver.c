/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The driver: starts the processes of a run, samples them in their steady state and prints one line.
 *
 * A sample is two snapshots of all counters and CPU times. What other processes spent meanwhile is the CPU time
 * of the machine without ours; while that is above QUIET_CORES the sample is taken again, and the quietest one
 * counts.
 */
#include "tests/bench/bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NS_PER_S     1e9
#define NS_PER_US    1e3
#define READY_NS     UINT64_C(30000000000)
#define QUIET_CORES  0.12
#define QUIET_WAITS  50 /* of 100 ms before the run */
#define QUIET_US     100000
#define QUIET_NS     UINT64_C(10000000)
#define SETTLE_US    300000
#define IDLE_US      2000000
#define READ_POLL_US 500
#define KIDS_MAX     (2 * BENCH_ROLES_MAX)

typedef void role_fn(const struct bench_contestant *contestant, uint32_t index);

struct run {
    const struct bench_contestant *contestant;
    pid_t broker;
    pid_t kids[KIDS_MAX];
    bool is_publisher[KIDS_MAX];
    size_t n_kids;
};

struct snapshot {
    uint64_t ns;
    uint64_t published;
    uint64_t received;
    uint64_t broker_ns;
    uint64_t publishers_ns;
    uint64_t subscribers_ns;
    uint64_t own_ns; /* of the driver */
    uint64_t machine_ns;
};

struct sample {
    struct snapshot a;
    struct snapshot b;
    double foreign; /* cores that others used */
    uint64_t histogram[BENCH_BUCKETS];
};

struct clients_figures {
    double rss_kib;
    double client_kib;
    double connect_ms;
    double idle_ms_s;
};

static void end_run(struct run *run)
{
    for (size_t i = 0; i < run->n_kids; i++) {
        (void)kill(run->kids[i], SIGKILL);
        (void)waitpid(run->kids[i], NULL, 0);
    }
    (void)kill(run->broker, SIGKILL);
    (void)waitpid(run->broker, NULL, 0);
    bench_cleanup();
}

static void fail_run(struct run *run, const char *why)
{
    end_run(run);
    bench_fail("%s", why);
}

static void fork_role(struct run *run, role_fn *fn, uint32_t index, bool is_publisher)
{
    pid_t pid = bench_fork();
    if (pid == 0) {
        fn(run->contestant, index);
    }
    run->is_publisher[run->n_kids] = is_publisher;
    run->kids[run->n_kids++] = pid;
}

static void wait_ready(struct run *run, const _Atomic bool *flag, const char *who)
{
    uint64_t begin = bench_now_ns();
    while (!atomic_load(flag)) {
        char why[64];
        pid_t ended = waitpid(-1, NULL, WNOHANG);
        if (ended > 0 || bench_now_ns() - begin > READY_NS) {
            (void)snprintf(why, sizeof(why), "%s while the %s was awaited",
                           ended <= 0             ? "nothing happened"
                           : ended == run->broker ? "the broker ended"
                                                  : "a process ended",
                           who);
            fail_run(run, why);
        }
        bench_sleep_us(1000);
    }
}

static struct snapshot take_snapshot(const struct run *run)
{
    struct snapshot now = {.machine_ns = bench_machine_ns(), .own_ns = bench_cpu_ns(getpid())};
    for (size_t i = 0; i < run->n_kids; i++) {
        uint64_t *sum = run->is_publisher[i] ? &now.publishers_ns : &now.subscribers_ns;
        *sum += bench_cpu_ns(run->kids[i]);
    }
    now.broker_ns = bench_cpu_ns(run->broker);
    for (size_t i = 0; i < BENCH_ROLES_MAX; i++) {
        now.published += atomic_load(&bench_board->publishers[i].sent);
        for (size_t j = 0; j < BENCH_ROLES_MAX; j++) {
            now.received += atomic_load(&bench_board->subscribers[i].received[j]);
        }
    }
    now.ns = bench_now_ns();
    return now;
}

static double foreign_cores(const struct snapshot *a, const struct snapshot *b)
{
    uint64_t own = b->broker_ns - a->broker_ns + b->publishers_ns - a->publishers_ns + b->subscribers_ns -
                   a->subscribers_ns + b->own_ns - a->own_ns;
    return ((double)(b->machine_ns - a->machine_ns) - (double)own) / (double)(b->ns - a->ns);
}

static pid_t perf_start(const struct run *run)
{
    char pid[16];
    char seconds[24];
    (void)snprintf(pid, sizeof(pid), "%d", (int)run->broker);
    (void)snprintf(seconds, sizeof(seconds), "%.3f", (double)bench_config.sample_ms / 1e3);
    const char *const argv[] = {
        "perf", "record", "-q", "-F",    "1999",  "-o", bench_config.perf,
        "-p",   pid,      "--", "sleep", seconds, NULL,
    };
    return bench_exec(argv);
}

static void take_sample(const struct run *run, struct sample *ret_sample)
{
    ret_sample->foreign = 1e9;
    bench_sleep_us(bench_config.warm_ms * 1000);
    for (uint64_t i = 0; i < bench_config.tries && ret_sample->foreign > QUIET_CORES; i++) {
        memset(bench_board->histogram, 0, sizeof(bench_board->histogram));
        pid_t perf = bench_config.perf != NULL ? perf_start(run) : 0;
        struct snapshot a = take_snapshot(run);
        bench_sleep_us(bench_config.sample_ms * 1000);
        struct snapshot b = take_snapshot(run);
        double foreign = foreign_cores(&a, &b);
        if (foreign < ret_sample->foreign) {
            ret_sample->a = a;
            ret_sample->b = b;
            ret_sample->foreign = foreign;
            memcpy(ret_sample->histogram, bench_board->histogram, sizeof(ret_sample->histogram));
        }
        if (perf > 0) {
            (void)waitpid(perf, NULL, 0);
            return;
        }
    }
}

static double each_us(uint64_t ns, uint64_t n)
{
    return n > 0 ? (double)ns / NS_PER_US / (double)n : 0;
}

static void print_sample(const struct sample *sample, const struct clients_figures *clients)
{
    const struct snapshot *a = &sample->a;
    const struct snapshot *b = &sample->b;
    double seconds = (double)(b->ns - a->ns) / NS_PER_S;
    uint64_t published = b->published - a->published;
    uint64_t received = b->received - a->received;
    (void)printf("%.0f\t%.0f\t", (double)published / seconds, (double)received / seconds);
    (void)printf("%.4f\t", each_us(b->broker_ns - a->broker_ns, published));
    (void)printf("%.4f\t", each_us(b->publishers_ns - a->publishers_ns, published));
    (void)printf("%.4f\t", each_us(b->subscribers_ns - a->subscribers_ns, received));
    (void)printf("%.1f\t", (double)bench_histogram_quantile(sample->histogram, 0.50) / NS_PER_US);
    (void)printf("%.1f\t", (double)bench_histogram_quantile(sample->histogram, 0.99) / NS_PER_US);
    (void)printf("%.0f\t%.2f\t", clients->rss_kib, clients->client_kib);
    (void)printf("%.1f\t%.3f\t", clients->connect_ms, clients->idle_ms_s);
    (void)printf("%.2f\t%d\n", sample->foreign, atomic_load(&bench_board->lost) ? 1 : 0);
}

static void run_flow(struct run *run)
{
    for (uint32_t i = 0; i < bench_config.subscribers; i++) {
        fork_role(run, bench_subscriber_run, i, false);
    }
    for (uint32_t i = 0; i < bench_config.subscribers; i++) {
        wait_ready(run, &bench_board->subscribers[i].ready, "subscriber");
    }
    for (uint32_t i = 0; i < bench_config.publishers; i++) {
        fork_role(run, bench_publisher_run, i, true);
    }
    for (uint32_t i = 0; i < bench_config.publishers; i++) {
        wait_ready(run, &bench_board->publishers[i].ready, "publisher");
    }
}

static void run_round(struct run *run)
{
    fork_role(run, bench_replier_run, 0, false);
    wait_ready(run, &bench_board->subscribers[0].ready, "replier");
    fork_role(run, bench_requester_run, 0, true);
    wait_ready(run, &bench_board->publishers[0].ready, "requester");
}

static void run_synced(struct run *run)
{
    for (uint32_t i = 0; i < bench_config.publishers; i++) {
        fork_role(run, bench_synced_run, i, true);
        wait_ready(run, &bench_board->publishers[i].ready, "publisher");
    }
}

/* From the first event that the reader has until the last. */
static void run_read(struct run *run, struct sample *ret_sample)
{
    fork_role(run, bench_filler_run, 0, true);
    wait_ready(run, &bench_board->publishers[0].ready, "events");
    bench_sleep_us(SETTLE_US);
    const _Atomic uint64_t *received = &bench_board->subscribers[0].received[0];
    fork_role(run, bench_reader_run, 0, false);
    uint64_t begin = bench_now_ns();
    while (atomic_load(received) == 0 && bench_now_ns() - begin < READY_NS) {
        bench_sleep_us(READ_POLL_US);
    }
    pid_t perf = bench_config.perf != NULL ? perf_start(run) : 0;
    ret_sample->a = take_snapshot(run);
    while (atomic_load(received) < bench_config.events && !atomic_load(&bench_board->lost)) {
        if (bench_now_ns() - begin > READY_NS) {
            fail_run(run, "the reader did not get to the end");
        }
        bench_sleep_us(READ_POLL_US);
    }
    ret_sample->b = take_snapshot(run);
    ret_sample->b.published +=
        ret_sample->b.received - ret_sample->a.received; /* what CPU time is divided by */
    ret_sample->foreign = foreign_cores(&ret_sample->a, &ret_sample->b);
    if (perf > 0) {
        (void)waitpid(perf, NULL, 0);
    }
}

static void run_clients(struct run *run, struct sample *ret_sample, struct clients_figures *ret_clients)
{
    bench_sleep_us(SETTLE_US);
    uint64_t rss = bench_rss_kib(run->broker);
    fork_role(run, bench_clients_run, 0, true);
    wait_ready(run, &bench_board->publishers[0].ready, "clients");
    bench_sleep_us(SETTLE_US);
    ret_sample->a = take_snapshot(run);
    bench_sleep_us(IDLE_US);
    ret_sample->b = take_snapshot(run);
    ret_sample->foreign = foreign_cores(&ret_sample->a, &ret_sample->b);
    ret_clients->rss_kib = (double)rss;
    ret_clients->client_kib =
        ((double)bench_rss_kib(run->broker) - (double)rss) / (double)bench_config.clients;
    ret_clients->connect_ms = (double)atomic_load(&bench_board->connect_ns) / 1e6;
    ret_clients->idle_ms_s = (double)(ret_sample->b.broker_ns - ret_sample->a.broker_ns) / 1e6 /
                             ((double)(ret_sample->b.ns - ret_sample->a.ns) / NS_PER_S);
}

/* Lets a burst of others pass. */
static void wait_quiet(void)
{
    for (unsigned i = 0; i < QUIET_WAITS; i++) {
        uint64_t before = bench_machine_ns();
        bench_sleep_us(QUIET_US);
        if (bench_machine_ns() - before <= QUIET_NS) {
            return;
        }
    }
}

int bench_run(const struct bench_contestant *contestant)
{
    struct run run = {.contestant = contestant};
    struct clients_figures clients = {0};
    static struct sample sample;
    bench_setup();
    wait_quiet();
    run.broker = contestant->broker_start();
    switch (bench_config.mode) {
    case BENCH_FLOW:
        run_flow(&run);
        break;
    case BENCH_ROUND:
        run_round(&run);
        break;
    case BENCH_SYNCED:
        run_synced(&run);
        break;
    case BENCH_CLIENTS:
        run_clients(&run, &sample, &clients);
        break;
    case BENCH_READ:
        run_read(&run, &sample);
        break;
    }
    if (bench_config.mode != BENCH_CLIENTS && bench_config.mode != BENCH_READ) {
        atomic_store(&bench_board->start, true);
        take_sample(&run, &sample);
    }
    print_sample(&sample, &clients);
    end_run(&run);
    return EXIT_SUCCESS;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One publisher, two subscribers, all processes; one subscriber is stopped in the middle.
 *
 *     stopped BUSBARD [EVENTS [SECONDS]]
 *
 * What each subscriber got plus what it was told it lost must be what was published; the one that went on must miss
 * nothing; the broker's memory must stay below its bound. Prints how fast the publisher was before, beside and after
 * the stopped one. Without SECONDS the subscriber is stopped until a third of the events is published.
 */
#include "bus/busbar.h"
#include "tests/check.h"
#include "tests/race/child.h"

#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS 60000
#define PAYLOAD     128

/* Published and not yet seen by the subscriber that goes on, so that its ring never ends before it. */
#define WINDOW 32768

/* --memory and --inflight-all default to 256 MiB each; one channel uses its ring of 16 MiB. */
#define RSS_MAX_KB (96L << 10)

struct tally {
    atomic_ulong events;
    atomic_ulong lost;
    atomic_bool is_ready;
};

static void on_events(bb_subscription *sub, const struct bb_event *events, size_t n, void *arg)
{
    struct tally *tally = arg;
    (void)sub;
    for (size_t i = 0; i < n; i++) {
        if (events[i].gap == NULL) {
            CHECK_INT(events[i].len, PAYLOAD);
            atomic_fetch_add(&tally->events, 1);
        } else {
            CHECK(events[i].gap->count != BB_UNKNOWN);
            atomic_fetch_add(&tally->lost, events[i].gap->count);
        }
    }
}

static pid_t subscriber_start(const char *url, struct tally *tally)
{
    const char *const patterns[] = {"stopped/*"};
    struct bb_options options = BB_OPTIONS_INIT;
    struct bb_subscribe_options to_all = BB_SUBSCRIBE_OPTIONS_INIT;
    bb_bus *bus;
    bb_subscription *sub;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        return pid;
    }
    options.url = url;
    options.heartbeat_ms = 0; /* being stopped is not being gone */
    to_all.patterns = patterns;
    to_all.n_patterns = 1;
    to_all.on_events = on_events;
    to_all.arg = tally;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    CHECK_INT(bb_subscribe(bus, &to_all, PATIENCE_MS, &sub), 0);
    atomic_store(&tally->is_ready, true);
    for (;;) {
        (void)pause();
    }
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Gives up the processor until @tally has heard of @n events. */
static void wait_for(struct tally *tally, unsigned long n)
{
    double end = now() + PATIENCE_MS / 1000.0;
    while (atomic_load(&tally->events) + atomic_load(&tally->lost) < n) {
        CHECK(now() < end);
        (void)sched_yield();
    }
}

/* Publish up to @n in all and, if @until is later, until then; returns events a second. */
static double
publish(bb_bus *bus, struct tally *healthy, unsigned long *published, unsigned long n, double until)
{
    static const char payload[PAYLOAD] = "payload";
    unsigned long first = *published;
    double start = now();
    while (*published < n || now() < until) {
        for (int i = 0; i < 1024; i++, ++*published) {
            CHECK_INT(bb_publish(bus, "stopped/here", BB_PAYLOAD_BINARY, payload, sizeof(payload)), 0);
        }
        if (*published > WINDOW) {
            wait_for(healthy, *published - WINDOW);
        }
    }
    return (double)(*published - first) / (now() - start);
}

static long rss_kb(pid_t pid)
{
    char path[64];
    char line[256];
    long kb = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL);
    while (fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) {
            kb = strtol(line + 6, NULL, 10);
        }
    }
    (void)fclose(file);
    return kb;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 2);
    unsigned long total = argc > 2 ? strtoul(argv[2], NULL, 10) : 600000;
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 0;
    struct child child;
    struct tally *tallies =
        mmap(NULL, 2 * sizeof(*tallies), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(tallies != MAP_FAILED);
    child_start(&child, argv[1]);
    pid_t healthy = subscriber_start(child.url, &tallies[0]);
    pid_t stopped = subscriber_start(child.url, &tallies[1]);
    struct bb_options options = BB_OPTIONS_INIT;
    bb_bus *bus;
    unsigned long published = 0;
    options.url = child.url;
    CHECK_INT(bb_bus_open(&options, &bus), 0);
    while (!atomic_load(&tallies[0].is_ready) || !atomic_load(&tallies[1].is_ready)) {
        (void)sched_yield();
    }
    double before = publish(bus, &tallies[0], &published, total / 3, 0);
    CHECK_INT(kill(stopped, SIGSTOP), 0);
    double beside = publish(bus, &tallies[0], &published, 2 * total / 3, now() + seconds);
    long rss = rss_kb(child.pid);
    CHECK_INT(kill(stopped, SIGCONT), 0);
    double after = publish(bus, &tallies[0], &published, published + total / 3, 0);
    CHECK_INT(bb_bus_flush(bus, PATIENCE_MS), 0);
    wait_for(&tallies[0], published);
    wait_for(&tallies[1], published);
    (void)printf("published %lu; %.2f M/s before, %.2f M/s beside the stopped one, %.2f M/s after\n",
                 published, before / 1e6, beside / 1e6, after / 1e6);
    for (int i = 0; i < 2; i++) {
        unsigned long events = atomic_load(&tallies[i].events);
        unsigned long lost = atomic_load(&tallies[i].lost);
        (void)printf("%s: %lu delivered + %lu in gaps = %lu\n", i == 0 ? "went on" : "stopped", events, lost,
                     events + lost);
        CHECK_INT(events + lost, published);
    }
    CHECK_INT(atomic_load(&tallies[0].lost), 0);
    (void)printf("broker memory %ld KiB\n", rss);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    CHECK(rss < RSS_MAX_KB);
#endif
    CHECK_INT(bb_bus_close(bus), 0);
    CHECK_INT(kill(healthy, SIGKILL), 0);
    CHECK_INT(kill(stopped, SIGKILL), 0);
    CHECK(waitpid(healthy, NULL, 0) == healthy && waitpid(stopped, NULL, 0) == stopped);
    child_stop(&child);
    return 0;
}

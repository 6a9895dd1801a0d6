/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thousands of small worlds, one a seed. Workers are processes, so that a crash costs one seed and names it.
 *
 *   test_sim [--seeds A..B] [--steps N] [--workers N]   many worlds
 *   test_sim --seed N [--steps N] [-v]                  one world again
 *   test_sim --sabotage                                 worlds that must fail: do the checks see it?
 */
#include "tests/sim/world.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define STEPS_DEFAULT 1500
#define WORKERS_MAX   16

/* Every so many worlds one is lived through twice: the same seed must give the same bytes. */
#define TWICE_EVERY 50

struct options {
    uint64_t first;
    uint64_t last;
    uint64_t n_steps;
    uint64_t n_workers;
    bool sabotages;
    bool is_talkative;
};

struct tally {
    uint64_t n_tested;
    uint64_t n_failing;
    uint64_t n_crashing;
    uint64_t n_steps;
    uint64_t n_events;
    uint64_t n_gaps;
    uint64_t n_runs;
};

/* What a worker tells: a seed begins, or is over. */
struct report {
    uint64_t seed;
    bool is_over;
    struct world_result result;
};

static void live(const struct options *options, uint64_t seed, struct world_result *ret_result)
{
    world_run(seed, options->n_steps, SABOTAGE_NONE, options->is_talkative, ret_result);
    if (seed % TWICE_EVERY == 0 && !ret_result->failed) {
        struct world_result again;
        world_run(seed, options->n_steps, SABOTAGE_NONE, false, &again);
        if (again.hash != ret_result->hash || again.n_steps != ret_result->n_steps) {
            ret_result->failed = true;
            (void)snprintf(ret_result->why, sizeof(ret_result->why), "a second run of the seed differs");
        }
    }
}

static void tally_add(struct tally *tally,
                      const struct options *options,
                      uint64_t seed,
                      const struct world_result *result)
{
    tally->n_tested++;
    tally->n_steps += result->n_steps;
    tally->n_events += result->n_events;
    tally->n_gaps += result->n_gaps;
    tally->n_runs += result->n_runs;
    if (result->failed) {
        tally->n_failing++;
        (void)printf("[FAIL] seed %" PRIu64 " step %" PRIu64 ": %s\n       test_sim --seed %" PRIu64
                     " --steps %" PRIu64 " -v\n",
                     seed, result->n_steps, result->why, seed, options->n_steps);
        (void)fflush(stdout);
    }
}

/* --- workers -------------------------------------------------------------------------------------- */

struct worker {
    pid_t pid;
    int fd;
    uint64_t next; /* seed */
};

static bool write_report(int fd, const struct report *report)
{
    return write(fd, report, sizeof(*report)) == (ssize_t)sizeof(*report); /* atomic: smaller than PIPE_BUF */
}

static int work(const struct options *options, uint64_t first, int fd)
{
    for (uint64_t seed = first; seed <= options->last; seed += options->n_workers) {
        struct report report = {.seed = seed};
        if (!write_report(fd, &report)) {
            return 1;
        }
        live(options, seed, &report.result);
        report.is_over = true;
        if (!write_report(fd, &report)) {
            return 1;
        }
    }
    return 0;
}

/* Returns true in the child, which then must end with *@ret_status. */
static bool worker_start(const struct options *options, struct worker *worker, int *ret_status)
{
    int fds[2];
    (void)fflush(NULL);
    if (pipe(fds) < 0 || (worker->pid = fork()) < 0) {
        perror("test_sim");
        abort();
    }
    if (worker->pid == 0) {
        (void)close(fds[0]);
        *ret_status = work(options, worker->next, fds[1]);
        return true;
    }
    (void)close(fds[1]);
    worker->fd = fds[0];
    return false;
}

/* Read until the worker ends; true if it crashed, and must be started again behind that seed. */
static bool worker_follow(const struct options *options, struct worker *worker, struct tally *tally)
{
    struct report report = {0};
    bool in_seed = false;
    int status = 0;
    while (read(worker->fd, &report, sizeof(report)) == (ssize_t)sizeof(report)) {
        in_seed = !report.is_over;
        if (report.is_over) {
            tally_add(tally, options, report.seed, &report.result);
        }
    }
    (void)close(worker->fd);
    (void)waitpid(worker->pid, &status, 0);
    if (status == 0) {
        return false;
    }
    tally->n_crashing++;
    tally->n_tested += in_seed;
    (void)printf("[CRASH] seed %" PRIu64 ", status %d\n", report.seed, status);
    worker->next = report.seed + options->n_workers;
    return in_seed && worker->next <= options->last;
}

static void tally_print(const struct tally *tally)
{
    (void)printf("%" PRIu64 " steps, %" PRIu64 " events, %" PRIu64 " gaps, %" PRIu64 " broker runs\n",
                 tally->n_steps, tally->n_events, tally->n_gaps, tally->n_runs);
    uint64_t n_passing = tally->n_tested - BB_MIN(tally->n_failing + tally->n_crashing, tally->n_tested);
    (void)printf("[====] Synthesis: Tested: %" PRIu64 " | Passing: %" PRIu64 " | Failing: %" PRIu64
                 " | Crashing: %" PRIu64 "\n",
                 tally->n_tested, n_passing, tally->n_failing, tally->n_crashing);
}

static int run_workers(const struct options *options)
{
    struct worker workers[WORKERS_MAX] = {{0}};
    struct tally tally = {0};
    int status = 0;
    for (uint64_t i = 0; i < options->n_workers; i++) {
        workers[i].next = options->first + i;
        if (worker_start(options, &workers[i], &status)) {
            return status;
        }
    }
    for (uint64_t i = 0; i < options->n_workers; i++) {
        while (worker_follow(options, &workers[i], &tally)) {
            if (worker_start(options, &workers[i], &status)) {
                return status;
            }
        }
    }
    tally_print(&tally);
    return tally.n_failing + tally.n_crashing > 0 || tally.n_tested == 0;
}

/* --- the other ways -------------------------------------------------------------------------------- */

static int run_one(const struct options *options)
{
    struct world_result result;
    struct tally tally = {0};
    live(options, options->first, &result);
    tally_add(&tally, options, options->first, &result);
    tally_print(&tally);
    return result.failed;
}

static const char *const sabotage_names[SABOTAGES] = {
    [SABOTAGE_NONE] = "nothing",
    [SABOTAGE_DROP_DELIVER] = "a delivery is dropped",
    [SABOTAGE_REPEAT_DELIVER] = "a delivery comes twice",
    [SABOTAGE_SWAP_DELIVERS] = "two deliveries change places",
    [SABOTAGE_FLIP_BYTE] = "a byte of a payload is flipped",
    [SABOTAGE_DROP_GAP] = "a gap is dropped",
    [SABOTAGE_DROP_ACK] = "an ack is dropped",
    [SABOTAGE_REPEAT_PUBLISH] = "an event is published twice",
    [SABOTAGE_FORGE_CREDIT] = "the core is told of credit that nobody gave",
    [SABOTAGE_DROP_RETRACTED] = "nobody is told that what was shown early is retracted",
    [SABOTAGE_LIE_FLUSHED] = "the disk says that it has what it has not",
    [SABOTAGE_LIE_PRODUCERS] = "the disk forgets how far producers have come",
    [SABOTAGE_LIE_READ] = "events are missing in what the disk reads",
    [SABOTAGE_LIE_LOCATE] = "the disk finds a place that is one too far",
    [SABOTAGE_LIE_QUERY] = "an event is missing in the answer to a query",
    [SABOTAGE_LIE_LATEST] = "the latest event of a path is an older one",
    [SABOTAGE_LIE_CURSORS] = "the disk has cursors that are one too far",
};

/* Each sabotage must be seen in a good part of the worlds in which it happened: a cut or a pause right after it hides it. */
static int run_sabotages(const struct options *options)
{
    struct tally tally = {0};
    for (int kind = SABOTAGE_NONE + 1; kind < SABOTAGES; kind++) {
        uint64_t n_done = 0;
        uint64_t n_seen = 0;
        for (uint64_t seed = 1; seed <= 60; seed++) {
            struct world_result result;
            world_run(seed, options->n_steps, (enum sabotage)kind, false, &result);
            n_done += result.sabotaged;
            n_seen += result.sabotaged && result.failed;
        }
        tally.n_tested++;
        bool is_seen = n_done >= 10 && n_seen * 3 >= n_done;
        tally.n_failing += !is_seen;
        (void)printf("[%s] %s: seen in %" PRIu64 " of %" PRIu64 " worlds\n", is_seen ? "PASS" : "FAIL",
                     sabotage_names[kind], n_seen, n_done);
    }
    tally_print(&tally);
    return tally.n_failing > 0;
}

static bool parse(int argc, char **argv, struct options *options, bool *ret_is_one)
{
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        char *end = NULL;
        if (strcmp(argv[i], "-v") == 0) {
            options->is_talkative = true;
            continue;
        }
        if (strcmp(argv[i], "--sabotage") == 0) {
            options->sabotages = true;
            continue;
        }
        if (value == NULL) {
            return false;
        }
        uint64_t number = strtoull(value, &end, 10);
        if (strcmp(argv[i], "--seed") == 0) {
            options->first = options->last = number;
            *ret_is_one = true;
        } else if (strcmp(argv[i], "--seeds") == 0 && strncmp(end, "..", 2) == 0) {
            options->first = number;
            options->last = strtoull(end + 2, NULL, 10);
        } else if (strcmp(argv[i], "--steps") == 0) {
            options->n_steps = number;
        } else if (strcmp(argv[i], "--workers") == 0 && number >= 1 && number <= WORKERS_MAX) {
            options->n_workers = number;
        } else {
            return false;
        }
        i++;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct options options = {.first = 1, .last = 3000, .n_steps = STEPS_DEFAULT, .n_workers = 2};
    bool is_one = false;
    if (!parse(argc, argv, &options, &is_one)) {
        (void)fprintf(
            stderr,
            "usage: test_sim [--seeds A..B | --seed N | --sabotage] [--steps N] [--workers N] [-v]\n");
        return 2;
    }
    if (options.sabotages) {
        return run_sabotages(&options);
    }
    return is_one ? run_one(&options) : run_workers(&options);
}

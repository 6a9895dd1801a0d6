/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Thousands of small worlds, one a seed. Workers are processes, so that a crash costs one seed and names it.
 *
 *   test_sim [--seeds A..B] [--workers N]   many worlds
 *   test_sim --seed N [-v]                  one world again; if it goes wrong, its shortest story. -v: the
 *   whole story
 *   test_sim --coverage [--seeds A..B]      how often features, and pairs of them, were met
 *   test_sim --kinds [--seeds A..B]         what goes wrong, by kind, and in which seeds
 *   --open FILE                             seeds that are known to fail, and how
 *   test_sim --sabotage                     worlds that must fail: does the judge see it?
 */
#include "tests/sim/coverage.h"
#include "tests/sim/shrink.h"
#include "tests/sim/world.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX 16
#define KINDS_MAX   64
#define KIND_MAX    48
#define OPEN_MAX    512

/* A sabotage is tried in so many worlds, until it has happened so often. */
#define SABOTAGE_SEEDS 600
#define SABOTAGES_MOST 15

/* Every so many worlds one is lived through twice: the same seed must give the same bytes. */
#define TWICE_EVERY 50

/* In one call at most so many failures are told at length. */
#define TOLD_MAX 40

struct options {
    uint64_t first;
    uint64_t last;
    uint64_t n_workers;
    bool sabotages;
    bool covers;
    bool by_kind;
    bool is_talkative;
};

/* What goes wrong in the same way. */
struct kind {
    char name[KIND_MAX];
    uint64_t n;
    uint64_t seeds[6];
};

struct tally {
    uint64_t n_tested;
    uint64_t n_failing;
    uint64_t n_crashing;
    uint64_t n_open; /* failing as they are known to */
    uint64_t n_steps;
    uint64_t n_events;
    uint64_t n_gaps;
    uint64_t n_runs;
    struct kind kinds[KINDS_MAX];
};

/* What a worker tells: a seed begins, or is over. */
struct report {
    uint64_t seed;
    bool is_over;
    struct world_result result;
};

static void live(const struct options *options, uint64_t seed, struct world_result *ret_result)
{
    struct world_options how = {.tells = options->is_talkative};
    world_run(seed, &how, ret_result);
    if (seed % TWICE_EVERY == 0 && !ret_result->failed) {
        struct world_result again;
        world_run(seed, &(struct world_options){0}, &again);
        if (again.hash != ret_result->hash || again.n_steps != ret_result->n_steps) {
            ret_result->failed = true;
            (void)snprintf(ret_result->why, sizeof(ret_result->why), "a second run of the seed differs");
            (void)snprintf(ret_result->kind, sizeof(ret_result->kind), "not deterministic");
        }
    }
}

/* --- open seeds ----------------------------------------------------------------------------------- */

struct open_seed {
    uint64_t seed;
    char kind[KIND_MAX];
};

static struct open_seed open_seeds[OPEN_MAX];
static size_t n_open_seeds;

/* Each line: a seed and its kind; '#' begins a comment. */
static bool open_read(const char *path)
{
    char line[160];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        perror(path);
        return false;
    }
    while (n_open_seeds < OPEN_MAX && fgets(line, sizeof(line), file) != NULL) {
        char *kind = NULL;
        struct open_seed *open_seed = &open_seeds[n_open_seeds];
        open_seed->seed = strtoull(line, &kind, 10);
        if (line[0] == '#' || kind == line) {
            continue;
        }
        kind += strspn(kind, " ");
        (void)snprintf(open_seed->kind, sizeof(open_seed->kind), "%.*s", (int)strcspn(kind, "\n"), kind);
        n_open_seeds++;
    }
    (void)fclose(file);
    return true;
}

/* Another failure than the one that is known is no excuse. */
static bool open_is(uint64_t seed, const char *kind)
{
    for (size_t i = 0; i < n_open_seeds; i++) {
        if (open_seeds[i].seed == seed && strcmp(open_seeds[i].kind, kind) == 0) {
            return true;
        }
    }
    return false;
}

static void count_kind(struct tally *tally, uint64_t seed, const char *name)
{
    size_t i = 0;
    while (i + 1 < KINDS_MAX && tally->kinds[i].n > 0 && strcmp(tally->kinds[i].name, name) != 0) {
        i++;
    }
    struct kind *kind = &tally->kinds[i];
    (void)snprintf(kind->name, sizeof(kind->name), "%s", name);
    if (kind->n < BB_COUNT(kind->seeds)) {
        kind->seeds[kind->n] = seed;
    }
    kind->n++;
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
    if (result->failed && open_is(seed, result->kind)) {
        tally->n_open++;
    } else if (result->failed) {
        tally->n_failing++;
        count_kind(tally, seed, result->kind);
        if (!options->by_kind && tally->n_failing <= TOLD_MAX) {
            (void)printf("[FAIL] seed %" PRIu64 " step %" PRIu64 " (%s): %s\n", seed, result->n_steps,
                         result->kind, result->why);
            (void)fflush(stdout);
        }
    }
}

/* --- workers -------------------------------------------------------------------------------------- */

struct worker {
    pid_t pid;
    int fd;               /* -1: it has ended */
    uint64_t next;        /* seed */
    struct report report; /* the last one */
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
    worker->report = (struct report){0};
    return false;
}

/* True if it crashed, and must be started again behind that seed. */
static bool worker_ended(const struct options *options, struct worker *worker, struct tally *tally)
{
    const struct report *report = &worker->report;
    bool in_seed = report->seed != 0 && !report->is_over;
    int status = 0;
    (void)close(worker->fd);
    worker->fd = -1;
    (void)waitpid(worker->pid, &status, 0);
    if (status == 0) {
        return false;
    }
    tally->n_crashing++;
    tally->n_tested += in_seed;
    count_kind(tally, report->seed, "crash");
    (void)printf("[CRASH] seed %" PRIu64 ", status %d\n", report->seed, status);
    worker->next = report->seed + options->n_workers;
    return in_seed && worker->next <= options->last;
}

/* Wait for a report of any, so that none waits for another one. False: all have ended. */
static bool workers_wait(struct worker *workers, uint64_t n, struct pollfd *fds)
{
    bool any = false;
    for (uint64_t i = 0; i < n; i++) {
        fds[i] = (struct pollfd){.fd = workers[i].fd, .events = POLLIN};
        any = any || workers[i].fd >= 0;
    }
    return any && poll(fds, (nfds_t)n, -1) > 0;
}

static bool worker_reports(const struct options *options, struct worker *worker, struct tally *tally)
{
    struct report *report = &worker->report;
    if (read(worker->fd, report, sizeof(*report)) != (ssize_t)sizeof(*report)) {
        return false;
    }
    if (report->is_over) {
        tally_add(tally, options, report->seed, &report->result);
    }
    return true;
}

static void tally_print(const struct tally *tally)
{
    (void)printf("%" PRIu64 " steps, %" PRIu64 " events, %" PRIu64 " gaps, %" PRIu64 " broker runs\n",
                 tally->n_steps, tally->n_events, tally->n_gaps, tally->n_runs);
    if (n_open_seeds > 0) {
        (void)printf("%" PRIu64 " of %zu seeds that are known to be open fail as they are known to\n",
                     tally->n_open, n_open_seeds);
    }
    uint64_t n_judged = tally->n_tested - tally->n_open;
    uint64_t n_passing = n_judged - BB_MIN(tally->n_failing + tally->n_crashing, n_judged);
    (void)printf("[====] Synthesis: Tested: %" PRIu64 " | Passing: %" PRIu64 " | Failing: %" PRIu64
                 " | Crashing: %" PRIu64 "\n",
                 n_judged, n_passing, tally->n_failing, tally->n_crashing);
}

static void kinds_print(const struct tally *tally)
{
    for (size_t i = 0; i < KINDS_MAX && tally->kinds[i].n > 0; i++) {
        const struct kind *kind = &tally->kinds[i];
        (void)printf("%6" PRIu64 "  %-24s seeds", kind->n, kind->name);
        for (size_t j = 0; j < BB_COUNT(kind->seeds) && j < kind->n; j++) {
            (void)printf(" %" PRIu64, kind->seeds[j]);
        }
        (void)printf("\n");
    }
}

static int run_workers(const struct options *options)
{
    static struct worker workers[WORKERS_MAX];
    static struct tally tally;
    struct pollfd fds[WORKERS_MAX];
    int status = 0;
    coverage_start();
    for (uint64_t i = 0; i < options->n_workers; i++) {
        workers[i].next = options->first + i;
        if (worker_start(options, &workers[i], &status)) {
            return status;
        }
    }
    while (workers_wait(workers, options->n_workers, fds)) {
        for (uint64_t i = 0; i < options->n_workers; i++) {
            bool has_ended = fds[i].revents != 0 && !worker_reports(options, &workers[i], &tally);
            if (has_ended && worker_ended(options, &workers[i], &tally) &&
                worker_start(options, &workers[i], &status)) {
                return status;
            }
        }
    }
    kinds_print(&tally);
    uint64_t n_never = options->covers ? coverage_print(options->is_talkative) : 0;
    tally_print(&tally);
    return tally.n_failing + tally.n_crashing + n_never > 0 || tally.n_tested == 0;
}

/* --- the other ways -------------------------------------------------------------------------------- */

/* The shortest story is told when the whole one was not asked for. */
static void tell_shortest(uint64_t seed, const struct world_result *first)
{
    static struct plan_mask mask;
    struct world_result result;
    (void)printf("looking for the shortest story of seed %" PRIu64 ": %s\n", seed, first->why);
    size_t left = shrink(seed, first, &mask);
    world_run(seed, &(struct world_options){.mask = &mask, .tells = true}, &result);
    (void)printf("%zu acts are left\n", left);
}

static int run_one(const struct options *options)
{
    struct world_result result;
    static struct tally tally;
    live(options, options->first, &result);
    tally_add(&tally, options, options->first, &result);
    if (result.failed && !options->is_talkative) {
        tell_shortest(options->first, &result);
    }
    tally_print(&tally);
    return result.failed;
}

/* In worlds that are well without it. */
static void run_sabotage(enum sabotage_kind kind, uint64_t *ret_n_done, uint64_t *ret_n_seen)
{
    *ret_n_done = *ret_n_seen = 0;
    for (uint64_t seed = 1; seed <= SABOTAGE_SEEDS && *ret_n_done < SABOTAGES_MOST; seed++) {
        struct world_result result;
        world_run(seed, &(struct world_options){.sabotage = kind}, &result);
        if (!result.sabotaged) {
            continue;
        }
        struct world_result clean;
        world_run(seed, &(struct world_options){.sabotage = kind, .is_dry = true}, &clean);
        *ret_n_done += !clean.failed;
        *ret_n_seen += !clean.failed && result.failed;
    }
}

/* Each sabotage must be seen, though not in all worlds in which it happened: a cut or a pause right
 * after it hides it. */
static int run_sabotages(void)
{
    static struct tally tally;
    for (int kind = SABOTAGE_none + 1; kind < SABOTAGES; kind++) {
        uint64_t n_done = 0;
        uint64_t n_seen = 0;
        run_sabotage((enum sabotage_kind)kind, &n_done, &n_seen);
        tally.n_tested++;
        bool is_seen = n_done >= 5 && n_seen >= 3;
        tally.n_failing += !is_seen;
        (void)printf("[%s] %s: seen in %" PRIu64 " of %" PRIu64 " worlds\n", is_seen ? "PASS" : "FAIL",
                     sabotage_text((enum sabotage_kind)kind), n_seen, n_done);
        (void)fflush(stdout);
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
        if (strcmp(argv[i], "--coverage") == 0 || strcmp(argv[i], "--kinds") == 0) {
            options->covers = options->covers || strcmp(argv[i], "--coverage") == 0;
            options->by_kind = true;
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
        } else if (strcmp(argv[i], "--open") == 0) {
            if (!open_read(value)) {
                return false;
            }
        } else if (strcmp(argv[i], "--ignore") == 0) {
            world_ignored = value;
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
    struct options options = {.first = 1, .last = 5000, .n_workers = 2};
    bool is_one = false;
    if (!parse(argc, argv, &options, &is_one)) {
        (void)fprintf(
            stderr,
            "usage: test_sim [--seeds A..B | --seed N | --sabotage] [--coverage | --kinds] [--workers N] "
            "[--ignore KINDS] [--open FILE] [-v]\n");
        return 2;
    }
    if (options.sabotages) {
        return run_sabotages();
    }
    return is_one ? run_one(&options) : run_workers(&options);
}

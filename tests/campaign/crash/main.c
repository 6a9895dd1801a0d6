/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crash images [--count N] [--seed N] [--control journal|tables]
 *     A story is told, then directories are built as a crash at some moment might have left them, and opened. With --control the
 *     disk lies about one of its files, and the run succeeds only if that is noticed.
 * crash faults [--every N] [--seed N] [--only N]
 *     Every Nth call of every kind, or only the Nth, fails once, in every way; the log must recover by itself.
 * crash flips [--count N] [--seed N] [--only BIT]
 *     One bit of a file is turned over, or always the same one; that is noticed, or makes no difference. LMDB has no checksums on its own pages and follows
 *     what they say, so a turned bit in one may also end the process (about one in a thousand); nothing wrong is served then either.
 *
 * Exit 0: what must hold does.
 */
#include "proto/base/error.h"

#include "tests/campaign/crash/disk.h"
#include "tests/campaign/crash/story.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TICKETS      80 /* of a story */
#define FLIP_SECONDS 20

static struct {
    uint64_t count;
    uint64_t every;
    uint64_t seed;
    uint64_t only; /* 0: all */
    enum disk_lie lie;
} options = {.count = 200, .every = 40, .seed = 1, .lie = DISK_HONEST};

/* --- directories ------------------------------------------------------------------------------------ */

static void make_directory(char *path, size_t size)
{
    (void)snprintf(path, size, "/tmp/busbar-crash-XXXXXX");
    if (mkdtemp(path) == NULL) {
        perror(path);
        exit(2);
    }
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status;
    (void)kind;
    (void)at;
    return remove(path);
}

static void remove_directory(const char *path)
{
    (void)nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void copy_file(const char *from, const char *to, const char *name)
{
    char path[600];
    uint8_t bytes[65536];
    (void)snprintf(path, sizeof(path), "%s/%s", from, name);
    FILE *in = fopen(path, "r");
    (void)snprintf(path, sizeof(path), "%s/%s", to, name);
    FILE *out = fopen(path, "w");
    size_t n = 0;
    if (in == NULL || out == NULL) {
        perror(path);
        exit(2);
    }
    while ((n = fread(bytes, 1, sizeof(bytes), in)) > 0) {
        (void)fwrite(bytes, 1, n, out);
    }
    (void)fclose(in);
    (void)fclose(out);
}

/* --- images -------------------------------------------------------------------------------------------- */

static void tell_story(struct story *story, const char *directory)
{
    disk_watch(directory);
    if (story_open(story, directory) < 0) {
        (void)fprintf(stderr, "the story does not begin: %s\n", story->wrong);
        exit(2);
    }
    disk_mark(0, 0);
    while (story->ticket < TICKETS) {
        disk_mark(story->durable, story->registered + 1); /* what is about to be registered may be found */
        if (story_register(story) < 0) {
            exit(2);
        }
        while (story_pump(story, story->ticket % 7 == 0 ? 20 : 0)) {
            disk_mark(story->durable, story->registered);
        }
    }
    (void)story_settle(story);
    disk_mark(story->durable, story->registered);
    disk_watch(NULL);
    story_close(story);
}

/* Return: whether all is well. */
static bool try_image(struct story *story, const char *directory, size_t moment, uint64_t seed)
{
    static const size_t sectors[] = {512, 4096};
    uint64_t acked = 0;
    uint64_t registered = 0;
    enum disk_luck luck = (enum disk_luck)(seed % DISK_LUCKS);
    disk_marked(moment, &acked, &registered);
    disk_image(moment, seed, luck, sectors[seed / DISK_LUCKS % 2], options.lie, directory);
    story->wrong[0] = 0;
    story->durable = story->registered = 0;
    int r = story_open(story, directory);
    bool is_well = r == 0 && story_check(story, acked, registered);
    if (r == 0) {
        story_close(story);
    }
    if (!is_well && options.lie == DISK_HONEST) {
        (void)fprintf(stderr, "moment %zu, seed %llu, luck %d: %s; %s\n", moment, (unsigned long long)seed,
                      (int)luck, bb_strerror(r), story->wrong);
    }
    return is_well;
}

/* Whether a process ended by what LMDB does with a page that is not what it should be; SIGABRT: an assertion of it. */
static bool is_killed(int result)
{
    int killer = WIFSIGNALED(result) ? WTERMSIG(result) : 0;
    return killer == SIGSEGV || killer == SIGBUS || killer == SIGABRT;
}

/* The same in a process of its own, which pages that a disk has lied about may end: then they have not gone unnoticed. */
static bool try_lie(struct story *story, const char *directory, size_t moment, uint64_t seed)
{
    int result = 0;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)signal(SIGSEGV, SIG_DFL); /* no finding of a sanitizer's */
        (void)signal(SIGBUS, SIG_DFL);
        (void)alarm(FLIP_SECONDS);
        _exit(try_image(story, directory, moment, seed) ? EXIT_SUCCESS : EXIT_FAILURE);
    }
    if (pid < 0 || waitpid(pid, &result, 0) != pid || !(WIFEXITED(result) || is_killed(result))) {
        (void)fprintf(stderr, "an image of a disk that lies: %d\n", result);
        exit(2);
    }
    return WIFEXITED(result) && WEXITSTATUS(result) == EXIT_SUCCESS;
}

static int run_images(void)
{
    bool (*const try)(struct story *, const char *, size_t, uint64_t) =
        options.lie == DISK_HONEST ? try_image : try_lie;
    const uint64_t per_story = 250;
    uint64_t n_bad = 0;
    uint64_t random = options.seed;
    for (uint64_t done = 0; done < options.count;) {
        char directory[64];
        struct story story;
        make_directory(directory, sizeof(directory));
        story_begin(&story, options.seed + done);
        tell_story(&story, directory);
        size_t n_moments = disk_moments();
        for (uint64_t i = 0; i < per_story && done < options.count; i++, done++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            char image[64];
            make_directory(image, sizeof(image));
            n_bad += !try(&story, image, 1 + (size_t)((random >> 20) % n_moments), random >> 13);
            remove_directory(image);
        }
        disk_forget();
        story_end(&story);
        remove_directory(directory);
    }
    (void)printf("images: %llu, seed %llu, not well: %llu%s\n", (unsigned long long)options.count,
                 (unsigned long long)options.seed, (unsigned long long)n_bad,
                 options.lie != DISK_HONEST ? " (a disk that lies)" : "");
    return (options.lie != DISK_HONEST) == (n_bad > 0) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- faults -------------------------------------------------------------------------------------------- */

/* Tell a story while one call fails. Return: whether all is well; *@ret_calls: how many such calls there were. */
static bool try_fault(enum disk_call call, uint64_t nth, enum disk_fault fault, uint64_t *ret_calls)
{
    char directory[64];
    struct story story;
    int r = 0;
    make_directory(directory, sizeof(directory));
    story_begin(&story, options.seed);
    disk_watch(directory);
    disk_fail(call, nth, fault);
    r = story_open(&story, directory);
    if (r < 0) { /* it says so; the next attempt succeeds */
        (void)disk_heal();
        r = story_open(&story, directory);
    }
    uint64_t n_tries = 0;
    while (r == 0 && story.durable < TICKETS && story.wrong[0] == 0 && n_tries++ < (uint64_t)TICKETS * 10) {
        (void)story_register(&story);
        while (story_pump(&story, 0)) {
        }
        if (story.ticket % 5 == 0 || story.state != BK_BACKEND_OK) {
            (void)story_settle(&story);
        }
    }
    bool has_recovered = r == 0 && story_settle(&story) && story.durable >= TICKETS;
    *ret_calls = disk_calls(call);
    (void)disk_heal();
    disk_watch(NULL);
    story_close(&story);
    uint64_t durable = story.durable;
    story.durable = story.registered = 0;
    r = r == 0 ? story_open(&story, directory) : r;
    bool is_well = r == 0 && has_recovered && story_check(&story, durable, durable);
    if (!is_well) {
        (void)fprintf(stderr, "call %d, number %llu, fault %d: %s; %s%s\n", (int)call,
                      (unsigned long long)nth, (int)fault, bb_strerror(r), story.wrong,
                      has_recovered ? "" : " (did not recover)");
    }
    story_end(&story);
    disk_forget();
    remove_directory(directory);
    return is_well;
}

static int run_faults(void)
{
    static const struct {
        enum disk_call call;
        enum disk_fault fault;
    } kinds[] = {
        {DISK_WRITE, DISK_EIO},   {DISK_WRITE, DISK_ENOSPC}, {DISK_WRITE, DISK_EINTR},
        {DISK_WRITE, DISK_SHORT}, {DISK_SYNC, DISK_EIO},     {DISK_ALLOC, DISK_ENOMEM},
    };
    uint64_t n_runs = 0;
    uint64_t n_bad = 0;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        uint64_t n_calls = UINT64_MAX; /* not known before the first run */
        uint64_t step = kinds[i].call == DISK_ALLOC ? 10 * options.every : options.every;
        uint64_t first = options.only != 0 ? options.only : 1 + options.seed % step;
        step = options.only != 0 ? UINT32_MAX : step;
        for (uint64_t nth = first; nth <= n_calls; nth += step, n_runs++) {
            uint64_t calls = 0;
            n_bad += !try_fault(kinds[i].call, nth, kinds[i].fault, &calls);
            n_calls = n_calls == UINT64_MAX || calls > n_calls ? calls : n_calls;
        }
    }
    (void)printf("faults: %llu, seed %llu, not well: %llu\n", (unsigned long long)n_runs,
                 (unsigned long long)options.seed, (unsigned long long)n_bad);
    return n_bad == 0 && n_runs > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- flips --------------------------------------------------------------------------------------------- */

enum outcome {
    NOTICED_AT_OPEN,
    NOTICED_BY_VERIFY,
    NOTICED_BY_READING,
    HARMLESS,
    KILLED,
    WRONG,
    OUTCOMES
};

static const char *const outcome_names[OUTCOMES] = {"noticed at open", "by verify", "by reading",
                                                    "harmless",        "killed",    "wrong"};

/* In a process of its own, since nobody knows what it does. */
static enum outcome judge(struct story *story, const char *directory)
{
    story->wrong[0] = 0;
    uint64_t durable = story->durable;
    story->durable = story->registered = 0;
    if (story_open(story, directory) < 0) {
        return NOTICED_AT_OPEN;
    }
    int64_t problems = story_verify(story);
    int r = story_read(story, durable);
    story_close(story);
    if (r < 0) {
        return NOTICED_BY_READING;
    }
    if (story->wrong[0] != 0 && problems == 0) {
        (void)fprintf(stderr, "%s\n", story->wrong);
        return WRONG;
    }
    return problems != 0 ? NOTICED_BY_VERIFY : HARMLESS;
}

static void flip(const char *directory, const char *name, uint64_t bit)
{
    char path[600];
    uint8_t byte = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || pread(fd, &byte, 1, (off_t)(bit / 8)) != 1) {
        perror(path);
        exit(2);
    }
    byte ^= (uint8_t)(1U << (bit % 8));
    if (pwrite(fd, &byte, 1, (off_t)(bit / 8)) != 1) {
        exit(2);
    }
    (void)close(fd);
}

static int run_flips(void)
{
    static const char *const files[] = {"data.mdb", "data.mdb", "data.mdb", "journal-0", "journal-1"};
    char directory[64];
    struct story story;
    uint64_t outcomes[OUTCOMES] = {0};
    uint64_t random = options.seed;
    make_directory(directory, sizeof(directory));
    story_begin(&story, options.seed);
    tell_story(&story, directory);
    disk_forget();
    story.durable = story.ticket;
    for (uint64_t i = 0; i < options.count; i++) {
        char copy[64];
        char path[600];
        struct stat status;
        int result = 0;
        const char *name = files[i % (sizeof(files) / sizeof(files[0]))];
        make_directory(copy, sizeof(copy));
        copy_file(directory, copy, "data.mdb");
        copy_file(directory, copy, "journal-0");
        copy_file(directory, copy, "journal-1");
        (void)snprintf(path, sizeof(path), "%s/%s", copy, name);
        (void)stat(path, &status);
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t bit = options.only != 0 ? options.only : (random >> 16) % ((uint64_t)status.st_size * 8);
        flip(copy, name, bit);
        (void)fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            (void)alarm(FLIP_SECONDS);
            _exit((int)judge(&story, copy));
        }
        (void)waitpid(pid, &result, 0);
        bool has_judged = WIFEXITED(result) && WEXITSTATUS(result) < OUTCOMES;
        enum outcome outcome = is_killed(result) ? KILLED
                               : has_judged      ? (enum outcome)WEXITSTATUS(result)
                                                 : WRONG;
        outcomes[outcome]++;
        if (outcome >= KILLED) {
            (void)fprintf(stderr, "bit %llu of %s: %s\n", (unsigned long long)bit, name,
                          outcome_names[outcome]);
        }
        remove_directory(copy);
    }
    story_end(&story);
    remove_directory(directory);
    (void)printf("flips: %llu, seed %llu", (unsigned long long)options.count,
                 (unsigned long long)options.seed);
    for (size_t i = 0; i < OUTCOMES; i++) {
        (void)printf(", %s: %llu", outcome_names[i], (unsigned long long)outcomes[i]);
    }
    (void)printf("\n");
    bool is_well = outcomes[WRONG] == 0 && outcomes[KILLED] * 200 <= options.count;
    return is_well && (outcomes[NOTICED_BY_VERIFY] > 0 || options.only != 0) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- the command line --------------------------------------------------------------------------------- */

static bool set_option(const char *name, const char *value)
{
    if (strcmp(name, "--count") == 0) {
        options.count = strtoull(value, NULL, 10);
    } else if (strcmp(name, "--every") == 0) {
        options.every = strtoull(value, NULL, 10);
    } else if (strcmp(name, "--seed") == 0) {
        options.seed = strtoull(value, NULL, 10);
    } else if (strcmp(name, "--only") == 0) {
        options.only = strtoull(value, NULL, 10);
    } else if (strcmp(name, "--control") == 0) {
        options.lie = strcmp(value, "journal") == 0 ? DISK_NO_JOURNAL_SYNC : DISK_NO_TABLE_SYNC;
    } else {
        return false;
    }
    return options.every > 0;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(void);
    } commands[] = {{"images", run_images}, {"faults", run_faults}, {"flips", run_flips}};
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 >= argc || !set_option(argv[i], argv[i + 1])) {
            argc = 0;
        }
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]) && argc > 1; i++) {
        if (strcmp(argv[1], commands[i].name) == 0) {
            return commands[i].run();
        }
    }
    (void)fprintf(
        stderr,
        "usage: crash images|faults|flips [--count N] [--every N] [--seed N] [--only N] [--control journal|tables]\n");
    return 2;
}

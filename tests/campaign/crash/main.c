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
 *     Two in five are in the journal, one of them where it has what the tables do not have; there the last record alone may be lost,
 *     since it cannot be told from one that was on its way.
 * crash heads [--seed N]
 *     The same with every bit of what all else hangs on: LMDB's own heads, its list of tables, the pages of the small tables. It is
 *     mostly pointers, so one in fifty may end the process.
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

#define TICKETS       80 /* of a story */
#define FLIP_SECONDS  20
#define IMAGE_SECONDS 60

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

/* The last ticket has a record of the journal for itself. */
static void tell_story(struct story *story, const char *directory)
{
    disk_watch(directory);
    if (story_open(story, directory) < 0) {
        (void)fprintf(stderr, "the story does not begin: %s\n", story->wrong);
        exit(2);
    }
    disk_mark(0, 0);
    while (story->ticket < TICKETS) {
        if (story->ticket == TICKETS - 1) {
            (void)story_settle(story);
        }
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

static bool look_at_image(struct story *story, const char *directory, uint64_t acked, uint64_t registered)
{
    story->wrong[0] = 0;
    story->durable = story->registered = 0;
    int r = story_open(story, directory);
    bool is_well = r == 0 && story_check(story, acked, registered);
    if (r == 0) {
        story_close(story);
    }
    if (r < 0 && story->wrong[0] == 0) {
        (void)snprintf(story->wrong, sizeof(story->wrong), "%s", bb_strerror(r));
    }
    return is_well;
}

/* In a process of its own: LMDB may follow what a disk that lies has left to where there is nothing. */
static bool look_apart(struct story *story, const char *directory, uint64_t acked, uint64_t registered)
{
    int result = 0;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(IMAGE_SECONDS);
        (void)signal(SIGBUS, SIG_DFL); /* a sanitizer would take it for a finding */
        (void)signal(SIGSEGV, SIG_DFL);
        _exit(look_at_image(story, directory, acked, registered) ? 0 : 1);
    }
    (void)waitpid(pid, &result, 0);
    return WIFEXITED(result) && WEXITSTATUS(result) == 0;
}

/* Return: whether all is well. */
static bool try_image(struct story *story, size_t moment, uint64_t seed)
{
    char directory[64];
    static const size_t sectors[] = {512, 4096};
    uint64_t acked = 0;
    uint64_t registered = 0;
    enum disk_luck luck = (enum disk_luck)(seed % DISK_LUCKS);
    make_directory(directory, sizeof(directory));
    disk_marked(moment, &acked, &registered);
    disk_image(moment, seed, luck, sectors[seed / DISK_LUCKS % 2], options.lie, directory);
    bool is_honest = options.lie == DISK_HONEST;
    bool is_well = is_honest ? look_at_image(story, directory, acked, registered)
                             : look_apart(story, directory, acked, registered);
    if (!is_well && is_honest) {
        (void)fprintf(stderr, "moment %zu, seed %llu, luck %d: %s\n", moment, (unsigned long long)seed,
                      (int)luck, story->wrong);
    }
    remove_directory(directory);
    return is_well;
}

static int run_images(void)
{
    const uint64_t per_story = 250;
    uint64_t n_bad = 0;
    uint64_t random = options.seed;
    for (uint64_t done = 0; done < options.count;) {
        char directory[64];
        struct story story;
        make_directory(directory, sizeof(directory));
        story_begin(&story, options.seed + done);
        story.lags = done / per_story % 2 == 1;
        tell_story(&story, directory);
        size_t n_moments = disk_moments();
        for (uint64_t i = 0; i < per_story && done < options.count; i++, done++) {
            random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            n_bad += !try_image(&story, 1 + (size_t)((random >> 20) % n_moments), random >> 13);
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
    TAKEN_FOR_TORN,
    KILLED,
    WRONG,
    OUTCOMES
};

static const char *const outcome_names[OUTCOMES] = {"noticed at open", "by verify", "by reading", "harmless",
                                                    "taken for torn",  "killed",    "wrong"};

/* Which file, and whether of a directory that a crash left, in which the tables have hardly anything. */
static const struct {
    const char *name;
    bool is_crashed;
} flipped[] = {{"data.mdb", false},  {"data.mdb", false}, {"data.mdb", false}, {"journal-0", true},
               {"journal-0", false}, {"data.mdb", false}, {"data.mdb", false}, {"data.mdb", false},
               {"journal-1", true},  {"journal-1", false}};

/* In a process of its own, since nobody knows what it does. */
static enum outcome judge(struct story *story, const char *directory)
{
    story->wrong[0] = 0;
    uint64_t durable = story->durable;
    story->durable = story->registered = 0;
    if (story_open(story, directory) < 0) {
        return NOTICED_AT_OPEN;
    }
    story_check_loaded(story, durable);
    int64_t problems = story_verify(story);
    int r = story_read(story, durable);
    story_close(story);
    if (problems != 0) {
        return NOTICED_BY_VERIFY;
    }
    if (r < 0) {
        return NOTICED_BY_READING;
    }
    if (story->wrong[0] != 0) {
        (void)fprintf(stderr, "%s\n", story->wrong);
        return WRONG;
    }
    return HARMLESS;
}

/* What a refusal tells to do: without the journal there is what the tables have and what the journal had before the damage. */
static bool is_well_without_journal(struct story *story, const char *directory, uint64_t registered)
{
    static const char *const names[] = {"journal-0", "journal-1"};
    for (size_t i = 0; i < 2; i++) {
        char path[600];
        (void)snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        (void)unlink(path);
    }
    bool is_well = story_open(story, directory) == 0 && story_check(story, 0, registered);
    story_close(story);
    return is_well;
}

/* The same for a journal that has what the tables do not have. The last ticket alone may be gone. */
static enum outcome judge_journal(struct story *story, const char *directory)
{
    story->wrong[0] = 0;
    uint64_t durable = story->durable;
    story->durable = story->registered = 0;
    int r = story_open(story, directory);
    bool is_refused = r == BB_ECORRUPT || r == BB_EVERSION;
    bool is_well = is_refused ? is_well_without_journal(story, directory, durable)
                              : r == 0 && story_check(story, durable - 1, durable);
    story_close(story);
    if (!is_well) {
        (void)fprintf(stderr, "%s\n", story->wrong);
        return WRONG;
    }
    return is_refused ? NOTICED_AT_OPEN : story->loaded_producer < durable ? TAKEN_FOR_TORN : HARMLESS;
}

/* Up to the last byte that is not zero: behind it there is nothing to be damaged. */
static uint64_t used_bytes(const char *directory, const char *name)
{
    char path[600];
    uint64_t used = 1;
    int byte = 0;
    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    for (uint64_t n = 1; (byte = getc(file)) != EOF; n++) {
        used = byte != 0 ? n : used;
    }
    (void)fclose(file);
    return used;
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

/* Turn over bit @bit of file @name in a copy of @directory, and see. */
static enum outcome
try_flip(struct story *story, const char *directory, const char *name, uint64_t bit, bool is_crashed)
{
    char copy[64];
    int result = 0;
    make_directory(copy, sizeof(copy));
    copy_file(directory, copy, "data.mdb");
    copy_file(directory, copy, "journal-0");
    copy_file(directory, copy, "journal-1");
    flip(copy, name, bit);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)alarm(FLIP_SECONDS);
        _exit((int)(is_crashed ? judge_journal(story, copy) : judge(story, copy)));
    }
    (void)waitpid(pid, &result, 0);
    int killer = WIFSIGNALED(result) ? WTERMSIG(result) : 0; /* SIGABRT: an assertion of LMDB */
    bool is_killed = killer == SIGSEGV || killer == SIGBUS || killer == SIGABRT || killer == SIGFPE;
    bool has_judged = WIFEXITED(result) && WEXITSTATUS(result) < OUTCOMES;
    enum outcome outcome = is_killed ? KILLED : has_judged ? (enum outcome)WEXITSTATUS(result) : WRONG;
    if (outcome >= KILLED) {
        (void)fprintf(stderr, "bit %llu of %s: %s\n", (unsigned long long)bit, name, outcome_names[outcome]);
    }
    remove_directory(copy);
    return outcome;
}

/* A story and its directory: as it was closed, or as a crash at its end left it while the tables lagged. */
static void tell_for_flips(struct story *story, bool is_crashed, char directory[64])
{
    char told[64];
    make_directory(told, sizeof(told));
    make_directory(directory, 64);
    story_begin(story, options.seed);
    story->lags = is_crashed;
    tell_story(story, told);
    story->durable = story->ticket;
    if (is_crashed) {
        disk_image(disk_moments(), options.seed, DISK_ALL, 512, DISK_HONEST, directory);
    } else {
        copy_file(told, directory, "data.mdb");
        copy_file(told, directory, "journal-0");
        copy_file(told, directory, "journal-1");
    }
    disk_forget();
    remove_directory(told);
}

/* At most one in @killed_in may have ended the process. */
static bool is_well(const char *what, const uint64_t outcomes[OUTCOMES], uint64_t killed_in)
{
    uint64_t count = 0;
    for (size_t i = 0; i < OUTCOMES; i++) {
        count += outcomes[i];
    }
    (void)printf("%s: %llu, seed %llu", what, (unsigned long long)count, (unsigned long long)options.seed);
    for (size_t i = 0; i < OUTCOMES; i++) {
        (void)printf(", %s: %llu", outcome_names[i], (unsigned long long)outcomes[i]);
    }
    (void)printf("\n");
    return outcomes[WRONG] == 0 && outcomes[KILLED] * killed_in <= count &&
           (outcomes[NOTICED_BY_VERIFY] > 0 || options.only != 0);
}

static int run_flips(void)
{
    char directories[2][64];
    struct story stories[2];
    uint64_t outcomes[OUTCOMES] = {0};
    uint64_t random = options.seed;
    uint64_t n_journal = 0; /* noticed there */
    for (size_t i = 0; i < 2; i++) {
        tell_for_flips(&stories[i], i == 1, directories[i]);
    }
    for (uint64_t i = 0; i < options.count; i++) {
        size_t which = (size_t)(i % (sizeof(flipped) / sizeof(flipped[0])));
        size_t is_crashed = flipped[which].is_crashed;
        const char *name = flipped[which].name;
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t n_bits = used_bytes(directories[is_crashed], name) * 8;
        uint64_t bit = options.only != 0 ? options.only : (random >> 16) % n_bits;
        enum outcome outcome =
            try_flip(&stories[is_crashed], directories[is_crashed], name, bit, is_crashed != 0);
        outcomes[outcome]++;
        n_journal += is_crashed && outcome == NOTICED_AT_OPEN;
    }
    for (size_t i = 0; i < 2; i++) {
        story_end(&stories[i]);
        remove_directory(directories[i]);
    }
    bool has_noticed = n_journal > 0 || options.only != 0;
    return is_well("flips", outcomes, 200) && has_noticed ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* --- heads --------------------------------------------------------------------------------------------- */

/* The format of LMDB 0.9 on a machine of 64 bits: each page has a head of 16 bytes, then either what LMDB knows of everything
 * (two such pages in turn), or offsets of nodes; the nodes lie at its end. */
#define PAGE       ((size_t)4096)
#define HEADS_LEN  ((size_t)152)
#define TABLE_ROOT ((size_t)40) /* in what is said of a table */
#define MAIN_TABLE ((size_t)16 + 24 + 48)
#define TXN_AT     ((size_t)16 + 24 + 96 + 8)
#define LOWER_AT   12
#define UPPER_AT   14
#define OFFSETS_AT ((size_t)16)
#define KEY_LEN_AT ((size_t)6)
#define KEY_AT     ((size_t)8)

static uint64_t number_at(const uint8_t *at, size_t len)
{
    uint64_t number = 0;
    memcpy(&number, at, len); /* of the machine's order, the lower one first */
    return number;
}

static void
try_bytes(struct story *story, const char *directory, uint64_t from, uint64_t to, uint64_t *outcomes)
{
    for (uint64_t bit = 8 * from; bit < 8 * to; bit++) {
        outcomes[try_flip(story, directory, "data.mdb", bit, false)]++;
    }
}

/* The used bytes of a leaf page. */
static void
try_page(struct story *story, const char *directory, const uint8_t *file, uint64_t page, uint64_t *outcomes)
{
    uint64_t at = page * PAGE;
    try_bytes(story, directory, at, at + number_at(file + at + LOWER_AT, 2), outcomes);
    try_bytes(story, directory, at + number_at(file + at + UPPER_AT, 2), at + PAGE, outcomes);
}

static bool is_small_table(const uint8_t *name, size_t len)
{
    static const char *const names[] = {"meta", "channels", "producers", "cursors"};
    bool is_it = false;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        is_it = is_it || (len == strlen(names[i]) && memcmp(name, names[i], len) == 0);
    }
    return is_it;
}

static uint8_t *read_all(const char *directory)
{
    char path[600];
    struct stat status;
    (void)snprintf(path, sizeof(path), "%s/data.mdb", directory);
    FILE *in = fopen(path, "r");
    uint8_t *bytes = in != NULL && stat(path, &status) == 0 ? malloc((size_t)status.st_size) : NULL;
    if (bytes == NULL || fread(bytes, 1, (size_t)status.st_size, in) != (size_t)status.st_size) {
        perror(path);
        exit(2);
    }
    (void)fclose(in);
    return bytes;
}

static int run_heads(void)
{
    char directory[64];
    struct story story;
    uint64_t outcomes[OUTCOMES] = {0};
    size_t n_small = 0;
    tell_for_flips(&story, false, directory);
    uint8_t *file = read_all(directory);
    const uint8_t *newer =
        number_at(file + TXN_AT, 8) > number_at(file + PAGE + TXN_AT, 8) ? file : file + PAGE;
    uint64_t list = number_at(newer + MAIN_TABLE + TABLE_ROOT, 8);
    const uint8_t *page = file + list * PAGE;
    try_bytes(&story, directory, 0, HEADS_LEN, outcomes);
    try_bytes(&story, directory, PAGE, PAGE + HEADS_LEN, outcomes);
    try_page(&story, directory, file, list, outcomes);
    for (size_t at = OFFSETS_AT; at < number_at(page + LOWER_AT, 2); at += 2) {
        const uint8_t *node = page + number_at(page + at, 2);
        size_t key_len = (size_t)number_at(node + KEY_LEN_AT, 2);
        if (is_small_table(node + KEY_AT, key_len)) {
            n_small++;
            try_page(&story, directory, file, number_at(node + KEY_AT + key_len + TABLE_ROOT, 8), outcomes);
        }
    }
    free(file);
    story_end(&story);
    remove_directory(directory);
    return is_well("heads", outcomes, 50) && n_small == 4 ? EXIT_SUCCESS : EXIT_FAILURE;
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
    } commands[] = {
        {"images", run_images}, {"faults", run_faults}, {"flips", run_flips}, {"heads", run_heads}};
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
        "usage: crash images|faults|flips|heads [--count N] [--every N] [--seed N] [--only N] [--control journal|tables]\n");
    return 2;
}

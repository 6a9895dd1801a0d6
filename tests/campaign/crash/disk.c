/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/campaign/crash/disk.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES_MAX 8
#define NEVER     SIZE_MAX

/* ld --wrap calls what it wraps __wrap_NAME and the original __real_NAME. */
#define LINKER_NAME(name) __asm__("__" #name)

void *real_malloc(size_t size) LINKER_NAME(real_malloc);
void *real_calloc(size_t n, size_t size) LINKER_NAME(real_calloc);
void *real_realloc(void *at, size_t size) LINKER_NAME(real_realloc);
void *wrap_malloc(size_t size) LINKER_NAME(wrap_malloc);
void *wrap_calloc(size_t n, size_t size) LINKER_NAME(wrap_calloc);
void *wrap_realloc(void *at, size_t size) LINKER_NAME(wrap_realloc);

struct write {
    size_t file;
    size_t offset;
    size_t len;
    uint8_t *data;
    size_t begun; /* moments */
    size_t ended;
    size_t durable; /* from this moment on, NEVER if nobody waited for it */
};

struct mark {
    size_t moment;
    uint64_t acked;
    uint64_t registered;
};

static struct {
    pthread_mutex_t mutex;
    char directory[128];
    char files[FILES_MAX][32];
    size_t n_files;
    struct write *writes;
    size_t n_writes;
    struct mark *marks;
    size_t n_marks;
    size_t moment;
    /* Faults. */
    _Atomic uint64_t calls[DISK_CALLS];
    _Atomic uint64_t nth; /* 0: none */
    _Atomic bool has_failed;
    enum disk_call call;
    enum disk_fault fault;
} disk = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void *grown(void *list, size_t n, size_t size)
{
    if ((n & (n - 1)) == 0) {
        list = real_realloc(list, (n > 0 ? 2 * n : 1) * size);
        if (list == NULL) {
            abort();
        }
    }
    return list;
}

/* --- faults -------------------------------------------------------------------------------------- */

static const int errors[DISK_FAULTS] = {[DISK_EIO] = EIO,
                                        [DISK_ENOSPC] = ENOSPC,
                                        [DISK_EINTR] = EINTR,
                                        [DISK_SHORT] = 0,
                                        [DISK_ENOMEM] = ENOMEM};

static _Thread_local bool is_spared;

void disk_spare(bool spared)
{
    is_spared = spared;
}

static bool is_to_fail(enum disk_call call)
{
    if (is_spared && call == DISK_ALLOC) {
        return false;
    }
    uint64_t n = atomic_fetch_add(&disk.calls[call], 1) + 1;
    if (call != disk.call || n != atomic_load(&disk.nth)) {
        return false;
    }
    atomic_store(&disk.has_failed, true);
    errno = errors[disk.fault];
    return true;
}

void disk_fail(enum disk_call call, uint64_t nth, enum disk_fault fault)
{
    (void)disk_heal();
    disk.call = call;
    disk.fault = fault;
    atomic_store(&disk.nth, nth);
}

bool disk_heal(void)
{
    atomic_store(&disk.nth, 0);
    for (size_t i = 0; i < DISK_CALLS; i++) {
        atomic_store(&disk.calls[i], 0);
    }
    return atomic_exchange(&disk.has_failed, false);
}

uint64_t disk_calls(enum disk_call call)
{
    return atomic_load(&disk.calls[call]);
}

/* --- what is kept ---------------------------------------------------------------------------------- */

/* The file behind @fd if it is to be watched. With the mutex. */
static bool find_file(int fd, size_t *ret_file)
{
    char link[64];
    char path[256];
    size_t len = strlen(disk.directory);
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = len > 0 ? readlink(link, path, sizeof(path) - 1) : -1;
    if (n <= (ssize_t)len || memcmp(path, disk.directory, len) != 0 || path[len] != '/') {
        return false;
    }
    path[n] = 0;
    const char *name = path + len + 1;
    if (strcmp(name, "LOCK") == 0 || strcmp(name, "lock.mdb") == 0 || strlen(name) >= sizeof(disk.files[0])) {
        return false;
    }
    for (*ret_file = 0; *ret_file < disk.n_files; (*ret_file)++) {
        if (strcmp(disk.files[*ret_file], name) == 0) {
            return true;
        }
    }
    if (disk.n_files == FILES_MAX) {
        abort();
    }
    (void)snprintf(disk.files[disk.n_files++], sizeof(disk.files[0]), "%s", name);
    return true;
}

/* Return: the number of the write, NEVER if it is not watched. */
static size_t write_begin(int fd, size_t offset, const struct iovec *parts, int n_parts)
{
    size_t file = 0;
    size_t number = NEVER;
    (void)pthread_mutex_lock(&disk.mutex);
    if (find_file(fd, &file)) {
        struct write one = {.file = file, .offset = offset, .ended = NEVER, .durable = NEVER};
        for (int i = 0; i < n_parts; i++) {
            one.data = real_realloc(one.data, one.len + parts[i].iov_len + 1);
            if (one.data == NULL) {
                abort();
            }
            memcpy(one.data + one.len, parts[i].iov_base, parts[i].iov_len);
            one.len += parts[i].iov_len;
        }
        one.begun = disk.moment++;
        disk.writes = grown(disk.writes, disk.n_writes, sizeof(one));
        number = disk.n_writes;
        disk.writes[disk.n_writes++] = one;
    }
    (void)pthread_mutex_unlock(&disk.mutex);
    return number;
}

static void write_end(int fd, size_t number, ssize_t n)
{
    int error = errno;
    if (number != NEVER) {
        bool is_durable = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
        (void)pthread_mutex_lock(&disk.mutex);
        struct write *one = &disk.writes[number];
        one->len = n < 0 ? 0 : (size_t)n;
        one->ended = disk.moment++;
        one->durable = is_durable && n >= 0 ? one->ended : NEVER;
        (void)pthread_mutex_unlock(&disk.mutex);
    }
    errno = error;
}

/* What was written before the call that has returned now. */
static void sync_end(int fd, size_t begun, int result)
{
    size_t file = 0;
    int error = errno;
    (void)pthread_mutex_lock(&disk.mutex);
    if (result == 0 && find_file(fd, &file)) {
        size_t now = disk.moment++;
        for (size_t i = 0; i < disk.n_writes; i++) {
            struct write *one = &disk.writes[i];
            if (one->file == file && one->ended < begun && one->durable == NEVER) {
                one->durable = now;
            }
        }
    }
    (void)pthread_mutex_unlock(&disk.mutex);
    errno = error;
}

void disk_watch(const char *directory)
{
    (void)pthread_mutex_lock(&disk.mutex);
    (void)snprintf(disk.directory, sizeof(disk.directory), "%s", directory != NULL ? directory : "");
    (void)pthread_mutex_unlock(&disk.mutex);
}

void disk_mark(uint64_t acked, uint64_t registered)
{
    (void)pthread_mutex_lock(&disk.mutex);
    disk.marks = grown(disk.marks, disk.n_marks, sizeof(*disk.marks));
    disk.marks[disk.n_marks++] = (struct mark){disk.moment++, acked, registered};
    (void)pthread_mutex_unlock(&disk.mutex);
}

size_t disk_moments(void)
{
    (void)pthread_mutex_lock(&disk.mutex);
    size_t moment = disk.moment;
    (void)pthread_mutex_unlock(&disk.mutex);
    return moment;
}

void disk_marked(size_t moment, uint64_t *ret_acked, uint64_t *ret_registered)
{
    *ret_acked = *ret_registered = 0;
    for (size_t i = 0; i < disk.n_marks && disk.marks[i].moment < moment; i++) {
        *ret_acked = disk.marks[i].acked;
        *ret_registered = disk.marks[i].registered;
    }
}

void disk_forget(void)
{
    for (size_t i = 0; i < disk.n_writes; i++) {
        free(disk.writes[i].data);
    }
    free(disk.writes);
    free(disk.marks);
    disk.writes = NULL;
    disk.marks = NULL;
    disk.n_writes = disk.n_marks = disk.n_files = disk.moment = 0;
}

/* --- images ---------------------------------------------------------------------------------------- */

struct image {
    uint8_t *data;
    size_t len;
    size_t room;
};

static uint64_t next_random(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t x = *state;
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static void put(struct image *image, size_t offset, const uint8_t *data, size_t len)
{
    if (offset + len > image->room) {
        image->room = 2 * (offset + len);
        image->data = real_realloc(image->data, image->room);
        if (image->data == NULL) {
            abort();
        }
    }
    if (offset + len > image->len) {
        memset(image->data + image->len, 0, offset + len - image->len);
        image->len = offset + len;
    }
    memcpy(image->data + offset, data, len);
}

/* Each sector of a write that nobody waited for, as luck has it. The file has grown all the same. */
static void
put_some(struct image *image, const struct write *one, size_t sector, unsigned per_100, uint64_t *random)
{
    for (size_t at = 0; at < one->len;) {
        size_t end = (one->offset + at) / sector * sector + sector;
        size_t n = end - one->offset - at < one->len - at ? end - one->offset - at : one->len - at;
        if (next_random(random) % 100 < per_100) {
            put(image, one->offset + at, one->data + at, n);
        }
        at += n;
    }
}

static bool is_durable(const struct write *one, size_t moment, enum disk_lie lie)
{
    bool is_journal = strncmp(disk.files[one->file], "journal", 7) == 0;
    bool is_lie = lie == DISK_NO_JOURNAL_SYNC ? is_journal : lie == DISK_NO_TABLE_SYNC && !is_journal;
    return one->durable < moment && !is_lie;
}

static void save(const struct image *image, const char *to, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "%s/%s", to, name);
    FILE *file = fopen(path, "w");
    if (file == NULL || fwrite(image->data, 1, image->len, file) != image->len || fclose(file) != 0) {
        perror(path);
        abort();
    }
}

void disk_image(size_t moment,
                uint64_t seed,
                enum disk_luck luck,
                size_t sector,
                enum disk_lie lie,
                const char *to)
{
    struct image images[FILES_MAX] = {{NULL, 0, 0}};
    uint64_t random = seed;
    size_t n_open = 0;
    for (size_t i = 0; i < disk.n_writes; i++) {
        n_open += disk.writes[i].begun < moment && !is_durable(&disk.writes[i], moment, lie);
    }
    size_t torn = n_open > 0 ? (size_t)(next_random(&random) % n_open) : 0;
    size_t nth_open = 0;
    for (size_t i = 0; i < disk.n_writes && disk.writes[i].begun < moment; i++) {
        static const unsigned per_100[DISK_LUCKS] = {
            [DISK_NONE] = 0, [DISK_ALL] = 100, [DISK_HALF] = 50, [DISK_TENTH] = 10};
        const struct write *one = &disk.writes[i];
        unsigned chance = per_100[luck];
        if (is_durable(one, moment, lie)) {
            chance = 100;
        } else if (luck == DISK_TORN) {
            chance = nth_open < torn ? 100 : nth_open == torn ? 50 : 0;
            nth_open++;
        }
        put_some(&images[one->file], one, sector, chance, &random);
    }
    for (size_t i = 0; i < disk.n_files; i++) {
        if (images[i].len > 0) {
            save(&images[i], to, disk.files[i]);
        }
        free(images[i].data);
    }
}

/* --- the calls ------------------------------------------------------------------------------------- */

typedef ssize_t pwrite_fn(int fd, const void *data, size_t len, off_t offset);
typedef ssize_t write_fn(int fd, const void *data, size_t len);
typedef ssize_t writev_fn(int fd, const struct iovec *parts, int n);
typedef int sync_fn(int fd);

/* The one behind ours. Looked up each time: a cache would be one more thing that threads share. */
static void *behind(const char *name)
{
    void *call = dlsym(RTLD_NEXT, name);
    if (call == NULL) {
        abort();
    }
    return call;
}

static bool is_watched(int fd)
{
    size_t file = 0;
    (void)pthread_mutex_lock(&disk.mutex);
    bool found = find_file(fd, &file);
    (void)pthread_mutex_unlock(&disk.mutex);
    return found;
}

static bool fails(enum disk_call call, int fd)
{
    return is_watched(fd) && is_to_fail(call);
}

#pragma GCC visibility push(default)
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): those of libc are reserved */

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset)
{
    struct iovec part = {(void *)(uintptr_t)data, len};
    if (fails(DISK_WRITE, fd)) {
        if (disk.fault != DISK_SHORT) {
            return -1;
        }
        part.iov_len = len = len / 2;
    }
    size_t number = write_begin(fd, (size_t)offset, &part, 1);
    ssize_t n = ((pwrite_fn *)behind("pwrite"))(fd, data, len, offset);
    write_end(fd, number, n);
    return n;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off_t offset);
ssize_t pwrite64(int fd, const void *data, size_t len, off_t offset)
{
    return pwrite(fd, data, len, offset);
}

ssize_t write(int fd, const void *data, size_t len)
{
    struct iovec part = {(void *)(uintptr_t)data, len};
    return writev(fd, &part, 1);
}

ssize_t writev(int fd, const struct iovec *parts, int n_parts)
{
    struct iovec half = n_parts > 0 ? parts[0] : (struct iovec){NULL, 0};
    if (fails(DISK_WRITE, fd)) {
        if (disk.fault != DISK_SHORT) {
            return -1;
        }
        half.iov_len /= 2;
        parts = &half;
        n_parts = 1;
    }
    off_t offset = is_watched(fd) ? lseek(fd, 0, SEEK_CUR) : 0;
    size_t number = write_begin(fd, (size_t)offset, parts, n_parts);
    ssize_t n = ((writev_fn *)behind("writev"))(fd, parts, n_parts);
    write_end(fd, number, n);
    return n;
}

static int sync_by(int fd, const char *name)
{
    if (fails(DISK_SYNC, fd)) {
        return -1;
    }
    size_t begun = disk_moments();
    int r = ((sync_fn *)behind(name))(fd);
    sync_end(fd, begun, r);
    return r;
}

int fsync(int fd)
{
    return sync_by(fd, "fsync");
}

int fdatasync(int fd)
{
    return sync_by(fd, "fdatasync");
}

/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
#pragma GCC visibility pop

void *wrap_malloc(size_t size)
{
    return is_to_fail(DISK_ALLOC) ? NULL : real_malloc(size);
}

void *wrap_calloc(size_t n, size_t size)
{
    return is_to_fail(DISK_ALLOC) ? NULL : real_calloc(n, size);
}

void *wrap_realloc(void *at, size_t size)
{
    return is_to_fail(DISK_ALLOC) ? NULL : real_realloc(at, size);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Preloaded into busbard: nothing is waited for, so that what is acknowledged lies in the page cache. A campaign that does not find this out
 * proves nothing.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

#pragma GCC visibility push(default)

typedef int open_fn(int directory, const char *path, int flags, ...);

static int open_lazily(int directory, const char *path, int flags, mode_t mode)
{
    open_fn *next = (open_fn *)dlsym(RTLD_NEXT, "openat");
    if (next == NULL) {
        abort();
    }
    return next(directory, path, flags & ~(O_DSYNC | O_SYNC | O_DIRECT), mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_lazily(directory, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = (flags & O_CREAT) != 0 ? va_arg(args, mode_t) : 0;
    va_end(args);
    return open_lazily(AT_FDCWD, path, flags, mode);
}

int fdatasync(int fd)
{
    (void)fd;
    return 0;
}

int fsync(int fd)
{
    (void)fd;
    return 0;
}

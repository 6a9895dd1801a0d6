/* SPDX-License-Identifier: Apache-2.0 */
/* A busbard of one's own: a child process behind a socket in a temporary directory. */
#pragma once

#include <sys/types.h>

struct child {
    const char *program;
    char dir[64];
    char url[96];
    pid_t pid;
};

/** child_start() - @program is the path of busbard; it is ready when the library says so. */
void child_start(struct child *child, const char *program);

/** child_restart() - kill it without warning and start another at the same place. */
void child_restart(struct child *child);

/** child_stop() - end it; it must end well. */
void child_stop(struct child *child);

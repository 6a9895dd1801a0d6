/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/race/child.h"

#include "tests/check.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void spawn(struct child *child)
{
    char *const argv[] = {(char[]){"busbard"}, (char[]){"--listen"}, child->url, NULL};
    CHECK_INT(posix_spawn(&child->pid, child->program, NULL, NULL, argv, environ), 0);
}

static int end(struct child *child, int signal)
{
    int status = 0;
    CHECK_INT(kill(child->pid, signal), 0);
    CHECK_INT(waitpid(child->pid, &status, 0), child->pid);
    return status;
}

void child_start(struct child *child, const char *program)
{
    *child = (struct child){.program = program, .dir = "/tmp/busbar-race-XXXXXX"};
    CHECK(mkdtemp(child->dir) != NULL);
    (void)snprintf(child->url, sizeof(child->url), "ipc://%s/bus", child->dir);
    spawn(child);
}

void child_restart(struct child *child)
{
    (void)end(child, SIGKILL);
    spawn(child);
}

void child_stop(struct child *child)
{
    int status = end(child, SIGTERM);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), 0);
    (void)unlink(child->url + strlen("ipc://"));
    (void)rmdir(child->dir);
}

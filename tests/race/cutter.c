/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/race/cutter.h"

#include "tests/check.h"

#include <poll.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BUDGET_MIN 512
#define BUDGET_MAX 32768

static struct sockaddr_un address_of(const char *url)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int len = snprintf(address.sun_path, sizeof(address.sun_path), "%s", url + strlen("ipc://"));
    CHECK(len > 0 && (size_t)len < sizeof(address.sun_path));
    return address;
}

/* Bytes that the next link may carry, both ways together. */
static uint64_t next_budget(struct cutter *cutter)
{
    if (atomic_load(&cutter->n_cut) == cutter->cuts) {
        return UINT64_MAX;
    }
    cutter->random ^= cutter->random << 13;
    cutter->random ^= cutter->random >> 7;
    cutter->random ^= cutter->random << 17;
    return BUDGET_MIN + cutter->random % (BUDGET_MAX - BUDGET_MIN);
}

/* What came last before the budget is used up is lost. Whether the link lives. */
static bool pass(int from, int to, uint64_t *budget)
{
    char bytes[4096];
    ssize_t n = recv(from, bytes, sizeof(bytes), 0);
    if (n <= 0 || (uint64_t)n > *budget) {
        *budget = n > 0 ? 0 : *budget;
        return false;
    }
    *budget -= *budget != UINT64_MAX ? (uint64_t)n : 0;
    for (ssize_t sent = 0; sent < n;) {
        ssize_t m = send(to, bytes + sent, (size_t)(n - sent), MSG_NOSIGNAL);
        if (m <= 0) {
            return false;
        }
        sent += m;
    }
    return true;
}

static void relay(struct cutter *cutter, int client, int broker)
{
    struct pollfd fds[] = {{client, POLLIN, 0}, {broker, POLLIN, 0}};
    uint64_t budget = next_budget(cutter);
    bool is_alive = true;
    while (is_alive) {
        CHECK(poll(fds, 2, -1) > 0);
        for (int i = 0; i < 2 && is_alive; i++) {
            is_alive = fds[i].revents == 0 || pass(fds[i].fd, fds[1 - i].fd, &budget);
        }
    }
    if (budget == 0) {
        (void)atomic_fetch_add(&cutter->n_cut, 1);
    }
}

static void *run(void *arg)
{
    struct cutter *cutter = arg;
    struct sockaddr_un address = address_of(cutter->broker);
    int client;
    while ((client = accept(cutter->listener, NULL, NULL)) >= 0) {
        int broker = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        CHECK(broker >= 0);
        if (connect(broker, (struct sockaddr *)&address, sizeof(address)) == 0) {
            relay(cutter, client, broker);
        }
        (void)close(broker);
        (void)close(client);
    }
    return NULL;
}

void cutter_start(struct cutter *cutter, const struct child *child, const char *name, unsigned cuts)
{
    *cutter = (struct cutter){.broker = child->url, .random = 88172645463325252, .cuts = cuts};
    (void)snprintf(cutter->url, sizeof(cutter->url), "ipc://%s/%s", child->dir, name);
    struct sockaddr_un address = address_of(cutter->url);
    cutter->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(cutter->listener >= 0);
    CHECK_INT(bind(cutter->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    CHECK_INT(listen(cutter->listener, 8), 0);
    CHECK_INT(pthread_create(&cutter->thread, NULL, run, cutter), 0);
}

void cutter_stop(struct cutter *cutter)
{
    CHECK_INT(shutdown(cutter->listener, SHUT_RDWR), 0);
    CHECK_INT(pthread_join(cutter->thread, NULL), 0);
    (void)close(cutter->listener);
    (void)unlink(cutter->url + strlen("ipc://"));
}

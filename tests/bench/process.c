/* SPDX-License-Identifier: Apache-2.0 */
/* Processes, files, ports and plain sockets of a run. */
#include "tests/bench/bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S       UINT64_C(1000000000)
#define BACKLOG        2048
#define CONNECT_WAIT   UINT64_C(5000000000)
#define STRINGS        8
#define STRING_MAX     128
#define NAME_MAX_SHOWN 64
#define FILES_MODE     0755
#define CONNECT_PAUSE  2000
#define DIRECTORY_FORM "/tmp/busbar-bench-XXXXXX"

static char directory[] = DIRECTORY_FORM;
static uint16_t ports[BENCH_PORTS];

void bench_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fprintf(stderr, "bench: %s over %s: ", bench_config.contestant, bench_config.transport);
    (void)vfprintf(stderr, format, args);
    (void)fprintf(stderr, "\n");
    va_end(args);
    _exit(EXIT_FAILURE);
}

uint64_t bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

void bench_sleep_until_ns(uint64_t ns)
{
    struct timespec until = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

void bench_sleep_us(uint64_t us)
{
    bench_sleep_until_ns(bench_now_ns() + us * 1000);
}

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static struct sockaddr_un socket_file(size_t i)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/door%zu", directory, i);
    return address;
}

/* The sockets stay open until all ports are known, so that these differ. */
static void find_ports(void)
{
    int fds[BENCH_PORTS];
    for (size_t i = 0; i < BENCH_PORTS; i++) {
        struct sockaddr_in address = loopback(0);
        socklen_t len = sizeof(address);
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fds[i] < 0 || bind(fds[i], (const struct sockaddr *)&address, len) != 0 ||
            getsockname(fds[i], (struct sockaddr *)&address, &len) != 0) {
            bench_fail("no free port: %m");
        }
        ports[i] = ntohs(address.sin_port);
    }
    for (size_t i = 0; i < BENCH_PORTS; i++) {
        (void)close(fds[i]);
    }
}

void bench_setup(void)
{
    if (mkdtemp(directory) == NULL || chmod(directory, FILES_MODE) != 0) {
        bench_fail("%s: %m", directory);
    }
    find_ports();
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)status;
    (void)kind;
    (void)at;
    return remove(path);
}

void bench_cleanup(void)
{
    (void)nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static char *next_string(void)
{
    static char strings[STRINGS][STRING_MAX];
    static size_t next;
    next = (next + 1) % STRINGS;
    return strings[next];
}

const char *bench_file(const char *name)
{
    char *path = next_string();
    (void)snprintf(path, STRING_MAX, "%s/%.*s", directory, NAME_MAX_SHOWN, name);
    return path;
}

uint16_t bench_port(size_t i)
{
    return ports[i];
}

bool bench_is_ipc(void)
{
    return strcmp(bench_config.transport, "ipc") == 0;
}

const char *bench_endpoint(size_t i)
{
    char *endpoint = next_string();
    if (bench_is_ipc()) {
        (void)snprintf(endpoint, STRING_MAX, "ipc://%s/door%zu", directory, i);
    } else {
        (void)snprintf(endpoint, STRING_MAX, "tcp://127.0.0.1:%u", (unsigned)ports[i]);
    }
    return endpoint;
}

static void begin_child(void)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
}

pid_t bench_fork(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        begin_child();
    }
    return pid;
}

pid_t bench_exec(const char *const argv[])
{
    pid_t pid = bench_fork();
    if (pid == 0) {
        int fd = open(bench_file("broker.log"), O_CREAT | O_WRONLY | O_APPEND, 0644);
        (void)dup2(fd, STDOUT_FILENO);
        (void)dup2(fd, STDERR_FILENO);
        char *copy[16] = {NULL};
        for (size_t i = 0; argv[i] != NULL && i + 1 < BB_COUNT(copy); i++) {
            copy[i] = strdup(argv[i]);
        }
        if (copy[0] != NULL) {
            (void)execvp(copy[0], copy);
        }
        _exit(EXIT_FAILURE);
    }
    return pid;
}

static int connect_once(size_t i)
{
    int on = 1;
    int fd = socket(bench_is_ipc() ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in tcp = loopback(ports[i]);
    struct sockaddr_un ipc = socket_file(i);
    int r = bench_is_ipc() ? connect(fd, (const struct sockaddr *)&ipc, sizeof(ipc))
                           : connect(fd, (const struct sockaddr *)&tcp, sizeof(tcp));
    if (r != 0) {
        (void)close(fd);
        return -1;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    return fd;
}

int bench_connect(size_t i)
{
    for (uint64_t begin = bench_now_ns(); bench_now_ns() - begin < CONNECT_WAIT;) {
        int fd = connect_once(i);
        if (fd >= 0) {
            return fd;
        }
        bench_sleep_us(CONNECT_PAUSE);
    }
    bench_fail("nobody listens at %s", bench_endpoint(i));
}

int bench_listen(size_t i)
{
    int on = 1;
    int fd = socket(bench_is_ipc() ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in tcp = loopback(ports[i]);
    struct sockaddr_un ipc = socket_file(i);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int r = bench_is_ipc() ? bind(fd, (const struct sockaddr *)&ipc, sizeof(ipc))
                           : bind(fd, (const struct sockaddr *)&tcp, sizeof(tcp));
    if (r != 0 || listen(fd, BACKLOG) != 0) {
        bench_fail("cannot listen at %s: %m", bench_endpoint(i));
    }
    return fd;
}

void bench_write(int fd, const void *data, size_t len)
{
    const uint8_t *at = data;
    while (len > 0) {
        ssize_t n = write(fd, at, len);
        if (n < 0 && errno != EINTR) {
            _exit(EXIT_SUCCESS);
        }
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
    }
}

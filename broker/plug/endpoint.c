/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/endpoint.h"

#include "proto/base/error.h"

#include <errno.h>
#include <netdb.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define IPC "ipc://"
#define TCP "tcp://"

/* sun_path with its zero */
#define IPC_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path))

void bk_endpoints_fini(struct bk_endpoints *endpoints)
{
    for (size_t i = 0; i < endpoints->n_names; i++) {
        const char *path = endpoints->names[i] + strlen(IPC);
        if (strncmp(endpoints->names[i], IPC, strlen(IPC)) == 0 && *path != '@') {
            (void)unlink(path);
        }
        free(endpoints->names[i]);
    }
    free(endpoints->names);
    *endpoints = (struct bk_endpoints){0};
}

int bk_endpoints_add(struct bk_endpoints *endpoints, const char *name)
{
    char **names = realloc(endpoints->names, (endpoints->n_names + 1) * sizeof(char *));
    char *copy = strdup(name);
    if (names != NULL) {
        endpoints->names = names;
    }
    if (names == NULL || copy == NULL) {
        free(copy);
        return BB_ENOMEM;
    }
    endpoints->names[endpoints->n_names++] = copy;
    return 0;
}

static bool is_loopback(const char *endpoint)
{
    const char *host = endpoint + strlen(TCP);
    char behind = host[strspn(host, "0123456789.")];
    return ((behind == ':' || behind == 0) && strncmp(host, "127.", 4) == 0) ||
           strncmp(host, "localhost:", 10) == 0 || strncmp(host, "[::1]:", 6) == 0 ||
           strncmp(host, "lo:", 3) == 0;
}

/* Whether somebody accepts connections there. */
static bool is_alive(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return false;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
    bool alive = r == 0 || errno == EAGAIN || errno == EINPROGRESS;
    (void)close(fd);
    return alive;
}

static int directories_add(const char *path, struct bb_buf *err)
{
    char part[IPC_PATH_MAX];
    for (const char *at = strchr(path + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        size_t len = (size_t)(at - path);
        memcpy(part, path, len);
        part[len] = 0;
        if (mkdir(part, 0700) != 0 && errno != EEXIST) {
            bb_buf_printf(err, "cannot make the directory %s: %m", part);
            return BB_ESYSTEM;
        }
    }
    return 0;
}

static int check_ipc(const char *endpoint, struct bb_buf *err)
{
    const char *path = endpoint + strlen(IPC);
    if (*path == 0 || strlen(path) >= IPC_PATH_MAX) {
        bb_buf_printf(err, "%s: an ipc path has 1 to %zu bytes", endpoint, IPC_PATH_MAX - 1);
        return BB_EINVAL;
    }
    if (*path == '@' || *path == '*') {
        return 0; /* abstract, or chosen by libzmq */
    }
    struct stat found;
    if (lstat(path, &found) == 0 && !S_ISSOCK(found.st_mode)) {
        bb_buf_printf(err, "%s: there is something that is not a socket", endpoint);
        return BB_EEXISTS;
    }
    if (is_alive(path)) {
        bb_buf_printf(err, "%s: another broker is listening there; stop it or choose another path", endpoint);
        return BB_EEXISTS;
    }
    return directories_add(path, err);
}

int bk_endpoint_check(const char *endpoint, bool insecure, struct bb_buf *err)
{
    bb_buf_reset(err);
    if (strncmp(endpoint, IPC, strlen(IPC)) == 0) {
        return check_ipc(endpoint, err);
    }
    if (strncmp(endpoint, TCP, strlen(TCP)) != 0) {
        bb_buf_printf(err, "%s: an endpoint begins with tcp:// or ipc://", endpoint);
        return BB_EINVAL;
    }
    if (!insecure && !is_loopback(endpoint)) {
        bb_buf_printf(err,
                      "%s: not a loopback address, and this version has no encryption; "
                      "bind to 127.0.0.1, or say --insecure if the network is trusted",
                      endpoint);
        return BB_EREFUSED;
    }
    return 0;
}

/* --- listening ------------------------------------------------------------------------------------ */

#define BACKLOG 1024

static int fail(struct bb_buf *err, const char *endpoint, int error)
{
    errno = error;
    bb_buf_printf(err, "cannot bind %s: %m", endpoint);
    return error == EADDRINUSE ? BB_EEXISTS : BB_ESYSTEM;
}

static int bind_and_listen(int fd, const struct sockaddr *address, socklen_t len)
{
    return bind(fd, address, len) == 0 && listen(fd, BACKLOG) == 0 ? 0 : -1;
}

static int listen_ipc(const char *endpoint, struct bb_buf *err, int *ret_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = endpoint + strlen(IPC);
    socklen_t len = sizeof(address);
    memcpy(address.sun_path, path, strlen(path) + 1);
    if (strcmp(path, "*") == 0) {
        bb_buf_printf(err, "%s: the main door needs a path", endpoint);
        return BB_EINVAL;
    }
    if (*path == '@') { /* abstract: a zero instead of the @, and no zero at the end */
        address.sun_path[0] = 0;
        len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    } else {
        (void)unlink(path); /* left behind: nobody answers there */
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind_and_listen(fd, (const struct sockaddr *)&address, len) < 0) {
        int r = fail(err, endpoint, errno);
        if (fd >= 0) {
            (void)close(fd);
        }
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* Host and port of tcp://HOST:PORT; a `*` is any. */
static int split(const char *endpoint, char host[256], char port[16])
{
    const char *start = endpoint + strlen(TCP);
    const char *colon = strrchr(start, ':');
    if (colon == NULL || colon == start || (size_t)(colon - start) >= 256) {
        return BB_EINVAL;
    }
    const char *number = strcmp(colon + 1, "*") == 0 ? "0" : colon + 1;
    size_t n_digits = strspn(number, "0123456789");
    if (n_digits == 0 || n_digits > 5 || number[n_digits] != 0 || strtoul(number, NULL, 10) > UINT16_MAX) {
        return BB_EINVAL;
    }
    memcpy(port, number, n_digits + 1);
    size_t len = (size_t)(colon - start);
    if (*start == '[' && colon[-1] == ']') {
        start++;
        len -= 2;
    }
    memcpy(host, start, len);
    host[len] = 0;
    return 0;
}

static int listen_address(const struct addrinfo *info)
{
    const int one = 1;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind_and_listen(fd, info->ai_addr, info->ai_addrlen) < 0) {
        int error = errno;
        (void)close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

/* tcp://ADDRESS:PORT as it was bound. */
static int bound_name(int fd, char name[320])
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    char host[256];
    char port[16];
    if (getsockname(fd, (struct sockaddr *)&address, &len) != 0 ||
        getnameinfo((struct sockaddr *)&address, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
        return BB_ESYSTEM;
    }
    bool is_v6 = address.ss_family == AF_INET6;
    (void)snprintf(name, 320, "tcp://%s%s%s:%s", is_v6 ? "[" : "", host, is_v6 ? "]" : "", port);
    return 0;
}

static int listen_tcp(const char *endpoint, struct bb_buf *err, char name[320], int *ret_fd)
{
    char host[256];
    char port[16];
    struct addrinfo *info = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    if (split(endpoint, host, port) < 0) {
        bb_buf_printf(err, "%s: an endpoint is tcp://HOST:PORT; the port may be *", endpoint);
        return BB_EINVAL;
    }
    if (strchr(host, ':') == NULL) {
        hints.ai_family = AF_INET; /* also of names: where peers look unless they ask for the other */
    }
    int error = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &info);
    if (error != 0) {
        bb_buf_printf(err, "%s: %s", endpoint, gai_strerror(error));
        return BB_EINVAL;
    }
    int fd = listen_address(info);
    freeaddrinfo(info);
    if (fd < 0) {
        return fail(err, endpoint, errno);
    }
    if (bound_name(fd, name) < 0) {
        int r = fail(err, endpoint, errno);
        (void)close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int bk_endpoint_listen(const char *endpoint,
                       bool insecure,
                       struct bk_endpoints *endpoints,
                       struct bb_buf *err,
                       int *ret_fd)
{
    char name[320];
    int fd = -1;
    int r = bk_endpoint_check(endpoint, insecure, err);
    bool is_ipc = strncmp(endpoint, IPC, strlen(IPC)) == 0;
    if (r == 0) {
        r = is_ipc ? listen_ipc(endpoint, err, &fd) : listen_tcp(endpoint, err, name, &fd);
    }
    if (r == 0) {
        r = bk_endpoints_add(endpoints, is_ipc ? endpoint : name);
    }
    if (r < 0 && fd >= 0) {
        (void)close(fd);
    }
    if (r == 0) {
        *ret_fd = fd;
    }
    return r;
}

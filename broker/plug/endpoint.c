/* SPDX-License-Identifier: Apache-2.0 */
#include "broker/plug/endpoint.h"

#include "proto/base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#define IPC "ipc://"
#define TCP "tcp://"

/* sun_path with its zero */
#define IPC_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path))

void bk_endpoints_fini(struct bk_endpoints *endpoints)
{
    for (size_t i = 0; i < endpoints->n_names; i++) {
        free(endpoints->names[i]);
    }
    free(endpoints->names);
    *endpoints = (struct bk_endpoints){0};
}

static int endpoints_add(struct bk_endpoints *endpoints, const char *name)
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
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost:", 10) == 0 || strncmp(host, "[::1]:", 6) == 0 ||
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
            bb_buf_printf(err, "cannot make the directory %s: %s", part, strerror(errno));
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
    if (is_alive(path)) {
        bb_buf_printf(err, "%s: another broker is listening there; stop it or choose another path", endpoint);
        return BB_EEXISTS;
    }
    return directories_add(path, err);
}

static int check(const char *endpoint, bool insecure, struct bb_buf *err)
{
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

int bk_endpoint_bind(void *socket,
                     const char *endpoint,
                     bool insecure,
                     struct bk_endpoints *endpoints,
                     struct bb_buf *err)
{
    char name[256];
    size_t len = sizeof(name);
    bb_buf_reset(err);
    int r = check(endpoint, insecure, err);
    if (r < 0) {
        return r;
    }
    if (zmq_bind(socket, endpoint) != 0) {
        int error = zmq_errno();
        bb_buf_printf(err, "cannot bind %s: %s", endpoint, zmq_strerror(error));
        return error == EADDRINUSE ? BB_EEXISTS : error == EINVAL ? BB_EINVAL : BB_ESYSTEM;
    }
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, name, &len) != 0) {
        bb_buf_printf(err, "%s: %s", endpoint, zmq_strerror(zmq_errno()));
        return BB_ESYSTEM;
    }
    return endpoints_add(endpoints, name);
}

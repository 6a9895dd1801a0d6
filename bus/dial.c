/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/dial.h"

#include "proto/base/buf.h"
#include "proto/base/error.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

#define IPC "ipc://"
#define TCP "tcp://"

#define HOST_MAX 256
#define PORT_MAX 8

/* Shared by who asked and the thread that looks. */
struct bb_lookup {
    atomic_uint refs;
    atomic_bool is_done;
    int event_fd;
    int error; /* of getaddrinfo() */
    struct bb_addresses found;
    char host[HOST_MAX];
    char port[PORT_MAX];
};

/* --- names -------------------------------------------------------------------------------------- */

static int look_up(const char *host, const char *port, int flags, struct bb_addresses *found)
{
    struct addrinfo *list = NULL;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | flags};
    int error = getaddrinfo(host, port, &hints, &list);
    found->n = 0;
    for (const struct addrinfo *at = error == 0 ? list : NULL; at != NULL; at = at->ai_next) {
        if (found->n < BB_ADDRESSES_MAX && at->ai_addrlen <= sizeof(struct sockaddr_storage)) {
            struct bb_address *address = &found->all[found->n++];
            memcpy(&address->any, at->ai_addr, at->ai_addrlen);
            address->len = at->ai_addrlen;
        }
    }
    if (error == 0) {
        freeaddrinfo(list);
    }
    return error;
}

static void lookup_unref(struct bb_lookup *lookup)
{
    if (lookup != NULL && atomic_fetch_sub_explicit(&lookup->refs, 1, memory_order_acq_rel) == 1) {
        (void)close(lookup->event_fd);
        free(lookup);
    }
}

static void *lookup_run(void *arg)
{
    struct bb_lookup *lookup = arg;
    uint64_t one = 1;
    lookup->error = look_up(lookup->host, lookup->port, 0, &lookup->found);
    atomic_store_explicit(&lookup->is_done, true, memory_order_release);
    (void)!write(lookup->event_fd, &one, sizeof(one));
    lookup_unref(lookup);
    return NULL;
}

/* Signals are the application's business. */
static int lookup_begin(struct bb_lookup *lookup)
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all;
    sigset_t old;
    if (pthread_attr_init(&attr) != 0) {
        return BB_ESYSTEM;
    }
    (void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&thread, &attr, lookup_run, lookup);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void)pthread_attr_destroy(&attr);
    return r == 0 ? 0 : BB_ESYSTEM;
}

static int lookup_new(const char *host, const char *port, struct bb_lookup **ret_lookup)
{
    struct bb_lookup *lookup = calloc(1, sizeof(*lookup));
    if (lookup == NULL) {
        return BB_ENOMEM;
    }
    (void)snprintf(lookup->host, sizeof(lookup->host), "%s", host);
    (void)snprintf(lookup->port, sizeof(lookup->port), "%s", port);
    lookup->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    atomic_init(&lookup->refs, 2);
    int r = lookup->event_fd < 0 ? BB_ESYSTEM : lookup_begin(lookup);
    if (r < 0) {
        if (lookup->event_fd >= 0) {
            (void)close(lookup->event_fd);
        }
        free(lookup);
        return r;
    }
    *ret_lookup = lookup;
    return 0;
}

/* --- urls --------------------------------------------------------------------------------------- */

static int start_ipc(struct bb_dial *dial, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof(address.sun_path)) {
        return BB_EINVAL;
    }
    memcpy(address.sun_path, path, len + 1);
    dial->addresses.n = 1;
    dial->addresses.all[0].len = sizeof(address);
    if (*path == '@') { /* abstract: a zero instead of the @, and no zero at the end */
        address.sun_path[0] = 0;
        dial->addresses.all[0].len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    }
    memcpy(&dial->addresses.all[0].any, &address, sizeof(address));
    return 0;
}

/* Host and port of HOST:PORT, the host perhaps in brackets. */
static int split(const char *rest, char host[HOST_MAX], char port[PORT_MAX])
{
    const char *colon = strrchr(rest, ':');
    if (colon == NULL || colon == rest || strlen(colon + 1) >= PORT_MAX || colon - rest >= HOST_MAX) {
        return BB_EINVAL;
    }
    bool is_bracketed = *rest == '[' && colon - rest > 1 && colon[-1] == ']';
    size_t len = (size_t)(colon - rest) - (is_bracketed ? 2 : 0);
    memcpy(host, rest + is_bracketed, len);
    host[len] = 0;
    (void)snprintf(port, PORT_MAX, "%s", colon + 1);
    return 0;
}

static int start_tcp(struct bb_dial *dial, const char *rest)
{
    char host[HOST_MAX];
    char port[PORT_MAX];
    int r = split(rest, host, port);
    if (r < 0 || look_up(host, port, AI_NUMERICHOST, &dial->addresses) == 0) {
        return r;
    }
    r = lookup_new(host, port, &dial->lookup);
    return r < 0 ? r : 1;
}

int bb_dial_start(struct bb_dial *dial, const char *url)
{
    *dial = (struct bb_dial){0};
    if (strncmp(url, IPC, strlen(IPC)) == 0) {
        return start_ipc(dial, url + strlen(IPC));
    }
    return strncmp(url, TCP, strlen(TCP)) == 0 ? start_tcp(dial, url + strlen(TCP)) : BB_EINVAL;
}

int bb_dial_fd(const struct bb_dial *dial)
{
    return dial->lookup->event_fd;
}

int bb_dial_look(struct bb_dial *dial, const char **ret_text)
{
    struct bb_lookup *lookup = dial->lookup;
    if (!atomic_load_explicit(&lookup->is_done, memory_order_acquire)) {
        return 1;
    }
    dial->addresses = lookup->found;
    if (dial->addresses.n == 0) {
        *ret_text = gai_strerror(lookup->error != 0 ? lookup->error : EAI_NONAME);
        return BB_ECONNECT;
    }
    return 0;
}

void bb_dial_fini(struct bb_dial *dial)
{
    lookup_unref(dial->lookup);
    *dial = (struct bb_dial){0};
}

/* --- sockets ------------------------------------------------------------------------------------ */

static int close_failed(int fd)
{
    int error = errno;
    (void)close(fd);
    errno = error;
    return -1;
}

int bb_dial_next(struct bb_dial *dial)
{
    const struct bb_address *address = &dial->addresses.all[dial->next++];
    int family = address->any.ss_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    if (family != AF_UNIX) {
        const int one = 1;
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    int r = connect(fd, (const struct sockaddr *)&address->any, address->len);
    return r == 0 || errno == EINPROGRESS || errno == EINTR ? fd : close_failed(fd);
}

/* A port of this machine's own that nobody listens on may be connected to itself. */
static bool is_itself(int fd)
{
    struct sockaddr_storage ours = {0};
    struct sockaddr_storage peers = {0};
    socklen_t our_len = sizeof(ours);
    socklen_t peer_len = sizeof(peers);
    return getsockname(fd, (struct sockaddr *)&ours, &our_len) == 0 && ours.ss_family != AF_UNIX &&
           getpeername(fd, (struct sockaddr *)&peers, &peer_len) == 0 && our_len == peer_len &&
           memcmp(&ours, &peers, our_len) == 0;
}

int bb_dial_check(int fd)
{
    struct pollfd pollfd = {.fd = fd, .events = POLLOUT};
    int error = 0;
    socklen_t len = sizeof(error);
    if (poll(&pollfd, 1, 0) <= 0) {
        return 0;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0) {
        errno = error != 0 ? error : errno;
        return -1;
    }
    if (is_itself(fd)) {
        errno = ECONNREFUSED;
        return -1;
    }
    return 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "bus/urls.h"

#include "proto/base/buf.h"
#include "proto/base/endpoint.h"
#include "proto/base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>

/* The path of a UNIX socket ends with a zero. */
#define IPC_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

#define PORT_MAX 65535

/* What is wrong with what follows the scheme; NULL if nothing is. */
typedef const char *judge_fn(struct bb_slice rest);

static bool is_port(const uint8_t *digits, const uint8_t *end)
{
    unsigned port = 0;
    for (; digits < end && *digits >= '0' && *digits <= '9' && port <= PORT_MAX; digits++) {
        port = port * 10 + (unsigned)(*digits - '0');
    }
    return digits == end && port > 0 && port <= PORT_MAX;
}

static const char *judge_tcp(struct bb_slice rest)
{
    const uint8_t *end = rest.data + rest.len;
    const uint8_t *port = end;
    while (port > rest.data && port[-1] != ':') {
        port--;
    }
    if (port - rest.data < 2) {
        return "tcp:// is followed by HOST:PORT";
    }
    for (const uint8_t *p = rest.data; p < port; p++) {
        if (*p <= ' ' || *p == '/') {
            return "this is no host";
        }
    }
    return is_port(port, end) ? NULL : "a port is a number from 1 to 65535";
}

static const char *judge_ipc(struct bb_slice rest)
{
    if (rest.len == 0) {
        return "ipc:// is followed by a path";
    }
    return rest.len > IPC_PATH_MAX ? "the path of a socket has at most 107 bytes" : NULL;
}

static const struct {
    const char *scheme;
    judge_fn *judge;
} scheme_rows[] = {
    {"tcp://", judge_tcp},
    {"ipc://", judge_ipc},
};

static const char *judge(struct bb_slice url)
{
    if (url.len == 0) {
        return "there is an empty url in the list";
    }
    for (size_t i = 0; i < BB_COUNT(scheme_rows); i++) {
        struct bb_slice scheme = bb_slice_str(scheme_rows[i].scheme);
        if (url.len >= scheme.len && memcmp(url.data, scheme.data, scheme.len) == 0) {
            return scheme_rows[i].judge(bb_slice(url.data + scheme.len, url.len - scheme.len));
        }
    }
    return "a url begins with tcp:// or ipc://";
}

static const char *find_default(char *local, size_t size)
{
    const char *url = getenv("BUSBAR_URL");
    if (url != NULL && url[0] != 0) {
        return url;
    }
    return bb_endpoint_default(local, size) == 0 ? local : NULL;
}

int bb_urls_copy(const char *list, char *text, size_t size, char **ret_urls)
{
    char local[BB_ENDPOINT_MAX];
    list = list != NULL ? list : find_default(local, sizeof(local));
    if (list == NULL) {
        (void)snprintf(text, size, "no url was given, and there is no BUSBAR_URL or XDG_RUNTIME_DIR");
        return BB_EINVAL;
    }
    for (const char *at = list;; at++) {
        struct bb_slice url = bb_slice(at, strcspn(at, ","));
        const char *wrong = judge(url);
        if (wrong != NULL) {
            (void)snprintf(text, size, "'%.*s': %s", (int)BB_MIN(url.len, (size_t)128), at, wrong);
            return BB_EINVAL;
        }
        at += url.len;
        if (*at == 0) {
            break;
        }
    }
    size_t len = strlen(list);
    char *urls = calloc(1, len + 2);
    if (urls == NULL) {
        (void)snprintf(text, size, "%s", bb_strerror(BB_ENOMEM));
        return BB_ENOMEM;
    }
    for (size_t i = 0; i < len; i++) {
        urls[i] = list[i];
        if (list[i] == ',') {
            urls[i] = 0;
        }
    }
    *ret_urls = urls;
    return 0;
}

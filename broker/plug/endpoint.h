/* SPDX-License-Identifier: Apache-2.0 */
/* Binding sockets to endpoints, with the checks and options that each of them needs. */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>
#include <stddef.h>

/* Endpoints of one socket, as they are bound (no wildcards left). */
struct bk_endpoints {
    char **names;
    size_t n_names;
};

/** bk_endpoints_fini() - forget them, after their socket was closed; the files of ipc endpoints go. */
void bk_endpoints_fini(struct bk_endpoints *endpoints);

/**
 * bk_endpoint_bind() - bind @socket to @endpoint and note what it was bound to
 * @insecure: tcp beyond loopback may be bound
 * @err:      gets a sentence for a person
 *
 * Directories of an ipc path are made for the user alone. A path on which a broker answers is not taken over.
 *
 * Return: 0, BB_EINVAL (transport or address), BB_EREFUSED (not loopback), BB_EEXISTS (in use), BB_ESYSTEM, BB_ENOMEM.
 */
int bk_endpoint_bind(void *socket,
                     const char *endpoint,
                     bool insecure,
                     struct bk_endpoints *endpoints,
                     struct bb_buf *err);

/** bk_endpoint_listen() - the same for a listening socket of our own, non-blocking, which is the caller's to close. Errors as
 * bk_endpoint_bind(). */
int bk_endpoint_listen(const char *endpoint,
                       bool insecure,
                       struct bk_endpoints *endpoints,
                       struct bb_buf *err,
                       int *ret_fd);

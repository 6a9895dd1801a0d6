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

/** bk_endpoints_add() - note one more. Return: 0 or BB_ENOMEM. */
int bk_endpoints_add(struct bk_endpoints *endpoints, const char *name);

/**
 * bk_endpoint_check() - whether @endpoint may be bound
 * @insecure: tcp beyond loopback may be bound
 * @err:      gets a sentence for a person
 *
 * Directories of an ipc path are made for the user alone. A path on which a broker answers is not taken over.
 *
 * Return: 0, BB_EINVAL (transport or address), BB_EREFUSED (not loopback), BB_EEXISTS (in use), BB_ESYSTEM.
 */
int bk_endpoint_check(const char *endpoint, bool insecure, struct bb_buf *err);

/**
 * bk_endpoint_listen() - check @endpoint, listen on it and note what was bound
 * @ret_fd: non-blocking, the caller's to close
 *
 * Return: as bk_endpoint_check(), or BB_ENOMEM.
 */
int bk_endpoint_listen(const char *endpoint,
                       bool insecure,
                       struct bk_endpoints *endpoints,
                       struct bb_buf *err,
                       int *ret_fd);

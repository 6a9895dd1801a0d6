/* SPDX-License-Identifier: Apache-2.0 */
/* What keeps the channels, of each store one. */
#pragma once

#include "broker/host/state.h"

/**
 * bk_host_open_backends() - open them and hand them to the core
 * @offer: runs the core in a backend's own thread, see struct bk_backend_env
 *
 * Return: 0, or why one cannot be opened, which has been logged.
 */
int bk_host_open_backends(struct bk_host *host, bool (*offer)(void *host));

/** bk_host_dispatch_backends() - let them tell what they have done: all, or those of whose @fds one is readable. */
void bk_host_dispatch_backends(struct bk_host *host, const struct pollfd *fds);

void bk_host_close_backends(struct bk_host *host);

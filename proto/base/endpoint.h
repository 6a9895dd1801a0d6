/* SPDX-License-Identifier: Apache-2.0 */
/* Where a broker listens and a client looks if nobody says otherwise (PROTOCOL 1). */
#pragma once

#include <stddef.h>

#define BB_ENDPOINT_MAX 160

/**
 * bb_endpoint_default() - ipc:///run/busbar/bus for root, ipc://$XDG_RUNTIME_DIR/busbar/bus for others
 *
 * Return: 0; BB_ENOTFOUND without XDG_RUNTIME_DIR, BB_ETOOBIG if it is longer than BB_ENDPOINT_MAX allows.
 */
int bb_endpoint_default(char *endpoint, size_t len);

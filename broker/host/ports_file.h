/* SPDX-License-Identifier: Apache-2.0 */
/* The ports file: what the broker bound, as JSON, for who started it. */
#pragma once

#include "broker/host/host.h"
#include "broker/plug/endpoint.h"

/** bk_ports_file_write() - write the endpoints of each door, all at once (a reader never sees half). Return: 0, BB_ESYSTEM,
 * BB_ENOMEM. */
int bk_ports_file_write(const char *path, const struct bk_endpoints *const doors[BK_DOORS]);

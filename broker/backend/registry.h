/* SPDX-License-Identifier: Apache-2.0 */
/* Which backends there are: the built-in ones by name, others from shared objects (HAT-F20). */
#pragma once

#include "broker/core/backend.h"

/* Most options that a driver may have. */
#define BK_BACKEND_OPTIONS_MAX 32

/**
 * bk_backend_open() - open a backend
 * @name:    of a built-in one, or the file of a shared object (a name with a slash)
 * @options: n_options texts "name=value", checked against the driver's table
 * @env:     directory, listener, meter and log are the caller's; server too; values are filled in here
 * @err:     gets a sentence for a person
 *
 * A shared object stays loaded until the process ends, since its threads may still run in it.
 *
 * Return: 0; BB_ENOTFOUND (no such backend), BB_EVERSION (made for another ABI, or data of another version),
 * BB_EINVAL (options), or what the driver's open() returned.
 */
BB_MUST_CHECK int bk_backend_open(const char *name,
                                  const char *const *options,
                                  size_t n_options,
                                  struct bk_backend_env *env,
                                  struct bk_backend **ret_backend,
                                  struct bb_buf *err);

/** bk_backend_help() - append the names of the built-in backends and their options, for a person. */
void bk_backend_help(struct bb_buf *out);

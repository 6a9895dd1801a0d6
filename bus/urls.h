/* SPDX-License-Identifier: Apache-2.0 */
/* Where the broker is: a list of urls, checked before any of them is tried. */
#pragma once

#include "proto/base/cc.h"

#include <stddef.h>

/**
 * bb_urls_copy() - check a list of urls and take it apart
 * @list:     separated by commas; NULL: $BUSBAR_URL, or the local endpoint
 * @text:     gets the reason as a sentence when 0 is not returned; of @size bytes
 * @ret_urls: each zero-terminated, then an empty one; for the caller to free
 *
 * Return: 0, BB_EINVAL, BB_ENOMEM.
 */
BB_MUST_CHECK int bb_urls_copy(const char *list, char *text, size_t size, char **ret_urls);

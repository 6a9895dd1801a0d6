/* SPDX-License-Identifier: Apache-2.0 */
/* Strict UTF-8 as Unicode defines it: no surrogates, no overlong forms, nothing above U+10FFFF. */
#pragma once

#include "proto/base/cc.h"

#include <stdbool.h>

/** bb_utf8_is_valid() - whether the @len bytes at @data are whole, valid UTF-8; empty text and NUL are valid. */
bool bb_utf8_is_valid(const void *data, size_t len);

/* SPDX-License-Identifier: Apache-2.0 */
/* Base64 with the standard alphabet and padding (RFC 4648 section 4): one text for one sequence of bytes. */
#pragma once

#include "proto/base/buf.h"

/** bb_base64_encode() - append the text for @bytes; a lack of memory shows in the buffer's error. */
void bb_base64_encode(struct bb_buf *out, struct bb_slice bytes);

/**
 * bb_base64_decode() - append the bytes that @text stands for.
 *
 * Strict: only the alphabet, no white space, full padding, and no stray bits before the padding, so that
 * encoding the bytes again gives the same text.
 *
 * Return: 0, BB_EMALFORMED (@out has its old content), or the buffer's error.
 */
int bb_base64_decode(struct bb_buf *out, struct bb_slice text);

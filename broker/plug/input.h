/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What came from a peer and had to be converted or put together. The core may write output before it reads the last of
 * its input, so input lies in bytes that belong to its message and to nothing else; output has memory of its own.
 */
#pragma once

#include "proto/base/buf.h"

#include "broker/core/bytes.h"

/**
 * bk_input_own() - shared bytes of what is in @buf, which is empty afterwards
 *
 * Return: one reference; NULL without memory, and after an error in @buf.
 */
struct bk_bytes *bk_input_own(struct bk_meter *meter, struct bb_buf *buf);

/** bk_input_slice() - all of them. */
static inline struct bb_slice bk_input_slice(const struct bk_bytes *input)
{
    return bb_slice(input->data, input->len);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first thing that sees msgpack from a peer: one pass that allocates nothing, never recurses and
 * stops at the first byte beyond a limit. What passes is well-formed to the last byte and its text is valid
 * UTF-8. Map keys may be of any type. Pure; safe from any thread.
 */
#pragma once

#include "proto/wire/mp.h"

struct bb_scan_limits {
    uint32_t max_depth; /* of nested containers, [] being 1; never more than BB_MP_MAX_DEPTH */
    uint32_t max_items; /* values in all; containers, keys and elements count one each */
    size_t max_bytes;
};

/* The most that is let through anywhere. */
#define BB_SCAN_LIMITS_INIT ((struct bb_scan_limits){BB_MP_MAX_DEPTH, 1u << 20, SIZE_MAX})

/**
 * bb_scan_value() - judge the first value in @len bytes; what follows it is not looked at.
 * @limits: NULL for BB_SCAN_LIMITS_INIT.
 * @ret_len: gets the bytes of that value.
 *
 * Return: 0, BB_EMALFORMED, BB_ETOODEEP, BB_ETOOBIG (items or bytes), or BB_EUTF8.
 */
int bb_scan_value(const uint8_t *p, size_t len, const struct bb_scan_limits *limits, size_t *ret_len);

/** bb_scan_whole() - like bb_scan_value(), but the value must fill the @len bytes, else BB_EMALFORMED. */
int bb_scan_whole(const uint8_t *p, size_t len, const struct bb_scan_limits *limits);

/**
 * bb_scan_values() - judge any number of values that together fill the @len bytes.
 * @limits: of items and bytes together, of depth each; NULL for BB_SCAN_LIMITS_INIT.
 * @ret_count: gets how many values there are; 0 for no bytes.
 */
int bb_scan_values(const uint8_t *p, size_t len, const struct bb_scan_limits *limits, size_t *ret_count);

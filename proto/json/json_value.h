/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One value as msgpack and as JSON, without silent loss of meaning. What JSON cannot hold is an object with
 * exactly one key, which begins with "$":
 *
 *     bin                                {"$binary":"<base64>"}
 *     ext                                {"$ext":[type,"<base64>"]}
 *     uint above INT64_MAX               {"$uint":"<decimal>"}
 *     NaN, infinities                    {"$float":"nan"}, "inf", "-inf"
 *     map with keys that are not str,
 *     with equal keys or NUL in a key    {"$map":[[key,value],...]}
 *     map of one key that begins with $  the same with one "$" more
 *
 * Both directions are exact: msgpack in its shortest form comes back byte for byte. Two things do not
 * come back: a float32, which becomes the float64 of equal value, and what a NaN carries beside being one.
 * Values are nested at most BB_MP_MAX_DEPTH deep. Safe from any thread.
 */
#pragma once

#include "proto/base/buf.h"

#include <jansson.h>

/**
 * bb_json_value_to_mp() - append the msgpack for the one JSON value that is the text.
 * @err: gets a sentence for a person; may be NULL.
 *
 * Return: 0; BB_EMALFORMED, BB_ETOODEEP, BB_ETOOBIG, BB_EUTF8, BB_ENOMEM, and @out has its old content.
 */
int bb_json_value_to_mp(const char *text, size_t len, struct bb_buf *out, struct bb_buf *err);

/**
 * bb_json_to_mp() - append the msgpack for a value that is parsed already.
 * @value: borrowed; from bb_json_parse() or of strings that jansson has checked.
 *
 * Errors as bb_json_value_to_mp().
 */
int bb_json_to_mp(const json_t *value, struct bb_buf *out, struct bb_buf *err);

/**
 * bb_mp_to_json() - append the compact JSON text of the one msgpack value that fills @value.
 *
 * The bytes need not have been scanned before.
 *
 * Return: 0; what bb_scan_whole() says about them or BB_ENOMEM, and @out_text has its old content.
 */
int bb_mp_to_json(struct bb_slice value, struct bb_buf *out_text);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON text: read within limits, and the pieces that take care to write. Pure but for jansson's one-time
 * seed; safe from any thread.
 */
#pragma once

#include "proto/wire/mp.h"

#include <jansson.h>

#define BB_JSON_MAX_BYTES (16u << 20)
/* A value of BB_MP_MAX_DEPTH has up to three brackets a level and two in its innermost form; a message may
 * put a few around it. */
#define BB_JSON_MAX_DEPTH (3 * BB_MP_MAX_DEPTH + 2 + 6)
#define BB_JSON_MAX_ITEMS (1u << 20)

/**
 * bb_json_parse() - read one JSON value, of any type, that fills the text.
 * @err: gets a sentence for a person, with line and column; may be NULL.
 * @ret_value: gets a new reference.
 *
 * Size, nesting, number of values and UTF-8 are judged first, so that jansson never sees text beyond the
 * limits. "\u0000" is kept in strings.
 *
 * Return: 0; BB_EINVAL for JSON that cannot be held: equal keys in one object, an integer beyond int64, a real beyond
 * double, half a surrogate pair, "\u0000" in a key; BB_EMALFORMED, BB_ETOODEEP, BB_ETOOBIG, BB_EUTF8 or BB_ENOMEM.
 */
int bb_json_parse(const char *text, size_t len, struct bb_buf *err, json_t **ret_value);

/** bb_json_write_escaped() - append @text, which is valid UTF-8, as it stands between the quotes of a JSON string. */
void bb_json_write_escaped(struct bb_buf *out, struct bb_slice text);

/** bb_json_write_str() - the same with its quotes. */
void bb_json_write_str(struct bb_buf *out, struct bb_slice text);

/** bb_json_write_double() - append the shortest text that reads back as just the finite @v, always as a real. */
void bb_json_write_double(struct bb_buf *out, double v);

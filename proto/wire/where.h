/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conditions on an event's payload, as a person types them: `.temp > 80 && .state == "on"`.
 *
 *   condition = or;  or = and *( "||" and );  and = not *( "&&" not );  not = [ "!" ] term
 *   term      = "(" condition ")" / field [ operator literal ] / literal operator field
 *   field     = "." / ["."] "[" integer "]" *part / 1*part               ; "." is the payload itself
 *   part      = "." name / "." string / "[" integer "]"                  ; a negative index counts from the end
 *   operator  = "==" / "!=" / "<" / "<=" / ">" / ">=" / "~"              ; "~": the left text contains the right one
 *   literal   = number / string / "true" / "false" / "null"
 *
 * A field that is not there is null and compares only with == and !=. Values of different kinds are never equal and never
 * ordered; integers and floats are numbers and compare exactly. A field alone is true unless it is false, null or not there.
 *
 * Made once, immutable, any thread may ask it. Memory is bounded by the text: BB_WHERE_MAX bytes, nested 32 deep.
 */
#pragma once

#include "proto/base/buf.h"

#include <stdbool.h>

#define BB_WHERE_MAX 4096

struct bb_where;

/**
 * bb_where_parse() - from text
 * @text: distrusted
 * @err:  gets a sentence with the place of the mistake; may be NULL
 *
 * Return: 0, BB_EINVAL, BB_ETOODEEP, BB_ETOOBIG, BB_ENOMEM.
 */
int bb_where_parse(struct bb_slice text, struct bb_where **ret_where, struct bb_buf *err);

void bb_where_free(struct bb_where *where);

/** bb_where_holds() - whether it holds for @payload, one well-formed MessagePack value. Allocates nothing. */
bool bb_where_holds(const struct bb_where *where, struct bb_slice payload);

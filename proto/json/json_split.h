/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values in a JSON array or object as pieces of its text, found by brackets and quotes alone: so what is beside a value
 * that cannot be taken can be read all the same. Whether a piece is JSON is for bb_json_parse() to say. Pure.
 */
#pragma once

#include "proto/base/buf.h"

struct bb_json_split {
    struct bb_slice rest;
    char close; /* of the container: ']' or '}' */
    bool is_behind_first;
    int error; /* BB_EMALFORMED: the text cannot be followed from here on */
};

/** bb_json_split() - the values of the array or object that @text is. */
struct bb_json_split bb_json_split(struct bb_slice text);

/**
 * bb_json_split_next() - the next one
 * @ret_name:  of an object: the text of the member's name, with its quotes
 * @ret_value: the text of the value
 *
 * Return: whether there is one. If not, @split->error says whether the end was found, with nothing behind it.
 */
bool bb_json_split_next(struct bb_json_split *split, struct bb_slice *ret_name, struct bb_slice *ret_value);

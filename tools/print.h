/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the command says. stdout carries data, stderr talk. The output is written out whenever the command is about to
 * wait, so a reader behind a pipe sees each line at once and a flood is not written line by line.
 */
#pragma once

#include "proto/base/cc.h"

#include "bus/busbar.h"

#include <stdbool.h>

enum print_form {
    PRINT_HUMAN, /* `path payload`; gaps on stderr */
    PRINT_JSON,  /* one object a line, gaps too */
    PRINT_RAW,   /* the payload alone; gaps on stderr */
};

/** say() - a sentence to stderr, with the name of the command before and a line end behind it. */
void say(const char *format, ...) BB_PRINTF(1, 2);

/**
 * print_event() - write an event or a gap as one line; the end of retained values only as JSON
 *
 * In the human form a path or text with control characters is written as a JSON string.
 *
 * Return: 0, BB_ENOMEM, or as print_text().
 */
int print_event(enum print_form form, const struct bb_event *event);

/** print_text() - @len bytes to stdout; 0, BB_ECLOSED or BB_ESYSTEM. */
int print_text(const char *text, size_t len);

/**
 * print_flush() - have everything written out
 *
 * Return: 0; BB_ECLOSED when nobody reads stdout any more; BB_ESYSTEM when it cannot be written. What failed once
 * fails for good.
 */
int print_flush(void);

/** print_status() - the exit status for @error of the functions above, which is said, unless nobody reads any more. */
int print_status(int error);

/** print_end() - print_flush(), then print_status(). */
int print_end(void);

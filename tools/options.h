/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options as tables. One row says all there is to know of an option: parsing, help, and completion are made
 * from the same rows. A row names the member of a struct that its value goes to.
 *
 * `-n5`, `-n 5`, `--count 5`, `--count=5` and clusters such as `-qn5` are understood; options may stand before and
 * after operands, `--` ends them, and what begins with `-` and a digit is an operand (a number to publish).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTION_LIST_MAX 64

enum option_kind {
    OPTION_FLAG,     /* bool; takes no argument */
    OPTION_TEXT,     /* const char *, borrowed from argv */
    OPTION_COUNT,    /* uint64_t from 1 */
    OPTION_INTEGER,  /* int32_t */
    OPTION_RATE,     /* double above 0 */
    OPTION_SIZE,     /* uint64_t bytes from 1: 512, 64k, 16M, 2G, 1T */
    OPTION_DURATION, /* int64_t microseconds: 250ms, 2s, 1h30m */
    OPTION_CHOICE,   /* int: the value of one of `choices` */
    OPTION_LIST,     /* struct option_list: every occurrence */
};

struct option_list {
    const char *items[OPTION_LIST_MAX];
    size_t n;
};

struct option_choice {
    const char *name; /* NULL in the row after the last */
    int value;
};

struct option_row {
    char short_name; /* 0 for none */
    enum option_kind kind;
    const char *long_name; /* NULL in the row after the last */
    const char *argument;  /* as shown in help; NULL for a flag */
    const char *help;
    size_t offset; /* of the member in the struct of values */
    const struct option_choice *choices;
};

/* A table of rows and the struct that it fills. */
struct option_set {
    const struct option_row *rows;
    void *values;
};

/**
 * options_parse() - read options into structs and move the operands to the front of @argv
 * @argv:          from the first word to be looked at; reordered
 * @sets:          searched in their order
 * @stop:          end at the first operand; it and all behind it are operands
 * @ret_operands:  how many there are at the front of @argv
 *
 * Return: true, or false when a sentence about what is wrong was written to stderr.
 */
bool options_parse(char **argv,
                   size_t argc,
                   const struct option_set *sets,
                   size_t n_sets,
                   bool stop,
                   size_t *ret_operands);

/** options_print() - the rows as lines of help. */
void options_print(FILE *to, const struct option_row *rows);

/** option_parse_count() - a decimal number of only digits; false if it is none or beyond 64 bits. */
bool option_parse_count(const char *text, uint64_t *ret_value);
